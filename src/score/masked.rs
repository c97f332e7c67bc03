//! Questions to a model: which residue stands where one is masked?
//!
//! Each question is a sequence, a position and a residue; its answer is the logarithm of the
//! residue's probability where `<extra_id_0>` takes its place. Questions about one masked input
//! share one pass of the model, also where the inputs come from different sequences: variants that
//! differ only at the masked position are the same input.

use std::collections::HashMap;

use ankh_data::Tokenizer;
use ankh_data::tokenizer::EOS;
use sha2::{Digest, Sha256};

/// A set of questions.
pub struct Questions {
    tokenizer: Tokenizer,
    /// Token ids, without `</s>`.
    sequences: Vec<Vec<u8>>,
    by_sequence: HashMap<Vec<u8>, u32>,
    inputs: Vec<MaskedInput>,
    by_input: HashMap<[u8; 16], u32>,
    /// Which input each question is about, and the residue's id.
    asked: Vec<(u32, u8)>,
    by_question: HashMap<(u32, u8), Question>,
    /// How many were asked, repetitions included.
    passes_of_a_loop: u64,
}

/// The number of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Question(u32);

/// A sequence with one position masked.
#[derive(Clone, Copy, Debug)]
struct MaskedInput {
    sequence: u32,
    position: u32,
}

/// The answers to all questions.
pub struct Answers(pub(super) Vec<f32>);

impl Answers {
    /// The logarithm of the probability, in nats.
    pub fn of(&self, question: Question) -> f64 {
        f64::from(self.0[question.0 as usize])
    }

    /// How many are no finite number.
    pub fn not_finite(&self) -> usize {
        self.0.iter().filter(|answer| !answer.is_finite()).count()
    }
}

impl Questions {
    /// None yet.
    pub fn new(tokenizer: Tokenizer) -> Questions {
        Questions {
            tokenizer,
            sequences: Vec::new(),
            by_sequence: HashMap::new(),
            inputs: Vec::new(),
            by_input: HashMap::new(),
            asked: Vec::new(),
            by_question: HashMap::new(),
            passes_of_a_loop: 0,
        }
    }

    /// Asks for each of `residues` at `position` of `sequence`; both are letters.
    ///
    /// # Panics
    /// Where the position is outside of the sequence.
    pub fn ask<const N: usize>(
        &mut self,
        sequence: &[u8],
        position: usize,
        residues: [u8; N],
    ) -> [Question; N] {
        self.passes_of_a_loop += 1;
        let input = self.input(sequence, position);
        self.tokenizer.encode(&residues)[..]
            .try_into()
            .map(|ids: [u8; N]| ids.map(|id| self.question(input, id)))
            .expect("a letter is a token")
    }

    /// How many masked inputs there are: passes of the model.
    pub fn inputs(&self) -> usize {
        self.inputs.len()
    }

    /// How many passes a loop over all calls of [`Questions::ask`] would take.
    pub fn passes_of_a_loop(&self) -> u64 {
        self.passes_of_a_loop
    }

    /// A digest of all questions in their order.
    pub fn digest(&self) -> String {
        let mut hasher = Sha256::new();
        for input in 0..self.inputs.len() {
            hasher.update(self.tokens(input));
        }
        for (input, id) in &self.asked {
            hasher.update(input.to_le_bytes());
            hasher.update([*id]);
        }
        hasher.finalize()[..16]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    /// The number of tokens of an input, `</s>` included.
    pub(super) fn length(&self, input: usize) -> usize {
        self.sequences[self.inputs[input].sequence as usize].len() + 1
    }

    /// An input's tokens, `</s>` included.
    pub(super) fn tokens(&self, input: usize) -> Vec<u8> {
        let MaskedInput { sequence, position } = self.inputs[input];
        self.masked(&self.sequences[sequence as usize], position as usize)
    }

    /// How many questions there are.
    pub(super) fn len(&self) -> usize {
        self.asked.len()
    }

    /// For each input the questions about it: their numbers and residues.
    pub(super) fn by_input(&self) -> Vec<Vec<(u32, u8)>> {
        let mut found = vec![Vec::new(); self.inputs.len()];
        for (number, (input, id)) in self.asked.iter().enumerate() {
            found[*input as usize].push((number as u32, *id));
        }
        found
    }

    fn input(&mut self, letters: &[u8], position: usize) -> u32 {
        let ids = self.tokenizer.encode(letters);
        let masked = self.masked(&ids, position);
        let digest = Sha256::digest(&masked);
        // Half of it: no two of 2^40 inputs share it by chance.
        let digest: [u8; 16] = digest[..16].try_into().expect("a digest has 32 bytes");
        if let Some(&known) = self.by_input.get(&digest) {
            return known;
        }
        let sequence = match self.by_sequence.get(&ids) {
            Some(&known) => known,
            None => {
                let number = self.sequences.len() as u32;
                self.by_sequence.insert(ids.clone(), number);
                self.sequences.push(ids);
                number
            }
        };
        let number = self.inputs.len() as u32;
        let position = position as u32;
        self.inputs.push(MaskedInput { sequence, position });
        self.by_input.insert(digest, number);
        number
    }

    fn masked(&self, ids: &[u8], position: usize) -> Vec<u8> {
        let mut tokens = ids.to_vec();
        let sentinel = self.tokenizer.sentinel(0);
        tokens[position] = sentinel.expect("every vocabulary has sentinels");
        tokens.push(EOS);
        tokens
    }

    fn question(&mut self, input: u32, id: u8) -> Question {
        let next = Question(self.asked.len() as u32);
        let question = *self.by_question.entry((input, id)).or_insert(next);
        if question == next {
            self.asked.push((input, id));
        }
        question
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_that_differ_only_at_the_masked_position_share_a_pass() {
        let mut questions = Questions::new(Tokenizer::ankh());
        let [a, b] = questions.ask(b"MKT", 1, *b"KR");
        let [c] = questions.ask(b"MRT", 1, *b"R");
        let [d] = questions.ask(b"MRT", 0, *b"M");
        assert_ne!(a, b);
        assert_eq!(b, c);
        assert_ne!(a, d);
        assert_eq!((questions.inputs(), questions.len()), (2, 3));
        assert_eq!(questions.passes_of_a_loop(), 3);
        let text = |input| Tokenizer::ankh().decode(&questions.tokens(input));
        assert_eq!(text(0), "M<extra_id_0>T</s>");
        assert_eq!(text(1), "<extra_id_0>RT</s>");
        assert_eq!(questions.length(1), 4);
        let by_input = questions.by_input();
        assert_eq!(by_input[0].len(), 2);
        assert_eq!(by_input[1].len(), 1);
    }

    #[test]
    fn the_digest_tells_other_questions_apart() {
        let digest = |sequence: &[u8], residue: u8| {
            let mut questions = Questions::new(Tokenizer::ankh());
            questions.ask(sequence, 0, [residue]);
            questions.digest()
        };
        assert_eq!(digest(b"MKT", b'M'), digest(b"MKT", b'M'));
        assert_ne!(digest(b"MKT", b'M'), digest(b"MKT", b'A'));
        assert_ne!(digest(b"MKT", b'M'), digest(b"MKV", b'M'));
    }
}
