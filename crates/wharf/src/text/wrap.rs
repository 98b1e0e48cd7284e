//! Lines for people, no longer than the narrowest terminal is wide.
//!
//! The width is always the same, and not that of the terminal: what is printed into a file reads as
//! it did on the screen. What goes on stands under what it belongs to.

use textwrap::{Options, WordSeparator, WordSplitter, WrapAlgorithm};

/// Columns of a line.
pub(crate) const WIDTH: usize = 80;
/// Where the third column of an account begins, behind a name and a number.
pub(crate) const COLUMN: usize = 31;
/// What a sentence that goes on is indented by.
pub(crate) const SENTENCE: usize = 2;
/// Stands for a space at which no line ends.
pub(crate) const TIED: char = '\u{a0}';

/// Breaks a line at its spaces; what follows its first part is indented by so many columns. A word
/// that is longer than that, such as a path, stays whole.
pub(crate) fn wrapped(line: &str, indent: usize) -> Vec<String> {
    hung(line, &" ".repeat(indent))
}

/// The same, where each further line begins with this.
pub(crate) fn hung(line: &str, indent: &str) -> Vec<String> {
    let options = Options::new(WIDTH)
        .subsequent_indent(indent)
        .word_separator(WordSeparator::AsciiSpace)
        .word_splitter(WordSplitter::NoHyphenation)
        .wrap_algorithm(WrapAlgorithm::FirstFit)
        .break_words(false);
    let lines = textwrap::wrap(line, options);
    let told = lines.iter().map(|line| line.replace(TIED, " "));
    told.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_breaks_at_spaces_and_goes_on_under_its_column() {
        let line = format!("name     12   {}", "word ".repeat(30).trim_end());
        let lines = wrapped(&line, 14);
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[0].starts_with("name     12   word "));
        for line in &lines {
            assert!(line.chars().count() <= WIDTH && line.trim_end() == line);
        }
        assert!(lines[1].starts_with("              word"), "{lines:?}");
    }

    #[test]
    fn what_is_tied_and_what_is_one_word_stays_together() {
        let tied = format!("{} p99{TIED}{}", "x".repeat(70), "1234567.8");
        assert_eq!(wrapped(&tied, 2)[1], "  p99 1234567.8");
        let path = format!("at unix:/{}", "a-b".repeat(40));
        assert_eq!(wrapped(&path, 0)[1], format!("unix:/{}", "a-b".repeat(40)));
        assert_eq!(wrapped("short", 30), ["short"]);
    }
}
