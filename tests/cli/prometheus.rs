//! `status --prometheus`: metrics for the textfile collector of `node_exporter`.

use std::fs;

use serde_json::json;

use crate::content::snapshot;
use crate::craft::{mode, small_database, small_scene};
use crate::restore::bad_backup::edit;
use crate::restore::text;
use crate::support::{Scene, bare_command};

/// A sample of the text format: name, labels, value.
type Sample = (String, Vec<(String, String)>, f64);

/// Reads the text format strictly: every sample after the HELP and TYPE of its own name, no name twice.
#[track_caller]
fn samples(text: &str) -> Vec<Sample> {
    assert!(text.ends_with('\n'), "the last line must end");
    let (mut found, mut seen) = (Vec::new(), Vec::<&str>::new());
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, words) = help.split_once(' ').unwrap();
            assert!(is_name(name) && !words.contains('\\') && !seen.contains(&name), "{line}");
            assert_eq!(lines.next(), Some(format!("# TYPE {name} gauge").as_str()));
            seen.push(name);
            continue;
        }
        let (name, rest) = line.split_once('{').unwrap();
        assert_eq!(Some(&name), seen.last(), "{line}");
        let (labels, rest) = labels(rest);
        found.push((name.to_owned(), labels, rest.strip_prefix(' ').unwrap().parse().unwrap()));
    }
    found
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_' || b.is_ascii_digit())
}

/// The labels, and what stands behind their closing brace.
#[track_caller]
fn labels(mut rest: &str) -> (Vec<(String, String)>, &str) {
    let mut labels = Vec::new();
    loop {
        let (label, after) = rest.split_once("=\"").unwrap();
        assert!(is_name(label), "{rest}");
        let (value, after) = value_of_label(after);
        labels.push((label.to_owned(), value));
        if let Some(next) = after.strip_prefix(',') {
            rest = next;
        } else {
            return (labels, after.strip_prefix('}').unwrap());
        }
    }
}

/// What stands before the quote that ends it, and what behind.
#[track_caller]
fn value_of_label(text: &str) -> (String, &str) {
    let (mut value, mut characters) = (String::new(), text.char_indices());
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.push(match characters.next().unwrap().1 {
                'n' => '\n',
                same @ ('\\' | '"') => same,
                other => panic!("\\{other} in {text}"),
            }),
            _ => value.push(character),
        }
    }
    panic!("no end of {text}");
}

/// The value of the only sample of this name, or of the one with this label.
#[track_caller]
fn value(samples: &[Sample], name: &str, label: &str) -> Option<f64> {
    let name = format!("engram_restore_{name}");
    let has = |labels: &[(String, String)]| label.is_empty() || labels.iter().any(|(_, value)| value == label);
    let mut fits = samples.iter().filter(|(found, labels, _)| *found == name && has(labels));
    let value = fits.next().map(|(_, _, value)| *value);
    assert!(fits.next().is_none(), "{name} {label} twice: {samples:?}");
    value
}

/// Would catch metrics that are missing on the day of a failure, or say another thing than the answer.
#[test]
fn metrics_say_what_the_answer_says_whatever_the_verdict_is() {
    let scene = small_scene();
    let backup = scene.backup();
    scene.run(&["verify"]).expect(0);
    let path = scene.dir.join("engram.prom");
    let run = |status: i32| {
        let run = scene.run(&["status", "--json", "--prometheus", "engram.prom"]).expect(status);
        (run.json(), samples(&fs::read_to_string(&path).unwrap()))
    };
    let (json, found) = run(0);
    assert!(found.iter().all(|(_, labels, _)| labels[0] == ("db".to_owned(), scene.db.to_string())), "{found:?}");
    assert_eq!(mode(&path), 0o644);
    let last: jiff::Timestamp = text(&json["last_backup"], "created_at").parse().unwrap();
    let at = value(&found, "last_backup_timestamp_seconds", "").unwrap();
    #[expect(clippy::cast_precision_loss, reason = "seconds of this century are exact")]
    let second = last.as_second() as f64;
    assert!((0.0..1.0).contains(&(at - second)), "{at} {last}");
    let size = json["last_backup"]["size_bytes"].as_f64();
    assert_eq!((value(&found, "last_backup_size_bytes", ""), value(&found, "database_size_bytes", "")), (size, size));
    // The verdict whose sample is 1, of three.
    let holds = |found: &[Sample]| {
        let is_one = |verdict: &&str| value(found, "status", verdict).unwrap() > 0.5;
        let all = ["pass", "fail", "inconclusive"].into_iter().filter(is_one);
        all.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(holds(&found), "pass");
    assert_eq!(
        (value(&found, "check", "last backup"), value(&found, "restore_interrupted", "")),
        (Some(0.0), Some(0.0))
    );
    assert!(value(&found, "last_verified_timestamp_seconds", "").unwrap() >= at);
    assert_eq!(Scene::names(&scene.dir), ["backups", "engram.db", "engram.prom"]);

    edit(&backup, |manifest| manifest.created_at += jiff::SignedDuration::from_hours(48));
    assert_eq!(holds(&run(6).1), "inconclusive");
    fs::remove_file(&scene.db).unwrap();
    fs::remove_dir_all(backup.parent().unwrap()).unwrap();
    let (_, found) = run(1);
    assert_eq!((holds(&found), value(&found, "check", "database")), ("fail".to_owned(), Some(1.0)));
    // What is not known is left out, and is not 0.
    assert_eq!(value(&found, "last_backup_timestamp_seconds", ""), None);
    assert_eq!(value(&found, "database_size_bytes", ""), None);
    assert_eq!(value(&found, "backups", ""), Some(0.0));
    assert_eq!(Scene::names(&scene.dir), ["engram.prom"]);
}

/// Would catch a path that ends a label or a line.
#[test]
fn metrics_of_a_database_with_an_odd_name_are_whole() {
    let scene = Scene::empty();
    let db = scene.dir.join("a\"b\\c\nd}.db");
    small_database(&db);
    let mut command = bare_command(&scene.dir);
    let metrics = scene.dir.join("m.prom");
    let run = crate::support::run(command.args(["--db", db.as_str(), "status", "--prometheus", metrics.as_str()]));
    run.expect(1);
    let found = samples(&fs::read_to_string(&metrics).unwrap());
    assert!(found.len() > 10 && found.iter().all(|(_, labels, _)| labels[0].1 == db.as_str()), "{found:?}");
}

/// Would catch a file that somebody reads half of.
#[test]
fn metrics_are_replaced_by_one_rename_of_a_file_with_another_ending() {
    let scene = small_scene();
    scene.backup();
    // A copy of the folder is looked at too, whose backups are of another path.
    let arguments = ["status", "--any-source", "--prometheus", "engram.prom"];
    let operations = scene.operations(&arguments);
    let made: Vec<_> = operations.iter().filter(|line| line.starts_with("create ")).collect();
    assert!(made.len() == 1 && made[0].ends_with(".partial"), "{operations:#?}");
    assert_eq!(operations.iter().filter(|line| line.ends_with(" engram.prom")).count(), 1, "{operations:#?}");
    let before = snapshot(&scene.dir);
    for (number, _) in operations.iter().enumerate() {
        let number = number.to_string();
        scene.run(&[&["fault", "--at", &number, "--kill", "--"], &arguments[..]].concat());
        if let Ok(text) = fs::read_to_string(scene.dir.join("engram.prom")) {
            assert!(samples(&text).len() > 10, "killed before {number}: {text}");
        }
    }
    scene.run(&arguments).expect(0);
    let mut after = snapshot(&scene.dir);
    after.remove("engram.prom").unwrap();
    assert_eq!(after, before);
}

/// A typing error must not cost anybody a database, and what was found is said all the same.
#[test]
fn metrics_that_cannot_be_written_are_status_5_beside_the_answer() {
    let scene = small_scene();
    let backup = scene.backup();
    // What begins like ours, and is not all ours.
    fs::write(scene.dir.join("mixed.prom"), "# HELP engram_restore_x y\nnode_load1 3\n").unwrap();
    fs::create_dir(scene.dir.join("folder.prom")).unwrap();
    let before = snapshot(&scene.dir);
    for path in ["folder.prom", "nosuch/x.prom", "mixed.prom"] {
        let run = scene.run(&["status", "--json", "--prometheus", path]).expect(5);
        let json = run.json();
        assert_eq!((&json["verdict"], &json["error"]["kind"]), (&json!("pass"), &json!("failed")), "{path}: {json}");
        let run = scene.run(&["status", "--prometheus", path]).expect(5);
        assert!(run.stdout.starts_with("pass\n") && run.stderr.contains("cannot write the metrics to "), "{run:?}");
    }
    // A name of SQLite's or of a backup's is none for metrics, also while nothing is there, or nothing is in it.
    let wal = scene.beside("-wal");
    for path in [scene.db.as_str(), wal.as_str(), backup.as_str(), "backups", "/dev/null", "metrics.txt"] {
        let json = scene.run(&["status", "--json", "--prometheus", path]).expect(2).json();
        assert_eq!(json["error"]["kind"], "usage", "{json}");
    }
    assert_eq!(snapshot(&scene.dir), before);
    scene.run(&["status", "--prometheus", ""]).expect(2);
    // One of another tool's making that is still empty is nobody's loss.
    fs::write(scene.dir.join("metrics.prom"), "").unwrap();
    scene.run(&["status", "--prometheus", "metrics.prom"]).expect(0);
    assert!(fs::read_to_string(scene.dir.join("metrics.prom")).unwrap().contains("engram_restore_"));
}
