//! `backup` and whoever uses the database meanwhile: limits that make it give up, and what it says of the WAL.

use std::fs;

use crate::craft::{archive, everything, refused, small_scene};
use crate::processes::Foreign;
use crate::support::{ForeignWriter, Run, Scene};

/// It was given up for this reason, and nothing of it is left.
#[track_caller]
fn given_up(scene: &Scene, run: Run, option: &str) {
    let error = refused(run, 5, "failed");
    assert!(error["message"].as_str().unwrap().contains(option), "{error}");
    assert_eq!(Scene::names(&archive(scene)), [""; 0]);
}

#[test]
fn copy_that_takes_too_long_is_given_up_and_leaves_nothing() {
    for engine in ["snapshot", "online", "vacuum"] {
        let scene = Scene::with_rows(2000);
        let names = Scene::names(&scene.dir);
        let run = scene.run(&["backup", "--json", "--engine", engine, "--max-time", "1us"]);
        given_up(&scene, run, "--max-time");
        fs::remove_dir(archive(&scene)).unwrap();
        assert_eq!(Scene::names(&scene.dir), names, "{engine}: beside the database nothing is left either");
    }
}

/// At 64 KiB a second it would take minutes.
#[test]
fn copy_that_is_held_to_a_rate_is_still_in_time_to_give_up() {
    for engine in ["snapshot", "online"] {
        let scene = Scene::with_rows(2000);
        assert!(fs::metadata(&scene.db).unwrap().len() > 1 << 20);
        let arguments = ["backup", "--json", "--engine", engine, "--max-rate", "64KiB", "--max-time", "200ms"];
        given_up(&scene, scene.run(&arguments), "--max-time");
    }
}

#[test]
fn wal_that_grows_too_much_ends_the_copy() {
    for engine in ["snapshot", "online"] {
        let scene = Scene::with_rows(2000);
        let _writer = ForeignWriter::start(&scene.db, 1000);
        let arguments = ["backup", "--json", "--engine", engine, "--max-rate", "64KiB", "--max-wal", "5MB"];
        given_up(&scene, scene.run(&arguments), "--max-wal");
    }
}

#[test]
fn limits_that_are_not_reached_change_nothing() {
    for engine in ["snapshot", "online"] {
        let scene = small_scene();
        let limits = ["--max-rate", "1GB", "--max-wal", "1GB", "--max-time", "1h"];
        let json = scene.run(&[&["backup", "--json", "--engine", engine], &limits[..]].concat()).expect(0).json();
        scene.run(&["verify", "--deep", json["backup"].as_str().unwrap()]).expect(0);
    }
}

#[test]
fn limits_that_make_no_sense_are_refused_before_anything_is_made() {
    let scene = small_scene();
    let before = everything(&scene.dir);
    for limit in [
        &["--max-rate", "0"][..],
        &["--max-rate", "fast"],
        &["--max-rate=-1MB"],
        &["--max-wal", "0"],
        &["--max-wal", "small"],
        &["--max-time", "soon"],
        &["--max-time=-1s"],
        &["--max-rate", "1MB", "--engine", "vacuum"],
    ] {
        let run = scene.run(&[&["backup", "--json"], limit].concat());
        assert_eq!(run.status, Some(2), "{limit:?}: {run:?}");
        assert!(everything(&scene.dir) == before, "{limit:?}: something was made");
    }
}

#[test]
fn report_says_which_engine_and_why_and_what_became_of_the_wal() {
    let scene = small_scene();
    let sql = "PRAGMA wal_autocheckpoint=0; CREATE TABLE extra(x); INSERT INTO extra VALUES (zeroblob(100000))";
    let _holder = Foreign::with(&scene.db, sql);
    let wal_bytes = fs::metadata(format!("{}-wal", scene.db)).unwrap().len();
    assert!(wal_bytes > 100_000);
    for (engine, used, why) in
        [("auto", "snapshot", "local"), ("snapshot", "snapshot", "asked for"), ("online", "online", "asked for")]
    {
        let json = scene.run(&["backup", "--json", "--engine", engine]).expect(0).json();
        assert_eq!(json["engine"], used);
        assert!(json["engine_reason"].as_str().unwrap().contains(why), "{json}");
        assert_eq!((&json["wal_bytes_before"], &json["wal_bytes_after"]), (&wal_bytes.into(), &wal_bytes.into()));
        let shown = scene.run(&["show", "latest", "--json"]).expect(0).json();
        assert_eq!(shown["manifest"]["engine"], used);
    }
}
