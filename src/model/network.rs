//! The forward pass: the encoder's and the decoder's stack of layers, from token ids to logits.

use ankh_hlo::{DType, Graph, Remat, ScanOptions, Tensor};

use super::LogicalAxis::{self, Batch, Embed, Length, Vocab};
use super::attention::AttentionImplementation::{Blocks, Formula, Kernel};
use super::attention::{
    AttentionImplementation, AttentionMask, Bias, Segments, attention, causal_mask, key_mask,
    relative_by_blocks, relative_for_kernel,
};
use super::layers::{feed_forward, product, rms_norm};
use super::lora::{Adaptation, AdaptedLayer, LayerAdapters};
use super::position::{self, Direction};
use super::weights::{DecoderLayer, EncoderLayer, Tree, Weights};
use super::{Model, TieEmbeddings};

/// A model whose weights are tensors of a program.
pub struct Network<'g, 'c> {
    /// Its dimensions.
    pub model: &'c Model,
    /// Its weights, float32.
    pub weights: Weights<Tensor<'g>>,
    /// The element type of activations and matrix products.
    pub compute: DType,
    /// What a layer keeps for its derivative.
    pub remat: Remat,
    /// How attention is computed.
    pub attention: AttentionImplementation,
    /// Whether the layers of a stack stand one after the other, and not in a loop.
    pub unroll: bool,
    /// The element type in which the gradients of weights leave their matrix products and are
    /// summed over devices: that of the products, or float32.
    pub gradients: DType,
}

/// Which positions of a batch hold tokens, and which of them belong together; s32.
#[derive(Clone, Copy)]
pub enum Tokens<'g> {
    /// A sequence a row: 1 on the tokens of its input, `[batch, input length]`.
    Padded {
        /// 0 on padding.
        attention_mask: Tensor<'g>,
    },
    /// Several sequences a row, one after the other: the number of each token's sequence in its
    /// row, from 1; 0 on padding.
    Packed {
        /// `[batch, input length]`
        input_segments: Tensor<'g>,
        /// `[batch, target length]`
        target_segments: Tensor<'g>,
    },
}

/// The results of a forward pass.
#[derive(Clone, Copy)]
pub struct States<'g> {
    /// The encoder's last states, after its final norm: `[batch, input length, embed]`.
    pub encoder: Tensor<'g>,
    /// float32 `[batch, target length, vocab]`.
    pub logits: Tensor<'g>,
}

pub(super) const ACTIVATION: &[LogicalAxis] = &[Batch, Length, Embed];

fn segments<'g>(queries: Tensor<'g>, keys: Tensor<'g>, direction: Direction) -> AttentionMask<'g> {
    AttentionMask::Segments(Segments {
        queries,
        keys,
        direction,
    })
}

impl<'g> Network<'g, '_> {
    /// Logits for each decoder position. `input_ids` is s32 `[batch, input length]`,
    /// `decoder_input_ids` is s32 `[batch, target length]`.
    pub fn forward(
        &self,
        input_ids: Tensor<'g>,
        decoder_input_ids: Tensor<'g>,
        tokens: Tokens<'g>,
    ) -> States<'g> {
        let encoder = self.encode(input_ids, tokens);
        States {
            encoder,
            logits: self.decode(decoder_input_ids, encoder, tokens),
        }
    }

    /// The encoder's last states, after its final norm: `[batch, input length, embed]`, for
    /// `input_ids`, s32 `[batch, input length]`.
    pub fn encode(&self, input_ids: Tensor<'g>, tokens: Tokens<'g>) -> Tensor<'g> {
        let layers = &self.weights.encoder.layers;
        self.encode_by(input_ids, tokens, layers, |p, x, bias| {
            self.encoder_layer(p, None, x, bias)
        })
    }

    /// [`Network::encode`] with adapters in each layer.
    pub fn encode_adapted(
        &self,
        input_ids: Tensor<'g>,
        tokens: Tokens<'g>,
        adaptation: Adaptation<'_, 'g>,
    ) -> Tensor<'g> {
        let layers = AdaptedLayer::stacked(&self.weights.encoder.layers, adaptation);
        self.encode_by(input_ids, tokens, &layers, |p, x, bias| {
            self.encoder_layer(&p.layer, Some(p.adapters(adaptation)), x, bias)
        })
    }

    fn encode_by<L: Tree<Tensor<'g>, With<Tensor<'g>> = L>>(
        &self,
        input_ids: Tensor<'g>,
        tokens: Tokens<'g>,
        layers: &L,
        layer: impl Fn(&L, Tensor<'g>, Bias<'g>) -> Tensor<'g>,
    ) -> Tensor<'g> {
        let _scope = self.graph().scope("encoder");
        let p = &self.weights.encoder;
        let length = input_ids.dim(1);
        let bias = Bias {
            relative: Some(self.relative(p.relative_bias, Direction::Bidirectional, length)),
            mask: self.encoder_mask(tokens),
        };
        let x = self.stack(input_ids, layers, |p, x| layer(p, x, bias));
        rms_norm(x, p.final_norm, self.model.norm_epsilon).with_logical_axes(ACTIVATION)
    }

    /// float32 logits `[batch, target length, vocab]` for `decoder_input_ids`, s32 `[batch, target
    /// length]`, attending to `memory`, the encoder's states.
    pub fn decode(
        &self,
        decoder_input_ids: Tensor<'g>,
        memory: Tensor<'g>,
        tokens: Tokens<'g>,
    ) -> Tensor<'g> {
        let x = {
            let _scope = self.graph().scope("decoder");
            let p = &self.weights.decoder;
            let length = decoder_input_ids.dim(1);
            let bias = Bias {
                relative: Some(self.relative(p.relative_bias, Direction::Causal, length)),
                mask: self.decoder_mask(decoder_input_ids, tokens),
            };
            let cross = Bias {
                relative: None,
                mask: self.cross_mask(decoder_input_ids, tokens),
            };
            let x = self.stack(decoder_input_ids, &p.layers, |p, x| {
                self.decoder_layer(p, x, memory, bias, cross)
            });
            rms_norm(x, p.final_norm, self.model.norm_epsilon).with_logical_axes(ACTIVATION)
        };
        self.logits(x)
    }

    /// Which inputs the encoder's attention sees. A kernel takes segments alone: where rows are
    /// padded, each is one segment, and its padding another. Blocks are for packed rows alone.
    fn encoder_mask(&self, tokens: Tokens<'g>) -> AttentionMask<'g> {
        match (tokens, self.attention) {
            (Tokens::Padded { attention_mask }, Formula | Blocks) => {
                AttentionMask::Additive(key_mask(attention_mask))
            }
            (Tokens::Padded { attention_mask }, Kernel(_)) => {
                let queries = attention_mask.full_like(1.0);
                segments(queries, attention_mask, Direction::Bidirectional)
            }
            (Tokens::Packed { input_segments, .. }, _) => {
                segments(input_segments, input_segments, Direction::Bidirectional)
            }
        }
    }

    /// Which targets the decoder's attention sees.
    fn decoder_mask(&self, ids: Tensor<'g>, tokens: Tokens<'g>) -> AttentionMask<'g> {
        match (tokens, self.attention) {
            (Tokens::Padded { .. }, Formula | Blocks) => {
                AttentionMask::Additive(causal_mask(self.graph(), ids.dim(1)))
            }
            (Tokens::Padded { .. }, Kernel(_)) => {
                let of_targets = ids.full_like(1.0);
                segments(of_targets, of_targets, Direction::Causal)
            }
            (
                Tokens::Packed {
                    target_segments, ..
                },
                _,
            ) => segments(target_segments, target_segments, Direction::Causal),
        }
    }

    /// Which inputs the decoder sees.
    fn cross_mask(&self, ids: Tensor<'g>, tokens: Tokens<'g>) -> AttentionMask<'g> {
        match (tokens, self.attention) {
            (Tokens::Padded { attention_mask }, Formula | Blocks) => {
                AttentionMask::Additive(key_mask(attention_mask))
            }
            (Tokens::Padded { attention_mask }, Kernel(_)) => {
                let of_targets = ids.full_like(1.0);
                segments(of_targets, attention_mask, Direction::Bidirectional)
            }
            (
                Tokens::Packed {
                    input_segments,
                    target_segments,
                },
                _,
            ) => segments(target_segments, input_segments, Direction::Bidirectional),
        }
    }

    pub(super) fn graph(&self) -> &'g Graph {
        self.weights.shared.graph()
    }

    /// Token embeddings through the layers, one after the other.
    fn stack<L: Tree<Tensor<'g>, With<Tensor<'g>> = L>>(
        &self,
        ids: Tensor<'g>,
        layers: &L,
        layer: impl Fn(&L, Tensor<'g>) -> Tensor<'g>,
    ) -> Tensor<'g> {
        let x = self
            .weights
            .shared
            .gather_rows(ids)
            .convert(self.compute)
            .with_logical_axes(ACTIVATION);
        let _scope = self.graph().scope("layer");
        let leaves: Vec<Tensor<'g>> = (layers.leaves().into_iter())
            .map(|w| if w.rank() == 3 { self.narrowed(w) } else { w })
            .collect();
        let unroll = match self.unroll {
            // Every weight of a stack has the layers as its leading dimension.
            true => leaves[0].dim(0),
            false => 1,
        };
        let options = ScanOptions {
            remat: self.remat.clone(),
            unroll,
            ..Default::default()
        };
        let (x, _) = self.graph().scan(options, &[x], &leaves, |carry, slices| {
            let x = layer(&layers.filled(slices), carry[0]);
            (vec![x.with_logical_axes(ACTIVATION)], vec![])
        });
        x[0]
    }

    /// A weight in the type in which its gradient is computed.
    fn narrowed(&self, w: Tensor<'g>) -> Tensor<'g> {
        match self.gradients == self.compute {
            true => w.convert(self.compute),
            false => w,
        }
    }

    fn encoder_layer(
        &self,
        p: &EncoderLayer<Tensor<'g>>,
        adapters: Option<LayerAdapters<'_, 'g>>,
        x: Tensor<'g>,
        bias: Bias<'g>,
    ) -> Tensor<'g> {
        let h = self.norm(x, p.attention_norm);
        let attended = self.attend("attention", &p.attention, adapters, (h, h), bias);
        let x = (x + attended).checkpoint_name("residual");
        x + self.feed_forward(p.mlp_norm, &p.mlp, x)
    }

    fn decoder_layer(
        &self,
        p: &DecoderLayer<Tensor<'g>>,
        x: Tensor<'g>,
        memory: Tensor<'g>,
        bias: Bias<'g>,
        cross: Bias<'g>,
    ) -> Tensor<'g> {
        let h = self.norm(x, p.attention_norm);
        let attended = self.attend("attention", &p.attention, None, (h, h), bias);
        let x = (x + attended).checkpoint_name("residual");
        let h = self.norm(x, p.cross_norm);
        let attended = self.attend("cross", &p.cross, None, (h, memory), cross);
        let x = (x + attended).checkpoint_name("residual");
        x + self.feed_forward(p.mlp_norm, &p.mlp, x)
    }

    pub(super) fn norm(&self, x: Tensor<'g>, weight: Tensor<'g>) -> Tensor<'g> {
        rms_norm(x, weight, self.model.norm_epsilon)
    }

    fn attend(
        &self,
        name: &str,
        p: &super::weights::Attention<Tensor<'g>>,
        adapters: Option<LayerAdapters<'_, 'g>>,
        of: (Tensor<'g>, Tensor<'g>),
        bias: Bias<'g>,
    ) -> Tensor<'g> {
        let _scope = self.graph().scope(name);
        let heads = self.model.heads as i64;
        attention(self.attention, p, adapters, of, heads, bias)
    }

    pub(super) fn feed_forward(
        &self,
        norm: Tensor<'g>,
        p: &super::weights::FeedForward<Tensor<'g>>,
        x: Tensor<'g>,
    ) -> Tensor<'g> {
        let _scope = self.graph().scope("mlp");
        feed_forward(p, self.norm(x, norm), self.model.activation)
    }

    /// The bias by relative position. It is the same for packed rows: a sequence takes up
    /// consecutive positions, so the distances within it are those of the sequence alone, and those
    /// between sequences are masked.
    fn relative(&self, table: Tensor<'g>, direction: Direction, length: i64) -> Tensor<'g> {
        let _scope = self.graph().scope("relative_bias");
        let far = self.model.relative_max_distance;
        match self.attention {
            Formula => position::bias(table, direction, far, length),
            Kernel(_) => {
                relative_for_kernel(position::bias_by_products(table, direction, far, length))
            }
            Blocks => relative_by_blocks(table, far),
        }
    }

    /// float32 logits. A tied projection is the embedding table; the first T5 scales what comes
    /// before it by `embed^-1/2`.
    pub(super) fn logits(&self, x: Tensor<'g>) -> Tensor<'g> {
        let _scope = self.graph().scope("logits");
        let (x, head) = match self.weights.lm_head {
            Some(head) => (x, head),
            None => {
                let x = match self.model.tie_embeddings {
                    TieEmbeddings::Unscaled => x,
                    _ => x * (self.model.d_model as f64).powf(-0.5),
                };
                (x, self.weights.shared.transpose(&[1, 0]))
            }
        };
        product(x, self.narrowed(head), [Embed, Vocab], DType::F32)
            .with_logical_axes(&[Batch, Length, Vocab])
    }
}
