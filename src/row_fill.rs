//! What the rows of a run hold: from the lengths that prepared data reports or, where no data is
//! given, from lengths like UniRef50's.

use std::fmt;

use ankh_data::format::LengthBin;
use ankh_data::{Manifest, Packing, RowFill, synthetic};
use ankh_storage::Storage;
use serde::Serialize;

use crate::config::{BatchSize, Config, Location};

/// Where lengths of sequences come from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum LengthSource {
    /// The run's data.
    Data,
    /// A distribution like UniRef50's, for a run without data: [`synthetic`].
    LikeUniRef50,
    /// The same, for data that cannot be read.
    Unreadable(String),
}

impl fmt::Display for LengthSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LengthSource::Data => f.write_str("by the lengths of the data"),
            LengthSource::LikeUniRef50 => f.write_str("by lengths like UniRef50's"),
            LengthSource::Unreadable(reason) => {
                write!(
                    f,
                    "by lengths like UniRef50's, as the data cannot be read: {reason}"
                )
            }
        }
    }
}

/// What a row holds on average, and by which lengths. The configuration is valid.
///
/// # Errors
/// What reading the data's manifest gives, where the batch is given in sequences: without it, the
/// rows of a batch are not known.
pub fn row_fill(config: &Config) -> Result<(RowFill, LengthSource), ankh_data::Error> {
    let like_uniref50 = |_: Option<&Location>| Ok(synthetic::uniref50_lengths());
    if config.data_locations().is_none() {
        return Ok((fill(config, like_uniref50)?, LengthSource::LikeUniRef50));
    }
    let options = config.read_options().storage;
    let of_data = fill(config, |location| {
        let location = location.expect("every component has a location: none is missing above");
        let manifest = Manifest::read(&Storage::open(location, &options)?)?;
        Ok(manifest.report.lengths.histogram)
    });
    match (of_data, needs_lengths(config)) {
        (Ok(fill), _) => Ok((fill, LengthSource::Data)),
        (Err(error), true) => Err(error),
        (Err(error), false) => {
            let source = LengthSource::Unreadable(error.to_string());
            Ok((fill(config, like_uniref50)?, source))
        }
    }
}

/// Makes a batch that is given in sequences one of rows, as many as hold about so many, and says
/// so.
///
/// # Errors
/// Those of [`row_fill`].
pub fn settle_batch_size(config: &mut Config) -> Result<(), ankh_data::Error> {
    if !needs_lengths(config) {
        config.settle_batch_size(1.0);
        return Ok(());
    }
    let (fill, source) = row_fill(config)?;
    let asked = config.train.batch_size;
    config.settle_batch_size(fill.sequences);
    let rows = config.batch_rows();
    tracing::info!(
        "a batch of {asked} is {rows} rows, which hold {:.0} on average, {source}",
        rows as f64 * fill.sequences
    );
    Ok(())
}

/// Whether the rows of a batch depend on how long sequences are.
fn needs_lengths(config: &Config) -> bool {
    let in_sequences = matches!(config.train.batch_size, BatchSize::Sequences(_));
    in_sequences && config.data.packing == Packing::Packed
}

/// What a row holds, given the lengths of the sequences at each location.
fn fill(
    config: &Config,
    lengths: impl Fn(Option<&Location>) -> Result<Vec<LengthBin>, ankh_data::Error>,
) -> Result<RowFill, ankh_data::Error> {
    let components = config.components();
    let total: f64 = components.iter().map(|component| component.weight).sum();
    let shape = config.batch_config();
    let parts = components.iter().map(|component| {
        let lengths = lengths(component.dir.as_ref())?;
        let fill = RowFill::of(&lengths, &component.objective, config.tokenizer(), &shape)?;
        Ok((component.weight / total, fill))
    });
    Ok(RowFill::mixed(
        parts.collect::<Result<Vec<_>, ankh_data::Error>>()?,
    ))
}
