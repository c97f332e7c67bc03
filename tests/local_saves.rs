//! Runs that go on from what their hosts keep in memory, through the binary on virtual CPU devices.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ankh::checkpoint::Store;

use crate::support::runs::{Bench, expect, text};

/// What a start may take beside other tests.
const PATIENCE: Duration = Duration::from_secs(300);

/// A run of several hosts, a process each, or of one, whose hosts keep states in a directory.
struct Run {
    bench: Bench,
    hosts: usize,
}

/// A process, and what it prints.
struct Process {
    child: Child,
    output: PathBuf,
}

impl Run {
    fn of(hosts: usize) -> Run {
        Run {
            bench: Bench::in_memory(),
            hosts,
        }
    }

    /// The command of a host, or of one process for all.
    fn command(&self, run: &str, host: Option<usize>, steps: u64, set: &[&str]) -> Command {
        let (hosts, steps) = (self.hosts.to_string(), steps.to_string());
        let slice = format!("cpu-{hosts}");
        let mut command = self.bench.train(run, &["--resume", "--slice", &slice]);
        command.args(["--steps", &steps, "--simulate-hosts", &hosts]);
        if let Some(host) = host {
            command.args(["--host", &host.to_string()]);
        }
        let memory = self.bench.path("memory");
        let memory = format!("checkpoint.local_directory={}", memory.display());
        let (fsdp, every) = (format!("sharding.fsdp={hosts}"), "checkpoint.every=1000000");
        let flags = "compiler.flags=[\"xla_backend_optimization_level=0\"]";
        let always = [&memory, &fsdp, every, flags, "schedule.steps=1000"];
        let settings = always.iter().copied().chain(["train.log_every=1"]);
        let settings = settings.chain(set.iter().copied());
        command.args(settings.flat_map(|setting| ["--set", setting]));
        command
    }

    /// Starts a process for each host.
    fn start(&self, steps: u64, set: &[&str]) -> Vec<Process> {
        let set: Vec<&str> = set.iter().copied().chain([OFTEN]).collect();
        let start = |host: usize| {
            let host_number = (self.hosts > 1).then_some(host);
            let mut command = self.command("run", host_number, steps, &set);
            let output = self.bench.path(&format!("output-{host}"));
            let file = fs::File::create(&output).unwrap();
            command
                .stdin(Stdio::null())
                .stdout(file.try_clone().unwrap());
            Process {
                child: command.stderr(file).spawn().unwrap(),
                output,
            }
        };
        (0..self.hosts).map(start).collect()
    }

    /// The states that a host keeps: its own, and its copies of another's.
    fn kept(&self, host: usize) -> Option<[Store; 2]> {
        let directory = self.directory_of(host)?;
        Some(["own", "copy"].map(|kind| Store::open(directory.join(kind))))
    }

    fn directory_of(&self, host: usize) -> Option<PathBuf> {
        let end = format!("-{host}");
        let kept = fs::read_dir(self.bench.path("memory")).ok()?;
        let mut kept = kept.map(|entry| entry.unwrap().path());
        kept.find(|path| path.to_str().unwrap().ends_with(&end))
    }

    /// Kills all processes once each host has a step later than this one, and its copy. Returns the
    /// step that they can go on from.
    #[track_caller]
    fn kill_after(&self, step: u64, processes: Vec<Process>) -> u64 {
        let deadline = Instant::now() + PATIENCE;
        let newest = || {
            let all = (0..self.hosts).map(|host| {
                let stores = self.kept(host)?;
                let [own, copy] = stores.map(|store| store.latest().ok().flatten());
                own.min(copy.or(own.filter(|_| self.hosts == 1)))
            });
            all.min().flatten()
        };
        while newest() <= Some(step) {
            assert!(
                Instant::now() < deadline,
                "nothing is kept: {}",
                said(&processes)
            );
            std::thread::sleep(Duration::from_millis(2));
        }
        drop(processes);
        self.usable().expect("what was kept stays")
    }

    /// The newest step of which each host has its part, or the next one has the copy.
    fn usable(&self) -> Option<u64> {
        let steps = |store: &Store| store.list().unwrap_or_default();
        let kept = (0..self.hosts).map(|host| {
            let stores = self.kept(host);
            stores.map_or_else(Default::default, |stores| stores.each_ref().map(steps))
        });
        let kept: Vec<[Vec<u64>; 2]> = kept.collect();
        let has = |host: usize, step: u64| {
            let [own, next] = [&kept[host][0], &kept[(host + 1) % self.hosts][1]];
            own.contains(&step) || next.contains(&step)
        };
        let is_usable = |step: &u64| (0..self.hosts).all(|host| has(host, *step));
        let all = kept.iter().flatten().flatten().copied();
        all.filter(is_usable).max()
    }

    /// Waits for the end of all processes, and returns what they said.
    #[track_caller]
    fn finish(&self, mut processes: Vec<Process>) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        for at in 0..processes.len() {
            let ended = loop {
                if let Some(ended) = processes[at].child.try_wait().unwrap() {
                    break ended;
                }
                assert!(Instant::now() < deadline, "it hangs: {}", said(&processes));
                std::thread::sleep(Duration::from_millis(5));
            };
            assert!(ended.success(), "{ended}: {}", said(&processes));
        }
        let output = |process: &Process| fs::read_to_string(&process.output).unwrap();
        processes.iter().map(output).collect()
    }

    /// Whether the last saved state is that of a run which nothing disturbed.
    #[track_caller]
    fn compare(&self, step: u64) {
        let mut command = self.command("undisturbed", None, step, &[]);
        expect(command.output().unwrap(), 0, &[]);
        let load = |run: &str| {
            let store = Store::open(self.bench.path(run).join("checkpoints"));
            assert_eq!(store.list().unwrap(), [step]);
            store.load(step).unwrap().tensors
        };
        assert!(
            load("run") == load("undisturbed"),
            "other weights at step {step}"
        );
    }
}

/// Local saves as often as they can be.
const OFTEN: &str = "checkpoint.local_minutes=0.0001";

fn said(processes: &[Process]) -> String {
    let outputs = processes.iter().map(|process| fs::read(&process.output));
    outputs.map(|output| text(&output.unwrap())).collect()
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_run_that_crashes_goes_on_from_memory() {
    let run = Run::of(1);
    let processes = run.start(100_000, &[]);
    let first = run.kill_after(3, processes);
    let processes = run.start(100_000, &[]);
    let second = run.kill_after(first + 3, processes);
    let end = second + 5;
    let said = run.finish(run.start(end, &[])).remove(0);
    let words = format!("going on from the local state of step {second}; no step is saved");
    assert!(said.contains(&words), "{said}");
    // In the run directory there is nothing but its end, and in memory nothing any more.
    run.compare(end);
    assert_eq!(fs::read_dir(run.bench.path("memory")).unwrap().count(), 0);
}

#[test]
fn a_host_that_lost_its_memory_gets_its_part_back() {
    let run = Run::of(2);
    let processes = run.start(100_000, &[]);
    run.kill_after(2, processes);
    // Another machine takes the place of host 1.
    fs::remove_dir_all(run.directory_of(1).unwrap()).unwrap();
    let step = run.usable().expect("host 0 has the copy");
    let end = step + 5;
    let said = run.finish(run.start(end, &[]));
    let words = format!("host 1 has its part of step {step} back");
    assert!(said[0].contains(&words), "{}", said[0]);
    for said in &said {
        assert!(said.contains(&format!("resuming step={step}")), "{said}");
    }
    run.compare(end);
    assert_eq!(fs::read_dir(run.bench.path("memory")).unwrap().count(), 0);
}

#[test]
fn what_is_damaged_or_gone_in_memory_is_not_gone_on_from() {
    let run = Run::of(2);
    let saved = ["checkpoint.every=2", "checkpoint.keep=0"];
    let store = Store::open(run.bench.path("run/checkpoints"));
    // The newest may be in the run directory as well: then once more.
    let caught = |mut processes: Vec<Process>, mut after: u64| loop {
        let step = run.kill_after(after, processes);
        let last = store.latest().unwrap().unwrap_or(0);
        if 0 < last && last < step {
            return (last, step);
        }
        after = after.max(last);
        processes = run.start(100_000, &saved);
    };
    // A bit of host 1's part is not what it was.
    let (first, step) = caught(run.start(100_000, &saved), 2);
    let [own, _] = run.kept(1).unwrap();
    let chunk = own.directory_of(step).join("encoder.final_norm/c");
    let mut chunks = fs::read_dir(chunk.local().unwrap()).unwrap();
    let file = chunks.next().unwrap().unwrap().path();
    let mut bytes = fs::read(&file).unwrap();
    bytes[1] ^= 4;
    fs::write(&file, bytes).unwrap();
    let mut processes = run.start(100_000, &saved);
    let deadline = Instant::now() + PATIENCE;
    let output = processes[0].output.clone();
    let resumed = format!("resuming step={first}");
    while !fs::read_to_string(&output).unwrap().contains(&resumed) {
        let ended = processes[0].child.try_wait().unwrap();
        assert!(ended.is_none(), "{ended:?}: {}", said(&processes));
        assert!(Instant::now() < deadline, "{}", said(&processes));
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(
        said(&processes).contains("is damaged"),
        "{}",
        said(&processes)
    );
    // And this time both hosts lose all.
    let (first, _) = caught(processes, first);
    fs::remove_dir_all(run.bench.path("memory")).unwrap();
    let end = first + 4;
    let said = run.finish(run.start(end, &saved));
    assert!(
        said[1].contains(&format!("resuming step={first}")),
        "{}",
        said[1]
    );
}

#[test]
fn a_run_goes_on_where_there_is_no_room_for_local_states() {
    let run = Run::of(1);
    // A file is where the directory should be.
    fs::write(run.bench.path("memory"), "in the way").unwrap();
    let said = run.finish(run.start(8, &[])).remove(0);
    assert!(said.contains("is not saved locally"), "{said}");
    run.compare(8);
}
