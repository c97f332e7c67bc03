//! Arrays that CPU devices use where they are, in the host's memory.

use std::sync::Arc;

use crate::element_type::ElementType;
use crate::error::Result;
use crate::host_tensor::HostTensor;

/// Where the CPU plugin takes memory as it is: what its compiler lets vectors be aligned to. It
/// copies what begins elsewhere.
const ALIGNMENT: usize = 64;

/// A tensor that does not change, for [`Client::share`](crate::Client::share).
#[derive(Clone)]
pub struct SharedTensor(Arc<Memory>);

struct Memory {
    element_type: ElementType,
    dims: Vec<i64>,
    /// Its elements are so many bytes from `start` on.
    bytes: Vec<u8>,
    start: usize,
    length: usize,
}

impl SharedTensor {
    /// A copy of a tensor. An error where its bytes do not fit its dimensions.
    pub fn new(tensor: &HostTensor) -> Result<Self> {
        tensor.check()?;
        let length = tensor.bytes.len();
        let mut bytes = vec![0; length + ALIGNMENT];
        // A vector that is not resized stays where it is, also where it is moved.
        let start = bytes.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        bytes[start..start + length].copy_from_slice(&tensor.bytes);
        Ok(Self(Arc::new(Memory {
            element_type: tensor.element_type,
            dims: tensor.dims.clone(),
            bytes,
            start,
            length,
        })))
    }

    /// Whether a buffer or a program uses its memory, or another copy of this handle is about.
    pub fn is_in_use(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    pub(crate) fn element_type(&self) -> ElementType {
        self.0.element_type
    }

    pub(crate) fn dims(&self) -> &[i64] {
        &self.0.dims
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0.bytes[self.0.start..][..self.0.length]
    }
}
