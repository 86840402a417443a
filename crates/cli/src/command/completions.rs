//! `holdfast completions`: a script for the shell.

use crate::args::Args as Line;
use crate::failure::Result;
use crate::output::print;
use clap::CommandFactory;
use clap_complete::Shell;

/// Arguments.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  holdfast completions bash > /etc/bash_completion.d/holdfast
  holdfast completions zsh > \"${fpath[1]}/_holdfast\"")]
pub struct Args {
    /// Which shell.
    pub shell: Shell,
}

/// Prints the script.
pub fn run(args: &Args) -> Result {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Line::command(), "holdfast", &mut script);
    print(String::from_utf8_lossy(&script).trim_end())
}
