//! The logs of all hosts as one, by time.

/// A line of a host's log.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// When it was written, in seconds since 1970.
    pub at: f64,
    /// The host's number.
    pub host: usize,
    /// What it says.
    pub text: String,
}

/// Which lines are wanted.
#[derive(Clone, Copy, Debug)]
pub struct LogOptions {
    /// At most so many of each host, the last ones.
    pub lines: usize,
    /// Whether those that come later are wanted too.
    pub following: Following,
}

/// Whether lines are wanted that come later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Following {
    /// Until the run has ended.
    UntilTheEnd,
    /// Only those that are there.
    Not,
}

/// What a look at the logs finds.
pub(crate) struct Look {
    /// The last lines of all hosts, by time.
    pub lines: Vec<Line>,
    /// Whether the run has ended, so that no others come.
    pub is_last: bool,
}

impl Line {
    /// A line as `run.sh` writes it: seconds, a space, the text.
    fn parse(host: usize, line: &str) -> Option<Line> {
        let (at, text) = line.split_once(' ').unwrap_or((line, ""));
        Some(Line {
            at: at.parse().ok()?,
            host,
            text: text.to_owned(),
        })
    }
}

/// The lines of the logs of some hosts in the order in which they were written. Those of one host
/// stay in their order.
pub(crate) fn merged(logs: &[(usize, String)]) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for (host, log) in logs {
        let mut latest = 0.0;
        for mut line in log.lines().filter_map(|line| Line::parse(*host, line)) {
            // A clock that was set back does not change the order.
            latest = f64::max(latest, line.at);
            line.at = latest;
            lines.push(line);
        }
    }
    lines.sort_by(|a, b| a.at.total_cmp(&b.at));
    lines
}

/// Keeps of what is merged what has not been shown: of each host, the lines behind those that it
/// showed last.
#[derive(Debug, Default)]
pub(crate) struct Shown(std::collections::BTreeMap<usize, (f64, usize)>);

impl Shown {
    /// The lines that are new.
    pub fn only_new(&mut self, lines: Vec<Line>) -> Vec<Line> {
        let before = self.0.clone();
        let mut counted: std::collections::BTreeMap<usize, (f64, usize)> = Default::default();
        let is_new = |line: &Line| {
            // Lines of one moment are counted.
            let count = counted.entry(line.host).or_insert((line.at, 0));
            *count = match count.0 == line.at {
                true => (line.at, count.1 + 1),
                false => (line.at, 1),
            };
            match before.get(&line.host) {
                Some(last) => (line.at, count.1) > *last,
                None => true,
            }
        };
        let new: Vec<Line> = lines.into_iter().filter(is_new).collect();
        for (host, last) in counted {
            let known = self.0.entry(host).or_insert(last);
            if last > *known {
                *known = last;
            }
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_all_hosts_come_by_time_and_none_twice() {
        let logs = [
            (0, "10.5 a\n10.5 b\n12.0 c\n".to_owned()),
            (1, "10.1 x\nno time\n11.0 y z\n".to_owned()),
        ];
        let texts = |lines: &[Line]| -> Vec<String> {
            lines
                .iter()
                .map(|line| format!("{} {}", line.host, line.text))
                .collect()
        };
        let mut shown = Shown::default();
        let first = shown.only_new(merged(&logs));
        assert_eq!(texts(&first), ["1 x", "0 a", "0 b", "1 y z", "0 c"]);
        let more = [
            (0, "10.5 b\n12.0 c\n12.0 d\n".to_owned()),
            (1, "10.1 x\n11.0 y z\n13 w\n".to_owned()),
        ];
        assert_eq!(texts(&shown.only_new(merged(&more))), ["0 d", "1 w"]);
        assert!(shown.only_new(merged(&more)).is_empty());
    }
}
