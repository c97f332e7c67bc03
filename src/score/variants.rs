//! The variants of a table, checked against their wild type.

use super::mutation::residues;
use super::table::{Column, Row};
use super::{Error, Fault, Method, Mutation, Table, WildType};

/// A row's variant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variant {
    /// Its residues in capitals.
    pub sequence: Vec<u8>,
    /// What it was made of, and how; none where that is not known, or residues were inserted or
    /// deleted.
    pub origin: Option<Origin>,
}

/// A variant's wild type and its mutations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The wild type's residues in capitals.
    pub wild_type: Vec<u8>,
    /// In the order of positions; none of the wild type itself.
    pub mutations: Vec<Mutation>,
}

/// The columns that say what the variants are, as ProteinGym calls them.
struct Columns {
    mutant: Option<Column>,
    mutated_sequence: Option<Column>,
    target_seq: Option<Column>,
}

/// The variants of a table, of at most so many residues, in the order of its rows. Each has what
/// `method` needs.
pub fn variants(
    table: &Table,
    wild_type: &WildType,
    method: Method,
    max_length: usize,
) -> Result<Vec<Variant>, Error> {
    let columns = Columns {
        mutant: table.column("mutant"),
        mutated_sequence: table.column("mutated_sequence"),
        target_seq: match wild_type {
            WildType::Table => table.column("target_seq"),
            _ => None,
        },
    };
    if columns.mutant.is_none() && columns.mutated_sequence.is_none() {
        return Err(table.lacks("`mutant` or `mutated_sequence`"));
    }
    let given = wild_type.of(table)?;
    // The line that first implied a wild type, and that.
    let mut implied: Option<(u64, Vec<u8>)> = None;
    let mut found = Vec::with_capacity(table.rows().len());
    for row in table.rows() {
        let mut read = || -> Result<Variant, Fault> {
            let (variant, implies) = variant(row, &columns, given.as_deref())?;
            if let (Some(origin), true) = (&variant.origin, implies) {
                let (first, before) = implied.get_or_insert((row.line, origin.wild_type.clone()));
                if *before != origin.wild_type {
                    return Err(Fault::SeveralWildTypes { first: *first });
                }
            }
            suits(&variant, given.as_deref(), method, max_length)?;
            Ok(variant)
        };
        found.push(read().map_err(|fault| table.fault(row, fault))?);
    }
    Ok(found)
}

/// The variant of a row, and whether its wild type is implied by `mutant` and `mutated_sequence`.
fn variant(row: &Row, columns: &Columns, given: Option<&[u8]>) -> Result<(Variant, bool), Fault> {
    let (mutant, mutated) = (row.cell(columns.mutant), row.cell(columns.mutated_sequence));
    let wild_type = match (given, row.cell(columns.target_seq)) {
        (Some(given), _) => Some(given.to_vec()),
        (None, "") => None,
        (None, sequence) => Some(residues(sequence)?),
    };
    // ProteinGym's tables of insertions and deletions repeat the sequence as the mutant.
    if mutant.is_empty() || mutant == mutated {
        let sequence = match mutated {
            "" => return Err(Fault::NoVariant),
            mutated => residues(mutated)?,
        };
        let origin = wild_type
            .filter(|wild_type| wild_type.len() == sequence.len())
            .map(|wild_type| Origin {
                mutations: Mutation::between(&wild_type, &sequence),
                wild_type,
            });
        return Ok((Variant { sequence, origin }, false));
    }
    let mutations = Mutation::parse_all(mutant)?;
    let implies = wild_type.is_none();
    let (wild_type, sequence) = match (wild_type, mutated) {
        (Some(wild_type), "") => {
            let sequence = Mutation::apply(&mutations, &wild_type)?;
            (wild_type, sequence)
        }
        (Some(wild_type), mutated) => {
            let sequence = Mutation::apply(&mutations, &wild_type)?;
            agrees(mutant, &sequence, &residues(mutated)?)?;
            (wild_type, sequence)
        }
        (None, "") => return Err(Fault::NoWildType),
        (None, mutated) => {
            let sequence = residues(mutated)?;
            (Mutation::undo(&mutations, &sequence)?, sequence)
        }
    };
    let origin = Some(Origin {
        wild_type,
        mutations,
    });
    Ok((Variant { sequence, origin }, implies))
}

fn agrees(mutant: &str, expected: &[u8], found: &[u8]) -> Result<(), Fault> {
    let mutant = mutant.to_owned();
    if expected.len() != found.len() {
        let (found, expected) = (found.len(), expected.len());
        return Err(Fault::OtherLength {
            mutant,
            found,
            expected,
        });
    }
    match expected.iter().zip(found).position(|(e, f)| e != f) {
        Some(place) => Err(Fault::Disagrees {
            mutant,
            position: place + 1,
        }),
        None => Ok(()),
    }
}

/// Whether a method can score a variant.
fn suits(
    variant: &Variant,
    given: Option<&[u8]>,
    method: Method,
    most: usize,
) -> Result<(), Fault> {
    let found = variant.sequence.len();
    if found > most {
        return Err(Fault::TooLong { found, most });
    }
    match (method, &variant.origin, given) {
        (Method::PseudoLikelihood, ..) | (Method::MaskedMarginals, Some(_), _) => Ok(()),
        (Method::MaskedMarginals, None, Some(given)) => {
            let expected = given.len();
            Err(Fault::Indel { found, expected })
        }
        (Method::MaskedMarginals, None, None) => Err(Fault::NoWildType),
    }
}
