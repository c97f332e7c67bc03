//! The report on variants: figures as JSON, and a page with a plot per column.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::aligner::row;
use super::alignment::{GAP, Record};
use super::directory::Output;
use super::measures::{
    EntropyError, Range, entropies, identity, nearest, novel_share, unique_share,
};
use super::{Aligner, Alignment, Error, page};

/// How variants were made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// From a short beginning, by a decoder that has learned the family.
    HighN,
    /// From one sequence with a share hidden.
    OneN,
}

/// What a report is made of.
pub(super) struct Material<'a> {
    /// How variants were made.
    pub kind: Kind,
    /// The sequence that they begin with.
    pub wild_type: &'a Record,
    /// The family, where it is known.
    pub family: Option<&'a Alignment>,
    /// What places them in its columns.
    pub aligner: Aligner,
    /// The sequences of each setting.
    pub generated: &'a [Generated],
}

/// The sequences of one setting.
pub(super) struct Generated {
    /// What logits were divided by.
    pub temperature: f32,
    /// The share that was hidden.
    pub mask: Option<f64>,
    /// Where they are.
    pub file: PathBuf,
    /// For each residue of the wild type whether the model was given it.
    pub given: Vec<bool>,
    /// Their residues.
    pub sequences: Vec<Vec<u8>>,
}

/// The figures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// How variants were made.
    pub kind: Kind,
    /// The name of the sequence that they begin with.
    pub wild_type: String,
    /// The family, where it is known.
    pub family: Option<Family>,
    /// The columns: those of the family that are kept, or else the residues of the wild type.
    pub columns: Vec<Column>,
    /// Each setting.
    pub settings: Vec<Setting>,
    /// What the paper found, for other proteins.
    pub paper: Paper,
}

/// The family that variants are compared with.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Family {
    /// Its file.
    pub path: PathBuf,
    /// Its sequences.
    pub sequences: usize,
    /// Its columns.
    pub columns: usize,
    /// Those that are kept.
    pub kept: usize,
    /// What placed generated sequences in them.
    pub aligner: &'static str,
}

/// A column.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Column {
    /// Its number in the family's file, or in the wild type, from 1.
    pub column: usize,
    /// What the wild type has there.
    pub residue: Option<char>,
    /// The share of the family's sequences with a residue there.
    pub occupancy: Option<f64>,
    /// The entropy of the family's amino acids there, in nats.
    pub entropy: Option<f64>,
}

/// What came of one setting.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Setting {
    /// What logits were divided by.
    pub temperature: f32,
    /// The share of residues that was hidden.
    pub mask: Option<f64>,
    /// The sequences.
    pub file: PathBuf,
    /// Their number.
    pub sequences: usize,
    /// Their lengths.
    pub lengths: Option<Range>,
    /// The share that is distinct.
    pub unique_share: f64,
    /// The share that is not in the family; without one, that is not the wild type.
    pub novel_share: f64,
    /// The identity to the wild type.
    pub identity_to_wild_type: Option<Range>,
    /// The same in the columns that the model was not given.
    pub identity_where_generated: Option<Range>,
    /// The identity to the sequence of the family that is most like it.
    pub identity_to_nearest: Option<Range>,
    /// How entropies differ from the family's, in the columns that the model was not given.
    pub entropy_error: Option<EntropyError>,
    /// The same in all columns.
    pub entropy_error_in_all_columns: Option<EntropyError>,
    /// The entropy in each column, in nats.
    pub entropies: Vec<Option<f64>>,
    /// For each column whether the model was given what is there.
    pub given: Vec<bool>,
}

/// What the paper reports for High-N on 16,706 malate dehydrogenases.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Paper {
    /// The mean squared error of the entropy at temperatures of 1.0, 1.5 and 2.0. The paper does
    /// not say in which unit.
    pub entropy_error: [f64; 3],
    /// Of the sequences more than this share are distinct.
    pub unique_share: f64,
}

/// The paper's figures.
pub const PAPER: Paper = Paper {
    entropy_error: [0.10, 0.09, 0.08],
    unique_share: 0.95,
};

impl Report {
    /// The figures on some sequences.
    pub(super) fn of(material: Material<'_>) -> Result<Report, Error> {
        let Material {
            kind,
            wild_type,
            family,
            aligner,
            generated,
        } = material;
        let residues = wild_type.residues();
        let places: Vec<Option<usize>> = match family {
            Some(family) => aligner
                .align(family, std::slice::from_ref(&residues))?
                .concat(),
            None => (0..residues.len()).map(Some).collect(),
        };
        let natural = family.map(|family| entropies(&family.rows, places.len()));
        let of_wild_type = row(&residues, &places);
        let columns = (0..places.len()).map(|column| Column {
            column: family.map_or(column, |family| family.kept[column]) + 1,
            residue: (of_wild_type[column] != GAP).then_some(of_wild_type[column] as char),
            occupancy: family.map(|family| {
                let there = family.rows.iter().filter(|row| row[column] != GAP).count();
                there as f64 / family.rows.len() as f64
            }),
            entropy: natural.as_ref().and_then(|natural| natural[column]),
        });
        let known: HashSet<Vec<u8>> = match family {
            Some(family) => family.records.iter().map(Record::residues).collect(),
            None => [residues.clone()].into_iter().collect(),
        };
        let comparison = Comparison {
            wild_type: &of_wild_type,
            places: &places,
            family: family.zip(natural.as_deref()),
            known: &known,
        };
        let settings = generated.iter().map(|generated| {
            let sequences = &generated.sequences;
            let rows = match (kind, family) {
                (Kind::HighN, Some(family)) => {
                    let aligned = aligner.align(family, sequences)?;
                    sequences
                        .iter()
                        .zip(&aligned)
                        .map(|(s, places)| row(s, places))
                        .collect()
                }
                // What is filled has the length of the wild type.
                _ => sequences
                    .iter()
                    .map(|sequence| row(sequence, &places))
                    .collect(),
            };
            Ok(comparison.setting(generated, rows))
        });
        Ok(Report {
            kind,
            wild_type: wild_type.id.clone(),
            family: family.map(|family| Family {
                path: family.path.clone(),
                sequences: family.rows.len(),
                columns: family.columns,
                kept: family.kept.len(),
                aligner: aligner.name(),
            }),
            settings: settings.collect::<Result<_, Error>>()?,
            columns: columns.collect(),
            paper: PAPER,
        })
    }

    /// Writes `report.json` and `report.html`.
    pub(super) fn write(&self, output: &Output) -> Result<(), Error> {
        let text = serde_json::to_string_pretty(self).expect("numbers and names have JSON");
        output.write("report.json", &format!("{text}\n"))?;
        output.write("report.html", &page::page(self))
    }
}

/// What sequences are compared with.
struct Comparison<'a> {
    wild_type: &'a [u8],
    places: &'a [Option<usize>],
    family: Option<(&'a Alignment, &'a [Option<f64>])>,
    known: &'a HashSet<Vec<u8>>,
}

impl Comparison<'_> {
    fn setting(&self, generated: &Generated, rows: Vec<Vec<u8>>) -> Setting {
        let sequences = &generated.sequences;
        let place_given = |place: &Option<usize>| place.is_some_and(|place| generated.given[place]);
        let given: Vec<bool> = self.places.iter().map(place_given).collect();
        let open = |row: &[u8]| -> Vec<u8> {
            let open = row.iter().zip(&given).filter(|(_, given)| !**given);
            open.map(|(&letter, _)| letter).collect()
        };
        let found = entropies(&rows, self.places.len());
        let error = |is_counted: &dyn Fn(usize) -> bool| {
            self.family
                .map(|(_, natural)| EntropyError::between(natural, &found, is_counted))
        };
        let of_rows = |measure: &dyn Fn(&Vec<u8>) -> f64| {
            Range::of(&rows.iter().map(measure).collect::<Vec<f64>>())
        };
        let wild_type = open(self.wild_type);
        let lengths: Vec<f64> = sequences.iter().map(|s| s.len() as f64).collect();
        let file = generated
            .file
            .file_name()
            .map_or(generated.file.as_path(), Path::new);
        Setting {
            temperature: generated.temperature,
            mask: generated.mask,
            file: file.to_owned(),
            sequences: sequences.len(),
            lengths: Range::of(&lengths),
            unique_share: unique_share(sequences),
            novel_share: novel_share(sequences, self.known),
            identity_to_wild_type: of_rows(&|row| identity(row, self.wild_type)),
            identity_where_generated: of_rows(&|row| identity(&open(row), &wild_type)),
            identity_to_nearest: self
                .family
                .and_then(|(family, _)| Range::of(&nearest(&rows, &family.rows))),
            entropy_error: error(&|column| !given[column]),
            entropy_error_in_all_columns: error(&|_| true),
            entropies: found,
            given,
        }
    }
}
