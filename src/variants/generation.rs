//! Sequences from a file of prompts, by beams that are drawn.

use std::path::Path;

use crate::generate::{self, Freedom, Plan, Search, Settings, Task};
use crate::inference::{LoadedModel, Unfinished, remove_journal_of};

use super::Error;
use super::alignment::{Record, records};
use super::directory::Output;

/// How sequences are drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Drawing {
    /// Beams of each search. Each sequence is the best beam of a search of its own.
    pub beams: usize,
    /// Sequences for each setting.
    pub samples: usize,
    /// Rows at once.
    pub batch_size: usize,
    /// What all random numbers follow from.
    pub seed: u64,
    /// On what and in which type the model runs: what bits of results depend on.
    pub computation: String,
}

/// What a command is at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Stage {
    /// It begins to fine-tune.
    FineTuning,
    /// It generates with this temperature, and so many batches of all are done.
    Generating {
        /// The temperature.
        temperature: f32,
        /// Batches that are done.
        done: usize,
        /// All of them.
        all: usize,
    },
    /// It measures what was generated.
    Measuring,
}

/// What is generated from which prompts, and where it goes.
pub(super) struct Request<'a> {
    /// The file of prompts.
    pub prompts: &'a Path,
    /// The name of the file to write.
    pub name: &'a str,
    /// What is done with a prompt.
    pub task: Task,
    /// Tokens at most, where the task does not tell.
    pub limit: Option<usize>,
    /// What logits are divided by.
    pub temperature: f32,
}

impl Drawing {
    /// Generates, unless that is done already; nothing where it is to stop. `progress` says whether
    /// to go on.
    pub(super) fn run(
        &self,
        model: &LoadedModel,
        output: &Output,
        request: &Request<'_>,
        progress: &mut dyn FnMut(Stage) -> bool,
    ) -> Result<Option<Vec<Record>>, Error> {
        let path = output.path(request.name);
        if path.exists() {
            remove_journal_of(&path).map_err(generate::Error::from)?;
        } else {
            let plan = self.plan(request, &path);
            let temperature = request.temperature;
            let outcome = generate::run(model, &plan, |done, all| {
                progress(Stage::Generating {
                    temperature,
                    done,
                    all,
                })
            })?;
            if outcome == generate::Outcome::Stopped {
                return Ok(None);
            }
        }
        Ok(Some(records(&path, model.tokenizer())?))
    }

    fn plan(&self, request: &Request<'_>, output: &Path) -> Plan {
        Plan {
            inputs: vec![request.prompts.to_owned()],
            output: output.to_owned(),
            task: request.task,
            freedom: Freedom::Form,
            target_format: None,
            samples: self.samples,
            limit: request.limit,
            max_length: usize::MAX,
            batch_size: self.batch_size.max(self.beams),
            settings: Settings {
                search: match self.beams {
                    1 => Search::Sample,
                    _ => Search::Beam {
                        sample: true,
                        early_stopping: false,
                    },
                },
                rows_per_prompt: self.beams,
                temperature: request.temperature,
                seed: self.seed,
                ..Settings::default()
            },
            computation: self.computation.clone(),
            replace: false,
            unfinished: Unfinished::Continue,
        }
    }
}
