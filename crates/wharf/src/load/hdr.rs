//! `--hdr FILE`: every latency, in the log that the tools of HdrHistogram read.
//!
//! One line for each kind, with its tag, compressed as the format has it. Percentiles are in the
//! report already; this is for those who want to draw, or to add up several runs, which
//! percentiles cannot be.

use std::fs::File;
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use super::ledger::Latencies;

/// A file that is open before the load begins.
#[derive(Debug)]
pub(crate) struct HdrFile {
    path: PathBuf,
    file: File,
    start: SystemTime,
}

impl HdrFile {
    pub(crate) fn create(path: &Path) -> Result<Self, String> {
        let file = File::create(path).map_err(|error| {
            let cure = match error.kind() {
                ErrorKind::NotFound => "make its directory first",
                ErrorKind::IsADirectory => "name a file in it",
                _ => "name a file that you may write to",
            };
            format!("cannot write {}: {error}: {cure}", path.display())
        })?;
        Ok(HdrFile {
            path: path.to_owned(),
            file,
            start: SystemTime::now(),
        })
    }

    /// Writes what was measured in so long.
    pub(crate) fn write(self, latencies: &Latencies, duration: Duration) -> Result<(), String> {
        let mut writer = BufWriter::new(&self.file);
        let written = write_log(&mut writer, latencies, self.start, duration);
        let written = written.and_then(|()| writer.flush().map_err(|error| error.to_string()));
        written.map_err(|error| format!("cannot write {}: {error}", self.path.display()))
    }
}

fn write_log(
    writer: &mut impl Write,
    latencies: &Latencies,
    start: SystemTime,
    duration: Duration,
) -> Result<(), String> {
    let mut serializer = V2DeflateSerializer::new();
    let mut builder = IntervalLogWriterBuilder::new();
    builder
        .add_comment("latencies in nanoseconds, by wharf load")
        .with_start_time(start)
        // In nanoseconds, as they are.
        .with_max_value_divisor(1.0);
    let text = |error: &dyn std::fmt::Debug| format!("{error:?}");
    let mut log = builder
        .begin_log_with(writer, &mut serializer)
        .map_err(|error| text(&error))?;
    for (name, histogram) in [
        ("connect", &latencies.connect),
        ("message", &latencies.message),
    ] {
        if histogram.is_empty() {
            continue;
        }
        let tag = Tag::new(name).expect("no spaces and no commas");
        log.write_histogram(histogram, Duration::ZERO, duration, Some(tag))
            .map_err(|error| text(&error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::*;
    use crate::load::ledger::record;

    #[test]
    fn what_is_written_is_read_back() {
        let mut latencies = Latencies::new();
        for microseconds in 1..=1000 {
            record(&mut latencies.message, Duration::from_micros(microseconds));
        }
        record(&mut latencies.connect, Duration::from_millis(3));
        let mut log = Vec::new();
        let start = SystemTime::UNIX_EPOCH;
        write_log(&mut log, &latencies, start, Duration::from_secs(2)).expect("memory");
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
            found.push((tag, read.len(), read.value_at_quantile(0.5)));
        }
        let median = latencies.message.value_at_quantile(0.5);
        let connect = latencies.connect.value_at_quantile(0.5);
        assert_eq!(
            found,
            [
                ("connect".to_owned(), 1, connect),
                ("message".to_owned(), 1000, median)
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
