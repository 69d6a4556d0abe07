//! What lies beside the database is not its own, or is gone.

use crate::saboteur::Rehearsal;

#[test]
fn stale_wal() {
    let rehearsal = Rehearsal::new();
    let answer = rehearsal.passes("stale-wal");
    let steps = answer.scenario()["steps"].as_array().unwrap();
    assert_eq!(steps.iter().filter(|step| step["name"] == "restore").count(), 3);
    // It leaves the WAL where it is: SQLite replays it onto the restored database.
    let leaves = r#"cp "$db-wal" "$db.kept" 2>/dev/null; real "$@"; status=$?
        case $command in restore) cp "$db.kept" "$db-wal";; esac; exit $status"#;
    rehearsal.fails("stale-wal", leaves);
    // It throws away what it does not know.
    let throws_away = r#"real "$@"; status=$?; case $command in restore) rm -f "$db".orphan-*;; esac; exit $status"#;
    rehearsal.fails("stale-wal", throws_away).says("is among no orphans of the restore");
    // It drops what lies beside a database that is still there.
    let drops = r#"case $command in restore) [ -e "$db" ] && rm "$db-wal";; esac; real "$@""#;
    rehearsal.fails("stale-wal", drops).says("is not the database that was there before");
}

#[test]
fn sidecars_deleted() {
    let rehearsal = Rehearsal::new();
    let answer = rehearsal.passes("sidecars-deleted");
    assert_eq!(answer.scenario()["rpo"]["commits"], 20);
    assert_eq!(
        answer.scenario()["damage"]["owners"].as_array().unwrap().iter().filter(|o| o["damaged"] != 0).count(),
        1
    );
    // It is content with what is there.
    let content = r#"case $command in
        restore) cp "$db" "$db.pre-restore"; echo "{\"ok\":true,\"pre_restore\":\"$db.pre-restore\"}";;
        *) real "$@";; esac"#;
    rehearsal.fails("sidecars-deleted", content).says("malformed");
    let loses = r#"real "$@"; status=$?; case $command in restore) echo x >> "$db.pre-restore";; esac; exit $status"#;
    rehearsal.fails("sidecars-deleted", loses).says("is not the database that was there before");
}
