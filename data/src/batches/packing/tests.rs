use std::ops::Range;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::batches::objective::Objective;
use crate::random::Key;
use crate::synthetic::uniref50_length;
use crate::tokenizer::Tokenizer;

fn sizes(objective: &Objective, lengths: (usize, usize)) -> Sizes {
    let window = objective.window(lengths.0, lengths.1);
    Sizes::new(objective, Tokenizer::ankh(), window, lengths).unwrap()
}

fn any_objective() -> impl Strategy<Value = Objective> {
    let any = (0usize..5, any::<[bool; 4]>(), 1usize..4, 0.05f64..0.6);
    any.prop_map(
        |(kind, [bernoulli, merged, distinct, pairs], ngram, rate)| {
            let mut table = json!({
                "kind": "partial_demasking",
                "masking_rate": rate,
                "count": if bernoulli { "bernoulli" } else { "exact" },
                "touching": if merged { "merged" } else { "separate" },
                "selection": if distinct { "each_distinct" } else { "uniform" },
                "ngram": if distinct { 1 } else { ngram },
                "target_format": if pairs { "pairs" } else { "runs" },
            });
            let mut other = |name: &str, lacks: &[&str]| {
                table["kind"] = name.into();
                let switches = table.as_object_mut().unwrap();
                switches.retain(|switch, _| !lacks.contains(&&switch[..]));
            };
            match kind {
                0 => {}
                1 => other("masked_only", &["target_format"]),
                2 => other("full_reconstruction", &["target_format"]),
                3 => other("span_corruption", &["touching", "selection", "ngram"]),
                _ => table = json!({ "kind": "completion" }),
            }
            objective(table)
        },
    )
}

fn objective(table: serde_json::Value) -> Objective {
    serde_json::from_value(table).unwrap()
}

/// Whether all targets of a length are alike, or the longest is kept for them.
fn is_kept_whole(objective: &Objective) -> bool {
    let table = serde_json::to_value(objective).unwrap();
    let is = |switch: &str, value: &str| table.get(switch).is_some_and(|v| v == value);
    let runs_anywhere = is("kind", "partial_demasking")
        && is("target_format", "runs")
        && is("selection", "uniform")
        && is("touching", "separate");
    !runs_anywhere && !is("count", "bernoulli")
}

proptest! {
    #[test]
    fn histograms_of_blocks_add_up(
        blocks in prop::collection::vec((0u64..200_000, 1u32..40, any::<u32>()), 1..20),
        chosen in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
    ) {
        // Blocks of many sequences and few classes, and the other way round.
        let sizes = sizes(&Objective::default(), (40, 30));
        let classes = sizes.classes() as u32;
        let class = |block: u64, row: u64| {
            let (_, spread, first) = blocks[block as usize];
            (first % classes + (row as u32 * 7) % spread) % classes
        };
        let rows: Vec<Range<u64>> = (0u64..)
            .zip(&blocks)
            .map(|(block, (count, ..))| block << 32..(block << 32) + count % 300 * (count % 300))
            .collect();
        let visit = |rows: Range<u64>, visit: &mut dyn FnMut(u32)| {
            rows.for_each(|row| visit(class(row >> 32, row & 0xffff_ffff)));
        };
        let histograms = Histograms::new(&sizes, &rows, 2, visit);
        let chosen: Vec<usize> = chosen.iter().map(|index| index.index(blocks.len())).collect();
        let mut expected = vec![0u64; sizes.classes()];
        for &block in &chosen {
            visit(rows[block].clone(), &mut |class| expected[class as usize] += 1);
        }
        prop_assert_eq!(histograms.sum(chosen.into_iter()), expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_sequence_has_one_slot_and_every_row_fits(
        objective in any_objective(),
        input in 8usize..120,
        target in 8usize..120,
        counts in prop::collection::vec((any::<u16>(), 0u64..70), 1..60),
    ) {
        let sizes = sizes(&objective, (input, target));
        let mut histogram = vec![0; sizes.classes()];
        for (class, count) in counts {
            histogram[usize::from(class) % sizes.classes()] += count;
        }
        let patterns = Patterns::new(&sizes, &histogram);
        prop_assert_eq!(patterns.rows(), Patterns::count(&sizes, &histogram));
        prop_assert!(patterns.ends.len() <= 2 * sizes.classes());
        let size = |class: usize| {
            let rank = (0..sizes.classes()).find(|&r| sizes.class_of(r) as usize == class);
            sizes.of_rank(rank.unwrap())
        };
        let mut seen: Vec<Vec<bool>> =
            histogram.iter().map(|&count| vec![false; count as usize]).collect();
        for row in 0..patterns.rows() {
            let (mut inputs, mut targets, mut sequences) = (0, 0, 0);
            for (class, number) in patterns.row(row) {
                let slot = &mut seen[class][number as usize];
                prop_assert!(!*slot, "class {class} number {number} comes twice");
                *slot = true;
                inputs += size(class).0;
                targets += size(class).1;
                sequences += 1;
            }
            prop_assert!(sequences > 0, "row {row} is empty");
            prop_assert!(inputs as usize <= input && targets as usize <= target);
        }
        prop_assert!(seen.iter().flatten().all(|&slot| slot), "a sequence has no slot");
        prop_assert_eq!(patterns.row(patterns.rows()).count(), 0);
    }

    #[test]
    fn examples_are_no_longer_than_what_is_kept_for_them(
        objective in any_objective(), seed: u64, residues in 0usize..600, letters in 1usize..25,
    ) {
        let tokenizer = Tokenizer::ankh();
        let mut random = Key::new(seed).stream();
        let tokens: Vec<u8> = (0..residues).map(|_| 3 + random.below(letters) as u8).collect();
        let example = objective.apply(tokenizer, &tokens, Key::new(seed));
        let (input, target) = (example.input.len(), example.target.len());
        prop_assert!(input <= objective.input_tokens(tokenizer, residues), "input of {input}");
        prop_assert!(target <= objective.longest_target(tokenizer, residues));
        let kept = objective.target_allotment(tokenizer, residues);
        prop_assert!(kept <= objective.longest_target(tokenizer, residues));
        if is_kept_whole(&objective) {
            prop_assert!(target <= kept);
        }
    }
}

/// Rows full of sequences of all lengths, whose targets name unmasked runs. What is kept for a row
/// is what Chernoff's bound says of it: one row in thirty needs more, and then a few tokens.
#[test]
fn rows_have_room_for_their_targets() {
    let tokenizer = Tokenizer::ankh();
    let objective = Objective::default();
    let mut random = Key::new(16).stream();
    let (mut tokens, mut kept, mut rows_beyond, mut tokens_beyond) = (0, 0, 0, 0);
    let rows = 20_000;
    for row in 0..rows {
        let (mut needs, mut room, mut left) = (0, 0, 511);
        for sequence in 0.. {
            let residues = match sequence {
                0 => uniref50_length(&mut random).min(left) as usize,
                _ => left as usize,
            };
            let letters: Vec<u8> = (0..residues).map(|i| 3 + (i % 20) as u8).collect();
            let key = Key::new(row).with(sequence);
            needs += objective.apply(tokenizer, &letters, key).target.len();
            room += objective.target_allotment(tokenizer, residues);
            left = left.saturating_sub(residues as u32 + 1);
            if left < 2 {
                break;
            }
        }
        (tokens, kept) = (tokens + needs, kept + room);
        rows_beyond += usize::from(needs > room);
        tokens_beyond += needs.saturating_sub(room);
    }
    let share = |part: usize, of: usize| part as f64 / of as f64;
    let beyond = share(rows_beyond, rows as usize);
    assert!(
        (0.01..0.05).contains(&beyond),
        "{beyond} of the rows need more"
    );
    let beyond = share(tokens_beyond, tokens);
    assert!(beyond < 1.0 / 3000.0, "{beyond} of the tokens find no room");
    let full = share(tokens, kept);
    assert!(full > 0.95, "{full} of what is kept is used");
}

#[test]
fn drawn_targets_are_rarely_longer_than_what_is_kept_for_them() {
    let tokenizer = Tokenizer::ankh();
    for kind in ["partial_demasking", "masked_only", "span_corruption"] {
        let objective = objective(json!({ "kind": kind, "count": "bernoulli" }));
        for residues in [20, 200, 400] {
            let tokens: Vec<u8> = (0..residues).map(|i| 3 + (i % 20) as u8).collect();
            let kept = objective.target_allotment(tokenizer, residues);
            let longer = |&seed: &u64| {
                let example = objective.apply(tokenizer, &tokens, Key::new(seed));
                example.target.len() > kept
            };
            let longer = (0..10_000).filter(longer).count();
            assert!(
                longer <= 10,
                "{kind} of {residues}: {longer} of 10,000 are longer"
            );
            if residues == 400 {
                assert!(kept < objective.longest_target(tokenizer, residues));
            }
        }
    }
}

#[test]
fn rows_of_uniref50_are_full() {
    let sizes = sizes(&Objective::default(), (512, 256));
    let mut random = Key::new(50).stream();
    for sequences in [20_000, 1_000_000] {
        let mut histogram = vec![0; sizes.classes()];
        let mut tokens = 0;
        for _ in 0..sequences {
            let shown = uniref50_length(&mut random).min(511) as usize;
            histogram[shown] += 1;
            tokens += shown as u64 + 1;
        }
        let rows = Patterns::count(&sizes, &histogram);
        let full = tokens as f64 / (rows * 512) as f64;
        assert!(
            full > 0.99,
            "{sequences} sequences fill {full} of {rows} rows"
        );
    }
}

#[test]
fn lengths_that_do_not_fit_an_index_are_refused() {
    let objective = Objective::default();
    let made = Sizes::new(&objective, Tokenizer::ankh(), 69_999, (70_000, 256));
    let message = made.err().unwrap().to_string();
    assert!(
        message.starts_with("the input length must be at most 65535"),
        "{message}"
    );
}
