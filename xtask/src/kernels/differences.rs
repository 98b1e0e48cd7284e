//! The README's table of what older kernels lack, read as data.
//!
//! Only this table has versions next to features. The contract suite compares its words with what
//! the driver reports, and this leg compares its versions with kernels.

use anyhow::{Context, Result, ensure};

/// A row of the table.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) since: (u32, u32),
    /// The modes of ports that report this feature, as the suite calls them.
    pub(super) modes: &'static [&'static str],
    pub(super) ability: String,
    pub(super) before: String,
}

impl Difference {
    /// What a driver on a kernel of this version must report.
    pub(super) fn expected(&self, version: (u32, u32)) -> &str {
        if version >= self.since {
            &self.ability
        } else {
            &self.before
        }
    }
}

/// The rows of the table in `readme`.
pub(super) fn read(readme: &str) -> Result<Vec<Difference>> {
    let mut rows = Vec::new();
    for line in readme.lines().filter(|line| line.starts_with("| Linux ")) {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let &[version, ports, ability, before] = &cells[..] else {
            continue;
        };
        let since = version_of(version.trim_start_matches("Linux "));
        rows.push(Difference {
            since: since.with_context(|| format!("no version: {line}"))?,
            modes: match ports {
                "all" => &["shared", "single", "direct"],
                "shared" => &["shared"],
                "single-waiter" => &["single", "direct"],
                "direct" => &["direct"],
                _ => anyhow::bail!("unknown kind of port: {line}"),
            },
            ability: ability.to_owned(),
            before: before.to_owned(),
        });
    }
    ensure!(rows.len() > 2, "the README has no table of kernels");
    Ok(rows)
}

/// The first two numbers of a kernel's version.
pub(super) fn version_of(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.trim().split(['.', '-', '+']);
    let major = numbers.next()?.parse().ok()?;
    let minor = numbers.next()?.parse().ok()?;
    Some((major, minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_has_its_table() {
        let readme = std::fs::read_to_string(crate::command::root().join("README.md"));
        let rows = read(&readme.expect("there is a README")).expect("a table");
        let capped = rows.last().expect("rows");
        assert_eq!(capped.since, (6, 17));
        assert_ne!(capped.expected((6, 12)), capped.expected((6, 18)));
    }

    #[test]
    fn versions_are_read_as_kernels_write_them() {
        assert_eq!(version_of("6.12.117+deb13-cloud-amd64\n"), Some((6, 12)));
        assert_eq!(version_of("6.1.0-56-cloud-amd64"), Some((6, 1)));
        assert_eq!(version_of("six"), None);
    }
}
