//! Where this program is started from again, as the ends of bench and as several processes.
//!
//! Its file may have been replaced since it started: cargo and package managers do that while a long
//! run goes on. On Linux the kernel still has the one that runs. That name is not used without need:
//! processes would be called `exe`.

use std::io;
use std::path::PathBuf;

/// The file to start.
#[cfg(target_os = "linux")]
pub(crate) fn program() -> io::Result<PathBuf> {
    use std::fs::metadata;
    use std::os::unix::fs::MetadataExt;

    const RUNNING: &str = "/proc/self/exe";
    let named = std::env::current_exe()?;
    let identity = |path: &std::path::Path| metadata(path).map(|file| (file.dev(), file.ino()));
    let running = identity(RUNNING.as_ref())?;
    let is_there = identity(&named).is_ok_and(|file| file == running);
    Ok(if is_there { named } else { RUNNING.into() })
}

/// The file to start.
#[cfg(not(target_os = "linux"))]
pub(crate) fn program() -> io::Result<PathBuf> {
    std::env::current_exe()
}
