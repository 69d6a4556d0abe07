//! What the database is in when it is replaced: lost, empty, unopenable, with a journal.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use camino::{Utf8Path, Utf8PathBuf};

use super::{Hot, LATE_ROWS, ROWS, assert_tidy, assert_warned, journal_bytes, text};
use crate::content::{SIDECARS, content, sidecars};
use crate::processes::Foreign;
use crate::support::Scene;

#[test]
fn lost_database_comes_back_with_owner_and_mode_of_the_manifest() {
    let scene = Scene::with_rows(ROWS);
    let mut owner = fs::metadata(&scene.db).map(|metadata| (metadata.uid(), metadata.gid())).unwrap();
    if rustix::process::geteuid().is_root() {
        owner = (4711, 4712);
        std::os::unix::fs::chown(&scene.db, Some(owner.0), Some(owner.1)).unwrap();
    }
    fs::set_permissions(&scene.db, fs::Permissions::from_mode(0o640)).unwrap();
    let new = content(&scene.db);
    scene.backup();
    fs::remove_file(&scene.db).unwrap();
    let json = scene.restore_latest();
    assert!(json["pre_restore"].is_null(), "{json}");
    assert_eq!(content(&scene.db), new);
    assert_eq!(journal_bytes(&scene.db), [2, 2]);
    let metadata = fs::metadata(&scene.db).unwrap();
    assert_eq!((metadata.uid(), metadata.gid(), metadata.mode() & 0o7777), (owner.0, owner.1, 0o640));
    assert_tidy(&scene.db);
    assert_eq!(scene.names_with("engram.db."), ["engram.db.restore-lock"]);
}

/// Would catch a restore that leaves the WAL of the lost database to be replayed onto the new one, or deletes it.
#[test]
fn orphaned_wal_of_a_lost_database_is_kept_aside_and_not_replayed() {
    let hot = Hot::new();
    let wal = fs::read(hot.scene.beside("-wal")).unwrap();
    fs::remove_file(&hot.scene.db).unwrap();
    let json = hot.scene.restore_latest();
    hot.assert_restored();
    assert!(json["pre_restore"].is_null(), "{json}");
    let orphans: Vec<_> =
        hot.scene.names_with("engram.db.orphan").into_iter().filter(|name| name.ends_with("-wal")).collect();
    assert_eq!(orphans.len(), 1, "{:?}", Scene::names(&hot.scene.dir));
    assert_eq!(fs::read(hot.scene.dir.join(&orphans[0])).unwrap(), wal);
    // The documented name: .orphan-<UTC>-wal.
    assert!(orphans[0].starts_with("engram.db.orphan-20"), "{orphans:?}");
}

/// Would catch a sidecar that cannot be followed and so counts as absent: SQLite would fail at it, beside the new one.
#[test]
fn orphan_that_leads_nowhere_is_kept_aside_too() {
    let hot = Hot::in_rollback_mode();
    fs::remove_file(&hot.scene.db).unwrap();
    std::os::unix::fs::symlink("/nowhere/engram.db-wal", hot.scene.beside("-wal")).unwrap();
    let json = hot.scene.restore_latest();
    hot.assert_restored();
    let orphan = camino::Utf8Path::new(json["orphans"][0].as_str().unwrap());
    assert_eq!(orphan.read_link_utf8().unwrap(), "/nowhere/engram.db-wal");
}

#[test]
fn orphaned_journal_of_a_lost_database_is_kept_aside_and_not_replayed() {
    let hot = Hot::in_rollback_mode();
    let journal = crash_in_transaction(&hot.scene.db);
    fs::remove_file(&hot.scene.db).unwrap();
    hot.scene.restore_latest();
    hot.assert_restored();
    let orphans: Vec<_> =
        hot.scene.names_with("engram.db.orphan").into_iter().filter(|name| name.ends_with("-journal")).collect();
    assert_eq!(orphans.len(), 1, "{:?}", Scene::names(&hot.scene.dir));
    assert_eq!(fs::read(hot.scene.dir.join(&orphans[0])).unwrap(), journal);
}

#[test]
fn second_orphan_does_not_replace_the_first() {
    let hot = Hot::new();
    let wal = fs::read(hot.scene.beside("-wal")).unwrap();
    for round in 1..=2 {
        fs::write(hot.scene.beside("-wal"), &wal).unwrap();
        fs::remove_file(&hot.scene.db).unwrap();
        hot.scene.restore_latest();
        hot.assert_restored();
        let orphans = hot.scene.names_with("engram.db.orphan");
        assert_eq!(orphans.iter().filter(|name| name.contains("wal")).count(), round, "{orphans:?}");
    }
}

/// A process that writes so much in one transaction that some of it is in the main file already, and is then killed.
/// Returns the hot journal.
pub(super) fn crash_in_transaction(db: &Utf8Path) -> Vec<u8> {
    let before = fs::read(db).unwrap();
    let writer =
        Foreign::with(db, "PRAGMA cache_size=5; BEGIN; UPDATE observations SET content = content || 'never committed'");
    drop(writer);
    assert_ne!(fs::read(db).unwrap(), before, "nothing was spilled");
    fs::read(format!("{db}-journal")).unwrap()
}

/// Would catch a restore that keeps the main file without rolling its journal back, or leaves that journal to be
/// rolled back onto the new database.
#[test]
fn hot_journal_is_rolled_back_in_the_database_that_is_kept() {
    let hot = Hot::in_rollback_mode();
    crash_in_transaction(&hot.scene.db);
    hot.scene.restore_latest();
    hot.assert_restored();
    hot.assert_kept(&hot.kept());
}

/// PERSIST and TRUNCATE leave a journal that means nothing.
#[test]
fn cold_journal_is_removed() {
    for mode in ["PERSIST", "TRUNCATE"] {
        let hot = Hot::in_rollback_mode();
        let sql = format!("PRAGMA journal_mode={mode}; UPDATE observations SET title = title || '!'");
        let writer = Foreign::with(&hot.scene.db, &sql);
        drop(writer);
        assert_eq!(sidecars(&hot.scene.db), ["-journal"], "{mode}");
        let old = content(&hot.scene.db);
        hot.scene.restore_latest();
        hot.assert_restored();
        assert_eq!(sidecars(&hot.kept()), [""; 0], "{mode}");
        assert_eq!(content(&hot.kept()), old, "{mode}");
    }
}

#[test]
fn wal_without_its_index_is_folded() {
    let hot = Hot::new();
    fs::remove_file(hot.scene.beside("-shm")).unwrap();
    hot.scene.restore_latest();
    hot.assert_restored();
    hot.assert_kept(&hot.kept());
}

#[test]
fn empty_wal_is_cleared_away() {
    let hot = Hot::new();
    fs::write(hot.scene.beside("-wal"), "").unwrap();
    hot.scene.restore_latest();
    hot.assert_restored();
    assert_eq!(sidecars(&hot.kept()), [""; 0]);
    assert_eq!(content(&hot.kept()), hot.new);
}

#[test]
fn empty_file_is_replaced_and_kept() {
    let hot = Hot::new();
    for suffix in SIDECARS {
        fs::remove_file(hot.scene.beside(suffix)).unwrap_or_default();
    }
    fs::write(&hot.scene.db, "").unwrap();
    let json = hot.scene.restore_latest();
    hot.assert_restored();
    assert_eq!(text(&json, "pre_restore"), hot.kept());
    assert_eq!(fs::metadata(hot.kept()).unwrap().len(), 0);
}

/// SQLite takes a file of no length for a new database and deletes the WAL: it must never open it.
#[test]
fn empty_file_with_a_wal_is_kept_with_its_wal() {
    let hot = Hot::new();
    let wal = fs::read(hot.scene.beside("-wal")).unwrap();
    fs::write(&hot.scene.db, "").unwrap();
    hot.scene.restore_latest();
    hot.assert_restored();
    assert_eq!(fs::metadata(hot.kept()).unwrap().len(), 0);
    assert_eq!(fs::read(format!("{}-wal", hot.kept())).unwrap(), wal);
}

/// Puts something under the live name that SQLite cannot open, with sidecars, and restores over it.
fn replace_unopenable(main: &[u8], wal: Option<&[u8]>, journal: Option<&[u8]>) {
    let hot = Hot::new();
    for suffix in SIDECARS {
        fs::remove_file(hot.scene.beside(suffix)).unwrap_or_default();
    }
    fs::write(&hot.scene.db, main).unwrap();
    let given = [("-wal", wal), ("-journal", journal)];
    for (suffix, bytes) in given {
        if let Some(bytes) = bytes {
            fs::write(hot.scene.beside(suffix), bytes).unwrap();
        }
    }
    let run = hot.scene.run(&["restore", "latest"]).expect(0);
    assert_warned(&run, "cannot be opened");
    hot.assert_restored();
    assert_eq!(fs::read(hot.kept()).unwrap(), main);
    for (suffix, bytes) in given {
        let kept = fs::read(format!("{}{suffix}", hot.kept())).ok();
        assert!(
            kept.as_deref() == bytes,
            "{suffix} of {:?} bytes was kept as {:?} bytes",
            bytes.map(<[u8]>::len),
            kept.map(|k| k.len())
        );
    }
}

#[test]
fn garbage_is_kept_as_it_is() {
    replace_unopenable(&[0x5a; 8192], None, None);
}

/// Would catch a fold that opens it: a failed open deletes the WAL when it closes.
#[test]
fn garbage_is_kept_with_its_wal() {
    replace_unopenable(&[0x5a; 8192], Some(&[0x33; 5000]), None);
}

#[test]
fn truncated_header_is_kept_with_its_wal() {
    replace_unopenable(b"SQLite format 3\0\x10\0\x02\x02", Some(&[0x33; 5000]), None);
}

/// SQLite plays back any journal whose first byte is not zero, even onto what is no database, and then deletes it: a
/// journal has to be kept before the file is opened.
#[test]
fn garbage_is_kept_with_its_journal() {
    replace_unopenable(&[0x5a; 8192], None, Some(&[0x44; 700]));
}

#[test]
fn truncated_header_is_kept_with_its_journal() {
    replace_unopenable(b"SQLite format 3\0\x10\0\x02\x02", Some(&[0x33; 5000]), Some(&[0x44; 700]));
}

#[test]
fn header_with_a_damaged_page_size_is_kept_with_its_wal() {
    let mut main = [0; 4096];
    main[..16].copy_from_slice(b"SQLite format 3\0");
    main[16..20].copy_from_slice(&[0x11, 0x11, 2, 2]);
    replace_unopenable(&main, Some(&[0x33; 5000]), None);
}

/// SQLite opens it as far as its WAL, and only then finds that it is none. Would catch a connection that folds and
/// deletes that WAL when it is closed.
#[test]
fn header_with_damaged_payload_fractions_is_kept_with_its_wal() {
    let mut main = [0; 4096];
    main[..16].copy_from_slice(b"SQLite format 3\0");
    main[16..24].copy_from_slice(&[0x10, 0, 2, 2, 0, 1, 1, 1]);
    replace_unopenable(&main, Some(&[0x33; 5000]), None);
}

/// Text that the WAL of a real database holds: whatever becomes of a damaged main file, no commit may be lost.
#[test]
fn real_wal_beside_garbage_is_not_lost() {
    let hot = Hot::new();
    let wal = fs::read(hot.scene.beside("-wal")).unwrap();
    let length = fs::metadata(&hot.scene.db).unwrap().len();
    fs::write(&hot.scene.db, vec![0x5a; usize::try_from(length).unwrap()]).unwrap();
    hot.scene.restore_latest();
    hot.assert_restored();
    let kept_wal = fs::read(format!("{}-wal", hot.kept())).ok();
    let folded = fs::read(hot.kept()).unwrap();
    let pages_are_there =
        wal_pages(&wal).iter().all(|page| folded.windows(page.len()).step_by(4096).any(|w| w == *page));
    assert!(kept_wal.as_deref() == Some(&wal[..]) || pages_are_there, "the WAL's commits are nowhere");
}

/// The newest version of each page in a WAL of 4096-byte pages.
fn wal_pages(wal: &[u8]) -> Vec<&[u8]> {
    let frames = wal[32..].chunks_exact(24 + 4096);
    let pages = frames.map(|frame| (frame[..4].to_vec(), &frame[24..]));
    pages.collect::<std::collections::BTreeMap<_, _>>().into_values().collect()
}

/// The old database is damaged inside, but SQLite opens it: it is folded and kept, damage and all.
#[test]
fn damaged_but_openable_database_is_replaced_and_kept() {
    let hot = Hot::in_rollback_mode();
    let mut bytes = fs::read(&hot.scene.db).unwrap();
    let page = bytes.len() - 4096;
    bytes[page..].fill(0x5a);
    fs::write(&hot.scene.db, &bytes).unwrap();
    hot.scene.restore_latest();
    hot.assert_restored();
    assert_eq!(fs::read(hot.kept()).unwrap(), bytes);
}

#[test]
fn wal_mode_database_that_was_left_without_sidecars_is_replaced() {
    let hot = Hot::new();
    Foreign::with(&hot.scene.db, "SELECT count(*) FROM observations").close();
    assert_eq!(sidecars(&hot.scene.db), [""; 0]);
    hot.scene.restore_latest();
    hot.assert_restored();
    hot.assert_kept(&hot.kept());
    assert_eq!(hot.old.observations, ROWS + LATE_ROWS);
}

/// A journal of another database, under the live name: whatever it does to the old one, the new one is right.
#[test]
fn foreign_journal_never_reaches_the_new_database() {
    let hot = Hot::in_rollback_mode();
    let other = Scene::with_rows(20);
    Foreign::with(&other.db, "PRAGMA journal_mode=DELETE").close();
    let journal = crash_in_transaction(&other.db);
    fs::write(hot.scene.beside("-journal"), journal).unwrap();
    hot.scene.restore_latest();
    hot.assert_restored();
    assert!(Utf8PathBuf::from(format!("{}", hot.kept())).exists());
}
