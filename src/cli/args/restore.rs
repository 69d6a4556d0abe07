//! The commands that put something in the place of a database, or may have to.

use std::ffi::OsString;
use std::time::Duration;

use clap::{Args, ValueEnum, ValueHint};

use super::seconds;

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  engram-restore restore latest-good --dry-run\n  engram-restore restore engram-2026-11-22T05-30 --wait 60\n  engram-restore restore latest-good --in-place"
)]
pub(crate) struct RestoreArgs {
    /// A path, a name in the archive or the beginning of one, latest, or latest-good
    #[arg(value_name = "BACKUP", value_hint = ValueHint::FilePath)]
    pub(crate) backup: String,
    /// Print what would be done, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Run SQLite's integrity check on the staged copy too
    #[arg(long)]
    pub(crate) deep: bool,
    /// For latest and latest-good: also those of other databases
    #[arg(long)]
    pub(crate) any_source: bool,
    #[command(flatten)]
    pub(crate) way: WayArgs,
}

/// How something is put in the database's place.
#[derive(Args, Debug)]
pub(crate) struct WayArgs {
    /// Through SQLite into the file that programs have open, as one transaction, in the place of a new file
    #[arg(long)]
    pub(crate) in_place: bool,
    /// How long to wait for another run, and for the database to be let go [default: 0; with --in-place: 5]
    #[arg(long, value_name = "SECS", value_parser = seconds)]
    wait: Option<Duration>,
}

impl WayArgs {
    /// Beside open connections there is always somebody who writes for a moment.
    pub(crate) fn wait(&self) -> Duration {
        self.wait.unwrap_or(Duration::from_secs(if self.in_place { 5 } else { 0 }))
    }
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  engram-restore recover --dry-run\n  engram-restore recover")]
pub(crate) struct RecoverArgs {
    /// Print what would be done, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// How long to wait for another run
    #[arg(long, value_name = "SECS", default_value = "0", value_parser = seconds)]
    pub(crate) wait: Duration,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  engram-restore undo --dry-run\n  engram-restore undo --in-place")]
pub(crate) struct UndoArgs {
    /// Print what would be done, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) way: WayArgs,
}

#[derive(Args, Debug)]
#[command(after_help = "Example: engram-restore guard --on-failure restore -- ./migrate.sh\n\n\
    Ends with the command's own status; with 1 if that was 0 and the database is damaged, with 6 if it was 0 and the \
    database could not be checked; with 125 if the command was not run, 126 if it cannot be run, 127 if there is none.")]
pub(crate) struct GuardArgs {
    /// A word for a backup that is taken, kept in its manifest [default: guard]
    #[arg(long, value_name = "TEXT")]
    pub(crate) label: Option<String>,
    /// If the command fails or the database is damaged: keep it, and say how to put it back, or restore it
    #[arg(long, value_name = "WHAT", default_value = "keep")]
    pub(crate) on_failure: OnFailureArg,
    /// Do not remove old backups afterwards, whatever the configuration says
    #[arg(long)]
    pub(crate) no_prune: bool,
    /// How long to wait for locks of others on the database, and for another guard
    #[arg(long, value_name = "SECS", default_value = "5", value_parser = seconds)]
    pub(crate) wait: Duration,
    /// The command with its arguments
    #[arg(last = true, required = true, value_name = "COMMAND", value_hint = ValueHint::CommandWithArguments)]
    pub(crate) command: Vec<OsString>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnFailureArg {
    Keep,
    Restore,
}
