//! Arrays on the host: element type, dimensions and dense row-major bytes.

use std::fmt;

use half::{bf16, f16};

use crate::element_type::ElementType;
use crate::error::{Error, Result};

/// The bytes of a tensor are those of its elements in memory, so both must be little-endian.
const _: () = assert!(cfg!(target_endian = "little"));

/// A Rust type that can be a tensor's element.
pub trait Element: Copy + private::Sealed {
    /// The element type.
    const TYPE: ElementType;

    /// Reads elements from bytes, whose number is a multiple of their width.
    #[doc(hidden)]
    fn read(bytes: &[u8]) -> Vec<Self>;
}

mod private {
    pub trait Sealed {}
}

macro_rules! elements {
    ($($rust:ty: $element:ident;)*) => {$(
        impl private::Sealed for $rust {}

        impl Element for $rust {
            const TYPE: ElementType = ElementType::$element;

            fn read(bytes: &[u8]) -> Vec<Self> {
                let count = bytes.len() / size_of::<Self>();
                let mut values = Vec::with_capacity(count);
                // SAFETY: the vector has room for `count` elements, `bytes` holds as many, they do
                // not overlap, and every pattern of bits is a value of this type.
                unsafe {
                    std::ptr::copy_nonoverlapping(
                        bytes.as_ptr(),
                        values.as_mut_ptr() as *mut u8,
                        count * size_of::<Self>(),
                    );
                    values.set_len(count);
                }
                values
            }
        }
    )*};
}

elements! {
    i8: S8;
    i16: S16;
    i32: S32;
    i64: S64;
    u8: U8;
    u16: U16;
    u32: U32;
    u64: U64;
    f16: F16;
    f32: F32;
    f64: F64;
    bf16: Bf16;
}

impl private::Sealed for bool {}

impl Element for bool {
    const TYPE: ElementType = ElementType::Pred;

    fn read(bytes: &[u8]) -> Vec<Self> {
        bytes.iter().map(|&byte| byte != 0).collect()
    }
}

/// An array on the host. The bytes are dense, row-major and little-endian; whether they fit the
/// dimensions is checked where the tensor is used.
#[derive(Clone, PartialEq)]
pub struct HostTensor {
    /// The type of the elements.
    pub element_type: ElementType,
    /// The dimensions; none for a scalar.
    pub dims: Vec<i64>,
    /// The elements, the last dimension varying fastest.
    pub bytes: Vec<u8>,
}

impl HostTensor {
    /// A tensor of these elements, in row-major order.
    pub fn new<T: Element>(dims: impl Into<Vec<i64>>, values: &[T]) -> Self {
        // SAFETY: the types with `Element` are numbers and `bool`, which are all bytes without
        // padding.
        let bytes = unsafe {
            std::slice::from_raw_parts(values.as_ptr().cast::<u8>(), size_of_val(values))
        };
        Self {
            element_type: T::TYPE,
            dims: dims.into(),
            bytes: bytes.to_vec(),
        }
    }

    /// A scalar.
    pub fn scalar<T: Element>(value: T) -> Self {
        Self::new([], &[value])
    }

    /// A tensor of zeros.
    pub fn zeros(element_type: ElementType, dims: impl Into<Vec<i64>>) -> Self {
        let dims = dims.into();
        let bytes = vec![0; byte_length(element_type, &dims).unwrap_or(0)];
        Self {
            element_type,
            dims,
            bytes,
        }
    }

    /// The number of elements, if the dimensions are not negative and their product can be counted.
    pub fn element_count(&self) -> Option<usize> {
        element_count(&self.dims)
    }

    /// Fails unless the bytes fit the dimensions.
    pub fn check(&self) -> Result<()> {
        let expected = byte_length(self.element_type, &self.dims);
        if expected == Some(self.bytes.len()) {
            return Ok(());
        }
        Err(Error::TensorSize {
            element_type: self.element_type,
            dims: self.dims.clone(),
            expected,
            found: self.bytes.len(),
        })
    }

    /// The elements in row-major order, if they are of this type.
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        if self.element_type != T::TYPE {
            return Err(Error::ElementTypeMismatch {
                expected: T::TYPE,
                found: self.element_type,
            });
        }
        self.check()?;
        Ok(T::read(&self.bytes))
    }
}

impl fmt::Debug for HostTensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostTensor({}{:?})", self.element_type, self.dims)
    }
}

/// The product of the dimensions, if it can be counted.
fn element_count(dims: &[i64]) -> Option<usize> {
    dims.iter().try_fold(1usize, |count, &dim| {
        count.checked_mul(usize::try_from(dim).ok()?)
    })
}

/// The bytes that elements of these dimensions take, if they can be counted.
pub(crate) fn byte_length(element_type: ElementType, dims: &[i64]) -> Option<usize> {
    element_count(dims)?.checked_mul(element_type.byte_width())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_survive_the_bytes() {
        let values = [0.0f32, -1.5, f32::MAX, f32::MIN_POSITIVE];
        assert_eq!(
            HostTensor::new::<f32>([2, 2], &values)
                .to_vec::<f32>()
                .unwrap(),
            values
        );
        let values = [bf16::from_f32(1.0), bf16::NEG_INFINITY];
        assert_eq!(
            HostTensor::new::<bf16>([2], &values)
                .to_vec::<bf16>()
                .unwrap(),
            values
        );
        let values = [true, false, true];
        assert_eq!(
            HostTensor::new::<bool>([3], &values)
                .to_vec::<bool>()
                .unwrap(),
            values
        );
    }

    #[test]
    fn another_element_type_is_refused() {
        let error = HostTensor::new::<i32>([1], &[7])
            .to_vec::<f32>()
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "expected a tensor of f32, found one of s32"
        );
    }

    #[test]
    fn bytes_that_do_not_fit_are_refused() {
        let error = HostTensor::new::<f32>([3], &[1.0, 2.0])
            .check()
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "a tensor of f32 [3] takes 12 bytes, found 8"
        );
        let error = HostTensor::new::<f32>([i64::MAX, i64::MAX], &[])
            .check()
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "a tensor of f32 [{0}, {0}] takes too many bytes, found 0",
                i64::MAX
            )
        );
    }
}
