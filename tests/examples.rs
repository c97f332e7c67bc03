//! The commands that people copy: those in the help and in the documents.
//!
//! Every one is parsed as the program parses it, so that no option in it is misspelt or gone. Every
//! one that can be run here is run, in a directory that has what it speaks of. Those that cannot
//! say so: in the help by a line of [`ONLY_PARSED`], in a document by a word behind the language of
//! their block (```` ```sh tpu ````), one of [`MARKS`].
//!
//! What `docs/first-hour.md` says is run by `tests/newcomer.py`.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use clap::error::ErrorKind;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use crate::support::runs;

/// Examples of the help that are not run, with what they need.
const ONLY_PARSED: [(&str, &str); 11] = [
    (
        "pretrain plan --slice v4-64 --config ankh-large",
        "the TPU compiler",
    ),
    (
        "pretrain plan --slice v4-64 --config ankh-large --search --output-config best.toml",
        "the TPU compiler",
    ),
    (
        "pretrain prepare --part 0/3 --output s3://bucket/prepared s3://bucket/uniref50.fasta.gz",
        "a bucket",
    ),
    (
        "pretrain prepare --merge --output s3://bucket/prepared",
        "a bucket",
    ),
    ("pretrain doctor --fetch", "a package index"),
    ("pretrain doctor --fetch --slice v4-8", "a package index"),
    (
        "pretrain submit --name large --slice v4-64 --config ankh-large-packed --data gs://BUCKET/uniref50 --run-dir gs://BUCKET/runs/large --project PROJECT --zone us-central2-b --spot",
        JOB,
    ),
    ("pretrain status large", JOB),
    ("pretrain status large --json", JOB),
    ("pretrain logs large --follow", JOB),
    ("pretrain stop large", JOB),
];

/// What a job needs. `submit` has stand-ins, and runs these examples.
const JOB: &str = "a project, or hosts";

/// What a block of a document may need that a test does not have.
const MARKS: [(&str, &str); 4] = [
    ("tpu", "a TPU, or its compiler"),
    ("cloud", "an account: a bucket, a project"),
    ("serves", "somebody who looks, and ends it"),
    ("large", "a model, data or a run too large for a test"),
];

/// The page whose commands are run elsewhere.
const NEWCOMER: &str = "docs/first-hour.md";

/// A command as a shell takes it, and where it is written.
struct Line {
    place: String,
    text: String,
    /// The mark of its block.
    mark: Option<String>,
}

#[test]
fn every_subcommand_has_an_example_and_every_option_an_explanation() {
    for (name, command) in subcommands() {
        let help = command.clone().render_long_help().to_string();
        assert!(help.contains("Example:\n  pretrain "), "{name}: {help}");
        assert!(command.get_about().is_some(), "{name} says what it does");
        for argument in command.get_arguments() {
            let id = argument.get_id();
            assert!(
                argument.get_help().is_some(),
                "{name}: {id} is not explained"
            );
            let text = argument.get_help().unwrap().to_string();
            let begins = text.starts_with(|c: char| c.is_uppercase() || c == '`');
            assert!(begins, "{name} {id}: {text:?} is no sentence");
        }
    }
}

#[test]
fn every_command_of_the_documents_is_one() {
    for line in lines_of_documents() {
        for words in invocations(&line.text) {
            parse(&words, &line.place, Completeness::Whole);
        }
        if let Some(target) = line.text.strip_prefix("make ") {
            let target = target.split_whitespace().next().unwrap();
            let known = MAKEFILE
                .lines()
                .any(|l| l.starts_with(&format!("{target}:")));
            assert!(known, "{}: there is no `make {target}`", line.place);
        }
    }
    for (place, text) in prose() {
        for words in invocations(&text) {
            parse(&words, &place, Completeness::Part);
        }
    }
}

#[test]
fn what_is_not_run_by_a_test_is_marked() {
    let ci = fs::read_to_string(root().join(".ci/run")).unwrap();
    let run_by_ci = |target: &str| {
        // `make newcomer` makes the demo.
        target == "demo" || ci.contains(&format!("\nmake {target}\n"))
    };
    for line in lines_of_documents() {
        let Line { place, text, mark } = line;
        if let Some(mark) = mark {
            let known = MARKS.iter().any(|(name, _)| *name == mark);
            assert!(known, "{place}: `{mark}` is no mark, these are: {MARKS:?}");
        } else if let Some(target) = text.strip_prefix("make ") {
            let target = target.split_whitespace().next().unwrap();
            assert!(
                run_by_ci(target),
                "{place}: nothing runs `make {target}`: mark its block"
            );
        }
    }
}

#[test]
fn the_examples_of_the_help_and_of_the_documents_run() {
    let sandbox = Sandbox::new();
    let mut unused: BTreeSet<&str> = ONLY_PARSED.iter().map(|(text, _)| *text).collect();
    for (name, command) in subcommands() {
        let help = command.get_after_help().map(ToString::to_string);
        let help = help.unwrap_or_default();
        let help = help.replace("\\\n    ", "");
        let examples = help.lines().filter_map(|line| line.strip_prefix("  "));
        for text in examples.filter(|line| line.starts_with("pretrain ")) {
            for words in invocations(text) {
                parse(&words, &name, Completeness::Whole);
            }
            if !unused.remove(text) && !ONLY_PARSED.iter().any(|(line, _)| *line == text) {
                sandbox.run(text, &format!("the help of `{name}`"));
            }
        }
    }
    assert!(unused.is_empty(), "no help has these examples: {unused:?}");
    let is_newcomers = |line: &Line| line.place.starts_with(NEWCOMER);
    let lines = lines_of_documents().into_iter();
    for line in lines.filter(|line| line.mark.is_none() && !is_newcomers(line)) {
        if line.text.starts_with("pretrain ") {
            sandbox.run(&line.text, &line.place);
        }
    }
}

const MAKEFILE: &str = include_str!("../Makefile");

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The program and its subcommands with their names, but for those that are not for people.
fn subcommands() -> Vec<(String, clap::Command)> {
    let mut command = ankh::cli::command();
    command.build();
    let below = command.get_subcommands().cloned().collect::<Vec<_>>();
    let visible = below
        .into_iter()
        .filter(|sub| !sub.is_hide_set() && sub.get_name() != "help");
    let below = visible.map(|sub| (sub.get_name().to_owned(), sub));
    [("pretrain".to_owned(), command)]
        .into_iter()
        .chain(below)
        .collect()
}

/// How much of a command is written.
#[derive(Clone, Copy, PartialEq)]
enum Completeness {
    Whole,
    /// As prose speaks of it: without arguments that it needs.
    Part,
}

fn parse(words: &[String], place: &str, completeness: Completeness) {
    let Err(error) = ankh::cli::command().try_get_matches_from(words) else {
        return;
    };
    let fine = match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => true,
        ErrorKind::MissingRequiredArgument
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
        | ErrorKind::MissingSubcommand => completeness == Completeness::Part,
        // An option that is named without its value.
        ErrorKind::InvalidValue => {
            let last = words.last().is_some_and(|word| word.starts_with("--"));
            completeness == Completeness::Part && last
        }
        _ => false,
    };
    assert!(fine, "{place}: {}\n{error}", words.join(" "));
}

/// The arguments of each `pretrain` that a line of shell starts, in quotes too.
fn invocations(line: &str) -> Vec<Vec<String>> {
    let Some(words) = shlex::split(line) else {
        panic!("a quote is not closed: {line}");
    };
    let mut found = Vec::new();
    for segment in words.split(|word| ["|", "&&", "||", ";", ">"].contains(&word.as_str())) {
        let is_program = |word: &String| word == "pretrain" || word.ends_with("/pretrain");
        let start = segment.iter().position(is_program);
        let named = |start: usize| start > 0 && segment[start - 1] == "--bin";
        match start {
            // Three dots stand for what was written before.
            Some(start) if !named(start) && !segment.iter().any(|word| word.contains("...")) => {
                found.push(segment[start..].to_vec());
            }
            _ => {
                let quoted = segment.iter().filter(|word| word.contains("pretrain "));
                found.extend(quoted.flat_map(|word| invocations(word)));
            }
        }
    }
    found
}

/// The project's documents: their names and texts. The changelog speaks of what there was.
fn documents() -> Vec<(String, String)> {
    let listed = Command::new("git")
        .args([
            "ls-files",
            "--cached",
            "--others",
            "--exclude-standard",
            "--",
            "*.md",
        ])
        .current_dir(root())
        .output()
        .expect("git lists the files of a checkout");
    let listed = runs::text(&listed.stdout);
    let names = listed.lines().filter(|name| *name != "CHANGELOG.md");
    let read = |name: &str| Some((name.to_owned(), fs::read_to_string(root().join(name)).ok()?));
    let documents: Vec<_> = names.filter_map(read).collect();
    assert!(documents.iter().any(|(name, _)| name == "README.md"));
    documents
}

/// The commands in the blocks of all documents. A block with commands says so: it begins with
/// ```` ```sh ````, and may have a mark.
fn lines_of_documents() -> Vec<Line> {
    let mut found = Vec::new();
    for (name, text) in documents() {
        let mut info: Option<&str> = None;
        let mut continued = String::new();
        for (number, line) in text.lines().enumerate() {
            if let Some(fence) = line.trim_start().strip_prefix("```") {
                info = match info {
                    None => Some(fence.trim()),
                    Some(_) => None,
                };
                continue;
            }
            let Some(info) = info else { continue };
            continued += line.trim();
            if continued.ends_with('\\') {
                continued.pop();
                continue;
            }
            let text = std::mem::take(&mut continued);
            let place = format!("{name}:{}", number + 1);
            let mut words = info.split_whitespace();
            let is_shell = words.next() == Some("sh");
            let is_command = text.starts_with("pretrain ") || text.starts_with("make ");
            assert!(
                is_shell || !is_command,
                "{place}: begin its block with ```sh"
            );
            if is_shell {
                let mark = words.next().map(str::to_owned);
                found.push(Line { place, text, mark });
            }
        }
    }
    assert!(found.len() > 20, "the documents have commands");
    found
}

/// What prose says of commands, in code.
fn prose() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (name, text) in documents() {
        let mut in_block = false;
        let mut prose = String::new();
        for line in text.lines() {
            let is_fence = line.trim_start().starts_with("```");
            in_block ^= is_fence;
            if !in_block && !is_fence {
                prose += line;
                prose.push('\n');
            }
        }
        let is_command = |span: &&str| span.starts_with("pretrain ") && !span.contains('<');
        let commands = code_spans(&prose).into_iter().filter(is_command);
        found.extend(commands.map(|span| (name.clone(), span.replace('\n', " "))));
    }
    assert!(found.len() > 20, "prose speaks of commands");
    found
}

/// What stands between runs of as many backticks.
fn code_spans(mut text: &str) -> Vec<&str> {
    let run = |text: &str| text.len() - text.trim_start_matches('`').len();
    let mut found = Vec::new();
    while let Some(start) = text.find('`') {
        let length = run(&text[start..]);
        text = &text[start + length..];
        let ends = text.match_indices('`').map(|(at, _)| at);
        let mut ends = ends.filter(|&at| !text[..at].ends_with('`') && run(&text[at..]) == length);
        if let Some(end) = ends.next() {
            found.push(&text[..end]);
            text = &text[end + length..];
        }
    }
    found
}

/// A directory with what the examples speak of: sequences, prepared data, a run, weights, a batch.
struct Sandbox {
    directory: tempfile::TempDir,
    /// What was run before, not to be run again.
    done: RefCell<BTreeSet<String>>,
}

impl Sandbox {
    fn new() -> Self {
        let sandbox = Self {
            directory: tempfile::tempdir().unwrap(),
            done: RefCell::default(),
        };
        let proteins = runs::fasta((0..200).map(|i| 30 + i % 90));
        for name in ["proteins.fasta", "uniref50.fasta"] {
            fs::write(sandbox.path(name), &proteins).unwrap();
            sandbox.shell(&format!("gzip --keep {name}"), "a compressed input");
        }
        // Pages through what it is given.
        let pager = sandbox.path("bin/less");
        fs::create_dir(sandbox.path("bin")).unwrap();
        fs::write(&pager, "#!/bin/sh\nexec cat\n").unwrap();
        sandbox.shell("chmod +x bin/less", "a pager");
        for (line, why) in [
            (
                "pretrain prepare --output prepared proteins.fasta.gz",
                "data",
            ),
            (
                "pretrain --config demo --data prepared --run-dir runs/first",
                "a run",
            ),
            (
                "pretrain export --checkpoint runs/first --output hf",
                "weights",
            ),
            ("cp -r hf ankh-base", "the weights of another"),
            ("cp -r runs/first runs/base", "a run to compare"),
            ("cp -r runs/first runs/packed", "and another"),
            ("echo tpu-host > hosts.txt", "own hosts"),
        ] {
            sandbox.run(line, why);
        }
        let starts = ">start\nMSDKIIHLTDDSFDTDVLKADGA\n";
        let prompts = ">thioredoxin\nLVDFWA<extra_id_0>WCGPCKMI<extra_id_1>\n";
        let wild_type = ">wild-type\nMKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ\n";
        let family = [
            wild_type,
            ">b\nMKTAYLAKQRQVSFVKSHFSKQLEERLGMIEVQ\n",
            ">c\nMRTAYIAKQRQISFVKAHF-RQLEDRLGLIDVQ\n",
        ];
        let labelled: String = (0..10)
            .map(|i| {
                format!(
                    ">p{i} TARGET=HHHHEEEECC\nMKTAYIAK{}R\n",
                    &"ACDEFGHIKL"[i..=i]
                )
            })
            .collect();
        for (name, text) in [
            ("starts.fasta", starts),
            ("prompts.fasta", prompts),
            ("wild-type.fasta", wild_type),
            ("labelled.fasta", &labelled),
            ("family.a2m", &family.concat()),
        ] {
            fs::write(sandbox.path(name), text).unwrap();
        }
        fs::write(sandbox.path("batch.safetensors"), batch()).unwrap();
        let variants = "mutant,mutated_sequence,DMS_score\nK2R,MRTAYIAKQR,1\nWT,MKTAYIAKQR,2\n";
        fs::write(sandbox.path("variants.csv"), variants).unwrap();
        fs::write(sandbox.path(".ankh-watch-token"), "a-token-of-letters").unwrap();
        sandbox
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Runs a line as it is written, once, but for three things: what it makes is removed first,
    /// what it trains ends after two steps, and what it serves is served here alone, for two
    /// seconds.
    #[track_caller]
    fn run(&self, line: &str, place: &str) {
        let mut line = line.split("  #").next().unwrap().trim().to_owned();
        if !self.done.borrow_mut().insert(line.clone()) {
            return;
        }
        for words in invocations(&line.clone()) {
            let parsed = ankh::cli::command().try_get_matches_from(&words).unwrap();
            let trains = matches!(parsed.subcommand_name(), None | Some("launch"));
            if parsed.subcommand_name() == Some("watch") {
                let command = line.split(" --listen ").next().unwrap_or_default();
                let token = line.split_once(" --token-file ").map(|(_, file)| file);
                let token = token.map(|file| format!(" --token-file {file}"));
                let token = token.unwrap_or_default();
                line = format!(
                    "timeout --preserve-status --signal=INT 2 {command}{token} --listen 127.0.0.1:0"
                );
            }
            let resumes = words.iter().any(|word| word == "--resume");
            if trains && !words.iter().any(|word| word == "--steps") {
                line += " --steps 2";
            }
            let makes = [
                "--output",
                if trains && !resumes {
                    "--run-dir"
                } else {
                    "--output"
                },
            ];
            for pair in words
                .windows(2)
                .filter(|pair| makes.contains(&pair[0].as_str()))
            {
                let made = self.path(&pair[1]);
                let _ = fs::remove_dir_all(&made).or_else(|_| fs::remove_file(&made));
            }
        }
        self.shell(&line, place);
    }

    #[track_caller]
    fn shell(&self, line: &str, place: &str) {
        let program = Path::new(env!("CARGO_BIN_EXE_pretrain"));
        let before = std::env::var("PATH").unwrap_or_default();
        let bin = self.path("bin");
        let path = format!(
            "{}:{}:{before}",
            bin.display(),
            program.parent().unwrap().display()
        );
        let began = Instant::now();
        let output = Command::new("bash")
            .args(["-o", "pipefail", "-ec", line])
            .current_dir(self.directory.path())
            .env("PATH", path)
            .env("ANKH_COMPILATION_CACHE", self.path("programs"))
            .env("HOME", self.directory.path())
            .env_remove("XDG_STATE_HOME")
            .output()
            .expect("there is bash");
        println!("{:5.1} s  {place}: {line}", began.elapsed().as_secs_f64());
        let said = runs::text(&output.stdout) + &runs::text(&output.stderr);
        assert!(
            output.status.success(),
            "{place}: {line}\n{} {said}",
            output.status
        );
    }
}

/// Two short sequences, as `pretrain forward` reads them.
fn batch() -> Vec<u8> {
    let array = |width: usize, value: fn(usize) -> i32| {
        let values = (0..2 * width).flat_map(|i| value(i).to_le_bytes());
        (vec![2, width], values.collect::<Vec<u8>>())
    };
    let tensors = [
        ("input_ids", array(16, |i| 3 + (i % 20) as i32)),
        ("attention_mask", array(16, |_| 1)),
        (
            "decoder_input_ids",
            array(8, |i| if i % 8 == 0 { 0 } else { 3 + (i % 20) as i32 }),
        ),
        ("labels", array(8, |i| 3 + ((i + 1) % 20) as i32)),
    ];
    let views = tensors.iter().map(|(name, (shape, bytes))| {
        (
            *name,
            TensorView::new(Dtype::I32, shape.clone(), bytes).unwrap(),
        )
    });
    safetensors::serialize(views, None).unwrap()
}
