//! Looking at what lies beside a database. Nothing is changed.

use std::fs::File;
use std::io::{self, Read as _};

use camino::{Utf8Path, Utf8PathBuf};

use super::beside::{Beside, KEPT_SIDECARS};
use super::intent::{IntentError, MAX_RECORD_BYTES, MainRecord, Record};
use super::kept::sidecars_with_content;
use super::table::{Found, Intent, Live, SecondName};
use crate::database::{SIDECARS, identity_of_name, is_there, sidecar};
use crate::digest::digest_file;
use crate::error::{Error, Result};
use crate::header::{Header, JournalMode};
use crate::manifest::Hex32;
use crate::storage::open_regular;

/// All that the table asks for. Files are hashed only where names and inodes do not tell enough.
pub(super) fn look(beside: &Beside) -> Result<Found> {
    let (live_path, second, staged_path) = (&beside.database, beside.kept_new(), beside.staged());
    let intent = read_intent(&beside.intent())?;
    let (staged, live_is_there) = (is_there(&staged_path)?, is_there(live_path)?);
    let old = if let Intent::Valid(record) = &intent { record.old.as_ref() } else { None };
    let main = old.and_then(|old| old.main.as_ref());
    let second_name = if !is_there(&second)? {
        SecondName::Absent
    } else if is_one_file(live_path, &second)? {
        SecondName::SameFile
    } else if (staged || old.is_some_and(|old| old.copied)) && is_equal(live_path, &second)? {
        SecondName::SameContent
    } else {
        SecondName::Other
    };
    let live = match main {
        _ if !live_is_there => Live::Missing,
        Some(main) if is_content(live_path, main)? => Live::Old,
        Some(_) | None => Live::Other,
    };
    // Not opened without need: closing it drops the locks of every connection that this process has to it.
    let live_mode = if intent == Intent::Absent { None } else { journal_mode(live_path)? };
    Ok(Found {
        staged_is_live: staged && is_one_file(live_path, &staged_path)?,
        intent,
        staged,
        live,
        live_mode,
        second_name,
        sidecars_aside: !sidecars_aside(beside)?.is_empty(),
    })
}

/// The record that lies there.
fn read_intent(path: &Utf8Path) -> Result<Intent> {
    let Some(file) = open(path)? else { return Ok(Intent::Absent) };
    let mut bytes = Vec::new();
    file.take(MAX_RECORD_BYTES).read_to_end(&mut bytes).map_err(|e| Error::io("read", path, e))?;
    Ok(match Record::parse(&bytes) {
        Ok(record) => Intent::Valid(record),
        Err(e @ IntentError::Damaged(_)) => Intent::Damaged(e.to_string()),
        Err(e @ IntentError::Foreign(_)) => Intent::Foreign(e.to_string()),
    })
}

/// The name of the file that a restore is about to put in place, or was.
pub(super) fn intent_names(beside: &Beside) -> Result<Option<String>> {
    Ok(match read_intent(&beside.intent())? {
        Intent::Valid(record) => Some(record.new.name),
        Intent::Absent | Intent::Damaged(_) | Intent::Foreign(_) => None,
    })
}

/// What lies beside a database that was kept; `None` where nothing does, or nothing of ours.
pub(crate) fn read_note(kept: &Utf8Path) -> Result<Option<Record>> {
    Ok(match read_intent(&super::kept::note(kept))? {
        Intent::Valid(record) => Some(record),
        Intent::Absent | Intent::Damaged(_) | Intent::Foreign(_) => None,
    })
}

/// The sidecars that lie beside `.pre-restore.new`.
pub(super) fn sidecars_aside(beside: &Beside) -> Result<Vec<&'static str>> {
    let mut there = Vec::new();
    for suffix in KEPT_SIDECARS {
        if is_there(&sidecar(&beside.kept_new(), suffix))? {
            there.push(suffix);
        }
    }
    Ok(there)
}

/// The files under our own temporary names. Outside of a run nobody needs them.
pub(super) fn scraps(beside: &Beside) -> Result<Vec<Utf8PathBuf>> {
    // Sidecars first: a hot journal of a dead run would be replayed onto the next staged file.
    let staged = SIDECARS.iter().chain([&""]).map(|suffix| sidecar(&beside.staged(), suffix));
    let mut there = Vec::new();
    for path in staged.chain([beside.intent_new(), beside.copy(), beside.in_place_new()]) {
        if is_there(&path)? {
            there.push(path);
        }
    }
    Ok(there)
}

fn is_content(path: &Utf8Path, content: &MainRecord) -> Result<bool> {
    let Some(file) = open(path)? else { return Ok(false) };
    if file_size(&file, path)? != content.size_bytes {
        return Ok(false);
    }
    Ok(*digest_file(&file, path, None, &mut |_done| Ok(()))?.blake3.as_bytes() == content.blake3.0)
}

/// Whether two files have the same content.
fn is_equal(one: &Utf8Path, other: &Utf8Path) -> Result<bool> {
    let Some(file) = open(one)? else { return Ok(false) };
    let size_bytes = file_size(&file, one)?;
    let digest = digest_file(&file, one, None, &mut |_done| Ok(()))?;
    is_content(other, &MainRecord { size_bytes, blake3: Hex32(*digest.blake3.as_bytes()) })
}

/// Whether two names stand for one file. Not being able to tell is an error: "another file" may mean "committed".
pub(super) fn is_one_file(one: &Utf8Path, other: &Utf8Path) -> Result<bool> {
    let (one, other) = (identity_of_name(one)?, identity_of_name(other)?);
    Ok(one.is_some() && one == other)
}

/// The journal mode that the database is in for whoever opens it; `None` if it has no readable header.
fn journal_mode(path: &Utf8Path) -> Result<Option<JournalMode>> {
    let Some(file) = open(path)? else { return Ok(None) };
    let Ok(header) = Header::read(&file).map_err(|e| Error::io("read", path, e))? else { return Ok(None) };
    // What a journal puts back is in rollback mode, whatever the header says until then: setting WAL mode has one too,
    // and a crash may bring it back.
    let has_journal = sidecars_with_content(path)?.iter().any(|suffix| suffix == "-journal");
    Ok(Some(if has_journal { JournalMode::Rollback } else { header.journal_mode }))
}

pub(super) fn open(path: &Utf8Path) -> Result<Option<File>> {
    match open_regular(path) {
        Ok(file) => Ok(Some(file)),
        Err(e) if e.kind() == io::ErrorKind::NotFound || e.kind() == io::ErrorKind::InvalidFilename => Ok(None),
        Err(e) => Err(Error::io("look at", path, e)),
    }
}

fn file_size(file: &File, path: &Utf8Path) -> Result<u64> {
    file.metadata().map(|metadata| metadata.len()).map_err(|e| Error::io("look at", path, e))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

    use super::*;
    use crate::sample::{SampleOptions, create};

    /// Would catch a recovery that leaves a database out of WAL mode, since it believes the header that a hot journal is
    /// about to replace.
    #[test]
    fn beside_a_journal_the_mode_is_not_what_the_header_says() {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(folder.path().join("engram.db")).unwrap();
        assert_eq!(journal_mode(&path).unwrap(), None);
        create(&path, &SampleOptions { rows: 1, ..SampleOptions::default() }).unwrap();
        for (journal, mode) in
            [(None, JournalMode::Wal), (Some(""), JournalMode::Wal), (Some("x"), JournalMode::Rollback)]
        {
            if let Some(text) = journal {
                std::fs::write(sidecar(&path, "-journal"), text).unwrap();
            }
            assert_eq!(journal_mode(&path).unwrap(), Some(mode), "{journal:?}");
        }
    }
}
