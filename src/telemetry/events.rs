//! TensorBoard's event files: `Event` messages in TFRecord framing.
//!
//! A record is its length (8 bytes, little-endian), a checksum of the length, the message, and a checksum of the message. A checksum is the CRC-32C, rotated
//! right by 15 bits, plus a constant, so that the checksum of data that contains checksums stays informative.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use ankh_proto::tensorboard::{Event, SourceMetadata, Summary, event, summary};
use prost::Message;

use super::{Metrics, TelemetryError};

/// An event file of its own for each start of a run, as TensorBoard expects.
pub struct EventLog {
    path: PathBuf,
    file: File,
}

impl EventLog {
    /// Starts a file in `directory`.
    pub fn create(directory: &Path) -> Result<Self, TelemetryError> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let name = format!(
            "events.out.tfevents.{}.{:09}.{}",
            now.as_secs(),
            now.subsec_nanos(),
            std::process::id()
        );
        let path = directory.join(name);
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.map_err(TelemetryError::on("open", &path))?;
        let mut log = Self { path, file };
        log.record(&Event {
            wall_time: now.as_secs_f64(),
            what: Some(event::What::FileVersion("brain.Event:2".into())),
            source_metadata: Some(SourceMetadata {
                writer: "ankh".into(),
            }),
            ..Event::default()
        })?;
        Ok(log)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes each number of a line of metrics under its group: `train/loss`, `validation/loss`, `speed/mfu`.
    pub fn write(&mut self, metrics: &Metrics) -> Result<(), TelemetryError> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let value = |(name, value): (String, f64)| summary::Value {
            tag: tag(&name),
            value: Some(summary::value::Value::SimpleValue(value as f32)),
            ..summary::Value::default()
        };
        self.record(&Event {
            wall_time: now.as_secs_f64(),
            step: metrics.step as i64,
            what: Some(event::What::Summary(Summary {
                value: metrics.scalars().into_iter().map(value).collect(),
            })),
            ..Event::default()
        })
    }

    fn record(&mut self, event: &Event) -> Result<(), TelemetryError> {
        let written = self.file.write_all(&framed(&event.encode_to_vec()));
        written.map_err(TelemetryError::on("write", &self.path))
    }
}

fn tag(name: &str) -> String {
    if let Some(name) = name.strip_prefix("validation_") {
        return format!("validation/{name}");
    }
    let speed = name == "mfu" || name.ends_with("_second") || name.ends_with("_seconds");
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

    #[test]
    fn events_read_back_with_their_steps_and_values() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = EventLog::create(directory.path()).unwrap();
        let metrics = |step| Metrics {
            step,
            epoch: 1,
            residues: 9000,
            loss: 2.5,
            accuracy: 0.25,
            learning_rate: 1e-3,
            grad_norm: 1.5,
            padding_efficiency: 0.75,
            step_seconds: 0.5,
            examples_per_second: 16.0,
            tokens_per_second: 1024.0,
            mfu: Some(0.5),
            data_wait_seconds: 0.0,
            validation: Some(super::super::Validation::new(2.0, 0.3)),
        };
        log.write(&metrics(10)).unwrap();
        log.write(&metrics(20)).unwrap();
        let events = read(log.path());
        assert_eq!(
            events[0].what,
            Some(event::What::FileVersion("brain.Event:2".into()))
        );
        let steps: Vec<i64> = events[1..].iter().map(|event| event.step).collect();
        assert_eq!(steps, [10, 20]);
        let Some(event::What::Summary(summary)) = &events[1].what else {
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
    }

    #[test]
    fn two_starts_write_two_files() {
        let directory = tempfile::tempdir().unwrap();
        let first = EventLog::create(directory.path()).unwrap();
        let second = EventLog::create(directory.path()).unwrap();
        assert_ne!(first.path(), second.path());
    }
}
