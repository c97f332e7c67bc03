//! How a run's attention is computed: by kernels or by the formula.

use ankh_hlo::{DType, LogicalAxisRules, ShardingForm};
use ankh_mosaic::Lowering;

use super::BatchShape;
use crate::config::{self, Config};
use crate::model::attention::suits_tpu;

/// Why the formula computes attention, and no kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoKernel {
    /// The configuration asks for the formula.
    #[error("as configured")]
    Configured,
    /// Kernels are for TPUs.
    #[error("the devices are no TPUs")]
    NoTpu,
    /// The kernels' products are in bfloat16.
    #[error("the matrix products are not in bfloat16")]
    Compute,
    /// The partitioner does not take parts that are split by hand.
    #[error("the plugin is too old for Shardy's partitioner")]
    Partitioner,
    /// A dimension is no multiple of a tile.
    #[error(
        "model.d_kv or a length of the data is no multiple of 16, or the length of long rows none of 128"
    )]
    Sizes,
}

/// How kernels are lowered where they compute a training's attention on devices of `platform`.
/// Where the formula does, why.
pub fn attention(
    config: &Config,
    size: BatchShape,
    compute: DType,
    platform: &str,
    rules: Option<&LogicalAxisRules>,
) -> Result<Lowering, NoKernel> {
    let tpu = platform == "tpu";
    let lowering = match tpu {
        true => Lowering::Mosaic,
        false => Lowering::Loops,
    };
    match config.train.attention {
        config::Attention::Formula => return Err(NoKernel::Configured),
        config::Attention::Kernel => return Ok(lowering),
        config::Attention::Auto => {}
    }
    let (kv, input, target) = (
        config.model.d_kv as i64,
        size.input as i64,
        size.target as i64,
    );
    let suit = [(input, input), (target, target), (target, input)]
        .iter()
        .all(|&(queries, keys)| suits_tpu(kv, queries, keys));
    let gspmd = rules.is_some_and(|rules| rules.form() == ShardingForm::Gspmd);
    match () {
        () if !tpu => Err(NoKernel::NoTpu),
        () if compute != DType::Bf16 => Err(NoKernel::Compute),
        () if gspmd => Err(NoKernel::Partitioner),
        () if !suit => Err(NoKernel::Sizes),
        () => Ok(lowering),
    }
}
