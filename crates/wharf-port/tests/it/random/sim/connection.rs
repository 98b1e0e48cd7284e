//! One connection of the program under test: how it reads, and what it still has to echo.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use wharf_port::sim::Network;
use wharf_port::{Buffer, Close, End, ErrorKind, Key, Op, Port, SocketRef, Stream};

use super::asking::{self, Reading};
use super::crowd::{Client, byte_at};
use super::ledger::{Asked, Ledger};
use super::plan::{Dice, Plan};

/// Timers of connections have their keys above this.
pub(crate) const TIMERS: u64 = 1 << 32;

/// What a connection needs in addition to itself.
pub(crate) struct Hands<'a> {
    pub(crate) port: &'a Port,
    pub(crate) network: &'a Network,
    pub(crate) plan: &'a Plan,
    pub(crate) ledger: &'a mut Ledger,
    pub(crate) dice: &'a mut Dice,
}

#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) socket: SocketRef,
    /// Its owner, unless the port owns it.
    stream: Option<Stream>,
    pub(crate) client: usize,
    pub(crate) key: Key,
    pub(crate) reading: Reading,
    received: usize,
    /// What was received and not sent, in order.
    outbox: VecDeque<Buffer>,
    /// The outbox waits for a timer.
    held: Option<Op>,
    /// The outbox waits for `SendReady`.
    blocked: bool,
    write_over: bool,
    shutdown: Option<Op>,
    sends: Vec<Op>,
    pub(crate) closing: bool,
    closing_since: Option<Instant>,
    /// No further packet comes about it.
    pub(crate) gone: bool,
    /// The end of a receive was a reset.
    reset: bool,
}

impl Connection {
    pub(crate) fn new(stream: Stream, key: Key, client: usize, dice: &mut Dice) -> Self {
        let socket = stream.socket();
        let stream = asking::own(stream, dice);
        Connection {
            socket,
            stream,
            client,
            key,
            reading: Reading::Nothing,
            received: 0,
            outbox: VecDeque::new(),
            held: None,
            blocked: false,
            write_over: false,
            shutdown: None,
            sends: Vec::new(),
            closing: false,
            closing_since: None,
            gone: false,
            reset: false,
        }
    }

    /// Reads in one of the possible ways, if it does not read and has not received the end.
    pub(crate) fn read(&mut self, hands: &mut Hands<'_>, kindly: bool) {
        if self.closing || self.gone || !matches!(self.reading, Reading::Nothing) {
            return;
        }
        let way = if kindly { 0 } else { hands.dice.below(3) };
        match way {
            0 => {
                let op = self.socket.receive().expect("nothing reads");
                hands.ledger.accepted(Asked::Receive, op, Some(self.socket));
                self.reading = Reading::Stream(op);
            }
            1 => {
                self.reading = Reading::Into(VecDeque::new());
                for _ in 0..hands.dice.between(1, 3) {
                    self.read_into(hands);
                }
            }
            _ => {
                let op = self.socket.watch().expect("nothing reads");
                hands.ledger.accepted(Asked::Watch, op, Some(self.socket));
                self.reading = Reading::Watch(op);
            }
        }
        // Once a reset is known a receive ends at once, and does not block another.
        if !self.reset && hands.dice.chance(50) {
            let busy = self.socket.receive().expect_err("something reads");
            assert_eq!(busy.kind(), ErrorKind::Busy, "while {:?}", self.reading);
        }
    }

    fn read_into(&mut self, hands: &mut Hands<'_>) {
        let Reading::Into(ops) = &mut self.reading else {
            return;
        };
        let capacity = hands.dice.pick(&[0, 1, 100, 600]);
        ops.extend(asking::receive_into(self.socket, capacity, hands.ledger));
    }

    /// Bytes came: they are what the client sent, and go back to it.
    pub(crate) fn received(
        &mut self,
        bytes: &[u8],
        buffer: Buffer,
        client: &Client,
        hands: &mut Hands<'_>,
    ) {
        for byte in bytes {
            let expected = byte_at(self.client, self.received);
            assert_eq!(
                *byte, expected,
                "C6: another byte than client {} said at {}",
                self.client, self.received
            );
            self.received += 1;
        }
        assert!(self.received <= client.said, "more than the client said");
        if self.closing {
            return;
        }
        let copied = hands.dice.chance(300);
        self.outbox.push_back(if copied {
            bytes.to_vec().into()
        } else {
            buffer
        });
        if self.held.is_none() && hands.dice.chance(50) {
            let until = hands.network.now() + super::some_time(hands.dice);
            let key = Key(TIMERS + self.key.0);
            let op = hands.port.timer(until, key).expect("room for timers");
            hands.ledger.accepted(Asked::Timer, op, None);
            self.held = Some(op);
        }
        self.echo(hands);
    }

    /// One receive into a buffer ended with bytes: another one follows.
    pub(crate) fn done_into(&mut self, op: Op, hands: &mut Hands<'_>, kindly: bool) {
        self.reading.goes_on_without(op);
        if !self.closing && !kindly {
            self.read_into(hands);
        }
        if matches!(&self.reading, Reading::Into(ops) if ops.is_empty()) {
            self.reading = Reading::Nothing;
            self.read(hands, kindly);
        }
    }

    /// The outbox has been held long enough.
    pub(crate) fn released(&mut self, op: Op, hands: &mut Hands<'_>) {
        if self.held == Some(op) {
            self.held = None;
            self.echo(hands);
        }
    }

    pub(crate) fn send_ready(&mut self, hands: &mut Hands<'_>) {
        assert!(self.blocked, "C7: SendReady, and no send was refused");
        self.blocked = false;
        self.echo(hands);
    }

    /// Sends the outbox.
    pub(crate) fn echo(&mut self, hands: &mut Hands<'_>) {
        let over = self.write_over || self.closing || self.gone;
        while self.held.is_none() && !self.blocked && !self.write_over && !over {
            let Some(buffer) = self.outbox.pop_front() else {
                break;
            };
            let reported = hands.dice.chance(300);
            match asking::send(self.socket, buffer, reported, hands.ledger) {
                Ok(op) => self.sends.push(op),
                Err((ErrorKind::Full, buffer)) => {
                    self.blocked = true;
                    self.outbox.push_front(buffer);
                }
                Err((ErrorKind::Aborted | ErrorKind::BrokenPipe, _)) => self.write_over = true,
                Err((other, _)) => panic!("a send is refused as {other:?}"),
            }
        }
        if self.write_over || self.closing {
            self.outbox.clear();
        }
    }

    /// A reading operation ended.
    pub(crate) fn read_ended(
        &mut self,
        op: Op,
        how: End,
        client: &mut Client,
        hands: &mut Hands<'_>,
        kindly: bool,
    ) {
        match how {
            End::Finished => self.check_finished(client),
            End::Cancelled => {}
            End::Aborted => assert!(self.closing, "C9: aborted, and nobody closed"),
            End::Failed(error) => {
                self.check_broken(error.kind(), client, hands.plan);
            }
        }
        if self.reading.goes_on_without(op) {
            return;
        }
        let over = !matches!(how, End::Cancelled);
        self.reading = if over {
            Reading::Over
        } else {
            Reading::Nothing
        };
        if over {
            self.finish(client, hands);
        } else {
            self.read(hands, kindly);
        }
    }

    pub(crate) fn check_finished(&mut self, client: &Client) {
        assert!(
            client.finished || client.left,
            "C9: the end of a stream that its client has not ended"
        );
        assert!(
            !self.reset,
            "C9: a stream that was reset has an end in order"
        );
        assert_eq!(
            self.received, client.said,
            "C10: bytes of client {} are lost",
            self.client
        );
    }

    pub(crate) fn check_broken(&mut self, kind: ErrorKind, client: &mut Client, plan: &Plan) {
        client.clean = false;
        self.reset |= kind == ErrorKind::Reset;
        match kind {
            ErrorKind::Reset => assert!(
                client.left || plan.breaks(),
                "C9: a reset that nobody has sent"
            ),
            ErrorKind::TimedOut | ErrorKind::Unreachable => {
                assert!(plan.breaks(), "C9: {kind:?} on a network without errors");
            }
            other => panic!("C9: a connection broke as {other:?}"),
        }
    }

    /// A send or a shutdown ended without success.
    pub(crate) fn write_ended(&mut self, op: Op, how: End, client: &mut Client, plan: &Plan) {
        if self.shutdown == Some(op) {
            self.shutdown = None;
            if how == End::Finished {
                return;
            }
        }
        client.clean = false;
        match how {
            End::Finished => panic!("C2: a send has no end in order but Sent"),
            End::Cancelled | End::Aborted => {}
            End::Failed(error) if error.kind() == ErrorKind::NotConnected => {
                assert!(client.left || plan.breaks(), "a shutdown of nothing");
            }
            End::Failed(error) => {
                let reset = self.reset;
                self.check_broken(error.kind(), client, plan);
                // Data that arrived before may still be read; only the end must not be clean.
                self.reset = reset;
            }
        }
    }

    /// Reading is over: once all is echoed the connection ends, in one of several ways.
    pub(crate) fn finish(&mut self, client: &mut Client, hands: &mut Hands<'_>) {
        self.echo(hands);
        let echoed = self.outbox.is_empty() || self.write_over;
        if self.closing || self.gone || !matches!(self.reading, Reading::Over) || !echoed {
            return;
        }
        client.port_finished = true;
        if self.shutdown.is_none() && hands.dice.chance(300) {
            match self.socket.shutdown() {
                Ok(op) => {
                    hands
                        .ledger
                        .accepted(Asked::Shutdown, op, Some(self.socket));
                    self.shutdown = Some(op);
                }
                Err(error) => assert!(
                    matches!(error.kind(), ErrorKind::Aborted | ErrorKind::BrokenPipe),
                    "a shutdown is refused as {error}"
                ),
            }
        }
        self.close(Close::Flush, client, hands);
    }

    /// Closes, with a report.
    pub(crate) fn close(&mut self, how: Close, client: &mut Client, hands: &mut Hands<'_>) {
        if self.closing || self.gone {
            return;
        }
        asking::close(self.stream.take(), self.socket, how, hands.ledger);
        let is_done = matches!(self.reading, Reading::Over) && self.outbox.is_empty();
        client.clean &= is_done && how == Close::Flush;
        client.port_finished = true;
        self.closing = true;
        self.closing_since = Some(hands.network.now());
        self.outbox.clear();
    }

    /// `Closed` came. A flush that has used up its time may have dropped queued bytes, or the FIN
    /// after them.
    pub(crate) fn closed(&mut self, client: &mut Client, hands: &Hands<'_>) {
        let since = self.closing_since.expect("C11: Closed, and nobody closed");
        let flushing = hands.network.now() - since;
        client.clean &= flushing < Duration::from_millis(hands.plan.bounds.flush_ms_max.into());
        self.gone = true;
    }

    /// Something that a peer would not like.
    pub(crate) fn be_unkind(&mut self, client: &mut Client, hands: &mut Hands<'_>) {
        match hands.dice.below(8) {
            0 => self.close(Close::Reset, client, hands),
            1 => self.close(Close::Flush, client, hands),
            2 if self.stream.is_some() && !self.closing => {
                hands.ledger.dropped(self.socket, hands.plan.leaves_some);
                (client.clean, client.port_finished) = (false, true);
                self.gone = true;
                self.outbox.clear();
                self.stream = None;
            }
            3 | 4 => {
                let op = self.sends.pop();
                if op.is_some_and(|op| hands.port.cancel(op) == wharf_port::Cancel::Requested) {
                    (client.clean, client.holed) = (false, true);
                }
            }
            5 => {
                if let Ok(op) = self.socket.shutdown() {
                    hands
                        .ledger
                        .accepted(Asked::Shutdown, op, Some(self.socket));
                    (client.clean, client.port_finished) = (false, true);
                    self.shutdown = Some(op);
                    self.write_over = true;
                }
            }
            _ => {
                if let Some(op) = self.reading.some_op(hands.dice) {
                    // Whatever it returns, the last packet has the outcome.
                    let _ = hands.port.cancel(op);
                }
            }
        }
    }

    /// The next socket in its slot must not get this (C11).
    pub(crate) fn is_answered_closed(&self) {
        let kind = self.socket.receive().map_err(|error| error.kind());
        assert_eq!(kind, Err(ErrorKind::Closed), "C11: a socket that is gone");
        let refused = self.socket.send("nobody").map_err(|it| it.error.kind());
        assert_eq!(
            refused,
            Err(ErrorKind::Closed),
            "C11: a socket that is gone"
        );
        let kind = self.socket.close(Close::Reset).map_err(|it| it.kind());
        assert_eq!(kind, Err(ErrorKind::Closed), "C11: a socket that is gone");
    }

    pub(crate) fn is_over(&self) -> bool {
        self.gone
    }
}
