//! What the partitioner is not to look into: custom calls, and parts written for one device.
//!
//! Such a part is Shardy's manual computation, which in HLO is a call between two custom calls that
//! cut the arrays and put them together (`sdy::ManualComputationOp`, round trip through HLO).

use ankh_proto::xla;

use super::block::Block;
use super::{instruction, shape_proto, tuple_proto};
use crate::ir::{CustomCall, ManualComputation};
use crate::sharding::Sharding;

/// How the names of manual computations begin: so Shardy recognizes them.
pub const MANUAL_COMPUTATION: &str = "xla.sdy.manual_computation_body";

impl Block<'_> {
    pub fn custom_call(&mut self, mut i: xla::HloInstructionProto, call: &CustomCall) -> i64 {
        i.name = instruction::identifier(&call.name);
        i.custom_call_target = call.target.to_string();
        i.custom_call_api_version = xla::CustomCallApiVersion::ApiVersionOriginal as i32;
        i.backend_config = call.backend_config.as_bytes().to_vec();
        let attributes = call.frontend_attributes.iter();
        let attributes = attributes.map(|(key, value)| (key.to_string(), value.to_string()));
        i.frontend_attributes = Some(xla::FrontendAttributes {
            map: attributes.collect(),
        });
        i.constrain_layout = true;
        let operands = i.operand_ids.iter();
        i.operand_shapes_with_layout = operands.map(|&id| self.shape(id)).collect();
        self.add(i)
    }

    /// `inputs` are whole arrays, the results too.
    pub fn manual(&mut self, manual: &ManualComputation, inputs: &[i64]) -> i64 {
        let ManualComputation {
            function,
            in_shardings,
            out_shardings,
        } = manual;
        let shards = function.parameters.iter();
        let shards = shards.map(|&p| shape_proto(&function.nodes[p].ty.array()));
        let shards = tuple_proto(shards.collect());
        let cut = self.add(boundary(
            "xla.sdy.GlobalToLocalShape",
            ("xla.sdy.in_shardings", in_shardings),
            inputs.to_vec(),
            shards,
        ));
        let shards = self.get_tuple_elements(cut, 0..inputs.len());
        let mut call = self.call_of(MANUAL_COMPUTATION, function, &shards);
        call.frontend_attributes = Some(attributes([("inlineable", "false".into())]));
        let results = self.add(call);
        let parts = self.get_tuple_elements(results, 0..function.outputs.len());
        let whole = parts.iter().zip(out_shardings).map(|(&part, sharding)| {
            let mut shape = self.shape(part);
            for (dim, size) in shape.dimensions.iter_mut().enumerate() {
                *size *= sharding.shards(dim);
            }
            shape
        });
        let whole = tuple_proto(whole.collect());
        self.add(boundary(
            "xla.sdy.LocalToGlobalShape",
            ("xla.sdy.out_shardings", out_shardings),
            parts,
            whole,
        ))
    }
}

/// The custom call at the beginning or end of a manual computation. All axes of the mesh are manual
/// in it.
fn boundary(
    target: &str,
    (key, shardings): (&'static str, &[Sharding]),
    operands: Vec<i64>,
    shape: xla::ShapeProto,
) -> xla::HloInstructionProto {
    let mut i = instruction::new("custom-call", shape, operands);
    i.custom_call_target = target.into();
    i.custom_call_api_version = xla::CustomCallApiVersion::ApiVersionOriginal as i32;
    i.custom_call_has_side_effect = true;
    let axes = shardings.first().map_or(&[][..], |s| s.mesh().axes());
    let axes = axes.iter().map(|(name, _)| format!("\"{name}\""));
    let axes: Vec<String> = axes.collect();
    let each: Vec<String> = shardings.iter().map(sharding).collect();
    i.frontend_attributes = Some(attributes([
        (
            key,
            format!("#sdy.sharding_per_value<[{}]>", each.join(", ")),
        ),
        (
            "xla.sdy.manual_axes",
            format!("#sdy<manual_axes{{{}}}>", axes.join(", ")),
        ),
    ]));
    i
}

fn attributes<const N: usize>(pairs: [(&str, String); N]) -> xla::FrontendAttributes {
    let map = pairs.into_iter().map(|(key, value)| (key.into(), value));
    xla::FrontendAttributes { map: map.collect() }
}

/// `<mesh<["data"=2, "model"=2]>, [{"data"}, {}]>`
fn sharding(sharding: &Sharding) -> String {
    let mesh = sharding.mesh().axes().iter();
    let mesh: Vec<String> = mesh
        .map(|(name, size)| format!("\"{name}\"={size}"))
        .collect();
    let dims = (0..sharding.rank()).map(|dim| {
        let axes: Vec<String> = sharding.axes(dim).map(|a| format!("\"{a}\"")).collect();
        format!("{{{}}}", axes.join(", "))
    });
    let dims: Vec<String> = dims.collect();
    format!("<mesh<[{}]>, [{}]>", mesh.join(", "), dims.join(", "))
}
