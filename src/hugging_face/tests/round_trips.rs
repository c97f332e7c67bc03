use super::*;

/// Small models as `safetensors` in Python wrote them.
fn goldens() -> Vec<PathBuf> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let cases = fs::read_dir(&golden)
        .unwrap()
        .map(|entry| entry.unwrap().path().join("hf"));
    // Where the two versions of transformers mean the same.
    let directories = ["4-untied", "4-tied", "5-tied"];
    let directories = directories.map(|name| golden.join("directories").join(name).join("hf"));
    cases
        .filter(|directory| directory.is_dir())
        .chain(directories)
        .collect()
}

#[test]
fn importing_then_exporting_a_directory_python_wrote_gives_its_bytes_back() {
    let goldens = goldens();
    assert!(goldens.len() >= 4, "{goldens:?}");
    for golden in goldens {
        let root = tempfile::tempdir().unwrap();
        let [checkpoint, exported] = ["checkpoint", "exported"].map(|name| root.path().join(name));
        import_to_checkpoint(&golden, &checkpoint).unwrap();
        export_checkpoint(&checkpoint, &exported).unwrap();
        assert_same_files(&golden, &exported, &["config.json", "model.safetensors"]);
        // The two ways in agree.
        assert_eq!(load(&golden).unwrap(), load(&checkpoint).unwrap());
    }
}

#[test]
fn importing_then_exporting_our_own_directory_gives_its_bytes_back() {
    let root = tempfile::tempdir().unwrap();
    let [first, checkpoint, second] =
        ["first", "checkpoint", "second"].map(|name| root.path().join(name));
    let files = export(&weights(tiny()), &first).unwrap();
    assert_eq!(files.len(), 6);
    import_to_checkpoint(&first, &checkpoint).unwrap();
    assert_eq!(export_checkpoint(&checkpoint, &second).unwrap(), files);
    assert_same_files(
        &first,
        &second,
        &files.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    assert_eq!(fs::read_dir(&second).unwrap().count(), files.len());
}

#[test]
fn stacked_matrices_are_the_transposes_of_theirs_layer_by_layer() {
    let weights = weights(tiny());
    let theirs = to_hugging_face(&weights.model, &weights.tensors).unwrap();
    for (ours, their_name, rows, columns) in [
        (
            "encoder.layers.attention.q",
            "encoder.block.#.layer.0.SelfAttention.q.weight",
            8,
            6,
        ),
        (
            "decoder.layers.cross.o",
            "decoder.block.#.layer.1.EncDecAttention.o.weight",
            6,
            8,
        ),
        (
            "decoder.layers.mlp.wi_1",
            "decoder.block.#.layer.2.DenseReluDense.wi_1.weight",
            8,
            12,
        ),
    ] {
        let stacked = tensor(&weights.tensors, ours).to_vec::<f32>().unwrap();
        for layer in 0..2 {
            let single = tensor(&theirs, &their_name.replace('#', &layer.to_string()));
            assert_eq!(single.dims, [columns as i64, rows as i64]);
            let single = single.to_vec::<f32>().unwrap();
            for row in 0..rows {
                for column in 0..columns {
                    assert_eq!(
                        single[column * rows + row],
                        stacked[(layer * rows + row) * columns + column]
                    );
                }
            }
        }
    }
    // Tables are not transposed, the output projection is.
    let same = |ours: &str, name: &str| {
        tensor(&weights.tensors, ours).bytes == tensor(&theirs, name).bytes
    };
    assert!(same("shared", "shared.weight"));
    assert!(same(
        "encoder.relative_bias",
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    ));
    assert_eq!(tensor(&theirs, "lm_head.weight").dims, [144, 8]);
    assert!(!same("lm_head", "lm_head.weight"));
    assert_eq!(theirs.len(), 6 + 3 * 9 + 2 * 14, "one tensor each");
}

#[test]
fn a_training_checkpoint_is_exported_without_its_optimizer() {
    let root = tempfile::tempdir().unwrap();
    let run = root.path().join("run");
    let weights = Weights {
        model: Model {
            initialization: Initialization::Pytorch,
            ..tiny()
        },
        ..weights(tiny())
    };
    let mut tensors = weights.tensors.clone();
    tensors.push((
        "v_row/encoder.layers.mlp.wo".into(),
        HostTensor::new::<f32>([2], &[1.0, 2.0]),
    ));
    tensors.push(("step".into(), HostTensor::scalar(20i32)));
    let config = json!({ "model": weights.model, "data": { "tokenizer": "ankh" }, "train": { "steps": 20 } });
    let store = Store::open(run.join("checkpoints"));
    store
        .save(20, &json!({ "config": config }), tensors)
        .unwrap();

    let exported = root.path().join("exported");
    export_checkpoint(&run, &exported).unwrap();
    let imported = import(&exported).unwrap();
    assert_eq!(imported.tensors, weights.tensors);
    assert_eq!(imported.model, tiny());
    assert_eq!(load(&run).unwrap(), weights);
    assert_eq!(load(store.directory_of(20)).unwrap(), weights);
}

#[test]
fn half_precision_weights_are_read_as_float32() {
    let directory = changed(|_| {});
    let exact = import(directory.path()).unwrap();
    let path = directory.path().join("model.safetensors");
    let theirs = to_hugging_face(&exact.model, &exact.tensors).unwrap();
    let narrowed: Vec<_> = theirs
        .iter()
        .map(|(name, t)| {
            let halves = t
                .bytes
                .as_chunks::<4>()
                .0
                .iter()
                .flat_map(|&[_, _, low, high]| [low, high])
                .collect();
            (
                name.clone(),
                t.dims.iter().map(|&d| d as usize).collect(),
                halves,
            )
        })
        .collect();
    write_safetensors(&path, Dtype::BF16, &narrowed);
    for ((name, exact), (_, read)) in exact
        .tensors
        .iter()
        .zip(&import(directory.path()).unwrap().tensors)
    {
        for (exact, read) in exact
            .to_vec::<f32>()
            .unwrap()
            .iter()
            .zip(read.to_vec::<f32>().unwrap())
        {
            assert_eq!(exact.to_bits() & 0xffff_0000, read.to_bits(), "{name}");
        }
    }
    // A type that float32 cannot hold is not.
    let wide: Vec<_> = narrowed
        .into_iter()
        .map(|(name, shape, halves)| (name, shape, halves.repeat(4)))
        .collect();
    write_safetensors(&path, Dtype::F64, &wide);
    assert!(
        matches!(import(directory.path()), Err(Error::Mismatch(mismatch)) if mismatch.different.len() == wide.len())
    );
}

#[test]
fn tied_copies_of_the_embedding_come_back_where_they_were() {
    let copy = |tensors: &mut Vec<(String, Vec<usize>, Vec<u8>)>, name: &str| {
        let shared = tensors
            .iter()
            .find(|(name, ..)| name == "shared.weight")
            .unwrap()
            .clone();
        tensors.push((name.into(), shared.1, shared.2));
    };
    let both = changed(|tensors| {
        copy(tensors, "encoder.embed_tokens.weight");
        copy(tensors, "decoder.embed_tokens.weight");
    });
    let only_a_copy = changed(|tensors| {
        copy(tensors, "encoder.embed_tokens.weight");
        tensors.retain(|(name, ..)| name != "shared.weight");
    });
    for directory in [both, only_a_copy] {
        assert_eq!(
            import(directory.path()).unwrap().tensors,
            weights(tiny()).tensors
        );
        let root = tempfile::tempdir().unwrap();
        let [checkpoint, exported] = ["checkpoint", "exported"].map(|name| root.path().join(name));
        import_to_checkpoint(directory.path(), &checkpoint).unwrap();
        export_checkpoint(&checkpoint, &exported).unwrap();
        assert_same_files(
            directory.path(),
            &exported,
            &["config.json", "model.safetensors"],
        );
    }
    let differing = changed(|tensors| {
        copy(tensors, "decoder.embed_tokens.weight");
        tensors.last_mut().unwrap().2[5] ^= 1;
    });
    assert!(
        matches!(import(differing.path()), Err(Error::Untied { copy, .. }) if copy == "decoder.embed_tokens.weight")
    );
}

#[test]
fn sharded_weights_are_read_through_their_index() {
    let directory = changed(|_| {});
    let whole = import(directory.path()).unwrap();
    let theirs = to_hugging_face(&whole.model, &whole.tensors).unwrap();
    fs::remove_file(directory.path().join("model.safetensors")).unwrap();
    let mut map = serde_json::Map::new();
    for (i, part) in theirs.chunks(theirs.len().div_ceil(3)).enumerate() {
        let file = format!("model-{:05}-of-00003.safetensors", i + 1);
        let tensors: Vec<_> = part
            .iter()
            .map(|(name, t)| {
                (
                    name.clone(),
                    t.dims.iter().map(|&d| d as usize).collect(),
                    t.bytes.clone(),
                )
            })
            .collect();
        write_safetensors(&directory.path().join(&file), Dtype::F32, &tensors);
        map.extend(
            part.iter()
                .map(|(name, _)| (name.clone(), file.clone().into())),
        );
    }
    let index = directory.path().join("model.safetensors.index.json");
    fs::write(
        &index,
        json!({ "metadata": { "total_size": 0 }, "weight_map": map }).to_string(),
    )
    .unwrap();
    assert_eq!(import(directory.path()).unwrap(), whole);

    map["shared.weight"] = "model-00003-of-00003.safetensors".into();
    fs::write(&index, json!({ "weight_map": map }).to_string()).unwrap();
    let error = import(directory.path()).unwrap_err().to_string();
    assert!(error.contains("shared.weight"), "{error}");
    map["shared.weight"] = "../secret.safetensors".into();
    fs::write(&index, json!({ "weight_map": map }).to_string()).unwrap();
    assert!(
        import(directory.path())
            .unwrap_err()
            .to_string()
            .contains("not a file name")
    );
}

#[test]
fn keys_that_transformers_leaves_out_have_its_defaults() {
    let described =
        config_json::parse(r#"{ "model_type": "t5" }"#, Path::new("config.json")).unwrap();
    let model = described.model(described.said.head(Stored::Nothing).tie());
    let expected = Model {
        vocabulary: 32128,
        d_model: 512,
        d_ff: 2048,
        heads: 8,
        d_kv: 64,
        encoder_layers: 6,
        decoder_layers: 6,
        relative_buckets: 32,
        relative_max_distance: 128,
        activation: Activation::Relu,
        tie_embeddings: TieEmbeddings::Scaled,
        norm_epsilon: 1e-6,
        initialization: Initialization::Flax,
    };
    assert_eq!(model, expected);
    let gated =
        r#"{ "model_type": "t5", "feed_forward_proj": "gated-gelu", "dense_act_fn": "silu" }"#;
    assert_eq!(
        config_json::parse(gated, Path::new("c"))
            .unwrap()
            .model(TieEmbeddings::Untied)
            .activation,
        Activation::GatedSilu
    );
}

#[test]
fn a_vocabulary_without_known_tokenizer_is_exported_without_tokenizer_files() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("model");
    let files = export(
        &weights(Model {
            vocabulary: 150,
            ..tiny()
        }),
        &directory,
    )
    .unwrap();
    assert_eq!(
        files,
        ["config.json", "generation_config.json", "model.safetensors"]
    );
    let ankh3 = weights(Model {
        vocabulary: 256,
        ..tiny()
    });
    assert_eq!(ankh3.tokenizer, Some(Vocabulary::Ankh3));
    assert!(
        export(&ankh3, &root.path().join("ankh3"))
            .unwrap()
            .contains(&"tokenizer.json".to_owned())
    );
}

#[test]
fn the_tokenizer_file_has_every_id_once() {
    for vocabulary in [Vocabulary::Ankh, Vocabulary::Ankh3] {
        let [(_, text), ..] = tokenizer_files::render(vocabulary);
        let json: Value = serde_json::from_str(&text).unwrap();
        let tokenizer = ankh_data::tokenizer::Tokenizer::of(vocabulary);
        let vocab = json["model"]["vocab"].as_object().unwrap();
        for letter in 'A'..='Z' {
            let id = tokenizer.residue_id(letter as u8).map(u64::from);
            assert_eq!(
                vocab.get(&letter.to_string()).and_then(Value::as_u64),
                id,
                "{letter}"
            );
        }
        let mut ids: Vec<u64> = vocab.values().map(|id| id.as_u64().unwrap()).collect();
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count);
        if vocabulary == Vocabulary::Ankh {
            assert_eq!(ids, (0..144).collect::<Vec<_>>());
        }
        assert_eq!(vocab["<extra_id_0>"], tokenizer.sentinel(0).unwrap());
        assert_eq!(
            count - tokenizer.residues(),
            json["added_tokens"].as_array().unwrap().len()
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_model_comes_back_from_a_directory_and_a_checkpoint(model in models()) {
        let root = tempfile::tempdir().unwrap();
        let [directory, checkpoint, again] = ["a", "b", "c"].map(|name| root.path().join(name));
        let weights = weights(model);
        let files = export(&weights, &directory).unwrap();
        prop_assert_eq!(&import(&directory).unwrap().tensors, &weights.tensors);
        import_to_checkpoint(&directory, &checkpoint).unwrap();
        export_checkpoint(&checkpoint, &again).unwrap();
        assert_same_files(&directory, &again, &files.iter().map(String::as_str).collect::<Vec<_>>());

        let theirs = to_hugging_face(&weights.model, &weights.tensors).unwrap();
        prop_assert_eq!(&from_hugging_face(&weights.model, &theirs).unwrap(), &weights.tensors);
        prop_assert_eq!(weights.tensors.iter().map(|(_, t)| t.bytes.len() as u64 / 4).sum::<u64>(), weights.model.parameters());
    }

    #[test]
    fn any_model_comes_back_from_its_config_json(model in models()) {
        let described = config_json::parse(&config_json::render(&model), Path::new("config.json")).unwrap();
        let stored = match model.tie_embeddings {
            TieEmbeddings::Untied => Stored::Other,
            TieEmbeddings::Scaled => Stored::Nothing,
            TieEmbeddings::Unscaled => Stored::Copy,
        };
        prop_assert_eq!(described.model(described.said.head(stored).tie()), model);
    }
}
