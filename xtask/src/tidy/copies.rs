//! What a crate has a copy of is the same as the original.
//!
//! A package has nothing from above its crate's folder, so a crate has a README of its own. A section
//! with the same heading as one of the workspace's README has the same text. Links in the tree were
//! rejected: on Windows git checks them out as text. The `package` leg compares the licences.

use super::{File, Problem};

const README: &str = "README.md";

/// A file of one crate's tests that another crate's tests need too.
const COPY: (&str, &str) = (
    "crates/wharf/tests/it/codes.rs",
    "crates/wharf-port/tests/examples/codes.rs",
);

pub(super) fn check(files: &[File]) -> Vec<Problem> {
    let mut problems = sections_differ(files);
    let (copy, original) = COPY;
    if text_of(files, copy) != text_of(files, original) {
        problems.push(Problem::new(copy, 1, format!("it differs from {original}")));
    }
    problems
}

fn text_of<'a>(files: &'a [File], path: &str) -> &'a str {
    let file = files.iter().find(|file| file.path == path);
    file.map_or("", |file| file.text.as_str())
}

/// The sections of a crate's README that differ from those of the workspace's.
fn sections_differ(files: &[File]) -> Vec<Problem> {
    let whole = sections(text_of(files, README));
    let mut problems = Vec::new();
    for file in files {
        if !file.path.starts_with("crates/") || !file.path.ends_with("/README.md") {
            continue;
        }
        for (line, heading, text) in sections(&file.text) {
            let same = whole.iter().find(|(_, other, _)| *other == heading);
            if same.is_some_and(|(_, _, other)| other.trim() != text.trim()) {
                let what = format!("the section {heading:?} differs from that of {README}");
                problems.push(Problem::new(&file.path, line, what));
            }
        }
    }
    problems
}

/// The sections of the second level: the line, the heading, and the text below it.
fn sections(text: &str) -> Vec<(usize, &str, &str)> {
    let mut sections = Vec::new();
    let mut line = 1 + text
        .split("\n## ")
        .next()
        .unwrap_or("")
        .matches('\n')
        .count();
    for section in text.split("\n## ").skip(1) {
        line += 1;
        let (heading, body) = section.split_once('\n').unwrap_or((section, ""));
        // Each crate names its licences and its compiler in its own words.
        if heading != "Licence" {
            sections.push((line, heading, body));
        }
        line += section.matches('\n').count();
    }
    sections
}
