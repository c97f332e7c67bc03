//! A kernel as a custom call that a TPU's compiler takes.

use ankh_hlo::{CustomCall, DType, Error, Graph, Module, Shape, Tensor};
use ankh_proto::xla::HloInstructionProto;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::cost::Cost;
use crate::kernel::{Kernel, Step};
use crate::text::{self, TextError};

/// The name by which a TPU's compiler knows a custom call as a kernel.
pub const TARGET: &str = "tpu_custom_call";

/// The attribute that says what a custom call's kernel is, as JSON: [`KernelCall`].
const ATTRIBUTE: &str = "ankh.kernel";

/// What is known of a kernel in a compiled program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelCall {
    /// The kernel's name.
    pub name: String,
    /// The places on each axis of its grid.
    pub grid: Vec<i64>,
    /// Whether an axis is shared out to the cores of a chip.
    pub parallel: Vec<bool>,
    /// What it costs, over its whole grid.
    pub cost: Cost,
}

impl KernelCall {
    /// Whether an instruction calls a kernel, of which something is known or not.
    pub fn is_call(instruction: &HloInstructionProto) -> bool {
        instruction.custom_call_target == TARGET
    }

    /// What is known of the kernel that an instruction calls; `None` if it calls none.
    pub fn of(instruction: &HloInstructionProto) -> Option<KernelCall> {
        let attributes = instruction.frontend_attributes.as_ref();
        let text = attributes.and_then(|attributes| attributes.map.get(ATTRIBUTE))?;
        serde_json::from_str(text).ok()
    }

    /// The places that the busiest of a chip's `cores` passes over. The first axis that is shared
    /// out, and has more than one place, is cut.
    pub fn places_of_a_core(&self, cores: usize) -> i64 {
        let shared = self.grid.iter().zip(&self.parallel);
        let shared = shared.filter(|(places, parallel)| **parallel && **places > 1);
        let all: i64 = self.grid.iter().product();
        match shared.map(|(places, _)| places).next() {
            Some(places) => all / places * ((places + cores as i64 - 1) / cores as i64),
            None => all,
        }
    }
}

/// The part of a core's VMEM, in bytes, that a kernel may fill. Each core has 16 MiB on a v4 (and
/// more on later ones); the rest is the compiler's.
const VMEM: u64 = 15 << 20;

/// The results of a kernel.
#[track_caller]
pub(crate) fn of<'g>(kernel: &Kernel, g: &'g Graph, inputs: &[Tensor<'g>]) -> Vec<Tensor<'g>> {
    let body = match kernel.module() {
        Ok(body) => body,
        Err(error) => return kernel.refuse(g, error.to_string()),
    };
    let text = match text::module(kernel, body.proto()) {
        Ok(text) => text,
        Err(error) => return kernel.refuse(g, error.to_string()),
    };
    let cost = Cost::of(kernel, body.proto());
    let known = KernelCall {
        name: kernel.name.to_string(),
        grid: kernel.grid.clone(),
        parallel: (0..kernel.grid.len())
            .map(|axis| kernel.is_parallel(axis))
            .collect(),
        cost,
    };
    let known = json!(known);
    // Format 1: the body is a module of the versioned dialect, as text or bytecode.
    let config = json!({
        "custom_call_config": {
            "body": STANDARD.encode(text),
            "serialization_format": 1,
            "needs_layout_passes": true,
            "allow_input_fusion": vec![true; kernel.inputs.len()],
            "cost_estimate": {
                "flops": cost.flops,
                "transcendentals": cost.transcendentals,
                "bytes_accessed": cost.bytes,
            },
        },
        "scoped_memory_configs": [{ "memory_space": 1, "offset": 0, "size": VMEM }],
    });
    let call = CustomCall {
        target: TARGET.into(),
        name: kernel.name.clone(),
        backend_config: config.to_string().into(),
        frontend_attributes: vec![(ATTRIBUTE.into(), known.to_string().into())],
    };
    let results = kernel.outputs.iter().map(|r| r.block().array.clone());
    g.custom_call(call, inputs, results.collect())
}

impl Kernel {
    /// The body as a program: the place, the blocks, and what is carried, to what it gives.
    fn module(&self) -> Result<Module, Error> {
        let g = Graph::new(&self.name);
        let scalar = Shape::new(DType::S32, []);
        let place = self
            .grid
            .iter()
            .map(|_| g.parameter("place", scalar.clone()));
        let place = place.collect();
        let inputs = self.inputs.iter().map(|b| g.parameter("input", b.view()));
        let inputs = inputs.collect();
        let carried = self.carried().into_iter();
        let carried = carried.map(|(_, carried)| g.parameter("carried", carried.shape));
        let step = Step {
            graph: &g,
            place,
            inputs,
            carried: carried.collect(),
        };
        let given = self.body.step(&step);
        if g.error().is_none()
            && let Some(problem) = self.misfit(&given)
        {
            g.refuse("kernel", problem);
        }
        g.finish(&given, &[])
    }

    /// The kernel in the text that a TPU's compiler takes.
    ///
    /// # Errors
    /// What is wrong with the body, or an operation that Mosaic does not have.
    pub fn mosaic_text(&self) -> Result<String, TextError> {
        text::module(self, self.module()?.proto())
    }
}
