//! What a run reports while it goes on: JSON lines for programs, TensorBoard events for people.

use anyhow::{Context, Result};
use prost::Message;
use serde_json::{Map, Value};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Name of the JSON lines in a run's folder.
pub const METRICS: &str = "metrics.jsonl";

/// Writes each record to both files.
#[derive(Debug)]
pub struct Metrics {
    dir: PathBuf,
    lines: File,
    events: File,
}

impl Metrics {
    /// Opens the files in a run's folder, appending to the JSON lines. Lines of steps after `last`
    /// are dropped: a resumed run takes those steps again. Also says whether a figure of `last` is there whose name
    /// begins with `group`.
    pub fn open(dir: &Path, last: u64, group: &str) -> Result<(Metrics, bool)> {
        let path = dir.join(METRICS);
        let mut found = false;
        if path.exists() {
            let text = std::fs::read_to_string(&path)
                .with_context(|| format!("{}: cannot be read", path.display()))?;
            let before = |line: &&str| {
                let figures: Map<String, Value> = serde_json::from_str(line).unwrap_or_default();
                let step = figures.get("step").and_then(Value::as_u64);
                found |= step == Some(last) && figures.keys().any(|name| name.starts_with(group));
                step.is_some_and(|step| step <= last)
            };
            let kept: String = text.lines().filter(before).flat_map(|l| [l, "\n"]).collect();
            gradresnet_models::staged::write_file(&path, kept.as_bytes())?;
        }
        let append = |path: &Path| OpenOptions::new().create(true).append(true).open(path);
        let lines = append(&path).with_context(|| format!("{}: cannot be written", path.display()))?;
        let path = dir.join(format!("events.out.tfevents.{}.gradresnet", now() as u64));
        let events = append(&path).with_context(|| format!("{}: cannot be written", path.display()))?;
        let mut metrics = Metrics { dir: dir.to_path_buf(), lines, events };
        metrics.event(Event {
            wall_time: now(),
            file_version: Some("brain.Event:2".into()),
            ..Event::default()
        })?;
        Ok((metrics, found))
    }

    /// Writes figures of the state after `step` steps, by name; names with a `/` are grouped by
    /// TensorBoard.
    pub fn write(&mut self, step: u64, figures: &[(String, f64)]) -> Result<()> {
        let mut line = Map::from_iter([("step".to_string(), Value::from(step))]);
        line.extend(figures.iter().map(|(name, value)| (name.clone(), Value::from(*value))));
        writeln!(self.lines, "{}", Value::Object(line))
            .with_context(|| format!("{}: cannot be written", self.dir.join(METRICS).display()))?;
        let value = figures
            .iter()
            .map(|(tag, value)| Scalar { tag: tag.clone(), simple_value: Some(*value as f32) })
            .collect();
        self.event(Event {
            wall_time: now(),
            step: i64::try_from(step).unwrap_or(i64::MAX),
            summary: Some(Summary { value }),
            ..Event::default()
        })
    }

    /// Appends one TFRecord: length, masked CRC of the length, data, masked CRC of the data.
    fn event(&mut self, event: Event) -> Result<()> {
        let data = event.encode_to_vec();
        let length = (data.len() as u64).to_le_bytes();
        let mut record = Vec::with_capacity(data.len() + 16);
        record.extend(length);
        record.extend(masked_crc(&length).to_le_bytes());
        record.extend(&data);
        record.extend(masked_crc(&data).to_le_bytes());
        self.events
            .write_all(&record)
            .with_context(|| format!("{}: TensorBoard's events cannot be written", self.dir.display()))
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// The part of TensorFlow's `event.proto` and `summary.proto` that scalars need.
#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Scalar>,
}

#[derive(Clone, PartialEq, Message)]
struct Scalar {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_after_the_resumed_step_are_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let open = |last| Metrics::open(dir.path(), last, "loss").unwrap();
        let (mut metrics, _) = open(0);
        for step in 1..=4 {
            metrics.write(step, &[("loss".into(), step as f64)]).unwrap();
        }
        let (mut metrics, found) = open(2);
        metrics.write(3, &[("loss".into(), 9.0)]).unwrap();
        assert!(found);
        let text = std::fs::read_to_string(dir.path().join(METRICS)).unwrap();
        assert_eq!(text, "{\"step\":1,\"loss\":1.0}\n{\"step\":2,\"loss\":2.0}\n{\"step\":3,\"loss\":9.0}\n");
        let found = |last, group| Metrics::open(dir.path(), last, group).unwrap().1;
        // Nothing of that name, and nothing of that step.
        assert!(found(3, "lo") && !found(3, "rate") && !found(5, "loss"));
    }

    #[test]
    fn the_mask_is_tensorflow_s() {
        // CRC-32C of "123456789" is 0xe3069283 (RFC 3720's polynomial, the usual check value).
        let expected = 0xe306_9283u32.rotate_right(15).wrapping_add(0xa282_ead8);
        assert_eq!(masked_crc(b"123456789"), expected);
    }
}
