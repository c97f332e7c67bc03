//! The output projection of a directory: what its config.json and its weights say about it.
//!
//! `transformers` 4 and 5 differ here. In version 4 `tie_word_embeddings` means two things at once:
//! the projection is the embedding table, and the decoder's states are scaled by `d_model^-1/2`
//! before it. Version 5 writes `tie_word_embeddings: true` for every T5; its
//! `scale_decoder_outputs` alone controls the scaling, and a stored projection that differs from
//! the embeddings is separate. We read a directory as the version that wrote it does, and write
//! what both versions read the same way.

use crate::config::TieEmbeddings;

/// What config.json sets about the output projection; `None` where a key is absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Said {
    /// `tie_word_embeddings`
    pub tied: Option<bool>,
    /// `scale_decoder_outputs`, which version 4 does not know.
    pub scaled: Option<bool>,
}

/// What the weights file has under `lm_head.weight`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stored {
    /// Nothing.
    Nothing,
    /// The embedding table once more.
    Copy,
    /// Something else.
    Other,
}

/// The output projection of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Head {
    /// The model's own way.
    Plain(TieEmbeddings),
    /// A matrix of its own behind scaled states. The factor moves into the matrix, so that the
    /// model is [`TieEmbeddings::Untied`].
    Scaled,
}

impl Head {
    /// What the model's setting is.
    pub fn tie(self) -> TieEmbeddings {
        match self {
            Head::Plain(tie) => tie,
            Head::Scaled => TieEmbeddings::Untied,
        }
    }
}

impl Said {
    /// What is written for a model. Version 4 cannot tie without scaling: to it the projection is
    /// then a matrix that equals the embeddings.
    pub fn of(tie: TieEmbeddings) -> Said {
        let first_t5 = tie == TieEmbeddings::Scaled;
        Said {
            tied: Some(first_t5),
            scaled: Some(first_t5),
        }
    }

    /// Whether both versions read this as a model of this kind.
    pub fn means(self, tie: TieEmbeddings) -> bool {
        match tie {
            TieEmbeddings::Scaled => self.tied != Some(false) && self.scaled != Some(false),
            TieEmbeddings::Untied => self.tied == Some(false) && self.scaled != Some(true),
            TieEmbeddings::Unscaled => self.tied == Some(false) && self.scaled == Some(false),
        }
    }

    /// The output projection of a directory that says this and stores that.
    pub fn head(self, stored: Stored) -> Head {
        let scaled = self.scaled.unwrap_or(self.tied != Some(false));
        let tied = match scaled {
            true => TieEmbeddings::Scaled,
            false => TieEmbeddings::Unscaled,
        };
        match (stored, self) {
            (Stored::Other, _) if scaled => Head::Scaled,
            (Stored::Other, _) => Head::Plain(TieEmbeddings::Untied),
            // Untied and incomplete: what is missing gets named.
            (Stored::Nothing, Said { tied: Some(false), .. })
            // Version 4 gives a matrix that starts as a copy a life of its own.
            | (Stored::Copy, Said { tied: Some(false), scaled: None }) => {
                Head::Plain(TieEmbeddings::Untied)
            }
            (Stored::Nothing | Stored::Copy, _) => Head::Plain(tied),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAYS: [Option<bool>; 3] = [None, Some(true), Some(false)];

    /// Logits of: the embeddings or another matrix, behind states scaled or not.
    #[derive(Debug, PartialEq)]
    struct Logits {
        own: bool,
        scaled: bool,
    }

    /// What transformers 4.57 computes; `None` where it makes weights up.
    fn version_4(said: Said, stored: Stored) -> Option<Logits> {
        let tied = said.tied != Some(false);
        let own = stored == Stored::Other && !tied;
        let scaled = tied;
        (tied || stored != Stored::Nothing).then_some(Logits { own, scaled })
    }

    /// What transformers 5 computes.
    fn version_5(said: Said, stored: Stored) -> Logits {
        Logits {
            own: stored == Stored::Other,
            scaled: said.scaled.unwrap_or(said.tied != Some(false)),
        }
    }

    #[test]
    fn every_directory_is_read_as_transformers_5_reads_it() {
        for (tied, scaled) in SAYS
            .into_iter()
            .flat_map(|t| SAYS.into_iter().map(move |s| (t, s)))
        {
            let said = Said { tied, scaled };
            for stored in [Stored::Nothing, Stored::Copy, Stored::Other] {
                let head = said.head(stored);
                if stored == Stored::Nothing && tied == Some(false) {
                    assert_eq!(head, Head::Plain(TieEmbeddings::Untied), "{said:?}");
                    continue;
                }
                let found = Logits {
                    own: stored == Stored::Other,
                    scaled: matches!(head, Head::Scaled | Head::Plain(TieEmbeddings::Scaled)),
                };
                assert_eq!(found, version_5(said, stored), "{said:?}, {stored:?}");
            }
        }
    }

    #[test]
    fn what_is_written_means_the_same_to_both_versions_and_to_us() {
        for (tie, stored) in [
            (TieEmbeddings::Untied, Stored::Other),
            (TieEmbeddings::Scaled, Stored::Nothing),
            (TieEmbeddings::Unscaled, Stored::Copy),
        ] {
            let said = Said::of(tie);
            assert_eq!(version_4(said, stored), Some(version_5(said, stored)));
            assert_eq!(said.head(stored), Head::Plain(tie));
            assert!(said.means(tie));
        }
    }

    #[test]
    fn a_text_is_kept_only_where_both_versions_read_the_model_in_it() {
        for (tied, scaled) in SAYS
            .into_iter()
            .flat_map(|t| SAYS.into_iter().map(move |s| (t, s)))
        {
            let said = Said { tied, scaled };
            for (tie, stored) in [
                (TieEmbeddings::Untied, Stored::Other),
                (TieEmbeddings::Scaled, Stored::Nothing),
                (TieEmbeddings::Unscaled, Stored::Copy),
            ] {
                let same = version_4(said, stored) == Some(version_5(said, stored));
                let reads = same && said.head(stored) == Head::Plain(tie);
                assert_eq!(said.means(tie), reads, "{said:?} as {tie:?}");
            }
        }
    }
}
