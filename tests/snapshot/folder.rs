//! What a backup leaves of the live database's folder, and what becomes of it if another file takes the database's name.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use engram_restore::ErrorKind;
use engram_restore::storage::Recorder;

use crate::Scene;
use crate::judge::{archive_of, judge, take};
use crate::model::{Replica, SETUP, STEP};
use crate::processes::Foreign;
use crate::script::with_index;
use crate::watch::{Stage, Watch, When};

const WAIT: Duration = Duration::from_secs(5);

fn sidecar(database: &Utf8Path, suffix: &str) -> Utf8PathBuf {
    Utf8PathBuf::from(format!("{database}{suffix}"))
}

/// With a database of generation 1, and another process that has it open.
fn scene(mode: &str) -> (Scene, Foreign) {
    let scene = Scene::new();
    let mut holder = Foreign::with(&scene.db, &format!("PRAGMA journal_mode={mode}; PRAGMA wal_autocheckpoint=0"));
    holder.run(&format!("{SETUP} BEGIN; {STEP} COMMIT")).unwrap();
    (scene, holder)
}

/// What is in the folder, but for the index of the WAL, which every reader makes anew.
fn files(database: &Utf8Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = database.parent().unwrap().read_dir_utf8().unwrap().map(|entry| entry.unwrap()).collect();
    files.retain(|entry| entry.file_type().unwrap().is_file() && !entry.file_name().ends_with("-shm"));
    let mut files: Vec<_> =
        files.iter().map(|entry| (entry.file_name().to_owned(), fs::read(entry.path()).unwrap())).collect();
    files.sort();
    files
}

/// Would catch a backup that folds the WAL into the database when it closes it, as whoever closes last does.
#[test]
fn wal_that_a_crash_has_left_stays_as_it_was() {
    let (scene, holder) = scene("WAL");
    drop(holder);
    let before = files(&scene.db);
    assert_eq!(before.len(), 2, "the main file and its WAL");
    let report = take(&scene.db, WAIT, Arc::new(Recorder::default())).unwrap();
    assert!(files(&scene.db) == before, "nothing was written");
    judge(&report, &(1..=1), &mut Replica::new()).unwrap();
}

#[test]
fn database_without_sidecars_has_none_afterwards() {
    for mode in ["WAL", "DELETE"] {
        let (scene, holder) = scene(mode);
        holder.close();
        let before = files(&scene.db);
        assert_eq!(before.len(), 1);
        let report = take(&scene.db, WAIT, Arc::new(Recorder::default())).unwrap();
        assert!(files(&scene.db) == before, "nothing was written");
        assert!(!sidecar(&scene.db, "-shm").exists());
        judge(&report, &(1..=1), &mut Replica::new()).unwrap();
    }
}

/// A WAL of fewer bytes than its header has no frame that anybody reads.
#[test]
fn wal_that_is_shorter_than_its_header_is_none() {
    for bytes in [0, 1, 31] {
        let (scene, holder) = scene("WAL");
        holder.close();
        fs::write(sidecar(&scene.db, "-wal"), vec![0x37; bytes]).unwrap();
        let report = take(&scene.db, WAIT, Arc::new(Recorder::default())).unwrap();
        judge(&report, &(1..=1), &mut Replica::new()).unwrap();
    }
}

/// A crash can take back that a WAL was removed, and SQLite then reads it, whatever the main file's header says.
#[test]
fn wal_whose_removal_was_taken_back_is_in_the_copy() {
    let (scene, mut holder) = scene("WAL");
    holder.run("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    let old = fs::read(&scene.db).unwrap();
    holder.run(&format!("BEGIN; {STEP} {STEP} COMMIT")).unwrap();
    let wal = fs::read(sidecar(&scene.db, "-wal")).unwrap();
    drop(holder);
    for suffix in ["-wal", "-shm"] {
        fs::remove_file(sidecar(&scene.db, suffix)).unwrap();
    }
    fs::write(&scene.db, [&old[..18], &[1, 1], &old[20..]].concat()).unwrap();
    fs::write(sidecar(&scene.db, "-wal"), wal).unwrap();
    let report = take(&scene.db, WAIT, Arc::new(Recorder::default())).unwrap();
    judge(&report, &(3..=3), &mut Replica::new()).unwrap();
}

/// Where all of the WAL is in the main file, everybody reads that alone. Would catch a copy that is put right by a replay of the
/// WAL, and called sound, while the database is damaged for all who read it.
#[test]
fn damage_under_a_wal_that_is_all_in_the_main_file_is_in_the_copy() {
    for checkpoint in ["PASSIVE", "RESTART"] {
        let (scene, mut holder) = scene("WAL");
        holder.run(&format!("BEGIN; {STEP} COMMIT; PRAGMA wal_checkpoint({checkpoint})")).unwrap();
        let wal = fs::read(sidecar(&scene.db, "-wal")).unwrap();
        let number = |at: usize| u32::from_be_bytes(wal[at..at + 4].try_into().unwrap());
        let page_size = number(8);
        let frames = (32..wal.len()).step_by(24 + page_size as usize);
        let page = frames.map(number).rfind(|page| *page > 1).unwrap();
        let file = fs::File::options().write(true).open(&scene.db).unwrap();
        let at = u64::from(page - 1) * u64::from(page_size);
        file.write_all_at(&vec![0xff; page_size as usize], at).unwrap();
        let seen = Foreign::open(&scene.db).run("PRAGMA integrity_check").unwrap_or_default();
        assert_ne!(seen, "ok", "{checkpoint}");
        let report = take(&scene.db, WAIT, Arc::new(Recorder::default())).unwrap();
        assert!(!report.manifest.integrity_check.is_ok(), "{checkpoint}");
    }
}

/// Would catch a copy that goes by one look: an index that is made anew forgets what was folded, and somebody may fold on while
/// the main file is copied. Here it says for a moment that all is folded, and nothing is.
#[test]
fn index_that_says_otherwise_in_the_end_is_not_believed() {
    let (scene, _holder) = scene("WAL");
    let (database, looked) = (scene.db.clone(), Mutex::new(false));
    let watch = Watch::new(1, move |when, operation| {
        let looked = &mut *looked.lock().unwrap();
        match (when, Stage::of(operation)) {
            (When::After, Stage::Pin) => {}
            (When::Before, Stage::MainSlice) if !*looked => *looked = true,
            _ => return,
        }
        // From none to all of the frames, and back.
        with_index(&database, |index| {
            let mut frames = [[0; 4]; 2];
            index.read_exact_at(&mut frames[0], 16).unwrap();
            index.read_exact_at(&mut frames[1], 96).unwrap();
            let [committed, folded] = frames.map(u32::from_ne_bytes);
            index.write_all_at(&(committed - folded).to_ne_bytes(), 96).unwrap();
        });
    });
    let report = take(&scene.db, WAIT, Arc::new(watch)).unwrap();
    judge(&report, &(1..=1), &mut Replica::new()).unwrap();
}

/// A backup during which another file has the database's name, from one moment to another. SQLite has the database open
/// by then, so the copy would be a mixture of the two.
#[track_caller]
fn refused(from: (When, Stage), to: Option<(When, Stage)>) {
    let (scene, _holder) = scene("DELETE");
    let (other, away) = (sidecar(&scene.db, ".other"), sidecar(&scene.db, ".away"));
    fs::copy(&scene.db, &other).unwrap();
    let (database, is_away) = (scene.db.clone(), Mutex::new(false));
    let watch = Watch::new(1, move |when, operation| {
        let is_away = &mut *is_away.lock().unwrap();
        let now = (when, Stage::of(operation));
        if now == from && !*is_away {
            fs::rename(&database, &away).unwrap();
            fs::rename(&other, &database).unwrap();
            *is_away = true;
        } else if Some(now) == to {
            fs::rename(&away, &database).unwrap();
        }
    });
    let error = take(&scene.db, WAIT, Arc::new(watch)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error:?}");
    assert!(error.message().contains("replaced"), "{error:?}");
    assert_eq!(archive_of(&scene.db).read_dir().unwrap().count(), 0);
}

#[test]
fn another_file_under_the_name_when_it_is_copied_is_refused() {
    refused((When::After, Stage::Pin), Some((When::Before, Stage::Close)));
}

#[test]
fn another_file_under_the_name_in_the_end_is_refused() {
    refused((When::After, Stage::MainSlice), None);
}
