//! `pretrain embed`: what holds whatever the batches, the devices and the interruptions are.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use crate::support::runs::{expect, fasta, pretrain, pretrain_keeping, text};

/// Weights of a tiny model, and a directory to work in.
struct Bench {
    directory: tempfile::TempDir,
}

/// The rows of a file: id, length and values.
type Rows = Vec<(String, usize, Vec<f32>)>;

impl Bench {
    fn new(lengths: impl IntoIterator<Item = usize>) -> Bench {
        let directory = tempfile::tempdir().unwrap();
        let bench = Bench { directory };
        fs::create_dir(bench.path("")).unwrap();
        fs::write(bench.path("proteins.fasta"), fasta(lengths)).unwrap();
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join("work").join(name)
    }

    /// A command that embeds `proteins.fasta`.
    fn command(&self, output: &str, arguments: &[&str]) -> Command {
        let mut command = pretrain_keeping(&self.directory.path().join("programs"));
        command.current_dir(self.path(""));
        command.arg("embed").arg("--weights").arg(weights());
        command.args(["--output", output]).args(arguments);
        command.arg("proteins.fasta");
        command
    }

    fn run(&self, output: &str, arguments: &[&str]) -> Output {
        self.command(output, arguments).output().unwrap()
    }

    #[track_caller]
    fn rows(&self, output: &str, arguments: &[&str]) -> Rows {
        expect(self.run(output, arguments), 0, &[]);
        rows(&self.path(output))
    }
}

fn weights() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/gated-silu/hf")
}

fn rows(path: &Path) -> Rows {
    let reader = SerializedFileReader::new(fs::File::open(path).unwrap()).unwrap();
    let row = |row: Result<Row, _>| {
        let columns: Vec<Field> = row
            .unwrap()
            .into_columns()
            .into_iter()
            .map(|(_, field)| field)
            .collect();
        let [
            Field::Str(id),
            Field::Int(length),
            Field::ListInternal(values),
        ] = &columns[..]
        else {
            panic!("{columns:?}");
        };
        let value = |field: &Field| match field {
            Field::Float(value) => *value,
            Field::Float16(value) => value.to_f32(),
            other => panic!("{other:?}"),
        };
        let values = values.elements().iter().map(value).collect();
        (id.clone(), *length as usize, values)
    };
    reader.get_row_iter(None).unwrap().map(row).collect()
}

#[track_caller]
fn assert_close(one: &Rows, other: &Rows, tolerance: f32) {
    assert_eq!(one.len(), other.len());
    for ((id, length, values), other) in one.iter().zip(other) {
        assert_eq!((id, length), (&other.0, &other.1));
        assert_eq!(values.len(), other.2.len(), "{id}");
        for (place, (x, y)) in values.iter().zip(&other.2).enumerate() {
            assert!(
                (x - y).abs() <= tolerance,
                "{id}, value {place}: {x} and {y}"
            );
        }
    }
}

/// Lengths from a few residues to more than two rows of the shortest length.
fn lengths() -> impl Iterator<Item = usize> + Clone {
    (0..60).map(|i| 1 + (i * 37) % 190 + if i % 17 == 0 { 400 } else { 0 })
}

#[test]
fn a_sequence_alone_equals_the_same_among_others() {
    let bench = Bench::new(lengths());
    let together = bench.rows("together.parquet", &[]);
    assert_eq!(together.len(), 60);
    let all = fs::read_to_string(bench.path("proteins.fasta")).unwrap();
    let records: Vec<&str> = all.split_inclusive('\n').collect();
    for record in [0, 1, 17, 59] {
        fs::write(
            bench.path("proteins.fasta"),
            records[2 * record..][..2].concat(),
        )
        .unwrap();
        let alone = bench.rows("alone.parquet", &["--replace"]);
        assert_close(&alone, &vec![together[record].clone()], 1e-5);
    }
}

#[test]
fn a_mean_is_that_of_the_residues_on_any_number_of_devices() {
    let bench = Bench::new(lengths());
    let means = bench.rows("means.parquet", &[]);
    let residues = bench.rows("residues.parquet", &["--pooling", "none"]);
    let mean = |(id, length, values): &(String, usize, Vec<f32>)| {
        let width = values.len() / length;
        let of = |i: usize| values.iter().skip(i).step_by(width).sum::<f32>() / *length as f32;
        (id.clone(), *length, (0..width).map(of).collect())
    };
    assert_close(&residues.iter().map(mean).collect(), &means, 1e-5);
    for (devices, tokens) in [("cpu-1", "700"), ("cpu-8", "4096")] {
        let options = ["--replace", "--slice", devices, "--batch-tokens", tokens];
        assert_close(&bench.rows("other.parquet", &options), &means, 1e-5);
    }
    let halves = bench.rows("halves.parquet", &["--store", "float16"]);
    // Eleven bits, and no value is above 8.
    assert_close(&halves, &means, 8.0 / 2048.0);
}

#[test]
fn residues_have_the_states_that_the_forward_pass_has() {
    let bench = Bench::new([29, 40, 12]);
    let residues = bench.rows("residues.parquet", &["--pooling", "none"]);
    let (rows, length) = (3, 48);
    let tokenizer = ankh_data::Tokenizer::ankh();
    let (mut ids, mut mask) = (vec![0i32; rows * length], vec![0i32; rows * length]);
    let all = fs::read_to_string(bench.path("proteins.fasta")).unwrap();
    for (row, sequence) in all
        .lines()
        .filter(|line| !line.starts_with('>'))
        .enumerate()
    {
        let ends = [Some(1)].into_iter();
        let tokens = sequence
            .bytes()
            .map(|byte| tokenizer.residue_id(byte))
            .chain(ends);
        for (place, token) in tokens.enumerate() {
            ids[row * length + place] = token.unwrap().into();
            mask[row * length + place] = 1;
        }
    }
    let targets = vec![1i32; rows * 4];
    let tensors = [
        ("input_ids", length, &ids),
        ("attention_mask", length, &mask),
        ("decoder_input_ids", 4, &targets),
        ("labels", 4, &targets),
    ];
    let bytes = |values: &[i32]| {
        values
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect::<Vec<u8>>()
    };
    let tensors = tensors.map(|(name, width, values)| (name, vec![rows, width], bytes(values)));
    let views = tensors.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::I32, shape.clone(), bytes).unwrap();
        (*name, view)
    });
    let batch = safetensors::serialize(views, None).unwrap();
    fs::write(bench.path("batch.safetensors"), batch).unwrap();
    let mut forward = pretrain();
    forward.current_dir(bench.path(""));
    forward.arg("forward").arg("--weights").arg(weights());
    forward.args([
        "--batch",
        "batch.safetensors",
        "--output",
        "states.safetensors",
    ]);
    expect(forward.output().unwrap(), 0, &[]);
    let states = fs::read(bench.path("states.safetensors")).unwrap();
    let states = safetensors::SafeTensors::deserialize(&states).unwrap();
    let states = states.tensor("encoder").unwrap();
    let width = states.shape()[2];
    let (values, _) = states.data().as_chunks::<4>();
    let values: Vec<f32> = values
        .iter()
        .map(|&bytes| f32::from_le_bytes(bytes))
        .collect();
    let expected = residues.iter().enumerate().map(|(row, (id, count, _))| {
        // What stands behind the residues is </s>, and no part of a file.
        let start = row * length * width;
        (
            id.clone(),
            *count,
            values[start..][..count * width].to_vec(),
        )
    });
    assert_close(&residues, &expected.collect(), 1e-5);
}

/// Waits until something is so.
#[track_caller]
fn wait_for(what: impl Fn() -> bool) {
    let patience = Instant::now() + Duration::from_secs(120);
    while !what() {
        assert!(
            Instant::now() < patience,
            "it did not happen in two minutes"
        );
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn interrupted_work_goes_on_and_ends_in_the_same_bytes() {
    // Windows of 4096 tokens, so six parts.
    let bench = Bench::new((0..360).map(|i| 10 + (i * 31) % 115));
    let options = ["--pooling", "none", "--batch-tokens", "16"];
    expect(bench.run("whole.h5", &options), 0, &["360 sequences"]);
    let parts = bench.path("killed.h5.parts");
    for (awaited, signal, code) in [
        ("part-00000.json", "-KILL", None),
        ("part-00002.values", "-TERM", Some(75)),
        ("part-00003.json", "-KILL", None),
    ] {
        let mut process = bench.command("killed.h5", &options).spawn().unwrap();
        // An earlier process may have come as far already: this one shall do it again.
        for extension in ["json", "progress", "values"] {
            let _ = fs::remove_file(parts.join(awaited).with_extension(extension));
        }
        wait_for(|| parts.join(awaited).exists());
        let id = process.id().to_string();
        assert!(
            Command::new("kill")
                .args([signal, &id])
                .status()
                .unwrap()
                .success()
        );
        assert_eq!(process.wait().unwrap().code(), code);
        assert!(!bench.path("killed.h5").exists());
    }
    let words = [
        "holds parts that another command began",
        "pooling was",
        "--restart",
    ];
    expect(bench.run("killed.h5", &["--batch-tokens", "16"]), 2, &words);
    expect(bench.run("killed.h5", &options), 0, &["360 sequences"]);
    let [whole, killed] = ["whole.h5", "killed.h5"].map(|name| fs::read(bench.path(name)).unwrap());
    assert!(
        whole == killed,
        "{} and {} bytes",
        whole.len(),
        killed.len()
    );
    assert!(!parts.exists());
}

#[test]
fn what_cannot_be_used_is_counted_or_refused_and_nothing_is_half_written() {
    let bench = Bench::new([]);
    let write = |text: &str| fs::write(bench.path("proteins.fasta"), text).unwrap();
    let bad = ">a\nMKV\n>b\nMK1\n>c\nMKVLAAGIVG\n>d\n\n>a\nMKJ\n";
    write(bad);
    let short = ["--max-length", "8", "--rejects", "rejects.tsv"];
    let words = [
        "2 sequences, 6 residues",
        "3 records left out: 1 no sequence, 1 a character that is no residue, 1 too long",
        "1 unknown letters read as X",
    ];
    expect(bench.run("out.parquet", &short), 0, &words);
    let ids: Vec<String> = rows(&bench.path("out.parquet"))
        .into_iter()
        .map(|r| r.0)
        .collect();
    assert_eq!(ids, ["a", "a"]);
    let rejects = fs::read_to_string(bench.path("rejects.tsv")).unwrap();
    let first = "proteins.fasta\t3\tb\ta character that is no residue\t'1' at place 3\n";
    assert!(
        rejects.starts_with(first) && rejects.lines().count() == 3,
        "{rejects}"
    );

    let before = fs::read(bench.path("out.parquet")).unwrap();
    expect(
        bench.run("out.parquet", &[]),
        2,
        &["out.parquet is there already", "--replace"],
    );
    let words = ["proteins.fasta, line 3: b: a character that is no residue ('1' at place 3)"];
    expect(bench.run("strict.parquet", &["--strict"]), 2, &words);
    expect(
        bench.run("out.npy", &[]),
        2,
        &["ends in .parquet, .h5 or .hdf5"],
    );
    write("");
    expect(
        bench.run("empty.parquet", &[]),
        2,
        &["proteins.fasta is empty"],
    );
    write(">b\nMK1\n");
    let words = [
        "none of the 1 records in proteins.fasta can be embedded: 1 a character that is no residue",
    ];
    expect(bench.run("none.parquet", &[]), 2, &words);
    fs::remove_file(bench.path("proteins.fasta")).unwrap();
    expect(
        bench.run("missing.parquet", &[]),
        2,
        &["cannot open proteins.fasta"],
    );
    assert_eq!(fs::read(bench.path("out.parquet")).unwrap(), before);
    let mut left: Vec<String> = fs::read_dir(bench.path(""))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["out.parquet", "rejects.tsv"]);
}

#[test]
fn equal_sequences_share_a_dataset_or_have_numbers() {
    let bench = Bench::new([]);
    fs::write(bench.path("proteins.fasta"), ">a\nMKV\n>b\nMKV\n>c\nMKL\n").unwrap();
    let words = ["1 sequences share the dataset of an equal one before them"];
    expect(bench.run("hashes.h5", &[]), 0, &words);
    let said = expect(bench.run("numbers.h5", &["--hdf5-names", "number"]), 0, &[]);
    assert!(!said.contains("share"), "{said}");
    let size = |name: &str| fs::metadata(bench.path(name)).unwrap().len();
    assert!(size("hashes.h5") != size("numbers.h5"));
    assert!(text(&fs::read(bench.path("hashes.h5")).unwrap()).contains("original_id"));
}
