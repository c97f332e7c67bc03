//! The paths of a configuration, made absolute.
//!
//! Paths are relative to the directory where the program was started. A run directory outlives
//! that: a run that resumes from elsewhere must find the same data, so a run records absolute
//! paths.

use std::path::{Path, PathBuf};

use ankh_storage::Location;

use super::{CompilationCache, Config, ConfigError};

impl Config {
    /// Takes each relative path from the present working directory. Links are left as they are, and
    /// so are URLs.
    pub fn make_paths_absolute(&mut self) -> Result<(), ConfigError> {
        if let Some(dir) = &mut self.data.dir {
            place(dir, "data.dir")?;
        }
        if let Some(weights) = &mut self.train.initialize_from {
            place(weights, "train.initialize_from")?;
        }
        if let Some(directory) = &mut self.checkpoint.directory {
            place(directory, "checkpoint.directory")?;
        }
        if let Some(cache) = &mut self.data.cache {
            *cache = path(cache, "data.cache")?;
        }
        let local = &mut self.checkpoint.local_directory;
        *local = path(local, "checkpoint.local_directory")?;
        if let CompilationCache::At(cache) = &mut self.compiler.cache {
            *cache = path(cache, "compiler.cache")?;
        }
        for (name, part) in &mut self.mixture {
            if let Some(dir) = &mut part.dir {
                place(dir, &format!("mixture.{name}.dir"))?;
            }
        }
        Ok(())
    }
}

fn place(location: &mut Location, key: &str) -> Result<(), ConfigError> {
    if let Some(local) = location.local() {
        *location = path(local, key)?.into();
    }
    Ok(())
}

fn path(found: &Path, key: &str) -> Result<PathBuf, ConfigError> {
    let absolute = std::path::absolute(found).map_err(|source| ConfigError::NoPlace {
        key: key.to_owned(),
        path: found.to_owned(),
        source,
    })?;
    match absolute.to_str() {
        Some(_) => Ok(absolute),
        None => Err(ConfigError::NotUnicode {
            key: key.to_owned(),
            path: absolute,
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    use super::super::{Versions, resolve};
    use super::*;

    #[test]
    fn every_path_is_written_from_the_root() {
        let set = [
            "data.dir=data/set",
            "data.cache=../cache",
            "compiler.cache=programs",
            "checkpoint.directory=saved",
            "train.initialize_from=weights",
            "checkpoint.local_directory=memory",
            "mixture.near.dir=./near",
            "mixture.far.dir=s3://bucket/far",
            "mixture.same.weight=2",
        ];
        let set: Vec<String> = set.iter().map(|s| (*s).to_owned()).collect();
        let mut config = resolve(Some("tiny"), &set).unwrap();
        config.make_paths_absolute().unwrap();
        let here = std::env::current_dir().unwrap();
        let local = |location: &Option<Location>| {
            let location = location.as_ref().unwrap();
            location.local().map(Path::to_owned)
        };
        assert_eq!(local(&config.data.dir), Some(here.join("data/set")));
        assert_eq!(
            local(&config.checkpoint.directory),
            Some(here.join("saved"))
        );
        assert_eq!(
            local(&config.train.initialize_from),
            Some(here.join("weights"))
        );
        assert_eq!(config.checkpoint.local_directory, here.join("memory"));
        assert_eq!(config.data.cache, Some(here.join("../cache")));
        assert_eq!(
            config.compiler.cache,
            CompilationCache::At(here.join("programs"))
        );
        assert_eq!(local(&config.mixture["near"].dir), Some(here.join("near")));
        let far = config.mixture["far"].dir.as_ref().unwrap();
        assert_eq!(far.to_string(), "s3://bucket/far");
        assert_eq!(config.mixture["same"].dir, None);

        // No relative path is left in what a run records, whatever settings there will be.
        let text = config.to_toml(&Versions {
            ankh: String::new(),
            plugin_api: String::new(),
            platform: String::new(),
        });
        for part in ["data/set", "../cache", "near\""] {
            let line = text.lines().find(|line| line.contains(part)).unwrap();
            assert!(line.contains("= \"/"), "{line}");
        }

        let once = config.clone();
        config.make_paths_absolute().unwrap();
        assert_eq!(config, once);
    }

    #[test]
    fn a_path_that_cannot_be_recorded_is_refused() {
        let odd = Path::new(OsStr::from_bytes(b"/data/\xff"));
        let mut config = Config::default();
        config.data.cache = Some(odd.to_owned());
        let error = config.make_paths_absolute().unwrap_err().to_string();
        assert!(
            error.contains("data.cache") && error.contains("UTF-8"),
            "{error}"
        );
        config.data.cache = None;
        config.data.dir = Some(odd.into());
        let error = config.make_paths_absolute().unwrap_err().to_string();
        assert!(error.contains("data.dir"), "{error}");
    }
}
