//! The operations of a body, one by one.

use ankh_hlo::{DType, Shape};
use ankh_proto::xla::HloInstructionProto;

use super::TextError;
use super::memory::Region;
use super::types::numbers;
use super::writer::{Value, Writer, computation};

impl Writer<'_> {
    /// A part of what is in VMEM, without reading the rest.
    fn slice(&mut self, i: &HloInstructionProto, shape: &Shape) -> Result<Value, TextError> {
        let source = self.sources.get(&i.operand_ids[0]).cloned();
        let plain = i.slice_dimensions.iter().all(|dim| dim.stride == 1);
        let Some(source) = source.filter(|_| plain) else {
            return Err(self.refused(i.id));
        };
        let mut region = Region::whole(source.argument, &source.block);
        for (&dim, slice) in source.kept.iter().zip(&i.slice_dimensions) {
            region.starts[dim] = slice.start;
            region.part.dims[dim] = slice.limit - slice.start;
        }
        self.unspoilt(i.id, &region)?;
        let value = self.load(source.argument, &source.block, &region.starts, &region.part)?;
        Ok(Value {
            shape: shape.clone(),
            ..value
        })
    }

    pub fn operation(
        &mut self,
        i: &HloInstructionProto,
        shape: &Shape,
    ) -> Result<Value, TextError> {
        if i.opcode == "slice" {
            return self.slice(i, shape);
        }
        let operands = i.operand_ids.iter().map(|&id| self.value(id));
        let operands: Vec<Value> = operands.collect::<Result<_, _>>()?;
        match i.opcode.as_str() {
            "constant" => {
                let value = i.literal.as_ref().and_then(splat);
                let value = value.ok_or_else(|| self.refused(i.id))?;
                return self.constant(shape, value);
            }
            "reshape" => {
                return Ok(Value {
                    shape: shape.clone(),
                    ..operands[0].clone()
                });
            }
            "broadcast" => return self.broadcast(&operands[0], &i.dimensions, shape),
            "iota" => {
                let dims = format!("dimensions = array<i32: {}>", numbers(&i.dimensions));
                return self.write("tpu.iota", &[], &dims, shape);
            }
            "reduce" => return self.reduce(i, &operands[0], shape),
            _ => {}
        }
        let mut settled = vec![];
        for operand in &operands {
            settled.push(self.settled(operand)?);
        }
        let operands: Vec<&Value> = settled.iter().collect();
        let of = operands.first().map_or(DType::F32, |v| v.shape.dtype);
        let float = of.is_float();
        let fast = "fastmath = #arith.fastmath<none>";
        let (name, attributes) = match (i.opcode.as_str(), float) {
            ("add", true) => ("arith.addf", fast.into()),
            ("subtract", true) => ("arith.subf", fast.into()),
            ("multiply", true) => ("arith.mulf", fast.into()),
            ("divide", true) => ("arith.divf", fast.into()),
            ("maximum", true) => ("arith.maximumf", fast.into()),
            ("minimum", true) => ("arith.minimumf", fast.into()),
            ("negate", true) => ("arith.negf", fast.into()),
            ("exponential", true) => ("math.exp", fast.into()),
            ("log", true) => ("math.log", fast.into()),
            ("rsqrt", true) => ("math.rsqrt", fast.into()),
            ("sqrt", true) => ("math.sqrt", fast.into()),
            ("tanh", true) => ("math.tanh", fast.into()),
            ("abs", true) => ("math.absf", fast.into()),
            ("add", false) => ("arith.addi", no_overflow()),
            ("subtract", false) => ("arith.subi", no_overflow()),
            ("multiply", false) => ("arith.muli", no_overflow()),
            ("maximum", false) => ("arith.maxsi", String::new()),
            ("minimum", false) => ("arith.minsi", String::new()),
            ("and", false) => ("arith.andi", String::new()),
            ("or", false) => ("arith.ori", String::new()),
            ("xor", false) => ("arith.xori", String::new()),
            ("select", _) => ("arith.select", String::new()),
            // A chip compares for equality alone.
            ("compare", true) if i.comparison_direction == "NE" => {
                let equal = format!("{fast}, predicate = 1 : i64");
                let equal = self.write("arith.cmpf", &operands, &equal, shape)?;
                let all = self.constant(shape, 1.0)?;
                return self.write("arith.xori", &[&equal, &all], "", shape);
            }
            ("compare", _) => {
                let predicate = predicate(&i.comparison_direction, float);
                let predicate = predicate.ok_or_else(|| self.refused(i.id))?;
                match float {
                    true => (
                        "arith.cmpf",
                        format!("{fast}, predicate = {predicate} : i64"),
                    ),
                    false => ("arith.cmpi", format!("predicate = {predicate} : i64")),
                }
            }
            ("convert", _) => {
                let name = conversion(of, shape.dtype).ok_or_else(|| self.refused(i.id))?;
                (name, String::new())
            }
            ("transpose", _) => {
                let permutation = numbers(&i.dimensions);
                (
                    "vector.transpose",
                    format!("permutation = array<i64: {permutation}>"),
                )
            }
            ("dot", true) => return self.dot(i, operands[0], operands[1], shape),
            _ => return Err(self.refused(i.id)),
        };
        self.write(name, &operands, &attributes, shape)
    }

    /// Input dimension `d` becomes dimension `dims[d]` of `shape`; the others are filled.
    fn broadcast(
        &mut self,
        value: &Value,
        dims: &[i64],
        shape: &Shape,
    ) -> Result<Value, TextError> {
        if value.shape.rank() == 0 {
            let value = self.settled(value)?;
            return self.write("vector.broadcast", &[&value], "", shape);
        }
        let mut sizes = vec![1; shape.rank()];
        for (&dim, &size) in dims.iter().zip(&value.shape.dims) {
            sizes[dim as usize] = size;
        }
        let value = self.cast(value, &Shape::new(shape.dtype, sizes))?;
        match value.held == *shape {
            true => Ok(value),
            false => self.write("vector.broadcast", &[&value], "", shape),
        }
    }

    fn reduce(
        &mut self,
        i: &HloInstructionProto,
        value: &Value,
        shape: &Shape,
    ) -> Result<Value, TextError> {
        let reducer = i.called_computation_ids.first().copied().unwrap_or(0);
        let reducer = computation(self.body, reducer);
        let root = reducer
            .instructions
            .iter()
            .find(|i| i.id == reducer.root_id);
        let combines = root.map_or("", |root| root.opcode.as_str());
        let (kind, init) = match (combines, shape.dtype.is_float()) {
            ("add", true) => ("add", 0.0),
            ("maximum", true) => ("maximumf", f64::NEG_INFINITY),
            ("minimum", true) => ("minimumf", f64::INFINITY),
            _ => return Err(self.refused(i.id)),
        };
        let value = self.settled(value)?;
        let init = self.constant(shape, init)?;
        let attributes = format!(
            "kind = #vector.kind<{kind}>, reduction_dims = array<i64: {}>",
            numbers(&i.dimensions)
        );
        self.write(
            "vector.multi_reduction",
            &[&value, &init],
            &attributes,
            shape,
        )
    }

    /// A product of two matrices, summed in float32. Operands of float32 are not rounded for it.
    fn dot(
        &mut self,
        i: &HloInstructionProto,
        lhs: &Value,
        rhs: &Value,
        shape: &Shape,
    ) -> Result<Value, TextError> {
        let dims = i.dot_dimension_numbers.as_ref();
        let contracted = dims.map(|dims| {
            (
                &dims.lhs_contracting_dimensions[..],
                &dims.rhs_contracting_dimensions[..],
            )
        });
        let matrices = lhs.shape.rank() == 2 && rhs.shape.rank() == 2;
        let (Some((&[l], &[r])), true) = (contracted, matrices) else {
            return Err(self.refused(i.id));
        };
        let wide = Shape::new(DType::F32, shape.dims.clone());
        let zero = self.constant(&wide, 0.0)?;
        let precision = match lhs.shape.dtype {
            DType::F32 => "precision = #tpu.contract_precision<fp32>, ",
            _ => "",
        };
        let attributes = format!(
            "{precision}dimension_numbers = #tpu.dot_dimension_numbers<[{l}], [{r}], [{}], [{}], \
             [0, {}, 1, {}], [], []>, transpose_lhs = false, transpose_rhs = false",
            1 - l,
            1 - r,
            1 - l,
            1 - r,
        );
        let product = self.write("tpu.matmul", &[lhs, rhs, &zero], &attributes, &wide)?;
        match conversion(DType::F32, shape.dtype) {
            Some(narrow) => self.write(narrow, &[&product], "", shape),
            None => Ok(product),
        }
    }
}

/// The value of a scalar constant.
fn splat(literal: &ankh_proto::xla::LiteralProto) -> Option<f64> {
    let numbers = (
        literal.preds.as_slice(),
        literal.s32s.as_slice(),
        literal.f32s.as_slice(),
        literal.bf16s.as_slice(),
    );
    Some(match numbers {
        (&[value], _, _, _) => f64::from(u8::from(value)),
        (_, &[value], _, _) => value.into(),
        (_, _, &[value], _) => value.into(),
        (_, _, _, &[low, high]) => f32::from_bits(u32::from_le_bytes([0, 0, low, high])).into(),
        _ => return None,
    })
}

/// MLIR's number for a comparison; those of floating-point numbers are false for NaN.
fn predicate(direction: &str, float: bool) -> Option<u32> {
    Some(match (direction, float) {
        ("EQ", true) => 1,
        ("GT", true) => 2,
        ("GE", true) => 3,
        ("LT", true) => 4,
        ("LE", true) => 5,
        ("EQ", false) => 0,
        ("NE", false) => 1,
        ("LT", false) => 2,
        ("LE", false) => 3,
        ("GT", false) => 4,
        ("GE", false) => 5,
        _ => return None,
    })
}

fn conversion(from: DType, to: DType) -> Option<&'static str> {
    Some(match (from, to) {
        (DType::F32, DType::Bf16) => "arith.truncf",
        (DType::Bf16, DType::F32) => "arith.extf",
        (DType::Pred, DType::S32) => "arith.extui",
        (DType::S32, DType::F32) => "arith.sitofp",
        _ => return None,
    })
}

fn no_overflow() -> String {
    "overflowFlags = #arith.overflow<none>".into()
}
