//! Every command that the README shows is run by a test.
//!
//! The test of a command has a comment, `// README: ` and the command as in the README. So the
//! claim is next to the code that proves it. Commands are the lines of fenced `sh` blocks, and the
//! lines of `console` blocks after a `$ `.

use super::layout::is_test_or_example;
use super::{File, Problem};

const README: &str = "README.md";
const CLAIM: &str = "// README: ";

pub(super) fn check(files: &[File]) -> Vec<Problem> {
    let tests = files.iter().filter(|file| is_test_or_example(&file.path));
    let covered: Vec<&str> = tests
        .flat_map(|file| file.text.lines())
        .filter_map(|line| line.trim_start().strip_prefix(CLAIM))
        .collect();
    let readme = files.iter().filter(|file| file.path == README);
    readme
        .flat_map(|file| commands(&file.text))
        .filter(|(_, command)| !covered.contains(command))
        .map(|(line, command)| {
            let what = format!("no test says that it runs this: `{CLAIM}{command}`");
            Problem::new(README, line, what)
        })
        .collect()
}

/// The commands of a Markdown text, each with its line.
fn commands(text: &str) -> Vec<(usize, &str)> {
    let mut commands = Vec::new();
    let mut block = None;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if let Some(language) = line.strip_prefix("```") {
            block = if block.is_none() {
                Some(language)
            } else {
                None
            };
            continue;
        }
        let command = match block {
            Some("sh") if !line.is_empty() && !line.starts_with('#') => Some(line),
            Some("console") => line.strip_prefix("$ "),
            _ => None,
        };
        commands.extend(command.map(|command| (number, command)));
    }
    commands
}
