//! Residues to token ids and back.
//!
//! One letter is one token, so the tokenizer is a table. It knows the published id orders of Ankh
//! (also used by Ankh2) and of Ankh3, and nothing of files or masking. Every function is total: a
//! byte that names no residue encodes to `<unk>`, an id outside the vocabulary decodes to `<unk>`.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The id of `<pad>` in every vocabulary of the family; also the decoder's start token.
pub const PAD: u8 = 0;
/// The id of `</s>`, which ends every encoder input and every target.
pub const EOS: u8 = 1;
/// The id of `<unk>`.
pub const UNK: u8 = 2;

/// Which published id order a [`Tokenizer`] follows; this is what files store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Vocabulary {
    /// Ankh and Ankh2: 144 ids, 116 sentinels.
    #[default]
    Ankh,
    /// Ankh3: 256 ids in an order of its own.
    Ankh3,
}

impl fmt::Display for Vocabulary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Vocabulary::Ankh => "ankh",
            Vocabulary::Ankh3 => "ankh3",
        })
    }
}

/// The tasks an Ankh3 input can be marked with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// `[NLU]`: masked residues are to be found.
    Nlu,
    /// `[S2S]`: the second half of the sequence is to be written.
    S2s,
}

struct IdTable {
    vocabulary: Vocabulary,
    size: usize,
    first_residue: u8,
    letters: &'static [u8],
    sentinel_zero: u8,
    sentinels: usize,
    tasks: Option<[u8; 2]>,
}

const ANKH: IdTable = IdTable {
    vocabulary: Vocabulary::Ankh,
    size: 144,
    first_residue: 3,
    letters: b"ALGVSREDTIPKFQNYMHWCXBOUZ",
    sentinel_zero: 143,
    sentinels: 116,
    tasks: None,
};

// Published: 0, 1 and the twenty amino acids at 7..=26. Inferred from Ankh's order, and to be
// checked against the published tokenizer before Ankh3 weights are trusted: <unk> 2, [NLU] 3, [S2S]
// 4, the ambiguity letters at 27..=31, and sentinels descending from the last id.
const ANKH3: IdTable = IdTable {
    vocabulary: Vocabulary::Ankh3,
    size: 256,
    first_residue: 7,
    letters: b"LAGSVERTIDPKNFQYHMCWXBOUZ",
    sentinel_zero: 255,
    sentinels: 116,
    tasks: Some([3, 4]),
};

const fn residue_table(ids: &IdTable) -> [u8; 256] {
    let mut table = [UNK; 256];
    let mut i = 0;
    while i < ids.letters.len() {
        let id = ids.first_residue + i as u8;
        let letter = ids.letters[i];
        table[letter as usize] = id;
        table[letter.to_ascii_lowercase() as usize] = id;
        i += 1;
    }
    table
}

static ANKH_TABLE: [u8; 256] = residue_table(&ANKH);
static ANKH3_TABLE: [u8; 256] = residue_table(&ANKH3);

/// The map between residue letters and token ids.
#[derive(Clone, Copy)]
pub struct Tokenizer {
    ids: &'static IdTable,
    table: &'static [u8; 256],
}

impl Tokenizer {
    /// The tokenizer of ankh-base, ankh-large and ankh2.
    pub fn ankh() -> Self {
        Tokenizer {
            ids: &ANKH,
            table: &ANKH_TABLE,
        }
    }

    /// The tokenizer of ankh3. The ids of the twenty amino acids, `<pad>` and `</s>` are published;
    /// those of `<unk>`, the task marks, the ambiguity letters and the sentinels are inferred.
    pub fn ankh3() -> Self {
        Tokenizer {
            ids: &ANKH3,
            table: &ANKH3_TABLE,
        }
    }

    /// The tokenizer of a vocabulary.
    pub fn of(vocabulary: Vocabulary) -> Self {
        match vocabulary {
            Vocabulary::Ankh => Self::ankh(),
            Vocabulary::Ankh3 => Self::ankh3(),
        }
    }

    /// Which id order this is.
    pub fn vocabulary(self) -> Vocabulary {
        self.ids.vocabulary
    }

    /// The number of ids, special ones included.
    pub fn vocabulary_size(self) -> usize {
        self.ids.size
    }

    /// The number of sentinels, `<extra_id_0>` to `<extra_id_{n-1}>`.
    pub fn sentinels(self) -> usize {
        self.ids.sentinels
    }

    /// The number of residue letters, the ambiguous ones included.
    pub fn residues(self) -> usize {
        self.ids.letters.len()
    }

    /// Token ids of a sequence of letters of either case, without `</s>`. What is no residue of the
    /// vocabulary becomes `<unk>`.
    pub fn encode(self, residues: &[u8]) -> Vec<u8> {
        residues.iter().map(|&r| self.table[r as usize]).collect()
    }

    /// The id of one letter of either case, if the vocabulary has it.
    pub fn residue_id(self, letter: u8) -> Option<u8> {
        let id = self.table[letter as usize];
        (id != UNK).then_some(id)
    }

    /// The letter of a residue's id; nothing for special ids.
    pub fn residue(self, id: u8) -> Option<char> {
        let place = id.checked_sub(self.ids.first_residue)?;
        self.ids
            .letters
            .get(usize::from(place))
            .map(|&letter| char::from(letter))
    }

    /// Text of a token sequence: letters as they are, special tokens by name
    /// (`AC<extra_id_0></s>`).
    pub fn decode(self, ids: &[u8]) -> String {
        ids.iter().fold(String::new(), |mut text, &id| {
            match self.residue(id) {
                Some(letter) => text.push(letter),
                None => text.push_str(&self.name(id)),
            }
            text
        })
    }

    /// The id of `<extra_id_{index}>`, if there are that many.
    pub fn sentinel(self, index: usize) -> Option<u8> {
        // Below 116, so the conversion keeps the value.
        (index < self.ids.sentinels).then(|| self.ids.sentinel_zero - index as u8)
    }

    /// The index of a sentinel's id; nothing for other ids.
    pub fn sentinel_index(self, id: u8) -> Option<usize> {
        let index = usize::from(self.ids.sentinel_zero.checked_sub(id)?);
        (index < self.ids.sentinels).then_some(index)
    }

    /// The id of a task mark, in vocabularies that have them.
    pub fn task(self, task: Task) -> Option<u8> {
        self.ids.tasks.map(|ids| match task {
            Task::Nlu => ids[0],
            Task::S2s => ids[1],
        })
    }

    /// The name of an id, as in the published tokenizer files; ids without a name are `<unk>`.
    pub fn name(self, id: u8) -> String {
        if let Some(letter) = self.residue(id) {
            return letter.to_string();
        }
        if let Some(index) = self.sentinel_index(id) {
            return format!("<extra_id_{index}>");
        }
        match id {
            PAD => "<pad>".into(),
            EOS => "</s>".into(),
            _ if self.task(Task::Nlu) == Some(id) => "[NLU]".into(),
            _ if self.task(Task::S2s) == Some(id) => "[S2S]".into(),
            _ => "<unk>".into(),
        }
    }
}

impl PartialEq for Tokenizer {
    fn eq(&self, other: &Self) -> bool {
        self.vocabulary() == other.vocabulary()
    }
}

impl Eq for Tokenizer {}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tokenizer({})", self.vocabulary())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ankh_ids_are_the_published_ones() {
        let t = Tokenizer::ankh();
        for (letter, id) in [
            (b'A', 3),
            (b'L', 4),
            (b'G', 5),
            (b'V', 6),
            (b'S', 7),
            (b'R', 8),
            (b'E', 9),
            (b'D', 10),
            (b'T', 11),
            (b'I', 12),
            (b'P', 13),
            (b'K', 14),
            (b'F', 15),
            (b'Q', 16),
            (b'N', 17),
            (b'Y', 18),
            (b'M', 19),
            (b'H', 20),
            (b'W', 21),
            (b'C', 22),
            (b'X', 23),
            (b'B', 24),
            (b'O', 25),
            (b'U', 26),
            (b'Z', 27),
        ] {
            assert_eq!(t.residue_id(letter), Some(id), "{}", letter as char);
            assert_eq!(t.residue_id(letter.to_ascii_lowercase()), Some(id));
        }
        assert_eq!(t.sentinel(0), Some(143));
        assert_eq!(t.sentinel(1), Some(142));
        assert_eq!(t.sentinel(115), Some(28));
        assert_eq!(t.sentinel(116), None);
        assert_eq!(t.vocabulary_size(), 144);
    }

    #[test]
    fn ankh3_ids_are_the_published_ones() {
        let t = Tokenizer::ankh3();
        for (i, letter) in b"LAGSVERTIDPKNFQYHMCW".iter().enumerate() {
            assert_eq!(t.residue_id(*letter), Some(7 + i as u8));
        }
        assert_eq!(t.residue_id(b'W'), Some(26));
        assert_eq!(t.vocabulary_size(), 256);
        assert_eq!(t.task(Task::Nlu), Some(3));
    }

    #[test]
    fn every_id_has_one_meaning() {
        for t in [Tokenizer::ankh(), Tokenizer::ankh3()] {
            for id in 0..=255u8 {
                let meanings = usize::from(t.residue(id).is_some())
                    + usize::from(t.sentinel_index(id).is_some())
                    + usize::from(matches!(id, PAD | EOS | UNK));
                assert!(meanings <= 1, "{t:?} id {id}");
                if let Some(letter) = t.residue(id) {
                    assert_eq!(t.residue_id(letter as u8), Some(id));
                }
                if let Some(index) = t.sentinel_index(id) {
                    assert_eq!(t.sentinel(index), Some(id));
                    assert!(usize::from(id) < t.vocabulary_size());
                }
            }
        }
        // Ankh's 144 ids are all in use.
        let t = Tokenizer::ankh();
        let used = (0..144u8).filter(|&id| id == UNK || t.name(id) != "<unk>");
        assert_eq!(used.count(), 144);
    }

    #[test]
    fn encoding_and_decoding_are_total() {
        let t = Tokenizer::ankh();
        let every_byte: Vec<u8> = (0..=255).collect();
        let ids = t.encode(&every_byte);
        assert!(ids.iter().all(|&id| usize::from(id) < t.vocabulary_size()));
        assert_eq!(t.encode(b"mJ*"), [19, UNK, UNK]);
        assert_eq!(
            t.decode(&[19, 143, 1, 0, 250]),
            "M<extra_id_0></s><pad><unk>"
        );
    }
}
