//! TAPE's records in JSON: `primary` and a label such as `ss3` or `log_fluorescence`. The name of
//! the file says the set: `secondary_structure_train.json`, `..._valid.json`, `..._casp12.json`.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::collect::{Collector, Label, Labelled, same_length};
use super::error::{Error, Fault};
use super::{Contacts, Field, Kind, Place, States, json, split, states};

/// Two residues touch below this distance, in angstrom.
const TOUCHING: f64 = 8.0;

/// A record. Other fields, such as the profiles of alignments, are not read.
#[derive(Deserialize)]
struct Record {
    primary: Option<String>,
    id: Option<Value>,
    ss3: Option<ResidueStates>,
    ss8: Option<ResidueStates>,
    disorder: Option<ResidueStates>,
    fold_label: Option<Value>,
    log_fluorescence: Option<Value>,
    stability_score: Option<Value>,
    target: Option<Value>,
    tertiary: Option<Vec<Option<[Option<f64>; 3]>>>,
    valid_mask: Option<Vec<Flag>>,
}

/// States of residues: letters, or numbers of which those below zero are unknown.
#[derive(Deserialize)]
#[serde(untagged)]
enum ResidueStates {
    Letters(String),
    Numbers(Vec<Option<f64>>),
    Columns(Vec<[Option<f64>; 1]>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Flag {
    Truth(bool),
    Number(f64),
}

/// Reads one file.
pub(super) fn read(path: &Path, into: &mut Collector) -> Result<(), Error> {
    let field = into.reading.field.unwrap_or(match into.reading.kind {
        Kind::ResidueClasses => Field::SecondaryStructure,
        Kind::SequenceClasses => Field::Class,
        Kind::SequenceValue => Field::Target,
        Kind::Contacts => Field::Tertiary,
    });
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let split = split::of_file(&stem, &into.reading.tests);
    let mut found = 0;
    json::for_each(path, &mut |record: Record, place| {
        into.counts.read += 1;
        found += 1;
        // TAPE counts the records of each file from 0.
        let digits = |id: &str| id.bytes().all(|byte| byte.is_ascii_digit());
        let id = match record.id.as_ref().and_then(text) {
            Some(id) if digits(&id) => format!("{stem}#{id}"),
            Some(id) => id,
            None => format!("{stem}#{}", found - 1),
        };
        let sequence = record.primary.clone().ok_or_else(|| {
            let problem = "the record has no `primary`: expected the sequence there".into();
            Error::at(&place, Fault::Malformed { problem })
        })?;
        let fault = |fault| Error::at(&place, fault);
        let length = sequence.chars().count();
        let label = record.label(field, into.reading.states, &id, length, &place)?;
        let label = label.ok_or_else(|| {
            let (id, expected) = (id.clone(), field.expected());
            fault(Fault::NoLabel { id, expected })
        })?;
        let split = split.clone();
        into.add(Labelled {
            id,
            sequence,
            split,
            label,
            place: place.clone(),
        })
    })
}

impl Record {
    fn label(
        &self,
        field: Field,
        wanted: States,
        id: &str,
        length: usize,
        place: &Place,
    ) -> Result<Option<Label>, Error> {
        let fault = |fault| Error::at(place, fault);
        let value = |value: &Option<Value>, kind| match value.as_ref().map(text) {
            None | Some(None) => Ok(None),
            Some(Some(text)) => Label::of(kind, &text, id, place).map(Some),
        };
        match field {
            Field::SecondaryStructure => {
                let (found, order) = match (wanted, &self.ss3, &self.ss8) {
                    (States::Three, Some(three), _) => (three, states::THREE),
                    (_, _, Some(eight)) => (eight, states::EIGHT),
                    _ => return Ok(None),
                };
                self.states(found, order, id, length)
                    .map(Some)
                    .map_err(fault)
            }
            Field::Disorder => match &self.disorder {
                Some(found) => self
                    .states(found, b"01", id, length)
                    .map(Some)
                    .map_err(fault),
                None => Ok(None),
            },
            Field::FoldLabel => value(&self.fold_label, Kind::SequenceClasses),
            Field::LogFluorescence => value(&self.log_fluorescence, Kind::SequenceValue),
            Field::StabilityScore => value(&self.stability_score, Kind::SequenceValue),
            Field::Target => value(&self.target, Kind::SequenceValue),
            Field::Class => value(&self.target, Kind::SequenceClasses),
            Field::Tertiary => match &self.tertiary {
                Some(_) => self.contacts(id, length).map(Some).map_err(fault),
                None => Ok(None),
            },
        }
    }

    fn states(
        &self,
        found: &ResidueStates,
        order: &[u8],
        id: &str,
        length: usize,
    ) -> Result<Label, Fault> {
        let number = |(index, number): (usize, Option<f64>)| match number {
            None => Ok(None),
            Some(number) if number < 0.0 => Ok(None),
            Some(number) => {
                let whole = number.fract() == 0.0;
                let letter = order.get(number as usize).filter(|_| whole);
                let letter = letter.ok_or_else(|| Fault::NotAState {
                    id: id.into(),
                    found: number.to_string(),
                    position: index + 1,
                    expected: "the number of a state (ss8: GHIBESTC from 0, ss3: HEC), or below \
                               0 where it is not known",
                })?;
                Ok(Some(char::from(*letter)))
            }
        };
        let mut states = match found {
            ResidueStates::Letters(letters) => letters.chars().map(Some).collect(),
            ResidueStates::Numbers(numbers) => {
                let numbers = numbers.iter().copied().enumerate().map(number);
                numbers.collect::<Result<Vec<Option<char>>, Fault>>()?
            }
            ResidueStates::Columns(numbers) => {
                let numbers = numbers
                    .iter()
                    .map(|[number]| *number)
                    .enumerate()
                    .map(number);
                numbers.collect::<Result<Vec<Option<char>>, Fault>>()?
            }
        };
        same_length(id, "labels", states.len(), length)?;
        for (state, valid) in states.iter_mut().zip(self.valid(id, length)?) {
            *state = state.filter(|_| valid);
        }
        Ok(Label::States(states))
    }

    fn valid(&self, id: &str, length: usize) -> Result<Vec<bool>, Fault> {
        let Some(mask) = &self.valid_mask else {
            return Ok(vec![true; length]);
        };
        same_length(id, "values in its valid_mask", mask.len(), length)?;
        let flag = |(index, flag): (usize, &Flag)| match *flag {
            Flag::Truth(valid) => Ok(valid),
            Flag::Number(0.0) => Ok(false),
            Flag::Number(1.0) => Ok(true),
            Flag::Number(other) => Err(Fault::NotAMask {
                id: id.into(),
                found: other.to_string(),
                position: index + 1,
            }),
        };
        mask.iter().enumerate().map(flag).collect()
    }

    /// Distances of `tertiary`, in angstrom, as TAPE and ProteinNet compare them.
    fn contacts(&self, id: &str, length: usize) -> Result<Label, Fault> {
        let points = self.tertiary.as_deref().unwrap_or_default();
        same_length(id, "positions in its tertiary", points.len(), length)?;
        let points = points.iter().zip(self.valid(id, length)?);
        let points: Vec<Option<[f64; 3]>> = points
            .map(|(point, valid)| match point.as_ref().filter(|_| valid) {
                Some([Some(x), Some(y), Some(z)]) => Some([*x, *y, *z]),
                _ => None,
            })
            .collect();
        if points.iter().all(Option::is_none) {
            return Err(Fault::NothingLabelled { id: id.into() });
        }
        let mut pairs = Vec::new();
        for (i, first) in points.iter().enumerate() {
            for (j, second) in points.iter().enumerate().skip(i + 1) {
                if let (Some(first), Some(second)) = (first, second) {
                    let squares = first.iter().zip(second).map(|(a, b)| (a - b) * (a - b));
                    if squares.sum::<f64>().sqrt() < TOUCHING {
                        pairs.push((i as u32, j as u32));
                    }
                }
            }
        }
        let resolved = points.iter().map(Option::is_some).collect();
        Ok(Label::Contacts(Contacts { resolved, pairs }))
    }
}

/// A value as text, also the one value of an array, as TAPE writes numbers.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        Value::Array(values) => match values.as_slice() {
            [value] => text(value),
            _ => Some(Value::Array(values.clone()).to_string()),
        },
        other => Some(other.to_string()),
    }
}
