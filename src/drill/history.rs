//! The drills of an archive so far: `<archive>/.state/drills.json`, the newest [`MOST`] of them. A loss of it costs nothing but what
//! a new drill can be compared with.

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::report::{PastDrill, SubjectKind};
use crate::archive::{change, read_state};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::Storage;

/// The file's name, without its extension.
const NAME: &str = "drills";

const FORMAT: &str = "engram-restore-drills";

const VERSION: u32 = 1;

/// Older ones are forgotten.
const MOST: usize = 100;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct File {
    format: String,
    version: u32,
    /// Oldest first.
    drills: Vec<Entry>,
}

/// What every version tells.
#[derive(Deserialize)]
struct Outline {
    format: String,
    version: u32,
}

/// A drill, and of what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Entry {
    database: Utf8PathBuf,
    kind: SubjectKind,
    #[serde(flatten)]
    drill: PastDrill,
}

/// The earlier drills of a database, oldest first.
///
/// # Errors
///
/// Why they are not known: nothing depends on them.
pub(super) fn read(archive: &Utf8Path, database: &Utf8Path, kind: SubjectKind) -> Result<Vec<PastDrill>> {
    let Some(bytes) = read_state(archive, NAME)? else { return Ok(Vec::new()) };
    let file = parse(&bytes, archive)?;
    let is_like = |entry: &Entry| entry.database == database && entry.kind == kind;
    Ok(file.drills.into_iter().filter(is_like).map(|entry| entry.drill).collect())
}

/// Remembers a drill. What is damaged is begun anew.
pub(super) fn record(
    archive: &Utf8Path,
    database: &Utf8Path,
    kind: SubjectKind,
    drill: PastDrill,
    now: Timestamp,
    storage: &Storage,
) -> Result<()> {
    change(archive, NAME, now, storage, |path, found| {
        let empty = || File { format: FORMAT.to_owned(), version: VERSION, drills: Vec::new() };
        let mut file = match found.map_or_else(|| Ok(empty()), |bytes| parse(&bytes, path)) {
            Err(e) if e.kind() == ErrorKind::Damaged => empty(),
            found => found?,
        };
        file.drills.push(Entry { database: database.to_owned(), kind, drill });
        let too_many = file.drills.len().saturating_sub(MOST);
        file.drills.drain(..too_many);
        serde_json::to_vec(&file).map_err(|e| Error::new(ErrorKind::Internal, "write", path).because(e))
    })
}

pub(crate) fn parse(bytes: &[u8], path: &Utf8Path) -> Result<File> {
    let damaged = |why: String| Error::new(ErrorKind::Damaged, "read the history of drills in", path).because(why);
    let outline: Outline = serde_json::from_slice(bytes).map_err(|e| damaged(e.to_string()))?;
    if outline.format != FORMAT {
        return Err(damaged(format!("its format is {:?}", outline.format)));
    }
    if outline.version > VERSION {
        let why = format!("it has version {}, which this program does not know", outline.version);
        return Err(Error::new(ErrorKind::Inconclusive, "read the history of drills in", path).because(why));
    }
    serde_json::from_slice(bytes).map_err(|e| damaged(e.to_string()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

    use proptest::prelude::*;

    use super::*;
    use crate::findings::Verdict;

    fn past(number: u64) -> PastDrill {
        let started_at = Timestamp::from_second(i64::try_from(number).unwrap()).unwrap();
        PastDrill { started_at, verdict: Verdict::Pass, rto_us: Some(number), rpo_ms: None }
    }

    /// Would catch drills of another database that are compared with, a history that grows for ever, and one that a damaged file
    /// ends.
    #[test]
    fn drills_are_remembered_by_their_subject_and_the_oldest_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let archive = Utf8Path::from_path(folder.path()).unwrap();
        let (storage, now) = (Storage::new(), Timestamp::UNIX_EPOCH);
        let (one, other) = (Utf8Path::new("/a.db"), Utf8Path::new("/b.db"));
        let add = |database, kind, number| record(archive, database, kind, past(number), now, &storage).unwrap();
        let rtos = |database, kind| -> Vec<_> {
            read(archive, database, kind).unwrap().iter().filter_map(|drill| drill.rto_us).collect()
        };
        assert!(rtos(one, SubjectKind::Archive).is_empty());
        add(one, SubjectKind::Archive, 1);
        add(other, SubjectKind::Archive, 2);
        add(one, SubjectKind::Fetched, 3);
        add(one, SubjectKind::Archive, 4);
        assert_eq!(rtos(one, SubjectKind::Archive), [1, 4]);
        assert_eq!(rtos(one, SubjectKind::Fetched), [3]);
        for number in 10..120 {
            add(other, SubjectKind::Archive, number);
        }
        assert!(rtos(one, SubjectKind::Archive).is_empty());
        assert_eq!(rtos(other, SubjectKind::Archive).len(), MOST);

        let file = archive.join(".state/drills.json");
        std::fs::write(&file, "{").unwrap();
        assert_eq!(read(archive, one, SubjectKind::Archive).unwrap_err().kind(), ErrorKind::Damaged);
        add(one, SubjectKind::Archive, 5);
        assert_eq!(rtos(one, SubjectKind::Archive), [5]);
        std::fs::write(&file, r#"{"format":"engram-restore-drills","version":2,"new":1}"#).unwrap();
        let newer = record(archive, one, SubjectKind::Archive, past(6), now, &storage).unwrap_err();
        assert_eq!(newer.kind(), ErrorKind::Inconclusive, "what a newer program has written is left alone");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(parse(&bytes, "x".into()).is_err());
        }
    }
}
