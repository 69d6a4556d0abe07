//! The options of `drill`.

use std::time::Duration;

use camino::Utf8PathBuf;
use clap::{Args, Subcommand, ValueHint};

use super::duration;

#[derive(Args, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  engram-restore drill\n  engram-restore drill --sample\n  engram-restore drill --pick all --max-rto 5s --max-rpo 26h\n  \
    engram-restore drill --scenario all --report drill.html --report drill.xml\n  engram-restore drill --fetch 'litestream restore -o {out} s3://bucket/engram'\n\n\
    Without --sample and --scenario the newest backup is rehearsed: verified, restored to a scratch folder, opened, checked,\n\
    compared with the live database. Neither that nor the archive is written to."
)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(crate) struct DrillArgs {
    #[command(subcommand)]
    pub(crate) command: Option<DrillCommand>,
    /// On a generated database; all scenarios, unless some are named
    #[arg(long, conflicts_with_all = ["pick", "fetch", "any_source"])]
    pub(crate) sample: bool,
    /// Observations in the generated database; 1000 make about 3 MB
    #[arg(long, value_name = "N", default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000), requires = "sample")]
    pub(crate) rows: u64,
    /// Rehearse with this backup: newest, oldest, random, all, or as for restore; may be given several times [default: newest]
    #[arg(long, value_name = "BACKUP", conflicts_with = "fetch")]
    pub(crate) pick: Vec<String>,
    /// Pick among backups of other databases too
    #[arg(long)]
    pub(crate) any_source: bool,
    /// Rehearse with the database file that this command produces: at {out} in it, else of its standard output
    #[arg(long, value_name = "COMMAND")]
    pub(crate) fetch: Option<String>,
    /// Carry this scenario out; `all` for every one (see drill list), `rehearse` for the rehearsal
    #[arg(long, value_name = "NAME")]
    pub(crate) scenario: Vec<String>,
    /// The whole crash matrix on this disk: every command killed before each file operation, and each of them failing
    #[arg(long)]
    pub(crate) crash: bool,
    /// Fail if it takes longer until there is a database again, such as 30s
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) max_rto: Option<Duration>,
    /// Fail if the changes of a longer time would be lost, such as 26h
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) max_rpo: Option<Duration>,
    /// Fail if it takes so much longer than the earlier drills of this database did, such as 20%
    #[arg(long, value_name = "PERCENT", value_parser = regression)]
    pub(crate) max_rto_regression: Option<u32>,
    /// Make the scratch folder in this one [default: where temporary files go]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) scratch: Option<Utf8PathBuf>,
    /// Make random choices from this number, which each report names
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Write a report into this file; its form is told by the extension: .json, .xml (JUnit), .md or .html
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) report: Vec<Utf8PathBuf>,
    /// Sign the reports, each with a file of its own beside it
    #[arg(long, requires = "report")]
    pub(crate) sign: bool,
    /// Rehearse with this engram-restore instead of the running one
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) program: Option<Utf8PathBuf>,
}

impl DrillArgs {
    /// Whether it makes its own database, or looks at none.
    pub(crate) fn needs_no_database(&self) -> bool {
        self.sample || matches!(self.command, Some(DrillCommand::List))
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum DrillCommand {
    /// Name every scenario, with a line on each
    #[command(after_help = "Example: engram-restore drill list")]
    List,
    /// Look whether reports are what a trusted key has signed
    #[command(after_help = "Example: engram-restore drill verify-report drill.html --public-key engram.key.pub")]
    VerifyReport {
        /// The reports
        #[arg(value_name = "FILE", required = true, value_hint = ValueHint::FilePath)]
        files: Vec<Utf8PathBuf>,
    },
}

#[derive(Args, Debug)]
pub(crate) struct DrillApplicationArgs {
    pub(crate) path: Utf8PathBuf,
    #[arg(long, default_value_t = 50)]
    pub(crate) per_second: u64,
}

/// A number of percent, with or without its sign.
pub(crate) fn regression(text: &str) -> Result<u32, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim_end();
    number.parse().map_err(|e| format!("{e}; write such as 20%"))
}
