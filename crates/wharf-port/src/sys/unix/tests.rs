//! Memory of the buffer pool, as Linux lists it for this process.

use super::*;

/// Whether a single mapping of this process covers all of this range.
fn is_mapped(start: usize, bytes: usize) -> bool {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("this is Linux");
    maps.lines().any(|line| {
        let range = line.split(' ').next().and_then(|it| it.split_once('-'));
        let (from, to) = range.expect("a line begins with its range");
        let number = |text| usize::from_str_radix(text, 16).expect("in hexadecimal");
        number(from) <= start && start + bytes <= number(to)
    })
}

#[test]
fn dropped_pages_are_unmapped() {
    // So much memory that nothing else in this process can be mapped over all of its range.
    let bytes = 256 << 20;
    let pages = Pages::new(bytes).expect("they are not touched");
    let start = pages.at(0).addr().get();
    assert!(is_mapped(start, bytes));
    drop(pages);
    assert!(!is_mapped(start, bytes));
}
