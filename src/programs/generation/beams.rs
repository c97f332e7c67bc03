//! Beam search, as `transformers` 4.57 defines it (`GenerationMixin._beam_search`), number by
//! number: so many of the best unfinished sequences of a prompt go on together, and so many of the
//! best finished ones are kept.

use ankh_data::tokenizer::{EOS, PAD};
use ankh_hlo::{DType, Shape, Tensor};

use super::top_k::{gather, rows_of, top_k};
use super::{Decoder, Settings};
use crate::model::KeyValueCache;
use crate::programs::random;

/// The score of what is no candidate, or what is added to it.
const NO_CANDIDATE: f64 = -1e9;

/// The state of the loop. `beams` is the number of rows of a prompt.
#[derive(Clone, Copy)]
struct State<'g> {
    /// s32.
    position: Tensor<'g>,
    /// The unfinished sequences, s32 `[batch, beams, positions]`, and the sums of their scores,
    /// float32 `[batch, beams]`.
    running: Tensor<'g>,
    running_scores: Tensor<'g>,
    /// The best finished ones, and their scores with the length penalty.
    finished: Tensor<'g>,
    finished_scores: Tensor<'g>,
    /// Which of them are there, pred `[batch, beams]`.
    is_finished: Tensor<'g>,
    /// Whether an unfinished sequence may still become better than a finished one, pred `[batch]`.
    may_improve: Tensor<'g>,
    /// Whether the loop goes on.
    goes_on: Tensor<'g>,
    cache: KeyValueCache<'g>,
}

impl<'g> State<'g> {
    fn arrays(self) -> Vec<Tensor<'g>> {
        let [keys, values] = self.cache.arrays();
        vec![
            self.position,
            self.running,
            self.running_scores,
            self.finished,
            self.finished_scores,
            self.is_finished,
            self.may_improve,
            self.goes_on,
            keys,
            values,
        ]
    }

    fn of(arrays: &[Tensor<'g>]) -> State<'g> {
        State {
            position: arrays[0],
            running: arrays[1],
            running_scores: arrays[2],
            finished: arrays[3],
            finished_scores: arrays[4],
            is_finished: arrays[5],
            may_improve: arrays[6],
            goes_on: arrays[7],
            cache: KeyValueCache::of_arrays(&arrays[8..]),
        }
    }
}

/// The best continuations of a prompt's unfinished sequences: twice as many as beams, so that
/// enough are left if all the best ones end. Each `[batch, 2 * beams]`.
struct Candidates<'g> {
    scores: Tensor<'g>,
    /// The beam that is continued, and its row among all.
    rows: Tensor<'g>,
    /// s32 `[batch, 2 * beams, positions]`, with the new token.
    sequences: Tensor<'g>,
    /// Whether the sequence ends here.
    ends: Tensor<'g>,
}

impl<'g> Decoder<'_, 'g, '_> {
    /// The tokens and scores of the best sequences of each prompt, the best first.
    pub(super) fn beams(&self, sample: bool, early_stopping: bool) -> (Tensor<'g>, Tensor<'g>) {
        let last = self.graph().while_loop(
            &self.first().arrays(),
            |arrays| State::of(arrays).goes_on,
            |arrays| {
                let state = State::of(arrays);
                self.step(state, sample, early_stopping).arrays()
            },
        );
        let last = State::of(&last);
        (last.finished, last.finished_scores)
    }

    fn first(&self) -> State<'g> {
        let g = self.graph();
        let dims = [self.batch(), self.rows_per_prompt];
        let sequences = Shape::new(DType::S32, [dims[0], dims[1], self.positions()]);
        let pads = g.full(&sequences, PAD.into());
        // All beams are the same at first, so only the first one counts.
        let beam = g.iota(Shape::new(DType::S32, dims), 1);
        let scores = g.zeros(&Shape::new(DType::F32, dims));
        let others = scores.full_like(NO_CANDIDATE);
        let batch = g.zeros(&Shape::new(DType::S32, [dims[0]]));
        State {
            position: g.scalar(DType::S32, 0.0),
            running: pads,
            running_scores: (beam.equal(beam.zeros_like())).select(scores, others),
            finished: pads,
            finished_scores: others,
            is_finished: beam.not_equal(beam),
            may_improve: batch.equal(batch),
            goes_on: self.settings.limit.greater(g.scalar(DType::S32, 0.0)),
            cache: self.network.empty_cache(self.rows(), self.positions()),
        }
    }

    fn step(&self, state: State<'g>, sample: bool, early_stopping: bool) -> State<'g> {
        let position = state.position;
        let (candidates, cache) = self.candidates(&state, sample);
        let beams = self.rows_per_prompt;

        // The best that do not end go on.
        let ended = candidates.ends.convert(DType::F32) * NO_CANDIDATE;
        let going_on = candidates.scores + ended;
        let (running_scores, places) = top_k(going_on, going_on, beams);
        let running = gather(candidates.sequences, places);
        let rows = gather(candidates.rows, places);

        // Those of the best that end are compared with what has ended before.
        let length = (position + position.full_like(1.0)).convert(DType::F32);
        let penalty = length.pow(self.settings.length_penalty);
        let place = (self.graph()).iota(Shape::new(DType::S32, candidates.scores.dims()), 1);
        let just_ended = candidates.ends & place.less(place.full_like(beams as f64));
        let mut scores = candidates.scores / penalty.broadcast_to(&candidates.scores.dims());
        let no_more = |x: Tensor<'g>| x.convert(DType::F32) * NO_CANDIDATE;
        if early_stopping {
            let is_full = all(state.is_finished, 1);
            scores = scores + no_more(is_full).expand_dims(&[1]);
        }
        scores = scores + no_more(state.may_improve.logical_not()).expand_dims(&[1]);
        scores = scores + no_more(just_ended.logical_not());
        let g = self.graph();
        let both = |x, y| g.concatenate(&[x, y], 1);
        let merged = both(state.finished_scores, scores);
        let (finished_scores, places) = top_k(merged, merged, beams);
        let finished = gather(both(state.finished, candidates.sequences), places);
        let flags = |x: Tensor<'g>| x.convert(DType::S32);
        let merged = both(flags(state.is_finished), flags(just_ended));
        let is_finished = gather(merged, places);
        let is_finished = is_finished.not_equal(is_finished.zeros_like());

        // The score of the best unfinished sequence, were it to end here.
        let best = running_scores.slice_dim(1, 0, 1);
        let best = best / penalty.broadcast_to(&best.dims());
        let worst = finished_scores.min(&[1]).expand_dims(&[1]);
        let worst = worst.broadcast_to(&finished_scores.dims());
        let worst = is_finished.select(worst, worst.full_like(NO_CANDIDATE));
        let may_improve =
            state.may_improve & any(best.broadcast_to(&worst.dims()).greater(worst), 1);
        let mut goes_on = any(may_improve, 0) & all(all(candidates.ends, 1), 0).logical_not();
        if early_stopping {
            goes_on = goes_on & all(all(is_finished, 1), 0).logical_not();
        }
        State {
            position: position + position.full_like(1.0),
            running,
            running_scores,
            finished,
            finished_scores,
            is_finished,
            may_improve,
            goes_on,
            cache: cache.gather(rows.reshape(&[self.rows()])),
        }
    }

    fn candidates(&self, state: &State<'g>, sample: bool) -> (Candidates<'g>, KeyValueCache<'g>) {
        let (batch, beams, position) = (self.batch(), self.rows_per_prompt, state.position);
        let zero = position.zeros_like();
        let one = position.full_like(1.0);
        // The token before; at the first position the clamped one, which is the start's too.
        let before = position - one;
        let ids = (state.running).dynamic_slice(&[zero, zero, before], &[batch, beams, 1]);
        let (logits, cache) = self.logits(ids.reshape(&[self.rows()]), position, state.cache);
        let vocabulary = logits.dim(1);
        let mut log_probabilities = logits.log_softmax();
        if sample {
            log_probabilities = self.settings.warp.applied_to(log_probabilities);
        }
        let scores = log_probabilities.reshape(&[batch, beams, vocabulary])
            + state.running_scores.expand_dims(&[2]);
        let scores = scores.reshape(&[batch, beams * vocabulary]);
        let keys = match sample {
            false => scores,
            true => {
                let Settings { seed, streams, .. } = *self.settings;
                scores + random::gumbel(seed, streams, position, beams * vocabulary)
            }
        };
        let (scores, places) = top_k(keys, scores, 2 * beams);
        let beam = places / places.full_like(vocabulary as f64);
        let token = places - beam * beam.full_like(vocabulary as f64);
        let sequences = gather(state.running, beam);
        let sequences =
            sequences.dynamic_update_slice(token.expand_dims(&[2]), &[zero, zero, position]);
        let is_last = (position + one).greater_equal(self.settings.limit);
        let ends = token.equal(token.full_like(EOS.into())) | is_last.broadcast_to(&token.dims());
        let candidates = Candidates {
            scores,
            rows: rows_of(beam, beams),
            sequences,
            ends,
        };
        (candidates, cache)
    }
}

/// Whether any is true along a dimension.
fn any(x: Tensor<'_>, dim: i64) -> Tensor<'_> {
    let some = x.convert(DType::S32).max(&[dim]);
    some.greater(some.zeros_like())
}

/// Whether all are true along a dimension.
fn all(x: Tensor<'_>, dim: i64) -> Tensor<'_> {
    any(x.logical_not(), dim).logical_not()
}
