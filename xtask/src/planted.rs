//! `cargo xtask planted`: bugs that the contract suite must catch, one at a time.
//!
//! A suite that never failed has proved nothing. `crates/wharf-port/tests/planted` has bugs that
//! completion libraries have really had, as patches against the drivers and the core. Each is
//! applied to a copy of the tree, and every test that its head names must turn red there. It takes
//! an hour or two, so `ci` leaves it out. Generated mutants instead were rejected: most are no bugs
//! that a person would write, and none of them forgets a buffer.
//!
//! A head is a sentence that says what is wrong, then lines of the form
//!
//! ```text
//! red: uring/single/a_name_of_a_test
//! green: sim_seeds/a_test_that_cannot_see_it, because ...
//! ```

#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::command::{executable, read, root, run, target_directory};

const PATCHES: &str = "crates/wharf-port/tests/planted";
const PAGE: &str = "docs/measured/planted-bugs.md";
/// A test that takes longer hangs, which is a way of turning red.
const TEST_LIMIT: Duration = Duration::from_secs(150);
/// The number of tests of one bug that run at a time. Most tests that turn red by hanging only
/// wait.
const AT_ONCE: usize = 8;

/// One planted bug, as the head of its patch describes it.
#[derive(Debug, PartialEq, Eq)]
struct Planted {
    name: String,
    what: String,
    red: Vec<String>,
    /// Tests that a reader might expect to see it and that cannot, above all the seeds, with the
    /// reason.
    green: Vec<(String, String)>,
}

/// Plants the bugs of these names, or all, and requires that the suite catches each.
pub(crate) fn plant(names: &[&String]) -> Result<()> {
    let all = read_all()?;
    for name in names {
        ensure!(
            all.iter().any(|it| &it.name == *name),
            "no planted bug is called {name}"
        );
    }
    let chosen = |it: &&Planted| names.is_empty() || names.contains(&&it.name);
    let place = target_directory().join("planted");
    let tree = place.join("tree");
    let mut missed = Vec::new();
    for planted in all.iter().filter(chosen) {
        copy_tree(&tree, &|_| true)?;
        let start = Instant::now();
        // One that cannot be planted any more is missed, and the others are tried all the same.
        let caught = catch(planted, &tree, &place.join("build"));
        let green = caught.unwrap_or_else(|error| vec![format!("all of them: {error:#}")]);
        let seconds = start.elapsed().as_secs();
        let count = planted.red.len();
        println!("==== {}: {count} tests, {seconds} s", planted.name);
        for test in green {
            println!("     stays green: {test}");
            missed.push(format!("{} by {test}", planted.name));
        }
    }
    ensure!(missed.is_empty(), "not caught: {}", missed.join(", "));
    Ok(())
}

/// Writes the page of planted bugs.
pub(crate) fn write_page() -> Result<()> {
    Ok(fs::write(root().join(PAGE), page(&read_all()?))?)
}

/// Applies one bug to the copy, and returns the tests that stay green but should not.
fn catch(planted: &Planted, tree: &Path, build: &Path) -> Result<Vec<String>> {
    let patch = root().join(PATCHES).join(format!("{}.patch", planted.name));
    let mut apply = Command::new("git");
    // git must not find the repository around the copy: it would leave out ignored files.
    apply.env("GIT_CEILING_DIRECTORIES", tree.parent().unwrap_or(tree));
    run(apply.current_dir(tree).arg("apply").arg(&patch))
        .context("the patch no longer applies: plant the bug again in the current code")?;
    let suite = build_suite(tree, build)?;
    let mut green = Vec::new();
    for tests in planted.red.chunks(AT_ONCE) {
        let begin = |test: &String| begin(test, &suite, tree);
        let mut running = tests.iter().map(begin).collect::<Result<Vec<_>>>()?;
        let deadline = Instant::now() + TEST_LIMIT;
        for (test, child) in tests.iter().zip(&mut running) {
            if !turns_red(child, deadline)? {
                green.push(test.clone());
            }
        }
    }
    Ok(green)
}

/// Starts one test of the suite.
fn begin(test: &str, suite: &str, tree: &Path) -> Result<Child> {
    let mut command = Command::new(suite);
    // Cargo runs tests in their package's directory, so we do too.
    command.current_dir(tree.join("crates/wharf-port"));
    // A change of the code changes what a seed runs into. Of a thousand seeds some still reach the
    // bug.
    command.env("WHARF_SIM_SEEDS", "1000");
    command.args(["--exact", test]).stdin(Stdio::null());
    Ok(command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?)
}

/// Builds the suite of the copy, and returns its path. So a suite that hangs is ended itself, and
/// not a cargo in front of it.
fn build_suite(tree: &Path, build: &Path) -> Result<String> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(tree).env("CARGO_TARGET_DIR", build);
    command.args(["test", "--package", "wharf-port", "--test", "it"]);
    command.args(["--no-run", "--message-format=json-render-diagnostics"]);
    let messages = read(&mut command)?;
    executable(&messages, "it").context("cargo built no executable for the suite")
}

fn turns_red(child: &mut Child, deadline: Instant) -> Result<bool> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(!status.success());
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Ok(true);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Updates the wanted files of the copy. Unchanged files keep their time, so that cargo builds no
/// more than necessary.
pub(crate) fn copy_tree(to: &Path, wanted: &dyn Fn(&str) -> bool) -> Result<()> {
    let mut list = Command::new("git");
    list.current_dir(root());
    list.args(["ls-files", "-co", "--exclude-standard", "-z"]);
    let paths = read(&mut list)?;
    let paths = paths.split('\0').filter(|path| !path.is_empty());
    for path in paths.filter(|path| wanted(path)) {
        let Ok(content) = fs::read(root().join(path)) else {
            continue; // Deleted here, and not yet in the index.
        };
        write_changed(&to.join(path), &content)?;
    }
    Ok(())
}

/// Writes a file of a copy, and makes its folder. An unchanged file keeps its time, so that cargo
/// does not build it again.
pub(crate) fn write_changed(path: &Path, content: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|old| old == content) {
        return Ok(());
    }
    let folder = path.parent().context("a file of a copy is in a folder")?;
    fs::create_dir_all(folder)?;
    fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}

fn read_all() -> Result<Vec<Planted>> {
    let mut paths: Vec<PathBuf> = fs::read_dir(root().join(PATCHES))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    paths.retain(|path| path.extension().is_some_and(|it| it == "patch"));
    paths.sort();
    let all = paths.iter().map(|path| {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        parse(&name, &fs::read_to_string(path)?).with_context(|| path.display().to_string())
    });
    all.collect()
}

/// Reads the head of a patch.
fn parse(name: &str, text: &str) -> Result<Planted> {
    let (head, _) = text
        .split_once("\ndiff --git ")
        .context("no git patch follows the head")?;
    let mut planted = Planted {
        name: name.into(),
        what: String::new(),
        red: Vec::new(),
        green: Vec::new(),
    };
    for line in head.lines().filter(|line| !line.is_empty()) {
        if let Some(test) = line.strip_prefix("red: ") {
            planted.red.push(test.into());
        } else if let Some(test) = line.strip_prefix("green: ") {
            let (test, why) = test
                .split_once(", ")
                .context("a green test needs a reason after a comma")?;
            planted.green.push((test.into(), why.into()));
        } else {
            let gap = if planted.what.is_empty() { "" } else { " " };
            planted.what += &format!("{gap}{line}");
        }
    }
    if planted.what.is_empty() || planted.red.is_empty() {
        bail!("the head must say what is wrong and name at least one red test");
    }
    Ok(planted)
}

/// The page of all planted bugs.
fn page(all: &[Planted]) -> String {
    let mut text = String::from(include_str!("planted/head.md"));
    text.push_str("\n| planted bug | tests that turn red | the seeds of the simulated network |\n");
    text.push_str("|---|---|---|\n");
    for planted in all {
        let (seeds, cases): (Vec<_>, Vec<_>) = planted
            .red
            .iter()
            .partition(|test| test.starts_with("sim_seeds/"));
        let cases: Vec<String> = cases.iter().map(|test| format!("`{test}`")).collect();
        let seeds = match planted.green.first() {
            _ if !seeds.is_empty() => "turn red".into(),
            Some((_, why)) => format!("stay green: {why}"),
            None => String::new(),
        };
        let cases = cases.join(", ");
        let _ = writeln!(text, "| {} | {cases} | {seeds} |", planted.what);
    }
    text
}
