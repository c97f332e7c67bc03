//! A profile of some steps, for TensorBoard: what the devices do as the plugin records it, and what
//! the training loop does meanwhile.
//!
//! A profile begins and ends when the devices have nothing to do, so that it holds whole steps. A
//! run is worth more than its profile: what goes wrong with it is logged, and training goes on.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ankh_pjrt::Profile;
use ankh_proto::profiler::{XEvent, XEventMetadata, XLine, XPlane, XSpace, x_event};
use prost::Message;

use crate::config::StepRange;
use crate::mesh::DeviceMesh;

/// The profile of a run, if one is asked for.
pub(super) struct Profiling {
    /// The steps; none once they are over.
    steps: Option<StepRange>,
    /// Where the profiles of the run go.
    directory: PathBuf,
    host: usize,
    recording: Option<Recording>,
}

/// A profile under way.
struct Recording {
    /// What the plugin records, where it does.
    devices: Option<Profile>,
    first: u64,
    began: Instant,
    /// What the loop has begun to do, and when.
    activities: Vec<(Activity, Instant)>,
}

/// What the training loop does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Activity {
    /// It waits for a batch.
    WaitForBatch,
    /// It starts a step.
    StartStep(u64),
    /// It waits for the numbers of a step, and reports them.
    Report(u64),
    /// It measures the held-out loss.
    Evaluate,
    /// It copies a state, to save it.
    Save,
    /// It lets the devices catch up.
    KeepPace,
}

impl Profiling {
    /// A profile of these steps.
    pub fn of(steps: Option<StepRange>, directory: PathBuf, host: usize) -> Profiling {
        Profiling {
            steps,
            directory,
            host,
            recording: None,
        }
    }

    /// Whether the profile begins or ends before `step` is started.
    pub fn is_due_before(&self, step: u64) -> bool {
        let Some(StepRange { first, last }) = self.steps else {
            return false;
        };
        match self.recording {
            None => (first..=last).contains(&step),
            Some(_) => step > last,
        }
    }

    /// Begins the profile with `step`, or ends it before. The devices have nothing to do.
    pub fn begin_or_end(&mut self, step: u64, mesh: &DeviceMesh) {
        match self.recording {
            None => self.recording = Some(Recording::begin(step, mesh)),
            Some(_) => self.end(),
        }
    }

    /// Notes what the loop does from now on.
    pub fn enter(&mut self, activity: Activity) {
        let Some(recording) = &mut self.recording else {
            return;
        };
        if recording.activities.last().map(|last| last.0) != Some(activity) {
            recording.activities.push((activity, Instant::now()));
        }
    }

    /// Ends the profile, if one is under way, and writes it.
    pub fn end(&mut self) {
        let Some(recording) = self.recording.take() else {
            return;
        };
        self.steps = None;
        let directory = self.directory.join(format!("step_{:08}", recording.first));
        let host = format!("host_{}", self.host);
        // In files of their own, since a display shows one plane of a host in each.
        let (devices, own) = recording.finish(&host);
        for (name, profile) in [(&host, devices), (&format!("{host}_loop"), Some(own))] {
            let Some(profile) = profile else {
                continue;
            };
            let file = directory.join(format!("{name}.xplane.pb"));
            let written = fs::create_dir_all(&directory)
                .and_then(|()| ankh_storage::atomic::replace_file(&file, &profile));
            match written {
                Ok(()) => tracing::info!("the profile is {}", file.display()),
                Err(error) => {
                    tracing::warn!("cannot write the profile {}: {error}", file.display());
                }
            }
        }
    }
}

impl Recording {
    fn begin(step: u64, mesh: &DeviceMesh) -> Recording {
        let devices = mesh.start_profile();
        match &devices {
            Ok(Some(_)) => tracing::info!("a profile begins with step {step}"),
            Ok(None) => tracing::warn!(
                "the plugin for {} has no profiler: the profile from step {step} on shows what the training loop does, not what the devices do",
                mesh.platform()
            ),
            Err(error) => tracing::warn!(
                "the devices cannot be profiled: {error}; the profile from step {step} on shows what the training loop does"
            ),
        }
        Recording {
            devices: devices.ok().flatten(),
            first: step,
            began: Instant::now(),
            activities: Vec::new(),
        }
    }

    /// Encoded `XSpace`s: of the devices, where they were recorded, and of the training loop.
    fn finish(self, host: &str) -> (Option<Vec<u8>>, Vec<u8>) {
        let end = Instant::now();
        let devices = self.devices.map(Profile::finish);
        let devices = devices.and_then(|recorded| match recorded {
            Ok(recorded) => Some(recorded),
            Err(error) => {
                tracing::warn!("what the devices did is lost: {error}");
                None
            }
        });
        let own = XSpace {
            planes: vec![plane_of(self.began, &self.activities, end)],
            hostnames: vec![host.into()],
        };
        (devices, own.encode_to_vec())
    }
}

/// The plane with the activities of the loop, each until the next one.
fn plane_of(began: Instant, activities: &[(Activity, Instant)], end: Instant) -> XPlane {
    let mut event_metadata = BTreeMap::new();
    let mut numbers = BTreeMap::new();
    let ends = activities.iter().skip(1).map(|(_, at)| *at).chain([end]);
    let mut events = Vec::new();
    for ((activity, from), to) in activities.iter().zip(ends) {
        let next = numbers.len() as i64 + 1;
        let id = *numbers.entry(*activity).or_insert(next);
        event_metadata.entry(id).or_insert_with(|| XEventMetadata {
            id,
            name: activity.name(),
        });
        events.push(XEvent {
            metadata_id: id,
            data: Some(x_event::Data::OffsetPs(picoseconds(*from - began))),
            duration_ps: picoseconds(to - *from),
        });
    }
    XPlane {
        id: 0,
        // The name by which a display knows what a host does.
        name: "/host:CPU".into(),
        lines: vec![XLine {
            id: 1,
            name: "training loop".into(),
            // Times count from the beginning of the profile.
            timestamp_ns: 0,
            events,
        }],
        event_metadata,
    }
}

impl Activity {
    fn name(self) -> String {
        match self {
            Activity::WaitForBatch => "wait for a batch".into(),
            Activity::StartStep(step) => format!("start step {step}"),
            Activity::Report(step) => format!("report step {step}"),
            Activity::Evaluate => "evaluate".into(),
            Activity::Save => "save".into(),
            Activity::KeepPace => "let the devices catch up".into(),
        }
    }
}

fn picoseconds(duration: Duration) -> i64 {
    duration.as_nanos() as i64 * 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loop_is_shown_without_gaps() {
        let began = Instant::now();
        let at = |milliseconds| began + Duration::from_millis(milliseconds);
        let activities = [
            (Activity::WaitForBatch, at(1)),
            (Activity::StartStep(7), at(3)),
            (Activity::WaitForBatch, at(4)),
        ];
        let plane = plane_of(began, &activities, at(9));
        let line = &plane.lines[0];
        let spans: Vec<(&str, Option<x_event::Data>, i64)> = line
            .events
            .iter()
            .map(|event| {
                let name = plane.event_metadata[&event.metadata_id].name.as_str();
                (name, event.data, event.duration_ps)
            })
            .collect();
        let ms = 1_000_000_000;
        let from = |offset| Some(x_event::Data::OffsetPs(offset * ms));
        let expected = [
            ("wait for a batch", from(1), 2 * ms),
            ("start step 7", from(3), ms),
            ("wait for a batch", from(4), 5 * ms),
        ];
        assert_eq!(spans, expected);
    }
}
