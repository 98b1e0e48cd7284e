//! One section of a page in Markdown, put in or replaced while the others stay as they are.
//!
//! Several commands write the page, and take minutes to hours each. So none may remove what another
//! has measured.

/// The section of `page` under the heading `## title`, to the next of its level, heading included.
pub(super) fn find<'a>(page: &'a str, title: &str) -> Option<&'a str> {
    let (start, end) = bounds(page, title)?;
    Some(&page[start..end])
}

/// The page with `section`, which includes its heading, in place of the section `title`, or at the
/// end.
pub(super) fn put(page: &str, title: &str, section: &str) -> String {
    let section = section.trim_end();
    match bounds(page, title) {
        Some((start, end)) if end < page.len() => {
            format!("{}{section}\n\n{}", &page[..start], &page[end..])
        }
        Some((start, _)) => format!("{}{section}\n", &page[..start]),
        None => format!("{}\n\n{section}\n", page.trim_end()),
    }
}

fn bounds(page: &str, title: &str) -> Option<(usize, usize)> {
    let mut start = None;
    let mut at = 0;
    for line in page.split_inclusive('\n') {
        if let Some(heading) = line.strip_prefix("## ") {
            match start {
                Some(start) => return Some((start, at)),
                None if heading.trim_end() == title => start = Some(at),
                None => {}
            }
        }
        at += line.len();
    }
    start.map(|start| (start, page.len()))
}

#[cfg(test)]
mod tests {
    use super::{find, put};

    const PAGE: &str = "# Page\n\n## One\n\nfirst\n\n### Within\n\n## Two\n\nsecond\n";

    #[test]
    fn a_section_is_replaced_where_it_stands() {
        let one = put(PAGE, "One", "## One\n\nnew\n");
        assert_eq!(one, "# Page\n\n## One\n\nnew\n\n## Two\n\nsecond\n");
        let two = put(PAGE, "Two", "## Two\n\nnew\n\n");
        assert_eq!(two, PAGE.replace("second", "new"));
        assert_eq!(put(&two, "Two", "## Two\n\nsecond"), PAGE);
    }

    #[test]
    fn a_section_that_is_not_there_comes_last() {
        let page = put(PAGE, "Three", "## Three\n\nthird");
        assert_eq!(page, format!("{PAGE}\n## Three\n\nthird\n"));
        assert_eq!(find(&page, "Three"), Some("## Three\n\nthird\n"));
        assert_eq!(find(&page, "Within"), None);
    }
}
