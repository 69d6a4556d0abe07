//! The hooks that a daemon calls on its own connection.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use camino::Utf8Path;
use engram_restore::storage::Storage;
use engram_restore::{
    Cancel, ConnectionBackupOptions, CycleOptions, Destination, ErrorKind, Event, Limits, Observer, Quiet, Step,
    Verdict, after_cycle, backup_connection, before_cycle,
};
use rusqlite::Connection;

use crate::model::{Replica, STEP, content, content_of_file};
use crate::processes::{Foreign, start};
use crate::watch::{Lock, Watch, When, own_locks};
use crate::{PRAGMAS, Scene};

fn options(scene: &Scene) -> CycleOptions {
    CycleOptions {
        archive: scene.dir.join("backups"),
        label: Some("cycle".to_owned()),
        busy_limit: Duration::ZERO,
        now: jiff::Timestamp::now(),
        keys: engram_restore::signature::Keys::default(),
    }
}

fn backup_options(scene: &Scene) -> ConnectionBackupOptions {
    ConnectionBackupOptions {
        destination: Destination::Archive(scene.dir.join("backups")),
        label: None,
        busy_limit: Duration::ZERO,
        limits: Limits::default(),
        now: jiff::Timestamp::now(),
        keys: engram_restore::signature::Keys::default(),
    }
}

fn step(connection: &Connection) {
    connection.execute_batch(&format!("BEGIN IMMEDIATE; {STEP} COMMIT;")).unwrap();
}

fn names(dir: &Utf8Path) -> Vec<String> {
    let mut names: Vec<_> = dir.read_dir_utf8().unwrap().map(|entry| entry.unwrap().file_name().to_owned()).collect();
    names.sort();
    names
}

/// Would catch a put-back that costs the daemon its connection, a prepared statement, a temporary table or a setting; one
/// that others do not see; and one that loses what the cycle has left.
#[test]
fn failed_cycle_is_put_back_through_the_connection_which_goes_on() {
    let scene = Scene::new();
    let (mut connection, storage) = (scene.connect(), Storage::new());
    let mut other = Foreign::with(&scene.db, "SELECT gen FROM meta");
    step(&connection);
    connection.execute_batch("CREATE TEMP TABLE mine AS SELECT 42 AS answer; PRAGMA cache_size=-777").unwrap();
    connection.prepare_cached("SELECT count(*) FROM account").unwrap().query_row([], |_| Ok(())).unwrap();

    let cycle = before_cycle(&connection, &options(&scene), &storage, &mut Quiet).unwrap();
    connection
        .execute_batch("DELETE FROM account; DROP TABLE digest; CREATE TABLE extra(x); UPDATE meta SET gen = 99")
        .unwrap();
    let report = after_cycle(&mut connection, &cycle, true, &options(&scene), &storage, &mut Quiet).unwrap();
    assert_eq!((report.verdict, report.problem), (Verdict::Pass, None));
    let put_back = report.restored.unwrap();
    assert_eq!(put_back.unproven, None);

    assert_eq!(content(&connection).unwrap(), (1, Replica::new().content(1)));
    assert_eq!(other.run("SELECT gen FROM meta").unwrap(), "1");
    let accounts: i64 = connection
        .prepare_cached("SELECT count(*) FROM account")
        .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
        .unwrap();
    assert_eq!(accounts, 100);
    for (sql, value) in [
        ("SELECT answer FROM temp.mine", 42),
        ("PRAGMA cache_size", -777),
        ("PRAGMA synchronous", 1),
        ("PRAGMA foreign_keys", 1),
        ("PRAGMA busy_timeout", 5000),
    ] {
        assert_eq!(connection.query_row(sql, [], |row| row.get::<_, i64>(0)), Ok(value), "{sql}");
    }
    let mode: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
    assert_eq!(mode, "wal");
    let kept = Connection::open(put_back.kept.unwrap()).unwrap();
    assert_eq!(kept.query_row("SELECT gen FROM meta", [], |row| row.get(0)), Ok(99), "what the cycle left is kept");

    step(&connection);
    drop(connection);
    assert_eq!(content(&scene.connect()).unwrap(), (2, Replica::new().content(2)));
}

#[test]
fn cycle_that_succeeds_is_left_alone() {
    let scene = Scene::new();
    let (mut connection, storage) = (scene.connect(), Storage::new());
    let cycle = before_cycle(&connection, &options(&scene), &storage, &mut Quiet).unwrap();
    step(&connection);
    let report = after_cycle(&mut connection, &cycle, false, &options(&scene), &storage, &mut Quiet).unwrap();
    assert!(report.restored.is_none() && report.verdict == Verdict::Pass, "{report:?}");
    assert_eq!(content(&connection).unwrap().0, 1);
    assert_eq!(content_of_file(&cycle.backup).unwrap().0, 0);
}

/// Another process writes it: a file that is opened by hand here would drop the locks of this one.
fn spoil(scene: &Scene, page: u32) {
    let of = format!("of={}", scene.db);
    let seek = format!("seek={}", page - 1);
    let mut dd = Command::new("dd");
    dd.args(["if=/dev/zero", "bs=4096", "count=1", "conv=notrunc", "status=none", &of, &seek]);
    assert!(start(&mut dd).wait().unwrap().success());
}

/// Would catch a check that believes the connection's own cache, and a put-back that leaves a damaged page.
#[test]
fn damage_that_the_cycle_did_not_notice_is_found_and_healed() {
    let scene = Scene::new();
    let (mut connection, storage) = (scene.connect(), Storage::new());
    let cycle = before_cycle(&connection, &options(&scene), &storage, &mut Quiet).unwrap();
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    // All of it is in the cache from here on.
    content(&connection).unwrap();
    spoil(&scene, 3);
    let report = after_cycle(&mut connection, &cycle, false, &options(&scene), &storage, &mut Quiet).unwrap();
    assert_eq!(report.verdict, Verdict::Fail, "{report:?}");
    assert!(report.restored.is_some_and(|put_back| put_back.unproven.is_none()));
    assert_eq!(content(&connection).unwrap(), (0, Replica::new().content(0)));
    drop(connection);
    let fresh = scene.connect();
    assert_eq!(content(&fresh).unwrap(), (0, Replica::new().content(0)));
    assert_eq!(fresh.query_row("PRAGMA integrity_check", [], |row| row.get(0)), Ok("ok".to_owned()));
}

/// Would catch a backup of the damage, which nobody can go back to, and which stays the newest one.
#[test]
fn cycle_over_a_damaged_database_is_refused_and_leaves_no_backup() {
    let scene = Scene::new();
    let connection = scene.connect();
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    drop(connection);
    spoil(&scene, 3);
    let e = before_cycle(&scene.connect(), &options(&scene), &Storage::new(), &mut Quiet).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Damaged, "{e:?}");
    assert_eq!(names(&scene.dir.join("backups")), [] as [&str; 0]);
}

fn locks(database: &Utf8Path) -> [BTreeSet<Lock>; 2] {
    [own_locks(database), own_locks(Utf8Path::new(&format!("{database}-shm")))]
}

/// Would catch a file of the live database that is opened and closed by hand, which drops the locks of the process.
#[test]
fn locks_of_the_daemon_survive_a_backup_and_a_put_back() {
    for mode in ["WAL", "DELETE"] {
        let scene = Scene::new();
        let mut connection = scene.connect();
        connection.pragma_update(None, "journal_mode", mode).unwrap();
        // Another part of the daemon, in a read transaction all the while. In rollback mode nobody could write beside it.
        let reader = Connection::open(&scene.db).unwrap();
        reader.execute_batch("BEGIN; SELECT count(*) FROM account").unwrap();
        let before = locks(&scene.db);
        assert!(!before[0].is_empty() && before[1].is_empty() == (mode != "WAL"), "{mode}: {before:?}");
        let lost = Arc::new(Mutex::new((0, Vec::new())));
        let (noting, database, held) = (Arc::clone(&lost), scene.db.clone(), before.clone());
        let watch = Watch::new(3, move |when, operation| {
            let (looks, lost) = &mut *noting.lock().unwrap();
            *looks += 1;
            let now = locks(&database);
            if !held.iter().zip(&now).all(|(held, now)| held.iter().all(|lock| covers(now, lock))) {
                lost.push(format!("{when:?} {operation}: {now:?}"));
            }
        });
        let storage = Storage::intercepted(Arc::new(watch));
        let cycle = before_cycle(&connection, &options(&scene), &storage, &mut Quiet).unwrap();
        if mode == "WAL" {
            let report = after_cycle(&mut connection, &cycle, true, &options(&scene), &storage, &mut Quiet).unwrap();
            assert!(report.restored.is_some());
        }
        let (looks, lost) = &*lost.lock().unwrap();
        assert!(*looks > 20 && lost.is_empty(), "{mode}: of {looks} looks: {lost:#?}");
        assert_eq!(reader.query_row("SELECT count(*) FROM account", [], |row| row.get(0)), Ok(100), "{mode}");
        // What the looks would have seen.
        drop(std::fs::File::open(&scene.db).unwrap());
        assert_ne!(locks(&scene.db), before, "{mode}");
    }
}

fn covers(now: &BTreeSet<Lock>, lock: &Lock) -> bool {
    now.iter().any(|other| other.kind == lock.kind && other.first <= lock.first && other.last >= lock.last)
}

/// Counts what it is told, and asks to stop at the first bytes if it is to.
#[derive(Default)]
struct Watcher {
    steps: Vec<Step>,
    bytes: u64,
    stops: bool,
    cancel: Cancel,
}

impl Observer for Watcher {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Step(step) => self.steps.push(step),
            Event::Bytes { done, .. } => {
                self.bytes = self.bytes.max(done);
                if self.stops {
                    self.cancel.request();
                }
            }
            Event::Warning(_) => {}
        }
    }

    fn cancel(&self) -> Cancel {
        self.cancel.clone()
    }
}

#[test]
fn backup_through_a_connection_tells_how_far_it_is_and_can_be_stopped() {
    let scene = Scene::new();
    let connection = scene.connect();
    let mut watcher = Watcher::default();
    let report = backup_connection(&connection, &backup_options(&scene), &Storage::new(), &mut watcher).unwrap();
    assert_eq!(watcher.bytes, report.manifest.file.size_bytes);
    assert!(watcher.steps.starts_with(&[Step::Copy]) && watcher.steps.contains(&Step::Check), "{:?}", watcher.steps);
    assert_eq!(content_of_file(&report.backup).unwrap(), (0, Replica::new().content(0)));

    let before = names(&scene.dir.join("backups"));
    let mut stopping = Watcher { stops: true, ..Watcher::default() };
    let e = backup_connection(&connection, &backup_options(&scene), &Storage::new(), &mut stopping).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Interrupted, "{e:?}");
    assert_eq!(names(&scene.dir.join("backups")), before, "nothing is left behind");
    assert!(connection.is_autocommit(), "no transaction is left open");
    step(&connection);
}

/// Would catch a copy of what is not committed, or of a file that is not the one under the name.
#[test]
fn connection_that_cannot_be_used_is_refused_and_left_as_it_was() {
    let scene = Scene::new();
    let back_up = |connection: &Connection| {
        let e = backup_connection(connection, &backup_options(&scene), &Storage::new(), &mut Quiet).unwrap_err();
        (e.kind(), e.message())
    };
    let connection = scene.connect();
    for begin in ["BEGIN IMMEDIATE; UPDATE meta SET gen = 7", "BEGIN; SELECT * FROM meta", "SAVEPOINT s"] {
        connection.execute_batch(begin).unwrap();
        let (kind, message) = back_up(&connection);
        assert_eq!(kind, ErrorKind::Usage, "{message}");
        assert!(!connection.is_autocommit(), "{begin}");
        connection.execute_batch("ROLLBACK").unwrap();
    }
    assert_eq!(back_up(&Connection::open_in_memory().unwrap()).0, ErrorKind::Usage);

    std::fs::rename(&scene.db, scene.dir.join("moved.db")).unwrap();
    let (kind, message) = back_up(&connection);
    assert_eq!(kind, ErrorKind::Failed);
    assert!(message.contains("moved, replaced or removed"), "{message}");
    assert!(!scene.dir.join("backups").exists());
}

/// Would catch a cycle of one database that is put back into another one.
#[test]
fn cycle_is_ended_only_on_its_own_database_with_its_own_backup() {
    let (scene, other) = (Scene::new(), Scene::new());
    let (mut connection, storage) = (scene.connect(), Storage::new());
    let cycle = before_cycle(&connection, &options(&scene), &storage, &mut Quiet).unwrap();
    let mut wrong = other.connect();
    let e = after_cycle(&mut wrong, &cycle, true, &options(&scene), &storage, &mut Quiet).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Usage);

    step(&connection);
    let mut bytes = std::fs::read(&cycle.backup).unwrap();
    bytes[5000] ^= 1;
    std::fs::write(&cycle.backup, bytes).unwrap();
    let e = after_cycle(&mut connection, &cycle, true, &options(&scene), &storage, &mut Quiet).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Damaged, "{e:?}");
    assert!(e.target_state().is_some_and(|target| !target.changed));
    assert_eq!(content(&connection).unwrap(), (1, Replica::new().content(1)), "as the cycle left it");
}

/// Would catch a put-back that goes on without the lock, or waits for ever.
#[test]
fn writer_that_does_not_yield_is_busy_and_nothing_is_changed() {
    let scene = Scene::new();
    let mut connection = scene.connect();
    connection.execute_batch("PRAGMA busy_timeout=0").unwrap();
    let storage = Storage::new();
    let cycle = before_cycle(&connection, &options(&scene), &storage, &mut Quiet).unwrap();
    step(&connection);
    let writer = Foreign::with(&scene.db, "BEGIN IMMEDIATE");
    let e = after_cycle(&mut connection, &cycle, true, &options(&scene), &storage, &mut Quiet).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Busy, "{e:?}");
    assert!(e.target_state().is_some_and(|target| !target.changed));
    drop(writer);
    assert_eq!(content(&connection).unwrap().0, 1);
    let report = after_cycle(&mut connection, &cycle, true, &options(&scene), &storage, &mut Quiet).unwrap();
    assert!(report.restored.is_some());
    connection.execute_batch(PRAGMAS).unwrap();
    assert_eq!(content(&connection).unwrap().0, 0);
}

/// Would catch commits of others that are neither in the database nor in what was kept of it.
#[test]
fn what_others_commit_until_the_lock_is_kept() {
    let scene = Scene::new();
    let mut connection = scene.connect();
    let cycle = before_cycle(&connection, &options(&scene), &Storage::new(), &mut Quiet).unwrap();
    let writer = Arc::new(Mutex::new((Foreign::with(&scene.db, "SELECT gen FROM meta"), 0)));
    let writing = Arc::clone(&writer);
    // Between the backup of what the cycle has left and the lock.
    let watch = Watch::new(3, move |when, operation| {
        let (writer, times) = &mut *writing.lock().unwrap();
        if when == When::Before && operation.to_string().starts_with("sqlite lock ") {
            *times += 1;
            writer.run(&format!("BEGIN IMMEDIATE; {STEP} COMMIT; SELECT gen FROM meta")).unwrap();
        }
    });
    let reader = Connection::open(&scene.db).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM account").unwrap();
    let before = locks(&scene.db);
    let storage = Storage::intercepted(Arc::new(watch));
    let report = after_cycle(&mut connection, &cycle, true, &options(&scene), &storage, &mut Quiet).unwrap();
    assert_eq!(writer.lock().unwrap().1, 1, "it is not kept away by who writes all the time");
    let kept = report.restored.unwrap().kept.unwrap();
    assert_eq!(content_of_file(&kept).unwrap().0, 1, "the commit is in what was kept");
    assert_eq!(content(&connection).unwrap().0, 0);
    let now = locks(&scene.db);
    assert!(before.iter().zip(&now).all(|(before, now)| before.iter().all(|lock| covers(now, lock))), "{now:?}");
}
