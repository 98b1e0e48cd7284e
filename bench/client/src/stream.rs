//! Connections that stay: messages that come back, bytes that only go, bytes that only come.

use std::collections::VecDeque;
use std::error::Error;
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use bench_common::{BULK, Pattern, Work};
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use crate::Load;
use crate::measure::{Measure, Report};

/// Reads of one connection before the next has its turn.
const READS_MAX: usize = 4;

struct Connection {
    socket: TcpStream,
    sent: u64,
    /// Where the sent bytes end once the socket takes them all.
    to_send: u64,
    received: u64,
    /// When messages went out, and how many at once.
    waiting: VecDeque<(Instant, u64)>,
}

struct Client<'a> {
    load: &'a Load,
    epoll: OwnedFd,
    connections: Vec<Connection>,
    buffer: Vec<u8>,
    pattern: Pattern,
    measure: Measure,
}

pub(crate) fn run(load: &Load) -> Result<Report, Box<dyn Error>> {
    let idle: Vec<TcpStream> = (0..load.idle)
        .map(|_| connect(load))
        .collect::<Result<_, _>>()?;
    let mut client = Client {
        load,
        epoll: epoll::create(CreateFlags::CLOEXEC)?,
        connections: Vec::new(),
        buffer: vec![0; 4 * BULK],
        pattern: Pattern::default(),
        measure: Measure::new(load)?,
    };
    for index in 0..load.connections {
        client.open(index)?;
    }
    // The warm-up begins when all are connected.
    client.measure = Measure::new(load)?;
    client.drive()?;
    let report = client.measure.report();
    // Closing ten thousand connections is work for the server too, and not what is measured.
    drop(idle);
    report
}

fn connect(load: &Load) -> Result<TcpStream, Box<dyn Error>> {
    let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, load.port))?;
    bench_common::set_options(&socket);
    socket.set_nonblocking(true)?;
    Ok(socket)
}

impl Client<'_> {
    fn open(&mut self, index: usize) -> Result<(), Box<dyn Error>> {
        let socket = connect(self.load)?;
        let interest = match self.load.work {
            Work::Source => EventFlags::IN,
            Work::Sink => EventFlags::OUT,
            _ => EventFlags::IN | EventFlags::OUT,
        };
        let data = EventData::new_u64(index as u64);
        epoll::add(&self.epoll, &socket, data, interest | EventFlags::ET)?;
        self.connections.push(Connection {
            socket,
            sent: 0,
            to_send: 0,
            received: 0,
            waiting: VecDeque::new(),
        });
        if self.load.work == Work::Echo {
            self.ask(index, self.load.depth as u64, Instant::now())?;
        }
        Ok(())
    }

    fn drive(&mut self) -> Result<(), Box<dyn Error>> {
        let mut events: Vec<Event> = Vec::with_capacity(1024);
        // Connections that have had their turn and may have more to read or to write.
        let mut again: Vec<usize> = Vec::new();
        loop {
            let now = Instant::now();
            if self.measure.is_over(now)? {
                return Ok(());
            }
            events.clear();
            let limit = if again.is_empty() {
                self.measure.next() - now + Duration::from_millis(1)
            } else {
                Duration::ZERO
            };
            epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut events),
                Some(&limit.try_into()?),
            )?;
            let turns = std::mem::take(&mut again);
            let ready = events.iter().map(|event| event.data.u64() as usize);
            for index in turns.into_iter().chain(ready) {
                let more = match self.load.work {
                    Work::Sink => self.fill(index)?,
                    _ => self.read(index)?,
                };
                if more && !again.contains(&index) {
                    again.push(index);
                }
            }
        }
    }

    /// Reads what is there; returns whether there may be more.
    fn read(&mut self, index: usize) -> Result<bool, Box<dyn Error>> {
        self.flush(index)?;
        let echo = self.load.work == Work::Echo;
        for _ in 0..READS_MAX {
            let limit = if echo { BULK } else { self.buffer.len() };
            let connection = &mut self.connections[index];
            let buffer = &mut self.buffer[..limit];
            let count =
                match rustix::net::recv(&connection.socket, &mut *buffer, RecvFlags::empty()) {
                    Ok((0, _)) => return Err("the server ended a connection".into()),
                    Ok((count, _)) => count,
                    Err(Errno::AGAIN) => return Ok(false),
                    Err(error) => return Err(error.into()),
                };
            self.verify(index, count)?;
            self.measure.bytes += count as u64;
            if echo {
                self.answered(index, count)?;
            } else {
                self.connections[index].received += count as u64;
            }
            if count < limit {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn verify(&self, index: usize, count: usize) -> Result<(), Box<dyn Error>> {
        let mut position = self.connections[index].received;
        let mut left = &self.buffer[..count];
        while !left.is_empty() {
            let expected = match self.load.work {
                Work::Source => self.pattern.of_source(position),
                _ => self.pattern.at(index, position, left.len().min(BULK)),
            };
            let bytes = expected.len().min(left.len());
            if left[..bytes] != expected[..bytes] {
                return Err(format!("connection {index}: wrong bytes from {position} on").into());
            }
            position += bytes as u64;
            left = &left[bytes..];
        }
        Ok(())
    }

    /// Counts the messages that came back, and sends the same number of new ones.
    fn answered(&mut self, index: usize, count: usize) -> Result<(), Box<dyn Error>> {
        let bytes = self.load.bytes as u64;
        let connection = &mut self.connections[index];
        let before = connection.received / bytes;
        connection.received += count as u64;
        let messages = connection.received / bytes - before;
        if messages == 0 {
            return Ok(());
        }
        self.measure.operations += messages;
        let now = Instant::now();
        let mut left = messages;
        while left > 0 {
            let first = connection.waiting.front_mut();
            let (sent, waiting) = first.ok_or("more came back than went out")?;
            let done = left.min(*waiting);
            self.measure.latency(*sent, now, done);
            left -= done;
            *waiting -= done;
            if *waiting == 0 {
                connection.waiting.pop_front();
            }
        }
        self.ask(index, messages, now)
    }

    /// Sends this number of messages.
    fn ask(&mut self, index: usize, messages: u64, now: Instant) -> Result<(), Box<dyn Error>> {
        let connection = &mut self.connections[index];
        connection.waiting.push_back((now, messages));
        connection.to_send += messages * self.load.bytes as u64;
        self.flush(index)
    }

    fn flush(&mut self, index: usize) -> Result<(), Box<dyn Error>> {
        let connection = &mut self.connections[index];
        while connection.sent < connection.to_send {
            let bytes = (connection.to_send - connection.sent).min(BULK as u64) as usize;
            let bytes = self.pattern.at(index, connection.sent, bytes);
            match rustix::net::send(&connection.socket, bytes, SendFlags::NOSIGNAL) {
                Ok(count) => connection.sent += count as u64,
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Sends in bulk until the socket is full or the turn is over; returns whether there is space.
    fn fill(&mut self, index: usize) -> Result<bool, Box<dyn Error>> {
        for _ in 0..READS_MAX {
            let connection = &mut self.connections[index];
            let bytes = self.pattern.of_source(connection.sent);
            match rustix::net::send(&connection.socket, bytes, SendFlags::NOSIGNAL) {
                Ok(count) => {
                    connection.sent += count as u64;
                    self.measure.bytes += count as u64;
                }
                Err(Errno::AGAIN) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }
}
