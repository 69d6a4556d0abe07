//! A guard that is asked to stop between two operations of its put-back.

use std::sync::Arc;
use std::time::Duration;

use engram_restore::signature::Keys;
use engram_restore::storage::Storage;
use engram_restore::{Cancel, ErrorKind, Event, GuardOptions, GuardReport, Observer, OnFailure, RestoreMode, guard};

use super::{AFTER_COMMIT, COMMIT, OLD, Scene, Script, now, observations, pass, step};
use crate::processes::Foreign;

/// Hears the token.
struct Stoppable(Cancel);

impl Observer for Stoppable {
    fn event(&mut self, _event: Event<'_>) {}

    fn cancel(&self) -> Cancel {
        self.0.clone()
    }
}

/// A command that deletes everything and fails, under a guard that is asked to stop before the last of these operations of its put-back.
fn stopped_at(scene: &Scene, operations: &[&'static str]) -> GuardReport {
    let options = GuardOptions {
        database: scene.db.clone(),
        archive: scene.backup.parent().unwrap().to_owned(),
        config: None,
        label: None,
        on_failure: OnFailure::Restore,
        wait: Duration::ZERO,
        command: vec!["true".to_owned()],
        now: now(),
        keys: Keys::default(),
    };
    let cancel = Cancel::default();
    let mut observer = Stoppable(cancel.clone());
    let begun = guard(&options, &Storage::new(), &mut observer).unwrap();
    Foreign::with(&scene.db, "DELETE FROM observations").close();
    let folder = scene.db.parent().unwrap().to_string() + "/";
    let (last, first) = operations.split_last().unwrap();
    let first = first.iter().map(|operation| (*operation, pass()));
    let steps = first.chain([(*last, step(move || cancel.request()))]).collect();
    let script = Arc::new(Script { folder, steps: std::sync::Mutex::new(steps) });
    let report = begun.finish(9, now(), &Storage::intercepted(script.clone()), &mut observer);
    assert!(script.steps.lock().unwrap().is_empty(), "did not come: {report:?}");
    report
}

/// Would catch a report of what was wanted in the place of what is there.
#[test]
fn a_stop_after_the_commit_leaves_the_database_put_back_and_says_so() {
    let scene = Scene::new();
    let report = stopped_at(&scene, &[COMMIT, AFTER_COMMIT]);
    assert_eq!((report.restored, report.put_back), (Some(RestoreMode::Swap), None), "{:?}", report.error);
    assert_eq!(observations(&scene.db), OLD);
    drop(scene);

    let scene = Scene::new();
    let mut daemon = Foreign::with(&scene.db, "SELECT count(*) FROM observations");
    let report = stopped_at(&scene, &["sqlite overwrite engram.db", "sqlite fold engram.db"]);
    assert_eq!((report.restored, report.put_back), (Some(RestoreMode::InPlace), None), "{:?}", report.error);
    let error = report.error.unwrap();
    assert_eq!(error.kind(), ErrorKind::Interrupted, "{error:?}");
    assert!(error.target_state().is_some_and(|target| target.changed && target.committed), "{error:?}");
    assert_eq!(daemon.run("SELECT count(*) FROM observations").unwrap(), OLD);
}

#[test]
fn a_stop_before_the_commit_leaves_what_the_command_left_and_says_so() {
    for (operation, has_daemon) in [("sqlite overwrite engram.db", true), ("create engram.db.restore-staged", false)] {
        let scene = Scene::new();
        let daemon = has_daemon.then(|| Foreign::with(&scene.db, "SELECT count(*) FROM observations"));
        let report = stopped_at(&scene, &[operation]);
        drop(daemon);
        assert_eq!(report.restored, None, "{:?}", report.error);
        let (error, put_back) = (report.error.unwrap(), report.put_back.unwrap());
        assert_eq!(error.kind(), ErrorKind::Interrupted, "{error:?}");
        assert!(error.target_state().is_some_and(|target| !target.changed), "{error:?}");
        assert!(put_back.in_place.is_some());
        assert_eq!(observations(&scene.db), "0", "{operation}");
    }
}
