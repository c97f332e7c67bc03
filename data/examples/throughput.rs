//! How fast masked batches come from a prepared directory, and how full they are.
//!
//! `cargo run -p ankh-data --example throughput -- DIRECTORY [padded|packed] [THREADS] [SECONDS]
//! [MEMORY]`: batches of 512 rows of 512 input and 256 target tokens, under the default objective.
//! Data of more residues than MEMORY bytes is read by pages, in windows of half as many.

use std::error::Error;
use std::time::{Duration, Instant};

use ankh_data::{
    BatchConfig, Batches, Dataset, HostShard, Mixture, Objective, Packing, ReadOptions, Shuffle,
    Split,
};
use ankh_storage::Location;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument = |place: usize| arguments.get(place).map(String::as_str);
    let directory = argument(0).ok_or("expected a prepared directory")?;
    let packing = match argument(1) {
        None | Some("packed") => Packing::Packed,
        Some("padded") => Packing::Padded,
        Some(other) => return Err(format!("expected packed or padded, found {other}").into()),
    };
    let threads = argument(2).map_or(Ok(0), str::parse)?;
    let seconds = argument(3).map_or(Ok(10), str::parse)?;
    let mut options = ReadOptions::default();
    if let Some(memory) = argument(4) {
        options.memory = memory.parse()?;
    }

    let start = Instant::now();
    let dataset = Dataset::open(Location::parse(directory)?, Split::Train, &options)?;
    println!(
        "open      {:8.2} s   {} sequences, {} residues",
        start.elapsed().as_secs_f64(),
        dataset.rows(),
        dataset.residues()
    );
    let shuffle = match dataset.shuffle() {
        Shuffle::Exact => "exact".to_string(),
        Shuffle::Windows { residues, .. } => format!("in windows of {residues} residues"),
    };
    let plan = BatchConfig {
        global_batch: 512,
        packing,
        ..BatchConfig::default()
    };
    let start = Instant::now();
    let mixture = Mixture::one(dataset, Objective::default());
    let batches = Batches::new(mixture, plan, HostShard::all(), threads)?;
    let mut queue = batches.prefetch(0, 4);
    queue.next().transpose()?;
    println!(
        "first     {:8.2} s   shuffle {shuffle}, index of {} bytes",
        start.elapsed().as_secs_f64(),
        batches.index_bytes()
    );

    let start = Instant::now();
    let (mut steps, mut sequences, mut inputs, mut targets, mut cut) = (0u64, 0, 0, 0, 0);
    while start.elapsed() < Duration::from_secs(seconds) {
        let Some(batch) = queue.next().transpose()? else {
            break;
        };
        steps += 1;
        sequences += batch.examples.len();
        inputs += batch.input_tokens;
        targets += batch.target_tokens;
        cut += batch.truncated_targets;
    }
    let took = start.elapsed().as_secs_f64();
    let places = |length: usize| (steps * 512) as f64 * length as f64;
    println!("batches   {:8.0} /s", steps as f64 / took);
    println!("sequences {:8.0} /s", sequences as f64 / took);
    println!(
        "inputs    {:8.2} % filled",
        100.0 * inputs as f64 / places(512)
    );
    println!(
        "targets   {:8.2} % filled, {cut} cut",
        100.0 * targets as f64 / places(256)
    );
    println!("epoch     {:8.4}", batches.epochs_before(steps));
    Ok(())
}
