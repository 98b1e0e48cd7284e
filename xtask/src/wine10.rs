//! The `wine10` command, which is run by hand: what the `wine` leg runs, under the Wine of Debian 13.
//!
//! Wine 10 does as Windows does in places where Wine 8 does not: after a reset
//! that found nobody receiving a read fails (10054), closing a port wakes those
//! who wait on it, and a request on a connection that was reset fails at once.
//! Without it that code would run nowhere before it runs on Windows.
//!
//! Packages of Debian 13 cannot be installed beside those of Debian 12, so that
//! Wine lives in a root directory of its own below `target/wine10`. Each start
//! mounts what it has to see of this system in a mount namespace of its own:
//! the kernel takes the mounts away with the last process in it, however that
//! ends. Mounting in the namespace of the machine was rejected: what an
//! interrupted leg leaves mounted is deleted by the next `cargo clean`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command;
use crate::debian::{self, Needed};
use crate::wine::{Build, Wine, timed};

const NEEDED: [Needed; 2] = [
    ("/usr/sbin/debootstrap", "debootstrap"),
    // What Debian signs its packages with; Ubuntu does not have it from the start.
    (
        "/usr/share/keyrings/debian-archive-keyring.gpg",
        "debian-archive-keyring",
    ),
];
const RELEASE: &str = "trixie";
const WINE: &str = "/usr/lib/wine/wine64";
const WINE_SERVER: &str = "/usr/lib/wine/wineserver64";
/// The lowest version that does what this leg is for.
const VERSION_MIN: u32 = 10;

pub(crate) fn wine10() -> Result<()> {
    if !debian::is_root()? {
        bail!("wine10 runs Wine in a root directory of its own, which needs root: run it as root");
    }
    debian::install(&NEEDED)?;
    let base = debian::directory("wine10");
    fs::create_dir_all(&base)?;
    let root = base.join("root");
    if !root.exists() {
        timed("install Debian 13 with Wine", || install(&root))?;
    }
    let runtime = base.join("runtime");
    fs::create_dir_all(&runtime)?;
    let wine = Wine {
        program: starter(&root, &base.join("wine64"), WINE)?,
        server: starter(&root, &base.join("wineserver64"), WINE_SERVER)?,
        prefix: base.join("prefix"),
        // Without it each start writes a line of complaint, which the tests would read.
        variables: vec![("XDG_RUNTIME_DIR", runtime.into())],
    };
    require_version(&wine.program)?;
    let build = Build::new()?;
    build.all()?;
    wine.exercise(&build)
}

/// Makes the root directory, beside its place first: one that is only half there is never used.
fn install(root: &Path) -> Result<()> {
    let partial = root.with_extension("partial");
    if partial.exists() {
        fs::remove_dir_all(&partial)?;
    }
    let mut debootstrap = Command::new("debootstrap");
    debootstrap.args(["--variant=minbase", "--include=wine64", RELEASE]);
    command::run(debootstrap.arg(&partial).arg(mirror()?))?;
    // The packages themselves are not needed any more.
    fs::remove_dir_all(partial.join("var/cache/apt/archives"))?;
    // Wine looks names up there, and the release brings none.
    fs::write(
        partial.join("etc/hosts"),
        "127.0.0.1 localhost\n::1 localhost\n",
    )?;
    fs::rename(&partial, root)?;
    Ok(())
}

/// Where the packages of this system are from.
fn mirror() -> Result<String> {
    let mut targets = Command::new("apt-get");
    targets.args(["indextargets", "--format", "$(SITE)"]);
    targets.args(["Created-By: Packages", "Origin: Debian", "Label: Debian"]);
    let sites = command::read(&mut targets)?;
    let site = sites.lines().next();
    Ok(site.unwrap_or("http://deb.debian.org/debian").to_owned())
}

/// Writes the script at `path` that starts `program` inside `root`, and returns its path.
///
/// It becomes the program in the end, so that a signal to it reaches the program.
fn starter(root: &Path, path: &Path, program: &str) -> Result<PathBuf> {
    let places = [
        Path::new("/proc"),
        Path::new("/sys"),
        Path::new("/dev"),
        Path::new("/dev/pts"),
        &std::env::temp_dir(),
        command::root(),
        &command::target_directory(),
    ]
    .map(|place| place.display().to_string());
    if places.iter().any(|place| place.contains([' ', '\'', '"'])) {
        bail!("wine10 mounts the paths {places:?}: move those that have spaces or quotes in them");
    }
    let script = format!(
        r#"#!/bin/sh
exec unshare --mount sh -c '
    for place in {places}; do
        mkdir -p "{root}$place" && mount --bind "$place" "{root}$place" || exit 125
    done
    exec chroot "{root}" sh -c "cd \"\$0\" && exec {program} \"\$@\"" "$PWD" "$@"
' sh "$@"
"#,
        places = places.join(" "),
        root = root.display(),
    );
    fs::write(path, script)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(path.to_owned())
}

fn require_version(wine: &Path) -> Result<()> {
    let printed = command::read(Command::new(wine).arg("--version"))
        .context("cannot start Wine in its root directory")?;
    let number = printed.trim().strip_prefix("wine-").unwrap_or_default();
    let major = number.split(['.', ' ']).next().unwrap_or_default();
    if major.parse().is_ok_and(|major: u32| major >= VERSION_MIN) {
        println!("-- {}", printed.trim());
        return Ok(());
    }
    bail!("wine10 needs Wine {VERSION_MIN} or later, and found {printed:?}");
}
