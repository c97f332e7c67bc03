//! `pretrain completions` and `pretrain man`: the command line as shells and `man` read it.

use std::io::{self, Write, stdout};
use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;
use clap_mangen::Man;

use super::output::{line_of, written};
use super::{CliError, Exit, command};

/// Print what a shell needs to complete the arguments of `pretrain`.
#[derive(Args)]
#[command(
    after_help = "Example:\n  pretrain completions bash > pretrain.bash\n\n\
    Load it with `source pretrain.bash`, or put it where the shell looks: for bash\n\
    ~/.local/share/bash-completion/completions/pretrain, for fish\n\
    ~/.config/fish/completions/pretrain.fish, for zsh _pretrain in a directory of $fpath."
)]
pub(super) struct CompletionsArgs {
    /// The shell.
    shell: Shell,
}

/// Print the manual page, or write those of all subcommands.
#[derive(Args)]
#[command(
    after_help = "Example:\n  pretrain man > pretrain.1\n  pretrain man --output man1\n\n\
    Read them with `man ./pretrain.1`."
)]
pub(super) struct ManArgs {
    /// Write pretrain.1, pretrain-prepare.1 and so on to this directory.
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

pub(super) fn completions(arguments: CompletionsArgs) -> Result<Exit, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command(), "pretrain", &mut script);
    written(stdout().lock().write_all(&script))?;
    Ok(Exit::Done)
}

pub(super) fn man(arguments: ManArgs) -> Result<Exit, CliError> {
    let Some(directory) = arguments.output else {
        written(render(command(), &mut stdout().lock()))?;
        return Ok(Exit::Done);
    };
    let failed = |error: io::Error| {
        CliError::failed(format!("cannot write to {}: {error}", directory.display()))
    };
    std::fs::create_dir_all(&directory).map_err(failed)?;
    clap_mangen::generate_to(command(), &directory).map_err(failed)?;
    line_of(&format!("{}: the manual pages", directory.display()))?;
    Ok(Exit::Done)
}

fn render(command: clap::Command, out: &mut impl Write) -> io::Result<()> {
    let mut page = Vec::new();
    Man::new(command).render(&mut page)?;
    out.write_all(&page)
}
