//! The messages ankh exchanges with XLA and TensorBoard, compiled from `proto/`. Begin with
//! [`xla::HloModuleProto`]: a program.
//!
//! Each is a subset: other fields are neither written nor read. Field numbers, types and
//! enumeration values are the wire format of the other side. `pjrt/tests/wire_format.rs` compares
//! XLA's with the descriptors that a plugin carries.

/// XLA's programs (`HloModuleProto`), shapes, shardings and compile options.
#[allow(missing_docs)]
pub mod xla {
    include!(concat!(env!("OUT_DIR"), "/xla.rs"));
}

/// What XLA's profilers are asked for, and what they record.
#[allow(missing_docs)]
pub mod profiler {
    include!(concat!(env!("OUT_DIR"), "/tensorflow.rs"));
    include!(concat!(env!("OUT_DIR"), "/tensorflow.profiler.rs"));
}

/// TensorBoard's event files.
#[allow(missing_docs)]
pub mod tensorboard {
    include!(concat!(env!("OUT_DIR"), "/tensorboard.rs"));
}

/// The descriptors of every message above, as an encoded `google.protobuf.FileDescriptorSet`.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
