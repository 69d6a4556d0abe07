//! The database file is gone.

use crate::saboteur::Rehearsal;

#[test]
fn database_deleted() {
    let rehearsal = Rehearsal::new();
    let answer = rehearsal.passes("database-deleted");
    assert_eq!(answer.scenario()["rpo"]["commits"], 20);
    // It says that it has restored, and has not.
    rehearsal.fails("database-deleted", r#"case $command in restore) echo '{"ok":true}';; *) real "$@";; esac"#);
    // It takes the older backup.
    let older = r#"case $command in restore) set -- --json --db "$db" --archive "$archive" restore "$(by_time | head -n1)" ;; esac; real "$@""#;
    rehearsal.fails("database-deleted", older).says("the older backup");
    // It puts the orphaned WAL back beside the new database.
    let stale = r#"cp "$db-wal" "$db.kept" 2>/dev/null; real "$@"; status=$?
        case $command in restore) cp "$db.kept" "$db-wal";; esac; exit $status"#;
    rehearsal.fails("database-deleted", stale);
    // It throws the last commits away.
    let throws_away = r#"case $command in restore) rm -f "$db-wal";; esac; real "$@""#;
    rehearsal.fails("database-deleted", throws_away).says("is among no orphans of the restore");
}
