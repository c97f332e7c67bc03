//! What Google's tools call the chips of each generation.

/// The names of one generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accelerator {
    /// The generation: `v4`.
    pub generation: &'static str,
    /// What stands before the number in an accelerator type.
    pub kind: &'static str,
    /// The image of its TPU VMs.
    pub runtime_version: &'static str,
    /// How the ids of its quotas begin.
    pub quota: &'static str,
    /// What GKE calls its nodes.
    pub gke: &'static str,
}

const ALL: [Accelerator; 4] = [
    Accelerator {
        generation: "v4",
        kind: "v4",
        runtime_version: "tpu-ubuntu2204-base",
        quota: "TPUV4",
        gke: "tpu-v4-podslice",
    },
    Accelerator {
        generation: "v5e",
        kind: "v5litepod",
        runtime_version: "v2-alpha-tpuv5-lite",
        quota: "TPUV5sLitepod",
        gke: "tpu-v5-lite-podslice",
    },
    Accelerator {
        generation: "v5p",
        kind: "v5p",
        runtime_version: "v2-alpha-tpuv5",
        quota: "TPUV5P",
        gke: "tpu-v5p-slice",
    },
    Accelerator {
        generation: "v6e",
        kind: "v6e",
        runtime_version: "v2-alpha-tpuv6e",
        quota: "TPUV6E",
        gke: "tpu-v6e-slice",
    },
];

impl Accelerator {
    /// That of a generation.
    pub fn of(generation: &str) -> Option<&'static Accelerator> {
        ALL.iter().find(|known| known.generation == generation)
    }
}
