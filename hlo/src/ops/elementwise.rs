//! Operations element by element. Two operands of different shapes are broadcast as NumPy does:
//! aligned at the last dimension, a missing dimension or one of size 1 repeats.

use std::ops;

use crate::graph::Tensor;
use crate::ir::{Binary, Comparison, Op, Unary};
use crate::shape::{DType, Shape};

/// Implements methods that apply one unary operation to floating-point elements.
macro_rules! unary_methods {
    ($($(#[$doc:meta])* $name:ident => $op:ident),* $(,)?) => {
        impl<'g> Tensor<'g> {
            $($(#[$doc])* #[track_caller] pub fn $name(self) -> Tensor<'g> { self.unary(Unary::$op) })*
        }
    };
}

unary_methods! {
    /// |x|
    abs => Abs,
    /// The next integer up.
    ceil => Ceil,
    /// Cosine.
    cos => Cos,
    /// The error function.
    erf => Erf,
    /// e^x
    exp => Exp,
    /// e^x - 1, exact near 0.
    expm1 => Expm1,
    /// The next integer down.
    floor => Floor,
    /// Natural logarithm.
    log => Log,
    /// ln(1 + x), exact near 0.
    log1p => Log1p,
    /// 1 / (1 + e^-x)
    logistic => Logistic,
    /// x^(-1/2)
    rsqrt => Rsqrt,
    /// -1, 0 or 1
    sign => Sign,
    /// Sine.
    sin => Sin,
    /// Square root.
    sqrt => Sqrt,
    /// Hyperbolic tangent.
    tanh => Tanh,
}

/// Implements methods that compare two tensors.
macro_rules! comparison_methods {
    ($($(#[$doc:meta])* $name:ident => $op:ident),* $(,)?) => {
        impl<'g> Tensor<'g> {
            $($(#[$doc])* #[track_caller] pub fn $name(self, other: Tensor<'g>) -> Tensor<'g> {
                self.compare(Comparison::$op, other)
            })*
        }
    };
}

comparison_methods! {
    /// Where the two are equal.
    equal => Eq,
    /// Where the two differ.
    not_equal => Ne,
    /// Where the left is less.
    less => Lt,
    /// Where the left is less or equal.
    less_equal => Le,
    /// Where the left is greater.
    greater => Gt,
    /// Where the left is greater or equal.
    greater_equal => Ge,
}

impl<'g> Tensor<'g> {
    #[track_caller]
    pub(crate) fn unary(self, op: Unary) -> Tensor<'g> {
        let shape = self.shape();
        let accepts = match op {
            Unary::Not => !shape.dtype.is_float(),
            Unary::Neg | Unary::Abs | Unary::Sign => shape.dtype != DType::Pred,
            _ => shape.dtype.is_float(),
        };
        if !accepts {
            return self
                .graph()
                .refuse(op.opcode(), format!("not defined for {shape}"));
        }
        self.graph().emit(Op::Unary(op), &[self], shape)
    }

    #[track_caller]
    pub(crate) fn binary(self, op: Binary, other: Tensor<'g>) -> Tensor<'g> {
        let Some((x, y)) = self.aligned(op.opcode(), other) else {
            return self;
        };
        let shape = x.shape();
        let accepts = match shape.dtype {
            DType::Pred => matches!(op, Binary::And | Binary::Or | Binary::Xor),
            d => !(op.is_bitwise() && d.is_float()),
        };
        if !accepts {
            return self
                .graph()
                .refuse(op.opcode(), format!("not defined for {shape}"));
        }
        self.graph().emit(Op::Binary(op), &[x, y], shape)
    }

    #[track_caller]
    fn compare(self, op: Comparison, other: Tensor<'g>) -> Tensor<'g> {
        let Some((x, y)) = self.aligned("compare", other) else {
            return self;
        };
        self.graph()
            .emit(Op::Compare(op), &[x, y], Shape::new(DType::Pred, x.dims()))
    }

    /// The larger of the two.
    #[track_caller]
    pub fn maximum(self, other: Tensor<'g>) -> Tensor<'g> {
        self.binary(Binary::Max, other)
    }

    /// The smaller of the two.
    #[track_caller]
    pub fn minimum(self, other: Tensor<'g>) -> Tensor<'g> {
        self.binary(Binary::Min, other)
    }

    /// self^exponent
    #[track_caller]
    pub fn pow(self, exponent: Tensor<'g>) -> Tensor<'g> {
        self.binary(Binary::Pow, exponent)
    }

    /// The product with itself.
    #[track_caller]
    pub fn square(self) -> Tensor<'g> {
        self * self
    }

    /// Logical (or bitwise) not.
    #[track_caller]
    pub fn logical_not(self) -> Tensor<'g> {
        self.unary(Unary::Not)
    }

    /// Where `self` is true the element of `on_true`, elsewhere that of `on_false`.
    #[track_caller]
    pub fn select(self, on_true: Tensor<'g>, on_false: Tensor<'g>) -> Tensor<'g> {
        let Some((x, y)) = on_true.aligned("select", on_false) else {
            return on_true;
        };
        let dims = match broadcast_dims(&self.dims(), &x.dims()) {
            Some(d) if self.dtype() == DType::Pred => d,
            _ => {
                let problem = format!(
                    "{} cannot choose between two of {}",
                    self.shape(),
                    x.shape()
                );
                return self.graph().refuse("select", problem);
            }
        };
        let (p, x, y) = (
            self.broadcast_to(&dims),
            x.broadcast_to(&dims),
            y.broadcast_to(&dims),
        );
        self.graph().emit(Op::Select, &[p, x, y], x.shape())
    }

    /// The same values as another element type.
    #[track_caller]
    pub fn convert(self, dtype: DType) -> Tensor<'g> {
        let shape = self.shape();
        if shape.dtype == dtype {
            return self;
        }
        self.graph()
            .emit(Op::Convert, &[self], Shape::new(dtype, shape.dims))
    }

    /// `value` in each element, in this tensor's shape.
    #[track_caller]
    pub fn full_like(self, value: f64) -> Tensor<'g> {
        self.graph().full(&self.shape(), value)
    }

    /// Zeros of this tensor's shape.
    #[track_caller]
    pub fn zeros_like(self) -> Tensor<'g> {
        self.full_like(0.0)
    }

    /// Both broadcast to their common shape; a mistake is noted and gives `None`.
    #[track_caller]
    fn aligned(
        self,
        operation: &'static str,
        other: Tensor<'g>,
    ) -> Option<(Tensor<'g>, Tensor<'g>)> {
        let (a, b) = (self.shape(), other.shape());
        let dims = if a.dtype == b.dtype {
            broadcast_dims(&a.dims, &b.dims)
        } else {
            None
        };
        let Some(dims) = dims else {
            self.graph()
                .refuse(operation, format!("{a} and {b} do not go together"));
            return None;
        };
        Some((self.broadcast_to(&dims), other.broadcast_to(&dims)))
    }
}

/// The shape two shapes broadcast to, if there is one.
fn broadcast_dims(a: &[i64], b: &[i64]) -> Option<Vec<i64>> {
    let rank = a.len().max(b.len());
    let at = |s: &[i64], i: usize| (i + s.len()).checked_sub(rank).map_or(1, |i| s[i]);
    (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (x, y) if x == y => Some(x),
            (1, y) => Some(y),
            (x, 1) => Some(x),
            _ => None,
        })
        .collect()
}

/// Implements one arithmetic operator for tensors and numbers.
macro_rules! operator {
    ($trait:ident, $method:ident, $op:ident) => {
        impl<'g> ops::$trait for Tensor<'g> {
            type Output = Tensor<'g>;
            #[track_caller]
            fn $method(self, other: Tensor<'g>) -> Tensor<'g> {
                self.binary(Binary::$op, other)
            }
        }
        impl<'g> ops::$trait<f64> for Tensor<'g> {
            type Output = Tensor<'g>;
            #[track_caller]
            fn $method(self, other: f64) -> Tensor<'g> {
                self.binary(Binary::$op, self.full_like(other))
            }
        }
        impl<'g> ops::$trait<Tensor<'g>> for f64 {
            type Output = Tensor<'g>;
            #[track_caller]
            fn $method(self, other: Tensor<'g>) -> Tensor<'g> {
                other.full_like(self).binary(Binary::$op, other)
            }
        }
    };
}

operator!(Add, add, Add);
operator!(Sub, sub, Sub);
operator!(Mul, mul, Mul);
operator!(Div, div, Div);
operator!(Rem, rem, Rem);

/// Implements one bitwise operator for tensors.
macro_rules! bitwise_operator {
    ($trait:ident, $method:ident, $op:ident) => {
        impl<'g> ops::$trait for Tensor<'g> {
            type Output = Tensor<'g>;
            #[track_caller]
            fn $method(self, other: Tensor<'g>) -> Tensor<'g> {
                self.binary(Binary::$op, other)
            }
        }
    };
}

bitwise_operator!(BitAnd, bitand, And);
bitwise_operator!(BitOr, bitor, Or);
bitwise_operator!(BitXor, bitxor, Xor);
bitwise_operator!(Shl, shl, ShiftLeft);
bitwise_operator!(Shr, shr, ShiftRight);

impl<'g> ops::Neg for Tensor<'g> {
    type Output = Tensor<'g>;
    #[track_caller]
    fn neg(self) -> Tensor<'g> {
        self.unary(Unary::Neg)
    }
}
