//! What a command costs that has nothing to do.

use camino::Utf8Path;

use super::contenders::ours;
use super::process::{Runner, Step};
use super::report::StartupEntry;
use super::stage::Tools;
use crate::Result;

/// The first does nothing at all: what starting and watching any process costs here.
pub(super) fn run(runner: &Runner, tools: &Tools, dir: &Utf8Path, rounds: usize) -> Result<Vec<StartupEntry>> {
    let (archive, database) = (dir.join("empty"), dir.join("none.db"));
    std::fs::create_dir_all(&archive)?;
    let mut steps = vec![
        Step::new("true", "true", &[]),
        Step::new("engram-restore --version", tools.engram.as_str(), &["--version"]),
        ours(tools, "engram-restore list, empty archive", &database, &["--archive", archive.as_str(), "list"]),
    ];
    if tools.peers {
        steps.push(Step::new("sqlite3 --version", "sqlite3", &["--version"]));
    }
    if tools.restic {
        steps.push(Step::new("restic version", "restic", &["version"]));
    }
    let mut entries: Vec<_> =
        steps.iter().map(|step| StartupEntry { command: step.name.to_owned(), seconds: Vec::new() }).collect();
    for _ in 0..rounds {
        for (step, entry) in steps.iter().zip(&mut entries) {
            entry.seconds.push(runner.run(step)?.seconds);
        }
    }
    Ok(entries)
}
