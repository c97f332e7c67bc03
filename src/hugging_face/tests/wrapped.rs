//! Names that wrappers changed, and tensors that transformers leaves out.

use super::*;

#[test]
fn a_wrapper_around_all_names_comes_off() {
    for prefix in [
        "module.",
        "model.",
        "_orig_mod.",
        "_orig_mod.module.",
        "a.b.",
    ] {
        let directory = changed(|tensors| {
            for (name, ..) in tensors {
                *name = format!("{prefix}{name}");
            }
        });
        let imported = import(directory.path()).unwrap();
        assert_eq!(imported.tensors, weights(tiny()).tensors, "{prefix}");
        let [note] = &imported.notes[..] else {
            panic!("{:?}", imported.notes)
        };
        assert!(note.to_string().contains(&format!("`{prefix}")), "{note}");

        // transformers knows the bare names only.
        let root = tempfile::tempdir().unwrap();
        let [checkpoint, exported] = ["checkpoint", "exported"].map(|name| root.path().join(name));
        import_to_checkpoint(directory.path(), &checkpoint).unwrap();
        export_checkpoint(&checkpoint, &exported).unwrap();
        assert_same_files(
            changed(|_| {}).path(),
            &exported,
            &["config.json", "model.safetensors"],
        );
    }
}

#[test]
fn a_wrapper_around_some_names_is_named_in_a_short_message() {
    let directory = changed(|tensors| {
        for (name, ..) in tensors.iter_mut().skip(1) {
            *name = format!("model.{name}");
        }
    });
    let error = import(directory.path()).unwrap_err();
    let Error::Mismatch(mismatch) = &error else {
        panic!("{error}")
    };
    assert_eq!(mismatch.missing.len(), 6 + 3 * 9 + 2 * 14 - 1);
    assert_eq!(mismatch.missing.len(), mismatch.unexpected.len());
    let message = error.to_string();
    assert!(
        message.contains("`model.` stands before 60 names that are missing"),
        "{message}"
    );
    assert!(message.contains("and 56 more"), "{message}");
    assert!(message.len() < 1000, "{} bytes: {message}", message.len());
}

#[test]
fn a_message_about_many_shapes_is_short() {
    let directory = changed(|_| {});
    let path = directory.path().join("config.json");
    let wide = fs::read_to_string(&path)
        .unwrap()
        .replace("\"d_model\": 8", "\"d_model\": 16");
    fs::write(&path, wide).unwrap();
    let message = import(directory.path()).unwrap_err().to_string();
    assert!(
        message.contains("expected F32 (or BF16, F16) [144, 16], found F32 [144, 8]"),
        "{message}"
    );
    assert!(message.contains("and 55 more"), "{message}");
    assert!(message.len() < 1000, "{} bytes: {message}", message.len());
}

#[test]
fn the_bias_of_cross_attention_that_transformers_leaves_out_is_left_out() {
    let unused = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight";
    for prefix in ["", "module."] {
        let directory = changed(|tensors| {
            tensors.push((unused.to_owned(), vec![4, 2], vec![0; 32]));
            for (name, ..) in tensors {
                *name = format!("{prefix}{name}");
            }
        });
        let imported = import(directory.path()).unwrap();
        assert_eq!(imported.tensors, weights(tiny()).tensors);
        let ignored = Note::Ignored {
            name: unused.to_owned(),
        };
        assert!(imported.notes.contains(&ignored), "{:?}", imported.notes);
    }
    // Of another layer it is as unexpected as ever.
    let other = unused.replace("decoder.block.0", "decoder.block.1");
    let directory = changed(|tensors| tensors.push((other.clone(), vec![4, 2], vec![0; 32])));
    assert!(
        matches!(import(directory.path()), Err(Error::Mismatch(mismatch)) if mismatch.unexpected == [other])
    );
}
