//! The plugins that the project is tested with, and where a user's copies of them are.
//!
//! `deploy/plugins.json` pins one library for each platform by its hash. A user's copy is in a
//! directory with that hash as its name, so that programs which pin different versions use each its
//! own.

use std::env;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::platform::Platform;

/// The pins, as JSON.
pub const PINS: &str = include_str!("../../deploy/plugins.json");

/// The directory of the user's copies: `ankh/plugins` in `XDG_DATA_HOME`, or else in `.local/share`
/// of the home directory. `None` where there is neither.
pub fn user_plugins() -> Option<PathBuf> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
    let data = set("XDG_DATA_HOME").map(PathBuf::from);
    let home = || set("HOME").map(|home| Path::new(&home).join(".local/share"));
    Some(data.or_else(home)?.join("ankh/plugins"))
}

/// The library that is pinned for a platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// The package that has it, as pip names it.
    pub requirement: String,
    /// The sha256 of the library.
    pub library_sha256: String,
    /// Its file name.
    pub file: String,
}

impl Pin {
    /// That of a platform, if one is pinned.
    pub fn of(platform: Platform) -> Option<Self> {
        let pins: Value = serde_json::from_str(PINS).expect("a test reads every pin");
        let pin = pins.get(platform.to_string())?;
        let text = |name: &str| pin[name].as_str().map(str::to_owned);
        Some(Self {
            requirement: text("requirement")?,
            library_sha256: text("library_sha256")?,
            file: text("member")?.rsplit('/').next()?.to_owned(),
        })
    }

    /// Where the user's copy is, if there is one.
    pub fn place(&self) -> Option<PathBuf> {
        Some(user_plugins()?.join(&self.library_sha256).join(&self.file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pin_can_be_read() {
        let pins: Value = serde_json::from_str(PINS).unwrap();
        assert_eq!(pins.as_object().unwrap().len(), 2);
        for (platform, file) in [
            (Platform::Cpu, "pjrt_c_api_cpu_plugin.so"),
            (Platform::Tpu, "libtpu.so"),
        ] {
            let pin = Pin::of(platform).unwrap();
            assert_eq!(pin.file, file);
            assert_eq!(pin.library_sha256.len(), 64, "{pin:?}");
            assert!(pin.requirement.contains("=="), "{pin:?}");
        }
        assert_eq!(Pin::of(Platform::Cuda), None);
    }
}
