//! Which part of the model an instruction computes, and in which pass, read from the scopes in its
//! metadata.

use ankh_proto::xla::HloInstructionProto;

/// Which pass an instruction belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    /// The model itself, and the optimizer.
    Forward,
    /// The model again, for its derivative.
    Recompute,
    /// The derivative.
    Gradient,
}

/// Pass and place of an instruction: those of `gradient/encoder/layer/mlp/dot` are the derivative
/// and `encoder/mlp`.
pub(super) fn scope(instruction: &HloInstructionProto) -> (Pass, String) {
    let name = instruction.metadata.as_ref().map_or("", |m| &m.op_name);
    let (pass, scopes) = match name.split_once('/') {
        Some(("gradient", rest)) => (Pass::Gradient, rest),
        Some(("recompute", rest)) => (Pass::Recompute, rest),
        _ => (Pass::Forward, name),
    };
    // The last component is the operation; every layer is the same one.
    let (scopes, _) = scopes.rsplit_once('/').unwrap_or(("", scopes));
    let named: Vec<&str> = scopes.split('/').filter(|s| *s != "layer").collect();
    match named.join("/") {
        empty if empty.is_empty() => (pass, "other".into()),
        named => (pass, named),
    }
}
