//! biotrainer's files (1.x): one FASTA file with `TARGET=`, `SET=` and `MASK=` in the headers, or,
//! as before 1.0, further FASTA files with the labels and the masks of the residues.
//!
//! Attributes are those of biotrainer's `read_FASTA` and `BiotrainerSequenceRecord`. Values of
//! `SET` are `train`, `val`, `test`, `test1` and so on, and `pred` (no label: left out).
//! `VALIDATION=True` marks part of `train`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::collect::{Collector, Label, Labelled, same_length};
use super::error::{Error, Fault};
use super::fasta::{self, Record};
use super::{Files, Kind, Split, split};

const TARGET: &str = "TARGET= in its header";
const RESIDUE_TARGET: &str =
    "TARGET= in its header, a letter for each residue, or a file of labels";

/// The files beside the sequences.
#[derive(Default)]
pub(super) struct Beside {
    labels: Option<Records>,
    masks: Option<Records>,
}

impl Beside {
    pub fn read(files: &Files) -> Result<Beside, Error> {
        Ok(Beside {
            labels: files.labels.as_deref().map(Records::read).transpose()?,
            masks: files.mask.as_deref().map(Records::read).transpose()?,
        })
    }

    /// Checks that every record was a sequence's.
    pub fn finish(self, files: &Files) -> Result<(), Error> {
        let left = [self.labels, self.masks];
        let left = left.into_iter().flatten();
        let first = left.flat_map(|records| records.unused()).next();
        let Some(record) = first else { return Ok(()) };
        let (id, sequences) = (record.id, files.sequences.clone());
        Err(Error::at(
            &record.place,
            Fault::NoSequence { id, sequences },
        ))
    }
}

/// The records of a file by id.
struct Records {
    path: PathBuf,
    by_id: HashMap<String, (Record, bool)>,
}

impl Records {
    fn read(path: &Path) -> Result<Records, Error> {
        let mut by_id: HashMap<String, (Record, bool)> = HashMap::new();
        for record in fasta::read(path)? {
            let (id, place) = (record.id.clone(), record.place.clone());
            if let Some((first, _)) = by_id.insert(id.clone(), (record, false)) {
                let first = first.place;
                return Err(Error::at(&place, Fault::Duplicate { id, first }));
            }
        }
        let path = path.to_path_buf();
        Ok(Records { path, by_id })
    }

    fn take(&mut self, id: &str) -> Option<&Record> {
        let (record, used) = self.by_id.get_mut(id)?;
        *used = true;
        Some(record)
    }

    /// Those not taken, in the order of the file.
    fn unused(self) -> Vec<Record> {
        let records = self.by_id.into_values();
        let mut unused: Vec<Record> = records
            .filter_map(|(record, used)| (!used).then_some(record))
            .collect();
        unused.sort_by_key(|record| record.place.line);
        unused
    }
}

/// Reads one file of sequences.
pub(super) fn read(path: &Path, beside: &mut Beside, into: &mut Collector) -> Result<(), Error> {
    let kind = into.reading.kind;
    if let Kind::Contacts = kind {
        return Err(Error::OtherKind {
            path: path.into(),
            format: "FASTA",
            kind,
            expected: "JSON with `primary`, `tertiary` and `valid_mask`",
        });
    }
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let of_file = split::of_file(&stem, &into.reading.tests);
    for sequence in fasta::read(path)? {
        into.counts.read += 1;
        let label = match &mut beside.labels {
            None => None,
            Some(labels) => match labels.take(&sequence.id) {
                Some(label) => Some(label),
                None => {
                    into.counts.unlabelled += 1;
                    continue;
                }
            },
        };
        let split = match label.map(|label| set(label, into)).transpose()?.flatten() {
            Some(set) => Some(set),
            None => set(&sequence, into)?,
        };
        let split = match split {
            Some(Set::Predict) => {
                into.counts.without_set += 1;
                continue;
            }
            Some(Set::Of(split)) => Some(split),
            None => of_file.clone(),
        };
        let target = match kind {
            Kind::ResidueClasses => {
                let mask = match &mut beside.masks {
                    None => None,
                    Some(masks) => {
                        let (id, path) = (sequence.id.clone(), masks.path.clone());
                        let fault = Fault::NoMask { id, masks: path };
                        let mask = masks.take(&sequence.id);
                        Some(mask.ok_or_else(|| Error::at(&sequence.place, fault))?)
                    }
                };
                states(&sequence, label, mask)?
            }
            _ => {
                let text = label.map(|label| label.text.as_str()).unwrap_or_default();
                let text = Some(text).filter(|text| !text.is_empty());
                let text = text.or_else(|| label?.attribute("TARGET"));
                let text = text.or_else(|| sequence.attribute("TARGET"));
                let text = text.ok_or_else(|| unlabelled(&sequence, TARGET))?;
                Label::of(kind, text, &sequence.id, &sequence.place)?
            }
        };
        into.add(Labelled {
            id: sequence.id,
            sequence: sequence.text,
            split,
            label: target,
            place: sequence.place,
        })?;
    }
    Ok(())
}

enum Set {
    Of(Split),
    Predict,
}

fn set(record: &Record, into: &Collector) -> Result<Option<Set>, Error> {
    let Some(name) = record.attribute("SET") else {
        return Ok(None);
    };
    if name == "pred" {
        return Ok(Some(Set::Predict));
    }
    let tests = &into.reading.tests;
    let fault = |fault| Error::at(&record.place, fault);
    let split =
        split::of_set(name, tests).ok_or_else(|| fault(split::unknown(&record.id, name)))?;
    let flag = record.attribute("VALIDATION").unwrap_or("False");
    let split = split::with_flag(split, flag, &record.id).map_err(fault)?;
    Ok(Some(Set::Of(split)))
}

/// The states of residues: the labels' text, or `TARGET=`; those with 0 in the mask are `None`.
fn states(
    sequence: &Record,
    label: Option<&Record>,
    mask: Option<&Record>,
) -> Result<Label, Error> {
    let (text, place) = match label {
        Some(label) => (label.text.as_str(), &label.place),
        None => {
            let target = sequence.attribute("TARGET");
            let target = target.ok_or_else(|| unlabelled(sequence, RESIDUE_TARGET))?;
            (target, &sequence.place)
        }
    };
    let mut states: Vec<Option<char>> = text.chars().map(Some).collect();
    let length = sequence.text.chars().count();
    same_length(&sequence.id, "labels", states.len(), length)
        .map_err(|fault| Error::at(place, fault))?;
    let (mask, place) = match mask {
        Some(mask) => (Some(mask.text.as_str()), &mask.place),
        None => match label.and_then(|label| Some((label.attribute("MASK")?, &label.place))) {
            Some((mask, place)) => (Some(mask), place),
            None => (sequence.attribute("MASK"), &sequence.place),
        },
    };
    let fault = |fault| Error::at(place, fault);
    if let Some(mask) = mask {
        let id = &sequence.id;
        same_length(id, "digits in its mask", mask.chars().count(), length).map_err(fault)?;
        for (index, (digit, state)) in mask.chars().zip(&mut states).enumerate() {
            match digit {
                '1' => {}
                '0' => *state = None,
                _ => {
                    return Err(fault(Fault::NotAMask {
                        id: id.clone(),
                        found: digit.into(),
                        position: index + 1,
                    }));
                }
            }
        }
    }
    Ok(Label::States(states))
}

fn unlabelled(record: &Record, expected: &'static str) -> Error {
    let id = record.id.clone();
    Error::at(&record.place, Fault::NoLabel { id, expected })
}
