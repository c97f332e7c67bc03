//! The summary of prepared data, as text.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use ankh_data::format::SplitBy;
use ankh_data::prepare::PartReport;
use ankh_data::{Manifest, Report, Split};
use ankh_storage::Location;

use crate::cli::output::count;

pub(super) fn of(manifest: &Manifest, output: &Location) -> String {
    let found = &manifest.report;
    let rows = |split| count(manifest.amount(split).rows);
    let mut lines = vec![format!(
        "{} sequences, {} residues",
        count(manifest.rows),
        count(manifest.residues)
    )];
    let mut splits = vec![
        format!("train {}", rows(Split::Train)),
        format!("validation {}", rows(Split::Validation)),
    ];
    if manifest.settings.test_fraction > 0.0 {
        splits.push(format!("test {}", rows(Split::Test)));
    }
    lines.push(format!("  {}", splits.join(", ")));
    lines.extend(held_out(manifest));
    lines.push(format!(
        "  lengths {} to {}, mean {:.1}",
        count(found.lengths.min),
        count(found.lengths.max),
        found.lengths.mean
    ));
    lines.extend(histogram(found));
    lines.extend(residues(found));
    let changes = [
        (found.replaced_by_x, "unknown letters read as X"),
        (found.gaps_removed, "gaps removed"),
        (found.stops_removed, "stops removed"),
        (found.lower_case, "lower-case letters read as upper case"),
    ];
    for (number, what) in changes.into_iter().filter(|(number, _)| *number > 0) {
        lines.push(format!("  {} {what}", count(number)));
    }
    if found.rejected > 0 {
        let words = found.rejects_in_words();
        lines.push(format!("  {} left out: {words}", count(found.rejected)));
    }
    let files = manifest.files.len();
    let plural = if files == 1 { "" } else { "s" };
    lines.push(format!(
        "{files} file{plural} and manifest.json in {output}"
    ));
    lines.join("\n")
}

/// What there is to say of the splits.
fn held_out(manifest: &Manifest) -> Vec<String> {
    let mut lines = Vec::new();
    let settings = &manifest.settings;
    if settings.split_by == SplitBy::Sequence {
        lines.push("  which to hold out, their letters decide (--split-by sequence)".to_string());
    }
    let empty = |split| manifest.amount(split).rows == 0;
    let why =
        |split, advice: &str| format!("  no {split} rows: {}; {advice}", manifest.why_empty(split));
    if empty(Split::Train) {
        lines.push(why(
            Split::Train,
            "prepare again with more sequences, or a smaller share",
        ));
    }
    if empty(Split::Validation) {
        let advice = match settings.validation_fraction > 0.0 {
            true => {
                "prepare again with more sequences or a larger share, or train with --set evaluation.every=0"
            }
            false => "train with --set evaluation.every=0",
        };
        lines.push(why(Split::Validation, advice));
    }
    if empty(Split::Test) && settings.test_fraction > 0.0 {
        lines.push(why(
            Split::Test,
            "prepare again with more sequences or a larger share",
        ));
    }
    lines
}

/// How many sequences have up to twice the length of the line above.
fn histogram(report: &Report) -> Vec<String> {
    let mut octaves = BTreeMap::<u32, u64>::new();
    for bin in report.lengths.histogram.iter().filter(|bin| bin.rows > 0) {
        *octaves.entry(bin.from.ilog2()).or_default() += bin.rows;
    }
    let most = octaves.values().max().copied().unwrap_or(1);
    let line = |(octave, &rows): (&u32, &u64)| {
        let (from, to) = (1u64 << octave, (2u64 << octave) - 1);
        let bar = "#".repeat((24 * rows).div_ceil(most.max(1)) as usize);
        let share = 100.0 * rows as f64 / report.rows.max(1) as f64;
        let (from, to, rows) = (count(from), count(to), count(rows));
        format!("  {from:>7} to {to:>7} {rows:>12} {share:5.1} %  {bar}")
    };
    octaves.iter().map(line).collect()
}

/// How often each residue occurs, the most frequent first.
fn residues(report: &Report) -> Vec<String> {
    let mut counts: Vec<(char, u64)> = report
        .residue_counts
        .iter()
        .map(|(&l, &n)| (l, n))
        .collect();
    counts.sort_by_key(|&(letter, number)| (Reverse(number), letter));
    let share = |number| 100.0 * number as f64 / report.residues.max(1) as f64;
    let words = |&(letter, number): &(char, u64)| format!("{letter} {:.2}", share(number));
    let lines = counts
        .chunks(10)
        .map(|some| some.iter().map(words).collect::<Vec<_>>().join("  "));
    let before = |place| {
        if place == 0 {
            "residues, in %:"
        } else {
            "              "
        }
    };
    (0..)
        .zip(lines)
        .map(|(place, line)| format!("  {} {line}", before(place)))
        .collect()
}

pub(super) fn of_part(report: &PartReport, output: &Location) -> String {
    format!(
        "part {}/{}: {} of {} chunks, {} sequences, {} residues\nin {output}, to be merged with the others",
        report.part,
        report.parts,
        count(report.chunks),
        count(report.all_chunks),
        count(report.amount.rows),
        count(report.amount.residues)
    )
}
