//! What is brought to the hosts of a job: the program, its configuration, the scripts that run it,
//! and the checksums of all of them.

use crate::call::quoted;
use crate::digest::sha256;
use crate::job::Job;

/// The program's name among the files.
pub(crate) const PROGRAM: &str = "pretrain";
/// The configuration's.
pub(crate) const CONFIGURATION: &str = "config.toml";
/// The checksums', as `sha256sum --check` takes them.
pub(crate) const CHECKSUMS: &str = "files.sha256";

/// What is done with a job on a host: checking what came, starting and stopping the service.
const HOST: &str = include_str!("../scripts/host.sh");
/// Runs a host's part of a job.
const RUN: &str = include_str!("../scripts/run.sh");
/// Fetches the files of a job on a machine that has just been created.
const STARTUP: &str = include_str!("../scripts/startup.sh");
/// Fetches the plugin that is pinned.
const FETCH_PLUGIN: &str = include_str!("../../deploy/fetch_plugin.py");
const PINS: &str = include_str!("../../deploy/plugins.json");

/// What the scripts are told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    /// The job's directory in a bucket; empty if there is none.
    pub bucket: String,
    /// Whether all hosts see one run directory.
    pub sharing: Sharing,
    /// The run directory on the host.
    pub run_dir: String,
    /// What is mounted before: `SERVER:/EXPORT`; empty for nothing.
    pub mount: String,
    /// What starts the service with the machine.
    pub at_boot: AtBoot,
}

/// Whether all hosts of a job see one run directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// They do, or there is only one.
    #[default]
    Shared,
    /// Each has one of its own: what they tell each other there is passed on through the bucket.
    Relayed,
}

/// What starts a job's service when its host is started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum AtBoot {
    /// The host itself.
    #[default]
    Service,
    /// The start-up script, which first mounts and checks.
    Script,
}

/// Where shares are mounted.
pub(crate) const MOUNTED: &str = "/mnt/ankh";

/// The files of a job but for the program, by name.
pub(crate) fn files(job: &Job, settings: &Settings) -> Vec<(&'static str, String)> {
    let mut files = vec![
        (CONFIGURATION, job.configuration.clone()),
        ("job.env", environment(job, settings)),
        ("host.sh", HOST.into()),
        ("run.sh", RUN.into()),
    ];
    if job.slice.generation.is_some() {
        files.push(("fetch_plugin.py", FETCH_PLUGIN.into()));
        files.push(("plugins.json", PINS.into()));
    }
    let mut sums = format!("{}  {PROGRAM}\n", job.program.sha256);
    for (name, content) in &files {
        sums += &format!("{}  {name}\n", sha256(content.as_bytes()));
    }
    files.push((CHECKSUMS, sums));
    files
}

/// The settings of the scripts.
fn environment(job: &Job, settings: &Settings) -> String {
    // In the directory of the job.
    let command = job.command(CONFIGURATION, &settings.run_dir);
    let command: Vec<String> = command.iter().map(|word| quoted(word)).collect();
    let line = |name: &str, value: &str| format!("{name}={}\n", quoted(value));
    [
        "# What the scripts of this job are told.\n".to_owned(),
        line("ANKH_NAME", job.name.as_str()),
        line("ANKH_BUCKET", &settings.bucket),
        line("ANKH_RUN_DIR", &settings.run_dir),
        line("ANKH_MOUNT", &settings.mount),
        line("ANKH_HOSTS", &job.slice.hosts.to_string()),
        line(
            "ANKH_SHARED",
            match settings.sharing {
                Sharing::Shared => "yes",
                Sharing::Relayed => "no",
            },
        ),
        line(
            "ANKH_AT_BOOT",
            match settings.at_boot {
                AtBoot::Service => "yes",
                AtBoot::Script => "no",
            },
        ),
        format!("ANKH_ARGUMENTS=({})\n", command.join(" ")),
    ]
    .concat()
}

/// The script that a machine runs whenever it starts. It trusts only what has the checksum that it
/// carries.
pub(crate) fn startup_script(home: &str, source: &str, checksums: &str) -> String {
    let header = "#!/usr/bin/env bash\n";
    let body = STARTUP.strip_prefix(header).unwrap_or(STARTUP);
    format!(
        "{header}ANKH_HOME={}\nANKH_SOURCE={}\nANKH_CHECKSUM={}\n{body}",
        quoted(home),
        quoted(source),
        sha256(checksums.as_bytes()),
    )
}
