//! A power cut at every operation of a restore, with every loss that a file system may make of it, and then at every
//! operation of the recovery from that: the folder always holds what is promised.
//!
//! A failure names its state, as `hot-wal/restore/17/posix/3`: the scenario, the number of operations before the crash,
//! what the file system promises, and which of the states that are possible then; `+writes` and the like say what
//! happened next, and `/recover/...` where the recovery was crashed in turn. `ENGRAM_CRASH_REPLAY=<that>` tries it alone.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod backups;
#[allow(dead_code, reason = "each test crate uses a part of it")]
#[path = "../shared/content.rs"]
mod content;
mod counts;
#[allow(dead_code, reason = "each test crate uses a part of it")]
#[path = "../shared/crash_fs/mod.rs"]
mod crash_fs;
mod databases;
mod effort;
mod explore;
mod folder;
mod in_place;
mod kept;
mod long;
mod meanwhile;
mod model;
mod mutants;
mod mutation;
mod promise;
mod scenario;
mod scenarios;
mod subjects;
mod view;

use std::io::Write as _;

use effort::Effort;
use explore::Explorer;
use scenario::Scenario;

/// How many violations are printed in full.
const SHOWN: usize = 8;

/// In each scenario of a backup.
const BACKUP_STATES: usize = 200;

/// Explores one scenario and says what it came to.
fn crash(scenario: &Scenario) {
    let effort = Effort::of_environment();
    if !effort.concerns(scenario.name) {
        return;
    }
    let start = std::time::Instant::now();
    let mut explorer = Explorer::new(scenario, &effort);
    explorer.run();
    // Not by a macro: it is to be seen without asking for it.
    let mut out = std::io::stderr();
    let seconds = start.elapsed().as_secs_f64();
    writeln!(out, "{}: {} in {seconds:.1} s", scenario.name, explorer.counts).unwrap();
    let wrong = &explorer.violations;
    assert!(
        wrong.is_empty(),
        "{} violations with seed {}:\n{}",
        wrong.len(),
        effort.seed,
        wrong.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join("\n"),
    );
}

#[test]
fn backups_are_whole_or_not_there() {
    long::backups(BACKUP_STATES);
}

/// An operation that could be left out, or come at another time, without anybody noticing, is redundant, or not tested.
#[test]
fn mutants_are_caught() {
    if Effort::of_environment().replay.is_none() {
        long::mutants();
    }
}

/// As many states as `ENGRAM_CRASH_STATES` says, and the mutants: `cargo xtask crash`.
#[test]
#[ignore = "a long run"]
fn long_run() {
    long::run();
}
