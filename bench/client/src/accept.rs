//! Connects, sees the server close, and leaves without a trace: a reset leaves no port in
//! TIME_WAIT, so a long run need not wait for ports.

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, ipproto};

use crate::Load;
use crate::measure::{Measure, Report};

struct Attempt {
    socket: OwnedFd,
    started: Instant,
}

pub(crate) fn run(load: &Load) -> Result<Report, Box<dyn Error>> {
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    let mut measure = Measure::new(load)?;
    let mut attempts = Vec::new();
    for index in 0..load.connections {
        attempts.push(attempt(&epoll, load.port, index)?);
    }
    let mut events: Vec<Event> = Vec::with_capacity(1024);
    loop {
        if measure.is_over(Instant::now())? {
            return measure.report();
        }
        events.clear();
        let limit = measure.next().saturating_duration_since(Instant::now());
        let limit = (limit + Duration::from_millis(1)).try_into()?;
        epoll::wait(
            &epoll,
            rustix::buffer::spare_capacity(&mut events),
            Some(&limit),
        )?;
        for event in &events {
            let index = event.data.u64() as usize;
            let mut byte = [0];
            match rustix::net::recv(&attempts[index].socket, &mut byte, RecvFlags::empty()) {
                Ok((0, _)) => {}
                Err(Errno::AGAIN) => continue,
                other => return Err(format!("instead of an end came {other:?}").into()),
            }
            measure.operations += 1;
            measure.latency(attempts[index].started, Instant::now(), 1);
            attempts[index] = attempt(&epoll, load.port, index)?;
        }
    }
}

fn attempt(epoll: &OwnedFd, port: u16, index: usize) -> Result<Attempt, Box<dyn Error>> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(
        AddressFamily::INET,
        SocketType::STREAM,
        flags,
        Some(ipproto::TCP),
    )?;
    rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
    let started = Instant::now();
    let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
    match rustix::net::connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    let interest = EventFlags::IN | EventFlags::ET;
    epoll::add(epoll, &socket, EventData::new_u64(index as u64), interest)?;
    Ok(Attempt { socket, started })
}
