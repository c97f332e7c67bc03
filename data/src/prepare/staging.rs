//! The staging directory of a preparation: finished files, progress files and temporary files.
//!
//! A file is written as a temporary file and renamed when it is complete; its progress file is
//! written after it. So at any interruption the progress files are true, and what they do not
//! mention is made again. There are two forms. Beside the output: the data appears whole or not at
//! all. Inside the output: several machines work on their parts at once, and the manifest, written
//! last, makes it a data set. `docs/design/prepare.md` has the argument.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use ankh_storage::{Location, Storage, StorageOptions, atomic};
use serde::de::DeserializeOwned;
use tempfile::TempDir;

use super::collect::{Complete, is_chunk_file};
use super::groups::Closed;
use super::input::Meter;
use super::progress::{ChunkProgress, PREPARATION, PartProgress, Preparation, chunk_file, to_json};
use super::{Existing, Unfinished};
use crate::error::{Error, Result};
use crate::format::{FORMAT, FileInfo, MANIFEST, Manifest, PROGRESS_DIR, PartChecksums};

/// Whoever holds it works here; others are refused.
const LOCK: &str = "lock";

/// A place to prepare in.
pub(super) struct StagingDir {
    location: Location,
    data: Storage,
    progress: Storage,
    scratch: Scratch,
    preparation: String,
    form: Form,
    /// Released by the system when the process ends, however it ends.
    _lock: Option<File>,
}

enum Form {
    /// In a directory beside the target, which takes its place in the end.
    Beside {
        target: PathBuf,
        directory: PathBuf,
        existing: Existing,
    },
    /// In the output.
    Within,
}

/// Room for files in the making, empty at the beginning.
enum Scratch {
    Fixed(PathBuf),
    Temporary(TempDir),
}

impl Scratch {
    fn path(&self) -> &Path {
        match self {
            Scratch::Fixed(path) => path,
            Scratch::Temporary(directory) => directory.path(),
        }
    }

    fn temporary() -> Result<Scratch> {
        let directory = tempfile::Builder::new().prefix("ankh-prepare-").tempdir();
        let directory =
            directory.map_err(Error::io("create a directory in", &std::env::temp_dir()))?;
        Ok(Scratch::Temporary(directory))
    }

    fn fixed(path: PathBuf) -> Result<Scratch> {
        remove(&path)?;
        fs::create_dir_all(&path).map_err(Error::io("create", &path))?;
        Ok(Scratch::Fixed(path))
    }
}

impl StagingDir {
    /// A staging directory beside a local directory, which is checked before any work is done.
    pub(super) fn beside(
        target: &Path,
        preparation: &Preparation,
        existing: Existing,
        unfinished: Unfinished,
    ) -> Result<StagingDir> {
        if replaceable(target)? && existing == Existing::Keep {
            return Err(Error::AlreadyPrepared {
                path: target.to_path_buf(),
                rows: Manifest::read(&Storage::local(target)).map_or(0, |manifest| manifest.rows),
            });
        }
        let target = std::path::absolute(target).map_err(Error::io("create", target))?;
        let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
            return Err(Error::ForeignOutput { path: target });
        };
        let directory = parent.join(format!(".{}.preparing", name.to_string_lossy()));
        fs::create_dir_all(&directory).map_err(Error::io("create", &directory))?;
        let lock = lock(&directory.join(LOCK))?;
        let data = directory.join("data");
        let location = Location::from(directory.as_path());
        let options = StorageOptions::default();
        let progress = Storage::open(&location, &options)?;
        let begun = begun(&location, &progress, preparation, unfinished)?;
        if !begun {
            // The description last: until it is there, nothing here counts.
            remove(&data)?;
            for entry in progress.list("")?.iter().filter(|entry| entry.name != LOCK) {
                progress.delete(&entry.name)?;
            }
            progress.write(PREPARATION, &to_json(PREPARATION, preparation)?)?;
        }
        fs::create_dir_all(&data).map_err(Error::io("create", &data))?;
        Ok(StagingDir {
            data: Storage::open(&Location::from(data.as_path()), &options)?,
            progress,
            scratch: Scratch::fixed(directory.join("scratch"))?,
            location,
            preparation: preparation.digest()?,
            form: Form::Beside {
                target,
                directory,
                existing,
            },
            _lock: Some(lock),
        })
    }

    /// A staging directory in the output itself. `label` tells apart those who work here at the
    /// same time.
    pub(super) fn within(
        output: &Location,
        preparation: &Preparation,
        label: &str,
        unfinished: Unfinished,
        options: &StorageOptions,
    ) -> Result<StagingDir> {
        let data = Storage::open(output, options)?;
        let progress = Storage::open(&output.join(PROGRESS_DIR), options)?;
        if exists(&data, MANIFEST)? {
            return Err(Error::AlreadyInPlace {
                location: output.to_string(),
            });
        }
        let preparation = preparation.without_times();
        let begun = begun(output, &progress, &preparation, unfinished)?;
        if !begun {
            match unfinished {
                Unfinished::Continue => refuse_other(output, &data)?,
                Unfinished::Discard => {
                    progress.delete(PREPARATION)?;
                    remove_progress(output, &progress)?;
                    for entry in data.list("")?.iter().filter(|e| is_chunk_file(&e.name)) {
                        data.delete(&entry.name)?;
                    }
                }
            }
        }
        let (scratch, lock) = match output.local() {
            None => (Scratch::temporary()?, None),
            Some(path) => {
                let directory = path.join(PROGRESS_DIR);
                fs::create_dir_all(&directory).map_err(Error::io("create", &directory))?;
                let lock = lock(&directory.join(format!("{label}.{LOCK}")))?;
                let scratch = Scratch::fixed(directory.join(format!("scratch-{label}")))?;
                (scratch, Some(lock))
            }
        };
        if !begun {
            progress.write(PREPARATION, &to_json(PREPARATION, &preparation)?)?;
        }
        Ok(StagingDir {
            location: output.clone(),
            data,
            progress,
            scratch,
            preparation: preparation.digest()?,
            form: Form::Within,
            _lock: lock,
        })
    }

    /// A local directory for files in the making.
    pub(super) fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    /// The chunks that are done, and whose files are there.
    pub(super) fn finished(&self) -> Result<BTreeMap<u64, ChunkProgress>> {
        finished(&self.data, &self.progress, &self.preparation)
    }

    /// Gives the files of a chunk their place, and records that it is done.
    pub(super) fn keep(&self, complete: Complete) -> Result<ChunkProgress> {
        let mut files = Vec::new();
        for Closed {
            path,
            name,
            split,
            total,
        } in complete.files
        {
            let (bytes, sha256) = measure(&path)?;
            let checksums = PartChecksums::of(&path)?;
            self.data.upload(&name, &path)?;
            fs::remove_file(&path).map_err(Error::io("remove", &path))?;
            files.push(FileInfo {
                path: name,
                split,
                rows: total.rows,
                residues: total.residues,
                bytes,
                sha256,
                checksums,
            });
        }
        let done = ChunkProgress {
            preparation: self.preparation.clone(),
            chunk: complete.chunk,
            files,
            report: complete.report,
        };
        let name = chunk_file(done.chunk);
        self.progress.write(&name, &to_json(&name, &done)?)?;
        Ok(done)
    }

    /// Records that a part is done.
    pub(super) fn end_part(&self, done: PartProgress) -> Result<()> {
        let name = done.name();
        let preparation = self.preparation.clone();
        let done = PartProgress {
            preparation,
            ..done
        };
        Ok(self.progress.write(&name, &to_json(&name, &done)?)?)
    }

    /// Writes the manifest, and puts the data where it belongs.
    pub(super) fn commit(self, manifest: &Manifest) -> Result<()> {
        // Nobody else writes here any more.
        self.data.sweep()?;
        self.data.write(MANIFEST, &to_json(MANIFEST, manifest)?)?;
        match &self.form {
            Form::Within => remove_progress(&self.location, &self.progress),
            Form::Beside {
                target,
                directory,
                existing,
            } => {
                // Looked at again: much may have happened since the work began.
                if replaceable(target)? {
                    if *existing == Existing::Keep {
                        return Err(Error::AlreadyPrepared {
                            path: target.clone(),
                            rows: Manifest::read(&Storage::local(target))
                                .map_or(0, |manifest| manifest.rows),
                        });
                    }
                    let aside = directory.join("replaced");
                    remove(&aside)?;
                    atomic::rename(target, &aside).map_err(Error::io("replace", target))?;
                }
                atomic::rename(&directory.join("data"), target)
                    .map_err(Error::io("create", target))?;
                remove(directory)
            }
        }
    }

    /// Ends without result. What is finished stays for another try; without that, nothing stays.
    pub(super) fn abandon(self, error: &Error) {
        let useless = matches!(error, Error::NoUsableRecords { .. });
        let finished = self.progress.list("chunk-").map(|chunks| chunks.len());
        if useless || finished.is_ok_and(|chunks| chunks == 0) {
            self.discard();
        }
    }

    /// Ends without result, and leaves nothing beside the output.
    pub(super) fn discard(self) {
        if let Form::Beside { directory, .. } = &self.form {
            // The error that brought us here is the one to tell.
            let _ = remove(directory);
        }
    }
}

/// Whether this preparation was begun here; an error if it was another.
fn begun(
    location: &Location,
    progress: &Storage,
    preparation: &Preparation,
    unfinished: Unfinished,
) -> Result<bool> {
    if unfinished == Unfinished::Discard {
        return Ok(false);
    }
    let Some(begun) = read_progress::<Preparation>(progress, PREPARATION)? else {
        return Ok(false);
    };
    let differences = preparation.differences(&begun);
    if differences.is_empty() {
        return Ok(true);
    }
    Err(Error::OtherPreparation {
        location: location.to_string(),
        differences: differences.join("; "),
    })
}

/// What a progress file says; nothing where there is none.
pub(super) fn read_progress<T: DeserializeOwned>(
    progress: &Storage,
    name: &str,
) -> Result<Option<T>> {
    let text = match progress.read(name) {
        Err(error) if error.is_missing() => return Ok(None),
        text => text?,
    };
    let done = serde_json::from_slice(&text).map_err(|error| Error::Progress {
        location: progress.location(name).to_string(),
        reason: error.to_string(),
    })?;
    Ok(Some(done))
}

pub(super) fn exists(storage: &Storage, name: &str) -> Result<bool> {
    match storage.size(name) {
        Err(error) if error.is_missing() => Ok(false),
        size => Ok(size.map(|_| true)?),
    }
}

/// The chunks of a preparation that are done, and whose files are there with the right size.
pub(super) fn finished(
    data: &Storage,
    progress: &Storage,
    preparation: &str,
) -> Result<BTreeMap<u64, ChunkProgress>> {
    let entries = data.list("")?.into_iter();
    let sizes: BTreeMap<String, u64> = entries.map(|entry| (entry.name, entry.size)).collect();
    let mut finished = BTreeMap::new();
    for entry in progress.list("chunk-")? {
        // A progress file that cannot be read is no reason to stop: the chunk is made again.
        let Ok(Some(done)) = read_progress::<ChunkProgress>(progress, &entry.name) else {
            continue;
        };
        let whole = |file: &FileInfo| sizes.get(&file.path) == Some(&file.bytes);
        if done.preparation == preparation && done.files.iter().all(whole) {
            finished.insert(done.chunk, done);
        }
    }
    Ok(finished)
}

/// Refuses an output that holds anything but progress.
fn refuse_other(output: &Location, data: &Storage) -> Result<()> {
    let foreign = match output.local() {
        None => {
            let entries = data.list("")?;
            entries
                .iter()
                .any(|entry| !entry.name.starts_with(PROGRESS_DIR))
        }
        // Only this directory: a mistaken one may have everything below it.
        Some(path) => match fs::read_dir(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => false,
            entries => entries
                .map_err(Error::io("read", path))?
                .any(|entry| entry.is_ok_and(|entry| entry.file_name() != PROGRESS_DIR)),
        },
    };
    match foreign {
        true => Err(Error::ForeignOutput {
            path: output.to_string().into(),
        }),
        false => Ok(()),
    }
}

/// Whether there is prepared data at a path that new data could take the place of. An error if
/// there is anything else but an empty directory.
fn replaceable(path: &Path) -> Result<bool> {
    let foreign = || Error::ForeignOutput {
        path: path.to_path_buf(),
    };
    match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(Error::io("look at", path)(error)),
        Ok(metadata) if !metadata.is_dir() => return Err(foreign()),
        Ok(_) => {}
    }
    let mut entries = fs::read_dir(path).map_err(Error::io("read", path))?;
    if entries.next().is_none() {
        return Ok(false);
    }
    if path.join(PROGRESS_DIR).join(PREPARATION).exists() && !path.join(MANIFEST).exists() {
        return Err(Error::NotMerged { path: path.into() });
    }
    match is_ours(&path.join(MANIFEST)) {
        true => Ok(true),
        false => Err(foreign()),
    }
}

/// Whether a manifest is of prepared data, of this version or another.
fn is_ours(manifest: &Path) -> bool {
    let text = fs::read(manifest).unwrap_or_default();
    let value: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
    value["format"] == FORMAT
}

/// Removes the progress files, and for a local output their directory.
fn remove_progress(output: &Location, progress: &Storage) -> Result<()> {
    match output.local() {
        Some(path) => remove(&path.join(PROGRESS_DIR)),
        None => {
            let mut entries = progress.list("")?.into_iter();
            Ok(entries.try_for_each(|entry| progress.delete(&entry.name))?)
        }
    }
}

/// The size and the SHA-256 of a file.
fn measure(path: &Path) -> Result<(u64, String)> {
    let mut file = File::open(path).map_err(Error::io("open", path))?;
    let (meter, mut buffer) = (Meter::default(), vec![0; 1 << 18]);
    loop {
        match file.read(&mut buffer).map_err(Error::io("read", path))? {
            0 => return Ok((meter.bytes(), meter.sha256())),
            count => meter.count(&buffer[..count]),
        }
    }
}

/// Removes a directory with everything in it, if there is one.
fn remove(directory: &Path) -> Result<()> {
    atomic::remove_tree(directory).map_err(Error::io("remove", directory))
}

/// Keeps other processes of this machine out, and where the file system knows how, of other
/// machines.
fn lock(path: &Path) -> Result<File> {
    let file = File::create(path).map_err(Error::io("create", path))?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Err(Error::Busy { path: path.into() }),
        // A file system without locks is no reason to stop.
        Err(TryLockError::Error(_)) | Ok(()) => Ok(file),
    }
}
