//! A head on devices: its state, and the programs that train it and predict with it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use ankh_hlo::{ArraySpec, Error as ProgramError, Module};
use ankh_pjrt::HostTensor;

use crate::inference::{Error, LoadedModel};
use crate::mesh::{DeviceMesh, Input, LoadedExecutable, ShardedArray};
use crate::model::lora::Lora;
use crate::programs::head::{AdaptedEncoder, Head, HeadBatchSize, HeadPrograms};

/// Sequences with labels. The rows are a multiple of the number of devices; rows of padding alone,
/// without labels, fill them up.
#[derive(Clone, Debug)]
pub struct HeadBatch {
    /// The number of each row's example, s32 `[rows]`: what dropout draws goes by it.
    pub examples: HostTensor,
    /// What the encoder gives, float32 `[rows, length, d]`; or, where it is adapted, its tokens,
    /// s32 `[rows, length]`.
    pub features: HostTensor,
    /// 1 at residues and 0 at padding and at `</s>`, s32 `[rows, length]`.
    pub mask: HostTensor,
    /// As [`HeadKind`](crate::programs::head::HeadKind) says.
    pub labels: HostTensor,
}

/// A head that is trained on the devices of a mesh, and perhaps adapters of the encoder below it.
pub struct HeadTrainer<'m> {
    mesh: &'m DeviceMesh,
    programs: HeadPrograms<'m>,
    /// The weights of an encoder that is adapted.
    frozen: &'m [ShardedArray],
    seed: u64,
    specs: Vec<ArraySpec>,
    state: Vec<ShardedArray>,
    initial: LoadedExecutable,
    steps: Compiled,
    predictions: Compiled,
}

/// Compiled programs by size.
type Compiled = RefCell<HashMap<HeadBatchSize, Rc<LoadedExecutable>>>;

impl<'m> HeadTrainer<'m> {
    /// A head on given states with its first parameters, drawn from `seed`, which also drives
    /// dropout.
    pub fn new(mesh: &'m DeviceMesh, head: Head, seed: u64) -> Result<HeadTrainer<'m>, Error> {
        let programs = HeadPrograms {
            head,
            encoder: None,
            rules: mesh.rules(),
        };
        HeadTrainer::of(mesh, programs, &[], seed)
    }

    /// A head on the encoder of `model`, which has no other parameters, with adapters of that
    /// encoder.
    pub fn adapting(
        model: &'m LoadedModel,
        lora: Lora,
        head: Head,
        seed: u64,
    ) -> Result<HeadTrainer<'m>, Error> {
        let mesh = model.mesh();
        let encoder = AdaptedEncoder {
            config: model.config(),
            platform: mesh.platform(),
            lora,
        };
        let programs = HeadPrograms {
            head,
            encoder: Some(encoder),
            rules: mesh.rules(),
        };
        HeadTrainer::of(mesh, programs, model.parameters(), seed)
    }

    fn of(
        mesh: &'m DeviceMesh,
        programs: HeadPrograms<'m>,
        frozen: &'m [ShardedArray],
        seed: u64,
    ) -> Result<HeadTrainer<'m>, Error> {
        let specs = programs.state().into_iter().map(|array| ArraySpec {
            name: array.name,
            shape: array.shape,
            sharding: None,
        });
        let mut trainer = HeadTrainer {
            mesh,
            programs,
            frozen,
            seed,
            specs: specs.collect(),
            state: vec![],
            initial: mesh.compile(&programs.initial()?)?,
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

    /// The head that is trained.
    pub fn head(&self) -> &Head {
        &self.programs.head
    }

    /// A training step. Gives the mean loss of the batch before it.
    pub fn step(&mut self, batch: &HeadBatch, learning_rate: f32) -> Result<f32, Error> {
        let size = size(&batch.mask);
        let program = self.program(&self.steps, size, HeadPrograms::step)?;
        let arrays = [
            &HostTensor::scalar(learning_rate),
            &HostTensor::scalar(self.seed),
            &batch.examples,
            &batch.features,
            &batch.mask,
            &batch.labels,
        ];
        let specs = &program.parameters()[self.frozen.len() + self.state.len()..];
        let arrays = self.upload(specs, &arrays)?;
        let state = std::mem::take(&mut self.state);
        let donated = state.into_iter().chain(arrays).map(Input::Donate);
        let inputs = self.frozen.iter().map(Input::Keep).chain(donated);
        let mut results = program.execute(inputs.collect())?;
        let loss = results.pop().expect("a step gives its loss");
        self.state = results;
        let loss = self.mesh.to_host(&loss)?.to_vec::<f32>();
        Ok(loss.expect("the loss is float32")[0])
    }

    /// What the head gives for the `features` and the `mask` of a batch, as
    /// [`HeadKind`](crate::programs::head::HeadKind) says.
    pub fn predict(&self, features: &HostTensor, mask: &HostTensor) -> Result<HostTensor, Error> {
        let program = self.program(&self.predictions, size(mask), HeadPrograms::predict)?;
        let specs = program.parameters();
        let (kept, given) = specs.split_at(specs.len() - 2);
        let arrays = self.upload(given, &[features, mask])?;
        let parameters = &self.state[..kept.len() - self.frozen.len()];
        let inputs = self.frozen.iter().chain(parameters).map(Input::Keep);
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
        compiled: &Compiled,
        size: HeadBatchSize,
        build: fn(&HeadPrograms<'m>, HeadBatchSize) -> Result<Module, ProgramError>,
    ) -> Result<Rc<LoadedExecutable>, Error> {
        if let Some(program) = compiled.borrow().get(&size) {
            return Ok(program.clone());
        }
        let module = build(&self.programs, size)?;
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
