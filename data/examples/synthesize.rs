//! Writes made-up proteins in the shape of UniRef50 as FASTA, to measure with.
//!
//!     cargo run --example synthesize -- --records 1000000 --seed 1 --output uniref50.fasta

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use ankh_data::synthetic::Records;

const USAGE: &str =
    "usage: synthesize --records N [--seed S] [--duplicates SHARE] [--output FILE|-]";
/// Bytes written at once.
const BUFFER: usize = 1 << 20;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let (mut count, mut seed, mut duplicates, mut output) = (None, 0, 0.0, "-".to_string());
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or(USAGE)?;
        let wrong = || format!("{name} {value:?} is not what it must be\n{USAGE}");
        match name.as_str() {
            "--records" => count = Some(value.parse::<u64>().map_err(|_| wrong())?),
            "--seed" => seed = value.parse::<u64>().map_err(|_| wrong())?,
            "--duplicates" => {
                let share = value.parse::<f64>().ok();
                let share = share.filter(|share| (0.0..=1.0).contains(share));
                duplicates = share.ok_or_else(wrong)?;
            }
            "--output" => output = value,
            _ => return Err(format!("there is no {name}\n{USAGE}")),
        }
    }
    let count = count.ok_or(USAGE)?;
    let written = match output.as_str() {
        "-" => write(count, seed, duplicates, io::stdout().lock()),
        path => File::create(path).and_then(|file| write(count, seed, duplicates, file)),
    };
    match written {
        // Whoever read it has enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(|error| format!("cannot write {output}: {error}")),
    }
}

fn write(count: u64, seed: u64, duplicates: f64, mut output: impl Write) -> io::Result<()> {
    let records = Records::new(seed).with_duplicates(duplicates);
    let mut text = Vec::with_capacity(2 * BUFFER);
    for number in 0..count {
        records.fasta(number, &mut text);
        if text.len() >= BUFFER {
            output.write_all(&text)?;
            text.clear();
        }
    }
    output.write_all(&text)?;
    output.flush()
}
