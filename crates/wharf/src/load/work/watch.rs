//! Watching over those who work, in this process or in others: the live line, the intervals, and
//! what goes wrong.
//!
//! The numbers are the same on a terminal and elsewhere: a bar that knew more than the lines of a
//! script would be one that nobody can quote.

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

/// Those who work.
pub(crate) trait Watched {
    /// Waits for news, or so long.
    fn next(&self, at_most: Duration) -> News;
    fn standing(&self) -> Standing;
    fn stop(&self);
    /// Lets them end what they hold.
    fn leave(&self);
}

#[derive(Debug)]
pub(crate) enum News {
    Nothing,
    /// One of them cannot go on.
    Failed(String),
    /// All are done, and hold what they hold until they may leave.
    AllHold,
    AllOver,
}

/// Watches until all is over.
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
                // Without one of them the load is not what was asked for.
                watched.stop();
                // Those that are done already are not to wait for it.
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

/// One interval, which does not tear the live line.
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
