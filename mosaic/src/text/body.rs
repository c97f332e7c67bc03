//! The main function of a kernel: what is carried begins, the body is computed, outputs are stored.

use std::collections::HashMap;
use std::fmt::Write;

use ankh_hlo::{DType, Shape};
use ankh_proto::xla::HloModuleProto;

use super::memory::{carried_arguments, targets};
use super::writer::{Source, Value, Writer, computation, shape};
use super::{TextError, argument_types, attributes};
use crate::kernel::Kernel;

/// The main function.
pub(super) fn function(kernel: &Kernel, body: &HloModuleProto) -> Result<String, TextError> {
    let types = argument_types(kernel)?;
    let arguments = types.iter().enumerate();
    let arguments: Vec<String> = arguments.map(|(i, ty)| format!("%a{i}: {ty}")).collect();
    let mut writer = Writer {
        text: String::new(),
        next: 0,
        values: HashMap::new(),
        sources: HashMap::new(),
        stored: vec![],
        body,
    };
    writer.carried(kernel)?;
    writer.computation(kernel)?;
    Ok(format!(
        "  \"stable_mosaic.func.func\"() ({{\n  ^bb0({}):\n{}    \
         \"stable_mosaic.func.return\"() : () -> ()\n  }}) {} : () -> ()\n",
        arguments.join(", "),
        writer.text,
        attributes(kernel, &types),
    ))
}

impl Writer<'_> {
    /// Sets what is carried to what it begins as, where it begins.
    fn carried(&mut self, kernel: &Kernel) -> Result<(), TextError> {
        for (argument, block, carried) in carried_arguments(kernel) {
            let block = block.shape();
            let mut first: Option<Value> = None;
            for axis in carried.first_axis..kernel.grid.len() {
                let scalar = Shape::new(DType::S32, []);
                let place = Value {
                    name: format!("%a{axis}"),
                    held: scalar.clone(),
                    shape: scalar.clone(),
                };
                let zero = self.constant(&scalar, 0.0)?;
                let truth = Shape::new(DType::Pred, []);
                let begins = self.write(
                    "arith.cmpi",
                    &[&place, &zero],
                    "predicate = 0 : i64",
                    &truth,
                )?;
                first = Some(match first {
                    Some(first) => self.write("arith.andi", &[&first, &begins], "", &truth)?,
                    None => begins,
                });
            }
            if let Some(first) = &first {
                let _ = writeln!(
                    self.text,
                    "    \"stable_mosaic.scf.if\"({}) ({{",
                    first.name
                );
            }
            let init = self.constant(&carried.shape, carried.init)?;
            self.store(&init, argument, &block, &vec![0; block.rank()], &block)?;
            if first.is_some() {
                self.text.push_str(
                    "    \"stable_mosaic.scf.yield\"() : () -> ()\n    }, {\n    \
                     \"stable_mosaic.scf.yield\"() : () -> ()\n    }) : (i1) -> ()\n",
                );
            }
        }
        Ok(())
    }

    fn computation(&mut self, kernel: &Kernel) -> Result<(), TextError> {
        let body = self.body;
        let entry = computation(body, body.entry_computation_id);
        let places = kernel.grid.len();
        let inputs = kernel.inputs.iter().enumerate().map(|(i, block)| Source {
            argument: places + i,
            block: block.shape(),
            view: block.view(),
            kept: block.kept(),
            carried: false,
        });
        let carried = carried_arguments(kernel).into_iter();
        let carried = carried.map(|(argument, block, carried)| Source {
            argument,
            kept: block.kept(),
            block: block.shape(),
            view: carried.shape,
            carried: true,
        });
        let sources: Vec<Source> = inputs.chain(carried).collect();
        let targets = targets(kernel, entry);
        for instruction in &entry.instructions {
            let shape = shape(instruction)?;
            match (instruction.opcode.as_str(), instruction.parameter_number) {
                ("parameter", number) if (number as usize) < places => {
                    let value = Value {
                        name: format!("%a{number}"),
                        held: shape.clone(),
                        shape,
                    };
                    self.values.insert(instruction.id, value);
                }
                ("parameter", number) => {
                    let source = sources[number as usize - places].clone();
                    self.sources.insert(instruction.id, source);
                }
                ("tuple", _) => {}
                // What is put together exists in VMEM only.
                ("concatenate", _) => {}
                _ => {
                    let value = self.operation(instruction, &shape)?;
                    self.values.insert(instruction.id, value);
                }
            }
            // What is done with leaves the registers.
            for target in targets
                .iter()
                .filter(|t| t.id == instruction.id && !t.waits())
            {
                self.give(target)?;
            }
        }
        for target in targets.iter().filter(|target| target.waits()) {
            self.give(target)?;
        }
        Ok(())
    }
}
