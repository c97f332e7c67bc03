//! A desk with stand-ins for the tools, and the world that they keep in directories.

use std::fs;
use std::io::BufRead;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::runs::{expect, text};

/// A desk with stand-ins, and a world beyond it.
pub struct Desk(tempfile::TempDir);

/// The prepared data and the program of all jobs here.
pub const DATA: &str = "gs://proteins/uniref50";

/// The interpreter itself: what a version manager puts in its place takes long to start.
pub fn python() -> &'static str {
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
pub fn port() -> u16 {
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
pub fn stand_in(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("jobs/tests/stand_ins")
        .join(name)
}

pub fn executable(path: &Path, content: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

impl Desk {
    pub fn new() -> Desk {
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

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Where an object of the bucket is.
    pub fn object(&self, url: &str, name: &str) -> PathBuf {
        let key = url.strip_prefix("gs://").unwrap();
        self.path("world/bucket").join(key).join(name)
    }

    pub fn put(&self, url: &str, name: &str, content: &str) {
        let path = self.object(url, name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub fn scenario(&self, scenario: Value) {
        fs::create_dir_all(self.path("world")).unwrap();
        fs::write(self.path("world/scenario.json"), scenario.to_string()).unwrap();
    }

    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
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

    pub fn pretrain(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(env!("CARGO_BIN_EXE_pretrain"));
        command.args(arguments);
        command
    }

    /// Submits to Cloud TPU.
    pub fn submit(&self, more: &[&str]) -> Command {
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
    pub fn created(&self) -> Vec<String> {
        let names = fs::read_to_string(self.path("world/created")).unwrap_or_default();
        assert!(!self.path("world/two-machines").exists());
        names.lines().map(str::to_owned).collect()
    }

    /// The machine that there is.
    pub fn machine(&self) -> Option<Value> {
        let text = fs::read_to_string(self.path("world/queue/large.json")).ok()?;
        Some(serde_json::from_str(&text).unwrap())
    }

    pub fn calls(&self) -> Vec<Vec<String>> {
        let calls = fs::read_to_string(self.path("world/calls")).unwrap_or_default();
        calls
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    pub fn status(&self) -> Value {
        let out = self
            .pretrain(&["status", "large", "--json"])
            .env("STILL", "1")
            .output();
        let out = expect(out.unwrap(), 0, &[]);
        serde_json::from_str(&out).unwrap()
    }
}

/// Waits until something is so.
#[track_caller]
pub fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "{what} does not come"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}
