//! The copy of the tree that mutants are woven into, and its builds.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::list::Mutant;
use super::weave::{Lines, ON, weave};
use crate::command::{executable, root};
use crate::planted::{copy_tree, write_changed};

const LIBRARY: &str = "crates/wharf-port/src/lib.rs";
/// The unit tests of the library, and the contract suite.
const TARGETS: [&str; 2] = ["wharf_port", "it"];
const SWITCH: &str = include_str!("switch.rs");
const SWITCH_OF_THE_COPY: &str = "crates/wharf-port/src/machine_mutants.rs";

/// A copy, and its build directory.
pub(super) struct Tree {
    tree: PathBuf,
    build: PathBuf,
    /// The place of the executables, which the next build would overwrite, and of what is known
    /// about them.
    place: PathBuf,
    name: &'static str,
}

/// The suites of one build.
pub(super) struct Built {
    /// The unit tests of the library, and the contract suite.
    pub(super) suites: [PathBuf; 2],
    /// The numbers of mutants that cannot be woven.
    pub(super) refused: Vec<usize>,
}

/// Where to look for the mutant that an error is about.
#[derive(Clone, Copy)]
enum Side {
    Above,
    Below,
}

impl Tree {
    /// The copy of this name. There is one for woven mutants and one for separate builds, so that
    /// neither makes the other rebuild.
    pub(super) fn new(place: &Path, name: &'static str) -> Result<Self> {
        let tree = place.join(format!("tree-{name}"));
        fs::create_dir_all(&tree)?;
        Ok(Tree {
            tree,
            build: place.join("build"),
            place: place.to_owned(),
            name,
        })
    }

    /// The result of the last weaving and build.
    pub(super) fn built(&self) -> Result<Built> {
        let refused = self.refused();
        let refused = refused.context("there is no build yet: run once without --built")?;
        let suites = TARGETS.map(|target| self.suite(target));
        Ok(Built { suites, refused })
    }

    fn suite(&self, target: &str) -> PathBuf {
        self.place.join(format!("{}-{target}", self.name))
    }

    /// The mutants that the last run could not weave.
    fn refused(&self) -> Option<Vec<usize>> {
        let text = fs::read_to_string(self.place.join("refused")).ok()?;
        Some(text.lines().filter_map(|line| line.parse().ok()).collect())
    }

    /// Weaves in all mutants that compile together, and builds the suites.
    pub(super) fn weave(&self, sample: &[(usize, Mutant)]) -> Result<Built> {
        let files: BTreeSet<&str> = sample.iter().map(|(_, it)| &*it.file).collect();
        copy_tree(&self.tree, &|path| path != LIBRARY && !files.contains(path))?;
        // The field of a literal cannot have a switch.
        let fields = sample.iter().filter(|(_, it)| it.genre == "StructField");
        let mut refused: Vec<usize> = fields.map(|(number, _)| *number).collect();
        refused.extend(self.refused().unwrap_or_default());
        loop {
            self.write_woven(sample, &refused)?;
            let errors = self.check()?;
            if errors.is_empty() {
                break;
            }
            let known = refused.len();
            // A `match` that lacks an arm is an error at its head: then its mutant is below.
            for side in [Side::Above, Side::Below] {
                for (file, lines) in &errors {
                    refused.extend(self.woven_at(file, lines, side)?);
                }
                refused.sort_unstable();
                refused.dedup();
                if refused.len() > known {
                    break;
                }
            }
            println!("{} mutants cannot be woven", refused.len());
            ensure!(refused.len() > known, "the woven tree does not compile");
        }
        let lines: Vec<String> = refused.iter().map(ToString::to_string).collect();
        fs::write(self.place.join("refused"), lines.join("\n"))?;
        let suites = self.suites()?;
        Ok(Built { suites, refused })
    }

    /// Builds one mutant separately; `None` if it does not compile.
    pub(super) fn alone(&self, mutant: &Mutant) -> Result<Option<Built>> {
        copy_tree(&self.tree, &|_| true)?;
        let path = self.tree.join(&mutant.file);
        let mut text = fs::read_to_string(&path)?;
        let range = mutant.range(&Lines::of(&text));
        text.replace_range(range, &mutant.replacement);
        fs::write(path, text)?;
        if !self.check()?.is_empty() {
            return Ok(None);
        }
        let suites = self.suites()?;
        let refused = Vec::new();
        Ok(Some(Built { suites, refused }))
    }

    fn write_woven(&self, sample: &[(usize, Mutant)], refused: &[usize]) -> Result<()> {
        let mut files: BTreeMap<&str, Vec<(usize, &Mutant)>> = BTreeMap::new();
        files.insert(LIBRARY, Vec::new());
        for (number, mutant) in sample {
            let of_file = files.entry(&mutant.file).or_default();
            if !refused.contains(number) {
                of_file.push((*number, mutant));
            }
        }
        for (file, mutants) in files {
            let text = fs::read_to_string(root().join(file))?;
            let mut woven = weave(&text, &mutants)?;
            if file == LIBRARY {
                woven += "\npub(crate) mod machine_mutants;\n";
            }
            self.write(file, &woven)?;
        }
        self.write(SWITCH_OF_THE_COPY, SWITCH)
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        write_changed(&self.tree.join(file), text.as_bytes())
    }

    /// The files that do not compile, with their lines.
    fn check(&self) -> Result<BTreeMap<String, Vec<usize>>> {
        let output = self
            .cargo(&["check", "--lib"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .output()?;
        let mut errors: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let message: Value = serde_json::from_str(line)?;
            if message["message"]["level"] != "error" {
                continue;
            }
            for span in message["message"]["spans"].as_array().into_iter().flatten() {
                let file = span["file_name"].as_str().context("the file of an error")?;
                let number = |name: &str| usize::try_from(span[name].as_u64().unwrap_or(0));
                let lines = number("line_start")?..=number("line_end")?;
                errors.entry(file.to_owned()).or_default().extend(lines);
            }
        }
        let is_known = output.status.success() || !errors.is_empty();
        ensure!(is_known, "cargo check failed, and named no line");
        Ok(errors)
    }

    /// The numbers of the mutants that are woven into these lines, or nearest on this side of them.
    fn woven_at(&self, file: &str, lines: &[usize], side: Side) -> Result<Vec<usize>> {
        let text = fs::read_to_string(self.tree.join(file))?;
        let text: Vec<&str> = text.lines().collect();
        let on = format!("{ON}(");
        let has_mutant = |text: &&&str| text.contains(&on);
        let mut numbers = Vec::new();
        for line in lines {
            let nearest = match side {
                Side::Above => text.iter().take(*line).rfind(has_mutant),
                Side::Below => text.iter().skip(*line).find(has_mutant),
            };
            let calls = nearest.map_or("", |text| text).split(&on).skip(1);
            let digits = calls.filter_map(|call| call.split(')').next());
            numbers.extend(digits.filter_map(|digits| digits.parse::<usize>().ok()));
        }
        Ok(numbers)
    }

    fn suites(&self) -> Result<[PathBuf; 2]> {
        let output = self
            .cargo(&["test", "--lib", "--test", "it", "--no-run"])
            .stdout(Stdio::piped())
            .output()?;
        let messages = String::from_utf8_lossy(&output.stdout);
        let suites = TARGETS.map(|target| self.suite(target));
        for (suite, target) in suites.iter().zip(TARGETS) {
            let built = executable(&messages, target);
            let built = built.with_context(|| format!("cargo built no {target}"))?;
            let new = fs::read(&built)?;
            if fs::read(suite).ok().as_ref() != Some(&new) {
                fs::copy(built, suite)?;
            }
        }
        Ok(suites)
    }

    fn cargo(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(&self.tree).stdin(Stdio::null());
        command.env("CARGO_TARGET_DIR", &self.build);
        // One build serves all, so it is optimized; its assertions stay.
        for profile in ["DEV", "TEST"] {
            command.env(format!("CARGO_PROFILE_{profile}_DEBUG"), "0");
            command.env(format!("CARGO_PROFILE_{profile}_OPT_LEVEL"), "1");
        }
        command.args(arguments);
        command.args(["--package", "wharf-port", "--message-format=json"]);
        command
    }
}
