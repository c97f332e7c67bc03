//! The numbers of a run in memory: one column for each quantity, one row for each logged step.
//!
//! A million rows take some 70 MB. Lines are parsed on all cores, since a file of a million lines
//! holds some 400 MB.

use std::thread;

use memchr::memchr;
use serde_json::Value;

/// What a run logs of its steps, in the order of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// Training loss.
    Loss,
    /// Held-out loss.
    ValidationLoss,
    /// Share of the training targets predicted first.
    Accuracy,
    /// The same of held-out targets.
    ValidationAccuracy,
    /// The rate of the optimizer.
    LearningRate,
    /// Norm of all gradients.
    GradNorm,
    /// Updates that were skipped.
    SkippedUpdates,
    /// Tokens per second.
    TokensPerSecond,
    /// Sequences per second.
    ExamplesPerSecond,
    /// Wall time per step.
    StepSeconds,
    /// Model FLOPs utilization.
    Mfu,
    /// Share of positions that hold a token.
    PaddingEfficiency,
    /// Share of the process's time that trained.
    Goodput,
    /// Wall time per step spent waiting for a batch.
    DataWaitSeconds,
}

impl Quantity {
    /// All of them.
    pub const ALL: [Quantity; 14] = [
        Self::Loss,
        Self::ValidationLoss,
        Self::Accuracy,
        Self::ValidationAccuracy,
        Self::LearningRate,
        Self::GradNorm,
        Self::SkippedUpdates,
        Self::TokensPerSecond,
        Self::ExamplesPerSecond,
        Self::StepSeconds,
        Self::Mfu,
        Self::PaddingEfficiency,
        Self::Goodput,
        Self::DataWaitSeconds,
    ];

    /// Those that vary around a middle value.
    pub const RATES: [Quantity; 5] = [
        Self::TokensPerSecond,
        Self::ExamplesPerSecond,
        Self::StepSeconds,
        Self::Mfu,
        Self::PaddingEfficiency,
    ];

    /// Its name in `metrics.jsonl`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Loss => "loss",
            Self::ValidationLoss => "validation_loss",
            Self::Accuracy => "accuracy",
            Self::ValidationAccuracy => "validation_accuracy",
            Self::LearningRate => "learning_rate",
            Self::GradNorm => "grad_norm",
            Self::SkippedUpdates => "skipped_updates",
            Self::TokensPerSecond => "tokens_per_second",
            Self::ExamplesPerSecond => "examples_per_second",
            Self::StepSeconds => "step_seconds",
            Self::Mfu => "mfu",
            Self::PaddingEfficiency => "padding_efficiency",
            Self::Goodput => "goodput",
            Self::DataWaitSeconds => "data_wait_seconds",
        }
    }
}

/// What a field of a line is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Step,
    Epoch,
    Residues,
    Value(Quantity),
    Other,
}

impl Field {
    fn named(name: &[u8]) -> Field {
        let named = |quantity: &Quantity| quantity.name().as_bytes() == name;
        match name {
            b"step" => Field::Step,
            b"epoch" => Field::Epoch,
            b"residues" => Field::Residues,
            _ => match Quantity::ALL.into_iter().find(named) {
                Some(quantity) => Field::Value(quantity),
                None => Field::Other,
            },
        }
    }
}

/// A line of `metrics.jsonl`, of this version or an earlier one. All but the step may be missing.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Line {
    step: Option<u64>,
    epoch: Option<u64>,
    residues: Option<u64>,
    /// NaN where there is none.
    values: [f32; Quantity::ALL.len()],
}

impl Line {
    const EMPTY: Line = Line {
        step: None,
        epoch: None,
        residues: None,
        values: [f32::NAN; Quantity::ALL.len()],
    };

    /// From any JSON object. What is no number counts as missing.
    fn of_json(line: &[u8]) -> Option<Line> {
        let fields: serde_json::Map<String, Value> = serde_json::from_slice(line).ok()?;
        let mut line = Line::EMPTY;
        for (name, value) in &fields {
            match Field::named(name.as_bytes()) {
                Field::Step => line.step = value.as_u64(),
                Field::Epoch => line.epoch = value.as_u64(),
                Field::Residues => line.residues = value.as_u64(),
                Field::Value(quantity) => line.set(quantity, value.as_f64()),
                Field::Other => {}
            }
        }
        Some(line)
    }

    fn set(&mut self, quantity: Quantity, value: Option<f64>) {
        self.values[quantity as usize] = value.map_or(f32::NAN, |value| value as f32);
    }
}

/// Reads lines in the form that training writes them: one object of numbers and nulls, without a
/// space. That is several times as quick as reading any JSON, and a long run has a million lines.
#[derive(Default)]
struct Quick {
    /// The fields of the line before, in their order: the next line has the same.
    names: Vec<(Vec<u8>, Field)>,
}

impl Quick {
    /// Nothing of a line in another form.
    fn read(&mut self, line: &[u8]) -> Option<Line> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let mut rest = line.strip_prefix(b"{")?.strip_suffix(b"}")?;
        let mut read = Line::EMPTY;
        for place in 0.. {
            rest = rest.strip_prefix(b"\"")?;
            let field = self.field(place, &mut rest)?;
            let end = memchr(b',', rest);
            let number = &rest[..end.unwrap_or(rest.len())];
            let digits = |byte: u8| byte.is_ascii_digit() || b"+-.eE".contains(&byte);
            if number != b"null" && field != Field::Other {
                let number = std::str::from_utf8(number).ok()?;
                match field {
                    Field::Step => read.step = Some(number.parse().ok()?),
                    Field::Epoch => read.epoch = Some(number.parse().ok()?),
                    Field::Residues => read.residues = Some(number.parse().ok()?),
                    Field::Value(quantity) => {
                        read.values[quantity as usize] = number.parse().ok()?;
                    }
                    Field::Other => {}
                }
            } else if number != b"null" && !number.iter().all(|&byte| digits(byte)) {
                return None;
            }
            match end {
                Some(end) => rest = &rest[end + 1..],
                None => break,
            }
        }
        Some(read)
    }

    /// The field whose name `rest` begins with, which is taken off.
    fn field(&mut self, place: usize, rest: &mut &[u8]) -> Option<Field> {
        if let Some((name, field)) = self.names.get(place)
            && let Some(after) = rest.strip_prefix(name.as_slice())
            && let Some(after) = after.strip_prefix(b"\":")
        {
            *rest = after;
            return Some(*field);
        }
        let end = memchr(b'"', rest)?;
        let name = &rest[..end];
        if name.contains(&b'\\') {
            return None;
        }
        let field = Field::named(name);
        self.names.truncate(place);
        self.names.push((name.to_vec(), field));
        *rest = rest[end..].strip_prefix(b"\":")?;
        Some(field)
    }
}

/// The rows of a run, their steps in rising order.
#[derive(Debug, Default)]
pub struct Columns {
    steps: Vec<u64>,
    residues: Vec<u64>,
    hours: Vec<f64>,
    /// For each quantity its value in each row, NaN where there is none; shorter than the rows
    /// where there is none in the last ones.
    values: [Vec<f32>; Quantity::ALL.len()],
    epoch: Option<u64>,
    unreadable: u64,
}

impl Columns {
    /// Adds whole lines. A line of an earlier step takes the place of all from that step on; one
    /// that cannot be read is counted.
    pub fn extend(&mut self, lines: &[u8]) {
        for part in parse(lines) {
            for line in part {
                match line {
                    Some((step, line)) => self.push(step, &line),
                    None => self.unreadable += 1,
                }
            }
        }
    }

    fn push(&mut self, step: u64, line: &Line) {
        if self.steps.last().is_some_and(|last| *last >= step) {
            self.truncate(self.steps.partition_point(|earlier| *earlier < step));
        }
        let (before, hours) = match (self.steps.last(), self.hours.last()) {
            (Some(step), Some(hours)) => (*step, *hours),
            _ => (0, 0.0),
        };
        let seconds = line.values[Quantity::StepSeconds as usize];
        let seconds = if seconds.is_finite() { seconds } else { 0.0 };
        let seconds = f64::from(seconds) * (step - before) as f64;
        let residues = self.residues.last().copied().unwrap_or(0);
        let row = self.steps.len();
        self.steps.push(step);
        self.residues.push(line.residues.unwrap_or(residues));
        self.hours.push(hours + seconds / 3600.0);
        self.epoch = line.epoch.or(self.epoch);
        for (column, value) in self.values.iter_mut().zip(line.values) {
            if value.is_finite() {
                if column.len() < row {
                    column.resize(row, f32::NAN);
                }
                column.push(value);
            }
        }
    }

    fn truncate(&mut self, rows: usize) {
        self.steps.truncate(rows);
        self.residues.truncate(rows);
        self.hours.truncate(rows);
        self.values.iter_mut().for_each(|v| v.truncate(rows));
    }

    /// The step of each row.
    pub fn steps(&self) -> &[u64] {
        &self.steps
    }

    /// Residues shown up to each row.
    pub fn residues(&self) -> &[u64] {
        &self.residues
    }

    /// Hours of training up to each row: the sum of what its steps took.
    pub fn hours(&self) -> &[f64] {
        &self.hours
    }

    /// A quantity in each row, NaN where it is not known; there may be fewer than rows.
    pub fn values(&self, quantity: Quantity) -> &[f32] {
        &self.values[quantity as usize]
    }

    /// The steps and values of the rows that have one.
    pub fn known(&self, quantity: Quantity) -> impl DoubleEndedIterator<Item = (u64, f32)> {
        let values = self.values(quantity).iter().zip(&self.steps);
        values
            .filter(|(value, _)| !value.is_nan())
            .map(|(value, step)| (*step, *value))
    }

    /// The middle of the values of a quantity.
    pub fn median(&self, quantity: Quantity) -> Option<f32> {
        let values = self.values(quantity).iter().copied();
        let mut known: Vec<f32> = values.filter(|value| !value.is_nan()).collect();
        let middle = known.len() / 2;
        (!known.is_empty()).then(|| *known.select_nth_unstable_by(middle, f32::total_cmp).1)
    }

    /// The pass over the data that the last row belongs to.
    pub fn epoch(&self) -> Option<u64> {
        self.epoch
    }

    /// Lines that could not be read.
    pub fn unreadable(&self) -> u64 {
        self.unreadable
    }
}

/// Lines with their steps, in order; nothing for one that cannot be read.
fn parse(lines: &[u8]) -> Vec<Vec<Option<(u64, Line)>>> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    // Starting a thread is not worth less.
    let parts = (lines.len() / (256 << 10)).clamp(1, cores);
    let mut ends: Vec<usize> = (1..parts)
        .map(|part| {
            let at = part * lines.len() / parts;
            let end = lines[at..].iter().position(|&byte| byte == b'\n');
            end.map_or(lines.len(), |end| at + end + 1)
        })
        .collect();
    ends.push(lines.len());
    let mut start = 0;
    thread::scope(|scope| {
        let threads: Vec<_> = ends
            .into_iter()
            .map(|end| {
                let part = &lines[start..end.max(start)];
                start = end.max(start);
                scope.spawn(move || parse_part(part))
            })
            .collect();
        let parsed = threads.into_iter().map(|thread| thread.join());
        // Nothing in it panics.
        parsed.map(Result::unwrap_or_default).collect()
    })
}

fn parse_part(lines: &[u8]) -> Vec<Option<(u64, Line)>> {
    let mut quick = Quick::default();
    let mut parse = |line: &[u8]| {
        let line = quick.read(line).or_else(|| Line::of_json(line))?;
        Some((line.step?, line))
    };
    let mut parsed = Vec::with_capacity(lines.len() / 400);
    let mut rest = lines;
    while let Some(end) = memchr(b'\n', rest) {
        parsed.push(parse(&rest[..=end]));
        rest = &rest[end + 1..];
    }
    parsed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(step: u64) -> String {
        format!(
            "{{\"step\":{step},\"epoch\":{},\"residues\":{},\"loss\":{},\"step_seconds\":36.0}}\n",
            step / 10,
            100 * step,
            1.0 / step as f64
        )
    }

    fn lines(steps: impl IntoIterator<Item = u64>) -> String {
        steps.into_iter().map(line).collect()
    }

    #[test]
    fn lines_become_rows_whatever_the_cores_and_the_parts() {
        // Long enough for several threads.
        let text = lines(1..=20_000);
        let mut whole = Columns::default();
        whole.extend(text.as_bytes());
        let mut parts = Columns::default();
        for part in text.split_inclusive('\n').collect::<Vec<_>>().chunks(777) {
            parts.extend(part.concat().as_bytes());
        }
        assert_eq!(whole.steps(), (1..=20_000).collect::<Vec<_>>());
        assert_eq!(whole.steps(), parts.steps());
        assert_eq!(whole.hours(), parts.hours());
        assert_eq!(whole.values(Quantity::Loss), parts.values(Quantity::Loss));
        assert!((whole.hours()[9] - 0.1).abs() < 1e-9);
        assert_eq!(whole.epoch(), Some(2000));
    }

    #[test]
    fn the_quick_way_reads_what_json_says_or_leaves_it() {
        let mut quick = Quick::default();
        for (line, is_quick) in [
            (line(7).as_str(), true),
            ("{\"step\":3,\"loss\":1e-3,\"mfu\":null,\"new\":2}\n", true),
            ("{\"step\":4,\"loss\":-2.5E+1}\n", true),
            ("{\"loss\":2,\"step\":5}", true),
            ("{\"step\":4, \"loss\":2}\n", false),
            ("{\"step\":4,\"new\":[1,2],\"loss\":2}\n", false),
            ("{\"step\":4,\"new\":\"a,b\",\"loss\":2}\n", false),
            ("{\"step\":4,\"lo\\u0073s\":2}\n", false),
            ("{\"step\":4,\"loss\":\"2\"}\n", false),
        ] {
            let read = quick.read(line.as_bytes());
            assert_eq!(read.is_some(), is_quick, "{line}");
            let json = Line::of_json(line.as_bytes()).unwrap();
            let comparable = |line: Line| (line.step, line.residues, line.values.map(f32::to_bits));
            if let Some(read) = read {
                assert_eq!(comparable(read), comparable(json), "{line}");
            }
        }
        for torn in [
            "",
            "{",
            "{}\n",
            "{\"step\":4,\"loss\n",
            "{\"step\":4,\"loss\":}\n",
            "{\"step\":4",
        ] {
            assert_eq!(quick.read(torn.as_bytes()), None, "{torn}");
        }
    }

    #[test]
    fn an_earlier_step_takes_the_place_of_all_that_follow_it() {
        let mut columns = Columns::default();
        columns.extend(lines((1..=9).chain(5..=6)).as_bytes());
        assert_eq!(columns.steps(), [1, 2, 3, 4, 5, 6]);
        assert_eq!(columns.values(Quantity::Loss).len(), 6);
        assert!((columns.hours()[5] - 0.06).abs() < 1e-9);
    }

    #[test]
    fn what_is_missing_unknown_or_damaged_does_not_stop_the_reader() {
        let text = concat!(
            "{\"step\":1,\"loss\":null,\"other\":{\"deep\":[1]},\"mfu\":0.5}\n",
            "{\"step\":2,\"lo\u{0}\n",
            "\n",
            "{\"loss\":3}\n",
            "{\"step\":4,\"loss\":3,\"validation_loss\":2.5}\n",
            "{\"step\":5}\n",
        );
        let mut columns = Columns::default();
        columns.extend(text.as_bytes());
        assert_eq!(columns.steps(), [1, 4, 5]);
        assert_eq!(columns.unreadable(), 3);
        let known = |quantity| columns.known(quantity).collect::<Vec<_>>();
        assert_eq!(known(Quantity::Loss), [(4, 3.0)]);
        assert_eq!(known(Quantity::Mfu), [(1, 0.5)]);
        assert_eq!(known(Quantity::ValidationLoss), [(4, 2.5)]);
        assert_eq!(known(Quantity::Goodput), []);
        assert_eq!(columns.median(Quantity::Goodput), None);
    }
}
