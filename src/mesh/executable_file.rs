//! Compiled programs in files: `pretrain plan --output` writes one, and training loads it instead
//! of compiling.
//!
//! A file starts with `MAGIC`, the length of its header (u32, little-endian) and the header as
//! JSON; the plugin's serialized executable follows. The header records what was compiled, with
//! which flags and plugin, and for which devices. A plugin trusts the bytes that it is given, so a
//! file whose header differs from the run in any point is refused.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ankh_hlo::Module;
use ankh_pjrt::Plugin;
use ankh_storage::atomic;
use prost::Message;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::slice::Slice;
use crate::mesh_shape::MeshShape;

/// How a file of a compiled program starts.
const MAGIC: &[u8] = b"ankh executable 1\n";

/// What a program is compiled from and for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The program's name.
    pub name: String,
    /// SHA-256 of the program, without its source locations.
    pub program: String,
    /// The compiler's flags.
    pub flags: Vec<String>,
    /// The plugin: its API and SHA-256 of its file.
    pub plugin: String,
    /// The slice.
    pub slice: String,
    /// The mesh over its devices.
    pub mesh: String,
    /// The devices' ids in the order of the mesh.
    pub devices: Vec<i32>,
}

/// The header of a file.
#[derive(Serialize, Deserialize)]
struct Header {
    #[serde(flatten)]
    identity: Identity,
    /// SHA-256 of the plugin's bytes.
    payload: String,
}

/// Why a compiled program cannot be used.
#[allow(missing_docs)]
#[derive(Debug, thiserror::Error)]
pub enum ExecutableFileError {
    /// The file cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// `read` or `write`.
        action: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    /// The file is not a compiled program, or damaged.
    #[error("{} is no compiled program: {reason}", path.display())]
    NotOne { path: PathBuf, reason: String },
    /// The CPU plugin does not keep all of a program for several devices.
    #[error(
        "the CPU plugin does not keep the order of a program's collectives in a file, so that one for several devices could hang"
    )]
    SeveralCpuDevices,
    /// It was compiled from or for something else.
    #[error("{} was compiled {what} {saved}, and this run has {now}", path.display())]
    Other {
        path: PathBuf,
        what: &'static str,
        saved: String,
        now: String,
    },
}

impl Identity {
    /// The identity of `module` compiled by `plugin` for a mesh over a slice.
    pub fn of(
        module: &Module,
        plugin: &Plugin,
        flags: &[String],
        slice: Slice,
        mesh: MeshShape,
        devices: &[i32],
    ) -> Result<Identity, ExecutableFileError> {
        Ok(Identity {
            name: module.proto().name.clone(),
            program: program_digest(module),
            flags: flags.to_vec(),
            plugin: version(plugin)?,
            slice: slice.to_string(),
            mesh: mesh.to_string(),
            devices: devices.to_vec(),
        })
    }

    /// Fails if this, read from a file, differs from what a run has.
    fn agrees(&self, now: &Identity, path: &Path) -> Result<(), ExecutableFileError> {
        let flags = |flags: &[String]| match flags {
            [] => "no flags".into(),
            flags => flags.join(" "),
        };
        let devices = |ids: &[i32]| format!("devices {ids:?}");
        let compared = [
            ("for", self.slice.clone(), now.slice.clone()),
            ("for the mesh", self.mesh.clone(), now.mesh.clone()),
            ("for", devices(&self.devices), devices(&now.devices)),
            ("by the plugin", self.plugin.clone(), now.plugin.clone()),
            ("with", flags(&self.flags), flags(&now.flags)),
            ("from the program", self.name.clone(), now.name.clone()),
            (
                "from the program",
                self.program.clone(),
                now.program.clone(),
            ),
        ];
        match compared.into_iter().find(|(_, saved, now)| saved != now) {
            None => Ok(()),
            Some((what, saved, now)) => Err(ExecutableFileError::Other {
                path: path.to_owned(),
                what,
                saved,
                now,
            }),
        }
    }
}

/// What identifies a plugin: its API version and the SHA-256 of its file.
pub fn version(plugin: &Plugin) -> Result<String, ExecutableFileError> {
    let (major, minor) = plugin.api_version();
    Ok(format!(
        "API {major}.{minor}, {}",
        file_digest(plugin.path())?
    ))
}

/// SHA-256 of a plugin's or a program's file, which is some hundred megabytes and read once in a
/// process: what was loaded stays what it was then.
pub fn file_digest(file: &Path) -> Result<String, ExecutableFileError> {
    static KNOWN: Mutex<BTreeMap<PathBuf, String>> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(digest) = known.get(file) {
        return Ok(digest.clone());
    }
    let library = fs::read(file).map_err(|source| ExecutableFileError::File {
        action: "read",
        path: file.to_owned(),
        source,
    })?;
    let digest = digest(&library);
    known.insert(file.to_owned(), digest.clone());
    Ok(digest)
}

/// SHA-256 of a program, without its source locations.
pub fn program_digest(module: &Module) -> String {
    let mut proto = module.proto().clone();
    for computation in &mut proto.computations {
        for instruction in &mut computation.instructions {
            instruction.metadata = None;
        }
    }
    digest(&proto.encode_to_vec())
}

fn digest(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    ankh_storage::hex(&hash)
}

/// Writes a compiled program, whole or not at all.
pub fn save(path: &Path, identity: &Identity, payload: &[u8]) -> Result<(), ExecutableFileError> {
    let failed = |source| ExecutableFileError::File {
        action: "write",
        path: path.to_owned(),
        source,
    };
    let header = Header {
        identity: identity.clone(),
        payload: digest(payload),
    };
    let header = serde_json::to_vec(&header).map_err(|error| failed(error.into()))?;
    let length = u32::try_from(header.len()).map_err(|e| failed(std::io::Error::other(e)))?;
    let written = atomic::replace_file_with(path, |file| {
        file.write_all(MAGIC)?;
        file.write_all(&length.to_le_bytes())?;
        file.write_all(&header)?;
        file.write_all(payload)
    });
    written.map_err(failed)
}

/// Reads a compiled program for a run that has `now`.
pub fn load(path: &Path, now: &Identity) -> Result<Vec<u8>, ExecutableFileError> {
    let (saved, payload) = read(path)?;
    saved.agrees(now, path)?;
    Ok(payload)
}

/// The identity that a file records, and the plugin's bytes.
pub fn read(path: &Path) -> Result<(Identity, Vec<u8>), ExecutableFileError> {
    let bytes = fs::read(path).map_err(|source| ExecutableFileError::File {
        action: "read",
        path: path.to_owned(),
        source,
    })?;
    let not_one = |reason: &str| ExecutableFileError::NotOne {
        path: path.to_owned(),
        reason: reason.into(),
    };
    let rest = bytes.strip_prefix(MAGIC);
    let rest = rest.ok_or_else(|| not_one("it does not begin as one"))?;
    let (length, rest) = rest
        .split_first_chunk::<4>()
        .ok_or_else(|| not_one("it ends early"))?;
    let length = u32::from_le_bytes(*length) as usize;
    let (header, payload) = rest
        .split_at_checked(length)
        .ok_or_else(|| not_one("it ends early"))?;
    let header: Header =
        serde_json::from_slice(header).map_err(|error| not_one(&format!("its header: {error}")))?;
    if header.payload != digest(payload) {
        return Err(not_one(
            "its content has another checksum than its header says",
        ));
    }
    Ok((header.identity, payload.to_vec()))
}
