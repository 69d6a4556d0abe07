//! `cargo xtask release`: the release build, and what it weighs. Growth is a decision: it changes a number here.

use std::fs;
use std::process::Command;

use camino::Utf8Path;

use crate::Result;

/// Bytes of the stripped binary at most. Signatures, and the care with what comes from outside, are the last third of a megabyte.
const MAX_BYTES: u64 = 9_000_000;
/// Crates that the binary is made of at most, its own among them. The reports of a drill cost fifteen: quick-junit, with the date
/// and map types in its interface, and maud. Signatures cost sixteen: minisign, and what it opens a key under a password with.
const MAX_CRATES: usize = 125;
/// What it may be linked with: the C library and what belongs to it.
const LIBRARIES: [&str; 5] = ["linux-vdso.so", "libc.so", "libm.so", "libgcc_s.so", "/lib64/ld-linux"];

pub(crate) fn run(root: &Utf8Path) -> Result {
    output(cargo().args(["build", "--release", "--locked", "--bin", "engram-restore"]).current_dir(root))?;
    let binary = crate::target(root)?.join("release/engram-restore");
    let mut faults = Vec::new();

    let scratch = tempfile::tempdir()?;
    let stripped = scratch.path().join("engram-restore");
    output(Command::new("strip").arg("-o").arg(&stripped).arg(&binary))?;
    let (size, stripped) = (fs::metadata(&binary)?.len(), fs::metadata(&stripped)?.len());
    println!("{binary}: {size} bytes, {stripped} stripped (at most {MAX_BYTES})");
    if stripped > MAX_BYTES {
        faults.push(format!("the binary has {stripped} bytes, and may have {MAX_BYTES}"));
    }

    let libraries = output(Command::new("ldd").arg(&binary))?;
    let libraries = linked(&libraries);
    println!("linked with {}", libraries.join(", "));
    for other in libraries.iter().filter(|library| !LIBRARIES.iter().any(|known| library.starts_with(known))) {
        faults.push(format!("it is linked with {other}, which not every machine has"));
    }

    let tree = ["tree", "--package", "engram-restore", "--edges", "normal", "--prefix", "none", "--format", "{p}"];
    let tree = output(cargo().args(tree).current_dir(root))?;
    let crates = crates(&tree);
    println!("{} crates (at most {MAX_CRATES})", crates.len());
    if crates.len() > MAX_CRATES {
        faults.push(format!("it is made of {} crates, and may be of {MAX_CRATES}", crates.len()));
    }
    if faults.is_empty() { Ok(()) } else { Err(faults.join("\n").into()) }
}

/// The libraries that `ldd` names.
fn linked(ldd: &str) -> Vec<&str> {
    ldd.lines().filter_map(|line| line.split_whitespace().next()).collect()
}

/// The crates that `cargo tree` names, each once.
fn crates(tree: &str) -> Vec<&str> {
    let mut crates: Vec<_> = tree.lines().map(|line| line.trim_end_matches(" (*)")).collect();
    crates.sort_unstable();
    crates.dedup();
    crates.retain(|line| !line.is_empty());
    crates
}

fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// What a command prints; what it complains of goes on to the screen.
fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stderr(std::process::Stdio::inherit()).output().map_err(|e| format!("{name}: {e}"))?;
    if !output.status.success() {
        return Err(format!("{name} failed: {}", output.status).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Would catch a count that is of lines, not of crates.
    #[test]
    fn each_crate_counts_once() {
        assert_eq!(crates("a v1\nb v2\nb v2 (*)\n\nb v3\n"), ["a v1", "b v2", "b v3"]);
        assert_eq!(linked("\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /x (0x2)\n"), ["linux-vdso.so.1", "libc.so.6"]);
    }
}
