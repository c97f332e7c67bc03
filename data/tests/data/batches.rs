use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use ankh_data::{
    Batch, BatchConfig, Batches, Dataset, HostShard, IGNORED, LongSequences, Mixture, Objective,
    TokenFrequencies, Tokenizer,
};
use proptest::prelude::*;
use serde_json::json;

use crate::{dataset, objective, random_sequences};

fn plan(global_batch: usize) -> BatchConfig {
    BatchConfig {
        seed: 17,
        global_batch,
        input_length: 64,
        target_length: 40,
        ..BatchConfig::default()
    }
}

fn batches(data: &Dataset, plan: BatchConfig, share: HostShard, threads: usize) -> Batches {
    Batches::new(
        Mixture::one(data.clone(), Objective::default()),
        plan,
        share,
        threads,
    )
    .unwrap()
}

fn text_of(batch: &Batch) -> String {
    serde_json::to_string(batch).unwrap()
}

#[test]
fn threads_and_runs_change_no_byte() {
    let data = dataset(1, 50, 1..200);
    let of = |threads| -> Vec<String> {
        let batches = batches(&data, plan(24), HostShard::all(), threads);
        (0..6)
            .map(|step| text_of(&batches.batch(step).unwrap()))
            .collect()
    };
    let one = of(1);
    assert_eq!(one, of(1));
    assert_eq!(one, of(2));
    assert_eq!(one, of(8));
    assert_ne!(one[0], one[1]);
}

/// Joins the hosts' batches into the global one.
fn join(parts: &[Batch]) -> Batch {
    let mut whole = parts[0].clone();
    for part in &parts[1..] {
        whole.rows += part.rows;
        whole.examples.extend(&part.examples);
        whole.input_ids.extend(&part.input_ids);
        whole.segments.extend(&part.segments);
        whole.components.extend(&part.components);
        whole.input_segments.extend(&part.input_segments);
        whole.target_segments.extend(&part.target_segments);
        whole.decoder_input_ids.extend(&part.decoder_input_ids);
        whole.labels.extend(&part.labels);
        whole.residues += part.residues;
        whole.masked += part.masked;
        whole.unmasked_for_lack_of_sentinels += part.unmasked_for_lack_of_sentinels;
        whole.truncated_targets += part.truncated_targets;
        whole.input_tokens += part.input_tokens;
        whole.target_tokens += part.target_tokens;
    }
    whole
}

#[test]
fn hosts_partition_the_global_batch() {
    let data = dataset(2, 50, 1..200);
    for global in [24, 7] {
        let alone = batches(&data, plan(global), HostShard::all(), 1);
        for hosts in (1..=global).filter(|hosts| global % hosts == 0) {
            for step in [0, 1, 5, 1_000_000] {
                let parts: Vec<Batch> = (0..hosts)
                    .map(|host| batches(&data, plan(global), HostShard::host(host, hosts), 1))
                    .map(|host| host.batch(step).unwrap())
                    .collect();
                assert_eq!(join(&parts), alone.batch(step).unwrap(), "{hosts} hosts");
            }
        }
        let uneven = Batches::new(
            Mixture::one(data.clone(), Objective::default()),
            plan(global),
            HostShard::host(0, 5),
            1,
        );
        assert!(
            uneven
                .err()
                .unwrap()
                .to_string()
                .contains("multiple of the number of hosts")
        );
    }
}

#[test]
fn starting_at_a_step_equals_running_to_it() {
    let data = dataset(3, 50, 1..200);
    let batches = batches(&data, plan(8), HostShard::all(), 2);
    let all: Vec<Batch> = batches
        .prefetch(0, 3)
        .take(12)
        .map(Result::unwrap)
        .collect();
    for start in 0..12 {
        let later: Vec<Batch> = batches
            .prefetch(start, 1)
            .take(12 - start as usize)
            .map(Result::unwrap)
            .collect();
        assert_eq!(later, all[start as usize..]);
    }
}

#[test]
fn a_batch_can_be_waited_for_in_parts_and_given_up() {
    let data = dataset(4, 50, 1..200);
    // Such a batch takes longer to make than to ask for.
    let batches = batches(&data, plan(20_000), HostShard::all(), 1);
    let mut some = batches.prefetch(0, 1);
    assert!(!some.wait(Duration::ZERO));
    for step in 0..3 {
        while !some.wait(Duration::from_millis(1)) {}
        assert!(some.wait(Duration::ZERO));
        let batch = some.next().unwrap().unwrap();
        assert!(batch == batches.batch(step).unwrap(), "step {step}");
    }
    some.abandon();
    let mut ended = batches.prefetch(u64::MAX, 1);
    assert!(ended.wait(Duration::from_secs(60)) && ended.next().is_none());
    assert!(ended.wait(Duration::ZERO) && ended.next().is_none());
}

#[test]
fn dropping_the_iterator_stops_its_thread() {
    let data = dataset(4, 50, 1..200);
    let batches = batches(&data, plan(8), HostShard::all(), 1);
    // Dropping joins the thread, so this returns only if the thread stops, wherever it waits.
    drop(batches.prefetch(0, 2));
    let mut some = batches.prefetch(0, 2);
    some.next();
    drop(some);
}

#[test]
fn every_epoch_sees_every_row_once_in_another_order() {
    let data = dataset(5, 48, 1..100);
    let batches = batches(&data, plan(8), HostShard::all(), 1);
    let epoch = |first: u64| -> Vec<u64> {
        let steps = first..first + 6;
        steps
            .flat_map(|step| batches.batch(step).unwrap().examples)
            .collect()
    };
    let (one, two) = (epoch(0), epoch(6));
    assert_ne!(one, two);
    for mut rows in [one, two] {
        rows.sort();
        assert!(rows.into_iter().eq(0..48));
    }
    assert_eq!(batches.batch(5).unwrap().epoch, 0);
    assert_eq!(batches.batch(6).unwrap().epoch, 1);
    assert_eq!(batches.epochs_before(9), 1.5);
    assert_eq!(batches.steps(), None);
}

#[test]
fn arrays_are_what_a_t5_expects() {
    let data = dataset(6, 30, 1..200);
    let batch = batches(&data, plan(10), HostShard::all(), 1)
        .batch(2)
        .unwrap();
    assert_eq!(batch.input_ids.len(), 10 * 64);
    assert_eq!(batch.labels.len(), 10 * 40);
    for row in 0..10 {
        let input = &batch.input_ids[row * 64..][..64];
        let mask = &batch.attention_mask()[row * 64..][..64];
        let labels = &batch.labels[row * 40..][..40];
        let decoder = &batch.decoder_input_ids[row * 40..][..40];
        let end = input.iter().position(|&id| id == 1).unwrap();
        assert!(input[end + 1..].iter().all(|&id| id == 0), "{input:?}");
        for (place, &mask) in mask.iter().enumerate() {
            assert_eq!(mask, i32::from(place <= end));
        }
        assert_eq!(decoder[0], 0);
        for place in 1..40 {
            let before = labels[place - 1];
            assert_eq!(decoder[place], if before == IGNORED { 0 } else { before });
        }
        let end = labels.iter().position(|&id| id == 1).unwrap();
        assert!(labels[..end].iter().all(|&id| id > 1));
        assert!(labels[end + 1..].iter().all(|&id| id == IGNORED));
    }
    let tokens = batch
        .attention_mask()
        .iter()
        .filter(|&&mask| mask == 1)
        .count();
    assert_eq!(batch.input_tokens, tokens as u64);
    let labels = batch
        .labels
        .iter()
        .filter(|&&label| label != IGNORED)
        .count();
    assert_eq!(batch.target_tokens, labels as u64);
    assert_eq!(
        batch.padding_efficiency(),
        (tokens + labels) as f64 / (10.0 * 104.0)
    );
    for (row, sequence) in batch.sequences().enumerate() {
        assert_eq!((sequence.row, sequence.segment), (row, 1));
        assert_eq!(sequence.example, batch.examples[row]);
        assert_eq!(sequence.input.last(), Some(&1));
        let end = sequence.target.len();
        assert_eq!(sequence.target, &batch.labels[row * 40..][..end]);
        assert_eq!(batch.target_segments[row * 40..][..end], vec![1; end]);
    }
    assert_eq!(batch.sequences().count(), 10);
    assert_eq!(
        (batch.whole.sequences, batch.whole.residues),
        (10, batch.residues)
    );
    let value: serde_json::Value = serde_json::from_str(&text_of(&batch)).unwrap();
    assert_eq!(value["input_ids"].as_array().unwrap().len(), 10);
    assert_eq!(value["labels"][3].as_array().unwrap().len(), 40);
}

/// What a row of a batch was made from.
fn sequence(batch: &Batch, row: usize, objective: &Objective) -> String {
    let bytes = |ids: &[i32]| -> Vec<u8> {
        let ids = ids.iter().filter(|&&id| id != IGNORED);
        ids.map(|&id| u8::try_from(id).unwrap()).collect()
    };
    let (s, t) = (batch.input_length, batch.target_length);
    let input = bytes(&batch.input_ids[row * s..][..s]);
    let target = bytes(&batch.labels[row * t..][..t]);
    let tokenizer = Tokenizer::ankh();
    tokenizer.decode(&objective.unmask(tokenizer, &input, &target).unwrap())
}

#[test]
fn long_sequences_are_treated_as_asked() {
    let sequences = random_sequences(7, 20, 30..300);
    let data = Dataset::from_sequences(Tokenizer::ankh(), &sequences);
    let objective = Objective::default();
    let epochs = |long_sequences, steps: u64| {
        let plan = BatchConfig {
            long_sequences,
            ..plan(4)
        };
        let batches = batches(&data, plan, HostShard::all(), 1);
        let mut seen: HashMap<u64, Vec<String>> = HashMap::new();
        for step in 0..steps {
            let batch = batches.batch(step).unwrap();
            for (row, &example) in batch.examples.iter().enumerate() {
                let text = sequence(&batch, row, &objective);
                seen.entry(example).or_default().push(text);
            }
        }
        (seen, batches.examples_per_epoch())
    };
    let of = |row: &u64| sequences[*row as usize].as_str();

    let (cropped, per_epoch) = epochs(LongSequences::Crop, 10 * 5);
    assert_eq!(per_epoch, 20);
    for (row, windows) in &cropped {
        assert_eq!(windows.len(), 10);
        for window in windows {
            assert_eq!(window.len(), of(row).len().min(63));
            assert!(of(row).contains(window));
        }
        let moved = windows.iter().any(|window| window != &windows[0]);
        assert_eq!(moved, of(row).len() > 64, "row {row}: {}", of(row).len());
    }

    let (truncated, _) = epochs(LongSequences::Truncate, 5);
    for (row, windows) in &truncated {
        assert_eq!(windows[0], of(row)[..of(row).len().min(63)]);
    }

    let pieces: u64 = sequences.iter().map(|s| s.len().div_ceil(63) as u64).sum();
    let (split, per_epoch) = epochs(LongSequences::Split, pieces.div_ceil(4));
    assert_eq!(per_epoch, pieces);
    for (row, windows) in &split {
        let sequence = of(row);
        let count = sequence.len().div_ceil(63);
        // The last step reaches into the second epoch, so some pieces come again.
        let whole: usize = (0..count)
            .map(|i| &sequence[i * sequence.len() / count..(i + 1) * sequence.len() / count])
            .inspect(|piece| assert!(windows.iter().any(|window| window == piece)))
            .map(str::len)
            .sum();
        assert_eq!(whole, sequence.len());
        assert!(windows.len() >= count);
    }
}

#[test]
fn targets_that_do_not_fit_are_cut_and_counted() {
    let data = dataset(8, 10, 100..101);
    let plan = BatchConfig {
        target_length: 32,
        ..plan(5)
    };
    let objective = objective(json!({ "kind": "full_reconstruction" }));
    let batches = Batches::new(Mixture::one(data, objective), plan, HostShard::all(), 1).unwrap();
    let batch = batches.batch(0).unwrap();
    assert_eq!(batch.truncated_targets, 5);
    assert_eq!(batch.target_tokens, 5 * 32);
    assert!(!batch.labels.contains(&1), "a cut target has no end");
}

#[test]
fn evaluation_sees_each_row_once_and_never_changes() {
    let data = dataset(9, 21, 1..200);
    let of = |share| {
        let objective = Objective::default();
        Batches::evaluation(data.clone(), objective, plan(8), share, 1).unwrap()
    };
    let alone = of(HostShard::all());
    assert_eq!(alone.steps(), Some(3));
    let all: Vec<Batch> = alone.prefetch(0, 2).map(Result::unwrap).collect();
    assert_eq!(all.len(), 3);
    let rows: Vec<u64> = all
        .iter()
        .flat_map(|batch| batch.examples.clone())
        .collect();
    assert!(rows.into_iter().eq(0..21));
    for row in 5..8 {
        let labels = &all[2].labels[row * 40..][..40];
        assert!(labels.iter().all(|&label| label == IGNORED));
        let mask = &all[2].attention_mask()[row * 64..][..64];
        assert_eq!(mask.iter().sum::<i32>(), 1);
    }
    for (step, batch) in all.iter().enumerate() {
        let parts = [0, 1]
            .map(|host| of(HostShard::host(host, 2)))
            .map(|host| host.batch(step as u64).unwrap());
        assert_eq!(&join(&parts), batch);
    }
}

#[test]
fn frequencies_of_labels_give_the_loss_to_beat() {
    let data = dataset(10, 60, 50..60);
    let batches = batches(&data, plan(20), HostShard::all(), 1);
    let mut train = TokenFrequencies::new(144);
    train.add(&batches.batch(0).unwrap().labels);
    let mut held_out = TokenFrequencies::new(144);
    held_out.add(&batches.batch(1).unwrap().labels);
    let loss = train.cross_entropy(&held_out).unwrap();
    // No prediction that ignores the input does better than the labels' own entropy.
    assert!(loss > held_out.entropy() && loss < 144f64.ln());
}

#[test]
fn wrong_configurations_are_named() {
    let data = dataset(11, 5, 1..20);
    for (plan, name) in [
        (
            BatchConfig {
                global_batch: 0,
                ..plan(1)
            },
            "the global batch",
        ),
        (
            BatchConfig {
                input_length: 2,
                ..plan(1)
            },
            "the input length",
        ),
        (
            BatchConfig {
                target_length: 1,
                ..plan(1)
            },
            "the target length",
        ),
    ] {
        let error = Batches::new(
            Mixture::one(data.clone(), Objective::default()),
            plan,
            HostShard::all(),
            1,
        );
        assert!(error.err().unwrap().to_string().starts_with(name));
    }
    let beyond = Batches::new(
        Mixture::one(data.clone(), Objective::default()),
        plan(4),
        HostShard::host(2, 2),
        1,
    );
    assert!(
        beyond
            .err()
            .unwrap()
            .to_string()
            .starts_with("the host's number must be below")
    );
}

#[test]
#[allow(clippy::single_range_in_vec_init)] // a list of one range is what is meant
fn ranges_that_are_no_share_are_refused() {
    let data = dataset(11, 5, 1..20);
    let refused: [&[Range<usize>]; 6] = [
        &[],
        &[2..2],
        &[0..5],
        &[2..3, 0..1],
        &[0..2, 1..3],
        &[0..usize::MAX],
    ];
    for ranges in refused {
        let share = HostShard::ranges(ranges.iter().cloned());
        let made = Batches::new(
            Mixture::one(data.clone(), Objective::default()),
            plan(4),
            share,
            1,
        );
        let message = made.err().unwrap().to_string();
        assert!(
            message.starts_with("the rows must"),
            "{ranges:?}: {message}"
        );
    }
}

/// Ranges of the rows below 24, made of those where the bits are set.
fn ranges(rows: &[bool]) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = vec![];
    for (row, _) in rows.iter().enumerate().filter(|(_, chosen)| **chosen) {
        match ranges.last_mut() {
            // Ranges may touch; some of them do.
            Some(last) if last.end == row && row % 5 > 0 => last.end += 1,
            _ => ranges.push(row..row + 1),
        }
    }
    ranges
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_share_is_its_rows_of_the_whole_batch(
        chosen in proptest::collection::vec(any::<bool>(), 24),
        step in 0u64..40,
        evaluation in any::<bool>(),
    ) {
        prop_assume!(chosen.contains(&true));
        let data = dataset(12, 60, 1..200);
        let of = |share| {
            let (data, objective) = (data.clone(), Objective::default());
            let made = match evaluation {
                true => Batches::evaluation(data, objective, plan(24), share, 1),
                false => Batches::new(Mixture::one(data, objective), plan(24), share, 1),
            };
            made.unwrap()
        };
        let ranges = ranges(&chosen);
        let share = of(HostShard::ranges(ranges.clone())).batch(step).unwrap();
        let whole = of(HostShard::all()).batch(step).unwrap();
        let rows: Vec<usize> = ranges.into_iter().flatten().collect();
        prop_assert_eq!(share.rows, rows.len());
        prop_assert_eq!((share.step, share.epoch), (step, whole.epoch));
        let filled = rows.iter().filter_map(|&row| whole.examples.get(row).copied());
        prop_assert!(share.examples.iter().copied().eq(filled));
        for (part, all, length) in [
            (&share.input_ids, &whole.input_ids, 64),
            (&share.input_segments, &whole.input_segments, 64),
            (&share.target_segments, &whole.target_segments, 40),
            (&share.decoder_input_ids, &whole.decoder_input_ids, 40),
            (&share.labels, &whole.labels, 40),
        ] {
            let expected: Vec<i32> = rows
                .iter()
                .flat_map(|row| &all[row * length..(row + 1) * length])
                .copied()
                .collect();
            prop_assert_eq!(part, &expected);
        }
    }
}
