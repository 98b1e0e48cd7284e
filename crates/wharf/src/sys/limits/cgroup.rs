//! The control groups of this process: their limits on memory, processes and processors.
//!
//! A limit applies to everything below it. So every group counts, from that of this process up to
//! the root, and the smallest limit wins. A container sees its own group as the root of a mount. A
//! service, a session or a job is in a group below it; `/proc/self/cgroup` has its path. Both
//! versions may be mounted at the same time, each with some of the controllers. An existing crate
//! was rejected: it read only the files at the root of the mount.

use std::fs;
use std::path::{Path, PathBuf};

use super::numbers;
use crate::sys::facts::Cgroup;

/// Version 1 writes "no limit" as a huge number. From this value on there is no limit.
const UNLIMITED_FROM: u64 = 1 << 60;

/// The groups of this process, by controller.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Groups {
    memory: Vec<Level>,
    pids: Vec<Level>,
    cpu: Vec<Level>,
}

/// One group, and the version of its files.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Level {
    path: PathBuf,
    version: Version,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Version {
    One,
    Two,
}

/// The memory limits of the groups.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct GroupMemory {
    pub(super) max_bytes: u64,
    /// Of the group with the least available. It includes memory that the kernel can reclaim from
    /// files.
    pub(super) available_bytes: u64,
}

impl Groups {
    /// The groups of this process, in the file system below `root`, which is `/` except in tests.
    pub(super) fn find(root: &Path) -> Self {
        let read = |name: &str| fs::read_to_string(root.join(name)).unwrap_or_default();
        let (groups, mounts) = (read("proc/self/cgroup"), read("proc/self/mountinfo"));
        let levels = |controller| levels(root, &groups, &mounts, controller);
        Groups {
            memory: levels("memory"),
            pids: levels("pids"),
            cpu: levels("cpu"),
        }
    }

    /// Their memory limits; `None` if none of them has one.
    pub(super) fn memory(&self) -> Option<GroupMemory> {
        let limits = self.memory.iter().filter_map(|level| {
            let (max, usage, reclaimable) = match level.version {
                Version::One => (
                    level.number("memory.limit_in_bytes")?,
                    level.number("memory.usage_in_bytes"),
                    "total_inactive_file ",
                ),
                Version::Two => (
                    level.number("memory.max")?,
                    level.number("memory.current"),
                    "inactive_file ",
                ),
            };
            let stat = level.text("memory.stat").unwrap_or_default();
            let reclaimable = stat.lines().find_map(|line| line.strip_prefix(reclaimable));
            let reclaimable = reclaimable.and_then(|number| number.parse().ok());
            let used = usage.unwrap_or(0).saturating_sub(reclaimable.unwrap_or(0));
            Some((max, max.saturating_sub(used)))
        });
        let limits: Vec<(u64, u64)> = limits.filter(|(max, _)| *max < UNLIMITED_FROM).collect();
        Some(GroupMemory {
            max_bytes: limits.iter().map(|(max, _)| *max).min()?,
            available_bytes: limits.iter().map(|(_, left)| *left).min()?,
        })
    }

    /// All their limits.
    pub(super) fn told(&self) -> Cgroup {
        let left = self.pids.iter().filter_map(|level| {
            let max = level.number("pids.max")?;
            let used = level.number("pids.current").unwrap_or(0);
            Some((max.saturating_sub(used), max))
        });
        let (left, max) = left.min().unzip();
        Cgroup {
            memory_max_bytes: self.memory().map(|memory| memory.max_bytes),
            tasks_max: max,
            tasks_left: left,
            processors: self
                .cpu
                .iter()
                .filter_map(Level::processors)
                .min_by(f64::total_cmp),
        }
    }
}

impl Level {
    fn text(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.path.join(name)).ok()
    }

    /// `max` and `-1` are no numbers.
    fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.trim().parse().ok()
    }

    /// The limit on processor time, in processors.
    fn processors(&self) -> Option<f64> {
        let (quota, period) = match self.version {
            Version::One => (
                self.number("cpu.cfs_quota_us")?,
                self.number("cpu.cfs_period_us")?,
            ),
            Version::Two => {
                let text = self.text("cpu.max")?;
                // "max 100000" has one number.
                let [quota, period] = numbers(&text)[..] else {
                    return None;
                };
                (quota, period)
            }
        };
        (period > 0).then(|| quota as f64 / period as f64)
    }
}

/// The groups of one controller, in both versions, from that of this process up to the root.
fn levels(root: &Path, groups: &str, mounts: &str, controller: &str) -> Vec<Level> {
    let mut levels = Vec::new();
    for line in groups.lines() {
        // `4:memory:/path`, and of version 2 `0::/path`.
        let mut words = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (words.next(), words.next()) else {
            continue;
        };
        let version = match controllers {
            "" => Version::Two,
            several if several.split(',').any(|it| it == controller) => Version::One,
            _ => continue,
        };
        let Some((mount, seen)) = mounted(mounts, version, controller) else {
            continue;
        };
        // A mount may begin below the root, as in a container without a namespace of groups.
        let below = Path::new(path).strip_prefix(seen).unwrap_or(Path::new(""));
        let inside = root.join(mount.strip_prefix("/").unwrap_or(&mount));
        levels.extend(below.ancestors().map(|below| Level {
            path: inside.join(below),
            version,
        }));
    }
    levels
}

/// Where the groups of a controller are mounted, and which group is the root there.
///
/// `36 35 98:0 /root /mount/point rw,relatime - cgroup cgroup rw,memory`, in `proc_pid_mountinfo(5)`.
fn mounted(mounts: &str, version: Version, controller: &str) -> Option<(PathBuf, PathBuf)> {
    mounts.lines().find_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        let mut kind = kind.split(' ');
        let matches = match (kind.next()?, version) {
            ("cgroup2", Version::Two) => true,
            ("cgroup", Version::One) => {
                let options = kind.nth(1)?;
                options.split(',').any(|option| option == controller)
            }
            _ => false,
        };
        let mut place = place.split(' ').skip(3);
        let (seen, mount) = (place.next()?, place.next()?);
        // A blank in a name has this escape.
        let path = |text: &str| PathBuf::from(text.replace("\\040", " "));
        matches.then(|| (path(mount), path(seen)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// A directory in place of the root of a file system, with these files.
    struct Machine(PathBuf);

    impl Machine {
        fn with(name: &str, files: &[(&str, &str)]) -> Self {
            let directory = format!("wharf-{}-cgroup-{name}", std::process::id());
            let machine = Machine(std::env::temp_dir().join(directory));
            for (name, text) in files {
                let path = machine.0.join(name);
                fs::create_dir_all(path.parent().expect("it has one")).expect("a directory");
                fs::write(path, text).expect("a file");
            }
            machine
        }

        fn groups(&self) -> Groups {
            Groups::find(&self.0)
        }
    }

    impl Drop for Machine {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    const MOUNTS_ONE: &str = "\
31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
36 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
39 31 0:36 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
";
    const MOUNTS_TWO: &str =
        "29 23 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate";

    #[test]
    fn the_smallest_limit_on_the_way_up_wins_in_version_1() {
        let machine = Machine::with(
            "one",
            &[
                ("proc/self/mountinfo", MOUNTS_ONE),
                (
                    "proc/self/cgroup",
                    "5:cpu,cpuacct:/job\n4:memory:/job/inner\n3:pids:/job\n",
                ),
                (
                    "sys/fs/cgroup/memory/memory.limit_in_bytes",
                    "9223372036854771712",
                ),
                (
                    "sys/fs/cgroup/memory/job/memory.limit_in_bytes",
                    "268435456\n",
                ),
                (
                    "sys/fs/cgroup/memory/job/memory.usage_in_bytes",
                    "201326592\n",
                ),
                (
                    "sys/fs/cgroup/memory/job/memory.stat",
                    "inactive_file 1\ntotal_inactive_file 33554432\n",
                ),
                (
                    "sys/fs/cgroup/memory/job/inner/memory.limit_in_bytes",
                    "1073741824",
                ),
                (
                    "sys/fs/cgroup/memory/job/inner/memory.usage_in_bytes",
                    "1048576",
                ),
                ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1"),
                ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000"),
                ("sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us", "150000"),
                ("sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us", "100000"),
                ("sys/fs/cgroup/pids/job/pids.max", "100"),
                ("sys/fs/cgroup/pids/job/pids.current", "30"),
            ],
        );
        let groups = machine.groups();
        let memory = groups.memory().expect("it is limited");
        assert_eq!(memory.max_bytes, 256 * MIB);
        assert_eq!(memory.available_bytes, 96 * MIB);
        let told = groups.told();
        assert_eq!((told.tasks_max, told.tasks_left), (Some(100), Some(70)));
        assert_eq!(told.processors, Some(1.5));
    }

    #[test]
    fn the_smallest_limit_on_the_way_up_wins_in_version_2() {
        let machine = Machine::with(
            "two",
            &[
                ("proc/self/mountinfo", MOUNTS_TWO),
                ("proc/self/cgroup", "0::/user.slice/user 1/job\n"),
                ("sys/fs/cgroup/user.slice/memory.max", "268435456"),
                ("sys/fs/cgroup/user.slice/memory.current", "134217728"),
                (
                    "sys/fs/cgroup/user.slice/memory.stat",
                    "inactive_file 1048576\n",
                ),
                ("sys/fs/cgroup/user.slice/user 1/memory.max", "max"),
                // It has more available than its parent, and a smaller limit.
                (
                    "sys/fs/cgroup/user.slice/user 1/job/memory.max",
                    "209715200",
                ),
                ("sys/fs/cgroup/user.slice/user 1/job/memory.current", "0"),
                ("sys/fs/cgroup/user.slice/user 1/job/cpu.max", "max 100000"),
                ("sys/fs/cgroup/user.slice/cpu.max", "50000 100000\n"),
                ("sys/fs/cgroup/user.slice/user 1/job/pids.max", "max\n"),
            ],
        );
        let groups = machine.groups();
        let memory = groups.memory().expect("it is limited");
        assert_eq!(memory.max_bytes, 200 * MIB);
        assert_eq!(memory.available_bytes, 129 * MIB);
        let told = groups.told();
        assert_eq!((told.tasks_max, told.tasks_left), (None, None));
        assert_eq!(told.processors, Some(0.5));
    }

    #[test]
    fn a_container_may_see_its_group_as_the_root_of_the_mount() {
        let mounts = "36 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory";
        let machine = Machine::with(
            "container",
            &[
                ("proc/self/mountinfo", mounts),
                (
                    "proc/self/cgroup",
                    "4:memory:/docker/abc/job\n0::/elsewhere\n",
                ),
                ("sys/fs/cgroup/memory/memory.limit_in_bytes", "536870912"),
                (
                    "sys/fs/cgroup/memory/job/memory.limit_in_bytes",
                    "268435456",
                ),
            ],
        );
        let memory = machine.groups().memory().expect("it is limited");
        assert_eq!(memory.max_bytes, 256 * MIB);
    }

    #[test]
    fn where_there_are_no_groups_nothing_is_limited() {
        let machine = Machine::with("none", &[("proc/self/cgroup", "nonsense\n4:memory:/job\n")]);
        assert_eq!(machine.groups().memory(), None);
        assert_eq!(machine.groups().told(), Cgroup::default());
    }
}
