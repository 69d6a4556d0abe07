//! What a copy of a database as plain files, under a read transaction, relies on.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;

use rusqlite::Connection;

use super::{Scene, assert_sound, first, insert, keep_wal, open, rows, sidecar, text};
use crate::processes::Foreign;

const PIN: &str = "BEGIN; SELECT 1 FROM sqlite_schema LIMIT 1";
const WRITE: &str = "INSERT INTO t(word, filler) VALUES ('meanwhile', randomblob(3000))";

/// The bytes of the main file and of the WAL. SQLite's locks in this process go with it, so only where it has none that
/// are needed: readers are processes of their own here.
fn files(scene: &Scene) -> (Vec<u8>, Vec<u8>) {
    (fs::read(&scene.db).unwrap(), fs::read(sidecar(&scene.db, "-wal")).unwrap())
}

/// The header of a WAL without its checksum: the last 8 of these are the salts.
fn header(wal: &[u8]) -> [u8; 24] {
    wal[..24].try_into().unwrap()
}

/// Of a WAL that is all in the main file.
fn folded(scene: &Scene) -> Foreign {
    let writer = Foreign::with(&scene.db, "PRAGMA wal_autocheckpoint=0");
    checkpointed(writer)
}

fn checkpointed(mut writer: Foreign) -> Foreign {
    writer.run(WRITE).unwrap();
    assert_eq!(writer.run("PRAGMA wal_checkpoint(PASSIVE)").unwrap(), "0");
    writer
}

/// Why the WAL's header is compared: a transaction that began when all of the WAL was folded in reads the main file only,
/// which nobody writes then. It does not keep the WAL.
#[test]
fn reader_at_mark_0_keeps_the_main_file_and_not_the_wal() {
    let scene = Scene::with("WAL", 100);
    let mut writer = folded(&scene);
    let _reader = Foreign::with(&scene.db, PIN);
    let (main, wal) = files(&scene);
    writer.run(WRITE).unwrap();
    for mode in ["PASSIVE", "FULL", "RESTART", "TRUNCATE"] {
        writer.run(&format!("PRAGMA wal_checkpoint({mode})")).unwrap();
    }
    let (main_now, wal_now) = files(&scene);
    assert!(main_now == main);
    assert_ne!(header(&wal_now), header(&wal), "it was restarted");
    assert_ne!(header(&wal_now)[16..], header(&wal)[16..], "which its salts show");
    assert!(wal_now[32..] != wal[32..], "its frames were overwritten");
}

/// ... and somebody may even cut it to nothing.
#[test]
fn reader_at_mark_0_does_not_keep_the_wal_from_being_truncated() {
    let scene = Scene::with("WAL", 100);
    let mut writer = folded(&scene);
    let mut reader = Foreign::with(&scene.db, PIN);
    let (main, _) = files(&scene);
    assert_eq!(writer.run("PRAGMA wal_checkpoint(TRUNCATE)").unwrap(), "0");
    writer.run(WRITE).unwrap();
    assert_eq!(reader.run("SELECT count(*) FROM t WHERE word = 'meanwhile'").unwrap(), "1");
    assert!(files(&scene).0 == main);
}

/// Why both files may be copied while others work: with a mark of its own the transaction keeps the WAL, and of what comes
/// after it nothing gets into the main file.
#[test]
fn reader_with_a_mark_keeps_the_wal_and_later_pages_out_of_the_main_file() {
    let scene = Scene::with_late_rows(100, 30);
    let mut writer = Foreign::with(&scene.db, "PRAGMA wal_autocheckpoint=0");
    let _reader = Foreign::with(&scene.db, PIN);
    let (main, wal) = files(&scene);
    let page_bytes = usize::from(u16::from_be_bytes([main[16], main[17]]));
    writer.run("UPDATE t SET word = 'later' WHERE id < 20").unwrap();
    for mode in ["PASSIVE", "FULL", "RESTART", "TRUNCATE"] {
        writer.run(&format!("PRAGMA wal_checkpoint({mode})")).unwrap();
    }
    let (main_now, wal_now) = files(&scene);
    assert!(wal_now.len() > wal.len() && wal_now[..wal.len()] == wal, "it has only grown");
    // The newest frame of each page, of those that the reader sees.
    let frames = || wal[32..].chunks_exact(24 + page_bytes).map(|frame| frame.split_at(24));
    let mut written = 0;
    for (index, page) in main_now.chunks(page_bytes).enumerate() {
        let was = main.get(index * page_bytes..(index + 1) * page_bytes);
        let is_page = |header: &[u8]| header[..4] == u32::try_from(index + 1).unwrap().to_be_bytes();
        let newest = frames().filter(|(header, _)| is_page(header)).map(|(_, page)| page).next_back();
        assert!(was == Some(page) || newest == Some(page), "page {}", index + 1);
        written += u32::from(was != Some(page));
    }
    assert!(written > 5, "the checkpoints wrote {written} pages, which were in the WAL before");
}

/// Why a WAL may be copied while somebody appends to it: what is not there in full counts for nothing, wherever it is cut.
#[test]
fn torn_tail_of_a_wal_is_ignored() {
    let scene = Scene::with("WAL", 10);
    let connection = open(&scene.db);
    keep_wal(&connection);
    let mut ends = vec![(0, 0)];
    for number in 1..=4 {
        insert(&connection, "late", 3);
        ends.push((fs::metadata(sidecar(&scene.db, "-wal")).unwrap().len(), 3 * number));
    }
    let wal = fs::read(sidecar(&scene.db, "-wal")).unwrap();
    for cut in (0..=wal.len()).step_by(997).chain([wal.len()]) {
        for garbage in [0, 5000] {
            let copy = scene.dir.join(format!("copy-{cut}-{garbage}.db"));
            fs::copy(&scene.db, &copy).unwrap();
            fs::write(sidecar(&copy, "-wal"), [&wal[..cut], &vec![0xa5; garbage][..]].concat()).unwrap();
            let expected = ends.iter().rev().find(|(end, _)| *end <= cut as u64).unwrap().1;
            let copy = open(&copy);
            assert_eq!(rows(&copy, "late"), expected, "{cut} of {} bytes", wal.len());
            assert_sound(&copy);
        }
    }
}

/// Why no half of a transaction that did not fit into the cache is ever taken for a whole one: frames that it writes a
/// second time have no salts and no checksum until it commits.
#[test]
fn frames_that_a_transaction_overwrites_are_invalid_until_it_commits() {
    let scene = Scene::with_late_rows(200, 30);
    let mut writer = Foreign::with(&scene.db, "PRAGMA wal_autocheckpoint=0; PRAGMA cache_size=2");
    writer.run("BEGIN IMMEDIATE; UPDATE t SET word = 'first'").unwrap();
    let (main, before) = files(&scene);
    writer.run("UPDATE t SET word = 'second'").unwrap();
    let (_, now) = files(&scene);
    assert!(now[..before.len()] != before, "frames were overwritten");
    writer.run("COMMIT").unwrap();
    let (_, after) = files(&scene);
    // A copy that reads the first part early and the rest late, at every place.
    for (earlier, later) in [(&before, &now), (&before, &after), (&now, &after)] {
        for cut in (0..earlier.len()).step_by(4099) {
            let copy = scene.dir.join("copy.db");
            fs::write(&copy, &main).unwrap();
            fs::write(sidecar(&copy, "-wal"), [&earlier[..cut], &later[cut..]].concat()).unwrap();
            let copy = open(&copy);
            let found = [rows(&copy, "first"), rows(&copy, "second")];
            assert!(found == [0, 0] || found == [0, 230], "cut at {cut}: {found:?}");
            assert_sound(&copy);
            keep_wal(&copy);
            copy.close().unwrap();
            fs::remove_file(sidecar(&scene.dir.join("copy.db"), "-shm")).unwrap();
        }
    }
}

/// Why a short main file is no failure: a checkpoint that folds in all of the WAL cuts it to the size it has there.
#[test]
fn checkpoint_cuts_the_main_file_under_a_reader() {
    let scene = Scene::with("WAL", 500);
    let mut writer = Foreign::with(&scene.db, "PRAGMA wal_autocheckpoint=0");
    writer.run("DELETE FROM t WHERE id > 10; VACUUM").unwrap();
    let mut reader = Foreign::with(&scene.db, PIN);
    let before = fs::metadata(&scene.db).unwrap().len();
    writer.run("PRAGMA wal_checkpoint(PASSIVE)").unwrap();
    let now = fs::metadata(&scene.db).unwrap().len();
    assert!(now < before / 4, "{before} became {now}");
    assert_eq!(reader.run("SELECT count(*) FROM t").unwrap(), "10");
}

/// Why nobody writes the main file in rollback mode: every way to end a transaction waits for the reader.
#[test]
fn reader_in_rollback_mode_keeps_the_main_file_as_it_is() {
    for mode in ["DELETE", "TRUNCATE", "PERSIST", "MEMORY"] {
        let scene = Scene::with("DELETE", 100);
        let mut writer = Foreign::with(&scene.db, &format!("PRAGMA journal_mode={mode}; PRAGMA cache_size=2"));
        let _reader = Foreign::with(&scene.db, PIN);
        let main = fs::read(&scene.db).unwrap();
        let wal = "PRAGMA journal_mode=WAL";
        for sql in [WRITE, "UPDATE t SET filler = randomblob(2000)", "VACUUM", wal] {
            assert_eq!(writer.run(sql).unwrap_err(), "database is locked", "{mode}: {sql}");
            writer.run("ROLLBACK").unwrap_or_default();
        }
        assert!(fs::read(&scene.db).unwrap() == main, "{mode}");
    }
}

/// Why the mode cannot change under the copy, nor the WAL go: both need the database for themselves.
#[test]
fn reader_keeps_the_mode_and_the_name_of_the_wal() {
    let scene = Scene::with("WAL", 100);
    let mut writer = folded(&scene);
    let _reader = Foreign::with(&scene.db, PIN);
    assert_eq!(writer.run("PRAGMA journal_mode=DELETE").unwrap_err(), "database is locked");
    writer.close();
    assert!(sidecar(&scene.db, "-wal").exists());
}

/// Why a live file is opened and closed in a thread with a table of descriptors of its own.
#[test]
fn locks_go_by_table_of_descriptors() {
    let scene = Scene::with("DELETE", 20);
    let connection = open(&scene.db);
    connection.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let mut other = Foreign::open(&scene.db);
    let database = scene.db.clone();
    let read = std::thread::spawn(move || {
        #[allow(unsafe_code, reason = "std has no call for it")]
        // SAFETY: it copies the table of descriptors for this thread, and closes a number that nothing has.
        let own = unsafe { libc::syscall(libc::SYS_close_range, i32::MAX, i32::MAX, libc::CLOSE_RANGE_UNSHARE) };
        assert_eq!(own, 0, "Linux 5.9 or newer");
        let mut magic = [0; 16];
        File::open(database).unwrap().read_exact_at(&mut magic, 0).unwrap();
        magic
    });
    assert_eq!(&read.join().unwrap(), b"SQLite format 3\0");
    assert_eq!(other.run("SELECT count(*) FROM t").unwrap_err(), "database is locked");
    drop(File::open(&scene.db).unwrap());
    assert_eq!(other.run("SELECT count(*) FROM t").unwrap(), "20", "without that, the lock is gone");
}

/// Why the header in the main file does not say whether there is a WAL to copy.
#[test]
fn journal_mode_is_known_in_the_transaction() {
    for (mode, answer) in [("WAL", "wal"), ("DELETE", "delete")] {
        let scene = Scene::with(mode, 20);
        let connection: Connection = open(&scene.db);
        connection.execute_batch(PIN).unwrap();
        assert_eq!(text(&connection, "PRAGMA journal_mode"), answer);
        assert_eq!(connection.query_row("SELECT count(*) FROM t", [], first::<u32>), Ok(20));
    }
}
