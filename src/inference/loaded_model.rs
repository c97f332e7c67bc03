//! A model's parameters on devices, and the programs compiled for it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use ankh_data::{Packing, Tokenizer, Vocabulary};
use ankh_hlo::{DType, Module};
use ankh_pjrt::HostTensor;

use super::Error;
use crate::config::{Compute, Config, Model, Objective, Remat};
use crate::devices::open_mesh;
use crate::hugging_face::Weights;
use crate::mesh::slice::Slice;
use crate::mesh::{
    DeviceMesh, Entries, Hosts, Input, LoadedExecutable, ProgramCache, ShardedArray,
};
use crate::programs::{BatchShape, Programs, compute_type, is_of_encoder};

/// How a model runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelOptions {
    /// What to compute on. All devices split the batch.
    pub slice: Slice,
    /// The element type of activations and matrix products.
    pub compute: Compute,
    /// The ids of the model, where its size does not tell.
    pub tokenizer: Option<Vocabulary>,
}

/// A model on devices.
pub struct LoadedModel {
    config: Config,
    tokenizer: Tokenizer,
    objective: Option<Objective>,
    mesh: DeviceMesh,
    parameters: Vec<ShardedArray>,
    checksum: u32,
    compiled: RefCell<HashMap<String, Rc<LoadedExecutable>>>,
}

/// A compiled program that takes the model's parameters and then some arrays.
pub struct Program<'m> {
    model: &'m LoadedModel,
    executable: Rc<LoadedExecutable>,
}

impl LoadedModel {
    /// Opens the devices and puts the parameters on them.
    pub fn open(weights: Weights, options: ModelOptions) -> Result<LoadedModel, Error> {
        LoadedModel::open_with(weights, options, Parameters::All)
    }

    /// The same with the encoder's parameters alone, for [`Programs::encoder`].
    pub fn open_encoder(weights: Weights, options: ModelOptions) -> Result<LoadedModel, Error> {
        LoadedModel::open_with(weights, options, Parameters::Encoder)
    }

    /// The same with the dimensions of `weights`, but parameters as a run draws them from a seed:
    /// what an encoder is worth that learnt nothing.
    pub fn open_random_encoder(
        weights: Weights,
        options: ModelOptions,
        seed: u64,
    ) -> Result<LoadedModel, Error> {
        LoadedModel::open_with(weights, options, Parameters::RandomEncoder(seed))
    }

    fn open_with(
        weights: Weights,
        options: ModelOptions,
        wanted: Parameters,
    ) -> Result<LoadedModel, Error> {
        let vocabulary = weights.model.vocabulary;
        let tokenizer = options.tokenizer.or(weights.tokenizer);
        let tokenizer = tokenizer.ok_or(Error::UnknownTokenizer { vocabulary })?;
        let ids = Tokenizer::of(tokenizer).vocabulary_size();
        if ids > vocabulary {
            return Err(Error::SmallVocabulary {
                vocabulary,
                tokenizer,
                ids,
            });
        }
        let checksum = match wanted {
            Parameters::RandomEncoder(seed) => {
                let model = format!("{:?} {seed}", weights.model);
                crc32c::crc32c(model.as_bytes())
            }
            _ => checksum(&weights.tensors),
        };
        let mut config = Config {
            model: weights.model,
            ..Config::default()
        };
        config.train.compute = options.compute;
        // Nothing is kept for a derivative.
        config.train.remat = Remat::None;
        config.data.tokenizer = tokenizer;
        let mut mesh = open_mesh(&config, options.slice, Hosts::Real)?;
        // Programs for one device of a CPU are kept; those for several are few and quickly made.
        if let Some(directory) = config.compiler.cache.directory()
            && mesh.keeps_programs()
        {
            mesh.keep_programs_in(ProgramCache::at(&directory, Entries::Used));
        }
        let size = BatchShape {
            rows: mesh.shape().devices(),
            input: 16,
            target: 16,
            packing: Packing::Padded,
        };
        let programs = Programs::of_size(&config, size, mesh.platform(), mesh.rules());
        // The parameters come first in a state; their names are those of the weights.
        let mut tensors: HashMap<String, HostTensor> = weights.tensors.into_iter().collect();
        let mut drawn = match wanted {
            Parameters::RandomEncoder(seed) => drawn(&programs, &mesh, seed)?,
            _ => vec![],
        }
        .into_iter();
        let mut parameters = Vec::new();
        for spec in programs.state_specs() {
            let Some(tensor) = tensors.remove(&spec.name) else {
                break;
            };
            let array = match (wanted, drawn.next()) {
                (Parameters::All, _) => Some(mesh.share(&spec, &tensor)?),
                _ if !is_of_encoder(&spec.name) => None,
                (_, Some(drawn)) => Some(drawn),
                (_, None) => Some(mesh.share(&spec, &tensor)?),
            };
            parameters.extend(array);
        }
        Ok(LoadedModel {
            tokenizer: Tokenizer::of(tokenizer),
            objective: weights.objective,
            config,
            mesh,
            parameters,
            checksum,
            compiled: RefCell::default(),
        })
    }

    /// What its programs are made from.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Its parameters on the devices, in the order of the programs that take them.
    pub fn parameters(&self) -> &[ShardedArray] {
        &self.parameters
    }

    /// Its dimensions.
    pub fn model(&self) -> &Model {
        &self.config.model
    }

    /// The devices, for what else runs on them.
    pub fn mesh(&self) -> &DeviceMesh {
        &self.mesh
    }

    /// The devices: their platform, its version, and how many there are.
    pub fn devices(&self) -> (String, usize) {
        (self.mesh.platform_version(), self.mesh.shape().devices())
    }

    /// The element type of activations and matrix products.
    pub fn compute(&self) -> DType {
        compute_type(self.config.train.compute, self.mesh.platform())
    }

    /// Its ids.
    pub fn tokenizer(&self) -> Tokenizer {
        self.tokenizer
    }

    /// What it was trained to do, where that is known.
    pub fn objective(&self) -> Option<&Objective> {
        self.objective.as_ref()
    }

    /// A checksum of the parameters: what tells two models of the same dimensions apart.
    pub fn checksum(&self) -> u32 {
        self.checksum
    }

    /// The number of rows, at least `rows`, that all devices split evenly.
    pub fn rows(&self, rows: usize) -> usize {
        rows.max(1).next_multiple_of(self.mesh.shape().devices())
    }

    /// The program that `build` makes for batches of a size, compiled unless it was before. `key`
    /// names what is built.
    pub fn program(
        &self,
        key: &str,
        size: BatchShape,
        build: impl FnOnce(&Programs<'_>) -> Result<Module, ankh_hlo::Error>,
    ) -> Result<Program<'_>, Error> {
        let key = format!("{key} {size:?}");
        if let Some(executable) = self.compiled.borrow().get(&key) {
            return Ok(Program {
                model: self,
                executable: executable.clone(),
            });
        }
        let (platform, rules) = (self.mesh.platform(), self.mesh.rules());
        let mut programs = Programs::of_size(&self.config, size, platform, rules);
        // Nothing is kept of a layer, so a loop copies nothing. It compiles in a third of the time,
        // and its memory, that of one layer, stays in the caches.
        programs.unroll = false;
        let executable = Rc::new(self.mesh.compile(&build(&programs)?)?);
        self.compiled.borrow_mut().insert(key, executable.clone());
        Ok(Program {
            model: self,
            executable,
        })
    }
}

/// Which parameters a model has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parameters {
    All,
    Encoder,
    RandomEncoder(u64),
}

/// A first state, drawn from a seed.
fn drawn(
    programs: &Programs<'_>,
    mesh: &DeviceMesh,
    seed: u64,
) -> Result<Vec<ShardedArray>, Error> {
    let program = mesh.compile(&programs.initial()?)?;
    let seed = mesh.upload(
        &program.parameters()[0],
        &HostTensor::new::<u64>([], &[seed]),
    )?;
    Ok(program.execute(vec![Input::Donate(seed)])?)
}

/// CRC-32C of all parameters, with their names.
fn checksum(tensors: &[(String, HostTensor)]) -> u32 {
    tensors.iter().fold(0, |checksum, (name, tensor)| {
        let checksum = crc32c::crc32c_append(checksum, name.as_bytes());
        crc32c::crc32c_append(checksum, &tensor.bytes)
    })
}

impl Program<'_> {
    /// Runs on what follows the parameters, and waits for the results.
    pub fn run(&self, arrays: &[HostTensor]) -> Result<Vec<HostTensor>, Error> {
        self.start(arrays)?
            .iter()
            .map(|array| Ok(self.model.mesh.to_host(array)?))
            .collect()
    }

    /// Starts on what follows the parameters. The results become ready later, for
    /// [`Program::to_host`].
    ///
    /// # Panics
    /// Where there are more or fewer arrays than the program takes.
    pub fn start(&self, arrays: &[HostTensor]) -> Result<Vec<ShardedArray>, Error> {
        let parameters = &self.model.parameters;
        let specs = &self.executable.parameters()[parameters.len()..];
        assert_eq!(specs.len(), arrays.len(), "the arrays of the program");
        let mut inputs: Vec<Input<'_>> = parameters.iter().map(Input::Keep).collect();
        for (spec, array) in specs.iter().zip(arrays) {
            inputs.push(Input::Donate(self.model.mesh.upload(spec, array)?));
        }
        Ok(self.executable.execute(inputs)?)
    }

    /// Waits for a result.
    pub fn to_host(&self, array: &ShardedArray) -> Result<HostTensor, Error> {
        Ok(self.model.mesh.to_host(array)?)
    }
}
