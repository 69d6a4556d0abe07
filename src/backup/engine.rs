//! How the copy is made: the engines, and which of them is safe here. The argument for each is in
//! `docs/backup-engines.md`.

use camino::Utf8Path;

use super::BackupOptions;
use super::pace::Pace;
use super::snapshot;
use crate::digest::Draft;
use crate::error::{Error, ErrorKind, Result};
use crate::holders::FileIdentity;
use crate::medium;
use crate::observe::{Event, Observer, Step};
use crate::sqlite::{Copied, Source, apart_is_possible};
use crate::storage::{NamedFile, Storage};

/// How the copy is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// [`Engine::Snapshot`] where it is safe, else [`Engine::Online`]; the report says which, and why.
    Auto,
    /// The main file and its WAL as plain files, under a read transaction: as fast as the disk.
    Snapshot,
    /// SQLite's backup API on a pinned snapshot: every page as it is.
    Online,
    /// `VACUUM INTO`: compact, but not byte-faithful; rowids of tables without an INTEGER PRIMARY KEY may
    /// change.
    Vacuum,
}

impl Engine {
    /// The name in the manifest and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Snapshot => "snapshot",
            Self::Online => "online",
            Self::Vacuum => "vacuum",
        }
    }
}

/// The engine that is used, never [`Engine::Auto`].
#[derive(Clone, Debug)]
pub(super) struct Choice {
    pub(super) engine: Engine,
    /// Why, as a clause for people.
    pub(super) reason: String,
}

/// Which engine a backup uses.
pub(super) fn choose(options: &BackupOptions, database: &Utf8Path) -> Result<Choice> {
    if options.engine == Engine::Vacuum && options.limits.max_rate.is_some() {
        return Err(Error::new(ErrorKind::Usage, "back up", database)
            .because("VACUUM INTO is one statement of SQLite's, whose rate cannot be limited")
            .hint("leave --max-rate out, or take another engine"));
    }
    let unsafe_because = match options.engine {
        Engine::Auto | Engine::Snapshot => why_no_snapshot(database)?,
        Engine::Online | Engine::Vacuum => None,
    };
    decide(options.engine, unsafe_because).map_err(|why| {
        Error::new(ErrorKind::Failed, "back up", database)
            .because(why)
            .hint("take --engine online, or auto, which does that here")
    })
}

/// An engine that was asked for is used or refused, with the reason, and never replaced by another.
fn decide(asked: Engine, unsafe_because: Option<String>) -> Result<Choice, String> {
    let no_snapshot = |why| format!("a snapshot is not safe here: {why}");
    let (engine, reason) = match (asked, unsafe_because) {
        (Engine::Auto, None) => (Engine::Snapshot, "a local file system, where it is safe".to_owned()),
        (Engine::Auto, Some(why)) => (Engine::Online, no_snapshot(why)),
        (Engine::Snapshot, Some(why)) => return Err(no_snapshot(why)),
        (Engine::Snapshot | Engine::Online | Engine::Vacuum, _) => (asked, "asked for".to_owned()),
    };
    Ok(Choice { engine, reason })
}

/// Which assumption of `docs/backup-engines.md` does not hold here.
fn why_no_snapshot(database: &Utf8Path) -> Result<Option<String>> {
    if let Some(name) = medium::foreign_file_system(database)? {
        return Ok(Some(format!("the database lies on {name}")));
    }
    Ok(apart_is_possible().err().map(|e| e.to_string()))
}

/// What was copied.
pub(crate) struct Copy {
    pub(crate) copied: Copied,
    /// What is known of its hash already.
    pub(crate) draft: Draft,
}

/// Copies the database into the empty file `into` with the chosen engine. Nothing is synced.
pub(super) fn copy(
    engine: Engine,
    options: &BackupOptions,
    database: &Utf8Path,
    into: &NamedFile,
    pace: &Pace,
    storage: &Storage,
    observer: &mut dyn Observer,
) -> Result<Copy> {
    observer.event(Event::Step(Step::Copy));
    let identity = || FileIdentity::of_path(database).map_err(|e| Error::io("look at", database, e));
    let before = identity()?;
    let cancel = observer.cancel();
    let open = |port| Source::open(database, options.busy_limit, &cancel, port);
    let mut source = storage.through_sqlite("open", database, open)?;
    let copied = match engine {
        Engine::Auto | Engine::Snapshot => snapshot::copy(&source, before, into, pace, storage, observer),
        Engine::Online => storage.through_sqlite("copy into", &into.path, |port| {
            let mut progress = |done, total| {
                observer.event(Event::Bytes { done, total });
                pace.keep(done)
            };
            source.copy_online(&into.path, pace.step_bytes(), &mut progress, port).map(Copy::unhashed)
        }),
        Engine::Vacuum => storage.through_sqlite("copy into", &into.path, |port| {
            let watch = pace.clone();
            let copied = source.vacuum_into(&into.path, move || watch.check().is_err(), port);
            // SQLite only says that it was interrupted; the pace knows why.
            copied
                .map(Copy::unhashed)
                .map_err(|e| if e.kind() == ErrorKind::Interrupted { pace.check().err().unwrap_or(e) } else { e })
        }),
    };
    // Also after a failure: what our opening left beside the database must go.
    let closed = storage.through_sqlite("close", database, |port| source.close(port));
    let copied = copied?;
    closed?;
    // SQLite opens the main file and its WAL one after the other, both by name.
    if identity()? != before {
        return Err(replaced(database));
    }
    Ok(copied)
}

impl Copy {
    pub(crate) fn unhashed(copied: Copied) -> Self {
        Self { copied, draft: Draft::default() }
    }
}

pub(super) fn replaced(database: &Utf8Path) -> Error {
    Error::new(ErrorKind::Busy, "back up", database)
        .because("the file was replaced by another one while it was copied")
        .hint("try again")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Would catch an engine that is replaced by another behind the user's back.
    #[test]
    fn only_auto_takes_another_engine_where_a_snapshot_is_not_safe() {
        let on_nfs = || Some("the database lies on NFS".to_owned());
        let decided = |asked, why| decide(asked, why).map(|choice| choice.engine);
        for asked in [Engine::Snapshot, Engine::Online, Engine::Vacuum] {
            assert_eq!(decided(asked, None), Ok(asked));
        }
        assert_eq!(decided(Engine::Auto, None), Ok(Engine::Snapshot));
        assert_eq!(decided(Engine::Auto, on_nfs()), Ok(Engine::Online));
        assert_eq!(decided(Engine::Online, on_nfs()), Ok(Engine::Online));
        assert_eq!(decided(Engine::Vacuum, on_nfs()), Ok(Engine::Vacuum));
        let refused = decided(Engine::Snapshot, on_nfs());
        assert!(refused.as_ref().is_err_and(|why| why.contains("lies on NFS")), "{refused:?}");
        let reason = decide(Engine::Auto, on_nfs()).map(|choice| choice.reason);
        assert!(reason.as_ref().is_ok_and(|why| why.contains("lies on NFS")), "{reason:?}");
    }
}
