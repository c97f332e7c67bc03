//! A head on devices: its state, and the programs that train it and predict with it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use ankh_hlo::{ArraySpec, Error as ProgramError, LogicalAxisRules, Module};
use ankh_pjrt::HostTensor;

use crate::inference::Error;
use crate::mesh::{DeviceMesh, Input, LoadedExecutable, ShardedArray};
use crate::programs::head::{Head, HeadBatchSize};

/// Sequences with labels. The rows are a multiple of the number of devices; rows of padding alone,
/// without labels, fill them up.
#[derive(Clone, Debug)]
pub struct HeadBatch {
    /// The number of each row's example, s32 `[rows]`: what dropout draws goes by it.
    pub examples: HostTensor,
    /// What the encoder gives, float32 `[rows, length, d]`.
    pub states: HostTensor,
    /// 1 at residues and 0 at padding, s32 `[rows, length]`.
    pub mask: HostTensor,
    /// As [`HeadKind`](crate::programs::head::HeadKind) says.
    pub labels: HostTensor,
}

/// A head that is trained on the devices of a mesh.
pub struct HeadTrainer<'m> {
    mesh: &'m DeviceMesh,
    head: Head,
    seed: u64,
    specs: Vec<ArraySpec>,
    state: Vec<ShardedArray>,
    initial: LoadedExecutable,
    steps: Programs,
    predictions: Programs,
}

/// Compiled programs by size.
type Programs = RefCell<HashMap<HeadBatchSize, Rc<LoadedExecutable>>>;

impl<'m> HeadTrainer<'m> {
    /// A head with its first parameters, drawn from `seed`, which also drives dropout.
    pub fn new(mesh: &'m DeviceMesh, head: Head, seed: u64) -> Result<HeadTrainer<'m>, Error> {
        let specs = head.state().into_iter().map(|array| ArraySpec {
            name: array.name,
            shape: array.shape,
            sharding: None,
        });
        let mut trainer = HeadTrainer {
            mesh,
            head,
            seed,
            specs: specs.collect(),
            state: vec![],
            initial: mesh.compile(&head.initial(mesh.rules())?)?,
            steps: RefCell::default(),
            predictions: RefCell::default(),
        };
        trainer.restart(seed)?;
        Ok(trainer)
    }

    /// Begins anew with another seed. What was compiled is kept.
    pub fn restart(&mut self, seed: u64) -> Result<(), Error> {
        let drawn_from = &self.initial.parameters()[0];
        let drawn_from = self.mesh.upload(drawn_from, &HostTensor::scalar(seed))?;
        self.state = self.initial.execute(vec![Input::Donate(drawn_from)])?;
        self.seed = seed;
        Ok(())
    }

    /// What is trained.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// A training step. Gives the mean loss of the batch before it.
    pub fn step(&mut self, batch: &HeadBatch, learning_rate: f32) -> Result<f32, Error> {
        let size = size(&batch.mask);
        let program = self.program(&self.steps, size, Head::step)?;
        let arrays = [
            &HostTensor::scalar(learning_rate),
            &HostTensor::scalar(self.seed),
            &batch.examples,
            &batch.states,
            &batch.mask,
            &batch.labels,
        ];
        let arrays = self.upload(&program.parameters()[self.state.len()..], &arrays)?;
        let state = std::mem::take(&mut self.state);
        let inputs = state.into_iter().chain(arrays).map(Input::Donate);
        let mut results = program.execute(inputs.collect())?;
        let loss = results.pop().expect("a step gives its loss");
        self.state = results;
        let loss = self.mesh.to_host(&loss)?.to_vec::<f32>();
        Ok(loss.expect("the loss is float32")[0])
    }

    /// What the head gives for `states` float32 `[rows, length, d]` and `mask` s32 `[rows,
    /// length]`, as [`HeadKind`](crate::programs::head::HeadKind) says.
    pub fn predict(&self, states: &HostTensor, mask: &HostTensor) -> Result<HostTensor, Error> {
        let program = self.program(&self.predictions, size(mask), Head::predict)?;
        let specs = program.parameters();
        let parameters = &self.state[..specs.len() - 2];
        let arrays = self.upload(&specs[parameters.len()..], &[states, mask])?;
        let inputs = parameters.iter().map(Input::Keep);
        let inputs = inputs.chain(arrays.into_iter().map(Input::Donate));
        let results = program.execute(inputs.collect())?;
        Ok(self.mesh.to_host(&results[0])?)
    }

    /// The names of the arrays of the state.
    pub fn names(&self) -> Vec<String> {
        self.specs.iter().map(|spec| spec.name.clone()).collect()
    }

    /// The state: parameters, what the optimizer keeps of them, and the number of steps done.
    pub fn state(&self) -> Result<Vec<HostTensor>, Error> {
        let fetches = self.state.iter().map(|array| self.mesh.fetch(array));
        let fetches: Vec<_> = fetches.collect::<Result<_, _>>()?;
        let tensors = fetches.into_iter().map(|fetch| Ok(fetch.wait()?));
        tensors.collect()
    }

    /// Goes on from a state that [`HeadTrainer::state`] gave.
    ///
    /// # Panics
    /// Where it has more or fewer arrays than this head.
    pub fn restore(&mut self, state: &[HostTensor]) -> Result<(), Error> {
        assert_eq!(state.len(), self.specs.len(), "the arrays of the state");
        let state: Vec<&HostTensor> = state.iter().collect();
        self.state = self.upload(&self.specs, &state)?;
        Ok(())
    }

    fn upload(
        &self,
        specs: &[ArraySpec],
        tensors: &[&HostTensor],
    ) -> Result<Vec<ShardedArray>, Error> {
        let pairs = specs.iter().zip(tensors);
        let arrays = pairs.map(|(spec, tensor)| Ok(self.mesh.upload(spec, tensor)?));
        arrays.collect()
    }

    /// The program for batches of a size, compiled unless it was before.
    fn program(
        &self,
        compiled: &Programs,
        size: HeadBatchSize,
        build: fn(&Head, HeadBatchSize, Option<&LogicalAxisRules>) -> Result<Module, ProgramError>,
    ) -> Result<Rc<LoadedExecutable>, Error> {
        if let Some(program) = compiled.borrow().get(&size) {
            return Ok(program.clone());
        }
        let module = build(&self.head, size, self.mesh.rules())?;
        let program = Rc::new(self.mesh.compile(&module)?);
        compiled.borrow_mut().insert(size, program.clone());
        Ok(program)
    }
}

/// The rows and the length of a mask.
fn size(mask: &HostTensor) -> HeadBatchSize {
    let dim = |i: usize| mask.dims.get(i).map_or(1, |&size| size as usize);
    HeadBatchSize {
        rows: dim(0),
        length: dim(1),
    }
}
