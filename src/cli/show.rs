//! `show`: one backup's manifest, for people.

use std::fmt::Write as _;

use camino::Utf8Path;
use engram_restore::archive::{ManifestProblem, manifest_path, pin_reason, read_manifest, read_trusted};
use engram_restore::manifest::{IntegrityRecord, Manifest};
use engram_restore::signature::{TrustedKeys, signature_path};
use engram_restore::{Event, Observer as _, Result};
use serde_json::{Value, json};

use super::args::ShowArgs;
use super::context::Context;
use super::exit::Exit;
use super::output::{Outcome, bytes, printable};
use super::progress::Progress;

pub(crate) fn run(args: &ShowArgs, context: &Context, progress: &mut Progress) -> Result<Outcome> {
    let interrupted = context.interrupted(std::slice::from_ref(&args.backup), progress);
    let trusted = context.trusted()?;
    let fields = |backup: Option<&Utf8Path>, manifest: Option<&Manifest>, pin: Option<&str>| {
        json!({
            "signature": backup.map(|backup| signature_json(backup, &trusted)),
            "backup": backup, "manifest_path": backup.map(manifest_path), "manifest": manifest,
            "pinned": pin.is_some(), "pin_reason": pin,
            "interrupted_restore": interrupted,
        })
    };
    let backup = match context.backup(&args.backup, args.any_source, progress) {
        Ok(backup) => backup,
        Err(e) => return Outcome::found(e, fields(None, None, None)),
    };
    let pin = pin_reason(&backup).unwrap_or_else(|e| {
        progress.event(Event::Warning(&e.message()));
        Some(String::new())
    });
    let pin = pin.as_deref();
    match read_manifest(&backup) {
        Ok(manifest) => {
            let fields = fields(Some(&backup), Some(&manifest), pin);
            Ok(Outcome::new(Exit::Done, fields, text(&manifest, pin, &signature_text(&backup, &trusted))).essential())
        }
        Err(problem) => Outcome::found(problem.into_error(&backup), fields(Some(&backup), None, pin)),
    }
}

/// Its path, if it is there, and whether a trusted key made it; null where no key is named.
fn signature_json(backup: &Utf8Path, trusted: &TrustedKeys) -> Value {
    let file = signature_path(&manifest_path(backup));
    let is_trusted = (!trusted.is_empty()).then(|| read_trusted(backup, trusted).is_ok());
    json!({ "file": file.is_file().then_some(file), "trusted": is_trusted })
}

fn signature_text(backup: &Utf8Path, trusted: &TrustedKeys) -> String {
    if trusted.is_empty() {
        let is_there = signature_path(&manifest_path(backup)).is_file();
        return if is_there { "not checked: no public key is named" } else { "none" }.to_owned();
    }
    match read_trusted(backup, trusted) {
        Ok(_) => "of a trusted key".to_owned(),
        Err(ManifestProblem::Untrusted(problem)) => format!("NOT TRUSTED: {problem}"),
        Err(problem) => format!("NOT TRUSTED: {problem}"),
    }
}

fn text(manifest: &Manifest, pin: Option<&str>, signature: &str) -> String {
    let (file, database, source) = (&manifest.file, &manifest.database, &manifest.source);
    let mut rows = vec![
        ("backup", file.name.clone()),
        ("taken", format!("{} with {} (engine {})", manifest.created_at, manifest.tool, manifest.engine)),
        ("of", format!("{} on {}", source.path, source.host)),
        ("owner and mode", format!("{}:{} {:04o}", source.uid, source.gid, source.mode)),
        ("size", format!("{} ({} bytes)", bytes(file.size_bytes), file.size_bytes)),
        ("BLAKE3", file.blake3.to_string()),
        ("signature", signature.to_owned()),
        ("fingerprint", fingerprint_text(manifest)),
        ("integrity check", integrity_text(&manifest.integrity_check)),
        ("pages", format!("{} of {} bytes", database.page_count, database.page_size)),
        ("journal mode", format!("{} (the backup itself: rollback)", database.journal_mode.name())),
        ("user version", database.user_version.to_string()),
        ("application id", database.application_id.to_string()),
        ("schema version", database.schema_version.to_string()),
        ("encoding", database.encoding.clone()),
        ("last written by", format!("SQLite {}", database.writer_version)),
    ];
    if let Some(label) = &manifest.label {
        rows.insert(1, ("label", label.clone()));
    }
    if let Some(reason) = pin {
        let reason = if reason.is_empty() { "no prune removes it" } else { reason };
        rows.insert(1, ("pinned", reason.to_owned()));
    }
    let mut text = String::new();
    for (name, value) in rows {
        // Writing into a String does not fail.
        writeln!(text, "{name:16} {}", printable(&value)).unwrap_or_default();
    }
    writeln!(text, "\n{:16} {:64} table", "rows", "hash of the rows").unwrap_or_default();
    for table in &manifest.tables {
        let rows = table.rows.map_or_else(|| "?".to_owned(), |rows| rows.to_string());
        let hash = table.blake3.map_or_else(|| "?".to_owned(), |hash| hash.to_string());
        writeln!(text, "{rows:16} {hash:64} {}", printable(&table.name)).unwrap_or_default();
    }
    text
}

fn fingerprint_text(manifest: &Manifest) -> String {
    match manifest.fingerprint {
        None => "none: the backup was taken by an older version".to_owned(),
        Some(fingerprint) => match fingerprint.whole {
            Some(whole) => format!("{whole} (version {})", fingerprint.version),
            None => "none: not everything could be read".to_owned(),
        },
    }
}

/// `"ok"`, or the rows that the check returned.
pub(crate) fn integrity_json(check: &IntegrityRecord) -> Value {
    if check.is_ok() { "ok".into() } else { check.rows.clone().into() }
}

/// The same in a few words.
pub(crate) fn integrity_text(check: &IntegrityRecord) -> String {
    match &check.error {
        _ if check.is_ok() => "ok".to_owned(),
        Some(error) => format!("not done: {error}"),
        None => {
            let more = if check.truncated { " and more" } else { "" };
            format!("DAMAGED, problems: {}{more}, the first: {}", problems(check).count(), first(check))
        }
    }
}

/// What was found, without SQLite's headings.
fn problems(check: &IntegrityRecord) -> impl Iterator<Item = &str> {
    check.rows.iter().map(String::as_str).filter(|row| !row.starts_with("***"))
}

fn first(check: &IntegrityRecord) -> &str {
    problems(check).next().unwrap_or_default()
}
