use ankh_data::objective::{Count, Kind, Objective, Selection, TargetFormat, Touching};
use ankh_data::tokenizer::{EOS, Task};
use ankh_data::{Key, Tokenizer, Vocabulary};
use proptest::prelude::*;

use crate::random_sequences;

fn texts(objective: &Objective, sequence: &str, masked: &[usize]) -> (String, String) {
    let tokenizer = Tokenizer::ankh();
    let tokens = tokenizer.encode(sequence.as_bytes());
    let example = objective.apply_at(tokenizer, &tokens, masked);
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
    Objective {
        target_format: TargetFormat::Pairs,
        ..Objective::default()
    }
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
fn the_neighbouring_objectives_come_out_as_described() {
    let of = |kind, touching, target_format| Objective {
        kind,
        touching,
        target_format,
        ..Objective::default()
    };
    let (runs, pairs) = (TargetFormat::Runs, TargetFormat::Pairs);
    let separate = Touching::Separate;
    let sequence = "ABCDEFG";
    for (objective, input, target) in [
        (
            of(Kind::FullReconstruction, separate, runs),
            "A <0> <1> D E <2> G </s>",
            "A B C D E F G </s>",
        ),
        (
            of(Kind::MaskedOnly, separate, runs),
            "A <0> <1> D E <2> G </s>",
            "B C F </s>",
        ),
        (
            of(Kind::PartialDemasking, separate, runs),
            "A <0> <1> D E <2> G </s>",
            "<0> B C <1> F <2> </s>",
        ),
        (
            of(Kind::PartialDemasking, Touching::Merged, runs),
            "A <0> D E <1> G </s>",
            "<0> B C <1> F <2> </s>",
        ),
        (
            of(Kind::PartialDemasking, Touching::Merged, pairs),
            "A <0> D E <1> G </s>",
            "<0> B C <1> F </s>",
        ),
        (
            of(Kind::Completion, separate, runs),
            "A B C D </s>",
            "E F G </s>",
        ),
    ] {
        let found = match objective.kind {
            Kind::Completion => {
                let tokenizer = Tokenizer::ankh();
                let tokens = tokenizer.encode(sequence.as_bytes());
                let example = objective.apply(tokenizer, &tokens, Key::new(0));
                let spaced = |ids: &[u8]| {
                    let names: Vec<String> = ids.iter().map(|&id| tokenizer.name(id)).collect();
                    names.join(" ")
                };
                (spaced(&example.input), spaced(&example.target))
            }
            _ => texts(&objective, sequence, &[1, 2, 5]),
        };
        assert_eq!(found, (input.into(), target.into()), "{objective:?}");
    }
}

#[test]
fn unmasking_gives_the_sequence_back_10_000_times() {
    let tokenizer = Tokenizer::ankh();
    let sequences = random_sequences(1, 10_000, 1..512);
    for target_format in [TargetFormat::Runs, TargetFormat::Pairs] {
        let objective = Objective {
            target_format,
            ..Objective::default()
        };
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
    let kinds = prop_oneof![
        Just(Kind::PartialDemasking),
        Just(Kind::MaskedOnly),
        Just(Kind::FullReconstruction),
        Just(Kind::SpanCorruption),
        Just(Kind::Completion),
    ];
    let any = (
        kinds,
        0.01f64..0.99,
        1usize..5,
        1.0f64..6.0,
        any::<[bool; 4]>(),
    );
    any.prop_map(|(kind, masking_rate, ngram, mean_span, flags)| {
        let objective = Objective {
            kind,
            masking_rate,
            ngram,
            mean_span,
            count: [Count::Exact, Count::Bernoulli][usize::from(flags[0])],
            selection: [Selection::Uniform, Selection::EachDistinct][usize::from(flags[1])],
            touching: [Touching::Separate, Touching::Merged][usize::from(flags[2])],
            target_format: [TargetFormat::Runs, TargetFormat::Pairs][usize::from(flags[3])],
            task: None,
        };
        match objective.kind {
            Kind::SpanCorruption | Kind::Completion => Objective {
                ngram: 1,
                selection: Selection::Uniform,
                touching: Touching::Separate,
                ..objective
            },
            _ if objective.selection == Selection::EachDistinct => Objective {
                ngram: 1,
                ..objective
            },
            _ => objective,
        }
    })
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
        if objective.count == Count::Exact {
            let (rate, g) = (objective.masking_rate, objective.ngram);
            match (objective.kind, objective.selection) {
                (Kind::Completion, _) => prop_assert_eq!(chosen, 0),
                (_, Selection::EachDistinct) => {
                    let kinds = tokens.iter().collect::<std::collections::HashSet<_>>().len();
                    let count = (rate * length as f64).round() as usize;
                    prop_assert_eq!(chosen, count.max(kinds));
                }
                (Kind::SpanCorruption, _) => {
                    let count = (rate * length as f64).round() as usize;
                    prop_assert_eq!(chosen, count.min(length.saturating_sub(1)));
                }
                _ => {
                    let spans = (rate / g as f64 * length as f64).round() as usize;
                    prop_assert_eq!(chosen, spans.min(length / g) * g);
                }
            }
        }
        // What was hidden can be found again.
        let back = objective.unmask(tokenizer, &example.input, &example.target);
        let ambiguous =
            objective.kind == Kind::MaskedOnly && objective.touching == Touching::Merged;
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
        let objective = Objective { selection: Selection::EachDistinct, ..Objective::default() };
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
        let objective = Objective {
            ngram,
            ..Objective::default()
        };
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
        // Spans begin anywhere but at the very end; those near the ends have fewer neighbours.
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
    let objective = Objective {
        count: Count::Bernoulli,
        ..Objective::default()
    };
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
        let example = objective.apply_at(tokenizer, &tokens, &[1, 4]);
        let other = objective.apply_at(tokenizer, &tokens, &[1, 4, 7]);
        let error = objective.unmask(tokenizer, &example.input, &other.target);
        assert!(error.is_err(), "{objective:?}");
    }
}

#[test]
fn wrong_switches_are_named() {
    let default = Objective::default;
    for (objective, name) in [
        (
            Objective {
                masking_rate: 0.0,
                ..default()
            },
            "objective.masking_rate",
        ),
        (
            Objective {
                masking_rate: f64::NAN,
                ..default()
            },
            "objective.masking_rate",
        ),
        (
            Objective {
                ngram: 0,
                ..default()
            },
            "objective.ngram",
        ),
        (
            Objective {
                mean_span: 0.5,
                ..default()
            },
            "objective.mean_span",
        ),
        (
            Objective {
                selection: Selection::EachDistinct,
                ngram: 3,
                ..default()
            },
            "objective.selection",
        ),
        (
            Objective {
                kind: Kind::SpanCorruption,
                ngram: 3,
                ..default()
            },
            "objective.ngram",
        ),
    ] {
        let message = objective.validate().unwrap_err().to_string();
        assert!(message.starts_with(name), "{message}");
    }
    let marked = Objective {
        task: Some(Task::Nlu),
        ..default()
    };
    assert!(
        marked
            .validate_for(Tokenizer::of(Vocabulary::Ankh3))
            .is_ok()
    );
    let message = marked
        .validate_for(Tokenizer::ankh())
        .unwrap_err()
        .to_string();
    assert!(message.contains("which ankh lacks"), "{message}");
}

#[test]
fn the_configuration_table_reads_as_documented() {
    let read = serde_json::from_str::<Objective>;
    assert_eq!(read("{}").unwrap(), Objective::default());
    let objective = read(
        r#"{"kind": "full_reconstruction", "masking_rate": 0.15, "target_format": "pairs",
            "touching": "merged", "count": "bernoulli", "selection": "uniform"}"#,
    )
    .unwrap();
    assert_eq!(objective.kind, Kind::FullReconstruction);
    assert_eq!(objective.touching, Touching::Merged);
    assert!(
        read(r#"{"mask_rate": 0.15}"#)
            .unwrap_err()
            .to_string()
            .contains("mask_rate")
    );
}
