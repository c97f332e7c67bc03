use std::collections::HashSet;
use std::sync::Mutex;

use proptest::prelude::*;

use super::*;
use crate::batches::dataset::Lengths;
use crate::batches::objective::Objective;
use crate::tokenizer::Tokenizer;

/// Input and target of small rows.
const ROW: (usize, usize) = (40, 30);

fn order(
    lengths: &[u32],
    shuffle: Shuffle,
    long: LongSequences,
    packed: bool,
    once: bool,
) -> DataOrder {
    order_that(lengths, shuffle, long, packed, once, Box::new(|_| {}))
}

fn order_that(
    lengths: &[u32],
    shuffle: Shuffle,
    long: LongSequences,
    packed: bool,
    once: bool,
    prefetch_hint: Box<PrefetchHint>,
) -> DataOrder {
    let objective = Objective::default();
    let window = objective.window(ROW.0, ROW.1);
    let lengths = Arc::new(lengths.iter().copied().collect::<Lengths>());
    let sizes = || Sizes::new(&objective, Tokenizer::ankh(), window, ROW).unwrap();
    let config = OrderConfig {
        examples: Examples::new(lengths, window, long),
        shuffle,
        sizes: packed.then(sizes),
        epochs: if once { Epochs::Once } else { Epochs::Endless },
        key: Key::new(5),
        threads: 2,
        prefetch_hint,
    };
    DataOrder::new(config).unwrap()
}

/// Blocks of some hundred residues and windows of a few blocks.
fn windows(lengths: &[u32], rows: u64, residues: u64) -> Shuffle {
    let all = lengths.len() as u64;
    let mut blocks: Vec<u64> = (0..all).step_by(rows as usize).collect();
    blocks.push(all);
    Shuffle::Windows {
        blocks: blocks.into(),
        residues,
    }
}

fn any_shuffle() -> impl Strategy<Value = Option<(u64, u64)>> {
    prop_oneof![Just(None), (1u64..20, 1u64..3000).prop_map(Some)]
}

fn any_long() -> impl Strategy<Value = LongSequences> {
    prop_oneof![
        Just(LongSequences::Crop),
        Just(LongSequences::Truncate),
        Just(LongSequences::Split),
    ]
}

/// The epoch and the examples of each row.
fn rows(order: &DataOrder, rows: Range<u128>) -> Vec<(u64, Vec<u64>)> {
    let range = order.row_range(rows.clone());
    rows.map_while(|row| {
        let mut examples = Vec::new();
        let epoch = range.row(row, &mut examples)?;
        let counts = range.counts(row);
        assert_eq!(counts.sequences, examples.len() as u64);
        let shown = examples.iter().map(|&e| order.examples().shown(e) as u64);
        assert_eq!(counts.residues, shown.sum::<u64>());
        assert_eq!(range.epoch(row), Some(epoch));
        Some((epoch, examples))
    })
    .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]

    #[test]
    fn every_epoch_shows_every_example_once(
        lengths in prop::collection::vec(1u32..90, 1..150),
        shuffle in any_shuffle(),
        long in any_long(),
        packed: bool,
        once: bool,
    ) {
        let shuffle = match shuffle {
            None => Shuffle::Exact,
            Some((rows, residues)) => windows(&lengths, rows, residues),
        };
        let order = order(&lengths, shuffle, long, packed, once);
        let count = order.examples().count();
        // More rows than three epochs have.
        let all = rows(&order, 0..3 * u128::from(count));
        for epoch in 0..if once { 1 } else { 3 } {
            let of_epoch = all.iter().filter(|row| row.0 == epoch);
            let mut examples: Vec<u64> = of_epoch.flat_map(|row| row.1.clone()).collect();
            let whole = once || all.iter().any(|row| row.0 > epoch) || !packed;
            if whole {
                examples.sort_unstable();
                prop_assert!(examples.into_iter().eq(0..count), "epoch {epoch}");
            }
        }
        prop_assert!(all.iter().all(|row| !row.1.is_empty()));
        prop_assert!(all.windows(2).all(|pair| pair[0].0 <= pair[1].0));
        if once {
            prop_assert_eq!(order.rows(), Some(all.len() as u64));
            prop_assert!(all.iter().all(|row| row.0 == 0));
        }
        if once && !packed {
            prop_assert!(all.into_iter().flat_map(|row| row.1).eq(0..count));
        }
    }

    #[test]
    fn rows_do_not_depend_on_where_one_starts(
        lengths in prop::collection::vec(1u32..90, 1..100),
        shuffle in any_shuffle(),
        packed: bool,
        first in 0u128..400,
        count in 0u128..50,
    ) {
        let make = || {
            let shuffle = match shuffle {
                None => Shuffle::Exact,
                Some((rows, residues)) => windows(&lengths, rows, residues),
            };
            order(&lengths, shuffle, LongSequences::Crop, packed, false)
        };
        let all = rows(&make(), 0..first + count);
        let fresh = make();
        prop_assert_eq!(rows(&fresh, first..first + count), &all[first as usize..]);
        let epochs = fresh.epochs_before(first);
        if let Some((epoch, _)) = all.get(first as usize) {
            prop_assert_eq!(epochs.floor() as u64, *epoch);
        }
    }

    #[test]
    fn windows_hold_whole_blocks_within_their_size(
        lengths in prop::collection::vec(1u32..90, 1..300), rows in 1u64..20, most in 1u64..3000,
    ) {
        let shuffle = windows(&lengths, rows, most);
        let Shuffle::Windows { blocks, .. } = shuffle.clone() else { unreachable!() };
        let hinted: Arc<Mutex<Vec<Vec<u32>>>> = Arc::default();
        let heard = hinted.clone();
        let prefetch_hint = Box::new(move |blocks: &[u32]| heard.lock().unwrap().push(blocks.to_vec()));
        let order = order_that(&lengths, shuffle, LongSequences::Crop, false, false, prefetch_hint);
        let block_of = |row: u64| blocks.partition_point(|&first| first <= row) as u32 - 1;
        let residues = |block: u32| -> u64 {
            let rows = blocks[block as usize] as usize..blocks[block as usize + 1] as usize;
            lengths[rows].iter().map(|&l| u64::from(l)).sum()
        };
        let mut seen = HashSet::new();
        let mut last: Option<Vec<u32>> = None;
        for row in 0..lengths.len() as u128 {
            let range = order.row_range(row..row + 1);
            let mut examples = Vec::new();
            range.row(row, &mut examples);
            let block = block_of(examples[0]);
            // The block was hinted, in the window that is being read: the first ones.
            let hinted = hinted.lock().unwrap().last().cloned().unwrap();
            prop_assert!(hinted.contains(&block));
            if last.as_ref() != Some(&hinted) {
                // Another window: its blocks were not read before.
                prop_assert!(!seen.contains(&block), "block {block} is in two windows");
                last = Some(hinted.clone());
            }
            seen.insert(block);
            let window = &range.parts[0];
            let rows = (window.rows.end - window.rows.start) as u64;
            let mut examples = Vec::new();
            for row in window.rows.clone() {
                let range = order.row_range(row..row + 1);
                range.row(row, &mut examples);
            }
            let of_window: HashSet<u32> = examples.iter().map(|&row| block_of(row)).collect();
            let total: u64 = of_window.iter().map(|&block| residues(block)).sum();
            prop_assert!(total <= most || of_window.len() == 1, "{total} of {most}");
            prop_assert_eq!(rows, examples.len() as u64);
        }
    }
}

#[test]
fn epochs_differ_and_so_do_neighbors_in_a_row() {
    let lengths: Vec<u32> = (0..400).map(|i| 5 + i % 30).collect();
    for shuffle in [Shuffle::Exact, windows(&lengths, 10, 800)] {
        for packed in [false, true] {
            let order = order(
                &lengths,
                shuffle.clone(),
                LongSequences::Crop,
                packed,
                false,
            );
            let all = rows(&order, 0..1000);
            let epoch = |epoch| -> Vec<Vec<u64>> {
                let rows = all.iter().filter(|row| row.0 == epoch);
                rows.map(|row| row.1.clone()).collect()
            };
            let (one, two) = (epoch(0), epoch(1));
            assert_ne!(one, two);
            let together = |rows: &[Vec<u64>]| -> HashSet<(u64, u64)> {
                let pairs = |row: &Vec<u64>| -> Vec<(u64, u64)> {
                    let others = |(i, &a): (usize, &u64)| {
                        row[i + 1..]
                            .iter()
                            .map(|&b| (a.min(b), a.max(b)))
                            .collect::<Vec<_>>()
                    };
                    row.iter().enumerate().flat_map(others).collect()
                };
                rows.iter().flat_map(pairs).collect()
            };
            let (one, two) = (together(&one), together(&two));
            assert_eq!(one.is_empty(), !packed);
            // A few pairs meet again by chance.
            assert!(one.intersection(&two).count() * 5 <= one.len());
        }
    }
}

#[test]
fn a_window_stays_wanted_until_the_last_row_of_it_is_made() {
    let lengths = vec![10; 60];
    let hinted: Arc<Mutex<Vec<Vec<u32>>>> = Arc::default();
    let heard = hinted.clone();
    let prefetch_hint = Box::new(move |blocks: &[u32]| heard.lock().unwrap().push(blocks.to_vec()));
    // Six blocks of ten rows; two make a window.
    let shuffle = windows(&lengths, 10, 200);
    let order = order_that(
        &lengths,
        shuffle,
        LongSequences::Crop,
        false,
        false,
        prefetch_hint,
    );
    let count = || hinted.lock().unwrap().len();
    let early = order.row_range(15..20);
    let late = order.row_range(20..25);
    assert_eq!(
        count(),
        1,
        "the second window was hinted while the first is being read"
    );
    drop(early);
    assert_eq!(count(), 2);
    drop(late);
    let again = order.row_range(25..30);
    assert_eq!(count(), 2, "nothing new");
    drop(again);
    let last = order.row_range(45..50);
    drop(last);
    let all = hinted.lock().unwrap();
    // Each names its own window and then the next one's; the last, the first of the next epoch.
    assert_eq!(all.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 4]);
    assert_eq!(all[0][2..], all[1][..2]);
    assert_eq!(all[1][2..], all[2][..2]);
}

/// UniRef50's number of sequences, with lengths distributed as its are.
fn uniref50() -> Vec<u32> {
    let mut random = Key::new(62).stream();
    let drawn: Vec<u32> = (0..1 << 16)
        .map(|_| crate::synthetic::uniref50_length(&mut random))
        .collect();
    let key = Key::new(63);
    let length = |row: u64| drawn[(key.at(row) >> 48) as usize];
    (0..62_000_000).map(length).collect()
}

/// The seconds this thread has run, where the system says so; else those that have passed.
fn seconds(since: std::time::Instant) -> f64 {
    let of_thread = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanoseconds = of_thread.and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
    nanoseconds.map_or(since.elapsed().as_secs_f64(), |n| n / 1e9)
}

#[test]
fn any_epoch_of_uniref50_is_found_in_seconds_with_little_memory() {
    let objective = Objective::default();
    let lengths = Arc::new(uniref50().into_iter().collect::<Lengths>());
    let rows = lengths.rows();
    let mut blocks: Vec<u64> = (0..rows).step_by(900).collect();
    blocks.push(rows);
    let windows = Shuffle::Windows {
        blocks: blocks.into(),
        residues: 4 << 30,
    };
    for shuffle in [Shuffle::Exact, windows] {
        let since = std::time::Instant::now();
        let start = seconds(since);
        let window = objective.window(512, 256);
        let sizes = Sizes::new(&objective, Tokenizer::ankh(), window, (512, 256));
        let order = DataOrder::new(OrderConfig {
            examples: Examples::new(lengths.clone(), window, LongSequences::Crop),
            shuffle,
            sizes: Some(sizes.unwrap()),
            epochs: Epochs::Endless,
            key: Key::new(1),
            // All of the work is this thread's.
            threads: 1,
            prefetch_hint: Box::new(|_| {}),
        });
        let order = order.unwrap();
        // In epoch 68: a sequence takes 0.465 of a row on average.
        let row = 3185 * u128::from(rows) / 100;
        let mut examples = Vec::new();
        let epoch = order.row_range(row..row + 1).row(row, &mut examples);
        let took = seconds(since) - start;
        let bytes = order.bytes() + lengths.bytes();
        println!("{took:.2} s of one core, {} MiB", bytes >> 20);
        assert_eq!(epoch, Some(68));
        assert!(took < 5.0, "{took} s");
        assert!(bytes < 1 << 30, "{bytes} bytes");
    }
}

/// Who shares a row with sequence 0, over 4,600 epochs of 24 sequences, two a row: 22 degrees of
/// freedom, 99.99th percentile about 54.
#[test]
fn any_two_sequences_of_a_length_share_a_row_equally_often() {
    let lengths = [15; 24];
    let exact = order(&lengths, Shuffle::Exact, LongSequences::Crop, true, false);
    let one_window = windows(&lengths, 4, 1000);
    let windowed = order(&lengths, one_window, LongSequences::Crop, true, false);
    for order in [exact, windowed] {
        let epochs = 200 * 23;
        let mut partners = [0u32; 24];
        for (_, examples) in rows(&order, 0..12 * epochs) {
            assert_eq!(examples.len(), 2);
            match examples[..] {
                [0, other] | [other, 0] => partners[other as usize] += 1,
                _ => {}
            }
        }
        let term = |&count: &u32| (f64::from(count) - 200.0).powi(2) / 200.0;
        let chi_square: f64 = partners[1..].iter().map(term).sum();
        assert!(chi_square < 54.0, "{partners:?}");
    }
}
