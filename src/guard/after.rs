//! After the command: what is the matter with the database, what follows from that, and how it is put back.

use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;

use super::{Guard, OnFailure, RestoreMode, with_snapshot};
use crate::database;
use crate::error::{Error, ErrorKind, Result};
use crate::findings::Verdict;
use crate::observe::{Event, Observer, Step};
use crate::recover::{self, Beside};
use crate::restore::{RestoreOptions, restore, restore_in_place};
use crate::sqlite::Soundness;
use crate::storage::Storage;

/// What is to be done after the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Nothing,
    SayHow,
    PutBack,
}

pub(super) fn decide(on_failure: OnFailure, failed: bool, verdict: Verdict) -> Decision {
    match (on_failure, failed || verdict == Verdict::Fail, verdict) {
        (OnFailure::Restore, true, _) => Decision::PutBack,
        // What could not be looked at is no reason to throw away what the command did.
        (OnFailure::Keep, true, _) | (_, false, Verdict::Inconclusive) => Decision::SayHow,
        (_, false, Verdict::Pass | Verdict::Fail) => Decision::Nothing,
    }
}

/// Whether a database is one, and sound, in a read transaction.
pub(super) fn examine(
    database: &Utf8Path,
    wait: Duration,
    now: Timestamp,
    storage: &Storage,
    observer: &mut dyn Observer,
) -> Soundness {
    let cancel = observer.cancel();
    let looked = (|| {
        // The command may have been a restore, and killed.
        recover::settle_before(database, wait, now, storage, observer)?;
        let size_bytes = database::regular_file(database, None)?.map(|metadata| metadata.len());
        match size_bytes {
            None => return Ok(Soundness::Damaged("there is no such file any more".to_owned())),
            // SQLite would take it for a new database, and lose its WAL.
            Some(0) => return Ok(Soundness::Damaged("the file is empty (0 bytes)".to_owned())),
            Some(_) => {}
        }
        observer.event(Event::Step(Step::Check));
        with_snapshot(database, wait, &cancel, storage, |snapshot| Ok(snapshot.integrity()))
    })();
    looked.unwrap_or_else(Soundness::of_error)
}

/// By swap where nobody has the database open, else in place. Says which of them it was, and where the old content is then,
/// if there was one.
pub(super) fn put_back(
    guard: &Guard,
    now: Timestamp,
    storage: &Storage,
    observer: &mut dyn Observer,
) -> (RestoreMode, Result<Option<Utf8PathBuf>>) {
    let options = |wait| RestoreOptions {
        database: guard.beside.database.clone(),
        backup: guard.backup.clone(),
        deep: false,
        wait,
        now,
        keys: guard.options.keys.clone(),
    };
    if let Err(e) = same_name(&guard.beside) {
        return (RestoreMode::Swap, Err(e));
    }
    if may_swap(&guard.beside.database) {
        match restore(&options(Duration::ZERO), storage, observer) {
            // Somebody has it open, or that cannot be seen, which is not to be taken for nobody.
            Err(e) if matches!(e.kind(), ErrorKind::Busy | ErrorKind::Inconclusive) && !is_committed(&e) => {}
            done => return (RestoreMode::Swap, done.map(|report| report.pre_restore)),
        }
    }
    let done =
        restore_in_place(&options(guard.options.wait), &guard.options.archive, storage, observer).map(|report| {
            if let Some(why) = report.unproven {
                observer.event(Event::Warning(&format!("that the old content is back is not proven: {why}")));
            }
            Some(report.pre_restore)
        });
    (RestoreMode::InPlace, done)
}

/// The command may have put a symlink there, or a folder, or whatever is not this guard's to overwrite.
fn same_name(beside: &Beside) -> Result<()> {
    let database = &beside.database;
    database::regular_file(database, Some(&beside.kept_new()))?;
    let now = database::resolve(database)?;
    if now == *database {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Failed, "put back", database)
        .because(format!("its path leads to {now} since the command ran")))
}

/// A new file must become its owner's again, which only they and root can do. A missing one becomes ours.
fn may_swap(database: &Utf8Path) -> bool {
    let user = rustix::process::geteuid();
    user.is_root() || std::fs::symlink_metadata(database).map_or(true, |metadata| metadata.uid() == user.as_raw())
}

fn is_committed(e: &Error) -> bool {
    e.target_state().is_some_and(|target| target.committed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Would catch a guard that throws away what a command did because it could not look, and one that does nothing.
    #[test]
    fn only_failure_and_damage_put_a_database_back_and_only_if_asked() {
        use Verdict::{Fail, Inconclusive, Pass};
        for (failed, verdict, keep, restore) in [
            (false, Pass, Decision::Nothing, Decision::Nothing),
            (false, Inconclusive, Decision::SayHow, Decision::SayHow),
            (false, Fail, Decision::SayHow, Decision::PutBack),
            (true, Pass, Decision::SayHow, Decision::PutBack),
            (true, Inconclusive, Decision::SayHow, Decision::PutBack),
            (true, Fail, Decision::SayHow, Decision::PutBack),
        ] {
            assert_eq!(decide(OnFailure::Keep, failed, verdict), keep, "keep, {failed}, {verdict}");
            assert_eq!(decide(OnFailure::Restore, failed, verdict), restore, "restore, {failed}, {verdict}");
        }
    }
}
