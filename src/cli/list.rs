//! `list`: this database's backups, newest first.

use std::io::{self, IsTerminal};

use engram_restore::archive::{Backup, History, Listing, Passed, Proofs, Verification, list};
use engram_restore::{Event, Observer as _, Result};
use serde_json::{Value, json};

use super::args::ListArgs;
use super::context::Context;
use super::exit::Exit;
use super::output::{Outcome, bytes, printable, table};
use super::progress::Progress;
use super::show::{integrity_json, integrity_text};

pub(crate) fn run(args: &ListArgs, context: &Context, progress: &mut Progress) -> Result<Outcome> {
    let interrupted = context.interrupted(&[], progress);
    let mut warn = |text: String| progress.event(Event::Warning(&text));
    let scope = context.scope(args.any_source)?;
    let archive = context.archive()?;
    let mut listing = list(&archive)?;
    let history = History::read(&archive).unwrap_or_else(|e| {
        warn(history_unread(&e.message()));
        History::default()
    });
    // In an archive beside it, the live database is no leftover.
    let database = context.database()?;
    listing.orphans.retain(|orphan| *orphan != database);
    let backups = listing.in_scope(&scope);
    let unreadable = listing.unreadable_in_scope(&scope);
    for entry in &unreadable {
        warn(format!("{}: {} (see: engram-restore verify --all)", entry.path, entry.problem));
    }
    for orphan in &listing.orphans {
        warn(format!("{orphan} has no manifest: it is no backup"));
    }
    for path in &listing.half_pruned {
        warn(format!(
            "{path} is no backup any more: a prune that removed it was interrupted, and the next one goes on"
        ));
    }
    if let Some(other) = backups.iter().map(|backup| &backup.manifest.source.path).find(|path| **path != database)
        && !args.any_source
    {
        warn(format!("these were taken of {other}: there is none of {database}"));
    }
    let others = listing.backups.len() - backups.len();
    if backups.is_empty() && others > 0 {
        warn(format!("backups of other databases are not shown: {others} (--any-source shows them)"));
    }
    let fields = json!({
        "backups": backups.iter().map(|backup| entry(backup, proofs(backup, &history))).collect::<Vec<_>>(),
        "unreadable": unreadable.iter().map(|u| json!({"backup": u.path, "problem": u.problem.to_string()})).collect::<Vec<_>>(),
        "orphans": listing.orphans,
        "half_pruned": listing.half_pruned,
        "interrupted_restore": interrupted,
    });
    Ok(Outcome::new(Exit::Done, fields, text(&backups, &listing, &history)).essential())
}

fn proofs<'a>(backup: &Backup, history: &'a History) -> Option<&'a Proofs> {
    history.proofs(&backup.path, &backup.manifest.file.blake3)
}

/// What is said where the history cannot be read.
pub(crate) fn history_unread(why: &str) -> String {
    format!("when backups were last verified is not known: {why}")
}

/// A backup in `--json`.
pub(crate) fn entry(backup: &Backup, proofs: Option<&Proofs>) -> Value {
    let manifest = &backup.manifest;
    json!({
        "backup": backup.path,
        "created_at": manifest.created_at,
        "size_bytes": manifest.file.size_bytes,
        "blake3": manifest.file.blake3,
        "label": manifest.label,
        "pinned": backup.is_pinned,
        "integrity_check": integrity_json(&manifest.integrity_check),
        "engine": manifest.engine,
        "source": manifest.source.path,
        "last_verified": proofs.map(|proofs| proofs.last),
        "standing_failure": proofs.and_then(|proofs| proofs.standing_failure),
        "last_passed": proofs.map_or_else(Passed::default, |proofs| proofs.passed),
    })
}

/// The label, and whether it is pinned.
fn label_text(backup: &Backup) -> String {
    let label = backup.manifest.label.as_deref();
    label.into_iter().chain(backup.is_pinned.then_some("(pinned)")).collect::<Vec<_>>().join(" ")
}

/// A look at a backup, for people.
pub(crate) fn look_text(look: &Verification) -> String {
    format!("{} {} {:.0}", look.verdict, look.depth.name(), look.at)
}

/// The last look, and before it the failure that it does not disprove.
fn proofs_text(proofs: &Proofs) -> String {
    let last = look_text(&proofs.last);
    match &proofs.standing_failure {
        Some(failure) if *failure != proofs.last => format!("{}, then {last}", look_text(failure)),
        Some(_) | None => last,
    }
}

fn text(backups: &[&Backup], listing: &Listing, history: &History) -> String {
    if backups.is_empty() {
        return if listing.unreadable.is_empty() { "no backups\n".to_owned() } else { String::new() };
    }
    let is_table = io::stdout().is_terminal();
    let never = if is_table { "never" } else { "" };
    let row = |backup: &&Backup| {
        let manifest = &backup.manifest;
        [
            printable(backup.path.file_name().unwrap_or_default()),
            format!("{:.0}", manifest.created_at),
            bytes(manifest.file.size_bytes),
            printable(&integrity_text(&manifest.integrity_check)),
            printable(&label_text(backup)),
            proofs(backup, history).map_or_else(|| never.to_owned(), proofs_text),
        ]
    };
    let rows = backups.iter().map(row);
    if !is_table {
        return rows.map(|row| row.join("\t").trim_end().to_owned() + "\n").collect();
    }
    table(["backup", "taken", "size", "integrity", "label", "last verified"], rows)
}
