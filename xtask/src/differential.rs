//! `cargo xtask differential`: the deep check against SQLite's own, on many more damaged databases than CI tries.

use std::ffi::OsString;
use std::process::Command;

use camino::Utf8Path;

use crate::Result;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Damages for each of the 216 builds of a database.
    #[arg(long, default_value_t = 200)]
    damages: u64,
    /// What fixes the rows and the damages.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Try this one again, as a failure names it.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["damages", "seed"])]
    replay: Option<String>,
}

pub(crate) fn run(options: &Options, root: &Utf8Path) -> Result {
    // The cargo that runs us, so that a chosen toolchain is kept.
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    command.args(["test", "--release", "--test", "check"]).current_dir(root);
    if let Some(replay) = &options.replay {
        command.env("ENGRAM_CHECK_REPLAY", replay);
        command.args(["--", "--exact", "--ignored", "--nocapture", "differential::replay"]);
    } else {
        command.env("ENGRAM_CHECK_DAMAGES", options.damages.to_string());
        command.env("ENGRAM_CHECK_SEED", options.seed.to_string());
        command.args(["--", "--nocapture", "differential::"]);
    }
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(status.to_string().into()) }
}
