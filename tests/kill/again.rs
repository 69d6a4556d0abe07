//! After a run that was interrupted or failed: `recover`, and the same command again.

use crate::promises::{Found, Report, Side, found};
use crate::run::Run;
use crate::scenario::{Stage, Template};

/// Recovers what was left on this side of the commit, and looks whether it says what it did.
pub(crate) fn recover(stage: &mut Stage<'_>, before: Option<Side>, report: &mut Report) {
    let was_under_way = stage.is_under_way();
    let run = stage.run(&["recover", "--json"]);
    if !check_done(stage, "recover", &run, report) {
        return;
    }
    let after = stage.check_settled("after recover", report);
    let expected = match (was_under_way, before) {
        (false, _) => "nothing",
        (true, Some(Side::New)) => "finished",
        (true, Some(Side::Old) | None) => "undone",
    };
    let json = run.json();
    let outcome = json.as_ref().map(|json| json["outcome"].as_str().unwrap_or_default());
    if run.stdout.contains("by somebody") {
        report.add(stage, &format!("recover takes its own doing for somebody else's: {run:?}"));
    }
    if after != before || outcome != Ok(expected) {
        report.add(stage, &format!("recover says {outcome:?}, not {expected}: {before:?} before, {after:?} after"));
    }
}

/// The same command again, without a fault. Whatever there was before the first one is still there.
pub(crate) fn act_again(mut stage: Stage<'_>, report: &mut Report) {
    if stage.template.scenario.action.replaces() {
        replace_again(&mut stage, report);
    } else {
        back_up_again(&mut stage, report);
    }
}

fn replace_again(stage: &mut Stage<'_>, report: &mut Report) {
    let template = stage.template;
    let before = stage.side();
    let mut run = stage.run(&[&template.words()[..], &["--json"]].concat());
    if run.stdout.contains("undone now") {
        // An undo that finds an interrupted one is content with taking that back.
        stage.check_settled("after an undo that recovered", report);
        run = stage.run(&template.words());
    }
    let is_redo = is_redo(template, before);
    if is_redo && template.old.is_unopenable() {
        if run.status == Some(0) {
            report.add(stage, &format!("what cannot be opened was put back: {run:?}"));
        }
        stage.check_settled("after a redo that is refused", report);
        return;
    }
    let expected = if is_redo { Side::Old } else { Side::New };
    if check_done(stage, "the same again", &run, report) {
        let after = stage.check_settled("after the same again", report);
        if after != Some(expected) {
            report.add(stage, &format!("the same again leads from {before:?} to {after:?}"));
        }
    }
}

/// Undoing a second time is a redo; but where there was no database, none was kept.
fn is_redo(template: &Template, before: Option<Side>) -> bool {
    template.scenario.action.is_undo() && before == Some(Side::New) && !template.old.is_missing()
}

fn back_up_again(stage: &mut Stage<'_>, report: &mut Report) {
    let template = stage.template;
    let run = stage.run(&template.words());
    if run.status != template.undisturbed.status {
        report.add(stage, &format!("the same again ends otherwise than alone: {run:?}"));
    }
    let backups = stage.check_archive("after the same again", report);
    let left = stage.partial_backups();
    if run.status == Some(0) && (backups == 0 || !left.is_empty()) {
        report.add(stage, &format!("{backups} backups after the same again, left over: {left:?}"));
    }
}

/// A backup comes first: of the database that is there, and beside it that is as complete as before.
pub(crate) fn back_up_first(mut stage: Stage<'_>, side: Option<Side>, report: &mut Report) {
    let before = found(&stage.db);
    if !matches!(before, Found::Database(_)) {
        return;
    }
    let run = stage.run(&["backup", "--path", "first.db"]);
    if check_done(&stage, "a backup before anything else", &run, report) {
        let copied = found(&stage.root.join("first.db"));
        if copied != before || stage.check("after a backup", report) != side {
            report.add(&stage, &format!("the backup is {copied:?}, the database {:?}", found(&stage.db)));
        }
    }
}

/// A run that is to work.
fn check_done(stage: &Stage<'_>, what: &str, run: &Run, report: &mut Report) -> bool {
    if run.status != Some(0) {
        report.add(stage, &format!("{what} fails: {run:?}"));
    }
    run.status == Some(0)
}
