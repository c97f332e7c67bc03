//! The messages ankh exchanges with XLA and TensorBoard, compiled from `proto/`.
//!
//! Each is a subset: a field that is not here is neither written nor read. Field numbers, types and enumeration
//! values are the wire format of the other side; `wire_format.rs` among the tests of `pjrt/` holds
//! XLA's against the descriptors that a plugin carries.

/// XLA's programs (`HloModuleProto`), shapes, shardings and compile options.
#[allow(missing_docs)]
pub mod xla {
    include!(concat!(env!("OUT_DIR"), "/xla.rs"));
}

/// TensorBoard's event files.
#[allow(missing_docs)]
pub mod tensorboard {
    include!(concat!(env!("OUT_DIR"), "/tensorboard.rs"));
}

/// The descriptors of every message above, as an encoded `google.protobuf.FileDescriptorSet`.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
