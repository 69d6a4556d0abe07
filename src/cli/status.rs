//! `status`: one look at the health.

use std::fmt::Write as _;

use engram_restore::{
    Event, GuardState, Observer as _, RestoreState, Result, StatusOptions, StatusReport, status, write_metrics,
};
use serde_json::{Value, json};

use super::args::StatusArgs;
use super::config::Key;
use super::context::{Context, absolute};
use super::exit::Exit;
use super::list::entry;
use super::output::{Outcome, colored, printable};
use super::progress::Progress;

pub(crate) fn run(args: &StatusArgs, context: &Context, progress: &mut Progress) -> Result<Outcome> {
    let metrics = args.prometheus.as_ref().map(|path| absolute(path)).transpose()?;
    let options = StatusOptions {
        database: context.database()?,
        archive: context.archive()?,
        scope: context.scope(args.any_source)?,
        max_age: args.max_age.or(context.config().duration(Key::StatusMaxAge)),
        now: jiff::Timestamp::now(),
        trusted: context.trusted()?,
    };
    let report = status(&options)?;
    if context.is_json() {
        // As text they are lines of the answer itself.
        for warning in report.warnings() {
            progress.event(Event::Warning(warning));
        }
    }
    let outcome = Outcome::new(Exit::of_verdict(report.verdict), fields(&report, &options), text(&report)).essential();
    let Some(path) = metrics else { return Ok(outcome) };
    // Whatever the verdict is: on the day of a failure it counts.
    Ok(match write_metrics(&report, &path, options.now, context.storage()) {
        Ok(()) => outcome,
        Err(e) => Outcome { exit: Exit::of_error(e.kind(), None), error: Some(e), ..outcome },
    })
}

fn fields(report: &StatusReport, options: &StatusOptions) -> Value {
    let last_backup = report.last_backup.as_ref().map(|backup| {
        let mut fields = entry(backup, report.proofs.as_ref());
        fields["age_seconds"] = json!(report.age.map(|age| age.as_secs()));
        fields
    });
    json!({
        "verdict": report.verdict,
        "checks": report.checks,
        "db": report.db,
        "size_bytes": report.size_bytes,
        "writer_version": report.writer_version,
        "archive": options.archive,
        "last_backup": last_backup,
        "last_verified": report.last_verified,
        "backups": report.backups,
        "pinned": report.pinned,
        "never_passed": report.never_passed,
        "unreadable": report.unreadable,
        "orphans": report.orphans,
        "half_pruned": report.half_pruned,
        "growth_bytes_per_day": report.growth_bytes_per_day,
        "space": report.space,
        "interrupted_restore": report.restore.as_ref().and_then(|restore| restore.interrupted(&report.db)),
        "running": if let Some(RestoreState::Running(holder)) = &report.restore { Some(holder) } else { None },
        "guard": report.guard.as_ref().and_then(guard_json),
        "holders": report.holders.holders,
        "holders_unseen": holders_unseen(report),
        "problems": report.problems(),
    })
}

/// A guarded command that runs, or what one has left.
fn guard_json(state: &GuardState) -> Option<Value> {
    let (state, message) = match state {
        GuardState::Idle => return None,
        GuardState::Running(holder) => ("running", holder),
        GuardState::Unguarded(text) => ("unguarded", text),
        GuardState::Interrupted(text) => ("interrupted", text),
        GuardState::Unexplained(text) => ("unexplained", text),
    };
    Some(json!({ "state": state, "message": message }))
}

/// Why not everybody who has it open may be among the holders.
fn holders_unseen(report: &StatusReport) -> Option<&str> {
    let unnamed = report.holders.unnamed.then_some("somebody who cannot be named from here has it open");
    unnamed.or(report.holders.unseen.as_deref())
}

/// The verdict, and a line for each thing that was looked at.
fn text(report: &StatusReport) -> String {
    let mut text = format!("{}\n", colored(report.verdict));
    for check in &report.checks {
        let (health, name) = (check.health.name(), check.name);
        // Writing into a String does not fail.
        writeln!(text, "{health:12}  {name:16}  {}", printable(&check.message)).unwrap_or_default();
    }
    text
}
