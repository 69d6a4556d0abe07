//! `prune`: remove backups that the retention policy no longer keeps, and the same after a backup, a guard or a restore.

use std::io::{self, IsTerminal};

use camino::Utf8PathBuf;
use engram_restore::{
    ErrorKind, Event, Judged, KeptPlan, Observer as _, PruneKeptOptions, PruneOptions, PrunePlan, PruneReport, Result,
    plan_prune, plan_prune_kept, prune, prune_kept,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::args::PruneArgs;
use super::context::{Context, reason};
use super::exit::Exit;
use super::output::{Outcome, bytes, printable, table};
use super::progress::Progress;

/// How long a prune that nobody asked for waits for another run.
const WAIT: std::time::Duration = std::time::Duration::from_secs(1);

pub(crate) fn run(args: &PruneArgs, context: &Context, progress: &mut Progress) -> Result<Outcome> {
    let now = Timestamp::now();
    let mut policy = context.config().retention();
    for (given, rule) in [
        (args.keep_last, &mut policy.keep_last),
        (args.keep_days, &mut policy.keep_days),
        (args.keep_daily, &mut policy.keep_daily),
        (args.keep_weekly, &mut policy.keep_weekly),
        (args.keep_monthly, &mut policy.keep_monthly),
        (args.min_keep, &mut policy.min_keep),
    ] {
        *rule = given.or(*rule);
    }
    if !args.keep_label.is_empty() {
        policy.keep_labels.clone_from(&args.keep_label);
    }
    let options = PruneOptions {
        archive: context.archive()?,
        scope: context.scope(args.any_source)?,
        policy,
        now,
        database: Some(context.database()?),
        wait: args.wait,
        named: Vec::new(),
        trusted: context.trusted()?,
    };
    if args.dry_run {
        context.interrupted(&[], progress);
    }
    let kept_options = kept_options(context, args.wait, now)?;
    let (plan, done) = if args.dry_run {
        (plan_prune(&options, progress)?, None)
    } else {
        let PruneReport { plan, removed, finished, freed_bytes } = prune(&options, context.storage(), progress)?;
        (plan, Some((removed, finished, freed_bytes)))
    };
    let kept = if args.dry_run {
        plan_prune_kept(&kept_options)
    } else {
        prune_kept(&kept_options, context.storage(), progress)
    };
    let kept = old_databases(kept, progress)?;
    warn(&plan, progress);
    let database = context.database()?;
    for orphan in plan.orphans.iter().filter(|orphan| **orphan != database) {
        progress.event(Event::Warning(&format!("{orphan} has no manifest: it is no backup, and is left alone")));
    }
    let mut fields = fields(&plan, done.as_ref());
    fields["pre_restore"] = json!(kept);
    fields["dry_run"] = args.dry_run.into();
    let text = text(&plan, done.as_ref(), &kept, now);
    Ok(match plan.refused {
        Some(error) => {
            Outcome { text, ..Outcome::refused(Exit::of_error(error.kind(), None), fields, error) }.essential()
        }
        None if args.dry_run || !plan.has_rule => Outcome::new(Exit::Done, fields, text).essential(),
        None => Outcome::new(Exit::Done, fields, text),
    })
}

/// What a prune of the old databases could not do is no reason to fail: no backup depends on it.
fn old_databases(found: Result<KeptPlan>, progress: &mut Progress) -> Result<KeptPlan> {
    found.or_else(|e| {
        if e.kind() == ErrorKind::Interrupted {
            return Err(e);
        }
        progress.event(Event::Warning(&format!("old databases of restores are left as they are: {}", e.message())));
        Ok(KeptPlan::default())
    })
}

fn kept_options(context: &Context, wait: std::time::Duration, now: Timestamp) -> Result<PruneKeptOptions> {
    Ok(PruneKeptOptions { database: context.database()?, policy: context.config().pre_restore(), wait, now })
}

/// What the configured policy removes after a good backup; `None` if there is no rule. A failure is a warning: the backup is
/// there. Records had `named` these before the backup explained them.
pub(crate) fn after_backup(
    context: &Context,
    named: Vec<String>,
    progress: &mut Progress,
) -> Result<Option<PruneReport>> {
    let policy = context.config().retention();
    if !policy.has_rule() {
        return Ok(None);
    }
    let scope = context.scope(false)?;
    // The backup has settled what there was.
    let (archive, database) = (context.archive()?, None);
    let trusted = context.trusted()?;
    let options = PruneOptions { archive, scope, policy, now: Timestamp::now(), database, wait: WAIT, named, trusted };
    match prune(&options, context.storage(), progress) {
        Ok(report) => {
            warn(&report.plan, progress);
            if let Some(error) = &report.plan.refused {
                progress.event(Event::Warning(&format!("no old backup was removed: {}", error.message())));
            }
            Ok(Some(report))
        }
        Err(e) => {
            let state = e.target_state().map_or_else(String::new, |target| format!(" ({})", target.sentence));
            progress.event(Event::Warning(&format!("old backups were not removed{state}: {}", e.message())));
            Ok(None)
        }
    }
}

/// What was removed after a backup, in its JSON.
pub(crate) fn pruned_json(report: &PruneReport) -> Value {
    json!({
        "removed": report.removed,
        "kept": report.plan.kept().map(|judged| &judged.backup).collect::<Vec<_>>(),
        "freed_bytes": report.freed_bytes,
    })
}

/// The same as lines.
pub(crate) fn pruned_lines(report: &PruneReport) -> Vec<String> {
    report.removed.iter().chain(&report.finished).map(|path| format!("  pruned {path}")).collect()
}

/// Removes old databases after a restore; the main files that are gone.
pub(crate) fn after_restore(context: &Context, progress: &mut Progress) -> Vec<Utf8PathBuf> {
    let pruned = kept_options(context, WAIT, Timestamp::now())
        .and_then(|options| prune_kept(&options, context.storage(), progress));
    pruned.map_or_else(
        |e| {
            let text = format!("old databases of earlier restores are left as they are: {}", e.message());
            progress.event(Event::Warning(&text));
            Vec::new()
        },
        |plan| plan.removed,
    )
}

fn warn(plan: &PrunePlan, progress: &mut Progress) {
    for verdict in &plan.passed_over {
        progress.event(Event::Warning(&reason(verdict)));
    }
    for path in &plan.unreadable {
        let text = format!("{path} is left alone: its manifest cannot be read (see: engram-restore verify --all)");
        progress.event(Event::Warning(&text));
    }
}

type Done = (Vec<Utf8PathBuf>, Vec<Utf8PathBuf>, u64);

fn fields(plan: &PrunePlan, done: Option<&Done>) -> Value {
    let paths = |judged: &mut dyn Iterator<Item = &Judged>| judged.map(|one| one.backup.clone()).collect::<Vec<_>>();
    let foreseen_bytes: u64 = plan.removed().map(|judged| judged.size_bytes).sum();
    json!({
        "removed": done.map_or_else(|| paths(&mut plan.removed()), |(removed, ..)| removed.clone()),
        "kept": paths(&mut plan.kept()),
        "freed_bytes": done.map_or(foreseen_bytes, |(_, _, freed_bytes)| *freed_bytes),
        "finished": done.map_or(&plan.half_pruned, |(_, finished, _)| finished),
        "has_rule": plan.has_rule,
        "unreadable": plan.unreadable,
        "orphans": plan.orphans,
        "backups": plan.backups.iter().map(|judged| json!({
            "backup": judged.backup,
            "created_at": judged.created_at,
            "size_bytes": judged.size_bytes,
            "keep": judged.stays(),
            "reasons": judged.reasons.iter().map(|reason| json!({ "code": reason.code(), "text": reason.to_string() }))
                .collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
    })
}

fn text(plan: &PrunePlan, done: Option<&Done>, kept: &KeptPlan, now: Timestamp) -> String {
    let mut lines = Vec::new();
    let verb = if done.is_some() { "removed" } else { "would remove" };
    let (count, freed_bytes) = if let Some((removed, _, freed_bytes)) = done {
        lines.extend(removed.iter().map(|path| line(&format!("{verb} {path}"))));
        (removed.len(), *freed_bytes)
    } else {
        if plan.has_rule {
            lines.push(plan_table(plan, now));
        }
        (plan.removed().count(), plan.removed().map(|judged| judged.size_bytes).sum())
    };
    let finished = done.map_or(&plan.half_pruned, |(_, finished, _)| finished);
    lines.extend(finished.iter().map(|path| line(&format!("{verb} what an interrupted prune left of {path}"))));
    lines.extend(kept.removed.iter().map(|path| line(&format!("{verb} the old database {path}"))));
    lines.push(if plan.has_rule {
        let freed = bytes(freed_bytes.saturating_add(kept.freed_bytes));
        line(&format!("{verb} {count} of {} backups ({freed})", plan.backups.len()))
    } else {
        line("no backup is removed: there is no keep rule; give one (--keep-last N, ...) or configure it ([retention])")
    });
    if done.is_none() {
        lines.push(line("nothing was changed"));
    }
    lines.concat()
}

fn line(text: &str) -> String {
    printable(text) + "\n"
}

/// Backup, age, size, what becomes of it, and why.
fn plan_table(plan: &PrunePlan, now: Timestamp) -> String {
    let row = |judged: &Judged| {
        let reasons: Vec<_> = judged.reasons.iter().map(ToString::to_string).collect();
        [
            printable(judged.backup.file_name().unwrap_or_default()),
            age(now.duration_since(judged.created_at)),
            bytes(judged.size_bytes),
            if judged.stays() { "keep" } else { "remove" }.to_owned(),
            if judged.stays() { printable(&reasons.join("; ")) } else { "no rule keeps it".to_owned() },
        ]
    };
    let rows = plan.backups.iter().map(row);
    if !io::stdout().is_terminal() {
        return rows.map(|row| row.join("\t") + "\n").collect();
    }
    table(["backup", "age", "size", "", "why"], rows)
}

fn age(age: SignedDuration) -> String {
    if age.is_negative() {
        return "later than now".to_owned();
    }
    let hours = age.as_hours();
    match hours {
        0 => format!("{} min", age.as_mins()),
        1..48 => format!("{hours} h"),
        _ => format!("{} d", hours / 24),
    }
}
