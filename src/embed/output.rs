//! The file that is made of the parts.

use std::collections::HashSet;
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use super::hdf5::{self, Float};
use super::parquet_file;
use super::parts::Indexed;
use super::{DatasetNames, Error, Store};
use crate::programs::Pooling;

/// What kind of file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Rows of id, length and embedding.
    Parquet,
    /// A dataset for each sequence.
    Hdf5,
}

impl Format {
    /// The kind that a file's name asks for.
    pub fn of(path: &Path) -> Result<Format, Error> {
        let extension = path.extension().and_then(|extension| extension.to_str());
        match extension.map(str::to_ascii_lowercase).as_deref() {
            Some("parquet") => Ok(Format::Parquet),
            Some("h5" | "hdf5") => Ok(Format::Hdf5),
            _ => Err(Error::Format { path: path.into() }),
        }
    }
}

/// What the values in a file are.
#[derive(Clone, Debug)]
pub struct Content {
    pub format: Format,
    pub pooling: Pooling,
    pub store: Store,
    pub names: DatasetNames,
    pub d_model: usize,
    /// What a Parquet file carries besides.
    pub metadata: Vec<(String, String)>,
}

/// A file in the making.
pub struct Output {
    path: PathBuf,
    content: Content,
    file: Kind,
    rows: u64,
    /// The names that a dataset has already.
    taken: HashSet<String>,
    /// Sequences that have the name of an earlier one.
    repeated: u64,
}

enum Kind {
    Parquet(Box<parquet_file::Writer<BufWriter<File>>>),
    Hdf5(hdf5::Writer<BufWriter<File>>),
}

impl Output {
    pub fn create(path: PathBuf, content: Content) -> Result<Output, Error> {
        let file = File::create(&path).map_err(Error::io("create", &path))?;
        let file = BufWriter::with_capacity(1 << 20, file);
        let Content {
            pooling,
            store,
            d_model,
            ..
        } = content;
        let file = match content.format {
            Format::Parquet => {
                let metadata = content.metadata.clone();
                let writer = parquet_file::Writer::new(file, pooling, store, d_model, metadata);
                Kind::Parquet(Box::new(writer.map_err(parquet_error(&path))?))
            }
            Format::Hdf5 => {
                let writer = hdf5::Writer::new(file, "original_id");
                Kind::Hdf5(writer.map_err(Error::io("write", &path))?)
            }
        };
        Ok(Output {
            path,
            content,
            file,
            rows: 0,
            taken: HashSet::new(),
            repeated: 0,
        })
    }

    /// Adds a sequence.
    pub fn push(&mut self, sequence: Indexed, values: &[u8]) -> Result<(), Error> {
        let Indexed { id, length, hash } = sequence;
        let number = self.rows;
        self.rows += 1;
        match &mut self.file {
            Kind::Parquet(writer) => {
                let written = writer.row(&id, length, values);
                written.map_err(parquet_error(&self.path))
            }
            Kind::Hdf5(writer) => {
                let name = match self.content.names {
                    DatasetNames::Number => number.to_string(),
                    DatasetNames::SequenceHash if self.taken.insert(hash.clone()) => hash,
                    DatasetNames::SequenceHash => {
                        self.repeated += 1;
                        return Ok(());
                    }
                };
                let d_model = self.content.d_model as u64;
                let dims = match self.content.pooling {
                    Pooling::Mean => vec![d_model],
                    Pooling::None => vec![length as u64, d_model],
                };
                let float = match self.content.store {
                    Store::Float32 => Float::Single,
                    Store::Float16 => Float::Half,
                };
                let written = writer.dataset(name, &dims, float, values, &id);
                written.map_err(Error::io("write", &self.path))
            }
        }
    }

    /// Completes the file and returns how many sequences share a dataset with an earlier one.
    pub fn finish(self) -> Result<u64, Error> {
        let file = match self.file {
            Kind::Parquet(writer) => writer.finish().map_err(parquet_error(&self.path))?,
            Kind::Hdf5(writer) => writer.finish().map_err(Error::io("write", &self.path))?,
        };
        let flushed = file.into_inner().map_err(|error| error.into_error());
        flushed.map_err(Error::io("write", &self.path))?;
        Ok(self.repeated)
    }
}

fn parquet_error(path: &Path) -> impl FnOnce(parquet::errors::ParquetError) -> Error {
    let path = path.to_path_buf();
    move |source| Error::Parquet { path, source }
}
