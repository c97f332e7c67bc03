//! The page on settings is the code's: `docs/configuration.md`.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use ankh::config::reference::{Kind, Setting, kinds, part_of_mixture, sections};
use ankh::config::{Config, ConfigError, resolve};

/// What is above the tables is written by hand.
const BEGIN: &str = "<!-- settings: begin -->\n";

#[test]
fn the_page_of_settings_is_that_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let text = fs::read_to_string(&path).unwrap();
    let (by_hand, generated) = text.split_once(BEGIN).expect("the page has a mark");
    let expected = format!("\n{}", tables());
    if std::env::var_os("WRITE_GOLDENS").is_some() {
        fs::write(&path, format!("{by_hand}{BEGIN}{expected}")).unwrap();
        return;
    }
    for (number, (old, new)) in generated.lines().zip(expected.lines()).enumerate() {
        let number = number + by_hand.lines().count() + 2;
        assert_eq!(old, new, "docs/configuration.md:{number}: {AGAIN}");
    }
    assert_eq!(generated, expected, "{AGAIN}");
}

const AGAIN: &str = "write the page again with WRITE_GOLDENS=1 cargo test --test reference";

#[test]
fn every_setting_is_explained_to_people() {
    let all_kinds = ["optimizer", "objective"].into_iter().flat_map(kinds);
    let of_kinds = all_kinds.map(|kind| (kind.chosen_by, kind.settings));
    let mixture = part_of_mixture();
    let plain = sections(&Config::default()).into_iter();
    let plain = plain.chain([mixture]).map(|section| {
        assert!(
            is_sentence(&section.about),
            "{}: {:?}",
            section.name,
            section.about
        );
        (section.name, section.settings)
    });
    let mut number = 0;
    for (section, settings) in plain.chain(of_kinds) {
        for setting in settings {
            let place = format!("{section}.{}: {setting:?}", setting.name);
            assert!(is_sentence(&setting.about), "{place}");
            assert!(
                !setting.takes.is_empty() || setting.choices.len() > 1,
                "{place}"
            );
            for choice in &setting.choices {
                assert!(is_for_people(&choice.about), "{place}");
            }
            number += 1;
        }
    }
    assert!(number > 100, "{number} settings");
}

#[test]
fn every_setting_of_the_page_can_be_set() {
    let plain = sections(&Config::default()).into_iter();
    let plain = plain.chain([part_of_mixture()]);
    let plain = plain.map(|section| (section.name, None, section.settings));
    let of_kinds = ["optimizer", "objective"].into_iter().flat_map(|section| {
        let of_kind = move |kind: Kind| {
            let chosen = format!("{section}.{}", kind.chosen_by);
            (section.to_owned(), Some(chosen), kind.settings)
        };
        kinds(section).into_iter().map(of_kind)
    });
    for (section, kind, settings) in plain.chain(of_kinds) {
        for Setting {
            name,
            default,
            example,
            ..
        } in settings
        {
            let value = default.unwrap_or(example);
            let set = format!("{section}.{name}={value}");
            let arguments: Vec<String> = kind.clone().into_iter().chain([set]).collect();
            match resolve(None, &arguments) {
                // An address or a place cannot be empty.
                Ok(_) | Err(ConfigError::WrongValue { .. }) => {}
                Err(error) => panic!("{arguments:?}: {error}"),
            }
        }
    }
}

fn is_sentence(text: &str) -> bool {
    text.starts_with(|c: char| c.is_uppercase() || c == '`') && is_for_people(text)
}

/// Without links into the code.
fn is_for_people(text: &str) -> bool {
    text.ends_with('.') && !text.contains("[`") && !text.contains("::")
}

fn tables() -> String {
    let mut page = String::new();
    for section in sections(&Config::default()) {
        let kinds = kinds(&section.name);
        let about = &section.about;
        match section.name.as_str() {
            "mixture" => {
                let part = part_of_mixture();
                heading(&mut page, "mixture.NAME", about);
                table(&mut page, "mixture.NAME", &part.settings);
                page += "\nAny setting of `[objective]` may stand here too. One that is left out \
                         is that of\n`[objective]`.\n";
            }
            name if kinds.is_empty() => {
                heading(&mut page, name, about);
                table(&mut page, name, &section.settings);
            }
            name => {
                heading(&mut page, name, about);
                table(&mut page, name, &section.settings[..1]);
                for kind in kinds {
                    // Writing to a string cannot fail.
                    let _ = writeln!(page, "\n### With `{}`\n{}\n", kind.chosen_by, kind.about);
                    table(&mut page, name, &kind.settings);
                }
            }
        }
    }
    page
}

fn heading(page: &mut String, name: &str, about: &str) {
    if !page.is_empty() {
        page.push('\n');
    }
    let _ = writeln!(page, "## {name}\n{}\n", wrapped(about));
}

fn table(page: &mut String, section: &str, settings: &[Setting]) {
    *page += "| setting | takes | default | meaning |\n|---|---|---|---|\n";
    for setting in settings {
        let Setting {
            name,
            about,
            takes,
            choices,
            default,
            ..
        } = setting;
        let takes = match takes.as_str() {
            "" => "one of these",
            takes => takes,
        };
        let default = default
            .as_ref()
            .map_or("not set".into(), |default| format!("`{default}`"));
        let choices = choices.iter().map(|choice| {
            let value = match choice.value.starts_with("a ") {
                true => choice.value.clone(),
                false => format!("`{}`", choice.value),
            };
            format!("<br>{value}: {}", choice.about)
        });
        let meaning = format!("{about}{}", choices.collect::<String>());
        // A line of a table is one row.
        let cells = [takes, &default, &meaning].map(|cell| cell.replace('|', "\\|"));
        let _ = writeln!(page, "| `{section}.{name}` | {} |", cells.join(" | "));
    }
}

/// In lines of at most 100 columns.
fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().unwrap();
        match line.is_empty() {
            true => *line += word,
            false if line.chars().count() + 1 + word.chars().count() > 100 => {
                lines.push(word.into())
            }
            false => *line += &format!(" {word}"),
        }
    }
    lines.join("\n")
}
