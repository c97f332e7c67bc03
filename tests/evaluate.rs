//! `pretrain evaluate`: against the evaluation of a run, at every size of a batch and on several
//! devices, and against `pretrain score`.

use std::process::Command;

use serde_json::Value;

use crate::support::runs::{Bench, expect, fasta, pretrain, pretrain_keeping, text};

/// Of sums over batches that were divided otherwise.
const TOLERANCE: f64 = 1e-5;

fn evaluate(bench: &Bench, arguments: &[&str]) -> Command {
    let mut command = pretrain_keeping(&bench.path("programs"));
    command
        .arg("evaluate")
        .arg("--weights")
        .arg(bench.path("run"));
    command
        .arg("--data")
        .arg(bench.path("data"))
        .args(arguments);
    command
}

#[track_caller]
fn result(mut command: Command) -> Value {
    let output = command.arg("--json").output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[track_caller]
fn assert_close(what: &str, found: &Value, expected: &Value) {
    let (found, expected) = (found.as_f64().unwrap(), expected.as_f64().unwrap());
    let difference = (found - expected).abs();
    assert!(
        difference <= TOLERANCE * expected.abs(),
        "{what}: {found} is not {expected}"
    );
}

/// A run of a few steps that evaluates after the last, with this setting.
fn trained(setting: &str) -> Bench {
    let bench = Bench::new();
    let mut train = pretrain();
    train.args([
        "--config",
        "tiny",
        "--steps",
        "4",
        "--set",
        "evaluation.every=4",
    ]);
    train.args([
        "--set",
        "evaluation.batches=0",
        "--set",
        "checkpoint.every=4",
        "--set",
        setting,
    ]);
    train
        .arg("--data")
        .arg(bench.path("data"))
        .arg("--run-dir")
        .arg(bench.path("run"));
    expect(train.output().unwrap(), 0, &[]);
    bench
}

#[test]
fn it_finds_what_the_evaluation_of_the_run_found() {
    let bench = trained("evaluation.residues=false");
    let metrics = std::fs::read_to_string(bench.path("run/metrics.jsonl")).unwrap();
    let last: Value = serde_json::from_str(metrics.lines().last().unwrap()).unwrap();
    let found = result(evaluate(&bench, &[]));
    assert_close("loss", &found["loss"], &last["validation_loss"]);
    assert_close("accuracy", &found["accuracy"], &last["validation_accuracy"]);
    assert_close(
        "perplexity",
        &found["perplexity"],
        &last["validation_perplexity"],
    );

    // How the sequences are divided among batches and devices changes nothing.
    let divided = result(evaluate(
        &bench,
        &["--batch-tokens", "1", "--slice", "cpu-2"],
    ));
    assert!(divided["batches"].as_u64() > found["batches"].as_u64());
    for key in ["sequences", "residues", "confusion", "target_tokens"] {
        assert_eq!(divided[key], found[key], "{key}");
    }
    assert_close("loss", &divided["loss"], &found["loss"]);
    assert_close(
        "BLOSUM62",
        &divided["blosum62"]["pearson"],
        &found["blosum62"]["pearson"],
    );

    // Residues are a part of the targets; the rows of the matrix sum to their counts.
    let residues = found["residues"].as_array().unwrap();
    let of = |key: &str| {
        residues
            .iter()
            .map(|r| r[key].as_u64().unwrap())
            .sum::<u64>()
    };
    assert!(of("count") > 20 && (of("count") as f64) < found["target_tokens"].as_f64().unwrap());
    let accuracy = found["residue_accuracy"].as_f64().unwrap();
    assert!((accuracy - of("correct") as f64 / of("count") as f64).abs() < 1e-12);
    let letters = found["confusion"]["letters"].as_str().unwrap();
    for residue in residues {
        let row = letters.find(residue["residue"].as_str().unwrap()).unwrap();
        let row = found["confusion"]["counts"][row].as_array().unwrap();
        let sum: u64 = row.iter().map(|count| count.as_u64().unwrap()).sum();
        assert_eq!(Some(sum), residue["count"].as_u64());
    }

    // The parts make up the whole.
    let train = result(evaluate(&bench, &["--split", "train", "--batches", "1000"]));
    let all = result(evaluate(&bench, &["--split", "all"]));
    assert_eq!(all["sequences"], 64);
    let tokens = |of: &Value| of["target_tokens"].as_f64().unwrap();
    assert_eq!(tokens(&all), tokens(&train) + tokens(&found));
    let one = result(evaluate(&bench, &["--split", "train", "--batches", "1"]));
    assert_eq!(one["batches"], 1);
}

#[test]
fn likelihoods_are_those_that_variants_are_scored_by() {
    let bench = trained("evaluation.residues=true");
    // Such a run notes what it finds of residues.
    let metrics = std::fs::read_to_string(bench.path("run/metrics.jsonl")).unwrap();
    let last: Value = serde_json::from_str(metrics.lines().last().unwrap()).unwrap();
    let found = result(evaluate(&bench, &[]));
    assert_close("loss", &found["loss"], &last["validation_loss"]);
    let of_run = &last["validation_residues"];
    assert_close(
        "BLOSUM62",
        &of_run["blosum62"],
        &found["blosum62"]["spearman"],
    );
    let residues = found["residues"].as_array().unwrap();
    assert_eq!(
        of_run["accuracy"].as_object().unwrap().len(),
        residues.len()
    );
    for residue in residues {
        let number = |key: &str| residue[key].as_f64().unwrap();
        let share = number("correct") / number("count");
        let name = residue["residue"].as_str().unwrap();
        assert_eq!(of_run["accuracy"][name], Value::from(share), "{name}");
    }

    let fasta = fasta([25, 30, 31]);
    std::fs::write(bench.path("three.fasta"), &fasta).unwrap();
    let mut prepare = pretrain();
    prepare.args(["prepare", "--validation-fraction", "0", "--output"]);
    prepare
        .arg(bench.path("three"))
        .arg(bench.path("three.fasta"));
    expect(prepare.output().unwrap(), 0, &[]);
    let three = bench.path("three");
    let arguments = ["--split", "train", "--pseudo-likelihood", "2", "--data"];
    let of_three = || {
        let mut command = pretrain();
        command
            .arg("evaluate")
            .arg("--weights")
            .arg(bench.path("run"));
        command.args(arguments).arg(&three);
        command
    };
    let likelihood = &result(of_three())["likelihood"];
    assert_eq!(
        (&likelihood["sequences"], &likelihood["residues"]),
        (&2.into(), &55.into())
    );

    let sequences = fasta.lines().filter(|line| !line.starts_with('>')).take(2);
    let table = format!(
        "mutated_sequence\n{}\n",
        sequences.collect::<Vec<_>>().join("\n")
    );
    std::fs::write(bench.path("two.csv"), table).unwrap();
    let mut score = pretrain();
    score.args(["score", "--method", "pseudo-likelihood", "--weights"]);
    score
        .arg(bench.path("run"))
        .arg("--output")
        .arg(bench.path("scores.csv"));
    expect(score.arg(bench.path("two.csv")).output().unwrap(), 0, &[]);
    let scores = std::fs::read_to_string(bench.path("scores.csv")).unwrap();
    let scores: Vec<Vec<f64>> = (scores.lines().skip(1))
        .map(|line| {
            line.split(',')
                .skip(1)
                .map(|cell| cell.parse().unwrap())
                .collect()
        })
        .collect();
    let mean = (25.0 * scores[0][0] + 30.0 * scores[1][0]) / 55.0;
    assert_close("mean", &likelihood["mean_log_probability"], &mean.into());
    assert_close(
        "perplexity",
        &likelihood["pseudo_perplexity"],
        &(-mean).exp().into(),
    );
    let likelihoods = (scores[0][1] + scores[1][1]) / 2.0;
    assert_close(
        "likelihood",
        &likelihood["pseudo_likelihood"],
        &likelihoods.into(),
    );

    let words = [
        "pseudo-likelihood",
        "of 2 sequences, 55 residues",
        "log-odds and BLOSUM62",
    ];
    let said = expect(of_three().output().unwrap(), 0, &words);
    assert!(said.contains("\nresidue    count  accuracy"), "{said}");
}

#[test]
fn data_of_another_tokenizer_and_empty_splits_are_refused() {
    let bench = trained("evaluation.residues=false");
    let fasta = bench.path("proteins.fasta");
    let mut prepare = pretrain();
    prepare.args(["prepare", "--tokenizer", "ankh3", "--output"]);
    prepare.arg(bench.path("others")).arg(fasta);
    expect(prepare.output().unwrap(), 0, &[]);
    let mut others = pretrain();
    others
        .arg("evaluate")
        .arg("--weights")
        .arg(bench.path("run"));
    others.arg("--data").arg(bench.path("others"));
    expect(
        others.args(["--split", "train"]).output().unwrap(),
        2,
        &["ankh3"],
    );
    let empty = evaluate(&bench, &["--split", "test"]).output().unwrap();
    expect(empty, 1, &["test"]);
    let mut none = pretrain();
    none.arg("evaluate")
        .arg("--weights")
        .arg(bench.path("data"));
    none.arg("--data").arg(bench.path("data"));
    expect(none.output().unwrap(), 2, &["weights"]);
}
