//! The report as one file that needs nothing else: a table, and the entropy of each column as SVG.

use std::fmt::Write;

use super::measures::Range;
use super::report::{Kind, PAPER, Report, Setting};

const STYLE: &str = "\
body{font:14px system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#24292f;background:#fff}\
table{border-collapse:collapse}td,th{padding:.25rem .75rem;text-align:right;border-bottom:1px solid #d0d7de}\
td:first-child,th:first-child{text-align:left;white-space:nowrap}.scroll{overflow-x:auto}\
svg{display:block;width:100%;font:12px system-ui,sans-serif}text{fill:currentColor}\
.end{text-anchor:end}.middle{text-anchor:middle}.grid{stroke:#d0d7de}\
.natural{fill:#4c8fd6}.given{fill:#8b949e;opacity:.25}.generated{fill:none;stroke:#c2571a;stroke-width:1.5}\
.dot{fill:#c2571a}\
@media(prefers-color-scheme:dark){body{color:#e6edf3;background:#0d1117}td,th{border-color:#30363d}\
.grid{stroke:#30363d}.natural{fill:#3f7fc4}.generated{stroke:#f0883e}.dot{fill:#f0883e}}";

/// The plot, in its own units.
const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 40.0;
const RIGHT: f64 = 990.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 185.0;

/// The most that an entropy of twenty amino acids can be, in nats, rounded up.
const MOST: f64 = 3.0;

/// The page.
pub fn page(report: &Report) -> String {
    let mut html = String::from("<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n");
    let title = match report.kind {
        Kind::HighN => "High-N variants",
        Kind::OneN => "One-N variants",
    };
    let wild_type = escaped(&report.wild_type);
    // Writing to a string cannot fail, here and below.
    let _ = write!(
        html,
        "<meta name=\"viewport\" content=\"width=device-width\">\n<title>{title} of {wild_type}</title>\n\
         <style>{STYLE}</style>\n<h1>{title} of {wild_type}</h1>\n"
    );
    if let Some(family) = &report.family {
        let _ = writeln!(
            html,
            "<p>Beside {} natural sequences of {}, in {} of its {} columns. Generated sequences \
             were placed in them by the aligner {}.</p>",
            family.sequences,
            escaped(&family.path.display().to_string()),
            family.kept,
            family.columns,
            family.aligner
        );
    }
    html += &table(report);
    let _ = writeln!(
        html,
        "<p>The paper, High-N on malate dehydrogenases: entropy error {} at temperatures 1.0, 1.5 \
         and 2.0, in a unit that it does not say; more than {} distinct.</p>",
        PAPER
            .entropy_error
            .map(|error| format!("{error:.2}"))
            .join(", "),
        percent(PAPER.unique_share)
    );
    for setting in &report.settings {
        let _ = writeln!(html, "<h2>{}</h2>", name(setting));
        html += &plot(report, setting);
    }
    html + "</html>\n"
}

fn name(setting: &Setting) -> String {
    let mask = setting
        .mask
        .map(|mask| format!("{} hidden, ", percent(mask)));
    format!(
        "{}temperature {:?}",
        mask.unwrap_or_default(),
        setting.temperature
    )
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

fn table(report: &Report) -> String {
    let mut html = String::from(
        "<div class=\"scroll\"><table><tr><th>setting<th>sequences<th>distinct\
         <th>not natural<th>identity to the wild type<th>where generated<th>to the nearest natural\
         <th>entropy error, nats&sup2;<th>bits&sup2;<th>correlation</tr>\n",
    );
    let mean = |range: Option<Range>| range.map_or("".to_owned(), |range| percent(range.mean));
    let number = |value: Option<f64>| value.map_or("".to_owned(), |value| format!("{value:.3}"));
    for setting in &report.settings {
        let error = setting.entropy_error;
        let cells = [
            setting.sequences.to_string(),
            percent(setting.unique_share),
            percent(setting.novel_share),
            mean(setting.identity_to_wild_type),
            mean(setting.identity_where_generated),
            mean(setting.identity_to_nearest),
            number(error.and_then(|error| error.mean_squared_error)),
            number(error.and_then(|error| error.mean_squared_error_in_bits)),
            number(error.and_then(|error| error.correlation)),
        ];
        let _ = writeln!(
            html,
            "<tr><td>{}<td>{}</tr>",
            name(setting),
            cells.join("<td>")
        );
    }
    html + "</table></div>\n<p>Identities are means. Entropy errors leave out the columns that the \
            model was given.</p>\n"
}

/// The entropy of each column: bars of the family, a line of what was generated.
fn plot(report: &Report, setting: &Setting) -> String {
    let columns = report.columns.len();
    let width = (RIGHT - LEFT) / columns as f64;
    let x = |column: usize| LEFT + width * column as f64;
    let y = |entropy: f64| BOTTOM - (BOTTOM - TOP) * entropy / MOST;
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"entropy of each column, {}\">\n",
        name(setting)
    );
    for entropy in [0.0, 1.0, 2.0, 3.0] {
        let y = y(entropy);
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text class=\"end\" x=\"{}\" y=\"{:.1}\">{entropy:.0}</text>",
            LEFT - 6.0,
            y + 4.0
        );
    }
    let every = columns.div_ceil(12).next_multiple_of(5);
    let mut line = String::new();
    for (index, column) in report.columns.iter().enumerate() {
        let (left, middle) = (x(index), x(index) + width / 2.0);
        if setting.given[index] {
            let _ = write!(
                svg,
                "<rect class=\"given\" x=\"{left:.1}\" y=\"{TOP}\" width=\"{width:.1}\" height=\"{:.1}\"/>",
                BOTTOM - TOP
            );
        }
        let generated = setting.entropies[index];
        let shown = |value: Option<f64>| value.map_or("none".into(), |value| format!("{value:.2}"));
        let tip = format!(
            "column {}{}: natural {}, generated {}",
            column.column,
            column
                .residue
                .map(|residue| format!(" {residue}"))
                .unwrap_or_default(),
            shown(column.entropy),
            shown(generated)
        );
        if let Some(entropy) = column.entropy {
            let _ = write!(
                svg,
                "<rect class=\"natural\" x=\"{left:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\">\
                 <title>{tip}</title></rect>",
                y(entropy),
                0.8 * width,
                BOTTOM - y(entropy)
            );
        }
        match generated {
            Some(entropy) => {
                let command = if line.is_empty() || line.ends_with(' ') {
                    'M'
                } else {
                    'L'
                };
                let _ = write!(line, "{command}{middle:.1},{:.1}", y(entropy));
                let _ = writeln!(
                    svg,
                    "<circle class=\"dot\" cx=\"{middle:.1}\" cy=\"{:.1}\" r=\"2\"><title>{tip}</title></circle>",
                    y(entropy)
                );
            }
            None => line.push(' '),
        }
        if column.column % every == 0 {
            let _ = write!(
                svg,
                "<text class=\"middle\" x=\"{middle:.1}\" y=\"{:.1}\">{}</text>",
                BOTTOM + 16.0,
                column.column
            );
        }
    }
    let _ = write!(
        svg,
        "<path class=\"generated\" d=\"{line}\"/>\
         <text x=\"{LEFT}\" y=\"{:.1}\">nats: bars natural, line generated, shaded where the model was given the residue</text>\n</svg>\n",
        HEIGHT - 4.0
    );
    svg
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_bring_markup_in() {
        assert_eq!(escaped("<b>&"), "&lt;b&gt;&amp;");
    }
}
