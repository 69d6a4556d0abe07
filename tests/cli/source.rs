//! `backup`: what is in it of the live database, in whatever state that is, and that the database stays as it was.

use std::fs;
use std::os::unix::fs::symlink;

use camino::Utf8PathBuf;
use engram_restore::sample::write_hot;
use rusqlite::Connection;
use serde_json::Value;

use crate::craft::{
    archive, assert_plain, beside, damage_index, everything, flip, has_open, integrity, mode, number, read_manifest,
    refused, rollback_scene, run_on, small_database, small_scene,
};
use crate::support::{ForeignWriter, Scene};

/// Would catch a backup in WAL mode, which grows sidecars wherever it is opened and cannot be opened on read-only media.
#[test]
fn backup_of_a_wal_database_is_one_self_contained_file() {
    let scene = Scene::with_rows(40);
    let backup = scene.backup();
    assert_eq!(&fs::read(&backup).unwrap()[18..20], &[1, 1]);
    assert_eq!(read_manifest(&backup)["database"]["journal_mode"], "wal");
    assert_eq!(&fs::read(&scene.db).unwrap()[18..20], &[2, 2]);
    let before = everything(&archive(&scene));
    let connection = Connection::open(&backup).unwrap();
    let rows: i64 = connection.query_row("SELECT count(*) FROM observations", [], |row| row.get(0)).unwrap();
    connection.close().unwrap();
    assert_eq!(rows, 40);
    assert_eq!(everything(&archive(&scene)), before);
    assert_eq!(integrity(&backup), "ok");
}

#[test]
fn tables_and_source_are_in_the_manifest() {
    let scene = Scene::with_rows(40);
    let manifest = read_manifest(&scene.backup());
    assert_eq!(manifest["source"]["path"], scene.db.as_str());
    assert_eq!(manifest["source"]["mode"], format!("{:04o}", mode(&scene.db)));
    let tables = manifest["tables"].as_array().unwrap();
    let observations = tables.iter().find(|table| table["name"] == "observations").unwrap();
    assert_eq!(observations["rows"], 40);
}

/// Would catch a checkpoint, a header write, or a sidecar left beside the live database.
#[test]
fn cleanly_closed_wal_database_stays_alone_and_untouched() {
    for engine in ["snapshot", "online", "vacuum"] {
        let scene = Scene::with_rows(20);
        let before = everything(&scene.dir);
        scene.run(&["backup", "--engine", engine]).expect(0);
        let mut after = everything(&scene.dir);
        after.retain(|path, _| !path.starts_with(archive(&scene)));
        assert_eq!(after, before, "{engine}");
    }
}

/// Would catch a copy of the main file alone, and a connection that folds somebody's WAL when it closes.
#[test]
fn hot_wal_is_in_the_backup_and_stays_byte_for_byte() {
    for engine in ["snapshot", "online", "vacuum"] {
        let scene = Scene::with_rows(20);
        write_hot(&scene.db, 7, 1).unwrap();
        let (db, wal) = (fs::read(&scene.db).unwrap(), fs::read(beside(&scene.db, "-wal")).unwrap());
        let names = Scene::names(&scene.dir);
        let json = scene.run(&["backup", "--json", "--engine", engine]).expect(0).json();
        assert_eq!(json["wal_bytes_before"], wal.len());
        assert_eq!(json["wal_bytes_after"], wal.len());
        let backup = Utf8PathBuf::from(json["backup"].as_str().unwrap());
        assert_eq!(number(&backup, "SELECT count(*) FROM observations"), 27, "{engine}");
        assert_eq!(fs::read(beside(&scene.db, "-wal")).unwrap(), wal, "{engine}");
        assert_eq!(fs::read(&scene.db).unwrap(), db, "{engine}");
        let mut after = Scene::names(&scene.dir);
        after.retain(|name| name != "backups");
        assert_eq!(after, names, "{engine}");
    }
}

/// The files as a copy or a reboot leaves them: a `-wal` and no `-shm`. Would catch an index of ours left behind.
#[test]
fn wal_without_its_index_is_in_the_backup_too() {
    let scene = Scene::with_rows(20);
    write_hot(&scene.db, 3, 1).unwrap();
    fs::remove_file(beside(&scene.db, "-shm")).unwrap();
    let wal = fs::read(beside(&scene.db, "-wal")).unwrap();
    let backup = scene.backup();
    assert_eq!(number(&backup, "SELECT count(*) FROM observations"), 23);
    assert_eq!(fs::read(beside(&scene.db, "-wal")).unwrap(), wal);
}

/// Would catch a copy that starts over at each foreign commit and never ends.
#[test]
fn backup_beside_a_writer_ends_and_has_every_row_committed_before_it() {
    for engine in ["snapshot", "online", "vacuum"] {
        let scene = Scene::with_rows(300);
        let writer = ForeignWriter::start(&scene.db, 50);
        let before = number(&scene.db, "SELECT max(id) FROM observations");
        let json = scene.run(&["backup", "--json", "--engine", engine, "--wait", "0"]).expect(0).json();
        let after = number(&scene.db, "SELECT max(id) FROM observations");
        let backup = Utf8PathBuf::from(json["backup"].as_str().unwrap());
        let in_backup = number(&backup, "SELECT max(id) FROM observations");
        assert!(before > 300 && (before..=after).contains(&in_backup), "{engine}: {before} {in_backup} {after}");
        assert_eq!(number(&backup, "SELECT count(*) FROM observations"), in_backup);
        assert!(has_open(writer.pid(), &scene.db), "the writer goes on");
        scene.run(&["verify", "--deep", backup.as_str()]).expect(0);
    }
}

#[test]
fn rollback_mode_is_recorded_and_the_wait_of_writers_told() {
    let scene = rollback_scene(20);
    let before = everything(&scene.dir);
    let run = scene.run(&["backup", "--path", "here.db"]).expect(0);
    assert!(run.stdout.contains("writers had to wait for"), "{run:?}");
    assert_eq!(read_manifest(&scene.dir.join("here.db"))["database"]["journal_mode"], "rollback");
    let mut after = everything(&scene.dir);
    after.retain(|path, _| !path.as_str().contains("here.db"));
    assert_eq!(after, before);
    let json = scene.run(&["backup", "--json"]).expect(0).json();
    assert!(json["writers_waited_ms"].is_u64(), "{json}");
    assert_eq!(json["journal_mode"], "rollback");

    let wal = Scene::with_rows(20).run(&["backup"]).expect(0);
    assert!(!wal.stdout.contains("wait"), "in WAL mode nobody waits: {wal:?}");
}

/// What a power cut in the middle of a transaction leaves. Would catch half of that transaction in a backup.
#[test]
fn hot_rollback_journal_is_rolled_back_first() {
    let scene = rollback_scene(200);
    let broken = scene.dir.join("broken.db");
    let connection = Connection::open(&scene.db).unwrap();
    connection
        .execute_batch("PRAGMA cache_size=5; BEGIN; UPDATE observations SET content = content || 'half';")
        .unwrap();
    fs::copy(&scene.db, &broken).unwrap();
    fs::copy(beside(&scene.db, "-journal"), beside(&broken, "-journal")).unwrap();
    connection.execute_batch("ROLLBACK").unwrap();
    assert!(fs::read(&broken).unwrap() != fs::read(&scene.db).unwrap(), "the transaction has to reach the file");

    let run = run_on(&scene, "broken.db", &["backup", "--json"]).expect(0);
    let backup = Utf8PathBuf::from(run.json()["backup"].as_str().unwrap());
    assert_eq!(number(&backup, "SELECT count(*) FROM observations WHERE content LIKE '%half'"), 0);
    assert_eq!(number(&backup, "SELECT count(*) FROM observations"), 200);
}

#[test]
fn vacuum_makes_a_compact_backup() {
    let scene = rollback_scene(200);
    let connection = Connection::open(&scene.db).unwrap();
    connection.execute_batch("DELETE FROM sync_chunks; DELETE FROM observations WHERE id > 20;").unwrap();
    connection.close().unwrap();
    let json = scene.run(&["backup", "--engine", "vacuum", "--json"]).expect(0).json();
    let backup = Utf8PathBuf::from(json["backup"].as_str().unwrap());
    assert_eq!(json["engine"], "vacuum");
    assert_eq!(number(&backup, "SELECT * FROM pragma_freelist_count"), 0);
    assert!(number(&scene.db, "SELECT * FROM pragma_freelist_count") > 0);
    assert!(json["size_bytes"].as_u64().unwrap() < fs::metadata(&scene.db).unwrap().len());
    assert_eq!(number(&backup, "SELECT count(*) FROM observations"), 20);
    assert_eq!(read_manifest(&backup)["engine"], "vacuum");
    scene.run(&["verify", "--deep"]).expect(0);
}

#[test]
fn missing_database_is_not_found_and_nothing_is_made() {
    let scene = Scene::empty();
    let error = refused(scene.run(&["backup", "--json"]), 4, "not_found");
    assert_eq!(error["path"], scene.db.as_str());
    assert_eq!(Scene::names(&scene.dir), [""; 0]);
    refused(run_on(&scene, "nowhere/engram.db", &["backup", "--json"]), 4, "not_found");
}

/// SQLite deletes an orphan WAL as soon as it opens the name. Would catch an open that loses those commits.
#[test]
fn orphan_wal_of_a_missing_or_empty_database_is_untouched() {
    let scene = Scene::with_rows(10);
    write_hot(&scene.db, 3, 1).unwrap();
    for (status, kind) in [(1, "damaged"), (4, "not_found")] {
        if status == 1 {
            fs::write(&scene.db, "").unwrap();
        } else {
            fs::remove_file(&scene.db).unwrap();
        }
        let before = everything(&scene.dir);
        refused(scene.run(&["backup", "--json"]), status, kind);
        assert_eq!(everything(&scene.dir), before, "{kind}");
    }
}

/// A failed open still checkpoints and deletes the WAL when it closes, if nobody keeps it from that.
#[test]
fn no_database_leaves_nothing_in_the_archive_and_its_wal_alone() {
    for content in ["no database, whatever its name says", "SQLite format 3\0"] {
        for engine in ["snapshot", "online", "vacuum"] {
            let scene = Scene::with_rows(10);
            write_hot(&scene.db, 3, 1).unwrap();
            fs::write(&scene.db, content.repeat(200)).unwrap();
            let before = everything(&scene.dir);
            refused(scene.run(&["backup", "--json", "--engine", engine]), 1, "damaged");
            let mut after = everything(&scene.dir);
            after.remove(&archive(&scene));
            // Every reader takes its locks in the -shm.
            let is_index = |path: &Utf8PathBuf| path.as_str().ends_with("-shm");
            let changed = |path: &Utf8PathBuf| before.get(path) != after.get(path) && !is_index(path);
            let changed: Vec<_> = before.keys().chain(after.keys()).filter(|path| changed(path)).collect();
            assert!(changed.is_empty(), "{engine}: {changed:?}");
        }
    }
}

#[test]
fn folder_device_or_fifo_as_database_makes_no_sense() {
    let scene = Scene::empty();
    fs::create_dir(&scene.db).unwrap();
    refused(scene.run(&["backup", "--json"]), 2, "usage");
    let fifo = scene.dir.join("fifo.db");
    rustix::fs::mkfifoat(rustix::fs::CWD, fifo.as_str(), rustix::fs::Mode::RWXU).unwrap();
    refused(run_on(&scene, "fifo.db", &["backup", "--json"]), 2, "usage");
    refused(run_on(&scene, "/dev/null", &["backup", "--json"]), 2, "usage");
    assert_eq!(Scene::names(&scene.dir), ["engram.db", "fifo.db"]);
}

/// SQLite finds sidecars by name: under the other name the WAL would be missed.
#[test]
fn hard_linked_database_is_refused() {
    let scene = Scene::with_rows(10);
    write_hot(&scene.db, 3, 1).unwrap();
    fs::hard_link(&scene.db, scene.dir.join("other.db")).unwrap();
    let before = everything(&scene.dir);
    let error = refused(run_on(&scene, "other.db", &["backup", "--json"]), 5, "failed");
    assert!(error["message"].as_str().unwrap().contains("hard links"), "{error}");
    assert_eq!(everything(&scene.dir), before);
}

/// Would catch a WAL that is looked for beside the symlink.
#[test]
fn symlinked_database_is_backed_up_under_its_real_path() {
    let scene = Scene::with_rows(10);
    write_hot(&scene.db, 3, 1).unwrap();
    fs::create_dir(scene.dir.join("links")).unwrap();
    symlink("../engram.db", scene.dir.join("links/link.db")).unwrap();
    let json = run_on(&scene, "links/link.db", &["backup", "--json"]).expect(0).json();
    let backup = Utf8PathBuf::from(json["backup"].as_str().unwrap());
    assert!(backup.starts_with(archive(&scene)) && backup.file_name().unwrap().starts_with("engram-"), "{backup}");
    assert_eq!(number(&backup, "SELECT count(*) FROM observations"), 13);
    assert_eq!(read_manifest(&backup)["source"]["path"], scene.db.as_str());
    assert_eq!(Scene::names(&scene.dir.join("links")), ["link.db"]);

    symlink("b.db", scene.dir.join("a.db")).unwrap();
    symlink("a.db", scene.dir.join("b.db")).unwrap();
    refused(run_on(&scene, "a.db", &["backup", "--json"]), 2, "usage");
}

/// Would catch a path that is taken for a URI, or pasted into SQL.
#[test]
fn awkward_names_are_only_names() {
    for name in ["file:x?mode=memory&cache=shared.db", "it's \"100%20\" #1?.sqlite", "two\nlines.db", "-wal"] {
        let scene = Scene::empty();
        let (plain, db) = (scene.dir.join("plain"), scene.dir.join(name));
        small_database(&plain);
        fs::rename(&plain, &db).unwrap();
        for engine in ["snapshot", "online", "vacuum"] {
            let text = run_on(&scene, db.as_str(), &["backup", "--engine", engine]).expect(0);
            assert_plain(&text.stdout);
        }
        assert_eq!(Scene::names(&scene.dir), {
            let mut n = vec!["backups", name];
            n.sort_unstable();
            n
        });
        run_on(&scene, db.as_str(), &["verify", "--all", "--deep"]).expect(0);
    }
}

/// Would catch a damaged copy that is thrown away, though it may be the best that is left, or one that passes.
#[test]
fn damaged_but_readable_database_is_kept_and_never_passes() {
    let scene = small_scene();
    damage_index(&scene.db);
    for engine in [&["backup", "--json"][..], &["backup"]] {
        let run = scene.run(engine).expect(1);
        if engine.contains(&"--json") {
            let json = run.json();
            let rows = json["integrity_check"].as_array().unwrap();
            assert!(rows.iter().all(Value::is_string) && rows[0] != "ok" && json["error"].is_null(), "{json}");
            let backup = Utf8PathBuf::from(json["backup"].as_str().unwrap());
            assert_eq!(json["blake3"], blake3::hash(&fs::read(&backup).unwrap()).to_hex().as_str());
            let verdict = scene.run(&["verify", "--json", backup.as_str()]).expect(1).json();
            assert_eq!(verdict["backups"][0]["verdict"], "fail");
            assert_eq!(crate::craft::finding(&verdict, "RECORDED_CHECK_FAILED")["severity"], "error");
            let listed = scene.run(&["list", "--json"]).expect(0).json();
            assert_eq!(listed["backups"][0]["integrity_check"], json["integrity_check"]);
        } else {
            assert!(run.stdout.contains("DAMAGED") && run.stdout.contains("keep older backups"), "{run:?}");
        }
    }
}

/// `VACUUM INTO` rebuilds indexes, so it heals this damage; whatever it does, the answer must be true.
#[test]
fn vacuum_of_a_damaged_database_says_what_the_file_is() {
    let scene = small_scene();
    damage_index(&scene.db);
    let run = scene.run(&["backup", "--json", "--engine", "vacuum"]);
    if run.status == Some(0) {
        assert_eq!(integrity(run.json()["backup"].as_str().unwrap().into()), "ok");
        scene.run(&["verify", "--deep"]).expect(0);
    } else {
        run.expect(1);
    }
}

/// Would catch names out of a damaged file that drive the terminal.
#[test]
fn integrity_rows_are_printed_without_their_control_characters() {
    let scene = Scene::empty();
    let connection = Connection::open(&scene.db).unwrap();
    connection
        .execute_batch(
            "PRAGMA page_size=512; CREATE TABLE \"t\u{1b}[31m\"(a); INSERT INTO \"t\u{1b}[31m\" VALUES ('needle');",
        )
        .unwrap();
    connection.execute_batch("CREATE INDEX i ON \"t\u{1b}[31m\"(a);").unwrap();
    connection.execute_batch("CREATE INDEX \"i\u{1b}[31m\" ON \"t\u{1b}[31m\"(a);").unwrap();
    connection.close().unwrap();
    // The schema takes more than the first page here, so its page must be found again.
    let mut bytes = fs::read(&scene.db).unwrap();
    let at = bytes.windows(6).rposition(|word| word == b"needle").unwrap();
    bytes[at] = b'w';
    fs::write(&scene.db, bytes).unwrap();
    let run = scene.run(&["backup"]).expect(1);
    assert!(run.stdout.contains("\\u{1b}[31m"), "{run:?}");
    assert_plain(&run.stdout);
    for arguments in [&["list"][..], &["show", "latest"], &["verify"]] {
        let run = scene.run(arguments);
        assert_plain(&run.stdout);
        assert_plain(&run.stderr);
    }
}

#[test]
fn database_cut_short_is_damaged() {
    let scene = Scene::with_rows(20);
    let length = fs::metadata(&scene.db).unwrap().len();
    fs::OpenOptions::new().write(true).open(&scene.db).unwrap().set_len(length / 2 + 1000).unwrap();
    for engine in ["snapshot", "online", "vacuum"] {
        let json = scene.run(&["backup", "--json", "--engine", engine]).expect(1).json();
        assert!(json["integrity_check"].is_array() || json["error"]["kind"] == "damaged", "{json}");
    }
    let verified = scene.run(&["verify", "--all", "--json"]);
    assert_ne!(verified.status, Some(0), "{verified:?}");
}

/// Would catch a backup that is silently older than the database: a replay ends at the first frame whose checksum is wrong
/// and puts old pages over those that a checkpoint has written, while nobody who has it open looks at a checksum.
#[test]
fn wal_with_a_damaged_frame_is_not_replayed_in_part() {
    let scene = Scene::empty();
    let writer = Connection::open(&scene.db).unwrap();
    writer
        .execute_batch(
            "PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0; CREATE TABLE t(a); INSERT INTO t VALUES (0)",
        )
        .unwrap();
    for a in 1..=9 {
        writer.execute("UPDATE t SET a = ?1", [a]).unwrap();
    }
    let reader = Connection::open(&scene.db).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM t").unwrap();
    writer.execute("UPDATE t SET a = 10", []).unwrap();
    // All but the newest frame go into the main file, so the WAL is still read.
    writer.query_row("PRAGMA wal_checkpoint", [], |_| Ok(())).unwrap();
    reader.execute_batch("ROLLBACK").unwrap();
    let wal = beside(&scene.db, "-wal");
    let frame_bytes = 24 + 4096;
    let frames = (fs::metadata(&wal).unwrap().len() - 32) / frame_bytes;
    let at = 32 + (frames - 3) * frame_bytes + 16;
    flip(&wal, usize::try_from(at).unwrap());
    assert_eq!(number(&scene.db, "SELECT a FROM t"), 10);

    let error = refused(scene.run(&["backup", "--json", "--engine", "snapshot"]), 1, "damaged");
    assert!(error["message"].as_str().unwrap().contains("WAL is damaged"), "{error}");
    assert_eq!(Scene::names(&archive(&scene)), [""; 0]);
    let online = scene.run(&["backup", "--json", "--engine", "online"]).expect(0).json();
    assert_eq!(number(online["backup"].as_str().unwrap().into(), "SELECT a FROM t"), 10);
    drop((reader, writer));
}
