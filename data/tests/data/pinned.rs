//! Values that are a contract: another value means that a resumed run would see other batches.

use ankh_data::{Batch, BatchConfig, Batches, HostShard, LongSequences, Mixture, Objective};
use serde_json::json;

use crate::{dataset, objective};

/// FNV-1a over the words of a batch.
fn digest(batches: impl IntoIterator<Item = Batch>) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut fold = |word: u64| hash = (hash ^ word).wrapping_mul(0x0100_0000_01b3);
    for batch in batches {
        let arrays = [&batch.input_ids, &batch.decoder_input_ids, &batch.labels];
        for &id in arrays.into_iter().flatten() {
            fold(id as u64);
        }
        for &row in &batch.examples {
            fold(row);
        }
    }
    hash
}

fn plan(long_sequences: LongSequences) -> BatchConfig {
    BatchConfig {
        seed: 17,
        global_batch: 12,
        input_length: 64,
        target_length: 40,
        long_sequences,
        ..BatchConfig::default()
    }
}

#[test]
fn padded_batches_never_change() {
    let data = dataset(31, 50, 1..200);
    let objective = Objective::default;
    let of = |long| {
        let batches = Batches::new(
            Mixture::one(data.clone(), objective()),
            plan(long),
            HostShard::all(),
            1,
        )
        .unwrap();
        digest((0..9).map(|step| batches.batch(step).unwrap()))
    };
    assert_eq!(of(LongSequences::Crop), 0xde03_ad63_5dc3_a2b0);
    assert_eq!(of(LongSequences::Truncate), 0xeab1_6369_e527_f7db);
    assert_eq!(of(LongSequences::Split), 0xc383_ddda_8452_724d);
    let plan = plan(LongSequences::Crop);
    let held_out = Batches::evaluation(data, objective(), plan, HostShard::all(), 1).unwrap();
    let held_out = held_out.prefetch(0, 1).map(Result::unwrap);
    assert_eq!(digest(held_out), 0x1930_3455_c5e5_c937);
}

#[test]
fn masks_never_change() {
    let data = dataset(32, 40, 1..100);
    let objectives = [
        (
            json!({ "kind": "partial_demasking", "count": "bernoulli" }),
            0xfb50_0d5b_ed74_474f,
        ),
        (
            json!({ "kind": "partial_demasking", "selection": "each_distinct" }),
            0x1bd9_532f_8d80_741f,
        ),
        (
            json!({ "kind": "partial_demasking", "ngram": 3, "masking_rate": 0.4 }),
            0xf63e_32af_f1e3_b465,
        ),
        (
            json!({ "kind": "partial_demasking", "touching": "merged", "masking_rate": 0.5 }),
            0x5ce4_ee51_6686_3ef1,
        ),
        (
            json!({ "kind": "span_corruption", "masking_rate": 0.15 }),
            0xa792_d804_04e3_6957,
        ),
        (
            json!({ "kind": "span_corruption", "count": "bernoulli" }),
            0x6f79_bc32_f8ff_b270,
        ),
        (json!({ "kind": "completion" }), 0xa739_0e2a_c17a_63cb),
        (json!({ "kind": "masked_only" }), 0x467d_b790_03ff_4a7d),
        (
            json!({ "kind": "full_reconstruction" }),
            0xdd89_e564_cb84_213a,
        ),
    ];
    for (table, pinned) in objectives {
        let objective = objective(table);
        let plan = plan(LongSequences::Crop);
        let batches = Batches::new(
            Mixture::one(data.clone(), objective.clone()),
            plan,
            HostShard::all(),
            1,
        );
        let batches = batches.unwrap();
        let found = digest((0..5).map(|step| batches.batch(step).unwrap()));
        assert_eq!(found, pinned, "{objective:?}");
    }
}
