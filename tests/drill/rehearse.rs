//! Rehearsals of real backups: neither the live database nor the archive is touched, and what is wrong with either shows.

use std::fs;
use std::process::Command;

use camino::{Utf8Path, Utf8PathBuf};
use engram_restore::sample::{SampleJournal, SampleOptions, Writer, create};
use serde_json::Value;

use crate::content::{Entry, snapshot};
use crate::saboteur::{Answer, Rehearsal};

/// A database and its archive, and an empty folder for scratch files.
struct Home {
    rehearsal: Rehearsal,
    db: Utf8PathBuf,
}

impl Home {
    fn new() -> Self {
        let rehearsal = Rehearsal::new();
        let db = rehearsal.dir().join("engram.db");
        create(&db, &SampleOptions { rows: 60, ..SampleOptions::default() }).unwrap();
        Self { rehearsal, db }
    }

    /// With one backup.
    fn backed_up() -> Self {
        let home = Self::new();
        home.backup();
        home
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.rehearsal.command();
        command.args(["--json", "--db", self.db.as_str()]).args(arguments);
        command
    }

    fn backup(&self) -> Utf8PathBuf {
        let output = self.command(&["backup"]).output().unwrap();
        let json: Value = serde_json::from_slice(&output.stdout).unwrap();
        json["backup"].as_str().unwrap().into()
    }

    fn write(&self, rows: usize) {
        let mut writer = Writer::open(&self.db, SampleJournal::Wal, 1).unwrap();
        for _ in 0..rows {
            writer.write().unwrap();
        }
    }

    /// Everything of it but the folder that is the program's own, and how many folders the archive has by that.
    fn everything(&self) -> Vec<(String, Entry)> {
        let all = snapshot(self.rehearsal.dir()).into_iter();
        all.filter(|(name, _)| name != "backups" && ![".state", "scratch"].iter().any(|own| name.contains(own)))
            .collect()
    }

    /// Drills; nothing of database and archive changes, and no scratch file stays.
    fn drill(&self, arguments: &[&str]) -> Answer {
        let before = self.everything();
        let scratch = self.rehearsal.dir().join("scratch");
        let all = [&["drill", "--seed", "7", "--scratch", scratch.as_str()], arguments].concat();
        let answer = Answer::of(&mut self.command(&all));
        assert_eq!(self.everything(), before, "{arguments:?}");
        assert_eq!(fs::read_dir(&scratch).unwrap().count(), 0, "{answer:?}");
        answer
    }

    fn configure(&self, text: &str) {
        fs::write(self.rehearsal.dir().join("engram-restore.toml"), text).unwrap();
    }
}

/// The names and verdicts of its scenarios.
fn verdicts(answer: &Answer) -> Vec<(&str, &str)> {
    let scenarios = answer.json["scenarios"].as_array().unwrap().iter();
    scenarios.map(|one| (one["name"].as_str().unwrap(), one["verdict"].as_str().unwrap())).collect()
}

fn damage(backup: &Utf8Path) {
    let mut bytes = fs::read(backup).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(backup, bytes).unwrap();
}

/// Would catch a rehearsal on the real thing, and one that says that nothing is lost where something is.
#[test]
fn newest_backup_is_rehearsed_and_compared_with_the_live_database() {
    let home = Home::backed_up();
    let answer = home.drill(&[]);
    assert_eq!((answer.status, verdicts(&answer)), (Some(0), vec![("rehearse", "pass")]), "{answer:#?}");
    let rehearsed = answer.scenario();
    assert_eq!((&rehearsed["rpo"]["rows"], &rehearsed["rpo"]["window_ms"]), (&0.into(), &0.into()));
    let phases: Vec<_> =
        rehearsed["rto"]["phases"].as_array().unwrap().iter().map(|phase| phase["name"].as_str().unwrap()).collect();
    for phase in ["find", "hash", "stage", "fold", "swap", "first-query"] {
        assert!(phases.contains(&phase), "{phase}: {phases:?}");
    }
    let sum: u64 =
        rehearsed["rto"]["phases"].as_array().unwrap().iter().map(|phase| phase["duration_us"].as_u64().unwrap()).sum();
    assert_eq!(rehearsed["rto"]["total_us"].as_u64(), Some(sum));

    home.write(5);
    let answer = home.drill(&["--max-rpo", "1us", "--max-rto", "1h"]);
    assert_eq!((answer.status, verdicts(&answer)), (Some(1), vec![("rehearse", "pass")]), "rows lost fail no drill");
    let rpo = &answer.scenario()["rpo"];
    assert!(rpo["rows"].as_u64() >= Some(5) && rpo["window_ms"].as_u64() > Some(0), "{rpo}");
    assert!(rpo["bytes"].as_u64() > Some(100), "{rpo}");
    assert!(rpo["tables"].to_string().contains("observations") && !rpo["newest"].as_array().unwrap().is_empty());
    let thresholds = &answer.json["thresholds"];
    assert_eq!(
        (&thresholds[0]["verdict"], &thresholds[1]["verdict"]),
        (&"pass".into(), &"fail".into()),
        "{thresholds}"
    );
    assert_eq!(answer.json["history"].as_array().unwrap().len(), 1);
    // The day that it is for: nothing is there to compare with.
    fs::remove_file(&home.db).unwrap();
    let answer = home.drill(&["--max-rpo", "1h"]);
    assert_eq!(answer.scenario()["verdict"], "pass");
    assert_eq!((answer.status, &answer.scenario()["rpo"]), (Some(6), &Value::Null), "what is not known holds no limit");
}

/// Would catch a rehearsal that believes the program.
#[test]
fn restore_that_loses_something_fails_the_rehearsal() {
    let home = Home::backed_up();
    home.write(3);
    home.backup();
    for (misbehave, says) in [
        // It says that it is done.
        (r#"case $command in restore) rm -f "$db-wal"; echo '{"ok":true}';; *) real "$@";; esac"#, "manifest"),
        // It takes another backup.
        (
            r#"[ "$command" = restore ] && set -- "$1" "$2" "$3" "$4" "$5" restore "$(ls -tr "${7%/*}"/*.db | head -n1)"; real "$@""#,
            "manifest",
        ),
        // It leaves a file that is cut off.
        (
            r#"real "$@"; status=$?; [ "$command" = restore ] && { head -c 9000 "$db" > "$db.x"; cat "$db.x" > "$db"; }; exit $status"#,
            "",
        ),
        // It forgets what it was to keep, and what was in its WAL.
        (r#"real "$@"; status=$?; [ "$command" = restore ] && rm -f "$db.pre-restore"; exit $status"#, "not kept"),
        (r#"[ "$command" = restore ] && rm -f "$db-wal" "$db-shm"; real "$@""#, "of the 21 commits"),
        // What it puts there is the backup itself, by another name: the application would write into that.
        (
            r#"[ "$command" = restore ] && { rm -f "$db"*; ln -s "$7" "$db"; echo '{"ok":true}'; exit; }; real "$@""#,
            "no file of its own",
        ),
        // It leaves what it works with.
        (
            r#"real "$@"; status=$?; [ "$command" = restore ] && : > "$db.restore-staged"; exit $status"#,
            "is left after the restore",
        ),
        // It finds damage where there is none.
        (r#"case $command in verify) echo '{"ok":false}'; exit 1;; *) real "$@";; esac"#, "verify"),
    ] {
        let program = home.rehearsal.program(misbehave);
        let answer = home.drill(&["--program", program.as_str()]);
        assert_eq!((answer.status, answer.verdict()), (Some(1), "fail"), "{misbehave}: {answer:#?}");
        answer.says(says);
    }
}

/// Would catch a drill that does not notice what the program does to the backup that it was given.
#[test]
fn restore_that_removes_its_backup_fails_the_rehearsal() {
    let home = Home::backed_up();
    let thief = r#"real "$@"; status=$?; [ "$command" = restore ] && rm -f "$7"; exit $status"#;
    let program = home.rehearsal.program(thief);
    let answer = Answer::of(&mut home.command(&["drill", "--program", program.as_str()]));
    assert_eq!(answer.status, Some(1), "{answer:#?}");
    answer.says("has changed or removed");
}

/// Would catch a restore after which an application takes its schema for an older one.
#[test]
fn version_of_the_application_comes_back_too() {
    let home = Home::new();
    let set = |db: &Utf8Path, version: i32| {
        let connection = rusqlite::Connection::open(db).unwrap();
        connection.pragma_update(None, "user_version", version).unwrap();
        connection.close().unwrap();
    };
    set(&home.db, 7);
    home.backup();
    assert_eq!(home.drill(&[]).status, Some(0));
    // The first bytes of the number, which are at 60 of the header.
    let other = r#"real "$@"; status=$?
        [ "$command" = restore ] && printf '\000\000\000\011' | dd of="$db" bs=1 seek=60 conv=notrunc 2>/dev/null; exit $status"#;
    let program = home.rehearsal.program(other);
    home.drill(&["--program", program.as_str()]).says("user_version");
}

#[test]
fn picks_are_rehearsed_each_and_damage_fails() {
    let home = Home::backed_up();
    home.write(3);
    let newest = home.backup();
    damage(&newest);
    assert_eq!(home.drill(&[]).status, Some(1));
    assert_eq!(home.drill(&["--pick", "oldest"]).status, Some(0));
    let all = home.drill(&["--pick", "all"]);
    assert_eq!((all.status, verdicts(&all)), (Some(1), vec![("rehearse", "fail"), ("rehearse", "pass")]));
    assert_eq!(
        home.drill(&["--pick", "oldest", "--pick", "latest-good"]).json["scenarios"].as_array().unwrap().len(),
        1
    );
    assert_eq!(home.drill(&["--pick", newest.as_str()]).status, Some(1));
    assert_eq!(home.drill(&["--pick", "random"]).json["scenarios"].as_array().unwrap().len(), 1);
    assert_eq!(home.drill(&["--pick", "nosuch"]).status, Some(4));
    assert_eq!(Home::new().drill(&[]).status, Some(4), "without an archive");
}

#[test]
fn scenarios_take_a_copy_of_the_backup() {
    let home = Home::backed_up();
    let answer = home.drill(&["--scenario", "rehearse", "--scenario", "pages-zeroed"]);
    assert_eq!((answer.status, verdicts(&answer)), (Some(0), vec![("rehearse", "pass"), ("pages-zeroed", "pass")]));
    assert_eq!(home.drill(&["--scenario", "flood"]).status, Some(2));
    assert_eq!(home.drill(&["--sample", "--scenario", "rehearse"]).status, Some(2));
}

#[test]
fn assertions_of_the_configuration_are_asked() {
    let home = Home::backed_up();
    let assert = |sql: &str, expect: &str| format!("[[drill.assert]]\nsql = \"{sql}\"\nexpect = \"{expect}\"\n");
    home.configure(&assert("SELECT count(*) FROM observations", ">= 60"));
    let answer = home.drill(&[]);
    let assertions = &answer.scenario()["assertions"];
    assert_eq!(
        (answer.status, &assertions[0]["found"], &assertions[0]["verdict"]),
        (Some(0), &"60".into(), &"pass".into())
    );
    for (sql, expect) in [
        ("SELECT count(*) FROM observations", "> 60"),
        ("SELECT count(*) FROM nowhere", "1"),
        ("DELETE FROM observations", "ok"),
        ("ATTACH 'x.db' AS x", "ok"),
    ] {
        home.configure(&assert(sql, expect));
        let answer = home.drill(&[]);
        assert_eq!((answer.status, answer.verdict()), (Some(1), "fail"), "{sql}: {answer:#?}");
        answer.says(sql);
    }
    for wrong in [
        assert("SELECT 1", ">="),
        assert("", "1"),
        "[[drill.assert]]\nsql = \"SELECT 1\"\n".to_owned(),
        "[[drill.assert]]\nsql = 1\nexpect = \"1\"\n".to_owned(),
        "[[drill.assert]]\nsql = \"SELECT 1\"\nexpect = \"1\"\nexpects = \"1\"\n".to_owned(),
        "[drill]\nassert = 3\n".to_owned(),
        "[drill]\nmax_rto_regression = \"much\"\n".to_owned(),
    ] {
        home.configure(&wrong);
        assert_eq!(home.drill(&[]).status, Some(2), "{wrong}");
    }
    home.configure("[drill]\nmax_rto = \"1us\"\n");
    assert_eq!(home.drill(&[]).status, Some(1));
    assert_eq!(home.drill(&["--max-rto", "1h"]).status, Some(0), "an option goes before the file");
}

/// Would catch a drill that a history ends.
#[test]
fn history_that_is_damaged_or_cannot_be_written_is_a_warning() {
    let home = Home::backed_up();
    home.drill(&[]);
    let file = home.rehearsal.dir().join("backups/.state/drills.json");
    for text in ["", "{", "[]", "{\"format\":\"engram-restore-drills\",\"version\":9}"] {
        fs::write(&file, text).unwrap();
        let answer = home.drill(&["--max-rto-regression", "20%"]);
        assert_eq!(answer.status, Some(0), "{text}: {answer:#?}");
        assert!(answer.json["warnings"].to_string().contains("earlier drills"), "{text}: {answer:#?}");
    }
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    let answer = home.drill(&[]);
    assert_eq!(answer.status, Some(0));
    assert!(answer.json["warnings"].to_string().contains("is not remembered"), "{answer:#?}");
}

#[test]
fn regression_is_told_by_the_history() {
    let home = Home::backed_up();
    home.drill(&[]);
    let file = home.rehearsal.dir().join("backups/.state/drills.json");
    let mut history: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    history["drills"][0]["rto_us"] = 1.into();
    fs::write(&file, history.to_string()).unwrap();
    let answer = home.drill(&["--max-rto-regression", "20%"]);
    assert_eq!((answer.status, &answer.json["thresholds"][0]["verdict"]), (Some(1), &"fail".into()), "{answer:#?}");
}

/// Would catch another tool's backup that is taken for good because its command ended with 0.
#[test]
fn what_another_command_produces_is_adopted_and_rehearsed() {
    let home = Home::new();
    let copy = home.rehearsal.dir().join("copy of it.db");
    fs::copy(&home.db, &copy).unwrap();
    for command in ["cp 'copy of it.db' {out}", "cat 'copy of it.db'", "cp engram.db '{out}'"] {
        let answer = home.drill(&["--fetch", command]);
        let expected = vec![("fetch", "pass"), ("rehearse", "pass")];
        assert_eq!((answer.status, verdicts(&answer)), (Some(0), expected), "{command}: {answer:#?}");
        let phases = answer.json["scenarios"][1]["rto"]["phases"].to_string();
        assert!(phases.contains("fetch"), "{phases}");
    }
    // One with its commits in a WAL, as a copy of the files of a program that was killed.
    engram_restore::sample::write_hot(&copy, 3, 1).unwrap();
    fs::rename(&copy, home.rehearsal.dir().join("hot.db")).unwrap();
    fs::rename(home.rehearsal.dir().join("copy of it.db-wal"), home.rehearsal.dir().join("hot.db-wal")).unwrap();
    let answer = home.drill(&["--fetch", "sh -c 'cp hot.db {out}; cp hot.db-wal {out}-wal'"]);
    assert_eq!(answer.status, Some(0), "{answer:#?}");
    fs::copy(&home.db, &copy).unwrap();
    // Other rows than the live database has.
    home.write(4);
    let answer = home.drill(&["--fetch", "cat 'copy of it.db'"]);
    assert!(answer.json["scenarios"][1]["rpo"]["rows"].as_u64() >= Some(4), "{answer:#?}");

    damage(&copy);
    fs::write(home.rehearsal.dir().join("text"), "no database").unwrap();
    for (command, says) in [
        ("false", "ended with"),
        ("true", "empty file"),
        ("true {out}", "no file"),
        ("cat text", "adopt"),
        ("nosuchcommand {out}", "cannot run"),
    ] {
        let answer = home.drill(&["--fetch", command]);
        assert_ne!(answer.status, Some(0), "{command}: {answer:#?}");
        assert!(answer.json.to_string().contains(says), "{command}: {answer:#?}");
    }
    assert_eq!(home.drill(&["--fetch", "cat 'x"]).status, Some(2));
    assert_eq!(home.drill(&["--fetch", ""]).status, Some(2));
    assert_eq!(home.drill(&["--fetch", "cat x", "--pick", "all"]).status, Some(2));
}

/// Would catch a drill that fills a disk before it says that it is too small.
#[test]
fn room_is_asked_for_before_anything_is_written() {
    let home = Home::new();
    let huge = home.rehearsal.dir().join("huge.db");
    fs::File::create(&huge).unwrap().set_len(8 << 40).unwrap();
    let mut command = home.rehearsal.command();
    command.args(["--json", "--db", huge.as_str(), "drill", "--fetch", "cat engram.db"]);
    let answer = Answer::of(&mut command);
    assert_eq!(answer.status, Some(5), "{answer:#?}");
    assert!(answer.json["error"]["message"].as_str().unwrap().contains("are free"), "{answer:#?}");
}

/// Would catch a rehearsal that looks at the signature once, and then at whatever lies there.
#[test]
fn backup_that_is_replaced_after_its_signature_was_looked_at_is_not_rehearsed() {
    let home = Home::new();
    let made = home.command(&["keygen", "own.key"]).output().unwrap();
    let made: Value = serde_json::from_slice(&made.stdout).unwrap();
    home.configure("");
    let theirs = home.backup();
    for name in ["", ".manifest.json"] {
        fs::rename(format!("{theirs}{name}"), home.rehearsal.dir().join(format!("theirs{name}"))).unwrap();
    }
    home.configure(&format!("[sign]\nsecret_key = \"own.key\"\n[trust]\npublic_key = {}\n", made["public_key"]));
    home.write(3);
    let signed = home.backup();
    let folder = home.rehearsal.dir();
    for moment in ["verify", "restore"] {
        let swap = format!(
            "[ \"$command\" = {moment} ] && cp {folder}/theirs {signed} && cp {folder}/theirs.manifest.json {signed}.manifest.json
             real \"$@\""
        );
        let program = home.rehearsal.program(&swap);
        let scratch = folder.join("scratch");
        let own: Vec<_> =
            ["", ".manifest.json"].iter().map(|name| fs::read(format!("{signed}{name}")).unwrap()).collect();
        let arguments = ["drill", "--seed", "7", "--scratch", scratch.as_str(), "--program", program.as_str()];
        let answer = Answer::of(&mut home.command(&arguments));
        assert_eq!(answer.status, Some(1), "{moment}: {answer:#?}");
        assert!(answer.json.to_string().contains("SIGNATURE_WRONG"), "{moment}: {answer:#?}");
        for (name, bytes) in ["", ".manifest.json"].iter().zip(own) {
            fs::write(format!("{signed}{name}"), bytes).unwrap();
        }
    }
}
