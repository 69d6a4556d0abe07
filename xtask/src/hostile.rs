//! `cargo xtask hostile`: collections of broken databases, such as SQLite's own, through the real binary.

use std::ffi::OsString;
use std::process::Command;

use camino::{Utf8Path, Utf8PathBuf};

use crate::Result;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Collections: SQLite's `test/fuzzdata*.db`, texts with dumps of databases in them, or databases.
    #[arg(required = true, value_name = "FILE")]
    corpora: Vec<Utf8PathBuf>,
    /// Try this one again, as a failure names it.
    #[arg(long, value_name = "NAME")]
    replay: Option<String>,
}

pub(crate) fn run(options: &Options, root: &Utf8Path) -> Result {
    let corpora =
        options.corpora.iter().map(|file| Ok(file.canonicalize_utf8()?.into_string())).collect::<Result<Vec<_>>>()?;
    // The cargo that runs us, so that a chosen toolchain is kept.
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    // SQLite is optimised in a debug build too.
    command.args(["test", "--test", "check", "--", "--exact", "--ignored", "--nocapture"]);
    command.arg("hostile::corpora::every_database_of_every_corpus").current_dir(root);
    command.env("ENGRAM_HOSTILE_CORPORA", corpora.join("\n"));
    if let Some(replay) = &options.replay {
        command.env("ENGRAM_HOSTILE_REPLAY", replay);
    }
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(status.to_string().into()) }
}
