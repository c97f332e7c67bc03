use proptest::prelude::*;

use super::*;
use crate::hugging_face::pytorch_file::write::{Entry, pickle};

fn entry(name: &str, shape: &[u64], strides: &[u64]) -> Entry {
    Entry {
        name: name.to_owned(),
        storage: "FloatStorage",
        key: "7".to_owned(),
        elements: 600,
        first: 3,
        shape: shape.to_vec(),
        strides: strides.to_vec(),
    }
}

#[test]
fn a_state_dict_is_read_as_it_was_written() {
    let long = u64::from(u32::MAX) + 5;
    let written = pickle(&[entry("a", &[2, 300], &[300, 1]), entry("b", &[long], &[1])]);
    let view = |shape: &[u64], strides: &[u64]| View {
        dtype: Dtype::F32,
        key: "7",
        elements: 600,
        first: 3,
        shape: shape.to_vec(),
        strides: strides.to_vec(),
    };
    assert_eq!(
        state_dict(&written).unwrap(),
        [
            ("a", view(&[2, 300], &[300, 1])),
            ("b", view(&[long], &[1]))
        ]
    );
}

#[test]
fn what_would_be_executed_is_named_and_refused() {
    for (pickle, name) in [
        (
            &b"\x80\x02cos\nsystem\nX\x02\0\0\0id\x85R."[..],
            "os.system",
        ),
        (b"\x80\x02cbuiltins\neval\n.", "builtins.eval"),
        (b"\x80\x04\x8c\x05posix\x8c\x06system\x93.", "posix.system"),
        (b"\x80\x02ctorch\nload\n.", "torch.load"),
        (
            b"\x80\x02ctorch._utils\n_rebuild_qtensor\n.",
            "torch._utils._rebuild_qtensor",
        ),
    ] {
        let error = state_dict(pickle).unwrap_err();
        assert!(error.contains(&format!("`{name}`")), "{error}");
        assert!(error.contains("executed"), "{error}");
    }
    // INST, OBJ, NEWOBJ and a persistent id in text.
    for (pickle, code) in [
        (&b"\x80\x02(ios\nsystem\n."[..], "0x69"),
        (b"\x80\x02(o.", "0x6f"),
        (b"\x80\x02)\x81.", "0x81"),
        (b"\x80\x02P0\n.", "0x50"),
    ] {
        let error = state_dict(pickle).unwrap_err();
        assert!(error.contains(code), "{error}");
    }
}

#[test]
fn what_is_no_state_dict_is_refused() {
    for (pickle, words) in [
        (&b""[..], "no end"),
        (b"\x80\x09", "protocol 9"),
        (b"\x80\x02K\x01.", "no dictionary"),
        (
            b"\x80\x02}X\x05\0\0\0epochK\x03s.",
            "`epoch` in it is no tensor",
        ),
        (b"\x80\x02}K\x01K\x03s.", "without a name"),
        (b"\x80\x02h\x07.", "not made before"),
        (b"\x80\x02(.", "lacks its values"),
        (b"\x80\x02K\x01(s.", "lacks its values"),
        (b"\x80\x02u.", "without a mark"),
        (b"\x80\x02X\xff\xff\xff\xff.", "no end"),
        (b"\x80\x02\x8a\x09123456789.", "more than 8 bytes"),
        (
            b"\x80\x02ccollections\nOrderedDict\nK\x01\x85R.",
            "other arguments",
        ),
        (b"\x80\x02)Q.", "names no storage"),
        (b"\x80\x02K\x01}b.", "no dictionary"),
    ] {
        let error = state_dict(pickle).unwrap_err();
        assert!(error.contains(words), "{error}: {words}");
    }
    let negative = pickle(&[entry("a", &[1], &[1])]);
    let at = negative.windows(2).position(|pair| pair == [b'K', 3]);
    let mut negative = negative.clone();
    negative.splice(at.unwrap()..at.unwrap() + 2, *b"J\xff\xff\xff\xff");
    assert!(state_dict(&negative).unwrap_err().contains("the size -1"));
}

#[test]
fn no_nesting_exhausts_the_stack() {
    let mut deep = b"\x80\x02)".to_vec();
    deep.extend(std::iter::repeat_n(0x85, 1_000_000));
    deep.push(b'.');
    assert!(state_dict(&deep).unwrap_err().contains("no dictionary"));
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = state_dict(&bytes);
    }

    #[test]
    fn a_pickle_changed_or_cut_anywhere_is_read_or_refused(
        at in 0usize..1000, byte in any::<u8>(), cut in any::<bool>(),
    ) {
        let mut pickle = pickle(&[entry("a", &[2, 300], &[300, 1]), entry("b", &[4], &[1])]);
        let at = at % pickle.len();
        match cut {
            true => {
                pickle.truncate(at);
                prop_assert!(state_dict(&pickle).is_err());
            }
            false => {
                pickle[at] = byte;
                let _ = state_dict(&pickle);
            }
        }
    }
}
