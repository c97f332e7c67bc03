//! Who a host of a run is.

use crate::wire;

/// A host of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its number; 0 coordinates.
    pub host: usize,
    /// How many there are.
    pub hosts: usize,
    /// Its machine and process, for people.
    pub name: String,
    /// What has to be the same on all hosts: names and values.
    pub facts: Vec<(String, String)>,
}

impl Identity {
    pub(crate) fn wire_facts(&self) -> Vec<wire::Fact> {
        let fact = |(name, value): &(String, String)| wire::Fact {
            name: name.clone(),
            value: value.clone(),
        };
        self.facts.iter().map(fact).collect()
    }
}
