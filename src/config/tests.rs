use std::fs;

use super::*;

fn set(arguments: &[&str]) -> Result<Config, ConfigError> {
    let arguments: Vec<String> = arguments
        .iter()
        .map(|argument| (*argument).to_owned())
        .collect();
    resolve(None, &arguments)
}

fn message(result: Result<Config, ConfigError>) -> String {
    result.expect_err("the configuration is wrong").to_string()
}

#[test]
fn every_preset_resolves_and_validates() {
    for name in preset_names() {
        let config = resolve(Some(name), &[]).unwrap_or_else(|error| panic!("{name}: {error}"));
        config
            .validate()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn every_file_under_configs_is_a_preset() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
    let mut files = Vec::new();
    for (directory, prefix) in [
        (root.clone(), ""),
        (root.join("experiments"), "experiments/"),
    ] {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path
                .extension()
                .is_some_and(|extension| extension == "toml")
            {
                files.push(format!(
                    "{prefix}{}",
                    path.file_stem().unwrap().to_str().unwrap()
                ));
            }
        }
    }
    // The table of layouts is none.
    files.retain(|file| file != "layouts");
    files.sort();
    let mut presets: Vec<_> = preset_names().collect();
    presets.sort();
    assert_eq!(files, presets);
}

#[test]
fn the_defaults_are_ankh_base() {
    assert_eq!(resolve(Some("ankh-base"), &[]).unwrap(), Config::default());
}

#[test]
fn the_published_models_have_their_published_sizes() {
    let parameters = |name| resolve(Some(name), &[]).unwrap().model.parameters();
    assert_eq!(parameters("ankh-base"), 736_453_632);
    assert_eq!(parameters("ankh-large"), 1_878_705_152);
}

#[test]
fn the_last_experiments_are_the_published_models() {
    for (experiment, model) in [
        ("experiments/22", "ankh-base"),
        ("experiments/23", "ankh-large"),
    ] {
        let (experiment, model) = (resolve(Some(experiment), &[]), resolve(Some(model), &[]));
        assert_eq!(experiment.unwrap(), model.unwrap());
    }
}

#[test]
fn experiments_differ_from_each_other() {
    let experiments: Vec<_> = preset_names()
        .filter(|name| name.starts_with("experiments/"))
        .map(|name| (name, resolve(Some(name), &[]).unwrap()))
        .collect();
    // The paper's 24, and the mixture.
    assert_eq!(experiments.len(), 25);
    for (i, (name, config)) in experiments.iter().enumerate() {
        for (other, other_config) in &experiments[i + 1..] {
            assert_ne!(config, other_config, "{name} and {other}");
        }
    }
}

#[test]
fn a_resolved_configuration_reads_back_as_itself() {
    let versions = Versions {
        ankh: "0.1.0".into(),
        plugin_api: "0.115".into(),
        platform: "cpu".into(),
    };
    let directory = tempfile::tempdir().unwrap();
    for (i, name) in preset_names().enumerate() {
        let path = directory.path().join(format!("{i}.toml"));
        let set = [
            "optimizer.clip_norm=1".into(),
            "data.dir=somewhere/else".into(),
            "data.memory=100 MB".into(),
            "mixture.half.weight=0.5".into(),
        ];
        let config = resolve(Some(name), &set).unwrap();
        fs::write(&path, config.to_toml(&versions)).unwrap();
        assert_eq!(resolve(path.to_str(), &[]).unwrap(), config, "{name}");
    }
}

#[test]
fn an_unknown_key_names_its_neighbor() {
    for (key, nearest) in [
        ("model.d_modle", "model.d_model"),
        ("modle.d_model", "model.d_model"),
        ("d_model", "model.d_model"),
        ("train.warmup_steps", "schedule.warmup_steps"),
        ("optimizer.learning_rate", "schedule.peak_learning_rate"),
        ("optimizer.b1", "optimizer"),
        ("objective.mask_rate", "objective.masking_rate"),
        ("evaluation.evry", "evaluation.every"),
    ] {
        let text = message(set(&[&format!("{key}=1")]));
        assert!(
            text.contains(&format!("unknown setting `{key}` in --set {key}=1")),
            "{text}"
        );
        assert!(text.contains(nearest), "{key}: {text}");
    }
}

#[test]
fn a_key_of_an_earlier_version_names_the_key_of_now() {
    let text = message(set(&["train.accumulation=2"]));
    assert_eq!(
        text,
        "the setting `train.accumulation` in --set train.accumulation=2 is called \
         `train.gradient_accumulation` now"
    );
    let text = message(set(&["data.rows=packed"]));
    assert!(text.contains("is called `data.packing` now"), "{text}");
}

#[test]
fn a_switch_that_the_objective_does_not_have_is_refused() {
    for (arguments, key, kinds) in [
        (
            &[
                "objective.kind=masked_only",
                "objective.target_format=pairs",
            ][..],
            "`objective.target_format`",
            "partial_demasking, span_corruption",
        ),
        (
            &[
                "objective.kind=full_reconstruction",
                "objective.target_format=runs",
            ],
            "`objective.target_format`",
            "partial_demasking, span_corruption",
        ),
        (
            &["objective.mean_span=4"],
            "`objective.mean_span`",
            "the kind that has it is span_corruption",
        ),
        (
            &["objective.kind=completion", "objective.masking_rate=0.3"],
            "`objective.masking_rate`",
            "partial_demasking, masked_only, full_reconstruction, span_corruption",
        ),
        (
            &["objective.kind=span_corruption", "objective.ngram=1"],
            "`objective.ngram`",
            "partial_demasking, masked_only, full_reconstruction",
        ),
        (
            &["mixture.a.kind=completion", "mixture.a.masking_rate=0.3"],
            "`mixture.a.masking_rate`",
            "span_corruption",
        ),
        (
            &["mixture.a.mean_span=4"],
            "`mixture.a.mean_span`",
            "span_corruption",
        ),
        // The part has the kind of all.
        (
            &["mixture.a.ngram=3", "objective.kind=span_corruption"],
            "`mixture.a.ngram`",
            "masked_only",
        ),
    ] {
        let text = message(set(arguments));
        assert!(text.contains(key), "{arguments:?}: {text}");
        assert!(text.contains("has no effect on the objective"), "{text}");
        assert!(text.contains(kinds), "{arguments:?}: {text}");
    }
    // All in one file, in whatever order they stand there.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mine.toml");
    fs::write(
        &path,
        "[objective]\ntarget_format = \"pairs\"\nkind = \"masked_only\"\n",
    )
    .unwrap();
    let text = message(resolve(path.to_str(), &[]));
    assert!(text.contains("`objective.target_format` in"), "{text}");
}

#[test]
fn another_kind_of_objective_keeps_the_switches_that_both_have() {
    let objective = |arguments: &[&str]| serde_json::json!(set(arguments).unwrap().objective);
    let spans = objective(&[
        "objective.masking_rate=0.3",
        "objective.ngram=3",
        "objective.target_format=pairs",
        "objective.kind=span_corruption",
        "objective.mean_span=4",
    ]);
    let expected = serde_json::json!({
        "kind": "span_corruption", "masking_rate": 0.3, "count": "exact", "mean_span": 4.0,
        "target_format": "pairs", "task": null,
    });
    assert_eq!(spans, expected);
    // What was dropped on the way does not come back.
    let back = objective(&[
        "objective.ngram=3",
        "objective.kind=span_corruption",
        "objective.kind=partial_demasking",
    ]);
    assert_eq!(back["ngram"], 1);
}

#[test]
fn the_papers_experiments_keep_their_objectives() {
    let objective = |name: &str| {
        let config = resolve(Some(&format!("experiments/{name}")), &[]).unwrap();
        let mut table = serde_json::json!(config.objective);
        // Unset but for Ankh3.
        table
            .as_object_mut()
            .unwrap()
            .retain(|_, value| !value.is_null());
        table
    };
    let masks = |kind: &str, rate: f64| {
        serde_json::json!({
            "kind": kind, "masking_rate": rate, "count": "exact", "selection": "uniform",
            "ngram": 1, "touching": "separate",
        })
    };
    assert_eq!(objective("00"), masks("full_reconstruction", 0.15));
    assert_eq!(objective("03"), masks("masked_only", 0.15));
    let mut ankh = masks("partial_demasking", 0.15);
    ankh["target_format"] = "runs".into();
    assert_eq!(objective("04"), ankh);
    let spans = serde_json::json!({
        "kind": "span_corruption", "masking_rate": 0.15, "count": "exact", "mean_span": 3.0,
        "target_format": "runs",
    });
    assert_eq!(objective("05"), spans);
}

#[test]
fn a_key_like_no_other_names_no_neighbor() {
    let text = message(set(&["zzzzzzzzzzzzzzzz=1"]));
    assert!(!text.contains("did you mean"), "{text}");
}

#[test]
fn an_unknown_key_in_a_file_names_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mine.toml");
    fs::write(&path, "extends = \"tiny\"\n[train]\nbatchsize = 3\n").unwrap();
    let text = message(resolve(path.to_str(), &[]));
    assert!(
        text.contains("mine.toml") && text.contains("`train.batch_size`"),
        "{text}"
    );
}

#[test]
fn a_wrong_type_says_what_was_expected() {
    for (argument, expected) in [
        ("model.d_model=wide", "`model.d_model`"),
        ("model.d_model=wide", "a whole number, 0 or more"),
        ("model.d_model=-4", "a whole number, 0 or more"),
        ("model.tie_embeddings=1", "true or false"),
        ("model.tie_embeddings=unscald", "did you mean `unscaled`?"),
        ("schedule.peak_learning_rate=fast", "a number"),
        ("optimizer.decay_rate=fast", "a number"),
        ("model.activation=gated-glu", "did you mean `gated-gelu`?"),
        ("optimizer.name=adafactr", "did you mean `adafactor`?"),
        ("optimizer.name=3", "expected"),
        ("model=3", "a section of settings"),
        (
            "data.memory=much",
            "a size such as \"8 GiB\", or a number of GiB",
        ),
        (
            "data.memory=true",
            "a size such as \"8 GiB\", or a number of GiB",
        ),
        ("data.packing=pcaked", "did you mean `packed`?"),
        ("data.dir=3", "a string"),
        ("train.steps={a=1}", "`train.steps`"),
    ] {
        let text = message(set(&[argument]));
        assert!(text.contains(expected), "{argument}: {text}");
        assert!(text.contains("--set"), "{argument}: {text}");
    }
}

#[test]
fn later_layers_win() {
    let config = resolve(
        Some("tiny"),
        &["train.steps=7".into(), "train.steps=9".into()],
    )
    .unwrap();
    assert_eq!(config.train.steps, 9);
    assert_eq!(config.model.d_model, 24);
}

#[test]
fn bare_strings_and_whole_numbers_for_fractions_are_accepted() {
    let config = set(&[
        "schedule.kind=constant",
        "loss.z_loss=1",
        "train.seed = 1_000",
    ])
    .unwrap();
    assert_eq!(config.schedule.kind, ScheduleKind::Constant);
    assert_eq!(config.loss.z_loss, 1.0);
    assert_eq!(config.train.seed, 1000);
}

#[test]
fn memory_is_a_size_or_a_number_of_gib() {
    for (argument, bytes) in [
        ("data.memory=64", 64 << 30),
        ("data.memory=0.5", 1 << 29),
        ("data.memory=100 MB", 100_000_000),
        ("data.memory=\"3 TiB\"", 3 << 40),
    ] {
        let options = set(&[argument]).unwrap().read_options();
        assert_eq!(options.memory, bytes, "{argument}");
    }
    let cached = set(&["data.cache=/scratch", "data.cache_size=2 GiB"]).unwrap();
    let cache = cached.read_options().storage.cache.unwrap();
    assert_eq!(cache.directory, std::path::Path::new("/scratch"));
    assert_eq!(cache.bytes, 2 << 30);
}

#[test]
fn another_optimizer_starts_from_its_own_defaults() {
    let config = set(&[
        "optimizer.decay_rate=0.9",
        "optimizer.name=adamw",
        "optimizer.b1=0.8",
    ])
    .unwrap();
    let expected = AdamW {
        b1: 0.8,
        ..AdamW::default()
    };
    assert_eq!(config.optimizer, Optimizer::Adamw(expected));
    let text = message(set(&["optimizer.name=adamw", "optimizer.decay_rate=0.9"]));
    assert!(
        text.contains("unknown setting `optimizer.decay_rate`"),
        "{text}"
    );
}

#[test]
fn none_takes_an_optional_value_away() {
    let config = set(&["optimizer.clip_norm=1", "optimizer.clip_norm=none"]).unwrap();
    assert_eq!(config.optimizer.clip_norm(), None);
    assert!(set(&["train.steps=none"]).is_err());
}

#[test]
fn a_circle_of_parents_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let (a, b) = (
        directory.path().join("a.toml"),
        directory.path().join("b.toml"),
    );
    fs::write(&a, "extends = \"b.toml\"").unwrap();
    fs::write(&b, "extends = \"a.toml\"").unwrap();
    let text = message(resolve(a.to_str(), &[]));
    assert!(text.contains("circle") && text.contains("b.toml"), "{text}");
}

#[test]
fn a_misspelt_preset_names_the_right_one() {
    let text = message(resolve(Some("ankh-lrage"), &[]));
    assert!(text.contains("did you mean `ankh-large`?"), "{text}");
}

#[test]
fn a_text_that_is_not_toml_names_its_line() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("broken.toml");
    fs::write(&path, "[model]\nd_model = = 3\n").unwrap();
    let text = message(resolve(path.to_str(), &[]));
    assert!(
        text.contains("broken.toml") && text.contains("line 2"),
        "{text}"
    );
}

#[test]
fn an_argument_without_a_value_is_an_error() {
    for argument in ["train.steps", "=3", "train..steps=3"] {
        assert!(
            message(set(&[argument])).contains("key=value"),
            "{argument}"
        );
    }
}

#[test]
fn validation_names_each_wrong_setting() {
    for (argument, key) in [
        ("model.heads=0", "model.heads is 0"),
        ("model.vocabulary=100", "model.vocabulary is 100"),
        ("data.tokenizer=ankh3", "model.vocabulary is 144"),
        ("model.relative_buckets=30", "model.relative_buckets is 30"),
        (
            "model.relative_max_distance=32",
            "model.relative_max_distance is 32",
        ),
        ("data.target_length=1", "data.target_length is 1, too short"),
        ("data.memory=0", "data.memory is 0"),
        ("data.target_length=205", "can take 206 positions"),
        ("objective.masking_rate=1.5", "objective.masking_rate"),
        ("objective.task=nlu", "objective.task"),
        ("train.gradient_accumulation=7", "train.batch_size is 1536"),
        ("train.steps=3_000_000_000", "train.steps is 3000000000"),
        (
            "schedule.peak_learning_rate=nan",
            "schedule.peak_learning_rate is NaN",
        ),
        ("optimizer.clip_norm=0", "optimizer.clip_norm is 0"),
        ("loss.label_smoothing=1", "loss.label_smoothing is 1"),
    ] {
        let error = set(&[argument])
            .unwrap()
            .validate()
            .expect_err(argument)
            .to_string();
        assert!(error.contains(key), "{argument}: {error}");
    }
}

#[test]
fn validation_reports_all_problems_at_once() {
    let error = set(&["model.heads=0", "train.steps=0"])
        .unwrap()
        .validate()
        .unwrap_err();
    let ConfigError::Invalid { problems } = error else {
        panic!("{error}")
    };
    let keys: Vec<_> = problems.iter().map(|problem| &problem.key[..]).collect();
    assert_eq!(keys, ["model.heads", "train.steps"]);
}

#[test]
fn too_many_masks_for_the_sentinels_are_a_warning() {
    assert_eq!(Config::default().warnings(), []);
    let config = resolve(Some("experiments/09"), &[]).unwrap();
    assert_eq!(config.warnings()[0].key, "objective.masking_rate");
}

#[test]
fn a_schedule_that_does_not_fit_its_run_is_noticed() {
    let warned = |arguments: &[&str]| {
        let config = set(&[&["train.steps=300", "schedule.warmup_steps=20"], arguments].concat());
        let config = config.unwrap();
        config.validate().unwrap();
        let warnings: Vec<_> = config.warnings().iter().map(|w| w.to_string()).collect();
        warnings.join(", ")
    };
    assert_eq!(warned(&[]), "");
    assert_eq!(warned(&["schedule.steps=400"]), "");
    assert_eq!(warned(&["schedule.start_step=200"]), "");
    assert!(warned(&["schedule.steps=200"]).contains("0 after step 200"));
    assert_eq!(
        warned(&["schedule.steps=200", "schedule.kind=constant"]),
        ""
    );
    let late = warned(&["schedule.start_step=290"]);
    assert!(late.contains("20 from step 290 of 300 on"), "{late}");
    let wrong =
        |arguments: &[&str]| message(set(arguments).map(|c| c.validate().map(|()| c)).unwrap());
    let error = wrong(&["train.steps=300", "schedule.start_step=300"]);
    assert!(error.contains("the schedule ends at step 300"), "{error}");
    let error = wrong(&["schedule.steps=0"]);
    assert!(error.contains("schedule.steps is 0"), "{error}");
}

#[test]
fn what_is_written_over_a_base_reads_back_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let base = directory.path().join("base.toml");
    std::fs::write(&base, "extends = \"tiny\"\n[optimizer]\nclip_norm = 1.0\n").unwrap();
    let written = directory.path().join("written.toml");
    for base in [None, Some("ankh-large"), base.to_str()] {
        for set in [
            &[][..],
            &[
                "sharding.fsdp=2",
                "train.remat=named",
                "sharding.rules.vocab=[\"model\"]",
            ],
            &["optimizer.name=adamw", "optimizer.b1=0.95"],
            &["optimizer.clip_norm=none", "data.dir=prepared"],
            &["schedule.steps=30", "schedule.start_step=7"],
        ] {
            let set: Vec<String> = set.iter().map(|s| (*s).to_owned()).collect();
            let config = resolve(base, &set).unwrap();
            std::fs::write(&written, config.to_toml_over(base).unwrap()).unwrap();
            assert_eq!(
                resolve(written.to_str(), &[]).unwrap(),
                config,
                "{base:?} {set:?}"
            );
        }
    }
}

#[test]
fn only_what_differs_is_written_over_a_base() {
    let config = resolve(Some("tiny"), &["train.remat=full".into()]).unwrap();
    let text = config.to_toml_over(Some("tiny")).unwrap();
    assert_eq!(text, "extends = \"tiny\"\n\n[train]\nremat = \"full\"\n");
}

#[test]
fn a_size_that_no_product_could_hold_is_refused_by_its_key() {
    let largest = usize::MAX >> 1;
    for key in [
        "model.vocabulary",
        "model.d_model",
        "model.d_ff",
        "model.heads",
        "model.d_kv",
        "model.encoder_layers",
        "model.decoder_layers",
        "data.threads",
        "data.prefetch",
    ] {
        let config = resolve(Some("tiny"), &[format!("{key}={largest}")]).unwrap();
        let error = config.validate().unwrap_err().to_string();
        assert!(error.contains(key) && error.contains("or less"), "{error}");
    }
}

#[test]
fn the_whole_run_of_ankh_base_costs_what_is_published() {
    // 3.2e21 operations over 14 billion residues, which fill about 311 of the 512 positions.
    let config = Config::default();
    let run = config.step_flops() * 311.0 / 512.0 * config.train.steps as f64;
    assert!((2.5e21..4.0e21).contains(&run), "{run:e}");
}

#[test]
fn a_misspelt_axis_names_those_that_exist() {
    for (setting, words) in [
        (
            "sharding.rules.bacth=[\"data\"]",
            ["`sharding.rules.bacth`", "`sharding.rules.batch`"],
        ),
        (
            "sharding.rules.batch=[\"dta\"]",
            ["`sharding.rules.batch`", "`data`"],
        ),
        ("sharding.mdoel=2", ["`sharding.mdoel`", "`sharding.model`"]),
    ] {
        let text = message(set(&[setting]));
        for word in words {
            assert!(text.contains(word), "{word} is not in: {text}");
        }
    }
}

#[test]
fn there_is_a_rule_for_each_axis_that_can_be_split() {
    let rules = serde_json::to_value(Rules::default()).unwrap();
    let mut keys: Vec<&str> = rules
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    keys.sort_unstable();
    let axes = LogicalAxis::ALL.iter().copied();
    let mut names: Vec<&str> = axes
        .filter(|&axis| axis != LogicalAxis::Microbatches)
        .map(LogicalAxis::name)
        .collect();
    names.sort_unstable();
    assert_eq!(keys, names);
}

#[test]
fn a_setting_without_a_default_can_be_given() {
    let config = set(&["cluster.address=10.0.0.7", "schedule.steps=5"]).unwrap();
    assert_eq!(config.cluster.address, Some([10, 0, 0, 7].into()));
    assert_eq!(config.schedule.steps, Some(5));
    let text = message(set(&["cluster.address=here"]));
    assert!(text.contains("`cluster.address`"), "{text}");
}

#[test]
fn a_batch_can_be_given_in_sequences() {
    let mut config = set(&["train.batch_size=1024 sequences", "data.packing=packed"]).unwrap();
    assert_eq!(config.train.batch_size, BatchSize::Sequences(1024));
    config.validate().unwrap();
    let written = config.to_toml_over(None).unwrap();
    assert!(written.contains("\"1024 sequences\""), "{written}");
    config.settle_batch_size(2.14);
    assert_eq!(config.train.batch_size, BatchSize::Rows(512));
    assert_eq!(config.batch_rows(), 512);
    // Rows stay what they are.
    config.settle_batch_size(3.0);
    assert_eq!(config.batch_rows(), 512);
    // Whether parts divide the rows is known with the rows.
    let thirds = set(&[
        "train.batch_size=1024 sequences",
        "train.gradient_accumulation=3",
    ]);
    let mut thirds = thirds.unwrap();
    thirds.validate().unwrap();
    thirds.settle_batch_size(1.0);
    let error = thirds.validate().unwrap_err().to_string();
    assert!(error.contains("train.batch_size is 1024"), "{error}");
    for wrong in [
        "1024 rows",
        "sequences",
        "-3 sequences",
        "1.5",
        "-8",
        "true",
    ] {
        let text = message(set(&[&format!("train.batch_size={wrong}")]));
        assert!(text.contains("\"1024 sequences\""), "{wrong}: {text}");
    }
}

#[test]
fn a_target_length_can_follow_the_objective() {
    for (arguments, length) in [
        (&["data.target_length=auto"][..], 208),
        // There are sentinels for no more than 115 masks.
        (&["data.target_length=auto", "data.input_length=1024"], 240),
        (
            &["data.target_length=auto", "objective.masking_rate=0.1"],
            112,
        ),
        (
            &[
                "data.target_length=auto",
                "objective.kind=full_reconstruction",
            ],
            512,
        ),
        (
            &[
                "data.target_length=auto",
                "mixture.low.masking_rate=0.1",
                "mixture.high.masking_rate=0.22",
            ],
            240,
        ),
        (&[], 208),
        // What a full row takes on average, and a little more.
        (&["data.packing=packed"], 192),
        (&["data.target_length=256"], 256),
    ] {
        let config = set(arguments).unwrap();
        assert_eq!(config.target_length(), length, "{arguments:?}");
        config.validate().unwrap();
    }
    // No objective of a preset is cut.
    for name in preset_names() {
        let auto = ["data.target_length=auto".to_owned()];
        resolve(Some(name), &auto).unwrap().validate().unwrap();
    }
    let text = message(set(&["data.target_length=long"]));
    assert!(text.contains("\"auto\""), "{text}");
}

/// The preset of an entry of the table, its batch in rows.
fn of_table(known: &KnownLayout) -> Config {
    let mut config = resolve(Some(&known.preset), &[]).unwrap();
    config.train.batch_size = BatchSize::Rows(known.rows);
    config
}

#[test]
fn the_table_of_layouts_has_each_preset_and_slice_once() {
    let mut seen = std::collections::BTreeSet::new();
    for known in &Layouts::known().layouts {
        let place = (&known.preset, &known.slice);
        assert!(seen.insert(place), "{place:?} twice");
        let slice: crate::mesh::slice::Slice = known.slice.parse().unwrap();
        let mut config = of_table(known);
        let used = config.use_fastest_layout(&known.slice);
        assert_eq!(used, Some(known), "{place:?}");
        config.validate().unwrap();
        let mesh = crate::programs::sharding::mesh_shape(&config, slice.devices()).unwrap();
        crate::programs::sharding::logical_axis_rules(&config, mesh).unwrap();
    }
}

#[test]
fn the_fastest_layout_is_used_where_none_is_chosen() {
    let known = Layouts::known().layouts.iter();
    let known = known
        .filter(|known| known.preset == "ankh-large" && known.slice.starts_with("v4-"))
        .collect::<Vec<_>>();
    let [one, other] = [known[0], known[1]];
    let preset = of_table(one);
    let mut config = preset.clone();
    config.use_fastest_layout(&one.slice).unwrap();
    assert_eq!(Layout::of(&config), one.layout);
    // A run that goes on elsewhere takes the fastest there.
    config.use_fastest_layout(&other.slice).unwrap();
    assert_eq!(Layout::of(&config), other.layout);
    // Successors have the same sizes.
    let mut successor = resolve(Some("ankh2-large"), &[]).unwrap();
    assert!(successor.use_fastest_layout(&one.slice).is_some());

    let changed: [fn(&mut Config); 6] = [
        |config| config.sharding.fsdp = 3,
        |config| config.sharding.data = 1,
        |config| config.model.encoder_layers += 1,
        |config| config.data.input_length = 1024,
        |config| config.train.batch_size = BatchSize::Rows(1),
        |config| config.optimizer = Optimizer::Adamw(AdamW::default()),
    ];
    for (number, change) in changed.into_iter().enumerate() {
        let mut config = preset.clone();
        change(&mut config);
        let before = config.clone();
        let used = config.use_fastest_layout(&one.slice);
        assert!(used.is_none() && config == before, "change {number}");
    }
    assert!(preset.clone().use_fastest_layout("cpu-8").is_none());
    for argument in [
        "sharding.fsdp=1",
        " train.remat =full",
        "sharding.rules.mlp=[]",
    ] {
        assert!(Layout::is_set_by(argument), "{argument}");
    }
    for argument in ["train.steps=3", "sharding", "train.rematx=1"] {
        assert!(!Layout::is_set_by(argument), "{argument}");
    }
}
