//! The report as a picture: how long the sequences are, and which residues they have.
//!
//! SVG written by hand: two panels, readable on light and dark, with nothing to load.

use std::fmt::Write;

use crate::format::{LengthBin, Report};

/// How often the twenty amino acids occur in UniProtKB/Swiss-Prot, in percent, by UniProt's release
/// statistics.
const SWISS_PROT: [(char, f64); 20] = [
    ('L', 9.64),
    ('A', 8.25),
    ('G', 7.07),
    ('V', 6.86),
    ('E', 6.71),
    ('S', 6.65),
    ('I', 5.91),
    ('K', 5.80),
    ('R', 5.52),
    ('D', 5.46),
    ('T', 5.36),
    ('P', 4.74),
    ('N', 4.06),
    ('Q', 3.93),
    ('F', 3.86),
    ('Y', 2.92),
    ('M', 2.41),
    ('H', 2.27),
    ('C', 1.38),
    ('W', 1.10),
];

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 660.0;
/// The panels: the same columns, one above the other.
const LEFT: f64 = 70.0;
const RIGHT: f64 = 890.0;
const LENGTHS: Band = Band {
    top: 70.0,
    bottom: 310.0,
};
const RESIDUES: Band = Band {
    top: 420.0,
    bottom: 610.0,
};

const STYLE: &str = "\
svg{background:#fff;font:13px system-ui,sans-serif}\
text{fill:#24292f}.soft{fill:#57606a}.title{font-size:16px;font-weight:600}\
.end{text-anchor:end}.middle{text-anchor:middle}\
.grid{stroke:#d0d7de;stroke-width:1}.axis{stroke:#57606a;stroke-width:1}\
.bar{fill:#4c8fd6}.line{fill:none;stroke:#c2571a;stroke-width:2}.share{fill:#c2571a}\
.mark{stroke:#c2571a;stroke-width:3}\
@media(prefers-color-scheme:dark){svg{background:#0d1117}text{fill:#e6edf3}.soft{fill:#9198a1}\
.grid{stroke:#30363d}.axis{stroke:#9198a1}.bar{fill:#3f7fc4}.line,.mark{stroke:#f0883e}.share{fill:#f0883e}}";

/// A panel's vertical place.
#[derive(Clone, Copy)]
struct Band {
    top: f64,
    bottom: f64,
}

impl Band {
    /// Where a share of the height lies.
    fn y(self, share: f64) -> f64 {
        self.bottom - share * (self.bottom - self.top)
    }
}

impl Report {
    /// The lengths, with the share of sequences up to each, and the residues beside those of
    /// Swiss-Prot, as an SVG picture.
    pub fn plot(&self) -> String {
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">\
             <style>{STYLE}</style>\n"
        );
        self.plot_lengths(&mut svg);
        self.plot_residues(&mut svg);
        svg += "</svg>\n";
        svg
    }

    fn plot_lengths(&self, svg: &mut String) {
        let band = LENGTHS;
        let bins: Vec<_> = self
            .lengths
            .histogram
            .iter()
            .filter(|bin| bin.rows > 0)
            .collect();
        let (Some(first), Some(last)) = (bins.first(), bins.last()) else {
            return;
        };
        let (from, to) = ((first.from as f64).log2(), ((last.to + 1) as f64).log2());
        let x = |length: u64| LEFT + ((length as f64).log2() - from) / (to - from) * (RIGHT - LEFT);
        let title = format!("{} sequences by length", grouped(self.rows));
        text(svg, LEFT, 30.0, "title", &title);
        text(
            svg,
            LEFT,
            54.0,
            "soft",
            "sequences per eighth of a doubling",
        );
        text(svg, RIGHT, 54.0, "share end", "share up to a length");
        // The bars' widths differ on this axis, so that their areas must be their numbers.
        let height = |bin: &LengthBin| {
            bin.rows as f64 / (8.0 * ((bin.to + 1) as f64 / bin.from as f64).log2())
        };
        let most = bins
            .iter()
            .map(|bin| height(bin))
            .fold(f64::MIN_POSITIVE, f64::max);
        for tick in nice_ticks(most) {
            let y = band.y(tick / most);
            line(svg, "grid", (LEFT, y), (RIGHT, y));
            text(svg, LEFT - 8.0, y + 4.0, "soft end", &short(tick));
        }
        for share in [0.25, 0.5, 0.75, 1.0] {
            let words = format!("{:.0} %", 100.0 * share);
            text(svg, RIGHT + 8.0, band.y(share) + 4.0, "share", &words);
        }
        let (mut sum, mut path) = (0, format!("M{:.1} {:.1}", x(first.from), band.bottom));
        for bin in &bins {
            let (left, right) = (x(bin.from), x(bin.to + 1));
            let (y, gap) = (band.y(height(bin) / most), 1.0);
            let (width, tall) = ((right - left - gap).max(0.5), band.bottom - y);
            let _ = writeln!(
                svg,
                "<rect class=\"bar\" x=\"{left:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{tall:.1}\">\
                 <title>{} to {}: {}</title></rect>",
                bin.from,
                bin.to,
                grouped(bin.rows)
            );
            sum += bin.rows;
            let share = sum as f64 / self.rows.max(1) as f64;
            let _ = write!(path, "L{right:.1} {:.1}", band.y(share));
        }
        let _ = writeln!(svg, "<path class=\"line\" d=\"{path}\"/>");
        line(svg, "axis", (LEFT, band.bottom), (RIGHT, band.bottom));
        let mut length = first.from.next_power_of_two();
        while length <= last.to + 1 {
            let at = x(length);
            line(svg, "axis", (at, band.bottom), (at, band.bottom + 5.0));
            text(svg, at, band.bottom + 20.0, "soft middle", &grouped(length));
            length *= 2;
        }
        let middle = (LEFT + RIGHT) / 2.0;
        text(svg, middle, band.bottom + 42.0, "soft middle", "residues");
    }

    fn plot_residues(&self, svg: &mut String) {
        let band = RESIDUES;
        let total = self.residue_counts.values().sum::<u64>().max(1) as f64;
        let of =
            |letter| 100.0 * self.residue_counts.get(&letter).copied().unwrap_or(0) as f64 / total;
        let others = self.residue_counts.iter();
        let others =
            others.filter(|(letter, _)| SWISS_PROT.iter().all(|(known, _)| known != *letter));
        let mut bars: Vec<(String, f64, Option<f64>)> = SWISS_PROT
            .iter()
            .map(|&(letter, usual)| (letter.to_string(), of(letter), Some(usual)))
            .collect();
        bars.extend(others.map(|(&letter, _)| (letter.to_string(), of(letter), None)));
        let most = bars
            .iter()
            .map(|bar| bar.1.max(bar.2.unwrap_or(0.0)))
            .fold(1.0, f64::max);
        let title = format!("{} residues", grouped(self.residues));
        text(svg, LEFT, band.top - 40.0, "title", &title);
        text(svg, LEFT, band.top - 16.0, "soft", "percent of all");
        text(
            svg,
            RIGHT,
            band.top - 16.0,
            "share end",
            "lines: UniProtKB/Swiss-Prot",
        );
        for tick in nice_ticks(most) {
            let y = band.y(tick / most);
            line(svg, "grid", (LEFT, y), (RIGHT, y));
            text(svg, LEFT - 8.0, y + 4.0, "soft end", &short(tick));
        }
        let step = (RIGHT - LEFT) / bars.len() as f64;
        for (place, (letter, share, usual)) in bars.iter().enumerate() {
            let left = LEFT + place as f64 * step;
            let y = band.y(share / most);
            let (x, width, height) = (left + 0.15 * step, 0.7 * step, band.bottom - y);
            let _ = writeln!(
                svg,
                "<rect class=\"bar\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\">\
                 <title>{letter}: {share:.3} %</title></rect>"
            );
            if let Some(usual) = usual {
                let y = band.y(usual / most);
                line(
                    svg,
                    "mark",
                    (left + 0.05 * step, y),
                    (left + 0.95 * step, y),
                );
            }
            text(svg, left + 0.5 * step, band.bottom + 20.0, "middle", letter);
        }
        line(svg, "axis", (LEFT, band.bottom), (RIGHT, band.bottom));
    }
}

fn text(svg: &mut String, x: f64, y: f64, class: &str, words: &str) {
    // Writing to a string cannot fail; nothing here has letters that XML would need escaped.
    let _ = writeln!(
        svg,
        "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{words}</text>"
    );
}

fn line(svg: &mut String, class: &str, from: (f64, f64), to: (f64, f64)) {
    let ((x1, y1), (x2, y2)) = (from, to);
    let _ = writeln!(
        svg,
        "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
    );
}

/// Two to five round numbers above 0 and up to `most`.
fn nice_ticks(most: f64) -> Vec<f64> {
    let power = 10f64.powf((most / 2.0).log10().floor());
    let step = [5.0, 2.0, 1.0].map(|factor| factor * power);
    let step = step
        .into_iter()
        .find(|step| most / step >= 2.0)
        .unwrap_or(power);
    (1..)
        .map(|i| f64::from(i) * step)
        .take_while(|tick| *tick <= most)
        .collect()
}

/// 1.5 M for 1,500,000.
fn short(number: f64) -> String {
    let (number, unit) = match number {
        1e9.. => (number / 1e9, " G"),
        1e6.. => (number / 1e6, " M"),
        1e3.. => (number / 1e3, " k"),
        _ => (number, ""),
    };
    format!("{}{unit}", (number * 100.0).round() / 100.0)
}

/// 45,000,000.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prepare::residues::Changes;

    #[test]
    fn every_bar_of_the_report_is_drawn() {
        let mut report = Report::default();
        for length in [1, 7, 8, 100, 45_000] {
            report.keep(length, Changes::default());
        }
        report.residue_counts.extend([('A', 3), ('X', 1)]);
        let svg = report.plot();
        assert_eq!(svg.matches("<rect class=\"bar\"").count(), 5 + 21);
        assert!(svg.contains("<title>X: 25.000 %</title>"));
        assert!(svg.contains(">5 sequences by length<"));
        let empty = Report::default().plot();
        assert!(!empty.contains("NaN") && !svg.contains("NaN"));
    }

    #[test]
    fn ticks_are_round_and_few() {
        for most in [0.3, 1.0, 9.6, 10.0, 437.0, 1e6, 3.3e7] {
            let ticks = nice_ticks(most);
            assert!((2..=5).contains(&ticks.len()), "{most}: {ticks:?}");
        }
        assert_eq!(nice_ticks(9.6), [2.0, 4.0, 6.0, 8.0]);
    }
}
