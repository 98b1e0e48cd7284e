//! The servers on mio, as its documentation shows them: edge-triggered, each event handled until
//! the call would block or came up short, and a write tried before waiting for it.

#![forbid(unsafe_code)]

use std::io::{self, ErrorKind, Read as _, Write as _};

use bench_common::{Pattern, Work};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

const LISTENER: Token = Token(usize::MAX);

struct Connection {
    stream: TcpStream,
    /// What an echo could not send yet.
    unsent: Vec<u8>,
    sent: u64,
}

struct Server {
    poll: Poll,
    listener: TcpListener,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    work: Work,
    buffer: Vec<u8>,
    pattern: Pattern,
}

fn main() -> io::Result<()> {
    let work = bench_common::start();
    let mut listener = TcpListener::from_std(bench_common::listener(true));
    let poll = Poll::new()?;
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut server = Server {
        poll,
        listener,
        connections: Vec::new(),
        free: Vec::new(),
        work,
        buffer: vec![0; work.read_bytes()],
        pattern: Pattern::default(),
    };
    let mut events = Events::with_capacity(1024);
    loop {
        if let Err(error) = server.poll.poll(&mut events, None)
            && error.kind() != ErrorKind::Interrupted
        {
            return Err(error);
        }
        for event in &events {
            if event.token() == LISTENER {
                server.accept()?;
            } else if server
                .serve(event.token().0, event.is_read_closed())
                .is_err()
            {
                server.free.push(event.token().0);
                server.connections[event.token().0] = None;
            }
        }
    }
}

impl Server {
    fn accept(&mut self) -> io::Result<()> {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            if self.work != Work::Accept {
                self.keep(stream)?;
            }
        }
    }

    fn keep(&mut self, mut stream: TcpStream) -> io::Result<()> {
        let index = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        let interest = Interest::READABLE | Interest::WRITABLE;
        let interest = if self.work == Work::Sink {
            Interest::READABLE
        } else {
            interest
        };
        self.poll
            .registry()
            .register(&mut stream, Token(index), interest)?;
        self.connections[index] = Some(Connection {
            stream,
            unsent: Vec::new(),
            sent: 0,
        });
        Ok(())
    }

    /// Handles an event; an error is the end of the connection.
    fn serve(&mut self, index: usize, ended: bool) -> io::Result<()> {
        let Some(connection) = &mut self.connections[index] else {
            return Ok(());
        };
        match self.work {
            Work::Source => connection.source(&self.pattern),
            _ => connection.receive(&mut self.buffer, self.work == Work::Echo, ended),
        }
    }
}

impl Connection {
    fn receive(&mut self, buffer: &mut [u8], echo: bool, ended: bool) -> io::Result<()> {
        while !self.unsent.is_empty() {
            let Some(count) = unless_blocked(self.stream.write(&self.unsent))? else {
                return Ok(());
            };
            self.unsent.drain(..count);
        }
        loop {
            let Some(count) = unless_blocked(self.stream.read(buffer))? else {
                return Ok(());
            };
            if count == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            if echo {
                let sent = unless_blocked(self.stream.write(&buffer[..count]))?.unwrap_or(0);
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

    fn source(&mut self, pattern: &Pattern) -> io::Result<()> {
        loop {
            let Some(count) = unless_blocked(self.stream.write(pattern.of_source(self.sent)))?
            else {
                return Ok(());
            };
            self.sent += count as u64;
        }
    }
}

fn unless_blocked(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(count) => Ok(Some(count)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}
