//! A daemon is at work.

use crate::saboteur::Rehearsal;

#[test]
fn daemon_keeps_open() {
    let rehearsal = Rehearsal::new();
    let answer = rehearsal.passes("daemon-keeps-open");
    assert!(answer.scenario()["rpo"]["commits"].as_u64() >= Some(20), "{answer:#?}");
    // It swaps the file under the daemon.
    let rude = r#"case "$command $*" in
        restore*--in-place*) real "$@";;
        restore*) cp "$(by_time | tail -n1)" "$db.new"; mv "$db.new" "$db"; echo '{"ok":true}';;
        *) real "$@";; esac"#;
    rehearsal.fails("daemon-keeps-open", rude).says("exit 3 was due");
    // It says that it has put the content in, and has not.
    let idle = r#"case "$command $*" in restore*--in-place*) echo '{"ok":true}';; *) real "$@";; esac"#;
    rehearsal.fails("daemon-keeps-open", idle).says("are not those of the backup");
}

#[test]
fn restored_under_load() {
    let rehearsal = Rehearsal::new();
    let answer = rehearsal.passes("restored-under-load");
    let rpo = &answer.scenario()["rpo"];
    // Would catch commits that are lost in no time at all.
    assert_eq!(rpo["commits"].as_u64() > Some(0), rpo["window_ms"].as_u64() > Some(0), "{rpo}");
    // It restores another backup than the one that was taken.
    let older = r#"case "$command $7" in
        "restore latest-good") set -- "$1" "$2" "$3" "$4" "$5" restore "$(by_time | head -n1)";; esac; real "$@""#;
    rehearsal.fails("restored-under-load", older).says("not the backup that was taken");
    // What it has backed up before is what it gives out again.
    let lazy = r#"case $command in backup) f=$(by_time 2>/dev/null | head -n1)
        [ -n "$f" ] && [ "$(by_time | wc -l)" -ge 2 ] && { echo "{\"ok\":true,\"backup\":\"$f\"}"; exit 0; };; esac
        real "$@""#;
    rehearsal.fails("restored-under-load", lazy);
}

/// Would catch a drill that takes the backups of the program under drill for what they should be.
#[test]
fn backup_that_lacks_something_ends_the_drill() {
    let rehearsal = Rehearsal::new();
    let stale = r#"case $command in
        backup) f=$(by_time 2>/dev/null | head -n1); [ -n "$f" ] && { echo "{\"ok\":true,\"backup\":\"$f\"}"; exit 0; };; esac
        real "$@""#;
    let program = rehearsal.program(stale);
    let answer = rehearsal.drill(&["--scenario", "stale-wal", "--program", program.as_str()]);
    assert_eq!(answer.status, Some(1), "{answer:#?}");
    let message = answer.json["error"]["message"].as_str().unwrap();
    assert!(message.contains("does not hold what the database holds"), "{message}");
}
