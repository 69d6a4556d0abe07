//! The restore itself is killed, at each of its steps and anywhere, and so is the recovery. Whenever that is, an application finds
//! the complete old or the complete new database, and `recover` leaves nothing of it.

use camino::Utf8Path;
use fastrand::Rng;

use crate::drill::judge;
use crate::drill::kept::copy_to;
use crate::drill::scratch;
use crate::drill::stage::{Stage, UNDER_WAY};
use crate::drill::tool::Disturbed;
use crate::error::{Error, ErrorKind, Result};

/// What is killed.
const RESTORE: [&str; 2] = ["restore", "latest-good"];

/// Kills at random.
const KILLS: u64 = 12;

/// What the name of an old database has that a restore keeps.
const KEPT: &str = ".pre-restore";

pub(super) fn at_each_step(stage: &mut Stage<'_>) -> Result<()> {
    let steps = stage.step("find the steps", |stage| {
        let steps = steps(stage)?;
        let names: Vec<_> = steps.iter().map(|(at, name)| format!("{name} ({at})")).collect();
        Ok((steps, format!("{}, each by the number of its first file operation", names.join(", "))))
    })?;
    stage.step("kill it at each, recover", |stage| {
        let mut tally = Tally::default();
        for (at, _name) in &steps {
            kill(stage, *at, None, &mut tally)?;
        }
        Ok(((), tally.to_string()))
    })
}

pub(super) fn at_random(stage: &mut Stage<'_>) -> Result<()> {
    let operations = stage.step("count the operations", |stage| {
        let operations = operations(stage)?;
        Ok((operations, format!("{operations} file operations")))
    })?;
    stage.step("kill it anywhere, kill the recovery, recover", |stage| {
        let (mut tally, mut lot) = (Tally::default(), Rng::with_seed(stage.cast.seed));
        for _ in 0..KILLS {
            // A recovery has fewer operations; beyond its last one it is not killed.
            let (at, then_at) = (lot.u64(..operations), lot.u64(..16));
            kill(stage, at, Some(then_at), &mut tally)?;
        }
        Ok(((), format!("{tally}, seed {}", stage.cast.seed)))
    })
}

/// What came of the kills.
#[derive(Default)]
struct Tally {
    kills: u64,
    recoveries_killed: u64,
    old: u64,
    new: u64,
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kills, recoveries_killed, old, new } = self;
        write!(f, "{kills} kills: {old} times the old database was there at once, {new} times the new one")?;
        if *recoveries_killed > 0 {
            write!(f, "; {recoveries_killed} recoveries were killed too")?;
        }
        Ok(())
    }
}

/// Kills a restore before an operation, looks, recovers (killed before an operation of its own, if so), and looks again.
fn kill(stage: &mut Stage<'_>, at: u64, recover_at: Option<u64>, tally: &mut Tally) -> Result<()> {
    stage.reset()?;
    let killed = stage.cast.tool.run_disturbed(&RESTORE, &Disturbed::KilledAt(at))?;
    if !killed.was_killed() {
        stage.problem(format!("operation {at}: the restore was to be killed there, but: {}", killed.ended()));
        return Ok(());
    }
    tally.kills += 1;
    match whole(stage, &format!("killed before operation {at}"))? {
        Some(Which::Old) => tally.old += 1,
        Some(Which::New) => tally.new += 1,
        None => {}
    }
    if let Some(recover_at) = recover_at {
        let killed = stage.cast.tool.run_disturbed(&["recover"], &Disturbed::KilledAt(recover_at))?;
        if killed.was_killed() {
            tally.recoveries_killed += 1;
            whole(stage, &format!("killed before operation {at}, its recovery before operation {recover_at}"))?;
        }
    }
    recovered(stage, &format!("killed before operation {at}"))
}

/// Which of the two databases it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    Old,
    New,
}

/// What an application finds now, on a copy, so that nothing changes for who comes next. A problem, unless it is all of the old
/// or all of the new database.
pub(super) fn whole(stage: &mut Stage<'_>, when: &str) -> Result<Option<Which>> {
    stage.cast.cancel.check("drill", &stage.database)?;
    let copy = copy_to(&stage.database, &stage.aside("look")?)?;
    judged(stage, &copy, when)
}

fn judged(stage: &mut Stage<'_>, database: &Utf8Path, when: &str) -> Result<Option<Which>> {
    let seen = judge::look(database)?;
    if let Some(problem) = seen.problems.first() {
        stage.problem(format!("{when}: {problem}"));
        return Ok(None);
    }
    let which = if seen.content == Some(stage.past.present.content) {
        Some(Which::Old)
    } else if seen.content == Some(stage.past.newest.content) {
        Some(Which::New)
    } else {
        stage.problem(format!("{when}: the database is neither what it was nor the backup"));
        None
    };
    Ok(which)
}

/// `recover` succeeds and leaves nothing of the restore; an application finds a whole database; and the next restore works.
pub(super) fn recovered(stage: &mut Stage<'_>, when: &str) -> Result<()> {
    let run = stage.cast.tool.run(&["recover"])?;
    if run.exit() != Some(0) {
        stage.problem(format!("{when}, then recover: {}", run.ended()));
    }
    for name in scratch::names(&stage.folder)? {
        if UNDER_WAY.iter().any(|part| name.contains(part)) {
            stage.problem(format!("{when}: {name} is left after recover"));
        }
    }
    let database = stage.database.clone();
    if judged(stage, &database, &format!("{when}, recovered"))? == Some(Which::New) {
        expect_kept(stage, when)?;
    }
    // By its name: a backup that was interrupted may be the latest one, and hold what the database does.
    let run = stage.cast.tool.run(&["restore", stage.past.newest.path.as_str()])?;
    if run.exit() != Some(0) {
        stage.problem(format!("{when}, recovered, the next restore: {}", run.ended()));
    } else if judged(stage, &database, &format!("{when}, recovered and restored"))? == Some(Which::Old) {
        stage.problem(format!("{when}, recovered: the next restore says that it is done, and is not"));
    }
    Ok(())
}

/// The old database, with the commits that were in its WAL, is beside the new one; or, after a restore in place, a backup of it is in
/// the archive.
fn expect_kept(stage: &mut Stage<'_>, when: &str) -> Result<()> {
    let archive = &stage.cast.tool.archive;
    let beside = scratch::names(&stage.folder)?.into_iter().filter(|name| name.contains(KEPT));
    let beside = beside.map(|name| stage.folder.join(name));
    let taken = scratch::names(archive)?.into_iter().map(|name| archive.join(name));
    for candidate in beside.chain(taken) {
        // One that cannot be read is not it.
        if judge::content(&candidate).is_ok_and(|content| content == stage.past.present.content) {
            return Ok(());
        }
    }
    stage.problem(format!("{when}, recovered: the old database is nowhere to be found"));
    Ok(())
}

/// How many file operations a restore has here.
pub(super) fn operations(stage: &mut Stage<'_>) -> Result<u64> {
    stage.reset()?;
    operations_of(stage, &RESTORE)
}

/// How many file operations a command has here, which is run for that.
pub(super) fn operations_of(stage: &mut Stage<'_>, words: &[&str]) -> Result<u64> {
    let words: Vec<_> = ["-v", "-v"].iter().chain(words).copied().collect();
    let run = stage.cast.tool.run(&words)?;
    let count = run.stderr.lines().filter(|line| line.trim_start().starts_with("DEBUG")).count() as u64;
    if run.exit() != Some(0) || count == 0 {
        let error = Error::new(ErrorKind::Failed, "count the file operations of a command on", &stage.database);
        return Err(error.because(run.ended()));
    }
    Ok(count)
}

/// The steps of a restore that change files, each with the number of its first operation.
fn steps(stage: &mut Stage<'_>) -> Result<Vec<(u64, String)>> {
    stage.reset()?;
    let run = stage.cast.tool.run(&["-v", "-v", "restore", "latest-good"])?;
    let (mut steps, mut step, mut at) = (Vec::new(), None, 0_u64);
    for line in run.stderr.lines().map(str::trim_start) {
        if let Some(name) = line.strip_prefix("INFO ") {
            step = Some(name.to_owned());
        } else if line.starts_with("DEBUG ") {
            steps.extend(step.take().map(|name| (at, name)));
            at += 1;
        }
    }
    let Some(last) = at.checked_sub(1).filter(|_| run.exit() == Some(0)) else {
        let error = Error::new(ErrorKind::Failed, "find the steps of a restore of", &stage.database);
        return Err(error.because(run.ended()));
    };
    // And the last moment of all.
    steps.push((last, "the last operation".to_owned()));
    Ok(steps)
}
