//! The commands that make backups or look at them.

use std::num::NonZero;
use std::time::Duration;

use camino::Utf8PathBuf;
use clap::{Args, ValueEnum, ValueHint};
use engram_restore::Percent;

use super::{duration, percent, seconds, size};

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  engram-restore backup\n  engram-restore backup --db notes.sqlite --label before-upgrade\n  engram-restore backup --max-rate 50MB --max-wal 256MiB"
)]
pub(crate) struct BackupArgs {
    /// Write the backup here instead of into the archive; the manifest goes beside it
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) path: Option<Utf8PathBuf>,
    /// How to copy: auto, snapshot (the files themselves, the fastest), online (page by page), vacuum (compact, not
    /// byte-faithful)
    /// [default: auto, or what the configuration says]
    #[arg(long, value_name = "ENGINE", hide_possible_values = true)]
    pub(crate) engine: Option<EngineArg>,
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
    pub(crate) max_time: Option<Duration>,
    /// Insist on a signature: refuse to begin where no secret key is named, or configured
    #[arg(long)]
    pub(crate) sign: bool,
    /// Do not remove old backups afterwards, whatever the configuration says
    #[arg(long)]
    pub(crate) no_prune: bool,
    /// Print what would be done, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// How long to wait for locks of others on the database
    #[arg(long, value_name = "SECS", default_value = "5", value_parser = seconds)]
    pub(crate) wait: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum EngineArg {
    Auto,
    Snapshot,
    Online,
    Vacuum,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  engram-restore list\n  engram-restore list --json")]
pub(crate) struct ListArgs {
    /// Also those of other databases
    #[arg(long)]
    pub(crate) any_source: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  engram-restore show latest\n  engram-restore show engram-2026-11-22T05-30")]
pub(crate) struct ShowArgs {
    /// A path, a name in the archive or the beginning of one, latest, or latest-good
    #[arg(value_name = "BACKUP", value_hint = ValueHint::FilePath)]
    pub(crate) backup: String,
    /// For latest: also those of other databases
    #[arg(long)]
    pub(crate) any_source: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  engram-restore verify --all --deep\n  engram-restore verify --subset 5%")]
pub(crate) struct VerifyArgs {
    /// Paths, names in the archive or beginnings of one, or latest [default: latest; with --subset: all]
    #[arg(value_name = "BACKUP", conflicts_with = "all", value_hint = ValueHint::FilePath)]
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
    pub(crate) max_time: Option<Duration>,
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
#[command(
    after_help = "Examples:\n  engram-restore diff latest live\n  engram-restore diff latest-good notes.sqlite --exit-code"
)]
pub(crate) struct DiffArgs {
    /// A backup as for restore, any database file, or live: the database itself
    #[arg(value_name = "A", value_hint = ValueHint::FilePath)]
    pub(crate) a: String,
    /// The same
    #[arg(value_name = "B", value_hint = ValueHint::FilePath)]
    pub(crate) b: String,
    /// End with status 1 if they differ
    #[arg(long)]
    pub(crate) exit_code: bool,
    /// For latest and latest-good: also those of other databases
    #[arg(long)]
    pub(crate) any_source: bool,
    /// What takes longer is inconclusive [default: 40s, and 40s more for each 100 MB of both]
    #[arg(long, value_name = "T", value_parser = duration)]
    pub(crate) max_time: Option<Duration>,
    /// How long to wait for locks of others
    #[arg(long, value_name = "SECS", default_value = "5", value_parser = seconds)]
    pub(crate) wait: Duration,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  engram-restore status\n  engram-restore status --max-age 26h --json\n  engram-restore status --prometheus /var/lib/node_exporter/engram.prom"
)]
pub(crate) struct StatusArgs {
    /// Fail if the newest backup is older, such as 90m, 26h or 7d [default: what the configuration says, else any age]
    #[arg(long, value_name = "T", value_parser = duration)]
    pub(crate) max_age: Option<Duration>,
    /// Also count backups of other databases
    #[arg(long)]
    pub(crate) any_source: bool,
    /// Write it for Prometheus too, into this file (for the textfile collector: NAME.prom), which is replaced at once
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) prometheus: Option<Utf8PathBuf>,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  engram-restore adopt --db ~/.engram/engram.db copy.db\n  \
    engram-restore adopt --fold /mnt/old/engram.db\n\n\
    Say with --db which database it is a backup of: latest and list regard it then.")]
pub(crate) struct AdoptArgs {
    /// Database files that nobody has open; they are not changed
    #[arg(value_name = "FILE", required = true, value_hint = ValueHint::FilePath)]
    pub(crate) files: Vec<Utf8PathBuf>,
    /// Make a copy in the archive, under a name that backups have, and adopt that
    #[arg(long)]
    pub(crate) into_archive: bool,
    /// The same, with what a -wal or -journal beside the file holds folded into the copy
    #[arg(long)]
    pub(crate) fold: bool,
    /// A word of your own, kept in the manifest
    #[arg(long, value_name = "TEXT")]
    pub(crate) label: Option<String>,
    /// When its content was current, such as 2026-11-22T05:30:00Z [default: the time in a name that backups have, else that of its last change]
    #[arg(long, value_name = "TIME")]
    pub(crate) at: Option<jiff::Timestamp>,
    /// What takes longer to check is inconclusive [default: 10s, and 10s more for each 100 MB]
    #[arg(long, value_name = "T", value_parser = duration)]
    pub(crate) max_time: Option<Duration>,
    /// Say what would be done, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}
