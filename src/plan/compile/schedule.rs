//! The final schedules that libtpu writes down when it is asked to: for each fusion and kernel a
//! file of its bundles, and one that sums them up. The names of both end in the instruction's name,
//! a number and what the file is.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use crate::plan::kernels::{Schedule, Schedules};

/// What libtpu reads its flags from.
pub(super) const FLAGS: &str = "LIBTPU_INIT_ARGS";

/// The end of the name of a file that sums up a schedule, and the line of it that counts.
const SUMMARY: &str = "-schedule-analysis_final_bundles.txt";
const BUNDLES: &str = "total scheduled bundles:";

/// The end of the name of a file with the bundles.
const FINAL: &str = "-final_bundles.txt";

/// The flags that make libtpu write its schedules into `directory`, after those that are set.
pub(super) fn flags(set: &str, directory: &Path) -> String {
    let own = format!(
        "--xla_jf_dump_to={} --xla_jf_dump_llo_text=true \
         --xla_jf_dump_llo_pass_label_regex=final_bundles",
        directory.display()
    );
    format!("{set} {own}").trim_start().to_string()
}

/// The schedules in `directory`, by the instruction's name.
pub(super) fn read(directory: &Path) -> io::Result<Schedules> {
    let (mut totals, mut bodies) = (BTreeMap::new(), BTreeMap::new());
    if !directory.exists() {
        return Ok(Schedules::new());
    }
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if let Some(instruction) = instruction(&name, SUMMARY) {
            let bundles = bundles(&fs::read_to_string(entry.path())?);
            totals.extend(bundles.map(|bundles| (instruction, bundles)));
        } else if let Some(instruction) = instruction(&name, FINAL) {
            bodies.insert(instruction, body(&fs::read_to_string(entry.path())?));
        }
    }
    let schedules = totals.into_iter().map(|(instruction, bundles)| {
        let body = bodies.get(&instruction).copied().unwrap_or(0);
        let body = body.min(bundles);
        (instruction, Schedule { bundles, body })
    });
    Ok(schedules.collect())
}

/// The instruction of `1795666542551928388-attention_forward.1-03-final_bundles.txt`.
fn instruction(file: &str, end: &str) -> Option<String> {
    let stem = file.strip_suffix(end)?;
    let (_, named) = stem.split_once('-')?;
    let (instruction, _) = named.rsplit_once('-')?;
    Some(instruction.to_string())
}

fn bundles(text: &str) -> Option<u64> {
    let mut lines = text.lines();
    let count = lines.find_map(|line| line.trim().strip_prefix(BUNDLES))?;
    count.trim().parse().ok()
}

/// The longest stretch of bundles that a branch skips: what is computed at a place. The rounds in
/// which the pipeline fills and drains skip it.
///
/// A bundle begins with its address; a branch ends in `target = $region52`, and the bundle that it
/// goes to says `region 52` in a comment at its end.
fn body(text: &str) -> u64 {
    let (mut branches, mut longest) = (BTreeMap::new(), 0);
    for line in text.lines() {
        let address = line.split_whitespace().next();
        let address = address.and_then(|word| word.strip_prefix("0x"));
        let Some(address) = address.and_then(|digits| u64::from_str_radix(digits, 16).ok()) else {
            continue;
        };
        let comment = line.rsplit_once("/*").map_or("", |(_, comment)| comment);
        for region in comment.split("region ").skip(1).filter_map(number) {
            if let Some(start) = branches.get(&region) {
                longest = longest.max(address - start);
            }
        }
        for region in line.split("target = $region").skip(1).filter_map(number) {
            branches.entry(region).or_insert(address);
        }
    }
    longest
}

/// The number that a text begins with.
fn number(text: &str) -> Option<u64> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_is_found_under_its_instructions_name() {
        let directory = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| fs::write(directory.path().join(file), text).unwrap();
        write(
            "179-attention_forward-512.1-02-schedule-analysis_final_bundles.txt",
            "Schedule analysis:\n\ttotal scheduled bundles:    2294\n\tempty: 2\n",
        );
        write(
            "179-attention_forward-512.1-03-final_bundles.txt",
            "PF: predicated region fallthrough\n\
             \x20  0x2a LB: > { %1 = sst [smem:[#a]] %s7 }\n\
             \x20  0x30   : > { %2 = sbr.rel (%p12) target = $region16 } /* End region 13 */\n\
             \x20  0x34 PF: > { nop } /* Start/End empty region 16 :: Start region 49 */\n\
             \x20  0xe6   : > { %607 = sbr.rel (%p604_p0) target = $region52 }\n\
             \x20 0x4e6 PF: > { %s0 = sld [smem:[#b]] } /* Start/End empty region 52 */\n\
             \x20 0x4f0   :  { %59 = sbr.rel (!%p11) target = $region16 }\n",
        );
        write("179-other.1-03-final_bundles.txt", "");
        let found = read(directory.path()).unwrap();
        let schedule = Schedule {
            bundles: 2294,
            body: 0x400,
        };
        let expected = Schedules::from([("attention_forward-512.1".into(), schedule)]);
        assert_eq!(found, expected);
        assert!(read(Path::new("/nowhere")).unwrap().is_empty());
    }

    #[test]
    fn flags_come_after_those_that_are_set() {
        let flags = flags("--one=1", Path::new("/dump"));
        assert!(
            flags.starts_with("--one=1 --xla_jf_dump_to=/dump "),
            "{flags}"
        );
    }
}
