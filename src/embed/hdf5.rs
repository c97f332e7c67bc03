//! Writes HDF5 files of many arrays: each a dataset of its own in the root group, with one
//! attribute, a string.
//!
//! It follows the "HDF5 File Format Specification" (version 2.0 of the document) in its first form:
//! superblock 0, groups as B-trees of names, contiguous data. Every release of the HDF5 library
//! reads that. Values stream through; what is kept in memory is the name and the place of each
//! dataset. The crates on the C library would need that library, or CMake to build it; the writers
//! in Rust are young and build a file in memory.

use std::io::{self, Seek, SeekFrom, Write};

/// The type of the elements of a dataset: IEEE 754, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Float {
    Single,
    Half,
}

/// A file in the making.
pub struct Writer<W> {
    to: W,
    /// How many bytes were written, all in order.
    at: u64,
    attribute: &'static str,
    /// Datasets whose headers are not written: their strings are still in `heap`.
    waiting: Vec<Dataset>,
    heap: Vec<u8>,
    /// The name and the address of the header of each dataset.
    links: Vec<(String, u64)>,
}

struct Dataset {
    name: String,
    dims: Vec<u64>,
    float: Float,
    /// Where its values are.
    data: u64,
    bytes: u64,
    /// The length of its string.
    text: u32,
}

const UNDEFINED: u64 = u64::MAX;
/// Bytes of the superblock.
const SUPERBLOCK: u64 = 96;
/// A node of names has up to twice as many.
const LEAF_K: usize = 32;
/// A node of nodes has up to twice as many.
const INTERNAL_K: usize = 64;
/// How many strings a collection of the global heap has at most.
const COLLECTED: usize = 1024;
/// The least size of a collection.
const LEAST_COLLECTION: usize = 4096;

impl<W: Write + Seek> Writer<W> {
    /// Begins a file. `attribute` is the name of every dataset's attribute.
    pub fn new(mut to: W, attribute: &'static str) -> io::Result<Writer<W>> {
        to.write_all(&[0; SUPERBLOCK as usize])?;
        Ok(Writer {
            to,
            at: SUPERBLOCK,
            attribute,
            waiting: Vec::new(),
            heap: Vec::new(),
            links: Vec::new(),
        })
    }

    /// Adds a dataset. Names have to be unique and without `/`; `values` are those of an array
    /// `dims`, row-major.
    pub fn dataset(
        &mut self,
        name: String,
        dims: &[u64],
        float: Float,
        values: &[u8],
        text: &str,
    ) -> io::Result<()> {
        let data = self.put(values)?;
        self.waiting.push(Dataset {
            name,
            dims: dims.to_vec(),
            float,
            data,
            bytes: values.len() as u64,
            text: text.len() as u32,
        });
        let index = self.waiting.len() as u16;
        object(&mut self.heap, index, text.as_bytes());
        match self.waiting.len() == COLLECTED {
            true => self.write_headers(),
            false => Ok(()),
        }
    }

    /// Writes what makes a file of it.
    pub fn finish(mut self) -> io::Result<W> {
        self.write_headers()?;
        self.links.sort();
        let mut names = vec![0; 8];
        let mut entries = Vec::with_capacity(self.links.len());
        for (name, header) in std::mem::take(&mut self.links) {
            entries.push((names.len() as u64, header));
            names.extend(name.as_bytes());
            names.push(0);
            names.resize(names.len().next_multiple_of(8), 0);
        }
        let tree = self.tree(&entries)?;
        let segment = self.put(&names)?;
        let mut heap = Vec::from(*b"HEAP\0\0\0\0");
        // Its size, no free space in it, and where it is.
        u64s(&mut heap, &[names.len() as u64, 1, segment]);
        let heap = self.put(&heap)?;
        let mut symbol_table = Vec::new();
        u64s(&mut symbol_table, &[tree, heap]);
        let root = self.put(&header(&[(0x11, symbol_table)]))?;
        self.superblock(root, tree, heap)?;
        Ok(self.to)
    }

    /// Writes bytes at the next multiple of 8, and returns where.
    fn put(&mut self, bytes: &[u8]) -> io::Result<u64> {
        let start = self.at.next_multiple_of(8);
        let padding = (start - self.at) as usize;
        self.to.write_all(&[0; 8][..padding])?;
        self.to.write_all(bytes)?;
        self.at = start + bytes.len() as u64;
        Ok(start)
    }

    /// Writes the strings that wait, and the headers of their datasets.
    fn write_headers(&mut self) -> io::Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let objects = std::mem::take(&mut self.heap);
        let size = (16 + objects.len() + 16).max(LEAST_COLLECTION);
        let mut collection = Vec::from(*b"GCOL\x01\0\0\0");
        u64(&mut collection, size as u64);
        collection.extend(&objects);
        // Object 0 is the free space, its own header included.
        u64(&mut collection, 0);
        let free = size - (collection.len() - 8);
        u64(&mut collection, free as u64);
        collection.resize(size, 0);
        let collection = self.put(&collection)?;
        for (number, dataset) in (1..).zip(std::mem::take(&mut self.waiting)) {
            let messages = dataset.messages(self.attribute, collection, number);
            let address = self.put(&header(&messages))?;
            self.links.push((dataset.name, address));
        }
        Ok(())
    }

    /// The B-tree of sorted entries (a name's place among the names, a header's address): the
    /// address of its root.
    fn tree(&mut self, entries: &[(u64, u64)]) -> io::Result<u64> {
        // Of each child its address, and its last name.
        let mut children = Vec::new();
        for some in entries.chunks(2 * LEAF_K) {
            let mut node = Vec::from(*b"SNOD\x01\0");
            u16(&mut node, some.len() as u16);
            for &(name, header) in some {
                // Nothing of the object is cached here.
                u64s(&mut node, &[name, header, 0, 0, 0]);
            }
            node.resize(8 + 2 * LEAF_K * 40, 0);
            let last = some.last().map_or(0, |&(name, _)| name);
            children.push((self.put(&node)?, last));
        }
        for level in 0.. {
            let size = 24 + 2 * INTERNAL_K * 16 + 8;
            let nodes: Vec<&[(u64, u64)]> = match children.is_empty() {
                true => vec![&[]],
                false => children.chunks(2 * INTERNAL_K).collect(),
            };
            let first = self.at.next_multiple_of(8);
            let address = |index: usize| first + (index * size) as u64;
            let mut level_above = Vec::new();
            let mut before = 0;
            for (index, some) in nodes.iter().enumerate() {
                let mut node = Vec::from(*b"TREE\0");
                node.push(level);
                u16(&mut node, some.len() as u16);
                let left = index.checked_sub(1).map_or(UNDEFINED, address);
                let right = match index + 1 < nodes.len() {
                    true => address(index + 1),
                    false => UNDEFINED,
                };
                // A child's names come after the key before it, up to the key behind it.
                u64s(&mut node, &[left, right, before]);
                for &(child, last) in *some {
                    u64s(&mut node, &[child, last]);
                    before = last;
                }
                node.resize(size, 0);
                level_above.push((self.put(&node)?, before));
            }
            if let [(root, _)] = level_above[..] {
                return Ok(root);
            }
            children = level_above;
        }
        unreachable!("each level has fewer nodes")
    }

    fn superblock(&mut self, root: u64, tree: u64, heap: u64) -> io::Result<()> {
        let mut block = Vec::from(*b"\x89HDF\r\n\x1a\n");
        // Versions, and 8 bytes for addresses and for sizes.
        block.extend([0, 0, 0, 0, 0, 8, 8, 0]);
        u16(&mut block, LEAF_K as u16);
        u16(&mut block, INTERNAL_K as u16);
        block.extend([0; 4]);
        // Its base, no index of free space, its end, no driver.
        u64s(&mut block, &[0, UNDEFINED, self.at, UNDEFINED]);
        // The root group: no name, its header, and that its tree and heap follow.
        u64s(&mut block, &[0, root, 1, tree, heap]);
        self.to.seek(SeekFrom::Start(0))?;
        self.to.write_all(&block)
    }
}

impl Dataset {
    /// The messages of its header; its string is an object of a collection.
    fn messages(&self, name: &str, collection: u64, object: u32) -> Vec<(u16, Vec<u8>)> {
        let mut space = vec![1, self.dims.len() as u8, 0, 0, 0, 0, 0, 0];
        self.dims.iter().for_each(|&dim| u64(&mut space, dim));
        // Space is allocated late; fill values are written where one is set, and none is.
        let fill = vec![2, 2, 2, 1, 0, 0, 0, 0];
        let mut layout = vec![3, 1];
        u64s(&mut layout, &[self.data, self.bytes]);

        // A variable-length string, UTF-8, ended by its length.
        let mut text_type = vec![0x19, 1, 1, 0, 16, 0, 0, 0];
        text_type.extend([0x10, 0, 0, 0, 1, 0, 0, 0, 0, 0, 8, 0]);
        let scalar = vec![1, 0, 0, 0, 0, 0, 0, 0];
        let mut attribute = vec![1, 0];
        let sizes = [name.len() + 1, text_type.len(), scalar.len()];
        for size in sizes {
            u16(&mut attribute, size as u16);
        }
        for part in [name.as_bytes(), &text_type, &scalar] {
            attribute.extend(part);
            let ends = if part == name.as_bytes() { 1 } else { 0 };
            attribute.resize((attribute.len() + ends).next_multiple_of(8), 0);
        }
        u32(&mut attribute, self.text);
        u64(&mut attribute, collection);
        u32(&mut attribute, object);
        vec![
            (0x01, space),
            (0x03, self.float.datatype()),
            (0x05, fill),
            (0x08, layout),
            (0x0c, attribute),
        ]
    }
}

impl Float {
    fn datatype(self) -> Vec<u8> {
        // Bits of all, of the exponent and of the mantissa, and the exponent's bias.
        let (bits, exponent, mantissa, bias) = match self {
            Float::Single => (32u8, 8, 23, 127u32),
            Float::Half => (16, 5, 10, 15),
        };
        // A float whose first bit of the mantissa is implied; where its sign is; its bytes.
        let mut datatype = vec![0x11, 0x20, bits - 1, 0, bits / 8, 0, 0, 0];
        datatype.extend([0, 0, bits, 0, mantissa, exponent, 0, mantissa]);
        u32(&mut datatype, bias);
        datatype
    }
}

/// An object header with these messages.
fn header(messages: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut body = Vec::new();
    for (kind, content) in messages {
        let size = content.len().next_multiple_of(8);
        u16(&mut body, *kind);
        u16(&mut body, size as u16);
        body.extend([0; 4]);
        body.extend(content);
        body.resize(body.len() + size - content.len(), 0);
    }
    let mut header = vec![1, 0];
    u16(&mut header, messages.len() as u16);
    u32(&mut header, 1);
    u32(&mut header, body.len() as u32);
    header.extend([0; 4]);
    header.extend(body);
    header
}

/// Adds an object to a collection of the global heap.
fn object(heap: &mut Vec<u8>, index: u16, content: &[u8]) {
    u16(heap, index);
    // Its references are not counted.
    heap.extend([0; 6]);
    u64(heap, content.len() as u64);
    heap.extend(content);
    heap.resize(heap.len().next_multiple_of(8), 0);
}

fn u16(to: &mut Vec<u8>, value: u16) {
    to.extend(value.to_le_bytes());
}

fn u32(to: &mut Vec<u8>, value: u32) {
    to.extend(value.to_le_bytes());
}

fn u64(to: &mut Vec<u8>, value: u64) {
    to.extend(value.to_le_bytes());
}

fn u64s(to: &mut Vec<u8>, values: &[u64]) {
    values.iter().for_each(|&value| u64(to, value));
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    /// Reads a file as the specification says, one dataset at a time.
    struct Reader(Vec<u8>);

    impl Reader {
        fn number<const N: usize>(&self, at: u64) -> u64 {
            let mut bytes = [0; 8];
            bytes[..N].copy_from_slice(&self.0[at as usize..][..N]);
            u64::from_le_bytes(bytes)
        }

        fn address(&self, at: u64) -> u64 {
            self.number::<8>(at)
        }

        /// A name, by its place among the names.
        fn name(&self, place: u64) -> &str {
            let heap = self.address(88);
            assert_eq!(self.0[heap as usize..][..4], *b"HEAP");
            let rest = &self.0[(self.address(heap + 24) + place) as usize..];
            let end = rest.iter().position(|&byte| byte == 0).unwrap();
            std::str::from_utf8(&rest[..end]).unwrap()
        }

        /// The address of a dataset's header, found from the root of the tree by the keys.
        fn find(&self, name: &str) -> Option<u64> {
            let mut node = self.address(80);
            loop {
                let entries = self.number::<2>(node + 6);
                match &self.0[node as usize..][..4] {
                    b"TREE" => {
                        let key = |i: u64| self.name(self.address(node + 24 + 16 * i));
                        let child = (0..entries).find(|&i| key(i) < name && name <= key(i + 1))?;
                        node = self.address(node + 32 + 16 * child);
                    }
                    b"SNOD" => {
                        let entry = |i: u64| node + 8 + 40 * i;
                        let is_it = |&i: &u64| self.name(self.address(entry(i))) == name;
                        let found = (0..entries).find(is_it)?;
                        return Some(self.address(entry(found) + 8));
                    }
                    other => panic!("{other:?} is no node"),
                }
            }
        }

        /// The content of a message of a header.
        fn message(&self, header: u64, kind: u64) -> u64 {
            let mut at = header + 16;
            while self.number::<2>(at) != kind {
                at += 8 + self.number::<2>(at + 2);
            }
            at + 8
        }
    }

    #[test]
    fn every_dataset_is_found_with_its_values_and_its_string() {
        // Three levels of nodes, and several collections.
        let count = 2 * 2 * LEAF_K * 2 * INTERNAL_K;
        let mut writer = Writer::new(Cursor::new(Vec::new()), "original_id").unwrap();
        for i in 0..count {
            let values = (i as u32).to_le_bytes();
            let text = "é".repeat(i % 5);
            let dims = [1, 1];
            let added = writer.dataset(i.to_string(), &dims, Float::Single, &values, &text);
            added.unwrap();
        }
        let file = Reader(writer.finish().unwrap().into_inner());
        assert_eq!(file.address(40), file.0.len() as u64, "the end of the file");
        for i in (0..count).step_by(7).chain([count - 1]) {
            let header = file.find(&i.to_string()).unwrap();
            assert_eq!(header % 8, 0);
            let layout = file.message(header, 8);
            assert_eq!(file.address(layout + 10), 4);
            let values = file.address(layout + 2);
            assert_eq!(file.number::<4>(values), i as u64);
            // Behind a head of 8 bytes the name, its type and the scalar space, each to 8 bytes.
            let data = file.message(header, 12) + 8 + 16 + 24 + 8;
            let (length, collection) = (file.number::<4>(data), file.address(data + 4));
            assert_eq!(length, 2 * (i % 5) as u64);
            let mut object = collection + 16;
            for _ in 1..file.number::<4>(data + 12) {
                let size = file.address(object + 8);
                object += 16 + size.next_multiple_of(8);
            }
            assert_eq!(file.number::<2>(object), file.number::<4>(data + 12));
            let text = &file.0[(object + 16) as usize..][..length as usize];
            assert_eq!(text, "é".repeat(i % 5).as_bytes());
        }
        assert_eq!(file.find("no such name"), None);
    }
}
