//! The limit of readiness: epoll, edge-triggered, with nothing between it and the sockets.
//!
//! Reads until a read comes up short, sends at once, registers a socket once and never again. A
//! socket's descriptor is its index, and it keeps only what could not be sent.

#![forbid(unsafe_code)]

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd as _, OwnedFd};

use bench_common::{Pattern, Work};
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags};

/// Accepts of one turn, so that a storm of connections does not shut out the others.
const ACCEPTS_MAX: usize = 64;

#[derive(Default)]
struct Connection {
    socket: Option<OwnedFd>,
    unsent: Vec<u8>,
    sent: u64,
}

struct Server {
    epoll: OwnedFd,
    listener: TcpListener,
    connections: Vec<Connection>,
    buffer: Vec<u8>,
    pattern: Pattern,
    work: Work,
}

fn main() -> io::Result<()> {
    let work = bench_common::start();
    let mut server = Server {
        epoll: epoll::create(CreateFlags::CLOEXEC)?,
        listener: bench_common::listener(true),
        connections: Vec::new(),
        buffer: vec![0; work.read_bytes()],
        pattern: Pattern::default(),
        work,
    };
    let listener = EventData::new_u64(u64::MAX);
    epoll::add(&server.epoll, &server.listener, listener, EventFlags::IN)?;
    let mut events: Vec<Event> = Vec::with_capacity(1024);
    loop {
        events.clear();
        match epoll::wait(
            &server.epoll,
            rustix::buffer::spare_capacity(&mut events),
            None,
        ) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            let (data, flags) = (event.data.u64(), event.flags);
            if data == u64::MAX {
                server.accept()?;
            } else if server.serve(data as usize, flags).is_err() {
                server.connections[data as usize] = Connection::default();
            }
        }
    }
}

impl Server {
    fn accept(&mut self) -> io::Result<()> {
        for _ in 0..ACCEPTS_MAX {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let socket = match rustix::net::accept_with(&self.listener, flags) {
                Ok(socket) => socket,
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            if self.work == Work::Accept {
                continue;
            }
            let index = socket.as_raw_fd() as usize;
            let interest = match self.work {
                Work::Sink => EventFlags::IN | EventFlags::RDHUP,
                _ => EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP,
            };
            let data = EventData::new_u64(index as u64);
            epoll::add(&self.epoll, &socket, data, interest | EventFlags::ET)?;
            if self.connections.len() <= index {
                self.connections.resize_with(index + 1, Connection::default);
            }
            self.connections[index].socket = Some(socket);
        }
        Ok(())
    }

    fn serve(&mut self, index: usize, flags: EventFlags) -> rustix::io::Result<()> {
        let connection = &mut self.connections[index];
        if self.work == Work::Source {
            return connection.source(&self.pattern);
        }
        connection.flush()?;
        if connection.unsent.is_empty() && flags.contains(EventFlags::IN) {
            let ended = flags.contains(EventFlags::RDHUP);
            connection.receive(&mut self.buffer, self.work == Work::Echo, ended)?;
        }
        Ok(())
    }
}

impl Connection {
    fn receive(&mut self, buffer: &mut [u8], echo: bool, ended: bool) -> rustix::io::Result<()> {
        let socket = self.socket.as_ref().ok_or(Errno::BADF)?;
        loop {
            let count = match rustix::net::recv(socket, &mut *buffer, RecvFlags::empty()) {
                Ok((0, _)) => return Err(Errno::PIPE),
                Ok((count, _)) => count,
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error),
            };
            if echo {
                let sent = send(socket, &buffer[..count])?;
                if sent < count {
                    self.unsent.extend_from_slice(&buffer[sent..count]);
                    return Ok(());
                }
            }
            // A short read has emptied the socket: the next bytes make a new edge.
            if count < buffer.len() && !ended {
                return Ok(());
            }
        }
    }

    fn flush(&mut self) -> rustix::io::Result<()> {
        if !self.unsent.is_empty() {
            let socket = self.socket.as_ref().ok_or(Errno::BADF)?;
            let sent = send(socket, &self.unsent)?;
            self.unsent.drain(..sent);
        }
        Ok(())
    }

    fn source(&mut self, pattern: &Pattern) -> rustix::io::Result<()> {
        let socket = self.socket.as_ref().ok_or(Errno::BADF)?;
        loop {
            let sent = send(socket, pattern.of_source(self.sent))?;
            if sent == 0 {
                return Ok(());
            }
            self.sent += sent as u64;
        }
    }
}

/// Sends what the socket takes now.
fn send(socket: &OwnedFd, bytes: &[u8]) -> rustix::io::Result<usize> {
    match rustix::net::send(socket, bytes, SendFlags::NOSIGNAL) {
        Err(Errno::AGAIN) => Ok(0),
        result => result,
    }
}
