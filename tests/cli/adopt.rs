//! `adopt`: a manifest for database files that other tools have made.

use std::fs;
use std::os::unix::net::UnixListener;
use std::time::{Duration, SystemTime};

use camino::{Utf8Path, Utf8PathBuf};
use engram_restore::sample::{SampleJournal, SampleOptions, create};
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::content::{Content, content, snapshot};
use crate::craft::{
    add_row, beside, damage_index, everything, flip, manifest_of, mode, number, read_manifest, refused, sign_edited,
    small_database, small_scene,
};
use crate::processes::Foreign;
use crate::restore::{Hot, assert_warned};
use crate::support::{Run, Scene, bare_command, run};

/// A plain copy of a file, in the folder of the scene.
fn copy(scene: &Scene, from: &Utf8Path, name: &str) -> Utf8PathBuf {
    let to = scene.dir.join(name);
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::copy(from, &to).unwrap();
    to
}

/// A copy of the stopped database of a small scene.
fn stopped() -> (Scene, Utf8PathBuf) {
    let scene = small_scene();
    let file = copy(&scene, &scene.db, "other/copy.sqlite");
    (scene, file)
}

fn adopt(scene: &Scene, arguments: &[&str]) -> Run {
    scene.run(&[&["adopt", "--json"], arguments].concat())
}

/// The only one that was adopted.
#[track_caller]
fn one(run: Run) -> Value {
    let json = run.expect(0).json();
    assert_eq!((&json["refused"], &json["failed"]), (&json!([]), &json!([])), "{json}");
    assert_eq!(json["adopted"].as_array().unwrap().len(), 1, "{json}");
    json["adopted"][0].clone()
}

/// Runs, insists that nothing was changed or created, and returns the codes of the only file that was refused.
#[track_caller]
fn refusal(scene: &Scene, arguments: &[&str], status: i32) -> Vec<String> {
    let before = snapshot(&scene.dir);
    let json = adopt(scene, arguments).expect(status).json();
    assert_eq!(snapshot(&scene.dir), before);
    assert_eq!((&json["adopted"], json["refused"].as_array().unwrap().len()), (&json!([]), 1), "{json}");
    let findings = json["refused"][0]["findings"].as_array().unwrap().clone();
    findings.iter().map(|finding| finding["code"].as_str().unwrap().to_owned()).collect()
}

/// Runs, insists that nothing was changed or created, and returns the message of the error.
#[track_caller]
fn error(scene: &Scene, arguments: &[&str], status: i32, kind: &str) -> String {
    let before = everything(&scene.dir);
    let error = refused(adopt(scene, arguments), status, kind);
    assert_eq!(everything(&scene.dir), before);
    error["message"].as_str().unwrap().to_owned()
}

/// Would catch a manifest that is not one of this file, a file that was changed for it, and a restore that loses the mode.
#[test]
fn copy_of_a_stopped_database_becomes_a_backup_and_is_not_touched() {
    let scene = Scene::with_rows(30);
    let expected = content(&scene.db);
    let file = copy(&scene, &scene.db, "other/copy.sqlite");
    let before = snapshot(&scene.dir.join("other"));
    let adopted = one(adopt(&scene, &[file.as_str(), "--label", "from cp"]));
    let mut after = snapshot(&scene.dir.join("other"));
    assert!(after.remove("copy.sqlite.manifest.json").is_some());
    assert_eq!(after, before);

    let manifest = read_manifest(&file);
    assert_eq!(adopted["backup"], file.as_str());
    assert_eq!(adopted["manifest"], manifest_of(&file).as_str());
    assert_eq!((&adopted["integrity_check"], &adopted["already"]), (&json!("ok"), &json!(false)));
    assert_eq!((&manifest["label"], &manifest["engine"]), (&json!("from cp"), &json!("adopt")));
    assert_eq!(manifest["source"]["path"], scene.db.as_str());
    assert_eq!(manifest["database"]["journal_mode"], "wal");
    assert_eq!(adopted["blake3"], blake3::hash(&fs::read(&file).unwrap()).to_hex().as_str());
    assert_eq!(mode(&manifest_of(&file)), 0o600);

    scene.run(&["verify", "--deep", file.as_str()]).expect(0);
    fs::remove_file(&scene.db).unwrap();
    scene.run(&["restore", file.as_str()]).expect(0);
    assert_eq!(content(&scene.db), expected);
    assert_eq!(fs::read(&scene.db).unwrap()[18..20], [2, 2]);
}

#[test]
fn file_by_vacuum_into_is_adopted_without_a_warning() {
    let scene = small_scene();
    let file = scene.dir.join("compact.db");
    Connection::open(&scene.db).unwrap().execute("VACUUM INTO ?1", [file.as_str()]).unwrap();
    let run = adopt(&scene, &[file.as_str()]).expect(0);
    assert!(run.json().get("warnings").is_none() && run.stderr.is_empty(), "{run:?}");
}

/// Would catch an adopted file that `latest` passes over, and an old one that becomes the latest.
#[test]
fn file_in_the_archive_is_ordered_by_its_own_time() {
    let scene = small_scene();
    let backup = scene.backup();
    add_row(&scene.db);
    let old = copy(&scene, &scene.db, "backups/old.db");
    one(adopt(&scene, &[old.as_str(), "--at", "2020-01-02T03:04:05Z"]));
    let listed = scene.run(&["list", "--json"]).expect(0).json();
    assert_eq!(listed["backups"][0]["backup"], backup.as_str());
    assert_eq!(listed["backups"][1]["created_at"], "2020-01-02T03:04:05Z");
    let new = copy(&scene, &scene.db, "backups/new.db");
    one(adopt(&scene, &[new.as_str()]));
    assert_eq!(scene.run(&["show", "latest", "--json"]).expect(0).json()["backup"], new.as_str());
    assert_eq!(scene.run(&["list", "--json"]).expect(0).json()["orphans"], json!([]));
}

#[test]
fn time_is_that_of_the_last_change_bounded_by_now_and_1970() {
    let (scene, file) = stopped();
    let at = |time: SystemTime| {
        fs::File::options().write(true).open(&file).unwrap().set_modified(time).unwrap();
        let adopted = one(adopt(&scene, &[file.as_str()]));
        fs::remove_file(manifest_of(&file)).unwrap();
        adopted["created_at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap()
    };
    let epoch = SystemTime::UNIX_EPOCH;
    assert_eq!(at(epoch + Duration::from_secs(1_600_000_000)).as_second(), 1_600_000_000);
    assert_eq!(at(epoch - Duration::from_secs(86_400)).as_second(), 0);
    let before = jiff::Timestamp::now();
    let bounded = at(SystemTime::now() + Duration::from_secs(1_000_000));
    assert!(before <= bounded && bounded <= jiff::Timestamp::now());
}

/// Would catch a copy of an old backup that becomes the newest because `cp` has given it a new time.
#[test]
fn time_in_a_name_that_backups_have_counts_unless_it_is_to_come() {
    let (scene, file) = stopped();
    let old = copy(&scene, &file, "engram-2021-02-03T04-05-06Z-2.db");
    assert_eq!(one(adopt(&scene, &[old.as_str()]))["created_at"], "2021-02-03T04:05:06Z");
    let future = copy(&scene, &file, "engram-2999-02-03T04-05-06Z.db");
    let at: jiff::Timestamp = one(adopt(&scene, &[future.as_str()]))["created_at"].as_str().unwrap().parse().unwrap();
    assert!(at <= jiff::Timestamp::now());
}

#[test]
fn time_that_cannot_be_is_a_usage_error() {
    let (scene, file) = stopped();
    for at in ["2999-01-01T00:00:00Z", "1969-12-31T23:59:59Z", "yesterday", ""] {
        error(&scene, &[file.as_str(), "--at", at], 2, "usage");
    }
    let other = copy(&scene, &file, "other/b.db");
    error(&scene, &[file.as_str(), other.as_str(), "--at", "2021-01-01T00:00:00Z"], 2, "usage");
    error(&scene, &[file.as_str(), "--label", "two\nlines"], 2, "usage");
    error(&scene, &[], 2, "usage");
}

/// One letter of an index, and nothing beside the file.
fn damage(file: &Utf8Path) {
    damage_index(file);
    for suffix in ["-wal", "-shm"] {
        fs::remove_file(beside(file, suffix)).unwrap();
    }
}

/// A database with commits in its `-wal` that nobody has open.
fn hot() -> (Hot, Utf8PathBuf) {
    let hot = Hot::new();
    for suffix in ["", "-wal"] {
        let name = format!("other/hot.db{suffix}");
        copy(&hot.scene, &beside(&hot.scene.db, suffix), &name);
    }
    let file = hot.scene.dir.join("other/hot.db");
    (hot, file)
}

/// Would catch a manifest for a file that silently lacks its last commits.
#[test]
fn file_with_a_wal_is_refused_and_folded_into_a_copy_when_asked() {
    let (hot, file) = hot();
    assert_eq!(refusal(&hot.scene, &[file.as_str()], 1), ["SIDECAR_PRESENT"]);
    assert_eq!(refusal(&hot.scene, &[file.as_str(), "--into-archive"], 1), ["SIDECAR_PRESENT"]);
    let before = snapshot(&hot.scene.dir.join("other"));
    let adopted = one(adopt(&hot.scene, &["--fold", file.as_str(), "--at", "2021-02-03T04:05:06Z"]));
    assert_eq!(snapshot(&hot.scene.dir.join("other")), before);
    let backup = hot.scene.dir.join("backups/engram-2021-02-03T04-05-06Z.db");
    assert_eq!((&adopted["backup"], &adopted["file"]), (&json!(backup), &json!(file)));
    assert_eq!(adopted["folded"], json!([beside(&file, "-wal")]));
    assert_eq!(content(&backup), hot.old);
    assert_eq!((fs::read(&backup).unwrap()[18..20].to_vec(), mode(&backup)), (vec![1, 1], 0o600));
    assert_eq!(read_manifest(&backup)["database"]["journal_mode"], "wal");
    hot.scene.run(&["verify", "--deep", backup.as_str()]).expect(0);
    let names = Scene::names(&hot.scene.dir.join("backups"));
    assert!(names.iter().all(|name| !name.contains("partial")), "{names:?}");
}

/// Would catch a copy that lacks the commits behind a broken frame, and is said to have what was in the WAL.
#[test]
fn wal_with_a_broken_frame_before_its_last_commit_is_refused() {
    // In the first frame's header, in its salts, and in its page.
    for at in [32, 40, 200] {
        let (hot, file) = hot();
        flip(&beside(&file, "-wal"), at);
        let run = adopt(&hot.scene, &["--fold", file.as_str()]).expect(1);
        assert!(run.stdout.contains("is broken, and all that comes after it would be lost"), "{at}: {run:?}");
        assert!(!hot.scene.dir.join("backups").join("engram-2021-02-03T04-05-06Z.db").exists());
    }
    // What a crash has cut off is no damage: it was never committed.
    let (hot, file) = hot();
    let wal = beside(&file, "-wal");
    let cut = fs::read(&wal).unwrap();
    fs::write(&wal, &cut[..cut.len() - 100]).unwrap();
    one(adopt(&hot.scene, &["--fold", file.as_str()]));
}

/// A database whose transaction was cut short, with what it had before.
fn cut_short(scene: &Scene) -> (Utf8PathBuf, Content) {
    let db = scene.dir.join("rollback.db");
    create(&db, &SampleOptions { rows: 60, journal_mode: SampleJournal::Delete, ..SampleOptions::default() }).unwrap();
    let before = content(&db);
    let writer = Connection::open(&db).unwrap();
    // More than the cache takes is written before the commit.
    writer
        .execute_batch("PRAGMA cache_size=1; BEGIN; DELETE FROM observations; UPDATE user_prompts SET content='x'")
        .unwrap();
    let file = copy(scene, &db, "other/cut.db");
    copy(scene, &beside(&db, "-journal"), "other/cut.db-journal");
    assert_ne!(fs::read(&db).unwrap().len(), 0);
    (file, before)
}

/// Would catch a torn transaction that is taken for content.
#[test]
fn file_with_a_hot_journal_is_refused_and_rolled_back_in_a_copy() {
    let scene = small_scene();
    let (file, expected) = cut_short(&scene);
    assert_eq!(refusal(&scene, &[file.as_str()], 1), ["SIDECAR_PRESENT"]);
    let before = snapshot(&scene.dir.join("other"));
    let adopted = one(adopt(&scene, &["--fold", file.as_str()]));
    assert_eq!(snapshot(&scene.dir.join("other")), before);
    let backup = Utf8Path::new(adopted["backup"].as_str().unwrap());
    assert_eq!(content(backup), expected);
    assert_eq!(read_manifest(backup)["database"]["journal_mode"], "rollback");
}

/// No restore takes a backup with a sidecar, whatever that holds.
/// Would catch a few kilobytes that keep us reading for hours: SQLite makes the file as long as the journal says it was.
#[test]
fn journal_of_terabytes_is_not_followed() {
    let scene = small_scene();
    let (file, _content) = cut_short(&scene);
    let journal = beside(&file, "-journal");
    let mut bytes = fs::read(&journal).unwrap();
    // How many pages the database had.
    bytes[16..20].copy_from_slice(&(1_u32 << 28).to_be_bytes());
    fs::write(&journal, bytes).unwrap();
    assert_eq!(refusal(&scene, &["--fold", file.as_str()], 6), ["DEEP_CHECK_NOT_DONE"]);
}

#[test]
fn sidecar_that_holds_nothing_is_refused_too_and_no_obstacle_to_a_copy() {
    for suffix in ["-wal", "-shm", "-journal"] {
        let (scene, file) = stopped();
        fs::write(beside(&file, suffix), "").unwrap();
        assert_eq!(refusal(&scene, &[file.as_str()], 1), ["SIDECAR_PRESENT"]);
        let backup = one(adopt(&scene, &["--fold", file.as_str()]))["backup"].as_str().unwrap().to_owned();
        scene.run(&["verify", "--deep", &backup]).expect(0);
    }
    let (scene, file) = stopped();
    fs::write(beside(&file, "-wal"), [7; 9000]).unwrap();
    let run = adopt(&scene, &["--fold", file.as_str()]).expect(0);
    assert!(run.json()["warnings"].to_string().contains("holds no commit"), "{run:?}");
}

/// Would catch a bad one that keeps good ones from being adopted, or is adopted with them.
#[test]
fn damaged_one_among_several_is_refused_with_findings_and_the_good_are_adopted() {
    let (scene, good) = stopped();
    let bad = copy(&scene, &good, "other/bad.db");
    damage(&bad);
    let also_good = copy(&scene, &good, "other/good.db");
    let run = adopt(&scene, &[good.as_str(), bad.as_str(), also_good.as_str()]).expect(1);
    let json = run.json();
    let adopted: Vec<_> = json["adopted"].as_array().unwrap().iter().map(|one| one["backup"].clone()).collect();
    assert_eq!(adopted, [json!(good), json!(also_good)]);
    assert_eq!(json["refused"][0]["file"], bad.as_str());
    assert_eq!(json["refused"][0]["findings"][0]["code"], "DEEP_CHECK_FAILED", "{json}");
    assert!(json.get("error").is_none() && !manifest_of(&bad).exists());
    let text = scene.run(&["adopt", bad.as_str()]).expect(1);
    assert!(text.stdout.starts_with(&format!("refused {bad}\n  DEEP_CHECK_FAILED: ")), "{text:?}");
}

/// Would catch a copy of a damaged database, or the folder for it, that is left behind.
#[test]
fn damaged_file_leaves_nothing_in_the_archive_not_even_its_folder() {
    let (scene, file) = stopped();
    damage(&file);
    for option in ["--into-archive", "--fold"] {
        assert_eq!(refusal(&scene, &[option, file.as_str()], 1), ["DEEP_CHECK_FAILED"]);
    }
    fs::create_dir(scene.dir.join("backups")).unwrap();
    assert_eq!(refusal(&scene, &["--fold", file.as_str()], 1), ["DEEP_CHECK_FAILED"]);
    // With a sidecar, it is found only once that is folded in.
    fs::write(&file, [9; 4096]).unwrap();
    fs::write(beside(&file, "-journal"), "").unwrap();
    assert_eq!(refusal(&scene, &["--fold", file.as_str()], 1), ["DEEP_CHECK_FAILED"]);
}

#[test]
fn what_is_no_database_is_refused_with_a_finding() {
    let scene = small_scene();
    for (name, bytes) in [("empty.db", &b""[..]), ("short.db", b"SQLite format 3\0"), ("text.db", &[b'x'; 5000])] {
        let file = scene.dir.join(name);
        fs::write(&file, bytes).unwrap();
        for option in ["--into-archive", "--label=x"] {
            assert_eq!(refusal(&scene, &[option, file.as_str()], 1), ["NOT_A_DATABASE"], "{name}");
        }
    }
    let empty = scene.dir.join("empty.db");
    fs::write(beside(&empty, "-wal"), [7; 9000]).unwrap();
    assert_eq!(refusal(&scene, &["--fold", empty.as_str()], 1), ["NOT_A_DATABASE"]);
}

#[test]
fn what_is_no_file_is_an_error() {
    let (scene, file) = stopped();
    error(&scene, &["nosuch.db"], 4, "not_found");
    error(&scene, &["nosuch/x.db"], 4, "not_found");
    assert!(error(&scene, &["other"], 2, "usage").contains("a folder"));
    error(&scene, &["/dev/null"], 2, "usage");
    error(&scene, &[""], 2, "usage");
    let _socket = UnixListener::bind(scene.dir.join("socket")).unwrap();
    error(&scene, &["socket"], 2, "usage");
    rustix::fs::mkfifoat(rustix::fs::CWD, scene.dir.join("fifo").as_str(), rustix::fs::Mode::RUSR).unwrap();
    error(&scene, &["fifo"], 2, "usage");
    fs::hard_link(&file, scene.dir.join("second.db")).unwrap();
    assert!(error(&scene, &[file.as_str()], 5, "failed").contains("hard links"));
    std::os::unix::fs::symlink("dangling", scene.dir.join("link.db")).unwrap();
    error(&scene, &["link.db"], 4, "not_found");
}

/// One that fails keeps none of the others from being adopted, and the status is its own.
#[test]
fn error_of_one_file_stands_beside_what_was_done_with_the_others() {
    let (scene, file) = stopped();
    let json = adopt(&scene, &["nosuch.db", file.as_str(), "other"]).expect(4).json();
    assert_eq!((&json["adopted"][0]["backup"], &json["error"]["kind"]), (&json!(file), &json!("not_found")), "{json}");
    let kinds: Vec<_> = json["failed"].as_array().unwrap().iter().map(|failed| &failed["error"]["kind"]).collect();
    assert_eq!(kinds, ["not_found", "usage"]);
    // Damage outweighs it.
    let bad = scene.dir.join("bad.db");
    fs::write(&bad, "x").unwrap();
    adopt(&scene, &["nosuch.db", bad.as_str()]).expect(1);
}

/// SQLite finds sidecars by the real path, so that is where a manifest belongs.
#[test]
fn symlink_stands_for_the_file_it_leads_to() {
    let (scene, file) = stopped();
    std::os::unix::fs::symlink("other/copy.sqlite", scene.dir.join("link.db")).unwrap();
    let adopted = one(adopt(&scene, &["link.db"]));
    assert_eq!((&adopted["backup"], manifest_of(&file).exists()), (&json!(file), true));
    assert!(!scene.dir.join("link.db.manifest.json").exists());
}

/// Would catch a manifest for a file that a program is about to change.
#[test]
fn file_that_somebody_has_open_is_busy() {
    let scene = small_scene();
    let file = scene.dir.join("rollback.db");
    create(&file, &SampleOptions { rows: 5, journal_mode: SampleJournal::Delete, ..SampleOptions::default() }).unwrap();
    let holder = Foreign::with(&file, "SELECT count(*) FROM observations");
    for option in ["--into-archive", "--fold", "--label=x"] {
        let message = error(&scene, &[option, file.as_str()], 3, "busy");
        assert!(message.contains(&holder.pid().to_string()), "{message}");
    }
    holder.close();
    one(adopt(&scene, &[file.as_str()]));
}

#[test]
fn backup_that_is_one_already_stays_as_it_is() {
    let scene = small_scene();
    let backup = scene.backup();
    let before = everything(&scene.dir);
    let adopted = one(adopt(&scene, &[backup.as_str(), "--label", "new"]));
    assert_eq!((&adopted["already"], &adopted["label"]), (&json!(true), &Value::Null));
    assert_warned(&scene.run(&["adopt", backup.as_str()]).expect(0), "is a backup already");
    assert_eq!(everything(&scene.dir), before);

    sign_edited(&backup, |manifest| manifest["version"]["major"] = 9.into());
    assert_eq!(refusal(&scene, &[backup.as_str()], 6), ["MANIFEST_VERSION"]);
    sign_edited(&backup, |manifest| manifest["version"]["major"] = 1.into());
    flip(&backup, 700);
    assert_eq!(refusal(&scene, &[backup.as_str()], 1), ["HASH_MISMATCH"]);
    fs::write(manifest_of(&backup), "torn").unwrap();
    assert_eq!(refusal(&scene, &[backup.as_str()], 1), ["MANIFEST_DAMAGED"]);
}

/// Would catch a manifest beside the live database, which is wrong after its next commit.
#[test]
fn live_database_itself_is_no_backup_and_a_copy_of_it_is() {
    let scene = small_scene();
    assert!(error(&scene, &[scene.db.as_str()], 2, "usage").contains("the database itself"));
    // The default one too, which nobody has named.
    fs::create_dir(scene.dir.join(".engram")).unwrap();
    let default = copy(&scene, &scene.db, ".engram/engram.db");
    run(bare_command(&scene.dir).args(["adopt", default.as_str()])).expect(2);
    assert!(!manifest_of(&default).exists());
    let backup = one(adopt(&scene, &[scene.db.as_str(), "--into-archive"]))["backup"].as_str().unwrap().to_owned();
    scene.run(&["verify", "--deep", &backup]).expect(0);
    assert_eq!(Scene::names(&scene.dir), [".engram", "backups", "engram.db"]);
}

/// Names of which a restore or a backup would take the file, or the manifest, for its own.
#[test]
fn name_that_belongs_to_another_database_is_refused_in_place() {
    let (scene, file) = stopped();
    for name in ["engram.db.pre-restore", "engram.db.orphan-2026"] {
        let named = copy(&scene, &file, name);
        error(&scene, &[named.as_str()], 2, "usage");
        one(adopt(&scene, &["--into-archive", named.as_str()]));
        fs::remove_file(named).unwrap();
    }
    // The sweep before a copy would remove it.
    fs::create_dir_all(scene.dir.join("backups")).unwrap();
    for folder in ["", "backups/"] {
        let named = copy(&scene, &file, &format!("{folder}.engram-restore-aB3.partial"));
        for option in ["--into-archive", "--fold", "--label=x"] {
            error(&scene, &[option, named.as_str()], 2, "usage");
        }
    }
}

/// `adopt` needs no database, no home and no archive.
#[test]
fn without_a_database_the_file_is_its_own_source() {
    let folder = Scene::empty();
    small_database(&folder.dir.join("lone.db"));
    let mut command = bare_command(&folder.dir);
    let run = run(command.env_remove("HOME").args(["adopt", "lone.db", "--json"]));
    assert!(run.json()["warnings"][0].as_str().unwrap().contains("--db"), "{run:?}");
    let adopted = one(run);
    assert_eq!(adopted["source"], folder.dir.join("lone.db").as_str());
    assert_eq!(Scene::names(&folder.dir), ["lone.db", "lone.db.manifest.json"]);
}

#[test]
fn dry_run_checks_and_changes_nothing() {
    let (hot, file) = hot();
    let scene = &hot.scene;
    let alone = copy(scene, &hot.backup, "other/alone.db");
    let before = everything(&scene.dir);
    let json = adopt(scene, &["--dry-run", alone.as_str()]).expect(0).json();
    assert_eq!((&json["plan"][0]["backup"], &json["adopted"]), (&json!(alone), &json!([])), "{json}");
    let json = adopt(scene, &["--dry-run", "--fold", file.as_str()]).expect(0).json();
    assert_eq!(json["plan"][0]["folds"], json!([beside(&file, "-wal")]), "{json}");
    let text = scene.run(&["adopt", "--dry-run", alone.as_str(), "--quiet"]).expect(0).stdout;
    assert!(text.starts_with(&format!("would adopt {alone}\n")) && text.ends_with("nothing was changed\n"), "{text}");
    assert_eq!(everything(&scene.dir), before);
    flip(&alone, 4096);
    refusal(scene, &["--dry-run", alone.as_str()], 1);
}

/// Would catch a name that ends a line of the answer, or a manifest that cannot say it.
#[test]
fn odd_names_are_adopted_and_shown_on_one_line() {
    let (scene, file) = stopped();
    for name in ["new\nline.db", "quote\"'.db", "-dash.db", "emoji \u{1f980}.db"] {
        let odd = copy(&scene, &file, name);
        let run = scene.run(&["adopt", odd.as_str()]).expect(0);
        assert!(run.stdout.lines().count() == 3 && run.stdout.starts_with("adopted "), "{run:?}");
        scene.run(&["verify", odd.as_str()]).expect(0);
    }
}

/// Two adoptions at one time in the archive get two names.
#[test]
fn taken_name_gets_a_number() {
    let (scene, file) = stopped();
    let arguments = ["--into-archive", file.as_str(), "--at", "2021-02-03T04:05:06Z"];
    one(adopt(&scene, &arguments));
    let second = one(adopt(&scene, &arguments));
    assert!(second["backup"].as_str().unwrap().ends_with("engram-2021-02-03T04-05-06Z-2.db"), "{second}");
    assert_eq!(number(Utf8Path::new(second["backup"].as_str().unwrap()), "SELECT count(*) FROM t"), 1);
}

/// A killed run leaves a temporary file at most, and the next one removes it.
#[test]
fn killed_adoption_is_no_backup_and_the_next_one_works() {
    let (scene, file) = stopped();
    scene.kill_before(&["adopt", "other/copy.sqlite"], "rename");
    assert!(!manifest_of(&file).exists());
    one(adopt(&scene, &[file.as_str()]));
    assert_eq!(Scene::names(&scene.dir.join("other")), ["copy.sqlite", "copy.sqlite.manifest.json"]);
    // The folder is made last, so a copy that is not finished lies where that is to be.
    fs::remove_file(manifest_of(&file)).unwrap();
    scene.kill_before(&["adopt", "--fold", "other/copy.sqlite"], "sync");
    assert!(Scene::names(&scene.dir).iter().any(|name| name.ends_with(".partial")));
    scene.backup();
    one(adopt(&scene, &["--fold", file.as_str()]));
    assert_eq!(Scene::names(&scene.dir), ["backups", "engram.db", "other"]);
}
