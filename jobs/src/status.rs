//! How a job stands.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Answer;

/// How a job stands, as far as could be learned.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Status {
    /// Its name.
    pub name: String,
    /// In one word.
    pub state: State,
    /// Why, or what the machine's own tool says.
    pub detail: String,
    /// What its hosts have said of themselves, by their numbers.
    pub hosts: Vec<HostState>,
    /// The last line of the program's metrics.
    pub metrics: Option<Value>,
}

/// The state of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It could not be asked.
    Unknown,
    /// It does not run, and has not ended.
    Down,
    /// It waits for a machine.
    Waiting,
    /// The machine is there, and its hosts are starting.
    Starting,
    /// It runs.
    Running,
    /// The machine was taken away, or has failed.
    Preempted,
    /// Somebody has asked it to stop.
    Stopped,
    /// It has ended as it should.
    Finished,
    /// It has ended otherwise.
    Failed,
}

/// What one host has said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostState {
    /// Its number.
    pub host: usize,
    /// `running`, `ended`, `stopped` or `down`; `unreachable` where it could not be asked.
    pub state: String,
    /// When it said so, in seconds since 1970.
    #[serde(default)]
    pub at: u64,
    /// The exit code of its program.
    #[serde(default)]
    pub code: Option<i32>,
}

/// How a program ended for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Its exit code.
    pub code: i32,
    /// The host that said so.
    pub host: usize,
    /// When, in seconds since 1970.
    pub at: u64,
}

impl State {
    /// As it is shown.
    pub fn word(self) -> &'static str {
        match self {
            State::Unknown => "unknown",
            State::Down => "down",
            State::Waiting => "waiting",
            State::Starting => "starting",
            State::Running => "running",
            State::Preempted => "preempted",
            State::Stopped => "stopped",
            State::Finished => "finished",
            State::Failed => "failed",
        }
    }
}

impl End {
    /// What a mark of an end says.
    pub(crate) fn read(text: &str) -> Option<End> {
        serde_json::from_str(text).ok()
    }

    pub(crate) fn state(&self) -> State {
        match self.code {
            0 => State::Finished,
            _ => State::Failed,
        }
    }
}

/// A number of hosts.
pub(crate) fn of_hosts(number: usize) -> String {
    match number {
        1 => "1 host".into(),
        number => format!("{number} hosts"),
    }
}

/// The last whole line of a text that is JSON.
pub(crate) fn last_object(answer: &Answer) -> Option<Value> {
    let lines = answer.out.lines().rev();
    let mut objects = lines.filter_map(|line| serde_json::from_str(line).ok());
    objects.find(Value::is_object)
}
