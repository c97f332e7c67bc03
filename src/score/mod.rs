//! Scores of protein variants: what a model holds of a mutation, in the tables of ProteinGym.
//!
//! A [`Table`] of mutants becomes [`Variant`]s, checked against their wild type. A [`Method`] turns
//! each into [`Questions`]: which residue stands where one is masked? [`answers`] puts them to a
//! model, each masked input once, and a [`Journal`](crate::inference::Journal) keeps what is done.
//! [`Labels`] tell how well the scores agree with a measurement. This module knows neither a
//! terminal nor signals.

mod error;
mod labels;
mod masked;
mod method;
mod mutation;
mod run;
mod table;
mod variants;
mod wild_type;

pub use error::{Error, Fault};
pub use labels::{Agreement, Labels};
pub use masked::{Answers, Question, Questions};
pub use method::{Method, Terms};
pub use mutation::{Mutation, residue};
pub use run::{Progress, answers};
pub use table::{Column, Row, Table};
pub use variants::{Origin, Variant, variants};
pub use wild_type::WildType;
