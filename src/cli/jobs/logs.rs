//! `pretrain logs`: the logs of all hosts of a job, by time.

use std::io::{IsTerminal, Write, stdout};

use ankh_jobs::{Error, Following, Line, Live, LogOptions};
use clap::Args;

use super::{desk, recorded, records};
use crate::cli::{CliError, Exit};
use crate::telemetry::print_line;

/// Print the logs of all hosts of a job, merged by time.
#[derive(Args)]
#[command(after_help = "Example:\n  pretrain logs large --follow")]
pub(in crate::cli) struct LogsArgs {
    /// The job.
    #[arg(value_name = "NAME")]
    name: String,
    /// Go on with what is written until the run has ended.
    #[arg(long, short)]
    follow: bool,
    /// The lines of each host to begin with.
    #[arg(long, value_name = "N", default_value_t = 200)]
    lines: usize,
}

/// Colors that can be told apart on dark and on light.
const COLORS: [u8; 8] = [33, 208, 35, 170, 37, 160, 136, 99];

pub(in crate::cli) fn run(arguments: LogsArgs) -> Result<Exit, CliError> {
    let records = records()?;
    let job = recorded(&records, &arguments.name)?;
    let options = LogOptions {
        lines: arguments.lines,
        following: match arguments.follow {
            true => Following::UntilTheEnd,
            false => Following::Not,
        },
    };
    let color = stdout().is_terminal();
    let live = Live(print_line);
    let shown = desk(&live, &records)?.logs(&job, options, |lines| {
        let mut out = stdout().lock();
        let text: String = lines.iter().map(|line| shown(line, color)).collect();
        out.write_all(text.as_bytes())
            .and_then(|()| out.flush())
            .map_err(Error::Output)
    });
    match shown {
        // The reader has seen enough, as `head` has.
        Err(Error::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            Ok(Exit::Done)
        }
        shown => Ok(shown.map(|()| Exit::Done)?),
    }
}

/// A line as it is shown, with its end.
fn shown(line: &Line, color: bool) -> String {
    // A log does not steer the terminal.
    let text: String = line
        .text
        .chars()
        .filter(|c| !c.is_control() || *c == '\t')
        .collect();
    let host = format!("host {} |", line.host);
    match color {
        true => {
            let color = COLORS[line.host % COLORS.len()];
            format!("\x1b[38;5;{color}m{host}\x1b[0m {text}\n")
        }
        false => format!("{host} {text}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_does_not_steer_the_terminal() {
        let line = Line {
            at: 1.0,
            host: 9,
            text: "step\x1b[2J 1\t2".into(),
        };
        assert_eq!(shown(&line, false), "host 9 | step[2J 1\t2\n");
        assert_eq!(
            shown(&line, true),
            "\x1b[38;5;208mhost 9 |\x1b[0m step[2J 1\t2\n"
        );
    }
}
