//! The real binary, killed before each of its file operations, and with each of them failing: restores, undos and backups
//! of databases of every kind, and `recover` in what they leave.
//!
//! Only what a kill leaves: nothing that was written is lost. Every process is started by [`processes::start`], because
//! a child has the databases of the other threads open until it runs its program.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod again;
#[path = "../shared/content.rs"]
mod content;
mod errors;
mod kills;
#[path = "../shared/processes.rs"]
mod processes;
mod promises;
mod run;
mod scenario;
mod sweep;
mod transaction;

use std::sync::Mutex;

use camino::Utf8PathBuf;

use promises::Report;
use scenario::{Action, Old, Scenario, Template, lay_out};
use sweep::Depth;

/// Everything in one scenario.
fn sweep_all(scenario: Scenario, depth: Depth) -> Report {
    let mut report = Report::default();
    let template = Template::new(scenario);
    kills::killed(&template, depth, &mut report);
    errors::failing(&template, depth, &mut report);
    errors::short_writes(&template, &mut report);
    let operations = template.undisturbed.operations().len();
    let (runs, Report { faults, problems }) = (template.runs.get(), &report);
    println!("{scenario}: {operations} operations, {runs} runs, {faults} faults, {} problems", problems.len());
    report
}

/// A module for each action, with a test for each database that it may find.
macro_rules! sweeps {
    ($($module:ident $action:ident,)*) => { $(
        mod $module {
            use super::{Action, Depth, Old, Scenario, sweep_all};

            fn over(old: Old) {
                sweep_all(Scenario { action: Action::$action, old }, Depth::Usual).expect_none();
            }

            #[test]
            fn a_hot_wal() {
                over(Old::HotWal);
            }

            #[test]
            fn a_hot_journal() {
                over(Old::HotJournal);
            }

            #[test]
            fn a_rollback_database() {
                over(Old::Rollback);
            }

            #[test]
            fn an_unopenable_database_with_a_wal() {
                over(Old::Unopenable);
            }

            #[test]
            fn an_orphan_wal() {
                over(Old::Orphan);
            }

            #[test]
            fn nothing() {
                over(Old::Missing);
            }

            #[test]
            fn a_restored_database() {
                over(Old::SecondTime);
            }

            #[test]
            fn a_database_behind_a_symlink() {
                over(Old::Symlink);
            }
        }
    )* };
}

/// The same in place: nothing that SQLite cannot open.
macro_rules! sweeps_in_place {
    ($($module:ident $action:ident,)*) => { $(
        mod $module {
            use super::{Action, Depth, Old, Scenario, sweep_all};

            fn over(old: Old) {
                sweep_all(Scenario { action: Action::$action, old }, Depth::Usual).expect_none();
            }

            #[test]
            fn a_hot_wal() {
                over(Old::HotWal);
            }

            #[test]
            fn a_hot_journal() {
                over(Old::HotJournal);
            }

            #[test]
            fn a_rollback_database() {
                over(Old::Rollback);
            }

            #[test]
            fn a_restored_database() {
                over(Old::SecondTime);
            }

            #[test]
            fn a_database_behind_a_symlink() {
                over(Old::Symlink);
            }
        }
    )* };
}

sweeps_in_place! {
    restore_in_place_over RestoreInPlace,
    undo_in_place_over UndoInPlace,
}

sweeps! {
    restore_over Restore,
    undo_over Undo,
    backup_of Backup,
    online_backup_of BackupOnline,
    backup_by_vacuum_of BackupByVacuum,
}

#[test]
#[ignore = "every error in every scenario, and every interrupted state: takes minutes"]
fn everything_with_everything() {
    let (scenarios, all) = (Mutex::new(Scenario::all()), Mutex::new(Report::default()));
    let next = || scenarios.lock().unwrap().next();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().unwrap().get() {
            scope.spawn(|| {
                while let Some(scenario) = next() {
                    let report = sweep_all(scenario, Depth::Full);
                    all.lock().unwrap().problems.extend(report.problems);
                }
            });
        }
    });
    all.lock().unwrap().expect_none();
}

#[test]
#[ignore = "no test: lays a scenario out for who replays one"]
fn lay_out_a_scenario() {
    let (Ok(wanted), Ok(folder)) = (std::env::var("SCENARIO"), std::env::var("FOLDER")) else { return };
    let scenario = Scenario::all().find(|scenario| scenario.to_string() == wanted).unwrap();
    lay_out(scenario, &Utf8PathBuf::from(folder).canonicalize_utf8().unwrap());
}
