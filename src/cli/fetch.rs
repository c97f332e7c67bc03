//! `pretrain doctor --fetch`: the pinned plugin, for whoever has the program alone.
//!
//! The script that a checkout uses is inside the program, with the pins that it reads. It has pip
//! download the wheel, checks the hashes, and moves the library into place. Python is needed for
//! this and for nothing else.

use std::process::Command;

use ankh_pjrt::{PINS, Pin, Platform, user_plugins};

use super::CliError;
use super::plan::Spinner;
use crate::telemetry::print_line;

const SCRIPT: &str = include_str!("../../deploy/fetch_plugin.py");

const OTHERWISE: &str = "or set ANKH_PJRT_PLUGIN to a plugin that you have";

/// Puts the pinned plugin of a platform among the user's, unless it is there: whatever is found
/// from here, as in a checkout, may not be found from elsewhere.
pub(super) fn fetch(platform: Platform) -> Result<(), CliError> {
    let Some(pin) = Pin::of(platform) else {
        let error = CliError::usage(format!("no plugin is pinned for {platform}"));
        return Err(error.help("set ANKH_PJRT_PLUGIN to one that you have"));
    };
    let Some(directory) = user_plugins() else {
        let error = CliError::usage("there is no place for plugins: HOME is not set");
        return Err(error.help(format!("set HOME or XDG_DATA_HOME, {OTHERWISE}")));
    };
    let spinner = Spinner::start(format!(
        "fetching {} through pip, unless it is there",
        pin.requirement
    ));
    let done = run_script(platform, &directory);
    drop(spinner);
    done?;
    print_line(&format!(
        "{} is in {}",
        pin.requirement,
        directory.display()
    ));
    Ok(())
}

fn run_script(platform: Platform, directory: &std::path::Path) -> Result<(), CliError> {
    let folder = tempfile::tempdir().map_err(CliError::failed)?;
    let script = folder.path().join("fetch_plugin.py");
    std::fs::write(&script, SCRIPT).map_err(CliError::failed)?;
    std::fs::write(folder.path().join("plugins.json"), PINS).map_err(CliError::failed)?;
    let mut python = Command::new("python3");
    python.arg(&script).arg(platform.to_string()).arg(directory);
    let output = python.output().map_err(|error| {
        CliError::failed(format!("cannot start python3: {error}")).help(format!(
            "install Python 3 with pip, which downloads the plugin, {OTHERWISE}"
        ))
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    // Behind the line that says what is fetched.
    let said = said
        .trim()
        .split_once('\n')
        .map_or(said.trim(), |(_, said)| said);
    let help = format!("see that `python3 -m pip` works and reaches a package index, {OTHERWISE}");
    Err(CliError::failed(said.to_owned()).help(help))
}
