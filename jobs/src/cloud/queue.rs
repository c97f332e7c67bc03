//! The queued resource of a job: looked at, created, removed.

use serde_json::Value;

use super::Cloud;
use crate::{Answer, Call, Error, Pricing};

/// The machine of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Machine {
    /// There is none.
    None,
    /// It is asked for, and has not come.
    Waiting(String),
    /// It is there.
    Ready,
    /// It was taken away or failed, and only its queued resource is left, which has to be removed.
    Gone {
        reason: String,
        /// It never was there, because it could not be.
        refused: bool,
    },
    /// It is being removed.
    Leaving(String),
    /// The queued resource of its name is not this job's.
    Foreign,
}

/// What a dry run takes for the state of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Assumed {
    None,
    Ready,
}

const QUEUE: [&str; 3] = ["compute", "tpus", "queued-resources"];

impl Cloud<'_> {
    /// Looks at the machine.
    ///
    /// # Errors
    /// Where it cannot be learned what there is.
    pub(super) fn machine(&self, assumed: Assumed) -> Result<Machine, Error> {
        let call = self.queue_call("describe", &["--format=json"]);
        let call = call.assuming(match assumed {
            Assumed::None => Answer::failure("NOT_FOUND"),
            Assumed::Ready => Answer::done(format!(
                r#"{{"state":{{"state":"ACTIVE"}},"tpu":{{"nodeSpec":[{{"node":{{"labels":{{"ankh-job":"{}"}}}}}}]}}}}"#,
                self.label()
            )),
        });
        let answer = self.shell.run(&call)?;
        if is_not_found(&answer) {
            return Ok(Machine::None);
        }
        if !answer.ok() {
            return Err(call.failed(&answer));
        }
        let found: Value =
            serde_json::from_str(&answer.out).map_err(|_| call.unreadable(&answer))?;
        let label = found["tpu"]["nodeSpec"][0]["node"]["labels"]["ankh-job"].as_str();
        if label != Some(&self.label()) {
            return Ok(Machine::Foreign);
        }
        let state = &found["state"];
        let Some(word) = state["state"].as_str() else {
            return Err(call.unreadable(&answer));
        };
        Ok(match word {
            "ACTIVE" => self.node()?,
            "SUSPENDED" => Machine::Gone {
                reason: "the slice was taken away (SUSPENDED)".into(),
                refused: false,
            },
            "FAILED" => {
                let error = state["failedData"]["error"]["message"].as_str();
                Machine::Gone {
                    reason: error.unwrap_or("the queued resource FAILED").to_owned(),
                    refused: true,
                }
            }
            "SUSPENDING" | "DELETING" => Machine::Leaving(word.into()),
            word => Machine::Waiting(word.into()),
        })
    }

    /// Looks at the slice of a queued resource that is active: one that was preempted may be dead
    /// while its queued resource does not know.
    fn node(&self) -> Result<Machine, Error> {
        let name = self.job.name.as_str();
        let mut call = self
            .place
            .zonal(["compute", "tpus", "tpu-vm", "describe", name]);
        call.args.push("--format=value(state)".into());
        let call = call.assuming(Answer::done("READY\n"));
        let answer = self.shell.run(&call)?;
        let gone = |reason: String| Machine::Gone {
            reason,
            refused: false,
        };
        if is_not_found(&answer) {
            return Ok(gone("the slice is gone".into()));
        }
        if !answer.ok() {
            return Err(call.failed(&answer));
        }
        Ok(match answer.out.trim() {
            "READY" => Machine::Ready,
            word @ ("PREEMPTED" | "TERMINATED" | "STOPPED" | "STOPPING" | "DELETING") => {
                gone(format!("the slice was taken away ({word})"))
            }
            "" => return Err(call.unreadable(&answer)),
            word => Machine::Waiting(word.into()),
        })
    }

    /// Asks for the machine. One that is there is left as it is.
    pub(super) fn create(&self) -> Result<(), Error> {
        let place = self.place;
        let script = self.records.directory_of(&self.job.name).join("startup.sh");
        self.shell.write(&script, &self.startup_script())?;
        let tpus = self.job.slice.tpus()?;
        let runtime = place.runtime_version.as_deref();
        let runtime = runtime.unwrap_or(tpus.runtime_version);
        let mut options = vec![
            format!("--node-id={}", self.job.name),
            format!("--accelerator-type={}", self.job.slice.accelerator_type()?),
            format!("--runtime-version={runtime}"),
            format!("--labels=ankh-job={}", self.label()),
            format!("--metadata-from-file=startup-script={}", script.display()),
        ];
        options.extend(match place.pricing {
            Pricing::Spot => Some("--spot".into()),
            Pricing::OnDemand => None,
            Pricing::Reserved => Some("--reserved".into()),
        });
        let named = [
            ("network", &place.network),
            ("subnetwork", &place.subnetwork),
            ("service-account", &place.service_account),
        ];
        for (option, value) in named {
            options.extend(value.as_ref().map(|value| format!("--{option}={value}")));
        }
        options.extend(["--async".into(), "--quiet".into()]);
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let call = self.queue_call("create", &options);
        match self.shell.run(&call)? {
            answer if answer.ok() || answer.err.contains("ALREADY_EXISTS") => Ok(()),
            answer => Err(call.failed(&answer)),
        }
    }

    /// Removes the machine, if there is one of this job. It takes a while until it is gone.
    pub(super) fn remove(&self, machine: &Machine) -> Result<(), Error> {
        if matches!(
            machine,
            Machine::None | Machine::Leaving(_) | Machine::Foreign
        ) {
            return Ok(());
        }
        let call = self.queue_call("delete", &["--force", "--async", "--quiet"]);
        match self.shell.run(&call)? {
            answer if answer.ok() || is_not_found(&answer) => Ok(()),
            answer => Err(call.failed(&answer)),
        }
    }

    fn queue_call(&self, verb: &str, options: &[&str]) -> Call {
        let name = self.job.name.as_str();
        let command = QUEUE.into_iter().chain([verb, name]);
        let mut call = self.place.zonal(command);
        call.args
            .extend(options.iter().map(|option| (*option).to_owned()));
        call
    }
}

fn is_not_found(answer: &Answer) -> bool {
    !answer.ok() && answer.err.contains("NOT_FOUND")
}
