//! The files under `configs/`, part of the program so that the binary alone can train.

/// Each preset: its name and its text.
macro_rules! presets {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../configs/", $name, ".toml")))),*]
    };
}

const PRESETS: &[(&str, &str)] = presets![
    "ankh-base",
    "ankh-base-packed",
    "ankh-large",
    "ankh-large-packed",
    "ankh2-large",
    "ankh3-large",
    "ankh3-xl",
    "demo",
    "small",
    "tiny",
    "experiments/00",
    "experiments/01",
    "experiments/02",
    "experiments/03",
    "experiments/04",
    "experiments/05",
    "experiments/06",
    "experiments/07",
    "experiments/08",
    "experiments/09",
    "experiments/10",
    "experiments/11",
    "experiments/12",
    "experiments/13",
    "experiments/14",
    "experiments/15",
    "experiments/16",
    "experiments/17",
    "experiments/18",
    "experiments/19",
    "experiments/20",
    "experiments/21",
    "experiments/22",
    "experiments/23",
    "experiments/mixture",
];

/// The names `--config` and `extends` accept beside files.
pub fn preset_names() -> impl Iterator<Item = &'static str> {
    PRESETS.iter().map(|(name, _)| *name)
}

pub(super) fn preset(name: &str) -> Option<&'static str> {
    PRESETS
        .iter()
        .find(|(preset, _)| *preset == name)
        .map(|(_, text)| *text)
}
