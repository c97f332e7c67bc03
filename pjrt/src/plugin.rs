//! Plugins: shared libraries that compile and run programs.

use std::collections::HashMap;
use std::fmt;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use libloading::{Library, Symbol};

use crate::api::Api;
use crate::error::{Error, Result};
use crate::named_value::NamedValue;
use crate::platform::Platform;
use crate::search;
use crate::{binary, sys};

/// The plugins of this process by canonical path. A plugin stays loaded, since its threads never
/// end, and must be initialized once.
static LOADED: LazyLock<Mutex<HashMap<PathBuf, Plugin>>> = LazyLock::new(Mutex::default);

/// A loaded plugin. Clones are the same plugin.
#[derive(Clone)]
pub struct Plugin {
    api: Arc<Api>,
}

impl Plugin {
    /// Finds and loads the plugin of a platform: from the path given, else the one that the
    /// variable `ANKH_PJRT_PLUGIN` names, else `plugins/<platform>/*.so` in the working directory
    /// or one above it or above the running program, else the user's copy of the pinned one
    /// ([`crate::Pin::place`]), else (TPU) where libtpu is installed.
    pub fn find(platform: Platform, explicit: Option<&Path>) -> Result<Self> {
        Self::load(search::find(platform, explicit)?)
    }

    /// Where [`Plugin::find`] would load a platform's plugin from; nothing is loaded.
    pub fn locate(platform: Platform) -> Result<PathBuf> {
        let path = search::find(platform, None)?;
        if !path.is_file() {
            let reason = "there is no such file".into();
            return Err(Error::UnreadablePlugin { path, reason });
        }
        Ok(path)
    }

    /// Loads a plugin's library, once per process.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let canonical = path
            .canonicalize()
            .map_err(|error| Error::UnreadablePlugin {
                path: path.to_owned(),
                reason: error.to_string(),
            })?;
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(plugin) = loaded.get(&canonical) {
            return Ok(plugin.clone());
        }
        let plugin = Self::load_new(&canonical)?;
        loaded.insert(canonical, plugin.clone());
        Ok(plugin)
    }

    fn load_new(path: &Path) -> Result<Self> {
        binary::check(path)?;
        let not_a_plugin = |error: libloading::Error| Error::NotAPlugin {
            path: path.to_owned(),
            reason: chain(&error),
        };
        // SAFETY: loading runs the library's initializers. That the library is a plugin, whose
        // initializers are sound, is what the user says by naming it.
        let library = unsafe { Library::new(path) }.map_err(not_a_plugin)?;
        // SAFETY: every PJRT plugin exports this function with this signature.
        let table = unsafe {
            let entry: Symbol<unsafe extern "C" fn() -> *const sys::ApiHeader> =
                library.get(b"GetPjrtApi\0").map_err(not_a_plugin)?;
            entry()
        };
        // The table and the threads behind it must outlive every handle: the library is never
        // unloaded.
        mem::forget(library);
        // SAFETY: `GetPjrtApi` gives null or a static table of the library, which stays loaded.
        let api = unsafe { Api::new(table, path.to_owned()) }?;
        // SAFETY: there are no pointers among the arguments.
        unsafe { api.call(&mut sys::PluginInitializeArgs::default()) }?;
        Ok(Self { api: Arc::new(api) })
    }

    /// The library's path.
    pub fn path(&self) -> &Path {
        self.api.path()
    }

    /// The version of the C API that the plugin was built with, major and minor.
    pub fn api_version(&self) -> (i32, i32) {
        self.api.version()
    }

    /// What the plugin says of itself, such as its XLA version.
    pub fn attributes(&self) -> Result<Vec<NamedValue>> {
        let mut arguments = sys::PluginAttributesArgs::default();
        // SAFETY: there are no input pointers; the attributes live as long as the process.
        unsafe {
            self.api.call(&mut arguments)?;
            NamedValue::copy(arguments.attributes, arguments.num_attributes)
        }
    }

    pub(crate) fn api(&self) -> &Api {
        &self.api
    }

    /// A plugin made up by a test.
    #[cfg(test)]
    pub(crate) fn of(api: Api) -> Self {
        Self { api: Arc::new(api) }
    }
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor) = self.api_version();
        write!(f, "Plugin({}, {major}.{minor})", self.path().display())
    }
}

/// The message of an error with those of its sources, since the dynamic loader's own message is a
/// source.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let message = error.to_string();
        if !text.contains(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        source = error.source();
    }
    text
}
