//! Element types, array shapes, the arithmetic of sizes, and the type of a node's value.

use std::{fmt, ops};

/// The type of one array element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    /// A truth value, one byte.
    Pred,
    /// Signed 32-bit integer.
    S32,
    /// Signed 64-bit integer.
    S64,
    /// Unsigned 8-bit integer.
    U8,
    /// Unsigned 32-bit integer.
    U32,
    /// Unsigned 64-bit integer.
    U64,
    /// bfloat16: float32's exponent, 8 bits of significand.
    Bf16,
    /// IEEE half precision.
    F16,
    /// IEEE single precision.
    F32,
    /// IEEE double precision.
    F64,
}

impl DType {
    /// Whether the type is a floating-point one, so that a derivative can exist.
    pub fn is_float(self) -> bool {
        matches!(self, DType::Bf16 | DType::F16 | DType::F32 | DType::F64)
    }

    /// Whether a constant of this type can stand for `value`: an integer in range, or any number
    /// rounded to a floating-point type.
    pub(crate) fn holds(self, value: f64) -> bool {
        let integer = |range: ops::Range<f64>| value.fract() == 0.0 && range.contains(&value);
        self.integers().is_none_or(integer)
    }

    /// The integers that a type of integers or truth values holds.
    pub(crate) fn integers(self) -> Option<ops::Range<f64>> {
        // The end is the first number beyond, since the last one of 64 bits is no f64.
        Some(match self {
            DType::Pred => 0.0..2.0,
            DType::U8 => 0.0..8f64.exp2(),
            DType::U32 => 0.0..32f64.exp2(),
            DType::U64 => 0.0..64f64.exp2(),
            DType::S32 => -(31f64.exp2())..31f64.exp2(),
            DType::S64 => -(63f64.exp2())..63f64.exp2(),
            DType::Bf16 | DType::F16 | DType::F32 | DType::F64 => return None,
        })
    }

    /// Bytes of one element.
    pub fn byte_width(self) -> usize {
        match self {
            DType::Pred | DType::U8 => 1,
            DType::Bf16 | DType::F16 => 2,
            DType::S32 | DType::U32 | DType::F32 => 4,
            DType::S64 | DType::U64 | DType::F64 => 8,
        }
    }

    /// The name HLO text uses.
    pub fn name(self) -> &'static str {
        match self {
            DType::Pred => "pred",
            DType::S32 => "s32",
            DType::S64 => "s64",
            DType::U8 => "u8",
            DType::U32 => "u32",
            DType::U64 => "u64",
            DType::Bf16 => "bf16",
            DType::F16 => "f16",
            DType::F32 => "f32",
            DType::F64 => "f64",
        }
    }
}

/// An array's element type and dimensions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Element type.
    pub dtype: DType,
    /// Dimensions, major to minor; empty for a scalar.
    pub dims: Vec<i64>,
}

impl Shape {
    /// A shape of `dtype` with `dims`.
    pub fn new(dtype: DType, dims: impl Into<Vec<i64>>) -> Shape {
        Shape {
            dtype,
            dims: dims.into(),
        }
    }

    /// The number of dimensions.
    pub fn rank(&self) -> usize {
        self.dims.len()
    }

    /// Whether `dims` are dimensions of an array of this shape, each named once.
    pub(crate) fn has_dims(&self, dims: &[i64]) -> bool {
        let exists = |d: &i64| usize::try_from(*d).is_ok_and(|d| d < self.rank());
        let distinct = dims.iter().enumerate().all(|(i, d)| !dims[..i].contains(d));
        distinct && dims.iter().all(exists)
    }

    /// The number of elements; the largest number for dimensions that no array has.
    pub fn elements(&self) -> i64 {
        self.counted().map_or(i64::MAX, |(elements, _)| elements)
    }

    /// Bytes of a dense array of this shape; the largest number for dimensions that no array has.
    pub fn bytes(&self) -> u64 {
        self.counted().map_or(u64::MAX, |(_, bytes)| bytes)
    }

    /// Elements and bytes, if no dimension is negative and 63 bits count them. A dimension of 0
    /// does not make up for others that are too large, since whoever computes strides multiplies
    /// those.
    fn counted(&self) -> Option<(i64, u64)> {
        if self.dims.iter().any(|d| *d < 0) {
            return None;
        }
        let width = self.dtype.byte_width() as i64;
        let others: Vec<i64> = self.dims.iter().map(|d| (*d).max(1)).collect();
        let most = (Size::product(&others) * width).get()?;
        let empty = self.dims.contains(&0);
        Some(match empty {
            true => (0, 0),
            false => (most / width, most.unsigned_abs()),
        })
    }

    /// Why there can be no array of this shape.
    pub(crate) fn problem(&self) -> Option<String> {
        if self.dims.iter().any(|d| *d < 0) {
            return Some(format!("{self} has a negative dimension"));
        }
        let large = self.counted().is_none();
        large.then(|| format!("{self} takes more bytes than can be counted"))
    }
}

/// A dimension, or a number of elements, while it is computed. All arithmetic on such goes through
/// here: a formula reads as one, and what 64 bits cannot hold is found at its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size(Option<i128>);

impl Size {
    /// The number of elements of an array of `dims`.
    pub fn product(dims: &[i64]) -> Size {
        dims.iter().fold(Size::from(1), |n, d| n * *d)
    }

    /// What came out, if 64 bits hold it.
    pub fn get(self) -> Option<i64> {
        self.0.and_then(|n| n.try_into().ok())
    }
}

impl From<i64> for Size {
    fn from(size: i64) -> Size {
        Size(Some(size.into()))
    }
}

impl std::iter::Sum<i64> for Size {
    fn sum<I: Iterator<Item = i64>>(sizes: I) -> Size {
        sizes.fold(Size::from(0), |sum, size| sum + size)
    }
}

/// Implements one operator for sizes.
macro_rules! size_operator {
    ($trait:ident, $method:ident, $checked:ident) => {
        impl<N: Into<Size>> ops::$trait<N> for Size {
            type Output = Size;
            fn $method(self, other: N) -> Size {
                let other: Size = other.into();
                Size(self.0.zip(other.0).and_then(|(a, b)| a.$checked(b)))
            }
        }
    };
}

size_operator!(Add, add, checked_add);
size_operator!(Sub, sub, checked_sub);
size_operator!(Mul, mul, checked_mul);

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[", self.dtype.name())?;
        for (i, d) in self.dims.iter().enumerate() {
            write!(f, "{}{d}", if i == 0 { "" } else { "," })?;
        }
        f.write_str("]")
    }
}

/// Several shapes in a message.
pub(crate) fn list(shapes: &[Shape]) -> String {
    let names: Vec<String> = shapes.iter().map(|s| s.to_string()).collect();
    format!("({})", names.join(", "))
}

/// What a node produces: one array, or several for an operation with several results.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Type {
    Array(Shape),
    Tuple(Vec<Shape>),
}

impl Type {
    /// Why there can be no value of this type.
    pub(crate) fn problem(&self) -> Option<String> {
        match self {
            Type::Array(shape) => shape.problem(),
            Type::Tuple(shapes) => shapes.iter().find_map(Shape::problem),
        }
    }

    /// The shape of an array-typed value; a tuple shows as an empty `u8` array, which no operation
    /// accepts silently.
    pub(crate) fn array(&self) -> Shape {
        match self {
            Type::Array(s) => s.clone(),
            Type::Tuple(_) => Shape::new(DType::U8, [0]),
        }
    }
}
