//! What the two versions of transformers say of the output projection.

use super::*;

type Tensors = Vec<(String, Vec<usize>, Vec<u8>)>;

/// A directory of the tiny untied model whose config.json says `said` in place of what it says of
/// the output projection.
fn saying(said: Value, change: impl FnOnce(&mut Tensors)) -> tempfile::TempDir {
    let root = changed(change);
    let path = root.path().join("config.json");
    let mut config: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let keys = config.as_object_mut().unwrap();
    keys.remove("tie_word_embeddings");
    keys.remove("scale_decoder_outputs");
    keys.extend(said.as_object().unwrap().clone());
    fs::write(path, config.to_string()).unwrap();
    root
}

fn without_head(tensors: &mut Tensors) {
    tensors.retain(|(name, ..)| name != "lm_head.weight");
}

fn head_is_shared(tensors: &mut Tensors) {
    without_head(tensors);
    let shared = tensors.iter().find(|(name, ..)| name == "shared.weight");
    let (_, shape, bytes) = shared.unwrap().clone();
    tensors.push(("lm_head.weight".to_owned(), shape, bytes));
}

/// What comes out when `directory` is imported to a checkpoint and exported again.
fn exported(directory: &Path) -> (tempfile::TempDir, Value) {
    let root = tempfile::tempdir().unwrap();
    let [checkpoint, exported] = ["checkpoint", "exported"].map(|name| root.path().join(name));
    import_to_checkpoint(directory, &checkpoint).unwrap();
    export_checkpoint(&checkpoint, &exported).unwrap();
    let text = fs::read_to_string(exported.join("config.json")).unwrap();
    (root, serde_json::from_str(&text).unwrap())
}

#[test]
fn a_head_that_differs_from_the_embeddings_is_a_head() {
    let said = json!({ "tie_word_embeddings": true, "scale_decoder_outputs": false });
    let directory = saying(said, |_| {});
    let imported = import(directory.path()).unwrap();
    assert_eq!(imported, weights(tiny()));

    // Both versions read what is written for it.
    let (root, config) = exported(directory.path());
    assert_eq!(config["tie_word_embeddings"], false);
    assert_eq!(config["scale_decoder_outputs"], false);
    let again = root.path().join("exported");
    assert_same_files(directory.path(), &again, &["model.safetensors"]);
    assert_eq!(import(&again).unwrap(), imported);
}

#[test]
fn a_model_without_head_is_scaled_only_where_config_json_asks_for_it() {
    for (said, tie) in [
        (json!({}), TieEmbeddings::Scaled),
        (
            json!({ "tie_word_embeddings": true }),
            TieEmbeddings::Scaled,
        ),
        (
            json!({ "tie_word_embeddings": true, "scale_decoder_outputs": true }),
            TieEmbeddings::Scaled,
        ),
        (
            json!({ "tie_word_embeddings": true, "scale_decoder_outputs": false }),
            TieEmbeddings::Unscaled,
        ),
        (
            json!({ "scale_decoder_outputs": false }),
            TieEmbeddings::Unscaled,
        ),
    ] {
        for change in [without_head, head_is_shared] {
            let directory = saying(said.clone(), change);
            let imported = import(directory.path()).unwrap();
            assert_eq!(imported.model.tie_embeddings, tie, "{said}");
            assert!(imported.tensors.iter().all(|(name, _)| name != "lm_head"));

            let (root, config) = exported(directory.path());
            let again = root.path().join("exported");
            assert_eq!(import(&again).unwrap(), imported, "{said}");
            if tie == TieEmbeddings::Unscaled {
                // To version 4 this is a head of its own, which it does not scale.
                assert_eq!(config["tie_word_embeddings"], false);
                let stored = Directory::open(&again).unwrap().origin.embedding_names;
                assert!(stored.contains(&"lm_head.weight".to_owned()), "{stored:?}");
            }
        }
    }
}

#[test]
fn a_head_behind_scaled_states_takes_the_factor() {
    for said in [
        json!({}),
        json!({ "tie_word_embeddings": true }),
        json!({ "tie_word_embeddings": true, "scale_decoder_outputs": true }),
        json!({ "tie_word_embeddings": false, "scale_decoder_outputs": true }),
    ] {
        let directory = saying(said.clone(), |_| {});
        let imported = import(directory.path()).unwrap();
        assert_eq!(imported.notes, [Note::ScaledHead], "{said}");
        assert_eq!(imported.model, tiny());
        let before = weights(tiny());
        for ((name, found), (_, before)) in imported.tensors.iter().zip(&before.tensors) {
            let factor = if name == "lm_head" {
                8f64.powf(-0.5)
            } else {
                1.0
            };
            for (found, before) in
                (found.to_vec::<f32>().unwrap().iter()).zip(before.to_vec::<f32>().unwrap())
            {
                assert_eq!(*found, (f64::from(before) * factor) as f32, "{name}");
            }
        }
        let (root, config) = exported(directory.path());
        assert_eq!(config["tie_word_embeddings"], false);
        assert_eq!(config["scale_decoder_outputs"], false);
        let again = import(&root.path().join("exported")).unwrap();
        assert_eq!(again.tensors, imported.tensors);
        assert_eq!(again.notes, []);
    }
}

#[test]
fn a_head_of_version_4_that_starts_as_a_copy_stays_a_head() {
    let directory = saying(json!({ "tie_word_embeddings": false }), head_is_shared);
    let imported = import(directory.path()).unwrap();
    assert_eq!(imported.model, tiny());
    let (root, _) = exported(directory.path());
    let again = root.path().join("exported");
    assert_same_files(
        directory.path(),
        &again,
        &["config.json", "model.safetensors"],
    );

    for said in [
        json!({ "tie_word_embeddings": false }),
        json!({ "tie_word_embeddings": false, "scale_decoder_outputs": false }),
    ] {
        let headless = saying(said, without_head);
        let error = import(headless.path()).unwrap_err().to_string();
        assert!(error.contains("missing: lm_head.weight"), "{error}");
    }
}

#[test]
fn a_value_that_the_versions_read_otherwise_is_refused_by_key() {
    for key in ["tie_word_embeddings", "scale_decoder_outputs"] {
        for value in [json!(null), json!(0), json!(1), json!("false")] {
            let directory = saying(json!({ key: value }), |_| {});
            let error = import(directory.path()).unwrap_err().to_string();
            assert!(
                error.contains(&format!("config.json: `{key}`: ")),
                "{error}"
            );
            assert!(error.contains("expected a boolean"), "{error}");
        }
    }
}

#[test]
fn the_start_of_decoding_may_stand_in_the_generation_config() {
    let directory = changed(|_| {});
    let config = directory.path().join("config.json");
    let mut text: Value = serde_json::from_str(&fs::read_to_string(&config).unwrap()).unwrap();
    text.as_object_mut()
        .unwrap()
        .remove("decoder_start_token_id");
    // Version 5 may also list the ids that end a sequence.
    text["eos_token_id"] = json!([1]);
    fs::write(&config, text.to_string()).unwrap();
    let generation = directory.path().join("generation_config.json");
    for (text, fits) in [
        (r#"{"decoder_start_token_id": 0}"#, true),
        (r#"{"decoder_start_token_id": null}"#, true),
        ("{}", true),
        (r#"{"decoder_start_token_id": 2}"#, false),
        ("<html>", false),
    ] {
        fs::write(&generation, text).unwrap();
        match import(directory.path()) {
            Ok(_) => assert!(fits, "{text}"),
            Err(error) => {
                let error = error.to_string();
                assert!(!fits && error.contains("generation_config.json"), "{error}");
            }
        }
    }
}
