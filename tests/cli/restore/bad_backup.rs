//! A backup that is not good is refused: nothing of the database is touched, and the reason is named by its code.

use std::fs;
use std::io::Write as _;

use camino::{Utf8Path, Utf8PathBuf};
use engram_restore::manifest::{Manifest, encode, parse};

use super::{Hot, assert_refused, text};
use crate::content::with_suffix;
use crate::support::Scene;

pub(crate) fn manifest_of(backup: &Utf8Path) -> Utf8PathBuf {
    with_suffix(backup, ".manifest.json")
}

/// Changes one bit.
pub(crate) fn flip(path: &Utf8Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn cut(path: &Utf8Path, bytes: u64) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(file.metadata().unwrap().len() - bytes).unwrap();
}

/// Writes another manifest with a right checksum.
pub(crate) fn edit(backup: &Utf8Path, change: impl FnOnce(&mut Manifest)) {
    let path = manifest_of(backup);
    let mut manifest = parse(&fs::read(&path).unwrap()).unwrap();
    change(&mut manifest);
    fs::write(path, encode(&manifest).unwrap()).unwrap();
}

/// Replaces text in the manifest and gives it a right checksum, as a program of another version would.
fn rewrite(backup: &Utf8Path, from: &str, to: &str) {
    const TRAILER: &str = ",\n  \"manifest_blake3\": \"";
    let path = manifest_of(backup);
    let manifest = fs::read_to_string(&path).unwrap();
    let (covered, _) = manifest.rsplit_once(TRAILER).unwrap();
    assert!(covered.contains(from), "{covered}");
    let covered = covered.replacen(from, to, 1);
    let hash = blake3::hash(covered.as_bytes()).to_hex();
    fs::write(path, format!("{covered}{TRAILER}{hash}\"\n}}\n")).unwrap();
}

/// Refused by restore and by its dry run alike, with the finding's code in the message.
#[track_caller]
fn assert_refused_with(hot: &Hot, status: i32, kind: &str, code: &str) {
    let mut failures = Vec::new();
    for arguments in [&["restore", "latest"][..], &["restore", "latest", "--dry-run"], &["restore", "latest", "--deep"]]
    {
        let error = hot.assert_refused(arguments, status, kind);
        if !text(&error, "message").contains(code) {
            failures.push(format!("{arguments:?}: {error}"));
        }
    }
    assert!(failures.is_empty(), "{code} is not named: {failures:#?}");
}

#[test]
fn flipped_bit_is_found_and_nothing_changed() {
    for at in [18, 100, 30_000] {
        let hot = Hot::new();
        flip(&hot.backup, at);
        assert_refused_with(&hot, 1, "damaged", "HASH_MISMATCH");
    }
}

/// In a file that is hashed while it is copied: at the edges of its chunks of 1 MiB.
#[test]
fn flipped_bit_is_found_in_every_chunk() {
    let scene = Scene::with_rows(1_200);
    let backup = scene.backup();
    let size = usize::try_from(fs::metadata(&backup).unwrap().len()).unwrap();
    assert!(size > 3 << 20, "{size}");
    for at in [18, (1 << 20) - 1, 1 << 20, (2 << 20) + 77, size - 1] {
        flip(&backup, at);
        let error = assert_refused(&scene, &["restore", "latest"], 1, "damaged");
        assert!(text(&error, "message").contains("HASH_MISMATCH"), "{at}: {error}");
        flip(&backup, at);
    }
    scene.restore_latest();
}

/// Would catch a restore that hashes the staged file with the wrong header bytes in place, so that damage in those two
/// bytes of the backup goes unseen.
#[test]
fn changed_journal_mode_bytes_of_a_backup_are_damage() {
    let hot = Hot::new();
    let mut bytes = fs::read(&hot.backup).unwrap();
    bytes[18..20].copy_from_slice(&[2, 2]);
    fs::write(&hot.backup, bytes).unwrap();
    assert_refused_with(&hot, 1, "damaged", "HASH_MISMATCH");
}

#[test]
fn last_byte_is_hashed_too() {
    let hot = Hot::new();
    let last = fs::metadata(&hot.backup).unwrap().len() - 1;
    flip(&hot.backup, usize::try_from(last).unwrap());
    assert_refused_with(&hot, 1, "damaged", "HASH_MISMATCH");
}

#[test]
fn cut_backup_is_refused() {
    let hot = Hot::new();
    cut(&hot.backup, 1);
    assert_refused_with(&hot, 1, "damaged", "SIZE_MISMATCH");
}

#[test]
fn empty_backup_is_refused() {
    let hot = Hot::new();
    fs::write(&hot.backup, "").unwrap();
    assert_refused_with(&hot, 1, "damaged", "SIZE_MISMATCH");
}

#[test]
fn grown_backup_is_refused() {
    let hot = Hot::new();
    let mut file = fs::OpenOptions::new().append(true).open(&hot.backup).unwrap();
    file.write_all(&[0; 4096]).unwrap();
    assert_refused_with(&hot, 1, "damaged", "SIZE_MISMATCH");
}

#[test]
fn sidecar_beside_a_backup_is_refused() {
    for suffix in ["-wal", "-shm", "-journal"] {
        let hot = Hot::new();
        fs::write(with_suffix(&hot.backup, suffix), "").unwrap();
        assert_refused_with(&hot, 1, "damaged", "SIDECAR_PRESENT");
    }
}

#[test]
fn recorded_check_that_failed_is_refused() {
    let hot = Hot::new();
    edit(&hot.backup, |manifest| manifest.integrity_check.rows = vec!["Tree 5 page 7: btreeInitPage() error".into()]);
    assert_refused_with(&hot, 1, "damaged", "RECORDED_CHECK_FAILED");
}

#[test]
fn recorded_check_that_was_not_done_is_inconclusive() {
    let hot = Hot::new();
    edit(&hot.backup, |manifest| manifest.integrity_check.error = Some("disk I/O error".into()));
    assert_refused_with(&hot, 6, "inconclusive", "RECORDED_CHECK_NOT_DONE");
}

#[test]
fn torn_manifest_is_refused() {
    let hot = Hot::new();
    cut(&manifest_of(&hot.backup), 10);
    assert_refused_with(&hot, 1, "damaged", "MANIFEST_DAMAGED");
}

#[test]
fn empty_manifest_is_refused() {
    let hot = Hot::new();
    fs::write(manifest_of(&hot.backup), "").unwrap();
    assert_refused_with(&hot, 1, "damaged", "MANIFEST_DAMAGED");
}

#[test]
fn edited_manifest_is_refused() {
    let hot = Hot::new();
    let path = manifest_of(&hot.backup);
    let manifest = fs::read_to_string(&path).unwrap();
    fs::write(&path, manifest.replacen("\"snapshot\"", "\"snapshou\"", 1)).unwrap();
    assert_refused_with(&hot, 1, "damaged", "MANIFEST_DAMAGED");
}

/// The checksum is no secret, so whoever edits may mend it: the fields still have to agree.
#[test]
fn manifest_with_a_right_checksum_and_wrong_fields_is_refused() {
    let hot = Hot::new();
    rewrite(&hot.backup, "\"page_size\": 4096", "\"page_size\": 4095");
    assert_refused_with(&hot, 1, "damaged", "MANIFEST_INVALID");
}

#[test]
fn manifest_of_a_newer_format_is_inconclusive() {
    let hot = Hot::new();
    rewrite(&hot.backup, "\"major\": 1", "\"major\": 2");
    assert_refused_with(&hot, 6, "inconclusive", "MANIFEST_VERSION");
}

#[test]
fn manifest_that_requires_an_unknown_feature_is_inconclusive() {
    let hot = Hot::new();
    edit(&hot.backup, |_| {});
    rewrite(&hot.backup, "\"requires\": []", "\"requires\": [\"encryption\"]");
    assert_refused_with(&hot, 6, "inconclusive", "MANIFEST_VERSION");
}

/// A file without a manifest is no backup: "the backup is not there".
#[test]
fn missing_manifest_is_not_found() {
    let hot = Hot::new();
    fs::remove_file(manifest_of(&hot.backup)).unwrap();
    for more in [&[][..], &["--dry-run"]] {
        let error = hot.assert_refused(&[&["restore", hot.backup.as_str()], more].concat(), 4, "not_found");
        assert!(text(&error, "message").contains("manifest"), "{error}");
    }
}

/// A manifest whose file is gone: "the backup is not there".
#[test]
fn missing_backup_file_is_not_found() {
    let hot = Hot::new();
    fs::remove_file(&hot.backup).unwrap();
    for more in [&[][..], &["--dry-run"]] {
        let error = hot.assert_refused(&[&["restore", "latest"], more].concat(), 4, "not_found");
        assert!(text(&error, "message").contains(hot.backup.as_str()), "{error}");
    }
}

#[test]
fn missing_backup_and_missing_archive_are_not_found() {
    let hot = Hot::new();
    hot.assert_refused(&["restore", "no-such-name"], 4, "not_found");
    hot.assert_refused(&["restore", "./no/such/path.db"], 4, "not_found");
    hot.assert_refused(&["restore", "latest", "--archive", "nowhere"], 4, "not_found");
    hot.assert_refused(&["restore", "latest-good", "--archive", "nowhere"], 4, "not_found");
}

#[test]
fn no_good_backup_at_all_is_damage() {
    let hot = Hot::new();
    flip(&hot.backup, 30_000);
    let error = hot.assert_refused(&["restore", "latest-good"], 1, "damaged");
    assert!(!text(&error, "hint").is_empty(), "{error}");
}

#[test]
fn folder_or_fifo_in_place_of_a_backup_is_refused_without_waiting() {
    let hot = Hot::new();
    fs::remove_file(&hot.backup).unwrap();
    fs::create_dir(&hot.backup).unwrap();
    let before = hot.scene.run(&["restore", "latest", "--json"]);
    assert_ne!(before.status, Some(0), "{before:?}");
    assert_eq!(before.json()["error"]["target_changed"], false);
    fs::remove_dir(&hot.backup).unwrap();
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, hot.backup.as_str(), rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let run = hot.scene.run(&["restore", "latest", "--json"]);
    assert_ne!(run.status, Some(0), "{run:?}");
    assert_eq!(crate::content::content(&hot.scene.db), hot.old);
}

/// The damage is in the file, the manifest was made of the damaged file: only `--deep` can tell.
#[test]
fn deep_restore_refuses_what_fails_the_integrity_check() {
    let hot = Hot::new();
    let mut bytes = fs::read(&hot.backup).unwrap();
    let page = bytes.len() - 4096;
    bytes[page..].fill(0x5a);
    fs::write(&hot.backup, &bytes).unwrap();
    edit(&hot.backup, |manifest| {
        assert!(manifest.file.chunks.is_empty(), "a small file has one chunk");
        manifest.file.blake3 = engram_restore::manifest::Hex32(*blake3::hash(&bytes).as_bytes());
    });
    hot.assert_refused(&["restore", "latest", "--deep"], 1, "damaged");
    hot.assert_refused(&["restore", "latest", "--deep", "--dry-run"], 1, "damaged");
}
