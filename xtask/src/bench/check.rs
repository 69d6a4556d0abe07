//! The deep check beside SQLite's own, part by part; and what its parts would take on more processors.

use std::num::NonZero;
use std::process::Command;

use camino::{Utf8Path, Utf8PathBuf};
use engram_restore::{CheckOptions, CheckReport, Depth, Quiet, check};
use rusqlite::{Connection, OpenFlags};

use super::contenders::{OURS, our_file, ours};
use super::contest::Contender;
use super::process::Step;
use super::report::PartEntry;
use super::stage::{Stage, Tools};
use crate::Result;

pub(super) const STOCK: &str = "PRAGMA integrity_check";
pub(super) const INTEGRITY: &str = "ours: integrity, pages";
pub(super) const FINGERPRINT: &str = "ours: fingerprint";

/// What a child does, so that each is a process of its own.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Part {
    /// SQLite's own check, on a connection as anybody opens it.
    Stock,
    /// Integrity check and page accounting.
    Integrity,
    /// The content's fingerprint.
    Fingerprint,
}

#[derive(clap::Args)]
pub(crate) struct Options {
    part: Part,
    file: Utf8PathBuf,
}

/// The child's side: says `ok`, or what is wrong.
pub(crate) fn run(options: &Options) -> Result {
    let file = &options.file;
    let said = match options.part {
        Part::Stock => {
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = Connection::open_with_flags(file, flags)?;
            connection.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0))?
        }
        Part::Integrity => checked(file, Depth::Integrity)?.integrity.rows.join("; "),
        Part::Fingerprint => {
            let whole = checked(file, Depth::Fingerprint)?.content.whole();
            whole.map_or("the content could not be read", |_| "ok").to_owned()
        }
    };
    println!("{said}");
    Ok(())
}

fn checked(file: &Utf8Path, depth: Depth) -> Result<CheckReport> {
    let options = CheckOptions { depth, ..CheckOptions::default() };
    Ok(check(file, &options, &mut Quiet).map_err(|e| e.message())?)
}

pub(super) fn contenders(stage: &Stage, tools: &Tools) -> Vec<Contender> {
    let (backup, make) = our_file(stage, tools, "checked.db");
    let part = |name, part: &str| {
        let step = Step::new(name, tools.xtask.as_str(), &["bench-check", part, backup.as_str()]).that_says("ok");
        Contender::new(name, Vec::new(), vec![step])
    };
    let deep = ours(tools, "verify --deep", &stage.database, &["verify", "--deep", backup.as_str()]);
    vec![
        part(STOCK, "stock").with_setup(make),
        part(INTEGRITY, "integrity"),
        part(FINGERPRINT, "fingerprint"),
        Contender::new(OURS, Vec::new(), vec![deep]),
    ]
}

/// What each part takes while nothing else runs.
pub(super) fn parts(stage: &Stage, tools: &Tools) -> Result<Vec<PartEntry>> {
    let backup = stage.out("parts.db");
    let run = |arguments: &[&str]| -> Result<Vec<u8>> {
        let mut command = Command::new(&tools.engram);
        command.args(["--db", stage.database.as_str(), "--json"]).args(arguments);
        let output = command.output()?;
        if output.status.success() { Ok(output.stdout) } else { Err(format!("{command:?}: {}", output.status).into()) }
    };
    run(&["backup", "--path", backup.as_str()])?;
    let answer = run(&["verify", "--deep", "--jobs", "1", backup.as_str()])?;
    let answer: serde_json::Value = serde_json::from_slice(&answer)?;
    Ok(serde_json::from_value(answer["backups"][0]["parts"].clone())?)
}

/// How long so many threads take for parts, if each takes the longest that is left and none disturbs another.
pub(super) fn makespan_ms(parts: &[PartEntry], threads: NonZero<usize>) -> u64 {
    let mut durations: Vec<_> = parts.iter().map(|part| part.duration_ms).collect();
    durations.sort_unstable_by(|one, other| other.cmp(one));
    let mut busy = vec![0; threads.get()];
    for duration in durations {
        if let Some(free) = busy.iter_mut().min() {
            *free += duration;
        }
    }
    busy.into_iter().max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_part_bounds_what_more_processors_bring() {
        let part = |duration_ms| PartEntry { name: String::new(), duration_ms };
        let parts = [part(10), part(40), part(20), part(10)];
        let of = |threads| makespan_ms(&parts, NonZero::new(threads).unwrap());
        assert_eq!((of(1), of(2), of(3), of(8)), (80, 40, 40, 40));
    }
}
