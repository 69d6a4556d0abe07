//! A daemon is at work: it has the database open while it is to be restored, or commits while it is backed up.

use std::time::{Duration, Instant};

use jiff::SignedDuration;

use crate::check::{CheckOptions, Depth, check};
use crate::drill::application::Daemon;
use crate::drill::report::Rpo;
use crate::drill::scratch;
use crate::drill::stage::Stage;
use crate::error::Result;
use crate::fingerprint::TableContent;
use crate::manifest::Hex32;
use crate::observe::Quiet;
use crate::sample::{Application, DRILL_TABLE};

/// Commits in a second.
const PER_SECOND: u64 = 200;

/// A daemon that has not committed for so long does so no more.
const PATIENCE: Duration = Duration::from_secs(10);

/// By a swap it would go on with a file that nobody finds any more: that is refused. In place it goes on with the new content.
pub(super) fn keeps_open(stage: &mut Stage<'_>) -> Result<()> {
    let (database, began_at) = (stage.database.clone(), jiff::Timestamp::now());
    // What would stay if nothing was restored, whatever the daemon writes meanwhile.
    Application::open(&database)?.mark()?;
    let mut daemon = stage.step("start a daemon", |stage| {
        let daemon = Daemon::start(&stage.cast.application, &database, PER_SECOND)?;
        Ok((daemon, format!("it has the database open, and makes {PER_SECOND} commits a second")))
    })?;
    let before = Application::open(&database)?.commits()?;
    stage.run("restore beside it", &["restore", "latest-good"], 3)?;
    stage.step("look whether it goes on", |stage| {
        let (runs, after) = (daemon.is_running(&database)?, Application::open(&database)?.commits()?);
        if !runs || after < before {
            stage.problem(format!("after a restore that was refused, {after} of {before} commits are there"));
        }
        Ok(((), format!("{after} commits, {before} before")))
    })?;
    let (last, given_up_at) = (Application::open(&database)?.commits()?, jiff::Timestamp::now());
    let run = stage.run("restore in place", &["restore", "latest-good", "--in-place", "--wait", "10"], 0)?;
    stage.report.backup = run.path("backup");
    stage.report.rto = Some(run.rto());
    let past = stage.past;
    // From the backup to the last commit of the past, and from where the daemon went on. What it commits while the restore is under
    // way goes too, and nobody can count it.
    let window = past.present.at.duration_since(past.newest.at) + given_up_at.duration_since(began_at);
    stage.report.rpo = Some(lost(window, last.saturating_sub(past.newest.commits)));
    stage.step("look whether it goes on with the new content", |stage| {
        let restored = Application::open(&database)?.commits()?;
        let start = Instant::now();
        let mut now = restored;
        while now <= restored && start.elapsed() < PATIENCE && daemon.is_running(&database)? {
            now = Application::open(&database)?.commits()?;
        }
        if now <= restored {
            stage.problem(format!("the daemon has committed nothing more within {} s", PATIENCE.as_secs()));
        }
        daemon.kill(&database)?;
        Ok(((), format!("{restored} commits were there, {now} a moment later; then it was killed")))
    })?;
    let seen = stage.look()?;
    let newest = stage.past.newest.path.clone();
    stage.step("compare every table but the daemon's own", |stage| {
        let (restored, expected) = (tables(&stage.database)?, tables(&newest)?);
        if restored != expected {
            stage.problem("the tables that the daemon does not write to are not those of the backup");
        }
        let floor = stage.past.newest.commits;
        let commits = seen.commits.unwrap_or_default();
        if commits < floor {
            stage.problem(format!("{commits} commits are there, {floor} were in the backup"));
        }
        Ok((
            (),
            format!(
                "{} tables are the same; the daemon has {commits} commits, {floor} were in the backup",
                expected.1.len()
            ),
        ))
    })
}

/// The schema, and every table but the one that the daemon writes to.
fn tables(file: &camino::Utf8Path) -> Result<(Option<Hex32>, Vec<TableContent>)> {
    let report = check(file, &CheckOptions { depth: Depth::Fingerprint, ..CheckOptions::default() }, &mut Quiet)?;
    let tables = report.content.tables.into_iter().filter(|table| table.name != DRILL_TABLE).collect();
    Ok((report.content.schema, tables))
}

/// What was committed before the backup began has to be in it, however busy the database is.
pub(super) fn under_load(stage: &mut Stage<'_>) -> Result<()> {
    let database = stage.database.clone();
    let daemon = stage.step("start a daemon", |stage| {
        let daemon = Daemon::start(&stage.cast.application, &database, 10 * PER_SECOND)?;
        Ok((daemon, format!("it makes up to {} commits a second", 10 * PER_SECOND)))
    })?;
    let before = Application::open(&database)?.commits()?;
    // It holds what was there at some moment after this.
    let taken_at = jiff::Timestamp::now();
    let run = stage.run("back up beside it", &["backup"], 0)?;
    let taken = run.path("backup");
    daemon.kill(&database)?;
    let killed_at = jiff::Timestamp::now();
    let all = Application::open(&database)?.commits()?;
    stage.disaster("delete the database", |stage| {
        for suffix in ["", "-wal", "-shm"] {
            scratch::remove(&scratch::beside(&stage.database, suffix))?;
        }
        Ok(format!("{all} commits were made, {before} of them before the backup began"))
    })?;
    let restored = stage.restore(&["latest-good"])?;
    if taken.is_none() || restored.path("backup") != taken {
        stage.problem("what was restored is not the backup that was taken beside the daemon");
    }
    let seen = stage.look()?;
    let commits = seen.commits.unwrap_or_default();
    if tables(&stage.database)? != tables(&stage.past.newest.path)? {
        stage.problem("the tables that the daemon does not write to are not what they were");
    }
    if commits < before || commits > all {
        stage.problem(format!("{commits} commits came back; {before} were made before the backup, {all} in all"));
    }
    stage.report.rpo = Some(lost(killed_at.duration_since(taken_at), all.saturating_sub(commits)));
    Ok(())
}

/// So many commits, each a row, within this time.
fn lost(window: SignedDuration, commits: u64) -> Rpo {
    // Whatever the clock says, something is lost in some time.
    let window_ms = if commits == 0 { 0 } else { u64::try_from(window.as_millis()).unwrap_or(0).max(1) };
    Rpo { window_ms: Some(window_ms), commits: Some(commits), rows: Some(commits), ..Rpo::default() }
}
