//! The command line's grammar.

use std::ffi::OsString;
use std::num::NonZero;

use camino::Utf8PathBuf;
use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use engram_restore::Percent;

/// Crash-safe backup, verify and restore for SQLite databases.
#[derive(Debug, Parser)]
#[command(
    name = "engram-restore",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    args_override_self = true
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
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) db: Option<Utf8PathBuf>,
    /// The folder with the backups [env: ENGRAM_RESTORE_ARCHIVE] [default: backups/ beside the database]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) archive: Option<Utf8PathBuf>,
    /// A file with settings [env: ENGRAM_RESTORE_CONFIG] [default: engram-restore.toml beside the database, if it is there]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<Utf8PathBuf>,
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
    /// Show progress bars
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
    /// One look at the health: database, newest backup, interrupted restore, who has it open
    Status(StatusArgs),
    /// Back up, run a command, and put the database back if the command breaks it
    Guard(GuardArgs),
    /// Rehearse disaster recovery on a scratch copy
    Drill(DrillArgs),
    /// The process that writes beside a drill's backup
    #[command(hide = true)]
    SampleWriter(SampleWriterArgs),
    /// Another command, of which one file operation goes wrong
    #[command(hide = true)]
    Fault(FaultArgs),
}

#[derive(Args, Debug)]
#[command(after_help = "Example: engram-restore backup --db notes.sqlite --label before-upgrade")]
pub(crate) struct BackupArgs {
    /// Write the backup here instead of into the archive; the manifest goes beside it
    #[arg(long, value_name = "FILE")]
    pub(crate) path: Option<Utf8PathBuf>,
    /// How to copy: auto, snapshot (the files themselves, the fastest), online (page by page), vacuum (compact, not
    /// byte-faithful)
    #[arg(long, value_name = "ENGINE", default_value = "auto", hide_possible_values = true)]
    pub(crate) engine: EngineArg,
    /// A word of your own, kept in the manifest
    #[arg(long, value_name = "TEXT")]
    pub(crate) label: Option<String>,
    /// Copy at most so many bytes a second, such as 20MB or 64MiB
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) max_rate: Option<u64>,
    /// Give up once the database's WAL has grown beyond this meanwhile, such as 256MiB
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) max_wal: Option<u64>,
    /// Give up once the copy takes longer than this, such as 90s or 5m
    #[arg(long, value_name = "T", value_parser = duration)]
    pub(crate) max_time: Option<std::time::Duration>,
    /// Print what would be done, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// How long to wait for locks of others on the database
    #[arg(long, value_name = "SECS", default_value = "5", value_parser = seconds)]
    pub(crate) wait: std::time::Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum EngineArg {
    Auto,
    Snapshot,
    Online,
    Vacuum,
}

#[derive(Args, Debug)]
#[command(after_help = "Example: engram-restore list --json")]
pub(crate) struct ListArgs {
    /// Also those of other databases
    #[arg(long)]
    pub(crate) any_source: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "Example: engram-restore show latest")]
pub(crate) struct ShowArgs {
    /// A path, a name in the archive or the beginning of one, latest, or latest-good
    #[arg(value_name = "BACKUP")]
    pub(crate) backup: String,
    /// For latest: also those of other databases
    #[arg(long)]
    pub(crate) any_source: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  engram-restore verify --all --deep\n  engram-restore verify --subset 5%")]
pub(crate) struct VerifyArgs {
    /// Paths, names in the archive or beginnings of one, or latest [default: latest; with --subset: all]
    #[arg(value_name = "BACKUP", conflicts_with = "all")]
    pub(crate) backups: Vec<String>,
    /// Every backup in the archive
    #[arg(long)]
    pub(crate) all: bool,
    /// Check the content too: integrity, pages, full-text indexes, foreign keys, the fingerprint of the rows
    #[arg(long)]
    pub(crate) deep: bool,
    /// Hash only so much of each backup, such as 5%, drawn from what earlier runs have not covered yet
    #[arg(long, value_name = "PERCENT", value_parser = percent, conflicts_with = "deep")]
    pub(crate) subset: Option<Percent>,
    /// For --subset: draw by this number, to repeat a run [default: a random one]
    #[arg(long, value_name = "N", requires = "subset")]
    pub(crate) seed: Option<u64>,
    /// For --deep: threads at most [default: one for each processor]
    #[arg(long, value_name = "N", requires = "deep")]
    pub(crate) jobs: Option<NonZero<usize>>,
    /// For --deep: what takes longer on one backup is inconclusive [default: 10s, and 10s more for each 100 MB]
    #[arg(long, value_name = "T", value_parser = duration, requires = "deep")]
    pub(crate) max_time: Option<std::time::Duration>,
    /// For --deep: what a reference to a missing row is: fail, warn, off (not looked for) [default: fail]
    #[arg(long, value_name = "WHAT", requires = "deep", hide_possible_values = true)]
    pub(crate) foreign_keys: Option<ForeignKeysArg>,
    /// For latest: also those of other databases
    #[arg(long)]
    pub(crate) any_source: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ForeignKeysArg {
    Fail,
    Warn,
    Off,
}

#[derive(Args, Debug)]
#[command(after_help = "Example: engram-restore diff latest live")]
pub(crate) struct DiffArgs {
    /// A backup as for restore, any database file, or live: the database itself
    #[arg(value_name = "A")]
    pub(crate) a: String,
    /// The same
    #[arg(value_name = "B")]
    pub(crate) b: String,
    /// End with status 1 if they differ
    #[arg(long)]
    pub(crate) exit_code: bool,
    /// For latest and latest-good: also those of other databases
    #[arg(long)]
    pub(crate) any_source: bool,
    /// How long to wait for locks of others
    #[arg(long, value_name = "SECS", default_value = "5", value_parser = seconds)]
    pub(crate) wait: std::time::Duration,
}

#[derive(Args, Debug)]
#[command(after_help = "Example: engram-restore restore latest-good --dry-run")]
pub(crate) struct RestoreArgs {
    /// A path, a name in the archive or the beginning of one, latest, or latest-good
    #[arg(value_name = "BACKUP")]
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
    wait: Option<std::time::Duration>,
}

impl WayArgs {
    /// Beside open connections there is always somebody who writes for a moment.
    pub(crate) fn wait(&self) -> std::time::Duration {
        self.wait.unwrap_or(std::time::Duration::from_secs(if self.in_place { 5 } else { 0 }))
    }
}

#[derive(Args, Debug)]
#[command(after_help = "Example: engram-restore recover --dry-run")]
pub(crate) struct RecoverArgs {
    /// Print what would be done, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// How long to wait for another run
    #[arg(long, value_name = "SECS", default_value = "0", value_parser = seconds)]
    pub(crate) wait: std::time::Duration,
}

#[derive(Args, Debug)]
#[command(after_help = "Example: engram-restore undo --dry-run")]
pub(crate) struct UndoArgs {
    /// Print what would be done, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) way: WayArgs,
}

#[derive(Args, Debug)]
#[command(after_help = "Example: engram-restore status --max-age 26h")]
pub(crate) struct StatusArgs {
    /// Fail if the newest backup is older, such as 90m, 26h or 7d
    #[arg(long, value_name = "T", value_parser = duration)]
    pub(crate) max_age: Option<std::time::Duration>,
    /// Also count backups of other databases
    #[arg(long)]
    pub(crate) any_source: bool,
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
    /// How long to wait for locks of others on the database, and for another guard
    #[arg(long, value_name = "SECS", default_value = "5", value_parser = seconds)]
    pub(crate) wait: std::time::Duration,
    /// The command with its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnFailureArg {
    Keep,
    Restore,
}

#[derive(Args, Debug)]
#[command(after_help = "Example: engram-restore drill --sample")]
pub(crate) struct DrillArgs {
    /// On a generated database, in a temporary folder
    #[arg(long, required = true)]
    pub(crate) sample: bool,
    /// Observations in the generated database; 1000 make about 3 MB
    #[arg(long, value_name = "N", default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) rows: u64,
}

#[derive(Args, Debug)]
pub(crate) struct SampleWriterArgs {
    pub(crate) path: Utf8PathBuf,
    #[arg(long, default_value_t = 50)]
    pub(crate) per_second: u64,
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

fn seconds(text: &str) -> Result<std::time::Duration, String> {
    let seconds: f64 = text.parse().map_err(|_not_a_number| "not a number of seconds".to_owned())?;
    std::time::Duration::try_from_secs_f64(seconds).map_err(|e| e.to_string())
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
pub(super) fn duration(text: &str) -> Result<std::time::Duration, String> {
    let span: jiff::Span = text.parse().map_err(|e: jiff::Error| e.to_string())?;
    let days = jiff::SpanRelativeTo::days_are_24_hours();
    let duration = span.to_duration(days).map_err(|e| e.to_string())?;
    duration.try_into().map_err(|_negative: jiff::Error| "it is negative".to_owned())
}
