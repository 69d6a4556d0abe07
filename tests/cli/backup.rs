//! `backup`: what it reports, what it writes and where, and which places it refuses.

use std::fs;

use camino::Utf8PathBuf;
use serde_json::json;

use crate::craft::{archive, everything, manifest_of, mode, refused, run_on, small_database, small_scene, under_umask};
use crate::support::{Scene, bare_command, run};

/// Names `engram-<second>Z.db` for two minutes from now, one of which the next backup would choose.
fn names_that_come() -> impl Iterator<Item = String> {
    let now = jiff::Timestamp::now();
    (-1..120).map(move |seconds| {
        let at = now + jiff::SignedDuration::from_secs(seconds);
        format!("engram-{}.db", at.strftime("%Y-%m-%dT%H-%M-%SZ"))
    })
}

#[test]
fn report_is_the_file_that_was_written() {
    let scene = small_scene();
    let json = scene.run(&["backup", "--json", "--label", "before upgrade"]).expect(0).json();
    let backup = Utf8PathBuf::from(json["backup"].as_str().unwrap());
    let bytes = fs::read(&backup).unwrap();
    assert_eq!(json["manifest"], manifest_of(&backup).as_str());
    assert_eq!(json["size_bytes"], bytes.len());
    assert_eq!(json["blake3"], blake3::hash(&bytes).to_hex().as_str());
    assert_eq!(json["integrity_check"], "ok");
    assert_eq!(json["engine"], "snapshot");
    assert_eq!(json["label"], "before upgrade");
    assert_eq!(json["swept"], json!([]));
    assert_eq!((&json["wal_bytes_before"], &json["wal_bytes_after"]), (&json!(0), &json!(0)));
    assert!(json["duration_ms"].is_u64());
    assert_eq!(Scene::names(&archive(&scene)).len(), 2);
}

#[test]
fn name_is_stem_and_utc_second_of_the_creation_time() {
    let scene = Scene::empty();
    let db = scene.dir.join("my notes.v2.sqlite");
    small_database(&db);
    let json = run_on(&scene, db.as_str(), &["backup", "--json"]).expect(0).json();
    let created_at = json["created_at"].as_str().unwrap();
    assert!(created_at.ends_with('Z') && created_at.len() >= "2026-11-22T05:30:00.123Z".len(), "{created_at}");
    let name = format!("my notes.v2-{}Z.db", created_at[..19].replace(':', "-"));
    assert_eq!(json["backup"], archive(&scene).join(name).as_str());
}

/// Would catch a backup that replaces one of the same second, or somebody's file of that name.
#[test]
fn taken_name_gets_a_number_and_stays_as_it_was() {
    let scene = small_scene();
    fs::create_dir(archive(&scene)).unwrap();
    for name in names_that_come() {
        fs::write(archive(&scene).join(&name), "somebody's").unwrap();
    }
    for number in ["-2", "-3"] {
        // A second may pass between the two, so the third may begin at -2 again.
        let backup = scene.backup();
        let name = backup.file_name().unwrap();
        assert!(name.ends_with("Z-2.db") || name.ends_with(&format!("Z{number}.db")), "{name}");
        let taken = format!("{}Z.db", name.split_once("Z-").unwrap().0);
        assert_eq!(fs::read_to_string(archive(&scene).join(taken)).unwrap(), "somebody's");
    }
}

/// Would catch a new backup under a manifest that was there before.
#[test]
fn name_with_a_foreign_manifest_is_not_taken() {
    let scene = small_scene();
    fs::create_dir(archive(&scene)).unwrap();
    for name in names_that_come() {
        fs::write(manifest_of(&archive(&scene).join(&name)), "somebody's").unwrap();
    }
    let backup = scene.backup();
    assert!(backup.as_str().ends_with("Z-2.db"), "{backup}");
    scene.run(&["verify", backup.as_str()]).expect(0);
}

/// Would catch a backup that reports success and does not verify: SQLite would replay the sidecar onto it.
#[test]
fn sidecar_at_a_name_in_the_archive_does_not_join_the_new_backup() {
    let scene = small_scene();
    fs::create_dir(archive(&scene)).unwrap();
    for name in names_that_come() {
        fs::write(archive(&scene).join(name + "-wal"), "stale").unwrap();
    }
    let run = scene.run(&["backup", "--json"]);
    if run.status == Some(0) {
        let backup = run.json()["backup"].as_str().unwrap().to_owned();
        scene.run(&["verify", &backup]).expect(0);
    } else {
        refused(run, 5, "failed");
    }
}

#[test]
fn open_umask_opens_neither_files_nor_folder() {
    let scene = small_scene();
    let json = run(&mut under_umask("000", &scene.command(&["backup", "--json"]))).expect(0).json();
    let backup = Utf8PathBuf::from(json["backup"].as_str().unwrap());
    assert_eq!(mode(&backup), 0o600);
    assert_eq!(mode(&manifest_of(&backup)), 0o600);
    assert_eq!(mode(&archive(&scene)), 0o700);
}

/// Would catch a backup that its own owner cannot read.
#[test]
fn tight_umask_does_not_lock_the_owner_out() {
    let scene = small_scene();
    let json = run(&mut under_umask("0377", &scene.command(&["backup", "--json"]))).expect(0).json();
    let backup = Utf8PathBuf::from(json["backup"].as_str().unwrap());
    let modes = [mode(&backup), mode(&manifest_of(&backup)), mode(&archive(&scene))].map(|mode| format!("{mode:04o}"));
    assert_eq!(modes, ["0600", "0600", "0700"]);
}

#[test]
fn archive_that_is_there_keeps_its_mode() {
    use std::os::unix::fs::PermissionsExt;
    let scene = small_scene();
    fs::create_dir(archive(&scene)).unwrap();
    fs::set_permissions(archive(&scene), fs::Permissions::from_mode(0o750)).unwrap();
    scene.backup();
    assert_eq!(mode(&archive(&scene)), 0o750);
}

#[test]
fn unknown_engine_is_refused() {
    let scene = small_scene();
    scene.run(&["backup", "--engine", "magic"]).expect(2);
    assert_eq!(Scene::names(&scene.dir), ["engram.db"]);
}

#[test]
fn label_is_kept_to_its_200th_character() {
    let scene = small_scene();
    let label = "ä".repeat(200);
    scene.run(&["backup", "--label", &label]).expect(0);
    assert_eq!(scene.run(&["list", "--json"]).json()["backups"][0]["label"], label);
    assert_eq!(scene.run(&["show", "latest", "--json"]).json()["manifest"]["label"], label);
}

#[test]
fn bad_label_is_refused_before_anything_is_made() {
    let scene = small_scene();
    // The last one is for the backups of a restore in place, which latest passes over.
    for label in ["two\nlines", "\u{1b}[31m", "\u{7f}", &"x".repeat(201), "before-in-place-restore"] {
        refused(scene.run(&["backup", "--json", "--label", label]), 2, "usage");
    }
    assert_eq!(Scene::names(&scene.dir), ["engram.db"]);
}

#[test]
fn path_gets_two_files_and_the_archive_none() {
    let scene = small_scene();
    let elsewhere = scene.dir.join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let mut command = bare_command(&elsewhere);
    let json = run(command.args(["--db", "../engram.db", "--json", "backup", "--path", "one.db"])).expect(0).json();
    assert_eq!(json["backup"], elsewhere.join("one.db").as_str());
    assert_eq!(json["manifest"], elsewhere.join("one.db.manifest.json").as_str());
    assert_eq!(Scene::names(&elsewhere), ["one.db", "one.db.manifest.json"]);
    assert_eq!(mode(&elsewhere.join("one.db")), 0o600);
    assert_eq!(Scene::names(&scene.dir), ["elsewhere", "engram.db"]);
    scene.run(&["verify", "elsewhere/one.db"]).expect(0);
}

#[test]
fn taken_path_is_refused_and_untouched() {
    for taken in ["one.db", "one.db.manifest.json", "one.db-wal", "one.db-shm", "one.db-journal"] {
        let scene = small_scene();
        fs::write(scene.dir.join(taken), "precious").unwrap();
        let before = everything(&scene.dir);
        let error = refused(scene.run(&["backup", "--json", "--path", "one.db"]), 5, "failed");
        assert_eq!(error["path"], scene.dir.join(taken).as_str());
        assert!(error["hint"].is_string());
        assert_eq!(everything(&scene.dir), before, "{taken}");
    }
}

/// Would catch a name that no manifest may have, which is told of after all the work.
#[test]
fn backslash_in_a_name_is_replaced_or_refused() {
    let scene = Scene::empty();
    let db = scene.dir.join("a\\b.db");
    crate::craft::small_database(&db);
    let json = crate::craft::run_on(&scene, db.as_str(), &["backup", "--json"]).expect(0).json();
    assert!(json["backup"].as_str().unwrap().contains("/a_b-2"), "{json}");
    crate::craft::run_on(&scene, db.as_str(), &["verify"]).expect(0);
    crate::craft::run_on(&scene, db.as_str(), &["restore", "latest"]).expect(0);
    crate::craft::run_on(&scene, db.as_str(), &["backup", "--path", "x\\y.db"]).expect(2);
}

#[test]
fn path_of_the_database_itself_is_refused() {
    let scene = small_scene();
    let before = everything(&scene.dir);
    refused(scene.run(&["backup", "--json", "--path", "engram.db"]), 2, "usage");
    assert_eq!(everything(&scene.dir), before);
}

/// Would catch a backup that SQLite takes for the live database's WAL or journal, and removes.
#[test]
fn path_of_a_sidecar_of_the_database_is_refused() {
    let mut accepted = Vec::new();
    for suffix in ["-wal", "-shm", "-journal"] {
        let scene = small_scene();
        let before = everything(&scene.dir);
        let run = scene.run(&["backup", "--json", "--path", &format!("engram.db{suffix}")]);
        if run.status == Some(0) || everything(&scene.dir) != before {
            accepted.push((suffix, run.status, Scene::names(&scene.dir)));
        }
    }
    assert!(accepted.is_empty(), "{accepted:?}");
}

#[test]
fn path_in_a_missing_folder_is_not_found() {
    let scene = small_scene();
    refused(scene.run(&["backup", "--json", "--path", "nowhere/one.db"]), 4, "not_found");
    assert_eq!(Scene::names(&scene.dir), ["engram.db"]);
}

#[test]
fn path_of_a_folder_is_refused() {
    let scene = small_scene();
    fs::create_dir(scene.dir.join("folder")).unwrap();
    refused(scene.run(&["backup", "--json", "--path", "folder"]), 5, "failed");
    assert_eq!(Scene::names(&scene.dir.join("folder")), [""; 0]);
    refused(scene.run(&["backup", "--json", "--path", ""]), 2, "usage");
}

#[test]
fn archive_that_is_a_file_is_refused() {
    let scene = small_scene();
    fs::write(archive(&scene), "a file").unwrap();
    refused(scene.run(&["backup", "--json"]), 5, "failed");
    assert_eq!(fs::read_to_string(archive(&scene)).unwrap(), "a file");
}

/// The archive is no part of the database's folder: it can be anywhere, several levels deep.
#[test]
fn missing_archive_is_made_with_everything_above_it() {
    let scene = small_scene();
    let json = scene.run(&["--archive", "a/b/../c", "backup", "--json"]).expect(0).json();
    assert!(json["backup"].as_str().unwrap().starts_with(scene.dir.join("a/c/engram-").as_str()), "{json}");
    assert_eq!(mode(&scene.dir.join("a/c")), 0o700);
}

/// Would catch a dry run that makes the archive, sweeps, or opens the database and leaves sidecars beside it.
#[test]
fn dry_run_names_the_backup_and_changes_nothing() {
    let scene = small_scene();
    let before = everything(&scene.dir);
    let json = scene.run(&["backup", "--dry-run", "--json"]).expect(0).json();
    let backup = json["backup"].as_str().unwrap();
    assert!(backup.starts_with(scene.dir.join("backups/engram-2").as_str()), "{json}");
    assert_eq!(json["manifest"].as_str().unwrap(), format!("{backup}.manifest.json"));
    assert_eq!(json["plan"]["db"], scene.db.as_str());
    assert_eq!(everything(&scene.dir), before);

    scene.backup();
    let stale = scene.dir.join("backups/.engram-restore-x.partial");
    fs::write(&stale, "").unwrap();
    let before = everything(&scene.dir);
    let run = scene.run(&["backup", "--dry-run"]).expect(0);
    assert!(run.stdout.contains(stale.as_str()) && run.stdout.ends_with("nothing was changed\n"), "{run:?}");
    assert_eq!(everything(&scene.dir), before);
    fs::write(&scene.db, "").unwrap();
    refused(scene.run(&["backup", "--dry-run", "--json"]), 1, "damaged");
}
