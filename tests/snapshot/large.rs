//! Files of several chunks of the digest, of which a replay changes some pages: what was hashed while they were copied
//! must not be taken for what they are afterwards.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::sync::Arc;
use std::time::Duration;

use engram_restore::Limits;
use engram_restore::storage::Recorder;

use crate::Scene;
use crate::judge::{judge, take, take_within};
use crate::model::{Replica, SETUP, STEP};
use crate::processes::Foreign;
use crate::watch::{Stage, Watch, When};

const WAIT: Duration = Duration::from_secs(5);

/// Some 7 MiB, which is chunks of 1 MiB.
const FILL: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1800)
                    INSERT INTO ballast SELECT i, randomblob(4000) FROM n";

/// A backup of such a database, to which this was done since its last checkpoint: it is all in the WAL.
fn copy_after(late: &str) -> u64 {
    let scene = Scene::new();
    let mut writer = Foreign::with(&scene.db, "PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0");
    writer.run(&format!("{SETUP} CREATE TABLE ballast(id INTEGER PRIMARY KEY, x); {FILL}")).unwrap();
    writer.run("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    writer.run(&format!("BEGIN; {STEP} COMMIT; {late}")).unwrap();
    // So slow that most of it is hashed before it is copied to its end.
    let limits = Limits { max_rate: Some(20 << 20), ..Limits::default() };
    let report = take_within(limits, &scene.db, WAIT, Arc::new(Recorder::default())).unwrap();
    let size_bytes = report.manifest.file.size_bytes;
    judge(&report, &(1..=1), &mut Replica::new()).unwrap();
    size_bytes
}

#[test]
fn hash_is_that_of_the_file_after_the_replay() {
    let size_bytes = copy_after("UPDATE ballast SET x = randomblob(4000) WHERE id % 300 = 7");
    assert!(size_bytes > 7 << 20, "{size_bytes}");
}

#[test]
fn hash_is_that_of_the_file_which_the_replay_has_cut() {
    let size_bytes = copy_after("DELETE FROM ballast WHERE id > 700; VACUUM");
    assert!(size_bytes < 4 << 20, "{size_bytes}");
}

#[test]
fn hash_is_that_of_the_file_which_the_replay_has_made_longer() {
    let size_bytes = copy_after(&FILL.replace("SELECT i, ", "SELECT i + 5000, "));
    assert!(size_bytes > 14 << 20, "{size_bytes}");
}

/// The copy keeps holes. A checkpoint may fill them meanwhile, with pages that are in the WAL.
#[test]
fn holes_that_are_filled_meanwhile_are_in_the_copy() {
    let scene = Scene::new();
    let open = "PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0; PRAGMA secure_delete=ON";
    let mut writer = Foreign::with(&scene.db, open);
    writer.run(&format!("{SETUP} CREATE TABLE ballast(id INTEGER PRIMARY KEY, x); {FILL}")).unwrap();
    writer.run("DELETE FROM ballast WHERE id % 100 > 2").unwrap();
    writer.close();
    let bytes = fs::read(&scene.db).unwrap();
    let sparse = File::create(&scene.db).unwrap();
    for (index, page) in bytes.chunks(4096).enumerate().filter(|(_, page)| page.iter().any(|byte| *byte != 0)) {
        sparse.write_all_at(page, 4096 * index as u64).unwrap();
    }
    sparse.set_len(bytes.len() as u64).unwrap();
    assert!(sparse.metadata().unwrap().blocks() * 512 < bytes.len() as u64 / 2, "it has holes");
    drop(sparse);

    let mut writer = Foreign::with(&scene.db, open);
    writer.run(&format!("BEGIN; {STEP} COMMIT; {}", FILL.replace("SELECT i, ", "SELECT i + 5000, "))).unwrap();
    let watch = Watch::new(9, move |when, operation| {
        if (when, Stage::of(operation)) == (When::After, Stage::MainSlice) {
            writer.run("PRAGMA wal_checkpoint(PASSIVE)").unwrap();
        }
    });
    let report = take(&scene.db, WAIT, Arc::new(watch)).unwrap();
    let rows = report.manifest.tables.iter().find(|table| table.name == "ballast").unwrap().rows;
    assert_eq!(rows, Some(54 + 1800));
    judge(&report, &(1..=1), &mut Replica::new()).unwrap();
}
