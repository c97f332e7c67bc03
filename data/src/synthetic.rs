//! Made-up proteins in the shape of UniRef50: to measure with, and to test at sizes no real file
//! that can be bundled has.
//!
//! Record `number` under a seed is a function of both, so records can be made in any order.
//!
//! **Lengths** are log-normal with a median of [`MEDIAN`] residues and a spread (the standard
//! deviation of the logarithm) of [`SPREAD`], within [`SHORTEST`]`..=`[`LONGEST`]. That is an
//! assumption: it was not fitted to a release, but chosen to agree with what is known of UniRef50's
//! recent ones: a median of some 190 to 200 residues, a mean of some 285, one sequence in eight
//! beyond 511. What it gives:
//!
//! | | 1 % | 10 % | 25 % | 50 % | 75 % | 90 % | 99 % | 99.9 % | mean | above 511 |
//! |---|---|---|---|---|---|---|---|---|---|---|
//! | residues | 26 | 65 | 109 | 195 | 348 | 587 | 1442 | 2780 | 282 | 13 % |
//!
//! **Residues** are drawn one by one by about the frequencies of UniProtKB, after a first `M`. So
//! they have no motifs and no relatives: a model learns their frequencies and nothing else.

use std::collections::BTreeMap;

use crate::format::LengthBin;
use crate::random::{Key, Stream};

/// The median length.
pub const MEDIAN: f64 = 195.0;
/// The standard deviation of the lengths' natural logarithm.
pub const SPREAD: f64 = 0.86;
/// The least length, as in UniRef.
pub const SHORTEST: u32 = 11;
/// The greatest length.
pub const LONGEST: u32 = 40_000;

/// How often a residue occurs, in units of 0.01 %.
const FREQUENCIES: [(u8, u32); 21] = [
    (b'A', 903),
    (b'R', 584),
    (b'N', 379),
    (b'D', 547),
    (b'C', 129),
    (b'Q', 380),
    (b'E', 624),
    (b'G', 727),
    (b'H', 222),
    (b'I', 555),
    (b'L', 985),
    (b'K', 493),
    (b'M', 233),
    (b'F', 387),
    (b'P', 495),
    (b'S', 684),
    (b'T', 555),
    (b'W', 130),
    (b'Y', 288),
    (b'V', 687),
    (b'X', 4),
];
/// Bits that draw one residue.
const BITS: usize = 12;
/// Columns of a line of FASTA.
const WIDTH: usize = 60;
const NAMES: [&str; 5] = [
    "Uncharacterized protein",
    "ABC transporter ATP-binding protein",
    "Transcriptional regulator, LysR family",
    "Zinc finger protein 91-like isoform X2",
    "DUF4377 domain-containing protein (Fragment)",
];
const TAXA: [(&str, u32, &str); 5] = [
    ("Danio rerio", 7955, "DANRE"),
    ("Streptomyces sp. NBC_01351", 2_903_833, "9ACTN"),
    ("uncultured bacterium", 77_133, "9BACT"),
    ("Triticum aestivum", 4565, "WHEAT"),
    ("Gammaproteobacteria", 1236, "9GAMM"),
];

/// Draws a length as UniRef50's are distributed: see the [module](self).
pub fn uniref50_length(stream: &mut Stream) -> u32 {
    loop {
        // A normal deviate, by Box and Muller; 1 - unit is never 0.
        let radius = (-2.0 * (1.0 - stream.unit()).ln()).sqrt();
        let normal = radius * (std::f64::consts::TAU * stream.unit()).cos();
        let length = (MEDIAN * (SPREAD * normal).exp()).round();
        if (f64::from(SHORTEST)..=f64::from(LONGEST)).contains(&length) {
            return length as u32;
        }
    }
}

/// UniRef50's sequences in the release that Ankh was trained on, about.
pub const UNIREF50_SEQUENCES: u64 = 45_000_000;

/// How many of [`UNIREF50_SEQUENCES`] have each length, as [`uniref50_length`] draws them.
pub fn uniref50_lengths() -> Vec<LengthBin> {
    const DRAWN: u64 = 100_000;
    let mut counts: BTreeMap<u64, u64> = BTreeMap::new();
    for length in lengths(0).take(DRAWN as usize) {
        *counts.entry(length.into()).or_default() += UNIREF50_SEQUENCES / DRAWN;
    }
    let bin = |(length, rows)| LengthBin {
        from: length,
        to: length,
        rows,
    };
    counts.into_iter().map(bin).collect()
}

/// The lengths of the records 0, 1, 2, ... under a seed, without end.
pub fn lengths(seed: u64) -> impl Iterator<Item = u32> {
    let records = Records::new(seed);
    (0..).map(move |number| records.length(number))
}

/// The records under a seed.
#[derive(Clone, Debug)]
pub struct Records {
    key: Key,
    duplicates: f64,
    /// The residue that each number of [`BITS`] bits draws.
    residues: Vec<u8>,
}

impl Records {
    /// Records no two of which have the same sequence, but for chance among the shortest.
    pub fn new(seed: u64) -> Records {
        let total: u32 = FREQUENCIES.iter().map(|(_, frequency)| frequency).sum();
        let size = 1u32 << BITS;
        let (mut residues, mut until) = (Vec::with_capacity(size as usize), 0);
        for (letter, frequency) in FREQUENCIES {
            until += frequency;
            residues.resize((until * size / total) as usize, letter);
        }
        Records {
            key: Key::new(seed),
            duplicates: 0.0,
            residues,
        }
    }

    /// Lets this share of the records, but for the first, have the sequence of one before.
    pub fn with_duplicates(mut self, share: f64) -> Records {
        self.duplicates = share;
        self
    }

    /// The length of a record's sequence.
    pub fn length(&self, number: u64) -> u32 {
        uniref50_length(&mut self.stream(number))
    }

    /// Appends a record's sequence.
    pub fn sequence(&self, number: u64, text: &mut Vec<u8>) {
        let mut stream = self.stream(number);
        let length = uniref50_length(&mut stream) as usize;
        self.draw(length, &mut stream, text);
    }

    /// A sequence of so many residues, another for each number.
    pub fn of_length(&self, number: u64, length: usize) -> Vec<u8> {
        let mut text = Vec::new();
        self.draw(length, &mut self.stream(number), &mut text);
        text
    }

    /// Appends a sequence of so many residues.
    fn draw(&self, length: usize, stream: &mut Stream, text: &mut Vec<u8>) {
        let end = text.len() + length;
        text.reserve(length);
        if length == 0 {
            return;
        }
        text.push(b'M');
        while text.len() < end {
            let mut bits = stream.bits();
            for _ in 0..(64 / BITS).min(end - text.len()) {
                text.push(self.residues[bits as usize % (1 << BITS)]);
                bits >>= BITS;
            }
        }
    }

    /// Appends a record as FASTA, with a header like UniRef50's and lines of 60 residues.
    pub fn fasta(&self, number: u64, text: &mut Vec<u8>) {
        let mut stream = self.key.with(number).with(1).stream();
        let id = accession(number);
        let name = NAMES[stream.below(NAMES.len())];
        let (taxon, taxon_id, mnemonic) = TAXA[stream.below(TAXA.len())];
        let members = 1 + stream.below(3) * stream.below(3) * stream.below(12);
        let header = format!(
            ">UniRef50_{id} {name} n={members} Tax={taxon} TaxID={taxon_id} RepID={id}_{mnemonic}"
        );
        text.extend_from_slice(header.as_bytes());
        let mut sequence = Vec::new();
        self.sequence(number, &mut sequence);
        for line in sequence.chunks(WIDTH) {
            text.push(b'\n');
            text.extend_from_slice(line);
        }
        text.push(b'\n');
    }

    /// What a record's sequence is drawn from: its own numbers, or those of a record before.
    fn stream(&self, mut number: u64) -> Stream {
        loop {
            let mut choice = self.key.with(number).with(2).stream();
            if number == 0 || choice.unit() >= self.duplicates {
                return self.key.with(number).with(0).stream();
            }
            // Below a u64, so it is one.
            number = ((u128::from(choice.bits()) * u128::from(number)) >> 64) as u64;
        }
    }
}

/// An accession of UniProt's newer form, `A0A` and seven more characters; another for each of the
/// first 4 billion numbers.
fn accession(mut number: u64) -> String {
    const DIGITS: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let mut id = *b"A0A0000000";
    // From the end, as that changes first: a digit, two of either, a letter, and once more.
    for place in (3..id.len()).rev() {
        let of = match place {
            5 | 9 => &DIGITS[..10],
            6 => &DIGITS[10..],
            _ => DIGITS,
        };
        let count = of.len() as u64;
        id[place] = of[(number % count) as usize];
        number /= count;
    }
    id.iter().map(|&byte| char::from(byte)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    #[test]
    fn lengths_have_the_quantiles_they_are_documented_to_have() {
        let count = 200_000;
        let mut lengths: Vec<u32> = lengths(1).take(count).collect();
        lengths.sort_unstable();
        let (least, most) = (lengths[0], lengths[count - 1]);
        assert!(least >= SHORTEST && most <= LONGEST, "{least} {most}");
        for (share, expected) in [
            (0.01, 26.0),
            (0.1, 65.0),
            (0.25, 109.0),
            (0.5, 195.0),
            (0.75, 348.0),
            (0.9, 587.0),
            (0.99, 1442.0),
            (0.999, 2780.0),
        ] {
            let found = f64::from(lengths[(share * count as f64) as usize]);
            let off = (found / expected - 1.0f64).abs();
            assert!(off < 0.06, "quantile {share}: {found}, not {expected}");
        }
        let mean = lengths.iter().map(|&l| f64::from(l)).sum::<f64>() / count as f64;
        assert!((mean - 282.0).abs() < 3.0, "{mean}");
        let long = lengths.iter().filter(|&&l| l > 511).count() as f64 / count as f64;
        assert!((long - 0.131).abs() < 0.003, "{long}");
    }

    #[test]
    fn residues_have_the_background_frequencies() {
        let records = Records::new(2);
        let mut text = vec![];
        (0..5000).for_each(|number| records.sequence(number, &mut text));
        let mut counts: HashMap<u8, u32> = HashMap::new();
        for &residue in &text {
            *counts.entry(residue).or_default() += 1;
        }
        let total: u32 = FREQUENCIES.iter().map(|(_, frequency)| frequency).sum();
        for (letter, frequency) in FREQUENCIES.into_iter().filter(|&(l, _)| l != b'M') {
            let expected = f64::from(frequency) / f64::from(total);
            let found = f64::from(counts[&letter]) / text.len() as f64;
            // Half of one part in 4096, the first M, and chance.
            let off = (found - expected).abs();
            assert!(off < 0.001, "{}: {found}", char::from(letter));
        }
        assert_eq!(counts.len(), FREQUENCIES.len());
    }

    #[test]
    fn a_record_is_a_function_of_seed_and_number() {
        let fasta = |seed, number| {
            let mut text = vec![];
            Records::new(seed).fasta(number, &mut text);
            String::from_utf8(text).unwrap()
        };
        assert_eq!(fasta(1, 7), fasta(1, 7));
        assert_ne!(fasta(1, 7), fasta(2, 7));
        assert_ne!(fasta(1, 7), fasta(1, 8));
        let text = fasta(1, 123_456_789);
        let (header, sequence) = text.split_once('\n').unwrap();
        assert!(header.starts_with(">UniRef50_A0A"), "{header}");
        let residues = sequence.bytes().filter(|&byte| byte != b'\n').count();
        assert_eq!(residues, Records::new(1).length(123_456_789) as usize);
        let ids: HashSet<String> = (0..100_000).map(accession).collect();
        assert_eq!(ids.len(), 100_000);
    }

    #[test]
    fn the_share_of_duplicates_is_the_share_asked_for() {
        let records = Records::new(3).with_duplicates(0.3);
        let distinct = (0..5000).map(|number| {
            let mut text = vec![];
            records.sequence(number, &mut text);
            text
        });
        let distinct = distinct.collect::<HashSet<_>>().len() as f64 / 5000.0;
        assert!((distinct - 0.7).abs() < 0.03, "{distinct}");
    }
}
