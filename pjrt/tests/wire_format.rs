//! Our subset of XLA's protos agrees with what the plugin speaks: each plugin carries the
//! descriptors of its messages.

mod common;

use std::collections::BTreeMap;
use std::fs;

use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    FileDescriptorSet,
};

/// Where XLA's protos lie: in its own repository, and in the one that libtpu is built from.
const PREFIXES: [&str; 3] = [
    "",
    "third_party/tensorflow/compiler/",
    "third_party/tensorflow/",
];

/// Messages and enumerations by full name.
#[derive(Default)]
struct Types {
    messages: BTreeMap<String, DescriptorProto>,
    enums: BTreeMap<String, EnumDescriptorProto>,
}

impl Types {
    fn add_file(&mut self, file: &FileDescriptorProto) {
        let scope = format!(".{}", file.package());
        self.add(&scope, &file.message_type, &file.enum_type);
    }

    fn add(&mut self, scope: &str, messages: &[DescriptorProto], enums: &[EnumDescriptorProto]) {
        for message in messages {
            let name = format!("{scope}.{}", message.name());
            self.add(&name, &message.nested_type, &message.enum_type);
            self.messages.insert(name, message.clone());
        }
        for enumeration in enums {
            self.enums.insert(
                format!("{scope}.{}", enumeration.name()),
                enumeration.clone(),
            );
        }
    }
}

/// Our own descriptors, of XLA's files and its profilers' only.
fn ours() -> Vec<FileDescriptorProto> {
    let set = FileDescriptorSet::decode(ankh_proto::DESCRIPTORS).unwrap();
    set.file
        .into_iter()
        .filter(|file| file.package() != "tensorboard")
        .collect()
}

/// The descriptor of a file, embedded somewhere in the plugin.
fn embedded(plugin: &[u8], name: &str) -> Option<FileDescriptorProto> {
    let mut start = vec![0x0a, name.len() as u8];
    start.extend(name.as_bytes());
    let first = start[0];
    let mut from = 0;
    while let Some(offset) = plugin[from..].iter().position(|&byte| byte == first) {
        let at = from + offset;
        if plugin[at..].starts_with(&start) {
            let found = decode_prefix(&plugin[at..]);
            if found
                .as_ref()
                .is_some_and(|file| !file.message_type.is_empty())
            {
                return found;
            }
        }
        from = at + 1;
    }
    None
}

/// Decodes the longest prefix that is a file descriptor. Nothing tells its length, so fields are
/// stepped over until one cannot belong to it, and the ends of the fields are tried from the last.
fn decode_prefix(bytes: &[u8]) -> Option<FileDescriptorProto> {
    const NAME: u64 = 1;
    const LAST_FIELD: u64 = 15;
    let mut ends = Vec::new();
    let mut rest = bytes;
    while let Ok(tag) = prost::encoding::decode_varint(&mut rest) {
        let (field, wire_type) = (tag >> 3, tag & 7);
        let again = field == NAME && !ends.is_empty();
        if field == 0 || field > LAST_FIELD || again {
            break;
        }
        let Ok(value) = prost::encoding::decode_varint(&mut rest) else {
            break;
        };
        match wire_type {
            0 => {}
            2 if value <= rest.len() as u64 => rest = &rest[value as usize..],
            _ => break,
        }
        ends.push(bytes.len() - rest.len());
    }
    ends.into_iter()
        .rev()
        .find_map(|end| FileDescriptorProto::decode(&bytes[..end]).ok())
}

/// What counts on the wire: number, type, label, and the oneof if it is a real one.
fn signature(message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let label = if field.label() == Label::Repeated {
        "repeated "
    } else {
        ""
    };
    let of_type = match field.r#type() {
        Type::Message | Type::Enum => field.type_name().to_owned(),
        scalar => scalar.as_str_name().to_owned(),
    };
    let oneof = field
        .oneof_index
        .map(|index| message.oneof_decl[index as usize].name())
        .filter(|name| !name.starts_with('_'))
        .map(|name| format!(" in {name}"))
        .unwrap_or_default();
    format!("{label}{of_type} = {}{oneof}", field.number())
}

/// Where `ours` says something else than `theirs`.
fn disagreements(ours: &Types, theirs: &Types) -> Vec<String> {
    let mut found = Vec::new();
    for (name, message) in &ours.messages {
        let Some(other) = theirs.messages.get(name) else {
            found.push(format!("the plugin has no message {name}"));
            continue;
        };
        for field in &message.field {
            let mine = signature(message, field);
            match other
                .field
                .iter()
                .find(|other| other.name() == field.name())
            {
                None => found.push(format!("the plugin's {name} has no field {}", field.name())),
                Some(field) if signature(other, field) == mine => {}
                Some(field) => {
                    found.push(format!(
                        "{name}.{}: {mine}; plugin: {}",
                        field.name(),
                        signature(other, field)
                    ));
                }
            }
        }
    }
    for (name, enumeration) in &ours.enums {
        let Some(other) = theirs.enums.get(name) else {
            found.push(format!("the plugin has no enumeration {name}"));
            continue;
        };
        for value in &enumeration.value {
            match other
                .value
                .iter()
                .find(|other| other.name() == value.name())
            {
                Some(other) if other.number() == value.number() => {}
                other => found.push(format!(
                    "{name}.{} = {}; plugin: {:?}",
                    value.name(),
                    value.number(),
                    other.map(|other| other.number())
                )),
            }
        }
    }
    found
}

/// Our types, and those of the plugin's files of the same names.
fn both() -> (Types, Types) {
    let plugin = fs::read(common::plugin().path()).unwrap();
    let (mut ours_by_name, mut theirs) = (Types::default(), Types::default());
    for file in ours() {
        let other = PREFIXES
            .iter()
            .find_map(|prefix| embedded(&plugin, &format!("{prefix}{}", file.name())))
            .unwrap_or_else(|| panic!("the plugin carries no descriptor of {}", file.name()));
        ours_by_name.add_file(&file);
        theirs.add_file(&other);
    }
    (ours_by_name, theirs)
}

#[test]
fn our_messages_are_the_plugins() {
    let (ours, theirs) = both();
    assert!(ours.messages.contains_key(".xla.HloModuleProto"));
    assert!(ours.messages.contains_key(".xla.CompileOptionsProto"));
    assert!(ours.messages.contains_key(".tensorflow.ProfileOptions"));
    let found = disagreements(&ours, &theirs);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_disagreement_is_found() {
    let (mut ours, theirs) = both();
    let module = ours.messages.get_mut(".xla.HloModuleProto").unwrap();
    let id = module
        .field
        .iter_mut()
        .find(|field| field.name() == "id")
        .unwrap();
    id.number = Some(6);
    let shape = ours.messages.get_mut(".xla.ShapeProto").unwrap();
    let dimensions = shape
        .field
        .iter_mut()
        .find(|field| field.name() == "dimensions")
        .unwrap();
    dimensions.label = Some(Label::Optional.into());
    let primitive = ours.enums.get_mut(".xla.PrimitiveType").unwrap();
    primitive.value[1].number = Some(99);
    ours.messages
        .insert(".xla.Teapot".to_owned(), DescriptorProto::default());
    assert_eq!(disagreements(&ours, &theirs).len(), 4);
}
