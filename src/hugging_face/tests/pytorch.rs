//! Files of `torch.save`, whole, damaged and hostile. That PyTorch itself writes such files is
//! shown by tests/golden/directories.

use super::*;
use crate::hugging_face::pytorch_file::write::{Entry, archive, pickle};

type Tensor = (String, Vec<usize>, Vec<u8>);

/// How the tensors of a test lie in their storages.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Placing {
    /// Each in one of its own.
    Alone,
    /// All in one, one after the other.
    Together,
    /// Each in one of its own, column by column.
    Transposed,
}

/// The files of an archive with these float32 tensors.
fn files(tensors: &[Tensor], placing: Placing) -> Vec<(String, Vec<u8>)> {
    let mut storages: Vec<Vec<u8>> = Vec::new();
    let mut entries = Vec::new();
    for (name, shape, bytes) in tensors {
        let mut bytes = bytes.clone();
        let mut strides = vec![1; shape.len()];
        for dim in (1..shape.len()).rev() {
            strides[dim - 1] = strides[dim] * shape[dim] as u64;
        }
        if let (Placing::Transposed, &[rows, columns]) = (placing, &shape[..]) {
            let element = |place: usize| &bytes[(place % rows * columns + place / rows) * 4..][..4];
            bytes = (0..rows * columns).flat_map(element).copied().collect();
            strides = vec![1, rows as u64];
        }
        if placing != Placing::Together || storages.is_empty() {
            storages.push(Vec::new());
        }
        let storage = storages.last_mut().unwrap();
        let first = storage.len() as u64 / 4;
        storage.extend(bytes);
        entries.push(Entry {
            name: name.clone(),
            storage: "FloatStorage",
            key: (storages.len() - 1).to_string(),
            elements: 0,
            first,
            shape: shape.iter().map(|&size| size as u64).collect(),
            strides,
        });
    }
    for entry in &mut entries {
        entry.elements = storages[entry.key.parse::<usize>().unwrap()].len() as u64 / 4;
    }
    let mut files = vec![
        ("model/data.pkl".to_owned(), pickle(&entries)),
        ("model/byteorder".to_owned(), b"little".to_vec()),
    ];
    let storages = storages.into_iter().enumerate();
    files.extend(storages.map(|(key, bytes)| (format!("model/data/{key}"), bytes)));
    files.push(("model/version".to_owned(), b"3\n".to_vec()));
    files
}

fn write(path: &Path, files: &[(String, Vec<u8>)]) {
    let files: Vec<(&str, &[u8])> = (files.iter())
        .map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
        .collect();
    archive(path, &files);
}

/// The tiny directory with its weights in `pytorch_model.bin`, whose files were changed.
fn directory(
    placing: Placing,
    change: impl FnOnce(&mut Vec<(String, Vec<u8>)>),
) -> tempfile::TempDir {
    let mut all = Vec::new();
    let root = changed(|tensors| all = tensors.clone());
    fs::remove_file(root.path().join("model.safetensors")).unwrap();
    let mut files = files(&all, placing);
    change(&mut files);
    write(&root.path().join("pytorch_model.bin"), &files);
    root
}

fn refusal(change: impl FnOnce(&mut Vec<(String, Vec<u8>)>)) -> String {
    let directory = directory(Placing::Alone, change);
    let message = import(directory.path()).unwrap_err().to_string();
    assert!(message.contains("pytorch_model.bin"), "{message}");
    assert!(message.len() < 500, "{message}");
    message
}

fn pickled(files: &mut [(String, Vec<u8>)]) -> &mut Vec<u8> {
    &mut files[0].1
}

#[test]
fn tensors_are_read_wherever_they_lie_in_their_storages() {
    for placing in [Placing::Alone, Placing::Together, Placing::Transposed] {
        let directory = directory(placing, |_| {});
        assert!(
            import(directory.path()).unwrap() == weights(tiny()),
            "{placing:?}"
        );
        // And exported as a file that transformers takes.
        let root = tempfile::tempdir().unwrap();
        let [checkpoint, exported] = ["checkpoint", "exported"].map(|name| root.path().join(name));
        import_to_checkpoint(directory.path(), &checkpoint).unwrap();
        export_checkpoint(&checkpoint, &exported).unwrap();
        let file = fs::read(exported.join("model.safetensors")).unwrap();
        let start = String::from_utf8_lossy(&file[8..60]);
        assert!(
            start.contains(r#""__metadata__":{"format":"pt"}"#),
            "{start}"
        );
        assert!(import(&exported).unwrap() == weights(tiny()));
    }
}

#[test]
fn several_files_are_read_by_their_index() {
    let mut all = Vec::new();
    let directory = changed(|tensors| all = tensors.clone());
    let at = |name: &str| directory.path().join(name);
    fs::remove_file(at("model.safetensors")).unwrap();
    let (first, second) = all.split_at(all.len() / 2);
    let mut map = serde_json::Map::new();
    for (file, tensors) in [("a.bin", first), ("b.bin", second)] {
        write(&at(file), &files(tensors, Placing::Alone));
        map.extend(tensors.iter().map(|(name, ..)| (name.clone(), json!(file))));
    }
    let index = at("pytorch_model.bin.index.json");
    fs::write(&index, json!({ "weight_map": map }).to_string()).unwrap();
    assert!(import(directory.path()).unwrap() == weights(tiny()));
    fs::remove_file(at("b.bin")).unwrap();
    let message = import(directory.path()).unwrap_err().to_string();
    assert!(message.contains("b.bin"), "{message}");
}

#[test]
fn what_pytorch_would_execute_is_named_and_not_executed() {
    let message = refusal(|files| {
        *pickled(files) = b"\x80\x02cos\nsystem\nX\x06\0\0\0touch x\x85R.".to_vec();
    });
    assert!(message.contains("`os.system`"), "{message}");
    assert!(message.contains("nothing of it is executed"), "{message}");
}

#[test]
fn sizes_that_are_not_those_of_the_storages_are_refused() {
    let elements = |files: &mut Vec<(String, Vec<u8>)>, change: fn(&mut Vec<u8>)| {
        let storage = files.iter_mut().find(|(name, _)| name.ends_with("data/0"));
        change(&mut storage.unwrap().1);
    };
    let message = refusal(|files| elements(files, |bytes| bytes.truncate(bytes.len() - 4)));
    assert!(message.contains("in a storage of"), "{message}");
    let message = refusal(|files| elements(files, |bytes| bytes.extend([0; 4])));
    assert!(message.contains("in a storage of"), "{message}");
    let message = refusal(|files| files.retain(|(name, _)| !name.ends_with("data/3")));
    assert!(message.contains("storage of `"), "{message}");

    let entry = |first, shape: &[u64], strides: &[u64]| {
        let entry = Entry {
            name: "shared.weight".into(),
            storage: "FloatStorage",
            key: "0".into(),
            elements: 4,
            first,
            shape: shape.to_vec(),
            strides: strides.to_vec(),
        };
        refusal(|files| {
            *files = vec![
                ("m/data.pkl".into(), pickle(&[entry])),
                ("m/data/0".into(), vec![0; 16]),
            ]
        })
    };
    for (first, shape, strides) in [
        (1, &[2, 2][..], &[2, 1][..]),
        (0, &[2, 2], &[3, 1]),
        (4, &[1], &[1]),
        (0, &[2, 2], &[1]),
        // Of few bytes in the file, much memory.
        (0, &[1 << 40], &[0]),
        (0, &[1 << 40, 1 << 40], &[0, 0]),
        (0, &[2], &[u64::MAX >> 1]),
        (u64::MAX >> 1, &[2], &[u64::MAX >> 1]),
    ] {
        let message = entry(first, shape, strides);
        assert!(
            message.contains("do not lie in a storage of 4 elements"),
            "{message}"
        );
    }
}

#[test]
fn archives_of_something_else_are_called_that() {
    for (change, words) in [
        (
            (|files| files.retain(|(name, _)| name != "model/data.pkl"))
                as fn(&mut Vec<(String, Vec<u8>)>),
            "without data.pkl",
        ),
        (
            |files| files.push(("model/constants.pkl".into(), Vec::new())),
            "TorchScript",
        ),
        (|files| files[1].1 = b"big".to_vec(), "another byte order"),
        (
            |files| files.push(("model/data/0".into(), vec![0; 8])),
            "`data/0` is in it twice",
        ),
        (
            |files| *pickled(files) = b"\x80\x02}X\x05\0\0\0epochK\x03s.".to_vec(),
            "`epoch` in it is no tensor",
        ),
        (
            |files| *pickled(files) = vec![0; (16 << 20) + 1],
            "more than that of any state dict",
        ),
    ] {
        let message = refusal(change);
        assert!(message.contains(words), "{message}: {words}");
    }
}

#[test]
fn other_files_under_this_name_are_called_what_they_are() {
    let directory = directory(Placing::Alone, |_| {});
    let path = directory.path().join("pytorch_model.bin");
    let message = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        import(directory.path()).unwrap_err()
    };
    let legacy = message(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.");
    assert!(matches!(legacy, Error::OtherFormat { .. }), "{legacy}");
    assert!(
        legacy.to_string().contains("before PyTorch 1.6"),
        "{legacy}"
    );
    for (bytes, words) in [
        (
            &b"version https://git-lfs.github.com/spec/v1\nsize 5\n"[..],
            "a Git LFS pointer",
        ),
        (b"", "an empty file"),
        (b"<html>", "an HTML page"),
        (
            &[7, 200, 3, 0, 255, 1, 2, 3, 4],
            "not a file of `torch.save`",
        ),
    ] {
        let message = message(bytes).to_string();
        assert!(message.contains(words), "{message}: {words}");
    }
}

#[test]
fn an_archive_cut_anywhere_is_refused() {
    let directory = directory(Placing::Alone, |_| {});
    let path = directory.path().join("pytorch_model.bin");
    let whole = fs::read(&path).unwrap();
    for length in (0..whole.len()).step_by(211).chain([whole.len() - 1]) {
        fs::write(&path, &whole[..length]).unwrap();
        let message = import(directory.path()).unwrap_err().to_string();
        assert!(message.contains("pytorch_model.bin"), "{length}: {message}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn an_archive_with_any_byte_changed_is_refused_or_read_as_it_was(
        at in any::<prop::sample::Index>(), bit in 0u32..8,
    ) {
        let directory = directory(Placing::Alone, |_| {});
        let path = directory.path().join("pytorch_model.bin");
        let mut bytes = fs::read(&path).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        fs::write(&path, &bytes).unwrap();
        match import(directory.path()) {
            Ok(read) => prop_assert!(read == weights(tiny()), "byte {at}"),
            Err(error) => prop_assert!(error.to_string().contains("pytorch_model.bin"), "{error}"),
        }
    }
}
