//! Wraps lines to the width of the narrowest terminal.
//!
//! The width is fixed and not that of the terminal, so a file reads like the screen. Continuation
//! lines are indented.

use textwrap::{Options, WordSeparator, WordSplitter, WrapAlgorithm};

/// Columns of a line.
pub(crate) const WIDTH: usize = 80;
/// The column of the third field of an account, after a name and a number.
pub(crate) const COLUMN: usize = 31;
/// The indentation of a continued sentence.
pub(crate) const SENTENCE: usize = 2;
/// A space at which no line may break.
pub(crate) const TIED: char = '\u{a0}';

/// Breaks a line at its spaces, and indents further lines by this many columns. A longer word, such
/// as a path, stays whole.
pub(crate) fn wrapped(line: &str, indent: usize) -> Vec<String> {
    hung(line, &" ".repeat(indent))
}

/// The same; each further line begins with `indent`.
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
