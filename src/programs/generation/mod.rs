//! Generation as one program: the encoder, then a loop of the decoder over positions with a
//! key-value cache, until every row has ended. What is chosen at each position is greedy, sampled
//! (`choosing`), or by beam search (`beams`), each as `transformers` defines it.

mod beams;
mod choosing;
mod top_k;

use ankh_data::tokenizer::{EOS, PAD};
use ankh_hlo::{DType, Error, Graph, Module, Shape, Tensor};

use super::forward::network;
use super::signature::Array;
use super::{Programs, declare, inputs, parameters, random};
use crate::config::LogicalAxis;
use crate::model::{CrossKeyValues, DistanceBias, KeyValueCache, Network, Tokens, token_scores};
use choosing::{Warp, constrained};
use top_k::argmax;

pub use choosing::{AMINO_ACIDS, Constraint};

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Search {
    /// The likeliest.
    Greedy,
    /// Drawn.
    Sample,
    /// Those that together are likeliest.
    Beam {
        /// Continuations are drawn, without replacement, rather than the likeliest.
        sample: bool,
        /// Ends as soon as there are as many complete sequences as beams, rather than when none can
        /// become better.
        early_stopping: bool,
    },
}

/// How many results a prompt has at once: samples or beams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RowsPerPrompt(pub usize);

/// The settings of a generation, which a program takes as arrays: changing one compiles nothing.
struct Settings<'g> {
    /// What may follow at each position, as [`Constraint::code`]: s32 `[batch, target length]`.
    constraints: Tensor<'g>,
    /// Positions at most; s32.
    limit: Tensor<'g>,
    /// u64.
    seed: Tensor<'g>,
    /// Which random numbers are drawn for each prompt: the number of its first sample, and its own,
    /// u32 `[batch, 2]`.
    streams: Tensor<'g>,
    warp: Warp<'g>,
    /// What a beam's score is divided by is its length to this power; float32.
    length_penalty: Tensor<'g>,
}

/// What every step of the loop reads.
struct Decoder<'n, 'g, 'c> {
    network: &'n Network<'g, 'c>,
    cross: CrossKeyValues<'g>,
    bias: DistanceBias<'g>,
    settings: &'n Settings<'g>,
    programs: &'n Programs<'c>,
    rows_per_prompt: i64,
}

impl Programs<'_> {
    /// Parameters, the arrays of [`Programs::generation_arrays`], to tokens, s32 `[batch, rows per
    /// prompt, target length]`, padded behind the end, and their scores, float32 `[batch, rows per
    /// prompt]`. A score is the sum of the tokens' log-probabilities among those that may follow;
    /// of a beam search, that at the temperature, divided by the length to the power of the length
    /// penalty.
    pub fn generation(
        &self,
        search: Search,
        RowsPerPrompt(rows_per_prompt): RowsPerPrompt,
    ) -> Result<Module, Error> {
        let Programs { config, size, .. } = *self;
        let g = self.graph("generation");
        let (specs, values) = parameters(&g, config);
        let arrays = declare(&g, &self.generation_arrays());
        let (settings, input_ids, attention_mask) = Settings::of(&arrays);
        let network = network(self, &specs, &values);
        let memory = network.encode(input_ids, Tokens::Padded { attention_mask });
        let decoder = Decoder {
            cross: network.cross_key_values(memory, attention_mask),
            bias: network.distance_bias(size.target as i64),
            network: &network,
            settings: &settings,
            programs: self,
            rows_per_prompt: rows_per_prompt as i64,
        };
        let (tokens, scores) = match search {
            Search::Greedy => decoder.one_by_one(false),
            Search::Sample => decoder.one_by_one(true),
            Search::Beam {
                sample,
                early_stopping,
            } => decoder.beams(sample, early_stopping),
        };
        g.finish(&[tokens, scores], &[])
    }

    /// The arrays of a generation, in order: `input_ids` and `attention_mask`, s32 `[batch, input
    /// length]`; `constraints`, s32 `[batch, target length]`; `limit`, s32; `seed`, u64; `streams`,
    /// u32 `[batch, 2]`; `temperature`, float32; `top_k`, s32; `top_p` and `length_penalty`,
    /// float32.
    pub fn generation_arrays(&self) -> Vec<Array> {
        let size = self.size;
        let array = |name: &str, dtype, dims: &[i64]| Array {
            name: name.into(),
            shape: Shape::new(dtype, dims),
            logical_axes: match dims {
                [] => vec![],
                _ => vec![LogicalAxis::Batch, LogicalAxis::Length],
            },
        };
        let (rows, positions) = (size.rows as i64, size.target as i64);
        let mut arrays = inputs(size);
        arrays.extend([
            array("constraints", DType::S32, &[rows, positions]),
            array("limit", DType::S32, &[]),
            array("seed", DType::U64, &[]),
            array("streams", DType::U32, &[rows, 2]),
            array("temperature", DType::F32, &[]),
            array("top_k", DType::S32, &[]),
            array("top_p", DType::F32, &[]),
            array("length_penalty", DType::F32, &[]),
        ]);
        arrays
    }
}

impl<'g> Settings<'g> {
    /// The settings among the arrays, and the inputs.
    fn of(arrays: &[Tensor<'g>]) -> (Settings<'g>, Tensor<'g>, Tensor<'g>) {
        let [
            input_ids,
            attention_mask,
            constraints,
            limit,
            seed,
            streams,
            temperature,
            top_k,
            top_p,
            length_penalty,
        ] = *arrays
        else {
            unreachable!("`generation_arrays` lists ten arrays")
        };
        let settings = Settings {
            constraints,
            limit,
            seed,
            streams,
            warp: Warp {
                temperature,
                top_k,
                top_p,
            },
            length_penalty,
        };
        (settings, input_ids, attention_mask)
    }
}

impl<'g> Decoder<'_, 'g, '_> {
    fn graph(&self) -> &'g Graph {
        self.settings.limit.graph()
    }

    fn batch(&self) -> i64 {
        self.programs.size.rows as i64
    }

    fn positions(&self) -> i64 {
        self.programs.size.target as i64
    }

    fn rows(&self) -> i64 {
        self.batch() * self.rows_per_prompt
    }

    /// The logits of what may follow `ids [rows]` at `position`, and the cache with them.
    fn logits(
        &self,
        ids: Tensor<'g>,
        position: Tensor<'g>,
        cache: KeyValueCache<'g>,
    ) -> (Tensor<'g>, KeyValueCache<'g>) {
        let network = self.network;
        let (logits, cache) = network.decode_token(ids, position, cache, self.cross, self.bias);
        let zero = position.zeros_like();
        let constraint =
            (self.settings.constraints).dynamic_slice(&[zero, position], &[self.batch(), 1]);
        let constraint = constraint.broadcast_to(&[self.batch(), self.rows_per_prompt]);
        let vocabulary = self.programs.config.data.tokenizer;
        let constraint = constraint.reshape(&[self.rows()]);
        (constrained(logits, constraint, vocabulary), cache)
    }

    /// The number of each row among the samples of its prompt, and that of its prompt: u32 `[rows,
    /// 2]`.
    fn streams_of_rows(&self) -> Tensor<'g> {
        let g = self.graph();
        let dims = [self.batch(), self.rows_per_prompt];
        let column = |x: Tensor<'g>| x.reshape(&[self.rows(), 1]);
        let of_prompt = |i| (self.settings.streams.slice_dim(1, i, i + 1)).broadcast_to(&dims);
        let number = of_prompt(0) + g.iota(Shape::new(DType::U32, dims), 1);
        g.concatenate(&[column(number), column(of_prompt(1))], 1)
    }

    /// Each row on its own: the likeliest token after the other, or drawn ones.
    fn one_by_one(&self, sample: bool) -> (Tensor<'g>, Tensor<'g>) {
        let g = self.graph();
        let (rows, positions) = (self.rows(), self.positions());
        let zero = g.scalar(DType::S32, 0.0);
        let cache = self.network.empty_cache(rows, positions);
        let ids = g.full(&Shape::new(DType::S32, [rows]), PAD.into());
        let init = [
            zero,
            ids,
            ids.not_equal(ids),
            g.full(&Shape::new(DType::S32, [rows, positions]), PAD.into()),
            g.zeros(&Shape::new(DType::F32, [rows])),
            cache.keys,
            cache.values,
        ];
        let limit = self.settings.limit;
        let is_unfinished = |state: &[Tensor<'g>]| {
            let running = state[2].logical_not().convert(DType::S32).max(&[0]);
            state[0].less(limit) & running.greater(running.zeros_like())
        };
        let last = g.while_loop(&init, is_unfinished, |state| {
            let [position, ids, finished, tokens, score] = state[..5] else {
                unreachable!("the state begins with five arrays")
            };
            let cache = KeyValueCache::of_arrays(&state[5..]);
            let (logits, cache) = self.logits(ids, position, cache);
            let chosen = match sample {
                false => argmax(logits),
                true => {
                    let streams = self.streams_of_rows();
                    let width = logits.dim(1);
                    let noise = random::gumbel(self.settings.seed, streams, position, width);
                    argmax(self.settings.warp.applied_to(logits) + noise)
                }
            };
            let ids = finished.select(chosen.full_like(PAD.into()), chosen);
            let gain = token_scores(logits.log_softmax(), ids);
            let score = score + finished.select(gain.zeros_like(), gain);
            let at = [position.zeros_like(), position];
            let tokens = tokens.dynamic_update_slice(ids.expand_dims(&[1]), &at);
            let finished = finished | ids.equal(ids.full_like(EOS.into()));
            let next = position + position.full_like(1.0);
            let mut state = vec![next, ids, finished, tokens, score];
            state.extend(cache.arrays());
            state
        });
        let dims = [self.batch(), self.rows_per_prompt];
        let tokens = last[3].reshape(&[dims[0], dims[1], positions]);
        (tokens, last[4].reshape(&dims))
    }
}
