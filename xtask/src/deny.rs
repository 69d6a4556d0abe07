//! `cargo xtask deny`: licences, banned crates and sources of everything that is built, by deny.toml.

use std::process::Command;

use camino::Utf8Path;

use crate::Result;
use crate::tools::{cargo, done, installed};

pub(crate) fn run(root: &Utf8Path) -> Result {
    let deny = installed(root, "cargo-deny", "0.20.2")?;
    let config = root.join("deny.toml");
    // The fuzz targets are given to nobody, so they need no licence.
    for (folder, checks) in
        [(root.to_owned(), &["licenses", "bans", "sources"][..]), (root.join("fuzz"), &["bans", "sources"])]
    {
        let mut command = Command::new(&deny);
        command.env("CARGO", cargo()).current_dir(&folder).args(["--workspace", "--config", config.as_str(), "check"]);
        done(command.args(checks))?;
    }
    Ok(())
}
