//! Types as MLIR writes them.

use ankh_hlo::{DType, Shape};

use super::TextError;

/// `f32`
pub(super) fn element(dtype: DType) -> Result<&'static str, TextError> {
    Ok(match dtype {
        DType::Pred => "i1",
        DType::S32 => "i32",
        DType::Bf16 => "bf16",
        DType::F32 => "f32",
        DType::U8 | DType::U32 | DType::S64 | DType::U64 | DType::F16 | DType::F64 => {
            return Err(TextError::ElementType(dtype.name().into()));
        }
    })
}

/// `vector<8x128xf32>`, or `f32` for a scalar.
pub(super) fn vector(shape: &Shape) -> Result<String, TextError> {
    let element = element(shape.dtype)?;
    Ok(match shape.rank() {
        0 => element.into(),
        _ => format!("vector<{}{element}>", sizes(shape)),
    })
}

/// `memref<8x128xf32, #tpu.memory_space<vmem>>`
pub(super) fn memref(shape: &Shape) -> Result<String, TextError> {
    let element = element(shape.dtype)?;
    Ok(format!(
        "memref<{}{element}, #tpu.memory_space<vmem>>",
        sizes(shape)
    ))
}

/// `8x128x`
fn sizes(shape: &Shape) -> String {
    shape.dims.iter().map(|size| format!("{size}x")).collect()
}

/// `1, 2`
pub(super) fn numbers(values: &[i64]) -> String {
    let values: Vec<String> = values.iter().map(i64::to_string).collect();
    values.join(", ")
}

/// `i32, i32`
pub(super) fn repeated(what: &str, times: usize) -> String {
    vec![what; times].join(", ")
}
