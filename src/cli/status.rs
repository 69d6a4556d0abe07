//! `status`: one look at the health.

use std::fmt::Write as _;

use engram_restore::{Event, GuardState, Observer as _, RestoreState, Result, StatusOptions, StatusReport, status};
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::args::StatusArgs;
use super::context::Context;
use super::exit::Exit;
use super::list::{entry, history_unread, look_text};
use super::output::{Outcome, bytes, printable};
use super::progress::Progress;
use super::show::integrity_text;

pub(crate) fn run(args: &StatusArgs, context: &Context, progress: &mut Progress) -> Result<Outcome> {
    let options = StatusOptions {
        database: context.database()?,
        archive: context.archive()?,
        scope: context.scope(args.any_source)?,
        max_age: args.max_age,
        now: jiff::Timestamp::now(),
    };
    let report = status(&options)?;
    if let Some(backup) = &report.last_backup
        && backup.manifest.source.path != report.db
        && !args.any_source
    {
        let (path, other) = (&backup.path, &backup.manifest.source.path);
        progress.event(Event::Warning(&format!("{path} was taken of {other}: there is none of {}", report.db)));
    }
    if let Some(why) = &report.history_unread {
        progress.event(Event::Warning(&history_unread(why)));
    }
    let exit = Exit::of_verdict(report.verdict);
    Ok(Outcome::new(exit, fields(&report, &options), text(&report, &options)).essential())
}

fn fields(report: &StatusReport, options: &StatusOptions) -> Value {
    let last_backup = report.last_backup.as_ref().map(|backup| {
        let mut fields = entry(backup, report.proofs.as_ref());
        fields["age_seconds"] = json!(report.age.map(|age| age.as_secs()));
        fields
    });
    json!({
        "verdict": report.verdict,
        "db": report.db,
        "size_bytes": report.size_bytes,
        "archive": options.archive,
        "last_backup": last_backup,
        "last_verified": report.last_verified,
        "never_passed": report.never_passed,
        "interrupted_restore": report.restore.as_ref().and_then(|restore| restore.interrupted(&report.db)),
        "running": if let Some(RestoreState::Running(holder)) = &report.restore { Some(holder) } else { None },
        "guard": report.guard.as_ref().and_then(guard_json),
        "holders": report.holders.holders,
        "holders_unseen": holders_unseen(report),
        "problems": report.problems,
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

fn text(report: &StatusReport, options: &StatusOptions) -> String {
    let size = report.size_bytes.map_or_else(|| "missing".to_owned(), bytes);
    let mut rows = vec![
        ("database", format!("{} ({size})", report.db)),
        ("archive", options.archive.to_string()),
        (
            "last backup",
            match (&report.last_backup, report.age) {
                (Some(backup), Some(age)) => format!(
                    "{}, {}, integrity check: {}",
                    backup.path.file_name().unwrap_or_default(),
                    ago(age),
                    integrity_text(&backup.manifest.integrity_check)
                ),
                _ => "none".to_owned(),
            },
        ),
        ("last verified", verified_text(report)),
        ("restore", report.restore.as_ref().map_or_else(|| "could not be looked at".to_owned(), restore_text)),
    ];
    if let Some(GuardState::Running(holder)) = &report.guard {
        rows.push(("guard", format!("a command is guarded: {holder}")));
    }
    let holders = report.holders.holders.iter().map(ToString::to_string).chain(holders_unseen(report).map(Into::into));
    let holders: Vec<_> = holders.collect();
    rows.push(("open in", if holders.is_empty() { "no program".to_owned() } else { holders.join(", ") }));
    let mut text = format!("{}\n", report.verdict);
    for problem in &report.problems {
        // Writing into a String does not fail.
        writeln!(text, "  {}", printable(problem)).unwrap_or_default();
    }
    for (name, value) in rows {
        writeln!(text, "{name:16} {}", printable(&value)).unwrap_or_default();
    }
    text
}

/// The last look, and whether it was at the newest backup.
fn verified_text(report: &StatusReport) -> String {
    let Some(last) = &report.last_verified else { return "never".to_owned() };
    let newest = report.last_backup.as_ref().map(|backup| &backup.path);
    let name = last.backup.file_name().unwrap_or_default();
    let of = if newest == Some(&last.backup) { String::new() } else { format!(", {name}") };
    let never = match report.never_passed {
        0 => String::new(),
        count => format!("; never passed: {count}"),
    };
    format!("{}{of}{never}", look_text(&last.look))
}

fn restore_text(state: &RestoreState) -> String {
    match state {
        RestoreState::Idle => "none under way, none interrupted".to_owned(),
        RestoreState::Running(holder) => format!("under way: {holder}"),
        RestoreState::Interrupted(_) | RestoreState::InPlace(_) | RestoreState::Unexplained(_) => {
            "interrupted".to_owned()
        }
    }
}

fn ago(age: SignedDuration) -> String {
    if age.is_negative() {
        return "taken later than now".to_owned();
    }
    format!("{:#} ago", SignedDuration::from_secs(age.as_secs()))
}
