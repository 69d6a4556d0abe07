//! Histories of a database and its backups: whatever happens to them, in whatever order, what was promised is so.
//!
//! ```text
//! History (random, shrinks) --> Machine: a real folder ---- each operation ----> the folder as it is
//!                                     `--> the worlds that there may be (old, new, ...) -- judged against it
//! ```
//!
//! A crash makes several worlds possible; what is then seen leaves fewer. So what may happen next depends on what was
//! seen, and the histories are plain lists of operations, each of which makes the best of what it finds: a model that is
//! run ahead of the machine, as the state machines of proptest are, could not know.
//!
//! `PROPTEST_CASES=2000 cargo test --test model` tries more; `docs/testing.md` says how a failure is replayed.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod archive;
#[allow(dead_code, reason = "each test crate uses a part of it")]
#[path = "../shared/content.rs"]
mod content;
#[allow(dead_code, unused_imports, reason = "each test crate uses a part of it")]
#[path = "../shared/crash_fs/mod.rs"]
mod crash_fs;
mod machine;
mod model;
mod operation;
mod others;
#[allow(dead_code, reason = "each test crate uses a part of it")]
#[path = "../shared/processes.rs"]
mod processes;
mod rows;
mod runs;
mod view;

use std::collections::hash_map::RandomState;
use std::fmt::Write as _;
use std::hash::BuildHasher as _;
use std::io::Write as _;

use machine::Machine;
use operation::{History, Operation, Run, histories};
use proptest::test_runner::{Config, FileFailurePersistence, RngSeed, TestCaseError, TestRunner};

/// Histories, where `PROPTEST_CASES` does not say.
const CASES: u32 = 128;

/// Episodes in the longest.
const LONGEST: usize = 20;

/// Runs a history; an error tells it with what came of each operation.
fn live_through(history: &History) -> Result<(), String> {
    let mut told = String::new();
    let mut machine = Machine::new()?;
    // Whatever was interrupted last is brought to its end.
    for operation in history.0.iter().chain(&[Operation::Run(Run::Recover), Operation::Verify]) {
        match machine.happen(*operation) {
            Ok(came_of_it) => writeln!(told, "{operation:?}: {came_of_it}").unwrap(),
            Err(wrong) => return Err(format!("{wrong}\n\n{told}{operation:?}: wrong, as above\n")),
        }
    }
    Ok(())
}

#[test]
fn every_history_keeps_the_promises() {
    let defaults = Config::default();
    let config = Config {
        cases: if std::env::var_os("PROPTEST_CASES").is_none() { CASES } else { defaults.cases },
        rng_seed: match defaults.rng_seed {
            RngSeed::Random => RngSeed::Fixed(RandomState::new().hash_one(())),
            seed @ RngSeed::Fixed(_) => seed,
        },
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct("proptest-regressions/model.txt"))),
        ..defaults
    };
    // Not by a macro: it is to be seen without asking for it.
    writeln!(std::io::stderr(), "{} histories, PROPTEST_RNG_SEED={}", config.cases, config.rng_seed).unwrap();
    let tried =
        TestRunner::new(config).run(&histories(LONGEST), |history| live_through(&history).map_err(TestCaseError::fail));
    if let Err(failed) = tried {
        panic!("{failed}");
    }
}
