//! Replaying a copied WAL onto the copied main file, and which pages that may change.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use camino::Utf8Path;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::failed;
use super::source::wal_frames;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::ThroughPort;

/// The length of a WAL's header, the salts of its present generation included.
pub(crate) const WAL_HEADER_BYTES: usize = 32;

/// The length of the header of each frame, which begins with its page's number.
const FRAME_HEADER_BYTES: usize = 24;

/// Lets SQLite replay the `-wal` beside `copy`, a file that nobody else knows: as after a crash, up to the last commit
/// that is there in full, so the rest of a transaction or a torn frame counts for nothing. The `-wal` is gone
/// afterwards, and `copy` is still in WAL mode. Nothing is synced. Says how many frames counted.
pub(crate) fn replay_wal(copy: &Utf8Path, _port: ThroughPort) -> Result<u64> {
    let replay = || -> rusqlite::Result<(i64, i64, i64, i64)> {
        let flags =
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
        let connection = Connection::open_with_flags(copy, flags)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
        // Exclusive: so it needs no `-shm`. Without syncs: the copy is synced as a whole once it is complete.
        connection.execute_batch("PRAGMA locking_mode=EXCLUSIVE; PRAGMA synchronous=OFF; PRAGMA mmap_size=0;")?;
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        // Asked first: of a WAL that was cut off SQLite says that it has none.
        let frames = wal_frames(&connection)?;
        let done = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, frames))
        })?;
        connection.close().map_err(|(_connection, e)| e)?;
        Ok(done)
    };
    let (busy, in_wal, replayed, frames) = replay().map_err(|e| failed("replay the copied WAL onto", copy, &e))?;
    if busy != 0 || in_wal != replayed {
        return Err(Error::new(ErrorKind::Failed, "replay the copied WAL onto", copy)
            .because(format!("SQLite replayed {replayed} of {in_wal} frames")));
    }
    Ok(u64::try_from(frames).unwrap_or(0))
}

/// Shows `page` the byte range in the main file of every page of which `wal` has a frame, valid or not: replaying it
/// writes nowhere else. A file that SQLite takes for no WAL has none.
pub(crate) fn pages_in_wal(wal: &File, page: &mut dyn FnMut(Range<u64>)) -> io::Result<()> {
    let show = &mut |frame: &Frame, page_size: u64| {
        let end = u64::from(number_at(frame, 0)) * page_size;
        page(end.saturating_sub(page_size)..end);
        true
    };
    each_frame(wal, show).map(drop)
}

/// How many bytes from the start are of the WAL's present generation. Behind a restart lie frames of older ones, which
/// nobody reads, and which may be most of the file: a WAL is not cut when it is restarted.
pub(crate) fn present_bytes(wal: &File) -> io::Result<u64> {
    let mut salts = [0; 8];
    match wal.read_exact_at(&mut salts, 16) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
        other => other?,
    }
    each_frame(wal, &mut |frame, _page_size| frame[8..16] == salts)
}

/// The number of the last frame of the WAL's present generation that ends a transaction, from 1; 0 without any. A WAL that nothing
/// has damaged is replayed up to it: what is replayed less far has a broken frame before it.
pub(crate) fn last_commit_frame(wal: &File) -> io::Result<u64> {
    let mut salts = [0; 8];
    match wal.read_exact_at(&mut salts, 16) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
        other => other?,
    }
    let (mut number, mut last) = (0, 0);
    each_frame(wal, &mut |frame, _page_size| {
        number += 1;
        if frame[8..16] == salts && number_at(frame, 4) != 0 {
            last = number;
        }
        true
    })?;
    Ok(last)
}

/// Where in the WAL the content of page 1 begins as the last commit left it; `None` if no commit in it has that page.
pub(super) fn page_1_of_last_commit(wal: &File) -> io::Result<Option<u64>> {
    let mut salts = [0; 8];
    match wal.read_exact_at(&mut salts, 16) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let (mut at, mut written, mut committed) = (WAL_HEADER_BYTES as u64, None, None);
    let look = &mut |frame: &Frame, page_size: u64| {
        if frame[8..16] != salts {
            return false;
        }
        let content_at = at + FRAME_HEADER_BYTES as u64;
        at = content_at + page_size;
        if number_at(frame, 0) == 1 {
            written = Some(content_at);
        }
        // Only the last frame of a transaction says how many pages the database has then.
        if number_at(frame, 4) != 0 {
            committed = written;
        }
        true
    };
    each_frame(wal, look)?;
    Ok(committed)
}

type Frame = [u8; FRAME_HEADER_BYTES];

/// Shows `wanted` each frame's header and the page size, until it says no; gives back where the frames end that it wanted:
/// 0 for a file that SQLite takes for no WAL.
fn each_frame(wal: &File, wanted: &mut dyn FnMut(&Frame, u64) -> bool) -> io::Result<u64> {
    let size_bytes = wal.metadata()?.len();
    let mut header = [0; WAL_HEADER_BYTES];
    if size_bytes < WAL_HEADER_BYTES as u64 {
        return Ok(0);
    }
    wal.read_exact_at(&mut header, 0)?;
    let page_size = u64::from(number_at(&header, 8));
    if !page_size.is_power_of_two() || !(512..=65_536).contains(&page_size) {
        return Ok(0);
    }
    let frame_bytes = FRAME_HEADER_BYTES as u64 + page_size;
    let mut at = WAL_HEADER_BYTES as u64;
    while at + frame_bytes <= size_bytes {
        let mut frame = [0; FRAME_HEADER_BYTES];
        match wal.read_exact_at(&mut frame, at) {
            Ok(()) if wanted(&frame, page_size) => at += frame_bytes,
            // Cut off since its size was asked for.
            Err(e) if e.kind() != io::ErrorKind::UnexpectedEof => return Err(e),
            Ok(()) | Err(_) => break,
        }
    }
    Ok(at)
}

fn number_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

    use std::collections::BTreeSet;

    use camino::Utf8PathBuf;

    use super::*;
    use crate::database::sidecar;
    use crate::storage::Storage;

    const FILL: &str = "WITH RECURSIVE n(v) AS (SELECT 1 UNION ALL SELECT v + 1 FROM n WHERE v < 500)
                        INSERT INTO t SELECT v, hex(randomblob(300)) FROM n";

    /// Would catch a hash that takes a page for unchanged which the replay has changed.
    #[test]
    fn replay_changes_only_the_pages_that_the_wal_names() {
        let folder = tempfile::tempdir().unwrap();
        let live = Utf8PathBuf::from_path_buf(folder.path().join("live.db")).unwrap();
        let writer = Connection::open(&live).unwrap();
        writer.execute_batch("PRAGMA page_size=1024; PRAGMA journal_mode=WAL; CREATE TABLE t(a, b)").unwrap();
        writer.execute_batch(FILL).unwrap();
        writer.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        writer.execute_batch("UPDATE t SET b = 'changed' WHERE a % 100 = 0").unwrap();
        let copy = Utf8PathBuf::from_path_buf(folder.path().join("copy.db")).unwrap();
        for suffix in ["", "-wal"] {
            std::fs::copy(sidecar(&live, suffix), sidecar(&copy, suffix)).unwrap();
        }
        let before = std::fs::read(&copy).unwrap();
        let mut pages = BTreeSet::new();
        pages_in_wal(&File::open(sidecar(&copy, "-wal")).unwrap(), &mut |page| {
            assert_eq!(page.end - page.start, 1024);
            pages.insert(page.end / 1024);
        })
        .unwrap();

        Storage::new().through_sqlite("replay", &copy, |port| replay_wal(&copy, port)).unwrap();
        let after = std::fs::read(&copy).unwrap();
        let changed: BTreeSet<u64> = (1..)
            .zip(before.chunks(1024).zip(after.chunks(1024)))
            .filter_map(|(page, (before, after))| (before != after).then_some(page))
            .collect();
        assert!(changed.len() >= 5 && changed.is_subset(&pages), "{changed:?} of {pages:?}");
        assert_eq!(folder.path().read_dir().unwrap().count(), 4, "live.db, its -wal and -shm, copy.db");
        let rows = "SELECT count(*) FROM t WHERE b = 'changed'";
        let found = Connection::open(&copy).unwrap().query_row(rows, [], |row| row.get(0));
        assert_eq!(found, Ok(5));
    }

    /// Would catch a copy of a gigabyte that a busy day has left behind a short WAL, or one that lacks a commit.
    #[test]
    fn frames_behind_a_restart_are_not_of_the_present() {
        let folder = tempfile::tempdir().unwrap();
        let live = Utf8PathBuf::from_path_buf(folder.path().join("live.db")).unwrap();
        let writer = Connection::open(&live).unwrap();
        writer.execute_batch("PRAGMA page_size=1024; PRAGMA journal_mode=WAL; CREATE TABLE t(a, b)").unwrap();
        writer.execute_batch(FILL).unwrap();
        let wal = File::open(sidecar(&live, "-wal")).unwrap();
        let size = || wal.metadata().unwrap().len();
        assert_eq!(present_bytes(&wal).unwrap(), size());
        let long = size();
        writer.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(())).unwrap();
        writer.execute_batch("UPDATE t SET b = 'changed' WHERE a = 7").unwrap();
        let present = present_bytes(&wal).unwrap();
        assert_eq!(size(), long);
        assert!((1048..20 * 1048).contains(&present), "{present} of {long}");

        let copy = Utf8PathBuf::from_path_buf(folder.path().join("copy.db")).unwrap();
        std::fs::copy(&live, &copy).unwrap();
        let frames = std::fs::read(sidecar(&live, "-wal")).unwrap();
        std::fs::write(sidecar(&copy, "-wal"), &frames[..usize::try_from(present).unwrap()]).unwrap();
        Storage::new().through_sqlite("replay", &copy, |port| replay_wal(&copy, port)).unwrap();
        let found = Connection::open(&copy).unwrap().query_row("SELECT b FROM t WHERE a = 7", [], |row| row.get(0));
        assert_eq!(found, Ok("changed".to_owned()));
    }

    #[test]
    fn what_is_no_wal_names_no_pages() {
        for bytes in [vec![], vec![0; 31], vec![0; 32], vec![0xff; 5000]] {
            let mut file = tempfile::tempfile().unwrap();
            io::Write::write_all(&mut file, &bytes).unwrap();
            pages_in_wal(&file, &mut |page| panic!("{page:?} in {} bytes", bytes.len())).unwrap();
            assert_eq!(present_bytes(&file).unwrap(), 0);
        }
    }
}
