//! A backup costs nobody a lock, least of all the program in whose process it runs.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use rusqlite::Connection;

use crate::Scene;
use crate::judge::{judge, take};
use crate::model::{Replica, SETUP, STEP};
use crate::watch::{Lock, Watch, own_locks};

/// The application in whose process the backup runs: with a connection, and in a transaction that reads.
fn application(database: &Utf8Path, mode: &str) -> Connection {
    let connection = Connection::open(database).unwrap();
    connection.pragma_update(None, "journal_mode", mode).unwrap();
    connection.execute_batch(SETUP).unwrap();
    connection.execute_batch(&format!("BEGIN; {STEP} {STEP} COMMIT; BEGIN; SELECT count(*) FROM account")).unwrap();
    connection
}

/// Every lock of this process on the main file and on the index of the WAL.
fn locks(database: &Utf8Path) -> [BTreeSet<Lock>; 2] {
    [own_locks(database), own_locks(&Utf8PathBuf::from(format!("{database}-shm")))]
}

/// Whether every byte that was locked still is, by a lock of the same kind: two that touch are shown as one.
fn is_kept(before: &[BTreeSet<Lock>; 2], now: &[BTreeSet<Lock>; 2]) -> bool {
    let covers = |now: &BTreeSet<Lock>, lock: &Lock| {
        now.iter().any(|other| other.kind == lock.kind && other.first <= lock.first && other.last >= lock.last)
    };
    before.iter().zip(now).all(|(before, now)| before.iter().all(|lock| covers(now, lock)))
}

/// Open files of this process, in any of its threads, whose name begins with this.
fn open_files(beginning: &Utf8Path) -> Vec<String> {
    let mut names = Vec::new();
    for thread in fs::read_dir("/proc/self/task").unwrap() {
        // A thread, or a file, may be gone by the time that it is looked at.
        let Ok(files) = fs::read_dir(thread.unwrap().path().join("fd")) else { continue };
        for file in files.filter_map(Result::ok) {
            let name = fs::read_link(file.path()).map(|name| name.display().to_string()).unwrap_or_default();
            if name.starts_with(beginning.as_str()) && !names.contains(&name) {
                names.push(name);
            }
        }
    }
    names.sort();
    names
}

#[test]
fn backup_loses_no_lock_of_the_process_and_leaves_no_file_open() {
    for mode in ["WAL", "DELETE", "PERSIST"] {
        let scene = Scene::new();
        let connection = application(&scene.db, mode);
        let (before, open) = (locks(&scene.db), open_files(&scene.db));
        assert!(!before[0].is_empty(), "{mode}: the application has a lock");
        assert_eq!(before[1].is_empty(), mode != "WAL", "{mode}");

        let lost = Arc::new(Mutex::new((0, Vec::new())));
        let (noting, database, held) = (Arc::clone(&lost), scene.db.clone(), before.clone());
        let watch = Watch::new(3, move |when, operation| {
            let (looks, lost) = &mut *noting.lock().unwrap();
            *looks += 1;
            let now = locks(&database);
            if !is_kept(&held, &now) {
                lost.push(format!("{when:?} {operation}: {held:?} became {now:?}"));
            }
        });
        let report = take(&scene.db, Duration::from_secs(5), Arc::new(watch)).unwrap();
        let (looks, lost) = &*lost.lock().unwrap();
        assert!(*looks > 20 && lost.is_empty(), "{mode}: of {looks} looks: {lost:#?}");
        assert_eq!(locks(&scene.db), before, "{mode}");
        assert_eq!(open_files(&scene.db), open, "{mode}");
        judge(&report, &(2..=2), &mut Replica::new()).unwrap();

        // What the looks above would have seen.
        drop(File::open(&scene.db).unwrap());
        assert!(!is_kept(&before, &locks(&scene.db)), "{mode}");
        drop(connection);
    }
}
