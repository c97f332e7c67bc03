//! Runs of several hosts, each a process of its own, through the binary on virtual CPU devices.
//! The CPU plugin has no collectives between processes, so each process computes the whole mesh;
//! it saves, restores and coordinates as its host.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ankh::checkpoint::{Checkpoint, Store};

use crate::support::Random;
use crate::support::runs::{Bench, run_by};

/// How long all processes of a run may take to end, once one of them has.
const PROMPTLY: Duration = Duration::from_secs(10);

/// How long hosts may take to end that cannot go on together, from the moment that this is so.
const SOON: Duration = Duration::from_secs(10);

/// What a start may take beside other tests.
const PATIENCE: Duration = Duration::from_secs(300);

/// How many hosts there are: `make torture` takes more.
fn count() -> usize {
    number("HOSTS").unwrap_or(2) as usize
}

/// A number in the environment.
fn number(name: &str) -> Option<u64> {
    Some(std::env::var(name).ok()?.parse().unwrap())
}

/// The hosts of a run, each with a device.
struct Hosts {
    bench: Bench,
    hosts: usize,
    run: &'static str,
}

/// A process of a host, and what it prints.
struct Process {
    child: Child,
    output: PathBuf,
}

impl Hosts {
    fn new(hosts: usize) -> Hosts {
        let bench = Bench::in_memory();
        Hosts {
            bench,
            hosts,
            run: "run",
        }
    }

    /// The command of a host, or of one process for all.
    fn command(&self, host: Option<usize>, steps: u64, settings: &[&str]) -> Command {
        let hosts = self.hosts.to_string();
        let steps = steps.to_string();
        let (slice, fsdp) = (format!("cpu-{hosts}"), format!("sharding.fsdp={hosts}"));
        let arguments = ["--resume", "--slice", &slice, "--steps", &steps];
        let mut command = self.bench.train(self.run, &arguments);
        command.args(["--simulate-hosts", &hosts]);
        if let Some(host) = host {
            command.args(["--host", &host.to_string()]);
        }
        let always = [
            &fsdp,
            "evaluation.every=0",
            "schedule.steps=1000",
            "train.log_every=1",
            "compiler.flags=[\"xla_backend_optimization_level=0\"]",
        ];
        let settings = always.iter().chain(settings);
        command.args(settings.flat_map(|setting| ["--set", setting]));
        command
    }

    fn start_one(&self, host: usize, steps: u64, settings: &[&str]) -> Process {
        self.run_command(host, self.command(Some(host), steps, settings))
    }

    fn run_command(&self, host: usize, mut command: Command) -> Process {
        let output = self.bench.path(&format!("output-{host}"));
        let file = fs::File::create(&output).unwrap();
        let command = command.stdin(Stdio::null());
        let command = command.stdout(file.try_clone().unwrap()).stderr(file);
        Process {
            child: command.spawn().unwrap(),
            output,
        }
    }

    fn start(&self, steps: u64, settings: &[&str]) -> Vec<Process> {
        let start = |host| self.start_one(host, steps, settings);
        (0..self.hosts).map(start).collect()
    }

    fn store(&self) -> Store {
        Store::open(self.bench.path(self.run).join("checkpoints"))
    }

    /// Waits until this step or a later one is saved.
    #[track_caller]
    fn wait_for_step(&self, step: u64, processes: &mut [Process]) {
        let patience = Instant::now() + PATIENCE;
        while self.store().latest().unwrap() < Some(step) {
            for process in &mut *processes {
                let ended = process.child.try_wait().unwrap();
                assert!(ended.is_none(), "{ended:?}: {}", process.said());
            }
            assert!(Instant::now() < patience, "step {step} is not saved");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Process {
    fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &id]).status().unwrap();
        assert!(sent.success());
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.output).unwrap_or_default()
    }

    #[track_caller]
    fn wait_to_say(&mut self, words: &str) {
        let patience = Instant::now() + PATIENCE;
        while !self.said().contains(words) {
            let ended = self.child.try_wait().unwrap();
            assert!(
                ended.is_none(),
                "{ended:?} before {words:?}: {}",
                self.said()
            );
            assert!(Instant::now() < patience, "no {words:?} in {}", self.said());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits for its end, within a time.
    #[track_caller]
    fn end(&mut self, patience: Duration) -> Option<i32> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "it hangs: {}", self.said());
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Of a test that failed; one that has ended is not there any more.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Expects each process to end with this code, promptly, and to say this.
#[track_caller]
fn expect(processes: &mut [Process], code: i32, words: &str) {
    let began = Instant::now();
    for process in processes {
        let ended = process.end(PROMPTLY.saturating_sub(began.elapsed()));
        let said = process.said();
        assert_eq!(ended, Some(code), "{said}");
        assert!(said.contains(words), "{words:?} in {said}");
    }
    let seconds = began.elapsed().as_secs_f64();
    println!("all ended within {seconds:.1} s: {words}");
}

/// Expects hosts that were started together to end with this code and to say this, soon after host
/// 0 waits for the others: they come about then.
#[track_caller]
fn expect_refused(processes: &mut [Process], words: &str) {
    processes[0].wait_to_say("waiting for 2 hosts on");
    let start = Instant::now();
    expect(processes, 2, words);
    let took = start.elapsed();
    assert!(took < SOON, "they took {took:?} to end");
}

/// Of each saved step, its arrays.
fn states(store: &Store) -> BTreeMap<u64, Checkpoint> {
    let steps = store.list().unwrap().into_iter();
    steps
        .map(|step| (step, store.load(step).unwrap()))
        .collect()
}

/// The states of an undisturbed run of one process that simulates the hosts.
fn undisturbed(hosts: &mut Hosts, steps: u64) -> BTreeMap<u64, Checkpoint> {
    hosts.run = "undisturbed";
    let command = hosts.command(None, steps, &["checkpoint.every=1", "checkpoint.keep=0"]);
    let mut process = hosts.run_command(0, command);
    assert_eq!(process.end(PATIENCE), Some(0), "{}", process.said());
    let states = states(&hosts.store());
    hosts.run = "run";
    states
}

#[test]
fn a_request_to_one_host_saves_the_same_step_on_all() {
    let hosts = Hosts::new(count());
    let last_host = hosts.hosts - 1;
    let evaluating = [
        "checkpoint.every=3",
        "evaluation.every=1",
        "evaluation.batches=50",
    ];
    let mut newest = 0;
    // Most of the time the first evaluates, and the second saves.
    for settings in [&evaluating[..], &["checkpoint.every=1"]] {
        let mut processes = hosts.start(100_000, settings);
        hosts.wait_for_step(newest + 3, &mut processes);
        processes[last_host].signal("-TERM");
        expect(&mut processes, 75, "stopped on request after step");
        newest = hosts.store().latest().unwrap().unwrap();
        for process in &processes {
            let said = process.said();
            assert!(said.contains(&format!("after step {newest},")), "{said}");
        }
        hosts.store().load(newest).unwrap();
    }
    // Before there is anything to save, all end at once.
    let mut processes = hosts.start(100_000, &[]);
    processes[last_host].wait_to_say("compiling the training step");
    processes[last_host].signal("-INT");
    expect(&mut processes, 75, "stopped on request after step");
    assert_eq!(hosts.store().latest().unwrap(), Some(newest));
}

#[test]
fn hosts_that_do_not_belong_together_say_so_on_each() {
    let hosts = Hosts::new(2);
    let start = |settings: [&str; 2]| -> Vec<Process> {
        let start = |(host, setting)| hosts.start_one(host, 4, &[setting]);
        settings.into_iter().enumerate().map(start).collect()
    };
    let mut other = start(["data.seed=1", "data.seed=2"]);
    expect_refused(
        &mut other,
        "its configuration is `seed = 2`, and host 0's is `seed = 1`",
    );
    // The same program, but for a byte at the end of its file.
    let command = hosts.command(Some(1), 4, &[]);
    let (program, copy) = (command.get_program(), hosts.bench.path("pretrain"));
    let copied = Command::new("sh")
        .args(["-c", "cp \"$0\" \"$1\" && printf x >> \"$1\""])
        .args([program, copy.as_os_str()])
        .status();
    assert!(copied.unwrap().success());
    let mut changed = Command::new(copy);
    changed.args(command.get_args());
    let mut other = [hosts.start_one(0, 4, &[]), hosts.run_command(1, changed)];
    expect_refused(&mut other, "cannot take part: its program file is `");
    let brief = "cluster.rendezvous_seconds=3";
    for host in [0, 1] {
        let start = Instant::now();
        let mut alone = [hosts.start_one(host, 4, &[brief])];
        let words = [
            "host 1 did not come within 3 s",
            "host 1 waited 3 s for host 0",
        ][host];
        expect(&mut alone, 1, words);
        let took = start.elapsed();
        assert!(took < Duration::from_secs(3) + SOON, "it took {took:?}");
    }
    let mut first = hosts.start_one(1, 4, &[]);
    first.wait_to_say("waiting for host 0");
    let start = Instant::now();
    let second = hosts.command(Some(1), 4, &[brief]).output().unwrap();
    let took = start.elapsed();
    assert!(took < SOON, "it took {took:?}");
    let said = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(1), "{said}");
    assert!(said.contains("is in use: it belongs to process"), "{said}");
    drop(first);
    let mut launches: Vec<Process> = Vec::new();
    for host in [0, 1] {
        let mut command = hosts.command(Some(host), 4, &[]);
        command.env("ANKH_LAUNCH", format!("launch {host}"));
        launches.push(hosts.run_command(host, command));
    }
    expect_refused(
        &mut launches,
        "its ANKH_LAUNCH is `launch 1`, and host 0's is `launch 0`",
    );
    // One path, and other data there.
    let data = hosts.bench.path("data");
    fs::remove_dir_all(&data).unwrap();
    std::os::unix::fs::symlink("/proc/self/cwd/data", &data).unwrap();
    for (host, proteins) in [(0, 32), (1, 64)] {
        let data = format!("host-{host}/data");
        hosts.bench.prepare(&data, proteins);
    }
    let start = |settings: &[&str]| -> Vec<Process> {
        let start = |host| {
            let mut command = hosts.command(Some(host), 4, settings);
            command.current_dir(hosts.bench.path(&format!("host-{host}")));
            hosts.run_command(host, command)
        };
        [0, 1].map(start).into()
    };
    expect(&mut start(&[]), 2, "host 1 has other data than host 0");
    // The same data to train on, and other sequences held out.
    let same = hosts.bench.path("host-0/data");
    let same = format!("mixture.all.dir={}", same.display());
    let mut other = start(&[&same, "mixture.all.weight=1", "evaluation.every=1"]);
    expect(&mut other, 2, "host 1 has other held-out data than host 0");
}

#[test]
fn a_host_that_hangs_is_noticed_and_the_run_goes_on_where_it_was() {
    let mut hosts = Hosts::new(2);
    let expected = undisturbed(&mut hosts, 12);
    let brief = [
        "checkpoint.every=1",
        "checkpoint.keep=0",
        "cluster.lost_after_seconds=2",
    ];
    // Slow enough to be caught on the way.
    let mut processes = hosts.start(100_000, &brief);
    hosts.wait_for_step(2, &mut processes);
    processes[1].signal("-STOP");
    expect(&mut processes[..1], 1, "host 1 (process");
    let said = processes[0].said();
    assert!(said.contains("is lost: it was not heard for 2 s"), "{said}");
    drop(processes);
    // And the newest step is damaged meanwhile: the hosts agree on the one before.
    let last = hosts.store().latest().unwrap().unwrap();
    let file = hosts
        .store()
        .directory_of(last)
        .join("encoder.final_norm/c/0");
    let file = file.local().unwrap();
    let mut bytes = fs::read(file).unwrap();
    bytes[3] ^= 1;
    fs::write(file, bytes).unwrap();
    let mut processes = hosts.start(last.max(12), &brief);
    for process in &mut processes {
        assert_eq!(process.end(PATIENCE), Some(0), "{}", process.said());
    }
    let said = processes[0].said();
    let words = format!("set aside as {}", hosts.store().directory());
    assert!(said.contains(&words), "{said}");
    let found = states(&hosts.store());
    for (step, state) in &expected {
        assert!(found[step].tensors == state.tensors, "step {step}");
    }
}

/// The disk is full for one host, which does not lead: no file of its process may grow beyond a
/// limit, which the chunks of its part do.
#[test]
fn a_host_that_cannot_write_its_part_fails_the_save_on_all_at_once_and_it_is_tried_again() {
    let hosts = Hosts::new(2);
    let settings = ["checkpoint.every=10"];
    let first = hosts.start_one(0, 100_000, &settings);
    // The system ends a program that does not ignore that a file is too long.
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' XFSZ; exec \"$@\"", "sh"]);
    let second = run_by(shell, &hosts.command(Some(1), 100_000, &settings));
    let mut processes = [first, hosts.run_command(1, second)];
    hosts.wait_for_step(10, &mut processes);
    let limit = |processes: &[Process], room: &str| {
        let id = processes[1].child.id().to_string();
        let limit = ["--pid", &id, &format!("--fsize={room}")];
        let set = Command::new("prlimit").args(limit).status().unwrap();
        assert!(set.success());
    };
    limit(&processes, "1024:unlimited");
    let start = Instant::now();
    let words = "cannot be saved: host 1 cannot write its part: cannot ";
    processes[0].wait_to_say(words);
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    // Training goes on, and nothing is saved until there is room.
    let newest = hosts.store().latest().unwrap().unwrap();
    let lines = hosts.bench.metrics_lines(hosts.run);
    let patience = Instant::now() + PATIENCE;
    while hosts.bench.metrics_lines(hosts.run) < lines + 50 {
        assert!(Instant::now() < patience, "{}", processes[0].said());
        std::thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(hosts.store().latest().unwrap(), Some(newest));
    limit(&processes, "unlimited");
    hosts.wait_for_step(newest + 1, &mut processes);
    processes[0].wait_to_say("is saved, after ");
    processes[1].signal("-TERM");
    expect(&mut processes, 75, "stopped on request after step");
    let store = hosts.store();
    store.load(store.latest().unwrap().unwrap()).unwrap();
    // Nothing that was begun and given up is left.
    let names = fs::read_dir(store.directory().local().unwrap()).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let names: Vec<String> = names.collect();
    assert!(
        names.iter().all(|name| name.starts_with("step_")),
        "{names:?}"
    );
    let log = fs::read_to_string(hosts.bench.path("run/worker-1/log.jsonl")).unwrap();
    assert!(log.contains("cannot be saved: cannot "), "{log}");
}

/// Kills training processes at random moments, again and again: of so many hosts, and so often, as
/// the environment says. Each host has a launcher, which starts its process again.
#[test]
fn whatever_is_killed_no_saved_step_is_lost_or_wrong() {
    let kills = number("KILLS").unwrap_or(3);
    let steps = 100 + 12 * kills;
    let mut hosts = Hosts::new(count());
    let expected = undisturbed(&mut hosts, steps);
    // Most of the time, what a start goes on from is in memory.
    let memory = hosts.bench.path("memory");
    let memory = format!("checkpoint.local_directory={}", memory.display());
    let settings = [
        "checkpoint.every=3",
        "checkpoint.keep=2",
        "checkpoint.local_minutes=0.005",
        &memory,
    ];
    let launch = |host| {
        let training = hosts.command(Some(host), steps, &settings);
        let mut command = Command::new(training.get_program());
        command
            .args(["launch", "--max-restarts", "1000"])
            .args(training.get_args());
        hosts.run_command(host, command)
    };
    let mut launchers: Vec<Process> = (0..hosts.hosts).map(launch).collect();
    let random = &mut Random(11);
    let (mut killed, mut newest) = (0, 0);
    let deadline = |patience| Instant::now() + patience;
    while killed < kills {
        // One moment in four is anywhere in a start; the others are in the steps.
        let pause = match random.below(4) {
            0 => random.uniform() * 10.0,
            _ => {
                let patience = deadline(PATIENCE);
                while hosts.store().latest().unwrap().unwrap_or(0) <= newest {
                    assert!(
                        Instant::now() < patience,
                        "no step after {newest}: it hangs"
                    );
                    std::thread::sleep(Duration::from_millis(2));
                }
                random.uniform()
            }
        };
        std::thread::sleep(Duration::from_secs_f64(pause));
        for _ in 0..=random.below(hosts.hosts as i64) {
            let victim = random.below(hosts.hosts as i64) as usize;
            let launcher = launchers[victim].child.id();
            let children = format!("/proc/{launcher}/task/{launcher}/children");
            for child in fs::read_to_string(children).unwrap().split_whitespace() {
                // It may have ended meanwhile.
                let sent = Command::new("kill")
                    .args(["-KILL", child])
                    .output()
                    .unwrap();
                killed += u64::from(sent.status.success());
            }
        }
        // Nothing that was saved is lost, and what is newest is whole and right.
        let (step, state) = newest_state(&hosts.store());
        assert!(
            step >= newest,
            "step {newest} is lost: the newest is {step}"
        );
        newest = step;
        if let Some(state) = state {
            assert!(expected[&step].tensors == state.tensors, "step {step}");
        }
    }
    // Enough: once all are back, what the run ends with is what it would have been.
    let patience = deadline(PATIENCE);
    while hosts.store().latest().unwrap().unwrap_or(0) <= newest.min(steps - 1) {
        assert!(
            Instant::now() < patience,
            "no step after {newest}: it hangs"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
    launchers[0].signal("-TERM");
    for launcher in &mut launchers {
        let ended = launcher.end(PATIENCE);
        let said = launcher.said();
        assert!(matches!(ended, Some(0 | 75)), "{ended:?}: {said}");
    }
    let (last, state) = newest_state(&hosts.store());
    let state = state.expect("a step is saved");
    assert!(last >= newest && state.tensors == expected[&last].tensors);
    println!("{killed} processes killed, {last} steps");
}

/// The newest saved step and its state, while others may be saving and removing.
fn newest_state(store: &Store) -> (u64, Option<Checkpoint>) {
    loop {
        let Some(step) = store.latest().unwrap() else {
            return (0, None);
        };
        match store.load(step) {
            Ok(state) => return (step, Some(state)),
            // Removed meanwhile, since newer ones have come.
            Err(_) if store.latest().unwrap() > Some(step) => {}
            Err(error) => panic!("{error}"),
        }
    }
}
