//! The file from which this program starts itself again, for the ends of bench and for several
//! processes.
//!
//! The file may have been replaced since the start: cargo and package managers do that during a
//! long run. On Linux the kernel still has the running file. That name is used only if necessary,
//! because processes would then be called `exe`.

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
