//! The record of a restore in place, and what an interrupted one left.
//!
//! ```text
//! live.db.restore-in-place   begun: durable before the write, gone or renamed after it
//! live.db.in-place.json      done: the last one, which an undo takes back
//! ```
//!
//! The write itself is one transaction of SQLite, so SQLite's own recovery leaves the old or the new content, and all that
//! is to be told is which: by the fingerprint of what is there, or, where an application has written since, by the schema
//! cookie, which the write raises by one, or by what the application left alone. The old content is in a backup that the
//! record names, whatever happened.

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
use crate::fingerprint::Content;
use crate::manifest::Hex32;
use crate::manifest::seal::{seal, unseal};
use crate::observe::{Cancel, Event, Observer};
use crate::sqlite::{Inspection, Snapshot, Stop};
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
    /// The fingerprint of its schema.
    pub(crate) schema: Hex32,
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

    pub(crate) fn encode(&self) -> Result<String, serde_json::Error> {
        let json = serde_json::to_string_pretty(self)?;
        seal(&json, CHECKSUM_KEY).ok_or_else(|| serde::ser::Error::custom("no object"))
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
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

/// Nothing was written: there is no such restore. Durable.
pub(crate) fn call_off(beside: &Beside, storage: &Storage) -> Result<()> {
    storage.remove(&beside.in_place())?;
    storage.sync_dir(parent_of(&beside.database))
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
    /// Some of it is unknown if not all could be read.
    pub(crate) content: Content,
    schema_version: u32,
}

/// Old or new; `None` if that cannot be told.
fn tell(record: &InPlaceRecord, now: &Now, cancel: &Cancel) -> Result<Option<RecoverOutcome>> {
    if let Some(outcome) = decide(record, now) {
        return Ok(Some(outcome));
    }
    let content_of = |file: &ContentFile| -> Result<Option<Content>> {
        let read = Inspection::open(&file.path, Stop::for_file(&file.path, cancel))
            .and_then(|inspection| inspection.content());
        match read {
            Ok((content, _problems)) => Ok(Some(content).filter(|content| content.whole() == Some(file.content))),
            Err(e) if e.kind() == ErrorKind::Interrupted => Err(e),
            // Somebody has removed it since: then only the cookie is left.
            Err(_) => Ok(None),
        }
    };
    let (old, new) = (content_of(&record.pre_restore)?, content_of(&record.new)?);
    let left_alone = old.zip(new).and_then(|(old, new)| by_what_was_left_alone(now, &old, &new));
    Ok(left_alone.or_else(|| by_cookie(record, now)))
}

fn decide(record: &InPlaceRecord, now: &Now) -> Option<RecoverOutcome> {
    let whole = now.content.whole();
    if whole == Some(record.new.content) {
        return Some(RecoverOutcome::Finished);
    }
    // The write raises the cookie, and nothing ever lowers it. Had it been raised by the write, and by nobody else, the
    // schema would be as it was written.
    let is_another = now.content.schema.is_some_and(|schema| schema != record.new.schema);
    let is_old = whole == Some(record.pre_restore.content)
        || now.schema_version == record.schema_version
        || raised_once(record, now) && is_another;
    is_old.then_some(RecoverOutcome::Undone)
}

fn raised_once(record: &InPlaceRecord, now: &Now) -> bool {
    now.schema_version == record.schema_version.wrapping_add(1)
}

/// An application has written since, but not into every table whose rows the write changes. A table with one row or none says
/// little: it may have been emptied, and a counter may have come back to what it was.
fn by_what_was_left_alone(now: &Now, old: &Content, new: &Content) -> Option<RecoverOutcome> {
    let of = |content: &Content, name: &str| {
        content.tables.iter().find(|table| table.name == name).and_then(|table| table.blake3)
    };
    let (mut as_old, mut as_new) = (false, false);
    for table in now.content.tables.iter().filter(|table| table.rows > Some(1)) {
        let (then, put_in) = (of(old, &table.name), of(new, &table.name));
        if table.blake3.is_some() && then != put_in {
            as_old |= table.blake3 == then;
            as_new |= table.blake3 == put_in;
        }
    }
    match (as_old, as_new) {
        (true, false) => Some(RecoverOutcome::Undone),
        (false, true) => Some(RecoverOutcome::Finished),
        (true, true) | (false, false) => None,
    }
}

/// It has written into all of them. Who raises the cookie once and leaves the schema as the write makes it is the write,
/// or a `VACUUM`, which is run by far more seldom.
fn by_cookie(record: &InPlaceRecord, now: &Now) -> Option<RecoverOutcome> {
    let is_new = raised_once(record, now) && now.content.schema == Some(record.new.schema);
    is_new.then_some(RecoverOutcome::Finished)
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
    let told = content_now(&beside.database, storage, cancel).and_then(|now| tell(&record, &now, cancel));
    let outcome = match told {
        Ok(Some(outcome)) => outcome,
        Ok(None) => {
            let why = "an application has written since, and nothing that it left alone tells";
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
        call_off(beside, storage)?;
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
        let now = (|| Ok(Now { content: snapshot.content()?, schema_version: snapshot.schema_version()? }))();
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
    use crate::fingerprint::TableContent;

    fn record() -> InPlaceRecord {
        let file = |name: &str, byte| ContentFile {
            path: format!("/srv/backups/{name}").into(),
            blake3: Hex32([byte; 32]),
            schema: Hex32([byte + 10; 32]),
            content: Hex32([byte + 1; 32]),
        };
        InPlaceRecord::new("2026-11-22T05:30:00.123Z".parse().unwrap(), file("old.db", 1), file("new.db", 3), 7, None)
    }

    fn content(schema: u8, tables: &[(&str, u8)]) -> Content {
        let table = |&(name, byte): &(&str, u8)| TableContent {
            name: name.to_owned(),
            rows: Some(2),
            blake3: (byte > 0).then_some(Hex32([byte; 32])),
        };
        Content { schema: (schema > 0).then_some(Hex32([schema; 32])), tables: tables.iter().map(table).collect() }
    }

    /// Would catch a recovery that calls the old database the new one, or guesses.
    #[test]
    fn content_tells_first_then_the_schema_cookie_then_what_was_left_alone() {
        use RecoverOutcome::{Finished, Undone};
        let old = content(1, &[("same", 1), ("a", 2), ("b", 3)]);
        let new = content(1, &[("same", 1), ("a", 4), ("b", 5)]);
        let mut record = record();
        record.pre_restore.content = old.whole().unwrap();
        record.new.content = new.whole().unwrap();
        record.new.schema = new.schema.unwrap();
        let told = |content: &Content, schema_version| {
            let now = Now { content: content.clone(), schema_version };
            decide(&record, &now)
                .or_else(|| by_what_was_left_alone(&now, &old, &new))
                .or_else(|| by_cookie(&record, &now))
        };
        for schema_version in [8, 99] {
            assert_eq!(told(&new, schema_version), Some(Finished));
            assert_eq!(told(&old, schema_version), Some(Undone));
        }
        // An application has written since: everything that tells, or one table of those.
        let (all, some) =
            (content(1, &[("same", 9), ("a", 9), ("b", 9)]), |a, b| content(1, &[("same", 1), ("a", a), ("b", b)]));
        assert_eq!(told(&all, 7), Some(Undone));
        for schema_version in [8, 9, 99] {
            assert_eq!(told(&some(4, 9), schema_version), Some(Finished));
            assert_eq!(told(&some(0, 5), schema_version), Some(Finished));
            assert_eq!(told(&some(2, 9), schema_version), Some(Undone));
            let one_row = |mut content: Content| {
                content.tables.iter_mut().for_each(|table| table.rows = Some(1));
                content
            };
            // Nothing was left alone, or nothing that says anything, or it cannot be read, or both are there, which no history explains.
            let by_cookie = (schema_version == 8).then_some(Finished);
            for all in [&all, &some(0, 0), &some(4, 3), &one_row(some(2, 9))] {
                assert_eq!(told(all, schema_version), by_cookie);
            }
        }
        // It has changed the schema once, of a database that was not written.
        assert_eq!(told(&content(2, &[("same", 9), ("a", 9), ("b", 9)]), 8), Some(Undone));
        assert_eq!(told(&content(2, &[("same", 9), ("a", 9), ("b", 9)]), 9), None);
        assert_eq!(told(&content(0, &[]), 8), None);
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
