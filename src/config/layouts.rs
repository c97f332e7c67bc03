//! The fastest layout known of each preset and slice: `configs/layouts.toml`.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use super::resolve::resolve;
use super::{Config, Layout, Model};

/// A layout of the table, with what its compiler said of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownLayout {
    /// The preset.
    pub preset: String,
    /// The slice.
    pub slice: String,
    /// Rows of a batch.
    pub rows: usize,
    /// The layout.
    pub layout: Layout,
    /// Cycles of a step.
    pub cycles: u64,
    /// What chips send in a step, in seconds, if none of it is hidden.
    pub communication_seconds: f64,
    /// The most memory of a chip, in bytes.
    pub peak: u64,
}

/// The table, as its file has it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layouts {
    /// Each preset and slice once.
    #[serde(default)]
    pub layouts: Vec<KnownLayout>,
}

static TABLE: LazyLock<Layouts> = LazyLock::new(|| {
    toml::from_str(include_str!("../../configs/layouts.toml"))
        .expect("a test reads configs/layouts.toml")
});

impl Layouts {
    /// Those that are part of the program.
    pub fn known() -> &'static Layouts {
        &TABLE
    }
}

impl Config {
    /// Lays the step out as is fastest on `slice`, as far as is known, unless this configuration
    /// lays it out in a way of its own. The batch is given in rows.
    ///
    /// A layout that is the fastest on another slice is none of its own: a run that goes on
    /// elsewhere takes the fastest one there.
    pub fn use_fastest_layout(&mut self, slice: &str) -> Option<&'static KnownLayout> {
        let known = Layouts::known().layouts.iter();
        let known: Vec<&KnownLayout> = known.filter(|known| self.is_step_of(known)).collect();
        let fastest = known.iter().find(|known| known.slice == slice)?;
        let own = Layout::of(self);
        let untouched =
            own == Layout::of(&Config::default()) || known.iter().any(|known| known.layout == own);
        if !untouched || self.sharding.data != 0 {
            return None;
        }
        *self = fastest.layout.apply(self);
        Some(fastest)
    }

    /// Whether the step has the sizes that a layout was found for.
    fn is_step_of(&self, known: &KnownLayout) -> bool {
        let preset = resolve(Some(&known.preset), &[])
            .expect("the table names presets: a test resolves each");
        let sizes = |model: &Model| Model {
            activation: preset.model.activation,
            vocabulary: preset.model.vocabulary,
            initialization: preset.model.initialization,
            norm_epsilon: preset.model.norm_epsilon,
            ..model.clone()
        };
        let data = |config: &Config| {
            (
                config.data.input_length,
                config.target_length(),
                config.data.packing,
            )
        };
        sizes(&self.model) == preset.model
            && data(self) == data(&preset)
            && self.batch_rows() == known.rows
            && self.optimizer.defaults() == preset.optimizer.defaults()
            && self.train.compute == preset.train.compute
            && self.train.attention == preset.train.attention
            && self.sharding.rules == preset.sharding.rules
            && self.compiler.flags == preset.compiler.flags
    }
}
