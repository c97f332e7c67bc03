//! `pretrain submit`: checks a run, brings it to machines, starts and watches it.

use std::io::stdout;
use std::path::PathBuf;

use ankh_jobs::{
    Changes, CloudTpu, Desk, Dry, Gke, Hosts, Job, Live, Place, Pricing, Program, Records, Region,
    Shell, Wanted, Watched, Watching,
};
use ankh_pjrt::{Platform, Plugin};
use clap::{ArgGroup, Args};

use super::super::configuration::{ConfigArgs, DataArgs, data_locations};
use super::super::plan;
use super::{desk, records};
use crate::cli::output::line_of;
use crate::cli::{CliError, Exit, Slice};
use crate::config::{Config, Location};
use crate::telemetry::print_line;

/// Check a run, bring it to a Cloud TPU slice, to hosts or to GKE, and keep it going until it is
/// done.
///
/// Without --hosts and --gke, a Cloud TPU slice is created by gcloud, and created again where it is
/// taken away. The command may be ended at any moment; the same command finds again how things
/// stand.
#[derive(Args)]
#[command(
    group = ArgGroup::new("pricing").multiple(false),
    after_help = "Example:\n  pretrain submit --name large --slice v4-64 --config ankh-large-packed --data gs://BUCKET/uniref50 \\\n    --run-dir gs://BUCKET/runs/large --project PROJECT --zone us-central2-b --spot\n  pretrain submit --name base --slice v4-8 --config ankh-base --data gs://BUCKET/uniref50 \\\n    --run-dir /mnt/runs/base --hosts hosts.txt --dry-run"
)]
pub(in crate::cli) struct SubmitArgs {
    /// What the job, its machine and its service are called.
    #[arg(long, value_name = "NAME")]
    name: String,
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    data: DataArgs,
    /// What to compute on: v4-8 to v4-4096, v5e-*, v5p-*, v6e-*; with --hosts also cpu-N and
    /// cuda-N.
    #[arg(long, value_name = "SPEC")]
    slice: Slice,
    /// Where the run's files go: gs://BUCKET/KEY on Cloud TPU; on hosts, that or a path that they
    /// share; on GKE it is in the volume.
    #[arg(long, value_name = "DIR|URL", required_unless_present = "gke")]
    run_dir: Option<String>,
    /// The last step [default: train.steps of the configuration].
    #[arg(long, value_name = "N")]
    steps: Option<u64>,
    /// The program that is brought to the machines [default: this one].
    #[arg(long, value_name = "FILE", conflicts_with = "gke")]
    program: Option<PathBuf>,
    #[command(flatten)]
    cloud: CloudArgs,
    /// A file that names hosts to use, one destination of ssh a line.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["gke", "project", "zone", "pricing"])]
    hosts: Option<PathBuf>,
    #[command(flatten)]
    gke: GkeArgs,
    /// Do not compile the step to see whether it fits the slice.
    #[arg(long)]
    skip_plan: bool,
    /// Take the place of a job of this name that differs and does not run.
    #[arg(long)]
    update: bool,
    /// Do not watch: a machine that is taken away is not created again.
    #[arg(long)]
    detach: bool,
    /// Print every command that would be run and every file that would be written, in order.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Args)]
struct CloudArgs {
    /// The Google Cloud project.
    #[arg(long, value_name = "PROJECT", required_unless_present_any = ["hosts", "gke"])]
    project: Option<String>,
    /// The zone of the slice.
    #[arg(long, value_name = "ZONE", required_unless_present_any = ["hosts", "gke"])]
    zone: Option<String>,
    /// Pay for machines that may be taken away [default].
    #[arg(long, group = "pricing")]
    spot: bool,
    /// Pay for machines that stay.
    #[arg(long, group = "pricing")]
    on_demand: bool,
    /// Take machines of a reservation.
    #[arg(long, group = "pricing")]
    reserved: bool,
    /// The network of the machines [default: the project's].
    #[arg(long, value_name = "NETWORK")]
    network: Option<String>,
    /// The subnetwork of the machines.
    #[arg(long, value_name = "SUBNETWORK")]
    subnetwork: Option<String>,
    /// As whom the machines act [default: the project's, or the namespace's].
    #[arg(long, value_name = "ACCOUNT")]
    service_account: Option<String>,
    /// The image of the TPU VMs [default: the usual one of the generation].
    #[arg(long, value_name = "VERSION")]
    runtime_version: Option<String>,
    /// An NFS share that all hosts mount at /mnt/ankh, and that the run directory is on.
    #[arg(long, value_name = "SERVER:/EXPORT", conflicts_with_all = ["hosts", "gke"])]
    mount: Option<String>,
    /// Allow buckets in another region than the slice.
    #[arg(long)]
    any_region: bool,
}

#[derive(Args)]
struct GkeArgs {
    /// Run on a GKE cluster, as a JobSet.
    #[arg(long, requires = "image")]
    gke: bool,
    /// With --gke: the image that has pretrain and libtpu.
    #[arg(long, value_name = "IMAGE", requires = "gke")]
    image: Option<String>,
    /// With --gke: the claim of the volume that the run directory is on, which all pods write.
    #[arg(long, value_name = "CLAIM", requires = "gke")]
    claim: Option<String>,
    /// With --gke: the namespace.
    #[arg(long, value_name = "NAMESPACE", default_value = "default")]
    namespace: String,
    /// With --gke: the cluster, as a context of kubectl [default: the current one].
    #[arg(long, value_name = "CONTEXT", requires = "gke")]
    context: Option<String>,
}

pub(in crate::cli) fn run(arguments: SubmitArgs) -> Result<Exit, CliError> {
    let records = records()?;
    let config = arguments.configuration()?;
    let job = arguments.job(&config)?;
    for warning in config.warnings() {
        print_line(&format!("warning: {} {}", warning.key, warning.message));
    }
    if arguments.dry_run {
        let paper = Dry::to(stdout());
        return arguments.run(&desk(&paper, &records)?, &records, &job, &config);
    }
    let live = Live(print_line);
    arguments.run(&desk(&live, &records)?, &records, &job, &config)
}

impl SubmitArgs {
    fn run(
        &self,
        desk: &Desk<'_>,
        records: &Records,
        job: &Job,
        config: &Config,
    ) -> Result<Exit, CliError> {
        let changes = match self.update {
            true => Changes::Accepted,
            false => Changes::Refused,
        };
        let wanted = Wanted {
            data: buckets(config)?,
            region: match self.cloud.any_region {
                true => Region::Any,
                false => Region::Same,
            },
            changes,
        };
        desk.check(job, &wanted)?;
        let known = records.read(&job.name);
        let is_known = known.is_ok_and(|record| job.differences(&record.job).is_empty());
        if !is_known {
            self.plan(config, desk.shell)?;
        }
        let watching = match self.detach {
            true => Watching::Not,
            false => Watching::UntilTheEnd,
        };
        let name = &job.name;
        if !self.dry_run {
            print_line(&format!(
                "this command may be ended: the same command goes on; `pretrain status {name}`, `logs {name}`, `stop {name}`"
            ));
        }
        match desk.submit(job, changes, watching)? {
            Watched::Ended(end) => match end.code {
                0 => {
                    line_of(&format!("{name} is finished"))?;
                    Ok(Exit::Done)
                }
                code => {
                    let exit = match code {
                        2 => Exit::Usage,
                        3 => Exit::Memory,
                        _ => Exit::Failed,
                    };
                    let error = format!("{name} ended with exit code {code} on host {}", end.host);
                    let help = format!(
                        "`pretrain logs {name}` shows why; remove the cause, then submit it again"
                    );
                    Err(CliError::new(exit, error).help(help))
                }
            },
            Watched::Stopped => {
                line_of(&format!("{name} was stopped; submit it again to go on"))?;
                Ok(Exit::Stopped)
            }
            Watched::Left if self.dry_run => Ok(Exit::Done),
            Watched::Left => {
                line_of(&format!(
                    "{name} is started; `pretrain status {name}` says how it stands"
                ))?;
                Ok(Exit::Done)
            }
        }
    }

    /// The configuration as the hosts read it.
    fn configuration(&self) -> Result<Config, CliError> {
        let mut config = self.config.resolve()?;
        self.data.clone().lay_over(&mut config);
        if let Some(steps) = self.steps {
            config.train.steps = steps;
        }
        let bucket = self.run_dir.as_ref().filter(|path| path.contains("://"));
        if let (None, Some(bucket)) = (&config.checkpoint.directory, bucket) {
            let directory: Location = bucket.parse()?;
            config.checkpoint.directory = Some(directory.join("checkpoints"));
        }
        config.validate()?;
        // The hosts have other directories than this machine.
        for location in data_locations(&config)? {
            if location.local().is_some_and(|path| !path.is_absolute()) {
                return Err(CliError::usage(format!(
                    "the data is in {location} of this machine, and the hosts look for theirs"
                ))
                .help("give gs://BUCKET/KEY, or a path from / on the hosts"));
            }
        }
        Ok(config)
    }

    fn job(&self, config: &Config) -> Result<Job, CliError> {
        let slice = self.slice;
        let name = slice.to_string();
        let (_, size) = name.rsplit_once('-').unwrap_or_default();
        let program = match (&self.program, self.gke.gke) {
            // The image has it.
            (_, true) => Program::default(),
            (Some(path), _) => Program::of_file(path)?,
            (None, _) => Program::of_file(&std::env::current_exe().map_err(CliError::failed)?)?,
        };
        Ok(Job {
            name: self.name.parse()?,
            slice: ankh_jobs::Slice {
                generation: slice.generation().map(|generation| generation.to_string()),
                size: size.parse().unwrap_or_default(),
                hosts: slice.hosts(),
                chips: slice.chips(),
                topology: slice
                    .torus()
                    .map_or_else(String::new, |torus| torus.to_string()),
                name,
            },
            program,
            configuration: config.to_text(),
            arguments: Vec::new(),
            place: self.place()?,
        })
    }

    fn place(&self) -> Result<Place, CliError> {
        let run_dir = self.run_dir.clone().unwrap_or_default();
        let pricing = match (self.cloud.on_demand, self.cloud.reserved) {
            (true, _) => Pricing::OnDemand,
            (_, true) => Pricing::Reserved,
            _ => Pricing::Spot,
        };
        if let Some(file) = &self.hosts {
            let text = std::fs::read_to_string(file).map_err(|error| {
                CliError::usage(format!("cannot read {}: {error}", file.display()))
            })?;
            return Ok(Place::Hosts(Hosts {
                destinations: Hosts::parse(&text)?,
                run_dir,
            }));
        }
        let cloud = &self.cloud;
        Ok(match &self.gke.image {
            Some(image) => Place::Gke(Gke {
                image: image.clone(),
                namespace: self.gke.namespace.clone(),
                context: self.gke.context.clone(),
                claim: self.gke.claim.clone(),
                service_account: cloud.service_account.clone(),
                pricing,
            }),
            None => Place::CloudTpu(CloudTpu {
                project: cloud.project.clone().unwrap_or_default(),
                zone: cloud.zone.clone().unwrap_or_default(),
                pricing,
                network: cloud.network.clone(),
                subnetwork: cloud.subnetwork.clone(),
                service_account: cloud.service_account.clone(),
                runtime_version: cloud.runtime_version.clone(),
                directory: run_dir,
                mount: cloud.mount.clone(),
            }),
        })
    }

    /// Compiles the step to see whether it fits, where there is a compiler.
    fn plan(&self, config: &Config, shell: &dyn Shell) -> Result<(), CliError> {
        if self.skip_plan || self.slice.platform() != Platform::Tpu {
            return Ok(());
        }
        if shell.is_dry() {
            shell.say(
                "the step is compiled for the slice, as by `pretrain plan`, to see that it fits",
            );
            return Ok(());
        }
        if Plugin::locate(Platform::Tpu).is_err() {
            shell.say(
                "it is not checked whether the step fits: there is no libtpu here (`make libtpu`)",
            );
            return Ok(());
        }
        plan::fits(config, &self.config, self.slice)
    }
}

/// The prepared data of a run that is in buckets of Google Cloud Storage.
fn buckets(config: &Config) -> Result<Vec<String>, CliError> {
    let mut data: Vec<String> = data_locations(config)?
        .iter()
        .chain(config.held_out())
        .map(Location::to_string)
        .filter(|location| location.starts_with("gs://"))
        .collect();
    data.sort();
    data.dedup();
    Ok(data)
}
