//! From logits to the tokens that may follow, and how likely each is to be drawn.

use ankh_data::tokenizer::EOS;
use ankh_data::{Tokenizer, Vocabulary};
use ankh_hlo::{DType, Literal, Shape, Tensor};

/// How low the score of a token is that may not follow.
const EXCLUDED: f64 = -1e9;

/// What may follow at a position, where it is no token's id: see [`Constraint`].
const FREE: i32 = -1;
const RESIDUE: i32 = -2;
const RESIDUE_OR_END: i32 = -3;

/// What may follow at a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Constraint {
    /// Any token.
    Free,
    /// One of the twenty amino acids.
    Residue,
    /// One of them, or `</s>`.
    ResidueOrEnd,
    /// This token alone.
    Token(u8),
}

impl Constraint {
    /// As programs take it.
    pub fn code(self) -> i32 {
        match self {
            Constraint::Free => FREE,
            Constraint::Residue => RESIDUE,
            Constraint::ResidueOrEnd => RESIDUE_OR_END,
            Constraint::Token(id) => id.into(),
        }
    }
}

/// The amino acids of the genetic code, which are what is drawn at a place for residues.
pub const AMINO_ACIDS: &[u8; 20] = b"ACDEFGHIKLMNPQRSTVWY";

/// `logits [rows, vocab]` without what the constraint `[rows]` of each row excludes.
pub(super) fn constrained<'g>(
    logits: Tensor<'g>,
    constraint: Tensor<'g>,
    vocabulary: Vocabulary,
) -> Tensor<'g> {
    let g = logits.graph();
    let dims = logits.dims();
    let ids = g.iota(Shape::new(DType::S32, dims.clone()), 1);
    let tokenizer = Tokenizer::of(vocabulary);
    let is_residue = (0..dims[1]).map(|id| {
        let letter = u8::try_from(id).ok().and_then(|id| tokenizer.residue(id));
        letter.is_some_and(|letter| AMINO_ACIDS.contains(&(letter as u8)))
    });
    let is_residue: Vec<i32> = is_residue.map(i32::from).collect();
    let residues = g.literal(Literal::s32(&[dims[1]], &is_residue).expect("a number a token"));
    let residues = residues.not_equal(residues.zeros_like());
    let residues = residues.broadcast_in_dims(&dims, &[1]);
    let constraint = constraint.expand_dims(&[1]).broadcast_to(&dims);
    let is = |code: i32| constraint.equal(constraint.full_like(code.into()));
    let end = is(RESIDUE_OR_END) & ids.equal(ids.full_like(EOS.into()));
    let residues = residues & (is(RESIDUE) | is(RESIDUE_OR_END));
    let allowed = is(FREE) | residues | end | constraint.equal(ids);
    allowed.select(logits, logits.full_like(EXCLUDED))
}

/// What changes the distribution that tokens are drawn from.
#[derive(Clone, Copy)]
pub(super) struct Warp<'g> {
    /// What scores are divided by; float32.
    pub temperature: Tensor<'g>,
    /// How many tokens may be drawn, the likeliest; s32, 0 for all.
    pub top_k: Tensor<'g>,
    /// How much of the probability the likeliest tokens must have that may be drawn; float32, 1 for
    /// all.
    pub top_p: Tensor<'g>,
}

impl<'g> Warp<'g> {
    /// Scores `[rows, vocab]` with it applied, in the order of `transformers`: temperature, top-k,
    /// top-p (Holtzman et al., 2020).
    ///
    /// A token's rank is how many are likelier, so nothing is sorted: a vocabulary is short.
    pub fn applied_to(self, scores: Tensor<'g>) -> Tensor<'g> {
        let scores = scores / self.temperature.broadcast_to(&scores.dims());
        // [rows, token, other]: whether the other is likelier.
        let likelier = (scores.expand_dims(&[1])).greater(scores.expand_dims(&[2]));
        let likelier = likelier.convert(DType::F32);
        let rank = likelier.sum(&[2]);
        let all = self.top_k.equal(self.top_k.zeros_like());
        let most = all.select(self.top_k.full_like(scores.dim(1) as f64), self.top_k);
        let most = most.convert(DType::F32).broadcast_to(&rank.dims());
        let excluded = scores.full_like(EXCLUDED);
        let scores = rank.less(most).select(scores, excluded);
        let probability = scores.softmax();
        let before = (likelier * probability.expand_dims(&[1])).sum(&[2]);
        let enough = self.top_p.broadcast_to(&before.dims());
        let all = self.top_p.greater_equal(self.top_p.full_like(1.0));
        let kept = before.less(enough) | all.broadcast_to(&before.dims());
        kept.select(scores, excluded)
    }
}
