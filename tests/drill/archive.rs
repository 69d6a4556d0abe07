//! The database is lost, and something of the archive too.

use crate::saboteur::Rehearsal;

/// The newest backup in the shell: the one that has lost its manifest, if one has.
const NEWEST: &str = r#"newest=$(for f in "$archive"/*.db; do [ -e "$f.manifest.json" ] || echo "$f"; done)
    newest=${newest:-$(by_time | tail -n1)}"#;

/// It does not say what it has passed over.
const SILENT: &str = r#"case $command in restore) real "$@" | sed 's/,"warnings":.*/}/';; *) real "$@";; esac"#;

#[test]
fn newest_backup_damaged() {
    let rehearsal = Rehearsal::new();
    let answer = rehearsal.passes("newest-backup-damaged");
    // What was committed after the older backup.
    assert_eq!(answer.scenario()["rpo"]["commits"], 40);
    let details = answer.scenario()["steps"].to_string();
    assert!(details.contains("20 commits more than with the newest backup"), "{details}");
    rehearsal.fails("newest-backup-damaged", SILENT).says("does not say that it passed");
    // It believes the file, whether it is named or the newest.
    let believes = format!(
        r#"{NEWEST}; case $command in verify) exit 1;;
        restore) case $7 in latest-good) cp "$newest" "$db"; rm -f "$db-wal"; echo "{{\"ok\":true,\"backup\":\"$newest\"}}";;
            *) real "$@";; esac;;
        *) real "$@";; esac"#
    );
    rehearsal.fails("newest-backup-damaged", &believes).says("the restore was to take");
    rehearsal.fails("newest-backup-damaged", r#"case $command in verify) exit 0;; *) real "$@";; esac"#).says("verify");
    // It refuses the damaged one, and has folded the database for it.
    let folds =
        r#"case "$command $7" in "restore /"*) cp "$7" "$db"; rm "$db-wal" "$db-shm"; exit 1;; *) real "$@";; esac"#;
    rehearsal.fails("newest-backup-damaged", folds).says("nothing was to change it");
}

#[test]
fn manifest_lost() {
    let rehearsal = Rehearsal::new();
    let answer = rehearsal.passes("manifest-lost");
    assert_eq!(answer.scenario()["rpo"]["commits"], 20, "with the file that was adopted");
    // It takes the file all the same.
    let takes = format!(
        r#"{NEWEST}; case $command in restore) real --json --db "$db" --archive "$archive" restore "$newest" || {{
        real --db "$db" --archive "$archive" adopt "$newest" >&2; real "$@"; }};; *) real "$@";; esac"#
    );
    rehearsal.fails("manifest-lost", &takes).says("the restore was to take");
    let hides = r#"case $command in list) real "$@" | sed 's/"orphans":\[[^]]*\]/"orphans":[]/';; *) real "$@";; esac"#;
    rehearsal.fails("manifest-lost", hides).says("the list does not say");
    let adopts_not = r#"case $command in adopt) echo '{"ok":true}';; *) real "$@";; esac"#;
    rehearsal.fails("manifest-lost", adopts_not).says("the restore was to take");
}

#[test]
fn archive_partly_unreadable() {
    let rehearsal = Rehearsal::new();
    let answer = rehearsal.passes("archive-partly-unreadable");
    assert_eq!(answer.scenario()["rpo"]["commits"], 40);
    rehearsal.fails("archive-partly-unreadable", SILENT).says("does not say that it passed");
    // It does not look behind the one that it cannot read: first the file, then the manifest.
    for unreadable in [r#"! -e "$one""#, r#"-d "$one.manifest.json""#] {
        let gives_up = format!(
            r#"case $command in restore) for one in "$archive"/*.db; do [ {unreadable} ] && {{ echo '{{"ok":false}}'; exit 5; }}; done;; esac
            real "$@""#
        );
        rehearsal.fails("archive-partly-unreadable", &gives_up).says("where exit 0 was due");
    }
}
