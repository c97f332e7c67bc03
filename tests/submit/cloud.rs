//! Jobs on slices that Cloud TPU creates.

use std::fs;
use std::process::Stdio;

use serde_json::{Value, json};

use super::desk::{Desk, executable, wait_for};
use crate::support::runs::{expect, text};

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
    assert_eq!(pins, include_str!("../../deploy/plugins.json"));
}
