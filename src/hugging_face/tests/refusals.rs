use super::*;

#[test]
fn a_checkpoint_that_is_not_its_models_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path());
    let Weights { tensors, .. } = weights(tiny());
    let other = Model { d_ff: 16, ..tiny() };
    for (step, metadata, message) in [
        (1, json!({}), "no `config`"),
        (2, json!({ "config": {} }), "no `model`"),
        (
            3,
            json!({ "config": { "model": { "width": 3 } } }),
            "`model`: unknown field `width`",
        ),
        (
            4,
            json!({ "config": { "model": other } }),
            "encoder.layers.mlp.wo: expected [3, 16, 8], found [3, 12, 8]",
        ),
    ] {
        store.save(step, &metadata, tensors.clone()).unwrap();
        let error = load(store.directory_of(step)).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
        let exported = root.path().join("exported");
        assert!(export_checkpoint(store.directory_of(step), &exported).is_err());
        assert!(!exported.exists());
    }
}

#[test]
fn every_tensor_that_does_not_fit_is_named_at_once() {
    let directory = changed(|tensors| {
        tensors.retain(|(name, ..)| {
            !["lm_head.weight", "decoder.final_layer_norm.weight"].contains(&name.as_str())
        });
        tensors.push((
            "encoder.block.7.layer.0.layer_norm.weight".into(),
            vec![8],
            vec![0; 32],
        ));
        let q = tensors
            .iter_mut()
            .find(|(name, ..)| name == "encoder.block.1.layer.0.SelfAttention.q.weight")
            .unwrap();
        q.1 = vec![8, 6];
    });
    let Err(Error::Mismatch(mismatch)) = import(directory.path()) else {
        panic!("accepted")
    };
    assert_eq!(
        mismatch.missing,
        ["decoder.final_layer_norm.weight", "lm_head.weight"]
    );
    assert_eq!(
        mismatch.unexpected,
        ["encoder.block.7.layer.0.layer_norm.weight"]
    );
    assert_eq!(mismatch.different.len(), 1);
    let message = mismatch.to_string();
    for part in [
        "encoder.block.1.layer.0.SelfAttention.q.weight",
        "[6, 8]",
        "[8, 6]",
        "lm_head.weight",
        "block.7",
    ] {
        assert!(message.contains(part), "{part} in {message}");
    }
}

#[test]
fn a_weights_file_cut_anywhere_is_refused() {
    let directory = changed(|_| {});
    let path = directory.path().join("model.safetensors");
    let contents = fs::read(&path).unwrap();
    for length in [0, 7, 8, 100, contents.len() / 2, contents.len() - 1] {
        fs::write(&path, &contents[..length]).unwrap();
        let error = import(directory.path()).unwrap_err().to_string();
        assert!(error.contains("model.safetensors"), "{error}");
    }
    fs::write(&path, "<!DOCTYPE html><html>not found</html>").unwrap();
    assert!(
        import(directory.path())
            .unwrap_err()
            .to_string()
            .contains("expected a safetensors file, found an HTML page")
    );
}

#[test]
fn directories_without_readable_weights_say_what_to_do() {
    let root = tempfile::tempdir().unwrap();
    assert!(matches!(import(root.path()), Err(Error::NoConfig(_))));
    assert!(matches!(load(root.path()), Err(Error::NoWeights(_))));
    fs::write(
        root.path().join("config.json"),
        config_json::render(&tiny()),
    )
    .unwrap();
    assert!(matches!(import(root.path()), Err(Error::NoWeights(_))));
    fs::write(root.path().join("flax_model.msgpack"), "").unwrap();
    // Version 5 cannot.
    let error = import(root.path()).unwrap_err();
    let Error::OtherFormat {
        installed, hint, ..
    } = error
    else {
        panic!("{error}")
    };
    assert_eq!(installed, "transformers 4, torch and flax");
    assert_eq!(hint, ", from_flax=True");
}

#[test]
fn an_export_does_not_overwrite() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("model");
    export(&weights(tiny()), &directory).unwrap();
    let error = export(&weights(tiny()), &directory).unwrap_err();
    assert!(
        matches!(error, Error::Checkpoint(checkpoint::Error::Occupied(_))),
        "{error}"
    );
    assert_eq!(
        fs::read_dir(root.path()).unwrap().count(),
        1,
        "nothing else is left"
    );
}

#[test]
fn settings_the_model_cannot_follow_are_refused_by_key() {
    let mut config: Value = serde_json::from_str(&config_json::render(&tiny())).unwrap();
    for (key, value) in [
        ("model_type", json!("bert")),
        ("is_encoder_decoder", json!(false)),
        ("pad_token_id", json!(3)),
        ("eos_token_id", json!(null)),
        ("decoder_start_token_id", json!(1)),
        ("feed_forward_proj", json!("gated-relu")),
        ("feed_forward_proj", json!("gelu")),
    ] {
        let before = std::mem::replace(&mut config[key], value);
        let error = config_json::parse(&config.to_string(), Path::new("config.json")).unwrap_err();
        assert!(
            matches!(&error, Error::Setting { key: named, .. } if *named == key),
            "{error}"
        );
        config[key] = before;
    }
    let error = config_json::parse("{", Path::new("config.json")).unwrap_err();
    assert!(matches!(error, Error::Malformed { .. }));
}
