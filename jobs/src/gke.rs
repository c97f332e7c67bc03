//! Jobs on a GKE cluster, as a JobSet, by `kubectl`.
//!
//! The cluster does what a watcher does elsewhere: it starts the pods again where their nodes are
//! taken away. The program is that of the image. The pods share a volume that holds the run
//! directory.

use serde_json::{Value, json};

use crate::logs::Look;
use crate::place::{Gke, Pricing};
use crate::record::Records;
use crate::{Answer, Call, End, Error, Job, Line, Pace, Shell, State, Status, Watched, Watching};

/// A job on GKE, with what acts on it.
pub(crate) struct OnGke<'a> {
    pub job: &'a Job,
    pub place: &'a Gke,
    pub shell: &'a dyn Shell,
    pub records: &'a Records,
}

/// Where the pods have the volume.
const RUNS: &str = "/runs";

/// What the job was asked for as, beside what the cluster has made of it.
const ANNOTATION: &str = "ankh/job";

/// How often the pods may fail as a whole. Taken nodes count too.
const RESTARTS: u32 = 1000;

impl OnGke<'_> {
    /// Applies the manifest, and watches.
    pub fn submit(&self, watching: Watching, pace: Pace) -> Result<Watched, Error> {
        let manifest = self.manifest()?;
        if let Some(there) = self.jobset("")? {
            let text = there["metadata"]["annotations"][ANNOTATION].as_str();
            let there = text.and_then(|text| serde_json::from_str::<Job>(text).ok());
            let Some(there) = there else {
                return Err(Error::Place(format!(
                    "there is a JobSet {} in {} already, and it is not of this program",
                    self.job.name, self.place.namespace
                )));
            };
            let differences = self.job.differences(&there);
            // A JobSet cannot be changed; one that was stopped is gone.
            if !differences.is_empty() {
                return Err(Error::Differs {
                    name: self.job.name.to_string(),
                    differences,
                });
            }
        }
        let file = self
            .records
            .directory_of(&self.job.name)
            .join("jobset.yaml");
        self.shell.write(&file, &manifest)?;
        self.records.write(self.shell, self.job)?;
        let file = format!("--filename={}", file.display());
        self.shell.expect(&self.call(["apply"], [file]))?;
        match watching {
            Watching::UntilTheEnd => self.watch(pace),
            Watching::Not => Ok(Watched::Left),
        }
    }

    /// How the job stands.
    pub fn status(&self) -> Status {
        let (state, detail) = match self.jobset("") {
            Ok(Some(jobset)) => verdict(&jobset),
            Ok(None) => (State::Down, "there is no JobSet of its name".into()),
            Err(error) => (State::Unknown, error.to_string()),
        };
        Status {
            name: self.job.name.to_string(),
            state,
            detail,
            hosts: Vec::new(),
            metrics: None,
        }
    }

    /// Removes the JobSet. Its pods are asked to end, and have a quarter of an hour to save.
    pub fn stop(&self) -> Result<(), Error> {
        self.shell.say("the pods are asked to save and to end");
        let name = self.job.name.as_str();
        let options = ["--ignore-not-found", "--wait", "--cascade=foreground"];
        self.shell
            .expect(&self.call(["delete", "jobset", name], options))
            .map(drop)
    }

    /// The last lines of the logs of all pods.
    pub fn look_at_logs(&self, lines: usize) -> Result<Look, Error> {
        let call = self.call(
            ["logs", "--timestamps", "--prefix", "--ignore-errors"],
            [
                format!(
                    "--selector=jobset.sigs.k8s.io/jobset-name={}",
                    self.job.name
                ),
                format!("--max-log-requests={}", self.job.slice.hosts),
                format!("--tail={lines}"),
            ],
        );
        let state = self.status().state;
        let text = self.shell.expect(&call)?;
        let mut lines: Vec<Line> = text.lines().filter_map(pod_line).collect();
        lines.sort_by(|a, b| a.at.total_cmp(&b.at));
        let is_last = matches!(state, State::Finished | State::Failed | State::Down);
        Ok(Look { lines, is_last })
    }

    /// Checks that the cluster has what the job needs.
    pub fn check(&self) -> Result<(), Error> {
        self.manifest()?;
        let failed = |what, found: String, help: &str| Error::Check {
            what,
            found,
            help: help.into(),
        };
        let kind = self.call(["get", "crd", "jobsets.jobset.x-k8s.io"], ["--output=name"]);
        let answer = self.shell.run(&kind)?;
        if !answer.ok() {
            let found = format!("the cluster knows no JobSets: {}", answer.said());
            let help = "install it: https://jobset.sigs.k8s.io/docs/installation";
            return Err(failed("cluster", found, help));
        }
        if let Some(claim) = &self.place.claim {
            let get = self.call(["get", "persistentvolumeclaim", claim], ["--output=name"]);
            let answer = self.shell.run(&get)?;
            if !answer.ok() {
                let found = format!("{claim} cannot be used: {}", answer.said());
                let help = "the claim of a volume that all pods write (ReadWriteMany), such as one of Filestore";
                return Err(failed("claim", found, help));
            }
        }
        let (accelerator, topology) = (self.job.slice.tpus()?.gke, &self.job.slice.topology);
        let selector = format!(
            "--selector=cloud.google.com/gke-tpu-accelerator={accelerator},cloud.google.com/gke-tpu-topology={topology}"
        );
        let nodes = self.call(["get", "nodes"], [selector.as_str(), "--output=name"]);
        let nodes = nodes.assuming(Answer::done("node/tpu\n"));
        if self.shell.expect(&nodes)?.trim().is_empty() {
            let words = format!(
                "no node of {accelerator} {topology} is there now: the pods wait for a node pool that makes some"
            );
            self.shell.say(&words);
        }
        Ok(())
    }

    fn watch(&self, pace: Pace) -> Result<Watched, Error> {
        if self.shell.is_dry() {
            let seconds = pace.poll.as_secs();
            self.shell.say(&format!(
                "every {seconds} s, until the run has ended, it is asked how things stand"
            ));
            self.jobset("")?;
            return Ok(Watched::Left);
        }
        let mut said = String::new();
        loop {
            let status = self.status();
            let words = format!("{}: {}", status.state.word(), status.detail);
            if words != said {
                self.shell.say(&words);
                said = words;
            }
            let code = match status.state {
                State::Finished => 0,
                State::Failed => 1,
                // Somebody has removed it.
                State::Down => return Ok(Watched::Stopped),
                _ => {
                    std::thread::sleep(pace.poll);
                    continue;
                }
            };
            return Ok(Watched::Ended(End {
                code,
                host: 0,
                at: 0,
            }));
        }
    }

    /// The JobSet as the cluster has it.
    fn jobset(&self, assumed: &str) -> Result<Option<Value>, Error> {
        let name = self.job.name.as_str();
        let get = self.call(
            ["get", "jobset", name],
            ["--ignore-not-found", "--output=json"],
        );
        let get = get.assuming(Answer::done(assumed));
        let text = self.shell.expect(&get)?;
        match text.trim() {
            "" => Ok(None),
            text => match serde_json::from_str(text) {
                Ok(found) => Ok(Some(found)),
                Err(_) => Err(get.unreadable(&Answer::done(text))),
            },
        }
    }

    fn call<T: Into<String>, const N: usize>(
        &self,
        verb: [&str; N],
        options: impl IntoIterator<Item = T>,
    ) -> Call {
        let context = self
            .place
            .context
            .iter()
            .map(|name| format!("--context={name}"));
        let namespace = format!("--namespace={}", self.place.namespace);
        let verb = verb.into_iter().map(str::to_owned);
        let options = options.into_iter().map(Into::into);
        Call::new(
            "kubectl",
            verb.chain(options).chain([namespace]).chain(context),
        )
    }

    /// The ConfigMap and the JobSet.
    fn manifest(&self) -> Result<String, Error> {
        let job = self.job;
        let hosts = job.slice.hosts;
        if hosts > 1 && self.place.claim.is_none() {
            return Err(Error::Place(format!(
                "the {hosts} hosts of a {} need a claim of a volume that all of them write",
                job.slice.name
            )));
        }
        let text = |value: &str| Value::from(value).to_string();
        let run_dir = format!("{RUNS}/{}", job.name);
        let command = job.command("/etc/ankh/config.toml", &run_dir);
        let arguments: Vec<String> = command
            .iter()
            .map(|word| format!("                    - {}\n", text(word)))
            .collect();
        let volume = match &self.place.claim {
            Some(claim) => format!(
                "persistentVolumeClaim:\n                    claimName: {}",
                text(claim)
            ),
            None => "emptyDir: {}".into(),
        };
        let mut node = format!(
            "                cloud.google.com/gke-tpu-accelerator: {}\n                cloud.google.com/gke-tpu-topology: {}\n",
            self.job.slice.tpus()?.gke,
            job.slice.topology
        );
        if self.place.pricing == Pricing::Spot {
            node += "                cloud.google.com/gke-spot: \"true\"\n";
        }
        let tolerations = match self.place.pricing {
            Pricing::Spot => {
                "              tolerations:\n                - key: cloud.google.com/gke-spot\n                  operator: Equal\n                  value: \"true\"\n                  effect: NoSchedule\n"
            }
            Pricing::OnDemand | Pricing::Reserved => "",
        };
        let account = self.place.service_account.as_ref();
        let account = account.map_or_else(String::new, |account| {
            format!("              serviceAccountName: {}\n", text(account))
        });
        let asked = serde_json::to_string(job).expect("words and numbers are JSON");
        let configuration: Vec<String> = job
            .configuration
            .lines()
            .map(|line| format!("    {line}").trim_end().to_owned())
            .collect();
        let indented = |template: &str| {
            template
                .replace("@NAME@", job.name.as_str())
                .replace("@NAMESPACE@", &text(&self.place.namespace))
                .replace("@CONFIGURATION@", &configuration.join("\n"))
                .replace("@JOB@", &text(&asked))
                .replace("@RESTARTS@", &RESTARTS.to_string())
                .replace("@HOSTS@", &hosts.to_string())
                .replace("@ACCOUNT@", &account)
                .replace("@NODE@", &node)
                .replace("@TOLERATIONS@", tolerations)
                .replace("@IMAGE@", &text(&self.place.image))
                .replace("@ARGUMENTS@", &arguments.concat())
                .replace("@CHIPS@", &(job.slice.chips / hosts).to_string())
                .replace("@VOLUME@", &volume)
        };
        Ok(indented(include_str!("../scripts/jobset.yaml")))
    }
}

/// How a job stands by what the cluster says of its JobSet.
fn verdict(jobset: &Value) -> (State, String) {
    let status = &jobset["status"];
    let conditions = status["conditions"].as_array();
    let condition = |kind: &str| {
        let mut all = conditions.into_iter().flatten();
        let found = all.find(|c| c["type"] == json!(kind) && c["status"] == json!("True"));
        found.map(|c| c["message"].as_str().unwrap_or_default().to_owned())
    };
    let restarts = status["restarts"].as_u64().unwrap_or(0);
    let times = match restarts {
        0 => String::new(),
        1 => ", started again once".into(),
        times => format!(", started again {times} times"),
    };
    if let Some(message) = condition("Completed") {
        return (State::Finished, message);
    }
    if let Some(message) = condition("Failed") {
        return (State::Failed, message);
    }
    let jobs = &status["replicatedJobsStatus"][0];
    let number = |name: &str| jobs[name].as_u64().unwrap_or(0);
    match (number("ready"), number("active")) {
        (0, 0) => (State::Waiting, format!("no pod is there{times}")),
        (0, _) => (State::Starting, format!("the pods are not ready{times}")),
        _ => (State::Running, format!("all pods are ready{times}")),
    }
}

/// A line of `kubectl logs --prefix --timestamps`.
fn pod_line(line: &str) -> Option<Line> {
    let (prefix, rest) = line.strip_prefix("[pod/")?.split_once("] ")?;
    let (time, text) = rest.split_once(' ').unwrap_or((rest, ""));
    // NAME-slice-0-HOST-RANDOM/CONTAINER
    let pod = prefix.split('/').next()?;
    let host = pod.rsplit('-').nth(1)?.parse().ok()?;
    Some(Line {
        at: seconds(time)?,
        host,
        text: text.to_owned(),
    })
}

/// Seconds since 1970 of a time such as `2026-01-31T12:00:00.123456789Z`.
fn seconds(time: &str) -> Option<f64> {
    let (date, clock) = time.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.split('-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let mut clock = clock.split(':').map(|part| part.parse::<f64>().ok());
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    // Years that begin in March have the odd day at their end.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days =
        365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 719_469;
    Some(days as f64 * 86400.0 + hour * 3600.0 + minute * 60.0 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_pods_have_their_host_and_time() {
        let line = "[pod/large-slice-0-3-x7k2p/train] 2026-03-01T00:00:01.5Z step 10";
        let expected = Line {
            at: 1_772_323_201.5,
            host: 3,
            text: "step 10".into(),
        };
        assert_eq!(pod_line(line), Some(expected));
        assert_eq!(seconds("1970-01-01T00:00:00Z"), Some(0.0));
        assert_eq!(seconds("2024-02-29T12:00:00Z"), Some(1_709_208_000.0));
        assert_eq!(pod_line("error: something"), None);
    }

    #[test]
    fn the_state_is_what_the_cluster_says() {
        let with = |status: Value| verdict(&json!({ "status": status }));
        let condition = |kind| json!([{"type": kind, "status": "True", "message": "so"}]);
        let done = with(json!({"conditions": condition("Completed")}));
        assert_eq!(done, (State::Finished, "so".into()));
        let failed = with(json!({"conditions": condition("Failed")}));
        assert_eq!(failed.0, State::Failed);
        let jobs = json!([{"ready": 1, "active": 1}]);
        let again = with(json!({"restarts": 2, "replicatedJobsStatus": jobs}));
        assert_eq!(
            again,
            (
                State::Running,
                "all pods are ready, started again 2 times".into()
            )
        );
        assert_eq!(with(json!({})).0, State::Waiting);
    }
}
