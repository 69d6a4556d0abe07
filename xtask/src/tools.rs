//! Cargo's own subcommands that are not part of it: installed at one version, for this project only.

use std::process::Command;

use camino::{Utf8Path, Utf8PathBuf};

use crate::Result;

/// The program of a crate, which is installed into `target/` if it is not there.
pub(crate) fn installed(root: &Utf8Path, name: &str, version: &str) -> Result<Utf8PathBuf> {
    let folder = crate::target(root)?.join(format!("tools/{name}-{version}"));
    let program = folder.join("bin").join(name);
    if !program.is_file() {
        let mut install = Command::new(cargo());
        install.args(["install", "--quiet", "--locked", "--version", version, name, "--root"]);
        done(install.arg(folder))?;
    }
    Ok(program)
}

/// The cargo that runs us, so that a chosen toolchain is kept.
pub(crate) fn cargo() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Runs it to a good end.
pub(crate) fn done(command: &mut Command) -> Result {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.status().map_err(|e| format!("{name}: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{name}: {status}").into()) }
}
