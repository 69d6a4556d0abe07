//! The header of a live database, read by hand: nothing is locked, created or rolled back for it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use camino::Utf8Path;

use super::apart::Apart;
use super::replay::page_1_of_last_commit;
use crate::database::sidecar;
use crate::header::{HEADER_BYTES, Header};

/// The header of `database` as the last commit left it; `None` if it is no database. `ours` is any open file of ours that
/// nobody has locked through `fcntl`.
///
/// # Errors
///
/// If it cannot be read.
pub(crate) fn live_header(database: &Utf8Path, ours: &File) -> io::Result<Option<Header>> {
    // The WAL first: it is restarted only when all of it is in the main file.
    let in_wal = match Apart::open(&sidecar(database, "-wal"), ours) {
        Ok(wal) => wal.ask(|wal, _ours| {
            let mut bytes = vec![0; HEADER_BYTES];
            match page_1_of_last_commit(wal)? {
                Some(at) => wal.read_exact_at(&mut bytes, at).map(|()| Some(bytes)),
                None => Ok(None),
            }
        })?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => return Err(e),
    };
    let header = match in_wal {
        Some(bytes) => Header::parse(&bytes),
        None => Apart::open(database, ours)?.ask(|main, _ours| Header::read(main))?,
    };
    Ok(header.ok())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

    use camino::Utf8PathBuf;
    use rusqlite::Connection;

    use super::*;

    /// Would catch a difference that is none: what the main file of a database in use says is of the last checkpoint.
    #[test]
    fn last_commit_counts_wherever_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let live = Utf8PathBuf::from_path_buf(folder.path().join("live.db")).unwrap();
        let ours = tempfile::tempfile().unwrap();
        let user_version = || live_header(&live, &ours).unwrap().unwrap().user_version;
        let writer = Connection::open(&live).unwrap();
        writer.execute_batch("PRAGMA user_version=1; CREATE TABLE t(a)").unwrap();
        assert_eq!(user_version(), 1);
        writer.execute_batch("PRAGMA journal_mode=WAL; PRAGMA user_version=2; INSERT INTO t VALUES(7)").unwrap();
        assert_eq!(user_version(), 2);
        // Written into the WAL for want of cache, and not committed.
        writer
            .execute_batch("PRAGMA cache_size=1; BEGIN; PRAGMA user_version=3; INSERT INTO t VALUES(zeroblob(900000))")
            .unwrap();
        assert_eq!(user_version(), 2);
        writer.execute_batch("COMMIT").unwrap();
        assert_eq!(user_version(), 3);
        writer.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(())).unwrap();
        assert_eq!(user_version(), 3);
        writer.execute_batch("INSERT INTO t VALUES(8)").unwrap();
        assert_eq!(user_version(), 3);
    }

    #[test]
    fn what_is_no_database_has_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(folder.path().join("a.db")).unwrap();
        let ours = tempfile::tempfile().unwrap();
        assert_eq!(live_header(&path, &ours).unwrap_err().kind(), io::ErrorKind::NotFound);
        std::fs::write(&path, [7; 4096]).unwrap();
        assert_eq!(live_header(&path, &ours).unwrap(), None);
    }
}
