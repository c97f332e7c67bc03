//! The records of the inputs that are embedded, in order, as tokens.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};

use ankh_data::format::{ColumnNames, Reason};
use ankh_data::prepare::residues::{LengthLimits, Rejection, tokenize};
use ankh_data::tokenizer::EOS;
use ankh_data::{Input, Tokenizer};
use ankh_storage::{Location, StorageOptions, hex};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Error;

/// Which records are embedded, and where they are.
#[derive(Clone)]
pub struct Records {
    /// The files, in order.
    pub inputs: Vec<Location>,
    /// What the columns of tables are called.
    pub columns: ColumnNames,
    /// The ids.
    pub tokenizer: Tokenizer,
    /// The most residues of a sequence; longer ones are left out.
    pub max_length: Option<usize>,
    /// What is done with records that cannot be embedded.
    pub unusable: Unusable,
}

/// What is done with records that cannot be embedded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// They are left out and counted.
    LeaveOut,
    /// The first of them is an error.
    Refuse,
}

/// A sequence that is embedded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// The first word of its header, or its value in the id column.
    pub id: String,
    /// Its tokens, `</s>` at the end.
    pub tokens: Vec<u8>,
    /// What biotrainer names it by ([`biotrainer_hash`]).
    pub hash: String,
}

/// An input file, as it is recognized.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputFile {
    /// Its name, without the directory.
    pub name: String,
    /// The SHA-256 of the file as stored, in hexadecimal.
    pub sha256: String,
}

/// What the inputs hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// The files.
    pub sources: Vec<InputFile>,
    /// Records read.
    pub records: u64,
    /// Sequences that are embedded.
    pub sequences: u64,
    /// Residues of those.
    pub residues: u64,
    /// How many of them have each number of tokens, `</s>` included.
    pub lengths: BTreeMap<usize, u64>,
    /// Letters that are read as `X`.
    pub replaced: u64,
    /// The records left out, by reason.
    pub left_out: BTreeMap<Reason, u64>,
    /// What is wrong with files that could be read.
    pub warnings: Vec<String>,
}

impl Survey {
    /// How many records are left out and why, in words.
    pub fn reasons(&self) -> String {
        let words = |(reason, count): (&Reason, &u64)| format!("{count} {}", reason.describe());
        let words: Vec<String> = self.left_out.iter().map(words).collect();
        words.join(", ")
    }
}

/// What biotrainer (1.0 and later) names a sequence by in its files: the SHA-256 of its letters, an
/// underscore and their number (`calculate_sequence_hash`).
pub fn biotrainer_hash(sequence: &[u8]) -> String {
    let mut hash = Sha256::new();
    hash.update(sequence);
    hash.update(format!("_{}", sequence.len()));
    hex(&hash.finalize())
}

impl Records {
    /// Reads all records without keeping any. Records that are left out are listed in `rejects`:
    /// file, line, id, reason and detail, separated by tabs.
    pub fn survey(&self, mut rejects: Option<&mut dyn Write>) -> Result<Survey, Error> {
        let mut survey = Survey::default();
        let mut written = Ok(());
        for location in &self.inputs {
            let name = name_of(location);
            let mut input = self.open(location)?;
            let mut tokens = Vec::new();
            while let Some(block) = input.next_block()? {
                let mut refused = None;
                block.for_each(&mut |record| {
                    survey.records += 1;
                    tokens.clear();
                    match self.tokens(&record, &mut tokens) {
                        Ok(replaced) => {
                            survey.sequences += 1;
                            survey.residues += tokens.len() as u64 - 1;
                            *survey.lengths.entry(tokens.len()).or_default() += 1;
                            survey.replaced += replaced;
                        }
                        Err(Rejection { reason, detail }) => {
                            *survey.left_out.entry(reason).or_default() += 1;
                            let (line, id, reason) = (record.line, record.id, reason.describe());
                            if let (Some(to), Ok(())) = (&mut rejects, &written) {
                                written = writeln!(to, "{name}\t{line}\t{id}\t{reason}\t{detail}");
                            }
                            refused.get_or_insert_with(|| Error::Rejected {
                                file: location.to_string(),
                                line,
                                id: id.into(),
                                reason,
                                detail,
                            });
                        }
                    }
                    Ok(())
                })?;
                if let (Unusable::Refuse, Some(error)) = (self.unusable, refused) {
                    return Err(error);
                }
            }
            survey.warnings.extend(input.warning());
            survey.sources.push(InputFile {
                name,
                sha256: input.sha256(),
            });
        }
        written.map_err(|source| Error::Io {
            action: "write",
            path: "the list of rejects".into(),
            source,
        })?;
        let inputs = || {
            let inputs: Vec<String> = self.inputs.iter().map(Location::to_string).collect();
            inputs.join(", ")
        };
        match survey.sequences {
            0 if survey.records == 0 => {
                Err(ankh_data::Error::NoRecords { inputs: inputs() }.into())
            }
            0 => Err(Error::NoUsableRecords {
                records: survey.records,
                inputs: inputs(),
                reasons: survey.reasons(),
            }),
            _ => Ok(survey),
        }
    }

    /// Gives each sequence to `each`, in order, until it asks to end. The files have to be those of
    /// `survey`.
    pub fn for_each(
        &self,
        survey: &Survey,
        each: &mut dyn FnMut(Sequence) -> Result<Flow, Error>,
    ) -> Result<Flow, Error> {
        for (location, source) in self.inputs.iter().zip(&survey.sources) {
            let mut input = self.open(location)?;
            while let Some(block) = input.next_block()? {
                let mut outcome = Ok(Flow::GoOn);
                block.for_each(&mut |record| {
                    let mut tokens = Vec::new();
                    let usable = self.tokens(&record, &mut tokens).is_ok();
                    if usable && matches!(outcome, Ok(Flow::GoOn)) {
                        outcome = each(Sequence {
                            id: record.id.into(),
                            tokens,
                            hash: biotrainer_hash(record.sequence),
                        });
                    }
                    Ok(())
                })?;
                if let Flow::End = outcome? {
                    return Ok(Flow::End);
                }
            }
            if input.sha256() != source.sha256 {
                let input = location.to_string();
                return Err(Error::Changed { input });
            }
        }
        Ok(Flow::GoOn)
    }

    fn open(&self, location: &Location) -> Result<Input, Error> {
        if let Some(path) = location.local() {
            let unreadable = |action, error| {
                let error = ankh_storage::Error::io(action, path)(error);
                Error::Data(error.into())
            };
            let metadata = fs::metadata(path).map_err(|error| unreadable("open", error))?;
            if metadata.is_dir() {
                return Err(unreadable("read", io::ErrorKind::IsADirectory.into()));
            }
            if !metadata.is_file() {
                return Err(Error::Data(ankh_data::Error::Passing {
                    name: location.to_string(),
                    reason: "sequences are counted before they are embedded",
                }));
            }
        }
        let options = StorageOptions::default();
        Ok(Input::open_with(location, &options, &self.columns)?)
    }

    /// Appends a record's tokens and returns how many letters became `X`.
    fn tokens(
        &self,
        record: &ankh_data::prepare::input::RecordRef<'_>,
        tokens: &mut Vec<u8>,
    ) -> Result<u64, Rejection> {
        if let Some(reason) = record.fault {
            return Err(Rejection {
                reason,
                detail: "as its header is written".into(),
            });
        }
        let lengths = LengthLimits {
            min: 1,
            max: self.max_length,
        };
        let (sequence, length) = (record.sequence, record.length);
        let changes = tokenize(self.tokenizer, lengths, sequence, length, tokens)?;
        tokens.push(EOS);
        Ok(changes.replaced)
    }
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// With what comes next.
    GoOn,
    /// No more.
    End,
}

fn name_of(location: &Location) -> String {
    let text = location.to_string();
    text.rsplit('/').next().unwrap_or(&text).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_that_of_biotrainer() {
        // hashlib.sha256(b"SEQWENCE_8").hexdigest()
        let expected = "3b4b8f18126cf72b0eedbd9d50d62e97c407f688ad16da9e5c508e67cc4e7842";
        assert_eq!(biotrainer_hash(b"SEQWENCE"), expected);
    }
}
