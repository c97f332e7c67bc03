//! A run on several data sets or objectives at once: `[mixture.NAME]` tables.
//!
//! A component sets only what differs from `[data]` and `[objective]`; those are what all
//! components share, and what evaluation uses.

use std::collections::BTreeMap;

use ankh_data::Objective;
use ankh_storage::Location;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toml::Table;

use super::Config;
use super::objective::laid_over;

/// One part of a mixture, as it is written.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct Part {
    /// Its share of the rows, in proportion to the others'.
    #[serde(default = "one")]
    pub weight: f64,
    /// Its prepared data; that of `data.dir` where none is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub dir: Option<Location>,
    /// Settings of `[objective]` that are others here.
    #[serde(flatten)]
    #[schemars(skip)]
    over: Table,
}

fn one() -> f64 {
    1.0
}

/// What a run sees some share of the time.
#[derive(Clone, Debug, PartialEq)]
pub struct Component {
    /// The part's name; empty for a run that is no mixture.
    pub name: String,
    /// Its share of the rows, in proportion to the others'.
    pub weight: f64,
    /// Its prepared data, where any is given.
    pub dir: Option<Location>,
    /// What is asked of the model.
    pub objective: Objective,
}

impl Config {
    /// What the run is made of: the parts of the mixture in the order of their names, or the one
    /// that `[data]` and `[objective]` say.
    pub fn components(&self) -> Vec<Component> {
        if self.mixture.is_empty() {
            return vec![Component {
                name: String::new(),
                weight: 1.0,
                dir: self.data.dir.clone(),
                objective: self.objective.clone(),
            }];
        }
        let component = |(name, part): (&String, &Part)| Component {
            name: name.clone(),
            weight: part.weight,
            dir: part.dir.clone().or_else(|| self.data.dir.clone()),
            objective: laid_over(&self.objective, &part.over)
                .expect("the settings suit the objective: they were checked when they were read"),
        };
        self.mixture.iter().map(component).collect()
    }

    /// Whether the settings of every part are those of an objective.
    pub(super) fn check_parts(&self) -> Result<(), toml::de::Error> {
        let mut parts = self.mixture.values();
        parts.try_for_each(|part| laid_over(&self.objective, &part.over).map(drop))
    }

    /// Where the held-out sequences are: with the data of the run, or with a mixture's first.
    pub fn held_out(&self) -> Option<&Location> {
        let of_parts = || self.mixture.values().find_map(|part| part.dir.as_ref());
        self.data.dir.as_ref().or_else(of_parts)
    }

    /// All places with data of the run, each once; `None` where a part has none.
    pub fn data_locations(&self) -> Option<Vec<Location>> {
        let dirs = self.components().into_iter().map(|part| part.dir);
        let mut found: Vec<Location> = Vec::new();
        for dir in dirs {
            let dir = dir?;
            if !found.contains(&dir) {
                found.push(dir);
            }
        }
        Some(found)
    }
}

/// The parts of a mixture by name.
pub(super) type Parts = BTreeMap<String, Part>;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{ConfigError, Versions, resolve};
    use super::*;

    fn ankh3(set: &[&str]) -> Result<Config, ConfigError> {
        let set: Vec<String> = set.iter().map(|s| (*s).to_owned()).collect();
        resolve(Some("ankh3-large"), &set)
    }

    #[test]
    fn a_part_says_what_differs_from_the_objective() {
        let config = ankh3(&[
            "objective.masking_rate=0.3",
            "data.dir=here",
            "mixture.low.masking_rate=0.15",
            "mixture.s2s.kind=completion",
            "mixture.s2s.task=s2s",
            "mixture.s2s.weight=2",
            "mixture.s2s.dir=s3://bucket/there",
            "mixture.unmarked.task=none",
        ])
        .unwrap();
        config.validate().unwrap();
        let [low, s2s, unmarked] = &config.components()[..] else {
            panic!("three parts: {:?}", config.components())
        };
        let names = [low, s2s, unmarked].map(|part| part.name.as_str());
        assert_eq!(names, ["low", "s2s", "unmarked"]);
        let of = |part: &Component| {
            let objective = json!(part.objective);
            let [rate, task] = ["masking_rate", "task"].map(|name| objective[name].clone());
            (part.weight, rate, task)
        };
        assert_eq!(of(low), (1.0, json!(0.15), json!("nlu")));
        assert_eq!(of(unmarked), (1.0, json!(0.3), json!(null)));
        // Another kind keeps what it has too, here the mark alone.
        assert_eq!(of(s2s), (2.0, json!(null), json!("s2s")));
        assert_eq!(
            json!(s2s.objective),
            json!({ "kind": "completion", "task": "s2s", "prompt": null })
        );
        let places = ["here", "s3://bucket/there"].map(|place| Location::parse(place).unwrap());
        assert_eq!(s2s.dir.as_ref(), Some(&places[1]));
        assert_eq!(config.data_locations().unwrap(), places);
    }

    #[test]
    fn without_a_mixture_there_is_one_part() {
        let config = ankh3(&[]).unwrap();
        let components = config.components();
        assert_eq!(components.len(), 1);
        assert_eq!(components[0].objective, config.objective);
        assert_eq!(config.data_locations(), None);
    }

    #[test]
    fn a_mixture_reads_back_as_it_was() {
        let versions = Versions {
            ankh: "0.1.0".into(),
            plugin_api: "0.115".into(),
            platform: "cpu".into(),
        };
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().join("base.toml");
        let text = "extends = \"ankh3-large\"\n[mixture.all]\n[mixture.low]\nmasking_rate = 0.15\n";
        std::fs::write(&base, text).unwrap();
        let file = directory.path().join("written.toml");
        let cases: [&[&str]; 5] = [
            &[],
            &["mixture.low.weight=3", "mixture.low.task=none"],
            &[
                "mixture.other.dir=gs://bucket/other",
                "mixture.other.ngram=2",
            ],
            &[
                "objective.kind=masked_only",
                "mixture.low.kind=span_corruption",
            ],
            &["mixture.low=none"],
        ];
        for set in cases {
            let set: Vec<String> = set.iter().map(|s| (*s).to_owned()).collect();
            let config = resolve(base.to_str(), &set).unwrap();
            assert!(config.mixture.contains_key("all"), "{set:?}");
            let written = [
                config.to_toml(&versions),
                config.to_toml_over(base.to_str()).unwrap(),
            ];
            for text in written {
                std::fs::write(&file, &text).unwrap();
                let read = resolve(file.to_str(), &[]).unwrap();
                assert_eq!(read, config, "{set:?}:\n{text}");
            }
        }
    }

    #[test]
    fn a_wrong_part_names_its_setting() {
        for (argument, words) in [
            (
                "mixture.a.mask_rate=0.1",
                "did you mean `mixture.a.masking_rate`?",
            ),
            ("mixture.a.wieght=2", "did you mean `mixture.a.weight`?"),
            ("mixture.a.weight=heavy", "`mixture.a.weight` in"),
            ("mixture.a.weight=heavy", "expected a number"),
            ("mixture.a.kind=completoin", "did you mean `completion`?"),
            ("mixture.a.masking_rate=often", "expected a number"),
            ("mixture.a=3", "`mixture.a` in"),
            ("mixture=3", "`mixture` in"),
            ("mixtures.a.weight=3", "unknown setting `mixtures.a.weight`"),
            (
                "mixture.a.dir=ftp://there",
                "expected file:PATH, gs://BUCKET/KEY",
            ),
        ] {
            let error = ankh3(&[argument]).expect_err(argument).to_string();
            assert!(error.contains(words), "{argument}: {error}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_part_alone_is_said_of_it() {
        let problem = |set: &[&str]| {
            let set = [set, &["data.target_length=256"]].concat();
            let error = ankh3(&set).unwrap().validate().expect_err(set[0]);
            error.to_string()
        };
        for (argument, words) in [
            ("mixture.a.weight=0", "mixture `a` has the weight 0"),
            (
                "mixture.a.masking_rate=2",
                "mixture `a`: objective.masking_rate",
            ),
            (
                "mixture.a.kind=full_reconstruction",
                "mixture `a`: data.target_length is 256",
            ),
        ] {
            let error = problem(&[argument, "mixture.b.weight=1"]);
            assert!(error.contains(words), "{argument}: {error}");
            assert!(!error.contains("`b`"), "{argument}: {error}");
        }
        // Said once where all parts share it.
        let error = problem(&["objective.masking_rate=2", "mixture.a.weight=1"]);
        assert!(error.contains("objective.masking_rate"), "{error}");
        assert!(!error.contains("`a`"), "{error}");
    }
}
