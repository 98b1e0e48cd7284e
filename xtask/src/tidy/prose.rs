//! The words that prose does not use: the part of the glossary in `CONTRIBUTING.md` that a program
//! can check.
//!
//! Prose is what people read: comments, Markdown pages, and the help texts and messages of the
//! program. A phrase is on the list if it hides the actor (`nobody`), stands for a number
//! (`so many`), or keeps a reader from finding the word of the field with a search (`by lot`), and
//! if it can be found without false alarms. A phrase may be broken over two lines, so lines are
//! joined before they are searched. Code spans and fenced code are skipped.
//!
//! `xtask/prose.txt` lists the folders that are not rewritten yet. An entry without a refused
//! phrase is a problem, so the list shrinks. A count for each file, as in the size ratchet, was
//! rejected: it changes with every line that moves from one file to another.

use std::str::FromStr as _;

use proc_macro2::{TokenStream, TokenTree};

use super::source::walk;
use super::{File, Problem};

pub(super) const PATH: &str = "xtask/prose.txt";

/// Where string literals are texts for people too: help texts and messages.
const TEXTS: &str = "crates/wharf/src/";

/// A refused phrase.
pub(super) struct Phrase {
    /// Its words, in lower case.
    pub(super) words: &'static [&'static str],
    /// What may follow: with it the phrase means something else.
    unless: &'static [&'static str],
    /// What to write.
    instead: &'static str,
}

const fn phrase(words: &'static [&'static str], instead: &'static str) -> Phrase {
    phrase_unless(words, &[], instead)
}

const fn phrase_unless(
    words: &'static [&'static str],
    unless: &'static [&'static str],
    instead: &'static str,
) -> Phrase {
    Phrase {
        words,
        unless,
        instead,
    }
}

/// The list. Each phrase is in the glossary too; a test compares the two.
pub(super) const PHRASES: [Phrase; 17] = [
    phrase_unless(&["so", "many"], &["that"], "`n`, this many, the number of"),
    phrase_unless(&["so", "long"], &["that"], "this long, as long as"),
    phrase(&["so", "often"], "`n` times, as often as"),
    phrase(&["whoever"], "the caller, the thread, the peer"),
    phrase(&["nobody"], "no thread, no caller, no peer"),
    phrase(&["by", "lot"], "random, at random"),
    phrase(&["by", "turns"], "round-robin, in turn"),
    phrase_unless(
        &["told"],
        &["apart"],
        "is notified, learns, receives, by default",
    ),
    phrase(&["but", "for"], "except, except for"),
    phrase(&["as", "a", "rule"], "usually"),
    phrase(&["stands", "in"], "is in"),
    phrase(&["stand", "in"], "are in"),
    phrase(&["stands", "behind"], "is after, follows"),
    phrase(&["stand", "behind"], "are after, follow"),
    phrase(&["beside"], "next to, in addition to"),
    phrase(&["cure"], "hint, fix"),
    phrase(&["works", "out"], "computes, processes"),
];

/// What opens a comment that documents a function: its verb.
const ANSWERS: &str = "answers";

/// One word or punctuation mark of a text, in lower case, with its line.
struct Token {
    line: usize,
    word: String,
}

/// Refused phrases outside of the folders of `list`, and folders of `list` that have none.
pub(super) fn check(files: &[File], list: &str) -> Vec<Problem> {
    let pending = || list.lines().filter(|line| !line.starts_with('#'));
    let mut problems = Vec::new();
    let mut seen = Vec::new();
    for file in files {
        let found = check_file(file);
        match pending().find(|folder| file.path.starts_with(folder)) {
            Some(folder) if !found.is_empty() => seen.push(folder),
            Some(_) => {}
            None => problems.extend(found),
        }
    }
    for (line, folder) in (1..).zip(list.lines()) {
        if !folder.starts_with('#') && !seen.contains(&folder) {
            let what = format!("{folder} has no refused phrase any more: remove this line");
            problems.push(Problem::new(PATH, line, what));
        }
    }
    problems
}

fn check_file(file: &File) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut look = |tokens: &[Token]| problems.extend(find(&file.path, tokens));
    if file.path.ends_with(".md") {
        paragraphs(&file.text, |line| Some(line.trim()), &mut look);
    } else if file.path.ends_with(".rs") {
        paragraphs(&file.text, comment, &mut look);
        if file.path.starts_with(TEXTS) {
            literals(&file.text, &mut look);
        }
    }
    problems
}

/// The comment of a line. A `//` after an odd number of quotes is in a string.
fn comment(line: &str) -> Option<&str> {
    if let Some(text) = line.trim().strip_prefix("//") {
        return Some(text.trim_start_matches(['/', '!']).trim());
    }
    let (code, text) = line.split_once(" // ")?;
    let quotes = code.matches('"').count() - code.matches("\\\"").count();
    (quotes % 2 == 0).then_some(text)
}

/// Calls `look` with each paragraph of the lines for which `prose` returns a text.
fn paragraphs(text: &str, prose: fn(&str) -> Option<&str>, look: &mut impl FnMut(&[Token])) {
    let mut tokens = Vec::new();
    let mut fenced = false;
    let mut in_code = false;
    for (number, line) in (1..).zip(text.lines()) {
        let words = prose(line).unwrap_or_default();
        if words.starts_with("```") {
            fenced = !fenced;
        }
        if words.is_empty() || words.starts_with("```") {
            look(&tokens);
            tokens.clear();
            in_code = false;
        } else if !fenced {
            tokenize(words, number, &mut in_code, &mut tokens);
        }
    }
    look(&tokens);
}

/// Calls `look` with each string literal, except for those that are doc comments.
fn literals(text: &str, look: &mut impl FnMut(&[Token])) {
    let mut comment = None;
    walk(
        TokenStream::from_str(text).unwrap_or_default(),
        &mut |trees| {
            match trees {
                [TokenTree::Ident(doc), _, TokenTree::Literal(text), ..] if doc == "doc" => {
                    comment = Some(text.span().start());
                }
                [TokenTree::Literal(text), ..] if Some(text.span().start()) != comment => {
                    // A backslash at the end of a line and one of an escape are both white space here.
                    let words = text.to_string().replace("\\n", " ").replace('\\', " ");
                    let mut tokens = Vec::new();
                    tokenize(&words, text.span().start().line, &mut false, &mut tokens);
                    look(&tokens);
                }
                _ => {}
            }
        },
    );
}

/// Adds the words and marks of `text` that are not in a code span.
fn tokenize(text: &str, line: usize, in_code: &mut bool, tokens: &mut Vec<Token>) {
    let mut is_open = false;
    for character in text.chars() {
        if character == '`' {
            *in_code = !*in_code;
        }
        let is_word = character.is_alphanumeric() || "_-'’".contains(character);
        if *in_code || !is_word {
            is_open = false;
        }
        if *in_code || character.is_whitespace() {
            continue;
        }
        let lower = character.to_lowercase();
        match tokens.last_mut() {
            Some(last) if is_open => last.word.extend(lower),
            _ => tokens.push(Token {
                line,
                word: lower.collect(),
            }),
        }
        is_open = is_word;
    }
}

fn find(path: &str, tokens: &[Token]) -> Vec<Problem> {
    let mut problems = Vec::new();
    if let Some(first) = tokens.first()
        && first.word == ANSWERS
        && path.ends_with(".rs")
    {
        let what = "\"Answers\" opens a comment: write \"Returns\"";
        problems.push(Problem::new(path, first.line, what));
    }
    for (at, first) in tokens.iter().enumerate() {
        let word = |offset: usize| tokens.get(at + offset).map(|token| token.word.as_str());
        for phrase in &PHRASES {
            let is_there = (0..).zip(phrase.words).all(|(n, w)| word(n) == Some(w));
            let next = word(phrase.words.len());
            if is_there && !next.is_some_and(|next| phrase.unless.contains(&next)) {
                let what = format!(
                    "\"{}\" is not in the glossary: write {}",
                    phrase.words.join(" "),
                    phrase.instead
                );
                problems.push(Problem::new(path, first.line, what));
            }
        }
    }
    problems
}
