//! Windows: native I/O completion ports.
//!
//! Every waiter dequeues for itself. An idle stream has a zero-byte receive with the system,
//! which holds no buffer and locks no page. When that receive completes, the socket is read at its
//! turn into buffers of the pool, exactly as in the readiness driver. The next one follows when the
//! socket is empty. Receiving directly into a pool buffer was rejected: an idle connection would
//! hold it.
//!
//! A short send on an empty queue is a plain call. It becomes a request only if the socket has no
//! space. A socket has one request with the system at a time, and only waiters process its end. So
//! with requests alone, the second send of a handler that computes went out late. Several requests
//! at a time were rejected: after a request that failed, those after it might still go out.
//!
//! Flags are set before the call that makes a request, and cleared if the call fails at once,
//! because another thread may dequeue the packet before the call returns. The slot's lock orders
//! the two (zio #530).
//!
//! After a cancelled receive, send or accept, a connection is in an undefined state: Microsoft only
//! allows closing it. So the zero-byte receive belongs to the driver, separate from what the
//! caller reads. If the caller cancels a receive, that receive ends at once. The request that stays
//! with the system serves the next receive (`GUARDED` is set while it is there). The same holds for
//! posted accepts. The request that waits for the peer to leave may be cancelled safely.
//!
//! A close sends FIN at once, so the peer learns of it even if no thread waits. It then cancels
//! what is with the system, and closes the handle when the last packet is in, because closing a
//! handle under a receive may reset the connection. For a reset the handle closes at once. A packet
//! names its slot and block, so the system may reuse the handle's number meanwhile.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use socket2::Domain;
use windows_sys::Win32::Networking::WinSock::WSABUF;

use super::reading;
use super::silence::Silence;
use super::{Abilities, Direction, Driver, Sockets, Submit, Threads, Transmitted, Unavailable};
use crate::core::local::Local;
use crate::core::locked::Locked;
use crate::core::options::Options;
use crate::core::slot::{Own, Receiving, SlotId};
use crate::core::work::{Queued, Work};
use crate::core::{Core, Out};
use crate::listen::ListenOptions;
use crate::sys;
use accept::Listeners;
use queue::{Dequeued, Queue};
use request::Extensions;

pub(crate) use block::{SlotBlock, WorkBlock};

mod accept;
mod block;
mod completion;
mod queue;
mod receive;
mod request;
mod watch;

/// As far as is known, the next read would return something.
const READABLE: Own<Iocp> = reading::readable();

/// The most buffers of the send queue that one call takes.
const BUFFERS_MAX: usize = 16;
/// The most bytes that one call takes. Winsock counts them in 32 bits.
const SEND_BYTES_MAX: usize = 1 << 30;
/// The longest send that is tried with a plain call first. A plain call copies into the system,
/// which takes the whole send, however long it is. A request sends from the caller's buffer.
const AT_ONCE_BYTES_MAX: usize = 64 << 10;

/// The most packets that a look processes which does not wait for any.
const COLLECTED_MAX: usize = 256;

/// The most looks at the end of a port, so that endless packets cannot keep it from ending.
const LOOKS_MAX: usize = 4096;

/// The completion port driver.
#[derive(Debug)]
pub(crate) struct Iocp {
    queue: Queue,
    extensions_v4: Extensions,
    /// A system may lack IPv6 altogether. Then no socket of it exists, and these are never needed.
    extensions_v6: OnceLock<Extensions>,
    listeners: Listeners,
    /// Requests with the system.
    outstanding: AtomicU64,
    /// Wake-ups that the system had no memory for. The next thread that polls posts them again.
    wakes_owed: AtomicU32,
}

impl Iocp {
    pub(crate) fn new(_options: &Options) -> Result<Self, Unavailable> {
        let failed = |code| ("the system cannot create a completion port", Some(code));
        let extensions_v4 = Extensions::of(Domain::IPV4).map_err(|code| {
            let reason = "the network provider lacks AcceptEx or ConnectEx: remove the filter \
                          (a layered service provider) that replaces it";
            (reason, Some(code))
        })?;
        Ok(Iocp {
            queue: Queue::new().map_err(failed)?,
            extensions_v4,
            extensions_v6: OnceLock::new(),
            listeners: Listeners::default(),
            outstanding: AtomicU64::new(0),
            wakes_owed: AtomicU32::new(0),
        })
    }

    fn extensions(&self, domain: Domain) -> Result<Extensions, i32> {
        if domain == Domain::IPV4 {
            return Ok(self.extensions_v4);
        }
        if let Some(extensions) = self.extensions_v6.get() {
            return Ok(*extensions);
        }
        let extensions = Extensions::of(domain)?;
        Ok(*self.extensions_v6.get_or_init(|| extensions))
    }

    fn arm_connect(&self, socket: &mut Locked<'_>) {
        let overlapped = socket.block().overlapped.lend();
        let address = socket.queues().and_then(|work| work.connect_to.clone());
        let address = address.expect("a connect has its address");
        socket.begin_reading();
        let address = request::reachable(address);
        let made = self.extensions(address.domain()).and_then(|extensions| {
            request::refuse_at_once(socket.open_handle(), &address);
            // SAFETY: the block is the slot's, which stays until the packet is out.
            unsafe { extensions.connect(socket.open_handle(), &address, overlapped) }
        });
        match made {
            Ok(()) => self.request_made(),
            Err(code) => socket.connected(Err(code)),
        }
    }

    fn request_made(&self) {
        self.outstanding.fetch_add(1, Ordering::Relaxed);
    }

    fn pay_wakes(&self) {
        let owed = self.wakes_owed.swap(0, Ordering::AcqRel);
        if owed > 0 {
            self.wake(owed);
        }
    }
}

/// Closes the handle, unless it is closed already.
fn close_handle(socket: &mut Locked<'_>) {
    let Some(handle) = socket.take_handle() else {
        return;
    };
    if socket.is_resetting() {
        sys::close_with_reset(handle);
    } else if !socket.is_stream() {
        drop(handle);
    } else {
        sys::close_gracefully(handle);
    }
}

/// Cancels a connect, whose socket closes with it, or a watch. Nothing else is armed here.
fn cancel_reading(socket: &Locked<'_>) {
    let own = socket.block().overlapped.address();
    if let Some(handle) = socket.handle() {
        request::cancel(handle, own);
    }
}

fn cancel_sending(socket: &mut Locked<'_>) {
    let (work, handle) = socket.queues_and_handle();
    request::cancel(handle, work.driver.sending().address());
}

/// Lists what is queued and not sent, up to a shutdown. Returns the number of buffers, which is
/// also the number of sends.
fn list_unsent(work: &Work, buffers: &mut [WSABUF; BUFFERS_MAX]) -> usize {
    let mut room = SEND_BYTES_MAX;
    let mut count = 0;
    let sends = work.sends.iter().map_while(Queued::bytes);
    for (place, bytes) in sends.enumerate().take(BUFFERS_MAX) {
        if room == 0 {
            break;
        }
        let sent = if place == 0 { work.head_sent } else { 0 };
        let bytes = &bytes[sent..];
        let length = bytes.len().min(room);
        room -= length;
        buffers[place] = WSABUF {
            len: length as u32,
            // The system only reads through it.
            buf: bytes.as_ptr().cast_mut(),
        };
        count = place + 1;
    }
    count
}

impl Driver for Iocp {
    fn abilities(&self) -> Abilities {
        static WINE: OnceLock<Option<String>> = OnceLock::new();
        let text = |version| format!("Wine {version} in place of Windows");
        let wine = WINE.get_or_init(|| sys::wine_version().map(text));
        Abilities {
            concurrent: true,
            defers: false,
            may_spin: true,
            features: wine.as_deref().into_iter().collect(),
        }
    }

    fn associate(&self, socket: &mut Locked<'_>, _accepted: bool) -> Result<(), i32> {
        self.queue.associate(socket.open_handle(), socket.id)?;
        // For reads and short sends, which are plain calls. Requests are overlapped in any case.
        sys::set_nonblocking(socket.open_handle(), true)
    }

    fn arm(&self, socket: &mut Locked<'_>) {
        match socket.receiving() {
            None => {}
            Some(Receiving::Accept) => self.arm_accept(socket),
            Some(Receiving::Connect) => self.arm_connect(socket),
            Some(Receiving::Stream | Receiving::Into) => self.arm_reading(socket),
            Some(Receiving::Watch) => self.arm_watch(socket),
        }
    }

    fn send_at_once(&self, socket: &mut Locked<'_>, bytes: &[u8]) -> Option<Result<usize, i32>> {
        if bytes.len() > AT_ONCE_BYTES_MAX {
            return None;
        }
        Some(match sys::send_one(socket.open_handle(), bytes) {
            // The send becomes a request, which waits for space.
            Err(code) if sys::would_block(code) || sys::lacks_buffers(code) => Ok(0),
            result => result,
        })
    }

    fn transmit(&self, socket: &mut Locked<'_>, _bytes_max: usize) -> Transmitted {
        let (work, handle) = socket.queues_and_handle();
        let nothing = WSABUF {
            len: 0,
            buf: std::ptr::null_mut(),
        };
        let mut buffers = [nothing; BUFFERS_MAX];
        Core::spare_the_pool_of_request(work, BUFFERS_MAX);
        let sends = list_unsent(work, &mut buffers);
        let overlapped = work.driver.sending().lend();
        // SAFETY: the sends stay in the queue, and the work block with the socket, until the packet
        // is out: the core takes neither while `is_sending` is true, as it is before the core unlocks
        // the socket.
        match unsafe { request::send(handle, &buffers[..sends], overlapped) } {
            Ok(()) => {
                self.request_made();
                Transmitted::Submitted { sends }
            }
            Err(code) => Transmitted::Failed(code),
        }
    }

    fn cancel(&self, socket: &mut Locked<'_>, direction: Direction) {
        match direction {
            Direction::Reading => cancel_reading(socket),
            Direction::Writing => cancel_sending(socket),
        }
    }

    fn hang_up(&self, socket: &mut Locked<'_>) {
        let Some(handle) = socket.handle() else {
            return;
        };
        let graceful = !socket.is_resetting() && socket.is_stream();
        if graceful {
            // It fails if the peer has reset the connection. Then the peer needs no FIN.
            let _ = sys::shutdown_write(handle);
        }
        request::cancel_all(handle);
        if !graceful {
            close_handle(socket);
        }
    }

    fn release(&self, socket: &mut Locked<'_>) {
        close_handle(socket);
        if socket.is_listener() {
            self.listeners.forget(socket.id);
        }
    }

    fn advance(&self, socket: &mut Locked<'_>) {
        if socket.is_closing() || socket.is_armed() {
            return;
        }
        match socket.receiving() {
            Some(Receiving::Stream) => reading::stream::<Iocp>(socket, Own::NONE),
            Some(Receiving::Into) => reading::into::<Iocp>(socket, Own::NONE),
            None | Some(Receiving::Accept | Receiving::Connect | Receiving::Watch) => {}
        }
        let reading = matches!(
            socket.receiving(),
            Some(Receiving::Stream | Receiving::Into)
        );
        if reading && !socket.is_armed() && !socket.has(READABLE) {
            self.arm_reading(socket);
        }
    }

    fn has_more(&self, socket: &Locked<'_>) -> bool {
        reading::has_more::<Iocp>(socket)
    }

    fn submit(&self, core: &Arc<Core>, why: Submit) {
        // Requests never wait here. But what is queued after a request goes out only when the
        // driver processes the end of that request. At the end of a port there is nothing else to
        // do.
        let looks = match why {
            Submit::Now | Submit::ForRoom(_) => 1,
            Submit::AtEnd => LOOKS_MAX,
        };
        (0..looks).any(|_| self.collect(core) == 0);
    }

    fn poll(
        &self,
        core: &Arc<Core>,
        at_most: Option<Duration>,
        local: &mut Local,
    ) -> Result<(), i32> {
        self.pay_wakes();
        self.queue
            .dequeue(at_most, local.events_max(), |packet| match packet {
                Dequeued::Wake => local.wakes += 1,
                Dequeued::Request(index, address) => {
                    self.completed(core, index, address, &mut Out(Some(local)));
                }
            })
    }

    fn wake(&self, threads: u32) {
        for posted in 0..threads {
            if !self.queue.post_wake() {
                self.wakes_owed
                    .fetch_add(threads - posted, Ordering::AcqRel);
                return;
            }
        }
    }

    fn end(&self, core: &Arc<Core>) -> u64 {
        let mut silence = Silence::default();
        loop {
            let left = self.outstanding.load(Ordering::Relaxed);
            if left == 0 {
                return 0;
            }
            if silence.is_too_long() {
                // The system may still write to the blocks, so the tables that contain them are
                // never freed.
                std::mem::forget(Arc::clone(core));
                return left;
            }
            let begun = Instant::now();
            let collected = self
                .queue
                .dequeue(Some(Silence::STEP), usize::MAX, |packet| match packet {
                    Dequeued::Wake => {}
                    Dequeued::Request(index, address) => {
                        self.completed(core, index, address, &mut Out::queue());
                    }
                });
            debug_assert!(collected.is_ok(), "the completion port is open");
            silence.waited(
                begun.elapsed(),
                self.outstanding.load(Ordering::Relaxed) != left,
            );
        }
    }
}

impl Sockets for Iocp {
    fn listening(&self, socket: &Locked<'_>, at: &ListenOptions) {
        self.keep_options(socket, at);
    }

    fn undelivered(&self, listener: SlotId) -> usize {
        self.listeners.unplaced(listener)
    }
}

impl Threads for Iocp {}
