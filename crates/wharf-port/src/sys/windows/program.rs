//! What the program `wharf` needs from Windows besides sockets: console events, the memory of the
//! machine, and its own processor time.
//!
//! This is not part of the port. It is here because each of these needs an unsafe call, and the
//! program has no unsafe code. We tried existing crates first. `ctrlc` returns from an event at
//! once, and then Windows ends the process. `tokio` never returns from an event, not even from a
//! logoff, and it is a whole runtime. `sysinfo` loads `shell32.dll`, which loads `user32.dll`, and
//! Windows does not notify a process that has loaded it of a shutdown. See
//! `docs/decisions/0012-a-console-handler-of-our-own.md`.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use windows_sys::Win32::Foundation::FILETIME;
use windows_sys::Win32::System::Console as console;
use windows_sys::Win32::System::SystemInformation::{GlobalMemoryStatusEx, MEMORYSTATUSEX};
use windows_sys::Win32::System::Threading::{GetCurrentProcess, GetProcessTimes};
use windows_sys::core::BOOL;

/// What the console or the system requests of this process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(
    clippy::exhaustive_enums,
    reason = "hidden, and the program handles each of them"
)]
pub enum ConsoleEvent {
    /// Ctrl-C or Ctrl-Break. The process may take as long as it needs.
    Interrupt,
    /// The console closes, or the system shuts down: the process has less than five seconds to end.
    Close,
}

/// How long the handler keeps Windows from ending the process. After 5 seconds Windows ends it in
/// any case.
const ENDS_WITHIN: Duration = Duration::from_millis(4500);

type Handler = Box<dyn FnMut(ConsoleEvent) + Send>;

/// The handler of events; `None` until one is set.
static HANDLER: Mutex<Option<Handler>> = Mutex::new(None);

/// Calls `handler` for each event that asks this process to end, on a thread of the system.
///
/// After [`ConsoleEvent::Close`] that thread blocks for 4.5 seconds, which keeps the process alive.
/// If `main` returns within this time, the process ends with its own exit code. A logoff is
/// ignored: it may be any user's, and a service continues to run. A process has one handler, the
/// latest.
///
/// # Errors
/// If the system refuses to register the handler.
pub fn on_console_event(handler: impl FnMut(ConsoleEvent) + Send + 'static) -> io::Result<()> {
    let mut place = HANDLER.lock().unwrap_or_else(PoisonError::into_inner);
    if place.replace(Box::new(handler)).is_some() {
        return Ok(());
    }
    // SAFETY: the function lives as long as the process and may be called on any thread.
    let added = unsafe { console::SetConsoleCtrlHandler(Some(on_event), 1) };
    if added == 0 {
        *place = None;
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The system calls this on a new thread for each event.
extern "system" fn on_event(event: u32) -> BOOL {
    handle(event, ENDS_WITHIN).into()
}

/// Returns whether this event has been handled. If it has not, the system ends the process. The
/// system also ends the process when this returns for a close.
fn handle(event: u32, ends_within: Duration) -> bool {
    let event = match event {
        console::CTRL_C_EVENT | console::CTRL_BREAK_EVENT => ConsoleEvent::Interrupt,
        console::CTRL_CLOSE_EVENT | console::CTRL_SHUTDOWN_EVENT => ConsoleEvent::Close,
        console::CTRL_LOGOFF_EVENT => return true,
        _ => return false,
    };
    let mut handler = HANDLER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handler) = &mut *handler {
        handler(event);
    }
    drop(handler);
    if event == ConsoleEvent::Close {
        thread::sleep(ends_within);
    }
    true
}

/// Returns the memory of the machine in bytes: the total, and what is available to programs.
#[must_use]
pub fn machine_memory() -> Option<(u64, u64)> {
    let mut status = MEMORYSTATUSEX {
        dwLength: size_of::<MEMORYSTATUSEX>() as u32,
        ..Default::default()
    };
    // SAFETY: the structure states its own length and lives through the call.
    let succeeded = unsafe { GlobalMemoryStatusEx(&raw mut status) };
    (succeeded != 0).then_some((status.ullTotalPhys, status.ullAvailPhys))
}

/// Returns the processor time of all threads of this process, including time in the kernel.
#[must_use]
pub fn processor_time() -> Option<Duration> {
    let [mut created, mut exited, mut kernel, mut user] = [FILETIME::default(); 4];
    // SAFETY: the handle denotes this process and needs no closing; each structure lives through
    // the call.
    let succeeded = unsafe {
        GetProcessTimes(
            GetCurrentProcess(),
            &raw mut created,
            &raw mut exited,
            &raw mut kernel,
            &raw mut user,
        )
    };
    // In units of 100 nanoseconds.
    let time = |of: FILETIME| u64::from(of.dwHighDateTime) << 32 | u64::from(of.dwLowDateTime);
    (succeeded != 0).then(|| Duration::from_nanos((time(kernel) + time(user)) * 100))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Instant;

    use super::*;

    /// Calls the handler as the system does: each event on a thread of its own.
    fn sent(event: u32, ends_within: Duration) -> (bool, Duration) {
        let began = Instant::now();
        let handled = thread::spawn(move || handle(event, ends_within)).join();
        (handled.expect("no panic"), began.elapsed())
    }

    #[test]
    fn only_a_close_keeps_the_system_waiting_and_a_logoff_is_ignored() {
        let (events, received) = mpsc::channel();
        on_console_event(move |event| events.send(event).expect("it is read")).expect("a handler");
        let received = || received.try_iter().collect::<Vec<_>>();
        let patience = Duration::from_millis(50);
        for event in [console::CTRL_C_EVENT, console::CTRL_BREAK_EVENT] {
            // If the handler waited, the test would take an hour.
            assert!(sent(event, Duration::from_secs(3600)).0);
            assert_eq!(received(), [ConsoleEvent::Interrupt]);
        }
        for event in [console::CTRL_CLOSE_EVENT, console::CTRL_SHUTDOWN_EVENT] {
            let (handled, took) = sent(event, patience);
            assert!(handled && took >= patience, "{took:?}");
            assert_eq!(received(), [ConsoleEvent::Close]);
        }
        assert!(sent(console::CTRL_LOGOFF_EVENT, Duration::from_secs(3600)).0);
        assert_eq!(received(), []);
        assert!(
            !sent(99, Duration::from_secs(3600)).0,
            "it is left to the next handler"
        );
        assert_eq!(received(), []);
    }

    #[test]
    fn the_system_waits_no_longer_than_windows_does() {
        assert!(ENDS_WITHIN < Duration::from_secs(5));
    }

    #[test]
    fn memory_and_processor_time_are_reported() {
        let (total, available) = machine_memory().expect("Windows reports it");
        assert!(total >= available && available > 0, "{total}, {available}");
        let give_up_at = Instant::now() + Duration::from_secs(60);
        while processor_time().expect("Windows reports it").is_zero() {
            assert!(
                Instant::now() < give_up_at,
                "this thread has computed all the time"
            );
        }
    }
}
