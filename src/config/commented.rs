//! A configuration as a file to begin from: every setting with its value, and above it what it
//! means, which values it takes and which it has by default.

use std::fmt::Write as _;

use super::Config;
use super::reference::{MIXTURE, Section, Setting, sections};

/// The most columns of a comment.
const WIDTH: usize = 100;

impl Config {
    /// The configuration as a file that [`super::resolve`] reads back, with comments for whoever
    /// edits it. `base` is the preset that it was made from.
    pub fn to_commented_toml(&self, base: &str) -> String {
        let mut text = String::new();
        comment(
            &mut text,
            &format!(
                "A configuration for `pretrain --config FILE`: every setting of the preset {base}. \
                 A setting behind a # is not set; take the # away to set it. What is left out has \
                 its default."
            ),
        );
        for section in sections(self) {
            text.push('\n');
            write_section(&mut text, &section);
        }
        text
    }
}

fn write_section(text: &mut String, section: &Section) {
    comment(text, &section.about);
    if section.name == MIXTURE {
        let example = "For each, a table such as [mixture.NAME], with its `weight`, its `dir` if \
                       its data is another, and the settings of [objective] that are others there.";
        return comment(text, example);
    }
    line(text, &format!("[{}]", section.name));
    for (number, setting) in section.settings.iter().enumerate() {
        if number > 0 {
            text.push('\n');
        }
        write_setting(text, setting);
    }
}

fn write_setting(text: &mut String, setting: &Setting) {
    comment(text, &setting.about);
    let width = setting
        .choices
        .iter()
        .map(|choice| choice.value.len())
        .max();
    for choice in &setting.choices {
        let value = format!("  {:width$}  ", choice.value, width = width.unwrap_or(0));
        wrapped(text, &value, &choice.about);
    }
    let default = match &setting.default {
        Some(default) => format!("the default is {default}"),
        None => "not set by default".to_owned(),
    };
    comment(
        text,
        &match setting.takes.as_str() {
            "" => capitalised(&format!("{default}.")),
            takes => capitalised(&format!("{takes}; {default}.")),
        },
    );
    line(
        text,
        &match &setting.value {
            Some(value) => format!("{} = {value}", setting.name),
            None => format!("# {} = {}", setting.name, setting.example),
        },
    );
}

fn comment(text: &mut String, words: &str) {
    wrapped(text, "", words);
}

/// Writes a comment whose first line begins with `head`, and the others below its end.
fn wrapped(text: &mut String, head: &str, words: &str) {
    let indent = " ".repeat(head.chars().count());
    let mut current = format!("# {head}");
    let mut is_empty = true;
    for word in words.split_whitespace() {
        let space = usize::from(!is_empty);
        if !is_empty && current.chars().count() + space + word.chars().count() > WIDTH {
            line(text, &current);
            current = format!("# {indent}");
            is_empty = true;
        }
        if !is_empty {
            current.push(' ');
        }
        current.push_str(word);
        is_empty = false;
    }
    line(text, &current);
}

fn line(text: &mut String, line: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{}", line.trim_end());
}

fn capitalised(words: &str) -> String {
    let mut letters = words.chars();
    match letters.next() {
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::{preset_names, resolve};
    use super::*;

    #[test]
    fn every_preset_written_with_comments_is_read_back_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("mine.toml");
        for name in preset_names() {
            let config = resolve(Some(name), &[]).unwrap();
            let text = config.to_commented_toml(name);
            fs::write(&file, &text).unwrap();
            let read = resolve(file.to_str(), &[]);
            let read = read.unwrap_or_else(|error| panic!("{name}: {error}\n{text}"));
            assert_eq!(read, config, "{name}:\n{text}");
        }
    }

    #[test]
    fn each_setting_is_written_once_with_what_it_means_and_its_default() {
        let set = ["data.cache=/local".into(), "mixture.a.task=nlu".into()];
        let config = resolve(Some("ankh3-large"), &set).unwrap();
        let text = config.to_commented_toml("ankh3-large");
        for (lines, why) in [
            (
                "# What becomes of a sequence that does not fit `input_length`.\n\
                 #   \"crop\"      A random window, drawn anew every epoch.\n\
                 #   \"truncate\"  The beginning.\n\
                 #   \"split\"     Pieces of nearly equal length, each an example of its own.\n\
                 # The default is \"crop\".\n\
                 long_sequences = \"crop\"\n",
                "a setting with choices",
            ),
            (
                "\n# A string; not set by default.\ncache = \"/local\"\n",
                "a setting that has a value",
            ),
            (
                "\n# A string; not set by default.\n# dir = \"\"\n",
                "a setting without a value",
            ),
            ("\n[sharding.rules]\n", "a section in a section"),
            ("\n[mixture.a]\n", "a part of a mixture"),
            ("kind = \"partial_demasking\"\n", "the kind of an objective"),
        ] {
            assert!(text.contains(lines), "{why}: {lines}\n{text}");
        }
        assert_eq!(text.matches("\nmasking_rate = ").count(), 1, "{text}");
        assert!(
            text.lines().all(|line| line.chars().count() <= WIDTH),
            "{text}"
        );
    }

    /// Without the `#`, what is not set is set, to a value of the right type.
    #[test]
    fn a_setting_without_a_value_becomes_one_without_its_mark() {
        let optional = Config::default().to_commented_toml("ankh-base");
        let names = optional.lines().filter_map(|line| line.strip_prefix("# "));
        let mut names = names
            .filter(|line| line.contains(" = "))
            .collect::<Vec<_>>();
        names.sort_unstable();
        let left: Vec<&str> = names
            .iter()
            .filter_map(|line| line.split(' ').next())
            .collect();
        assert_eq!(
            left,
            [
                "address",
                "cache",
                "clip_norm",
                "dir",
                "directory",
                "initialize_from",
                "profile_steps",
                "prometheus_listen",
                "steps",
                "task"
            ]
        );
        for (section, line) in [
            ("optimizer", "clip_norm = 0.0"),
            ("objective", "task = \"nlu\""),
        ] {
            assert!(names.contains(&line), "{section}: {names:?}");
        }
    }
}
