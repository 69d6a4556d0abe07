//! The restore is killed, and what the system refuses.

use crate::saboteur::Rehearsal;

/// A killed run leaves half a database.
const HALF: &str = r#"real "$@"; status=$?
    [ $status = 137 ] && { head -c 5000 "$db" > "$db.half"; mv "$db.half" "$db"; rm -f "$db-wal"; kill -9 $$; }
    exit $status"#;

/// It recovers nothing.
const IDLE: &str = r#"case $command in recover) echo '{"ok":true}';; *) real "$@"; status=$?; [ $status = 137 ] && kill -9 $$; exit $status;; esac"#;

#[test]
fn killed_at_each_step() {
    let rehearsal = Rehearsal::new();
    let answer = rehearsal.passes("killed-at-each-step");
    let steps = answer.scenario()["steps"].to_string();
    assert!(steps.contains("keeping the old database") && steps.contains("8 kills: 6 times the old"), "{steps}");
    rehearsal.fails("killed-at-each-step", HALF);
    rehearsal.fails("killed-at-each-step", IDLE).says("is left after recover");
    // What it was to keep is gone once it has recovered.
    let wasteful = r#"real "$@"; status=$?; case $command in recover) rm -f "$db.pre-restore";; esac
        [ $status = 137 ] && kill -9 $$; exit $status"#;
    rehearsal.fails("killed-at-each-step", wasteful).says("nowhere to be found");
    // It recovers, and restores nothing any more.
    let stuck = r#"case $command in recover) touch "$db.stuck";; restore) [ -e "$db.stuck" ] && { echo '{"ok":false}'; exit 5; };; esac
        real "$@"; status=$?; [ $status = 137 ] && kill -9 $$; exit $status"#;
    rehearsal.fails("killed-at-each-step", stuck).says("the next restore");
    // It is not to be killed at all.
    rehearsal.fails("killed-at-each-step", r#"case $command in fault) echo '{"ok":true}';; *) real "$@";; esac"#);
}

#[test]
fn killed_at_random() {
    let rehearsal = Rehearsal::new();
    let answer = rehearsal.passes("killed-at-random");
    assert!(answer.scenario()["steps"].to_string().contains("12 kills"), "{answer:?}");
    rehearsal.fails("killed-at-random", HALF);
    rehearsal.fails("killed-at-random", IDLE).says("is left after recover");
}

#[test]
fn disk_full() {
    let rehearsal = Rehearsal::new();
    rehearsal.passes("disk-full");
    // It says that it is done.
    let bold = r#"case $command in fault) real "$@" >/dev/null 2>&1; echo '{"ok":true}';; *) real "$@";; esac"#;
    rehearsal.fails("disk-full", bold).says("nothing was restored");
    // It makes room by removing what it was to replace.
    let greedy = r#"real "$@"; status=$?; [ $status = 5 ] && rm -f "$db" "$db-wal"; exit $status"#;
    rehearsal.fails("disk-full", greedy);
}

/// Would catch a disaster that was never made real and passes: no disk was full.
#[test]
fn disk_that_never_was_full_is_inconclusive() {
    let rehearsal = Rehearsal::new();
    let unlimited = r#"case $command in fault) shift 5; while [ "$1" != -- ]; do shift; done; shift
        real --json --db "$db" --archive "$archive" "$@";; *) real "$@";; esac"#;
    let program = rehearsal.program(unlimited);
    let answer = rehearsal.drill(&["--scenario", "disk-full", "--program", program.as_str()]);
    assert_eq!(answer.verdict(), "inconclusive", "{answer:#?}");
    assert!(answer.scenario()["unknown"].to_string().contains("no restore met a full disk"), "{answer:#?}");
}

#[test]
fn permission_lost() {
    let rehearsal = Rehearsal::new();
    rehearsal.passes("permission-lost");
    let bold = r#"case $command in restore) touch "${db%/*}/x" 2>/dev/null || { echo '{"ok":true}'; exit 0; };; esac; real "$@""#;
    rehearsal.fails("permission-lost", bold).says("exit 5 was due");
    let wasteful = r#"real "$@"; status=$?; rm -f "$db.pre-restore" 2>/dev/null; exit $status"#;
    rehearsal.fails("permission-lost", wasteful).says("is not the database that was there before");
}

/// Would catch a matrix that takes a backup that was done, though its command was stopped, for a restore that was not.
#[test]
fn crash_matrix_of_a_backup() {
    Rehearsal::new().passes("crash-backup");
}

/// One command of the matrix; all of them are for a disk, not for a test.
#[test]
fn crash_matrix_of_one_command() {
    let rehearsal = Rehearsal::new();
    let answer = rehearsal.passes("crash-prune");
    let steps = answer.scenario()["steps"].to_string();
    assert!(steps.contains("kill at each") && steps.contains("a full disk from each on"), "{steps}");
    // A prune that takes the file before its manifest.
    let hasty = r#"case "$command $*" in
        fault*prune*) rm -f "$(by_time | head -n1)"; real "$@"; status=$?; [ $status = 137 ] && kill -9 $$; exit $status;;
        *) real "$@";; esac"#;
    rehearsal.fails("crash-prune", hasty).says("FILE_MISSING");
    // One that says that it is done, whatever fails.
    let bold = r#"case "$command $*" in fault*errno*) echo '{"ok":true}';; *) real "$@"; status=$?
        [ $status = 137 ] && kill -9 $$; exit $status;; esac"#;
    rehearsal.fails("crash-prune", bold).says("exit 0, and there are");
}
