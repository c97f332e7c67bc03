//! What was prepared, in words.

use ankh_data::prepare::PartReport;
use ankh_data::{Location, Manifest, Split};

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
    lines.push(format!(
        "  lengths {} to {}, mean {:.1}",
        count(found.lengths.min),
        count(found.lengths.max),
        found.lengths.mean
    ));
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
