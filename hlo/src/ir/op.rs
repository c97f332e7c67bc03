//! The operations that a program is made of. Each is pure: its results are a function of its
//! inputs.

use std::rc::Rc;

use super::Function;
use crate::literal::Literal;
use crate::shape::Shape;
use crate::sharding::Sharding;

/// One input, one output, element by element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unary {
    /// |x|
    Abs,
    /// The next integer up.
    Ceil,
    /// Cosine.
    Cos,
    /// The error function.
    Erf,
    /// e^x
    Exp,
    /// e^x - 1
    Expm1,
    /// The next integer down.
    Floor,
    /// Natural logarithm.
    Log,
    /// ln(1 + x)
    Log1p,
    /// 1 / (1 + e^-x)
    Logistic,
    /// -x
    Neg,
    /// Logical or bitwise not.
    Not,
    /// x^(-1/2)
    Rsqrt,
    /// -1, 0 or 1
    Sign,
    /// Sine.
    Sin,
    /// Square root.
    Sqrt,
    /// Hyperbolic tangent.
    Tanh,
}

/// Two inputs of one shape, element by element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Binary {
    /// x + y
    Add,
    /// Logical or bitwise and.
    And,
    /// x / y
    Div,
    /// The larger.
    Max,
    /// The smaller.
    Min,
    /// x * y
    Mul,
    /// Logical or bitwise or.
    Or,
    /// x^y
    Pow,
    /// The remainder, with the sign of the dividend.
    Rem,
    /// x * 2^y
    ShiftLeft,
    /// x / 2^y, filling with zeros.
    ShiftRight,
    /// x - y
    Sub,
    /// Logical or bitwise exclusive or.
    Xor,
}

/// How two elements are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Comparison {
    /// =
    Eq,
    /// not =
    Ne,
    /// <
    Lt,
    /// <=
    Le,
    /// >
    Gt,
    /// >=
    Ge,
}

/// How a reduction combines elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reduction {
    /// The sum, from 0.
    Sum,
    /// The largest, from minus infinity.
    Max,
    /// The smallest, from infinity.
    Min,
}

/// Which dimensions of a dot product are paired: `batch` ones kept, `contract` ones summed over.
/// The result is batch dimensions, then the left's others, then the right's others.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct DotDims {
    /// Batch dimensions of the left operand.
    pub lhs_batch: Vec<i64>,
    /// Batch dimensions of the right operand, in the left's order.
    pub rhs_batch: Vec<i64>,
    /// Summed dimensions of the left operand.
    pub lhs_contract: Vec<i64>,
    /// Summed dimensions of the right operand, in the left's order.
    pub rhs_contract: Vec<i64>,
}

/// A counter-based random generator that XLA implements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RngAlgorithm {
    /// Threefry-2x32; state `u64[2]`.
    ThreeFry,
    /// Philox-4x32; state `u64[3]`.
    Philox,
}

/// Padding of one dimension: elements before, after, and between neighbors; negative edges crop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct PadDim {
    /// Before the first element.
    pub low: i64,
    /// After the last element.
    pub high: i64,
    /// Between each two neighbors.
    pub interior: i64,
}

/// A loop over the leading dimension: `body(carries.., slices.., constants..) -> (carries..,
/// results..)`.
#[derive(Clone)]
pub(crate) struct Scan {
    pub body: Rc<Function>,
    pub carries: usize,
    pub xs: usize,
    pub length: i64,
    pub reverse: bool,
    /// How many steps one iteration of the loop computes: a divisor of `length`.
    pub unroll: i64,
    pub remat: Remat,
}

impl Scan {
    /// Last carries, then results stacked over the steps.
    pub(crate) fn result_shapes(&self) -> Vec<Shape> {
        let mut shapes = self.body.output_shapes();
        for s in &mut shapes[self.carries..] {
            s.dims.insert(0, self.length);
        }
        shapes
    }
}

/// What a scan's forward pass keeps for its derivative. The rest is computed again, one step of the
/// loop at a time.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Remat {
    /// Keep the carries only: least memory, one more forward pass.
    #[default]
    SaveNothing,
    /// Keep each value that a derivative rule asks for: no recomputation but that of reshapes and
    /// broadcasts.
    SaveAll,
    /// Keep the carries and the values given one of these names by
    /// [`Tensor::checkpoint_name`](crate::Tensor::checkpoint_name).
    Named(Vec<Rc<str>>),
}

/// What a custom call names and hands over to the plugin.
#[derive(Clone, Debug)]
pub struct CustomCall {
    /// What the plugin knows it by, `tpu_custom_call` for example.
    pub target: Rc<str>,
    /// The instruction's name, which profiles and dumps show.
    pub name: Rc<str>,
    /// What the plugin's own code reads (in HLO: `backend_config`).
    pub backend_config: Rc<str>,
    /// What stays with the instruction through all passes, by name.
    pub frontend_attributes: Vec<(Rc<str>, Rc<str>)>,
}

/// A part of the program written for one device: from its shards of the inputs to its shards of
/// the results.
#[derive(Clone)]
pub(crate) struct ManualComputation {
    pub function: Rc<Function>,
    pub in_shardings: Vec<Sharding>,
    pub out_shardings: Vec<Sharding>,
}

/// The number of a hand-written VJP in its graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct VjpRuleId(pub usize);

/// What a node computes from its inputs.
#[derive(Clone)]
pub(crate) enum Op {
    /// Stands where an operation was refused; never lowered, because the graph holds an error.
    Invalid,
    Parameter {
        name: Rc<str>,
        sharding: Option<Sharding>,
    },
    Constant(Literal),
    Iota {
        dim: i64,
    },
    Unary(Unary),
    Binary(Binary),
    Compare(Comparison),
    /// (predicate, on true, on false)
    Select,
    Convert,
    /// Input dimension `i` becomes output dimension `dims[i]`.
    Broadcast {
        dims: Vec<i64>,
    },
    Reshape,
    Transpose {
        permutation: Vec<i64>,
    },
    Dot {
        dims: DotDims,
    },
    Reduce {
        kind: Reduction,
        dims: Vec<i64>,
    },
    Slice {
        start: Vec<i64>,
        limit: Vec<i64>,
        stride: Vec<i64>,
    },
    /// (operand, one scalar start a dimension)
    DynamicSlice {
        sizes: Vec<i64>,
    },
    /// (operand, update, one scalar start a dimension)
    DynamicUpdateSlice,
    /// (operand, scalar filling)
    Pad {
        dims: Vec<PadDim>,
    },
    Concatenate {
        dim: i64,
    },
    Reverse {
        dims: Vec<i64>,
    },
    /// (table [rows, ..], indices) -> [indices.., ..]
    GatherRows,
    /// (table [rows, ..], indices, updates [indices.., ..]) -> table with the updates added
    ScatterAddRows,
    /// state -> (state, bits)
    RngBits {
        algorithm: RngAlgorithm,
    },
    /// state.. ++ constants.. -> state..
    While {
        condition: Rc<Function>,
        body: Rc<Function>,
        state: usize,
    },
    /// (predicate, operands..): the first branch on true.
    Conditional {
        on_true: Rc<Function>,
        on_false: Rc<Function>,
    },
    Call {
        function: Rc<Function>,
    },
    CustomCall(CustomCall),
    ManualComputation(ManualComputation),
    Scan(Scan),
    /// One result of an operation with several.
    GetTupleElement {
        index: usize,
    },
    OptimizationBarrier,
    /// The same value, under a name that a remat policy can save.
    CheckpointName {
        name: Rc<str>,
    },
    ShardingConstraint {
        sharding: Sharding,
    },
    /// The same value, with no derivative.
    StopGradient,
    /// (output, inputs.., residuals..): the output, with a derivative for the inputs.
    CustomVjp {
        inputs: usize,
        rule: VjpRuleId,
    },
}

impl Op {
    /// The operation's name in messages and instruction names.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Op::Invalid => "invalid",
            Op::Parameter { .. } => "parameter",
            Op::Constant(_) => "constant",
            Op::Iota { .. } => "iota",
            Op::Unary(u) => u.opcode(),
            Op::Binary(b) => b.opcode(),
            Op::Compare(_) => "compare",
            Op::Select => "select",
            Op::Convert => "convert",
            Op::Broadcast { .. } => "broadcast",
            Op::Reshape => "reshape",
            Op::Transpose { .. } => "transpose",
            Op::Dot { .. } => "dot",
            Op::Reduce { .. } => "reduce",
            Op::Slice { .. } => "slice",
            Op::DynamicSlice { .. } => "dynamic-slice",
            Op::DynamicUpdateSlice => "dynamic-update-slice",
            Op::Pad { .. } => "pad",
            Op::Concatenate { .. } => "concatenate",
            Op::Reverse { .. } => "reverse",
            Op::GatherRows => "gather",
            Op::ScatterAddRows => "scatter",
            Op::RngBits { .. } => "rng-bit-generator",
            Op::While { .. } => "while",
            Op::Conditional { .. } => "conditional",
            Op::Call { .. } => "call",
            Op::CustomCall(_) => "custom-call",
            Op::ManualComputation(_) => "shard_map",
            Op::Scan(_) => "scan",
            Op::GetTupleElement { .. } => "get-tuple-element",
            Op::OptimizationBarrier => "opt-barrier",
            Op::CheckpointName { .. } => "name",
            Op::ShardingConstraint { .. } => "sharding-constraint",
            Op::StopGradient => "stop-gradient",
            Op::CustomVjp { .. } => "custom-vjp",
        }
    }
}

impl Unary {
    /// The opcode in HLO.
    pub fn opcode(self) -> &'static str {
        match self {
            Unary::Abs => "abs",
            Unary::Ceil => "ceil",
            Unary::Cos => "cosine",
            Unary::Erf => "erf",
            Unary::Exp => "exponential",
            Unary::Expm1 => "exponential-minus-one",
            Unary::Floor => "floor",
            Unary::Log => "log",
            Unary::Log1p => "log-plus-one",
            Unary::Logistic => "logistic",
            Unary::Neg => "negate",
            Unary::Not => "not",
            Unary::Rsqrt => "rsqrt",
            Unary::Sign => "sign",
            Unary::Sin => "sine",
            Unary::Sqrt => "sqrt",
            Unary::Tanh => "tanh",
        }
    }
}

impl Binary {
    /// The opcode in HLO.
    pub fn opcode(self) -> &'static str {
        match self {
            Binary::Add => "add",
            Binary::And => "and",
            Binary::Div => "divide",
            Binary::Max => "maximum",
            Binary::Min => "minimum",
            Binary::Mul => "multiply",
            Binary::Or => "or",
            Binary::Pow => "power",
            Binary::Rem => "remainder",
            Binary::ShiftLeft => "shift-left",
            Binary::ShiftRight => "shift-right-logical",
            Binary::Sub => "subtract",
            Binary::Xor => "xor",
        }
    }

    /// Whether it works on truth values and integers only.
    pub(crate) fn is_bitwise(self) -> bool {
        matches!(
            self,
            Binary::And | Binary::Or | Binary::Xor | Binary::ShiftLeft | Binary::ShiftRight
        )
    }
}

impl Comparison {
    /// The direction's name in HLO.
    pub fn direction(self) -> &'static str {
        match self {
            Comparison::Eq => "EQ",
            Comparison::Ne => "NE",
            Comparison::Lt => "LT",
            Comparison::Le => "LE",
            Comparison::Gt => "GT",
            Comparison::Ge => "GE",
        }
    }
}
