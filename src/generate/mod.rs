//! Generation: prompts in, sequences out.
//!
//! A [`Prompt`] is a sequence with sentinels in the places to be filled, or the beginning of one
//! that is to go on ([`Task`]). It becomes an encoder input, and a [`Constraint`] for each position
//! of the target where its form is known. [`Generator`] runs prompts in batches; what it chooses is
//! in `src/programs/generation`. The target is put back into the prompt by the objective, as in
//! training ([`Objective::unmask`]). [`run`] does all of this for a file, and can be interrupted.

mod error;
mod fasta;
mod generator;
mod prompt;
mod run;

pub use crate::programs::{Constraint, Search};
pub use ankh_data::Objective;
pub use error::{Error, Fault};
pub use generator::{Generated, Generator, Item, Settings};
pub use prompt::{Freedom, Prompt, Task, objective_of};
pub use run::{Outcome, Plan, Summary, run};
