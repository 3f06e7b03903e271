//! `gradresnet completions` and `gradresnet man`

use super::console::Outcome;
use anyhow::{Context, Result};
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use std::path::PathBuf;

/// Print a script that completes this program's arguments in a shell
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  gradresnet completions bash > ~/.local/share/bash-completion/completions/gradresnet
  gradresnet completions zsh > ~/.zfunc/_gradresnet
  gradresnet completions fish > ~/.config/fish/completions/gradresnet.fish")]
pub struct CompletionsArgs {
    shell: Shell,
}

/// Write manual pages, one for each command
#[derive(clap::Args)]
#[command(after_help = "Example:\n  gradresnet man ~/.local/share/man/man1 && man gradresnet-denoise")]
pub struct ManArgs {
    /// Folder of the pages, made if missing
    #[arg(value_name = "DIR")]
    output: PathBuf,
}

pub fn completions(args: &CompletionsArgs) -> Result<Outcome> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::Cli::command(), "gradresnet", &mut script);
    super::console::verbatim(String::from_utf8_lossy(&script).trim_end());
    Ok(Outcome::Done)
}

pub fn man(args: &ManArgs) -> Result<Outcome> {
    let folder = args.output.display();
    std::fs::create_dir_all(&args.output).with_context(|| format!("{folder}: cannot be made"))?;
    // Of `help` there would be a page for each command once more.
    let mut program: Command = super::Cli::command().disable_help_subcommand(true);
    program.build();
    clap_mangen::generate_to(program, &args.output)
        .with_context(|| format!("{folder}: the pages cannot be written"))?;
    Ok(Outcome::Done)
}
