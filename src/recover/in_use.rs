//! Which backups the records beside a database name, so that nobody removes one that a restore, an undo or a guard still
//! needs. Looks only.

use camino::Utf8Path;

use super::beside::Beside;
use super::guarded::{GuardState, guard_names, state as guard_state};
use super::in_place::{Begun, begun, last_in_place};
use super::look::intent_names;
use super::{RestoreState, state};
use crate::error::Result;
use crate::lock::Lock;

/// Backups that are needed.
#[derive(Clone, Debug, Default)]
pub(crate) struct InUse {
    /// Why all of them are: what is under way cannot be told.
    all: Option<String>,
    /// By their names, which have a time in them: a folder may be reached by several paths.
    named: Vec<(String, String)>,
}

impl InUse {
    /// Why this backup is needed.
    pub(crate) fn reason(&self, backup: &Utf8Path) -> Option<String> {
        let is_named = |named: &&(String, String)| Some(named.0.as_str()) == backup.file_name();
        self.all.clone().or_else(|| self.named.iter().find(is_named).map(|(_, why)| why.clone()))
    }

    fn add(&mut self, backup: Option<&Utf8Path>, why: &str) {
        let name = backup.and_then(Utf8Path::file_name).map(str::to_owned);
        self.named.extend(name.map(|name| (name, why.to_owned())));
    }
}

/// The names of the backups that the records beside this database name: those of an interrupted restore, of the last restore
/// in place, and of a guarded command. Looks only; what cannot be read names nothing, and whoever works beside it says so.
#[must_use]
pub fn named_backups(database: &Utf8Path) -> Vec<String> {
    in_use(database).named.into_iter().map(|(name, _)| name).collect()
}

/// The backups that what lies beside this database names.
pub(crate) fn in_use(database: &Utf8Path) -> InUse {
    let unseen = |e: crate::Error| InUse {
        all: Some(format!("what is under way beside {database} could not be looked at: {}", e.message())),
        named: Vec::new(),
    };
    look(&Beside::new(database)).unwrap_or_else(unseen)
}

fn look(beside: &Beside) -> Result<InUse> {
    let mut found = InUse::default();
    let database = &beside.database;
    match state(beside)? {
        RestoreState::Running(_) => found.all = Some(format!("a restore of {database} is under way")),
        RestoreState::Unexplained(why) => {
            found.all = Some(format!("an interrupted restore of {database} is not explained: {why}"));
        }
        RestoreState::Idle | RestoreState::Interrupted(_) | RestoreState::InPlace(_) => {}
    }
    found.add(intent_names(beside)?.as_deref().map(Utf8Path::new), "an interrupted restore names it");
    if let Begun::Yes(record) = begun(beside)? {
        found.add(Some(&record.pre_restore.path), "an interrupted restore in place needs it");
        found.add(Some(&record.new.path), "an interrupted restore in place names it");
    }
    if let Some(record) = last_in_place(beside)? {
        found.add(Some(&record.pre_restore.path), "undo --in-place puts it back");
    }
    match guard_state(beside)? {
        GuardState::Idle => {
            // It writes down which backup it goes by once it has chosen one.
            if Lock::holder_of(&beside.guard_lock())?.is_some() {
                found.all = Some(format!("a guard of {database} is about to begin, or to end"));
            }
        }
        GuardState::Unexplained(why) => found.all = Some(why),
        GuardState::Running(_) | GuardState::Unguarded(_) | GuardState::Interrupted(_) => {
            found.add(guard_names(beside)?.as_deref(), "a guarded command may have to be taken back to it");
        }
    }
    Ok(found)
}
