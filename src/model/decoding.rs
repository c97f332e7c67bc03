//! The decoder one token at a time, with the keys and values of the tokens before it kept: what
//! generation runs. Attention is by the formula: a single query has no square of scores to save.

use ankh_hlo::{DType, ScanOptions, Shape, Tensor};

use super::LogicalAxis::{Embed, Heads};
use super::Network;
use super::attention::{MASK_VALUE, accumulation_dtype, key_mask};
use super::layers::{project, rms_norm};
use super::network::ACTIVATION;
use super::position::{self, Direction};
use super::weights::{Attention, DecoderLayer, Tree};

/// Keys and values of the encoder's states for each decoder layer: `[layers, batch, heads, input
/// length, kv]`. They are the same for every token.
#[derive(Clone, Copy)]
pub struct CrossKeyValues<'g> {
    keys: Tensor<'g>,
    values: Tensor<'g>,
    /// 0, or `MASK_VALUE` on padding: `[batch, 1, 1, input length]`.
    mask: Tensor<'g>,
}

/// Keys and values of the decoder's tokens up to now: `[rows, layers, heads, positions, kv]`. What
/// lies behind the newest token is not read. The rows lead, so that a beam's can be gathered.
#[derive(Clone, Copy)]
pub struct KeyValueCache<'g> {
    /// Of self-attention.
    pub keys: Tensor<'g>,
    /// Of self-attention.
    pub values: Tensor<'g>,
}

/// The decoder's bias by distance, `[heads, 2 * positions - 1]`: that of a key `d` positions before
/// its query at `positions - 1 - d`; the rest is for keys that are not read.
#[derive(Clone, Copy)]
pub struct DistanceBias<'g>(Tensor<'g>);

impl<'g> DistanceBias<'g> {
    /// `[heads, positions]`: the bias of each key for the query at `position`, `MASK_VALUE` for
    /// those after it.
    fn of_query(self, position: Tensor<'g>) -> Tensor<'g> {
        let g = position.graph();
        let (heads, positions) = (self.0.dim(0), (self.0.dim(1) + 1) / 2);
        let last = g.scalar(DType::S32, (positions - 1) as f64);
        let zero = g.scalar(DType::S32, 0.0);
        let row = (self.0).dynamic_slice(&[zero, last - position], &[heads, positions]);
        let key = g.iota(Shape::new(DType::S32, [heads, positions]), 1);
        let later = key.greater(position.broadcast_to(&[heads, positions]));
        later.select(row.full_like(MASK_VALUE), row)
    }
}

impl<'g> Network<'g, '_> {
    /// The keys and values of `memory`, the encoder's states `[batch, input length, embed]`, for
    /// every decoder layer. `attention_mask`, s32 `[batch, input length]`, is 0 on padding.
    pub fn cross_key_values(
        &self,
        memory: Tensor<'g>,
        attention_mask: Tensor<'g>,
    ) -> CrossKeyValues<'g> {
        let _scope = self.graph().scope("cross_key_values");
        let cross = &self.weights.decoder.layers.cross;
        let (_, stacked) = self.graph().scan(
            ScanOptions::default(),
            &[],
            &[cross.k, cross.v],
            |_, slices| {
                let heads = |w: Tensor<'g>| self.split_heads(self.projected(memory, w));
                (vec![], slices.iter().map(|&w| heads(w)).collect())
            },
        );
        CrossKeyValues {
            keys: stacked[0],
            values: stacked[1],
            mask: key_mask(attention_mask),
        }
    }

    /// A cache without tokens, for `rows` rows of at most `positions` tokens.
    pub fn empty_cache(&self, rows: i64, positions: i64) -> KeyValueCache<'g> {
        let (model, g) = (self.model, self.graph());
        let dims = [
            rows,
            model.decoder_layers as i64,
            model.heads as i64,
            positions,
            model.d_kv as i64,
        ];
        let zeros = g.zeros(&Shape::new(self.compute, dims));
        KeyValueCache {
            keys: zeros,
            values: zeros,
        }
    }

    /// The decoder's bias for up to `positions` tokens.
    pub fn distance_bias(&self, positions: i64) -> DistanceBias<'g> {
        let _scope = self.graph().scope("relative_bias");
        let table = self.weights.decoder.relative_bias;
        let far = self.model.relative_max_distance;
        let past = position::bias_from(table, Direction::Causal, far, positions - 1, 1, positions);
        let heads = past.dim(0);
        let past = past.reshape(&[heads, positions]);
        let unread = self
            .graph()
            .zeros(&Shape::new(past.dtype(), [heads, positions - 1]));
        DistanceBias(self.graph().concatenate(&[past, unread], 1))
    }

    /// One token of each row through the decoder: float32 logits `[rows, vocab]` for the token that
    /// follows, and the cache with this token in it. `ids` is s32 `[rows]`, all at `position`, a
    /// scalar. Each sequence of the batch has `rows / batch` rows, one after the other.
    pub fn decode_token(
        &self,
        ids: Tensor<'g>,
        position: Tensor<'g>,
        cache: KeyValueCache<'g>,
        cross: CrossKeyValues<'g>,
        bias: DistanceBias<'g>,
    ) -> (Tensor<'g>, KeyValueCache<'g>) {
        let g = self.graph();
        let (rows, vocabulary) = (ids.dim(0), self.model.vocabulary as i64);
        let p = &self.weights.decoder;
        let x = {
            let _scope = g.scope("decoder");
            let embedding = self.weights.shared.gather_rows(ids).convert(self.compute);
            let x = embedding.expand_dims(&[1]).with_logical_axes(ACTIVATION);
            let step = Step {
                position,
                bias: bias.of_query(position),
                mask: cross.mask,
            };
            let layer = g.scalar(DType::S32, 0.0);
            let xs: Vec<Tensor<'g>> = (p.layers.leaves().into_iter())
                .chain([cross.keys, cross.values])
                .collect();
            let options = ScanOptions {
                unroll: match self.unroll {
                    true => xs[0].dim(0),
                    false => 1,
                },
                ..Default::default()
            };
            let init = [x, cache.keys, cache.values, layer];
            let (last, _) = g.scan(options, &init, &xs, |carry, slices| {
                let (weights, memory) = slices.split_at(slices.len() - 2);
                let p: DecoderLayer<Tensor<'g>> = p.layers.filled(weights);
                let cache = KeyValueCache {
                    keys: carry[1],
                    values: carry[2],
                };
                let (x, cache) = self.token_layer(&p, carry[0], (cache, carry[3]), memory, &step);
                let next = carry[3] + carry[3].full_like(1.0);
                (vec![x, cache.keys, cache.values, next], vec![])
            });
            let cache = KeyValueCache {
                keys: last[1],
                values: last[2],
            };
            (
                rms_norm(last[0], p.final_norm, self.model.norm_epsilon),
                cache,
            )
        };
        (self.logits(x.0).reshape(&[rows, vocabulary]), x.1)
    }

    /// A decoder layer for `x [rows, 1, embed]`. `memory` is the layer's part of the cross keys and
    /// values.
    fn token_layer(
        &self,
        p: &DecoderLayer<Tensor<'g>>,
        x: Tensor<'g>,
        (cache, layer): (KeyValueCache<'g>, Tensor<'g>),
        memory: &[Tensor<'g>],
        step: &Step<'g>,
    ) -> (Tensor<'g>, KeyValueCache<'g>) {
        let h = self.norm(x, p.attention_norm);
        let (o, cache) = {
            let _scope = self.graph().scope("attention");
            self.self_attention(&p.attention, h, (cache, layer), step)
        };
        let x = x + o;
        let h = self.norm(x, p.cross_norm);
        let x = x + {
            let _scope = self.graph().scope("cross");
            self.cross_attention(&p.cross, h, memory, step.mask)
        };
        (x + self.feed_forward(p.mlp_norm, &p.mlp, x), cache)
    }

    fn self_attention(
        &self,
        p: &Attention<Tensor<'g>>,
        x: Tensor<'g>,
        (cache, layer): (KeyValueCache<'g>, Tensor<'g>),
        step: &Step<'g>,
    ) -> (Tensor<'g>, KeyValueCache<'g>) {
        let g = self.graph();
        let zero = layer.zeros_like();
        let [rows, _, heads, positions, kv] = cache.keys.dims()[..] else {
            unreachable!("a cache has five dimensions")
        };
        let with_token = |kept: Tensor<'g>, w: Tensor<'g>| {
            let new = self.projected(x, w).reshape(&[rows, 1, heads, 1, kv]);
            kept.dynamic_update_slice(new, &[zero, layer, zero, step.position, zero])
        };
        let cache = KeyValueCache {
            keys: with_token(cache.keys, p.k),
            values: with_token(cache.values, p.v),
        };
        let of_layer = |kept: Tensor<'g>| {
            let starts = [zero, layer, zero, zero, zero];
            let slice = kept.dynamic_slice(&starts, &[rows, 1, heads, positions, kv]);
            slice.reshape(&[rows, heads, positions, kv])
        };
        let q = self.projected(x, p.q).reshape(&[rows, heads, kv]);
        let wide = Some(accumulation_dtype(q.dtype()));
        let keys = of_layer(cache.keys);
        let scores = g.einsum_with("rhk,rhtk->rht", q, keys, wide);
        let weights = (scores + step.bias.convert(scores.dtype())).softmax();
        let values = of_layer(cache.values);
        let o = g.einsum("rht,rhtk->rhk", weights.convert(values.dtype()), values);
        (self.output(o.reshape(&[rows, 1, heads * kv]), p.o), cache)
    }

    /// The rows of a sequence read its memory together.
    fn cross_attention(
        &self,
        p: &Attention<Tensor<'g>>,
        x: Tensor<'g>,
        memory: &[Tensor<'g>],
        mask: Tensor<'g>,
    ) -> Tensor<'g> {
        let g = self.graph();
        let (keys, values) = (memory[0], memory[1]);
        let (batch, heads, kv) = (keys.dim(0), keys.dim(1), keys.dim(3));
        let rows = x.dim(0);
        let q = self
            .projected(x, p.q)
            .reshape(&[batch, rows / batch, heads, kv]);
        let wide = Some(accumulation_dtype(q.dtype()));
        let scores = g.einsum_with("bnhk,bhsk->bhns", q, keys, wide);
        let weights = (scores + mask.convert(scores.dtype())).softmax();
        let o = g.einsum("bhns,bhsk->bnhk", weights.convert(values.dtype()), values);
        self.output(o.reshape(&[rows, 1, heads * kv]), p.o)
    }

    fn projected(&self, x: Tensor<'g>, w: Tensor<'g>) -> Tensor<'g> {
        project(x, w, [Embed, Heads])
    }

    fn output(&self, x: Tensor<'g>, w: Tensor<'g>) -> Tensor<'g> {
        project(x, w, [Heads, Embed])
    }

    /// `[batch, length, inner]` to `[batch, heads, length, kv]`.
    fn split_heads(&self, x: Tensor<'g>) -> Tensor<'g> {
        let (batch, length, heads) = (x.dim(0), x.dim(1), self.model.heads as i64);
        let x = x.reshape(&[batch, length, heads, x.dim(2) / heads]);
        x.transpose(&[0, 2, 1, 3])
    }
}

/// What all layers of a token share.
struct Step<'g> {
    position: Tensor<'g>,
    /// `[heads, positions]`
    bias: Tensor<'g>,
    /// Of the encoder's states.
    mask: Tensor<'g>,
}

impl<'g> KeyValueCache<'g> {
    /// The cache whose row `i` is row `rows[i]` of this one, s32.
    pub fn gather(self, rows: Tensor<'g>) -> KeyValueCache<'g> {
        KeyValueCache {
            keys: self.keys.gather_rows(rows),
            values: self.values.gather_rows(rows),
        }
    }

    /// Its arrays, for the state of a loop.
    pub fn arrays(self) -> [Tensor<'g>; 2] {
        [self.keys, self.values]
    }

    /// From [`KeyValueCache::arrays`].
    pub fn of_arrays(arrays: &[Tensor<'g>]) -> KeyValueCache<'g> {
        KeyValueCache {
            keys: arrays[0],
            values: arrays[1],
        }
    }
}
