//! Results on standard output.

use std::io::{self, Write};

use serde::Serialize;

use super::{CliError, Exit};

/// Prints one JSON object and a line end.
pub(super) fn json(value: &impl Serialize) -> Result<(), CliError> {
    let line = serde_json::to_string(value).map_err(CliError::failed)?;
    line_of(&line)
}

/// Prints a line.
pub(super) fn line_of(line: &str) -> Result<(), CliError> {
    written(writeln!(io::stdout().lock(), "{line}"))
}

/// What came of writing to standard output.
pub(super) fn written(result: io::Result<()>) -> Result<(), CliError> {
    result.map_err(|error| match error.kind() {
        // The reader has seen enough, as `head` has.
        io::ErrorKind::BrokenPipe => CliError::new(Exit::Done, error),
        _ => CliError::failed(error),
    })
}

/// A count with separators: 45,000,000.
pub(super) fn count(number: u64) -> String {
    indicatif::HumanCount(number).to_string()
}

/// Bytes in the unit that leaves one to four digits before the point.
pub(super) fn bytes(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_grouped_in_threes() {
        let cases = [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (45_123_456, "45,123,456"),
        ];
        for (number, text) in cases {
            assert_eq!(count(number), text);
        }
    }
}
