//! `--hdr FILE`: every latency, in the log format of the HdrHistogram tools.
//!
//! The log has one tagged, compressed line for each kind of latency in each period. The report
//! already has percentiles. This log is for those who want to plot latency over time, or to add up
//! several runs, which is impossible with percentiles. It is written during the load: an hour of
//! periods would take a gigabyte of memory.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use super::period::Period;

/// A file that is opened before the load, and written one period at a time.
#[derive(Debug)]
pub(crate) struct HdrFile {
    path: PathBuf,
    file: File,
    /// Why the file is not complete; reported at the end.
    unwritten: Option<String>,
}

impl HdrFile {
    pub(crate) fn create(path: &Path) -> Result<Self, String> {
        let file = File::create(path).map_err(|error| {
            let hint = match error.kind() {
                ErrorKind::NotFound => "make its directory first",
                ErrorKind::IsADirectory => "name a file in it",
                _ => "name a file that you may write to",
            };
            format!("cannot write {}: {error}: {hint}", path.display())
        })?;
        let mut it = HdrFile {
            path: path.to_owned(),
            file,
            unwritten: None,
        };
        let mut heading = heading(SystemTime::now());
        it.write(heading.as_mut().map_err(|error| error.clone()));
        Ok(it)
    }

    /// Writes the next period.
    pub(crate) fn add(&mut self, period: &Period) {
        let mut lines = lines(period);
        self.write(lines.as_mut().map_err(|error| error.clone()));
    }

    fn write(&mut self, text: Result<&mut Vec<u8>, String>) {
        let file = &mut self.file;
        let written = text.and_then(|it| file.write_all(it).map_err(|error| error.to_string()));
        if let Err(error) = written {
            let path = self.path.display();
            let text = || format!("cannot write {path}: {error}");
            self.unwritten.get_or_insert_with(text);
        }
    }

    /// Whether all of it was written.
    pub(crate) fn end(self) -> Result<(), String> {
        self.unwritten.map_or(Ok(()), Err)
    }
}

/// The first lines.
fn heading(start: SystemTime) -> Result<Vec<u8>, String> {
    let mut builder = builder();
    builder
        .add_comment("latencies in nanoseconds, by wharf load")
        .with_start_time(start)
        // Each period gives its time relative to this.
        .with_base_time(start);
    let mut text = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let begun = builder.begin_log_with(&mut text, &mut serializer);
    begun.map(drop).map_err(|error| error.to_string())?;
    Ok(text)
}

/// The lines of a period, one for each kind that occurred.
fn lines(period: &Period) -> Result<Vec<u8>, String> {
    let told = |error: &dyn std::fmt::Debug| format!("{error:?}");
    let mut text = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let begun = builder().begin_log_with(&mut text, &mut serializer);
    let mut log = begun.map_err(|error| told(&error))?;
    let latencies = period.latencies();
    let (from, duration) = period.time();
    for (name, histogram) in [
        ("connect", &latencies.connect),
        ("message", &latencies.message),
        ("unanswered", &latencies.unanswered),
    ] {
        if histogram.is_empty() {
            continue;
        }
        let tag = Tag::new(name).expect("no spaces and no commas");
        log.write_histogram(histogram, from, duration, Some(tag))
            .map_err(|error| told(&error))?;
    }
    drop(log);
    Ok(text)
}

/// Values are in nanoseconds, unscaled.
fn builder() -> IntervalLogWriterBuilder {
    let mut builder = IntervalLogWriterBuilder::new();
    builder.with_max_value_divisor(1.0);
    builder
}

#[cfg(test)]
mod tests {
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::*;
    use std::time::Duration;

    use crate::load::model::ledger::record;
    use crate::load::model::standing::Standing;

    #[test]
    fn what_is_written_is_read_back() {
        let (before, mut now) = (Standing::nothing(), Standing::nothing());
        let latencies = &mut now.latencies;
        for microseconds in 1..=1000 {
            record(&mut latencies.message, Duration::from_micros(microseconds));
        }
        record(&mut latencies.connect, Duration::from_millis(3));
        record(&mut latencies.unanswered, Duration::from_secs(1));
        let latencies = latencies.clone();
        now.counts.seconds = 2.0;
        let mut log = heading(SystemTime::UNIX_EPOCH).expect("memory");
        log.extend(lines(&Period::between(&before, &now)).expect("memory"));
        // A period with one reply.
        let earlier = now.clone();
        record(&mut now.latencies.message, Duration::from_millis(7));
        now.counts.seconds = 3.0;
        log.extend(lines(&Period::between(&earlier, &now)).expect("memory"));
        let mut found = Vec::new();
        for entry in IntervalLogIterator::new(&log) {
            let Ok(LogEntry::Interval(interval)) = entry else {
                continue;
            };
            let coded = interval.encoded_histogram();
            let bytes = base64_of(coded);
            let read = Deserializer::new()
                .deserialize::<u64, _>(&mut &bytes[..])
                .expect("a histogram");
            let tag = interval.tag().expect("each has one").as_str().to_owned();
            let from = interval.start_timestamp().as_secs();
            found.push((tag, from, read.len(), read.value_at_quantile(0.5)));
        }
        let median = latencies.message.value_at_quantile(0.5);
        let connect = latencies.connect.value_at_quantile(0.5);
        let unanswered = latencies.unanswered.value_at_quantile(0.5);
        let seven = now.latencies.message.max();
        assert_eq!(
            found,
            [
                ("connect".to_owned(), 0, 1, connect),
                ("message".to_owned(), 0, 1000, median),
                ("unanswered".to_owned(), 0, 1, unanswered),
                ("message".to_owned(), 2, 1, seven),
            ]
        );
    }

    /// The bytes of base 64.
    fn base64_of(text: &str) -> Vec<u8> {
        const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let digit = |letter: u8| LETTERS.iter().position(|known| *known == letter);
        let (mut bits, mut held, mut bytes) = (0u32, 0, Vec::new());
        for digit in text.bytes().filter_map(digit) {
            bits = bits << 6 | digit as u32;
            held += 6;
            if held >= 8 {
                held -= 8;
                bytes.push((bits >> held) as u8);
            }
        }
        bytes
    }
}
