//! `verify`: damage of a backup file is found, named and located; nothing is changed; nothing unseen passes.

use std::fs;
use std::os::unix::fs::symlink;

use camino::{Utf8Path, Utf8PathBuf};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::craft::{
    add_row, archive, assert_codes, assert_damage, assert_plain, beside, but_history, damage_index, everything,
    finding, flip, manifest_of, number, one_backup, read_manifest, sign_edited, small_scene, two_backups,
};
use crate::support::Scene;

const MIB: u64 = 1 << 20;

#[test]
fn untouched_backup_passes() {
    let (scene, backup) = one_backup();
    let json = scene.run(&["verify", "--json"]).expect(0).json();
    assert_eq!(json["backups"], json!([{"backup": backup, "verdict": "pass", "findings": []}]));
    assert_eq!(json["orphans"], json!([]));
    assert_eq!(scene.run(&["verify"]).expect(0).stdout, format!("pass {backup}\n"));
    scene.run(&["verify", "--deep"]).expect(0);
}

/// Would catch damage that is found and located in the wrong place, by one page or one chunk.
#[test]
fn flipped_byte_in_a_backup_is_found_and_located() {
    let scene = Scene::with_rows(900);
    let backup = scene.backup();
    let good = fs::read(&backup).unwrap();
    let size = good.len() as u64;
    assert!(size > 2 * MIB, "{size}");
    let last_chunk = (size - 1) / MIB;
    for at in [60, MIB - 1, MIB, MIB + 4096 * 7 + 4000, size - 1] {
        flip(&backup, usize::try_from(at).unwrap());
        let json = assert_damage(&scene, &backup, &["HASH_MISMATCH"]);
        let chunk = at / MIB;
        let last_byte = if chunk == last_chunk { size - 1 } else { (chunk + 1) * MIB - 1 };
        let range = json!({
            "chunks": [chunk, chunk],
            "bytes": [chunk * MIB, last_byte],
            "pages": [chunk * MIB / 4096 + 1, last_byte / 4096 + 1],
        });
        let found = finding(&json, "HASH_MISMATCH");
        assert_eq!(found["damaged"], json!([range]), "byte {at}");
        let text = scene.run(&["verify", backup.as_str()]).expect(1).stdout;
        assert!(text.starts_with(&format!("fail {backup}\n  HASH_MISMATCH: ")), "{text}");
        assert!(text.contains(&format!("chunks {chunk}-{chunk} (bytes {}-{last_byte}, ", chunk * MIB)), "{text}");
        fs::write(&backup, &good).unwrap();
    }
}

/// Both sides of a mismatch are shown, so that it can be told which one is the other tool's.
#[test]
fn message_of_a_mismatch_shows_both_hashes() {
    let (scene, backup) = one_backup();
    let recorded = read_manifest(&backup)["file"]["blake3"].as_str().unwrap().to_owned();
    flip(&backup, 700);
    let found = blake3::hash(&fs::read(&backup).unwrap()).to_hex();
    let json = assert_damage(&scene, &backup, &["HASH_MISMATCH"]);
    let message = finding(&json, "HASH_MISMATCH")["message"].as_str().unwrap();
    assert!(message.contains(&recorded) && message.contains(found.as_str()), "{message}");
    assert!(finding(&json, "HASH_MISMATCH").get("damaged").is_none(), "one chunk is the whole file: {json}");
}

#[test]
fn tables_with_pages_in_the_damage_are_named() {
    let scene = Scene::with_rows(900);
    let backup = scene.backup();
    let sql = "SELECT pageno FROM dbstat WHERE name = 'observations' AND pagetype = 'leaf' AND pageno > 300 LIMIT 1";
    let page = usize::try_from(number(&backup, sql)).unwrap();
    // The last byte of a leaf is text of a row, so every tree can still be walked.
    flip(&backup, page * 4096 - 1);
    let json = assert_damage(&scene, &backup, &["HASH_MISMATCH"]);
    let tables = finding(&json, "HASH_MISMATCH")["tables"].as_array().unwrap();
    assert!(tables.contains(&json!("observations")), "{json}");

    // The same chunk of the schema's own page, whose header no longer opens: located all the same.
    flip(&backup, page * 4096 - 1);
    flip(&backup, 0);
    let json = assert_damage(&scene, &backup, &["HASH_MISMATCH"]);
    assert_eq!(finding(&json, "HASH_MISMATCH")["damaged"][0]["chunks"], json!([0, 0]));
}

/// Would catch two places of damage that are reported as everything between them.
#[test]
fn separate_damage_is_reported_separately_and_adjacent_damage_as_one() {
    let scene = Scene::with_rows(1_300);
    let backup = scene.backup();
    let mib = usize::try_from(MIB).unwrap();
    assert!(fs::metadata(&backup).unwrap().len() > 3 * MIB);
    flip(&backup, 100);
    flip(&backup, 2 * mib + 9);
    let json = assert_damage(&scene, &backup, &["HASH_MISMATCH"]);
    let chunks: Vec<_> = ranges(&json).iter().map(|range| range["chunks"].clone()).collect();
    assert_eq!(chunks, [json!([0, 0]), json!([2, 2])]);
    flip(&backup, mib + 9);
    let json = assert_damage(&scene, &backup, &["HASH_MISMATCH"]);
    assert_eq!(ranges(&json).len(), 1);
    assert_eq!(ranges(&json)[0]["bytes"], json!([0, 3 * MIB - 1]));
    assert_eq!(ranges(&json)[0]["pages"], json!([1, 768]));
}

fn ranges(json: &Value) -> &[Value] {
    finding(json, "HASH_MISMATCH")["damaged"].as_array().unwrap()
}

#[test]
fn backup_of_another_length_is_found_with_both_sizes() {
    let (scene, backup) = one_backup();
    let good = fs::read(&backup).unwrap();
    let mut grown = good.clone();
    grown.push(0);
    for content in [&good[..good.len() - 1], &good[..512], &[], &grown] {
        fs::write(&backup, content).unwrap();
        let json = assert_damage(&scene, &backup, &["SIZE_MISMATCH"]);
        let message = finding(&json, "SIZE_MISMATCH")["message"].as_str().unwrap();
        let both = [format!(" {} bytes", content.len()), format!(" {}", good.len())];
        assert!(both.iter().all(|size| message.contains(size)), "{message}");
    }
}

#[test]
fn lost_backup_file_is_found() {
    let (scene, backup) = one_backup();
    fs::remove_file(&backup).unwrap();
    assert_damage(&scene, &backup, &["FILE_MISSING"]);
    assert_eq!(scene.run(&["verify", "--json"]).expect(1).json()["backups"][0]["backup"], backup.as_str());
}

/// Would catch a verify that hangs on a FIFO.
#[test]
fn folder_fifo_or_device_in_the_place_of_a_backup_is_found() {
    let (scene, backup) = one_backup();
    fs::remove_file(&backup).unwrap();
    fs::create_dir(&backup).unwrap();
    assert_damage(&scene, &backup, &["FILE_NOT_REGULAR"]);
    fs::remove_dir(&backup).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, backup.as_str(), rustix::fs::Mode::RWXU).unwrap();
    assert_damage(&scene, &backup, &["FILE_NOT_REGULAR"]);
    fs::remove_file(&backup).unwrap();
    symlink("/dev/zero", &backup).unwrap();
    assert_damage(&scene, &backup, &["FILE_NOT_REGULAR"]);
}

/// SQLite would replay it onto the backup.
#[test]
fn sidecar_beside_a_backup_is_found() {
    for suffix in ["-wal", "-shm", "-journal"] {
        let (scene, backup) = one_backup();
        let sidecar = beside(&backup, suffix);
        fs::write(&sidecar, "").unwrap();
        let json = assert_damage(&scene, &backup, &["SIDECAR_PRESENT"]);
        assert!(finding(&json, "SIDECAR_PRESENT")["message"].as_str().unwrap().contains(sidecar.as_str()), "{json}");
        fs::remove_file(&sidecar).unwrap();
        symlink("nowhere", &sidecar).unwrap();
        assert_damage(&scene, &backup, &["SIDECAR_PRESENT"]);
    }
}

#[test]
fn swapped_backup_files_are_found() {
    let (scene, older, newer) = two_backups();
    let aside = beside(&older, ".aside");
    fs::rename(&older, &aside).unwrap();
    fs::rename(&newer, &older).unwrap();
    fs::rename(&aside, &newer).unwrap();
    for backup in [&older, &newer] {
        assert_damage(&scene, backup, &["HASH_MISMATCH"]);
    }
}

/// A damaged file whose manifest says that it was sound: only a new look at the pages tells.
#[test]
fn deep_looks_at_the_pages_again() {
    let scene = small_scene();
    damage_index(&scene.db);
    let json = scene.run(&["backup", "--json"]).expect(1).json();
    let backup = Utf8PathBuf::from(json["backup"].as_str().unwrap());
    sign_edited(&backup, |manifest| manifest["integrity_check"]["rows"] = json!(["ok"]));
    scene.run(&["verify", backup.as_str()]).expect(0);
    let deep = scene.run(&["verify", "--deep", "--json", backup.as_str()]).expect(1).json();
    assert_codes(&deep, &["DEEP_CHECK_FAILED"]);
    assert_eq!(finding(&deep, "DEEP_CHECK_FAILED")["severity"], "error");
}

/// Would catch a comparison with another database, and one with the main file alone, which lags behind the `-wal`.
#[test]
fn deep_compares_the_header_with_the_live_database() {
    let (scene, backup) = one_backup();
    let codes = |arguments: &[&str], codes: &[&str]| assert_codes(&scene.run(arguments).expect(0).json(), codes);
    codes(&["verify", "--deep", "--json"], &[]);
    let connection = rusqlite::Connection::open(&scene.db).unwrap();
    connection.execute_batch("PRAGMA journal_mode=WAL; PRAGMA user_version=9; PRAGMA application_id=77;").unwrap();
    codes(&["verify", "--deep", "--json"], &["APPLICATION_ID_DIFFERS", "USER_VERSION_DIFFERS"]);
    codes(&["verify", "--json"], &[]);
    let other = scene.dir.join("other.db");
    codes(&["verify", "--deep", "--json", "--db", other.as_str(), backup.as_str()], &[]);
    let text = scene.run(&["verify", "--deep"]).expect(0).stdout;
    assert!(text.contains("USER_VERSION_DIFFERS: user_version is 0, live 9"), "{text}");
    connection.close().unwrap();
}

/// Would catch an audit that is not asked, or warns of versions that have no bug.
#[test]
fn deep_warns_of_a_writer_with_a_known_bug() {
    let (scene, backup) = one_backup();
    let mut bytes = fs::read(&backup).unwrap();
    for (version, expected) in [(3_045_001_u32, &["WRITER_VERSION"][..]), (3_050_007, &[])] {
        bytes[96..100].copy_from_slice(&version.to_be_bytes());
        fs::write(&backup, &bytes).unwrap();
        sign_edited(&backup, |manifest| {
            manifest["file"]["blake3"] = json!(blake3::hash(&bytes).to_hex().as_str());
            manifest["database"]["journal_mode"] = json!("wal");
        });
        let json = scene.run(&["verify", "--deep", "--json"]).expect(0).json();
        assert_codes(&json, expected);
    }
}

/// Would catch a deep check that a sidecar of the backup misleads, or that opens it for writing.
#[test]
fn deep_on_a_backup_with_damage_and_sidecars_changes_nothing() {
    let (scene, backup) = one_backup();
    fs::write(beside(&backup, "-journal"), [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7]).unwrap();
    fs::write(beside(&backup, "-wal"), vec![7; 4096]).unwrap();
    flip(&backup, 20);
    scene.run(&["verify"]).expect(1);
    let before = but_history(everything(&scene.dir));
    scene.run(&["verify", "--deep", "--all"]).expect(1);
    assert_eq!(but_history(everything(&scene.dir)), before);
}

#[test]
fn renamed_pair_passes_with_a_warning() {
    let (scene, backup) = one_backup();
    let renamed = archive(&scene).join("before-upgrade.db");
    fs::rename(&backup, &renamed).unwrap();
    fs::rename(manifest_of(&backup), manifest_of(&renamed)).unwrap();
    let json = scene.run(&["verify", "--json", "before-upgrade"]).expect(0).json();
    assert_eq!(json["backups"][0]["verdict"], "pass");
    assert_codes(&json, &["NAME_DIFFERS"]);
    assert_eq!(finding(&json, "NAME_DIFFERS")["severity"], "warning");
    let text = scene.run(&["verify"]).expect(0).stdout;
    assert!(text.contains("NAME_DIFFERS") && text.contains(backup.file_name().unwrap()), "{text}");
}

#[test]
fn all_with_mixed_verdicts_is_damage() {
    let (scene, older, newer) = two_backups();
    add_row(&scene.db);
    let newest = scene.backup();
    flip(&older, 900);
    sign_edited(&newer, |manifest| manifest["requires"] = json!(["encryption"]));
    let json = scene.run(&["verify", "--all", "--json"]).expect(1).json();
    let mut verdicts: Vec<_> =
        json["backups"].as_array().unwrap().iter().map(|b| b["verdict"].as_str().unwrap()).collect();
    verdicts.sort_unstable();
    assert_eq!(verdicts, ["fail", "inconclusive", "pass"]);
    let text = scene.run(&["verify", "--all"]).expect(1).stdout;
    assert!(text.ends_with("1 pass, 1 fail, 1 inconclusive\n"), "{text}");
    // The same in a list of names.
    scene.run(&["verify", older.as_str(), newest.as_str()]).expect(1);
    scene.run(&["verify", newer.as_str(), newest.as_str()]).expect(6);
    let one = scene.run(&["verify", newest.as_str(), newest.as_str(), "--json"]).expect(0).json();
    assert!(one["backups"].as_array().unwrap().iter().all(|b| b["backup"] == newest.as_str()), "{one}");
}

#[test]
fn verify_changes_and_creates_nothing_but_the_history() {
    let (scene, _older, newer) = two_backups();
    flip(&newer, 900);
    scene.run(&["verify"]).expect(1);
    let before = but_history(everything(&scene.dir));
    for arguments in [
        &["verify"][..],
        &["verify", "--all", "--deep"],
        &["verify", "latest-good"],
        &["-vv", "verify"],
        &["verify", "--subset", "50%"],
    ] {
        scene.run(arguments);
        assert_eq!(but_history(everything(&scene.dir)), before, "{arguments:?}");
    }
}

/// Would catch a file name that drives the terminal.
#[test]
fn hostile_names_are_printed_without_their_control_characters() {
    let (scene, backup) = one_backup();
    let hostile = archive(&scene).join("evil\u{1b}]0;title\u{7}\u{202e}\n.db");
    fs::copy(&backup, &hostile).unwrap();
    fs::copy(manifest_of(&backup), manifest_of(&hostile)).unwrap();
    fs::write(beside(&hostile, "-wal"), "").unwrap();
    fs::write(archive(&scene).join("orphan\u{1b}[31m.db"), "").unwrap();
    sign_edited(&backup, |manifest| manifest["file"]["name"] = json!("x\u{1b}[31m.db"));
    let words = ["--all", hostile.as_str(), "evil", "no\u{1b}[31msuch", "latest"];
    for word in words {
        for format in ["--quiet", "--json"] {
            let run = scene.run(&["verify", format, word]);
            assert_plain(&run.stderr);
            assert!(!run.stdout.contains(['\u{1b}', '\u{7}']), "{run:?}");
            if format == "--quiet" {
                assert_plain(&run.stdout);
            }
        }
    }
}

/// A backup, its manifest and the two texts, on which proptest can try changes again and again.
struct Pair {
    scene: Scene,
    backup: Utf8PathBuf,
}

impl Pair {
    fn assert_found(&self, path: &Utf8Path, at: usize, bits: u8) {
        let good = fs::read(path).unwrap();
        let mut bytes = good.clone();
        bytes[at] ^= bits;
        fs::write(path, bytes).unwrap();
        let run = self.scene.run(&["verify", "--json", self.backup.as_str()]);
        fs::write(path, good).unwrap();
        assert_eq!(run.status, Some(1), "byte {at} ^ {bits:#04x} of {path}: {run:?}");
        assert_eq!(run.json()["backups"][0]["verdict"], "fail");
    }
}

thread_local! {
    static PAIR: Pair = {
        let (scene, backup) = one_backup();
        Pair { scene, backup }
    };
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_changed_byte_of_file_or_manifest_is_found(at in any::<prop::sample::Index>(), bits in 1_u8..) {
        PAIR.with(|pair| {
            for path in [pair.backup.clone(), manifest_of(&pair.backup)] {
                let length = usize::try_from(fs::metadata(&path).unwrap().len()).unwrap();
                pair.assert_found(&path, at.index(length), bits);
            }
        });
    }
}
