//! How arrays are split over the devices of a slice, and what the compiler is told.

use serde::{Deserialize, Serialize};

/// How arrays are split over the devices of a slice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sharding {
    /// Groups of devices that each compute a share of the batch with a copy of the weights; 0: as many as the other axes leave.
    pub data: usize,
    /// Devices that each compute a share of the batch and keep a share of the weights (fully sharded data parallelism).
    pub fsdp: usize,
    /// Devices that share the heads and the feed-forward width of each layer (tensor parallelism).
    pub model: usize,
    /// Whether what the optimizer keeps is split over `data` too, and each device updates its share (ZeRO stage 1).
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GradientType {
    /// IEEE single precision, whatever the layers compute in.
    Float32,
    /// The upper half of a float32: half the traffic. Only where the layers compute in it.
    Bfloat16,
}

/// An axis of the mesh of devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MeshAxis {
    /// The slowest axis.
    Data,
    /// The middle axis.
    Fsdp,
    /// The fastest axis: its devices are neighbours.
    Model,
}

impl MeshAxis {
    /// All of them, slowest first.
    pub const ALL: [MeshAxis; 3] = [MeshAxis::Data, MeshAxis::Fsdp, MeshAxis::Model];

    /// Its name in programs and in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            MeshAxis::Data => "data",
            MeshAxis::Fsdp => "fsdp",
            MeshAxis::Model => "model",
        }
    }
}

/// For each dimension an array can have, the axes that split it, the slowest first. In one array an axis splits the first
/// dimension that names it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    /// Each dimension's name with its axes.
    pub fn table(&self) -> [(&'static str, &[MeshAxis]); 9] {
        [
            ("batch", &self.batch),
            ("length", &self.length),
            ("embed", &self.embed),
            ("heads", &self.heads),
            ("kv", &self.kv),
            ("mlp", &self.mlp),
            ("vocab", &self.vocab),
            ("buckets", &self.buckets),
            ("layers", &self.layers),
        ]
    }
}

/// What the compiler is told.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Compiler {
    /// XLA's flags for this program, each `name=value`, such as `xla_tpu_scoped_vmem_limit_kib=32768`.
    pub flags: Vec<String>,
}
