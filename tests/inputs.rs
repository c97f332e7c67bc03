//! Inputs that hold nothing, are not there or are something else: each command that reads some ends
//! with one error that names the file, the code for wrong arguments, and nothing left behind.

use std::fs;
use std::path::Path;

use crate::support::runs::{expect, files, pretrain};

/// What is in the place of an input.
const CONTENTS: [(&str, Option<&str>); 6] = [
    ("missing", None),
    ("a directory", None),
    ("empty", Some("")),
    ("white space", Some(" \n\n  \n")),
    ("a header alone", Some(">a\n")),
    ("no sequences", Some("hello\n")),
];

/// The arguments of commands that read `input.1`; `WEIGHTS` is a directory of weights.
const COMMANDS: [&str; 12] = [
    "prepare --output out input.1",
    "prepare --output out good.fasta input.1",
    "embed --weights WEIGHTS --output out.parquet input.1",
    "embed --weights WEIGHTS --output out.h5 --rejects rejects.tsv good.fasta input.1",
    "generate --weights WEIGHTS --output out.fasta input.1",
    "score --weights WEIGHTS --wild-type MKVAYTLLG --output out.csv input.1",
    "score --weights WEIGHTS --wild-type input.1 --output out.csv good.csv",
    "score --weights WEIGHTS --reference input.1 --output out.csv good.csv",
    "evaluate --weights WEIGHTS --data input.1",
    "benchmark q3 --weights WEIGHTS --output out.json --data input.1",
    "variants high-n --weights WEIGHTS --output out --family input.1",
    "variants one-n --weights WEIGHTS --output out --sequence good.fasta --family input.1",
];

#[test]
fn an_input_that_cannot_be_used_is_one_error_and_leaves_nothing() {
    let weights = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/generation/untied/hf");
    std::thread::scope(|scope| {
        for command in COMMANDS {
            let weights = &weights;
            scope.spawn(move || {
                for (name, contents) in CONTENTS {
                    // A good record beside one that is none is used.
                    if command.contains("good.fasta input.1") && name == "a header alone" {
                        continue;
                    }
                    refuses(command, weights, name, contents);
                }
            });
        }
    });
}

#[track_caller]
fn refuses(arguments: &str, weights: &Path, name: &str, contents: Option<&str>) {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::write(at("good.fasta"), ">good\nMKVAYTLLG\n").unwrap();
    fs::write(at("good.csv"), "mutant\nM1A\n").unwrap();
    match contents {
        Some(contents) => fs::write(at("input.1"), contents).unwrap(),
        None if name == "missing" => {}
        None => fs::create_dir(at("input.1")).unwrap(),
    }
    let before = files(directory.path());
    let mut command = pretrain();
    command.current_dir(directory.path());
    for argument in arguments.split(' ') {
        match argument {
            "WEIGHTS" => command.arg(weights),
            argument => command.arg(argument),
        };
    }
    let output = command.output().unwrap();
    println!("{arguments}, {name}:");
    let said = expect(output, 2, &["input.1"]);
    print!("{said}");
    assert_eq!(said.matches("error: ").count(), 1, "{said}");
    assert_eq!(files(directory.path()), before);
    let directories = fs::read_dir(directory.path()).unwrap().filter(|entry| {
        let entry = entry.as_ref().unwrap();
        entry.path().is_dir()
    });
    assert_eq!(directories.count(), usize::from(name == "a directory"));
}
