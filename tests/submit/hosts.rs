//! Jobs on hosts that one has.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::desk::{DATA, Desk, wait_for};
use crate::support::runs::{expect, text};

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
