//! Ways around the keys: where they come from, and which commands apply them.

use std::os::unix::fs::symlink;

use super::*;

/// Would catch a key that is looked for in the archive on a roundabout way: who can write there decides where a link leads.
#[test]
fn key_behind_a_link_in_the_archive_is_not_used() {
    let signed = Signed::new();
    let public = with(&signed.key, ".pub");
    let inside = signed.archive().join("link.pub");
    symlink(&public, &inside).unwrap();
    let chain = signed.scene.dir.join("chain.pub");
    symlink(&inside, &chain).unwrap();
    let folder_inside = signed.archive().join("keys");
    symlink(public.parent().unwrap(), &folder_inside).unwrap();
    let folder = signed.scene.dir.join("linked");
    symlink(&folder_inside, &folder).unwrap();
    let through = folder.join("own.key.pub");
    let config = signed.archive().join("link.toml");
    symlink(signed.scene.dir.join("engram-restore.toml"), &config).unwrap();
    let config_chain = signed.scene.dir.join("chain.toml");
    symlink(&config, &config_chain).unwrap();
    for (option, file) in [("--public-key", &chain), ("--public-key", &through), ("--config", &config_chain)] {
        let refused = signed.scene.run(&[option, file.as_str(), "restore", "latest"]).expect(2);
        assert!(refused.stderr.contains("it leads through the archive"), "{file}: {refused:?}");
    }
    // Links elsewhere are nobody else's.
    let elsewhere = signed.scene.dir.join("elsewhere.pub");
    symlink(&public, &elsewhere).unwrap();
    signed.scene.run(&["--public-key", elsewhere.as_str(), "restore", "latest"]).expect(0);
}

/// A disk that somebody has brought may hold a backup and a key that fit each other.
#[test]
fn key_beside_a_backup_is_warned_of() {
    let signed = Signed::new();
    let disk = signed.scene.dir.join("disk");
    fs::create_dir(&disk).unwrap();
    let backup = disk.join(signed.newer.file_name().unwrap());
    copy_all(&signed.newer, &backup, &["", MANIFEST, SIGNATURE]);
    let key = disk.join("own.pub");
    fs::copy(with(&signed.key, ".pub"), &key).unwrap();
    for command in ["restore", "verify", "show"] {
        let run = signed.scene.run(&["--public-key", key.as_str(), command, backup.as_str()]).expect(0);
        assert!(run.stderr.contains("lies beside the backup"), "{command}: {run:?}");
        let run = signed.scene.run(&[command, backup.as_str()]).expect(0);
        assert!(!run.stderr.contains("lies beside the backup"), "{command}: {run:?}");
    }
}

/// It would be called a backup, and no restore would take it.
#[test]
fn adopt_calls_no_backup_one_that_is_not_signed() {
    let signed = Signed::new();
    let theirs = signed.theirs(&[]);
    let refused = signed.scene.run(&["adopt", theirs.as_str(), "--json"]).expect(1).json();
    assert_eq!(refused["refused"][0]["findings"][0]["code"], "NOT_SIGNED", "{refused}");
    let known = signed.scene.run(&["adopt", signed.newer.as_str()]).expect(0);
    assert!(known.stderr.contains("is a backup already"), "{known:?}");
}

/// SQLite would look for the copied journal by its name, where others may write.
#[test]
fn journal_is_not_folded_into_what_is_signed() {
    let signed = Signed::new();
    let file = signed.scene.dir.join("copied.db");
    create(&file, &SampleOptions { rows: THEIRS, ..SampleOptions::default() }).unwrap();
    fs::write(with(&file, "-journal"), [7; 600]).unwrap();
    let refused = signed.scene.run(&["adopt", "--into-archive", "--fold", file.as_str()]).expect(2);
    assert!(refused.stderr.contains("is not signed"), "{refused:?}");
    assert_eq!(Scene::names(signed.archive()).iter().filter(|name| name.contains("partial")).count(), 0);
}

#[test]
fn section_that_trusts_nobody_is_a_mistake() {
    let signed = Signed::new();
    fs::write(signed.scene.dir.join("engram-restore.toml"), "[trust]\n").unwrap();
    let refused = signed.scene.run(&["restore", "latest"]).expect(2);
    assert!(refused.stderr.contains("[trust] names no public_key"), "{refused:?}");
}

/// Pasted as they are, the lines would trust anybody.
#[test]
fn lines_that_put_a_database_back_name_the_keys() {
    let signed = Signed::new();
    fs::write(signed.scene.dir.join("engram-restore.toml"), "").unwrap();
    let public = with(&signed.key, ".pub");
    let keys = ["--public-key", public.as_str(), "--secret-key", signed.key.as_str()];
    let said = signed.scene.run(&[&keys[..], &["guard", "--json", "--", "false"]].concat());
    let line = said.json()["put_back"]["swap"].as_str().unwrap().to_owned();
    let text = fs::read_to_string(&public).unwrap();
    assert!(line.contains(&format!(" --public-key {} ", text.lines().nth(1).unwrap())), "{line}");
}

/// Would catch a script that reads a path with two characters too many.
#[test]
fn paths_of_keys_and_signatures_end_their_lines() {
    let signed = Signed::new();
    let taken = signed.scene.run(&["backup"]).expect(0);
    let line = taken.stdout.lines().find(|line| line.contains("signed: ")).unwrap();
    assert!(line.ends_with(".minisig") && taken.stdout.ends_with('\n'), "{taken:?}");
    let planned = signed.scene.run(&["keygen", "--dry-run", signed.scene.dir.join("k.key").as_str()]).expect(0);
    assert!(planned.stdout.ends_with("k.key.pub\n"), "{planned:?}");
}
