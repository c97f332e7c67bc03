//! Jobs on machines that are not here, through the binary: stand-ins for `gcloud`, `ssh`, `scp` and
//! `kubectl` check what they are asked and keep clouds and hosts in directories.

use std::fs;
use std::io::BufRead;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// A desk with stand-ins, and a world beyond it.
struct Desk(tempfile::TempDir);

/// The prepared data and the program of all jobs here.
const DATA: &str = "gs://proteins/uniref50";

/// The interpreter itself: what a version manager puts in its place takes long to start.
fn python() -> &'static str {
    static PYTHON: OnceLock<String> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let mut ask = Command::new("python3");
        let out = ask
            .args(["-c", "import sys; print(sys.executable)"])
            .output();
        text(&out.unwrap().stdout).trim().to_owned()
    })
}

/// Where the stand-in for gcloud is served, as long as this process lives.
fn port() -> u16 {
    static SERVER: OnceLock<(std::process::Child, u16)> = OnceLock::new();
    let start = || {
        let mut server = Command::new(python())
            .args(["-I", "-S"])
            .args(["server.py", "gcloud.py"].map(stand_in))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let out = server.stdout.take().expect("it is piped");
        std::io::BufReader::new(out).read_line(&mut line).unwrap();
        (server, line.trim().parse().unwrap())
    };
    SERVER.get_or_init(start).1
}

/// A file of the stand-ins.
fn stand_in(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("jobs/tests/stand_ins")
        .join(name)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn executable(path: &Path, content: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

impl Desk {
    fn new() -> Desk {
        let desk = Desk(tempfile::tempdir().unwrap());
        for (tool, script, first) in [
            ("ssh", "ssh.py", "ssh"),
            ("scp", "ssh.py", "scp"),
            ("kubectl", "kubectl.py", ""),
        ] {
            let run = format!("{} -I -S {}", python(), stand_in(script).display());
            let exec = format!("#!/bin/sh\nexec {run} {first} \"$@\"\n");
            executable(&desk.path("bin").join(tool), &exec);
        }
        let ask = stand_in("ask.sh");
        let ask = format!("#!/bin/bash\nPORT={}\n. {}\n", port(), ask.display());
        executable(&desk.path("bin/gcloud"), &ask);
        for (script, place) in [("curl.sh", "bin/curl"), ("pretrain.sh", "program")] {
            let content = fs::read_to_string(stand_in(script)).unwrap();
            executable(&desk.path(place), &content);
        }
        // Machines here have a libtpu.
        fs::create_dir_all(desk.path("root/lib")).unwrap();
        fs::write(desk.path("root/lib/libtpu.so"), "").unwrap();
        desk.put(DATA, "manifest.json", "{}");
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Where an object of the bucket is.
    fn object(&self, url: &str, name: &str) -> PathBuf {
        let key = url.strip_prefix("gs://").unwrap();
        self.path("world/bucket").join(key).join(name)
    }

    fn put(&self, url: &str, name: &str, content: &str) {
        let path = self.object(url, name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn scenario(&self, scenario: Value) {
        fs::create_dir_all(self.path("world")).unwrap();
        fs::write(self.path("world/scenario.json"), scenario.to_string()).unwrap();
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        let path = format!("{}:/usr/bin:/bin", self.path("bin").display());
        command
            .current_dir(self.0.path())
            .env_clear()
            .env("PATH", path)
            .env("HOME", self.path("home"))
            .env("STAND_IN", self.path("world"))
            .env("ANKH_ROOT", self.path("root"))
            .env("ANKH_SYSTEMD", "/nowhere")
            .env("ANKH_PAUSE", "0.1")
            .env("ANKH_RELAY_SECONDS", "0.3")
            .env("ANKH_JOBS_POLL_SECONDS", "0.02");
        command
    }

    fn pretrain(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(env!("CARGO_BIN_EXE_pretrain"));
        command.args(arguments);
        command
    }

    /// Submits to Cloud TPU.
    fn submit(&self, more: &[&str]) -> Command {
        let mut command = self.pretrain(&["submit", "--name", "large", "--slice", "v4-64"]);
        command.args([
            "--config",
            "tiny",
            "--data",
            DATA,
            "--program",
            "program",
            "--skip-plan",
        ]);
        command.args(["--run-dir", "gs://proteins/runs/large", "--project", "proj"]);
        command.args(["--zone", "us-central2-b"]).args(more);
        command
    }

    /// The names of the machines that were created, in order.
    fn created(&self) -> Vec<String> {
        let names = fs::read_to_string(self.path("world/created")).unwrap_or_default();
        assert!(!self.path("world/two-machines").exists());
        names.lines().map(str::to_owned).collect()
    }

    /// The machine that there is.
    fn machine(&self) -> Option<Value> {
        let text = fs::read_to_string(self.path("world/queue/large.json")).ok()?;
        Some(serde_json::from_str(&text).unwrap())
    }

    fn calls(&self) -> Vec<Vec<String>> {
        let calls = fs::read_to_string(self.path("world/calls")).unwrap_or_default();
        calls
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    fn status(&self) -> Value {
        let out = self
            .pretrain(&["status", "large", "--json"])
            .env("STILL", "1")
            .output();
        let out = expect(out.unwrap(), 0, &[]);
        serde_json::from_str(&out).unwrap()
    }
}

#[track_caller]
fn expect(output: Output, exit: i32, words: &[&str]) -> String {
    let all = text(&output.stdout) + &text(&output.stderr);
    assert_eq!(output.status.code(), Some(exit), "{all}");
    for word in words {
        assert!(all.contains(word), "expected {word:?} in {all}");
    }
    all
}

/// Waits until something is so.
#[track_caller]
fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "{what} does not come"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn the_examples_of_the_help_run() {
    let desk = Desk::new();
    desk.scenario(json!({ "ends": [0] }));
    fs::write(desk.path("hosts.txt"), "tpu-host\n").unwrap();
    let command = ankh::cli::command();
    for name in ["submit", "status", "logs", "runs", "stop"] {
        let help = command.find_subcommand(name).unwrap().get_after_help();
        let help = help.unwrap().to_string().replace("\\\n    ", "");
        let help = help
            .replace("BUCKET", "proteins")
            .replace("PROJECT", "proj");
        let examples = help
            .lines()
            .filter_map(|line| line.trim().strip_prefix("pretrain "));
        let mut found = 0;
        for example in examples {
            let mut arguments: Vec<&str> = example.split_whitespace().collect();
            if name == "submit" {
                arguments.extend(["--program", "program", "--skip-plan"]);
            }
            expect(desk.pretrain(&arguments).output().unwrap(), 0, &[]);
            found += 1;
        }
        assert!(found > 0, "the help of {name} has an example");
    }
    assert_eq!(desk.created(), ["large"]);
}

#[test]
fn a_dry_run_prints_all_that_would_be_done() {
    let desk = Desk::new();
    fs::write(desk.path("hosts.txt"), "tpu@10.0.0.2\ntpu@10.0.0.3\n").unwrap();
    fs::write(desk.path("program"), "a program\n").unwrap();
    let common = [
        "submit",
        "--config",
        "ankh-large-packed",
        "--data",
        "gs://BUCKET/uniref50",
        "--dry-run",
    ];
    let places: [(&str, &[&str]); 3] = [
        (
            "v4-64",
            &[
                "--name",
                "large",
                "--slice",
                "v4-64",
                "--run-dir",
                "gs://BUCKET/runs/large",
                "--program",
                "program",
                "--project",
                "PROJECT",
                "--zone",
                "us-central2-b",
                "--spot",
                "--network",
                "NETWORK",
                "--service-account",
                "ankh@PROJECT.iam.gserviceaccount.com",
            ],
        ),
        (
            "hosts",
            &[
                "--name",
                "large",
                "--slice",
                "v4-16",
                "--run-dir",
                "/mnt/runs/large",
                "--program",
                "program",
                "--hosts",
                "hosts.txt",
            ],
        ),
        (
            "gke",
            &[
                "--name",
                "large",
                "--slice",
                "v4-64",
                "--gke",
                "--image",
                "registry.example.com/ankh:0.1.0",
                "--claim",
                "runs",
            ],
        ),
    ];
    let state = "/home/you/.local/state";
    for (place, arguments) in places {
        let mut dry = desk.pretrain(&common);
        dry.args(arguments).env("XDG_STATE_HOME", state);
        let out = dry.env("ANKH_JOBS_POLL_SECONDS", "30").output().unwrap();
        let found = text(&out.stdout);
        expect(out, 0, &[]);
        let file = format!("tests/golden/submit/{place}.txt");
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        if std::env::var_os("WRITE_GOLDENS").is_some() {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, &found).unwrap();
        }
        let expected = fs::read_to_string(&file).unwrap();
        let differs = found.lines().zip(expected.lines()).find(|(f, e)| f != e);
        assert!(
            found == expected,
            "{} says otherwise, first at (found, expected) {differs:#?}; if it should change, \
             WRITE_GOLDENS=1 cargo test --test submit",
            file.display()
        );
    }
    assert!(desk.calls().is_empty());
    assert!(!desk.path("home").exists());
}

#[test]
fn a_slice_that_is_taken_away_twice_is_created_again_until_the_run_is_done() {
    let desk = Desk::new();
    desk.scenario(json!({ "ends": ["suspended", "preempted", 0] }));
    let words = [
        "SUSPENDED",
        "PREEMPTED",
        "created again",
        "large is finished",
    ];
    expect(desk.submit(&[]).output().unwrap(), 0, &words);
    assert_eq!(desk.created(), ["large"; 3]);
    assert_eq!(desk.status()["state"], "finished");
    // Its machine is removed, which takes a while.
    assert_eq!(desk.machine().unwrap()["state"], "DELETING");
    // A run that is finished is not begun again.
    expect(
        desk.submit(&[]).output().unwrap(),
        0,
        &["large is finished"],
    );
    assert_eq!(desk.created().len(), 3);
    // One that differs takes its place when that is said.
    let more = ["--set", "train.steps=21"];
    expect(desk.submit(&more).output().unwrap(), 2, &["train.steps"]);
    let more = [&more[..], &["--update"]].concat();
    expect(
        desk.submit(&more).output().unwrap(),
        0,
        &["large is finished"],
    );
    assert_eq!(desk.created().len(), 4);
    let asked = desk.calls().concat().join(" ");
    assert!(
        asked.contains("--accelerator-type=v4-64") && asked.contains("--spot"),
        "{asked}"
    );
}

#[test]
fn what_is_wrong_is_said_before_anything_is_created() {
    let desk = Desk::new();
    let cases: [(Value, &[&str], &[&str]); 10] = [
        (
            json!({ "account": "" }),
            &[],
            &["gcloud: nobody is signed in", "gcloud auth login"],
        ),
        (
            json!({ "project": "other" }),
            &[],
            &["project: proj cannot be used"],
        ),
        (
            json!({ "zones": ["us-central2-c"] }),
            &[],
            &["there are no TPUs in us-central2-b", "us-central2-c"],
        ),
        (
            json!({ "types": ["v4-8", "v5p-8"] }),
            &[],
            &["us-central2-b has no v4-64", "has v4-8"],
        ),
        (
            json!({ "quota": 16 }),
            &[],
            &[
                "quota: TPUV4Preemptible",
                "is 16 in us-central2-b",
                "32 chips",
            ],
        ),
        (
            json!({ "bucket": null }),
            &[],
            &["bucket: gs://proteins cannot be used", "buckets create"],
        ),
        (
            json!({ "bucket": "US-EAST1" }),
            &[],
            &["gs://proteins is in us-east1", "--any-region"],
        ),
        (
            json!({}),
            &["--data", "gs://proteins/nothing"],
            &["gs://proteins/nothing has no manifest.json"],
        ),
        (json!({}), &["--set", "train.stepz=3"], &["stepz", "steps"]),
        (
            json!({ "refuse": { "0": "RESOURCE_EXHAUSTED: Quota 'TPUV4' exhausted. Limit 0" } }),
            &[],
            &["Limit 0"],
        ),
    ];
    for (number, (scenario, arguments, words)) in cases.into_iter().enumerate() {
        desk.scenario(scenario);
        let mut command = desk.submit(&[]);
        if arguments.first() == Some(&"--data") {
            command = desk.pretrain(&[
                "submit", "--name", "large", "--slice", "v4-64", "--config", "tiny",
            ]);
            command.args(["--program", "program", "--skip-plan", "--project", "proj"]);
            command.args([
                "--zone",
                "us-central2-b",
                "--run-dir",
                "gs://proteins/runs/large",
            ]);
        }
        let is_refused = number == 9;
        let out = command.args(arguments).output().unwrap();
        let all = expect(out, if is_refused { 1 } else { 2 }, words);
        assert_eq!(all.matches("error: ").count(), 1, "{all}");
        assert!(desk.created().is_empty());
        if !is_refused {
            assert!(!desk.path("world/bucket/proteins/runs").exists(), "{all}");
            assert!(!desk.path("home").exists(), "{all}");
        }
    }
    fs::remove_file(desk.path("bin/gcloud")).unwrap();
    let mut alone = desk.submit(&[]);
    expect(
        alone.env("PATH", desk.path("bin")).output().unwrap(),
        1,
        &["gcloud cannot be started", "install"],
    );
}

#[test]
fn a_submit_that_is_killed_at_any_call_and_typed_again_is_one_run() {
    let scenario = json!({ "ends": ["suspended", 0], "lives": 0, "quick": true });
    let whole = Desk::new();
    whole.scenario(scenario.clone());
    expect(whole.submit(&[]).output().unwrap(), 0, &[]);
    // Each call that is another one, before it is carried out, and after it where it changes
    // something.
    let calls = whole.calls();
    let mut kills = Vec::new();
    for (number, call) in calls.iter().enumerate() {
        let changes = ["cp", "rm", "create", "delete"];
        let changes = call.iter().any(|word| changes.contains(&word.as_str()));
        if changes || !calls[..number].contains(call) {
            kills.push(format!("{} before", number + 1));
        }
        if changes {
            kills.push(format!("{} after", number + 1));
        }
    }
    assert!(kills.len() > 25, "{kills:?}");
    let kills = std::sync::Mutex::new(kills);
    let kill = || {
        while let Some(kill) = { kills.lock().unwrap().pop() } {
            let desk = Desk::new();
            desk.scenario(scenario.clone());
            let killed = desk.submit(&[]).env("KILL", &kill).output().unwrap();
            assert_eq!(
                killed.status.code(),
                None,
                "{kill}: {}",
                text(&killed.stderr)
            );
            expect(
                desk.submit(&[]).output().unwrap(),
                0,
                &["large is finished"],
            );
            assert_eq!(desk.created().len(), 2, "killed at {kill}");
            assert_eq!(desk.status()["state"], "finished");
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(kill);
        kill();
    });
}

#[test]
fn the_status_is_what_is_true_and_unknown_what_cannot_be_asked() {
    let desk = Desk::new();
    desk.scenario(json!({}));
    expect(
        desk.submit(&["--detach"]).output().unwrap(),
        0,
        &["large is started"],
    );
    let first = desk.machine().unwrap();
    let set = |state: &str, node: &str| {
        let mut machine = first.clone();
        machine["state"] = state.into();
        machine["node"] = node.into();
        fs::write(desk.path("world/queue/large.json"), machine.to_string()).unwrap();
    };
    let word = || desk.status()["state"].as_str().unwrap().to_owned();
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let hosts = |count: usize, at: u64| {
        let _ = fs::remove_dir_all(desk.object("gs://proteins/runs/large", "job/hosts"));
        for host in 0..count {
            let mark = json!({"host": host, "state": "running", "at": at, "code": null});
            desk.put(
                "gs://proteins/runs/large",
                &format!("job/hosts/{host}.json"),
                &format!("{mark}\n"),
            );
        }
    };
    for (state, node, expected) in [
        ("ACCEPTED", "READY", "waiting"),
        ("WAITING_FOR_RESOURCES", "READY", "waiting"),
        ("PROVISIONING", "READY", "waiting"),
        ("ACTIVE", "CREATING", "waiting"),
        ("ACTIVE", "READY", "starting"),
        ("ACTIVE", "PREEMPTED", "preempted"),
        ("ACTIVE", "TERMINATED", "preempted"),
        ("SUSPENDING", "READY", "preempted"),
        ("SUSPENDED", "READY", "preempted"),
        ("FAILED", "READY", "preempted"),
    ] {
        set(state, node);
        assert_eq!(word(), expected, "{state} {node}");
    }
    set("ACTIVE", "READY");
    hosts(4, now);
    assert_eq!(desk.status()["detail"], "4 of 8 hosts started");
    hosts(8, now);
    assert_eq!(word(), "running");
    desk.put(
        "gs://proteins/runs/large",
        "job/hosts/7.json",
        &json!({"host": 7, "state": "running", "at": now - 400, "code": null}).to_string(),
    );
    assert_eq!(
        desk.status()["detail"],
        "1 of 8 hosts not heard for 5 minutes"
    );
    assert_eq!(word(), "unknown");
    hosts(8, now - 3600);
    assert_eq!(word(), "unknown");
    desk.scenario(json!({ "down": true }));
    let status = desk.status();
    assert_eq!(status["state"], "unknown");
    assert!(
        status["detail"]
            .as_str()
            .unwrap()
            .contains("no route to host"),
        "{status}"
    );
    desk.scenario(json!({}));
    hosts(8, now);
    desk.put(
        "gs://proteins/runs/large",
        "run/metrics.jsonl",
        "{\"step\":1}\n{\"step\":20,\"loss\":2.5}\n{\"st",
    );
    let out = desk
        .pretrain(&["status", "large"])
        .env("STILL", "1")
        .output()
        .unwrap();
    expect(
        out,
        0,
        &["large: running, on 8 hosts", "step 20  loss 2.5000"],
    );
    let out = desk.pretrain(&["runs"]).env("STILL", "1").output().unwrap();
    expect(out, 0, &["large  running  v4-64  us-central2-b", "step 20"]);
    let out = desk
        .pretrain(&["runs", "--json"])
        .env("STILL", "1")
        .output()
        .unwrap();
    let runs: Value = serde_json::from_str(&text(&out.stdout)).unwrap();
    assert_eq!(runs["runs"][0]["status"]["state"], "running");
    fs::remove_file(desk.path("world/queue/large.json")).unwrap();
    assert_eq!(word(), "down");
    expect(
        desk.pretrain(&["status", "other"]).output().unwrap(),
        2,
        &["no job other", "pretrain runs"],
    );
}

#[test]
fn a_name_stands_for_one_job() {
    let desk = Desk::new();
    desk.scenario(json!({ "lives": 1000 }));
    expect(desk.submit(&["--detach"]).output().unwrap(), 0, &[]);
    // From here, and from another desk.
    let other = ["--detach", "--set", "train.seed=7"];
    let words = ["train.seed is 0 there and 7 here", "--update"];
    for home in ["home", "another"] {
        let mut again = desk.submit(&other);
        let out = again.env("HOME", desk.path(home)).output().unwrap();
        let all = expect(out, 2, &words);
        assert!(!all.contains("train.steps"), "{all}");
    }
    // While it runs, nothing takes its place.
    let update = [&other[..], &["--update"]].concat();
    expect(desk.submit(&update).output().unwrap(), 2, &words[..1]);
    expect(
        desk.pretrain(&["stop", "large"]).output().unwrap(),
        0,
        &["large is stopped"],
    );
    expect(
        desk.submit(&update).output().unwrap(),
        0,
        &["large is started"],
    );
    assert_eq!(desk.created().len(), 2);
    // What is of another job is left alone.
    let mut machine = desk.machine().unwrap();
    machine["labels"] = json!({});
    fs::write(desk.path("world/queue/large.json"), machine.to_string()).unwrap();
    expect(
        desk.submit(&update).output().unwrap(),
        2,
        &["not of this job", "another --name"],
    );
    expect(desk.submit(&["--name", "Large"]).output().unwrap(), 2, &[]);
}

#[test]
fn a_machine_that_does_not_come_is_asked_for_again_and_then_given_up() {
    // It still counts after it was taken away.
    let desk = Desk::new();
    let exhausted =
        "RESOURCE_EXHAUSTED: Quota 'TPUV4Preemptible' exhausted. Limit 64 in zone us-central2-b";
    desk.scenario(json!({ "ends": ["suspended", 0], "refuse": { "1": exhausted } }));
    let words = ["cannot be created yet", "exhausted", "large is finished"];
    expect(desk.submit(&[]).output().unwrap(), 0, &words);
    assert_eq!(desk.created().len(), 2);
    // Half of the hosts never start.
    let desk = Desk::new();
    desk.scenario(json!({ "ends": ["half", 0] }));
    let words = [
        "hosts 4, 5, 6, 7 have not started; the machine is removed",
        "large is finished",
    ];
    expect(desk.submit(&[]).output().unwrap(), 0, &words);
    // There never is a slice.
    let desk = Desk::new();
    desk.scenario(json!({ "ends": ["failed"] }));
    let words = [
        "the machine failed 5 times in a row",
        "no more capacity in the zone",
    ];
    expect(desk.submit(&[]).output().unwrap(), 1, &words);
    assert_eq!(desk.created().len(), 5);
}

#[test]
fn a_run_that_fails_ends_its_machine_and_its_submit_with_the_same_code() {
    let desk = Desk::new();
    desk.scenario(json!({ "ends": [3, 0] }));
    let words = [
        "large ended with exit code 3 on host 0",
        "pretrain logs large",
    ];
    expect(desk.submit(&[]).output().unwrap(), 3, &words);
    let status = desk.status();
    assert_eq!(
        (&status["state"], desk.machine().unwrap()["state"].as_str()),
        (&json!("failed"), Some("DELETING"))
    );
    // The same command tries again.
    expect(
        desk.submit(&[]).output().unwrap(),
        0,
        &["it is tried again", "large is finished"],
    );
}

#[test]
fn a_stop_saves_removes_the_machine_and_ends_whoever_watches() {
    let desk = Desk::new();
    desk.scenario(json!({ "lives": 1_000_000 }));
    let mut watching = desk.submit(&[]);
    let watching = watching
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for("the machine", || {
        desk.machine()
            .is_some_and(|machine| machine["state"] == "ACTIVE")
    });
    // Two at a time are one too many.
    expect(
        desk.submit(&[]).output().unwrap(),
        1,
        &["another process on this machine submits"],
    );
    expect(
        desk.pretrain(&["stop", "large"]).output().unwrap(),
        0,
        &["asked to save", "large is stopped"],
    );
    assert!(desk.path("world/saved").exists() && desk.machine().is_none());
    expect(
        watching.wait_with_output().unwrap(),
        75,
        &["large was stopped"],
    );
    assert_eq!(
        (desk.created().len(), desk.status()["state"].as_str()),
        (1, Some("stopped"))
    );
    // Where not all can be asked, nothing is removed without a word.
    expect(desk.submit(&["--detach"]).output().unwrap(), 0, &[]);
    wait_for("the machine", || {
        let _ = desk.pretrain(&["status", "large"]).output();
        desk.machine()
            .is_some_and(|machine| machine["state"] == "ACTIVE")
    });
    desk.scenario(json!({ "lives": 1_000_000, "ssh": "half" }));
    expect(
        desk.pretrain(&["stop", "large"]).output().unwrap(),
        1,
        &["4 of 8 workers"],
    );
    assert!(desk.machine().is_some());
    expect(
        desk.pretrain(&["stop", "large", "--now"]).output().unwrap(),
        0,
        &[],
    );
    assert!(desk.machine().is_none());
}

#[test]
fn the_logs_of_all_hosts_come_by_time() {
    let desk = Desk::new();
    desk.scenario(json!({ "lives": 1000 }));
    expect(desk.submit(&["--detach"]).output().unwrap(), 0, &[]);
    for (host, log) in [(0, "10.5 first\n12.25 third\n"), (3, "11.0 second\n")] {
        fs::create_dir_all(desk.path("world/logs")).unwrap();
        fs::write(desk.path(&format!("world/logs/{host}.log")), log).unwrap();
    }
    wait_for("the machine", || {
        desk.status()["state"] != "waiting" || {
            let _ = desk.pretrain(&["status", "large"]).output();
            false
        }
    });
    let expected = "host 0 | first\nhost 3 | second\nhost 0 | third\n";
    let out = desk.pretrain(&["logs", "large"]).output().unwrap();
    assert_eq!(text(&out.stdout), expected, "{}", text(&out.stderr));
    // When the machine is gone, what was mirrored is left.
    fs::remove_file(desk.path("world/queue/large.json")).unwrap();
    desk.put(
        "gs://proteins/runs/large",
        "logs/host-1.log",
        "20.0 mirrored\n",
    );
    let out = desk.pretrain(&["logs", "large"]).output().unwrap();
    assert_eq!(text(&out.stdout), "host 1 | mirrored\n");
}

/// Submits to two hosts, on which the scripts are really run.
fn submit_to_hosts(desk: &Desk, run_dir: &str, more: &[&str]) -> Command {
    fs::write(desk.path("hosts.txt"), "h0\nh1 # the second\n").unwrap();
    for host in ["h0", "h1"] {
        fs::create_dir_all(desk.path("world/hosts").join(host)).unwrap();
    }
    let mut command = desk.pretrain(&[
        "submit", "--name", "large", "--slice", "v4-16", "--config", "tiny",
    ]);
    command.args([
        "--data",
        DATA,
        "--program",
        "program",
        "--skip-plan",
        "--hosts",
        "hosts.txt",
    ]);
    command.args(["--run-dir", run_dir]).args(more);
    command
}

#[test]
fn a_run_on_own_hosts_is_started_on_all_or_none_and_can_be_stopped_and_finished() {
    let desk = Desk::new();
    let run_dir = desk.path("shared/run");
    let run_dir = run_dir.to_str().unwrap();
    let submit = |more: &[&str]| submit_to_hosts(&desk, run_dir, more).output().unwrap();
    let job =
        |host: &str, file: &str| desk.path(&format!("world/hosts/{host}/.ankh/jobs/large/{file}"));
    submit_to_hosts(&desk, run_dir, &[]);
    // One of two cannot be reached.
    fs::write(desk.path("world/hosts/h1/unreachable"), "").unwrap();
    expect(
        submit(&[]),
        1,
        &[
            "1 of 2 hosts: cannot be used: h1",
            "No route to host",
            "without a question",
        ],
    );
    assert!(!job("h0", "host.sh").exists());
    fs::remove_file(desk.path("world/hosts/h1/unreachable")).unwrap();
    // One of two cannot be started.
    fs::write(desk.path("world/hosts/h1/refuses"), "host.sh start").unwrap();
    expect(
        submit(&["--detach"]),
        1,
        &["1 of 2 hosts: cannot be started: h1"],
    );
    wait_for("the end of host 0", || desk.status()["state"] != "starting");
    fs::remove_file(desk.path("world/hosts/h1/refuses")).unwrap();
    // Another slice has other hosts.
    expect(submit(&["--slice", "v4-64"]), 2, &[]);
    expect(submit(&["--detach"]), 0, &["large is started"]);
    wait_for("a log of both", || {
        let out = desk.pretrain(&["logs", "large"]).output().unwrap();
        let out = text(&out.stdout);
        out.contains("host 0 | started on h0") && out.contains("host 1 | started on h1")
    });
    let status = desk.status();
    assert_eq!(
        (&status["state"], &status["metrics"]["step"]),
        (&json!("running"), &json!(10)),
        "{status}"
    );
    // A second time, nothing is begun and nothing is copied.
    let before = desk.calls().len();
    expect(submit(&["--detach"]), 0, &[]);
    assert!(desk.calls()[before..].iter().all(|call| call[0] == "ssh"));
    let starts = fs::read_to_string(job("h0", "host-0.log")).unwrap();
    assert_eq!(starts.matches("started on h0").count(), 2, "{starts}");
    // What differs is refused while it runs.
    let other = ["--detach", "--set", "train.seed=7"];
    expect(submit(&other), 2, &["train.seed is 0 there and 7 here"]);
    // A host that cannot be asked is not known.
    fs::write(desk.path("world/hosts/h1/unreachable"), "").unwrap();
    let status = desk.status();
    assert_eq!(
        (&status["state"], &status["hosts"][1]["state"]),
        (&json!("unknown"), &json!("unreachable"))
    );
    fs::remove_file(desk.path("world/hosts/h1/unreachable")).unwrap();
    expect(
        desk.pretrain(&["stop", "large"]).output().unwrap(),
        0,
        &["large is stopped"],
    );
    assert_eq!(desk.status()["state"], "stopped");
    let log = fs::read_to_string(job("h1", "host-1.log")).unwrap();
    assert!(
        log.contains("saved on request") && log.contains("exit code 75"),
        "{log}"
    );
    // It goes on, is watched, and a host that was killed is started again.
    let mut watching = submit_to_hosts(&desk, run_dir, &[]);
    let watching = watching
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for("the run", || desk.status()["state"] == "running");
    let pid = fs::read_to_string(job("h1", "run.pid")).unwrap();
    let group = format!("-{}", pid.trim());
    assert!(
        Command::new("kill")
            .args(["-KILL", "--", &group])
            .status()
            .unwrap()
            .success()
    );
    wait_for("another start", || {
        let log = fs::read_to_string(job("h1", "host-1.log")).unwrap();
        log.matches("started on h1").count() == 3
    });
    fs::write(desk.path("world/finish"), "3").unwrap();
    let words = [
        "h1 is down: it is started again",
        "large ended with exit code 3",
    ];
    expect(watching.wait_with_output().unwrap(), 3, &words);
    // What is tried again is not judged by its earlier end.
    fs::remove_file(desk.path("world/finish")).unwrap();
    expect(submit(&["--detach"]), 0, &[]);
    assert_eq!(desk.status()["state"], "running");
    fs::write(desk.path("world/finish"), "0").unwrap();
    expect(submit(&[]), 0, &["large is finished"]);
}

#[test]
fn a_submit_to_hosts_that_is_killed_and_typed_again_starts_each_once() {
    // While it checks, brings files and starts.
    for kill in ["6", "14", "24"] {
        let desk = Desk::new();
        let run_dir = desk.path("shared/run");
        let submit = || submit_to_hosts(&desk, run_dir.to_str().unwrap(), &["--detach"]);
        let killed = submit().env("KILL", kill).output().unwrap();
        assert_eq!(
            killed.status.code(),
            None,
            "{kill}: {}",
            text(&killed.stderr)
        );
        expect(submit().output().unwrap(), 0, &["large is started"]);
        let logs = || text(&desk.pretrain(&["logs", "large"]).output().unwrap().stdout);
        wait_for("both hosts", || logs().matches("started on").count() >= 2);
        fs::write(desk.path("world/finish"), "0").unwrap();
        wait_for("the end", || desk.status()["state"] == "finished");
        for host in ["h0", "h1"] {
            let started = format!("started on {host}\n");
            assert_eq!(
                logs().matches(&started).count(),
                1,
                "killed at {kill}: {}",
                logs()
            );
        }
    }
}

#[test]
fn hosts_without_a_shared_directory_are_told_or_pass_on_through_the_bucket() {
    let desk = Desk::new();
    submit_to_hosts(&desk, "/mnt/run", &[]);
    // Each host has a directory of its own there: the mark of the first is not seen by the second.
    fs::write(desk.path("world/hosts/h1/refuses"), "test -e").unwrap();
    let parent = desk.path("apart/run");
    let out = submit_to_hosts(&desk, parent.to_str().unwrap(), &[])
        .output()
        .unwrap();
    expect(out, 2, &["of h0 is not that of h1", "gs://BUCKET/KEY"]);
    fs::remove_file(desk.path("world/hosts/h1/refuses")).unwrap();
    let mut submit = submit_to_hosts(&desk, "gs://proteins/runs/large", &[]);
    let submit = submit
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // What host 0 tells the others in its run directory comes to host 1.
    let told = |host: &str| {
        desk.path(&format!(
            "world/hosts/{host}/.ankh/jobs/large/run/.cluster/coordinator.json"
        ))
    };
    wait_for("the invitation on host 1", || told("h1").exists());
    let [own, others] = ["h0", "h1"].map(|host| fs::read_to_string(told(host)).unwrap());
    assert_eq!(own, others);
    let mode = fs::metadata(told("h1")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    fs::write(desk.path("world/finish"), "0").unwrap();
    expect(
        submit.wait_with_output().unwrap(),
        0,
        &["large is finished"],
    );
    // The run directory is mirrored, without what is secret or of one process.
    let run = "gs://proteins/runs/large";
    assert!(desk.object(run, "run/metrics.jsonl").exists());
    assert!(!desk.object(run, "run/.cluster").exists());
    let ended = fs::read_to_string(desk.object(run, "job/ended.json")).unwrap();
    let ended: Value = serde_json::from_str(&ended).unwrap();
    assert_eq!((&ended["code"], &ended["host"]), (&json!(0), &json!(0)));
    assert!(desk.object(run, "logs/host-1.log").exists());
    // The invitation is in no argument of any command.
    assert!(
        !desk
            .calls()
            .concat()
            .iter()
            .any(|argument| argument.contains("127.0.0.1:1"))
    );
}

#[test]
fn a_machine_that_starts_has_the_files_checked_and_the_service_started() {
    let desk = Desk::new();
    desk.scenario(json!({ "lives": 1000 }));
    expect(desk.submit(&["--detach"]).output().unwrap(), 0, &[]);
    // The script as the machine gets it, with another root directory.
    let script = desk.machine().unwrap()["script"]
        .as_str()
        .unwrap()
        .to_owned();
    let home = desk.path("root/opt/ankh/large");
    let script = script.replace(
        "ANKH_HOME=/opt/ankh/large",
        &format!("ANKH_HOME={}", home.display()),
    );
    fs::write(desk.path("startup.sh"), &script).unwrap();
    let systemctl =
        "#!/bin/sh\n[ $1 = is-active ] && exit 3\necho \"$@\" >>\"$STAND_IN/systemctl\"\n";
    executable(&desk.path("bin/systemctl"), systemctl);
    let start = || {
        let mut command = desk.command("bash");
        command
            .arg("startup.sh")
            .env("ANKH_ATTEMPTS", "2")
            .env("ANKH_SYSTEMD", "/");
        command
            .env("STAND_IN_HOST", "h5")
            .env("HOME", desk.path("root/root"));
        command.output().unwrap()
    };
    // A program that was changed on the way is not run.
    let source = script
        .split("ANKH_SOURCE=")
        .nth(1)
        .unwrap()
        .lines()
        .next()
        .unwrap();
    let program = desk.object(source, "pretrain");
    let good = fs::read(&program).unwrap();
    fs::write(&program, "another").unwrap();
    expect(start(), 1, &["pretrain: FAILED", "attempt 2"]);
    assert!(!desk.path("world/systemctl").exists());
    fs::write(&program, &good).unwrap();
    expect(start(), 0, &["pretrain 0.1.0", "the job is started"]);
    assert_eq!(fs::read(home.join("pretrain")).unwrap(), good);
    assert_eq!(fs::read_to_string(home.join("host")).unwrap().trim(), "5");
    let unit = desk.path("root/etc/systemd/system/ankh-large.service");
    let unit = fs::read_to_string(unit).unwrap();
    let run = format!("ExecStart=/bin/bash {}/run.sh\n", home.display());
    assert!(
        unit.contains(&run) && unit.contains("RestartPreventExitStatus=1 2 3\n"),
        "{unit}"
    );
    let told = fs::read_to_string(desk.path("world/systemctl")).unwrap();
    assert_eq!(told, "daemon-reload\nstart ankh-large.service\n");
    // When the machine is started again, nothing is fetched again.
    let before = desk.calls().len();
    expect(start(), 0, &[]);
    let fetched = desk.calls().split_off(before);
    assert!(!fetched.iter().any(|call| call[1] == "cp"), "{fetched:?}");
    // Where the image has no libtpu, the pinned one is fetched.
    fs::remove_file(desk.path("root/lib/libtpu.so")).unwrap();
    let python = "#!/bin/sh\necho \"$@\" >\"$STAND_IN/python\"\nmkdir -p plugins/tpu\n: >plugins/tpu/libtpu.so\n";
    executable(&desk.path("bin/python3"), python);
    expect(start(), 0, &[]);
    assert_eq!(
        fs::read_to_string(desk.path("world/python")).unwrap(),
        "deploy/fetch_plugin.py tpu\n"
    );
    let pins = fs::read_to_string(home.join("deploy/plugins.json")).unwrap();
    assert_eq!(pins, include_str!("../deploy/plugins.json"));
}

#[test]
fn a_run_on_gke_is_applied_once_and_watched_to_its_end() {
    let desk = Desk::new();
    fs::create_dir_all(desk.path("world")).unwrap();
    let submit = |more: &[&str]| {
        let mut command = desk.pretrain(&[
            "submit", "--name", "large", "--slice", "v4-64", "--config", "tiny",
        ]);
        command
            .args(["--data", DATA, "--skip-plan", "--gke", "--image", "ankh:1"])
            .args(more);
        command.output().unwrap()
    };
    let claim = ["--claim", "runs"];
    expect(submit(&[]), 2, &["need a claim of a volume"]);
    for (file, words) in [
        ("no-jobsets", "knows no JobSets"),
        ("no-claim", "runs cannot be used"),
    ] {
        fs::write(desk.path("world").join(file), "").unwrap();
        expect(submit(&claim), 2, &[words]);
        fs::remove_file(desk.path("world").join(file)).unwrap();
    }
    assert!(desk.created().is_empty());
    expect(
        submit(&["--claim", "runs", "--detach"]),
        0,
        &["large is started"],
    );
    expect(
        submit(&["--claim", "runs", "--set", "train.seed=7"]),
        2,
        &["train.seed is 0 there and 7 here"],
    );
    expect(
        submit(&claim),
        0,
        &[
            "running: all pods are ready, started again once",
            "large is finished",
        ],
    );
    assert_eq!(desk.created(), ["large"]);
    let out = desk.pretrain(&["logs", "large"]).output().unwrap();
    assert_eq!(text(&out.stdout), "host 0 | first\nhost 1 | second\n");
    expect(desk.pretrain(&["stop", "large"]).output().unwrap(), 0, &[]);
    assert_eq!(desk.status()["state"], "down");
}
