//! The ledger of operations: what the port accepted, and its outcome.
//!
//! Contract C2 in code: an accepted operation has one last packet and nothing after it, a plain
//! send none or one, and no other operation has any. `Closed` is the last packet of its socket
//! (C11).

use std::collections::HashMap;

use wharf_port::{Event, Op, Packet, SocketRef};

/// The submitted operations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Asked {
    Accept,
    Connect,
    Receive,
    Into,
    Watch,
    Send,
    ReportedSend,
    Shutdown,
    Close,
    Timer,
}

/// In place of a wait: packets of a dropped socket may be left in a waiter's batch.
const WAS_AT_HAND: u64 = u64::MAX;

#[derive(Default)]
pub(crate) struct Ledger {
    open: HashMap<Op, Asked>,
    of_socket: HashMap<SocketRef, Vec<Op>>,
    /// Sockets without further packets, and since which wait.
    over: HashMap<SocketRef, u64>,
    waits: u64,
    /// Operations accepted, and packets that came.
    pub(crate) operations: u64,
    pub(crate) packets: u64,
}

impl Ledger {
    pub(crate) fn accepted(&mut self, asked: Asked, op: Op, socket: Option<SocketRef>) {
        self.operations += 1;
        let before = self.open.insert(op, asked);
        assert!(before.is_none(), "two operations have the name {op:?}");
        if let Some(socket) = socket {
            self.of_socket.entry(socket).or_default().push(op);
        }
    }

    /// Another wait began: the batch before it is gone.
    pub(crate) fn waits(&mut self) {
        self.waits += 1;
    }

    /// Operations without their last packet; plain sends may never have one.
    pub(crate) fn owed(&self) -> usize {
        let owed = self.open.values().filter(|asked| **asked != Asked::Send);
        owed.count()
    }

    /// The owner dropped the socket: no more packets come about it, except those that a waiter has
    /// at hand.
    pub(crate) fn dropped(&mut self, socket: SocketRef, at_hand: bool) {
        self.forget(socket);
        let since = if at_hand { WAS_AT_HAND } else { self.waits };
        self.over.insert(socket, since);
    }

    pub(crate) fn packet(&mut self, packet: &Packet) {
        self.packets += 1;
        if let Some(since) = self.over.get(&packet.socket) {
            assert!(
                *since == self.waits || *since == WAS_AT_HAND,
                "C11: {packet:?} though nothing more was to come about its socket"
            );
            return;
        }
        match &packet.event {
            Event::Accepted(_) | Event::Paused { .. } | Event::Resumed => {
                self.goes_on(packet, Asked::Accept);
            }
            Event::Received(_) => self.goes_on(packet, Asked::Receive),
            Event::SendReady | Event::Posted(_) => {}
            Event::Connected(_) => self.ends(packet, &[Asked::Connect]),
            Event::ReceivedInto { .. } => self.ends(packet, &[Asked::Into]),
            Event::Sent { .. } => self.ends(packet, &[Asked::ReportedSend]),
            Event::PeerLeft(_) => self.ends(packet, &[Asked::Watch]),
            Event::Timer => self.ends(packet, &[Asked::Timer]),
            Event::Closed => {
                self.ends(packet, &[Asked::Close]);
                self.closed(packet);
            }
            Event::Ended {
                buffer: Some(_), ..
            } => self.ends(packet, &[Asked::Into]),
            Event::Ended { buffer: None, .. } => {
                self.ends(packet, &[Asked::Accept, Asked::Receive, Asked::Watch]);
            }
            Event::ConnectFailed { .. } => self.ends(packet, &[Asked::Connect]),
            Event::SendFailed { .. } => self.ends(packet, &[Asked::Send, Asked::ReportedSend]),
            Event::ShutDown { .. } => self.ends(packet, &[Asked::Shutdown]),
            Event::TimerCancelled => self.ends(packet, &[Asked::Timer]),
            other => panic!("the ledger does not know {other:?}"),
        }
    }

    fn goes_on(&self, packet: &Packet, asked: Asked) {
        let open = self.open.get(&packet.op);
        assert_eq!(open, Some(&asked), "C2: {packet:?} of no operation");
    }

    fn ends(&mut self, packet: &Packet, asked: &[Asked]) {
        let open = self.open.remove(&packet.op);
        assert!(
            open.is_some_and(|open| asked.contains(&open)),
            "C2: {packet:?} of {open:?}, or a second last packet"
        );
    }

    fn closed(&mut self, packet: &Packet) {
        for op in self.of_socket.get(&packet.socket).into_iter().flatten() {
            let open = self.open.get(op);
            assert!(
                open.is_none_or(|asked| *asked == Asked::Send),
                "C2: Closed came, and the end of {open:?} did not"
            );
        }
        self.forget(packet.socket);
        self.over.insert(packet.socket, self.waits - 1);
    }

    fn forget(&mut self, socket: SocketRef) {
        for op in self.of_socket.remove(&socket).unwrap_or_default() {
            self.open.remove(&op);
        }
    }

    /// What is open, for a report.
    pub(crate) fn describe(&self) -> String {
        let mut open: Vec<String> = self
            .open
            .iter()
            .filter(|(_, asked)| **asked != Asked::Send)
            .map(|(op, asked)| format!("{asked:?} {op:?}"))
            .collect();
        open.sort();
        open.join("\n    ")
    }
}
