//! The `tidy` leg: the rules of this workspace that no other tool checks.
//!
//! Every check is a function of one file's path and text, so that its test can
//! plant a violation without touching the tree. Rust is read as tokens and not
//! as lines: a comment that mentions `unsafe` is no violation, and an `unsafe`
//! inside a macro is one. What a rule allows, and where, is in [`layout`].

mod arrows;
mod copies;
mod dead;
mod layout;
mod manifest;
mod prose;
mod quiet;
mod ratchet;
mod readme;
mod source;
mod systems;
#[cfg(test)]
mod tests;
mod text;
mod verbs;

use std::fs;

use anyhow::{Context, Result, bail};
use walkdir::{DirEntry, WalkDir};

use crate::command::root;
use ratchet::Ratchet;

/// One file of the workspace: its path from the root, with `/`, and what is in it.
#[derive(Debug)]
struct File {
    path: String,
    text: String,
}

/// A violation, shown as `path:line: what`, which editors can jump to.
#[derive(Debug)]
struct Problem(String);

impl Problem {
    fn new(path: &str, line: usize, what: impl AsRef<str>) -> Self {
        Self(format!("{path}:{line}: {}", what.as_ref()))
    }
}

/// The leg: prints every problem and fails if there was one.
pub(crate) fn check() -> Result<()> {
    let files = read_workspace()?;
    let ratchet = Ratchet::parse(&read(ratchet::PATH)?)?;
    let mut problems = check_files(&files, &ratchet);
    problems.extend(layout::check(&files));
    problems.extend(prose::check(&files, &read(prose::PATH)?));
    for Problem(problem) in &problems {
        println!("{problem}");
    }
    if !problems.is_empty() {
        bail!("{} untidy places", problems.len());
    }
    println!("{} files are tidy", files.len());
    Ok(())
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(root().join(path)).with_context(|| path.to_owned())
}

/// Lowers the ratchet's entries to the sizes of today.
pub(crate) fn lower() -> Result<()> {
    let sizes = sizes(&read_workspace()?);
    let path = root().join(ratchet::PATH);
    let text = fs::read_to_string(&path)?;
    fs::write(&path, Ratchet::parse(&text)?.lowered(&sizes).render(&text))?;
    Ok(())
}

fn check_files(files: &[File], ratchet: &Ratchet) -> Vec<Problem> {
    let mut problems = Vec::new();
    for file in files {
        problems.extend(text::check(file));
        if file.path.ends_with(".rs") {
            problems.extend(source::check(file));
            problems.extend(quiet::check(file));
        }
        if file.path.ends_with("Cargo.toml") {
            problems.extend(manifest::check(file));
        }
    }
    problems.extend(ratchet.check(&sizes(files)));
    problems.extend(readme::check(files));
    problems.extend(copies::check(files));
    problems.extend(dead::check(files));
    problems.extend(arrows::check(files));
    problems.extend(systems::check(files));
    problems.extend(verbs::check(files));
    problems
}

fn sizes(files: &[File]) -> Vec<ratchet::Size> {
    files
        .iter()
        .filter(|file| file.path.ends_with(".rs"))
        .flat_map(source::sizes)
        .collect()
}

fn read_workspace() -> Result<Vec<File>> {
    let mut files = Vec::new();
    let tree = WalkDir::new(root())
        .sort_by_file_name()
        .into_iter()
        .filter_entry(is_ours);
    for entry in tree {
        let entry = entry?;
        if !entry.file_type().is_file() || !text::is_checked(entry.path()) {
            continue;
        }
        let path = entry.path().strip_prefix(root())?;
        let path = path.to_string_lossy().replace('\\', "/");
        let text = fs::read_to_string(entry.path()).with_context(|| path.clone())?;
        files.push(File { path, text });
    }
    Ok(files)
}

/// Everything but what is built and what other tools keep for themselves.
fn is_ours(entry: &DirEntry) -> bool {
    let name = entry.file_name().to_string_lossy();
    match &*name {
        ".ci" | ".cargo" | ".github" => true,
        "target" => !entry.file_type().is_dir(),
        name => entry.depth() == 0 || !name.starts_with('.'),
    }
}
