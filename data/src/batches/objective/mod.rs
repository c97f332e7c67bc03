//! What the model is asked: from a sequence to an encoder input and a decoder target.
//!
//! An [`Objective`] is one of several kinds, each with the switches it has and no others. Most
//! kinds hide residues: spans of them are chosen first, each of which gets one sentinel; then the
//! input and the target are written from the sequence and those spans. Both are functions of the
//! sequence and a [`Key`]; the objective knows nothing of rows, files or batches.
//! [`Objective::unmask`] is the inverse.
//!
//! The default is Ankh's "1-gram span partial demasking" at 20 %. What is known of it, and how the
//! open questions are answered, is in `docs/design/masking.md`. A new kind is a file here that
//! implements `ObjectiveKind`, and a variant.

mod completion;
mod full_reconstruction;
mod masked_only;
mod partial_demasking;
mod residue_masks;
mod span_corruption;
mod spans;
mod unmask;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, Setting};
use crate::random::{Key, Stream};
use crate::tokenizer::{EOS, Task, Tokenizer};
pub use completion::Completion;
pub use full_reconstruction::FullReconstruction;
pub use masked_only::MaskedOnly;
pub use partial_demasking::PartialDemasking;
pub use residue_masks::{ResidueMasks, Selection, Touching};
pub use span_corruption::SpanCorruption;
pub use spans::{Count, TargetFormat};
use spans::{Hiding, Span};

/// The pre-training objective: the `[objective]` table of the configuration, where `kind` says
/// which it is.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Objective {
    /// The masked residues in full, the rest as `target_format` says: Ankh.
    PartialDemasking(PartialDemasking),
    /// Only the masked residues, one after the other, without sentinels.
    MaskedOnly(MaskedOnly),
    /// The whole sequence: ProtT5, and experiment 0.
    FullReconstruction(FullReconstruction),
    /// T5's span corruption: random spans of a mean length, each behind one sentinel.
    SpanCorruption(SpanCorruption),
    /// No masks: the first half is the input, the second half the target (Ankh3's `[S2S]`).
    Completion(Completion),
}

impl Default for Objective {
    fn default() -> Self {
        Objective::PartialDemasking(PartialDemasking::default())
    }
}

/// What a kind of objective decides. Lengths leave the task mark and `</s>` out.
trait ObjectiveKind {
    /// Checks the switches one by one and together.
    fn validate(&self) -> Result<()>;

    /// A mark in front of the input.
    fn task(&self) -> Option<Task>;

    /// How many residues of a sequence fit, given the room in input and target. Masking can only
    /// shorten an input, so for most this is what fits unmasked.
    fn window(&self, input: usize, _target: usize) -> usize {
        input
    }

    /// The longest input that a sequence of so many residues can have.
    fn longest_input(&self, tokenizer: Tokenizer, residues: usize) -> usize;

    /// The longest target that a sequence of so many residues can have.
    fn longest_target(&self, tokenizer: Tokenizer, residues: usize) -> usize;

    /// The room to keep for such a target in a row that several share: less than the longest where
    /// targets vary with the masks drawn, and hardly any is so long.
    fn usual_target(&self, tokenizer: Tokenizer, residues: usize) -> usize {
        self.longest_target(tokenizer, residues)
    }

    /// How it hides the spans it has chosen; nothing for one that hides none.
    fn hiding(&self, tokenizer: Tokenizer) -> Option<Hiding>;

    /// Makes an example: appends to its input, which has the task mark, and to its target.
    fn make(&self, tokenizer: Tokenizer, tokens: &[u8], random: &mut Stream, masking: &mut Masking);

    /// The sequence that an input and a target were made from, all three without what was added
    /// around them.
    fn unmask(&self, tokenizer: Tokenizer, input: &[u8], target: &[u8]) -> Result<Vec<u8>>;

    /// How many masks a sequence of so many residues gets, if each has a sentinel of its own.
    fn masks(&self, _residues: usize) -> Option<Masks> {
        None
    }
}

/// How many masks a sequence gets, were there sentinels for all of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Masks {
    /// The share of residues to mask.
    pub rate: f64,
    /// The residues that are.
    pub residues: usize,
    /// The masks that hide them.
    pub masks: usize,
}

/// One sequence as the model sees it. Both ends carry `</s>`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Example {
    /// The encoder's tokens.
    pub input: Vec<u8>,
    /// The decoder's tokens.
    pub target: Vec<u8>,
    /// How many residues are masked.
    pub masked: usize,
    /// How many residues were chosen but left unmasked because the sentinels had run out.
    pub unmasked_for_lack_of_sentinels: usize,
}

/// An example and the lists it was made with, to be used again for the next.
#[derive(Clone, Debug, Default)]
pub(crate) struct Masking {
    pub example: Example,
    spans: Vec<Span>,
    places: Vec<usize>,
}

impl Objective {
    /// One of each kind, with its defaults.
    pub fn kinds() -> [Objective; 5] {
        [
            Objective::PartialDemasking(PartialDemasking::default()),
            Objective::MaskedOnly(MaskedOnly::default()),
            Objective::FullReconstruction(FullReconstruction::default()),
            Objective::SpanCorruption(SpanCorruption::default()),
            Objective::Completion(Completion::default()),
        ]
    }

    fn kind(&self) -> &dyn ObjectiveKind {
        match self {
            Objective::PartialDemasking(kind) => kind,
            Objective::MaskedOnly(kind) => kind,
            Objective::FullReconstruction(kind) => kind,
            Objective::SpanCorruption(kind) => kind,
            Objective::Completion(kind) => kind,
        }
    }

    /// Checks the switches one by one and together.
    pub fn validate(&self) -> Result<()> {
        self.kind().validate()
    }

    /// Checks the switches, and that a vocabulary has the tokens they need.
    pub fn validate_for(&self, tokenizer: Tokenizer) -> Result<()> {
        self.validate()?;
        match self.kind().task() {
            Some(task) if tokenizer.task(task).is_none() => Err(Error::setting(
                Setting::Objective("task"),
                format!(
                    "needs a vocabulary with task marks, which {} lacks",
                    tokenizer.vocabulary()
                ),
            )),
            _ => Ok(()),
        }
    }

    /// How many residues of a sequence fit, given the lengths of input and target in tokens.
    pub fn window(&self, input_length: usize, target_length: usize) -> usize {
        let input = input_length.saturating_sub(self.added_to_input());
        self.kind().window(input, target_length.saturating_sub(1))
    }

    /// The longest input, task mark and `</s>` included, that a sequence of so many residues can
    /// have.
    pub fn input_tokens(&self, tokenizer: Tokenizer, residues: usize) -> usize {
        self.kind().longest_input(tokenizer, residues) + self.added_to_input()
    }

    /// The longest target, `</s>` included, that a sequence of so many residues can have. With
    /// [`Count::Bernoulli`] this is the worst case the sentinels allow.
    pub fn longest_target(&self, tokenizer: Tokenizer, residues: usize) -> usize {
        self.kind().longest_target(tokenizer, residues) + 1
    }

    /// The tokens to keep for the target of a sequence of so many residues in a row that several
    /// share. That is the longest it can have where all are alike. Where unmasked runs are named,
    /// it is the mean and half the variance: the targets of a full row then need more in one row of
    /// thirty, and hardly a token in 3,000 finds no room. Where the number of masks is drawn, it is
    /// a length that few are beyond (one in 30,000).
    pub fn target_allotment(&self, tokenizer: Tokenizer, residues: usize) -> usize {
        self.kind().usual_target(tokenizer, residues) + 1
    }

    /// How many masks a sequence of so many residues gets, where each needs a sentinel of its own.
    pub fn masks(&self, residues: usize) -> Option<Masks> {
        self.kind().masks(residues)
    }

    /// The example made of a sequence, without `</s>` or task mark, under a key.
    pub fn apply(&self, tokenizer: Tokenizer, tokens: &[u8], key: Key) -> Example {
        let mut masking = Masking::default();
        self.apply_with(tokenizer, tokens, key, &mut masking);
        masking.example
    }

    /// [`Objective::apply`], with the lists of an earlier example; the example is left in
    /// `masking`.
    pub(crate) fn apply_with(
        &self,
        tokenizer: Tokenizer,
        tokens: &[u8],
        key: Key,
        masking: &mut Masking,
    ) {
        self.begin(tokenizer, &mut masking.example);
        let mut random = key.stream();
        self.kind().make(tokenizer, tokens, &mut random, masking);
        masking.example.end();
    }

    /// The example with exactly these residues masked: positions ascending, each masked on its own.
    /// Positions outside the sequence are ignored, and so are those the sentinels do not reach.
    /// Nothing if the objective hides no residues.
    pub fn apply_at(
        &self,
        tokenizer: Tokenizer,
        tokens: &[u8],
        positions: &[usize],
    ) -> Option<Example> {
        let hiding = self.kind().hiding(tokenizer)?;
        let mut example = Example::default();
        self.begin(tokenizer, &mut example);
        hiding.at(tokenizer, tokens, positions, &mut example);
        example.end();
        Some(example)
    }

    /// The sequence an input and its target were made from. `</s>`, a task mark and padding at the
    /// end are removed first. Fails, and says where, if the two do not belong together.
    pub fn unmask(&self, tokenizer: Tokenizer, input: &[u8], target: &[u8]) -> Result<Vec<u8>> {
        let input = unmask::body(tokenizer, input);
        let target = unmask::body(tokenizer, target);
        self.kind().unmask(tokenizer, input, target)
    }

    /// The tokens of an input that are no residues: `</s>`, and the task mark.
    fn added_to_input(&self) -> usize {
        1 + usize::from(self.kind().task().is_some())
    }

    /// Empties an example but for the task mark.
    fn begin(&self, tokenizer: Tokenizer, example: &mut Example) {
        example.input.clear();
        example.target.clear();
        (example.masked, example.unmasked_for_lack_of_sentinels) = (0, 0);
        let mark = self.kind().task().and_then(|task| tokenizer.task(task));
        example.input.extend(mark);
    }
}

impl Example {
    fn end(&mut self) {
        self.input.push(EOS);
        self.target.push(EOS);
    }
}
