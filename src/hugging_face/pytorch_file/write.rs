//! Files as `torch.save` writes them, for tests.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use rawzip::{CompressionMethod, ZipArchiveWriter};

/// A tensor of a state dict.
pub(in crate::hugging_face) struct Entry {
    pub name: String,
    /// The name of the storage's class.
    pub storage: &'static str,
    pub key: String,
    pub elements: u64,
    pub first: u64,
    pub shape: Vec<u64>,
    pub strides: Vec<u64>,
}

/// The pickle of a state dict, as PyTorch writes it but for its references to what it has made.
pub(in crate::hugging_face) fn pickle(entries: &[Entry]) -> Vec<u8> {
    const DICT: &[u8] = b"ccollections\nOrderedDict\n)R";
    let mut to = b"\x80\x02".to_vec();
    to.extend_from_slice(DICT);
    to.extend_from_slice(b"q\0(");
    for entry in entries {
        text(&mut to, &entry.name);
        to.extend_from_slice(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        text(&mut to, "storage");
        to.extend_from_slice(format!("ctorch\n{}\n", entry.storage).as_bytes());
        text(&mut to, &entry.key);
        text(&mut to, "cpu");
        number(&mut to, entry.elements);
        to.extend_from_slice(b"tQ");
        number(&mut to, entry.first);
        for sizes in [&entry.shape, &entry.strides] {
            to.push(b'(');
            sizes.iter().for_each(|size| number(&mut to, *size));
            to.push(b't');
        }
        to.push(0x89);
        to.extend_from_slice(DICT);
        to.extend_from_slice(b"tR");
    }
    // The versions of the modules are an attribute.
    to.extend_from_slice(b"u}X\x09\0\0\0_metadata");
    to.extend_from_slice(DICT);
    to.extend_from_slice(b"sb.");
    to
}

/// A zip archive of these files, not compressed.
pub(in crate::hugging_face) fn archive(path: &Path, files: &[(&str, &[u8])]) {
    let mut archive = ZipArchiveWriter::new(File::create(path).unwrap());
    for (name, bytes) in files {
        let file = archive.new_file(name);
        let file = file.compression_method(CompressionMethod::STORE);
        let (mut entry, config) = file.start().unwrap();
        let mut writer = config.wrap(&mut entry);
        writer.write_all(bytes).unwrap();
        let (_, descriptor) = writer.finish().unwrap();
        entry.finish(descriptor).unwrap();
    }
    archive.finish().unwrap();
}

fn text(to: &mut Vec<u8>, text: &str) {
    to.push(b'X');
    to.extend_from_slice(&(text.len() as u32).to_le_bytes());
    to.extend_from_slice(text.as_bytes());
}

fn number(to: &mut Vec<u8>, number: u64) {
    match (u8::try_from(number), i32::try_from(number)) {
        (Ok(byte), _) => to.extend_from_slice(&[b'K', byte]),
        (_, Ok(word)) => {
            to.push(b'J');
            to.extend_from_slice(&word.to_le_bytes());
        }
        _ => {
            to.extend_from_slice(&[0x8a, 8]);
            to.extend_from_slice(&number.to_le_bytes());
        }
    }
}
