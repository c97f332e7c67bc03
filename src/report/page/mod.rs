//! The page as one file: markup, style, script and data, with nothing that comes from elsewhere.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::run::Run;
use super::view::{Series, State};

/// The style of the page: the library's, then ours.
pub const STYLE: &str = concat!(
    include_str!("vendor/uPlot.min.css"),
    "\n",
    include_str!("style.css")
);

/// The script of the page: the library, then ours.
pub const SCRIPT: &str = concat!(
    include_str!("vendor/uPlot.iife.min.js"),
    "\n",
    include_str!("format.js"),
    include_str!("source.js"),
    include_str!("charts.js"),
    include_str!("tables.js"),
    include_str!("cards.js"),
    include_str!("app.js"),
);

/// The markup. Names of runs come into it by the script alone.
const MARKUP: &str = include_str!("index.html");

/// Where the markup has what differs between a report and a server's page.
const HEAD: &str = "<!-- head -->";
const TAIL: &str = "<!-- tail -->";

/// The buckets of each chart of a report: two points each, as many as a wide screen has columns.
const BUCKETS: usize = 1000;

/// What a report holds of its runs.
#[derive(Serialize)]
struct Embedded<'r> {
    state: State<'r>,
    series: Vec<Series>,
}

/// A report on runs: a page that needs nothing else.
pub fn report(runs: &[Run]) -> String {
    let each = runs.iter().enumerate();
    let embedded = Embedded {
        state: State::of(runs),
        series: each
            .map(|(id, run)| Series::of(id, run, 0..=u64::MAX, BUCKETS))
            .collect(),
    };
    // Plain structs of numbers and text: serde_json has no way to fail on them.
    let data = serde_json::to_string(&embedded).expect("the data are plain JSON");
    let policy = format!(
        "default-src 'none'; script-src '{}'; style-src '{}'; img-src data:; base-uri 'none'; form-action 'none'",
        source_hash(SCRIPT),
        source_hash(STYLE)
    );
    let head = format!(
        "<meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">\n<style>{STYLE}</style>"
    );
    let tail = format!(
        "<script type=\"application/json\" id=\"data\">{}</script>\n<script>{SCRIPT}</script>",
        in_script(&data)
    );
    MARKUP.replacen(HEAD, &head, 1).replacen(TAIL, &tail, 1)
}

/// The page of a server, which has style and script at these places.
pub fn served(style: &str, script: &str) -> String {
    let head = format!("<link rel=\"stylesheet\" href=\"{style}\">");
    let tail = format!("<script src=\"{script}\"></script>");
    MARKUP.replacen(HEAD, &head, 1).replacen(TAIL, &tail, 1)
}

/// How a policy names an inline script or style: nothing else may run, whatever a file says.
fn source_hash(source: &str) -> String {
    format!("sha256-{}", BASE64_STANDARD.encode(Sha256::digest(source)))
}

/// JSON that can stand in a script element: it has nothing that ends the element or begins a
/// comment, and means the same.
fn in_script(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                safe += &format!("\\u{:04x}", character as u32);
            }
            other => safe.push(other),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_page_refers_to_nothing_outside_and_its_markup_has_room_for_both_forms() {
        for text in [MARKUP, STYLE, SCRIPT] {
            // The library's comment names its home, and a namespace is a name.
            let outside = text
                .split("https://github.com/leeoniya/uPlot")
                .collect::<String>();
            let outside = outside.replace("http://www.w3.org/2000/svg", "");
            for words in [
                "http://",
                "https://",
                "url(",
                "@import",
                "src=\"//",
                "href=\"//",
            ] {
                assert!(!outside.contains(words), "{words}");
            }
        }
        for words in ["</script", "</style"] {
            assert!(!STYLE.contains(words) && !SCRIPT.contains(words));
        }
        let served = served("/a.css", "/b.js");
        assert!(served.contains("href=\"/a.css\"") && served.contains("src=\"/b.js\""));
        assert!(!served.contains(HEAD) && !served.contains(TAIL));
    }

    #[test]
    fn what_runs_are_called_and_say_cannot_leave_the_data() {
        let directory = tempfile::tempdir().unwrap();
        let attack = "</script><img src=x onerror=alert(1)><!--";
        let path = directory.path().join("run");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("metrics.jsonl"), "{\"step\":1,\"loss\":2.0}\n").unwrap();
        let config = format!("[train]\nsteps = 2\nname = \"{attack}\"\n");
        fs::write(path.join("config.toml"), config).unwrap();
        let log = serde_json::json!({
            "timestamp": attack, "level": "WARN", "fields": {"message": attack},
        });
        fs::write(path.join("log.jsonl"), format!("{log}\n")).unwrap();
        let page = report(&[Run::open(&path, attack)]);
        assert!(!page.contains("<img") && !page.contains("alert(1)>"));
        assert_eq!(page.matches("</script>").count(), 2);
        let start = page.find("id=\"data\">").unwrap() + "id=\"data\">".len();
        let end = start + page[start..].find("</script>").unwrap();
        let data: serde_json::Value = serde_json::from_str(&page[start..end]).unwrap();
        let run = &data["state"]["runs"][0];
        assert_eq!(run["name"], attack);
        assert_eq!(run["settings"]["train.name"], attack);
        assert_eq!(run["events"][0]["text"], attack);
    }
}
