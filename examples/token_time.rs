//! Times the tokens of a greedy generation on the CPU plugin, at the beginning and far on; prints
//! JSON.
//!
//!     cargo run --example token_time -- hf 8 5
//!
//! The arguments: a Hugging Face directory, rows, and how often each is timed.

use std::time::Instant;

use ankh::config::Compute;
use ankh::generate::{Constraint, Generator, Item, Prompt, Settings};
use ankh::hugging_face;
use ankh::inference::{LoadedModel, ModelOptions};
use ankh::mesh::slice::Slice;

/// Tokens of a prompt.
const INPUT: usize = 120;

/// Positions of all programs, so that they have one cache.
const POSITIONS: usize = 256;

/// From which token to which one is timed.
const SPANS: [(usize, usize); 2] = [(10, 60), (200, 250)];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    ankh::huge_pages::run_with_huge_pages();
    ankh_pjrt::quiet_logs();
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().ok_or("which Hugging Face directory?")?;
    let rows: usize = arguments.next().ok_or("how many rows?")?.parse()?;
    let times: usize = arguments.next().ok_or("how often?")?.parse()?;
    let weights = hugging_face::load(std::path::Path::new(&directory))?;
    let options = ModelOptions {
        slice: Slice::default(),
        compute: Compute::Float32,
        tokenizer: None,
    };
    let model = LoadedModel::open(weights, options)?;
    let generator = Generator::new(&model, Settings::default());
    let seconds = |tokens: usize| -> Result<f64, Box<dyn std::error::Error>> {
        let prompts: Vec<Prompt> = (0..rows).map(|row| prompt(row, tokens)).collect();
        let items = (0..).zip(&prompts).map(|(number, prompt)| Item {
            prompt,
            number,
            first_sample: 0,
        });
        let items: Vec<Item<'_>> = items.collect();
        let start = Instant::now();
        generator.run_with_positions(&items, rows, POSITIONS)?;
        Ok(start.elapsed().as_secs_f64())
    };
    let start = Instant::now();
    seconds(1)?;
    let compile_seconds = start.elapsed().as_secs_f64();
    let mut of_spans = [vec![], vec![]];
    let mut whole = vec![];
    for _ in 0..times {
        for ((from, to), found) in SPANS.into_iter().zip(&mut of_spans) {
            let time = seconds(to)? - seconds(from)?;
            found.push(time / (to - from) as f64);
        }
        whole.push(seconds(POSITIONS)?);
    }
    let [early, late] = of_spans.map(median);
    let json = serde_json::json!({
        "rows": rows,
        "token_seconds_at_10": early,
        "token_seconds_at_200": late,
        "seconds_of_256": median(whole),
        "compile_seconds": compile_seconds,
    });
    println!("{json}");
    Ok(())
}

/// One whose target has so many residues.
fn prompt(row: usize, tokens: usize) -> Prompt {
    let residue = |i: usize| 3 + ((7 * i + 3 * row) % 20) as u8;
    Prompt {
        id: format!("prompt{row}"),
        input: (0..INPUT - 1).map(residue).chain([1]).collect(),
        target: vec![],
        rest: Constraint::Residue,
        limit: tokens,
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
