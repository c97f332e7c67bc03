//! Jobs on machines that are not here, through the binary: stand-ins for `gcloud`, `ssh`, `scp` and
//! `kubectl` check what they are asked and keep clouds and hosts in directories.

mod cloud;
mod desk;
mod gke;
mod hosts;

use std::fs;
use std::path::Path;

use serde_json::json;

use self::desk::Desk;
use crate::support::runs::{expect, text};

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
