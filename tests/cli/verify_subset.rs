//! `verify --subset`: a part of every backup by lot, and all of it in turn.

use std::fs;

use camino::Utf8Path;
use serde_json::{Value, json};

use crate::craft::{assert_codes, beside, chunked_backup, finding, flip, manifest_of, number, two_backups};
use crate::support::{Run, Scene};

const MIB: usize = 1 << 20;

/// What a run says of the subset of its only backup.
#[track_caller]
fn subset(run: &Run) -> Value {
    let json = run.json();
    assert_eq!(json["backups"].as_array().unwrap().len(), 1, "{json}");
    json["backups"][0]["subset"].clone()
}

fn entry(scene: &Scene) -> Value {
    scene.run(&["list", "--json"]).expect(0).json()["backups"][0].clone()
}

/// Would catch a chunk that is drawn twice in a round, one that is never drawn, and a round that never ends or ends early.
#[test]
fn rounds_cover_every_chunk_once() {
    let (scene, _backup) = chunked_backup(6);
    for _round in 0..2 {
        let mut covered = 0;
        // A quarter of 7 chunks, rounded up.
        for checked in [2, 2, 2, 1] {
            covered += checked;
            let found = subset(&scene.run(&["verify", "--subset", "25%", "--json"]).expect(0));
            assert!(u32::try_from(found["seed"].as_u64().unwrap()).is_ok(), "{found}");
            let expected = json!({
                "chunks_checked": checked, "chunks_covered": covered, "chunks_total": 7,
                "round_completed": covered == 7, "seed": found["seed"],
            });
            assert_eq!(found, expected);
            let entry = entry(&scene);
            assert_eq!(entry["last_verified"]["depth"], "subset", "{entry}");
            assert_eq!(entry["last_passed"]["subset"], entry["last_verified"]["at"], "{entry}");
            if covered == 7 {
                assert_eq!(entry["last_passed"]["hash"], entry["last_verified"]["at"], "{entry}");
            }
        }
    }
}

/// Would catch damage that hides in a chunk that is covered without having been compared.
#[test]
fn damaged_chunk_is_found_within_a_round_and_located() {
    let (scene, backup) = chunked_backup(5);
    flip(&backup, 3 * MIB + 77);
    let mut founds = 0;
    for _ in 0..6 {
        let run = scene.run(&["verify", "--subset", "1", "--json"]);
        let json = run.json();
        if run.status == Some(0) {
            assert!(founds == 0 || json["backups"][0]["subset"]["chunks_covered"].as_u64() < Some(6), "{json}");
            continue;
        }
        founds += 1;
        assert_eq!(run.status, Some(1));
        assert_codes(&json, &["HASH_MISMATCH"]);
        let found = finding(&json, "HASH_MISMATCH");
        assert_eq!(found["damaged"][0]["chunks"], json!([3, 3]));
        assert_eq!(found["damaged"][0]["bytes"], json!([3 * MIB, 4 * MIB - 1]));
        assert_eq!(found["tables"], json!(["t"]));
        assert!(found["message"].as_str().unwrap().starts_with("the hash of chunk 3 is "), "{json}");
    }
    assert!(founds > 0);
    // It stays uncovered, so the round cannot end, and never counts as a pass of the whole.
    let json = scene.run(&["verify", "--subset", "100%", "--json"]).expect(1).json();
    assert_eq!(json["backups"][0]["subset"]["chunks_covered"], 5);
    assert_eq!(entry(&scene)["last_passed"]["hash"], Value::Null);
    let status = scene.run(&["status", "--json"]).expect(1).json();
    assert!(status["problems"][0].as_str().unwrap().contains("failed when it was verified (subset)"), "{status}");
}

/// Would catch a seed that is not used, or the same places in every backup.
#[test]
fn seed_repeats_a_run_and_draws_apart_for_each_backup() {
    let (scene, backup) = chunked_backup(20);
    let covered = || {
        let state = fs::read_to_string(state_of(&backup)).unwrap();
        fs::remove_dir_all(state_of(&backup).parent().unwrap()).unwrap();
        let state: Value = serde_json::from_str(&state).unwrap();
        state["backups"][backup.file_name().unwrap()]["round"]["covered"].as_str().unwrap().to_owned()
    };
    let draw = |seed: &str| {
        let run = scene.run(&["verify", "--subset", "30%", "--seed", seed, "-v"]).expect(0);
        assert!(run.stdout.ends_with(&format!("7 of 21 chunks, 7 covered in this round, seed {seed}\n")), "{run:?}");
        covered()
    };
    let first = draw("7");
    assert_eq!(draw("7"), first);
    let others: Vec<_> = (8..14).map(|seed| draw(&seed.to_string())).collect();
    assert!(others.iter().any(|other| *other != first), "{first} {others:?}");
}

fn state_of(backup: &Utf8Path) -> camino::Utf8PathBuf {
    backup.with_file_name(".state").join("verified.json")
}

#[test]
fn all_backups_of_the_archive_are_meant_unless_some_are_named() {
    let (scene, older, newer) = two_backups();
    let json = scene.run(&["verify", "--subset", "5%", "--json"]).expect(0).json();
    let backups = json["backups"].as_array().unwrap();
    assert_eq!(backups.len(), 2);
    // A file of one chunk is a round of its own.
    for backup in backups {
        let expected = json!([1, 1, 1, true]);
        let subset = &backup["subset"];
        let fields = ["chunks_checked", "chunks_covered", "chunks_total", "round_completed"].map(|name| &subset[name]);
        assert_eq!(json!(fields), expected);
    }
    flip(&older, 900);
    scene.run(&["verify", "--subset", "5%", newer.as_str()]).expect(0);
    scene.run(&["verify", "--subset", "5%", older.as_str()]).expect(1);
    let text = scene.run(&["verify", "--subset", "5%"]).expect(1).stdout;
    assert!(text.contains("1 of 1 chunks, 1 covered in this round\n"), "{text}");
    assert!(text.ends_with("1 pass, 1 fail, 0 inconclusive\n"), "{text}");
}

/// Would catch a part that is taken for the whole where the rest cannot be right.
#[test]
fn manifest_size_and_sidecars_are_checked_too() {
    let (scene, backup) = chunked_backup(3);
    let verify = || scene.run(&["verify", "--subset", "1%", "--json"]);
    fs::write(beside(&backup, "-wal"), "").unwrap();
    assert_codes(&verify().expect(1).json(), &["SIDECAR_PRESENT"]);
    fs::remove_file(beside(&backup, "-wal")).unwrap();

    let file = fs::File::options().write(true).open(&backup).unwrap();
    let size = file.metadata().unwrap().len();
    file.set_len(size - 1).unwrap();
    let json = verify().expect(1).json();
    assert_codes(&json, &["SIZE_MISMATCH"]);
    assert_eq!(json["backups"][0]["subset"]["chunks_checked"], 0);
    file.set_len(size).unwrap();

    flip(&manifest_of(&backup), 500);
    let json = verify().expect(1).json();
    assert_codes(&json, &["MANIFEST_DAMAGED"]);
    assert!(json["backups"][0]["subset"].is_null(), "{json}");
    assert_eq!(number(&backup, "SELECT count(*) FROM t"), 3);
}

#[test]
fn senseless_parts_are_refused() {
    let (scene, _older, _newer) = two_backups();
    for arguments in [
        &["--subset", "0"][..],
        &["--subset", "0%"],
        &["--subset", "100.1%"],
        &["--subset", "-5%"],
        &["--subset", "nan"],
        &["--subset", "five"],
        &["--subset", "5%%"],
        &["--subset", ""],
        &["--subset", "5%", "--deep"],
        &["--subset", "5%", "--seed", "x"],
        &["--seed", "1"],
        &["--max-time", "1s"],
        &["--jobs", "2"],
        &["--deep", "--jobs", "0"],
        &["--deep", "--max-time", "5"],
        &["--foreign-keys", "warn"],
        &["--deep", "--foreign-keys", "maybe"],
    ] {
        scene.run(&[&["verify"], arguments].concat()).expect(2);
    }
    for part in ["0.5%", "5", "100"] {
        scene.run(&["verify", "--subset", part]).expect(0);
    }
    scene.run(&["verify", "--deep", "--jobs", "1", "--max-time", "1h", "--foreign-keys", "off"]).expect(0);
}
