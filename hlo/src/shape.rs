//! Element types, array shapes and the type of a node's value.

use std::fmt;

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

    /// Whether a constant of this type can stand for `value`: an integer in range, or any number rounded to a
    /// floating-point type.
    pub(crate) fn holds(self, value: f64) -> bool {
        let (low, high) = match self {
            DType::Pred => (0.0, 1.0),
            DType::U8 => (0.0, f64::from(u8::MAX)),
            DType::U32 => (0.0, f64::from(u32::MAX)),
            DType::U64 => (0.0, u64::MAX as f64),
            DType::S32 => (f64::from(i32::MIN), f64::from(i32::MAX)),
            DType::S64 => (i64::MIN as f64, i64::MAX as f64),
            _ => return true,
        };
        value.fract() == 0.0 && (low..=high).contains(&value)
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

    /// The number of elements.
    pub fn elements(&self) -> i64 {
        self.dims.iter().fold(1, |n, d| n.saturating_mul(*d))
    }

    /// Bytes of a dense array of this shape.
    pub fn bytes(&self) -> u64 {
        (self.elements() as u64).saturating_mul(self.dtype.byte_width() as u64)
    }
}

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
    /// The shape of an array-typed value; a tuple shows as an empty `u8` array, which no operation accepts silently.
    pub(crate) fn array(&self) -> Shape {
        match self {
            Type::Array(s) => s.clone(),
            Type::Tuple(_) => Shape::new(DType::U8, [0]),
        }
    }
}
