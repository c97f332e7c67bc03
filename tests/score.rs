//! `pretrain score`: against a plain loop in transformers, killed and resumed, and what it refuses.
//!
//! tests/golden/scores.json is made by `make goldens`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::runs::{expect, pretrain_keeping, text};

/// Of scores, relative to the largest.
const TOLERANCE: f64 = 1e-5;

const WILD_TYPE: &str = "MKTAYIAKQRQISFVKSHFSRQ";

fn golden(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("tests/golden").join(name)
}

/// A directory with a table, and the command that scores it.
struct Scoring(tempfile::TempDir);

impl Scoring {
    fn of(table: impl AsRef<[u8]>) -> Scoring {
        let directory = tempfile::tempdir().unwrap();
        let scoring = Scoring(directory);
        fs::create_dir(scoring.path("")).unwrap();
        fs::write(scoring.path("variants.csv"), table).unwrap();
        scoring
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join("work").join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = pretrain_keeping(&self.0.path().join("programs"));
        command.current_dir(self.path("")).arg("score");
        command.args(arguments).arg("variants.csv");
        command
    }

    /// Scores with the weights of a golden model.
    fn scored_by(&self, model: &str, arguments: &[&str]) -> Command {
        let mut command = self.command(arguments);
        command.arg("--weights").arg(golden(model).join("hf"));
        command.args(["--output", "scores.csv"]);
        command
    }

    #[track_caller]
    fn refuses(&self, arguments: &[&str], words: &[&str]) {
        let output = self.scored_by("gated-silu", arguments).output().unwrap();
        expect(output, 2, words);
        self.holds_only(&["variants.csv"]);
    }

    #[track_caller]
    fn holds_only(&self, expected: &[&str]) {
        let entries = fs::read_dir(self.path("")).unwrap();
        let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
        let mut names: Vec<String> = entries
            .map(|entry| name(entry).into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, expected);
    }

    /// The scores of a column of the output.
    fn column(&self, name: &str) -> Vec<f64> {
        let output = fs::read_to_string(self.path("scores.csv")).unwrap();
        let mut lines = output.lines().map(|line| line.split(','));
        let place = lines.next().unwrap().position(|cell| cell == name);
        let place = place.unwrap_or_else(|| panic!("no {name} in {output}"));
        let mut cells = lines.map(|mut line| line.nth(place).unwrap());
        cells.by_ref().map(|cell| cell.parse().unwrap()).collect()
    }
}

fn assert_close(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0f64, |most, e| most.max(e.abs()));
    for (row, (found, expected)) in found.iter().zip(expected).enumerate() {
        let difference = (found - expected).abs() / largest;
        assert!(
            difference <= TOLERANCE,
            "row {row}: {found} is not {expected} ({difference:.1e} of the largest)"
        );
    }
}

#[test]
fn scores_equal_those_of_a_plain_loop_in_transformers() {
    let rows: Value =
        serde_json::from_str(&fs::read_to_string(golden("scores.json")).unwrap()).unwrap();
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), 20);
    let numbers = |key: &str| -> Vec<f64> {
        let number = |row: &Value| row[key].as_f64().unwrap();
        rows.iter().map(number).collect()
    };
    let line = |row: &Value| {
        let cell = |key: &str| row[key].as_str().unwrap().to_owned();
        format!(
            "{},{},{}\n",
            cell("mutant"),
            cell("mutated_sequence"),
            cell("wild_type")
        )
    };
    let lines: String = rows.iter().map(line).collect();
    let scoring = Scoring::of(format!("mutant,mutated_sequence,target_seq\n{lines}"));
    // Two devices and batches of any size give the same numbers.
    for arguments in [
        &[][..],
        &["--slice", "cpu-2", "--batch-tokens", "100", "--replace"],
    ] {
        let output = scoring.scored_by("defaults", arguments).output().unwrap();
        expect(output, 0, &["variants    20"]);
        assert_close(
            &scoring.column("masked_marginals"),
            &numbers("masked_marginals"),
        );
    }
    let output = scoring.scored_by(
        "defaults",
        &["--method", "pseudo-likelihood", "--replace", "--json"],
    );
    let output = expect(output.output_of(), 0, &[]);
    let result: Value = serde_json::from_str(output.lines().last().unwrap()).unwrap();
    assert_eq!(result["variants"], 20);
    let found = scoring.column("mean_log_probability");
    assert_close(&found, &numbers("mean_log_probability"));
    let likelihood: Vec<f64> = found.iter().map(|score| score.exp()).collect();
    for (found, expected) in scoring.column("pseudo_likelihood").iter().zip(&likelihood) {
        assert!(
            (found - expected).abs() <= 1e-5 * expected,
            "{found} {expected}"
        );
    }
    scoring.holds_only(&["scores.csv", "variants.csv"]);
}

trait OutputOf {
    fn output_of(self) -> std::process::Output;
}

impl OutputOf for Command {
    fn output_of(mut self) -> std::process::Output {
        self.output().unwrap()
    }
}

#[test]
fn the_wild_type_may_come_from_anywhere_and_says_the_same() {
    let mutants = ["K2R", "WT", "T3A:A4G"];
    let sequences = [
        WILD_TYPE.replacen("MK", "MR", 1),
        WILD_TYPE.into(),
        WILD_TYPE.replacen("TA", "AG", 1),
    ];
    let table = |header: &str, line: &dyn Fn(usize) -> String| {
        let lines: String = (0..3).map(|row| line(row) + "\n").collect();
        Scoring::of(format!("{header}\n{lines}"))
    };
    let mut found: Vec<Vec<f64>> = Vec::new();
    let mut score = |scoring: Scoring, arguments: &[&str]| {
        expect(
            scoring.scored_by("gated-silu", arguments).output_of(),
            0,
            &[],
        );
        found.push(scoring.column("masked_marginals"));
    };
    let only_mutants = || table("mutant", &|row| mutants[row].into());
    score(only_mutants(), &["--wild-type", &WILD_TYPE.to_lowercase()]);
    let scoring = only_mutants();
    fs::write(
        scoring.path("wild.fasta"),
        format!(">p\n{}\n{}\n", &WILD_TYPE[..9], &WILD_TYPE[9..]),
    )
    .unwrap();
    score(scoring, &["--wild-type", "wild.fasta"]);
    let scoring = only_mutants();
    let reference =
        format!("DMS_id,DMS_filename,target_seq\nx,other.csv,MKV\ny,variants.csv,{WILD_TYPE}\n");
    fs::write(scoring.path("reference.csv"), reference).unwrap();
    score(scoring, &["--reference", "reference.csv"]);
    score(
        table("mutant,target_seq", &|row| {
            format!("{},{WILD_TYPE}", mutants[row])
        }),
        &[],
    );
    score(
        table("mutated_sequence,mutant", &|row| {
            format!("{},{}", sequences[row], mutants[row])
        }),
        &[],
    );
    let scoring = table("mutated_sequence", &|row| sequences[row].clone());
    score(scoring, &["--wild-type", WILD_TYPE]);
    assert_eq!(found.len(), 6);
    for others in &found[1..] {
        assert_eq!(*others, found[0]);
    }
    assert_eq!(found[0][1], 0.0);
}

#[test]
fn a_bad_table_is_one_error_with_its_line_and_nothing_is_written() {
    let of_wild_type = ["--wild-type", WILD_TYPE];
    for (line, words) in [
        ("M1J", &["variants.csv:3: `J` in M1J is no residue"][..]),
        (
            "A2G",
            &[
                "variants.csv:3: A2G: the wild type has `K` at position 2",
                "count from 1",
            ],
        ),
        (
            "A23G",
            &["variants.csv:3: A23G is outside of the sequence, which has 22 residues"],
        ),
        ("A24", &["variants.csv:3: `A24` is no mutation"]),
        (
            "K2R:K2G",
            &["variants.csv:3: there are two mutations of position 2"],
        ),
        (
            "",
            &["variants.csv:3: neither mutant nor mutated_sequence is there"],
        ),
    ] {
        let scoring = Scoring::of(format!("mutant,DMS_score\nK2R,1\n{line},2\n"));
        scoring.refuses(&of_wild_type, words);
    }
    let both = |mutant: &str, sequence: &str| {
        Scoring::of(format!(
            "mutant,mutated_sequence\nWT,{WILD_TYPE}\n{mutant},{sequence}\n"
        ))
    };
    let changed = WILD_TYPE.replacen("MK", "MG", 1);
    both("K2R", &changed).refuses(&of_wild_type, &["variants.csv:3: mutated_sequence is not the wild type with K2R: they differ at position 2"]);
    both("K2R", &changed).refuses(
        &[],
        &["variants.csv:3: K2R: mutated_sequence has `G` at position 2"],
    );
    both("K2R", "MRT").refuses(
        &of_wild_type,
        &["variants.csv:3: mutated_sequence has 3 residues, and the wild type with K2R has 22"],
    );
    both("A2G", &changed).refuses(
        &[],
        &["variants.csv:3: mutant and mutated_sequence imply another wild type than line 2"],
    );
    both("", "MRT").refuses(
        &of_wild_type,
        &[
            "variants.csv:3: the variant has 3 residues and the wild type 22",
            "pseudo-likelihood",
        ],
    );
    both("K2R", "MR*").refuses(&[], &["variants.csv:3: `*` at position 3 is no residue"]);
    both("WT", WILD_TYPE).refuses(
        &["--max-length", "21"],
        &[
            "variants.csv:2: the sequence has 22 residues, of at most 21",
            "--max-length",
        ],
    );

    let scoring = |text: &str| Scoring::of(text);
    scoring("").refuses(&of_wild_type, &["variants.csv has no variants"]);
    scoring("mutant\n").refuses(&of_wild_type, &["variants.csv has no variants"]);
    scoring("mutation\nK2R\n").refuses(
        &of_wild_type,
        &["variants.csv:1: there is no column `mutant` or `mutated_sequence`; it has mutation"],
    );
    scoring("mutant\nK2R\n").refuses(
        &[],
        &["variants.csv:2: there is no wild type", "--wild-type"],
    );
    scoring("mutant,a\nK2R,1\nK2R\n").refuses(
        &of_wild_type,
        &["variants.csv:3: there are 1 cells: expected 2"],
    );
    scoring("mutant,DMS_score\nK2R,high\n").refuses(
        &of_wild_type,
        &["variants.csv:2: DMS_score is `high`: expected a number"],
    );
    scoring("mutant,DMS_score,DMS_score_bin\nK2R,1,2\n").refuses(
        &of_wild_type,
        &["variants.csv:2: DMS_score_bin is `2`: expected 0 or 1"],
    );
    scoring("mutant,masked_marginals\nK2R,1\n").refuses(
        &of_wild_type,
        &["variants.csv:1: there is a column `masked_marginals` already"],
    );
    scoring("mutant\nK2R\n").refuses(
        &["--wild-type", "nowhere.fasta"],
        &["`nowhere.fasta` is neither a file nor a sequence"],
    );
}

#[test]
fn weights_of_another_model_and_results_that_are_there_are_refused() {
    let scoring = Scoring::of("mutant\nK2R\n");
    let bert = r#"{"architectures": ["EsmForMaskedLM"], "model_type": "esm", "vocab_size": 33}"#;
    fs::create_dir(scoring.path("esm")).unwrap();
    fs::write(scoring.path("esm/config.json"), bert).unwrap();
    let weights = golden("gated-silu").join("hf/model.safetensors");
    fs::copy(weights, scoring.path("esm/model.safetensors")).unwrap();
    let arguments = [
        "--weights",
        "esm",
        "--output",
        "scores.csv",
        "--wild-type",
        WILD_TYPE,
    ];
    expect(scoring.command(&arguments).output_of(), 1, &["esm"]);
    scoring.holds_only(&["esm", "variants.csv"]);
    // It has Ankh's 144 ids.
    let output = scoring.scored_by(
        "gated-silu",
        &["--tokenizer", "ankh3", "--wild-type", WILD_TYPE],
    );
    expect(
        output.output_of(),
        2,
        &[
            "the model has 144 ids, and the tokenizer ankh3 has 256",
            "--tokenizer",
        ],
    );
    scoring.holds_only(&["esm", "variants.csv"]);
    fs::write(scoring.path("scores.csv"), "mine").unwrap();
    let output = scoring
        .scored_by("gated-silu", &["--wild-type", WILD_TYPE])
        .output_of();
    expect(output, 2, &["scores.csv is there already", "--replace"]);
    assert_eq!(fs::read(scoring.path("scores.csv")).unwrap(), b"mine");
}

#[test]
fn killed_and_stopped_work_goes_on_to_the_same_file() {
    let mutants = (0..WILD_TYPE.len()).flat_map(|place| {
        let from = &WILD_TYPE[place..=place];
        ["A", "W"].map(|to| format!("{from}{}{to}\n", place + 1))
    });
    let scoring = Scoring::of(format!("mutant\n{}", mutants.collect::<String>()));
    let journal = scoring.path(".scores.csv.unfinished");
    // One sequence a batch, so that there are hundreds.
    let command = || {
        let arguments = [
            "--wild-type",
            WILD_TYPE,
            "--method",
            "pseudo-likelihood",
            "--batch-tokens",
            "1",
        ];
        let mut command = scoring.scored_by("gated-silu", &arguments);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command
    };
    expect(command().output_of(), 0, &[]);
    let whole = fs::read(scoring.path("scores.csv")).unwrap();
    fs::remove_file(scoring.path("scores.csv")).unwrap();
    let written = || fs::metadata(&journal).map_or(0, |journal| journal.len());
    let interrupted_by = |signal: &str| {
        let before = written();
        let mut child = command().spawn().unwrap();
        let began = Instant::now();
        while written() < before + 1000 {
            assert!(
                child.try_wait().unwrap().is_none(),
                "it is not done so soon"
            );
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "it makes progress"
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        let kill = Command::new("kill")
            .args([signal, &child.id().to_string()])
            .status();
        assert!(kill.unwrap().success());
        child.wait_with_output().unwrap()
    };
    let killed = interrupted_by("-KILL");
    assert_eq!(killed.status.code(), None);
    assert!(!scoring.path("scores.csv").exists());
    let stopped = interrupted_by("-TERM");
    expect(
        stopped,
        75,
        &[
            "batches are done already",
            "masked sequences are done; the same command goes on",
        ],
    );
    // Another command does not go on with it.
    let other = scoring
        .scored_by("gated-silu", &["--wild-type", WILD_TYPE])
        .output_of();
    expect(
        other,
        2,
        &[
            ".scores.csv.unfinished is unfinished work of another command",
            "variants",
            "method",
            "--restart",
        ],
    );
    let model = scoring.scored_by(
        "relu-tied",
        &[
            "--wild-type",
            WILD_TYPE,
            "--method",
            "pseudo-likelihood",
            "--batch-tokens",
            "1",
        ],
    );
    expect(model.output_of(), 2, &["it differs in weights\n"]);
    let before = written();
    let resumed = command().output_of();
    let said = expect(resumed, 0, &["batches are done already"]);
    assert!(before > 2000, "{said}");
    assert_eq!(
        text(&fs::read(scoring.path("scores.csv")).unwrap()),
        text(&whole)
    );
    scoring.holds_only(&["scores.csv", "variants.csv"]);
}
