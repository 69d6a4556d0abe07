//! `backup`: take a verified backup of the live database.

use clap::ValueEnum as _;
use engram_restore::archive::manifest_path;
use engram_restore::signature::signature_path;
use engram_restore::{
    BackupOptions, BackupPlan, BackupReport, Destination, Engine, Event, Limits, Observer as _, Result, backup,
    named_backups, plan_backup,
};
use serde_json::{Value, json};

use super::args::{BackupArgs, EngineArg};
use super::config::Key;
use super::context::{Context, absolute};
use super::exit::Exit;
use super::output::{Outcome, bytes, millis, printable};
use super::progress::Progress;
use super::prune;

pub(crate) fn run(args: &BackupArgs, context: &Context, progress: &mut Progress) -> Result<Outcome> {
    let destination = match &args.path {
        Some(path) => Destination::File(absolute(path)?),
        None => Destination::Archive(context.archive()?),
    };
    let configured = || EngineArg::from_str(context.config().word(Key::BackupEngine)?, false).ok();
    let engine = match args.engine.or_else(configured) {
        Some(EngineArg::Auto) | None => Engine::Auto,
        Some(EngineArg::Snapshot) => Engine::Snapshot,
        Some(EngineArg::Online) => Engine::Online,
        Some(EngineArg::Vacuum) => Engine::Vacuum,
    };
    let options = BackupOptions {
        database: context.database()?,
        destination,
        engine,
        label: args.label.clone(),
        busy_limit: args.wait,
        limits: Limits { max_rate: args.max_rate, max_wal: args.max_wal, max_time: args.max_time },
        now: jiff::Timestamp::now(),
        keys: context.keys_to_sign(args.sign, "the backup")?,
    };
    if options.keys.signing.is_none() && !options.keys.trusted.is_empty() {
        let text = "only signed backups are trusted, and this one is not signed: no restore here will take it; name the secret key with --secret-key or [sign]";
        progress.event(Event::Warning(text));
    }
    if args.dry_run {
        return plan_backup(&options).map(|plan| planned(&plan)).or_else(|e| Outcome::found(e, nothing_done()));
    }
    // What it explains, somebody has just been told of.
    let named = named_backups(&options.database);
    let report = match backup(&options, context.storage(), progress) {
        Ok(report) => report,
        Err(e) => return Outcome::found(e, nothing_done()),
    };
    let check = &report.manifest.integrity_check;
    let exit = match (check.is_ok(), &check.error) {
        (true, _) => Exit::Done,
        (false, None) => Exit::Damaged,
        (false, Some(_)) => Exit::Inconclusive,
    };
    let mut outcome = Outcome::new(exit, fields(&report), text(&report));
    if options.keys.signing.is_some() {
        let signature = signature_path(&report.manifest_path);
        outcome.text.push_str(&(printable(&format!("  signed: {signature}")) + "\n"));
        outcome.fields.insert("signature".to_owned(), signature.into_string().into());
    }
    // A database that is damaged is no moment to remove anything.
    if exit == Exit::Done
        && args.path.is_none()
        && !args.no_prune
        && let Some(pruned) = prune::after_backup(context, named, progress)?
    {
        outcome.fields.insert("pruned".to_owned(), prune::pruned_json(&pruned));
        outcome.text.extend(prune::pruned_lines(&pruned).iter().map(|line| printable(line) + "\n"));
    }
    Ok(outcome)
}

/// The fields of a backup that found damage instead.
fn nothing_done() -> Value {
    json!({
        "backup": null, "manifest": null, "size_bytes": null, "blake3": null, "integrity_check": null, "engine": null, "engine_reason": null,
        "signature": null, "duration_ms": null, "wal_bytes_before": null, "wal_bytes_after": null, "pruned": null,
    })
}

fn planned(plan: &BackupPlan) -> Outcome {
    let mut fields = nothing_done();
    fields["backup"] = plan.backup.as_str().into();
    fields["manifest"] = manifest_path(&plan.backup).into_string().into();
    fields["engine"] = plan.engine.into();
    fields["engine_reason"] = plan.engine_reason.as_str().into();
    fields["dry_run"] = true.into();
    fields["plan"] = json!(plan);
    let mut lines = vec![
        format!("would back up {} (at most {})", plan.db, bytes(plan.source_bytes)),
        format!("  to {} (engine {}: {})", plan.backup, plan.engine, plan.engine_reason),
    ];
    if plan.settles_restore {
        lines.push("  would first bring a restore that was interrupted there to its end".to_owned());
    }
    lines.extend(plan.sweep.iter().map(|path| format!("  would sweep what an interrupted run left: {path}")));
    lines.push("nothing was changed".to_owned());
    let text = lines.iter().map(|line| printable(line) + "\n").collect();
    Outcome::new(Exit::Done, fields, text).essential()
}

fn fields(report: &BackupReport) -> Value {
    let manifest = &report.manifest;
    json!({
        "backup": report.backup,
        "manifest": report.manifest_path,
        "size_bytes": manifest.file.size_bytes,
        "blake3": manifest.file.blake3,
        "integrity_check": super::show::integrity_json(&manifest.integrity_check),
        "integrity_check_error": manifest.integrity_check.error,
        "engine": manifest.engine,
        "engine_reason": report.engine_reason,
        "label": manifest.label,
        "created_at": manifest.created_at,
        "journal_mode": manifest.database.journal_mode,
        "duration_ms": millis(report.duration),
        "wal_bytes_before": report.wal_bytes_before,
        "wal_bytes_after": report.wal_bytes_after,
        "writers_waited_ms": report.writers_waited.map_or(0, millis),
        "swept": report.swept,
        "signature": null,
        "pruned": null,
    })
}

fn text(report: &BackupReport) -> String {
    let manifest = &report.manifest;
    let mut lines = vec![
        format!("backup {}", report.backup),
        format!(
            "  {} in {} ms, BLAKE3 {}",
            bytes(manifest.file.size_bytes),
            millis(report.duration),
            manifest.file.blake3
        ),
        format!("  engine {}: {}", manifest.engine, report.engine_reason),
        format!("  integrity check: {}", super::show::integrity_text(&manifest.integrity_check)),
    ];
    if report.wal_bytes_after > report.wal_bytes_before {
        let (before, after) = (bytes(report.wal_bytes_before), bytes(report.wal_bytes_after));
        lines.push(format!("  the WAL grew from {before} to {after} meanwhile"));
    }
    if let Some(waited) = report.writers_waited {
        lines.push(format!("  not in WAL mode: writers had to wait for {} ms", millis(waited)));
    }
    for swept in &report.swept {
        lines.push(format!("  swept what an interrupted run left: {swept}"));
    }
    if !manifest.integrity_check.is_ok() {
        lines.push(match &manifest.integrity_check.error {
            None => "  the database itself is not sound: keep older backups, and look at it soon".to_owned(),
            Some(_) => "  so nothing is known about it, and no restore takes it".to_owned(),
        });
    }
    lines.iter().map(|line| printable(line) + "\n").collect()
}
