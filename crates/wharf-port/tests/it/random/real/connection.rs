//! One connection of the program under test: how it reads, what it sends, and how it ends.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use wharf_port::{Buffer, Cancel, Close, End, Error, ErrorKind, Key, Lease, Op, SocketRef, Stream};

use crate::random::sim::asking::{self, Reading};
use crate::random::sim::ledger::Asked;

use super::far::{Far, check, pattern};
use super::plan::WAYS;
use super::program::World;

#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) socket: SocketRef,
    /// Its owner, unless the port owns it.
    stream: Option<Stream>,
    pub(crate) far: usize,
    key: Key,
    pub(crate) reading: Reading,
    received: usize,
    /// Buffers to send, in order.
    outbox: VecDeque<Buffer>,
    /// Own bytes that it has not sent yet.
    to_say: usize,
    /// Leases that are kept for a while.
    kept: Vec<Lease>,
    /// The outbox waits for `SendReady`.
    blocked: bool,
    write_over: bool,
    shutdown: Option<Op>,
    sends: Vec<Op>,
    pub(crate) closing: bool,
    closing_since: Option<Instant>,
    /// No further packet comes about it.
    pub(crate) gone: bool,
}

impl Connection {
    pub(crate) fn new(stream: Stream, key: Key, far: &mut Far, world: &mut World) -> Self {
        let socket = stream.socket();
        let stream = asking::own(stream, &mut world.dice);
        far.taken = true;
        let silent = world.dice.chance(world.plan.silent);
        far.echoed = !silent && world.dice.chance(500);
        Connection {
            socket,
            stream,
            far: far.number,
            key,
            reading: Reading::Nothing,
            received: 0,
            outbox: VecDeque::new(),
            to_say: match far.echoed || silent {
                true => 0,
                false => world.dice.below(world.plan.bytes_max + 1),
            },
            kept: Vec::new(),
            blocked: false,
            write_over: false,
            shutdown: None,
            sends: Vec::new(),
            closing: false,
            closing_since: None,
            gone: false,
        }
    }

    /// Reads in one of the possible ways, if it does not read and has not received the end.
    pub(crate) fn read(&mut self, world: &mut World) {
        if self.closing || self.gone || !matches!(self.reading, Reading::Nothing) {
            return;
        }
        let way = if world.kindly { 0 } else { world.dice.below(5) };
        match way {
            0..=2 => {
                let op = self.socket.receive().expect("nothing reads");
                world.ledger.accepted(Asked::Receive, op, Some(self.socket));
                self.reading = Reading::Stream(op);
            }
            3 => {
                self.reading = Reading::Into(VecDeque::new());
                for _ in 0..world.dice.between(1, 3) {
                    self.read_into(world);
                }
            }
            _ => {
                let op = self.socket.watch().expect("nothing reads");
                world.ledger.accepted(Asked::Watch, op, Some(self.socket));
                self.reading = Reading::Watch(op);
            }
        }
    }

    fn read_into(&mut self, world: &mut World) {
        let Reading::Into(ops) = &mut self.reading else {
            return;
        };
        let capacity = world.dice.pick(&[0, 1, 100, 600, 6_000, 100_000]);
        let asked = asking::receive_into(self.socket, capacity, &mut world.ledger);
        ops.extend(asked);
    }

    /// A lease came: it is returned at once or later, here or on another thread, or it is sent.
    pub(crate) fn lent(&mut self, lease: Lease, far: &mut Far, world: &mut World) {
        self.hear(&lease, far);
        if self.closing {
            return;
        }
        if far.echoed && !self.write_over {
            far.owed += lease.len();
            self.outbox.push_back(match world.dice.chance(300) {
                true => lease.to_vec().into(),
                false => lease.into(),
            });
        } else if world.dice.chance(world.plan.drops_elsewhere) {
            world.dropper.drop_there(lease);
        } else if !world.kindly && world.dice.chance(world.plan.keeps) {
            self.kept.push(lease);
        }
        self.say(far, world);
    }

    /// One receive into a buffer ended with bytes: another one follows.
    pub(crate) fn filled(
        &mut self,
        op: Op,
        buffer: &[u8],
        count: usize,
        far: &mut Far,
        world: &mut World,
    ) {
        assert!(count > 0 || buffer.is_empty(), "C8: received nothing");
        self.hear(&buffer[..count], far);
        if far.echoed && !self.write_over && !self.closing && count > 0 {
            far.owed += count;
            self.outbox.push_back(buffer[..count].to_vec().into());
        }
        self.reading.goes_on_without(op);
        if !self.closing && !world.kindly {
            self.read_into(world);
        }
        if matches!(&self.reading, Reading::Into(ops) if ops.is_empty()) {
            self.reading = Reading::Nothing;
            self.read(world);
        }
        self.say(far, world);
    }

    fn hear(&mut self, bytes: &[u8], far: &Far) {
        let what = format!("the port's end of {}", self.far);
        check(far.voice(), self.received, bytes, &what);
        self.received += bytes.len();
        assert!(self.received <= far.said, "C6: {what} hears too much");
    }

    pub(crate) fn send_ready(&mut self, far: &mut Far, world: &mut World) {
        assert!(self.blocked, "C7: SendReady, and no send was refused");
        self.blocked = false;
        self.say(far, world);
    }

    /// Returns some of the kept leases.
    pub(crate) fn let_go(&mut self, world: &mut World) {
        while !self.kept.is_empty() && (world.kindly || world.dice.chance(500)) {
            let place = world.dice.below(self.kept.len());
            let lease = self.kept.swap_remove(place);
            if world.dice.chance(world.plan.drops_elsewhere) {
                world.dropper.drop_there(lease);
            }
        }
    }

    /// Sends more of its own bytes, if there are some.
    pub(crate) fn talk(&mut self, far: &mut Far, world: &mut World) {
        if self.write_over || self.closing || self.gone || self.blocked {
            return;
        }
        let most = world.dice.pick(&[1, 100, 3_000, 600_000]);
        let mut count = self.to_say.min(most);
        self.to_say -= count;
        while count > 0 {
            let part = pattern(far.port_voice(), far.owed, count);
            far.owed += part.len();
            count -= part.len();
            self.outbox.push_back(part.to_vec().into());
        }
        self.say(far, world);
    }

    /// Sends the outbox.
    fn say(&mut self, far: &mut Far, world: &mut World) {
        while !self.blocked && !self.write_over && !self.closing && !self.gone {
            let Some(buffer) = self.outbox.pop_front() else {
                break;
            };
            let reported = world.dice.chance(300);
            match asking::send(self.socket, buffer, reported, &mut world.ledger) {
                Ok(op) => self.sends.push(op),
                Err((ErrorKind::Full, buffer)) => {
                    self.blocked = true;
                    self.outbox.push_front(buffer);
                }
                Err((ErrorKind::Aborted, _)) => {
                    assert!(!far.clean || far.left, "C10: nothing ended the sends");
                    self.write_over = true;
                }
                Err((other, _)) => panic!("C9: a send is refused as {other:?}"),
            }
        }
        if self.write_over || self.closing {
            self.outbox.clear();
            self.to_say = 0;
        }
    }

    /// A reading operation ended; returns whether this connection still reads.
    pub(crate) fn read_ended(
        &mut self,
        op: Op,
        how: End,
        far: &mut Far,
        world: &mut World,
    ) -> bool {
        if !self.reading.is_by(op) {
            return false;
        }
        match how {
            End::Finished => self.check_finished(far),
            End::Cancelled => {}
            End::Aborted => assert!(self.closing, "C9: aborted, and nobody closed"),
            End::Failed(error) => Self::check_broken(error, far),
        }
        if self.reading.goes_on_without(op) {
            return true;
        }
        self.reading = match how {
            End::Cancelled => Reading::Nothing,
            _ => Reading::Over,
        };
        self.read(world);
        true
    }

    fn check_finished(&self, far: &Far) {
        assert!(
            far.finished || far.left,
            "C9: the end of a stream that goes on"
        );
        assert!(
            self.received == far.said || far.left,
            "C10: {} of {} bytes of {} are lost",
            far.said - self.received,
            far.said,
            self.far
        );
    }

    pub(crate) fn check_broken(error: Error, far: &mut Far) {
        assert!(far.left, "C9: {error:?}, and nobody broke the connection");
        assert_eq!(
            error.kind(),
            ErrorKind::Reset,
            "C9: what a far end that left leads to"
        );
        far.clean = false;
    }

    /// A send or a shutdown ended without success.
    pub(crate) fn write_ended(&mut self, op: Op, how: End, far: &mut Far, world: &World) {
        far.clean &= !self.flush_is_over(world);
        if self.shutdown == Some(op) {
            self.shutdown = None;
            if how == End::Finished {
                return;
            }
        }
        match how {
            End::Finished => panic!("C2: a send has no end in order but Sent"),
            End::Cancelled | End::Aborted => {
                assert!(
                    !far.clean || far.left,
                    "C10: {how:?}, and nobody asked for it"
                );
            }
            End::Failed(error) if error.kind() == ErrorKind::NotConnected => {
                assert!(far.left, "C9: a shutdown of nothing");
            }
            End::Failed(error) => Self::check_broken(error, far),
        }
        far.clean = false;
    }

    /// Once it has received the end and sent everything, the connection ends, in one of several
    /// ways.
    pub(crate) fn finish(&mut self, far: &mut Far, world: &mut World) {
        let said = (self.outbox.is_empty() && self.to_say == 0) || self.write_over;
        if self.closing || self.gone || !matches!(self.reading, Reading::Over) || !said {
            return;
        }
        far.port_finished = true;
        if self.shutdown.is_none() && !self.write_over && world.dice.chance(300) {
            self.shut_down(far, world);
        }
        self.close(Close::Flush, far, world);
    }

    fn shut_down(&mut self, far: &mut Far, world: &mut World) {
        match self.socket.shutdown() {
            Ok(op) => {
                let asked = Asked::Shutdown;
                world.ledger.accepted(asked, op, Some(self.socket));
                far.port_finished = true;
                self.shutdown = Some(op);
                self.write_over = true;
                if !self.outbox.is_empty() || self.to_say > 0 {
                    // Bytes that are not queued yet are not sent any more.
                    let unsaid: usize = self.outbox.iter().map(|buffer| buffer.len()).sum();
                    far.owed -= unsaid;
                    self.to_say = 0;
                    self.outbox.clear();
                }
            }
            // After a shutdown that is over, or a send that failed.
            Err(error) => assert!(
                self.write_over && error.kind() == ErrorKind::BrokenPipe
                    || error.kind() == ErrorKind::Aborted,
                "C9: a shutdown is refused as {error}"
            ),
        }
    }

    /// Closes, with a report.
    pub(crate) fn close(&mut self, how: Close, far: &mut Far, world: &mut World) {
        if self.closing || self.gone {
            return;
        }
        // Before the close: the port's own timer starts in it.
        self.closing_since = Some(Instant::now());
        asking::close(self.stream.take(), self.socket, how, &mut world.ledger);
        let is_done = matches!(self.reading, Reading::Over) && self.outbox.is_empty();
        far.clean &= is_done && self.to_say == 0 && how == Close::Flush;
        far.port_finished = true;
        self.closing = true;
        self.outbox.clear();
    }

    /// `Closed` came. A flush that has used up its time may have dropped queued bytes.
    pub(crate) fn closed(&mut self, far: &mut Far, world: &World) {
        assert!(self.closing, "C11: Closed, and nobody closed");
        far.clean &= !self.flush_is_over(world);
        self.gone = true;
        self.kept.clear();
    }

    /// Whether a flush has used up its time.
    fn flush_is_over(&self, world: &World) -> bool {
        let most = Duration::from_millis(world.plan.bounds.flush_ms_max.into());
        self.closing_since
            .is_some_and(|since| since.elapsed() >= most)
    }

    /// Something that a peer would not like, or a switch to another way of reading.
    pub(crate) fn be_unkind(&mut self, far: &mut Far, world: &mut World) {
        let way = world.dice.below(WAYS);
        // Actions that end a connection are rarer than others.
        if !world.plan.ways[way] || (way < 3 && !world.dice.chance(150)) {
            return;
        }
        match way {
            0 => self.close(Close::Reset, far, world),
            1 => self.close(Close::Flush, far, world),
            2 if self.stream.is_some() && !self.closing => {
                let at_hand = world.plan.leaves_some || world.plan.threads > 0;
                world.ledger.dropped(self.socket, at_hand);
                (far.clean, far.port_finished) = (false, true);
                self.gone = true;
                self.outbox.clear();
                self.stream = None;
            }
            3 => {
                let op = self.sends.pop();
                if op.is_some_and(|op| world.port.cancel(op) == Cancel::Requested) {
                    (far.clean, far.holed) = (false, true);
                }
            }
            4 => {
                if !self.closing && self.shutdown.is_none() {
                    self.shut_down(far, world);
                }
            }
            _ => self.cancel_reading(world),
        }
        if world.dice.chance(500) {
            // Leases that return now come after what was done before.
            self.kept.clear();
        }
    }

    pub(crate) fn cancel_reading(&self, world: &mut World) {
        if let Some(op) = self.reading.some_op(&mut world.dice) {
            // Whatever it returns, the last packet has the outcome.
            let _ = world.port.cancel(op);
        }
    }

    pub(crate) fn key(&self) -> Key {
        self.key
    }
}
