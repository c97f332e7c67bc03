//! How arrays are split over the devices of a slice, and the compiler's flags.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::CompilationCache;
use crate::model::LogicalAxis;
use crate::named_variants::named_variants;

/// How arrays are split over the devices of a slice.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sharding {
    /// Groups of devices that each compute a share of the batch with a copy of the weights; 0: as
    /// many as the other axes leave.
    pub data: usize,
    /// Devices that each compute a share of the batch and keep a share of the weights (fully
    /// sharded data parallelism).
    pub fsdp: usize,
    /// Devices that share the heads and the feed-forward width of each layer (tensor parallelism).
    pub model: usize,
    /// Whether what the optimizer keeps is split over `data` too, and each device updates its share
    /// (ZeRO stage 1).
    pub zero: bool,
    /// The number format in which gradients are summed over devices.
    pub gradients: GradientType,
    /// Which axes split which dimension.
    pub rules: Rules,
}

impl Default for Sharding {
    fn default() -> Self {
        Self {
            data: 0,
            fsdp: 1,
            model: 1,
            zero: false,
            gradients: GradientType::Float32,
            rules: Rules::default(),
        }
    }
}

/// A number format of gradients on their way between devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GradientType {
    /// IEEE single precision, whatever the layers compute in.
    Float32,
    /// The upper half of a float32: half the traffic. Only where the layers compute in it.
    Bfloat16,
}

named_variants! {
    /// An axis of the mesh of devices, the slowest first.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, JsonSchema, Serialize, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    MeshAxis {
        /// The slowest axis.
        Data = "data",
        /// The middle axis.
        Fsdp = "fsdp",
        /// The fastest axis: its devices are neighbors.
        Model = "model",
    }
}

/// For each logical axis the mesh axes that split it, the slowest first. In one array a mesh axis
/// splits the first dimension that names it.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rules {
    /// Sequences.
    pub batch: Vec<MeshAxis>,
    /// Positions.
    pub length: Vec<MeshAxis>,
    /// The residual stream's width. In activations the batch comes first and takes its axes.
    pub embed: Vec<MeshAxis>,
    /// Attention heads.
    pub heads: Vec<MeshAxis>,
    /// One head's width.
    pub kv: Vec<MeshAxis>,
    /// The feed-forward width.
    pub mlp: Vec<MeshAxis>,
    /// Tokens of the vocabulary.
    pub vocab: Vec<MeshAxis>,
    /// Buckets of relative positions.
    pub buckets: Vec<MeshAxis>,
    /// Stacked layers.
    pub layers: Vec<MeshAxis>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            batch: vec![MeshAxis::Data, MeshAxis::Fsdp],
            length: vec![],
            embed: vec![MeshAxis::Fsdp],
            heads: vec![MeshAxis::Model],
            kv: vec![],
            mlp: vec![MeshAxis::Model],
            vocab: vec![],
            buckets: vec![],
            layers: vec![],
        }
    }
}

impl Rules {
    /// The mesh axes that split a logical axis.
    pub fn of(&self, axis: LogicalAxis) -> &[MeshAxis] {
        match axis {
            LogicalAxis::Batch => &self.batch,
            LogicalAxis::Length => &self.length,
            LogicalAxis::Embed => &self.embed,
            LogicalAxis::Heads => &self.heads,
            LogicalAxis::Kv => &self.kv,
            LogicalAxis::Mlp => &self.mlp,
            LogicalAxis::Vocab => &self.vocab,
            LogicalAxis::Buckets => &self.buckets,
            LogicalAxis::Layers => &self.layers,
            LogicalAxis::Microbatches => &[],
        }
    }

    /// Each logical axis with the mesh axes that split it.
    pub fn table(&self) -> impl Iterator<Item = (LogicalAxis, &[MeshAxis])> {
        LogicalAxis::ALL.iter().map(|&axis| (axis, self.of(axis)))
    }
}

/// What the compiler is told.
#[derive(Clone, Debug, Default, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Compiler {
    /// XLA's flags for this program, each `name=value`, such as
    /// `xla_tpu_scoped_vmem_limit_kib=32768`.
    pub flags: Vec<String>,
    /// Where compiled programs are kept, so that a run that starts again does not compile.
    pub cache: CompilationCache,
}
