//! Prints batches for people to read.
//!
//! A row is drawn to scale, then each of its sequences is spelled out: residues as letters,
//! sentinels as `<0>`, `<1>` ... in a color that input and target share. Without colors the text
//! has the same content.

use std::fmt::Write as _;

use ankh_data::{Batch, Sequence, Tokenizer, tokenizer};

/// How batches are shown.
pub(super) struct Listing {
    /// The ids' meaning.
    pub tokenizer: Tokenizer,
    /// The parts of the mixture, in the order that numbers them.
    pub components: Vec<String>,
    /// Whether there are colours.
    pub paint: Paint,
    /// Columns of a line, where lines are to be broken.
    pub width: Option<usize>,
}

/// Whether text has colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Paint {
    /// By escape sequences.
    Colours,
    /// None.
    Plain,
}

/// Sentinels take turns: red, green, yellow, blue, magenta, cyan.
const SENTINELS: [&str; 6] = ["31", "32", "33", "34", "35", "36"];
/// So do the segments of a row.
const SEGMENTS: [&str; 2] = ["36", "33"];
const DIM: &str = "2";
const BOLD: &str = "1";

/// Columns that a row of a batch is drawn in.
const BAR: usize = 32;
/// What stands before the tokens of a line.
const MARGIN: usize = 14;

impl Paint {
    fn with(self, style: &str, text: &str) -> String {
        match self {
            Paint::Colours => format!("\x1b[{style}m{text}\x1b[0m"),
            Paint::Plain => text.to_owned(),
        }
    }
}

impl Listing {
    /// A batch: what it holds, then each row.
    pub fn of(&self, batch: &Batch) -> String {
        let mut lines = vec![summary(batch)];
        let mut sequences = batch.sequences().peekable();
        for row in 0..batch.rows {
            lines.push(self.row(batch, row));
            while let Some(sequence) = sequences.next_if(|sequence| sequence.row == row) {
                self.sequence(&sequence, &mut lines);
            }
        }
        lines.join("\n")
    }

    /// The row's positions, to scale.
    fn row(&self, batch: &Batch, row: usize) -> String {
        let side = |segments: &[i32], length: usize| {
            let segments = &segments[row * length..(row + 1) * length];
            let used = segments.iter().filter(|segment| **segment > 0).count();
            (self.bar(segments), format!("{used} of {length}"))
        };
        let (input, of_input) = side(&batch.input_segments, batch.input_length);
        let (target, of_target) = side(&batch.target_segments, batch.target_length);
        format!("  row {row:<4} input {input} {of_input}   target {target} {of_target}")
    }

    /// Numbers of segments, a dot for padding.
    fn bar(&self, segments: &[i32]) -> String {
        let columns = BAR.min(segments.len());
        let cells = (0..columns).map(|column| segments[column * segments.len() / columns]);
        let cells: Vec<i32> = cells.collect();
        let run = |cells: &[i32]| match cells[0] {
            0 => self.paint.with(DIM, &".".repeat(cells.len())),
            segment => {
                let digits = (segment % 10).to_string().repeat(cells.len());
                self.paint.with(colour_of(segment), &digits)
            }
        };
        let runs = cells.chunk_by(|a, b| a == b).map(run);
        format!("[{}]", runs.collect::<String>())
    }

    fn sequence(&self, sequence: &Sequence<'_>, lines: &mut Vec<String>) {
        let number = self
            .paint
            .with(colour_of(sequence.segment), &sequence.segment.to_string());
        let of = match &self.components[..] {
            [] | [_] => String::new(),
            names => format!(" of {}", names[sequence.component]),
        };
        lines.push(format!("    {number}  sequence {}{of}", sequence.example));
        lines.extend(self.tokens("input", sequence.input));
        lines.extend(self.tokens("target", sequence.target));
    }

    /// The tokens under a title, on as many lines as they need.
    fn tokens(&self, title: &str, ids: &[i32]) -> Vec<String> {
        let room = self
            .width
            .map_or(usize::MAX, |width| width.saturating_sub(MARGIN).max(20));
        let mut lines = Vec::new();
        let (mut line, mut used) = (format!("      {title:<8}"), 0);
        for &id in ids {
            let (text, style) = self.token(id);
            if used + text.len() > room {
                lines.push(std::mem::replace(&mut line, " ".repeat(MARGIN)));
                used = 0;
            }
            used += text.len();
            match style {
                Some(style) => line += &self.paint.with(style, &text),
                None => line += &text,
            }
        }
        lines.push(line);
        lines
    }

    /// A token's text, which is ASCII, and its colour; residues have none.
    fn token(&self, id: i32) -> (String, Option<&'static str>) {
        // Batches hold ids of a vocabulary of at most 256.
        let id = u8::try_from(id).unwrap_or(tokenizer::UNK);
        if let Some(index) = self.tokenizer.sentinel_index(id) {
            let colour = SENTINELS[index % SENTINELS.len()];
            return (format!("<{index}>"), Some(colour));
        }
        let style = match self.tokenizer.residue(id) {
            Some(_) => None,
            None if id == tokenizer::EOS => Some(DIM),
            None => Some(BOLD),
        };
        (self.tokenizer.name(id), style)
    }
}

fn colour_of(segment: i32) -> &'static str {
    SEGMENTS[segment as usize % SEGMENTS.len()]
}

fn summary(batch: &Batch) -> String {
    let share = |tokens: u64, ids: &[i32]| 100.0 * tokens as f64 / ids.len().max(1) as f64;
    let sequences: usize = batch.segments.iter().sum();
    let mut text = format!(
        "step {}, epoch {}: {} of {}",
        batch.step,
        batch.epoch,
        amount(batch.rows, "row"),
        amount(sequences, "sequence")
    );
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        " ({:.2} a row), {} of {} residues masked, {:.1} % of the inputs and {:.1} % of the targets filled",
        sequences as f64 / batch.rows.max(1) as f64,
        batch.masked,
        batch.residues,
        share(batch.input_tokens, &batch.input_ids),
        share(batch.target_tokens, &batch.labels),
    );
    text
}

/// A number of things, in words.
fn amount(number: usize, thing: &str) -> String {
    match number {
        1 => format!("1 {thing}"),
        _ => format!("{number} {thing}s"),
    }
}

#[cfg(test)]
mod tests {
    use ankh_data::{
        BatchConfig, Batches, Dataset, HostShard, Mixture, Objective, Packing, Tokenizer,
    };

    use super::*;

    const SEQUENCES: [&str; 5] = [
        "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ",
        "MVLSPADKTNVKAAW",
        "GKVGAHAGEYGAEAL",
        "ERMFLSF",
        "PTTKTYFPHFDLSH",
    ];

    fn batch(packing: Packing) -> Batch {
        let tokenizer = Tokenizer::ankh();
        let dataset = Dataset::from_sequences(tokenizer, SEQUENCES);
        let plan = BatchConfig {
            global_batch: 3,
            input_length: 48,
            target_length: 40,
            packing,
            ..BatchConfig::default()
        };
        let mixture = Mixture::one(dataset, Objective::default());
        let batches = Batches::new(mixture, plan, HostShard::all(), 1).unwrap();
        batches.batch(0).unwrap()
    }

    fn listing(paint: Paint, width: Option<usize>) -> Listing {
        Listing {
            tokenizer: Tokenizer::ankh(),
            components: vec![],
            paint,
            width,
        }
    }

    /// The text without escape sequences.
    fn stripped(text: &str) -> String {
        let mut parts = text.split('\x1b');
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |text, part| {
            text + part.split_once('m').map_or("", |(_, rest)| rest)
        })
    }

    #[test]
    fn every_sequence_of_every_row_is_spelled_out() {
        for rows in [Packing::Padded, Packing::Packed] {
            let batch = batch(rows);
            let text = listing(Paint::Plain, None).of(&batch);
            let lines = |title: &str| {
                let of_title = text.lines().filter(|l| l.trim_start().starts_with(title));
                of_title.map(str::to_owned).collect::<Vec<String>>()
            };
            let (inputs, targets) = (lines("input"), lines("target"));
            assert_eq!(inputs.len(), batch.examples.len(), "{text}");
            assert_eq!(targets.len(), batch.examples.len(), "{text}");
            for (input, &example) in inputs.iter().zip(&batch.examples) {
                assert!(input.ends_with("</s>") && input.contains("<0>"), "{input}");
                // What is not masked stands as it is.
                let start = &SEQUENCES[example as usize][..1];
                let shown = input.trim_start()["input".len()..].trim_start();
                assert!(
                    shown.starts_with(start) || shown.starts_with('<'),
                    "{input}"
                );
            }
            assert_eq!(lines("row").len(), batch.rows, "{text}");
        }
    }

    #[test]
    fn a_packed_row_is_drawn_segment_by_segment() {
        let batch = batch(Packing::Packed);
        let several = batch.segments.iter().position(|&n| n > 1).unwrap();
        let text = listing(Paint::Plain, None).of(&batch);
        let row = text
            .lines()
            .filter(|line| line.starts_with("  row"))
            .nth(several);
        let row = row.unwrap();
        assert!(row.contains("12"), "{row}");
        assert!(text.starts_with("step 0, epoch 0: 3 rows of "), "{text}");
    }

    #[test]
    fn colours_change_no_letter() {
        let batch = batch(Packing::Packed);
        for width in [None, Some(40)] {
            let plain = listing(Paint::Plain, width).of(&batch);
            let painted = listing(Paint::Colours, width).of(&batch);
            assert!(!plain.contains('\x1b') && painted.contains('\x1b'));
            assert_eq!(stripped(&painted), plain);
        }
    }

    #[test]
    fn long_lines_are_broken_between_tokens() {
        let batch = batch(Packing::Packed);
        let whole = listing(Paint::Plain, None).of(&batch);
        let broken = listing(Paint::Plain, Some(40)).of(&batch);
        let tokens = |text: &str| {
            let of_tokens = text.lines().filter(|line| line.starts_with("      "));
            let of_tokens = of_tokens.map(|line| line[MARGIN..].to_owned());
            of_tokens.collect::<Vec<String>>()
        };
        assert!(tokens(&broken).len() > tokens(&whole).len());
        assert_eq!(tokens(&broken).concat(), tokens(&whole).concat());
        for line in tokens(&broken) {
            assert!(MARGIN + line.len() <= 40, "{line}");
            assert_eq!(
                line.matches('<').count(),
                line.matches('>').count(),
                "{line}"
            );
        }
    }
}
