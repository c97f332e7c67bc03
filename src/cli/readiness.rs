//! Checks that a run on a TPU slice can start on this machine, before anything else is done. All
//! that is missing is reported at once, each with the next command.

use std::fmt::Write as _;

use ankh_data::Manifest;
use ankh_pjrt::{Platform, Plugin};
use ankh_storage::Storage;

use super::{CliError, Slice};
use crate::config::Config;
use crate::mesh::tpu_vm::{TpuVm, TpuVmError};

/// The TPU VM that this is, with libtpu and data at hand; nothing for slices that need none.
pub(super) fn ready(
    slice: Slice,
    config: &Config,
    preset: Option<&str>,
) -> Result<Option<TpuVm>, CliError> {
    if slice.platform() != Platform::Tpu {
        return Ok(None);
    }
    let vm = TpuVm::here()?;
    if let Some(vm) = &vm {
        vm.expect(slice)?;
    }
    let libtpu = Plugin::locate(Platform::Tpu);
    let data = data(config);
    let command = Command { slice, preset };
    let missing: Vec<Missing> = [
        vm.is_none().then(|| command.no_tpu_vm()),
        libtpu.err().map(|error| command.no_libtpu(&error)),
        data.err().map(no_data),
    ]
    .into_iter()
    .flatten()
    .collect();
    if missing.is_empty() {
        return Ok(vm);
    }
    Err(CliError::usage(report(slice, &missing)))
}

/// Something a run needs and does not have.
struct Missing {
    name: &'static str,
    /// Why it is missing, and what the commands below will do.
    why: String,
    commands: Vec<String>,
}

fn report(slice: Slice, missing: &[Missing]) -> String {
    let mut text = format!("a run on {slice} cannot start here yet");
    for Missing {
        name,
        why,
        commands,
    } in missing
    {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n  {name:<8}{why}");
        for command in commands {
            let _ = write!(text, "\n            {command}");
        }
    }
    text
}

/// The data that is configured, or why it cannot be used.
fn data(config: &Config) -> Result<(), String> {
    let locations = config.data_locations().ok_or("none is given")?;
    let options = config.read_options().storage;
    locations.iter().try_for_each(|location| {
        let storage = Storage::open(location, &options).map_err(|error| error.to_string())?;
        let manifest = Manifest::read(&storage);
        manifest.map(|_| ()).map_err(|error| error.to_string())
    })
}

/// What the user asked for, to be repeated in the commands that come next.
struct Command<'a> {
    slice: Slice,
    preset: Option<&'a str>,
}

impl Command<'_> {
    fn arguments(&self) -> String {
        let preset = self.preset.map(|preset| format!(" --config {preset}"));
        format!("--slice {}{}", self.slice, preset.unwrap_or_default())
    }

    fn no_tpu_vm(&self) -> Missing {
        let hosts = match self.slice.hosts() {
            1 => "its host".into(),
            hosts => format!("all of its {hosts} hosts"),
        };
        let arguments = self.arguments();
        Missing {
            name: "TPU VM",
            why: format!(
                "this machine is none. Ask the TPU compiler what the run needs; then train on {hosts}:"
            ),
            commands: vec![
                format!("pretrain plan {arguments}"),
                format!(
                    "gcloud compute tpus tpu-vm ssh NAME --zone ZONE --worker all --command 'pretrain {arguments} --data DIR'"
                ),
            ],
        }
    }

    fn no_libtpu(&self, error: &ankh_pjrt::Error) -> Missing {
        let why = match error {
            // It would list every place searched.
            ankh_pjrt::Error::NoPlugin { .. } => "it is not found".into(),
            error => error.to_string(),
        };
        Missing {
            name: "libtpu",
            why: format!("{why}. TPU VMs have it; elsewhere fetch it, to plan:"),
            commands: vec![format!("pretrain doctor --fetch --slice {}", self.slice)],
        }
    }
}

fn no_data(why: String) -> Missing {
    Missing {
        name: "data",
        why: format!("{why}. Prepare some, where every host can read it, and pass --data DIR:"),
        commands: vec!["pretrain prepare --output DIR INPUT...".into()],
    }
}

impl From<TpuVmError> for CliError {
    fn from(error: TpuVmError) -> Self {
        match &error {
            TpuVmError::OtherSlice { found, .. } => {
                let advice = format!("give --slice {found}, or run on a TPU VM of that slice");
                Self::usage(error).help(advice)
            }
            TpuVmError::Metadata(_) | TpuVmError::OtherDevices { .. } => Self::failed(error),
            _ => Self::usage(error).help(
                "what the environment says goes first: TPU_ACCELERATOR_TYPE, TPU_WORKER_ID and TPU_WORKER_HOSTNAMES",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thing_missing_comes_with_the_next_command() {
        let command = Command {
            slice: "v4-64".parse().unwrap(),
            preset: Some("ankh-large"),
        };
        let missing = [
            command.no_tpu_vm(),
            command.no_libtpu(&ankh_pjrt::Error::NoPlugin {
                platform: Platform::Tpu,
                searched: vec!["/somewhere".into()],
            }),
            no_data("none is given".into()),
        ];
        let text = report(command.slice, &missing);
        assert_eq!(text.lines().count(), 8, "{text}");
        for words in [
            "a run on v4-64 cannot start here yet",
            "all of its 8 hosts",
            "  pretrain plan --slice v4-64 --config ankh-large\n",
            "--command 'pretrain --slice v4-64 --config ankh-large --data DIR'",
            "libtpu  it is not found. TPU",
            "  pretrain doctor --fetch --slice v4-64\n",
            "  pretrain prepare --output DIR INPUT...",
        ] {
            assert!(text.contains(words), "{words:?} in\n{text}");
        }
    }

    #[test]
    fn other_slices_need_no_tpu() {
        let ready = ready(Slice::default(), &Config::default(), None);
        assert!(ready.is_ok_and(|vm| vm.is_none()));
    }
}
