//! Replaying a copied WAL onto the copied main file, and which pages that may change.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use crate::error::{Error, ErrorKind, Result};
use crate::storage::{NamedFile, Storage};

/// The length of a WAL's header, the salts of its present generation included.
pub(crate) const WAL_HEADER_BYTES: usize = 32;

/// The length of the header of each frame, which begins with its page's number.
const FRAME_HEADER_BYTES: usize = 24;

/// The largest page, which the one with the lock bytes may be: it is in no WAL.
const MAX_PAGE_BYTES: u64 = 65_536;

/// Writes the commits in `wal` into `copy`, as SQLite does it after a crash: up to the last one that is there in full, so the
/// rest of a transaction or a torn frame counts for nothing, and `copy` has the length that this commit says. It stays in WAL
/// mode. Nothing is synced. Says how many frames counted.
///
/// Both files are known by descriptor only. SQLite would find the WAL by its name, and whoever can write to the folder would
/// choose what becomes of the backup before it is signed.
pub(crate) fn replay_wal(copy: &NamedFile, wal: &File, storage: &Storage) -> Result<u64> {
    let failed = |e| Error::io("replay the copied WAL onto", &copy.path, e);
    let size_bytes = copy.file.metadata().map_err(failed)?.len();
    // SQLite takes a main file of no bytes for a new database, and its WAL for one of another.
    let Some(committed) = committed(wal).map_err(failed)?.filter(|_| size_bytes > 0) else { return Ok(0) };
    if committed.size_bytes() > size_bytes + committed.end + MAX_PAGE_BYTES {
        return Err(Error::new(ErrorKind::Damaged, "replay the copied WAL onto", &copy.path).because(format!(
            "the WAL says that the database has {} pages, which are in neither of them",
            committed.pages
        )));
    }
    let write = |_port| write_frames(copy, wal, &committed).map_err(failed);
    storage.through_sqlite("replay into", &copy.path, write)?;
    if copy.file.metadata().map_err(failed)?.len() != committed.size_bytes() {
        storage.set_length(copy, committed.size_bytes()).map_err(failed)?;
    }
    Ok(committed.frames)
}

/// What of a WAL counts: what it has up to its last commit.
struct Committed {
    frames: u64,
    /// Where the last of them ends.
    end: u64,
    page_size: u64,
    /// Of the database, after that commit.
    pages: u32,
}

impl Committed {
    fn size_bytes(&self) -> u64 {
        u64::from(self.pages) * self.page_size
    }
}

/// Later frames of a page come after earlier ones, so nothing has to be remembered of them.
fn write_frames(copy: &NamedFile, wal: &File, committed: &Committed) -> io::Result<()> {
    let mut page = vec![0; usize::try_from(committed.page_size).map_err(io::Error::other)?];
    let mut at = WAL_HEADER_BYTES as u64;
    while at < committed.end {
        let mut frame = [0; FRAME_HEADER_BYTES];
        wal.read_exact_at(&mut frame, at)?;
        let number = number_at(&frame, 0);
        if number <= committed.pages {
            wal.read_exact_at(&mut page, at + FRAME_HEADER_BYTES as u64)?;
            copy.file.write_all_at(&page, u64::from(number - 1) * committed.page_size)?;
        }
        at += FRAME_HEADER_BYTES as u64 + committed.page_size;
    }
    Ok(())
}

/// Which frames SQLite would believe after a crash (<https://sqlite.org/fileformat2.html#walformat>): from the first on, as
/// long as salts and checksums are right, up to the last that ends a transaction. `None` without any.
fn committed(wal: &File) -> io::Result<Option<Committed>> {
    /// The format's version, the only one that there has ever been.
    const VERSION: u32 = 3_007_000;
    const MAGIC: u32 = 0x377f_0682;
    if wal.metadata()?.len() <= WAL_HEADER_BYTES as u64 {
        return Ok(None);
    }
    let mut header = [0; WAL_HEADER_BYTES];
    wal.read_exact_at(&mut header, 0)?;
    let mut sums = Sums { big_endian: header[3] & 1 == 1, sums: [0, 0] };
    sums.add(&header[..24]);
    if number_at(&header, 0) & !1 != MAGIC || page_size(&header).is_none() || !sums.are(&header[24..]) {
        return Ok(None);
    }
    if number_at(&header, 4) != VERSION {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "its format is of a later version"));
    }
    let (mut frames, mut last, mut page) = (0, None, Vec::new());
    let mut end = WAL_HEADER_BYTES as u64;
    let mut failure = None;
    each_frame(wal, &mut |frame, page_size| {
        page.resize(usize::try_from(page_size).unwrap_or(0), 0);
        match wal.read_exact_at(&mut page, end + FRAME_HEADER_BYTES as u64) {
            Ok(()) => {}
            Err(e) => {
                failure = Some(e).filter(|e| e.kind() != io::ErrorKind::UnexpectedEof);
                return false;
            }
        }
        sums.add(&frame[..8]);
        sums.add(&page);
        if frame[8..16] != header[16..24] || number_at(frame, 0) == 0 || !sums.are(&frame[16..]) {
            return false;
        }
        frames += 1;
        end += FRAME_HEADER_BYTES as u64 + page_size;
        let pages = number_at(frame, 4);
        if pages != 0 {
            last = Some(Committed { frames, end, page_size, pages });
        }
        true
    })?;
    failure.map_or(Ok(last), Err)
}

/// The checksum that a WAL keeps of all that it has so far.
struct Sums {
    big_endian: bool,
    sums: [u32; 2],
}

impl Sums {
    fn add(&mut self, bytes: &[u8]) {
        let [mut one, mut two] = self.sums;
        for [a, b, c, d, e, f, g, h] in bytes.as_chunks().0 {
            let word = |four| if self.big_endian { u32::from_be_bytes(four) } else { u32::from_le_bytes(four) };
            one = one.wrapping_add(word([*a, *b, *c, *d])).wrapping_add(two);
            two = two.wrapping_add(word([*e, *f, *g, *h])).wrapping_add(one);
        }
        self.sums = [one, two];
    }

    fn are(&self, bytes: &[u8]) -> bool {
        self.sums == [number_at(bytes, 0), number_at(bytes, 4)]
    }
}

/// The same by SQLite, to compare.
#[cfg(any(test, fuzzing))]
pub(crate) fn replay_by_sqlite(copy: &camino::Utf8Path) -> rusqlite::Result<u64> {
    let connection = rusqlite::Connection::open(copy)?;
    connection.execute_batch("PRAGMA locking_mode=EXCLUSIVE; PRAGMA synchronous=OFF")?;
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    // Asked first: of a WAL that was cut off SQLite says that it has none.
    let frames = super::source::wal_frames(&connection)?;
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    connection.close().map_err(|(_connection, e)| e)?;
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
    let Some(page_size) = page_size(&header) else { return Ok(0) };
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

/// `None` if SQLite would take the file for no WAL.
fn page_size(header: &[u8; WAL_HEADER_BYTES]) -> Option<u64> {
    let page_size = u64::from(number_at(header, 8));
    (page_size.is_power_of_two() && (512..=MAX_PAGE_BYTES).contains(&page_size)).then_some(page_size)
}

fn number_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

    use std::collections::BTreeSet;
    use std::fs::OpenOptions;

    use camino::{Utf8Path, Utf8PathBuf};
    use rusqlite::Connection;

    use super::*;
    use crate::database::sidecar;

    /// Replays the `-wal` beside a copy and removes it.
    fn replay(copy: &Utf8Path) -> Result<u64> {
        let file = OpenOptions::new().read(true).write(true).open(copy).unwrap();
        let (file, wal) = (NamedFile { file, path: copy.to_owned() }, File::open(sidecar(copy, "-wal")).unwrap());
        let replayed = replay_wal(&file, &wal, &Storage::new());
        std::fs::remove_file(sidecar(copy, "-wal")).unwrap();
        replayed
    }

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

        replay(&copy).unwrap();
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
        replay(&copy).unwrap();
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
