//! Which part of the model an instruction computes, and in which pass, read from the scopes in its
//! metadata.

use ankh_proto::xla::HloInstructionProto;
use serde::{Deserialize, Serialize};

/// Which pass an instruction belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pass {
    /// The model itself, and the optimizer.
    Forward,
    /// The model again, for its derivative.
    Recompute,
    /// The derivative.
    Gradient,
}

/// Scopes that are not parts of the model.
const WRAPPERS: [&str; 2] = ["layer", "shard_map"];

/// Pass and place of an instruction: those of `gradient/encoder/layer/mlp/dot` are the derivative
/// and `encoder/mlp`.
pub(super) fn scope(instruction: &HloInstructionProto) -> (Pass, String) {
    let name = instruction.metadata.as_ref().map_or("", |m| &m.op_name);
    let (pass, scopes) = match name.split_once('/') {
        Some(("gradient", rest)) => (Pass::Gradient, rest),
        Some(("recompute", rest)) => (Pass::Recompute, rest),
        _ => (Pass::Forward, name),
    };
    // The last component is the operation; every layer is the same one, and what a kernel's call
    // is wrapped in is no part of the model.
    let (scopes, _) = scopes.rsplit_once('/').unwrap_or(("", scopes));
    let named: Vec<&str> = scopes
        .split('/')
        .filter(|s| !WRAPPERS.contains(s))
        .collect();
    match named.join("/") {
        empty if empty.is_empty() => (pass, "other".into()),
        named => (pass, named),
    }
}
