use ankh_data::batches::objective::{
    Completion, Count, FullReconstruction, MaskedOnly, Objective, PartialDemasking, ResidueMasks,
    Selection, SpanCorruption, TargetFormat, Touching,
};
use ankh_data::tokenizer::EOS;
use ankh_data::{Key, Tokenizer, Vocabulary};
use proptest::prelude::*;
use serde_json::json;

use crate::{objective, random_sequences};

fn texts(objective: &Objective, sequence: &str, masked: &[usize]) -> (String, String) {
    let tokenizer = Tokenizer::ankh();
    let tokens = tokenizer.encode(sequence.as_bytes());
    let example = objective.apply_at(tokenizer, &tokens, masked).unwrap();
    let text = |ids: &[u8]| {
        let mut words = Vec::new();
        for &id in ids {
            let name = tokenizer.name(id);
            words.push(name.replace("<extra_id_", "<"));
        }
        words.join(" ")
    };
    (text(&example.input), text(&example.target))
}

fn pairs() -> Objective {
    objective(json!({ "kind": "partial_demasking", "target_format": "pairs" }))
}

#[test]
fn the_papers_first_example_comes_out_literally() {
    let expected = ("A B <0> D E F <1> </s>", "<0> C <1> G </s>");
    let (input, target) = texts(&Objective::default(), "ABCDEFG", &[2, 6]);
    assert_eq!((input.as_str(), target.as_str()), expected);
    // Isolated masks: both formats say the same.
    let (input, target) = texts(&pairs(), "ABCDEFG", &[2, 6]);
    assert_eq!((input.as_str(), target.as_str()), expected);
}

#[test]
fn the_papers_second_example_comes_out_literally() {
    let (input, target) = texts(&Objective::default(), "ABCAAAAAAA", &[0, 1, 2]);
    assert_eq!(input, "<0> <1> <2> A A A A A A A </s>");
    assert_eq!(target, "A B C <0> </s>");
}

#[test]
fn pairs_name_each_masked_residue() {
    let (input, target) = texts(&pairs(), "ABCAAAAAAA", &[0, 1, 2]);
    assert_eq!(input, "<0> <1> <2> A A A A A A A </s>");
    assert_eq!(target, "<0> A <1> B <2> C </s>");
}

#[test]
fn ankh3s_card_comes_out_literally() {
    let (input, target) = texts(&pairs(), "MKAYVLINSRGP", &[1, 4, 7, 11]);
    assert_eq!(input, "M <0> A Y <1> L I <2> S R G <3> </s>");
    assert_eq!(target, "<0> K <1> V <2> N <3> P </s>");
}

#[test]
fn the_neighboring_objectives_come_out_as_described() {
    let sequence = "ABCDEFG";
    for (table, input, target) in [
        (
            json!({ "kind": "full_reconstruction" }),
            "A <0> <1> D E <2> G </s>",
            "A B C D E F G </s>",
        ),
        (
            json!({ "kind": "masked_only" }),
            "A <0> <1> D E <2> G </s>",
            "B C F </s>",
        ),
        (
            json!({ "kind": "partial_demasking" }),
            "A <0> <1> D E <2> G </s>",
            "<0> B C <1> F <2> </s>",
        ),
        (
            json!({ "kind": "partial_demasking", "touching": "merged" }),
            "A <0> D E <1> G </s>",
            "<0> B C <1> F <2> </s>",
        ),
        (
            json!({ "kind": "partial_demasking", "touching": "merged", "target_format": "pairs" }),
            "A <0> D E <1> G </s>",
            "<0> B C <1> F </s>",
        ),
    ] {
        let objective = objective(table);
        let found = texts(&objective, sequence, &[1, 2, 5]);
        assert_eq!(found, (input.into(), target.into()), "{objective:?}");
    }
    let completion = objective(json!({ "kind": "completion" }));
    let tokenizer = Tokenizer::ankh();
    let tokens = tokenizer.encode(sequence.as_bytes());
    assert_eq!(completion.apply_at(tokenizer, &tokens, &[1]), None);
    let example = completion.apply(tokenizer, &tokens, Key::new(0));
    assert_eq!(tokenizer.decode(&example.input), "ABCD</s>");
    assert_eq!(tokenizer.decode(&example.target), "EFG</s>");
}

#[test]
fn unmasking_gives_the_sequence_back_10_000_times() {
    let tokenizer = Tokenizer::ankh();
    let sequences = random_sequences(1, 10_000, 1..512);
    for target_format in [TargetFormat::Runs, TargetFormat::Pairs] {
        let objective = Objective::PartialDemasking(PartialDemasking {
            target_format,
            ..PartialDemasking::default()
        });
        for (i, sequence) in sequences.iter().enumerate() {
            let tokens = tokenizer.encode(sequence.as_bytes());
            let example = objective.apply(tokenizer, &tokens, Key::new(i as u64));
            let back = objective.unmask(tokenizer, &example.input, &example.target);
            assert_eq!(back.unwrap(), tokens, "sequence {i}, {target_format:?}");
            let expected = (0.2 * tokens.len() as f64).round() as usize;
            assert_eq!(example.masked, expected.min(115), "sequence {i}");
            assert_eq!(example.unmasked_for_lack_of_sentinels, 0, "sequence {i}");
            let sentinels = |ids: &[u8]| {
                let sentinel = |id: &&u8| tokenizer.sentinel_index(**id).is_some();
                ids.iter().filter(sentinel).count()
            };
            assert_eq!(sentinels(&example.input), example.masked, "sequence {i}");
            assert!(example.target.len() <= 256, "sequence {i}");
        }
    }
}

fn objectives() -> impl Strategy<Value = Objective> {
    let any = (
        0usize..5,
        0.01f64..0.99,
        1usize..5,
        1.0f64..6.0,
        any::<[bool; 4]>(),
    );
    any.prop_map(|(kind, masking_rate, ngram, mean_span, flags)| {
        let target_format = [TargetFormat::Runs, TargetFormat::Pairs][usize::from(flags[3])];
        let selection = [Selection::Uniform, Selection::EachDistinct][usize::from(flags[1])];
        let masks = ResidueMasks {
            masking_rate,
            ngram: if selection == Selection::EachDistinct {
                1
            } else {
                ngram
            },
            count: [Count::Exact, Count::Bernoulli][usize::from(flags[0])],
            selection,
            touching: [Touching::Separate, Touching::Merged][usize::from(flags[2])],
            task: None,
        };
        match kind {
            0 => Objective::PartialDemasking(PartialDemasking {
                masking_rate,
                ngram: masks.ngram,
                count: masks.count,
                selection: masks.selection,
                touching: masks.touching,
                target_format,
                task: None,
            }),
            1 => Objective::MaskedOnly(MaskedOnly(masks)),
            2 => Objective::FullReconstruction(FullReconstruction(masks)),
            3 => Objective::SpanCorruption(SpanCorruption {
                masking_rate,
                count: masks.count,
                mean_span,
                target_format,
                task: None,
            }),
            _ => Objective::Completion(Completion::default()),
        }
    })
}

/// The masks of an objective that has some of residues.
fn residue_masks(objective: &Objective) -> Option<ResidueMasks> {
    match objective {
        Objective::PartialDemasking(kind) => Some(ResidueMasks {
            masking_rate: kind.masking_rate,
            count: kind.count,
            selection: kind.selection,
            ngram: kind.ngram,
            touching: kind.touching,
            task: kind.task,
        }),
        Objective::MaskedOnly(kind) => Some(kind.0),
        Objective::FullReconstruction(kind) => Some(kind.0),
        Objective::SpanCorruption(_) | Objective::Completion(_) => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn every_combination_of_switches_keeps_its_promises(
        objective in objectives(), length in 0usize..1500, seed: u64
    ) {
        let tokenizer = Tokenizer::ankh();
        objective.validate().unwrap();
        let sequence = random_sequences(seed, 1, length..length + 1).remove(0);
        let tokens = tokenizer.encode(sequence.as_bytes());
        let example = objective.apply(tokenizer, &tokens, Key::new(seed));

        // It is a function of its arguments.
        prop_assert_eq!(&example, &objective.apply(tokenizer, &tokens, Key::new(seed)));
        // Both ends are marked, once.
        for side in [&example.input, &example.target] {
            prop_assert_eq!(side.iter().position(|&id| id == EOS), Some(side.len() - 1));
        }
        // Sentinels exist, ascend from 0, and are never more than there are.
        for side in [&example.input, &example.target] {
            let sentinels: Vec<usize> =
                side.iter().filter_map(|&id| tokenizer.sentinel_index(id)).collect();
            prop_assert!(sentinels.len() <= 116);
            prop_assert!(sentinels.iter().copied().eq(0..sentinels.len()));
        }
        // Lengths stay within what is promised.
        prop_assert!(example.input.len() <= length + 1);
        let longest = objective.longest_target(tokenizer, length);
        prop_assert!(example.target.len() <= longest, "{} > {longest}", example.target.len());
        // Counts are exact.
        let chosen = example.masked + example.unmasked_for_lack_of_sentinels;
        let rounded = |rate: f64| (rate * length as f64).round() as usize;
        match (&objective, residue_masks(&objective)) {
            (Objective::Completion(_), _) => prop_assert_eq!(chosen, 0),
            (Objective::SpanCorruption(kind), _) if kind.count == Count::Exact => {
                let count = rounded(kind.masking_rate);
                prop_assert_eq!(chosen, count.min(length.saturating_sub(1)));
            }
            (_, Some(masks)) if masks.count == Count::Exact => {
                let (rate, g) = (masks.masking_rate, masks.ngram);
                if masks.selection == Selection::EachDistinct {
                    let kinds = tokens.iter().collect::<std::collections::HashSet<_>>().len();
                    prop_assert_eq!(chosen, rounded(rate).max(kinds));
                } else {
                    let spans = rounded(rate / g as f64);
                    prop_assert_eq!(chosen, spans.min(length / g) * g);
                }
            }
            _ => {}
        }
        // What was hidden can be found again.
        let back = objective.unmask(tokenizer, &example.input, &example.target);
        let ambiguous = matches!(
            &objective,
            Objective::MaskedOnly(kind) if kind.0.touching == Touching::Merged
        );
        match ambiguous {
            true => prop_assert!(back.is_err()),
            false => prop_assert_eq!(back.unwrap(), tokens),
        }
    }

    #[test]
    fn unmasking_never_panics(input: Vec<u8>, target: Vec<u8>, objective in objectives()) {
        let _ = objective.unmask(Tokenizer::ankh(), &input, &target);
    }

    #[test]
    fn each_distinct_masks_every_kind(length in 1usize..400, seed: u64) {
        let tokenizer = Tokenizer::ankh();
        let objective =
            objective(json!({ "kind": "partial_demasking", "selection": "each_distinct" }));
        let sequence = random_sequences(seed, 1, length..length + 1).remove(0);
        let tokens = tokenizer.encode(sequence.as_bytes());
        let example = objective.apply(tokenizer, &tokens, Key::new(seed));
        for id in &tokens {
            prop_assert!(example.target.contains(id));
        }
    }
}

/// Each place is masked equally often: 1,000 sequences of 100, chi-square with 99 degrees of
/// freedom (99.99th percentile about 161).
#[test]
fn every_place_is_masked_equally_often() {
    let tokenizer = Tokenizer::ankh();
    let tokens = tokenizer.encode(&[b'A'; 100]);
    for ngram in [1, 3] {
        let objective = objective(json!({ "kind": "partial_demasking", "ngram": ngram }));
        let mut counts = [0u32; 100];
        let sequences = 1000;
        let mut masked = 0;
        for seed in 0..sequences {
            let example = objective.apply(tokenizer, &tokens, Key::new(seed));
            let mut place = 0;
            for &id in &example.input[..example.input.len() - 1] {
                let hidden = tokenizer.sentinel_index(id).is_some();
                let length = if hidden { ngram } else { 1 };
                if hidden {
                    counts[place] += 1; // where a span begins
                    masked += 1;
                }
                place += length;
            }
            assert_eq!(place, 100);
        }
        // Spans begin anywhere but at the very end; those near the ends have fewer neighbors.
        let inner = if ngram == 1 { 0..100 } else { 10..88 };
        let inner = &counts[inner];
        let mean = f64::from(inner.iter().sum::<u32>()) / inner.len() as f64;
        let chi_square: f64 = inner
            .iter()
            .map(|&count| (f64::from(count) - mean).powi(2) / mean)
            .sum();
        assert!(
            chi_square < 161.0,
            "ngram {ngram}: {chi_square}, {counts:?}"
        );
        assert_eq!(masked, sequences as usize * if ngram == 1 { 20 } else { 7 });
    }
}

#[test]
fn bernoulli_masks_vary_around_the_rate() {
    let tokenizer = Tokenizer::ankh();
    let tokens = tokenizer.encode(&[b'A'; 200]);
    let objective = objective(json!({ "kind": "partial_demasking", "count": "bernoulli" }));
    let counts: Vec<f64> = (0..2000)
        .map(|seed| objective.apply(tokenizer, &tokens, Key::new(seed)).masked as f64)
        .collect();
    let mean = counts.iter().sum::<f64>() / 2000.0;
    let variance = counts.iter().map(|c| (c - mean).powi(2)).sum::<f64>() / 2000.0;
    // Binomial(200, 0.2): mean 40 +- 0.13, variance 32 +- 1.
    assert!((mean - 40.0).abs() < 0.6, "{mean}");
    assert!((variance - 32.0).abs() < 5.0, "{variance}");
}

#[test]
fn a_target_of_another_input_is_refused() {
    let tokenizer = Tokenizer::ankh();
    let tokens = tokenizer.encode(b"MKAYVLINSRGP");
    for objective in [Objective::default(), pairs()] {
        let at = |places: &[usize]| objective.apply_at(tokenizer, &tokens, places).unwrap();
        let (example, other) = (at(&[1, 4]), at(&[1, 4, 7]));
        let error = objective.unmask(tokenizer, &example.input, &other.target);
        assert!(error.is_err(), "{objective:?}");
    }
}

#[test]
fn wrong_switches_are_named() {
    for (table, name) in [
        (
            json!({ "kind": "partial_demasking", "masking_rate": 0.0 }),
            "masking_rate",
        ),
        (
            json!({ "kind": "masked_only", "masking_rate": 1.0 }),
            "masking_rate",
        ),
        (
            json!({ "kind": "span_corruption", "masking_rate": -0.5 }),
            "masking_rate",
        ),
        (json!({ "kind": "partial_demasking", "ngram": 0 }), "ngram"),
        (
            json!({ "kind": "span_corruption", "mean_span": 0.5 }),
            "mean_span",
        ),
        (
            json!({ "kind": "full_reconstruction", "selection": "each_distinct", "ngram": 3 }),
            "selection",
        ),
    ] {
        let message = objective(table).validate().unwrap_err().to_string();
        assert!(message.starts_with(name), "{message}");
    }
    let nan = Objective::PartialDemasking(PartialDemasking {
        masking_rate: f64::NAN,
        ..PartialDemasking::default()
    });
    let message = nan.validate().unwrap_err().to_string();
    assert!(message.starts_with("masking_rate"), "{message}");
    let marked = objective(json!({ "kind": "completion", "task": "nlu" }));
    let ankh3 = Tokenizer::of(Vocabulary::Ankh3);
    assert!(marked.validate_for(ankh3).is_ok());
    let message = marked.validate_for(Tokenizer::ankh()).unwrap_err();
    assert!(
        message.to_string().contains("which ankh lacks"),
        "{message}"
    );
}

#[test]
fn the_configuration_table_reads_as_documented() {
    let found = objective(json!({
        "kind": "full_reconstruction", "masking_rate": 0.15,
        "touching": "merged", "count": "bernoulli", "selection": "uniform",
    }));
    let expected = Objective::FullReconstruction(FullReconstruction(ResidueMasks {
        masking_rate: 0.15,
        touching: Touching::Merged,
        count: Count::Bernoulli,
        ..ResidueMasks::default()
    }));
    assert_eq!(found, expected);
    for kind in Objective::kinds() {
        let table = serde_json::to_value(&kind).unwrap();
        assert_eq!(objective(json!({ "kind": table["kind"] })), kind);
        assert_eq!(objective(table), kind);
    }
}

#[test]
fn a_switch_of_another_kind_is_refused() {
    let switches = json!({
        "masking_rate": 0.2, "count": "exact", "selection": "uniform", "ngram": 1,
        "touching": "separate", "target_format": "runs", "mean_span": 3.0, "task": null,
    });
    let residue_masks = [
        "masking_rate",
        "count",
        "selection",
        "ngram",
        "touching",
        "task",
    ];
    for (kind, own) in [
        (
            "partial_demasking",
            &[&residue_masks[..], &["target_format"]].concat()[..],
        ),
        ("masked_only", &residue_masks),
        ("full_reconstruction", &residue_masks),
        (
            "span_corruption",
            &[
                "masking_rate",
                "count",
                "mean_span",
                "target_format",
                "task",
            ],
        ),
        ("completion", &["task"]),
    ] {
        for (switch, value) in switches.as_object().unwrap() {
            let table = json!({ "kind": kind, switch: value });
            let read = serde_json::from_value::<Objective>(table);
            assert_eq!(read.is_ok(), own.contains(&&switch[..]), "{kind}: {switch}");
        }
        let read = serde_json::from_value::<Objective>(json!({ "kind": kind, "mask_rate": 0.15 }));
        assert!(read.unwrap_err().to_string().contains("mask_rate"));
    }
}
