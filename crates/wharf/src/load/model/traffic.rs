//! The bytes of one connection: what it sends, what it expects back, and how long that took.
//!
//! The seed, the connection and the offset decide each byte. So bytes of another connection or
//! offset are detected as reliably as damaged ones. This module does no input and no output.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A prime, so that no size of messages divides it.
const NOISE_BYTES: usize = 65_521;

/// The bytes that all connections use, each from its own offset.
#[derive(Debug)]
pub(crate) struct Noise(Box<[u8]>);

impl Noise {
    pub(crate) fn new(seed: u64) -> Self {
        let mut state = seed;
        let byte = || {
            // The generator splitmix64.
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            (mixed >> 56) as u8
        };
        Noise(std::iter::repeat_with(byte).take(NOISE_BYTES).collect())
    }

    /// The longest piece from this offset on.
    fn from(&self, connection: u32, place: u64) -> &[u8] {
        let start = u64::from(connection) * 7_919 + place;
        &self.0[(start % NOISE_BYTES as u64) as usize..]
    }
}

/// The messages in flight on one connection.
#[derive(Debug)]
pub(crate) struct Traffic {
    connection: u32,
    message_bytes: u32,
    sent_bytes: u64,
    received_bytes: u64,
    /// The send time, or due time, of each message without a reply.
    begun: VecDeque<Instant>,
}

/// Bytes came back that were not sent, or not at this offset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Corrupt {
    pub(crate) place: u64,
}

impl Traffic {
    pub(crate) fn new(connection: u32, message_bytes: u32) -> Self {
        Traffic {
            connection,
            message_bytes,
            sent_bytes: 0,
            received_bytes: 0,
            begun: VecDeque::new(),
        }
    }

    /// The bytes of the next message. Its latency counts from this time.
    pub(crate) fn begin(&mut self, noise: &Noise, at: Instant) -> Vec<u8> {
        let length = self.message_bytes as usize;
        let mut message = Vec::with_capacity(length);
        while message.len() < length {
            let place = self.sent_bytes + message.len() as u64;
            let piece = noise.from(self.connection, place);
            message.extend_from_slice(&piece[..piece.len().min(length - message.len())]);
        }
        self.sent_bytes += length as u64;
        self.begun.push_back(at);
        message
    }

    /// Checks what came back, and reports the latency of each complete message.
    pub(crate) fn receive(
        &mut self,
        noise: &Noise,
        mut bytes: &[u8],
        now: Instant,
        mut complete: impl FnMut(Duration),
    ) -> Result<(), Corrupt> {
        let length = u64::from(self.message_bytes);
        while !bytes.is_empty() {
            let expected = noise.from(self.connection, self.received_bytes);
            let unsent = self.sent_bytes - self.received_bytes;
            let count = bytes.len().min(expected.len()).min(unsent as usize);
            if count == 0 || bytes[..count] != expected[..count] {
                let same = bytes.iter().zip(expected).take(count);
                let same = same.take_while(|(left, right)| left == right).count();
                let place = self.received_bytes + same as u64;
                return Err(Corrupt { place });
            }
            let before = self.received_bytes / length;
            self.received_bytes += count as u64;
            for _ in before..self.received_bytes / length {
                let begun = self.begun.pop_front().expect("each message was begun");
                complete(now.saturating_duration_since(begun));
            }
            bytes = &bytes[count..];
        }
        Ok(())
    }

    /// Messages without a reply.
    pub(crate) fn under_way(&self) -> usize {
        self.begun.len()
    }

    /// The start time of each message without a reply, the oldest first.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = Instant> + '_ {
        self.begun.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(traffic: &mut Traffic, noise: &Noise, count: usize) -> Vec<u8> {
        let now = Instant::now();
        let messages = (0..count).map(|_| traffic.begin(noise, now));
        messages.collect::<Vec<_>>().concat()
    }

    #[test]
    fn every_cut_of_what_was_sent_is_accepted() {
        let noise = Noise::new(1);
        for message_bytes in [1, 64, 65_521, 100_000] {
            for cut in [1, 63, 64, 70_000] {
                let mut traffic = Traffic::new(7, message_bytes);
                let bytes = sent(&mut traffic, &noise, 3);
                assert_eq!(traffic.under_way(), 3);
                let mut complete = 0;
                for piece in bytes.chunks(cut) {
                    let now = Instant::now();
                    let result = traffic.receive(&noise, piece, now, |_| complete += 1);
                    assert_eq!(result, Ok(()));
                }
                assert_eq!((complete, traffic.under_way()), (3, 0));
            }
        }
    }

    #[test]
    fn damaged_missing_foreign_and_extra_bytes_are_found() {
        let noise = Noise::new(2);
        let receive = |bytes: &[u8]| {
            let mut traffic = Traffic::new(3, 100);
            let _ = sent(&mut traffic, &noise, 2);
            traffic.receive(&noise, bytes, Instant::now(), |_| {})
        };
        let right = sent(&mut Traffic::new(3, 100), &noise, 2);
        assert_eq!(receive(&right), Ok(()));
        let mut damaged = right.clone();
        damaged[150] ^= 1;
        assert_eq!(receive(&damaged), Err(Corrupt { place: 150 }));
        assert!(receive(&right[1..]).is_err());
        let foreign = sent(&mut Traffic::new(4, 100), &noise, 2);
        assert!(receive(&foreign).is_err());
        let extra = [&right[..], b"x"].concat();
        assert_eq!(receive(&extra), Err(Corrupt { place: 200 }));
    }

    #[test]
    fn another_seed_is_other_bytes() {
        assert_ne!(Noise::new(1).0, Noise::new(2).0);
    }
}
