//! Jobs on GKE.

use std::fs;

use super::desk::{DATA, Desk};
use crate::support::runs::{expect, text};

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
