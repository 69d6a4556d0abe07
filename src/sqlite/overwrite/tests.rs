#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use super::*;
use crate::sqlite::{Snapshot, Soundness};
use crate::storage::Storage;

struct Scene {
    _folder: tempfile::TempDir,
    live: Utf8PathBuf,
    backup: Utf8PathBuf,
}

const SCHEMA: &str = "CREATE TABLE t(word TEXT, filler BLOB)";
const ROWS: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
                    INSERT INTO t SELECT 'backup', randomblob(1000) FROM n";

impl Scene {
    /// A live database with one row, and a finished file with 3,000 of them and another schema.
    fn new(live: &str, backup: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dir = Utf8PathBuf::from_path_buf(folder.path().canonicalize().unwrap()).unwrap();
        let scene = Self { _folder: folder, live: dir.join("engram.db"), backup: dir.join("backup.db") };
        let open = |path: &Utf8Path, pragmas: &str| {
            let connection = Connection::open(path).unwrap();
            connection.execute_batch(&format!("{pragmas}; {SCHEMA}; INSERT INTO t VALUES ('live', NULL)")).unwrap();
            connection
        };
        open(&scene.live, live);
        open(&scene.backup, backup).execute_batch(&format!("CREATE TABLE later(x); {ROWS}")).unwrap();
        scene
    }

    fn target(&self) -> Result<Target> {
        Target::open(&self.live, Duration::ZERO, &Cancel::default(), port(&self.live))
    }

    fn source(&self) -> Inspection {
        Inspection::open(&self.backup, Stop::default()).unwrap()
    }

    /// As the operations do it.
    fn overwrite(&self) -> Result<Overwritten> {
        let port = port(&self.live);
        let mut target = self.target()?;
        target.admit(&self.backup)?;
        let source = self.source();
        let locked = target.lock(&source, port)?;
        let wal_bytes_before = locked.wal_bytes_before;
        locked.copy(&mut |_done, _total| {}, port)?;
        let folded = target.fold(wal_bytes_before, port)?;
        target.close(port)?;
        Ok(folded)
    }
}

fn port(path: &Utf8Path) -> ThroughPort {
    Storage::new().through_sqlite("test", path, Ok).unwrap()
}

fn words(connection: &Connection) -> i64 {
    connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap()
}

const MODES: [&str; 2] = ["PRAGMA journal_mode=WAL", "PRAGMA journal_mode=DELETE"];

/// Would catch an open connection that goes on with the old schema or the old pages, and a journal mode that comes with
/// the backup.
#[test]
fn every_open_connection_sees_the_new_content_and_can_write() {
    for mode in MODES {
        let scene = Scene::new(mode, MODES[1]);
        let open = Connection::open(&scene.live).unwrap();
        let before: String = open.query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
        assert_eq!(words(&open), 1);
        let folded = scene.overwrite().unwrap();
        assert!(folded.is_whole, "{folded:?}");
        assert_eq!(words(&open), 3001);
        open.execute_batch("INSERT INTO t VALUES ('after', NULL); INSERT INTO later VALUES (1)").unwrap();
        let after: String = open.query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
        assert_eq!(before, after);
        drop(open);
        let reopened = Connection::open(&scene.live).unwrap();
        assert_eq!(words(&reopened), 3002);
        assert_eq!(reopened.query_row("PRAGMA journal_mode", [], |row| row.get::<_, String>(0)).unwrap(), before);
    }
}

/// Would catch a sidecar that is left where there was none, or taken from somebody who has it open.
#[test]
fn sidecars_are_as_before() {
    let scene = Scene::new(MODES[0], MODES[1]);
    let there = || crate::database::sidecars_there(&scene.live).unwrap().len();
    scene.overwrite().unwrap();
    assert_eq!(there(), 0);
    let open = Connection::open(&scene.live).unwrap();
    assert_eq!(words(&open), 3001);
    scene.overwrite().unwrap();
    assert_eq!(there(), 2);
}

/// Would catch a copy in several transactions, or one that cannot be stopped.
#[test]
fn a_stopped_copy_leaves_the_old_content() {
    for mode in MODES {
        let scene = Scene::new(mode, MODES[1]);
        let (port, cancel) = (port(&scene.live), Cancel::default());
        let source = scene.source();
        let mut target = Target::open(&scene.live, Duration::ZERO, &cancel, port).unwrap();
        let mut steps = 0;
        let stop = &mut |done: u64, total: u64| {
            steps += 1;
            assert!(done > 0 && done < total, "{done} of {total}");
            cancel.request();
        };
        let stopped = target.lock(&source, port).unwrap().copy(stop, port).unwrap_err();
        assert_eq!((stopped.kind(), steps), (ErrorKind::Interrupted, 1));
        target.close(port).unwrap();
        assert_eq!(words(&Connection::open(&scene.live).unwrap()), 1);
    }
}

/// Would catch an I/O error that is none: to SQLite, reading that was stopped is one.
#[test]
fn a_source_that_is_not_read_on_is_interrupted() {
    let scene = Scene::new(MODES[0], MODES[1]);
    let (port, stop) = (port(&scene.live), Cancel::default());
    let source = Inspection::open(&scene.backup, Stop::when_asked(&stop)).unwrap();
    let mut target = scene.target().unwrap();
    let locked = target.lock(&source, port).unwrap();
    stop.request();
    let stopped = locked.copy(&mut |_done, _total| {}, port).unwrap_err();
    assert_eq!(stopped.kind(), ErrorKind::Interrupted, "{stopped:?}");
    target.close(port).unwrap();
    assert_eq!(words(&Connection::open(&scene.live).unwrap()), 1);
}

/// Would catch a check that was stopped and is taken for one that found something, or nothing.
#[test]
fn a_check_that_is_stopped_is_interrupted() {
    let scene = Scene::new(MODES[0], MODES[1]);
    let (port, stop) = (port(&scene.live), Cancel::default());
    let snapshot = Snapshot::of_recovered(&scene.live, Duration::ZERO, &stop, port).unwrap();
    stop.request();
    let found = snapshot.integrity();
    assert!(matches!(&found, Soundness::Unknown(e) if e.kind() == ErrorKind::Interrupted), "{found:?}");
    snapshot.close(port).unwrap();
}

/// Would catch rows that an application commits between the backup of the old content and its end.
#[test]
fn commits_of_others_are_noticed_before_the_lock_and_after_the_commit() {
    for mode in MODES {
        let scene = Scene::new(mode, MODES[1]);
        let port = port(&scene.live);
        let other = Connection::open(&scene.live).unwrap();
        other.busy_timeout(Duration::ZERO).unwrap();
        let write = || other.execute_batch("INSERT INTO t VALUES ('other', NULL)");
        let (source, mut target) = (scene.source(), scene.target().unwrap());
        write().unwrap();
        assert!(target.others_wrote().unwrap());
        assert!(target.lock(&source, port).unwrap().others_wrote);
        target.watch().unwrap();
        let locked = target.lock(&source, port).unwrap();
        assert!(!locked.others_wrote);
        assert!(write().is_err(), "it is locked");
        locked.copy(&mut |_done, _total| {}, port).unwrap();
        target.fold(0, port).unwrap();
        assert!(!target.others_wrote().unwrap(), "our own commit does not count");
        write().unwrap();
        assert!(target.others_wrote().unwrap());
        assert_eq!(words(&other), 3002);
    }
}

#[test]
fn what_an_open_connection_could_not_take_over_is_refused() {
    let large = "PRAGMA page_size=8192";
    for (live, backup) in [
        (MODES[0], large),
        (MODES[0], "PRAGMA encoding='UTF-16le'"),
        (MODES[1], "PRAGMA encoding='UTF-16le'"),
        (MODES[0], MODES[0]),
        (MODES[1], MODES[0]),
    ] {
        let scene = Scene::new(live, backup);
        let refused = scene.overwrite().unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Usage, "{live}, {backup}: {refused}");
        assert!(refused.hint_text().unwrap().contains("without --in-place"));
        assert_eq!(words(&Connection::open(&scene.live).unwrap()), 1);
    }
    // In rollback mode SQLite can.
    let scene = Scene::new(MODES[1], large);
    let open = Connection::open(&scene.live).unwrap();
    assert_eq!(words(&open), 1);
    scene.overwrite().unwrap();
    assert_eq!(words(&open), 3001);
    open.execute_batch("INSERT INTO t VALUES ('after', NULL)").unwrap();
    let answer: (String, i64) = Connection::open(&scene.live)
        .unwrap()
        .query_row(
            "SELECT integrity_check, (SELECT page_size FROM pragma_page_size) FROM pragma_integrity_check",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .unwrap();
    assert_eq!(answer, ("ok".to_owned(), 8192));
}

/// Would catch settings of an application's connection that are left changed.
#[test]
fn an_applications_own_connection_can_be_used() {
    for mode in MODES {
        let scene = Scene::new(mode, MODES[1]);
        let mut own = Connection::open(&scene.live).unwrap();
        own.execute_batch("PRAGMA synchronous=NORMAL").unwrap();
        let overwrite = |own: &mut Connection| {
            let (cancel, storage) = (Cancel::default(), Storage::new());
            let wait = Wait { limit: Duration::ZERO, cancel: &cancel };
            let what = Overwriting { source: &scene.backup, live: &scene.live, seen: None, wait, storage: &storage };
            overwrite_connection(own, &what, &mut |_mode| Ok(false), &mut |_, _| {})
        };
        own.execute_batch("BEGIN; INSERT INTO t VALUES ('open', NULL)").unwrap();
        assert_eq!(overwrite(&mut own).unwrap_err().kind(), ErrorKind::Usage);
        own.execute_batch("ROLLBACK").unwrap();
        assert!(overwrite(&mut own).unwrap().is_some_and(|overwritten| overwritten.is_whole));
        assert_eq!(words(&own), 3001);
        own.execute_batch("INSERT INTO t VALUES ('after', NULL)").unwrap();
        assert_eq!(own.query_row("PRAGMA synchronous", [], |row| row.get::<_, i64>(0)).unwrap(), 1);
    }
}

/// Would catch a wait without end beside a writer that does not yield.
#[test]
fn a_writer_that_does_not_yield_is_busy() {
    for mode in MODES {
        let scene = Scene::new(mode, MODES[1]);
        let other = Connection::open(&scene.live).unwrap();
        let (source, mut target) = (scene.source(), scene.target().unwrap());
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let refused = target.lock(&source, port(&scene.live)).map(|_| ()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Busy);
        assert!(refused.hint_text().unwrap().contains("--wait"));
    }
}
