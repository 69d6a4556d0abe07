//! `restore`: put a verified backup in the database's place.

use camino::Utf8Path;
use engram_restore::{
    ErrorKind, InPlacePlan, InPlaceReport, OldDatabase, RestoreOptions, RestorePlan, RestoreReport, Result, Status,
    TableKind, WouldLose, plan_restore, plan_restore_in_place, restore, restore_in_place, would_lose,
};
use serde_json::{Value, json};

use super::args::RestoreArgs;
use super::context::Context;
use super::diff::time;
use super::exit::Exit;
use super::output::{Outcome, bytes, millis, printable};
use super::progress::Progress;

pub(crate) fn run(args: &RestoreArgs, context: &Context, progress: &mut Progress) -> Result<Outcome> {
    let database = context.database()?;
    let backup = match context.backup(&args.backup, args.any_source, progress) {
        Ok(backup) => backup,
        Err(e) => return Outcome::found(e, nothing_done(&database, None, args.way.in_place)),
    };
    let options = RestoreOptions {
        database,
        backup: backup.clone(),
        deep: args.deep,
        wait: args.way.wait(),
        now: jiff::Timestamp::now(),
        keys: context.keys()?,
    };
    let done = if args.dry_run {
        dry_run(&options, args.way.in_place, context, progress)
    } else if args.way.in_place {
        restore_in_place(&options, &context.archive()?, context.storage(), progress).map(|report| {
            let mut outcome = finished_in_place(&report, "restored");
            outcome.fields.insert("phases".to_owned(), progress.phases());
            outcome
        })
    } else {
        restore(&options, context.storage(), progress).map(|report| {
            let mut outcome = finished(&report, "restored");
            outcome.fields.insert("phases".to_owned(), progress.phases());
            let pruned = super::prune::after_restore(context, progress);
            let lines: Vec<_> =
                pruned.iter().map(|path| format!("  removed the old database of an earlier restore, {path}")).collect();
            outcome.text.push_str(&joined(&lines));
            outcome.fields.insert("pruned_pre_restore".to_owned(), json!(pruned));
            outcome
        })
    };
    done.or_else(|e| Outcome::found(e, nothing_done(&options.database, Some(&backup), args.way.in_place)))
}

/// The plan, and what would be lost. That is told, too, while the database is in use.
fn dry_run(options: &RestoreOptions, in_place: bool, context: &Context, progress: &mut Progress) -> Result<Outcome> {
    let plan = if in_place {
        plan_restore_in_place(options, &context.archive()?, progress).map(|plan| planned_in_place(&plan))
    } else {
        plan_restore(options, progress).map(|plan| planned(&plan))
    };
    let nothing = nothing_done(&options.database, Some(&options.backup), in_place);
    with_loss("a restore", plan, nothing, || would_lose(options, progress))
}

/// A plan, also one that is refused because the database is in use, with what would be lost.
pub(crate) fn with_loss(
    verb: &str,
    plan: Result<Outcome>,
    nothing: Value,
    would_lose: impl FnOnce() -> Result<WouldLose>,
) -> Result<Outcome> {
    let mut outcome = match plan {
        Ok(planned) => planned,
        Err(e) if e.kind() == ErrorKind::Busy => Outcome::refused(Exit::Busy, nothing, e),
        Err(e) => return Err(e),
    };
    let (lost, why_not) = match would_lose() {
        Ok(lost) => (Some(lost), None),
        Err(e) if e.kind() == ErrorKind::Interrupted => return Err(e),
        Err(e) => (None, Some(e.message())),
    };
    outcome.fields.insert("would_lose".to_owned(), json!(lost));
    outcome.fields.insert("would_lose_unknown".to_owned(), json!(why_not));
    outcome.text.insert_str(0, &joined(&loss_lines(verb, lost.as_ref(), why_not.as_deref())));
    Ok(outcome)
}

fn loss_lines(verb: &str, lost: Option<&WouldLose>, why_not: Option<&str>) -> Vec<String> {
    let Some(lost) = lost else {
        return vec![format!("what {verb} would lose is not known: {}", why_not.unwrap_or_default())];
    };
    let mut lines = vec![match lost.rows {
        0 => format!("{verb} would lose no rows"),
        rows => format!("{verb} would lose {rows} rows, which only the database has in this form:"),
    }];
    for table in lost.tables.iter().filter(|table| table.kind == TableKind::Table) {
        let newest = lost.newest.iter().filter(|newest| newest.table == table.name);
        let newest: Vec<_> =
            newest.map(|newest| format!(", newest {} {}", newest.column, time(&newest.value))).collect();
        lines.push(format!(
            "  {}: {} only there, {} changed, {} only in the backup{}",
            table.name,
            table.only_in_live,
            table.changed,
            table.only_in_backup,
            newest.concat()
        ));
    }
    // With the database as A.
    lines.extend(lost.schema.iter().map(|object| match object.status {
        Status::OnlyA => format!("  {} {} is only in the database", object.object_type, object.name),
        Status::OnlyB => format!("  {} {} is only in the backup", object.object_type, object.name),
        Status::Changed | Status::Same => format!("  {} {} is defined differently", object.object_type, object.name),
    }));
    lines
}

/// The fields of a restore or undo that found damage instead.
pub(crate) fn nothing_done(db: &Utf8Path, backup: Option<&Utf8Path>, in_place: bool) -> Value {
    if in_place {
        return json!({
            "db": db, "backup": backup, "pre_restore": null, "size_bytes": null, "blake3": null, "duration_ms": null,
            "mode": "in-place", "wal_bytes_before": null, "wal_bytes_after": null, "wal_is_folded": null,
            "proven": null, "unproven_because": null,
        });
    }
    json!({
        "db": db, "backup": backup, "pre_restore": null, "earlier_pre_restore": null, "orphans": [],
        "size_bytes": null, "blake3": null, "duration_ms": null, "mode": "swap",
    })
}

/// What a restore or undo in place did.
pub(crate) fn finished_in_place(report: &InPlaceReport, verb: &str) -> Outcome {
    let fields = json!({
        "db": report.db,
        "backup": report.backup,
        "pre_restore": report.pre_restore,
        "size_bytes": report.size_bytes,
        "blake3": report.blake3,
        "duration_ms": millis(report.duration),
        "mode": "in-place",
        "wal_bytes_before": report.wal_bytes_before,
        "wal_bytes_after": report.wal_bytes_after,
        "wal_is_folded": report.wal_is_folded,
        "proven": report.unproven.is_none(),
        "unproven_because": report.unproven,
    });
    let mut lines = vec![
        format!("{verb} {} in place", report.db),
        format!("  from {} ({} in {} ms)", report.backup, bytes(report.size_bytes), millis(report.duration)),
        format!("  the content before is in {}; engram-restore undo puts it back", report.pre_restore),
    ];
    if report.wal_bytes_after > report.wal_bytes_before {
        let (before, after) = (bytes(report.wal_bytes_before), bytes(report.wal_bytes_after));
        lines.push(format!("  the WAL grew from {before} to {after}, which SQLite uses again"));
    }
    if !report.wal_is_folded {
        lines.push("  some of it is not in the main file yet, because readers keep it from there".to_owned());
    }
    if report.unproven.is_none() {
        lines.push("  proven through a new connection: schema and rows are those of the backup".to_owned());
    }
    Outcome::new(Exit::Done, fields, joined(&lines))
}

/// What a restore or undo in place would do.
pub(crate) fn planned_in_place(plan: &InPlacePlan) -> Outcome {
    let mut fields = nothing_done(&plan.db, Some(&plan.new.path), true);
    fields["pre_restore"] = plan.pre_restore.as_str().into();
    fields["size_bytes"] = plan.new.size_bytes.into();
    fields["blake3"] = json!(plan.new.blake3);
    fields["dry_run"] = true.into();
    fields["plan"] = json!(plan);
    let mut lines = vec![
        format!("would put the content of {} ({})", plan.new.path, bytes(plan.new.size_bytes)),
        format!("  into {} ({}, {} journal mode)", plan.db, bytes(plan.old_bytes), plan.journal_mode.name()),
        format!("  would back up the present content to {}", plan.pre_restore),
        format!("  would write up to {} beside it or into it", bytes(plan.written_bytes)),
    ];
    lines.extend(plan.holders.iter().map(|holder| format!("  open in {holder}, which would see the new content")));
    lines.extend(plan.holders_unseen.iter().map(|why| format!("  not everybody was seen: {why}")));
    lines.push("nothing was changed".to_owned());
    Outcome::new(Exit::Done, fields, joined(&lines)).essential()
}

/// What a restore or undo did.
pub(crate) fn finished(report: &RestoreReport, verb: &str) -> Outcome {
    let fields = json!({
        "db": report.db,
        "backup": report.backup,
        "pre_restore": report.pre_restore,
        "earlier_pre_restore": report.earlier_pre_restore,
        "orphans": report.orphans,
        "size_bytes": report.size_bytes,
        "blake3": report.blake3,
        "duration_ms": millis(report.duration),
        "mode": "swap",
    });
    let mut lines = vec![
        format!("{verb} {}", report.db),
        format!("  from {} ({} in {} ms)", report.backup, bytes(report.size_bytes), millis(report.duration)),
    ];
    match &report.pre_restore {
        Some(kept) if report.old_was_openable => {
            lines.push(format!("  the old database is at {kept}; engram-restore undo puts it back"));
        }
        Some(kept) => lines.push(format!("  the old database, which could not be opened, is at {kept} as it was")),
        None => lines.push("  there was no old database".to_owned()),
    }
    if let Some(earlier) = &report.earlier_pre_restore {
        lines.push(format!("  the one that was kept before is now {earlier}"));
    }
    for orphan in &report.orphans {
        lines.push(format!("  what a lost database left beside it is kept at {orphan}"));
    }
    Outcome::new(Exit::Done, fields, joined(&lines))
}

/// What a restore or undo would do.
pub(crate) fn planned(plan: &RestorePlan) -> Outcome {
    let fields = json!({
        "db": plan.db,
        "backup": plan.new.path,
        "pre_restore": plan.pre_restore,
        "size_bytes": plan.new.size_bytes,
        "blake3": plan.new.blake3,
        "duration_ms": null,
        "mode": "swap",
        "dry_run": true,
        "plan": plan,
    });
    let mut lines = vec![
        format!("would put {} ({})", plan.new.path, bytes(plan.new.size_bytes)),
        format!("  in the place of {}, in {} journal mode", plan.db, plan.new.journal_mode.name()),
    ];
    match &plan.old {
        OldDatabase::Missing { orphans } => {
            lines.push("  there is no old database".to_owned());
            lines.extend(orphans.iter().map(|orphan| format!("  would keep its orphan {orphan} under another name")));
        }
        OldDatabase::Present { size_bytes, sidecars, .. } => {
            lines.extend(sidecars.iter().map(|sidecar| format!("  would fold {sidecar} into the old database first")));
            if let Some(earlier) = &plan.earlier_pre_restore {
                lines.push(format!("  would rename {earlier} to a name with the time"));
            }
            let kept = plan.pre_restore.as_ref().map_or("", |kept| kept.as_str());
            lines.push(format!("  would keep the old database ({}) at {kept}", bytes(*size_bytes)));
        }
    }
    lines.push("nothing was changed".to_owned());
    Outcome::new(Exit::Done, fields, joined(&lines)).essential()
}

fn joined(lines: &[String]) -> String {
    lines.iter().map(|line| printable(line) + "\n").collect()
}
