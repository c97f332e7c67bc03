//! `--initialize-from`: which weights a run begins with, and whether they fit it. All that is wrong
//! with them is found here, before the run directory is touched.

use ankh_data::Manifest;
use ankh_storage::Storage;

use super::configuration::ConfigArgs;
use super::weights::print_notes;
use super::{CliError, Exit};
use crate::checkpoint;
use crate::config::{Config, Location, resolve_over};
use crate::hugging_face::{self, Error, TokenIds, WeightsReader};

/// The configuration of a run that begins with the weights at `location`, if they fit it. Where no
/// preset or file was asked for, the model and the tokenizer are theirs.
pub(super) fn initialized(
    config: Config,
    location: &Location,
    arguments: &ConfigArgs,
) -> Result<Config, CliError> {
    let fit = |weights: &WeightsReader<'_>| -> Result<_, Error> {
        let mut config = config.clone();
        if arguments.config.is_none() {
            config.model = weights.model().clone();
            if let Some(tokenizer) = weights.token_ids().vocabulary() {
                config.data.tokenizer = tokenizer;
            }
        }
        // The weights come before what single settings say, as a preset does.
        Ok(match resolve_over(config, &arguments.set) {
            Ok(config) => {
                weights.check_model(&config.model)?;
                Ok((config, weights.token_ids(), weights.notes().to_vec()))
            }
            Err(error) => Err(error),
        })
    };
    let fitting = hugging_face::open(location, fit).map_err(refused)?;
    let (config, token_ids, notes) = fitting?;
    print_notes(&notes);
    if let TokenIds::Known(known) = token_ids
        && known != config.data.tokenizer
    {
        let configured = config.data.tokenizer;
        return Err(CliError::usage(format!(
            "{location} holds weights for the tokenizer {known}, and data.tokenizer is {configured}"
        ))
        .help(format!(
            "set data.tokenizer={known}, and give data that was prepared with `--tokenizer {known}`"
        )));
    }
    Ok(config)
}

/// Checks that the data of a run that begins with weights has the token ids that these have
/// learned. What cannot be read now is reported when it is needed.
pub(super) fn check_data(config: &Config) -> Result<(), CliError> {
    let Some(weights) = &config.train.initialize_from else {
        return Ok(());
    };
    let options = config.read_options().storage;
    for data in config.data_locations().unwrap_or_default() {
        let manifest = Storage::open(&data, &options).map(|storage| Manifest::read(&storage));
        let Ok(Ok(manifest)) = manifest else { continue };
        let (found, expected) = (manifest.tokenizer.name, config.data.tokenizer);
        if found != expected {
            return Err(CliError::usage(format!(
                "{data} was prepared with the tokenizer {found}, and the weights of {weights} are \
                 for {expected}"
            ))
            .help(format!(
                "prepare it anew with `pretrain prepare --tokenizer {expected}`, or begin with \
                 other weights"
            )));
        }
    }
    Ok(())
}

/// An error of weights to begin with: all but a service that cannot be reached is found before
/// anything is begun.
pub(super) fn refused(error: Error) -> CliError {
    let help = match &error {
        Error::Checkpoint(checkpoint::Error::Storage(_)) => return error.into(),
        Error::OtherModel { .. } => Some(
            "leave out --config, and the model is that of the weights; or set these settings with \
             --set, or begin with other weights",
        ),
        Error::NoWeights(_) => Some("give a place of weights with --initialize-from"),
        Error::Malformed { .. } | Error::Mismatch(_) | Error::Checkpoint(_) => {
            Some("give other weights with --initialize-from, or fetch these again")
        }
        _ => None,
    };
    let error = CliError::from(error).exiting(Exit::Usage);
    match (help, error.advice()) {
        (Some(help), None) => error.help(help),
        _ => error,
    }
}
