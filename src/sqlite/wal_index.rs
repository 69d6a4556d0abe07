//! What the index of a WAL, the `-shm`, says of how much of the WAL is in the main file already. The layout is that of
//! "The WAL-Index File Format" in SQLite's documentation; its numbers are in the machine's own byte order.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// The version that every SQLite since 3.7.0 writes and insists on.
const VERSION: u32 = 3_007_000;

/// The header lies there twice, so that a reader notices when it is being written.
const HEADER_BYTES: usize = 48;

/// What follows both copies: how many frames are in the main file.
const LOOK_BYTES: usize = 2 * HEADER_BYTES + 4;

/// One look at the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WalIndex {
    /// Those of the WAL's present generation; 0 where the WAL was found empty or unusable.
    salts: [u32; 2],
    committed_frames: u32,
    /// How many of them are in the main file.
    folded_frames: u32,
}

impl WalIndex {
    /// `None` while somebody writes it, or where SQLite would have to make it anew.
    pub(crate) fn read(index: &File) -> io::Result<Option<Self>> {
        let mut bytes = [0; LOOK_BYTES];
        match index.read_exact_at(&mut bytes, 0) {
            Ok(()) => Ok(Self::parse(&bytes)),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn parse(bytes: &[u8; LOOK_BYTES]) -> Option<Self> {
        let mut words = [0; LOOK_BYTES / 4];
        for (word, four) in words.iter_mut().zip(bytes.chunks_exact(4)) {
            *word = u32::from_ne_bytes(four.try_into().ok()?);
        }
        let (first, second) = (&words[..12], &words[12..24]);
        let is_whole =
            first == second && first[0] == VERSION && bytes[12] == 1 && checksum(&first[..10]) == first[10..];
        is_whole.then_some(Self { salts: [first[8], first[9]], committed_frames: first[4], folded_frames: words[24] })
    }

    /// Whether every frame is in the main file, so that who begins to read now reads that alone.
    pub(crate) fn is_folded(&self) -> bool {
        self.folded_frames == self.committed_frames && self.salts != [0, 0]
    }

    /// Whether nothing was folded in between two looks, and the WAL is of the same generation.
    pub(crate) fn has_folded_nothing_since(&self, before: &Self) -> bool {
        self.salts == before.salts && self.folded_frames == before.folded_frames
    }
}

/// `walChecksumBytes` of SQLite, over words that are in the machine's byte order.
fn checksum(words: &[u32]) -> [u32; 2] {
    words.chunks_exact(2).fold([0, 0], |[one, two]: [u32; 2], pair| {
        let one = one.wrapping_add(pair[0]).wrapping_add(two);
        [one, two.wrapping_add(pair[1]).wrapping_add(one)]
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

    use camino::Utf8Path;
    use rusqlite::Connection;

    use super::*;

    /// Would catch a wrong offset, and an index that is believed although SQLite would not.
    #[test]
    fn index_says_what_sqlite_says() {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(folder.path()).unwrap().join("a.db");
        let connection = Connection::open(&path).unwrap();
        let run = |sql| connection.execute_batch(sql).unwrap();
        run("PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0; CREATE TABLE t(x); INSERT INTO t VALUES (1)");
        let index = File::open(format!("{path}-shm")).unwrap();
        let look = || WalIndex::read(&index).unwrap();
        let frames = |sql| -> [u32; 2] { connection.query_row(sql, [], |row| Ok([row.get(1)?, row.get(2)?])).unwrap() };
        let ahead = look().unwrap();
        let told = frames("PRAGMA wal_checkpoint(NOOP)");
        assert_eq!([ahead.committed_frames, ahead.folded_frames], told);
        assert!(told[0] > 1 && told[1] == 0 && !ahead.is_folded());
        let all = frames("PRAGMA wal_checkpoint(PASSIVE)");
        let done = look().unwrap();
        assert_eq!([done.committed_frames, done.folded_frames], all);
        assert!(done.is_folded() && !done.has_folded_nothing_since(&ahead));
        run("PRAGMA wal_checkpoint(TRUNCATE)");
        assert!(look().unwrap().is_folded() && !look().unwrap().has_folded_nothing_since(&done));
        run("INSERT INTO t VALUES (2)");
        let again = look().unwrap();
        assert!(!again.is_folded() && again.salts != done.salts);

        let mut bytes = [0; LOOK_BYTES];
        index.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(WalIndex::parse(&bytes), Some(again));
        for at in 0..2 * HEADER_BYTES {
            let mut torn = bytes;
            torn[at] ^= 0xff;
            assert_eq!(WalIndex::parse(&torn), None, "byte {at}");
            torn[(at + HEADER_BYTES) % (2 * HEADER_BYTES)] ^= 0xff;
            assert_eq!(WalIndex::parse(&torn), None, "byte {at} of both");
        }
        assert_eq!(WalIndex::parse(&[0; LOOK_BYTES]), None);
    }
}
