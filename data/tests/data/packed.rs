//! Packed rows: what they hold, against padded ones, in every order and from every share.

use std::collections::{BTreeMap, BTreeSet};

use ankh_data::{
    Batch, BatchConfig, Batches, Component, Dataset, HostShard, IGNORED, LongSequences, Mixture,
    Objective, Packing, PrepareOptions, ReadOptions, Shuffle, Split, prepare,
};
use proptest::prelude::*;
use serde_json::json;

use crate::{dataset, objective, random_sequences};

fn plan(global_batch: usize, packing: Packing, long_sequences: LongSequences) -> BatchConfig {
    BatchConfig {
        seed: 23,
        global_batch,
        input_length: 64,
        target_length: 48,
        long_sequences,
        packing,
    }
}

/// The data set, to be shuffled in windows of blocks of that many rows, if any.
fn shuffled(data: Dataset, windows: Option<(u64, u64)>) -> Dataset {
    let Some((rows, residues)) = windows else {
        return data;
    };
    let mut blocks: Vec<u64> = (0..data.rows()).step_by(rows as usize).collect();
    blocks.push(data.rows());
    data.shuffled(Shuffle::Windows {
        blocks: blocks.into(),
        residues,
    })
}

fn any_windows() -> impl Strategy<Value = Option<(u64, u64)>> {
    prop_oneof![Just(None), (3u64..12, 200u64..4000).prop_map(Some)]
}

fn any_long() -> impl Strategy<Value = LongSequences> {
    prop_oneof![
        Just(LongSequences::Crop),
        Just(LongSequences::Truncate),
        Just(LongSequences::Split),
    ]
}

/// A mixture of one to three data sets with objectives of their own.
fn mixture(seed: u64, components: usize, windows: Option<(u64, u64)>) -> Mixture {
    let kinds = ["partial_demasking", "span_corruption", "masked_only"];
    let component = |number: usize| Component {
        name: format!("component {number}"),
        dataset: shuffled(
            dataset(seed + number as u64, 30 + 20 * number, 1..120),
            windows,
        ),
        objective: objective(json!({ "kind": kinds[number] })),
        weight: 1.0 + number as f64,
    };
    Mixture::of((0..components).map(component).collect()).unwrap()
}

/// An example by component and row; what it became: input and target. With the batches' own epochs
/// mixed up, the same example may have become several things.
type Seen = BTreeMap<(usize, u64), Vec<(Vec<i32>, Vec<i32>)>>;

fn seen(batches: &[Batch]) -> Seen {
    let mut seen = Seen::new();
    for sequence in batches.iter().flat_map(Batch::sequences) {
        let of = seen
            .entry((sequence.component, sequence.example))
            .or_default();
        of.push((sequence.input.to_vec(), sequence.target.to_vec()));
    }
    seen.values_mut().for_each(|examples| examples.sort());
    seen
}

/// Joins the hosts' batches into the global one.
fn join(parts: Vec<Batch>) -> Batch {
    let mut parts = parts.into_iter();
    let mut whole = parts.next().unwrap();
    for part in parts {
        whole.rows += part.rows;
        whole.examples.extend(part.examples);
        whole.segments.extend(part.segments);
        whole.components.extend(part.components);
        whole.input_ids.extend(part.input_ids);
        whole.input_segments.extend(part.input_segments);
        whole.decoder_input_ids.extend(part.decoder_input_ids);
        whole.target_segments.extend(part.target_segments);
        whole.labels.extend(part.labels);
        whole.residues += part.residues;
        whole.masked += part.masked;
        whole.unmasked_for_lack_of_sentinels += part.unmasked_for_lack_of_sentinels;
        whole.truncated_targets += part.truncated_targets;
        whole.input_tokens += part.input_tokens;
        whole.target_tokens += part.target_tokens;
        assert_eq!(whole.whole, part.whole);
    }
    whole
}

/// Checks the arrays against each other, row by row.
fn check(batch: &Batch) {
    let (s, t) = (batch.input_length, batch.target_length);
    assert_eq!(batch.sequences().count(), batch.examples.len());
    assert_eq!(batch.segments.iter().sum::<usize>(), batch.examples.len());
    for row in 0..batch.rows {
        let input_segments = &batch.input_segments[row * s..][..s];
        let target_segments = &batch.target_segments[row * t..][..t];
        let labels = &batch.labels[row * t..][..t];
        let decoder = &batch.decoder_input_ids[row * t..][..t];
        let last = batch.segments[row] as i32;
        for (segments, last) in [(input_segments, last.max(1)), (target_segments, last)] {
            // 1 1 1 2 2 3 3 3 0 0: up by one at a time, then padding.
            let end = segments
                .iter()
                .position(|&n| n == 0)
                .unwrap_or(segments.len());
            assert!(segments[end..].iter().all(|&n| n == 0));
            assert!(
                segments[..end]
                    .windows(2)
                    .all(|n| n[1] - n[0] == 0 || n[1] - n[0] == 1)
            );
            assert_eq!(segments[..end].last().copied().unwrap_or(0), last);
        }
        for place in 0..t {
            assert_eq!(labels[place] == IGNORED, target_segments[place] == 0);
            if target_segments[place] > 0 {
                let begins = place == 0 || target_segments[place - 1] != target_segments[place];
                assert_eq!(decoder[place], if begins { 0 } else { labels[place - 1] });
            }
        }
    }
    for sequence in batch.sequences() {
        assert_eq!(sequence.input.last(), Some(&1));
        assert!(sequence.target.len() == 1 || sequence.target[0] > 1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn an_epoch_unpacks_to_what_padded_rows_hold(
        seed in 0u64..1000, windows in any_windows(), long in any_long(), bernoulli: bool,
    ) {
        let data = shuffled(dataset(seed, 60, 1..150), windows);
        let count = if bernoulli { "bernoulli" } else { "exact" };
        let objective = objective(json!({ "kind": "partial_demasking", "count": count }));
        let batches = |rows| {
            let mixture = Mixture::one(data.clone(), objective.clone());
            Batches::new(mixture, plan(1, rows, long), HostShard::all(), 2).unwrap()
        };
        // Rows of the first epoch, one a step.
        let epoch = |rows| -> Vec<Batch> {
            let all = batches(rows).prefetch(0, 2).map(Result::unwrap);
            all.take_while(|batch| batch.epoch == 0).collect()
        };
        let (padded, packed) = (epoch(Packing::Padded), epoch(Packing::Packed));
        prop_assert_eq!(padded.len() as u64, batches(Packing::Padded).examples_per_epoch());
        prop_assert!(packed.len() <= padded.len());
        packed.iter().for_each(check);
        padded.iter().for_each(check);
        prop_assert_eq!(seen(&packed), seen(&padded));
        let rows: BTreeSet<u64> =
            packed.iter().flat_map(|batch| batch.examples.iter().copied()).collect();
        prop_assert!(rows.into_iter().eq(0..60));
        prop_assert!(packed.iter().all(|batch| batch.truncated_targets == 0));
        for batch in padded.iter().chain(&packed) {
            prop_assert_eq!(batch.whole.sequences, batch.examples.len() as u64);
            prop_assert_eq!(batch.whole.residues, batch.residues);
        }
    }

    #[test]
    fn hosts_together_make_the_global_batch(
        seed in 0u64..1000,
        hosts in 1usize..=128,
        rows_each in 1usize..3,
        components in 1usize..4,
        windows in any_windows(),
        packed: bool,
        step in 0u64..20,
    ) {
        let rows = if packed { Packing::Packed } else { Packing::Padded };
        let plan = plan(hosts * rows_each, rows, LongSequences::Crop);
        let mixture = mixture(seed, components, windows);
        let alone = Batches::new(mixture, plan, HostShard::all(), 1).unwrap();
        let parts = (0..hosts).map(|host| {
            let host = alone.with_shard(HostShard::host(host, hosts)).unwrap();
            host.batch(step).unwrap()
        });
        let whole = alone.batch(step).unwrap();
        prop_assert_eq!(whole.whole.sequences, whole.examples.len() as u64);
        prop_assert_eq!(whole.whole.residues, whole.residues);
        prop_assert_eq!(join(parts.collect()), whole);
    }

    #[test]
    fn starting_at_any_step_equals_running_to_it(
        seed in 0u64..1000,
        components in 1usize..4,
        windows in any_windows(),
        packed: bool,
        start in 0u64..40,
    ) {
        let rows = if packed { Packing::Packed } else { Packing::Padded };
        let make = |threads| {
            let plan = plan(6, rows, LongSequences::Split);
            let mixture = mixture(seed, components, windows);
            Batches::new(mixture, plan, HostShard::all(), threads).unwrap()
        };
        let ran: Vec<Batch> = make(3).prefetch(0, 5).take(42).map(Result::unwrap).collect();
        let started = make(1).prefetch(start, 1).take(42 - start as usize);
        let started: Vec<Batch> = started.map(Result::unwrap).collect();
        prop_assert_eq!(&started, &ran[start as usize..]);
    }

    #[test]
    fn rows_follow_each_other_through_any_change_of_the_batch_size(
        seed in 0u64..1000,
        components in 1usize..4,
        windows in any_windows(),
        packed: bool,
        long in any_long(),
        sizes in prop::collection::vec((1usize..9, 1u64..4), 1..6),
    ) {
        let rows = if packed { Packing::Packed } else { Packing::Padded };
        let make = |size| {
            let mixture = mixture(seed, components, windows);
            Batches::new(mixture, plan(size, rows, long), HostShard::all(), 2).unwrap()
        };
        // Rows of the run one a step, which are never told of another start.
        let single = make(1);
        let (mut step, mut row) = (0, 0);
        for (size, steps) in sizes {
            let batches = make(size).after(step, row);
            for batch in batches.prefetch(step, 2).take(steps as usize).map(Result::unwrap) {
                prop_assert_eq!(batches.rows_before(step), row);
                let epochs = batches.component_epochs_before(step);
                prop_assert_eq!(epochs, single.component_epochs_before(row));
                prop_assert_eq!(batches.epochs_before(step), single.epochs_before(row));
                let mut rows: Vec<Batch> =
                    (row..row + size as u64).map(|row| single.batch(row).unwrap()).collect();
                let whole = batch.whole;
                prop_assert_eq!(whole.sequences, rows.iter().map(|r| r.whole.sequences).sum::<u64>());
                prop_assert_eq!(whole.residues, rows.iter().map(|r| r.whole.residues).sum::<u64>());
                for row in &mut rows {
                    (row.step, row.whole) = (step, whole);
                }
                prop_assert_eq!(batch, join(rows));
                step += 1;
                row += size as u64;
            }
        }
        // What was before the last change is no part of the batches after it.
        prop_assert!(make(2).after(step, row).batch(step - 1).is_err());
    }

    #[test]
    fn every_component_has_epochs_of_its_own(
        seed in 0u64..1000, windows in any_windows(), packed: bool,
    ) {
        let rows = if packed { Packing::Packed } else { Packing::Padded };
        let mixture = mixture(seed, 3, windows);
        let plan = plan(1, rows, LongSequences::Crop);
        let batches = Batches::new(mixture.clone(), plan, HostShard::all(), 1).unwrap();
        // Up to the step at which each component begins its second epoch.
        for (number, component) in mixture.components().iter().enumerate() {
            let of = |batch: &Batch| batch.components[0] == number;
            let all = batches.prefetch(0, 1).map(Result::unwrap).filter(of);
            let first: Vec<u64> =
                all.take_while(|batch| batch.epoch == 0).flat_map(|batch| batch.examples).collect();
            let mut sorted = first.clone();
            sorted.sort_unstable();
            prop_assert!(sorted.into_iter().eq(0..component.dataset.rows()));
        }
        // Six rows of the run hold one, two and three of the components.
        let six = batches.prefetch(0, 1).take(600).map(|batch| batch.unwrap().components[0]);
        let mut counts = [0; 3];
        six.for_each(|component| counts[component] += 1);
        prop_assert!(counts.iter().zip([100, 200, 300]).all(|(&n, m): (&i32, i32)| (n - m).abs() < 3));
    }
}

#[test]
fn a_packed_evaluation_sees_each_row_once_and_never_changes() {
    for windows in [None, Some((5, 700))] {
        let data = shuffled(dataset(9, 41, 1..200), windows);
        let of = |share| {
            let (data, objective) = (data.clone(), Objective::default());
            let plan = plan(4, Packing::Packed, LongSequences::Crop);
            Batches::evaluation(data, objective, plan, share, 2).unwrap()
        };
        let all: Vec<Batch> = of(HostShard::all())
            .prefetch(0, 3)
            .map(Result::unwrap)
            .collect();
        assert_eq!(all.len() as u64, of(HostShard::all()).steps().unwrap());
        let mut rows: Vec<u64> = all
            .iter()
            .flat_map(|batch| batch.examples.clone())
            .collect();
        rows.sort_unstable();
        assert!(rows.into_iter().eq(0..41));
        all.iter().for_each(check);
        let again: Vec<Batch> = of(HostShard::all())
            .prefetch(0, 1)
            .map(Result::unwrap)
            .collect();
        assert_eq!(again, all);
        for (step, batch) in (0u64..).zip(&all) {
            let hosts = [0, 1].map(|host| of(HostShard::host(host, 2)));
            let parts = hosts.map(|host| host.batch(step).unwrap());
            assert_eq!(&join(parts.into()), batch);
        }
    }
}

#[test]
fn batches_read_by_pages_equal_those_from_memory() {
    let directory = tempfile::tempdir().unwrap();
    let sequences = random_sequences(12, 3000, 1..200);
    let records = sequences.iter().enumerate();
    let text: String = records.map(|(i, s)| format!(">id{i}\n{s}\n")).collect();
    let input = directory.path().join("a.fasta");
    std::fs::write(&input, text).unwrap();
    let options = PrepareOptions {
        chunk_records: 500,
        ..PrepareOptions::default()
    };
    let output = directory.path().join("out");
    prepare(
        &[input.into()],
        &output.clone().into(),
        &options,
        &mut |_| {},
    )
    .unwrap();
    let open = |memory| {
        let options = ReadOptions {
            memory,
            ..ReadOptions::default()
        };
        Dataset::open(output.clone(), Split::Train, &options).unwrap()
    };
    let whole = open(u64::MAX);
    // Two windows of some pages each, in memory at once.
    let paged = open(whole.residues() / 2);
    let whole = whole.shuffled(paged.shuffle().clone());
    assert_ne!(*paged.shuffle(), Shuffle::Exact);
    for rows in [Packing::Padded, Packing::Packed] {
        let of = |data: &Dataset, threads| {
            let mixture = Mixture::one(data.clone(), Objective::default());
            let plan = plan(100, rows, LongSequences::Crop);
            Batches::new(mixture, plan, HostShard::all(), threads).unwrap()
        };
        // More than an epoch.
        let one = of(&whole, 1).prefetch(0, 1).take(35).map(Result::unwrap);
        let other = of(&paged, 3).prefetch(0, 4).take(35).map(Result::unwrap);
        assert!(one.eq(other), "{rows:?}");
    }
}

#[test]
fn drawn_targets_longer_than_what_was_kept_are_cut_and_counted() {
    // Room for the targets of two sequences, as much as is kept for them; and too little for one.
    for (target_length, sequences, cut) in [(22, 2, 0..16), (5, 1, 1000..8000)] {
        let data = dataset(10, 400, 20..21);
        let plan = BatchConfig {
            target_length,
            ..plan(40, Packing::Packed, LongSequences::Crop)
        };
        let objective =
            objective(json!({ "kind": "masked_only", "count": "bernoulli", "masking_rate": 0.15 }));
        let batches =
            Batches::new(Mixture::one(data, objective), plan, HostShard::all(), 2).unwrap();
        let mut found = 0;
        for step in 0..200 {
            let batch = batches.batch(step).unwrap();
            assert!(batch.segments.iter().all(|&held| held == sequences));
            let lacks_end = batch.sequences().filter(|s| s.target.last() != Some(&1));
            assert_eq!(lacks_end.count() as u64, batch.truncated_targets);
            found += batch.truncated_targets;
        }
        assert!(cut.contains(&found), "{found} targets were cut");
    }
}

#[test]
fn packed_json_tells_sequences_apart() {
    let mixture = Mixture::one(dataset(11, 60, 5..40), Objective::default());
    let plan = plan(6, Packing::Packed, LongSequences::Crop);
    let batch = Batches::new(mixture, plan, HostShard::all(), 1)
        .unwrap()
        .batch(1)
        .unwrap();
    let value: serde_json::Value = serde_json::to_value(&batch).unwrap();
    let rows = value["examples"].as_array().unwrap();
    let lengths: Vec<usize> = rows
        .iter()
        .map(|row| row.as_array().unwrap().len())
        .collect();
    assert_eq!(lengths, batch.segments);
    assert!(lengths.iter().any(|&length| length > 1));
    for (name, array, length) in [
        ("input_segments", &batch.input_segments, 64),
        ("target_segments", &batch.target_segments, 48),
        ("attention_mask", &batch.attention_mask(), 64),
    ] {
        for (row, numbers) in array.chunks(length).enumerate() {
            assert_eq!(value[name][row], serde_json::json!(numbers), "{name}");
        }
    }
}
