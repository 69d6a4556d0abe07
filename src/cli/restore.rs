//! `restore`: put a verified backup in the database's place.

use camino::Utf8Path;
use engram_restore::{OldDatabase, RestoreOptions, RestorePlan, RestoreReport, Result, plan_restore, restore};
use serde_json::{Value, json};

use super::args::RestoreArgs;
use super::context::Context;
use super::exit::Exit;
use super::output::{Outcome, bytes, millis, printable};
use super::progress::Progress;

pub(crate) fn run(args: &RestoreArgs, context: &Context, progress: &mut Progress) -> Result<Outcome> {
    let database = context.database()?;
    let backup = match context.backup(&args.backup, args.any_source, progress) {
        Ok(backup) => backup,
        Err(e) => return Outcome::found(e, nothing_done(&database, None)),
    };
    let options = RestoreOptions {
        database,
        backup: backup.clone(),
        deep: args.deep,
        wait: args.wait,
        now: jiff::Timestamp::now(),
    };
    let done = if args.dry_run {
        plan_restore(&options, progress).map(|plan| planned(&plan))
    } else {
        restore(&options, context.storage(), progress).map(|report| finished(&report, "restored"))
    };
    done.or_else(|e| Outcome::found(e, nothing_done(&options.database, Some(&backup))))
}

/// The fields of a restore or undo that found damage instead.
pub(crate) fn nothing_done(db: &Utf8Path, backup: Option<&Utf8Path>) -> Value {
    json!({
        "db": db, "backup": backup, "pre_restore": null, "earlier_pre_restore": null, "orphans": [],
        "size_bytes": null, "blake3": null, "duration_ms": null, "mode": "swap",
    })
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
