//! `cargo xtask snapshot`: the torture of the engine `snapshot`, at length.

use std::ffi::OsString;
use std::process::Command;

use camino::Utf8Path;

use crate::Result;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// How many copies are taken beside processes that do what they like.
    #[arg(long, default_value_t = 3000)]
    copies: u64,
    /// What fixes every choice but the system's own: which process runs when.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Try this one combination of state, action and moment again, as a failure names it.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["copies", "seed"])]
    replay: Option<String>,
}

pub(crate) fn run(options: &Options, root: &Utf8Path) -> Result {
    // The cargo that runs us, so that a chosen toolchain is kept.
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    command.args(["test", "--release", "--test", "snapshot"]).current_dir(root);
    let tests: &[_] = if let Some(replay) = &options.replay {
        command.env("ENGRAM_SNAPSHOT_REPLAY", replay);
        &["interleave::every_combination"]
    } else {
        command.env("ENGRAM_SNAPSHOT_COPIES", options.copies.to_string());
        command.env("ENGRAM_SNAPSHOT_SEED", options.seed.to_string());
        &["interleave::every_combination", "torture::long_run"]
    };
    // One after the other: each uses all processors.
    let status = command.args(["--", "--exact", "--ignored", "--test-threads=1"]).args(tests).status()?;
    if status.success() { Ok(()) } else { Err(status.to_string().into()) }
}
