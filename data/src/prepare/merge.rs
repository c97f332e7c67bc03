//! The parts of many machines become one data set.
//!
//! What is written is a function of the notes, which are functions of the inputs and the options; so it is
//! what a single machine would have written. Everything that is missing or contradicts is listed
//! before anything is changed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::collect::Complete;
use super::groups::Closed;
use super::notes::{ChunkNote, PLAN, PartNote, Plan};
use super::workplace::{NOTES, Workplace, exists, finished, read_note};
use super::{Existing, Unfinished};
use crate::error::{Error, Result};
use crate::manifest::{Amount, FileInfo, MANIFEST, Manifest, SourceInfo, hex};
use crate::storage::{Location, Storage, StorageOptions};

/// Makes one data set of the parts in some workplaces, the outputs of [`super::prepare_part`]. Without any, the parts
/// lie in the output itself, and only the manifest is added. Otherwise the files are copied and checked
/// on the way; a local output then appears whole or not at all.
///
/// The bytes of all files, the manifest's too, are those that [`super::prepare`] writes on one machine.
pub fn merge(
    output: &Location,
    workplaces: &[Location],
    existing: Existing,
    options: &StorageOptions,
) -> Result<Manifest> {
    let in_place = [output.clone()];
    let sources = match workplaces {
        [] => &in_place[..],
        workplaces => workplaces,
    };
    if workplaces.is_empty() && exists(&Storage::open(output, options)?, MANIFEST)? {
        return Err(Error::AlreadyInPlace {
            location: output.to_string(),
        });
    }
    let parts = Parts::gather(sources, options)?;
    let chunks = parts
        .chunks
        .values()
        .map(|(_, note)| note.clone())
        .collect();
    let manifest = parts.plan.clone().manifest(parts.source, chunks)?;
    let workplace = match (workplaces, output.local()) {
        ([], _) => {
            let continued = Unfinished::Continue;
            Workplace::within(output, &parts.plan, "merge", continued, options)?
        }
        (_, Some(path)) => Workplace::beside(path, &parts.plan, existing, Unfinished::Continue)?,
        (_, None) => {
            let continued = Unfinished::Continue;
            Workplace::within(output, &parts.plan, "merge", continued, options)?
        }
    };
    let there = workplace.finished()?;
    for (chunk, (storage, note)) in parts.chunks {
        if there.contains_key(&chunk) {
            continue;
        }
        let scratch = workplace.scratch();
        let files = note.files.iter().map(|file| fetch(&storage, file, scratch));
        workplace.keep(Complete {
            chunk,
            files: files.collect::<Result<_>>()?,
            report: note.report,
        })?;
    }
    workplace.commit(&manifest)?;
    Ok(manifest)
}

/// What the notes of all workplaces say together.
struct Parts {
    plan: Plan,
    source: Vec<SourceInfo>,
    chunks: BTreeMap<u64, (Storage, ChunkNote)>,
}

impl Parts {
    fn gather(places: &[Location], options: &StorageOptions) -> Result<Parts> {
        let mut problems = Vec::new();
        let mut plan: Option<Plan> = None;
        let mut chunks = BTreeMap::<u64, (Storage, ChunkNote)>::new();
        let mut parts: Vec<PartNote> = Vec::new();
        for place in places {
            let data = Storage::open(place, options)?;
            let notes = Storage::open(&place.join(NOTES), options)?;
            let Some(its_plan) = read_note::<Plan>(&notes, PLAN)? else {
                problems.push(format!("{place} holds no parts"));
                continue;
            };
            let plan = plan.get_or_insert_with(|| its_plan.clone());
            let differences = its_plan.differences(plan);
            if !differences.is_empty() {
                let differences = differences.join(", ");
                problems.push(format!("{place} was made otherwise: {differences}"));
                continue;
            }
            let digest = plan.digest()?;
            for (chunk, note) in finished(&data, &notes, &digest)? {
                let (_, known) = chunks
                    .entry(chunk)
                    .or_insert_with(|| (data.clone(), note.clone()));
                if known.files != note.files {
                    problems.push(format!("{place} has another chunk {chunk}"));
                }
            }
            for entry in notes
                .list("part-")?
                .iter()
                .filter(|e| e.name.ends_with(".json"))
            {
                let Some(note) = read_note::<PartNote>(&notes, &entry.name)? else {
                    continue;
                };
                if note.plan == digest {
                    parts.push(note);
                }
            }
        }
        let (Some(plan), Some(first)) = (plan, parts.first()) else {
            if problems.is_empty() {
                problems.push("no part is done".into());
            }
            return Err(Error::CannotMerge { problems });
        };
        for note in &parts {
            problems.extend(note.contradictions(first));
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
        Ok(Parts {
            source: first.source.clone(),
            plan,
            chunks,
        })
    }
}

impl PartNote {
    /// In what the inputs were others than those of another part.
    fn contradictions(&self, other: &PartNote) -> Vec<String> {
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

/// Copies a file of another workplace, and checks that it is what was made there.
fn fetch(storage: &Storage, file: &FileInfo, scratch: &Path) -> Result<Closed> {
    let path = scratch.join(&file.path);
    let location = storage.location(&file.path);
    let mut reader = storage.reader(&file.path)?;
    let mut copy = File::create(&path).map_err(Error::io("create", &path))?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 18]);
    loop {
        let count = reader
            .read(&mut buffer)
            .map_err(|error| Error::reading(&location, error))?;
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
            part: format!("its sha256 is {found}, but its note says {}", file.sha256),
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
