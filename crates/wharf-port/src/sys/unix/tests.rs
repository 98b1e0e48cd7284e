//! What Linux shows of a process's own memory.

use super::*;

/// Whether one mapping of this process holds all of this.
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
fn pages_that_go_are_the_systems_again() {
    // So many that nothing else of this process comes to lie in all of their place.
    let bytes = 256 << 20;
    let pages = Pages::new(bytes).expect("they are not touched");
    let start = pages.at(0).addr().get();
    assert!(is_mapped(start, bytes));
    drop(pages);
    assert!(!is_mapped(start, bytes));
}
