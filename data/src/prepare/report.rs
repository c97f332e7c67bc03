//! Adding up what preparing finds: counts, lengths, frequencies, and what was left out and why.

use super::nucleotides::REPORTED;
use super::residues::Changes;
use crate::format::{LengthBin, Nucleotides, Reason, Reject, RejectExample, Report, SourceInfo};
use crate::tokenizer::Tokenizer;

/// Examples kept for each reason.
const EXAMPLES: usize = 5;

impl LengthBin {
    /// The bar that counts a length.
    fn number(length: u64) -> usize {
        let length = length.max(1);
        let octave = length.ilog2().saturating_sub(3);
        8 * octave as usize + (length >> octave) as usize - 1
    }

    /// An empty bar.
    fn numbered(number: usize) -> LengthBin {
        let from = |number: u64| match number {
            0..8 => number + 1,
            _ => (8 + (number + 1) % 8) << ((number + 1) / 8 - 1),
        };
        let number = number as u64;
        LengthBin {
            from: from(number),
            to: from(number + 1) - 1,
            rows: 0,
        }
    }
}

impl Report {
    pub(super) fn keep(&mut self, length: u64, changes: Changes) {
        self.records += 1;
        self.lengths.min = match self.rows {
            0 => length,
            _ => self.lengths.min.min(length),
        };
        self.lengths.max = self.lengths.max.max(length);
        self.rows += 1;
        self.residues += length;
        self.replaced_by_x += changes.replaced;
        self.gaps_removed += changes.gaps;
        self.stops_removed += changes.stops;
        self.lower_case += changes.lower_case;
        self.count_length(length, 1);
    }

    fn count_length(&mut self, length: u64, rows: u64) {
        let bin = LengthBin::number(length);
        while self.lengths.histogram.len() <= bin {
            let next = LengthBin::numbered(self.lengths.histogram.len());
            self.lengths.histogram.push(next);
        }
        self.lengths.histogram[bin].rows += rows;
    }

    /// Counts tokens by their residues, and clears the counts.
    pub(super) fn count_residues(&mut self, tokenizer: Tokenizer, counts: &mut [u64; 256]) {
        for (id, count) in (0..=u8::MAX).zip(counts) {
            if let (Some(letter), 1..) = (tokenizer.residue(id), *count) {
                *self.residue_counts.entry(letter).or_default() += *count;
            }
            *count = 0;
        }
    }

    /// Counts the records of a file that may be DNA or RNA.
    pub(super) fn count_nucleotides(&mut self, file: &str, found: Nucleotides) {
        if found.of == 0 {
            return;
        }
        let sum = match self.nucleotides.get_mut(file) {
            Some(sum) => sum,
            None => self.nucleotides.entry(file.into()).or_default(),
        };
        sum.records += found.records;
        sum.of += found.of;
    }

    /// Adds what was found in later records.
    pub(super) fn add(&mut self, later: &Report) {
        if later.rows > 0 {
            self.lengths.min = match self.rows {
                0 => later.lengths.min,
                _ => self.lengths.min.min(later.lengths.min),
            };
        }
        self.lengths.max = self.lengths.max.max(later.lengths.max);
        self.records += later.records;
        self.rows += later.rows;
        self.residues += later.residues;
        self.rejected += later.rejected;
        self.replaced_by_x += later.replaced_by_x;
        self.gaps_removed += later.gaps_removed;
        self.stops_removed += later.stops_removed;
        self.lower_case += later.lower_case;
        for bin in &later.lengths.histogram {
            self.count_length(bin.from, bin.rows);
        }
        for (file, &found) in &later.nucleotides {
            self.count_nucleotides(file, found);
        }
        for (&letter, count) in &later.residue_counts {
            *self.residue_counts.entry(letter).or_default() += count;
        }
        for reject in &later.rejects {
            let place = self.place_of(reject.reason);
            let ours = &mut self.rejects[place];
            ours.count += reject.count;
            let room = EXAMPLES.saturating_sub(ours.examples.len());
            ours.examples
                .extend(reject.examples.iter().take(room).cloned());
        }
    }

    pub(super) fn reject(&mut self, reason: Reason, example: impl FnOnce() -> RejectExample) {
        self.records += 1;
        self.rejected += 1;
        let place = self.place_of(reason);
        let reject = &mut self.rejects[place];
        reject.count += 1;
        if reject.examples.len() < EXAMPLES {
            reject.examples.push(example());
        }
    }

    /// Where the rejects of a reason are listed, in the order of the reasons.
    fn place_of(&mut self, reason: Reason) -> usize {
        match self.rejects.iter().position(|r| r.reason >= reason) {
            Some(place) if self.rejects[place].reason == reason => place,
            place => {
                let place = place.unwrap_or(self.rejects.len());
                let new = Reject {
                    reason,
                    count: 0,
                    examples: Vec::new(),
                };
                self.rejects.insert(place, new);
                place
            }
        }
    }

    /// Works out what the sums give.
    pub(super) fn finish(&mut self, source: &[SourceInfo]) {
        if self.rows > 0 {
            self.lengths.mean = self.residues as f64 / self.rows as f64;
        }
        self.nucleotides.retain(|_, found| found.records > 0);
        let of_inputs = source.iter().filter_map(|input| {
            let warning = input.warning.as_ref()?;
            Some(format!("{}: {warning}", input.name))
        });
        let of_letters = self.nucleotides.iter().filter_map(|(file, found)| {
            let Nucleotides { records, of } = found;
            let share = *records as f64 / *of as f64;
            (share >= REPORTED).then(|| {
                format!(
                    "{file}: {:.1} % of its sequences ({records} of {of}) have no letters but A, C, G, T, U \
                     and N: are they DNA or RNA?",
                    100.0 * share
                )
            })
        });
        self.warnings = of_inputs.chain(of_letters).collect();
    }

    /// The rejected records in one line: `2 no sequence (first: a.fasta, line 7, P12345: 0
    /// residues)`.
    pub fn rejects_in_words(&self) -> String {
        let words = self.rejects.iter().map(|reject| {
            let mut text = format!("{} {}", reject.count, reject.reason.describe());
            if let Some(first) = reject.examples.first() {
                let RejectExample {
                    file,
                    line,
                    id,
                    detail,
                } = first;
                text += &format!(" (first: {file}, line {line}, {id}: {detail})");
            }
            text
        });
        words.collect::<Vec<_>>().join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_follow_one_another_and_hold_their_lengths() {
        let mut next = 1;
        for number in 0..200 {
            let bin = LengthBin::numbered(number);
            assert_eq!(bin.from, next);
            for length in [bin.from, bin.to] {
                assert_eq!(LengthBin::number(length), number, "{length}");
            }
            assert!(bin.to - bin.from <= bin.from / 8, "{bin:?}");
            next = bin.to + 1;
        }
        assert!(next > 1 << 24);
    }

    /// However the records are divided, the sum is the report of all.
    #[test]
    fn reports_of_parts_add_up() {
        let keep = |report: &mut Report, lengths: &[u64]| {
            for &length in lengths {
                report.keep(length, Changes::default());
            }
        };
        let reject = |report: &mut Report, lines: std::ops::Range<u64>| {
            for line in lines {
                let reason = [Reason::TooLong, Reason::NoId][line as usize % 2];
                let (file, id) = ("a".to_string(), String::new());
                report.reject(reason, || RejectExample {
                    file,
                    line,
                    id,
                    detail: String::new(),
                });
            }
        };
        let lengths = [5, 900, 17, 3, 70, 70, 1, 12_000];
        let mut whole = Report::default();
        keep(&mut whole, &lengths);
        reject(&mut whole, 0..20);
        for (at, line) in [(0, 0), (1, 3), (5, 14), (8, 20)] {
            let (mut first, mut second) = (Report::default(), Report::default());
            keep(&mut first, &lengths[..at]);
            reject(&mut first, 0..line);
            keep(&mut second, &lengths[at..]);
            reject(&mut second, line..20);
            let mut sum = Report::default();
            sum.add(&first);
            sum.add(&second);
            assert_eq!(sum, whole, "divided at {at} and {line}");
        }
    }
}
