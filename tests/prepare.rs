//! `prepare` as a process that is killed, and as several that share the work.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ankh_data::Key;

/// Records of 1 to 200 residues, some of them repeated, some of them none.
fn synthetic(records: usize) -> String {
    let mut random = Key::new(11).stream();
    let mut text = String::new();
    let mut sequences: Vec<String> = Vec::new();
    for i in 0..records {
        let repeated = !sequences.is_empty() && random.below(20) == 0;
        let sequence = match repeated {
            true => sequences[random.below(sequences.len())].clone(),
            false => {
                let residues = b"ALGVSREDTIPKFQNYMHWC";
                let length = 1 + random.below(200);
                (0..length)
                    .map(|_| char::from(residues[random.below(20)]))
                    .collect()
            }
        };
        if sequences.len() < 1000 {
            sequences.push(sequence.clone());
        }
        let stop = if random.below(500) == 0 { "*A" } else { "" };
        text += &format!(">record{i} synthetic\n{sequence}{stop}\n");
    }
    text
}

/// Starts `prepare` with small chunks.
fn start(output: &Path, input: &Path, more: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_pretrain"))
        .args(["prepare", "--chunk-records", "2000", "--threads", "2"])
        .args(["--validation-fraction", "0.1", "--test-fraction", "0.05"])
        .args(["--remove-duplicates", "--output"])
        .arg(output)
        .args(more)
        .arg(input)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn succeeds(child: Child) {
    let done = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}");
}

fn bytes(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(directory).unwrap();
    let files = entries.map(|entry| {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        (name, fs::read(entry.path()).unwrap())
    });
    files.collect()
}

#[test]
fn killed_twenty_times_it_ends_with_the_bytes_of_an_undisturbed_run() {
    let directory = tempfile::tempdir().unwrap();
    let (input, output) = (
        directory.path().join("in.fasta"),
        directory.path().join("out"),
    );
    fs::write(&input, synthetic(40_000)).unwrap();
    let undisturbed = directory.path().join("undisturbed");
    let began = Instant::now();
    succeeds(start(&undisturbed, &input, &[]));
    let whole = began.elapsed();
    let expected = bytes(&undisturbed);
    assert_eq!(expected.len(), 3 * 20 + 1);

    let seed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_nanos() as u64;
    println!("seed {seed}, an undisturbed run takes {whole:?}");
    let mut random = Key::new(seed).stream();
    let (mut killed, mut ended) = (0, 0);
    while killed < 20 {
        let mut child = start(&output, &input, &[]);
        // Mostly before the end, sometimes at it.
        std::thread::sleep(Duration::from_secs_f64(
            1.1 * whole.as_secs_f64() * random.unit(),
        ));
        child.kill().unwrap();
        let status = child.wait().unwrap();
        if status.success() {
            ended += 1;
        } else {
            assert_eq!(status.code(), None, "it was killed, and did not fail");
            killed += 1;
        }
        // Whole or not at all, at every moment; killed after that, nothing is left to do.
        if output.exists() {
            assert!(expected == bytes(&output), "after {killed} kills");
            fs::remove_dir_all(&output).unwrap();
        }
    }
    println!("{ended} runs ended before they were killed");
    succeeds(start(&output, &input, &[]));
    assert!(expected == bytes(&output));
    let mut left: Vec<_> = fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    left.sort();
    assert_eq!(left, ["in.fasta", "out", "undisturbed"]);
}

#[test]
fn parts_at_the_same_time_make_what_one_process_makes() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::write(at("in.fasta"), synthetic(20_000)).unwrap();
    succeeds(start(&at("one"), &at("in.fasta"), &[]));
    let parts = ["0/3", "1/3", "2/3"];
    let parts = parts.map(|part| start(&at("parts"), &at("in.fasta"), &["--part", part]));
    for part in parts {
        succeeds(part);
    }
    let merged = Command::new(env!("CARGO_BIN_EXE_pretrain"))
        .args(["prepare", "--merge", "--output"])
        .arg(at("parts"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&merged.stderr);
    assert!(merged.status.success(), "{said}");
    assert!(bytes(&at("one")) == bytes(&at("parts")));
}

/// Starts `prepare` that reads standard input.
fn from_standard_input(output: &Path, more: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_pretrain"))
        .args(["prepare", "--chunk-records", "2000", "--output"])
        .arg(output)
        .args(more)
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// What a process that must fail says, and its exit code.
fn fails(child: Child) -> (String, Option<i32>) {
    let done = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(!done.status.success(), "{said}");
    (said, done.status.code())
}

#[test]
fn standard_input_is_an_input() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let text = synthetic(5000);
    let give = |mut child: Child| {
        // Whoever refuses the input does not read it.
        let _ = child.stdin.take().unwrap().write_all(text.as_bytes());
        child
    };
    succeeds(give(from_standard_input(&at("out"), &[])));
    fs::write(at("stdin"), &text).unwrap();
    let file = Command::new(env!("CARGO_BIN_EXE_pretrain"))
        .args(["prepare", "--chunk-records", "2000", "--output"])
        .args([at("file"), at("stdin")])
        .output()
        .unwrap();
    assert!(file.status.success());
    assert!(bytes(&at("out")) == bytes(&at("file")));

    for (more, reason) in [
        (&["-"][..], "must name standard input (-) once only"),
        (
            &["--remove-duplicates"],
            "stdin can be read only once, but removing duplicates",
        ),
        (
            &["--part", "0/2"],
            "stdin can be read only once, but every part",
        ),
    ] {
        let (said, code) = fails(give(from_standard_input(&at("none"), more)));
        assert!(said.contains(reason) && code == Some(2), "{said}");
        assert!(!at("none").exists());
    }
}

#[test]
fn work_on_standard_input_is_not_continued() {
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().join("out");
    let text = synthetic(40_000);
    let mut child = from_standard_input(&output, &[]);
    let mut input = child.stdin.take().unwrap();
    input.write_all(text.as_bytes()).unwrap();
    let note = directory.path().join(".out.preparing/chunk-00000.json");
    let began = Instant::now();
    while !note.exists() {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "no chunk is done"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let again = |more: &[&str]| {
        let mut child = from_standard_input(&output, more);
        let _ = child.stdin.take().unwrap().write_all(text.as_bytes());
        child
    };
    let (said, code) = fails(again(&[]));
    let expected = "stdin can be read only once, so work on it cannot be continued";
    assert!(
        said.contains(expected) && said.contains("--restart") && code == Some(2),
        "{said}"
    );
    succeeds(again(&["--restart"]));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

/// A pipe has a name, but is read once as well.
#[test]
fn a_pipe_is_an_input() {
    let directory = tempfile::tempdir().unwrap();
    let script =
        "exec \"$0\" prepare --output \"$1\" <(printf '>a\\nMKL\\n') <(printf 'id,seq\\nb,MK\\n')";
    let done = Command::new("bash")
        .args(["-c", script, env!("CARGO_BIN_EXE_pretrain")])
        .arg(directory.path().join("out"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}");
    assert!(String::from_utf8_lossy(&done.stdout).starts_with("2 sequences"));
}

#[test]
fn warnings_are_printed_and_written() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let reads: String = (0..50)
        .map(|i| format!(">r{i}\nGATTACAGATTACAGATTACA\n"))
        .collect();
    fs::write(at("reads.fasta"), reads + ">p\nMKTAYIAKQRQISFVKSHFS\n").unwrap();
    let done = Command::new(env!("CARGO_BIN_EXE_pretrain"))
        .args(["prepare", "--json", "--output"])
        .args([at("out"), at("reads.fasta")])
        .output()
        .unwrap();
    let warning = "reads.fasta: 98.0 % of its sequences (50 of 51) have no letters but A, C, G, T, U and N: \
                   are they DNA or RNA?";
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(
        done.status.success() && said.contains(&format!("warning: {warning}")),
        "{said}"
    );
    for text in [done.stdout, fs::read(at("out/manifest.json")).unwrap()] {
        let manifest: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(manifest["report"]["warnings"][0], warning);
    }
}
