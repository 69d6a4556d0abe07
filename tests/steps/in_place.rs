//! The odd steps of a restore in place: what others do between two operations of it.

use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use engram_restore::signature::Keys;
use engram_restore::{ErrorKind, InPlaceReport, Observer, RestoreOptions, VerifyOptions, restore_in_place, verify};

use super::{NEW, OLD, Scene, Step, now, observations, pass, scripted, step};
use crate::processes::Foreign;

const LOCK: &str = "sqlite lock engram.db";
const WRITE: &str = "sqlite overwrite engram.db";
const FOLD: &str = "sqlite fold engram.db";

/// One scene at a time.
const BOTH: [fn() -> Scene; 2] = [Scene::new, Scene::in_rollback_mode];

/// Keeps what it is told.
#[derive(Default)]
struct Warnings(Vec<String>);

impl Observer for Warnings {
    fn event(&mut self, event: engram_restore::Event<'_>) {
        if let engram_restore::Event::Warning(text) = event {
            self.0.push(text.to_owned());
        }
    }
}

impl Scene {
    /// The same as for a swap.
    fn restore_in_place<const N: usize>(
        &self,
        steps: [(&'static str, Step); N],
    ) -> (Result<InPlaceReport, engram_restore::Error>, Vec<String>) {
        let (database, backup, wait) = (self.db.clone(), self.backup.clone(), Duration::ZERO);
        let options = RestoreOptions { database, backup, deep: false, wait, now: now(), keys: Keys::default() };
        let archive = self.backup.parent().unwrap();
        let mut warnings = Warnings::default();
        let done = scripted(self, steps, |storage| restore_in_place(&options, archive, storage, &mut warnings));
        (done, warnings.0)
    }

    fn in_rollback_mode() -> Self {
        let scene = Self::new();
        Foreign::with(&scene.db, "PRAGMA journal_mode=DELETE").close();
        scene
    }
}

/// An application commits there, and stays open.
fn commits(scene: &Scene) -> Step {
    let db = scene.db.clone();
    step(move || Foreign::with(&db, "DELETE FROM observations WHERE id = 1").close())
}

fn rows_of(backup: &Utf8Path) -> String {
    assert_eq!(verify(backup, &VerifyOptions::default(), &mut engram_restore::Quiet).unwrap().findings, []);
    let copy = backup.with_extension("copy");
    std::fs::copy(backup, &copy).unwrap();
    observations(&copy)
}

/// Would catch a commit that is in neither the backup of the old content nor the new content.
#[test]
fn what_others_commit_before_the_lock_is_in_the_backup() {
    for make in BOTH {
        let scene = make();
        let (done, _) = scene.restore_in_place([(LOCK, commits(&scene))]);
        let report = done.unwrap();
        assert_eq!(rows_of(&report.pre_restore), "46");
        assert_eq!(report.unproven, None);
        assert_eq!(observations(&scene.db), NEW);
    }
}

/// Would catch a loop without end, or a backup that is not of what was overwritten.
#[test]
fn in_rollback_mode_who_commits_each_time_is_busy() {
    let scene = Scene::in_rollback_mode();
    let each = |id: u32| {
        let db = scene.db.clone();
        let sql = format!("DELETE FROM observations WHERE id = {id}");
        (LOCK, step(move || Foreign::with(&db, &sql).close()))
    };
    let (done, _) = scene.restore_in_place([each(1), each(2), each(3), each(4), each(5)]);
    let error = done.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error:?}");
    assert!(error.target_state().is_some_and(|target| !target.changed), "{error:?}");
    assert_eq!(observations(&scene.db), "42");
}

/// Would catch a lock that is taken after the record, or not at all.
#[test]
fn nobody_commits_between_the_lock_and_the_write() {
    for make in BOTH {
        let scene = make();
        let db = scene.db.clone();
        let late = step(move || {
            let mut late = Foreign::open(&db);
            assert_eq!(late.run("DELETE FROM observations"), Err("database is locked".to_owned()));
            late.close();
        });
        scene.restore_in_place([(WRITE, late)]).0.unwrap();
        assert_eq!(observations(&scene.db), NEW);
    }
}

/// Would catch a report that calls proven what it has not seen, or that takes an application's commit for a failure.
#[test]
fn a_commit_of_others_after_the_write_is_said_and_kept() {
    for make in BOTH {
        let scene = make();
        let (done, warnings) = scene.restore_in_place([(FOLD, commits(&scene))]);
        let why = done.unwrap().unproven.unwrap();
        assert!(why.contains("another process has committed"), "{why}");
        assert!(warnings.iter().any(|text| text.contains(&why)), "{warnings:?}");
        assert_eq!(observations(&scene.db), "39");
    }
}

/// Would catch a restore that trusts the hash from before the backup was read.
#[test]
fn a_backup_that_is_changed_while_it_is_read_is_noticed() {
    let scene = Scene::new();
    let backup: Utf8PathBuf = scene.backup.clone();
    let change = step(move || {
        let file = std::fs::File::options().write(true).open(&backup).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"x", 99).unwrap();
    });
    let (done, _) = scene.restore_in_place([(WRITE, pass()), (FOLD, change)]);
    let error = done.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error:?}");
    assert!(error.target_state().is_some_and(|target| target.changed), "{error:?}");
    assert!(error.hint_text().unwrap().contains("undo --in-place"), "{error:?}");
}

/// Would catch a failure behind the commit that is reported as if nothing had happened, and one before it that is not taken
/// back.
#[test]
fn a_failure_says_which_content_there_is() {
    let fails = || -> Step { Box::new(|| Err(std::io::ErrorKind::StorageFull.into())) };
    for (at, changed, rows) in [(LOCK, false, OLD), (WRITE, false, OLD), (FOLD, true, NEW)] {
        let scene = Scene::new();
        let error = scene.restore_in_place([(at, fails())]).0.unwrap_err();
        assert!(error.target_state().is_some_and(|target| target.changed == changed), "{at}: {error:?}");
        assert_eq!(observations(&scene.db), rows, "{at}");
        assert!(!scene.beside(".restore-in-place").exists(), "{at}");
    }
}
