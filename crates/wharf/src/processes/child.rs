//! The part's side: it reads orders from its standard input and tells on its standard output.

use std::io::BufRead;
use std::process::ExitCode;
use std::sync::mpsc::{self, Sender};

use serde::Serialize;

use super::{Order, Part, Told};
use crate::text::output;
use crate::threads;

/// The exit code of a part that nobody listens to any more.
const ORPHANED: i32 = 1;

/// The process that has started this one.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) part: Part,
}

/// What carries out orders.
type Obedience = Box<dyn Fn(Order) + Send>;

/// The thread that reads orders, and waits to be told how they are carried out.
#[derive(Debug)]
pub(crate) struct Orders(Sender<Obedience>);

impl Child {
    /// Works as one of several processes; the exit code.
    pub(crate) fn follow<S: Serialize>(work: impl FnOnce(&Child) -> Result<S, String>) -> ExitCode {
        match Child::meet() {
            Ok(child) => Child::end(work(&child)),
            Err(text) => {
                output::complaint(&text);
                ExitCode::from(2)
            }
        }
    }

    /// Reads which part this process has.
    fn meet() -> Result<Self, String> {
        let part = next_line().and_then(|line| serde_json::from_str(&line).ok());
        let part = part.ok_or("--part is for the program itself: use --processes")?;
        Ok(Child { part })
    }

    /// Tells that this part can begin, and waits until all can.
    ///
    /// # Errors
    /// Where the system refuses the thread that reads orders: nothing may be refused after this.
    pub(crate) fn ready(&self, addresses: Vec<String>) -> Result<Orders, String> {
        let (begin, begins) = mpsc::channel();
        let (obedience, obediences) = mpsc::channel::<Obedience>();
        threads::start("orders", move || {
            while let Some(line) = next_line() {
                match Order::of(&line) {
                    Some(Order::Begin) => break,
                    // Nothing has begun that could be told of.
                    Some(Order::Stop) => std::process::exit(0),
                    Some(Order::Tell | Order::Leave) | None => {}
                }
            }
            // Whoever waits for it ends with the process.
            let _ = begin.send(());
            if let Ok(carry_out) = obediences.recv() {
                while let Some(line) = next_line() {
                    if let Some(order) = Order::of(&line) {
                        carry_out(order);
                    }
                }
            }
            // The end of the input is the end of those who give orders, and of this process.
            std::process::exit(ORPHANED);
        })?;
        tell(&Told::<()>::Ready(addresses));
        if begins.recv().is_err() {
            std::process::exit(ORPHANED);
        }
        Ok(Orders(obedience))
    }

    pub(crate) fn standing<S: Serialize>(standing: S) {
        tell(&Told::Standing(standing));
    }

    /// Tells that all that is held is held until the order to leave.
    pub(crate) fn holds() {
        tell(&Told::<()>::Holds);
    }

    /// A line to print, from one of this process's threads.
    pub(crate) fn line(text: String) {
        output::news_json(&Told::<()>::Line(text));
    }

    /// Tells how it ended; the exit code of this process, in which nobody is interested.
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
    /// Has orders carried out from now on, on the thread that reads them.
    pub(crate) fn obey(&self, carry_out: impl Fn(Order) + Send + 'static) {
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
    // With nobody to hear it, the end of the input ends this process.
    output::json(told);
}
