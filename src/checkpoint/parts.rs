//! A tensor in the parts that one process has of it.

use std::borrow::Cow;
use std::ops::Range;

use ankh_pjrt::{ElementType, HostTensor};

/// A tensor in parts of one shape, as the devices of a mesh hold it: those that this process has.
/// The parts of all processes together make up the tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorParts<'t> {
    /// The tensor's name.
    pub name: Cow<'t, str>,
    /// The type of its elements.
    pub element_type: ElementType,
    /// The dimensions of the whole.
    pub dims: Vec<i64>,
    /// Those of each part; they divide the whole's.
    pub part_dims: Vec<i64>,
    /// Where each part lies, a range for each dimension, and its elements.
    pub parts: Vec<(Vec<Range<i64>>, Cow<'t, HostTensor>)>,
}

impl<'t> TensorParts<'t> {
    /// A tensor that this process has alone and as a whole.
    pub fn whole(name: &'t str, tensor: &'t HostTensor) -> TensorParts<'t> {
        TensorParts {
            name: name.into(),
            element_type: tensor.element_type,
            dims: tensor.dims.clone(),
            part_dims: tensor.dims.clone(),
            parts: vec![(everything(&tensor.dims), Cow::Borrowed(tensor))],
        }
    }

    /// The same in one part, where this process has all.
    ///
    /// # Errors
    /// Those of [`HostTensor::set_part`], for parts that do not fit the whole.
    pub fn joined(self) -> Result<TensorParts<'t>, ankh_pjrt::Error> {
        if self.parts.len() == 1 {
            return Ok(self);
        }
        let mut whole = HostTensor::zeros(self.element_type, self.dims.clone());
        for (range, part) in &self.parts {
            whole.set_part(range, part)?;
        }
        Ok(TensorParts {
            part_dims: self.dims.clone(),
            parts: vec![(everything(&self.dims), Cow::Owned(whole))],
            ..self
        })
    }

    /// The bytes of the whole tensor.
    pub fn bytes(&self) -> u64 {
        let elements: i64 = self.dims.iter().product();
        elements as u64 * self.element_type.byte_width() as u64
    }
}

impl From<(String, HostTensor)> for TensorParts<'static> {
    fn from((name, tensor): (String, HostTensor)) -> Self {
        TensorParts {
            name: name.into(),
            element_type: tensor.element_type,
            dims: tensor.dims.clone(),
            part_dims: tensor.dims.clone(),
            parts: vec![(everything(&tensor.dims), Cow::Owned(tensor))],
        }
    }
}

/// The part that is the whole.
fn everything(dims: &[i64]) -> Vec<Range<i64>> {
    dims.iter().map(|&size| 0..size).collect()
}
