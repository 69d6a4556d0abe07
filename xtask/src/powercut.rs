//! `cargo xtask powercut`: the released program on real file systems, whose disk loses power.

use std::ffi::OsString;
use std::process::Command;

use camino::{Utf8Path, Utf8PathBuf};

use crate::Result;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only these file systems: ext4, ext4-noauto_da_alloc, xfs, btrfs.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    fs: Vec<String>,
    /// Only these commands: backup, restore, restore-in-place, undo, recover, prune.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    command: Vec<String>,
    /// How many states are judged, of each command on each file system.
    #[arg(long, default_value_t = 1000)]
    states: u64,
    /// What fixes every random choice; the moments at which the kernel writes are its own.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Look at the disk again that a failure has kept.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["fs", "command", "states"])]
    replay: Option<Utf8PathBuf>,
}

pub(crate) fn run(options: &Options, root: &Utf8Path) -> Result {
    if !rustix::process::geteuid().is_root() {
        return Err("a disk of our own needs root: a FUSE file system, a loop device, mounts".into());
    }
    // The cargo that runs us, so that a chosen toolchain is kept.
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut build = Command::new(&cargo);
    build.args(["build", "--release", "--locked", "--bin", "engram-restore"]).current_dir(root);
    crate::tools::done(&mut build)?;
    let target = crate::target(root)?;
    // In a mount namespace of its own: whatever ends it, no mount and no loop device outlives it.
    let mut command = Command::new("unshare");
    command.arg("--mount").arg(cargo);
    command.args(["test", "--release", "--test", "powercut", "--"]).current_dir(root);
    command.args(["--exact", "--ignored", "--nocapture", "long_run"]);
    command.env("ENGRAM_POWERCUT_PROGRAM", target.join("release/engram-restore"));
    command.env("ENGRAM_POWERCUT_KEEP", target.join("powercut"));
    command.env("ENGRAM_POWERCUT_STATES", options.states.to_string());
    command.env("ENGRAM_POWERCUT_SEED", options.seed.to_string());
    for (name, words) in [("FS", &options.fs), ("COMMAND", &options.command)] {
        if !words.is_empty() {
            command.env(format!("ENGRAM_POWERCUT_{name}"), words.join(","));
        }
    }
    if let Some(file) = &options.replay {
        command.env("ENGRAM_POWERCUT_REPLAY", file.canonicalize_utf8()?);
    }
    crate::tools::done(&mut command)
}
