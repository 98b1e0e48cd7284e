//! Sizes that may shrink and never grow.
//!
//! A file has at most 500 lines and a function at most 70. `xtask/ratchet.txt` lists larger ones
//! with their current size. Growing past that fails. An entry that is larger than necessary fails
//! too: a ratchet with slack would let the size creep back.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, Result};

use super::Problem;

pub(super) const PATH: &str = "xtask/ratchet.txt";

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;

/// What is measured; the text names it in the ratchet.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Measured {
    File(String),
    Function { path: String, name: String },
}

/// A measured length, and the line it starts at.
#[derive(Debug)]
pub(super) struct Size {
    pub(super) measured: Measured,
    pub(super) line: usize,
    pub(super) lines: usize,
}

/// The known sizes over their limit.
#[derive(Debug, Default)]
pub(super) struct Ratchet(BTreeMap<String, usize>);

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file {path}"),
            Self::Function { path, name } => write!(f, "function {path} {name}"),
        }
    }
}

impl Measured {
    fn lines_max(&self) -> usize {
        match self {
            Self::File(_) => FILE_LINES_MAX,
            Self::Function { .. } => FUNCTION_LINES_MAX,
        }
    }

    fn path(&self) -> &str {
        match self {
            Self::File(path) | Self::Function { path, .. } => path,
        }
    }
}

impl Ratchet {
    pub(super) fn parse(text: &str) -> Result<Self> {
        let mut entries = BTreeMap::new();
        for line in text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            let (measured, lines) = line.rsplit_once(' ').with_context(|| line.to_owned())?;
            let lines = lines.parse().with_context(|| format!("{PATH}: {line}"))?;
            entries.insert(measured.to_owned(), lines);
        }
        Ok(Self(entries))
    }

    pub(super) fn check(&self, sizes: &[Size]) -> Vec<Problem> {
        let mut problems = Vec::new();
        let over = over(sizes);
        for (name, size) in &over {
            let limit = size.measured.lines_max();
            let what = match self.0.get(name) {
                Some(known) if *known >= size.lines => continue,
                Some(known) => format!("{name} has grown from {known} to {} lines", size.lines),
                None => format!("{name} has {} lines, over {limit}: split it", size.lines),
            };
            problems.push(Problem::new(size.measured.path(), size.line, what));
        }
        for (name, known) in &self.0 {
            if over.get(name).is_none_or(|size| size.lines < *known) {
                let what = format!("{name} has shrunk from {known}: cargo xtask tidy --lower");
                problems.push(Problem::new(PATH, 1, what));
            }
        }
        problems
    }

    /// The same entries at their current sizes, without those that are within their limit.
    pub(super) fn lowered(&self, sizes: &[Size]) -> Self {
        let over = over(sizes);
        let entries = self
            .0
            .iter()
            .filter_map(|(name, known)| Some((name.clone(), over.get(name)?.lines.min(*known))));
        Self(entries.collect())
    }

    /// The file's text: the comments of `old`, then the entries.
    pub(super) fn render(&self, old: &str) -> String {
        let comments = old
            .lines()
            .filter(|line| line.starts_with('#'))
            .map(str::to_owned);
        let entries = self.0.iter().map(|(name, lines)| format!("{name} {lines}"));
        comments.chain(entries).map(|line| line + "\n").collect()
    }
}

/// The sizes over their limit. For functions of one name in one file, the longest.
fn over(sizes: &[Size]) -> BTreeMap<String, &Size> {
    let mut over = BTreeMap::<String, &Size>::new();
    for size in sizes
        .iter()
        .filter(|size| size.lines > size.measured.lines_max())
    {
        let longest = over.entry(size.measured.to_string()).or_insert(size);
        if size.lines > longest.lines {
            *longest = size;
        }
    }
    over
}
