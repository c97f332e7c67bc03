//! Jobs on hosts that are there, by `ssh` and `scp`.
//!
//! A job has a directory of its name on each host. Everything is checked on all hosts before
//! anything is started on one of them. Each host has a service of its own, which goes on without
//! this machine.

use std::fmt;

use crate::bundle::{self, AtBoot, CHECKSUMS, PROGRAM, Settings, Sharing};
use crate::call::quoted;
use crate::digest::sha256;
use crate::logs::{Look, merged};
use crate::place::Hosts;
use crate::record::Records;
use crate::status::{last_object, of_hosts};
use crate::{
    Answer, Call, Changes, End, Error, HostState, Job, Pace, Shell, State, Status, Watched,
    Watching,
};

/// What ssh and scp are told: nobody is asked for anything, and a host that is gone is noticed.
const OPTIONS: [&str; 4] = ["-o", "BatchMode=yes", "-o", "ConnectTimeout=15"];

/// The file on each host that says which job it is.
const JOB: &str = "job.json";

/// The exit code of ssh where it is ssh that failed.
const UNREACHABLE: i32 = 255;

/// A job on hosts, with what acts on it.
pub(crate) struct OnHosts<'a> {
    pub job: &'a Job,
    pub place: &'a Hosts,
    pub shell: &'a dyn Shell,
    pub records: &'a Records,
}

impl OnHosts<'_> {
    /// Checks all hosts.
    pub fn check(&self) -> Result<(), Error> {
        let hosts = self.place.destinations.len();
        if hosts != self.job.slice.hosts {
            return Err(Error::Place(format!(
                "{hosts} hosts are named, and a {} has {}",
                self.job.slice.name, self.job.slice.hosts
            )));
        }
        let run_dir = &self.place.run_dir;
        if !run_dir.starts_with('/') && !run_dir.starts_with("gs://") {
            let words = format!(
                "the run directory on hosts is a path from / or gs://BUCKET/KEY, not {run_dir}"
            );
            return Err(Error::Place(words));
        }
        self.on_all("cannot be used", |host| {
            self.expect(host, "uname -sm", "Linux x86_64\n")
        })?;
        self.check_shared()
    }

    /// Brings the files to each host, starts, and watches.
    pub fn submit(
        &self,
        changes: Changes,
        watching: Watching,
        pace: Pace,
    ) -> Result<Watched, Error> {
        self.check_same(changes)?;
        self.shell
            .say("the files are brought to each host, and checked there");
        self.prepare()?;
        self.on_all("do not have the files", |host| self.ship(host))?;
        let install = self.script("install");
        self.on_all("are not ready", |host| self.expect(host, &install, ""))?;
        let states = self.states();
        self.check_numbers(&states)?;
        self.records.write(self.shell, self.job)?;
        self.start()?;
        match watching {
            Watching::UntilTheEnd => self.watch(pace),
            Watching::Not => Ok(Watched::Left),
        }
    }

    /// How the job stands.
    pub fn status(&self) -> Status {
        let states = self.states();
        let hosts: Vec<HostState> = states.iter().map(HostAnswer::state).collect();
        let (state, detail) = verdict(&states);
        let metrics = match self.place.run_dir.starts_with("gs://") {
            true => None,
            false => self.tail_of_metrics(),
        };
        Status {
            name: self.job.name.to_string(),
            state,
            detail,
            hosts,
            metrics,
        }
    }

    fn tail_of_metrics(&self) -> Option<serde_json::Value> {
        let file = format!("{}/metrics.jsonl", self.place.run_dir);
        let command = format!("tail -n 2 {}", quoted(&file));
        let call = self.ssh(self.place.destinations.first()?, &command);
        last_object(&self.shell.run(&call).ok()?)
    }

    /// Asks the program on all hosts to save and end, and waits for that.
    pub fn stop(&self) -> Result<(), Error> {
        self.shell.say("the run is asked to save and to end");
        let stop = self.script("stop");
        self.on_all("did not stop", |host| self.expect(host, &stop, ""))
            .map(drop)
    }

    /// The last lines of the logs of all hosts.
    pub fn look_at_logs(&self, lines: usize) -> Look {
        let is_last = matches!(verdict(&self.states()).0, State::Finished | State::Failed);
        let tail = format!("cd {} && tail -n {lines} host-*.log", self.home());
        let logs: Vec<(usize, String)> = self.each(|number, host| {
            let answer = self.shell.run(&self.ssh(host, &tail));
            (number, answer.map(|answer| answer.out).unwrap_or_default())
        });
        let lines = merged(&logs);
        Look { lines, is_last }
    }

    /// Several hosts need one run directory, or a bucket between them.
    fn check_shared(&self) -> Result<(), Error> {
        let [first, others @ ..] = self.place.destinations.as_slice() else {
            return Ok(());
        };
        if others.is_empty() || self.place.run_dir.starts_with("gs://") {
            return Ok(());
        }
        let run_dir = &self.place.run_dir;
        let mark = format!("{run_dir}.ankh-{}", self.job.fingerprint());
        let parent = ankh_storage::atomic::parent(run_dir.as_ref())
            .display()
            .to_string();
        let (mark, parent) = (quoted(&mark), quoted(&parent));
        self.expect(first, &format!("mkdir -p {parent} && touch {mark}"), "")?;
        let mut unshared = Vec::new();
        for host in others {
            let answer = self
                .shell
                .run(&self.ssh(host, &format!("test -e {mark}")))?;
            if !answer.ok() {
                unshared.push(host.clone());
            }
        }
        self.expect(first, &format!("rm -f {mark}"), "")?;
        if unshared.is_empty() {
            return Ok(());
        }
        Err(Error::Check {
            what: "run directory",
            found: format!(
                "{run_dir} of {first} is not that of {}",
                unshared.join(", ")
            ),
            help: "give a --run-dir on storage that all hosts share, or gs://BUCKET/KEY".into(),
        })
    }

    /// The job of this name that is on the hosts must be this one.
    fn check_same(&self, changes: Changes) -> Result<(), Error> {
        let read = format!("cat {}/job.json 2>/dev/null || true", self.home());
        let states = self.states();
        for host in &self.place.destinations {
            let there = self.expect(host, &read, "")?;
            let Ok(there) = serde_json::from_str::<Job>(&there) else {
                continue;
            };
            let differences = self.job.differences(&there);
            let runs = states.iter().any(|state| state.is("running"));
            if !differences.is_empty() && (changes == Changes::Refused || runs) {
                return Err(Error::Differs {
                    name: self.job.name.to_string(),
                    differences,
                });
            }
        }
        Ok(())
    }

    /// Brings the files to a host, unless they are there.
    fn ship(&self, host: &str) -> Result<String, Error> {
        let settings = self.settings();
        let files = bundle::files(self.job, &settings);
        let sums = files.iter().find(|(name, _)| *name == CHECKSUMS);
        let sums = sums.map_or("", |(_, content)| content);
        let home = self.home();
        let check = format!(
            "cd {home} && echo {}  {CHECKSUMS} | sha256sum --check --status && sha256sum --check --status {CHECKSUMS}",
            sha256(sums.as_bytes())
        );
        let call = self.ssh(host, &check).assuming(Answer {
            code: Some(1),
            ..Answer::default()
        });
        let answer = self.shell.run(&call)?;
        if answer.ok() {
            return Ok(String::new());
        }
        if answer.code == Some(UNREACHABLE) {
            return Err(call.failed(&answer));
        }
        let made = format!("mkdir -p -m 700 {home}");
        self.expect(host, &made, "")?;
        let directory = self.records.directory_of(&self.job.name).join("files");
        let copy = |from: Vec<String>, to: String| {
            let arguments = OPTIONS.into_iter().chain(["-q"]).map(str::to_owned);
            let to = [format!("{host}:{to}")];
            self.shell
                .expect(&Call::new("scp", arguments.chain(from).chain(to)))
        };
        let program = self.job.program.path.display().to_string();
        // Under another name first: a program that runs cannot be overwritten.
        copy(vec![program], format!("{home}/{PROGRAM}.new"))?;
        self.expect(
            host,
            &format!("mv {home}/{PROGRAM}.new {home}/{PROGRAM}"),
            "",
        )?;
        let names = files.iter().map(|(name, _)| *name).chain([JOB]);
        let names = names.map(|name| directory.join(name).display().to_string());
        copy(names.collect(), format!("{home}/"))
    }

    /// Writes the files that all hosts get.
    fn prepare(&self) -> Result<(), Error> {
        let directory = self.records.directory_of(&self.job.name).join("files");
        let mut files = bundle::files(self.job, &self.settings());
        let job = serde_json::to_string_pretty(self.job).expect("words and numbers are JSON");
        files.push((JOB, job + "\n"));
        for (name, content) in files {
            self.shell.write(&directory.join(name), &content)?;
        }
        Ok(())
    }

    /// Each host knows its number in the slice, and no two have the same.
    fn check_numbers(&self, states: &[HostAnswer]) -> Result<(), Error> {
        if self.shell.is_dry() {
            return Ok(());
        }
        let mut seen: Vec<(usize, &str)> = Vec::new();
        for (state, host) in states.iter().zip(&self.place.destinations) {
            let HostAnswer::Said(said) = state else {
                continue;
            };
            if let Some((_, other)) = seen.iter().find(|(number, _)| *number == said.host) {
                return Err(Error::Check {
                    what: "hosts",
                    found: format!(
                        "{other} and {host} both are host {} of their slice",
                        said.host
                    ),
                    help: "name each host of one slice once".into(),
                });
            }
            seen.push((said.host, host));
        }
        Ok(())
    }

    /// Starts all hosts; none, if one cannot be started.
    fn start(&self) -> Result<(), Error> {
        let start = self.script("start");
        let started = self.on_all("cannot be started", |host| self.expect(host, &start, ""));
        if let Err(error) = started {
            self.shell
                .say("not all hosts could be started: the others are stopped");
            let stop = self.script("stop");
            self.each(|_, host| self.shell.run(&self.ssh(host, &stop)).is_ok());
            return Err(error);
        }
        Ok(())
    }

    fn watch(&self, pace: Pace) -> Result<Watched, Error> {
        if self.shell.is_dry() {
            let seconds = pace.poll.as_secs();
            let words =
                format!("every {seconds} s, until the run has ended, it is asked how things stand");
            self.shell.say(&words);
            self.states();
            self.shell
                .say("a host that is down is started again as above");
            return Ok(Watched::Left);
        }
        let mut said = String::new();
        loop {
            let states = self.states();
            let (state, detail) = verdict(&states);
            let words = format!("{}: {detail}", state.word());
            if words != said {
                self.shell.say(&words);
                said = words;
            }
            match end(&states) {
                Some(end) => return Ok(Watched::Ended(end)),
                None if state == State::Stopped => return Ok(Watched::Stopped),
                None => {}
            }
            for (state, host) in states.iter().zip(&self.place.destinations) {
                let begin = || self.expect(host, &self.script("start"), "");
                let done = match state {
                    HostAnswer::Nothing(_) => {
                        self.shell
                            .say(&format!("{host} has lost the job: it is brought again"));
                        let install = self.script("install");
                        let brought = self
                            .ship(host)
                            .and_then(|_| self.expect(host, &install, ""));
                        brought.and_then(|_| begin())
                    }
                    state if state.is("down") => {
                        self.shell
                            .say(&format!("{host} is down: it is started again"));
                        begin()
                    }
                    _ => continue,
                };
                if let Err(error) = done {
                    self.shell.say(&format!("{host}: {error}"));
                }
            }
            std::thread::sleep(pace.poll);
        }
    }

    /// What each host says, in the order of their names.
    fn states(&self) -> Vec<HostAnswer> {
        let state = format!(
            "if [ -e {home}/host.sh ]; then bash {home}/host.sh state; else echo none; fi",
            home = self.home()
        );
        self.each(|number, host| {
            let call = self.ssh(host, &state).assuming(Answer::done("none\n"));
            let answer = match self.shell.run(&call) {
                Ok(answer) if answer.ok() => answer,
                Ok(answer) => {
                    return HostAnswer::Silent(number, format!("{host}: {}", answer.said()));
                }
                Err(error) => return HostAnswer::Silent(number, format!("{host}: {error}")),
            };
            match serde_json::from_str(answer.out.trim()) {
                Ok(said) => HostAnswer::Said(said),
                Err(_) if answer.out.trim() == "none" => HostAnswer::Nothing(number),
                Err(_) => HostAnswer::Silent(number, format!("{host}: {}", answer.out.trim())),
            }
        })
    }

    /// Does something with each host at once; one after the other on paper.
    fn each<T: Send>(&self, work: impl Fn(usize, &str) -> T + Sync) -> Vec<T> {
        let hosts = self.place.destinations.iter().enumerate();
        if self.shell.is_dry() {
            return hosts.map(|(number, host)| work(number, host)).collect();
        }
        std::thread::scope(|scope| {
            let work = &work;
            let started: Vec<_> = hosts
                .map(|(number, host)| scope.spawn(move || work(number, host)))
                .collect();
            let joined = started.into_iter().map(|thread| thread.join());
            joined
                .map(|done| done.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        })
    }

    /// The same where each has to succeed. All that failed are named.
    fn on_all<T: Send>(
        &self,
        what: &'static str,
        work: impl Fn(&str) -> Result<T, Error> + Sync,
    ) -> Result<Vec<T>, Error> {
        let done = self.each(|_, host| work(host).map_err(|error| format!("{host}: {error}")));
        let failed = done.iter().filter_map(|done| done.as_ref().err().cloned());
        let failed: Vec<String> = failed.collect();
        match failed.is_empty() {
            true => Ok(done.into_iter().filter_map(Result::ok).collect()),
            false => Err(Error::SomeHosts {
                hosts: self.place.destinations.len(),
                what,
                failed,
            }),
        }
    }

    /// The output of a command on a host.
    fn expect(&self, host: &str, command: &str, assumed: &str) -> Result<String, Error> {
        let call = self.ssh(host, command).assuming(Answer::done(assumed));
        self.shell.expect(&call)
    }

    fn ssh(&self, host: &str, command: &str) -> Call {
        Call::new("ssh", OPTIONS.into_iter().chain([host, command]))
    }

    fn script(&self, verb: &str) -> String {
        format!("bash {}/host.sh {verb}", self.home())
    }

    /// The job's directory on each host, in the user's.
    fn home(&self) -> String {
        format!(".ankh/jobs/{}", self.job.name)
    }

    fn settings(&self) -> Settings {
        let run_dir = &self.place.run_dir;
        let (bucket, sharing, run_dir) = match run_dir.starts_with("gs://") {
            true => (run_dir.clone(), Sharing::Relayed, "run".to_owned()),
            false => (String::new(), Sharing::Shared, run_dir.clone()),
        };
        Settings {
            bucket,
            sharing,
            run_dir,
            mount: String::new(),
            at_boot: AtBoot::Service,
        }
    }
}

/// What came of asking a host.
enum HostAnswer {
    /// It said how it is.
    Said(HostState),
    /// The job has never been there.
    Nothing(usize),
    /// It did not answer.
    Silent(usize, String),
}

impl HostAnswer {
    fn is(&self, word: &str) -> bool {
        matches!(self, HostAnswer::Said(said) if said.state == word)
    }

    fn state(&self) -> HostState {
        let (host, state) = match self {
            HostAnswer::Said(said) => return said.clone(),
            HostAnswer::Nothing(host) => (*host, "down"),
            HostAnswer::Silent(host, _) => (*host, "unreachable"),
        };
        HostState {
            host,
            state: state.to_owned(),
            at: 0,
            code: None,
        }
    }
}

impl fmt::Display for HostAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostAnswer::Said(said) => write!(f, "host {} is {}", said.host, said.state),
            HostAnswer::Nothing(host) => write!(f, "host {host} has no such job"),
            HostAnswer::Silent(_, why) => f.write_str(why),
        }
    }
}

/// How the program has ended, if it has for good: well where host 0 says so, badly where any does.
fn end(states: &[HostAnswer]) -> Option<End> {
    let ends = states.iter().filter_map(|state| match state {
        HostAnswer::Said(said) if said.state == "ended" => Some(End {
            code: said.code?,
            host: said.host,
            at: said.at,
        }),
        _ => None,
    });
    let ends: Vec<End> = ends.collect();
    let bad = ends.iter().find(|end| end.code != 0);
    bad.or_else(|| ends.iter().find(|end| end.host == 0))
        .cloned()
}

/// How a job stands by what its hosts say.
fn verdict(states: &[HostAnswer]) -> (State, String) {
    if let Some(end) = end(states) {
        return (
            end.state(),
            format!("exit code {} on host {}", end.code, end.host),
        );
    }
    let count = |word: &str| states.iter().filter(|state| state.is(word)).count();
    let hosts = states.len();
    let silent: Vec<String> = states
        .iter()
        .filter(|state| matches!(state, HostAnswer::Silent(..)))
        .map(HostAnswer::to_string)
        .collect();
    if !silent.is_empty() {
        return (State::Unknown, silent.join("; "));
    }
    match count("running") {
        running if running == hosts => (State::Running, format!("on {}", of_hosts(hosts))),
        0 if count("stopped") == hosts => (State::Stopped, "on request".into()),
        0 => (
            State::Down,
            states
                .iter()
                .map(HostAnswer::to_string)
                .collect::<Vec<_>>()
                .join(", "),
        ),
        running => (
            State::Starting,
            format!("{running} of {} started", of_hosts(hosts)),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_host_does_not_say_is_not_known() {
        let said = |host, state: &str, code| {
            HostAnswer::Said(HostState {
                host,
                state: state.into(),
                at: 0,
                code,
            })
        };
        let silent = || HostAnswer::Silent(1, "b: no route".into());
        let word = |states: &[HostAnswer]| verdict(states).0;
        assert_eq!(
            word(&[said(0, "running", None), said(1, "running", None)]),
            State::Running
        );
        assert_eq!(word(&[said(0, "running", None), silent()]), State::Unknown);
        assert_eq!(
            word(&[said(0, "ended", Some(0)), silent()]),
            State::Finished
        );
        assert_eq!(
            word(&[said(0, "running", None), said(1, "ended", Some(2))]),
            State::Failed
        );
        assert_eq!(
            word(&[said(0, "stopped", None), said(1, "stopped", None)]),
            State::Stopped
        );
        assert_eq!(
            word(&[said(0, "down", None), HostAnswer::Nothing(1)]),
            State::Down
        );
    }
}
