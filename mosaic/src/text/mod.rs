//! A kernel as text of Mosaic, the dialect of MLIR that libtpu compiles kernels from: a module in
//! MLIR's generic form, whose operations carry the prefix of the stable, versioned dialect.
//!
//! The main function takes the place on the grid, then a reference into VMEM for each block. One
//! more function for each block gives the block's indices for a place.

mod body;
mod memory;
mod operation;
mod types;
mod writer;

use ankh_proto::xla::HloModuleProto;

use crate::kernel::{BlockDim, Kernel};
use types::{memref, numbers};

/// The version of the dialect. Newer compilers read older versions, so it is no newer than what is
/// used here needs.
const VERSION: u32 = 8;

/// Why a body has no Mosaic text.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TextError {
    /// The body is wrong.
    #[error(transparent)]
    Body(#[from] ankh_hlo::Error),
    /// Mosaic has no such operation, or not for these operands.
    #[error("Mosaic has no {operation} of {operands} (at {source_line})")]
    Operation {
        /// The operation's name in HLO.
        operation: String,
        /// The shapes of its operands.
        operands: String,
        /// Where it was built.
        source_line: String,
    },
    /// Mosaic has no such element type.
    #[error("Mosaic has no elements of type {0}")]
    ElementType(String),
}

/// The text of a kernel whose body is `body`.
pub(crate) fn module(kernel: &Kernel, body: &HloModuleProto) -> Result<String, TextError> {
    let main = body::function(kernel, body)?;
    let transforms = kernel.blocks().enumerate();
    let transforms = transforms.map(|(i, block)| transform(i, &block.dims, kernel.grid.len()));
    let transforms: String = transforms.collect();
    Ok(format!(
        "\"builtin.module\"() ({{\n{main}{transforms}}}) {{stable_mosaic.version = {VERSION} : i64, sym_name = \"{}\"}} : () -> ()\n",
        kernel.name
    ))
}

/// From a place on the grid to the indices of block `i`, in blocks.
fn transform(i: usize, dims: &[BlockDim], axes: usize) -> String {
    let arguments: Vec<String> = (0..axes).map(|axis| format!("%g{axis}: i32")).collect();
    let indices = dims.iter().map(|dim| match dim.axis() {
        Some(axis) => format!("%g{axis}"),
        None => "%zero".into(),
    });
    let indices: Vec<String> = indices.collect();
    let (from, to) = (
        types::repeated("i32", axes),
        types::repeated("i32", dims.len()),
    );
    format!(
        "  \"stable_mosaic.func.func\"() ({{\n  ^bb0({}):\n    \
         %zero = \"stable_mosaic.arith.constant\"() {{value = 0 : i32}} : () -> i32\n    \
         \"stable_mosaic.func.return\"({}) : ({to}) -> ()\n  \
         }}) {{function_type = ({from}) -> ({to}), sym_name = \"transform_{i}\"}} : () -> ()\n",
        arguments.join(", "),
        indices.join(", "),
    )
}

/// The attributes of the main function.
fn attributes(kernel: &Kernel, argument_types: &[String]) -> String {
    let semantics = (0..kernel.grid.len()).map(|axis| match kernel.is_parallel(axis) {
        true => "#tpu.dimension_semantics<parallel>",
        false => "#tpu.dimension_semantics<arbitrary>",
    });
    let semantics: Vec<&str> = semantics.collect();
    let windows = kernel.blocks().enumerate().map(|(i, block)| {
        let bounds = numbers(&block.shape().dims);
        format!("{{transform_indices = @transform_{i}, window_bounds = array<i64: {bounds}>}}")
    });
    let windows: Vec<String> = windows.collect();
    format!(
        "{{dimension_semantics = [{}], function_type = ({}) -> (), iteration_bounds = array<i64: {}>, \
         scalar_prefetch = 0 : i64, scratch_operands = {} : i64, sym_name = \"{}\", \
         tpu.core_type = #tpu.core_type<tc>, window_params = [{}]}}",
        semantics.join(", "),
        argument_types.join(", "),
        numbers(&kernel.grid),
        kernel.scratch.len(),
        kernel.name,
        windows.join(", "),
    )
}

/// The types of the main function's arguments: the place, inputs, outputs, scratch memory.
fn argument_types(kernel: &Kernel) -> Result<Vec<String>, TextError> {
    let place = kernel.grid.iter().map(|_| Ok("i32".to_string()));
    let blocks = kernel.blocks().map(|block| memref(&block.shape()));
    let scratch = kernel.scratch.iter().map(|scratch| memref(&scratch.shape));
    place.chain(blocks).chain(scratch).collect()
}
