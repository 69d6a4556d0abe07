//! The whole matrix on this disk: each command killed before each of its file operations, and with each of them failing. What is
//! then there is judged as after any other disaster, before and after the recovery.

use fastrand::Rng;

use super::killed::{Which, operations_of, recovered, whole};
use crate::archive::list;
use crate::drill::stage::Stage;
use crate::drill::tool::{Disturbed, Run};
use crate::error::Result;
use crate::findings::Verdict;
use crate::observe::Quiet;
use crate::verify::{VerifyOptions, verify};

/// What goes wrong at each operation.
const FAULTS: [Fault; 3] = [Fault::Kill, Fault::Errno("EIO"), Fault::Errno("ENOSPC")];

#[derive(Clone, Copy)]
enum Fault {
    Kill,
    Errno(&'static str),
}

impl Fault {
    fn at(self, at: u64) -> Disturbed {
        match self {
            Self::Kill => Disturbed::KilledAt(at),
            Self::Errno(errno) => Disturbed::FailsFrom(at, errno),
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Kill => "killed",
            Self::Errno(errno) => errno,
        }
    }
}

pub(super) fn restore(stage: &mut Stage<'_>) -> Result<()> {
    matrix(
        stage,
        &["restore", "latest-good"],
        |_stage| Ok(()),
        |stage, when, run| whole_and_done(stage, when, run, Which::New),
    )
}

pub(super) fn in_place(stage: &mut Stage<'_>) -> Result<()> {
    matrix(
        stage,
        &["restore", "latest-good", "--in-place"],
        |_stage| Ok(()),
        |stage, when, run| whole_and_done(stage, when, run, Which::New),
    )
}

pub(super) fn undo(stage: &mut Stage<'_>) -> Result<()> {
    let restored = |stage: &mut Stage<'_>| {
        let run = stage.cast.tool.run(&["restore", "latest-good"])?;
        if run.exit() != Some(0) {
            stage.problem(format!("the restore that is to be undone: {}", run.ended()));
        }
        Ok(())
    };
    matrix(stage, &["undo"], restored, |stage, when, run| whole_and_done(stage, when, run, Which::Old))
}

pub(super) fn backup(stage: &mut Stage<'_>) -> Result<()> {
    matrix(stage, &["backup"], |_stage| Ok(()), |stage, when, run| archive_is_good(stage, when, run, 3))
}

pub(super) fn prune(stage: &mut Stage<'_>) -> Result<()> {
    matrix(
        stage,
        &["prune", "--keep-last", "1"],
        |_stage| Ok(()),
        |stage, when, run| archive_is_good(stage, when, run, 1),
    )
}

/// Every fault at every operation of a command, on a fresh stage each, which `prepare` may change.
fn matrix(
    stage: &mut Stage<'_>,
    words: &[&str],
    prepare: impl Fn(&mut Stage<'_>) -> Result<()>,
    judge: impl Fn(&mut Stage<'_>, &str, Option<&Run>) -> Result<()>,
) -> Result<()> {
    let operations = stage.step("count the operations", |stage| {
        stage.reset()?;
        prepare(stage)?;
        let operations = operations_of(stage, words)?;
        Ok((operations, format!("{operations} file operations of {}", words.join(" "))))
    })?;
    for (name, fault) in
        ["kill at each", "an I/O error from each on", "a full disk from each on"].into_iter().zip(FAULTS)
    {
        stage.step(name, |stage| {
            let (mut runs, mut lot) = (0_u64, Rng::with_seed(stage.cast.seed));
            for at in 0..operations {
                stage.reset()?;
                prepare(stage)?;
                let when = format!("{} {} {at}", words.join(" "), fault.word());
                let run = stage.cast.tool.run_disturbed(words, &fault.at(at))?;
                let is_killed = matches!(fault, Fault::Kill);
                if is_killed != run.was_killed() {
                    stage.problem(format!("{when}: {}", run.ended()));
                }
                if !is_killed && !matches!(run.exit(), None | Some(0 | 5)) {
                    stage.problem(format!("{when}: {}, where exit 5 was due", run.ended()));
                }
                judge(stage, &when, Some(&run))?;
                // And the recovery, killed anywhere, before the one that is let be.
                let recover_at = lot.u64(..16);
                stage.cast.tool.run_disturbed(&["recover"], &Disturbed::KilledAt(recover_at))?;
                judge(stage, &format!("{when}, recover killed {recover_at}"), None)?;
                recovered(stage, &when)?;
                runs += 1;
            }
            Ok(((), format!("{runs} runs, each recovered, seed {}", stage.cast.seed)))
        })?;
    }
    Ok(())
}

/// The complete old or the complete new database, and the one that is due where the command says that it is done.
fn whole_and_done(stage: &mut Stage<'_>, when: &str, run: Option<&Run>, due: Which) -> Result<()> {
    let found = whole(stage, when)?;
    if run.is_some_and(|run| run.exit() == Some(0)) && found.is_some_and(|found| found != due) {
        stage.problem(format!("{when}: exit 0, and nothing was done"));
    }
    Ok(())
}

/// No backup that is there is damaged, at least one is, and so many where the command says that it is done; and the database is
/// what it was.
fn archive_is_good(stage: &mut Stage<'_>, when: &str, run: Option<&Run>, due: usize) -> Result<()> {
    let backups = list(&stage.cast.tool.archive)?.backups;
    for backup in &backups {
        let verdict = verify(&backup.path, &VerifyOptions::default(), &mut Quiet)?;
        if let Some(finding) = verdict.findings.first().filter(|_| verdict.verdict != Verdict::Pass) {
            stage.problem(format!("{when}: {}: {}", finding.code, finding.message));
        }
    }
    if backups.is_empty() {
        stage.problem(format!("{when}: no backup is left"));
    }
    if run.is_some_and(|run| run.exit() == Some(0)) && backups.len() != due {
        stage.problem(format!("{when}: exit 0, and there are {} backups, not {due}", backups.len()));
    }
    if whole(stage, when)? == Some(Which::New) {
        stage.problem(format!("{when}: the database was changed"));
    }
    Ok(())
}
