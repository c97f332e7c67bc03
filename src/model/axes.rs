//! What the dimensions of the model's arrays are.

use ankh_hlo::AxisName;

use crate::named_variants::named_variants;

named_variants! {
    /// What a dimension of an array is.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    LogicalAxis {
        /// Sequences.
        Batch = "batch",
        /// Positions.
        Length = "length",
        /// The residual stream's width.
        Embed = "embed",
        /// Attention heads.
        Heads = "heads",
        /// One head's width.
        Kv = "kv",
        /// The feed-forward width.
        Mlp = "mlp",
        /// Tokens of the vocabulary.
        Vocab = "vocab",
        /// Buckets of relative positions.
        Buckets = "buckets",
        /// Stacked layers.
        Layers = "layers",
        /// Parts of a batch that are computed one after the other. Nothing splits these.
        Microbatches = "microbatches",
    }
}

impl From<LogicalAxis> for AxisName {
    fn from(axis: LogicalAxis) -> AxisName {
        AxisName::new(axis.name())
    }
}
