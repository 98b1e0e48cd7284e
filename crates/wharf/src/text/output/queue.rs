//! A queue of bytes for one stream of this process, and the thread that writes them.
//!
//! Whoever serves, stops or holds a lock hands its lines over here and goes on: a pipe that nobody
//! reads blocks this one thread. The queue has two kinds of lines. Those that are *kept*, such as the
//! account, are few by their nature. Those that are *offered*, such as one line for each connection,
//! have a bound, and what does not fit is dropped and counted. Two buffers take turns, so a line
//! costs no allocation and a busy server writes many lines at once. A channel of lines was rejected:
//! its bound would count lines and not bytes, and each line would be an allocation.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes of offered lines that wait at most; as many again may be on their way.
pub(super) const BYTES_MAX: usize = 4 << 20;
/// A buffer that has grown beyond this goes back to the system once it is empty.
const BYTES_USUAL: usize = 256 << 10;
/// Bytes of one write. A pipe takes a larger one only as a whole, and a slow reader would look like
/// one that does not read.
const BYTES_AT_ONCE: usize = 4096;
/// How long to wait where the other end has made the stream non-blocking and reads slowly.
const RETRY_IN: Duration = Duration::from_millis(10);

/// What a stream has to say about bytes that it could not write, and whether some were to be kept.
pub(super) type Complain = fn(&io::Error, bool);

/// The queue of one stream. Its thread ends with the process.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    /// Some of what waits is to be kept.
    keeps: bool,
    /// Bytes that the thread has taken and not written yet.
    taken: usize,
    /// Bytes that were written or could not be, over all.
    done: u64,
    dropped_lines: u64,
}

impl Queue {
    /// Starts the thread.
    pub(super) fn start(
        name: &str,
        stream: impl Write + Send + 'static,
        complain: Complain,
    ) -> Result<Arc<Self>, String> {
        let queue = Arc::new(Queue {
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let shared = Arc::clone(&queue);
        crate::threads::start(name, move || shared.write_all(stream, complain))?;
        Ok(queue)
    }

    /// Takes bytes that have to be written.
    pub(super) fn keep(&self, bytes: &[u8]) {
        let mut state = self.lock();
        state.waiting.extend_from_slice(bytes);
        state.keeps = true;
        drop(state);
        self.changed.notify_all();
    }

    /// Takes a line if there is room for it.
    pub(super) fn offer(&self, line: &str) {
        let mut state = self.lock();
        if state.waiting.len() + line.len() >= BYTES_MAX {
            state.dropped_lines += 1;
            return;
        }
        state.waiting.extend_from_slice(line.as_bytes());
        state.waiting.push(b'\n');
        drop(state);
        self.changed.notify_all();
    }

    /// Lines that found no room.
    pub(super) fn dropped_lines(&self) -> u64 {
        self.lock().dropped_lines
    }

    /// Waits until all is written, as long as somebody reads.
    ///
    /// # Errors
    /// The bytes that are left, if nothing was read for `stalled` or some are left after `at_most`.
    pub(super) fn drain(&self, stalled: Duration, at_most: Duration) -> Result<(), usize> {
        let end = Instant::now() + at_most;
        let mut state = self.lock();
        let mut done = state.done;
        let mut give_up_at = Instant::now() + stalled;
        loop {
            let left = state.taken + state.waiting.len();
            if left == 0 {
                return Ok(());
            }
            if state.done != done {
                done = state.done;
                give_up_at = Instant::now() + stalled;
            }
            let patience = give_up_at
                .min(end)
                .saturating_duration_since(Instant::now());
            if patience.is_zero() {
                return Err(left);
            }
            let waited = self.changed.wait_timeout(state, patience);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The thread: writes what waits, for ever. No lock is held during a write.
    fn write_all(&self, mut stream: impl Write, complain: Complain) {
        let mut buffer = Vec::new();
        loop {
            let keeps = self.take(&mut buffer);
            let mut written = 0;
            while written < buffer.len() {
                let piece = piece(&buffer[written..]);
                match stream.write(piece) {
                    Ok(count @ 1..) => {
                        written += count;
                        self.done(count);
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        thread::sleep(RETRY_IN);
                    }
                    failed => {
                        let ended = io::ErrorKind::WriteZero.into();
                        complain(&failed.err().unwrap_or(ended), keeps);
                        self.done(buffer.len() - written);
                        written = buffer.len();
                    }
                }
            }
            if let Err(error) = stream.flush() {
                complain(&error, keeps);
            }
            buffer.clear();
            buffer.shrink_to(BYTES_USUAL);
        }
    }

    /// Waits for bytes and takes them; whether some are to be kept.
    fn take(&self, buffer: &mut Vec<u8>) -> bool {
        let mut state = self.lock();
        while state.waiting.is_empty() {
            let waited = self.changed.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::swap(&mut state.waiting, buffer);
        state.taken = buffer.len();
        std::mem::take(&mut state.keeps)
    }

    fn done(&self, count: usize) {
        let mut state = self.lock();
        state.taken -= count;
        state.done += count as u64;
        drop(state);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is written next: whole lines, as many as one write takes.
fn piece(bytes: &[u8]) -> &[u8] {
    let most = &bytes[..bytes.len().min(BYTES_AT_ONCE)];
    let end = most.iter().rposition(|byte| *byte == b'\n');
    &most[..end.map_or(most.len(), |at| at + 1)]
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{self, Receiver, Sender};

    use super::*;

    /// A stream whose writes each wait for leave.
    struct Slow {
        leave: Receiver<()>,
        written: Sender<Vec<u8>>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.leave.recv().map_err(io::Error::other)?;
            let _ = self.written.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn slow() -> (Arc<Queue>, Sender<()>, Receiver<Vec<u8>>) {
        let (leave, leaves) = mpsc::channel();
        let (written, all) = mpsc::channel();
        let stream = Slow {
            leave: leaves,
            written,
        };
        let queue = Queue::start("slow", stream, |_, _| ()).expect("a thread");
        (queue, leave, all)
    }

    const PATIENCE: Duration = Duration::from_secs(60);

    #[test]
    fn offered_lines_have_a_bound_and_kept_ones_come_behind_them() {
        let (queue, leave, all) = slow();
        let line = "x".repeat(1023);
        let offered = 3 * BYTES_MAX / 1024;
        (0..offered).for_each(|_| queue.offer(&line));
        queue.keep(b"the account\n");
        let dropped = queue.dropped_lines() as usize;
        // As many as fit wait, and as many again may be on their way.
        let most = 2 * BYTES_MAX / 1024;
        assert!(dropped >= offered - most && dropped < offered, "{dropped}");
        for _ in 0..=offered {
            leave.send(()).expect("the thread lives");
        }
        queue.drain(PATIENCE, PATIENCE).expect("all is written");
        let written: Vec<u8> = all.try_iter().flatten().collect();
        assert_eq!(
            written.len(),
            (offered - dropped) * 1024 + "the account\n".len()
        );
        assert!(written.ends_with(b"x\nthe account\n"));
    }

    #[test]
    fn the_end_waits_for_no_reader_that_does_not_read() {
        let (queue, leave, all) = slow();
        queue.keep(b"one\n");
        let left = queue.drain(Duration::from_millis(1), PATIENCE);
        assert_eq!(left, Err(4));
        leave.send(()).expect("the thread lives");
        queue.drain(PATIENCE, PATIENCE).expect("it is written");
        assert_eq!(all.recv().as_deref(), Ok(&b"one\n"[..]));
    }

    #[test]
    fn a_write_is_of_whole_lines_where_it_can_be() {
        assert_eq!(piece(b"a\nbc\nd"), b"a\nbc\n");
        assert_eq!(piece(b"abc"), b"abc");
        let long = [b'x'; BYTES_AT_ONCE + 1];
        assert_eq!(piece(&long).len(), BYTES_AT_ONCE);
    }
}
