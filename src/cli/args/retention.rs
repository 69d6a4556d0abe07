//! The commands about which backups stay, and the settings.

use std::num::NonZero;
use std::time::Duration;

use clap::{Args, ValueHint};

use super::{count, seconds};

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  engram-restore prune --dry-run\n  engram-restore prune --keep-last 3 --keep-daily 7 --keep-weekly 4\n\n\
    A backup stays if any rule keeps it. Rules that are not given come from the configuration; without any, nothing goes.\n\
    The newest backup that verifies stays in any case, and so do pinned ones and those in use."
)]
pub(crate) struct PruneArgs {
    /// Keep the newest N
    #[arg(long, value_name = "N", value_parser = count)]
    pub(crate) keep_last: Option<NonZero<u32>>,
    /// Keep those that are at most N days older than the newest
    #[arg(long, value_name = "N", value_parser = count)]
    pub(crate) keep_days: Option<NonZero<u32>>,
    /// Keep the newest of each of the last N days that have one (UTC)
    #[arg(long, value_name = "N", value_parser = count)]
    pub(crate) keep_daily: Option<NonZero<u32>>,
    /// Keep the newest of each of the last N weeks that have one
    #[arg(long, value_name = "N", value_parser = count)]
    pub(crate) keep_weekly: Option<NonZero<u32>>,
    /// Keep the newest of each of the last N months that have one
    #[arg(long, value_name = "N", value_parser = count)]
    pub(crate) keep_monthly: Option<NonZero<u32>>,
    /// Also keep those with this label; may be repeated
    #[arg(long, value_name = "LABEL")]
    pub(crate) keep_label: Vec<String>,
    /// Keep at least N, whatever the rules say
    #[arg(long, value_name = "N", value_parser = count)]
    pub(crate) min_keep: Option<NonZero<u32>>,
    /// Also those of other databases, each judged by itself
    #[arg(long)]
    pub(crate) any_source: bool,
    /// Print for each backup whether it would stay and why, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// How long to wait for another run
    #[arg(long, value_name = "SECS", default_value = "5", value_parser = seconds)]
    pub(crate) wait: Duration,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  engram-restore pin latest\n  engram-restore pin engram-2026-11-22T05-30 --reason before-the-move"
)]
pub(crate) struct PinArgs {
    /// A path, a name in the archive or the beginning of one, latest, or latest-good
    #[arg(value_name = "BACKUP", required = true, value_hint = ValueHint::FilePath)]
    pub(crate) backups: Vec<String>,
    /// Why, for people
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(crate) reason: String,
    /// For latest and latest-good: also those of other databases
    #[arg(long)]
    pub(crate) any_source: bool,
    /// Print what would be done, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "Example: engram-restore unpin engram-2026-11-22T05-30")]
pub(crate) struct UnpinArgs {
    /// A path, a name in the archive or the beginning of one, latest, or latest-good
    #[arg(value_name = "BACKUP", required = true, value_hint = ValueHint::FilePath)]
    pub(crate) backups: Vec<String>,
    /// For latest and latest-good: also those of other databases
    #[arg(long)]
    pub(crate) any_source: bool,
    /// Print what would be done, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  engram-restore config --show\n  engram-restore config --show --json")]
pub(crate) struct ConfigArgs {
    /// Print every setting with its value and where that comes from; nothing else is there to do
    #[arg(long)]
    pub(crate) show: bool,
}
