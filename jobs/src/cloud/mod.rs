//! Jobs on slices that Cloud TPU creates, by `gcloud`.
//!
//! A job's machine is a queued resource of the job's name, and so there is never a second one. What
//! lasts is in the job's directory in a bucket:
//!
//! - `job/job.json` is the job, written once: another one of this name is refused;
//! - `job/<digest>/` has the files that its machines fetch, by the digest of their checksums;
//! - `job/hosts/N.json` is what host N said last, `job/ended.json` how the program has ended for
//!   good, and `job/stop` that somebody has asked for that;
//! - `run/` and `logs/` mirror what the hosts write, and `checkpoints/` has the saved states.

mod bucket;
mod checks;
mod queue;
mod watch;

use crate::bundle::{self, AtBoot, CHECKSUMS, MOUNTED, PROGRAM, Settings, Sharing};
use crate::call::quoted;
use crate::digest::sha256;
use crate::logs::{Look, merged};
use crate::place::CloudTpu;
use crate::record::Records;
use crate::status::{last_object, of_hosts};
use crate::{
    Answer, Call, Changes, End, Error, HostState, Job, Pace, Shell, State, Status, Wanted, Watched,
    Watching,
};
use ankh_storage::atomic;

use queue::Machine;

/// A job on Cloud TPU, with what acts on it.
pub(crate) struct Cloud<'a> {
    job: &'a Job,
    place: &'a CloudTpu,
    shell: &'a dyn Shell,
    records: &'a Records,
}

impl<'a> Cloud<'a> {
    pub fn new(
        job: &'a Job,
        place: &'a CloudTpu,
        shell: &'a dyn Shell,
        records: &'a Records,
    ) -> Self {
        Self {
            job,
            place,
            shell,
            records,
        }
    }

    /// Checks what the job needs.
    pub fn check(&self, wanted: &Wanted) -> Result<(), Error> {
        self.place.validate()?;
        checks::check(self, wanted)
    }

    /// Ships, creates and watches, from wherever an earlier process was stopped.
    pub fn submit(
        &self,
        changes: Changes,
        watching: Watching,
        pace: Pace,
    ) -> Result<Watched, Error> {
        self.shell
            .say("the name is made this job's, and its files are brought to the bucket");
        let machine = self.machine(queue::Assumed::None)?;
        self.claim(changes, &machine)?;
        let ended = self.ended()?;
        if let Some(end) = ended.as_ref().filter(|end| end.code == 0) {
            self.remove(&machine)?;
            return Ok(Watched::Ended(end.clone()));
        }
        self.ship()?;
        self.records.write(self.shell, self.job)?;
        let stopped = self.read("job/stop", "")?.is_some();
        if let Some(end) = &ended {
            let words = format!(
                "the run ended with exit code {}; it is tried again",
                end.code
            );
            self.shell.say(&words);
        }
        if ended.is_some() || stopped {
            // What is left of that has to go first: nothing would start it again.
            self.remove(&machine)?;
            self.forget(&["job/ended.json", "job/stop"])?;
        }
        watch::watch(self, watching, pace)
    }

    /// How the job stands.
    pub fn status(&self) -> Status {
        let mut status = Status {
            name: self.job.name.to_string(),
            state: State::Unknown,
            detail: String::new(),
            hosts: Vec::new(),
            metrics: None,
        };
        match self.look(&mut status) {
            Ok((state, detail)) => (status.state, status.detail) = (state, detail),
            Err(error) => status.detail = error.to_string(),
        }
        status
    }

    fn look(&self, status: &mut Status) -> Result<(State, String), Error> {
        let ended = self.ended()?;
        let machine = self.machine(queue::Assumed::None)?;
        let stopped = self.read("job/stop", "")?.is_some();
        let metrics = self.place.call(
            ["storage", "cat", "--range=-4096"],
            [self.place.url("run/metrics.jsonl")],
        );
        status.metrics = last_object(&self.shell.run(&metrics)?);
        if let Some(end) = ended {
            let mut detail = format!("exit code {} on host {}", end.code, end.host);
            if machine != Machine::None {
                detail += "; its machine is still there";
            }
            return Ok((end.state(), detail));
        }
        Ok(match machine {
            Machine::None if stopped => (State::Stopped, "on request".into()),
            Machine::None => (State::Down, "submit it again to go on".into()),
            Machine::Waiting(word) => (State::Waiting, word),
            Machine::Gone { reason, .. } => (State::Preempted, reason),
            Machine::Leaving(word) if stopped => (State::Stopped, word),
            Machine::Leaving(word) => (State::Preempted, word),
            Machine::Foreign => {
                let what = "the queued resource of its name is of another job";
                (State::Down, what.into())
            }
            Machine::Ready => {
                status.hosts = self.host_states()?;
                heard(&status.hosts, self.job.slice.hosts, bucket::now())
            }
        })
    }

    /// Asks the program on all hosts to save and end, and removes the machine.
    pub fn stop(&self, saving: bool, pace: Pace) -> Result<(), Error> {
        // From here on, nobody creates the machine again.
        let stop = self.place.call(
            ["storage", "cp", "--quiet", "-"],
            [self.place.url("job/stop")],
        );
        self.shell.expect(&stop.reading("stop\n"))?;
        let mut machine = self.machine(queue::Assumed::Ready)?;
        if machine == Machine::Ready && saving {
            self.shell.say("the run is asked to save and to end");
            let command = format!("sudo bash {}/host.sh stop", quoted(&self.home()));
            self.shell.expect(&self.place.ssh(self.job, &command))?;
        }
        self.remove(&machine)?;
        if self.shell.is_dry() {
            return Ok(());
        }
        loop {
            machine = self.machine(queue::Assumed::None)?;
            match machine {
                Machine::None | Machine::Foreign => return Ok(()),
                // A process that had not seen the word to stop created it.
                Machine::Waiting(_) | Machine::Ready | Machine::Gone { .. } => {
                    self.remove(&machine)?;
                }
                Machine::Leaving(_) => {}
            }
            std::thread::sleep(pace.poll);
        }
    }

    /// The last lines of the logs of all hosts.
    pub fn look_at_logs(&self, lines: usize) -> Result<Look, Error> {
        let is_last = self.ended()?.is_some();
        let mut logs = match self.machine(queue::Assumed::Ready)? {
            Machine::Ready if !is_last => self.logs_there(lines)?,
            _ => Vec::new(),
        };
        if logs.is_empty() {
            logs = self.logs_in_bucket(lines)?;
        }
        let lines = merged(&logs);
        Ok(Look { lines, is_last })
    }

    /// The logs on the machines; none where these cannot be reached.
    fn logs_there(&self, lines: usize) -> Result<Vec<(usize, String)>, Error> {
        let directory = self.records.directory_of(&self.job.name).join("logs");
        if !self.shell.is_dry() {
            // What an earlier call has left is not new.
            atomic::remove_tree(&directory).map_err(Error::file(&directory))?;
            std::fs::create_dir_all(&directory).map_err(Error::file(&directory))?;
        }
        let tail = format!(
            "sudo bash -c 'tail -n {} {}/host-*.log'",
            lines,
            self.home()
        );
        let mut call = self.place.ssh(self.job, &tail);
        let directory_of = format!("--output-directory={}", directory.display());
        call.args.push(directory_of);
        if !self.shell.run(&call)?.ok() {
            return Ok(Vec::new());
        }
        let read = |host: usize| {
            let log = std::fs::read(directory.join(format!("{host}.log"))).ok()?;
            Some((host, String::from_utf8_lossy(&log).into_owned()))
        };
        Ok((0..self.job.slice.hosts).filter_map(read).collect())
    }

    /// The logs as far as they are mirrored.
    fn logs_in_bucket(&self, count: usize) -> Result<Vec<(usize, String)>, Error> {
        let mut logs = Vec::new();
        for host in 0..self.job.slice.hosts {
            if let Some(log) = self.read(&format!("logs/host-{host}.log"), "")? {
                let lines: Vec<&str> = log.lines().collect();
                let from = lines.len().saturating_sub(count);
                logs.push((host, lines[from..].join("\n")));
            }
        }
        Ok(logs)
    }

    /// Makes the name this job's, unless it is another's.
    fn claim(&self, changes: Changes, machine: &Machine) -> Result<(), Error> {
        if *machine == Machine::Foreign {
            return Err(Error::Foreign {
                name: self.job.name.to_string(),
                zone: self.place.zone.clone(),
            });
        }
        let text = serde_json::to_string_pretty(self.job).expect("words and numbers are JSON");
        let url = self.place.url("job/job.json");
        // A second round meets the job that came first.
        for precondition in [Some("--if-generation-match=0"), None] {
            let claim = ["storage", "cp", "--quiet"].into_iter().chain(precondition);
            let claim = self.place.call(claim.chain(["-"]), [&url]);
            let claim = claim.reading(text.clone());
            let Some(there) = self.read("job/job.json", "")? else {
                match self.shell.run(&claim)? {
                    answer if answer.ok() => return Ok(()),
                    answer if precondition.is_none() => return Err(claim.failed(&answer)),
                    answer if !bucket::is_taken(&answer) => return Err(claim.failed(&answer)),
                    _ => continue,
                }
            };
            let unreadable = |_| Error::Answer {
                command: format!("gcloud storage cat {url}"),
                said: there.chars().take(300).collect(),
            };
            let there: Job = serde_json::from_str(&there).map_err(unreadable)?;
            let differences = self.job.differences(&there);
            if differences.is_empty() {
                return Ok(());
            }
            let runs = !matches!(machine, Machine::None | Machine::Leaving(_));
            if changes == Changes::Refused || runs {
                return Err(Error::Differs {
                    name: self.job.name.to_string(),
                    differences,
                });
            }
            // How the other one ended says nothing of this one.
            self.forget(&["job/ended.json"])?;
            let replace = self.place.call(["storage", "cp", "--quiet", "-"], [&url]);
            self.shell.expect(&replace.reading(text.clone()))?;
            return Ok(());
        }
        Ok(())
    }

    /// Brings the files to the bucket. Those that are there are the same.
    fn ship(&self) -> Result<(), Error> {
        let source = self.source();
        let listed = self.place.call(["storage", "ls"], [format!("{source}/**")]);
        let listed = self.shell.run(&listed.assuming(bucket::none()))?;
        let is_there = |name: &str| {
            let url = format!("{source}/{name}");
            listed.ok() && listed.out.lines().any(|line| line.trim() == url)
        };
        let directory = self.records.directory_of(&self.job.name).join("files");
        let mut missing = Vec::new();
        if !is_there(PROGRAM) {
            let to = format!("{source}/{PROGRAM}");
            let program = self.job.program.path.display().to_string();
            let call = self.place.call(["storage", "cp", "--quiet"], [program, to]);
            self.shell.expect(&call)?;
        }
        for (name, content) in self.files() {
            if !is_there(name) {
                let path = directory.join(name);
                self.shell.write(&path, &content)?;
                missing.push(path.display().to_string());
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let to = [format!("{source}/")];
        let call = self
            .place
            .call(["storage", "cp", "--quiet"], missing.into_iter().chain(to));
        self.shell.expect(&call).map(drop)
    }

    fn files(&self) -> Vec<(&'static str, String)> {
        bundle::files(self.job, &self.settings())
    }

    fn checksums(&self) -> String {
        let files = self.files().into_iter();
        let found = files.rev().find(|(name, _)| *name == CHECKSUMS);
        found.map(|(_, content)| content).unwrap_or_default()
    }

    /// Where the files are in the bucket.
    fn source(&self) -> String {
        let digest = sha256(self.checksums().as_bytes());
        self.place.url(&format!("job/{}", &digest[..16]))
    }

    fn startup_script(&self) -> String {
        bundle::startup_script(&self.home(), &self.source(), &self.checksums())
    }

    fn settings(&self) -> Settings {
        let name = &self.job.name;
        let (sharing, run_dir) = match &self.place.mount {
            Some(_) => (Sharing::Shared, format!("{MOUNTED}/{name}")),
            None => (Sharing::Relayed, format!("{}/run", self.home())),
        };
        Settings {
            bucket: self.place.directory.clone(),
            sharing,
            run_dir,
            mount: self.place.mount.clone().unwrap_or_default(),
            at_boot: AtBoot::Script,
        }
    }

    fn home(&self) -> String {
        format!("/opt/ankh/{}", self.job.name)
    }

    /// What the queued resource is labelled with.
    fn label(&self) -> String {
        sha256(format!("{} {}", self.job.name, self.place.directory).as_bytes())[..16].into()
    }
}

impl CloudTpu {
    fn validate(&self) -> Result<(), Error> {
        let bucket = self.directory.strip_prefix("gs://").unwrap_or_default();
        let inside = bucket
            .split_once('/')
            .map(|(_, key)| key)
            .unwrap_or_default();
        if inside.is_empty() || self.directory.ends_with('/') {
            return Err(Error::Place(format!(
                "the directory of a job on Cloud TPU is gs://BUCKET/KEY, not {}",
                self.directory
            )));
        }
        match &self.mount {
            Some(mount) if !mount.contains(":/") => Err(Error::Place(format!(
                "a share is SERVER:/EXPORT, not {mount}"
            ))),
            _ => Ok(()),
        }
    }

    /// A file in the job's directory.
    fn url(&self, name: &str) -> String {
        format!("{}/{name}", self.directory)
    }

    /// A command of gcloud in this project.
    fn call<'s, T: Into<String>>(
        &self,
        command: impl IntoIterator<Item = &'s str>,
        arguments: impl IntoIterator<Item = T>,
    ) -> Call {
        let command = command.into_iter().map(str::to_owned);
        let project = format!("--project={}", self.project);
        let arguments = arguments.into_iter().map(Into::into);
        Call::new("gcloud", command.chain(arguments).chain([project]))
    }

    /// The same with a zone.
    fn zonal<'s>(&self, command: impl IntoIterator<Item = &'s str>) -> Call {
        self.call(command, [format!("--zone={}", self.zone)])
    }

    /// A command on all hosts.
    fn ssh(&self, job: &Job, command: &str) -> Call {
        let mut call = self.zonal(["compute", "tpus", "tpu-vm", "ssh", job.name.as_str()]);
        call.args.extend([
            "--worker=all".into(),
            "--quiet".into(),
            format!("--command={command}"),
        ]);
        call
    }
}

/// A host says every minute that it runs. One that was not heard for so long may not.
const SILENT: u64 = 300;

/// The state of a job whose machine is there, by what its hosts have said.
pub(crate) fn heard(hosts: &[HostState], expected: usize, now: u64) -> (State, String) {
    let running = hosts.iter().filter(|host| host.state == "running").count();
    let latest = hosts.iter().map(|host| host.at).max();
    let silent = |at: u64| now.saturating_sub(at) > SILENT;
    match latest {
        Some(at) if silent(at) => {
            let minutes = now.saturating_sub(at) / 60;
            let detail = format!("the hosts were last heard {minutes} minutes ago");
            (State::Unknown, detail)
        }
        _ if running == expected => {
            let quiet = hosts.iter().filter(|host| silent(host.at)).count();
            let hosts = of_hosts(expected);
            match quiet {
                0 => (State::Running, format!("on {hosts}")),
                quiet => (
                    State::Unknown,
                    format!("{quiet} of {hosts} not heard for 5 minutes"),
                ),
            }
        }
        _ => {
            let mut detail = format!("{running} of {} started", of_hosts(expected));
            let ended = hosts.iter().filter(|host| host.state == "ended").count();
            if ended > 0 {
                detail = format!("{running} of {} run, {ended} ended", of_hosts(expected));
            }
            (State::Starting, detail)
        }
    }
}

/// The mark that says how the program ended, if an answer is one.
fn end_of(call: &Call, text: &str) -> Result<End, Error> {
    End::read(text).ok_or_else(|| call.unreadable(&Answer::done(text)))
}
