//! The command line's grammar: what all commands share. Those of a kind have their options in a file of their own.

mod backups;
mod drill;
mod restore;
mod retention;

use std::ffi::OsString;
use std::num::NonZero;
use std::time::Duration;

use camino::Utf8PathBuf;
use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum, ValueHint};
use engram_restore::Percent;

pub(crate) use backups::{
    AdoptArgs, BackupArgs, DiffArgs, EngineArg, ForeignKeysArg, ListArgs, ShowArgs, StatusArgs, VerifyArgs,
};
pub(crate) use drill::{DrillApplicationArgs, DrillArgs, DrillCommand, regression};
pub(crate) use restore::{GuardArgs, OnFailureArg, RecoverArgs, RestoreArgs, UndoArgs};
pub(crate) use retention::{ConfigArgs, PinArgs, PruneArgs, UnpinArgs};

pub(crate) const PROGRAM_HELP: &str = "\
Examples:
  engram-restore backup
  engram-restore verify --all
  engram-restore restore latest-good --dry-run
  engram-restore --db notes.sqlite --archive /mnt/other-disk/notes status

Exit statuses: 0 done, 1 damage found, 2 wrong arguments, 3 busy, 4 not there, 5 failed, 6 inconclusive,
70 a bug, 130 and 143 interrupted.";

/// Crash-safe backup, verify and restore for SQLite databases.
#[derive(Debug, Parser)]
#[command(
    name = "engram-restore",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    args_override_self = true,
    after_help = PROGRAM_HELP
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Global options")]
#[expect(clippy::doc_markdown, reason = "the docstrings are the help text")]
pub(crate) struct Global {
    /// The database [env: ENGRAM_RESTORE_DB] [default: engram.db in $ENGRAM_DATA_DIR, else ~/.engram/engram.db]
    #[arg(long, global = true, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub(crate) db: Option<Utf8PathBuf>,
    /// The folder with the backups [env: ENGRAM_RESTORE_ARCHIVE] [default: backups/ beside the database]
    #[arg(long, global = true, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) archive: Option<Utf8PathBuf>,
    /// A file with settings [env: ENGRAM_RESTORE_CONFIG] [default: engram-restore.toml beside the database, if it is there]
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) config: Option<Utf8PathBuf>,
    /// A public key of minisign, or its file: what it has not signed is neither restored nor called good; may be given
    /// several times [env: ENGRAM_RESTORE_PUBLIC_KEY]
    #[arg(long, global = true, value_name = "KEY", value_hint = ValueHint::FilePath)]
    pub(crate) public_key: Vec<String>,
    /// A secret key of minisign, without a password: every backup that is taken is signed [env: ENGRAM_RESTORE_SECRET_KEY]
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) secret_key: Option<Utf8PathBuf>,
    /// Print one JSON object on standard output
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print only what was asked for or went wrong
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// Say more; twice: every file operation
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Use colours
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", hide_possible_values = true)]
    pub(crate) color: When,
    /// Show progress: a bar on a terminal; with always, plain lines elsewhere
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", hide_possible_values = true)]
    pub(crate) progress: When,
}

/// On a terminal, always, never.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum When {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Take a verified backup of the live database
    Backup(BackupArgs),
    /// List this database's backups, newest first
    List(ListArgs),
    /// Show one backup's manifest, for people
    Show(ShowArgs),
    /// Check backups against their manifests
    Verify(VerifyArgs),
    /// Say which tables differ, and by how many rows
    Diff(DiffArgs),
    /// Put a verified backup in the database's place
    Restore(RestoreArgs),
    /// Finish or undo a restore that was interrupted
    Recover(RecoverArgs),
    /// Put the pre-restore database back
    Undo(UndoArgs),
    /// Remove backups that the retention policy no longer keeps
    Prune(PruneArgs),
    /// Keep backups from being pruned
    Pin(PinArgs),
    /// Take pins away again
    Unpin(UnpinArgs),
    /// Show every setting, and where it comes from
    Config(ConfigArgs),
    /// One look at the health: database, newest backup, interrupted restore, who has it open
    Status(StatusArgs),
    /// Give a database file that another tool has made a manifest, so that it is a backup
    Adopt(AdoptArgs),
    /// Back up, run a command, and put the database back if the command breaks it
    Guard(GuardArgs),
    /// Rehearse disaster recovery on a scratch copy
    Drill(DrillArgs),
    /// Make a pair of keys to sign backups with
    Keygen(KeygenArgs),
    /// Print what a shell needs to complete command lines
    Completions(CompletionsArgs),
    /// Print the man page
    #[command(after_help = "Example: engram-restore manual")]
    Manual,
    /// The process that commits to a drill's database
    #[command(hide = true)]
    DrillApplication(DrillApplicationArgs),
    /// Another command, of which one file operation goes wrong
    #[command(hide = true)]
    Fault(FaultArgs),
}

#[derive(Args, Debug)]
#[command(after_help = "Example: engram-restore keygen ~/engram.key\n\n\
    The public key goes into FILE.pub. Both are files of minisign's; neither replaces one.")]
pub(crate) struct KeygenArgs {
    /// Write the secret key here, for you only, without a password
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: Utf8PathBuf,
    /// Print what would be done, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    engram-restore completions bash > ~/.local/share/bash-completion/completions/engram-restore\n  \
    engram-restore completions zsh > ~/.zfunc/_engram-restore\n  \
    engram-restore completions fish > ~/.config/fish/completions/engram-restore.fish")]
pub(crate) struct CompletionsArgs {
    #[arg(value_name = "SHELL")]
    pub(crate) shell: ShellArg,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ShellArg {
    Bash,
    Zsh,
    Fish,
}

#[derive(Args, Debug)]
#[command(group(ArgGroup::new("fault").args(["kill", "errno", "short_write"]).required(true)))]
pub(crate) struct FaultArgs {
    /// Which operation, counted from 0
    #[arg(long, value_name = "N")]
    pub(crate) at: usize,
    /// The process is killed before it
    #[arg(long)]
    pub(crate) kill: bool,
    /// It does not happen, and gives this error
    #[arg(long, value_name = "ERRNO")]
    pub(crate) errno: Option<ErrnoArg>,
    /// If it is a write, it writes half of its bytes
    #[arg(long)]
    pub(crate) short_write: bool,
    /// All after it go wrong too
    #[arg(long, conflicts_with = "kill")]
    pub(crate) sticky: bool,
    /// The other command, with its options
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

/// As the system names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "UPPER")]
pub(crate) enum ErrnoArg {
    Eio,
    Enospc,
    Edquot,
    Eacces,
    Erofs,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_not_a_number| "not a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|e| e.to_string())
}

/// A whole number, at least 1: nobody means to keep none.
fn count(text: &str) -> Result<NonZero<u32>, String> {
    let number = text.parse::<u32>().ok().and_then(NonZero::new);
    number.ok_or_else(|| format!("it must be a whole number from 1 to {}", u32::MAX))
}

/// A number of bytes with its unit, such as `500kB`, `20MB` or `64MiB`; more than none.
fn size(text: &str) -> Result<u64, String> {
    match text.parse::<bytesize::ByteSize>()?.as_u64() {
        0 => Err("it must be more than 0".to_owned()),
        bytes => Ok(bytes),
    }
}

/// A part of a whole, such as `5%`, `5` or `0.5%`.
fn percent(text: &str) -> Result<Percent, String> {
    let number = text.strip_suffix('%').unwrap_or(text);
    let percent = number.parse().ok().and_then(Percent::new);
    percent.ok_or_else(|| "it must be a percentage, more than 0 and at most 100".to_owned())
}

/// A number with its unit, such as `1us`, `250ms`, `90s`, `24h` or `7d`; a day has 24 hours.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let span: jiff::Span = text.parse().map_err(|e: jiff::Error| e.to_string())?;
    let days = jiff::SpanRelativeTo::days_are_24_hours();
    let duration = span.to_duration(days).map_err(|e| e.to_string())?;
    duration.try_into().map_err(|_negative: jiff::Error| "it is negative".to_owned())
}
