//! `pretrain` without a subcommand: parses the arguments of a training run, and turns its end into
//! an exit code.

use std::path::{Path, PathBuf};

use ankh_cluster::Leaving;
use ankh_pjrt::Platform;
use clap::Args;
use serde_json::json;
use signal_hook::consts::SIGUSR2;
use signal_hook::low_level;

use super::configuration::{ConfigArgs, DataArgs, data_locations, settle_batch_size};
use super::hosts::{Met, Place, Ties};
use super::initialization;
use super::output::{json, line_of};
use super::readiness::ready;
use super::weights::states_of;
use super::{CliError, Exit, Slice};
use crate::checkpoint::Store;
use crate::config::{Config, ListenAddress, Location, OnSigusr1, StepRange, resolve_over};
use crate::devices::open_mesh;
use crate::huge_pages::run_with_huge_pages;
use crate::mesh::tpu_vm::{TpuVm, on_preemption};
use crate::mesh::{DeviceError, Entries, Hosts, ProgramCache};
use crate::run_dir::{Recorded, Request, Requests, RunDirectory, RunMode};
use crate::supervision::{Pulse, Restart};
use crate::telemetry::{Log, LogFormat};
use crate::train::{Outcome, Processes, Summary, train};

#[derive(Args)]
pub(super) struct TrainArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    data: DataArgs,
    /// What to compute on: cpu-N (N virtual devices), cuda-N, or a TPU slice by its name, such as
    /// v4-64, v5e-16, v5p-128 or v6e-8.
    #[arg(long, value_name = "SPEC", default_value_t)]
    pub slice: Slice,
    /// Simulate this many hosts on the devices of this machine, each with batches of its own: a
    /// test of a larger slice.
    #[arg(long, value_name = "N")]
    simulate_hosts: Option<usize>,
    /// With --simulate-hosts: be this one of them. Start a process for each, all with one run
    /// directory; each computes what all of them do, and saves and acts as its host.
    #[arg(long, value_name = "I", requires = "simulate_hosts")]
    host: Option<usize>,
    /// A training step compiled by `pretrain plan --output`, to load instead of compiling it.
    #[arg(long, value_name = "FILE")]
    executable: Option<PathBuf>,
    /// Write every program to this directory, before and after optimization.
    #[arg(long, value_name = "DIR")]
    dump_hlo: Option<PathBuf>,
    /// Where the run's files go [default: runs/ and the name of the configuration].
    #[arg(long, value_name = "DIR")]
    run_dir: Option<PathBuf>,
    /// The last step [default: train.steps of the configuration]. Unless schedule.steps is set, the
    /// learning rate reaches 0 there.
    #[arg(long, value_name = "N")]
    steps: Option<u64>,
    /// Begin with these weights instead of drawn ones, with a fresh optimizer: a Hugging Face
    /// directory, a checkpoint or a run directory; a checkpoint may be in a bucket. Without
    /// --config, the model is theirs [default: train.initialize_from of the configuration].
    #[arg(long, value_name = "DIR|URL")]
    initialize_from: Option<Location>,
    /// Continue the run in the run directory, with its configuration unless another is given; start
    /// it if there is none.
    #[arg(long)]
    pub resume: bool,
    /// With --resume: continue although train.batch_size or the optimizer differs. Weights are
    /// kept, data continues after the rows already seen, and another optimizer starts from nothing.
    #[arg(long, requires = "resume")]
    accept_changes: bool,
    /// Serve metrics to Prometheus on this port of this machine, or on an address such as
    /// 0.0.0.0:9464 [default: telemetry.prometheus_listen of the configuration].
    #[arg(long, value_name = "ADDRESS")]
    metrics_listen: Option<ListenAddress>,
    /// Take a profile of these steps, the first and the last of them, for TensorBoard [default:
    /// telemetry.profile_steps of the configuration].
    #[arg(long, value_name = "A..B")]
    profile_steps: Option<StepRange>,
    /// How progress and messages are written to standard error. JSON is a line each, with the
    /// fields that Google's Cloud Logging expects.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(mut arguments: TrainArgs) -> Result<Exit, CliError> {
    Log::choose(arguments.log_format);
    if arguments.slice.platform() == Platform::Cpu {
        run_with_huge_pages();
    }
    let directory = arguments.run_directory();
    let (mut config, restored) = arguments.configuration(&directory)?;
    let vm = ready(arguments.slice, &config, arguments.config.config.as_deref())?;
    let place = arguments.place(vm.as_ref())?;
    let worker = place.as_ref().map_or(0, |place| place.host);
    data_locations(&config)?;
    // Errors about paths as they were typed come before.
    config.make_paths_absolute()?;
    let start = match (arguments.resume, arguments.accept_changes) {
        (false, _) => RunMode::New,
        (true, false) => RunMode::Resume,
        (true, true) => RunMode::ResumeChanged,
    };
    Log::start();
    settle_batch_size(&mut config)?;
    if let Some(layout) = arguments.config.lay_out(&mut config, arguments.slice) {
        tracing::info!("{layout}");
    }
    let run = RunDirectory::open_for(worker, &directory, &config, start)?;
    if let Some(restored) = restored {
        tracing::warn!("{restored}");
    }
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    let ties = Ties::with_goodbye(&run, goodbye(&run, &directory, arguments.json));
    let requests = listen(&config, ties.clone()).map_err(CliError::failed)?;
    follow_launcher();
    follow_machine(vm.as_ref()).map_err(CliError::failed)?;
    let processes = match place {
        None => Processes::alone(requests),
        Some(place) => {
            let Met {
                member,
                session,
                copies,
            } = ties.meet(&place, &config, arguments.slice, &directory)?;
            Processes::together(requests, member, session, copies)
        }
    };
    let outcome = arguments.train(&config, &run, &processes);
    ties.leave(match &outcome {
        Ok(_) => Leaving::Done,
        Err(error) => Leaving::Failed(error.message()),
    });
    let outcome = outcome?;
    let (summary, exit) = match &outcome {
        Outcome::Finished(summary) => (summary, Exit::Done),
        Outcome::Stopped(summary) => (summary, Exit::Stopped),
    };
    match show(summary, exit, &directory, arguments.json) {
        // Whoever asked to stop may have taken the terminal along, and is to learn that the state
        // is saved.
        Err(error) if exit == Exit::Stopped => error.report(),
        shown => shown?,
    }
    Ok(exit)
}

/// Listens for requests. A request to stop before the first step ends the process at once, and the
/// other hosts' with it.
fn listen(config: &Config, ties: Ties) -> std::io::Result<Requests> {
    let on_sigusr1 = match config.checkpoint.on_sigusr1 {
        OnSigusr1::Save => Request::Save,
        OnSigusr1::Stop => Request::Stop,
    };
    Requests::from_signals(on_sigusr1, Exit::Stopped as u8, move || ties.stop())
}

/// Prints the summary of a run that stops before its first step.
fn goodbye(run: &RunDirectory, directory: &Path, json: bool) -> impl Fn() + Send + Sync + 'static {
    let checkpoints = run.checkpoints().clone();
    let (directory, metrics) = (directory.to_owned(), run.metrics());
    move || {
        let newest = || {
            let store = Store::at(&checkpoints).ok()?;
            let step = store.latest().ok()??;
            Some((step, store.directory_of(step)))
        };
        let (steps, checkpoint) = newest().unzip();
        let summary = Summary {
            steps: steps.unwrap_or(0),
            checkpoint,
            metrics: metrics.clone(),
            ..Summary::default()
        };
        // Nobody is left to tell about a standard output that cannot be written.
        let _ = show(&summary, Exit::Stopped, &directory, json);
    }
}

/// Says to the launcher, if there is one, that this process lives, and stops when it is gone.
fn follow_launcher() {
    if let Some(restart) = Restart::of_this_process() {
        tracing::warn!(
            "restart {}, {:.1} s after the last sign of the process before: {}",
            restart.number,
            restart.seconds_lost,
            restart.reason
        );
    }
    Pulse::start(|| {
        tracing::error!("the launcher is gone");
        // Not SIGTERM: if the launcher has passed one on before its end, a second one would end
        // this process at once. It fails for signals only that there are not.
        let _ = low_level::raise(SIGUSR2);
    });
}

/// Stops when the machine is about to be taken away.
fn follow_machine(vm: Option<&TpuVm>) -> std::io::Result<()> {
    on_preemption(vm, || {
        tracing::warn!("the metadata server says that this machine is about to be taken away");
        // Not SIGTERM, as above: a machine that shuts down sends one to every process.
        let _ = low_level::raise(SIGUSR2);
    })
}

/// What is done with programs that were compiled before: if processes fail again and again, one of
/// those may be why. Once is enough: the next process loads what this one has compiled.
fn entries() -> Entries {
    match Restart::of_this_process() {
        Some(restart) if restart.in_vain == 2 => {
            tracing::warn!("no new step since the last restart: all programs are compiled anew");
            Entries::Replaced
        }
        _ => Entries::Used,
    }
}

/// Prints the summary.
fn show(summary: &Summary, exit: Exit, run: &Path, as_object: bool) -> Result<(), CliError> {
    if as_object {
        return json(&as_json(summary, exit));
    }
    let program = std::env::args().next();
    let program = program.as_deref().unwrap_or("pretrain");
    line_of(&in_words(summary, exit, run, program))
}

impl TrainArgs {
    /// Trains on the devices of the slice.
    fn train(
        &self,
        config: &Config,
        run: &RunDirectory,
        processes: &Processes,
    ) -> Result<Outcome, CliError> {
        let hosts = match (self.simulate_hosts, self.host) {
            (None, _) => Hosts::Real,
            (Some(hosts), None) => Hosts::Simulated(hosts),
            (Some(hosts), Some(host)) => Hosts::One { host, hosts },
        };
        let mut mesh = open_mesh(config, self.slice, hosts)?;
        if let Some(directory) = &self.dump_hlo {
            mesh.dump_to(directory.clone());
        }
        if let Some(directory) = config.compiler.cache.directory() {
            mesh.keep_programs_in(ProgramCache::at(&directory, entries()));
        }
        let executable = self.executable.as_deref();
        Ok(train(config, run, &mesh, executable, processes)?)
    }

    /// Which of several hosts this is.
    fn place(&self, vm: Option<&TpuVm>) -> Result<Option<Place>, CliError> {
        let (Some(hosts), Some(host)) = (self.simulate_hosts, self.host) else {
            return Ok(vm.and_then(Place::of));
        };
        if host >= hosts {
            return Err(DeviceError::NoHost { host, hosts }.into());
        }
        let peers = Vec::new();
        Ok(Some(Place { host, hosts, peers }))
    }

    /// Where the run's files go.
    pub fn run_directory(&self) -> PathBuf {
        let named = |config: &String| {
            let name = config.strip_suffix(".toml").unwrap_or(config);
            let name = Path::new(name).file_name().unwrap_or_default();
            Path::new("runs").join(name)
        };
        let default = || {
            let config = self.config.config.as_ref();
            config.map_or_else(|| "runs/ankh-base".into(), named)
        };
        self.run_dir.clone().unwrap_or_else(default)
    }

    /// The configuration, a resumed run's own where none is given, and a warning if that had to be
    /// restored.
    fn configuration(
        &mut self,
        run_directory: &Path,
    ) -> Result<(Config, Option<String>), CliError> {
        let own = self.resume && self.config.config.is_none();
        let recorded = match own {
            true => Recorded::of(run_directory)?,
            false => None,
        };
        let mut restored = None;
        let mut config = match recorded {
            None => self.config.resolve()?,
            Some(Recorded::Whole(config)) => {
                let file = run_directory.join("config.toml");
                self.config.config = Some(file.to_string_lossy().into_owned());
                resolve_over(config, &self.config.set)?
            }
            Some(Recorded::Restored {
                config,
                checkpoint,
                damage,
            }) => {
                restored = Some(format!(
                    "{} cannot be used: {damage}; going on with the configuration that {} carries",
                    run_directory.join("config.toml").display(),
                    checkpoint
                ));
                resolve_over(config, &self.config.set)?
            }
        };
        let given = self.initialize_from.take();
        let weights = given.or(config.train.initialize_from.take()).map(states_of);
        // A run that was begun has its weights, and need not find them again.
        let is_begun = || self.resume && !matches!(Recorded::of(run_directory), Ok(None));
        let begins_with = weights.as_ref().filter(|_| !is_begun());
        if let Some(weights) = begins_with {
            config = initialization::initialized(config, weights, &self.config)?;
        }
        let begins = begins_with.is_some();
        config.train.initialize_from = weights;
        if let Some(data) = self.data.data.take() {
            config.data.dir = Some(data);
        }
        if let Some(steps) = self.steps {
            config.train.steps = steps;
        }
        if let Some(listen) = self.metrics_listen {
            config.telemetry.prometheus_listen = Some(listen);
        }
        if let Some(steps) = self.profile_steps {
            config.telemetry.profile_steps = Some(steps);
        }
        config.validate()?;
        if begins {
            initialization::check_data(&config)?;
        }
        Ok((config, restored))
    }
}

fn as_json(summary: &Summary, exit: Exit) -> serde_json::Value {
    let pair = |first: Option<f64>, last: Option<f64>| json!({ "first": first, "last": last });
    let training = summary.training_loss;
    let held_out = summary.held_out_loss;
    json!({
        "stopped": exit == Exit::Stopped,
        "steps": summary.steps,
        "seconds": summary.seconds,
        "time": summary.time,
        "training_loss": pair(training.map(|loss| loss.0.into()), training.map(|loss| loss.1.into())),
        "held_out_loss": pair(held_out.map(|loss| loss.0), held_out.map(|loss| loss.1)),
        "frequency_loss": summary.frequency_loss,
        "metrics": summary.metrics,
        "checkpoint": summary.checkpoint,
    })
}

/// `program` is the command that started this one, so that the last line can be run as it is.
fn in_words(summary: &Summary, exit: Exit, run: &Path, program: &str) -> String {
    let done = if exit == Exit::Stopped {
        "stopped on request after"
    } else {
        "done:"
    };
    let seconds = summary.seconds;
    let mut lines = vec![format!(
        "{done} step {}, {seconds:.0} s of training",
        summary.steps
    )];
    if let Some((first, last)) = summary.training_loss {
        lines.push(format!("  training loss  {first:.4} -> {last:.4}"));
    }
    if let Some((first, last)) = summary.held_out_loss {
        lines.push(format!("  held-out loss  {first:.4} -> {last:.4}"));
    }
    if let Some(loss) = summary.frequency_loss {
        lines.push(format!(
            "                 {loss:.4} is what token frequencies alone give"
        ));
    }
    if let Some(time) = &summary.time {
        lines.push(format!("  time           {time}"));
    }
    if summary.steps > 0 {
        lines.push(format!("  metrics        {}", summary.metrics.display()));
    }
    if let Some(checkpoint) = &summary.checkpoint {
        lines.push(format!("  checkpoint     {checkpoint}"));
    }
    let run = run.display();
    lines.push(match (exit, &summary.checkpoint) {
        // Nothing is recorded before the first step, its configuration included.
        (Exit::Stopped, None) if summary.steps == 0 => {
            "next: start it again with the same arguments".into()
        }
        (Exit::Stopped, _) => format!("next: {program} --resume --run-dir {run}"),
        (_, Some(_)) => format!("next: {program} export --checkpoint {run} --output hf"),
        (_, None) => format!("next: {program} --resume --run-dir {run} --steps MORE"),
    });
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary() -> Summary {
        Summary {
            steps: 300,
            seconds: 58.4,
            time: None,
            training_loss: Some((4.75, 2.25)),
            held_out_loss: Some((4.5, 2.5)),
            frequency_loss: Some(2.875),
            metrics: "runs/demo/metrics.jsonl".into(),
            checkpoint: Some(Path::new("runs/demo/checkpoints/step_00000300").into()),
        }
    }

    #[test]
    fn the_summary_shows_the_losses_falling_and_what_to_type_next() {
        let text = in_words(&summary(), Exit::Done, Path::new("run"), "pretrain");
        for words in [
            "4.7500 -> 2.2500",
            "4.5000 -> 2.5000",
            "2.8750",
            "runs/demo/metrics.jsonl",
            "next: pretrain export",
        ] {
            assert!(text.contains(words), "{words} in\n{text}");
        }
    }

    #[test]
    fn a_stopped_run_is_told_how_to_continue() {
        let text = in_words(&summary(), Exit::Stopped, Path::new("run"), "pretrain");
        assert!(
            text.starts_with("stopped on request after step 300"),
            "{text}"
        );
        assert!(text.contains("next: pretrain --resume --run-dir"), "{text}");
        let unborn = Summary {
            steps: 0,
            checkpoint: None,
            ..summary()
        };
        let text = in_words(&unborn, Exit::Stopped, Path::new("run"), "pretrain");
        assert!(text.contains("with the same arguments"), "{text}");
        assert_eq!(as_json(&summary(), Exit::Stopped)["stopped"], true);
    }
}
