//! The parts of many machines become one data set.
//!
//! The output depends only on the parts' progress files, and these only on the inputs and the
//! options. So it equals what one machine would have written. Everything that is missing or
//! contradictory is listed before anything is changed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use ankh_storage::{Location, Storage, StorageOptions, hex};
use sha2::{Digest, Sha256};

use super::collect::Complete;
use super::groups::Closed;
use super::progress::{ChunkProgress, PREPARATION, PartProgress, Preparation};
use super::staging::{StagingDir, exists, finished, read_progress};
use super::{Existing, Unfinished};
use crate::error::{Error, Result};
use crate::format::{Amount, FileInfo, MANIFEST, Manifest, PROGRESS_DIR, SourceInfo};

/// Makes one data set of the parts in some staging directories, the outputs of
/// [`super::prepare_part`]. Without any, the parts lie in the output itself, and only the manifest
/// is added. Otherwise the files are copied and checked on the way; a local output then appears
/// whole or not at all.
///
/// The bytes of all files, the manifest's too, are those that [`super::prepare`] writes on one
/// machine.
pub fn merge(
    output: &Location,
    stagings: &[Location],
    existing: Existing,
    options: &StorageOptions,
) -> Result<Manifest> {
    let in_place = [output.clone()];
    let sources = match stagings {
        [] => &in_place[..],
        stagings => stagings,
    };
    if stagings.is_empty() && exists(&Storage::open(output, options)?, MANIFEST)? {
        return Err(Error::AlreadyInPlace {
            location: output.to_string(),
        });
    }
    let parts = GatheredParts::gather(sources, options)?;
    let chunks = parts
        .chunks
        .values()
        .map(|(_, done)| done.clone())
        .collect();
    let manifest = parts.preparation.clone().manifest(parts.source, chunks)?;
    let staging = match (stagings, output.local()) {
        ([], _) => {
            let continued = Unfinished::Continue;
            StagingDir::within(output, &parts.preparation, "merge", continued, options)?
        }
        (_, Some(path)) => {
            StagingDir::beside(path, &parts.preparation, existing, Unfinished::Continue)?
        }
        (_, None) => {
            let continued = Unfinished::Continue;
            StagingDir::within(output, &parts.preparation, "merge", continued, options)?
        }
    };
    let there = staging.finished()?;
    for (chunk, (storage, done)) in parts.chunks {
        if there.contains_key(&chunk) {
            continue;
        }
        let scratch = staging.scratch();
        let files = done.files.iter().map(|file| fetch(&storage, file, scratch));
        staging.keep(Complete {
            chunk,
            files: files.collect::<Result<_>>()?,
            report: done.report,
        })?;
    }
    staging.commit(&manifest)?;
    Ok(manifest)
}

/// What the progress files of all staging directories report together.
struct GatheredParts {
    preparation: Preparation,
    source: Vec<SourceInfo>,
    chunks: BTreeMap<u64, (Storage, ChunkProgress)>,
}

impl GatheredParts {
    fn gather(places: &[Location], options: &StorageOptions) -> Result<GatheredParts> {
        let mut problems = Vec::new();
        let mut preparation: Option<Preparation> = None;
        let mut chunks = BTreeMap::<u64, (Storage, ChunkProgress)>::new();
        let mut parts: Vec<PartProgress> = Vec::new();
        for place in places {
            let data = Storage::open(place, options)?;
            let progress = Storage::open(&place.join(PROGRESS_DIR), options)?;
            let Some(its) = read_progress::<Preparation>(&progress, PREPARATION)? else {
                problems.push(format!("{place} holds no parts"));
                continue;
            };
            let preparation = preparation.get_or_insert_with(|| its.clone());
            let differences = its.differences(preparation);
            if !differences.is_empty() {
                let differences = differences.join(", ");
                problems.push(format!("{place} was made otherwise: {differences}"));
                continue;
            }
            let digest = preparation.digest()?;
            for (chunk, done) in finished(&data, &progress, &digest)? {
                let (_, known) = chunks
                    .entry(chunk)
                    .or_insert_with(|| (data.clone(), done.clone()));
                if known.files != done.files {
                    problems.push(format!("{place} has another chunk {chunk}"));
                }
            }
            for entry in progress
                .list("part-")?
                .iter()
                .filter(|e| e.name.ends_with(".json"))
            {
                let Some(done) = read_progress::<PartProgress>(&progress, &entry.name)? else {
                    continue;
                };
                if done.preparation == digest {
                    parts.push(done);
                }
            }
        }
        let (Some(preparation), Some(first)) = (preparation, parts.first()) else {
            if problems.is_empty() {
                problems.push("no part is done".into());
            }
            return Err(Error::CannotMerge { problems });
        };
        for done in &parts {
            problems.extend(done.contradictions(first));
        }
        let mut missing = BTreeMap::<u64, Vec<String>>::new();
        for chunk in (0..first.chunks).filter(|chunk| !chunks.contains_key(chunk)) {
            let of_part = missing.entry(chunk % first.parts).or_default();
            of_part.push(chunk.to_string());
        }
        for (part, chunks) in missing {
            let chunks = chunks.join(", ");
            let parts = first.parts;
            problems.push(format!(
                "part {part}/{parts} is not done: chunks {chunks} are missing"
            ));
        }
        if !problems.is_empty() {
            return Err(Error::CannotMerge { problems });
        }
        Ok(GatheredParts {
            source: first.source.clone(),
            preparation,
            chunks,
        })
    }
}

impl PartProgress {
    /// In what the inputs were others than those of another part.
    fn contradictions(&self, other: &PartProgress) -> Vec<String> {
        let mut found = Vec::new();
        for (ours, theirs) in self.source.iter().zip(&other.source) {
            if ours != theirs {
                found.push(format!(
                    "part {}/{} read another {} than part {}/{}: {} records with sha256 {}, not {} with {}",
                    self.part,
                    self.parts,
                    ours.name,
                    other.part,
                    other.parts,
                    ours.records,
                    ours.sha256,
                    theirs.records,
                    theirs.sha256
                ));
            }
        }
        found
    }
}

/// Copies a file of another staging directory, and checks that it is what was made there.
fn fetch(storage: &Storage, file: &FileInfo, scratch: &Path) -> Result<Closed> {
    let path = scratch.join(&file.path);
    let location = storage.location(&file.path);
    let mut reader = storage.reader(&file.path)?;
    let mut copy = File::create(&path).map_err(Error::io("create", &path))?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 18]);
    loop {
        let count = reader
            .read(&mut buffer)
            .map_err(|error| ankh_storage::Error::reading(&location, error))?;
        if count == 0 {
            break;
        }
        hash.update(&buffer[..count]);
        copy.write_all(&buffer[..count])
            .map_err(Error::io("write", &path))?;
    }
    let found = hex(&hash.finalize());
    if found != file.sha256 {
        return Err(Error::Damaged {
            path: location.to_string().into(),
            part: format!(
                "its sha256 is {found}, but its progress file says {}",
                file.sha256
            ),
        });
    }
    Ok(Closed {
        path,
        name: file.path.clone(),
        split: file.split,
        total: Amount {
            rows: file.rows,
            residues: file.residues,
        },
    })
}
