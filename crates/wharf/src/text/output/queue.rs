//! A queue of bytes for one stream of this process, and the thread that writes them.
//!
//! A thread that serves, stops or holds a lock puts its lines here and goes on: a pipe without a
//! reader blocks only the writing thread. The queue has two kinds of lines. *Kept* lines, such as
//! the account, are few by nature. *Offered* lines, such as one for each connection, have a bound:
//! a line that does not fit is dropped and counted. Two buffers alternate, so a line costs no
//! allocation and a busy server writes many lines at once. A channel of lines was rejected: its
//! bound would count lines and not bytes, and each line would be an allocation.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The most bytes of offered lines that wait. The same number may be in the buffer that is being
/// written.
pub(super) const BYTES_MAX: usize = 4 << 20;
/// A buffer that has grown beyond this is freed once it is empty.
const BYTES_USUAL: usize = 256 << 10;
/// Bytes of one write. A pipe accepts a larger write only as a whole, so a slow reader would look
/// like no reader.
const BYTES_AT_ONCE: usize = 4096;
/// How long to wait if the other end has made the stream non-blocking and reads slowly.
const RETRY_IN: Duration = Duration::from_millis(10);

/// Called for bytes that could not be written; the flag says whether some were to be kept.
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
    /// Some of the waiting bytes are to be kept.
    keeps: bool,
    /// Bytes that the thread has taken and not written yet.
    taken: usize,
    /// Bytes that were written or could not be, in total.
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

    /// Queues bytes that must be written.
    pub(super) fn keep(&self, bytes: &[u8]) {
        let mut state = self.lock();
        state.waiting.extend_from_slice(bytes);
        state.keeps = true;
        drop(state);
        self.changed.notify_all();
    }

    /// Queues a line if there is space.
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

    /// Lines that did not fit.
    pub(super) fn dropped_lines(&self) -> u64 {
        self.lock().dropped_lines
    }

    /// Waits until all is written, as long as the reader reads.
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

    /// The thread: writes what waits, without end. It holds no lock during a write.
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

    /// Waits for bytes and takes them; returns whether some are to be kept.
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

/// The next bytes to write: whole lines, as many as fit in one write.
fn piece(bytes: &[u8]) -> &[u8] {
    let most = &bytes[..bytes.len().min(BYTES_AT_ONCE)];
    let end = most.iter().rposition(|byte| *byte == b'\n');
    &most[..end.map_or(most.len(), |at| at + 1)]
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{self, Receiver, Sender};

    use super::*;

    /// A stream in which each write waits for permission.
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
        // A full buffer waits, and another one may be in progress.
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
