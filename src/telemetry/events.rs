//! TensorBoard's event files: `Event` messages in TFRecord framing.
//!
//! A record is its length (8 bytes, little-endian), a checksum of the length, the message, and a
//! checksum of the message. A checksum is the CRC-32C, rotated right by 15 bits, plus a constant.
//!
//! Each start of a run has its own file. TensorBoard reads the files in the order of their names,
//! and a session start discards what was logged at its step or later. So a file starts with the
//! step that it continues from, and its name and times are later than those of the existing files,
//! whatever the clock reports.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Seek};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ankh_proto::tensorboard::session_log::SessionStatus;
use ankh_proto::tensorboard::{Event, SessionLog, SourceMetadata, Summary, event, summary};
use prost::Message;

use super::append::Appending;
use super::metrics::{finish, tell};
use super::summaries::{histogram, hyperparameters, scalar, text};
use super::{Metrics, TelemetryError, Validation};
use crate::programs::Histogram;

/// An event file of its own for each start of a run, as TensorBoard expects.
pub struct EventLog {
    path: PathBuf,
    file: Appending,
    /// What time it was when the file was started, since 1970, and how long ago that is.
    began: Duration,
    since: Instant,
}

impl EventLog {
    /// Starts a file in `directory` for the steps after `step` (0 for a new run). What other files
    /// there say of later steps is void.
    pub fn after(step: u64, directory: &Path) -> Result<Self, TelemetryError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Self::at(now.unwrap_or_default(), step, directory)
    }

    /// The same at a time given since 1970.
    fn at(now: Duration, step: u64, directory: &Path) -> Result<Self, TelemetryError> {
        let before = newest_file(directory).map_err(TelemetryError::on("list", directory))?;
        let began = match before {
            None => now,
            Some((stamp, path)) => {
                let last = last_event(&path).map(|event| event.wall_time);
                let last = last.filter(|time| (0.0..LATEST as f64).contains(time));
                let last = Duration::from_secs_f64(last.unwrap_or_default());
                now.max(Duration::from_secs(stamp + 1)).max(last)
            }
        };
        let name = format!(
            "{NAME}{:010}.{:09}.{}",
            began.as_secs(),
            began.subsec_nanos(),
            std::process::id()
        );
        let path = directory.join(name);
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.and_then(Appending::to);
        let file = file.map_err(TelemetryError::on("open", &path))?;
        let mut log = Self {
            path,
            file,
            began,
            since: Instant::now(),
        };
        log.record(Event {
            what: Some(event::What::FileVersion("brain.Event:2".into())),
            source_metadata: Some(SourceMetadata {
                writer: "ankh".into(),
            }),
            ..Event::default()
        });
        log.record(Event {
            step: step as i64 + 1,
            what: Some(event::What::SessionLog(SessionLog {
                status: SessionStatus::Start.into(),
            })),
            ..Event::default()
        });
        Ok(log)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes each number of a line of metrics under its group: `train/loss`, `validation/loss`,
    /// `speed/mfu`. What there is no room for is written when there is.
    pub fn write(&mut self, metrics: &Metrics) {
        self.write_scalars(metrics.step, metrics.scalars());
    }

    /// Writes an evaluation that came later than the other numbers of its step.
    pub fn write_evaluation(&mut self, step: u64, validation: &Validation) {
        self.write_scalars(step, validation.scalars());
    }

    /// Writes the histograms of a step.
    pub fn write_histograms(&mut self, step: u64, histograms: &[Histogram]) {
        self.write_values(step, histograms.iter().map(histogram).collect());
    }

    /// Writes with which configuration the steps from `step` on are trained: the file in TOML, and
    /// its settings as JSON, with the name of the run.
    pub fn write_configuration(
        &mut self,
        step: u64,
        file: &str,
        settings: &serde_json::Value,
        run: &str,
    ) {
        // Markdown shows what is indented as it is.
        let file: String = file.lines().map(|line| format!("    {line}\n")).collect();
        let began = self.began.as_secs_f64();
        let values = vec![
            text("configuration", file),
            hyperparameters(settings, run, began),
        ];
        self.write_values(step, values);
    }

    fn write_scalars(&mut self, step: u64, scalars: Vec<(String, f64)>) {
        let value = |(name, value): (String, f64)| scalar(tag(&name), value);
        self.write_values(step, scalars.into_iter().map(value).collect());
    }

    fn write_values(&mut self, step: u64, value: Vec<summary::Value>) {
        self.record(Event {
            step: step as i64,
            what: Some(event::What::Summary(Summary { value })),
            ..Event::default()
        });
    }

    /// Retries what there was no room for; the log reports what is missing.
    pub fn finish(&mut self) {
        finish(&mut self.file, &self.path);
    }

    /// Writes an event of now.
    fn record(&mut self, event: Event) {
        let now = self.began + self.since.elapsed();
        let event = Event {
            wall_time: now.as_secs_f64(),
            ..event
        };
        let turn = self.file.record(framed(&event.encode_to_vec()));
        tell(turn, &self.path);
    }
}

/// How the names of event files begin. The seconds since 1970 follow.
const NAME: &str = "events.out.tfevents.";

/// A time from which on names would not be in the order of their seconds.
const LATEST: u64 = 9_999_999_999;

/// The event file that TensorBoard reads last, with the seconds in its name.
fn newest_file(directory: &Path) -> io::Result<Option<(u64, PathBuf)>> {
    let mut newest = None;
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let stamp = name.to_str().and_then(|name| name.strip_prefix(NAME));
        let seconds = stamp.and_then(|stamp| stamp.split('.').next()?.parse::<u64>().ok());
        if let Some(seconds) = seconds.filter(|seconds| *seconds < LATEST) {
            newest = newest.max(Some((seconds, name)));
        }
    }
    Ok(newest.map(|(seconds, name)| (seconds, directory.join(name))))
}

/// The last whole event of a file. One that a crash cut short ends it.
fn last_event(path: &Path) -> Option<Event> {
    let mut file = BufReader::new(File::open(path).ok()?);
    let length = file.get_ref().metadata().ok()?.len();
    let (mut at, mut last) = (0, None);
    while let Some(size) = next_size(&mut file) {
        let end = (at + HEADER).checked_add(size)?.checked_add(CHECKSUM)?;
        if end > length {
            break;
        }
        last = Some((at + HEADER, size));
        file.seek_relative((size + CHECKSUM) as i64).ok()?;
        at = end;
    }
    let (at, size) = last?;
    file.seek(io::SeekFrom::Start(at)).ok()?;
    let mut message = vec![0; usize::try_from(size).ok()?];
    file.read_exact(&mut message).ok()?;
    Event::decode(message.as_slice()).ok()
}

/// Bytes before and behind the message of a record.
const HEADER: u64 = 12;
const CHECKSUM: u64 = 4;

/// The size of the message of the record that begins here.
fn next_size(file: &mut impl Read) -> Option<u64> {
    let mut length = [0; 8];
    file.read_exact(&mut length).ok()?;
    let mut checksum = [0; 4];
    file.read_exact(&mut checksum).ok()?;
    (masked_crc(&length).to_le_bytes() == checksum).then(|| u64::from_le_bytes(length))
}

fn tag(name: &str) -> String {
    if let Some(name) = name.strip_prefix("validation_") {
        return format!("validation/{name}");
    }
    let speed = name == "mfu"
        || name == "goodput"
        || name.ends_with("_second")
        || name.ends_with("_seconds");
    format!("{}/{name}", if speed { "speed" } else { "train" })
}

fn framed(message: &[u8]) -> Vec<u8> {
    let length = (message.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(message.len() + 16);
    record.extend_from_slice(&length);
    record.extend_from_slice(&masked_crc(&length).to_le_bytes());
    record.extend_from_slice(message);
    record.extend_from_slice(&masked_crc(message).to_le_bytes());
    record
}

fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
        .rotate_right(15)
        .wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The events of a file, each checksum compared.
    fn read(path: &Path) -> Vec<Event> {
        let bytes = std::fs::read(path).unwrap();
        let mut rest = bytes.as_slice();
        let mut events = Vec::new();
        while !rest.is_empty() {
            let (length, after) = rest.split_at(8);
            let (length_crc, after) = after.split_at(4);
            assert_eq!(length_crc, masked_crc(length).to_le_bytes());
            let length = u64::from_le_bytes(length.try_into().unwrap()) as usize;
            let (message, after) = after.split_at(length);
            let (crc, after) = after.split_at(4);
            assert_eq!(crc, masked_crc(message).to_le_bytes());
            events.push(Event::decode(message).unwrap());
            rest = after;
        }
        events
    }

    #[test]
    fn the_checksum_is_the_published_one() {
        // RFC 3720, B.4: 32 bytes of zeros have the CRC-32C 0x8a9136aa.
        let masked = 0x8a91_36aa_u32.rotate_right(15).wrapping_add(0xa282_ead8);
        assert_eq!(masked_crc(&[0; 32]), masked);
    }

    fn metrics(step: u64) -> Metrics {
        let mut metrics = super::super::metrics::tests::metrics(step);
        metrics.rates.mfu = Some(0.5);
        metrics.validation = Some(super::super::Validation::new(2.0, 0.3));
        metrics
    }

    #[test]
    fn events_read_back_with_their_steps_and_values() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = EventLog::after(0, directory.path()).unwrap();
        log.write(&metrics(10));
        log.write(&metrics(20));
        let events = read(log.path());
        assert_eq!(
            events[0].what,
            Some(event::What::FileVersion("brain.Event:2".into()))
        );
        let steps: Vec<i64> = events[2..].iter().map(|event| event.step).collect();
        assert_eq!(steps, [10, 20]);
        let Some(event::What::Summary(summary)) = &events[2].what else {
            panic!("a summary")
        };
        for (tag, expected) in [
            ("train/loss", 2.5),
            ("validation/loss", 2.0),
            ("speed/mfu", 0.5),
        ] {
            let found = summary.value.iter().find(|value| value.tag == tag).unwrap();
            assert_eq!(
                found.value,
                Some(summary::value::Value::SimpleValue(expected))
            );
        }
        assert_eq!(last_event(log.path()).as_ref(), events.last());
    }

    /// What TensorBoard shows of a directory: files in the order of their names, a session's start
    /// voiding its step and later ones.
    fn shown(directory: &Path) -> Vec<(i64, f64)> {
        let files = fs::read_dir(directory).unwrap();
        let mut files: Vec<PathBuf> = files.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        let mut shown: Vec<(i64, f64)> = Vec::new();
        for event in files.iter().flat_map(|file| read(file)) {
            match event.what {
                Some(event::What::SessionLog(_)) => shown.retain(|point| point.0 < event.step),
                Some(event::What::Summary(_)) => shown.push((event.step, event.wall_time)),
                _ => {}
            }
        }
        shown
    }

    #[test]
    fn a_resumed_run_is_shown_as_one_that_never_stopped_whatever_the_clock_says() {
        let directory = tempfile::tempdir().unwrap();
        let now = Duration::from_millis(1_700_000_000_500);
        let hour = Duration::from_secs(3600);
        // Each start: the clock, the step resumed from, and the last step before it was killed.
        let starts = [
            (now, 0, 20),
            (now, 10, 25),
            (now - hour, 20, 22),
            (Duration::ZERO, 15, 30),
            (now + hour, 28, 31),
        ];
        for (now, from, to) in starts {
            let mut log = EventLog::at(now, from, directory.path()).unwrap();
            (from + 1..=to).for_each(|step| log.write(&metrics(step)));
        }
        let shown = shown(directory.path());
        let steps: Vec<i64> = shown.iter().map(|point| point.0).collect();
        assert_eq!(steps, (1..=31).collect::<Vec<_>>());
        assert!(shown.is_sorted_by(|a, b| a.1 <= b.1), "{shown:?}");
    }

    #[test]
    fn histograms_and_the_configuration_are_tensors_for_their_dashboards() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = EventLog::after(7, directory.path()).unwrap();
        let settings = serde_json::json!({ "train": { "steps": 20 } });
        log.write_configuration(8, "[train]\nsteps = 20\n", &settings, "base");
        let histogram = Histogram {
            name: "gradients/shared".into(),
            buckets: vec![[-3.0, -2.5, 4.0], [-2.5, -2.0, 1.0]],
        };
        log.write_histograms(10, &[histogram]);
        let events = read(log.path()).split_off(2);
        let mut found = Vec::new();
        for event in events {
            let Some(event::What::Summary(summary)) = event.what else {
                panic!("a summary")
            };
            for value in summary.value {
                let plugin = value.metadata.unwrap().plugin_data.unwrap().plugin_name;
                let Some(summary::value::Value::Tensor(tensor)) = value.value else {
                    panic!("a tensor")
                };
                found.push((event.step, value.tag, plugin, tensor));
            }
        }
        let [text, hparams, histogram] = &found[..] else {
            panic!("{found:?}")
        };
        assert_eq!((text.0, text.2.as_str()), (8, "text"));
        assert_eq!(text.3.string_val, [b"    [train]\n    steps = 20\n"]);
        assert_eq!((hparams.0, hparams.2.as_str()), (8, "hparams"));
        assert_eq!((histogram.0, histogram.2.as_str()), (10, "histograms"));
        assert_eq!(histogram.1, "gradients/shared");
        assert_eq!(histogram.3.double_val, [-3.0, -2.5, 4.0, -2.5, -2.0, 1.0]);
    }

    #[test]
    fn times_go_on_from_the_last_event_that_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let now = Duration::from_secs(1_700_000_000);
        let mut log = EventLog::at(now, 0, directory.path()).unwrap();
        // It ran for a day, and was killed while it wrote.
        log.began += Duration::from_secs(86_400);
        log.write(&metrics(1));
        log.began += Duration::from_secs(86_400);
        let whole = fs::metadata(log.path()).unwrap().len();
        log.write(&metrics(2));
        let file = OpenOptions::new().write(true).open(log.path()).unwrap();
        let torn = file.metadata().unwrap().len();
        for length in [whole, whole + 3, whole + 12, torn - 1] {
            file.set_len(length).unwrap();
            let last = last_event(log.path()).unwrap();
            assert_eq!(last.step, 1, "{length} of {torn} bytes");
        }
        let resumed = EventLog::at(now, 0, directory.path()).unwrap();
        let began = resumed.began.as_secs();
        assert!(
            (1_700_086_400..1_700_086_500).contains(&began),
            "{began}, not a day later"
        );
        assert!(resumed.path() > log.path());
    }

    #[test]
    fn files_that_are_no_events_are_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        let names = ["events.out.tfevents.soon", "metrics.jsonl"];
        for name in names.map(String::from).into_iter().chain([
            format!("{NAME}{}.host", u64::MAX),
            format!("{NAME}1700000000.other.host"),
        ]) {
            fs::write(directory.path().join(name), "no event").unwrap();
        }
        let log = EventLog::after(0, directory.path()).unwrap();
        assert_eq!(read(log.path()).len(), 2);
    }

    #[test]
    fn two_starts_write_two_files() {
        let directory = tempfile::tempdir().unwrap();
        let first = EventLog::after(0, directory.path()).unwrap();
        let second = EventLog::after(0, directory.path()).unwrap();
        assert!(first.path() < second.path());
    }
}
