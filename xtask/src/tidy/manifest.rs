//! Each dependency says what it is for.
//!
//! A dependency is code that other people change. The comment helps a reviewer to judge it. It is
//! above the line, or after it.

use toml_edit::{Decor, Document, Item, Key, RawString, Table};

use super::{File, Problem};

const TABLES: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];

pub(super) fn check(file: &File) -> Vec<Problem> {
    let document = match Document::parse(file.text.as_str()) {
        Ok(document) => document,
        Err(error) => return vec![Problem::new(&file.path, 1, error.to_string())],
    };
    let mut problems = Vec::new();
    check_table(document.as_table(), file, &mut problems);
    problems
}

/// Looks for tables of dependencies at any depth: `target.….dependencies` is one too.
fn check_table(table: &Table, file: &File, problems: &mut Vec<Problem>) {
    for (name, item) in table {
        let Some(inner) = item.as_table() else {
            continue;
        };
        if !TABLES.contains(&name) {
            check_table(inner, file, problems);
            continue;
        }
        for (dependency, item) in inner {
            let key = inner.key(dependency).expect("the table has just named it");
            if !is_explained(key, item, &file.text) {
                let line = key.span().map_or(1, |span| line_of(&file.text, span.start));
                let what = format!("{dependency}: no comment says what the dependency is for");
                problems.push(Problem::new(&file.path, line, what));
            }
        }
    }
}

fn is_explained(key: &Key, item: &Item, text: &str) -> bool {
    if has_comment(key.leaf_decor(), text) {
        return true;
    }
    match item {
        Item::Value(value) => has_comment(value.decor(), text),
        // `[dependencies.name]`: above the header, or first below it.
        Item::Table(table) => {
            let first = table.iter().next().and_then(|(first, _)| table.key(first));
            has_comment(table.decor(), text)
                || first.is_some_and(|key| has_comment(key.leaf_decor(), text))
        }
        Item::None | Item::ArrayOfTables(_) => false,
    }
}

fn has_comment(decor: &Decor, text: &str) -> bool {
    let around = [decor.prefix(), decor.suffix()].into_iter().flatten();
    around
        .filter_map(RawString::span)
        .any(|span| text[span].contains('#'))
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}
