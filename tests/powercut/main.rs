//! Real power cuts: the program on a file system of the kernel's, on a disk of our own that records every write and every
//! flush. Then the disk is what it may be after a power cut, the kernel mounts it, and the checks of the crash suite judge.
//!
//! Needs root, and takes long: `cargo xtask powercut`. What needs neither runs with the other tests.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod archives;
mod case;
#[allow(dead_code, reason = "each test crate uses a part of it")]
#[path = "../shared/content.rs"]
mod content;
#[allow(dead_code, unused_imports, reason = "each test crate uses a part of it")]
#[path = "../shared/crash_fs/mod.rs"]
mod crash_fs;
#[allow(dead_code, reason = "each test crate uses a part of it")]
#[path = "../crash/databases.rs"]
mod databases;
mod device;
mod disk;
mod explore;
#[allow(dead_code, reason = "each test crate uses a part of it")]
#[path = "../crash/folder.rs"]
mod folder;
mod in_place;
#[allow(dead_code, reason = "each test crate uses a part of it")]
#[path = "../crash/kept.rs"]
mod kept;
#[allow(dead_code, reason = "each test crate uses a part of it")]
#[path = "../crash/promise.rs"]
mod promise;
#[allow(dead_code, reason = "each test crate uses a part of it")]
#[path = "../shared/random.rs"]
mod random;
#[allow(dead_code, reason = "each test crate uses a part of it")]
#[path = "../crash/scenario.rs"]
mod scenario;
mod swap;
mod systems;
#[allow(dead_code, reason = "each test crate uses a part of it")]
#[path = "../crash/view.rs"]
mod view;
mod wrong;

use std::time::Instant;

use archives::{Backup, Prune};
use camino::Utf8PathBuf;
use case::Case;
use explore::{Counts, Explorer};
use in_place::InPlace;
use scenario::{Command, Earlier, Old, Scenario, Start};
use swap::Swap;
use systems::System;
use wrong::{Flaw, Naive};

/// How many violations are printed in full.
const SHOWN: usize = 5;

/// A run of all scenarios of a command has new states, since the kernel writes at other moments; but not forever.
const ROUNDS: usize = 16;

const COMMANDS: [&str; 6] = ["backup", "restore", "restore-in-place", "undo", "recover", "prune"];

/// Every way in which a command is tried.
fn cases(command: &str) -> Vec<Box<dyn Case>> {
    let swap = |name, old, command| Scenario::new(name, old, command);
    let begun = |name, old, start| Scenario { start, ..Scenario::new(name, old, Command::Restore) };
    match command {
        "backup" => vec![
            Box::new(Backup::new("hot-wal-snapshot/backup", Old::HotWal, "snapshot")),
            Box::new(Backup::new("hot-wal-online/backup", Old::HotWal, "online")),
            Box::new(Backup::new("rollback-snapshot/backup", Old::Rollback, "snapshot")),
            Box::new(Backup::new("clean-vacuum/backup", Old::Clean, "vacuum")),
        ],
        "restore" => vec![
            Box::new(Swap::new(swap("hot-wal/restore", Old::HotWal, Command::Restore))),
            Box::new(Swap::new(swap("hot-journal/restore", Old::HotJournal, Command::Restore))),
            Box::new(Swap::new(swap("rollback/restore", Old::Rollback, Command::Restore))),
            Box::new(Swap::new(swap("lost-but-wal/restore", Old::LostButWal, Command::Restore))),
            Box::new(Swap::new(Scenario {
                earlier: Earlier::Sound,
                ..swap("kept/restore", Old::Clean, Command::Restore)
            })),
        ],
        "restore-in-place" => vec![
            Box::new(InPlace::new("hot-wal/restore-in-place", Old::HotWal, Command::Restore)),
            Box::new(InPlace::new("rollback/restore-in-place", Old::Rollback, Command::Restore)),
            Box::new(InPlace::new("hot-journal/restore-in-place", Old::HotJournal, Command::Restore)),
        ],
        "undo" => vec![
            Box::new(Swap::new(swap("hot-wal/undo", Old::HotWal, Command::Undo))),
            Box::new(Swap::new(swap("rollback/undo", Old::Rollback, Command::Undo))),
            Box::new(InPlace::new("hot-wal/undo-in-place", Old::HotWal, Command::Undo)),
        ],
        "recover" => vec![
            Box::new(Swap::recovery(begun("before-hot-wal/restore", Old::HotWal, Start::BeforeCommit))),
            Box::new(Swap::recovery(begun("before-clean/restore", Old::Clean, Start::BeforeCommit))),
            Box::new(Swap::recovery(begun("before-with-wal/restore", Old::HotWal, Start::BeforeCommitWithWal))),
            Box::new(Swap::recovery(begun("after/restore", Old::HotWal, Start::AfterCommit))),
        ],
        "prune" => {
            let prune = |many| -> Box<dyn Case> { Box::new(Prune { start: crash_fs::Tree::default(), many }) };
            vec![prune(3), prune(6), prune(12)]
        }
        other => panic!("no such command: {other}"),
    }
}

/// What is asked for, by the environment.
struct Asked {
    systems: Vec<System>,
    commands: Vec<String>,
    states: usize,
    seed: u64,
    keep: Utf8PathBuf,
    replay: Option<Utf8PathBuf>,
}

impl Asked {
    fn of_environment() -> Self {
        let variable = |name: &str| std::env::var(format!("ENGRAM_POWERCUT_{name}")).ok();
        let systems = variable("FS").map_or_else(
            || System::ALL.to_vec(),
            |names| names.split(',').map(|name| System::named(name).unwrap()).collect(),
        );
        let commands = variable("COMMAND").map_or_else(
            || COMMANDS.map(str::to_owned).to_vec(),
            |names| names.split(',').map(str::to_owned).collect(),
        );
        let number = |name, other| variable(name).map_or(other, |text| text.parse().unwrap());
        Self {
            systems,
            commands,
            states: usize::try_from(number("STATES", 1000)).unwrap(),
            seed: number("SEED", 1),
            keep: variable("KEEP").map_or_else(|| "target/powercut".into(), Utf8PathBuf::from),
            replay: variable("REPLAY").map(Utf8PathBuf::from),
        }
    }
}

fn line(system: System, command: &str, counts: &Counts, seconds: f64) -> String {
    format!(
        "| {} | {command} | {} | {} | {} | {} | {} | {} | {} | {} | {seconds:.0} s |",
        system.name(),
        counts.states,
        counts.done,
        counts.writes,
        counts.flushes,
        counts.recoveries,
        counts.cuts,
        counts.unmountable,
        counts.violations
    )
}

/// Every command on every file system, and then the restores that are wrong.
#[test]
#[ignore = "needs root, and takes long: cargo xtask powercut"]
fn long_run() {
    let asked = Asked::of_environment();
    assert!(rustix::process::geteuid().is_root(), "a disk of our own needs root");
    for system in &asked.systems {
        assert_eq!(system.missing(), None);
    }
    if let Some(file) = &asked.replay {
        return replay(&asked, file);
    }
    println!("seed {}", asked.seed);
    println!(
        "| file system | command | states | of these after it was done | writes | flushes | recoveries | cut again in the recovery | \
         not mounted | violations | time |\n|---|---|---|---|---|---|---|---|---|---|---|"
    );
    let mut violations = Vec::new();
    for system in &asked.systems {
        let mut explorer = Explorer::new(*system, asked.seed, Some(asked.keep.clone()));
        for command in &asked.commands {
            let start = Instant::now();
            explorer.begin();
            let mut cases = cases(command);
            let share = asked.states.div_ceil(cases.len());
            for _ in 0..ROUNDS {
                for case in &mut cases {
                    let left = asked.states.saturating_sub(explorer.counts.states);
                    if left > 0 {
                        explorer.crash(case.as_mut(), share.min(left));
                    }
                }
            }
            println!("{}", line(*system, command, &explorer.counts, start.elapsed().as_secs_f64()));
            assert!(explorer.counts.states >= asked.states, "there are no more states: {:?}", explorer.counts);
        }
        violations.append(&mut explorer.violations);
        wrong_ones(*system, &asked);
    }
    assert!(
        violations.is_empty(),
        "{} violations with seed {}:\n{}",
        violations.len(),
        asked.seed,
        violations.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join("\n"),
    );
}

/// The harness sees what is wrong, and nothing where nothing is.
fn wrong_ones(system: System, asked: &Asked) {
    use Flaw::{FileNotSynced, FolderNotSynced, LostFileNotSynced, Nothing, SidecarsLate};
    for flaw in [Nothing, FileNotSynced, LostFileNotSynced, FolderNotSynced, SidecarsLate] {
        let mut explorer = Explorer::new(system, asked.seed, None);
        explorer.crash(&mut Naive::new(flaw), 150);
        let caught = explorer.counts.violations - explorer.counts.unmountable;
        println!("{}, {flaw:?}: wrong in {caught} of {} states", system.name(), explorer.counts.states);
        // Before a rename over another file, ext4 writes the new one by itself.
        let is_hidden = flaw == Flaw::FileNotSynced && system == System::Ext4;
        assert!(is_hidden || (caught > 0) == (flaw != Flaw::Nothing), "{flaw:?}: {:?}", explorer.violations.first());
    }
}

fn replay(asked: &Asked, file: &Utf8PathBuf) {
    let name = file.file_name().unwrap();
    let mut parts = name.split('+');
    let system = System::named(parts.next().unwrap()).unwrap();
    let wanted = format!("{}/{}", parts.next().unwrap(), parts.next().unwrap());
    let mut all = COMMANDS.iter().flat_map(|command| cases(command));
    let mut case = all.find(|case| case.name().starts_with(&wanted)).unwrap();
    let wrong = Explorer::new(system, asked.seed, None).replay(case.as_mut(), file);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
