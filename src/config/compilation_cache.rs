//! Where compiled programs are kept, in one setting: `compiler.cache`.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, de};

/// Where compiled programs are kept between starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CompilationCache {
    /// In a directory of the user's, written `true`.
    #[default]
    OfUser,
    /// Nowhere, written `false`.
    Off,
    /// In this directory.
    At(PathBuf),
}

/// Says which directory is the user's; set to nothing, there is none.
const VARIABLE: &str = "ANKH_COMPILATION_CACHE";

impl CompilationCache {
    /// The directory. The user's is the environment variable `ANKH_COMPILATION_CACHE`, or else
    /// `ankh/programs` in `XDG_CACHE_HOME` or in `.cache` of the home directory. `None` where there
    /// is neither.
    pub fn directory(&self) -> Option<PathBuf> {
        let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
        match self {
            Self::OfUser => of_user(variable),
            Self::Off => None,
            Self::At(directory) => Some(directory.clone()),
        }
    }
}

fn of_user(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let is_set = |path: &PathBuf| !path.as_os_str().is_empty();
    if let Some(directory) = variable(VARIABLE) {
        return Some(directory).filter(is_set);
    }
    let set = |name: &str| variable(name).filter(is_set);
    let home = || set("HOME").map(|home| home.join(".cache"));
    Some(set("XDG_CACHE_HOME").or_else(home)?.join("ankh/programs"))
}

impl JsonSchema for CompilationCache {
    fn schema_name() -> Cow<'static, str> {
        "CompilationCache".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "oneOf": [
            { "const": true, "description": "In the user's cache: the directory that ANKH_COMPILATION_CACHE names, or else ankh/programs in XDG_CACHE_HOME or ~/.cache." },
            { "const": false, "description": "Nowhere." },
            { "type": "string", "description": "In this directory." },
        ]})
    }
}

impl Serialize for CompilationCache {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::OfUser => serializer.serialize_bool(true),
            Self::Off => serializer.serialize_bool(false),
            Self::At(directory) => directory.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for CompilationCache {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = CompilationCache;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true or false, or a directory")
            }

            fn visit_bool<E: de::Error>(self, kept: bool) -> Result<CompilationCache, E> {
                Ok(match kept {
                    true => CompilationCache::OfUser,
                    false => CompilationCache::Off,
                })
            }

            fn visit_str<E: de::Error>(self, directory: &str) -> Result<CompilationCache, E> {
                match directory {
                    "" => Err(E::invalid_value(de::Unexpected::Str(directory), &self)),
                    _ => Ok(CompilationCache::At(Path::new(directory).into())),
                }
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_is_written_as_it_is_read() {
        for (cache, text) in [
            (CompilationCache::OfUser, "true"),
            (CompilationCache::Off, "false"),
            (CompilationCache::At("/scratch".into()), "\"/scratch\""),
        ] {
            assert_eq!(serde_json::to_string(&cache).unwrap(), text);
            assert_eq!(
                serde_json::from_str::<CompilationCache>(text).unwrap(),
                cache
            );
        }
        for text in ["1", "\"\"", "null"] {
            let error = serde_json::from_str::<CompilationCache>(text).unwrap_err();
            assert!(error.to_string().contains("a directory"), "{text}: {error}");
        }
    }

    #[test]
    fn the_users_directory_is_where_the_environment_says() {
        let found = |set: &[(&str, &str)]| {
            of_user(|name| {
                let value = set.iter().find(|(n, _)| *n == name);
                value.map(|(_, value)| PathBuf::from(value))
            })
        };
        let home = ("HOME", "/home/me");
        assert_eq!(found(&[]), None);
        assert_eq!(found(&[home]), Some("/home/me/.cache/ankh/programs".into()));
        let caches = ("XDG_CACHE_HOME", "/caches");
        assert_eq!(found(&[home, caches]), Some("/caches/ankh/programs".into()));
        assert_eq!(found(&[home, (VARIABLE, "/here")]), Some("/here".into()));
        assert_eq!(found(&[home, caches, (VARIABLE, "")]), None);
    }
}
