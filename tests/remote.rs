//! Training on data in a bucket, over a way on which requests fail: nothing but the time it takes
//! differs from local data.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use ankh_storage::{Location, Storage, StorageOptions};
use serde_json::{Map, Value};

use crate::servers::{Fault, Faults, Proxy, S3, server};
use crate::support;
use crate::support::runs::{Bench, expect, fasta, files, with_service};

/// The binary, with a service.
fn pretrain(environment: &BTreeMap<String, String>) -> Command {
    with_service(support::runs::pretrain(), environment)
}

/// Prepared proteins in a directory and in a bucket.
struct Remote {
    bench: Bench,
    bucket: Location,
}

impl Remote {
    fn new() -> Remote {
        let bench = Bench::empty();
        let (input, data) = (bench.path("proteins.fasta"), bench.path("data"));
        fs::write(&input, fasta((0..2400).map(|i| 20 + i % 40))).unwrap();
        let mut command = pretrain(&BTreeMap::new());
        command.args(["prepare", "--validation-fraction", "0.1", "--output"]);
        expect(command.arg(&data).arg(&input).output().unwrap(), 0, &[]);

        let s3 = S3::server();
        let bucket = s3.bucket().join("proteins");
        let options = StorageOptions {
            settings: server::environment(s3.address),
            ..StorageOptions::default()
        };
        let remote = Storage::open(&bucket, &options).unwrap();
        let local = Storage::open(&Location::from(data), &options).unwrap();
        for file in local.list("").unwrap() {
            let bytes = local.read(&file.name).unwrap();
            remote.write(&file.name, &bytes).unwrap();
        }
        Remote { bench, bucket }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.bench.path(name)
    }

    /// Trains the tiny model into a run directory.
    fn train(
        &self,
        run: &str,
        data: &str,
        environment: &BTreeMap<String, String>,
        settings: &[&str],
    ) -> Output {
        let mut command = pretrain(environment);
        command.args(["--config", "tiny", "--data", data, "--run-dir"]);
        command.arg(self.path(run)).args(["--steps", "20"]);
        for setting in settings {
            command.args(["--set", setting]);
        }
        command.output().unwrap()
    }

    /// What a run computed: each line of its metrics without the times, and the bytes of its last
    /// arrays.
    fn computed(&self, run: &str) -> (Vec<Map<String, Value>>, Files) {
        let timed = |name: &str| {
            ["mfu", "goodput"].contains(&name)
                || name.ends_with("_seconds")
                || name.ends_with("_per_second")
        };
        let text = fs::read_to_string(self.path(run).join("metrics.jsonl")).unwrap();
        let lines = text.lines().map(|line| {
            let line: Map<String, Value> = serde_json::from_str(line).unwrap();
            line.into_iter().filter(|(name, _)| !timed(name)).collect()
        });
        let arrays = self.path(run).join("checkpoints/step_00000020");
        let mut found = files(&arrays);
        found.retain(|(name, _)| name.components().any(|part| part.as_os_str() == "c"));
        found.sort();
        (lines.collect(), found)
    }
}

/// Names and contents.
type Files = Vec<(PathBuf, Vec<u8>)>;

#[test]
fn training_from_a_bucket_through_faults_equals_training_from_local_files() {
    let remote = Remote::new();
    let local = remote.path("data").display().to_string();
    let in_bucket = remote.bucket.to_string();
    for (name, settings, ways) in [
        ("whole", &[][..], vec![Faults::hitting(0.05, 2, 7)]),
        // Three pages, of which memory holds one or two, are read several times.
        (
            "pages",
            &["data.memory=16 KiB", "data.packing=packed"][..],
            vec![Faults::hitting(0.05, 3, 20), Faults::of(0, 0.3)],
        ),
    ] {
        // All pages are needed.
        let settings = [settings, &["train.batch_size=96"]].concat();
        let undisturbed = format!("{name}-local");
        expect(
            remote.train(&undisturbed, &local, &BTreeMap::new(), &settings),
            0,
            &["done: step 20"],
        );
        let (metrics, arrays) = remote.computed(&undisturbed);
        let steps: Vec<_> = metrics
            .iter()
            .filter_map(|line| line["step"].as_u64())
            .collect();
        assert_eq!(steps, (1..=20).collect::<Vec<_>>());
        assert!(!arrays.is_empty());

        for (way, faults) in ways.into_iter().enumerate() {
            let proxy = Proxy::before(S3::server().address, faults);
            let run = format!("{name}-remote-{way}");
            let environment = server::environment(proxy.address);
            let output = remote.train(&run, &in_bucket, &environment, &settings);
            expect(output, 0, &["done: step 20"]);
            let (other_metrics, other_arrays) = remote.computed(&run);
            assert_eq!(metrics, other_metrics, "{run}");
            for ((name, array), (other_name, other)) in arrays.iter().zip(&other_arrays) {
                assert_eq!(name, other_name);
                assert!(array == other, "{run}: {} differs", name.display());
            }
            assert_eq!(arrays.len(), other_arrays.len());
            let faults: usize = Fault::PASSING.map(|fault| proxy.met(fault)).iter().sum();
            assert!(faults > 1, "{run}");
        }
    }
}

#[test]
fn without_credentials_or_data_the_message_says_what_is_missing() {
    let remote = Remote::new();
    let proxy = Proxy::before(S3::server().address, Faults::none());
    let mut environment = server::environment(proxy.address);
    let nothing = remote.bucket.join("nothing").to_string();
    expect(
        remote.train("run", &nothing, &environment, &[]),
        2,
        &[&nothing, "holds no prepared data"],
    );
    expect(
        remote.train("run", "s3://no-such-bucket/data", &environment, &[]),
        2,
        &["s3://no-such-bucket/data", "there is no such bucket"],
    );
    environment.remove("AWS_ACCESS_KEY_ID");
    environment.remove("AWS_SECRET_ACCESS_KEY");
    // Where a machine of the service would give its credentials, nobody listens.
    environment.insert(
        "AWS_METADATA_ENDPOINT".to_owned(),
        "http://127.0.0.1:9".to_owned(),
    );
    expect(
        remote.train("run", &remote.bucket.to_string(), &environment, &[]),
        1,
        &[
            "not allowed to open",
            "no credentials were found",
            "docs/storage.md",
        ],
    );
    expect(
        remote.train("run", "http://somewhere/data", &environment, &[]),
        2,
        &["gs://BUCKET/KEY"],
    );
}
