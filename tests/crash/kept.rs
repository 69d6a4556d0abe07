//! The databases that restores have kept aside, each with its note.

use std::sync::Arc;

use crate::crash_fs::{Attributes, Tree};
use crate::promise::Wrong;
use crate::scenario::LIVE;
use crate::view::{Family, Found};

/// A database under a kept name, as it has to stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) found: Found,
    /// As something that has to be so: `None` if it need not be there.
    pub(crate) note: Option<Note>,
    pub(crate) attributes: Option<Attributes>,
}

/// What the note beside a kept database says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) kept_at: String,
    /// `wal` or `rollback`; `None` if that could not be told.
    pub(crate) journal_mode: Option<String>,
    pub(crate) openable: bool,
    pub(crate) attributes: Attributes,
}

impl Note {
    /// `None` where there is none, or nothing that is whole.
    fn of(tree: &Tree, name: &str) -> Option<Self> {
        let record: serde_json::Value = serde_json::from_slice(tree.bytes(name)?).ok()?;
        let old = record.get("old")?;
        Some(Self {
            kept_at: record.get("kept_at")?.as_str()?.to_owned(),
            journal_mode: old.get("journal_mode")?.as_str().map(str::to_owned),
            openable: old.get("openable")?.as_bool()?,
            attributes: tree.attributes(name)?,
        })
    }
}

impl Kept {
    pub(crate) fn of(tree: &Tree, name: &str) -> Self {
        // The note of the last one is still the record of the restore.
        let note = if name == format!("{LIVE}.pre-restore.new") { intent() } else { format!("{name}.json") };
        Self { found: Found::of(tree, name), note: Note::of(tree, &note), attributes: tree.attributes(name) }
    }

    /// At any moment: the database is complete, if not under one name then in parts, and so is its note.
    pub(crate) fn is_somewhere(&self, tree: &Tree, what: &str, wrong: &mut Wrong) {
        let mut names = kept_names(tree);
        if !names.any(|name| Found::of(tree, name) == self.found) {
            match &self.found {
                Found::Raw(family) => in_parts(tree, what, family, wrong),
                Found::Missing | Found::Sound(_) => wrong.push(format!("{what} ({:?}) is nowhere", self.found)),
            }
        }
        if self.note.is_some() && !tree.names.keys().any(|name| Note::of(tree, name) == self.note) {
            wrong.push(format!("the note of {what} ({:?}) is nowhere", self.note));
        }
    }

    /// When nothing is under way: under one name of its own, with its note.
    pub(crate) fn is_whole(&self, tree: &Tree, what: &str, wrong: &mut Wrong) {
        let is_this = |name: &str| {
            let found = Self::of(tree, name);
            *self == if self.note.is_some() { found } else { Self { note: None, ..found } }
        };
        if !kept_names(tree).any(is_this) {
            let all: Vec<_> = kept_names(tree).map(|name| (name, Self::of(tree, name))).collect();
            wrong.push(format!("{what} ({self:?}) is not whole under any name: {all:?}"));
        }
    }
}

fn intent() -> String {
    format!("{LIVE}.restore-intent")
}

/// Whether an interrupted restore lies there.
pub(crate) fn is_interrupted(tree: &Tree) -> bool {
    tree.names.contains_key(&intent())
}

/// Under the live name or a kept one.
pub(crate) fn is_somewhere(tree: &Tree, what: &str, found: &Found, wrong: &mut Wrong) {
    let mut names = [LIVE].into_iter().chain(kept_names(tree));
    if *found == Found::Missing || names.any(|name| Found::of(tree, name) == *found) {
        return;
    }
    match found {
        Found::Raw(family) => in_parts(tree, what, family, wrong),
        Found::Missing | Found::Sound(_) => wrong.push(format!("{what} ({found:?}) is nowhere")),
    }
}

/// In the middle of a rotation the files of a database that cannot be opened are not under one name; but all of them
/// are there, and none beside a file that it could be taken for a part of.
fn in_parts(tree: &Tree, what: &str, family: &Family, wrong: &mut Wrong) {
    let has = |bytes: &Arc<Vec<u8>>| tree.names.keys().any(|name| tree.bytes(name) == Some(bytes));
    if family.main.as_ref().is_some_and(|main| !has(main)) {
        wrong.push(format!("the main file of {what} is nowhere"));
    }
    for (suffix, bytes) in family.sidecars() {
        if !has(bytes) {
            wrong.push(format!("the {suffix} of {what} is nowhere"));
        }
        for name in tree.names.keys().filter(|name| tree.bytes(name) == Some(bytes)) {
            let Some(main) = name.strip_suffix(suffix) else { continue };
            if tree.bytes(main).is_some_and(|main| family.main.as_ref() != Some(main)) {
                wrong.push(format!("the {suffix} of {what} lies beside another database, as {name}"));
            }
        }
    }
}

/// The main files that were kept aside, whatever they are called.
pub(crate) fn kept_names(tree: &Tree) -> impl Iterator<Item = &str> {
    let names = tree.names.keys().filter(|name| name.starts_with(&format!("{LIVE}.pre-restore")));
    let companions = ["-wal", "-shm", "-journal", ".json"];
    names.filter(move |name| !companions.iter().any(|end| name.ends_with(end))).map(String::as_str)
}
