//! Rules for every text file: white space, and no left-over marks.

use std::path::Path;

use super::{File, Problem};

const EXTENSIONS: [&str; 8] = ["rs", "toml", "md", "yml", "c", "sh", "txt", "py"];

/// Marks for later work. Later work is an issue, not a comment.
const MARKS: [&str; 2] = [concat!("FIX", "ME"), concat!("X", "XX")];

pub(super) fn is_checked(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| EXTENSIONS.contains(&extension)) || path.ends_with(".ci/run")
}

pub(super) fn check(file: &File) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (number, line) in (1..).zip(file.text.split('\n')) {
        let mut add = |what: &str| problems.push(Problem::new(&file.path, number, what));
        if line.ends_with('\r') {
            add("a carriage return at the end of the line");
        } else if line.trim_end() != line {
            add("white space at the end of the line");
        }
        if line.contains('\t') {
            add("a tab; indent with spaces");
        }
        for mark in MARKS {
            if words(line).any(|word| word == mark) {
                add(&format!(
                    "a left-over {mark}: fix it, or open an issue and say why here"
                ));
            }
        }
    }
    if !file.text.ends_with('\n') || file.text.ends_with("\n\n") {
        let last = file.text.lines().count();
        problems.push(Problem::new(
            &file.path,
            last,
            "not exactly one newline at the end",
        ));
    }
    problems
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|character: char| !character.is_alphanumeric() && character != '_')
}
