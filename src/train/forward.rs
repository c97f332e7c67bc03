//! A forward pass of given weights on a given batch, with gradients and optimizer steps on request.
//! It compares this implementation with others, number by number.

use ankh_data::Packing;
use ankh_pjrt::HostTensor;

use super::TrainError;
use super::state::{MissingSlots, State};
use crate::config::Config;
use crate::mesh::{DeviceError, DeviceMesh, Input, ShardedArray};
use crate::programs::{BatchShape, Gradients, Programs};

/// What was computed, under our parameters' names.
pub struct ForwardOutputs {
    /// float32 `[batch, target length, vocabulary]`.
    pub logits: HostTensor,
    /// The encoder's states, float32 `[batch, input length, d_model]`.
    pub encoder: HostTensor,
    /// The mean loss over the labels.
    pub loss: HostTensor,
    /// The gradient of each parameter, if asked for.
    pub gradients: Vec<(String, HostTensor)>,
    /// The loss before each optimizer step, float32.
    pub losses: Vec<f32>,
    /// The parameters after the last optimizer step; none without steps.
    pub after: Vec<(String, HostTensor)>,
}

/// Runs the configured model with `parameters` on `batch`, the arrays `input_ids`,
/// `attention_mask`, `decoder_input_ids` and `labels`, s32; or, packed, with `input_segments` and
/// `target_segments` in place of `attention_mask`. Then takes `steps` optimizer steps on it, as
/// configured.
pub fn forward(
    config: &Config,
    mesh: &DeviceMesh,
    parameters: &[(String, HostTensor)],
    batch: &[(String, HostTensor)],
    gradients: Gradients,
    steps: u64,
) -> Result<ForwardOutputs, TrainError> {
    let size = size_of(batch)?;
    let programs = Programs::of_size(config, size, mesh.platform(), mesh.rules());
    let fed = programs
        .batch_specs()
        .into_iter()
        .map(|spec| Ok(mesh.upload(&spec, find(batch, &spec.name)?)?));
    let fed: Vec<ShardedArray> = fed.collect::<Result<_, TrainError>>()?;
    let mut state = State::from_tensors(&programs, mesh, parameters, MissingSlots::Zeros)?;

    let program = mesh.compile(&programs.forward(gradients)?)?;
    let inputs = state.parameters().iter().chain(&fed).map(Input::Keep);
    let outputs = program.execute(inputs.collect())?;
    let mut outputs = outputs.iter().map(|array| mesh.to_host(array));
    let mut next = || {
        outputs
            .next()
            .expect("the program gives logits, states, loss and the gradients asked for")
    };
    let (logits, encoder, loss) = (next()?, next()?, next()?);
    let mut found = Vec::new();
    if gradients == Gradients::Yes {
        for parameter in crate::model::Weights::of(&config.model).leaves() {
            found.push((parameter.name, next()?));
        }
    }

    let mut losses = Vec::new();
    if steps > 0 {
        let program = mesh.compile(&programs.step()?)?;
        for _ in 0..steps {
            let mut metrics = None;
            state.replace(|arrays| {
                let inputs = arrays
                    .into_iter()
                    .map(Input::Donate)
                    .chain(fed.iter().map(Input::Keep));
                let mut outputs = program.execute(inputs.collect())?;
                metrics = outputs.pop();
                Ok(outputs)
            })?;
            let metrics = metrics.expect("a step's last output").addressable_shards()[0]
                .to_host()
                .map_err(DeviceError::from)?;
            losses.push(metrics.to_vec::<f32>().map_err(DeviceError::from)?[0]);
        }
    }
    let after = if steps > 0 {
        state.parameters_to_host(mesh)?
    } else {
        vec![]
    };
    Ok(ForwardOutputs {
        logits,
        encoder,
        loss,
        gradients: found,
        losses,
        after,
    })
}

fn find<'a>(tensors: &'a [(String, HostTensor)], name: &str) -> Result<&'a HostTensor, TrainError> {
    let found = tensors.iter().find(|t| t.0 == name);
    found
        .map(|t| &t.1)
        .ok_or_else(|| TrainError::MissingArray { name: name.into() })
}

fn size_of(batch: &[(String, HostTensor)]) -> Result<BatchShape, TrainError> {
    let dims = |name: &str| match find(batch, name)?.dims[..] {
        [rows, length] if rows > 0 && length > 0 => Ok((rows as usize, length as usize)),
        ref other => Err(TrainError::NotABatch {
            name: name.into(),
            dims: other.to_vec(),
        }),
    };
    let ((rows, input), (_, target)) = (dims("input_ids")?, dims("decoder_input_ids")?);
    let packed = find(batch, "input_segments").is_ok();
    Ok(BatchShape {
        rows,
        input,
        target,
        packing: match packed {
            true => Packing::Packed,
            false => Packing::Padded,
        },
    })
}
