//! `pretrain doctor`: checks everything that a run needs, and reports what was found and what to
//! do.

use std::path::{Path, PathBuf};
use std::process::Command;

use ankh_data::{Manifest, Split};
use ankh_pjrt::{Client, Platform, Plugin};
use ankh_storage::Storage;
use clap::Args;
use serde::Serialize;

use super::configuration::{ConfigArgs, DataArgs};
use super::fetch::fetch;
use super::output::{bytes, count, json, line_of};
use super::{CliError, Exit, Slice};
use crate::config::{Config, Location};
use crate::mesh::tpu_vm::{TpuVm, check_devices};
use crate::mesh::{DeviceError, client_options};
use crate::model::Weights;
use crate::run_dir::{RunDirectory, checkpoints_of};

/// Check the plugin, the devices, memory, data and storage, and report what is wrong and what to
/// do.
#[derive(Args)]
#[command(
    after_help = "Example:\n  pretrain doctor --config demo --data prepared --run-dir runs/first\n\n\
    With only the binary, get the plugin for this machine, or the compiler for TPUs:\n  \
    pretrain doctor --fetch\n  pretrain doctor --fetch --slice v4-8"
)]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    data: DataArgs,
    /// What to compute on: cpu-N (N virtual devices), cuda-N, or a TPU slice by its name, such as
    /// v4-64, v5e-16, v5p-128 or v6e-8.
    #[arg(long, value_name = "SPEC", default_value_t)]
    slice: Slice,
    /// The run directory to check.
    #[arg(long, value_name = "DIR")]
    run_dir: Option<PathBuf>,
    /// First download the pinned plugin for the slice through pip and check its hash, unless it is
    /// there. It goes to ankh/plugins in XDG_DATA_HOME or ~/.local/share.
    #[arg(long)]
    fetch: bool,
    /// Print the checks as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Ok,
    Warn,
    Fail,
}

/// One check.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    status: Status,
    found: String,
    advice: Option<String>,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self {
            name,
            status: Status::Ok,
            found: found.into(),
            advice: None,
        }
    }

    fn warn(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            status: Status::Warn,
            advice: Some(advice.into()),
            ..Self::ok(name, found)
        }
    }

    /// A failure, with the message that the error has elsewhere.
    fn fail(name: &'static str, error: impl Into<CliError>) -> Self {
        let error = error.into();
        Self {
            status: Status::Fail,
            advice: error.advice().map(str::to_owned),
            ..Self::ok(name, error.message())
        }
    }
}

pub(super) fn run(arguments: DoctorArgs) -> Result<Exit, CliError> {
    let mut config = arguments.config.resolve()?;
    arguments.data.lay_over(&mut config);
    if arguments.fetch {
        fetch(arguments.slice.platform())?;
    }
    let mut checks = vec![configuration(&config)];
    checks.extend(devices(arguments.slice));
    checks.push(memory(&config));
    checks.push(data(&config));
    checks.extend(
        arguments
            .run_dir
            .as_deref()
            .map(|path| run_directory(path, &config)),
    );
    let storage_at = arguments.run_dir.as_deref().unwrap_or(Path::new("."));
    checks.push(storage(storage_at, &config));
    checks.extend(local_saves(&config));

    let failed = checks.iter().any(|check| check.status == Status::Fail);
    if arguments.json {
        json(&serde_json::json!({ "ok": !failed, "checks": checks }))?;
    } else {
        for check in &checks {
            line_of(&line(check))?;
        }
    }
    Ok(if failed { Exit::Failed } else { Exit::Done })
}

fn line(check: &Check) -> String {
    let status = match check.status {
        Status::Ok => "ok  ",
        Status::Warn => "warn",
        Status::Fail => "fail",
    };
    let advice = check.advice.as_ref();
    let advice = advice.map_or_else(String::new, |advice| {
        format!("\n      what to do: {advice}")
    });
    format!("{status}  {:<14} {}{advice}", check.name, check.found)
}

fn configuration(config: &Config) -> Check {
    if let Err(error) = config.validate() {
        return Check::fail("configuration", error);
    }
    let found = format!("{} parameters", count(config.model.parameters()));
    match config.warnings().first() {
        None => Check::ok("configuration", found),
        Some(warning) => {
            let text = format!("{found}; {} {}", warning.key, warning.message);
            Check::warn(
                "configuration",
                text,
                warning.advice.clone().unwrap_or_default(),
            )
        }
    }
}

fn devices(slice: Slice) -> Vec<Check> {
    if slice.platform() == Platform::Tpu {
        return tpu(slice);
    }
    let plugin = match Plugin::find(slice.platform(), None) {
        Ok(plugin) => plugin,
        Err(error) => return vec![Check::fail("plugin", error)],
    };
    let (major, minor) = plugin.api_version();
    let found = format!("{}, PJRT C API {major}.{minor}", plugin.path().display());
    let devices = match create_client(&plugin, slice).and_then(|client| Ok(describe(&client)?)) {
        Ok(text) => Check::ok("devices", text),
        Err(error) => Check::fail("devices", error),
    };
    vec![Check::ok("plugin", found), devices]
}

/// The checks of one machine of a slice, or of a machine outside it.
fn tpu(slice: Slice) -> Vec<Check> {
    let vm = match TpuVm::here() {
        Ok(None) => Check::fail(
            "TPU VM",
            CliError::failed("this machine is none").help(format!(
                "train on a TPU VM of a {slice}; without one, `pretrain plan --slice {slice}` says how the run would be"
            )),
        ),
        Ok(Some(vm)) => match vm.expect(slice) {
            Ok(()) => {
                let (worker, hosts) = (vm.worker, slice.hosts());
                Check::ok("TPU VM", format!("worker {worker} of the {hosts} of a {slice}"))
            }
            Err(error) => Check::fail("TPU VM", error),
        },
        Err(error) => Check::fail("TPU VM", error),
    };
    let plugin = match Plugin::locate(Platform::Tpu) {
        Ok(path) => Check::ok("plugin", path.display().to_string()),
        Err(error) => Check::fail("plugin", error),
    };
    // Opening the devices of several hosts waits for all of them.
    let open = vm.status == Status::Ok && plugin.status == Status::Ok && slice.hosts() == 1;
    let devices = open.then(|| match tpu_devices(slice) {
        Ok(text) => Check::ok("devices", text),
        Err(error) => Check::fail("devices", error),
    });
    [vm, plugin].into_iter().chain(devices).collect()
}

fn tpu_devices(slice: Slice) -> Result<String, CliError> {
    let plugin = Plugin::find(Platform::Tpu, None)?;
    let client = create_client(&plugin, slice)?;
    let devices = client.devices()?;
    let devices: Vec<_> = devices.iter().map(|d| d.description().clone()).collect();
    let process = usize::try_from(client.process_index()?).unwrap_or(0);
    check_devices(slice, &devices, process)?;
    Ok(describe(&client)?)
}

/// A client with the devices of the slice.
fn create_client(plugin: &Plugin, slice: Slice) -> Result<Client, DeviceError> {
    let options = client_options(slice, |name| std::env::var(name).ok())?;
    Ok(plugin.create_client(&options)?)
}

fn describe(client: &Client) -> Result<String, ankh_pjrt::Error> {
    let devices = client.addressable_devices()?;
    let kind = devices.first().map_or("no", |device| device.kind());
    let memory: i64 = devices
        .iter()
        .filter_map(|device| device.memory_stats().ok()?.bytes_limit)
        .sum();
    let memory = match u64::try_from(memory) {
        Ok(limit) if limit > 0 => format!(", {} of memory", bytes(limit)),
        _ => String::new(),
    };
    Ok(format!(
        "{} x {kind} ({}){memory}",
        devices.len(),
        client.platform_name()?
    ))
}

fn memory(config: &Config) -> Check {
    let state = state_bytes(config);
    // A save copies the state once.
    let needed = 2 * state + 4 * config.model.parameters();
    let needed_text = format!(
        "weights, gradients and optimizer take {}, {} of it while a state is saved",
        bytes(needed),
        bytes(state)
    );
    match available_memory() {
        None => Check::warn(
            "memory",
            needed_text,
            "this system does not say how much is free: see that it is more",
        ),
        Some(free) if free < needed => Check::warn(
            "memory",
            format!("{} free, but {needed_text}", bytes(free)),
            "choose a smaller model",
        ),
        Some(free) => Check::ok("memory", format!("{} free; {needed_text}", bytes(free))),
    }
}

/// What a checkpoint holds: the weights and what the optimizer keeps of each, in float32.
fn state_bytes(config: &Config) -> u64 {
    let parameters = Weights::of(&config.model).leaves();
    let slots = parameters.iter().flat_map(|p| config.optimizer.slots(p));
    let elements = slots.map(|slot| slot.dims.iter().product::<i64>().unsigned_abs());
    4 * (config.model.parameters() + elements.sum::<u64>())
}

/// What the system can give without swapping, in bytes.
fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

fn data(config: &Config) -> Check {
    let Some(locations) = config.data_locations() else {
        return Check::warn(
            "data",
            "none given",
            "give prepared data with --data; `pretrain prepare` makes it",
        );
    };
    let mut manifests = Vec::new();
    for location in locations.iter().chain(config.held_out()) {
        match manifest(config, location) {
            Ok(manifest) => manifests.push(manifest),
            Err(error) => return Check::fail("data", error),
        }
    }
    // The last is where the held-out sequences are, once more.
    let held_out = manifests.pop();
    let train = manifests.iter().map(|m| m.amount(Split::Train).rows).sum();
    let validation = held_out.map_or(0, |m| m.amount(Split::Validation).rows);
    let places: Vec<String> = locations.iter().map(Location::to_string).collect();
    let found = format!(
        "{}: {} sequences to train on, {} held out",
        places.join(", "),
        count(train),
        count(validation)
    );
    let batch = config.batch_rows() as u64;
    if train == 0 {
        return Check::fail(
            "data",
            CliError::failed(found).help("prepare more sequences"),
        );
    }
    if validation == 0 && config.evaluation.every > 0 {
        let advice =
            "set evaluation.every=0, or prepare more sequences or a larger --validation-fraction";
        return Check::warn("data", found, advice);
    }
    if train < batch {
        let advice = format!(
            "a batch of {batch} takes several epochs: lower train.batch_size, or prepare more sequences"
        );
        return Check::warn("data", found, advice);
    }
    Check::ok("data", found)
}

/// A summary of the data at a location, if it is complete and of the right kind.
fn manifest(config: &Config, location: &Location) -> Result<Manifest, CliError> {
    let storage = Storage::open(location, &config.read_options().storage)?;
    let manifest = Manifest::read(&storage)?;
    if manifest.tokenizer.name != config.data.tokenizer {
        return Err(CliError::from(ankh_data::Error::WrongTokenizer {
            path: location.to_string().into(),
            found: manifest.tokenizer.name,
            expected: config.data.tokenizer,
        }));
    }
    let there = storage.list("")?;
    let is_there = |path: &str| there.iter().any(|entry| entry.name == path);
    match manifest.files.iter().find(|file| !is_there(&file.path)) {
        None => Ok(manifest),
        Some(file) => {
            let error = format!("{} is missing", location.join(&file.path));
            Err(CliError::failed(error).help("prepare the data anew"))
        }
    }
}

fn run_directory(path: &Path, config: &Config) -> Check {
    match RunDirectory::check(path, config) {
        Ok(()) => Check::ok(
            "run directory",
            format!("{} can be written", path.display()),
        ),
        Err(error) => Check::fail("run directory", error),
    }
}

fn storage(path: &Path, config: &Config) -> Check {
    // One checkpoint more than are kept is on disk while it is written.
    let kept = (config.checkpoint.keep.max(1) + config.checkpoint.keep_best) as u64;
    let needed = (kept + 1) * state_bytes(config);
    let text = format!("{} checkpoints take {}", kept + 1, bytes(needed));
    let checkpoints = checkpoints_of(path, config);
    let Some(path) = checkpoints.local() else {
        return Check::ok("storage", format!("{text} in {checkpoints}"));
    };
    match free_space(path) {
        None => Check::warn(
            "storage",
            text,
            format!("see that {} has room for them", path.display()),
        ),
        Some(free) if free < needed => Check::warn(
            "storage",
            format!("{} free in {}, but {text}", bytes(free), path.display()),
            "make room, choose another place or lower checkpoint.keep",
        ),
        Some(free) => Check::ok(
            "storage",
            format!("{} free in {}; {text}", bytes(free), path.display()),
        ),
    }
}

/// Whether there is room for what a host keeps of the state, if it has all of it.
fn local_saves(config: &Config) -> Option<Check> {
    let checkpoint = &config.checkpoint;
    if checkpoint.local_minutes == 0.0 {
        return None;
    }
    let directory = &checkpoint.local_directory;
    // The newest, and the next on its way.
    let needed = 2 * state_bytes(config);
    let place = directory.display();
    let text = format!(
        "two states take {} over all hosts, and twice that with copies",
        bytes(needed)
    );
    Some(match free_space(directory) {
        Some(free) if free >= needed => Check::ok(
            "local saves",
            format!("{} free in {place}; {text}", bytes(free)),
        ),
        Some(free) => Check::warn(
            "local saves",
            format!("{} free in {place}, and {text}", bytes(free)),
            "see in `plan` what a host has of them; choose another checkpoint.local_directory",
        ),
        None => Check::warn("local saves", text, format!("see that {place} has room")),
    })
}

/// Free bytes on the file system of the nearest existing ancestor, as POSIX `df` tells.
fn free_space(path: &Path) -> Option<u64> {
    let absolute = std::path::absolute(path).ok()?;
    let existing = absolute.ancestors().find(|ancestor| ancestor.exists())?;
    let output = Command::new("df").arg("-Pk").arg(existing).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let kilobytes: u64 = text
        .lines()
        .nth(1)?
        .split_whitespace()
        .nth(3)?
        .parse()
        .ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_what_was_found_and_what_to_do() {
        let check = Check::warn("memory", "little", "get more");
        assert_eq!(
            line(&check),
            "warn  memory         little\n      what to do: get more"
        );
        assert_eq!(
            line(&Check::ok("plugin", "here")),
            "ok    plugin         here"
        );
    }

    #[test]
    fn free_space_is_that_of_the_nearest_directory_there_is() {
        let directory = tempfile::tempdir().unwrap();
        let free = free_space(&directory.path().join("not/yet/there"));
        assert!(free.is_some_and(|bytes| bytes > 0), "{free:?}");
    }
}
