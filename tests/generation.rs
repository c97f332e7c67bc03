//! Generation against PyTorch's T5, token by token; what is drawn against its distribution; and the
//! command, interrupted and with bad input.

use std::fs;
use std::iter;
use std::path::{Path, PathBuf};

use ankh::config::{Compute, Model};
use ankh::generate::{
    Constraint, Freedom, Generated, Generator, Item, Prompt, Search, Settings, Task,
};
use ankh::hugging_face::{self, Weights};
use ankh::inference::{LoadedModel, ModelOptions, input_batch};
use ankh::mesh::slice::Slice;
use ankh::programs::{AMINO_ACIDS, BatchShape, Gradients};
use ankh_data::{Packing, Tokenizer, Vocabulary};
use ankh_pjrt::HostTensor;
use serde_json::Value;

use crate::support::runs::{expect, pretrain, pretrain_keeping, text};

fn directory(case: &str) -> PathBuf {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/generation");
    golden.join(case).join("hf")
}

fn model_on(case: &str, slice: &str) -> LoadedModel {
    let weights = hugging_face::load(directory(case)).unwrap();
    let options = ModelOptions {
        slice: slice.parse::<Slice>().unwrap(),
        compute: Compute::Float32,
        tokenizer: None,
    };
    LoadedModel::open(weights, options).unwrap()
}

fn model(case: &str) -> LoadedModel {
    model_on(case, "cpu-1")
}

fn free(input: Vec<u8>, limit: usize) -> Prompt {
    Prompt {
        id: "prompt".into(),
        input,
        target: vec![],
        rest: Constraint::Free,
        limit,
    }
}

/// All prompts in one batch, numbered from 0.
fn run(model: &LoadedModel, settings: Settings, prompts: &[Prompt]) -> Vec<Vec<Generated>> {
    let items = prompts.iter().zip(0..).map(|(prompt, number)| Item {
        prompt,
        number,
        first_sample: 0,
    });
    let items: Vec<Item<'_>> = items.collect();
    Generator::new(model, settings).run(&items, 1).unwrap()
}

fn ids(value: &Value) -> Vec<u8> {
    serde_json::from_value(value.clone()).unwrap()
}

/// The tokens of the 20 prompts of each case, and the scores of beams to this much.
const SCORE: f64 = 2e-5;

#[test]
fn greedy_and_beam_search_give_the_tokens_of_transformers() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/generation/expected.json");
    let cases: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    for (case, rows) in cases.as_object().unwrap() {
        let model = model(case);
        let rows = rows.as_array().unwrap();
        assert_eq!(rows.len(), 20);
        let check = |key: &str, settings: Settings, limit: usize| {
            let prompts = rows.iter().map(|row| free(ids(&row["prompt"]), limit));
            let found = run(&model, settings, &prompts.collect::<Vec<_>>());
            for (row, found) in rows.iter().zip(found) {
                let expected: Vec<Vec<u8>> = match key {
                    "greedy" => vec![ids(&row[key])],
                    _ => row[key].as_array().unwrap().iter().map(ids).collect(),
                };
                for (number, tokens) in expected.iter().enumerate() {
                    let prompt = &row["prompt"];
                    assert_eq!(&found[number].tokens, tokens, "{case} {key} {prompt}");
                    if key != "greedy" {
                        let score = row[format!("{key}_scores")][number].as_f64().unwrap();
                        let difference = (f64::from(found[number].score) - score).abs();
                        assert!(difference < SCORE * score.abs().max(1.0), "{difference:e}");
                    }
                }
            }
        };
        check("greedy", Settings::default(), 48);
        let beams = |beams, early_stopping, length_penalty| Settings {
            search: Search::Beam {
                sample: false,
                early_stopping,
            },
            rows_per_prompt: beams,
            length_penalty,
            ..Settings::default()
        };
        check("beams", beams(4, false, 1.0), 24);
        check("early", beams(3, true, 0.5), 40);
    }
}

/// Longer than every target.
const POSITIONS: usize = 48;

/// The logarithms of the probabilities that the forward pass gives to all tokens at each position.
fn log_probabilities(model: &LoadedModel, input: &[u8], target: &[u8]) -> Vec<Vec<f64>> {
    let size = BatchShape {
        rows: 1,
        input: input.len(),
        target: POSITIONS,
        packing: Packing::Padded,
    };
    let program = model
        .program("forward", size, |p| p.forward(Gradients::No))
        .unwrap();
    let [input_ids, attention_mask] = input_batch(&[input], 1, input.len());
    let before = [0].into_iter().chain(target.iter().copied().map(i32::from));
    let before: Vec<i32> = before.chain(iter::repeat(0)).take(POSITIONS).collect();
    let dims = [1, POSITIONS as i64];
    let arrays = [
        input_ids,
        attention_mask,
        HostTensor::new::<i32>(dims, &before),
        HostTensor::new::<i32>(dims, &before),
    ];
    let logits = program.run(&arrays).unwrap()[0].to_vec::<f32>().unwrap();
    let rows = logits.chunks_exact(model.model().vocabulary).map(|row| {
        let sum: f64 = row.iter().map(|&x| f64::from(x).exp()).sum();
        row.iter().map(|&x| f64::from(x) - sum.ln()).collect()
    });
    rows.collect()
}

#[test]
fn a_score_is_what_the_forward_pass_gives_to_the_tokens() {
    let model = model("untied");
    let prompts = (5..9).map(|n| free(vec![n, 3, 2 * n, 26, 1], 40));
    let prompts: Vec<Prompt> = prompts.collect();
    let settings = Settings {
        search: Search::Sample,
        rows_per_prompt: 3,
        seed: 5,
        ..Settings::default()
    };
    for (prompt, samples) in prompts.iter().zip(run(&model, settings, &prompts)) {
        for Generated { tokens, score } in samples {
            let expected = log_probabilities(&model, &prompt.input, &tokens);
            let each = tokens
                .iter()
                .zip(expected)
                .map(|(&id, row)| row[usize::from(id)]);
            let expected: f64 = each.sum();
            // A sum of up to 40 terms of some 5 each, in float32.
            let difference = (f64::from(score) - expected).abs();
            assert!(
                difference < 1e-5 * expected.abs().max(1.0),
                "{score} {expected}"
            );
        }
    }
}

/// The probabilities after temperature, top-k and top-p, as transformers applies them.
fn warped(log_probabilities: &[f64], settings: Settings) -> Vec<f64> {
    let mut order: Vec<usize> = (0..log_probabilities.len()).collect();
    order.sort_by(|&a, &b| log_probabilities[b].total_cmp(&log_probabilities[a]));
    let temperature = f64::from(settings.temperature);
    let weight = |id: usize| (log_probabilities[id] / temperature).exp();
    if settings.top_k > 0 {
        order.truncate(settings.top_k);
    }
    let all: f64 = order.iter().map(|&id| weight(id)).sum();
    let mut before = 0.0;
    order.retain(|&id| {
        let kept = before < f64::from(settings.top_p);
        before += weight(id) / all;
        kept
    });
    let all: f64 = order.iter().map(|&id| weight(id)).sum();
    let mut probabilities = vec![0.0; log_probabilities.len()];
    order
        .iter()
        .for_each(|&id| probabilities[id] = weight(id) / all);
    probabilities
}

/// Pearson's statistic and its degrees of freedom. Tokens that few draws are expected of count
/// together.
fn chi_squared(counts: &[usize], probabilities: &[f64]) -> (f64, usize) {
    let draws: usize = counts.iter().sum();
    let mut cells: Vec<(f64, f64)> = vec![(0.0, 0.0)];
    for (&count, &probability) in counts.iter().zip(probabilities) {
        let expected = probability * draws as f64;
        match expected >= 5.0 {
            true => cells.push((count as f64, expected)),
            false => {
                cells[0].0 += count as f64;
                cells[0].1 += expected;
            }
        }
    }
    let used = cells.iter().filter(|(_, expected)| *expected > 1.0);
    let statistic = used
        .clone()
        .map(|(found, expected)| (found - expected).powi(2) / expected);
    (statistic.sum(), used.count() - 1)
}

/// What a chi-squared statistic exceeds once in 10,000 times (Wilson and Hilferty, 1931).
fn rarely_exceeded(freedom: usize) -> f64 {
    let n = freedom as f64;
    n * (1.0 - 2.0 / (9.0 * n) + 3.719 * (2.0 / (9.0 * n)).sqrt()).powi(3)
}

#[test]
fn the_frequencies_of_samples_are_their_probabilities() {
    let model = model("untied");
    let prompt = free(vec![19, 4, 7, 7, 12, 1], 1);
    let plain = Settings {
        search: Search::Sample,
        rows_per_prompt: 1024,
        seed: 11,
        ..Settings::default()
    };
    let cases = [
        plain,
        Settings {
            temperature: 0.6,
            ..plain
        },
        Settings { top_k: 12, ..plain },
        Settings {
            top_p: 0.9,
            ..plain
        },
        Settings {
            temperature: 1.7,
            top_k: 40,
            top_p: 0.8,
            ..plain
        },
    ];
    let log_probabilities = &log_probabilities(&model, &prompt.input, &[1])[0];
    for settings in cases {
        let draw = |i: u32| Item {
            prompt: &prompt,
            number: 0,
            first_sample: 1024 * i,
        };
        let generator = Generator::new(&model, settings);
        let found = (0..4).flat_map(|i| generator.run(&[draw(i)], 1).unwrap().concat());
        let mut counts = vec![0; log_probabilities.len()];
        found.for_each(|row| counts[usize::from(row.tokens[0])] += 1);
        let probabilities = warped(log_probabilities, settings);
        for (&count, &probability) in counts.iter().zip(&probabilities) {
            assert!(
                count == 0 || probability > 0.0,
                "{settings:?}: excluded, and drawn"
            );
        }
        let (statistic, freedom) = chi_squared(&counts, &probabilities);
        assert!(freedom > 3, "{freedom}");
        assert!(
            statistic < rarely_exceeded(freedom),
            "{settings:?}: {statistic} of {freedom}"
        );
        // The test can fail: of another distribution they are no sample.
        let (other, freedom) = chi_squared(
            &counts,
            &warped(
                log_probabilities,
                Settings {
                    temperature: 1.3 * settings.temperature,
                    ..settings
                },
            ),
        );
        assert!(
            other > rarely_exceeded(freedom),
            "{settings:?}: {other} of {freedom}"
        );
    }
}

#[test]
fn beams_that_are_drawn_are_different_and_follow_their_probabilities() {
    let model = model("untied");
    let prompt = free(vec![19, 4, 7, 7, 12, 1], 1);
    let settings = Settings {
        search: Search::Beam {
            sample: true,
            early_stopping: false,
        },
        rows_per_prompt: 2,
        seed: 3,
        ..Settings::default()
    };
    let generator = Generator::new(&model, settings);
    let found = (0..8).flat_map(|i| {
        let draw = |first_sample| Item {
            prompt: &prompt,
            number: 0,
            first_sample,
        };
        let items: Vec<Item<'_>> = (256 * i..256 * (i + 1)).map(draw).collect();
        generator.run(&items, 256).unwrap()
    });
    let found: Vec<Vec<Generated>> = found.collect();
    let log_probabilities = &log_probabilities(&model, &prompt.input, &[1])[0];
    // The better one of two tokens drawn without replacement.
    let p: Vec<f64> = log_probabilities.iter().map(|x| x.exp()).collect();
    let mut better = vec![0.0; p.len()];
    for (i, &first) in p.iter().enumerate() {
        for (j, &second) in p.iter().enumerate().filter(|(j, _)| *j != i) {
            let best = if first > second { i } else { j };
            better[best] += first * second / (1.0 - first);
        }
    }
    let mut counts = vec![0; p.len()];
    for beams in &found {
        assert_ne!(beams[0].tokens, beams[1].tokens);
        counts[usize::from(beams[0].tokens[0])] += 1;
    }
    let (statistic, freedom) = chi_squared(&counts, &better);
    assert!(
        statistic < rarely_exceeded(freedom),
        "{statistic} of {freedom}"
    );
}

#[test]
fn what_is_generated_depends_on_the_seed_and_not_on_the_batch() {
    let lengths = [4, 20, 7];
    let prompt = |n: u8| (0..n).map(move |i| 3 + (7 * i + n) % 25).chain([1]);
    let prompts = lengths.map(|n| free(prompt(n).collect(), 20));
    let sample = Settings {
        search: Search::Sample,
        rows_per_prompt: 2,
        temperature: 1.2,
        seed: 8,
        ..Settings::default()
    };
    let beams = Settings {
        search: Search::Beam {
            sample: true,
            early_stopping: true,
        },
        rows_per_prompt: 3,
        ..sample
    };
    let single = model("untied");
    let two = model_on("untied", "cpu-2");
    for settings in [sample, beams] {
        let tokens = |rows: &[Vec<Generated>]| -> Vec<Vec<Vec<u8>>> {
            let of_prompt = |rows: &Vec<Generated>| rows.iter().map(|r| r.tokens.clone()).collect();
            rows.iter().map(of_prompt).collect()
        };
        let together = tokens(&run(&single, settings, &prompts));
        assert_eq!(tokens(&run(&two, settings, &prompts)), together);
        let other = Settings {
            seed: 9,
            ..settings
        };
        assert_ne!(tokens(&run(&single, other, &prompts)), together);
        for (number, prompt) in prompts.iter().enumerate() {
            let item = Item {
                prompt,
                number: number as u32,
                first_sample: 0,
            };
            let alone = Generator::new(&single, settings).run(&[item], 1).unwrap();
            assert_eq!(tokens(&alone)[0], together[number], "{settings:?} {number}");
        }
        // The second sample is the first of those from there on.
        if settings.search == Search::Sample {
            let item = Item {
                prompt: &prompts[2],
                number: 2,
                first_sample: 1,
            };
            let later = Generator::new(&single, settings).run(&[item], 1).unwrap();
            assert_eq!(later[0][0].tokens, together[2][1]);
        }
    }
}

#[test]
fn a_constraint_leaves_only_targets_of_the_right_form() {
    let model = model("untied");
    let tokenizer = Tokenizer::ankh();
    let objective = ankh::generate::objective_of(Task::Fill, None, None, tokenizer);
    let text = b"MK<extra_id_0><extra_id_1>VLA<extra_id_2>";
    let form = (&objective, Freedom::Form);
    let prompt = Prompt::parse("p", text, Task::Fill, form, tokenizer, None).unwrap();
    let sample = Settings {
        search: Search::Sample,
        rows_per_prompt: 16,
        ..Settings::default()
    };
    let beams = Settings {
        search: Search::Beam {
            sample: false,
            early_stopping: false,
        },
        rows_per_prompt: 8,
        ..Settings::default()
    };
    for settings in [Settings::default(), sample, beams] {
        for row in run(&model, settings, std::slice::from_ref(&prompt)).concat() {
            let sequence = objective
                .unmask(tokenizer, &prompt.input, &row.tokens)
                .unwrap();
            let sequence = tokenizer.decode(&sequence);
            assert_eq!(sequence.len(), 8, "{sequence}");
            assert!(
                sequence.starts_with("MK") && &sequence[4..7] == "VLA",
                "{sequence}"
            );
        }
    }
}

/// A directory with a model and prompts.
struct Desk(tempfile::TempDir);

impl Desk {
    fn new(prompts: &str) -> Desk {
        let desk = Desk(tempfile::tempdir().unwrap());
        fs::create_dir(desk.path("")).unwrap();
        fs::write(desk.path("prompts.fasta"), prompts).unwrap();
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join("work").join(name)
    }

    fn generate(&self, output: &str, more: &[&str]) -> std::process::Command {
        let mut command = pretrain_keeping(&self.0.path().join("programs"));
        command
            .arg("generate")
            .arg("--weights")
            .arg(directory("untied"));
        command.arg("--output").arg(self.path(output)).args(more);
        command.arg(self.path("prompts.fasta"));
        command
    }
}

const PROMPTS: &str =
    ">a\nMKT<extra_id_0>AYIA<extra_id_1>\n>b\nGG<extra_id_0>PG\n>c\n<extra_\nid_0>WWHK\n";

#[test]
fn a_file_of_prompts_is_filled_in_order() {
    let desk = Desk::new(PROMPTS);
    let done = desk.generate("out.fasta", &[]).output().unwrap();
    expect(done, 0, &["3 sequences", "from 3 prompts"]);
    let written = fs::read_to_string(desk.path("out.fasta")).unwrap();
    let lines: Vec<&str> = written.lines().collect();
    assert_eq!(lines.len(), 6, "{written}");
    assert!(lines[0].starts_with(">a score=-"), "{written}");
    assert_eq!(
        (lines[1].len(), &lines[1][..3], &lines[1][4..8]),
        (9, "MKT", "AYIA")
    );
    assert_eq!((lines[3].len(), &lines[3][3..]), (5, "PG"));
    assert_eq!((lines[5].len(), &lines[5][1..]), (5, "WWHK"));

    let again = desk.generate("out.fasta", &[]).output().unwrap();
    expect(again, 2, &["out.fasta is there already", "--replace"]);
    let drawn = [
        "--replace",
        "--sample",
        "--samples",
        "3",
        "--extend",
        "4",
        "--json",
    ];
    fs::write(desk.path("prompts.fasta"), ">a\nMKT\n>b\nGG\n").unwrap();
    let done = desk.generate("out.fasta", &drawn).output().unwrap();
    let summary: Value =
        serde_json::from_slice(&done.stdout).unwrap_or_else(|_| panic!("{}", text(&done.stderr)));
    assert_eq!(
        (&summary["prompts"], &summary["sequences"]),
        (&2.into(), &6.into())
    );
    let written = fs::read_to_string(desk.path("out.fasta")).unwrap();
    assert!(written.contains(">b/3 score="), "{written}");
}

#[test]
fn what_was_killed_goes_on_to_the_same_file() {
    let prompts = (0..24).map(|i| format!(">p{i}\n{}\n", "ACDEFGHIKL".repeat(1 + i % 3)));
    let desk = Desk::new(&prompts.collect::<String>());
    let more = [
        "--extend",
        "30",
        "--sample",
        "--samples",
        "2",
        "--batch-size",
        "2",
    ];
    let whole = desk.generate("whole.fasta", &more).output().unwrap();
    expect(whole, 0, &["48 sequences"]);
    let journal = desk.path(".part.fasta.unfinished");
    let mut last = 0;
    for _ in 0..3 {
        let mut child = desk.generate("part.fasta", &more).spawn().unwrap();
        let size = || fs::metadata(&journal).map_or(0, |file| file.len());
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while size() <= last && child.try_wait().unwrap().is_none() {
            assert!(std::time::Instant::now() < deadline);
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        last = size();
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(!desk.path("part.fasta").exists());
    // One that is asked to stop ends with its batch.
    let mut child = desk.generate("part.fasta", &more);
    let child = child.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while fs::metadata(&journal).unwrap().len() <= last {
        assert!(std::time::Instant::now() < deadline);
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    terminate(&child);
    expect(
        child.wait_with_output().unwrap(),
        75,
        &["stopped on request", "goes on with"],
    );
    let other = desk
        .generate("part.fasta", &["--extend", "30"])
        .output()
        .unwrap();
    expect(other, 2, &["unfinished work of another command", "samples"]);
    let done = desk.generate("part.fasta", &more).output().unwrap();
    expect(done, 0, &["48 sequences"]);
    let read = |name| fs::read_to_string(desk.path(name)).unwrap();
    assert_eq!(read("part.fasta"), read("whole.fasta"));
    assert!(!journal.exists());
}

#[test]
fn ankh3_writes_the_second_half_of_a_sequence() {
    let desk = Desk::new(">a\nMKTAYIAK\n>b\nGG\n");
    let model = Model {
        vocabulary: 256,
        ..hugging_face::load(directory("untied")).unwrap().model
    };
    let mut random = crate::support::Random(4);
    let tensors = hugging_face::parameters(&model)
        .into_iter()
        .map(|(name, shape)| {
            let dims: Vec<i64> = shape.iter().map(|&size| size as i64).collect();
            let values = random
                .signed(dims.iter().product())
                .into_iter()
                .map(|x| x as f32);
            let values: Vec<f32> = values.collect();
            (name.to_owned(), HostTensor::new::<f32>(dims, &values))
        });
    let weights = Weights {
        tensors: tensors.collect(),
        model,
        tokenizer: Some(Vocabulary::Ankh3),
        objective: None,
        notes: vec![],
    };
    hugging_face::export(&weights, &desk.path("ankh3")).unwrap();
    let mut command = pretrain();
    command
        .arg("generate")
        .arg("--weights")
        .arg(desk.path("ankh3"));
    command.args(["--complete", "--sample", "--max-tokens", "20", "--output"]);
    command.args([desk.path("out.fasta"), desk.path("prompts.fasta")]);
    expect(command.output().unwrap(), 0, &["2 sequences"]);
    let written = fs::read_to_string(desk.path("out.fasta")).unwrap();
    let lines: Vec<&str> = written.lines().collect();
    for (line, beginning) in [(lines[1], "MKTAYIAK"), (lines[3], "GG")] {
        let added = line.strip_prefix(beginning).unwrap();
        assert!(added.len() <= 20 && added.bytes().all(|letter| AMINO_ACIDS.contains(&letter)));
    }
    assert!(lines[1].len() + lines[3].len() > 10, "{written}");
}

#[test]
fn bad_prompts_and_options_are_refused_before_any_work() {
    let cases: [(&str, &[&str], &[&str]); 9] = [
        ("", &[], &["prompts.fasta has no prompts"]),
        ("MKT\n", &[], &["prompts.fasta, line 1: expected a header"]),
        (
            ">a\nM<extra_id_0>\n>b\nMJ<extra_id_0>\n",
            &[],
            &["line 3: `b` has `J` at position 2"],
        ),
        (
            ">a\nMKT\n",
            &[],
            &["line 1: `a` has no sentinel", "--extend"],
        ),
        (
            ">a\nMKTAY\n",
            &["--extend", "2", "--max-length", "4"],
            &["`a` has 8 tokens, and --max-length is 4"],
        ),
        (">a\nMKT\n", &["--complete"], &["no [S2S]", "--extend"]),
        (PROMPTS, &["--temperature", "2"], &["--sample"]),
        (
            PROMPTS,
            &["--sample", "--temperature", "0"],
            &["greater than 0"],
        ),
        (
            PROMPTS,
            &["--samples", "4", "--beams", "2"],
            &["--samples 4 with 2 beams"],
        ),
    ];
    for (prompts, more, words) in cases {
        let desk = Desk::new(prompts);
        expect(desk.generate("out.fasta", more).output().unwrap(), 2, words);
        let left = fs::read_dir(desk.path(".")).unwrap().count();
        assert_eq!(left, 1, "{more:?} leaves files");
    }
}

fn terminate(child: &std::process::Child) {
    let id = child.id().to_string();
    let sent = std::process::Command::new("kill")
        .args(["-TERM", &id])
        .status();
    assert!(sent.unwrap().success());
}
