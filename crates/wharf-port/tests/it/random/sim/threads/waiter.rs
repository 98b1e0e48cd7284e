//! A thread that waits: the arguments of each wait, how it handles packets, and how it leaves.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use wharf_port::{
    Accepted, Batch, Close, End, ErrorKind, Event, Key, Lease, Packet, SocketRef, Wait, Waiter,
};

use super::books::Connection;
use super::scene::Scene;
use crate::random::sim::plan::Dice;
use crate::random::sim::waiting::in_turn;
use crate::rig::LISTENER;

thread_local! {
    /// Runtimes keep it here.
    static KEPT: RefCell<Option<Waiter>> = const { RefCell::new(None) };
}

/// The payload of a handler that panics; its thread goes on.
struct Panicked;

/// How a waiter has ended.
enum Gone {
    /// The port is closed.
    Closed,
    /// It has done its waits, and is dropped.
    Dropped,
    /// It was forgotten: the end of its thread gives up its seat.
    Forgotten,
    /// It is in a variable of its thread, which ends.
    Kept,
}

/// Waits with one waiter after another, until the port is closed.
pub(crate) fn waits(scene: &Arc<Scene>, actor: usize, dice: &mut Dice) {
    if dice.chance(500) {
        // The variable is older than those of the library, and is destroyed after them.
        KEPT.set(None);
    }
    loop {
        let life = || live(scene, actor, dice);
        match catch_unwind(AssertUnwindSafe(life)) {
            Ok(Gone::Closed) => return,
            Ok(Gone::Dropped) => {}
            Ok(Gone::Forgotten) => {
                scene.books().tally.forgotten += 1;
                return scene.cast(waits);
            }
            Ok(Gone::Kept) => {
                scene.books().tally.kept += 1;
                return scene.cast(waits);
            }
            Err(panicked) if panicked.is::<Panicked>() => scene.books().tally.panicked += 1,
            Err(other) => resume_unwind(other),
        }
        match dice.below(4) {
            // Another thread goes on in its place.
            0 => return scene.cast(waits),
            1 | 2 => scene.rest(dice),
            _ => scene.step(dice),
        }
    }
}

/// A waiter's entry in the books. It goes before the waiter does.
struct Place<'a>(&'a Scene);

impl<'a> Place<'a> {
    fn take(scene: &'a Scene) -> Self {
        scene.books().waiters += 1;
        Place(scene)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.books().waiter_goes();
    }
}

fn live(scene: &Arc<Scene>, actor: usize, dice: &mut Dice) -> Gone {
    let mut waiter = match scene.port.waiter() {
        Ok(waiter) => waiter,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Closed, "C4: there is room");
            assert!(scene.books().closed, "C14: nobody closed the port");
            return Gone::Closed;
        }
    };
    let _place = Place::take(scene);
    for _ in 0..dice.between(1, scene.plan.waits_max) {
        scene.step(dice);
        if !wait(scene, &mut waiter, actor, dice) {
            return Gone::Closed;
        }
    }
    if dice.chance(700) {
        return Gone::Dropped;
    }
    if let Ok(Wait::Packets(mut batch)) = waiter.wait(Some(scene.time(dice))) {
        if let Some(packet) = batch.next() {
            handle(scene, packet, actor, dice);
        }
        // Nor do its turns end before its thread does.
        std::mem::forget(batch);
    }
    scene.step(dice);
    if dice.chance(400) {
        KEPT.set(Some(waiter));
        return Gone::Kept;
    }
    std::mem::forget(waiter);
    Gone::Forgotten
}

/// Waits once; returns whether the port is still open.
fn wait(scene: &Arc<Scene>, waiter: &mut Waiter, actor: usize, dice: &mut Dice) -> bool {
    let limit = match dice.below(8) {
        0 => Some(std::time::Duration::ZERO),
        1..4 => None,
        _ => Some(scene.time(dice)),
    };
    let deadline = limit.map(|limit| scene.network.now() + limit);
    match waiter.wait(limit) {
        Ok(Wait::Packets(batch)) => take(scene, batch, actor, dice),
        Ok(Wait::TimedOut) => {
            let deadline = deadline.expect("C5: the time of a wait without a limit was up");
            assert!(scene.network.now() >= deadline, "C5: a wait ended early");
            scene.books().tally.time_outs += 1;
        }
        Ok(Wait::Closed) => {
            let now = scene.network.now();
            let mut books = scene.books();
            assert!(books.closed, "C14: nobody closed the port");
            books.heard.get_or_insert(now);
            return false;
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::OutOfMemory, "C5: {error}");
            assert!(scene.plan.network.wait_errors > 0, "C5: {error}");
            scene.books().tally.errors_of_waits += 1;
        }
    }
    true
}

fn take(scene: &Arc<Scene>, mut batch: Batch<'_>, actor: usize, dice: &mut Dice) {
    assert!(!batch.is_empty(), "C5: packets, and there are none");
    assert!(batch.len() <= scene.plan.batch_max, "C5: {}", batch.len());
    // Packets left in batches keep a port open that shuts down gracefully.
    let ends = scene.books().ends_by.is_some();
    let leaves = scene.plan.leaves_some && dice.chance(if ends { 700 } else { 300 });
    let most = if leaves { dice.below(2) } else { usize::MAX };
    for packet in batch.by_ref().take(most) {
        let listens = packet.key == LISTENER;
        handle(scene, packet, actor, dice);
        if dice.chance(scene.plan.panics) && !listens {
            scene.books().end_turns(actor);
            resume_unwind(Box::new(Panicked));
        }
        match dice.below(20) {
            0 => scene.rest(dice),
            1..8 => scene.stage.step(),
            _ => {}
        }
    }
    // No other thread goes on before the batch is dropped.
    scene.books().end_turns(actor);
    drop(batch);
    if leaves && dice.chance(500) {
        // It keeps what is left meanwhile.
        scene.rest(dice);
    }
}

fn handle(scene: &Arc<Scene>, packet: Packet, actor: usize, dice: &mut Dice) {
    {
        let mut books = scene.books();
        books.tally.packets += 1;
        books.check_known(packet.socket);
        if let Some(socket) = in_turn(&packet) {
            books.take_turn(socket, actor);
        }
    }
    let (key, op, socket) = (packet.key, packet.op, packet.socket);
    match packet.event {
        Event::Accepted(accepted) => greet(scene, accepted, dice),
        Event::Received(lease) => echo(scene, socket, lease, dice),
        Event::Ended { how, .. } => ended(scene, key, socket, how),
        Event::Closed => {
            let mut books = scene.books();
            books.note(3, key.0);
            let known = books.connections.remove(&socket);
            assert!(known.is_some(), "C11: a second Closed");
        }
        Event::Posted(value) => {
            let mut books = scene.books();
            books.note(4, value);
            assert!(books.posts.remove(&value), "C16: {value} came twice");
        }
        Event::Timer => {
            let now = scene.network.now();
            let mut books = scene.books();
            books.note(5, key.0);
            books.cancelled.remove(&op);
            let due = books.timers.remove(&op).expect("C17: a timer comes twice");
            assert!(due <= now, "C17: a timer comes early");
        }
        Event::TimerCancelled => {
            let mut books = scene.books();
            books.note(6, key.0);
            assert!(books.cancelled.remove(&op), "C2: nobody cancelled it");
        }
        Event::Paused { .. } | Event::Resumed => {
            let short = scene.plan.network.descriptor_shortages > 0;
            assert!(short, "C12: there are descriptors");
        }
        // The far end leaves when the port closes, although it may do so cleanly.
        Event::SendFailed { .. } if scene.books().closed => {}
        other => panic!("not asked for: {other:?}"),
    }
}

fn greet(scene: &Arc<Scene>, accepted: Accepted, dice: &mut Dice) {
    let key = Key(1000 + scene.books().tally.packets);
    let stream = match scene.port.associate(accepted, key) {
        Ok(stream) => stream,
        Err(refused) => {
            assert_eq!(refused.error.kind(), ErrorKind::Closed, "there is room");
            assert!(scene.books().closed, "nobody closed the port");
            return;
        }
    };
    scene.books().note(1, key.0);
    let socket = stream.socket();
    let owner = match dice.chance(500) {
        true => Some(stream),
        false => {
            stream.set_aside();
            None
        }
    };
    let connection = Connection::new(owner);
    scene.books().connections.insert(socket, connection);
    scene.step(dice);
    receive(scene, socket);
}

fn receive(scene: &Arc<Scene>, socket: SocketRef) {
    let received = socket.receive();
    let mut books = scene.books();
    assert!(received.is_ok() || books.closed, "{received:?}");
    if let Some(connection) = books.connections.get_mut(&socket) {
        connection.receives = received.ok();
    }
}

fn echo(scene: &Arc<Scene>, socket: SocketRef, lease: Lease, dice: &mut Dice) {
    {
        let mut books = scene.books();
        books.received(socket, &lease);
        books.note(2, lease.len() as u64);
    }
    let sent = if dice.chance(400) {
        socket.send(lease)
    } else {
        let copy = lease.to_vec();
        if dice.chance(500) {
            // It goes back on another thread, at another time.
            scene.books().leases.push(lease);
        }
        socket.send(copy)
    };
    if let Err(refused) = sent {
        assert!(scene.books().closed, "C7: {}", refused.error);
    }
}

fn ended(scene: &Arc<Scene>, key: Key, socket: SocketRef, how: End) {
    if key == LISTENER {
        assert!(scene.books().closed, "C12: an accept ended: {how:?}");
        return;
    }
    if how == End::Cancelled && !scene.books().closed {
        // Cancelled by a thread that wants it to go on.
        return receive(scene, socket);
    }
    assert!(
        how == End::Finished || scene.books().closed,
        "C9: a receive ended: {how:?}"
    );
    let stream = {
        let mut books = scene.books();
        let connection = books.connections.get_mut(&socket);
        connection.expect("C11: its Closed came").stream.take()
    };
    let closed = match stream {
        Some(stream) => stream.close(Close::Flush),
        None => socket.close(Close::Flush),
    };
    assert!(closed.is_ok() || scene.books().closed, "{closed:?}");
}
