//! `pretrain` without a subcommand: from arguments to a training run. Everything that can be wrong with the arguments is found before the
//! device is given work.

use std::path::{Path, PathBuf};

use ankh_data::{Dataset, Split};
use ankh_pjrt::Plugin;
use clap::Args;

use super::configuration::{ConfigArgs, DataArgs, data_directory};
use super::doctor::create_client;
use super::{CliError, Exit, Slice};
use crate::config::{Config, Versions};
use crate::run::{RunDirectory, Start, StopFlag};
use crate::telemetry::Log;

#[derive(Args)]
pub(super) struct TrainArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    data: DataArgs,
    /// What to compute on.
    #[arg(long, value_name = "SPEC", default_value_t)]
    slice: Slice,
    /// Where the run's files go [default: runs/ and the name of the configuration].
    #[arg(long, value_name = "DIR")]
    run_dir: Option<PathBuf>,
    /// The last step [default: train.steps of the configuration].
    #[arg(long, value_name = "N")]
    steps: Option<u64>,
    /// Continue the run in the run directory, with its configuration unless another is given; start it if there is none.
    #[arg(long)]
    resume: bool,
}

impl TrainArgs {
    fn run_directory(&self) -> PathBuf {
        let named = |config: &String| {
            let name = config.strip_suffix(".toml").unwrap_or(config);
            let name = Path::new(name).file_name().unwrap_or_default();
            Path::new("runs").join(name)
        };
        let default = || {
            self.config
                .config
                .as_ref()
                .map_or_else(|| "runs/ankh-base".into(), named)
        };
        self.run_dir.clone().unwrap_or_else(default)
    }

    /// The configuration; a resumed run's own where none is given.
    fn configuration(&mut self, run_directory: &Path) -> Result<Config, CliError> {
        let recorded = run_directory.join("config.toml");
        if self.resume && self.config.config.is_none() && recorded.is_file() {
            self.config.config = Some(recorded.to_string_lossy().into_owned());
        }
        let mut config = self.config.resolve()?;
        if let Some(data) = self.data.data.take() {
            config.data.dir = Some(data);
        }
        if let Some(steps) = self.steps {
            config.train.steps = steps;
        }
        config.validate()?;
        Ok(config)
    }
}

pub(super) fn run(mut arguments: TrainArgs) -> Result<Exit, CliError> {
    let directory = arguments.run_directory();
    let config = arguments.configuration(&directory)?;
    let start = if arguments.resume {
        Start::Resume
    } else {
        Start::New
    };
    let data = data_directory(&config)?;
    let run = RunDirectory::open(directory, &config, start)?;
    let plugin = Plugin::find(arguments.slice.platform(), None)?;
    let training = Dataset::open_for(data, Split::Train, config.tokenizer())?;
    let client = create_client(&plugin, arguments.slice)?;
    let (major, minor) = plugin.api_version();
    let versions = Versions {
        ankh: env!("CARGO_PKG_VERSION").into(),
        plugin_api: format!("{major}.{minor}"),
        platform: client.platform_version()?,
    };
    run.record(&config, &versions)?;
    Log::start(Some(&run.log()))?;
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    let stop = StopFlag::on_signals().map_err(CliError::failed)?;
    let _ = (training, stop);
    Ok(Exit::Done)
}
