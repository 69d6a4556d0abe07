//! The command line as data, for what is made out of it: completions, the man page, and the test of all examples.

use clap::{Args as _, CommandFactory as _};

use super::args::{Cli, Global, PROGRAM_HELP};

/// The command line as people see it: without what only tests and drills use.
pub(crate) fn visible() -> clap::Command {
    let all = Cli::command();
    let shown: Vec<_> = all.get_subcommands().filter(|command| !command.is_hide_set()).cloned().collect();
    let program = clap::Command::new("engram-restore").version(env!("CARGO_PKG_VERSION")).propagate_version(true);
    Global::augment_args(program.subcommand_required(true).subcommand_value_name("COMMAND"))
        .about(all.get_about().cloned().unwrap_or_default())
        .after_help(PROGRAM_HELP)
        .subcommands(shown)
}
