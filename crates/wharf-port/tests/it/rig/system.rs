//! What cases read from the system itself: descriptors, limits, processor time, directories.

use std::net::Ipv4Addr;
use std::path::Path;
#[cfg(unix)]
use std::sync::Arc;
use std::sync::OnceLock;
#[cfg(unix)]
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use wharf_port::{Listener, Port};

use crate::rig::peer::{Heard, Peer};

mod directory;

pub(crate) use directory::Directory;

/// Whether the system is Wine, which differs from Windows in places.
pub(crate) fn is_wine() -> bool {
    wine_major().is_some()
}

/// Whether the system is a Wine before 10, which differs in more of them.
pub(crate) fn is_old_wine() -> bool {
    wine_major().is_some_and(|major| major < 10)
}

/// The major version of Wine, which the driver for Windows reports.
fn wine_major() -> Option<u32> {
    static MAJOR: OnceLock<Option<u32>> = OnceLock::new();
    *MAJOR.get_or_init(|| {
        let port = Port::builder().build().expect("the system has a driver");
        let features = &port.driver().features;
        let version = features.iter().find_map(|it| it.strip_prefix("Wine "))?;
        let major = version.split('.').next()?;
        Some(major.parse().expect("Wine numbers its versions"))
    })
}

/// After this time a case hangs, or its event never comes: `seconds` on an idle machine, and more
/// on any that may be busy or stand still for a while. Every call of Wine goes through one server,
/// on a busy machine a hundred times slower than a system: there it is longer. `WHARF_TEST_SLOW` is
/// a factor for slow machines.
pub(crate) fn patience(seconds: u64) -> Duration {
    static SLOW: OnceLock<u64> = OnceLock::new();
    let slow = *SLOW.get_or_init(|| match std::env::var("WHARF_TEST_SLOW") {
        Ok(times) => times.parse().expect("WHARF_TEST_SLOW is a number"),
        Err(_) => 1,
    });
    Duration::from_secs(seconds * slow * if is_wine() { 8 } else { 3 })
}

/// What each thread of this process does in the system, for the report of a case that hangs: its
/// name, where the kernel holds it, and its system call with the arguments. Empty if there is no
/// such list.
pub(crate) fn threads() -> Vec<String> {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten();
    let ask = |path: &Path, what: &str| {
        let answer = std::fs::read_to_string(path.join(what)).unwrap_or_else(|_| "?".into());
        answer.trim().to_owned()
    };
    let threads = threads.filter_map(|thread| {
        let path = thread.ok()?.path();
        let [name, place, call] = ["comm", "wchan", "syscall"].map(|what| ask(&path, what));
        Some(format!("{name}: in {place}, call {call}"))
    });
    threads.collect()
}

/// The number of open descriptors of this process. It is only useful in a process of one case.
#[cfg(not(windows))]
pub(crate) fn descriptors() -> usize {
    let listed = std::fs::read_dir("/proc/self/fd").expect("the case runs on Linux");
    listed.count()
}

/// Fails unless `before` descriptors are open, and lists them.
pub(crate) fn assert_descriptors(before: usize) {
    let now = descriptors();
    if now != before {
        let listed = std::fs::read_dir("/proc/self/fd").into_iter().flatten();
        let links = listed.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
        let links: Vec<_> = links.collect();
        panic!("{now} descriptors are open, {before} were before: {links:?}");
    }
}

/// The number of open handles of this process. It is only useful in a process of one case.
#[cfg(windows)]
pub(crate) fn descriptors() -> usize {
    crate::rig::open_handles::all().len()
}

/// The handles that a child would inherit.
#[cfg(windows)]
pub(crate) fn inherited_handles() -> Vec<usize> {
    let all = crate::rig::open_handles::all().into_iter();
    let inherited = all.filter(|handle| handle.is_inherited);
    inherited.map(|handle| handle.number).collect()
}

/// Elsewhere a child lists what it has.
#[cfg(not(windows))]
pub(crate) fn inherited_handles() -> Vec<usize> {
    Vec::new()
}

/// Takes all descriptors that this process may have, except this number.
#[cfg(unix)]
pub(crate) fn leave_descriptors(count: usize) -> Vec<std::fs::File> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limits = getrlimit(Resource::Nofile);
    limits.current = Some(256);
    setrlimit(Resource::Nofile, limits).expect("below the hard limit");
    let opened = std::iter::repeat_with(|| std::fs::File::open("/dev/null"));
    let mut hoard: Vec<_> = opened.map_while(Result::ok).collect();
    hoard.truncate(hoard.len() - count);
    hoard
}

#[cfg(not(unix))]
pub(crate) fn leave_descriptors(_: usize) -> Vec<std::fs::File> {
    panic!("the case is skipped where there are no descriptors");
}

/// Limits this process to this number of descriptors.
#[cfg(unix)]
pub(crate) fn allow_descriptors(count: usize) {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limits = getrlimit(Resource::Nofile);
    if limits.current.is_some_and(|soft| soft < count as u64) {
        limits.current = Some(count as u64);
        setrlimit(Resource::Nofile, limits).expect("the hard limit is at least that");
    }
}

#[cfg(not(unix))]
pub(crate) fn allow_descriptors(_: usize) {}

/// Gives back the memory that this process may get.
#[cfg(target_os = "linux")]
pub(crate) struct NoMemory(rustix::process::Rlimit, Vec<Option<Vec<u8>>>);

/// Lets this process get no more memory from the system while the returned value lives. Memory of
/// its allocator is still there, and some of it is free.
#[cfg(target_os = "linux")]
pub(crate) fn leave_no_memory() -> NoMemory {
    use rustix::process::{Resource, getrlimit, setrlimit};
    // A thread that has not begun yet needs memory for that.
    while !others_sleep() {
        std::thread::yield_now();
    }
    // Blocks that stay keep the allocator from returning the space between them.
    let mut kept: Vec<_> = (0..512).map(|_| Some(vec![1u8; 8 * 1024])).collect();
    for (place, block) in kept.iter_mut().enumerate() {
        *block = block.take().filter(|_| place % 16 == 15);
    }
    let limits = getrlimit(Resource::As);
    let pages = std::fs::read_to_string("/proc/self/statm").expect("the case runs on Linux");
    let pages = pages
        .split_whitespace()
        .next()
        .expect("the size comes first");
    let bytes = pages.parse::<u64>().expect("a number") * rustix::param::page_size() as u64;
    let mut none = limits;
    none.current = Some(bytes);
    setrlimit(Resource::As, none).expect("below the hard limit");
    NoMemory(limits, kept)
}

/// Whether all threads of this process except the first one sleep.
#[cfg(target_os = "linux")]
fn others_sleep() -> bool {
    let own = std::process::id().to_string();
    let tasks = std::fs::read_dir("/proc/self/task").expect("the case runs on Linux");
    let mut others = tasks
        .map(|task| task.expect("an entry").path())
        .filter(|task| !task.ends_with(&own));
    others.all(|task| {
        let status = std::fs::read_to_string(task.join("status")).unwrap_or_default();
        status.lines().any(|line| line.starts_with("State:\tS"))
    })
}

#[cfg(target_os = "linux")]
impl Drop for NoMemory {
    fn drop(&mut self) {
        use rustix::process::{Resource, setrlimit};
        setrlimit(Resource::As, self.0).expect("as it was");
        self.1.clear();
    }
}

/// Nothing is restricted here.
#[cfg(not(target_os = "linux"))]
pub(crate) struct NoMemory;

#[cfg(not(target_os = "linux"))]
pub(crate) fn leave_no_memory() -> NoMemory {
    panic!("the case is skipped where memory cannot be taken away");
}

/// Whether a socket of this process sends small pieces at once, read through a copy of it.
#[cfg(target_os = "linux")]
pub(crate) fn no_delay(number: u64) -> bool {
    socket2::SockRef::from(&copy_of(number))
        .tcp_nodelay()
        .expect("a socket of TCP")
}

/// The congestion control of a socket of this process.
#[cfg(target_os = "linux")]
pub(crate) fn congestion_control(number: u64) -> String {
    let name = socket2::SockRef::from(&copy_of(number)).tcp_congestion();
    let name = String::from_utf8(name.expect("a socket of TCP")).expect("a name");
    name.trim_end_matches('\0').to_owned()
}

/// The idle time, the interval and the number of probes of a socket of this process with keepalive;
/// `None` without it.
#[cfg(target_os = "linux")]
pub(crate) fn keepalive(number: u64) -> Option<(Duration, Duration, u32)> {
    let copy = copy_of(number);
    let socket = socket2::SockRef::from(&copy);
    if !socket.keepalive().expect("a socket of TCP") {
        return None;
    }
    let idle = socket.tcp_keepalive_time().expect("a socket of TCP");
    let interval = socket.tcp_keepalive_interval().expect("a socket of TCP");
    let probes = socket.tcp_keepalive_retries().expect("a socket of TCP");
    Some((idle, interval, probes))
}

#[cfg(target_os = "linux")]
fn copy_of(number: u64) -> std::os::fd::OwnedFd {
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
    let process = pidfd_open(getpid(), PidfdFlags::empty()).expect("this process lives");
    let number = i32::try_from(number).expect("a descriptor");
    let copy = pidfd_getfd(process, number, PidfdGetfdFlags::empty());
    copy.expect("a process may look at itself")
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn keepalive(_: u64) -> Option<(Duration, Duration, u32)> {
    panic!("the case is skipped where nobody can look")
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn no_delay(_: u64) -> bool {
    panic!("the case is skipped where nobody can look")
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn congestion_control(_: u64) -> String {
    panic!("the case does not look where nobody can")
}

/// Signals to this process, one after the other, until it is stopped.
#[cfg(unix)]
pub(crate) struct SignalStorm {
    came: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<()>,
}

#[cfg(unix)]
impl SignalStorm {
    pub(crate) fn start() -> Self {
        use rustix::process::{Signal, getpid, kill_process};
        let flag = Arc::new(AtomicBool::new(false));
        let signal = signal_hook::consts::SIGUSR1;
        signal_hook::flag::register(signal, Arc::clone(&flag)).expect("a known signal");
        let came = Arc::<AtomicUsize>::default();
        let stop = Arc::<AtomicBool>::default();
        let (counted, stopped) = (Arc::clone(&came), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Acquire) {
                // The thread of the case takes it: it was the first of this process.
                kill_process(getpid(), Signal::USR1).expect("a process may signal itself");
                std::thread::sleep(Duration::from_micros(100));
                let came = usize::from(flag.swap(false, Ordering::AcqRel));
                counted.fetch_add(came, Ordering::AcqRel);
            }
        });
        SignalStorm { came, stop, thread }
    }

    /// The number of signals taken so far.
    pub(crate) fn came(&self) -> usize {
        self.came.load(Ordering::Acquire)
    }

    pub(crate) fn stop(self) {
        self.stop.store(true, Ordering::Release);
        self.thread.join().expect("it only sends signals");
    }
}

#[cfg(not(unix))]
pub(crate) struct SignalStorm;

#[cfg(not(unix))]
impl SignalStorm {
    pub(crate) fn start() -> Self {
        panic!("the case is skipped where there are no signals")
    }

    pub(crate) fn came(&self) -> usize {
        0
    }

    pub(crate) fn stop(self) {}
}

/// The number of threads of this process whose name begins so, including the kernel's own.
pub(crate) fn threads_named(begin: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("the case runs on Linux");
    let named = |task: std::io::Result<std::fs::DirEntry>| {
        let name = std::fs::read_to_string(task.ok()?.path().join("comm")).ok()?;
        name.starts_with(begin).then_some(())
    };
    tasks.filter_map(named).count()
}

/// Reads what fits into the buffer and discards it (tcp(7), `MSG_TRUNC`); 0 if the connection is
/// over.
#[cfg(target_os = "linux")]
pub(crate) fn read_away(socket: &std::net::TcpStream, buffer: &mut [u8]) -> usize {
    let read = rustix::net::recv(socket, buffer, rustix::net::RecvFlags::TRUNC);
    read.map_or(0, |(_, count)| count)
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn read_away(_: &std::net::TcpStream, _: &mut [u8]) -> usize {
    panic!("the case is skipped elsewhere")
}

/// The number of sockets registered with the epoll sets of this process.
pub(crate) fn epoll_members() -> usize {
    let files = std::fs::read_dir("/proc/self/fdinfo").expect("the case runs on Linux");
    let members = |file: std::io::Result<std::fs::DirEntry>| {
        let text = std::fs::read_to_string(file.ok()?.path()).ok()?;
        Some(text.lines().filter(|line| line.starts_with("tfd:")).count())
    };
    files.filter_map(members).sum()
}

/// Processor time that this process has used so far.
pub(crate) fn processor_time() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").expect("the case runs on Linux");
    let of = |task: std::io::Result<std::fs::DirEntry>| {
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    };
    Duration::from_nanos(tasks.filter_map(of).sum())
}

/// Counts the signals about a broken pipe, from now on.
#[cfg(unix)]
pub(crate) fn count_pipe_signals() -> impl Fn() -> usize {
    let came = Arc::new(AtomicBool::new(false));
    let signal = signal_hook::consts::SIGPIPE;
    signal_hook::flag::register(signal, Arc::clone(&came)).expect("a known signal");
    move || usize::from(came.load(Ordering::SeqCst))
}

#[cfg(not(unix))]
pub(crate) fn count_pipe_signals() -> impl Fn() -> usize {
    || panic!("the case is skipped where there are no signals")
}

/// The far end of a pair of Unix sockets.
#[cfg(unix)]
pub(crate) struct UnixFar(std::os::unix::net::UnixStream);

/// The far end of a descriptor that was passed to a peer.
#[cfg(unix)]
pub(crate) struct Passed(std::os::unix::net::UnixStream);

/// Two Unix sockets without a name: one for a port, and the far end.
#[cfg(unix)]
pub(crate) fn unix_pair() -> (wharf_port::Unassociated, UnixFar) {
    let pair = std::os::unix::net::UnixStream::pair();
    let (near, far) = pair.expect("the system has sockets");
    (near.into(), UnixFar(far))
}

#[cfg(unix)]
impl UnixFar {
    pub(crate) fn leave(self) {
        drop(self.0);
    }

    pub(crate) fn say(&self, bytes: &[u8]) {
        use std::io::Write;
        (&self.0).write_all(bytes).expect("an empty buffer");
    }

    /// Sends a message with a descriptor, and keeps only its far end.
    pub(crate) fn pass(&self, bytes: &[u8]) -> Passed {
        use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
        use std::os::fd::AsFd;
        let pair = std::os::unix::net::UnixStream::pair();
        let (near, far) = pair.expect("the system has sockets");
        far.set_nonblocking(true).expect("an open socket");
        let descriptors = [near.as_fd()];
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
        let bytes = &[std::io::IoSlice::new(bytes)];
        let sent = sendmsg(&self.0, bytes, &mut control, SendFlags::empty());
        assert!(sent.is_ok(), "an empty buffer: {sent:?}");
        Passed(far)
    }
}

#[cfg(unix)]
impl Passed {
    /// Whether no process has the descriptor any more.
    pub(crate) fn is_closed(&self) -> bool {
        use std::io::Read;
        matches!((&self.0).read(&mut [0]), Ok(0))
    }
}

#[cfg(not(unix))]
pub(crate) struct UnixFar;

#[cfg(not(unix))]
pub(crate) struct Passed;

#[cfg(not(unix))]
pub(crate) fn unix_pair() -> (wharf_port::Unassociated, UnixFar) {
    panic!("the case is skipped where there are no Unix sockets")
}

#[cfg(not(unix))]
impl UnixFar {
    pub(crate) fn leave(self) {}

    pub(crate) fn say(&self, _: &[u8]) {}

    pub(crate) fn pass(&self, _: &[u8]) -> Passed {
        Passed
    }
}

#[cfg(not(unix))]
impl Passed {
    pub(crate) fn is_closed(&self) -> bool {
        false
    }
}

/// The port number of a listener on an internet address.
pub(crate) fn port_of(listener: &Listener) -> u16 {
    let address = listener.local_addr().expect("a listener has an address");
    address
        .as_socket_addr()
        .expect("an internet address")
        .port()
}

/// Waits until the peer sees that its connection is over, in any way.
pub(crate) fn hear_the_end(peer: &mut Box<dyn Peer>) -> Heard {
    let deadline = Instant::now() + patience(20);
    loop {
        match peer.try_receive(1 << 16) {
            end @ (Heard::Finished | Heard::Reset) => return end,
            Heard::Bytes(_) => {}
            Heard::Nothing => std::thread::sleep(Duration::from_millis(1)),
        }
        assert!(Instant::now() < deadline, "the peer never hears an end");
    }
}

/// A loopback address that no other process uses, where the system has many. Clients that had bound
/// themselves to 127.0.0.1, and were in TIME_WAIT, once had every number there.
pub(crate) fn own_loopback() -> Ipv4Addr {
    let [.., high, low] = std::process::id().to_be_bytes();
    let own = cfg!(target_os = "linux").then_some(Ipv4Addr::new(127, 64, high, low));
    own.unwrap_or(Ipv4Addr::LOCALHOST)
}

/// Asks the system for a time stamp of each send (SO_TIMESTAMPING, socket(7)).
#[cfg(target_os = "linux")]
pub(crate) fn stamp_sends(socket: &std::net::TcpStream) {
    use nix::sys::socket::{TimestampingFlag, setsockopt, sockopt::Timestamping};
    let flags = TimestampingFlag::SOF_TIMESTAMPING_TX_SOFTWARE
        | TimestampingFlag::SOF_TIMESTAMPING_SOFTWARE;
    setsockopt(socket, Timestamping, &flags).expect("every Linux has it");
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn stamp_sends(_: &std::net::TcpStream) {
    panic!("the case is skipped elsewhere")
}
