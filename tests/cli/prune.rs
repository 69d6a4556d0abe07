//! `prune`: what each option keeps, what no option removes, and what is removed after a backup.

mod answers;

use std::fs;

use camino::{Utf8Path, Utf8PathBuf};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::content::with_suffix;
use crate::craft::{
    archive, beside, everything, flip, one_backup, refused, run_on, sign_edited, small_database, small_scene,
};
use crate::restore::COMMIT;
use crate::support::Scene;

const HOUR: i64 = 60 * 60;
const DAY: i64 = 24 * HOUR;

/// A backup that claims to have been taken so many seconds ago.
#[track_caller]
fn backup_aged(scene: &Scene, seconds: i64) -> Utf8PathBuf {
    let backup = scene.backup();
    let then = Timestamp::now() - SignedDuration::from_secs(seconds);
    sign_edited(&backup, |manifest| manifest["created_at"] = then.to_string().into());
    backup
}

/// A scene with backups of these ages in days, and their names.
fn aged(days: &[i64]) -> (Scene, Vec<String>) {
    let scene = small_scene();
    let names = days.iter().map(|days| name(&backup_aged(&scene, days * DAY))).collect();
    (scene, names)
}

fn name(path: &Utf8Path) -> String {
    path.file_name().unwrap().to_owned()
}

/// The names in an array of paths.
fn names(json: &Value) -> Vec<String> {
    let mut names: Vec<_> = json.as_array().unwrap().iter().map(|path| name(path.as_str().unwrap().into())).collect();
    names.sort();
    names
}

/// The files in the archive that are backups.
fn there(scene: &Scene) -> Vec<String> {
    Scene::names(&archive(scene)).into_iter().filter(|name| Utf8Path::new(name).extension() == Some("db")).collect()
}

fn sorted(names: &[&String]) -> Vec<String> {
    let mut names: Vec<_> = names.iter().map(|name| (*name).clone()).collect();
    names.sort();
    names
}

#[track_caller]
fn prune(scene: &Scene, options: &[&str]) -> Value {
    scene.run(&[&["prune", "--json"], options].concat()).expect(0).json()
}

/// The reasons of a backup, by their codes.
fn codes(json: &Value, backup: &str) -> Vec<String> {
    let of = |entry: &&Value| entry["backup"].as_str().unwrap().ends_with(backup);
    let entry = json["backups"].as_array().unwrap().iter().find(of).unwrap_or_else(|| panic!("{backup}: {json}"));
    entry["reasons"].as_array().unwrap().iter().map(|reason| reason["code"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn each_rule_removes_what_it_does_not_keep() {
    for (options, kept) in [
        (&["--keep-last", "2"][..], &[0, 1][..]),
        (&["--keep-days", "2"], &[0, 1, 2]),
        (&["--keep-daily", "3"], &[0, 1, 2]),
        (&["--keep-weekly", "1"], &[0]),
        (&["--keep-monthly", "1"], &[0]),
        (&["--keep-last", "1", "--min-keep", "3"], &[0, 1, 2]),
        (&["--keep-last", "1", "--keep-daily", "2"], &[0, 1]),
    ] {
        let (scene, all) = aged(&[0, 1, 2, 40]);
        let json = prune(&scene, options);
        let kept: Vec<_> = kept.iter().map(|at: &usize| &all[*at]).collect();
        assert_eq!(there(&scene), sorted(&kept), "{options:?}: {json}");
        assert_eq!((names(&json["kept"]), json["removed"].as_array().unwrap().len()), (sorted(&kept), 4 - kept.len()));
        assert!(json["freed_bytes"].as_u64().unwrap() > 0);
        // Nothing is left of the others.
        assert_eq!(Scene::names(&archive(&scene)).len(), 2 * kept.len(), "{:?}", Scene::names(&archive(&scene)));
    }
}

/// Would catch a plan that is not what is carried out, and one that changes something.
#[test]
fn dry_run_says_of_each_backup_why_and_changes_nothing() {
    let (scene, all) = aged(&[0, 1, 2]);
    let before = everything(&scene.dir);
    let planned = prune(&scene, &["--keep-last", "2", "--dry-run"]);
    let run = scene.run(&["prune", "--keep-last", "2", "--dry-run", "--quiet"]).expect(0);
    assert_eq!(everything(&scene.dir), before);
    assert_eq!(codes(&planned, &all[0]), ["keep-last", "newest-good"]);
    assert_eq!(codes(&planned, &all[1]), ["keep-last"]);
    assert!(codes(&planned, &all[2]).is_empty());
    let rows: Vec<Vec<_>> = run.stdout.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!(
        (rows[0][0], rows[0][3], rows[0][4]),
        (all[0].as_str(), "keep", "one of the last 2; the newest that verifies")
    );
    assert_eq!(
        (rows[2][0], rows[2][1], rows[2][3], rows[2][4]),
        (all[2].as_str(), "2 d", "remove", "no rule keeps it")
    );
    let done = prune(&scene, &["--keep-last", "2"]);
    assert_eq!((&planned["removed"], &planned["kept"]), (&done["removed"], &done["kept"]));
}

#[test]
fn without_a_rule_nothing_goes_and_that_is_said() {
    let (scene, _all) = aged(&[0, 400]);
    let before = everything(&scene.dir);
    for options in [&[][..], &["--keep-label", "x"], &["--min-keep", "1"]] {
        let run = scene.run(&[&["prune"], options].concat()).expect(0);
        assert!(run.stdout.contains("no backup is removed: there is no keep rule"), "{run:?}");
        assert_eq!(prune(&scene, options)["has_rule"], false);
    }
    assert_eq!(everything(&scene.dir), before);
}

#[test]
fn labels_add_to_the_rules() {
    let (scene, all) = aged(&[0, 1, 2, 3]);
    for (at, label) in [(1, "before-upgrade"), (2, "release")] {
        sign_edited(&archive(&scene).join(&all[at]), |manifest| manifest["label"] = label.into());
    }
    prune(&scene, &["--keep-last", "1", "--keep-label", "release", "--keep-label", "before-upgrade"]);
    assert_eq!(there(&scene), sorted(&[&all[0], &all[1], &all[2]]));
    prune(&scene, &["--keep-last", "1", "--keep-label", "release"]);
    assert_eq!(there(&scene), sorted(&[&all[0], &all[2]]));
}

#[test]
fn numbers_that_make_no_sense_are_refused() {
    let (scene, _all) = aged(&[0, 1]);
    let before = everything(&scene.dir);
    for option in ["--keep-last", "--keep-days", "--keep-daily", "--keep-weekly", "--keep-monthly", "--min-keep"] {
        for number in ["0", "-1", "4294967296", "99999999999999999999", "1.5", "x", ""] {
            let run = scene.run(&["prune", &format!("{option}={number}"), "--json"]).expect(2);
            assert!(run.stdout.contains("it must be a whole number from 1 to 4294967295"), "{run:?}");
        }
        // The newest of each week that ever was, and so on.
        assert!(!names(&prune(&scene, &[option, "4294967295", "--dry-run"])["kept"]).is_empty(), "{option}");
    }
    assert_eq!(everything(&scene.dir), before);
}

#[test]
fn archive_that_is_not_there_or_cannot_be_read_is_an_error() {
    let scene = small_scene();
    refused(scene.run(&["prune", "--keep-last", "1", "--json"]), 4, "not_found");
    assert!(!archive(&scene).exists());
    fs::write(archive(&scene), "x").unwrap();
    refused(scene.run(&["prune", "--keep-last", "1", "--json"]), 4, "not_found");
}

/// Would catch a prune that relies on a newest backup which nobody has looked at.
#[test]
fn newest_backup_that_verifies_stays_and_what_was_passed_over_is_said() {
    let (scene, all) = aged(&[0, 1, 2, 3]);
    for damaged in [0, 1] {
        flip(&archive(&scene).join(&all[damaged]), 700);
    }
    let json = prune(&scene, &["--keep-last", "1"]);
    assert_eq!(there(&scene), sorted(&[&all[0], &all[2]]));
    assert_eq!(codes(&json, &all[2]), ["keep-last", "newest-good"]);
    assert!(json["warnings"][0].as_str().unwrap().contains(&all[0]), "{json}");
    // And where it is gone from the disk.
    fs::remove_file(archive(&scene).join(&all[2])).unwrap();
    let json = scene.run(&["prune", "--keep-last", "1", "--json"]).expect(1).json();
    assert_eq!(json["error"]["kind"], "damaged", "{json}");
    assert!(json["removed"].as_array().unwrap().is_empty(), "{json}");
    assert_eq!(codes(&json, &all[2]), ["none-good"]);
}

/// Would catch good backups that the backups of a database which is damaged by now push out.
#[test]
fn backups_that_tell_of_damage_take_no_place() {
    let (scene, all) = aged(&[0, 1, 2, 3]);
    for damaged in [0, 1] {
        sign_edited(&archive(&scene).join(&all[damaged]), |manifest| {
            manifest["integrity_check"]["rows"] = vec!["row 1 missing from index i"].into();
        });
    }
    prune(&scene, &["--keep-last", "1"]);
    assert_eq!(there(&scene), sorted(&[&all[0], &all[2]]));
}

#[test]
fn backups_of_other_databases_are_judged_by_themselves() {
    let scene = small_scene();
    let other = scene.dir.join("other.db");
    small_database(&other);
    let backups = archive(&scene);
    let of_other = ["backup", "--archive", backups.as_str(), "--json"];
    let mine = [backup_aged(&scene, 0), backup_aged(&scene, DAY)];
    for days in [0, 1] {
        let json = run_on(&scene, other.as_str(), &of_other).expect(0).json();
        let then = Timestamp::now() - SignedDuration::from_hours(24 * days + 12);
        sign_edited(json["backup"].as_str().unwrap().into(), |manifest| {
            manifest["created_at"] = then.to_string().into();
        });
    }
    assert_eq!(names(&prune(&scene, &["--keep-last", "1"])["removed"]), [name(&mine[1])]);
    let json = prune(&scene, &["--keep-last", "1", "--any-source"]);
    assert_eq!((names(&json["removed"]).len(), names(&json["kept"]).len()), (1, 2));
    assert!(names(&json["kept"]).contains(&name(&mine[0])));
}

/// Would catch a prune of one `engram.db` that removes the backups of another one in the same archive: while that is there, and
/// all the more when it is lost.
#[test]
fn backups_of_another_database_by_the_same_name_stay() {
    let (scene, all) = aged(&[0, 1]);
    let elsewhere = scene.dir.join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let (archive_of_both, other) = (archive(&scene), elsewhere.join("engram.db"));
    let options = ["--archive", archive_of_both.as_str(), "prune", "--keep-last", "1", "--json"];
    for is_there in [true, false] {
        let json = run_on(&scene, other.as_str(), &options).expect(0).json();
        assert_eq!(codes(&json, &all[1]), ["in-use"], "{is_there}");
        assert_eq!(there(&scene).len(), 2);
        if is_there {
            fs::rename(&scene.db, &other).unwrap();
        }
    }
    run_on(&scene, other.as_str(), &["--archive", archive_of_both.as_str(), "backup"]).expect(0);
    let json = run_on(&scene, other.as_str(), &options).expect(0).json();
    assert_eq!(names(&json["removed"]), [""; 0]);
    // Each database is judged by itself.
    let json = run_on(&scene, other.as_str(), &[&options[..], &["--any-source"]].concat()).expect(0).json();
    assert_eq!((names(&json["removed"]), there(&scene).len()), (vec![all[1].clone()], 2));
}

/// Would catch damage that prune itself has found, and that takes the places of what is good.
#[test]
fn damage_that_prune_finds_takes_no_place() {
    let (scene, all) = aged(&[0, 1, 2, 3, 4]);
    for damaged in &all[..2] {
        flip(&archive(&scene).join(damaged), 700);
    }
    let json = prune(&scene, &["--keep-last", "2"]);
    assert_eq!(names(&json["removed"]), [all[4].clone()], "{json}");
}

#[test]
fn what_is_no_backup_is_reported_and_stays() {
    let (scene, all) = aged(&[0, 1, 2]);
    let torn = archive(&scene).join(&all[1]);
    fs::write(beside(&torn, ".manifest.json"), "{").unwrap();
    fs::write(archive(&scene).join("stray.db"), "x").unwrap();
    let json = prune(&scene, &["--keep-last", "1"]);
    assert_eq!(names(&json["removed"]), [all[2].clone()]);
    assert_eq!(names(&json["unreadable"]), [all[1].clone()]);
    assert!(torn.exists() && archive(&scene).join("stray.db").exists());
    assert_eq!(names(&json["orphans"]), ["stray.db"]);
    assert!(json["warnings"].to_string().contains("stray.db has no manifest"), "{json}");
}

/// Would catch a clock that was set back, or ran ahead for one backup, and what a prune then removes.
#[test]
fn wrong_clock_removes_nothing_that_the_right_one_keeps() {
    // One taken by a clock that was a year ahead: it stays, and takes no place.
    let (scene, all) = aged(&[-365, 0, 1, 2]);
    let json = prune(&scene, &["--keep-last", "2"]);
    assert_eq!(there(&scene), sorted(&[&all[0], &all[1], &all[2]]));
    assert_eq!(codes(&json, &all[0]), ["future"]);
    // Under a clock before all of them.
    let (scene, all) = aged(&[-3, -2, -1]);
    let json = prune(&scene, &["--keep-last", "1"]);
    assert_eq!((there(&scene).len(), codes(&json, &all[2])), (3, vec!["future".to_owned()]));
    // Long after the last backup, and under a clock that ran ahead as the last one was taken.
    for ages in [&[900, 901, 902][..], &[0, 900, 901]] {
        let (scene, _all) = aged(ages);
        assert!(names(&prune(&scene, &["--keep-days", "7"])["removed"]).is_empty(), "{ages:?}");
    }
}

/// The records beside the database, as a restore in place and a guard leave them.
#[test]
fn what_an_undo_or_a_guard_needs_stays() {
    let (scene, all) = aged(&[1, 2]);
    let backup = archive(&scene).join(&all[1]);
    let json = scene.run(&["restore", "--in-place", backup.as_str(), "--json"]).expect(0).json();
    let pre_restore = name(json["pre_restore"].as_str().unwrap().into());
    let newest = name(&scene.backup());
    let json = prune(&scene, &["--keep-last", "1"]);
    assert_eq!(codes(&json, &pre_restore), ["in-use"]);
    assert_eq!(there(&scene), sorted(&[&newest, &pre_restore]));
    scene.run(&["undo", "--in-place"]).expect(0);

    crate::craft::add_row(&scene.db);
    // From within a guarded command: its backup is not the newest any more.
    let binary = assert_cmd::cargo::cargo_bin!("engram-restore").display().to_string();
    let script = format!("{binary} --db {0} backup --quiet && {binary} --db {0} prune --keep-last 1 --json", scene.db);
    let run = scene.run(&["guard", "--", "sh", "-c", &script]).expect(0);
    let json: Value = serde_json::from_str(&run.stdout).unwrap();
    let reasons: Vec<_> =
        json["backups"].as_array().unwrap().iter().map(|entry| entry["reasons"].to_string()).collect();
    assert!(reasons.iter().any(|reasons| reasons.contains("guarded command")), "{json}");
}

#[test]
fn nothing_goes_while_a_restore_is_under_way() {
    let (scene, all) = aged(&[0, 1]);
    let lock = fs::File::create(with_suffix(&scene.db, ".restore-lock")).unwrap();
    fs2::FileExt::lock_exclusive(&lock).unwrap();
    let json = prune(&scene, &["--keep-last", "1"]);
    assert_eq!((codes(&json, &all[1]), there(&scene).len()), (vec!["in-use".to_owned()], 2));
    drop(lock);
    prune(&scene, &["--keep-last", "1"]);
    assert_eq!(there(&scene), [all[0].clone()]);
}

/// Would catch a crash that leaves a backup which is there by half, or a file that no later run removes.
#[test]
fn interrupted_prune_is_gone_on_with() {
    for (kill, before_rerun) in [("rename", 3), ("remove", 2)] {
        let (scene, all) = aged(&[0, 1, 2]);
        // By any path of the database: it is counted in a copy of the folder.
        scene.kill_after(&["prune", "--keep-last", "2", "--any-source"], kill);
        let left = scene.run(&["list", "--json"]).expect(0).json();
        assert_eq!(left["backups"].as_array().unwrap().len(), 2, "{left}");
        assert!(left["orphans"].as_array().unwrap().is_empty(), "{left}");
        assert_eq!(there(&scene).len(), before_rerun, "{kill}");
        scene.run(&["verify", "--all"]).expect(0);
        // Without a rule nothing goes, not even that.
        prune(&scene, &[]);
        assert_eq!(there(&scene).len(), before_rerun);
        let json = prune(&scene, &["--keep-last", "1"]);
        assert_eq!(names(&json["finished"]), [all[2].clone()], "{json}");
        assert_eq!(names(&json["removed"]), [all[1].clone()], "{json}");
        let mut left = Scene::names(&archive(&scene));
        left.retain(|name| name != ".state");
        assert_eq!(left, sorted(&[&all[0], &format!("{}.manifest.json", all[0])]));
    }
}

/// Would catch somebody's own file that goes because it has the name of one whose removal was interrupted.
#[test]
fn another_file_by_the_name_of_a_half_removed_one_stays() {
    let (scene, all) = aged(&[0, 1]);
    scene.kill_after(&["prune", "--keep-last", "1", "--any-source"], "rename");
    let name = archive(&scene).join(&all[1]);
    fs::remove_file(&name).unwrap();
    fs::write(&name, "precious").unwrap();
    let refused = scene.run(&["adopt", name.as_str(), "--json"]).expect(3).json();
    assert!(refused["error"]["message"].as_str().unwrap().contains("a prune has begun to remove it"), "{refused}");
    let json = prune(&scene, &["--keep-last", "1"]);
    assert_eq!((names(&json["finished"]).len(), fs::read_to_string(&name).unwrap().as_str()), (0, "precious"));
    assert!(json["warnings"].to_string().contains("is not the backup"), "{json}");
    assert!(!beside(&name, ".pruned").exists());
}

/// Would catch a file of somebody else that goes because a prune of that name was interrupted.
#[test]
fn backup_that_came_back_is_left_to_its_manifest() {
    let (scene, backup) = one_backup();
    fs::copy(beside(&backup, ".manifest.json"), beside(&backup, ".pruned")).unwrap();
    prune(&scene, &["--keep-last", "1"]);
    assert_eq!(Scene::names(&archive(&scene)), [name(&backup), format!("{}.manifest.json", name(&backup))]);
    scene.run(&["verify"]).expect(0);
    // And nobody takes a name whose removal is not over.
    let taken = archive(&scene).join("x.db");
    fs::write(beside(&taken, ".pruned"), "").unwrap();
    scene.run(&["backup", "--path", taken.as_str()]).expect(5);
}

fn configure(scene: &Scene, text: &str) {
    fs::write(scene.dir.join("engram-restore.toml"), text).unwrap();
}

#[test]
fn configured_policy_is_carried_out_after_a_backup_and_said() {
    let (scene, all) = aged(&[1, 2]);
    let json = scene.run(&["backup", "--json"]).expect(0).json();
    assert_eq!((json["pruned"].is_null(), there(&scene).len()), (true, 3), "without a rule nothing goes");
    configure(&scene, "[retention]\nkeep_last = 2\n");
    let json = scene.run(&["backup", "--json", "--no-prune"]).expect(0).json();
    assert_eq!((json["pruned"].is_null(), there(&scene).len()), (true, 4));
    let elsewhere = scene.dir.join("x.db");
    scene.run(&["backup", "--path", elsewhere.as_str()]).expect(0);
    assert_eq!(there(&scene).len(), 4, "the archive is not meant");
    let json = scene.run(&["backup", "--json"]).expect(0).json();
    assert_eq!(names(&json["pruned"]["removed"]).len(), 3, "{json}");
    assert!(names(&json["pruned"]["removed"]).contains(&all[0]));
    assert_eq!(names(&json["pruned"]["kept"]), there(&scene));
    assert!(there(&scene).contains(&name(json["backup"].as_str().unwrap().into())));
    let run = scene.run(&["backup"]).expect(0);
    assert!(run.stdout.contains("\n  pruned "), "{run:?}");
    // An option goes before the file, for its rule.
    assert_eq!(names(&prune(&scene, &["--keep-last", "1"])["kept"]).len(), 1);
    // A database that is damaged is no moment to remove anything.
    backup_aged(&scene, DAY);
    backup_aged(&scene, DAY);
    crate::craft::damage_index(&scene.db);
    let before = there(&scene).len();
    scene.run(&["backup"]).expect(1);
    assert_eq!(there(&scene).len(), before + 1);
}

#[test]
fn prune_that_fails_after_a_backup_is_a_warning() {
    let (scene, all) = aged(&[1]);
    configure(&scene, "[retention]\nkeep_last = 1\n");
    let blocked = archive(&scene).join(&all[0]);
    fs::create_dir(beside(&blocked, ".pruned")).unwrap();
    let json = scene.run(&["backup", "--json"]).expect(0).json();
    assert!(json["warnings"][0].as_str().unwrap().starts_with("old backups were not removed"), "{json}");
    assert!(blocked.exists() && beside(&blocked, ".manifest.json").exists());
}

#[test]
fn retention_of_the_dream_cycle_is_obeyed_after_a_guard() {
    let (scene, all) = aged(&[1, 9]);
    configure(&scene, "[dream]\npre_cycle_backup = true\nbackup_retention_days = 7\n");
    crate::craft::add_row(&scene.db);
    scene.run(&["guard", "--no-prune", "--", "true"]).expect(0);
    assert_eq!(there(&scene).len(), 3);
    crate::craft::add_row(&scene.db);
    scene.run(&["guard", "--", "false"]).expect(1);
    assert_eq!(there(&scene).len(), 4, "what broke something may yet have to be taken back");
    crate::craft::add_row(&scene.db);
    let json = scene.run(&["guard", "--json", "--", "true"]).expect(0).json();
    assert_eq!(names(&json["pruned"]["removed"]), [all[1].clone()], "{json}");

    configure(&scene, "[dream]\npre_cycle_backup = false\n");
    crate::craft::add_row(&scene.db);
    let before = there(&scene);
    let run = scene.run(&["guard", "--", "sh", "-c", "echo ran; exit 7"]).expect(7);
    assert!(run.stdout == "ran\n" && run.stderr.contains("no backup is taken before the command"), "{run:?}");
    assert_eq!(there(&scene), before);
    let json = scene.run(&["guard", "--json", "--on-failure", "restore", "--", "true"]).expect(0).json();
    assert!(json["backup"].is_string(), "nothing could be restored without one: {json}");
}

/// An old database beside the live one, that was kept so many seconds ago, with its note and a WAL.
fn kept_aged(scene: &Scene, seconds: i64) -> Utf8PathBuf {
    let at = (Timestamp::now() - SignedDuration::from_secs(seconds)).to_zoned(jiff::tz::TimeZone::UTC);
    let path = with_suffix(&scene.db, &format!(".pre-restore.{}", at.strftime("%Y-%m-%dT%H-%M-%SZ")));
    for suffix in ["", "-wal", ".json"] {
        fs::write(beside(&path, suffix), "x").unwrap();
    }
    path
}

#[test]
fn old_databases_of_restores_go_when_they_are_many_and_old() {
    let (scene, _all) = aged(&[0]);
    let kept = with_suffix(&scene.db, ".pre-restore");
    fs::write(&kept, "x").unwrap();
    let [young, old, older] = [2 * HOUR, 3 * DAY, 4 * DAY].map(|seconds| kept_aged(&scene, seconds));
    let planned = prune(&scene, &["--dry-run"]);
    assert_eq!(names(&planned["pre_restore"]["removed"]), names(&serde_json::json!([old, older])));
    assert!(older.exists());
    prune(&scene, &[]);
    assert!(kept.exists() && young.exists() && beside(&young, "-wal").exists());
    for path in [&old, &older] {
        for suffix in ["", "-wal", ".json"] {
            assert!(!beside(path, suffix).exists(), "{path}{suffix}");
        }
    }
    // As configured, and after a restore that was done.
    let [old, older] = [3 * DAY, 4 * DAY].map(|seconds| kept_aged(&scene, seconds));
    configure(&scene, "[pre_restore]\nkeep = 3\nmin_age = \"1h\"\n");
    let json = scene.run(&["restore", "latest", "--json"]).expect(0).json();
    // The replaced one, the one before, and the young one are the newest three.
    assert!(young.exists() && !old.exists() && !older.exists(), "{:?}", Scene::names(&scene.dir));
    assert_eq!(names(&json["pruned_pre_restore"]), names(&serde_json::json!([old, older])));
    scene.run(&["undo"]).expect(0);
}

/// Would catch a removal whose files a recovery still has to move.
#[test]
fn old_databases_stay_while_a_restore_is_under_way_or_was_interrupted() {
    let (scene, _all) = aged(&[0]);
    let old = [3 * DAY, 4 * DAY, 5 * DAY].map(|seconds| kept_aged(&scene, seconds));
    let lock = fs::File::create(with_suffix(&scene.db, ".restore-lock")).unwrap();
    fs2::FileExt::lock_exclusive(&lock).unwrap();
    let json = prune(&scene, &["--wait", "0"]);
    assert!(json["warnings"][0].as_str().unwrap().contains("old databases of restores are left as they are"), "{json}");
    drop(lock);
    // One that nobody can explain.
    let odd = with_suffix(&scene.db, ".pre-restore.new");
    fs::write(&odd, "x").unwrap();
    let json = prune(&scene, &[]);
    assert!(json["warnings"].to_string().contains("an interrupted restore is left as it is"), "{json}");
    assert!(old.iter().all(|path| path.exists()));
    fs::remove_file(&odd).unwrap();
    scene.kill_after(&["restore", "latest"], "rename");
    let before = everything(&scene.dir);
    let planned = prune(&scene, &["--dry-run"]);
    assert!(planned["warnings"].to_string().contains("old databases of restores are left as they are"), "{planned}");
    assert_eq!(everything(&scene.dir), before);
    let json = prune(&scene, &[]);
    assert!(json["warnings"].to_string().contains("interrupted restore was undone"), "{json}");
    assert!(old[0].exists() && !old[2].exists());
}

/// Would catch a prune that removes the very backup which it has just told somebody to go back to.
#[test]
fn prune_recovers_first_and_what_the_records_named_stays() {
    for outcome in ["undone", "finished"] {
        let (scene, all) = aged(&[0, 1, 2]);
        let restore = ["restore", &all[2]];
        if outcome == "undone" {
            scene.kill_before(&restore, COMMIT);
        } else {
            scene.kill_after(&restore, COMMIT);
        }
        let before = everything(&scene.dir);
        let planned = prune(&scene, &["--keep-last", "1", "--dry-run"]);
        assert!(planned["warnings"].to_string().contains("interrupted"), "{planned}");
        assert_eq!(everything(&scene.dir), before, "{outcome}");
        let json = prune(&scene, &["--keep-last", "1"]);
        let words = format!("interrupted restore was {outcome}");
        assert!(json["warnings"].to_string().contains(&words), "{json}");
        assert_eq!(codes(&json, &all[2]), ["in-use"]);
        assert_eq!(there(&scene), sorted(&[&all[0], &all[2]]));
        assert_eq!(scene.run(&["recover", "--json"]).expect(0).json()["outcome"], "nothing");
        assert_eq!(names(&prune(&scene, &["--keep-last", "1"])["removed"]), [all[2].clone()]);
    }
}

/// The same of the policy after a backup or a guard, which recover before the prune begins.
#[test]
fn what_the_records_named_stays_after_the_next_backup_and_guard() {
    for arguments in [&["backup"][..], &["guard", "--", "true"]] {
        let (scene, all) = aged(&[0, 1, 2]);
        configure(&scene, "[retention]\nkeep_last = 1\n");
        // So that the guard takes a backup of its own.
        crate::craft::add_row(&scene.db);
        scene.kill_before(&["restore", &all[2]], COMMIT);
        let run = scene.run(arguments).expect(0);
        assert!(run.stderr.contains("interrupted restore was undone"), "{run:?}");
        let there = there(&scene);
        assert!(there.len() == 2 && there.contains(&all[2]), "{arguments:?}: {there:?}");
        scene.run(&["backup"]).expect(0);
        assert!(!archive(&scene).join(&all[2]).exists(), "once, not for ever");
    }
}

/// Would catch a prune that takes somebody's own file for one that it has begun to remove.
#[test]
fn what_looks_like_ours_and_is_not_stays() {
    let (scene, all) = aged(&[0, 1, 2]);
    for (name, content) in [("notes", "x"), ("notes.pruned", "mine"), ("x.db", "x"), ("x.db.pruned", "")] {
        fs::write(archive(&scene).join(name), content).unwrap();
    }
    // A folder under a backup's name cannot be removed, and must not keep the others from it.
    let folder = archive(&scene).join(&all[2]);
    fs::remove_file(&folder).unwrap();
    fs::create_dir(&folder).unwrap();
    let json = prune(&scene, &["--keep-last", "1"]);
    assert_eq!((names(&json["removed"]), codes(&json, &all[2])), (vec![all[1].clone()], vec!["in-use".to_owned()]));
    for name in ["notes", "notes.pruned", "x.db", "x.db.pruned", &all[2]] {
        assert!(archive(&scene).join(name).exists(), "{name}");
    }
    let listed = scene.run(&["list", "--json"]).expect(0).json();
    assert_eq!(names(&listed["orphans"]), ["x.db"]);
}
