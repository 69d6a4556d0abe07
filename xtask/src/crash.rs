//! `cargo xtask crash`: the crash suite at length.

use std::ffi::OsString;
use std::process::Command;

use camino::Utf8Path;

use crate::Result;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// How many states are judged, in all scenarios together.
    #[arg(long, default_value_t = 50_000)]
    states: u64,
    /// What fixes every random choice.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Try this one state again, as a failure names it.
    #[arg(long, value_name = "ID", conflicts_with_all = ["mutants", "states"])]
    replay: Option<String>,
    /// Judge the mutants only.
    #[arg(long)]
    mutants: bool,
}

pub(crate) fn run(options: &Options, root: &Utf8Path) -> Result {
    // The cargo that runs us, so that a chosen toolchain is kept.
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    command.args(["test", "--release", "--test", "crash"]).current_dir(root);
    command.env("ENGRAM_CRASH_SEED", options.seed.to_string());
    match &options.replay {
        Some(replay) => {
            command.env("ENGRAM_CRASH_REPLAY", replay).args(["--", "--nocapture", "--skip", "mutants_are_caught"]);
        }
        None if options.mutants => {
            command.args(["--", "--exact", "mutants_are_caught"]);
        }
        None => {
            command.env("ENGRAM_CRASH_STATES", options.states.to_string());
            command.args(["--", "--exact", "--ignored", "long_run"]);
        }
    }
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(status.to_string().into()) }
}
