//! What is in the job's directory in the bucket.

use std::time::{SystemTime, UNIX_EPOCH};

use super::{Cloud, end_of};
use crate::{Answer, End, Error, HostState};

impl Cloud<'_> {
    /// A file of the job's directory, if it is there.
    pub(super) fn read(&self, name: &str, assumed: &str) -> Result<Option<String>, Error> {
        let call = self.place.call(["storage", "cat"], [self.place.url(name)]);
        let call = call.assuming(match assumed {
            "" => none(),
            text => Answer::done(text),
        });
        match self.shell.run(&call)? {
            answer if answer.ok() => Ok(Some(answer.out)),
            answer if is_none(&answer) => Ok(None),
            answer => Err(call.failed(&answer)),
        }
    }

    /// How the program ended, if it has for good.
    pub(super) fn ended(&self) -> Result<Option<End>, Error> {
        let call = self
            .place
            .call(["storage", "cat"], [self.place.url("job/ended.json")]);
        let text = self.read("job/ended.json", "")?;
        text.map(|text| end_of(&call, &text)).transpose()
    }

    /// What the hosts said last, by their numbers.
    pub(super) fn host_states(&self) -> Result<Vec<HostState>, Error> {
        let said = self.read("job/hosts/*.json", "")?.unwrap_or_default();
        let mut hosts: Vec<HostState> = said
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        hosts.sort_by_key(|host| host.host);
        Ok(hosts)
    }

    /// Removes files of the job's directory, if they are there.
    pub(super) fn forget(&self, names: &[&str]) -> Result<(), Error> {
        for name in names {
            let call = self
                .place
                .call(["storage", "rm", "--quiet"], [self.place.url(name)]);
            let answer = self.shell.run(&call)?;
            if !answer.ok() && !is_none(&answer) {
                return Err(call.failed(&answer));
            }
        }
        Ok(())
    }
}

/// Whether an answer says that there is no such file.
pub(super) fn is_none(answer: &Answer) -> bool {
    !answer.ok()
        && ["matched no objects", "not found: 404", "HTTPError 404"]
            .iter()
            .any(|words| answer.err.contains(words))
}

/// Whether an answer says that the file was there already.
pub(super) fn is_taken(answer: &Answer) -> bool {
    [
        "PreconditionFailed",
        "HTTPError 412",
        "conditionNotMet",
        "pre-conditions",
    ]
    .iter()
    .any(|words| answer.err.contains(words))
}

/// What gcloud says where there is no such file.
pub(super) fn none() -> Answer {
    Answer::failure("ERROR: (gcloud.storage) The following URLs matched no objects or files")
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs())
}
