//! Constant arrays, kept as the little-endian bytes of their elements.

use std::rc::Rc;

use crate::shape::{DType, Shape};

/// A constant array in host memory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Literal {
    shape: Shape,
    bytes: Rc<[u8]>,
}

impl Literal {
    /// A scalar of `dtype` nearest to `value` (integers truncate toward zero, predicates are `value
    /// != 0`).
    pub fn scalar(dtype: DType, value: f64) -> Literal {
        let bytes: Vec<u8> = match dtype {
            DType::Pred => vec![u8::from(value != 0.0)],
            DType::U8 => vec![value as u8],
            DType::S32 => (value as i32).to_le_bytes().to_vec(),
            DType::U32 => (value as u32).to_le_bytes().to_vec(),
            DType::S64 => (value as i64).to_le_bytes().to_vec(),
            DType::U64 => (value as u64).to_le_bytes().to_vec(),
            DType::Bf16 => half::bf16::from_f64(value).to_le_bytes().to_vec(),
            DType::F16 => half::f16::from_f64(value).to_le_bytes().to_vec(),
            DType::F32 => (value as f32).to_le_bytes().to_vec(),
            DType::F64 => value.to_le_bytes().to_vec(),
        };
        Literal {
            shape: Shape::new(dtype, []),
            bytes: bytes.into(),
        }
    }

    /// An array of float32 in row-major order; `None` when `values` does not fill `dims`.
    pub fn f32(dims: &[i64], values: &[f32]) -> Option<Literal> {
        Literal::from_elements(DType::F32, dims, values.iter().map(|v| v.to_le_bytes()))
    }

    /// An array of signed 32-bit integers in row-major order; `None` when `values` does not fill
    /// `dims`.
    pub fn s32(dims: &[i64], values: &[i32]) -> Option<Literal> {
        Literal::from_elements(DType::S32, dims, values.iter().map(|v| v.to_le_bytes()))
    }

    /// An array of unsigned 64-bit integers in row-major order; `None` when `values` does not fill
    /// `dims`.
    pub fn u64(dims: &[i64], values: &[u64]) -> Option<Literal> {
        Literal::from_elements(DType::U64, dims, values.iter().map(|v| v.to_le_bytes()))
    }

    fn from_elements<const N: usize>(
        dtype: DType,
        dims: &[i64],
        elements: impl Iterator<Item = [u8; N]>,
    ) -> Option<Literal> {
        let shape = Shape::new(dtype, dims);
        let bytes: Vec<u8> = elements.flatten().collect();
        let fills = shape.problem().is_none() && bytes.len() as u64 == shape.bytes();
        fills.then(|| Literal {
            shape,
            bytes: bytes.into(),
        })
    }

    /// Its element type and dimensions.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Its elements' little-endian bytes, row-major.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}
