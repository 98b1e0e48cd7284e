//! Which thread is woken while another one is held up in the kernel, where nothing interrupts it.

use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::*;
use crate::driver::uring::queue::{Purpose, Size};

/// Ends a test that hangs. It is far longer than any step takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A named pipe. A thread that opens it to read waits for one that writes.
struct Pipe(PathBuf);

impl Pipe {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("wharf-bell-{}", std::process::id()));
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a fresh name");
        Pipe(path)
    }

    fn open_to_write(&self) {
        let writer = std::fs::OpenOptions::new().write(true).open(&self.0);
        drop(writer.expect("a process opens it to read"));
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Starts a process that waits for the pipe before it runs. Until then the kernel keeps the calling
/// thread.
fn start_a_process(pipe: &Path) {
    let path = CString::new(pipe.as_os_str().as_encoded_bytes()).expect("a path");
    let arguments = [c"true".as_ptr().cast_mut(), std::ptr::null_mut()];
    let mut process = 0;
    // SAFETY: all of it lives through the calls, and the lists end with null.
    let started = unsafe {
        let mut actions = std::mem::zeroed();
        libc::posix_spawn_file_actions_init(&raw mut actions);
        libc::posix_spawn_file_actions_addopen(&raw mut actions, 0, path.as_ptr(), 0, 0);
        let started = libc::posix_spawnp(
            &raw mut process,
            c"true".as_ptr(),
            &raw const actions,
            std::ptr::null(),
            arguments.as_ptr(),
            arguments.as_ptr().add(1),
        );
        libc::posix_spawn_file_actions_destroy(&raw mut actions);
        libc::waitpid(process, std::ptr::null_mut(), 0);
        started
    };
    assert_eq!(started, 0, "a process starts");
}

fn until(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "{what}: it never came");
        thread::yield_now();
    }
}

/// Whether only the event that it waits for ends the sleep of this thread.
fn is_held_up(thread: i32) -> bool {
    let state = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat"));
    state.is_ok_and(|state| state.contains(") D "))
}

fn enter(ring: &Ring, at_most: Duration) {
    // SAFETY: one thread enters after the other.
    unsafe { ring.enter(Some(at_most), Purpose::Serve) }.expect("enters");
}

#[test]
fn the_bell_wakes_while_the_previous_thread_is_held_up() {
    let Ok(ring) = Ring::new(false, Size::default()) else {
        return println!("skipped: there is no io_uring here");
    };
    if !ring.takes_messages {
        return println!("skipped: rings take no messages from outside before Linux 6.13");
    }
    let pipe = Pipe::new();
    let (before, woken) = (AtomicI32::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            enter(&ring, Duration::ZERO);
            let this = rustix::thread::gettid().as_raw_nonzero().get();
            before.store(this, Ordering::Release);
            start_a_process(&pipe.0);
        });
        until("a thread that is held up", || {
            is_held_up(before.load(Ordering::Acquire))
        });
        scope.spawn(|| {
            enter(&ring, 2 * PATIENCE);
            woken.store(true, Ordering::Release);
        });
        until("a thread that sleeps", || lock(&ring.queue).asleep);
        ring.wake(1);
        let deadline = Instant::now() + PATIENCE;
        while !woken.load(Ordering::Acquire) && Instant::now() < deadline {
            thread::yield_now();
        }
        let in_time = woken.load(Ordering::Acquire);
        pipe.open_to_write();
        assert!(in_time, "it slept until the other thread was let go");
    });
}
