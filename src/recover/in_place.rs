//! The record of a restore in place, and what an interrupted one left.
//!
//! ```text
//! live.db.restore-in-place   begun: durable before the write, gone or renamed after it
//! live.db.in-place.json      done: the last one, which an undo takes back
//! ```
//!
//! The write itself is one transaction of SQLite, so SQLite's own recovery leaves the old or the new content, and all that
//! is to be told is which: by the fingerprint of what is there, or, where an application has written since, by the schema
//! cookie, which the write raises by one. The old content is in a backup that the record names, whatever happened.

use std::io::Read as _;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::beside::Beside;
use super::look::open;
use super::{RecoverOutcome, write_text};
use crate::database::regular_file;
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::Hex32;
use crate::manifest::seal::{seal, unseal};
use crate::observe::{Cancel, Event, Observer};
use crate::sqlite::Snapshot;
use crate::storage::{Ownership, Storage, parent_of};

const FORMAT: &str = "engram-restore-in-place";
const VERSION: u32 = 1;
const CHECKSUM_KEY: &str = "record_blake3";

/// Two paths and a few numbers are never longer.
const MAX_BYTES: u64 = 64 << 10;

/// How long others may keep us from looking at the database.
const BUSY_LIMIT: Duration = Duration::from_secs(5);

/// What a restore in place is about to do, or has done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct InPlaceRecord {
    format: String,
    version: u32,
    /// The time of the restore.
    pub(crate) at: Timestamp,
    /// The backup of the old content.
    pub(crate) pre_restore: ContentFile,
    /// The file that is put in.
    pub(crate) new: ContentFile,
    /// The schema cookie before.
    pub(crate) schema_version: u32,
    /// When the `.pre-restore` was kept that lies there; `None` if there is none. By that, and by no clock, an undo knows
    /// whether another file was put in place since.
    pub(crate) kept_at: Option<Timestamp>,
}

/// A finished database file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ContentFile {
    /// Absolute; in the record's text, below the database's folder, as it is from there.
    pub(crate) path: Utf8PathBuf,
    /// Of the file.
    pub(crate) blake3: Hex32,
    /// The fingerprint of its schema and rows.
    pub(crate) content: Hex32,
}

/// What lies there.
#[derive(Debug)]
pub(super) enum Begun {
    No,
    Yes(Box<InPlaceRecord>),
    /// A record that cannot be read; why.
    Unreadable(String),
}

impl InPlaceRecord {
    /// The record of a restore that has not written yet.
    pub(crate) fn new(
        at: Timestamp,
        pre_restore: ContentFile,
        new: ContentFile,
        schema_version: u32,
        kept_at: Option<Timestamp>,
    ) -> Self {
        Self { format: FORMAT.to_owned(), version: VERSION, at, pre_restore, new, schema_version, kept_at }
    }

    /// With paths below `folder` as they are from there, so that all of it can be moved.
    fn relative_to(&self, folder: &Utf8Path) -> Self {
        self.with_paths(|path| path.strip_prefix(folder).unwrap_or(path).to_owned())
    }

    fn with_paths(&self, change: impl Fn(&Utf8Path) -> Utf8PathBuf) -> Self {
        let mut record = self.clone();
        for file in [&mut record.pre_restore, &mut record.new] {
            file.path = change(&file.path);
        }
        record
    }

    fn encode(&self) -> Result<String, serde_json::Error> {
        let json = serde_json::to_string_pretty(self)?;
        seal(&json, CHECKSUM_KEY).ok_or_else(|| serde::ser::Error::custom("no object"))
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let json = unseal(bytes, CHECKSUM_KEY).map_err(|e| e.to_string())?;
        let record: Self = serde_json::from_slice(&json).map_err(|e| e.to_string())?;
        if record.format != FORMAT || record.version != VERSION {
            return Err(format!("it is of another version: format {:?}, version {}", record.format, record.version));
        }
        Ok(record)
    }
}

/// Writes the record of a restore that is about to write. Durable.
pub(crate) fn begin(beside: &Beside, record: &InPlaceRecord, storage: &Storage) -> Result<()> {
    let (path, to) = (beside.in_place_new(), beside.in_place());
    let text = record.relative_to(parent_of(&to)).encode().map_err(|e| Error::io("write", &path, e))?;
    let metadata = std::fs::metadata(&beside.database).map_err(|e| Error::io("look at", &beside.database, e))?;
    let written = write_text(&path, &to, &text, Ownership::of(&metadata), storage);
    written.map_err(|e| match storage.remove(&path) {
        Ok(_) => e,
        Err(left) => e.hint(format!("{path} was left behind: {}", left.message())),
    })?;
    storage.sync_dir(parent_of(&to))
}

/// It is done: the record becomes that of the last one. Durable.
pub(crate) fn complete(beside: &Beside, storage: &Storage) -> Result<()> {
    storage.rename(&beside.in_place(), &beside.in_place_done())?;
    storage.sync_dir(parent_of(&beside.database))
}

/// The last restore in place; `None` where there was none, or its record cannot be read, which is said.
pub(crate) fn last_in_place(beside: &Beside) -> Result<Option<InPlaceRecord>> {
    let path = beside.in_place_done();
    match read(&path)? {
        Begun::No => Ok(None),
        Begun::Yes(record) => Ok(Some(*record)),
        Begun::Unreadable(why) => {
            tracing::warn!(%path, %why, "the record of the last restore in place cannot be read");
            Ok(None)
        }
    }
}

/// Whether one was interrupted, or is under way.
pub(super) fn begun(beside: &Beside) -> Result<Begun> {
    read(&beside.in_place())
}

fn read(path: &Utf8Path) -> Result<Begun> {
    let Some(file) = open(path)? else { return Ok(Begun::No) };
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(|e| Error::io("read", path, e))?;
    Ok(match InPlaceRecord::parse(&bytes) {
        // A path that is absolute stays as it is.
        Ok(record) => Begun::Yes(Box::new(record.with_paths(|below| parent_of(path).join(below)))),
        Err(why) => Begun::Unreadable(why),
    })
}

/// What a database holds now, as one read transaction saw it.
pub(crate) struct Now {
    /// The fingerprint of its schema and rows; `None` if not all of them could be read.
    pub(crate) content: Option<Hex32>,
    schema_version: u32,
}

/// Old or new; `None` if that cannot be told.
fn decide(record: &InPlaceRecord, now: &Now) -> Option<RecoverOutcome> {
    if now.content == Some(record.new.content) {
        return Some(RecoverOutcome::Finished);
    }
    if now.content == Some(record.pre_restore.content) || now.schema_version == record.schema_version {
        return Some(RecoverOutcome::Undone);
    }
    (now.schema_version == record.schema_version.wrapping_add(1)).then_some(RecoverOutcome::Finished)
}

/// Tells what an interrupted one left, completes or removes its record, and says so. Under the restore lock only.
pub(crate) fn settle_in_place(
    beside: &Beside,
    storage: &Storage,
    observer: &mut dyn Observer,
) -> Result<RecoverOutcome> {
    let (outcome, record) = end_in_place(beside, storage, &observer.cancel())?;
    match (outcome, record) {
        (RecoverOutcome::Finished, Some(record)) => observer.event(Event::Warning(&format!(
            "an interrupted restore in place was finished: the database has the content of {}; {}",
            record.new.path,
            kept(&record),
        ))),
        (RecoverOutcome::Undone, _) => observer
            .event(Event::Warning("an interrupted restore in place was undone: the database has the old content")),
        (RecoverOutcome::Finished | RecoverOutcome::Nothing, _) => {}
    }
    Ok(outcome)
}

/// The same for one that failed: it says nothing.
pub(crate) fn end_in_place(
    beside: &Beside,
    storage: &Storage,
    cancel: &Cancel,
) -> Result<(RecoverOutcome, Option<InPlaceRecord>)> {
    let record = match begun(beside)? {
        Begun::No => return Ok((RecoverOutcome::Nothing, None)),
        Begun::Yes(record) => *record,
        Begun::Unreadable(why) => return Err(unexplained(beside, &why)),
    };
    let told = content_now(&beside.database, storage, cancel).map(|now| decide(&record, &now));
    let outcome = match told {
        Ok(Some(outcome)) => outcome,
        Ok(None) => {
            let why = "an application has written and changed the schema since";
            return Err(unexplained(beside, why).hint(kept(&record)));
        }
        Err(e) if matches!(e.kind(), ErrorKind::Damaged | ErrorKind::NotFound) => {
            return Err(unexplained(beside, &e.message()).hint(kept(&record)));
        }
        Err(e) => return Err(e.hint(kept(&record))),
    };
    if outcome == RecoverOutcome::Finished {
        complete(beside, storage)?;
    } else {
        storage.remove(&beside.in_place())?;
        storage.sync_dir(parent_of(&beside.database))?;
    }
    Ok((outcome, Some(record)))
}

fn kept(record: &InPlaceRecord) -> String {
    format!("the content before it is in the backup {}", record.pre_restore.path)
}

/// As it is no obstacle to putting another file in the database's place: one that cannot be explained is said, with the
/// backup of the content before, and is over then.
pub(super) fn settle_before_swap(
    beside: &Beside,
    storage: &Storage,
    observer: &mut dyn Observer,
) -> Result<RecoverOutcome> {
    match settle_in_place(beside, storage, observer) {
        Err(e) if e.kind() == ErrorKind::Failed && matches!(begun(beside)?, Begun::Yes(_)) => {
            let hint = e.hint_text().unwrap_or_default();
            observer.event(Event::Warning(&format!("{}; {hint}", e.message())));
            complete(beside, storage)?;
            Ok(RecoverOutcome::Nothing)
        }
        other => other,
    }
}

/// Reads all of a live database, in one transaction of a connection of its own.
pub(crate) fn content_now(database: &Utf8Path, storage: &Storage, cancel: &Cancel) -> Result<Now> {
    let is_empty = regular_file(database, None)?.is_none_or(|metadata| metadata.len() == 0);
    if is_empty {
        // SQLite would make a database of it, and delete a WAL.
        return Err(Error::new(ErrorKind::NotFound, "read", database).because("there is no database any more"));
    }
    storage.through_sqlite("read", database, |port| {
        let snapshot = Snapshot::of_recovered(database, BUSY_LIMIT, cancel, port)?;
        let now = (|| Ok(Now { content: snapshot.content()?.whole(), schema_version: snapshot.schema_version()? }))();
        snapshot.close(port)?;
        now
    })
}

pub(super) fn unexplained(beside: &Beside, why: &str) -> Error {
    Error::new(ErrorKind::Failed, "tell what an interrupted restore in place left in", &beside.database)
        .because(why.to_owned())
        .hint(format!(
            "nothing was touched: by SQLite's own recovery it is the whole old or the whole new content; look at it, then \
             remove {}, or restore a backup",
            beside.in_place()
        ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

    use super::*;

    fn record() -> InPlaceRecord {
        let file = |name: &str, byte| ContentFile {
            path: format!("/srv/backups/{name}").into(),
            blake3: Hex32([byte; 32]),
            content: Hex32([byte + 1; 32]),
        };
        InPlaceRecord::new("2026-11-22T05:30:00.123Z".parse().unwrap(), file("old.db", 1), file("new.db", 3), 7, None)
    }

    /// Would catch a recovery that calls the old database the new one, or guesses.
    #[test]
    fn content_tells_first_then_the_schema_cookie() {
        let record = record();
        let told = |content: Option<u8>, schema_version| {
            decide(&record, &Now { content: content.map(|byte| Hex32([byte; 32])), schema_version })
        };
        assert_eq!(told(Some(4), 8), Some(RecoverOutcome::Finished));
        assert_eq!(told(Some(4), 99), Some(RecoverOutcome::Finished));
        assert_eq!(told(Some(2), 7), Some(RecoverOutcome::Undone));
        assert_eq!(told(Some(2), 99), Some(RecoverOutcome::Undone));
        // An application has written since.
        assert_eq!(told(Some(9), 7), Some(RecoverOutcome::Undone));
        assert_eq!(told(Some(9), 8), Some(RecoverOutcome::Finished));
        assert_eq!(told(None, 8), Some(RecoverOutcome::Finished));
        assert_eq!(told(Some(9), 9), None);
    }

    #[test]
    fn every_cut_and_every_changed_byte_is_noticed() {
        let text = record().encode().unwrap();
        assert_eq!(InPlaceRecord::parse(text.as_bytes()), Ok(record()));
        for length in 0..text.len() {
            assert!(InPlaceRecord::parse(&text.as_bytes()[..length]).is_err(), "cut to {length}");
        }
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] ^= 1;
            assert!(InPlaceRecord::parse(&changed).is_err(), "byte {at}");
        }
        let newer = InPlaceRecord { version: 2, ..record() }.encode().unwrap();
        assert!(InPlaceRecord::parse(newer.as_bytes()).is_err());
    }
}
