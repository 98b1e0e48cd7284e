//! The child's side: it reads orders from standard input and reports on standard output.

use std::io::BufRead;
use std::process::ExitCode;
use std::sync::mpsc::{self, Sender};

use serde::Serialize;

use super::{Order, Part, Told};
use crate::text::output;
use crate::threads;

/// The exit code of a child without a parent.
const ORPHANED: i32 = 1;

/// The parent process.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) part: Part,
}

/// Carries out orders.
type OrderHandler = Box<dyn Fn(Order) + Send>;

/// The thread that reads orders. It waits for the function that carries them out.
#[derive(Debug)]
pub(crate) struct Orders(Sender<OrderHandler>);

impl Child {
    /// Works as a child process; returns the exit code.
    pub(crate) fn follow<S: Serialize>(work: impl FnOnce(&Child) -> Result<S, String>) -> ExitCode {
        match Child::meet() {
            Ok(child) => Child::end(work(&child)),
            Err(text) => {
                output::complaint(&text);
                ExitCode::from(2)
            }
        }
    }

    /// Reads the part of this process.
    fn meet() -> Result<Self, String> {
        let part = next_line().and_then(|line| serde_json::from_str(&line).ok());
        let part = part.ok_or("--part is for the program itself: use --processes")?;
        Ok(Child { part })
    }

    /// Reports that this process is ready, and waits until all are.
    ///
    /// # Errors
    /// If the system refuses the thread that reads orders. After this call nothing may fail.
    pub(crate) fn ready(&self, addresses: Vec<String>) -> Result<Orders, String> {
        let (begin, begins) = mpsc::channel();
        let (handlers, receiver) = mpsc::channel::<OrderHandler>();
        threads::start("orders", move || {
            let mut asked = false;
            while let Some(line) = next_line() {
                match Order::of(&line) {
                    Some(Order::Begin) => break,
                    // No work has started, so there is no report.
                    Some(Order::Stop) => std::process::exit(0),
                    // The parent waits for a reply, and asks no more before it has come.
                    Some(Order::Tell) => asked = true,
                    Some(Order::Leave) | None => {}
                }
            }
            // The receiver ends with the process.
            let _ = begin.send(());
            if let Ok(carry_out) = receiver.recv() {
                if asked {
                    carry_out(Order::Tell);
                }
                while let Some(line) = next_line() {
                    if let Some(order) = Order::of(&line) {
                        carry_out(order);
                    }
                }
            }
            // If the input closes, the parent is gone, and this process ends.
            std::process::exit(ORPHANED);
        })?;
        tell(&Told::<()>::Ready(addresses));
        if begins.recv().is_err() {
            std::process::exit(ORPHANED);
        }
        Ok(Orders(handlers))
    }

    pub(crate) fn standing<S: Serialize>(standing: S) {
        tell(&Told::Standing(standing));
    }

    /// Reports that all connections are held until the order to leave.
    pub(crate) fn holds() {
        tell(&Told::<()>::Holds);
    }

    /// Reports a line to print, from any thread.
    pub(crate) fn line(text: String) {
        output::news_json(&Told::<()>::Line(text));
    }

    /// Reports the final state; returns the exit code, which the parent ignores.
    fn end<S: Serialize>(result: Result<S, String>) -> ExitCode {
        match result {
            Ok(standing) => {
                tell(&Told::Over(standing));
                ExitCode::SUCCESS
            }
            Err(text) => {
                tell(&Told::<()>::Failed(text));
                ExitCode::from(2)
            }
        }
    }
}

impl Orders {
    /// Carries out orders from now on, on the thread that reads them.
    pub(crate) fn carry_out_with(&self, carry_out: impl Fn(Order) + Send + 'static) {
        // The thread ends with the process.
        let _ = self.0.send(Box::new(carry_out));
    }
}

fn next_line() -> Option<String> {
    let mut line = String::new();
    match std::io::stdin().lock().read_line(&mut line) {
        Ok(1..) => Some(line.trim_end().to_owned()),
        Ok(0) | Err(_) => None,
    }
}

fn tell<S: Serialize>(told: &Told<S>) {
    // Without a parent, the closed input ends this process.
    output::json(told);
}
