//! Labelled proteins: what a benchmark is trained and measured on.
//!
//! [`read`] takes files in the formats that people have and gives a [`Dataset`], or one error that
//! names file and line. Each format has a reader; what holds for all (letters, lengths, ids, sets,
//! classes) is checked in one place, `collect`. Knows files and labels alone: neither the model nor
//! the devices.

mod biotrainer;
mod collect;
mod error;
mod fasta;
mod json;
mod split;
mod states;
mod tables;
mod tape;
#[cfg(test)]
mod tests;

use std::fmt::{self, Display};
use std::path::PathBuf;
use std::sync::Arc;

use collect::Collector;
pub use error::{Error, Fault};

/// Reads labelled proteins. The name of a file says its format: `.json` and `.jsonl` are TAPE's,
/// `.csv` is FLIP's or ProteinGym's, and any other is biotrainer's FASTA.
///
/// Either no example has a split, or all have: with some for training, some for tests, and every
/// class among those for training.
pub fn read(files: &Files, reading: &Reading) -> Result<(Dataset, Counts), Error> {
    let mut collector = Collector::new(reading);
    let mut beside = biotrainer::Beside::read(files)?;
    for path in &files.sequences {
        let ending = path.extension().unwrap_or_default().to_string_lossy();
        let format = match ending.to_ascii_lowercase().as_str() {
            "json" | "jsonl" => "JSON",
            "csv" => "CSV",
            _ => "FASTA",
        };
        if let ("JSON" | "CSV", Some(beside)) =
            (format, files.labels.as_ref().or(files.mask.as_ref()))
        {
            let path = beside.clone();
            return Err(Error::Beside { path, format });
        }
        match format {
            "JSON" => tape::read(path, &mut collector)?,
            "CSV" => tables::read(path, &mut collector)?,
            _ => biotrainer::read(path, &mut beside, &mut collector)?,
        }
    }
    if files.sequences.is_empty() {
        return Err(Error::NoFiles);
    }
    beside.finish(files)?;
    collector.finish(files)
}

/// The files of one dataset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// Sequences with their labels, all of which belong together; in order.
    pub sequences: Vec<PathBuf>,
    /// FASTA with the labels of the sequences instead: a letter for each residue, or a class.
    pub labels: Option<PathBuf>,
    /// FASTA with a digit for each residue: 0 where it has no label.
    pub mask: Option<PathBuf>,
}

/// What is read of the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// What is predicted.
    pub kind: Kind,
    /// Where JSON has the label. `None`: in `target`, or where TAPE has labels of that kind.
    pub field: Option<Field>,
    /// What becomes of states of residues.
    pub states: States,
    /// The names of test sets beside `test`, `test1` and so on, such as `CASP12`.
    pub tests: Vec<String>,
    /// The most residues of a sequence; longer ones are left out and counted.
    pub max_length: Option<usize>,
}

/// What becomes of states of residues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum States {
    /// They stay as they are.
    #[default]
    AsWritten,
    /// DSSP's eight become three: H, G, I are `H`; E, B are `E`; the others are `C`.
    Three,
}

/// A field of a JSON record, named as in TAPE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    /// `ss3`, or `ss8`: numbers, of which those below zero are unknown, or letters.
    SecondaryStructure,
    /// `disorder`: 0 or 1 for each residue, kept as written.
    Disorder,
    /// `fold_label`, a class.
    FoldLabel,
    /// `log_fluorescence`.
    LogFluorescence,
    /// `stability_score`.
    StabilityScore,
    /// `tertiary`: positions in angstrom, of beta carbons or others; `valid_mask` says which are
    /// known.
    Tertiary,
    /// `target`, a number.
    Target,
    /// `target`, a class.
    Class,
}

/// What was read and left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Proteins in the files.
    pub read: usize,
    /// Left out: longer than [`Reading::max_length`].
    pub too_long: usize,
    /// Left out: of no set, where the format has sets for the others.
    pub without_set: usize,
    /// Left out: not in the file of labels, or with an empty cell in ProteinGym's table, both of
    /// which may have labels for part of the sequences.
    pub unlabelled: usize,
    /// Letters that became `X`, because the vocabulary lacks them.
    pub replaced: usize,
    /// Sequences of tests that training or validation has too, letter by letter: the figures
    /// flatter.
    pub shared: usize,
}

impl Counts {
    /// How many proteins are left out and why, in words; empty if none.
    pub fn reasons(&self) -> String {
        let reasons = [
            (self.too_long, "too long"),
            (self.without_set, "of no set"),
            (self.unlabelled, "without a label"),
        ];
        let reasons = reasons.into_iter().filter(|(count, _)| *count > 0);
        let words: Vec<String> = reasons
            .map(|(count, why)| format!("{count} {why}"))
            .collect();
        words.join(", ")
    }
}

/// What is predicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A class of each residue, such as its secondary structure.
    ResidueClasses,
    /// A class of the whole protein, such as where in the cell it is.
    SequenceClasses,
    /// A number for the whole protein, such as its stability.
    SequenceValue,
    /// Which pairs of residues touch.
    Contacts,
}

impl Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Kind::ResidueClasses => "classes of residues",
            Kind::SequenceClasses => "classes of proteins",
            Kind::SequenceValue => "values of proteins",
            Kind::Contacts => "contacts",
        })
    }
}

impl Field {
    fn expected(self) -> &'static str {
        match self {
            Field::SecondaryStructure => "`ss8`, or `ss3` where three states are wanted",
            Field::Disorder => "`disorder`",
            Field::FoldLabel => "`fold_label`",
            Field::LogFluorescence => "`log_fluorescence`",
            Field::StabilityScore => "`stability_score`",
            Field::Tertiary => "`tertiary`",
            Field::Target | Field::Class => "`target`",
        }
    }
}

/// The part of an example in the split.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Split {
    /// The head is trained on it.
    Train,
    /// The best epoch is chosen by it.
    Validation,
    /// The figures are of it. A benchmark may have several test sets, such as `CASP12` and `CB513`;
    /// one without a name is `test`.
    Test(String),
}

/// What is to be predicted for one protein.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// `[residues]`: indices into [`Dataset::classes`]. `None`: not resolved or not labelled; left
    /// out of the loss and of every figure.
    ResidueClasses(Vec<Option<u16>>),
    /// An index into [`Dataset::classes`].
    Class(u16),
    /// A finite number, in the units of the file.
    Value(f64),
    /// What touches in the structure.
    Contacts(Contacts),
}

/// The pairs of residues under 8 angstrom apart, of those resolved in the structure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contacts {
    /// `[residues]`: whether the residue's position is known. A pair with one that is not is
    /// neither a contact nor none.
    pub resolved: Vec<bool>,
    /// `(i, j)` with `i < j`, in ascending order, at every separation: whoever measures leaves out
    /// those that are near in the sequence.
    pub pairs: Vec<(u32, u32)>,
}

/// Where an example was read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// As it was given.
    pub file: Arc<PathBuf>,
    /// The first line of the file is 1.
    pub line: usize,
}

impl Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.file.display(), self.line)
    }
}

/// One labelled protein.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// Unique in the dataset.
    pub id: String,
    /// One-letter codes in upper case, each of one byte and of the tokenizer's vocabulary.
    pub sequence: String,
    /// `None` in formats without a split, such as ProteinGym's: whoever reads draws one.
    pub split: Option<Split>,
    /// Of the kind of the dataset, and as long as the sequence where it is per residue.
    pub target: Target,
    /// Of the sequence.
    pub place: Place,
}

/// Labelled proteins, all of one kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    /// Of every example.
    pub kind: Kind,
    /// What the indices in targets mean, in ascending order. Empty where nothing is classified.
    pub classes: Vec<String>,
    /// In the order of the files. Never empty.
    pub examples: Vec<Example>,
}
