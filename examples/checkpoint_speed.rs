//! Times saving and restoring the state of a configuration on the CPU plugin against `dd` with
//! `fsync` on the same disk, in the same rounds; prints JSON.
//!
//!     cargo run --example checkpoint_speed -- DIRECTORY 3 ankh-large model.encoder_layers=24

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use ankh::checkpoint::{Retention, Saver, Share, Store};
use ankh::config::resolve;
use ankh::devices::open_mesh;
use ankh::mesh::slice::Slice;
use ankh::mesh::{Hosts, WhichParts};
use ankh::programs::Programs;
use ankh::train::State;
use serde_json::json;

type Error = Box<dyn std::error::Error>;

/// The block size of `dd`, that of a checkpoint's largest files.
const BLOCK: u64 = 64 << 20;

fn main() -> Result<(), Error> {
    // As a run on the CPU does.
    ankh::huge_pages::run_with_huge_pages();
    ankh_pjrt::quiet_logs();
    let mut arguments = std::env::args().skip(1);
    let directory = PathBuf::from(arguments.next().ok_or("in which directory?")?);
    let rounds: usize = arguments.next().ok_or("how many rounds?")?.parse()?;
    let preset = arguments.next().ok_or("which configuration?")?;
    let config = resolve(Some(&preset), &arguments.collect::<Vec<_>>())?;
    let mesh = open_mesh(&config, Slice::default(), Hosts::Real)?;
    let programs = Programs::of(&config, mesh.platform(), mesh.rules());
    let mut state = State::initial(&programs, &mesh)?;
    // The state is there when its parts are.
    drop(state.parts_to_host(&mesh, WhichParts::Once)?);
    let place = directory.join("checkpoint_speed");
    fs::create_dir_all(&place)?;
    let file = place.join("dd");

    let mut results = Vec::new();
    let mut bytes = 0;
    for _ in 0..rounds {
        let checkpoints = place.join("checkpoints");
        let store = Store::open(&checkpoints);
        let mut saver = Saver::new(store.clone(), Retention::last(1), Share::Whole);
        let before = peak_memory_from_now()?;
        let start = Instant::now();
        saver.save(1, json!({}), || {
            state.parts_to_host(&mesh, WhichParts::Once)
        })?;
        let stall = start.elapsed().as_secs_f64();
        saver.wait().ok_or("a save that began ends")?.saved?;
        let save = start.elapsed().as_secs_f64();
        let save_memory = peak_memory()?.saturating_sub(before);
        let reader = store.reader(1)?;
        bytes = reader.bytes();

        let blocks = bytes.div_ceil(BLOCK);
        let start = Instant::now();
        dd(&[
            "if=/dev/zero".into(),
            format!("of={}", file.display()),
            format!("bs={BLOCK}"),
            format!("count={blocks}"),
            "conv=fsync".into(),
        ])?;
        let dd_write = start.elapsed().as_secs_f64();

        forget(&checkpoints.join("step_00000001"))?;
        forget(&file)?;
        drop(state);
        let before = peak_memory_from_now()?;
        let start = Instant::now();
        state = State::from_checkpoints(&programs, &mesh, std::slice::from_ref(&reader), |_| true)?;
        let restore = start.elapsed().as_secs_f64();
        let restore_memory = peak_memory()?.saturating_sub(before);
        let start = Instant::now();
        dd(&[
            format!("if={}", file.display()),
            "of=/dev/null".into(),
            format!("bs={BLOCK}"),
        ])?;
        let dd_read = start.elapsed().as_secs_f64();
        fs::remove_file(&file)?;
        fs::remove_dir_all(&checkpoints)?;
        results.push(json!({
            "save_seconds": save,
            "stall_seconds": stall,
            "dd_write_seconds": dd_write,
            "save_over_dd": dd_write / save,
            "save_memory_over_state": save_memory as f64 / bytes as f64,
            "restore_seconds": restore,
            "dd_read_seconds": dd_read,
            "restore_over_dd": dd_read / restore,
            "restore_memory_over_state": restore_memory as f64 / bytes as f64,
        }));
    }
    fs::remove_dir_all(&place)?;
    println!("{:#}", json!({ "state_bytes": bytes, "rounds": results }));
    Ok(())
}

fn dd(arguments: &[String]) -> Result<(), Error> {
    let mut command = Command::new("dd");
    let status = command.args(arguments).stderr(Stdio::null()).status()?;
    status.success().then_some(()).ok_or("dd failed".into())
}

/// Takes files out of the system's cache, so that they are read from the disk.
fn forget(path: &Path) -> Result<(), Error> {
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            forget(&entry?.path())?;
        }
        return Ok(());
    }
    dd(&[
        format!("of={}", path.display()),
        "oflag=nocache".into(),
        "conv=notrunc,fdatasync".into(),
        "count=0".into(),
        "status=none".into(),
    ])
}

/// Begins to measure the most memory this process has, and returns what it has now, in bytes.
fn peak_memory_from_now() -> Result<u64, Error> {
    fs::write("/proc/self/clear_refs", "5")?;
    peak_memory()
}

fn peak_memory() -> Result<u64, Error> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kilobytes: u64 = kilobytes.ok_or("Linux tells VmHWM in kB")?.parse()?;
    Ok(kilobytes << 10)
}
