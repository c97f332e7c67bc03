//! The text of the main function as it grows: its values, and reading and writing VMEM.

use std::collections::HashMap;
use std::fmt::Write;

use ankh_hlo::{DType, Shape};
use ankh_proto::xla::{HloComputationProto, HloInstructionProto, HloModuleProto};

use super::TextError;
use super::memory::{Region, Target};
use super::types::{memref, vector};

/// A value of the function. Its name has `held` as its type; as an operand of the body's operations
/// it is of `shape`, of as many elements. A reshape is written where it matters only: a change of
/// rank moves data between lanes and sublanes.
#[derive(Clone)]
pub(super) struct Value {
    pub name: String,
    pub held: Shape,
    pub shape: Shape,
}

/// A parameter of the body that is in VMEM.
#[derive(Clone)]
pub(super) struct Source {
    pub argument: usize,
    pub block: Shape,
    pub view: Shape,
    /// Which dimensions of the block the view has.
    pub kept: Vec<usize>,
    /// Whether the same memory is written at the end. Such a value is read once.
    pub carried: bool,
}

pub(super) struct Writer<'b> {
    pub text: String,
    pub next: usize,
    /// By instruction of the body.
    pub values: HashMap<i64, Value>,
    pub sources: HashMap<i64, Source>,
    /// What has been stored of carried blocks.
    pub stored: Vec<Region>,
    pub body: &'b HloModuleProto,
}

impl Writer<'_> {
    /// Writes an operation with one result of `shape`; gives the result.
    pub fn write(
        &mut self,
        operation: &str,
        operands: &[&Value],
        attributes: &str,
        shape: &Shape,
    ) -> Result<Value, TextError> {
        let names: Vec<&str> = operands.iter().map(|v| v.name.as_str()).collect();
        let types: Result<Vec<String>, _> = operands.iter().map(|v| vector(&v.held)).collect();
        let attributes = match attributes {
            "" => String::new(),
            some => format!(" {{{some}}}"),
        };
        let name = self.name();
        let _ = writeln!(
            self.text,
            "    {name} = \"stable_mosaic.{operation}\"({}){attributes} : ({}) -> {}",
            names.join(", "),
            types?.join(", "),
            vector(shape)?,
        );
        Ok(Value {
            name,
            held: shape.clone(),
            shape: shape.clone(),
        })
    }

    pub fn name(&mut self) -> String {
        self.next += 1;
        format!("%{}", self.next)
    }

    /// The same number in each element.
    pub fn constant(&mut self, shape: &Shape, value: f64) -> Result<Value, TextError> {
        let ty = vector(shape)?;
        let number = number(shape.dtype, value);
        let value = match shape.rank() {
            0 if shape.dtype == DType::Pred => format!("value = {}", value != 0.0),
            0 => format!("value = {number} : {ty}"),
            _ => format!("value = dense<{number}> : {ty}"),
        };
        self.write("arith.constant", &[], &value, shape)
    }

    /// Indices into a block: the first element of a part of it.
    pub fn indices(&mut self, starts: &[i64]) -> String {
        let mut indices = String::new();
        for start in starts {
            let index = self.name();
            let _ = writeln!(
                self.text,
                "    {index} = \"stable_mosaic.arith.constant\"() {{value = {start} : index}} : () -> index"
            );
            let _ = write!(indices, ", {index}");
        }
        indices
    }

    /// The part of a block that begins at `starts` and is as large as `part`.
    pub fn load(
        &mut self,
        argument: usize,
        block: &Shape,
        starts: &[i64],
        part: &Shape,
    ) -> Result<Value, TextError> {
        let indices = self.indices(starts);
        let name = self.name();
        let _ = writeln!(
            self.text,
            "    {name} = \"stable_mosaic.vector.load\"(%a{argument}{indices}) : ({}{}) -> {}",
            memref(block)?,
            ", index".repeat(block.rank()),
            vector(part)?,
        );
        Ok(Value {
            name,
            held: part.clone(),
            shape: part.clone(),
        })
    }

    pub fn store(
        &mut self,
        value: &Value,
        argument: usize,
        block: &Shape,
        starts: &[i64],
        part: &Shape,
    ) -> Result<(), TextError> {
        let value = self.cast(value, part)?;
        let indices = self.indices(starts);
        let _ = writeln!(
            self.text,
            "    \"stable_mosaic.tpu.vector_store\"({}, %a{argument}{indices}) {{add = false, \
             operandSegmentSizes = array<i32: 1, 1, {}, 0>, strides = array<i32>}} : ({}, {}{}) -> ()",
            value.name,
            block.rank(),
            vector(part)?,
            memref(block)?,
            ", index".repeat(block.rank()),
        );
        Ok(())
    }

    /// Stores something that the body gives.
    pub fn give(&mut self, target: &Target) -> Result<(), TextError> {
        let value = self.value(target.id)?;
        let region = &target.region;
        self.store(
            &value,
            region.argument,
            &target.block,
            &region.starts,
            &region.part,
        )?;
        if target.carried {
            self.stored.push(region.clone());
        }
        Ok(())
    }

    /// A value whose name has the type that `shape` says.
    pub fn cast(&mut self, value: &Value, shape: &Shape) -> Result<Value, TextError> {
        match value.held == *shape {
            true => Ok(value.clone()),
            false => self.write("vector.shape_cast", &[value], "", shape),
        }
    }

    /// A value whose name has the type that the body's operations expect.
    pub fn settled(&mut self, value: &Value) -> Result<Value, TextError> {
        self.cast(value, &value.shape)
    }

    /// An operand. What is in VMEM is read where it is used.
    pub fn value(&mut self, id: i64) -> Result<Value, TextError> {
        let Some(source) = self.sources.get(&id).cloned() else {
            let value = self.values.get(&id).cloned();
            // What is missing is a concatenation, which can only be given.
            return value.ok_or_else(|| self.refused(id));
        };
        if let Some(read) = self.values.get(&id) {
            return Ok(read.clone());
        }
        let whole = Region::whole(source.argument, &source.block);
        self.unspoilt(id, &whole)?;
        let value = self.load(source.argument, &source.block, &whole.starts, &source.block)?;
        let value = Value {
            shape: source.view,
            ..value
        };
        if source.carried {
            self.values.insert(id, value.clone());
        }
        Ok(value)
    }

    /// The refusal of an instruction.
    pub fn refused(&self, id: i64) -> TextError {
        let entry = computation(self.body, self.body.entry_computation_id);
        let of = |id: i64| entry.instructions.iter().find(move |i| i.id == id);
        let operands = of(id).map_or(&[][..], |i| &i.operand_ids);
        let shapes = operands.iter().filter_map(|&id| of(id));
        let shapes = shapes.map(|i| match shape(i) {
            Ok(shape) => shape.to_string(),
            Err(error) => error.to_string(),
        });
        TextError::Operation {
            operation: of(id).map_or(String::new(), |i| i.opcode.clone()),
            operands: shapes.collect::<Vec<_>>().join(" and "),
            source_line: of(id)
                .and_then(|i| i.metadata.as_ref())
                .map_or(String::new(), |m| {
                    format!("{}:{}", m.source_file, m.source_line)
                }),
        }
    }

    /// Refuses to read what is carried where the place has stored something new already.
    pub fn unspoilt(&self, id: i64, region: &Region) -> Result<(), TextError> {
        match self.stored.iter().any(|stored| stored.overlaps(region)) {
            true => Err(self.refused(id)),
            false => Ok(()),
        }
    }
}

pub(super) fn computation(body: &HloModuleProto, id: i64) -> &HloComputationProto {
    let mut computations = body.computations.iter();
    computations
        .find(|c| c.id == id)
        .expect("a lowered module has what its instructions call")
}

pub(super) fn shape(i: &HloInstructionProto) -> Result<Shape, TextError> {
    use ankh_proto::xla::PrimitiveType;
    let shape = i.shape.as_ref().expect("instructions have shapes");
    let dtype = match shape.element_type() {
        PrimitiveType::Pred => DType::Pred,
        PrimitiveType::S32 => DType::S32,
        PrimitiveType::Bf16 => DType::Bf16,
        PrimitiveType::F32 => DType::F32,
        // What the body gives, all together.
        PrimitiveType::Tuple => return Ok(Shape::new(DType::Pred, [])),
        other => return Err(TextError::ElementType(other.as_str_name().to_lowercase())),
    };
    Ok(Shape::new(dtype, shape.dimensions.clone()))
}

/// A number as MLIR writes it. Floating-point ones that decimals do not write are given by bits.
fn number(dtype: DType, value: f64) -> String {
    match dtype {
        DType::Pred => (value != 0.0).to_string(),
        DType::F32 if !value.is_finite() => format!("0x{:08X}", (value as f32).to_bits()),
        DType::Bf16 if !value.is_finite() => format!("0x{:04X}", (value as f32).to_bits() >> 16),
        // MLIR wants a decimal point.
        _ if dtype.is_float() => format!("{value:.17e}"),
        _ => format!("{value}"),
    }
}
