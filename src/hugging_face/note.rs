//! Notes about an import that its caller may not expect.

use std::fmt;

use crate::config::Vocabulary;

/// Something that was read otherwise than it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Note {
    /// All names were in a wrapper, which came off.
    Unwrapped {
        /// One of the names.
        wrapped: String,
        /// The model's name for it.
        name: String,
    },
    /// A tensor was left out, as `transformers` leaves it out.
    Ignored {
        /// Its name.
        name: String,
    },
    /// The embedding table has more rows than the tokenizer that it is taken for has ids.
    Padded {
        /// Its rows.
        rows: usize,
        /// The tokenizer.
        tokenizer: Vocabulary,
    },
    /// No known tokenizer has the directory's token ids.
    UnknownTokenIds,
    /// The output projection got the scaling of the states before it.
    ScaledHead,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::Unwrapped { wrapped, name } => {
                write!(
                    f,
                    "all names were in a wrapper: `{wrapped}` is read as `{name}`"
                )
            }
            Note::Ignored { name } => write!(f, "`{name}` is left out: T5 does not use it"),
            Note::Padded { rows, tokenizer } => write!(
                f,
                "the embedding table has {rows} rows: it is taken for a padded one of the \
                 tokenizer {tokenizer}, whose ids are fewer"
            ),
            Note::UnknownTokenIds => f.write_str(
                "the token ids of its residues are those of no known tokenizer (ankh, ankh3): \
                 weights and data may not mean the same residues",
            ),
            Note::ScaledHead => f.write_str(
                "`lm_head.weight` differs from the embeddings, and config.json has the decoder's \
                 outputs scaled: it is multiplied by d_model^-1/2, which gives the logits of \
                 transformers 5, not those of 4; if they are not to be scaled, as in T5 v1.1 and \
                 Ankh, set `scale_decoder_outputs` to false",
            ),
        }
    }
}
