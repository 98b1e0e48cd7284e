//! The threads that do not wait: they talk from the far end, post, set timers, return leases, and
//! one of them closes the port.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use wharf_port::sim::{Heard, Peer};
use wharf_port::{Cancel, ErrorKind, Key};

use super::books::said_at;
use super::scene::Scene;
use crate::random::sim::plan::Dice;

/// The virtual time in which everything must be done, and the turns, whatever time they take.
const TIME_MAX: Duration = Duration::from_secs(20);
const TURNS_MAX: u64 = 100_000;
/// The grace of a port that shuts down gracefully.
const GRACE: Duration = Duration::from_secs(1);

struct Client {
    peer: Peer,
    bytes: usize,
    said: usize,
    heard: usize,
    ended: bool,
}

/// The far end: clients that send, finish, and receive it back.
pub(crate) fn talks(scene: &Arc<Scene>, _: usize, dice: &mut Dice) {
    let mut clients = Vec::new();
    let mut wanted = scene.plan.clients;
    while wanted > 0 || clients.iter().any(|client: &Client| !client.ended) {
        if scene.books().closed {
            break;
        }
        if wanted > 0 && dice.chance(500) {
            wanted -= 1;
            let peer = scene.network.connect(&scene.address);
            clients.push(Client {
                peer: peer.expect("the port listens, and its backlog is long"),
                bytes: 1 + dice.below(scene.plan.bytes_max),
                said: 0,
                heard: 0,
                ended: false,
            });
        }
        for (number, client) in clients.iter_mut().enumerate() {
            if dice.chance(600) {
                talk(scene, number, client, dice);
                scene.step(dice);
            }
        }
        scene.rest(dice);
    }
    drop(clients);
    scene.books().busy -= 1;
}

fn talk(scene: &Arc<Scene>, number: usize, client: &mut Client, dice: &mut Dice) {
    let most = (client.bytes - client.said).min(1 + dice.below(2_500));
    if most > 0 {
        let next = client.said..client.said + most;
        let words: Vec<u8> = next.map(|place| said_at(number, place)).collect();
        match client.peer.send(&words) {
            Ok(count) => client.said += count,
            Err(error) => {
                let cut = scene.books().closed || scene.books().forsaken.contains(&number);
                assert!(cut, "{error}");
                client.said = client.bytes;
            }
        }
        if client.said == client.bytes {
            client.peer.finish();
        }
    }
    match client.peer.try_receive(1 + dice.below(2_000)) {
        Heard::Nothing => {}
        Heard::Bytes(bytes) => {
            for byte in bytes {
                assert_eq!(byte, said_at(number, client.heard), "C6: another byte");
                client.heard += 1;
            }
        }
        Heard::Finished => {
            let all = client.heard == client.bytes;
            let cut = scene.books().closed || scene.books().forsaken.contains(&number);
            assert!(all || cut, "C7: {} came", client.heard);
            client.ended = true;
        }
        Heard::Reset => {
            let cut = scene.books().closed || scene.books().forsaken.contains(&number);
            assert!(cut, "C11: nobody reset it");
            client.ended = true;
        }
    }
}

pub(crate) fn posts(scene: &Arc<Scene>, actor: usize, dice: &mut Dice) {
    for place in 0..scene.plan.posts {
        let value = actor as u64 * 1000 + place as u64;
        scene.books().posts.insert(value);
        if let Err(refused) = scene.port.post(Key(7), value) {
            assert_eq!(
                refused.error.kind(),
                ErrorKind::Closed,
                "C16: there is room"
            );
            let mut books = scene.books();
            assert!(books.closed, "C16: nobody closed the port");
            books.posts.remove(&value);
            break;
        }
        match dice.chance(500) {
            true => scene.rest(dice),
            false => scene.step(dice),
        }
    }
    scene.books().busy -= 1;
}

pub(crate) fn sets_timers(scene: &Arc<Scene>, _: usize, dice: &mut Dice) {
    let mut set = HashMap::new();
    for place in 0..scene.plan.timers {
        let due = scene.network.now() + scene.time(dice);
        match scene.port.timer(due, Key(place as u64)) {
            Ok(op) => {
                scene.books().timers.insert(op, due);
                set.insert(place, op);
            }
            Err(error) => assert!(scene.books().closed, "C17: {error}"),
        }
        match dice.chance(500) {
            true => scene.rest(dice),
            false => scene.step(dice),
        }
        if !dice.chance(300) {
            continue;
        }
        let op = set.remove(&dice.below(place + 1));
        if let Some(op) = op.filter(|op| scene.port.cancel(*op) == Cancel::Requested) {
            let mut books = scene.books();
            let was = books.timers.remove(&op);
            assert!(was.is_some(), "C10: cancelled after it came");
            books.cancelled.insert(op);
        }
    }
    scene.books().busy -= 1;
}

/// Returns leases that handlers have passed on, and interferes with connections that other threads
/// handle: drops some, and cancels the receives of some.
pub(crate) fn gives_back(scene: &Arc<Scene>, _: usize, dice: &mut Dice) {
    while !scene.books().closed {
        scene.rest(dice);
        if dice.chance(scene.plan.meddles) {
            meddle(scene, dice);
        }
        let mut leases = std::mem::take(&mut scene.books().leases);
        while let Some(lease) = leases.pop() {
            drop(lease);
            scene.step(dice);
        }
    }
    let left = std::mem::take(&mut scene.books().leases);
    drop(left);
}

fn meddle(scene: &Arc<Scene>, dice: &mut Dice) {
    if dice.chance(300) {
        let dropped = scene.books().drop_one(dice);
        scene.books().tally.dropped += u64::from(dropped.is_some());
        drop(dropped);
    } else {
        let books = scene.books();
        let socket = books.some_owned(dice).map(|(socket, _)| socket);
        let op = socket.and_then(|socket| books.connections[&socket].receives);
        drop(books);
        if let Some(op) = op {
            // It may be over already.
            let _ = scene.port.cancel(op);
        }
    }
}

/// Closes the port once nothing is owed, or early.
pub(crate) fn closes(scene: &Arc<Scene>, _: usize, dice: &mut Dice) {
    let began = scene.network.now();
    let early = began + scene.time(dice) * 3;
    let in_order = dice.chance(500);
    loop {
        scene.rest(dice);
        let now = scene.network.now();
        let settled = scene.books().is_settled();
        if settled || (scene.plan.closes_early && now >= early) {
            let mut books = scene.books();
            books.closed = true;
            books.tally.closed_early += u64::from(!settled);
            books.ends_by = in_order.then_some(now + GRACE);
            books.was_left = books.waiters == 0;
            break;
        }
        let turns = scene.stage.digest().1;
        assert!(
            now < began + TIME_MAX && turns < TURNS_MAX,
            "liveness after {turns} turns: {}",
            scene.books().owed()
        );
    }
    match in_order {
        true => scene.port.shutdown(GRACE),
        false => scene.port.close(),
    }
}
