//! Places that are not an ordinary folder: mount points, layers, what cannot be written to, names as long as they may be.

use std::fs;

use camino::{Utf8Path, Utf8PathBuf};

use crate::content::content;
use crate::mounts::Mounted;
use crate::support::{Run, Scene, bare_command, run};

const ROWS: u64 = 30;

/// With `-journal` behind it, a name of so many bytes is one that a file can have.
const SQLITE_CAN: usize = 246;

/// The real program on this database and this archive.
fn on(db: &Utf8Path, archive: &Utf8Path, words: &[&str]) -> Run {
    run(bare_command(db.parent().unwrap()).args(["--db", db.as_str(), "--archive", archive.as_str()]).args(words))
}

/// Every command once: what is restored is what was backed up, and what is undone is what was there.
#[track_caller]
fn round(db: &Utf8Path, archive: &Utf8Path) {
    for engine in ["snapshot", "online", "vacuum"] {
        on(db, archive, &["backup", "--engine", engine]).expect(0);
    }
    let backed_up = content(db);
    rusqlite::Connection::open(db).unwrap().execute_batch("CREATE TABLE later AS SELECT 1 AS n").unwrap();
    let later = content(db);
    assert_ne!(later, backed_up);
    for way in [&[][..], &["--in-place"]] {
        on(db, archive, &[&["restore", "latest"], way].concat()).expect(0);
        assert_eq!(content(db), backed_up, "{way:?}");
        on(db, archive, &[&["undo"], way].concat()).expect(0);
        assert_eq!(content(db), later, "{way:?}");
    }
    for words in
        [&["guard", "--", "true"][..], &["verify", "--all", "--deep"], &["prune", "--keep-last", "1"], &["list"]]
    {
        on(db, archive, words).expect(0);
    }
    assert!(on(db, archive, &["recover"]).expect(0).stdout.contains("no restore"));
    on(db, archive, &["verify", "--all"]).expect(0);
}

/// A database of its own in this folder.
fn database_in(scene: &Scene, folder: &Utf8Path) -> Utf8PathBuf {
    let db = folder.join("engram.db");
    fs::copy(scene.backup(), &db).unwrap();
    db
}

#[test]
fn mount_point_is_an_archive_and_holds_a_database() {
    let scene = Scene::with_rows(ROWS);
    let Some(disk) = Mounted::disk(&scene.dir, "mkfs.ext4", "ext4") else { return };
    round(&database_in(&scene, &disk.0), &scene.dir.join("other"));
    // With a `lost+found` in it.
    round(&scene.db, &disk.0);
}

#[test]
fn whole_round_in_memory_and_on_layers() {
    let scene = Scene::with_rows(ROWS);
    let Some(memory) = Mounted::new(&scene.dir.join("memory"), &["-t", "tmpfs", "none"]) else { return };
    let [lower, upper, work] = ["lower", "upper", "work"].map(|name| memory.0.join(name));
    for folder in [&lower, &upper, &work] {
        fs::create_dir(folder).unwrap();
    }
    // Below: the first write to it makes another file of it.
    database_in(&scene, &lower);
    round(&database_in(&scene, &memory.0), &memory.0.join("backups"));
    let layers = format!("lowerdir={lower},upperdir={upper},workdir={work}");
    let Some(layered) = Mounted::new(&scene.dir.join("layered"), &["-t", "overlay", "-o", &layers, "overlay"]) else {
        return;
    };
    round(&layered.0.join("engram.db"), &layered.0.join("backups"));
}

/// Nothing can be written there, and everything that need not write works.
#[test]
fn read_only_file_system_is_backed_up_and_looked_at_and_never_restored_to() {
    let scene = Scene::with_rows(ROWS);
    let Some(disk) = Mounted::disk(&scene.dir, "mkfs.ext4", "ext4") else { return };
    let (db, archive) = (database_in(&scene, &disk.0), disk.0.join("backups"));
    on(&db, &archive, &["backup"]).expect(0);
    disk.set_read_only();
    let elsewhere = scene.dir.join("elsewhere");
    on(&db, &elsewhere, &["backup"]).expect(0);
    for words in [
        &["verify", "--all"][..],
        &["list"],
        &["show", "latest"],
        &["recover"],
        &["drill"],
        &["restore", "--dry-run", "latest"],
    ] {
        let looked = on(&db, &archive, words);
        assert!(looked.status == Some(0) || words.contains(&"--dry-run"), "{looked:?}");
    }
    let before = content(&db);
    for words in [&["backup"][..], &["restore", "latest"], &["restore", "--in-place", "latest"], &["pin", "latest"]] {
        let refused = on(&db, &archive, words).expect(5);
        assert!(refused.stderr.contains("Read-only file system"), "{refused:?}");
    }
    on(&db, &archive, &["guard", "--", "true"]).expect(125);
    assert_eq!(content(&db), before);
}

/// Would catch a backup that finds out at its end that there is no name for it, and one that no restore can put back.
#[test]
fn names_are_as_long_as_they_may_be_and_refused_before_anything_is_done() {
    let scene = Scene::with_rows(ROWS);
    let source = scene.backup();
    let mut seen = Vec::new();
    for length in (196..=SQLITE_CAN).step_by(2) {
        let folder = scene.dir.join(length.to_string());
        fs::create_dir(&folder).unwrap();
        // Of characters of two bytes, too.
        let stem: String = if length % 4 == 0 { "\u{e9}".repeat((length - 3) / 2) } else { "x".repeat(length - 3) };
        let (db, archive) = (folder.join(stem + ".db"), folder.join("backups"));
        fs::copy(&source, &db).unwrap();
        let before = content(&db);
        let mut statuses = Vec::new();
        for words in [&["backup"][..], &["restore", "latest"], &["restore", "--in-place", "latest"]] {
            let run = on(&db, &archive, words);
            statuses.push(run.status.unwrap());
            assert!(
                run.status == Some(0) || run.stderr.contains("its name is too long") || words[0] == "restore",
                "{run:?}"
            );
        }
        assert_eq!(content(&db), before, "{length}");
        match statuses[0] {
            0 => assert!(statuses[1..].iter().all(|status| [0, 2].contains(status)), "{length}: {statuses:?}"),
            status => {
                assert_eq!((status, archive.exists()), (2, false), "{length}");
                let by_name = folder.join("named.db");
                on(&db, &archive, &["backup", "--path", by_name.as_str()]).expect(0);
                on(&folder.join("short.db"), &archive, &["restore", by_name.as_str()]).expect(0);
            }
        }
        seen.push(statuses);
    }
    // All of it works, then no restore in this place, then no backup without a name; in this order.
    assert!(seen.is_sorted(), "{seen:?}");
    assert_eq!((&seen[0], seen.last().unwrap()[0]), (&vec![0, 0, 0], 2), "{seen:?}");
}
