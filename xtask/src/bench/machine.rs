//! The machine of a run, and the versions that ran. Without them its figures mean nothing.

use std::fs;

use anyhow::{Context, Result};
use toml_edit::DocumentMut;

use crate::command::{cargo, read, root};

/// The machine in one sentence.
pub(super) fn machine() -> String {
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let models = processors
        .lines()
        .filter(|line| line.starts_with("model name"));
    let models: Vec<&str> = models
        .filter_map(|line| line.split_once(": "))
        .map(|(_, model)| model)
        .collect();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kibibytes = memory
        .split_whitespace()
        .nth(1)
        .and_then(|number| number.parse::<u64>().ok());
    let virtual_machine = processors.contains(" hypervisor");
    format!(
        "{} cores of {}{}, {} GiB of memory, Linux {}",
        models.len(),
        models.first().unwrap_or(&"an unknown processor"),
        if virtual_machine {
            " in a virtual machine"
        } else {
            ""
        },
        kibibytes.unwrap_or(0) >> 20,
        kernel.trim(),
    )
}

/// The compiler's version.
pub(super) fn compiler() -> Result<String> {
    let text = read(&mut cargo(&["--version"]))?;
    Ok(text
        .split_whitespace()
        .take(2)
        .collect::<Vec<_>>()
        .join(" "))
}

/// The version of a package in the benchmark's lock file.
pub(super) fn version(package: &str) -> Result<String> {
    let text = fs::read_to_string(root().join("bench/Cargo.lock"))?;
    let lock: DocumentMut = text.parse()?;
    let packages = lock["package"]
        .as_array_of_tables()
        .context("the lock file has packages")?;
    let named = packages
        .iter()
        .filter(|entry| entry["name"].as_str() == Some(package));
    // If several versions are in use, the servers use the latest.
    let version = named.filter_map(|entry| entry["version"].as_str()).last();
    Ok(version
        .context("the server's package is in the lock file")?
        .to_owned())
}
