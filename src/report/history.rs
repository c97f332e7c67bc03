//! What `log.jsonl` tells of a run: when its processes began, where they went on from, what went
//! wrong.
//!
//! The log is for people, so most of it is recognized by its words. Tests in the modules that write
//! it would not notice another wording, so each sentence that is looked for here has a test below.

use std::collections::VecDeque;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// What happened to a run.
#[derive(Debug, Default)]
pub struct History {
    marks: Vec<Mark>,
    events: VecDeque<Event>,
    began: Option<SystemTime>,
    last: Option<SystemTime>,
    devices: Option<u64>,
    platform: Option<String>,
    restarts: u64,
    /// A process has begun, and neither loaded a state nor reported a step.
    starting: Option<SystemTime>,
}

/// A place in the charts of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Mark {
    /// After this step.
    pub step: u64,
    /// What was there.
    pub kind: MarkKind,
}

/// What charts mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MarkKind {
    /// A process went on from a saved state.
    Restart,
    /// The run went back to a saved state, since its steps went wrong.
    Rollback,
}

/// A line of the log that is worth a look.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Event {
    /// When, as the log has it.
    pub time: String,
    /// `INFO`, `WARN` or `ERROR`.
    pub level: String,
    /// What it says.
    pub text: String,
}

/// The last events that are kept of a run, and the marks.
const EVENTS: usize = 200;
const MARKS: usize = 1000;

#[derive(Deserialize)]
struct Line {
    timestamp: String,
    level: String,
    fields: Fields,
}

#[derive(Deserialize)]
struct Fields {
    #[serde(default)]
    message: String,
    step: Option<u64>,
}

/// What a message says, where that matters here.
#[derive(Debug, PartialEq, Eq)]
enum Said<'a> {
    Compiling { platform: &'a str, devices: u64 },
    Resuming,
    WentBack { step: u64 },
    FirstStep,
    Other,
}

impl History {
    /// Adds whole lines of the log. What cannot be read is left out.
    pub fn extend(&mut self, lines: &[u8]) {
        for line in lines.split(|&byte| byte == b'\n') {
            if let Ok(line) = serde_json::from_slice::<Line>(line) {
                self.add(line);
            }
        }
    }

    fn add(&mut self, line: Line) {
        let Line {
            timestamp,
            level,
            fields,
        } = line;
        let time = humantime::parse_rfc3339(&timestamp).ok();
        self.last = time.or(self.last);
        self.began = self.began.or(time);
        let mut notable = level != "INFO";
        match Said::by(&fields.message) {
            Said::Compiling { platform, devices } => {
                self.starting = time.or(self.last);
                self.devices = Some(devices);
                self.platform = Some(platform.to_owned());
            }
            Said::Resuming => {
                let step = fields.step.unwrap_or(0);
                // A run that goes back loads a state too, without another process.
                if self.starting.take().is_some() {
                    self.restarts += 1;
                    self.mark(step, MarkKind::Restart);
                    notable = true;
                }
            }
            Said::WentBack { step } => self.mark(step, MarkKind::Rollback),
            Said::FirstStep => {
                // It began without a state: what was before was another run in this directory.
                if let Some(began) = self.starting.take() {
                    (self.restarts, self.began) = (0, Some(began));
                    self.marks.clear();
                }
            }
            Said::Other => {}
        }
        if notable {
            let text = match fields.step {
                Some(step) => format!("{} from step {step}", fields.message),
                None => fields.message,
            };
            if self.events.len() == EVENTS {
                self.events.pop_front();
            }
            self.events.push_back(Event {
                time: timestamp,
                level,
                text,
            });
        }
    }

    fn mark(&mut self, step: u64, kind: MarkKind) {
        if self.marks.len() < MARKS {
            self.marks.push(Mark { step, kind });
        }
    }

    /// Where processes went on from, and where the run went back to.
    pub fn marks(&self) -> &[Mark] {
        &self.marks
    }

    /// The last events, the newest at the end.
    pub fn events(&self) -> impl Iterator<Item = &Event> {
        self.events.iter()
    }

    /// How often a process went on from a saved state.
    pub fn restarts(&self) -> u64 {
        self.restarts
    }

    /// When the first process of the run began, and when the last line was written.
    pub fn span(&self) -> Option<(SystemTime, SystemTime)> {
        Some((self.began?, self.last?))
    }

    /// How many devices the last process computed on.
    pub fn devices(&self) -> Option<u64> {
        self.devices
    }

    /// What devices they are.
    pub fn platform(&self) -> Option<&str> {
        self.platform.as_deref()
    }
}

impl Said<'_> {
    fn by(message: &str) -> Said<'_> {
        if message == "resuming" {
            return Said::Resuming;
        }
        if let Some(rest) = message.strip_prefix("compiling the training step for ")
            && let Some((platform, mesh)) = rest.split_once(", mesh ")
            && let Some(devices) = devices(mesh)
        {
            return Said::Compiling { platform, devices };
        }
        if let Some((_, rest)) = message.split_once(": the run goes back to step ")
            && let Some((step, _)) = rest.split_once(" and goes on ")
            && let Ok(step) = step.parse()
        {
            return Said::WentBack { step };
        }
        match message.starts_with("step ") && message.contains(" of their positions") {
            true => Said::FirstStep,
            false => Said::Other,
        }
    }
}

/// The devices of a mesh, as [`crate::mesh_shape::MeshShape`] is displayed.
fn devices(mesh: &str) -> Option<u64> {
    mesh.split(" x ").try_fold(1, |product: u64, axis| {
        let (_, length) = axis.rsplit_once(' ')?;
        product.checked_mul(length.parse().ok()?)
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::mesh_shape::MeshShape;

    fn line(second: u32, level: &str, message: &str, step: Option<u64>) -> String {
        let time = format!("2026-01-02T03:04:{second:02}.000000Z");
        let fields = serde_json::json!({"message": message, "step": step});
        serde_json::json!({"timestamp": time, "level": level, "fields": fields}).to_string() + "\n"
    }

    fn compiling(second: u32) -> String {
        let mesh = MeshShape {
            data: 4,
            fsdp: 2,
            model: 3,
        };
        let message = format!("compiling the training step for tpu, mesh {mesh}");
        line(second, "INFO", &message, None)
    }

    fn first_step(second: u32) -> String {
        let text = "step 1 shows 4 sequences in 4 rows, which fill 37.1 % of their positions";
        line(second, "INFO", text, None)
    }

    #[test]
    fn restarts_and_rollbacks_are_told_apart() {
        let mut history = History::default();
        let back =
            "the loss is NaN: the run goes back to step 20 and goes on behind the 80 rows seen";
        let log = [
            compiling(1),
            first_step(2),
            line(5, "ERROR", back, None),
            line(6, "INFO", "resuming", Some(20)),
            "{\"timestamp\":\"torn".to_owned() + "\n",
            compiling(20),
            line(21, "INFO", "resuming", Some(40)),
            first_step(22),
        ];
        history.extend(log.concat().as_bytes());
        let mark = |step, kind| Mark { step, kind };
        let marks = [mark(20, MarkKind::Rollback), mark(40, MarkKind::Restart)];
        assert_eq!(history.marks(), marks);
        assert_eq!((history.restarts(), history.devices()), (1, Some(24)));
        let (began, last) = history.span().unwrap();
        assert_eq!(last.duration_since(began).unwrap().as_secs(), 21);
        let texts: Vec<&str> = history.events().map(|event| event.text.as_str()).collect();
        assert_eq!(texts, [back, "resuming from step 40"]);
    }

    #[test]
    fn a_run_that_began_anew_in_the_directory_leaves_the_old_one_behind() {
        let mut history = History::default();
        let old = [
            compiling(1),
            line(2, "INFO", "resuming", Some(9)),
            first_step(3),
        ];
        history.extend(old.concat().as_bytes());
        assert_eq!(history.marks().len(), 1);
        history.extend((compiling(10) + &first_step(12)).as_bytes());
        assert_eq!((history.marks().len(), history.restarts()), (0, 0));
        let (began, last) = history.span().unwrap();
        assert_eq!(last.duration_since(began).unwrap().as_secs(), 2);
    }

    #[test]
    fn the_sentences_are_those_that_training_writes() {
        let source = |file: &str| {
            let path = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("src/train")
                .join(file);
            fs::read_to_string(path).unwrap()
        };
        for (file, words) in [
            (
                "trainer/job.rs",
                "\"compiling the training step for {}, mesh {}\"",
            ),
            (
                "resume.rs",
                "tracing::info!(step = self.step, \"resuming\")",
            ),
            (
                "trainer/recovery.rs",
                "{fault}: the run goes back to step {} and goes on behind",
            ),
            (
                "reporter.rs",
                "\"step {step} shows {} sequences in {} rows, which fill {:.1} % of their positions\"",
            ),
        ] {
            assert!(source(file).contains(words), "{words:?} is not in {file}");
        }
    }
}
