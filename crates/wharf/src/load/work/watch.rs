//! Watches the workers, in this process or in others: the live line, the intervals, and errors.
//!
//! The live line on a terminal has the same numbers as the lines for a script. Additional numbers
//! were rejected: users cannot quote them.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::load::Run;
use crate::load::model::standing::Standing;
use crate::load::options::LoadOptions;
use crate::load::results::report::Moment;
use crate::text::output;
use crate::values::Format;

/// How often the live line changes.
pub(crate) const LIVE_EVERY: Duration = Duration::from_millis(200);

/// Workers.
pub(crate) trait Watched {
    /// Waits for news, at most this long.
    fn next(&self, at_most: Duration) -> News;
    fn standing(&self) -> Standing;
    fn stop(&self);
    /// Lets them close what they hold.
    fn leave(&self);
}

#[derive(Debug)]
pub(crate) enum News {
    Nothing,
    /// A worker cannot go on.
    Failed(String),
    /// All are done, and hold their connections until they may leave.
    AllHold,
    AllOver,
}

/// Watches until all workers are done.
pub(crate) fn watch(run: &Run<'_>, watched: &impl Watched) -> Result<(), String> {
    let options = run.options;
    let bar = bar(options);
    let interval = run.periods.borrow().length().unwrap_or(Duration::MAX);
    let mut next_interval = Instant::now().checked_add(interval);
    let mut result = Ok(());
    loop {
        let until_interval = next_interval.map_or(LIVE_EVERY, |at| {
            at.saturating_duration_since(Instant::now())
        });
        match watched.next(LIVE_EVERY.min(until_interval)) {
            News::Nothing => {}
            News::Failed(text) => {
                // Without this worker the load is not the requested one.
                watched.stop();
                // Workers that are done already do not wait for it.
                watched.leave();
                result = result.and(Err(text));
            }
            News::AllHold => {
                run.ask_what_is_held(&watched.standing());
                watched.leave();
            }
            News::AllOver => break,
        }
        if let Some(bar) = &bar {
            let standing = watched.standing();
            bar.set_position(standing.counts.connected);
            bar.set_message(run.moment(&standing).line());
        }
        if let Some(at) = next_interval.filter(|at| Instant::now() >= *at) {
            next_interval = at.checked_add(interval);
            let standing = watched.standing();
            let period = run.periods.borrow_mut().next(&standing);
            let moment = Moment {
                period: Some(&period),
                ..run.moment(&standing)
            };
            if options.interval.is_some() {
                tell(bar.as_ref(), options, &moment);
            }
        }
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    result
}

/// Prints one interval without damaging the live line.
fn tell(bar: Option<&ProgressBar>, options: &LoadOptions, moment: &Moment<'_>) {
    let tell = || match options.format {
        Format::Text => output::news(&moment.line()),
        Format::Json => output::news_json(&moment.object("interval")),
    };
    match bar {
        Some(bar) => bar.suspend(|| {
            tell();
            output::settle();
        }),
        None => tell(),
    }
}

/// The live line, on a terminal.
fn bar(options: &LoadOptions) -> Option<ProgressBar> {
    if options.format != Format::Text || !std::io::stderr().is_terminal() {
        return None;
    }
    let bar = ProgressBar::new(u64::from(options.connections));
    let style = ProgressStyle::with_template("{msg} [{wide_bar}]");
    bar.set_style(
        style
            .expect("a template that is right")
            .progress_chars("=> "),
    );
    Some(bar)
}
