//! What the program `wharf` needs of Windows besides sockets: the events of a console, its memory,
//! and its processor time.
//!
//! No part of the port: it is here because each of these takes a call that is not safe, and the
//! program has none. Crates that have them were tried first. `ctrlc` answers an event at once, upon
//! which Windows ends the process; `tokio` never answers one, a logoff neither, and is a runtime.
//! `sysinfo` brings `shell32.dll` and so `user32.dll` into the process, and Windows tells a process that
//! has that one nothing of a shutdown. See `docs/decisions/0012-a-console-handler-of-our-own.md`.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use windows_sys::Win32::Foundation::FILETIME;
use windows_sys::Win32::System::Console as console;
use windows_sys::Win32::System::SystemInformation::{GlobalMemoryStatusEx, MEMORYSTATUSEX};
use windows_sys::Win32::System::Threading::{GetCurrentProcess, GetProcessTimes};
use windows_sys::core::BOOL;

/// What the console or the system asks of this process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(
    clippy::exhaustive_enums,
    reason = "hidden, and the program handles each of them"
)]
pub enum ConsoleEvent {
    /// Ctrl-C or Ctrl-Break. It ends in its own time.
    Interrupt,
    /// The console closes, or the system shuts down: it has less than five seconds to end.
    Close,
}

/// How long Windows is kept from ending the process, which it does after 5 seconds in any case.
const ENDS_WITHIN: Duration = Duration::from_millis(4500);

type Handler = Box<dyn FnMut(ConsoleEvent) + Send>;

/// What is told of events; nothing before somebody wants to know of them.
static HANDLER: Mutex<Option<Handler>> = Mutex::new(None);

/// Tells `handler` of each event that asks this process to end, on a thread of the system's.
///
/// After [`ConsoleEvent::Close`] that thread stays for 4.5 seconds, and with it the process, which ends
/// before with its own exit code if `main` returns. A logoff is nobody's event: it is any user's, and
/// a service goes on. There is one handler in a process, the latest.
///
/// # Errors
/// Where the system does not call it.
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

/// Called by the system, on a thread that it starts for each event.
extern "system" fn on_event(event: u32) -> BOOL {
    answer(event, ENDS_WITHIN).into()
}

/// Whether this event is dealt with; one that is not ends the process. With the answer to a closing
/// the process ends too.
fn answer(event: u32, ends_within: Duration) -> bool {
    let told = match event {
        console::CTRL_C_EVENT | console::CTRL_BREAK_EVENT => ConsoleEvent::Interrupt,
        console::CTRL_CLOSE_EVENT | console::CTRL_SHUTDOWN_EVENT => ConsoleEvent::Close,
        console::CTRL_LOGOFF_EVENT => return true,
        _ => return false,
    };
    let mut handler = HANDLER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handler) = &mut *handler {
        handler(told);
    }
    drop(handler);
    if told == ConsoleEvent::Close {
        thread::sleep(ends_within);
    }
    true
}

/// The memory of the machine, in bytes: all of it, and what is free for programs.
#[must_use]
pub fn machine_memory() -> Option<(u64, u64)> {
    let mut status = MEMORYSTATUSEX {
        dwLength: size_of::<MEMORYSTATUSEX>() as u32,
        ..Default::default()
    };
    // SAFETY: the structure says how long it is and lives through the call.
    let told = unsafe { GlobalMemoryStatusEx(&raw mut status) };
    (told != 0).then_some((status.ullTotalPhys, status.ullAvailPhys))
}

/// The processor time of all threads of this process, in the kernel too.
#[must_use]
pub fn processor_time() -> Option<Duration> {
    let [mut created, mut exited, mut kernel, mut user] = [FILETIME::default(); 4];
    // SAFETY: the handle stands for this process and needs no closing; each structure lives through
    // the call.
    let told = unsafe {
        GetProcessTimes(
            GetCurrentProcess(),
            &raw mut created,
            &raw mut exited,
            &raw mut kernel,
            &raw mut user,
        )
    };
    // In tenths of a microsecond.
    let time = |of: FILETIME| u64::from(of.dwHighDateTime) << 32 | u64::from(of.dwLowDateTime);
    (told != 0).then(|| Duration::from_nanos((time(kernel) + time(user)) * 100))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Instant;

    use super::*;

    /// As the system calls it: each event on a thread of its own.
    fn sent(event: u32, ends_within: Duration) -> (bool, Duration) {
        let began = Instant::now();
        let answered = thread::spawn(move || answer(event, ends_within)).join();
        (answered.expect("no panic"), began.elapsed())
    }

    #[test]
    fn only_closing_keeps_the_system_waiting_and_a_logoff_is_nobodys() {
        let (events, told) = mpsc::channel();
        on_console_event(move |event| events.send(event).expect("it is read")).expect("a handler");
        let told = || told.try_iter().collect::<Vec<_>>();
        let patience = Duration::from_millis(50);
        for event in [console::CTRL_C_EVENT, console::CTRL_BREAK_EVENT] {
            // It would be waited for an hour.
            assert!(sent(event, Duration::from_secs(3600)).0);
            assert_eq!(told(), [ConsoleEvent::Interrupt]);
        }
        for event in [console::CTRL_CLOSE_EVENT, console::CTRL_SHUTDOWN_EVENT] {
            let (answered, took) = sent(event, patience);
            assert!(answered && took >= patience, "{took:?}");
            assert_eq!(told(), [ConsoleEvent::Close]);
        }
        assert!(sent(console::CTRL_LOGOFF_EVENT, Duration::from_secs(3600)).0);
        assert_eq!(told(), []);
        assert!(!sent(99, Duration::from_secs(3600)).0, "the next handler's");
        assert_eq!(told(), []);
    }

    #[test]
    fn the_system_waits_no_longer_than_windows_does() {
        assert!(ENDS_WITHIN < Duration::from_secs(5));
    }

    #[test]
    fn what_the_machine_and_the_process_have_is_told() {
        let (total, available) = machine_memory().expect("Windows tells it");
        assert!(total >= available && available > 0, "{total}, {available}");
        let give_up_at = Instant::now() + Duration::from_secs(60);
        while processor_time().expect("Windows tells it").is_zero() {
            assert!(Instant::now() < give_up_at, "it has computed all the time");
        }
    }
}
