//! The limit of completions: io_uring with nothing between it and the sockets.
//!
//! One enter submits everything and waits. There is a multishot accept, and for each connection a
//! multishot receive on a ring of provided buffers. A plain send uses the buffer that came in,
//! which returns when the send is over. A full send is one request, because of `MSG_WAITALL`. A
//! connection's sends wait in a list while the kernel has one.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd as _;
use std::ptr;
use std::sync::atomic::{AtomicU16, Ordering};

use bench_common::{BULK, Pattern, Work};
use io_uring::squeue::Entry;
use io_uring::types::{BufRingEntry, Fd};
use io_uring::{IoUring, cqueue, opcode, squeue};

const GROUP: u16 = 1;
const ACCEPT: u64 = 1 << 56;
const RECEIVE: u64 = 2 << 56;
const SEND: u64 = 3 << 56;
const CLOSE: u64 = 4 << 56;

/// Buffers in which the kernel receives.
struct Buffers {
    ring: *mut BufRingEntry,
    entries: u16,
    bytes: usize,
    memory: Vec<u8>,
    tail: u16,
    /// The number that the kernel has filled and not got back.
    filled: u16,
}

impl Buffers {
    fn new(ring: &IoUring, entries: u16, bytes: usize) -> io::Result<Buffers> {
        let layout = std::alloc::Layout::from_size_align(usize::from(entries) * 16, 4096);
        let layout = layout.map_err(io::Error::other)?;
        // SAFETY: the layout is not empty; the memory lives as long as the process.
        let address = unsafe { std::alloc::alloc_zeroed(layout) }.cast::<BufRingEntry>();
        // SAFETY: as above, the buffer ring is never freed.
        unsafe {
            ring.submitter()
                .register_buf_ring_with_flags(address as u64, entries, GROUP, 0)?;
        }
        let mut buffers = Buffers {
            ring: address,
            entries,
            bytes,
            memory: vec![0; usize::from(entries) * bytes],
            tail: 0,
            filled: entries,
        };
        (0..entries).for_each(|id| buffers.give_back(id));
        buffers.publish();
        Ok(buffers)
    }

    fn give_back(&mut self, id: u16) {
        self.filled -= 1;
        let slot = usize::from(self.tail & (self.entries - 1));
        let address = self.address(id);
        // SAFETY: the slot is within the ring, and the kernel does not read beyond the tail.
        let entry = unsafe { &mut *self.ring.add(slot) };
        entry.set_addr(address as u64);
        entry.set_len(self.bytes as u32);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish(&self) {
        // SAFETY: the tail is in the first entry of the ring, which lives on; the kernel reads it.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(self.ring).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    fn address(&self, id: u16) -> *const u8 {
        ptr::from_ref(&self.memory[usize::from(id) * self.bytes])
    }
}

#[derive(Default)]
struct Connection {
    sending: bool,
    /// Whether the kernel has a multishot receive.
    receiving: bool,
    ended: bool,
    /// What waits to be sent; its head is being sent.
    unsent: VecDeque<(u16, u32)>,
}

struct Server {
    ring: IoUring,
    buffers: Buffers,
    connections: Vec<Connection>,
    /// Connections whose receive found no buffer.
    starved: VecDeque<usize>,
    pattern: Pattern,
    work: Work,
    listener: i32,
}

fn main() -> io::Result<()> {
    let work = bench_common::start();
    let listener = bench_common::listener(false);
    let ring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_submit_all()
        .setup_no_sqarray()
        .setup_cqsize(8192)
        .build(1024)?;
    // All of them together stay within half of the second cache.
    let (entries, bytes) = if work == Work::Sink {
        (32, BULK)
    } else {
        (256, 2048)
    };
    let buffers = Buffers::new(&ring, entries, bytes)?;
    let mut server = Server {
        ring,
        buffers,
        connections: Vec::new(),
        starved: VecDeque::new(),
        pattern: Pattern::default(),
        work,
        listener: listener.as_raw_fd(),
    };
    server.accept();
    let mut completions: Vec<cqueue::Entry> = Vec::with_capacity(8192);
    loop {
        match server.ring.submit_and_wait(1) {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
            Err(error) => return Err(error),
        }
        completions.extend(server.ring.completion());
        for completion in completions.drain(..) {
            server.complete(&completion);
        }
        server.buffers.publish();
    }
}

impl Server {
    fn push(&mut self, entry: &Entry) {
        loop {
            // SAFETY: what an entry points to is in the buffers or the pattern, which live on.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return;
            }
            self.ring.submit().expect("the ring takes what is queued");
        }
    }

    fn accept(&mut self) {
        let entry = opcode::AcceptMulti::new(Fd(self.listener)).build();
        self.push(&entry.user_data(ACCEPT));
    }

    fn receive(&mut self, index: usize) {
        self.connections[index].receiving = true;
        let entry = opcode::RecvMulti::new(Fd(index as i32), GROUP).build();
        self.push(&entry.user_data(RECEIVE | index as u64));
    }

    fn send(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        connection.sending = true;
        let (address, bytes) = if self.work == Work::Source {
            (self.pattern.of_source(0).as_ptr(), BULK as u32)
        } else {
            let Some(&(id, bytes)) = connection.unsent.front() else {
                connection.sending = false;
                return;
            };
            (self.buffers.address(id), bytes)
        };
        let flags = libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
        let entry = opcode::Send::new(Fd(index as i32), address, bytes)
            .flags(flags)
            .build();
        self.push(&entry.user_data(SEND | index as u64));
    }

    fn close(&mut self, index: usize) {
        let entry = opcode::Close::new(Fd(index as i32)).build();
        let entry = entry.flags(squeue::Flags::SKIP_SUCCESS);
        self.push(&entry.user_data(CLOSE));
    }

    fn complete(&mut self, completion: &cqueue::Entry) {
        let data = completion.user_data();
        let index = (data & 0xffff_ffff) as usize;
        let more = cqueue::more(completion.flags());
        let id = cqueue::buffer_select(completion.flags());
        match data & (0xff << 56) {
            ACCEPT => self.accepted(completion.result(), more),
            RECEIVE => self.received(index, completion.result(), id, more),
            SEND => self.sent(index, completion.result()),
            _ => {}
        }
    }

    fn accepted(&mut self, result: i32, more: bool) {
        if !more {
            self.accept();
        }
        let Ok(index) = usize::try_from(result) else {
            return;
        };
        if self.work == Work::Accept {
            return self.close(index);
        }
        if self.connections.len() <= index {
            self.connections.resize_with(index + 1, Connection::default);
        }
        self.connections[index] = Connection::default();
        match self.work {
            Work::Source => self.send(index),
            _ => self.receive(index),
        }
    }

    fn received(&mut self, index: usize, result: i32, id: Option<u16>, more: bool) {
        self.connections[index].receiving = more;
        self.buffers.filled += u16::from(id.is_some());
        match id.filter(|_| result > 0) {
            Some(id) if self.work == Work::Echo => {
                let connection = &mut self.connections[index];
                connection.unsent.push_back((id, result as u32));
                if !connection.sending {
                    self.send(index);
                }
            }
            Some(id) => self.back(id),
            // They may have come back since the kernel found none.
            None if result == -libc::ENOBUFS && self.buffers.filled == self.buffers.entries => {
                return self.starved.push_back(index);
            }
            None if result == -libc::ENOBUFS => {}
            None => self.connections[index].ended = true,
        }
        self.go_on(index);
    }

    /// Receives again if the multishot is over, or closes a connection that is over.
    fn go_on(&mut self, index: usize) {
        let connection = &self.connections[index];
        if connection.receiving {
            return;
        }
        if !connection.ended {
            self.receive(index);
        } else if !connection.sending {
            self.close(index);
        }
    }

    fn back(&mut self, id: u16) {
        self.buffers.give_back(id);
        if let Some(index) = self.starved.pop_front() {
            self.receive(index);
        }
    }

    fn sent(&mut self, index: usize, result: i32) {
        let connection = &mut self.connections[index];
        connection.sending = false;
        if self.work == Work::Source {
            // A send that came up short, despite `MSG_WAITALL`, met the end of the connection.
            return if result == BULK as i32 {
                self.send(index);
            } else {
                self.close(index);
            };
        }
        if let Some((id, _)) = connection.unsent.pop_front() {
            self.back(id);
        }
        if self.connections[index].unsent.is_empty() {
            if self.connections[index].ended {
                self.go_on(index);
            }
        } else {
            self.send(index);
        }
    }
}
