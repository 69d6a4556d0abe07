//! Reports that the binary writes.

use std::fs;

use serde_json::Value;

use crate::saboteur::Rehearsal;

/// Would catch a form that is not written, one that its readers cannot read, a report that says another thing than the answer,
/// and a file that is left beside them.
#[test]
fn a_drill_writes_all_four_forms() {
    let rehearsal = Rehearsal::new();
    let file = |name: &str| rehearsal.dir().join("reports").join(name);
    fs::create_dir(file("")).unwrap();
    let names = ["drill.html", "drill.json", "drill.md", "drill.xml"];
    let files = names.map(file);
    fs::write(&files[1], r#"{"format": "engram-restore-drill", "of": "an older drill"}"#).unwrap();
    let mut arguments = vec!["--scenario", "database-deleted"];
    arguments.extend(files.iter().flat_map(|file| ["--report", file.as_str()]));
    let answer = rehearsal.drill(&arguments);
    assert_eq!(answer.status, Some(0), "{answer:#?}");

    let text = files.map(|file| fs::read_to_string(file).unwrap());
    let mut report: Value = serde_json::from_str(&text[1]).unwrap();
    report["ok"] = Value::Bool(true);
    assert_eq!(report, answer.json);
    let junit = roxmltree::Document::parse(&text[3]).unwrap();
    let case = junit.descendants().find(|node| node.has_tag_name("testcase")).unwrap();
    assert_eq!(case.attribute("name"), Some("database-deleted"));
    assert!(!case.children().any(|child| child.has_tag_name("failure") || child.has_tag_name("error")));
    assert!(text[2].contains("`database-deleted`"), "{}", text[2]);
    assert!(text[0].contains("The data would come back.") && text[0].contains("database-deleted"), "{}", text[0]);
    let mut there: Vec<_> = fs::read_dir(file("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    there.sort();
    assert_eq!(there, names);
}

/// Would catch a fail that a CI takes for a pass.
#[test]
fn a_failed_scenario_is_a_failure_for_a_ci() {
    let rehearsal = Rehearsal::new();
    let file = rehearsal.dir().join("drill.xml");
    let lies = r#"case $command in restore) echo '{"ok":true}';; *) real "$@";; esac"#;
    rehearsal.fails_with("database-deleted", lies, &["--report", file.as_str()]);
    let text = fs::read_to_string(&file).unwrap();
    let junit = roxmltree::Document::parse(&text).unwrap();
    assert_eq!(junit.root_element().attribute("failures"), Some("1"), "{text}");
    assert_eq!(junit.descendants().filter(|node| node.has_tag_name("failure")).count(), 1);
}

/// Would catch a drill of many minutes that ends without its report, and a mistyped path that costs somebody a file.
#[test]
fn a_report_that_cannot_be_is_told_before_the_drill() {
    let rehearsal = Rehearsal::new();
    let dir = rehearsal.dir();
    fs::write(dir.join("notes.md"), "mine").unwrap();
    fs::create_dir(dir.join("folder.md")).unwrap();
    for (file, status) in [("drill.pdf", 2), ("drill", 2), ("missing/drill.md", 4), ("notes.md", 5), ("folder.md", 5)] {
        // No drill with this program would end so.
        let answer = rehearsal.drill(&["--program", "/nonexistent", "--report", file]);
        assert_eq!(answer.status, Some(status), "{file}: {answer:#?}");
        let message = answer.json["error"]["message"].as_str().unwrap();
        assert!(message.contains("report") || message.contains(file), "{message}");
        assert_eq!(answer.json["scenarios"], Value::Null);
    }
    assert_eq!(fs::read_to_string(dir.join("notes.md")).unwrap(), "mine");
}

/// Would catch a report that takes a manifest or a history for an older report, since they name the program too.
#[test]
fn files_of_ours_that_are_no_reports_stay() {
    let rehearsal = Rehearsal::new();
    for (name, text) in [
        ("x.db.manifest.json", r#"{"format":"engram-restore-manifest","tool":"engram-restore 0.1.0"}"#),
        ("drills.json", r#"{"format":"engram-restore-drills","version":1,"drills":[]}"#),
        ("notes.md", "<!-- notes on engram-restore -->"),
        ("empty.html", ""),
    ] {
        let path = rehearsal.dir().join(name);
        fs::write(&path, text).unwrap();
        let answer = rehearsal.drill(&["--scenario", "database-deleted", "--report", path.as_str()]);
        assert_eq!(answer.status, Some(5), "{name}: {answer:#?}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text, "{name}");
    }
}
