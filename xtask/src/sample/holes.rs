//! A database that is as large as one likes and takes next to no room: its file is extended by a hole, whose pages are on the
//! list of free ones, as after a `DELETE` of nearly everything.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use camino::Utf8Path;

use crate::Result;

/// Where the header has the number of pages, and after it the first page of the list and how many pages are free; the change
/// counter, and what it was when the number of pages was written.
const PAGES: u64 = 28;
const FREE: u64 = 32;
const CHANGED: u64 = 24;
const VALID_FOR: u64 = 92;

/// Where SQLite's lock bytes are: the page that has them is never used.
const LOCK_BYTES: u64 = 0x4000_0000;

/// Extends a closed database without free pages to at least this size.
pub(super) fn extend(path: &Utf8Path, page_size: u32, size_bytes: u64) -> Result {
    let file = File::options().read(true).write(true).open(path)?;
    let size = u64::from(page_size);
    let (used, all) = (file.metadata()?.len() / size, u32::try_from(size_bytes.div_ceil(size))?);
    file.set_len(u64::from(all) * size)?;
    let locked = u32::try_from(LOCK_BYTES / size + 1)?;
    let free: Vec<u32> = (u32::try_from(used)? + 1..=all).filter(|page| *page != locked).collect();
    // A page of the list names the next one and how many it lists, and lists those; SQLite leaves six places of each empty.
    let listed = usize::try_from(size / 4)? - 8;
    let mut lists = free.chunks(listed + 1).peekable();
    while let Some(list) = lists.next() {
        let [trunk, leaves @ ..] = list else { continue };
        let next = lists.peek().and_then(|next| next.first()).copied().unwrap_or(0);
        let words = [next, u32::try_from(leaves.len())?].into_iter().chain(leaves.iter().copied());
        let bytes: Vec<u8> = words.flat_map(u32::to_be_bytes).collect();
        file.write_all_at(&bytes, (u64::from(*trunk) - 1) * size)?;
    }
    let word = |at: u64, value: u32| file.write_all_at(&value.to_be_bytes(), at);
    word(PAGES, all)?;
    word(FREE, free.first().copied().unwrap_or(0))?;
    word(FREE + 4, u32::try_from(free.len())?)?;
    let mut counter = [0; 4];
    file.read_exact_at(&mut counter, CHANGED)?;
    file.write_all_at(&counter, VALID_FOR)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

    use std::os::unix::fs::MetadataExt as _;

    use engram_restore::sample::{SampleJournal, SampleOptions, create};

    use super::*;

    /// Behind the lock bytes too.
    #[test]
    fn sqlite_finds_every_page_of_the_hole_free() {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(folder.path()).unwrap().join("holes.db");
        let wanted = SampleOptions {
            rows: 20,
            page_size: 65_536,
            journal_mode: SampleJournal::Delete,
            ..SampleOptions::default()
        };
        create(&path, &wanted).unwrap();
        let used = path.metadata().unwrap().len() / 65_536;
        extend(&path, 65_536, 1100 << 20).unwrap();
        let metadata = path.metadata().unwrap();
        assert!(metadata.len() == 1100 << 20 && metadata.blocks() * 512 < 64 << 20);
        let database = rusqlite::Connection::open(&path).unwrap();
        let ask = |question: &str| database.query_row(question, [], |row| row.get::<_, String>(0)).unwrap();
        assert_eq!(ask("PRAGMA integrity_check"), "ok");
        let free = 1100 * 16 - used - 1;
        assert_eq!(ask("SELECT CAST(freelist_count AS TEXT) FROM pragma_freelist_count"), free.to_string());
    }
}
