//! What the figures were measured on.

use camino::Utf8Path;

use super::process::first_line;
use crate::Result;

pub(super) fn describe(scratch: &Utf8Path) -> Result<Vec<(String, String)>> {
    let cores = std::thread::available_parallelism()?;
    let memory = proc_field("/proc/meminfo", "MemTotal")?;
    let kilobytes: u64 = memory.trim_end_matches(" kB").parse()?;
    let facts = [
        ("processor", proc_field("/proc/cpuinfo", "model name").unwrap_or_else(|_missing| "unknown".to_owned())),
        ("cores", cores.to_string()),
        ("memory", format!("{} GiB", kilobytes.div_ceil(1_024 * 1_024))),
        ("kernel", first_line("uname", &["-sr"])?),
        ("file system", first_line("findmnt", &["-n", "-o", "FSTYPE,OPTIONS", "-T", scratch.as_str()])?),
        ("load when it began", first_line("cut", &["-d ", "-f1-3", "/proc/loadavg"])?),
    ];
    Ok(facts.map(|(name, value)| (name.to_owned(), value)).into())
}

/// The value of the first line that begins with `name`.
fn proc_field(path: &str, name: &str) -> Result<String> {
    let text = std::fs::read_to_string(path).map_err(|cause| format!("{path}: {cause}"))?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'));
    Ok(value.ok_or_else(|| format!("{path} has no {name}"))?.trim().to_owned())
}
