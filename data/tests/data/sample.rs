use std::path::PathBuf;

use ankh_data::batches::objective::{Objective, PartialDemasking, TargetFormat};
use ankh_data::{
    BatchConfig, Batches, Dataset, HostShard, LongSequences, Mixture, PrepareOptions, ReadOptions,
    Split, TokenFrequencies, prepare,
};

/// The whole way on real proteins. Published figure: targets are about 36 % as long as inputs with
/// runs, and by the same arithmetic 40 % with pairs.
#[test]
fn the_bundled_sample_becomes_targets_of_the_published_length() {
    let sample = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("sample/uniprot_sample.fasta.gz");
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().join("prepared");
    let options = PrepareOptions::default();
    let manifest = prepare(
        &[sample.into()],
        &output.as_path().into(),
        &options,
        &mut |_| {},
    )
    .unwrap();
    assert_eq!((manifest.rows, manifest.report.rejected), (4800, 0));

    let train = Dataset::open(output.as_path(), Split::Train, &ReadOptions::default()).unwrap();
    let plan = BatchConfig {
        global_batch: 64,
        long_sequences: LongSequences::Crop,
        ..BatchConfig::default()
    };
    for (target_format, expected) in [(TargetFormat::Runs, 0.36), (TargetFormat::Pairs, 0.40)] {
        let objective = Objective::PartialDemasking(PartialDemasking {
            target_format,
            ..PartialDemasking::default()
        });
        let batches = Batches::new(
            Mixture::one(train.clone(), objective),
            plan.clone(),
            HostShard::all(),
            2,
        )
        .unwrap();
        let (mut inputs, mut targets) = (0, 0);
        let mut frequencies = TokenFrequencies::new(144);
        for step in 0..20 {
            let batch = batches.batch(step).unwrap();
            assert_eq!(
                (
                    batch.truncated_targets,
                    batch.unmasked_for_lack_of_sentinels
                ),
                (0, 0)
            );
            inputs += batch.input_tokens;
            targets += batch.target_tokens;
            frequencies.add(&batch.labels);
        }
        let ratio = targets as f64 / inputs as f64;
        assert!(
            (ratio - expected).abs() < 0.01,
            "{target_format:?}: {ratio}"
        );
        assert_eq!(frequencies.total(), targets);
    }
}
