//! `pretrain watch`: runs as they go on, in a browser.

use std::fs;
use std::net::ToSocketAddrs;
use std::path::PathBuf;
use std::sync::mpsc::channel;

use clap::Args;
use signal_hook::consts::TERM_SIGNALS;
use signal_hook::iterator::Signals;

use super::output::line_of;
use super::{CliError, Exit};
use crate::run_dir::machine;
use crate::telemetry::print_line;
use crate::watch::{Access, Token, Watch, WatchError};

/// Watch runs in a browser: the page of `report`, live.
#[derive(Args)]
#[command(
    after_help = "Example:\n  pretrain watch\n  pretrain watch runs/base runs/packed --listen 127.0.0.1:8080\n  pretrain watch --listen 0.0.0.0:7007 --token-file ~/.ankh-watch-token"
)]
pub(super) struct WatchArgs {
    /// Run directories, or directories in which they are and will be.
    #[arg(value_name = "RUN", default_value = "runs")]
    runs: Vec<PathBuf>,
    /// Where to listen; port 0 takes a free one. On an address that other machines reach, readers
    /// need a token, which is in the address that is printed.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7007")]
    listen: String,
    /// Take the token from the first line of this file, and ask for it on any address. Otherwise
    /// it is that of the environment variable ANKH_WATCH_TOKEN, or drawn where one is needed.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// The variable that may hold a token.
const VARIABLE: &str = "ANKH_WATCH_TOKEN";

pub(super) fn run(arguments: WatchArgs) -> Result<Exit, CliError> {
    let access = access(&arguments)?;
    let watch = Watch::open(&arguments.listen, arguments.runs, access)?;
    // Before anybody can ask: a signal that comes early is not lost.
    let mut signals = Signals::new(TERM_SIGNALS).map_err(CliError::failed)?;
    let (stop, stopped) = channel();
    std::thread::spawn(move || {
        signals.forever().next();
        let _ = stop.send(());
    });
    let runs = match watch.runs() {
        1 => "1 run".to_owned(),
        count => format!("{count} runs"),
    };
    print_line(&format!("watching {runs}; Ctrl-C ends it"));
    line_of(&watch.url(&machine()))?;
    watch.serve(stopped)?;
    Ok(Exit::Done)
}

/// Who may read, by the address and by what token there is.
fn access(arguments: &WatchArgs) -> Result<Access, CliError> {
    if let Some(path) = &arguments.token_file {
        let text = fs::read_to_string(path)
            .map_err(|error| CliError::usage(format!("cannot read {}: {error}", path.display())))?;
        let token = text.lines().next().unwrap_or_default().trim();
        return chosen(token, &path.display().to_string());
    }
    match std::env::var(VARIABLE) {
        Ok(token) => return chosen(token.trim(), VARIABLE),
        Err(std::env::VarError::NotUnicode(_)) => return chosen("", VARIABLE),
        Err(std::env::VarError::NotPresent) => {}
    }
    let address = &arguments.listen;
    let mut addresses = address.to_socket_addrs().map_err(|_| {
        CliError::usage(format!(
            "--listen {address} is no address of this machine and a port"
        ))
        .help("write for example --listen 127.0.0.1:7007")
    })?;
    match addresses.any(|address| Access::needs_token(&address)) {
        true => Ok(Access::Token(Token::draw().map_err(WatchError::from)?)),
        false => Ok(Access::Local),
    }
}

fn chosen(token: &str, place: &str) -> Result<Access, CliError> {
    let token = Token::parse(token).map_err(|weak| {
        CliError::usage(format!("{weak} (in {place})")).help("`openssl rand -hex 24` draws one")
    })?;
    Ok(Access::Token(token))
}

impl From<WatchError> for CliError {
    fn from(error: WatchError) -> Self {
        match error {
            WatchError::Report(error) => error.into(),
            error @ WatchError::Listen { .. } => {
                CliError::failed(error).help("choose another address or port with --listen")
            }
            error => CliError::failed(error),
        }
    }
}
