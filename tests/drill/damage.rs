//! The database file is there, and some of its bytes are not what was written.

use serde_json::Value;

use crate::saboteur::{Answer, Rehearsal};

/// It says that it has restored, and has not.
const NOTHING: &str = r#"case $command in restore) echo '{"ok":true}';; *) real "$@";; esac"#;

/// It restores, and then does this.
fn after_restore(act: &str) -> String {
    format!(r#"real "$@"; status=$?; case $command in restore) {act};; esac; exit $status"#)
}

/// The map has every page once, and these of its owners are damaged, and no others.
fn assert_damaged(answer: &Answer, is_damaged: impl Fn(&str) -> bool) {
    let damage = &answer.scenario()["damage"];
    let list = |field: &str| damage[field].as_array().unwrap().clone();
    let number = |value: &Value| value.as_u64().unwrap();
    let mut next = 1;
    for run in list("runs") {
        assert_eq!(number(&run["first"]), next, "{damage}");
        next = number(&run["last"]) + 1;
    }
    assert_eq!(next, number(&damage["pages"]) + 1, "{damage}");
    assert_eq!(damage["pages_per_cell"], 1);
    let hit: Vec<_> = list("owners").into_iter().filter(|owner| owner["damaged"] != 0).collect();
    assert!(!hit.is_empty(), "{damage}");
    for owner in hit {
        assert!(is_damaged(owner["name"].as_str().unwrap()), "{owner}");
    }
}

#[test]
fn database_truncated() {
    let rehearsal = Rehearsal::new();
    let answer = rehearsal.passes("database-truncated");
    assert_damaged(&answer, |_name| true);
    rehearsal.fails("database-truncated", NOTHING);
    // What is restored is cut off too.
    let cut = after_restore(r#"truncate -s 400000 "$db""#);
    rehearsal.fails("database-truncated", &cut).says("malformed");
    // The last commits of the old database are lost with its WAL.
    let lost = after_restore(r#"rm "$db.pre-restore-wal""#);
    rehearsal.fails("database-truncated", &lost).says("is not the database that was there before");
}

#[test]
fn bits_flipped_in_data() {
    let rehearsal = Rehearsal::new();
    let answer = rehearsal.passes("bits-flipped-in-data");
    let is_table =
        |name: &str| !name.contains("_by_") && !name.starts_with("sqlite_autoindex") && name != "engram_restore_drill";
    assert_damaged(&answer, is_table);
    // Nothing is found of this without a look at every row.
    let other = after_restore(r#"sed -i s/paginati/PAGINATI/ "$db""#);
    rehearsal.fails("bits-flipped-in-data", &other).says("neither its old content nor that of a backup");
    // It keeps the old main file, and forgets the commits in its WAL.
    let forgets = format!(
        r#"case $command in restore) cp "$db" "$db.kept";; esac; {}"#,
        after_restore(r#"cp "$db.kept" "$db.pre-restore""#)
    );
    rehearsal.fails("bits-flipped-in-data", &forgets).says("is not the database that was there before");
}

#[test]
fn bits_flipped_in_index() {
    let rehearsal = Rehearsal::new();
    let answer = rehearsal.passes("bits-flipped-in-index");
    assert_damaged(&answer, |name| name.contains("_by_") || name.starts_with("sqlite_autoindex"));
    // The rows of the restored database are right, and one of its indexes is not.
    let page = answer.scenario()["damage"]["runs"].as_array().unwrap().iter().find(|run| run["is_damaged"] == true);
    let page = page.unwrap()["first"].as_u64().unwrap();
    let zero = after_restore(&format!(
        r#"dd if=/dev/zero of="$db" bs=4096 seek={} count=1 conv=notrunc 2>/dev/null"#,
        page - 1
    ));
    rehearsal.fails("bits-flipped-in-index", &zero).says("DEEP_CHECK_FAILED");
}

#[test]
fn bits_flipped_in_header() {
    let rehearsal = Rehearsal::new();
    let answer = rehearsal.passes("bits-flipped-in-header");
    assert_damaged(&answer, |name| name == "sqlite_schema");
    // It gives up where SQLite cannot open the old database.
    let gives_up = r#"case $command in restore) echo '{"ok":false}'; exit 5;; *) real "$@";; esac"#;
    rehearsal.fails("bits-flipped-in-header", gives_up).says("where exit 0 was due");
    // It repairs the old database, of which nothing is known then.
    let repairs = after_restore(r#"dd if="$db" of="$db.pre-restore" bs=100 count=1 conv=notrunc 2>/dev/null"#);
    rehearsal.fails("bits-flipped-in-header", &repairs).says("is not the database that was there before");
}

#[test]
fn pages_zeroed() {
    let rehearsal = Rehearsal::new();
    let answer = rehearsal.passes("pages-zeroed");
    assert_damaged(&answer, |_name| true);
    let pages: u64 =
        answer.scenario()["damage"]["owners"].as_array().unwrap().iter().map(|o| o["damaged"].as_u64().unwrap()).sum();
    assert_eq!(pages, 8);
    rehearsal.fails("pages-zeroed", NOTHING).says("does not say where the database is that was there before");
    // A part of the old file gets into the new one.
    let mixed = after_restore(r#"dd if="$db.pre-restore" of="$db" bs=4096 skip=1 seek=1 conv=notrunc 2>/dev/null"#);
    rehearsal.fails("pages-zeroed", &mixed).says("malformed");
    rehearsal
        .fails("pages-zeroed", &after_restore(r#"rm "$db.pre-restore""#))
        .says("is not the database that was there");
}

/// Would catch choices that the seed does not fix, or that it does not change.
#[test]
fn a_seed_makes_the_same_damage() {
    let rehearsal = Rehearsal::new();
    let damage = |seed: &str| {
        let answer = rehearsal.drill(&["--scenario", "bits-flipped-in-data", "--seed", seed]);
        answer.scenario()["damage"].clone()
    };
    let [one, same, other] = ["1", "1", "2"].map(damage);
    assert_eq!(one, same);
    assert_ne!(one, other);
}
