//! Where the wild type comes from.

use std::path::{Path, PathBuf};

use ankh_data::Input;
use ankh_storage::StorageOptions;

use super::mutation::residues;
use super::{Error, Fault, Table};

/// Where the wild type of a table's variants is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum WildType {
    /// In the table: the column `target_seq`, or what `mutated_sequence` was before `mutant`.
    #[default]
    Table,
    /// A file with this sequence alone (FASTA), or, where there is none of the name, the sequence.
    Given(String),
    /// A reference file of ProteinGym, whose column `DMS_filename` names the table and whose
    /// `target_seq` is the wild type.
    Reference(PathBuf),
}

impl WildType {
    /// The one sequence of a table's variants, in capitals; none where the table tells.
    pub(super) fn of(&self, table: &Table) -> Result<Option<Vec<u8>>, Error> {
        match self {
            WildType::Table => Ok(None),
            WildType::Given(given) => self::given(given).map(Some),
            WildType::Reference(reference) => in_reference(reference, table.path()).map(Some),
        }
    }
}

fn given(given: &str) -> Result<Vec<u8>, Error> {
    let path = Path::new(given);
    if path.is_file() {
        return in_file(path);
    }
    residues(given).map_err(|fault| Error::WildType {
        given: given.into(),
        fault,
    })
}

fn in_file(path: &Path) -> Result<Vec<u8>, Error> {
    let mut input = Input::open(&path.to_path_buf().into(), &StorageOptions::default())?;
    let mut found: Vec<(u64, Vec<u8>)> = Vec::new();
    while let Some(block) = input.next_block()? {
        block.for_each(&mut |record| {
            found.push((record.line, record.sequence.to_vec()));
            Ok(())
        })?;
    }
    let [(line, sequence)] = &found[..] else {
        return Err(Error::NotOneSequence {
            path: path.into(),
            found: found.len(),
        });
    };
    residues(&String::from_utf8_lossy(sequence)).map_err(|fault| Error::Row {
        path: path.into(),
        line: *line,
        fault,
    })
}

fn in_reference(reference: &Path, table: &Path) -> Result<Vec<u8>, Error> {
    let name = table.file_name().unwrap_or_default().to_string_lossy();
    let listed = Table::read(reference)?;
    let files = listed.expect("DMS_filename", "`DMS_filename`")?;
    let sequences = listed.expect("target_seq", "`target_seq`")?;
    let row = listed
        .rows()
        .iter()
        .find(|row| row.cell(Some(files)) == name);
    let row = row.ok_or_else(|| Error::NotInReference {
        reference: reference.into(),
        name: name.into_owned(),
    })?;
    residues(row.cell(Some(sequences))).map_err(|fault: Fault| listed.fault(row, fault))
}
