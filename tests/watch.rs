//! `pretrain report` and `pretrain watch` on run directories, as their users and strangers meet
//! them. `make check-pages` opens the same pages in a browser.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::runs::{expect, pretrain, text};

const TOKEN: &str = "only-for-the-tests-of-watch";

/// A run directory with lines up to a step, as a run that was killed leaves it.
fn run_in(directory: &Path, name: &str, steps: u64) -> PathBuf {
    let path = directory.join(name);
    fs::create_dir_all(&path).unwrap();
    let lines: String = (1..=steps).map(line).collect();
    fs::write(path.join("metrics.jsonl"), lines + "{\"step\":99,\"lo").unwrap();
    let config = format!("[train]\nsteps = 50\nseed = {steps}\n");
    fs::write(path.join("config.toml"), config).unwrap();
    path
}

fn line(step: u64) -> String {
    let loss = 10.0 / step as f64;
    format!("{{\"step\":{step},\"loss\":{loss},\"step_seconds\":0.5,\"residues\":{step}00}}\n")
}

/// A server, stopped at the end.
struct Server {
    process: Child,
    url: String,
    _stdout: BufReader<ChildStdout>,
}

impl Server {
    fn start(arguments: &[&str], paths: &[&Path]) -> Server {
        let mut command = watch(arguments, paths);
        let mut process = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(process.stdout.take().unwrap());
        let mut url = String::new();
        stdout.read_line(&mut url).unwrap();
        Server {
            process,
            url: url.trim().to_owned(),
            _stdout: stdout,
        }
    }

    fn address(&self) -> &str {
        let rest = self.url.strip_prefix("http://").unwrap();
        rest.split('/').next().unwrap()
    }

    /// The status, the head and the body of what a path is answered with.
    fn get(&self, path: &str, headers: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(self.address()).unwrap();
        let host = match headers.contains("Host:") {
            true => "",
            false => "Host: localhost\r\n",
        };
        write!(
            stream,
            "GET {path} HTTP/1.1\r\n{host}{headers}Connection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = text(&answer);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_lowercase(), body.to_owned())
    }

    fn json(&self, path: &str) -> Value {
        let (status, _, body) = self.get(path, "");
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Waits until the state is as wanted.
    fn await_state(&self, wanted: impl Fn(&Value) -> bool) {
        let patience = Instant::now() + Duration::from_secs(20);
        loop {
            let state = self.json("/api/state");
            if wanted(&state) {
                return;
            }
            assert!(Instant::now() < patience, "{state}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn watch(arguments: &[&str], paths: &[&Path]) -> Command {
    let mut command = pretrain();
    command
        .env_remove("ANKH_WATCH_TOKEN")
        .arg("watch")
        .args(paths);
    command.args(["--listen", "127.0.0.1:0"]).args(arguments);
    command
}

#[test]
fn a_report_is_one_page_about_all_runs_however_they_ended() {
    let directory = tempfile::tempdir().unwrap();
    let (a, b) = (
        run_in(directory.path(), "a", 50),
        run_in(directory.path(), "deep/b", 30),
    );
    fs::write(b.join("config.toml"), "[train]\nsteps = 50\nseed = 3").unwrap();
    fs::write(a.join("plan.json"), "{\"slice\":{}}").unwrap();
    let damaged = run_in(directory.path(), "damaged", 2);
    fs::write(damaged.join("config.toml"), "nonsense").unwrap();
    fs::write(damaged.join("log.jsonl"), "{\n").unwrap();
    let report = |arguments: &[&str]| {
        let mut command = pretrain();
        command
            .arg("report")
            .arg(directory.path())
            .args(arguments)
            .current_dir(&directory);
        command.output().unwrap()
    };
    let state: Value = serde_json::from_slice(&report(&["--json"]).stdout).unwrap();
    let field = |name: &str| -> Vec<Value> {
        let runs = state["runs"].as_array().unwrap().iter();
        runs.map(|run| run[name].clone()).collect()
    };
    assert_eq!(field("name"), ["a", "damaged", "deep/b"]);
    assert_eq!(field("status"), ["finished", "stopped", "stopped"]);
    assert_eq!(field("step"), [50, 2, 30]);
    let [keys, notes] = [&state["differences"][0]["key"], &state["runs"][1]["notes"]];
    assert_eq!(
        (keys, notes.as_array().unwrap().len()),
        (&"train.seed".into(), 1)
    );
    assert!(
        state["runs"][0]["notes"][0]
            .as_str()
            .unwrap()
            .contains("plan.json is no plan")
    );
    let printed = expect(report(&["--output", "page.html"]), 0, &["page.html"]);
    assert_eq!(printed.trim(), "page.html");
    let page = fs::read_to_string(directory.path().join("page.html")).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.contains("\"deep/b\""));
    let missing = pretrain().args(["report", "no-such-run"]).output().unwrap();
    expect(missing, 2, &["error: cannot read no-such-run", "help: "]);
    let none = tempfile::tempdir().unwrap();
    let none = pretrain().arg("report").arg(none.path()).output().unwrap();
    expect(none, 2, &["there is no run in"]);
}

#[test]
fn a_stranger_without_the_token_sees_nothing() {
    let directory = tempfile::tempdir().unwrap();
    run_in(directory.path(), "secret-name", 5);
    let file = directory.path().join("token");
    fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let file = file.to_str().unwrap();
    let server = Server::start(&["--token-file", file], &[directory.path()]);
    assert!(
        server.url.ends_with(&format!("/?token={TOKEN}")),
        "{}",
        server.url
    );
    for path in [
        "/",
        "/?token=wrong",
        "/api/state",
        "/api/series?run=0",
        "/script.js",
        "/none",
    ] {
        for headers in [
            "",
            "Cookie: ankh-watch-1=x\r\n",
            "Authorization: Bearer wrong\r\n",
        ] {
            let (status, head, body) = server.get(path, headers);
            assert_eq!(status, 401, "{path}");
            assert!(!(head + &body).contains("secret"), "{path}");
        }
    }
    let (status, head, body) = server.get(&format!("/?token={TOKEN}"), "");
    assert_eq!(status, 200);
    assert!(body.contains("url=./") && !body.contains(TOKEN), "{body}");
    let cookie = head
        .lines()
        .find_map(|line| line.strip_prefix("set-cookie: "))
        .unwrap();
    for words in ["; path=/", "; httponly", "; samesite=strict"] {
        assert!(cookie.contains(words), "{cookie}");
    }
    let pair = cookie.split(';').next().unwrap();
    let (status, head, body) = server.get("/api/state", &format!("Cookie: {pair}\r\n"));
    assert_eq!(status, 200);
    assert!(body.contains("secret-name"));
    for words in [
        "content-security-policy: default-src 'none'",
        "x-content-type-options: nosniff",
        "cache-control: no-store",
    ] {
        assert!(head.contains(words), "{head}");
    }
    for weak in ["short", ""] {
        let mut command = watch(&[], &[directory.path()]);
        let output = command.env("ANKH_WATCH_TOKEN", weak).output().unwrap();
        expect(output, 2, &["error: the token is not", "ANKH_WATCH_TOKEN"]);
    }
}

#[test]
fn the_page_s_data_follow_runs_that_grow_begin_and_go_back() {
    let directory = tempfile::tempdir().unwrap();
    let run = run_in(directory.path(), "a", 3);
    let metrics = run.join("metrics.jsonl");
    fs::write(&metrics, (1..=3).map(line).collect::<String>()).unwrap();
    let server = Server::start(&[], &[directory.path()]);
    let step = |state: &Value| state["runs"][0]["step"].as_u64();
    assert_eq!(step(&server.json("/api/state")), Some(3));
    let mut file = OpenOptions::new().append(true).open(&metrics).unwrap();
    file.write_all(line(4).as_bytes()).unwrap();
    server.await_state(|state| step(state) == Some(4));
    // As a run does that resumes from step 2.
    let lines: String = (1..=2).map(line).collect();
    ankh_storage::atomic::replace_file(&metrics, lines.as_bytes()).unwrap();
    server.await_state(|state| step(state) == Some(2));
    run_in(directory.path(), "0-begun-later", 7);
    server.await_state(|state| state["runs"][1]["name"] == "0-begun-later");
    let series = server.json("/api/series?run=1&from=3&to=4&buckets=100");
    // The next ones on both sides lead the line to the edges.
    assert_eq!(
        series["quantities"]["loss"]["steps"],
        serde_json::json!([2, 3, 4, 5])
    );
    assert_eq!(
        series["axes"]["residues"],
        serde_json::json!([200, 300, 400, 500])
    );
    let few = server.json("/api/series?run=1&buckets=2");
    assert_eq!(
        few["quantities"]["loss"]["means"]["steps"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    assert_eq!(server.get("/api/series?run=9", "").0, 404);
    assert_eq!(server.get("/api/series?run=x", "").0, 400);
    assert_eq!(server.get("/", "Host: elsewhere.example\r\n").0, 403);
    fs::remove_dir_all(&run).unwrap();
    server.await_state(|state| state["runs"].as_array().unwrap().len() == 1);
}

#[test]
fn a_port_in_use_is_one_clear_error_and_ctrl_c_is_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = Server::start(&[], &[directory.path()]);
    let mut second = pretrain();
    second
        .arg("watch")
        .arg(directory.path())
        .args(["--listen", server.address()]);
    let said = expect(
        second.output().unwrap(),
        1,
        &["cannot listen on", "help: choose another"],
    );
    assert_eq!(said.matches("error:").count(), 1, "{said}");
    let nowhere = watch(&[], &[Path::new("no-such-runs")]).output().unwrap();
    expect(nowhere, 2, &["cannot read no-such-runs"]);
    // A reader that stays connected does not keep the server.
    let idle = TcpStream::connect(server.address()).unwrap();
    let process = server.process.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &process])
            .status()
            .unwrap()
            .success()
    );
    let asked = Instant::now();
    let status = server.process.wait().unwrap();
    assert_eq!(status.code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(10));
    drop(idle);
}
