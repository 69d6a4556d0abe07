//! `list`: this database's backups, newest first.

use std::io::{self, IsTerminal};

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use engram_restore::archive::{Backup, Listing, list};
use engram_restore::{Event, Observer as _, Result};
use serde_json::{Value, json};

use super::args::ListArgs;
use super::context::Context;
use super::exit::Exit;
use super::output::{Outcome, bytes, printable};
use super::progress::Progress;
use super::show::{integrity_json, integrity_text};

pub(crate) fn run(args: &ListArgs, context: &Context, progress: &mut Progress) -> Result<Outcome> {
    let interrupted = context.interrupted(&[], progress);
    let mut warn = |text: String| progress.event(Event::Warning(&text));
    let scope = context.scope(args.any_source)?;
    let mut listing = list(&context.archive()?)?;
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
        "backups": backups.iter().map(|backup| entry(backup)).collect::<Vec<_>>(),
        "unreadable": unreadable.iter().map(|u| json!({"backup": u.path, "problem": u.problem.to_string()})).collect::<Vec<_>>(),
        "orphans": listing.orphans,
        "interrupted_restore": interrupted,
    });
    Ok(Outcome::new(Exit::Done, fields, text(&backups, &listing)).essential())
}

/// A backup in `--json`.
pub(crate) fn entry(backup: &Backup) -> Value {
    let manifest = &backup.manifest;
    json!({
        "backup": backup.path,
        "created_at": manifest.created_at,
        "size_bytes": manifest.file.size_bytes,
        "blake3": manifest.file.blake3,
        "label": manifest.label,
        "integrity_check": integrity_json(&manifest.integrity_check),
        "engine": manifest.engine,
        "source": manifest.source.path,
    })
}

fn text(backups: &[&Backup], listing: &Listing) -> String {
    if backups.is_empty() {
        return if listing.unreadable.is_empty() { "no backups\n".to_owned() } else { String::new() };
    }
    let row = |backup: &&Backup| {
        let manifest = &backup.manifest;
        [
            printable(backup.path.file_name().unwrap_or_default()),
            format!("{:.0}", manifest.created_at),
            bytes(manifest.file.size_bytes),
            printable(&integrity_text(&manifest.integrity_check)),
            printable(manifest.label.as_deref().unwrap_or_default()),
        ]
    };
    let rows = backups.iter().map(row);
    if !io::stdout().is_terminal() {
        return rows.map(|row| row.join("\t").trim_end().to_owned() + "\n").collect();
    }
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(["backup", "taken", "size", "integrity", "label"]);
    for row in rows {
        table.add_row(row);
    }
    format!("{table}\n")
}
