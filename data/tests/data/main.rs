//! The crate from outside: files in, batches out.

mod batches;
mod chunks;
mod fasta;
mod inputs;
mod manifests;
mod masking;
mod oddities;
mod packed;
mod pinned;
mod preparing;
#[path = "../../../storage/tests/support/python.rs"]
mod python;
mod reading;
mod sample;
mod splits;
mod tables;

use ankh_data::{Dataset, Key, Objective, Tokenizer};

/// Sequences of amino acids with lengths in a range, the same for the same seed.
pub fn random_sequences(seed: u64, count: usize, lengths: std::ops::Range<usize>) -> Vec<String> {
    let mut random = Key::new(seed).stream();
    (0..count)
        .map(|_| {
            let length = lengths.start + random.below(lengths.len());
            let letters = b"ACDEFGHIKLMNPQRSTVWYXBOUZ";
            (0..length)
                .map(|_| char::from(letters[random.below(letters.len())]))
                .collect()
        })
        .collect()
}

/// Those sequences as a data set.
pub fn dataset(seed: u64, count: usize, lengths: std::ops::Range<usize>) -> Dataset {
    Dataset::from_sequences(Tokenizer::ankh(), random_sequences(seed, count, lengths))
}

/// An objective as the configuration has it.
pub fn objective(table: serde_json::Value) -> Objective {
    serde_json::from_value(table).unwrap()
}
