//! Files that are not what their names say.

use super::*;

const POINTER: &str = "version https://git-lfs.github.com/spec/v1\n\
    oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 2949838792\n";

/// What import says of the tiny directory with `contents` as its `file`.
fn said_of(file: &str, contents: &[u8]) -> String {
    let directory = changed(|_| {});
    fs::write(directory.path().join(file), contents).unwrap();
    let message = import(directory.path()).unwrap_err().to_string();
    assert!(message.contains(file), "{message}");
    assert!(message.len() < 500, "{message}");
    message
}

#[test]
fn a_git_lfs_pointer_is_called_one() {
    for file in ["model.safetensors", "config.json"] {
        let message = said_of(file, POINTER.as_bytes());
        assert!(
            message.contains("a Git LFS pointer to the file of 2949838792 bytes"),
            "{message}"
        );
        assert!(message.contains("git lfs pull"), "{message}");
    }
    // A file of several, and their index.
    let directory = changed(|_| {});
    fs::remove_file(directory.path().join("model.safetensors")).unwrap();
    let index = directory.path().join("model.safetensors.index.json");
    fs::write(&index, POINTER).unwrap();
    let message = import(directory.path()).unwrap_err().to_string();
    assert!(
        message.contains("index.json: expected JSON, found a Git LFS pointer"),
        "{message}"
    );
    let map = json!({ "weight_map": { "shared.weight": "model-1.safetensors" } });
    fs::write(&index, map.to_string()).unwrap();
    fs::write(directory.path().join("model-1.safetensors"), POINTER).unwrap();
    let message = import(directory.path()).unwrap_err().to_string();
    assert!(
        message.contains("model-1.safetensors: expected a safetensors file, found a Git LFS"),
        "{message}"
    );
}

#[test]
fn tokenizer_files_may_be_pointers() {
    let directory = changed(|_| {});
    for name in [
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "spiece.model",
    ] {
        fs::write(directory.path().join(name), POINTER).unwrap();
    }
    assert_eq!(import(directory.path()).unwrap(), weights(tiny()));
}

#[test]
fn what_a_server_sent_in_place_of_a_file_is_named() {
    for file in ["model.safetensors", "config.json"] {
        let page = said_of(
            file,
            b"<!DOCTYPE html>\n<html><title>Sign in</title></html>",
        );
        assert!(page.contains("an HTML page"), "{page}");
        let text = said_of(file, b"Entry not found");
        assert!(
            text.contains("text that begins `Entry not found`"),
            "{text}"
        );
        assert!(said_of(file, b"").contains("an empty file"));
        assert!(said_of(file, &[0; 5000]).contains("zeros"));
    }
    let refusal = br#"{"error":"Access to this model is restricted"}"#;
    let message = said_of("model.safetensors", refusal);
    assert!(message.contains("begins `{\"error\":\"Access"), "{message}");
    let message = said_of("config.json", refusal);
    assert!(
        message.contains("`model_type` is not there, expected `t5`"),
        "{message}"
    );
}

#[test]
fn weights_of_pytorch_under_another_name_are_recognised() {
    for start in [
        &b"PK\x03\x04\0\0\x08\x08\0\0\0\0\0\0\0\0archive/data.pkl"[..],
        b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.",
    ] {
        let message = said_of("model.safetensors", start);
        assert!(message.contains("as PyTorch saves weights"), "{message}");
        assert!(message.contains("pytorch_model.bin"), "{message}");
    }
}

#[test]
fn an_unfinished_download_is_called_cut_short_with_both_lengths() {
    let directory = changed(|_| {});
    let whole = fs::read(directory.path().join("model.safetensors")).unwrap();
    let header = u64::from_le_bytes(*whole.first_chunk().unwrap()) as usize;
    for length in [9, 600, 8 + header, whole.len() - 1] {
        let message = said_of("model.safetensors", &whole[..length]);
        assert!(message.contains("cut short"), "{message}");
        assert!(message.contains(&length.to_string()), "{message}");
    }
    let longer = [&whole[..], b"\n"].concat();
    let message = said_of("model.safetensors", &longer);
    assert!(message.contains("something was added"), "{message}");
}

#[test]
fn a_header_that_counts_beyond_all_numbers_is_refused() {
    let largest = u64::MAX;
    let header = format!(
        r#"{{"shared.weight":{{"dtype":"U8","shape":[{largest}],"data_offsets":[0,{largest}]}}}}"#
    );
    let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
    said_of("model.safetensors", &file);
}

#[test]
fn sizes_that_no_model_has_are_refused_by_key() {
    for (key, size) in [
        ("d_model", 0u64),
        ("num_layers", 4_000_000_000),
        ("num_layers", 2_000_000_000),
        ("num_decoder_layers", 1_000_000),
        ("num_heads", u64::MAX),
        ("d_kv", 1 << 40),
        ("relative_attention_num_buckets", 0),
    ] {
        let directory = changed(|_| {});
        let path = directory.path().join("config.json");
        let mut config: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        config[key] = size.into();
        fs::write(&path, config.to_string()).unwrap();
        let error = import(directory.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("`{key}` is {size}")), "{error}");
    }
}
