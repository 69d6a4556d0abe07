//! The 100-byte header of a database file (<https://sqlite.org/fileformat2.html#the_database_header>).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// How many bytes the header has.
pub(crate) const HEADER_BYTES: usize = 100;

/// Where the two bytes of the journal mode are: the read and the write version.
pub const JOURNAL_MODE_OFFSET: u64 = 18;

const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// How a database keeps its transactions, as far as its file remembers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JournalMode {
    /// Write-ahead log: bytes 18 and 19 of the header are 2.
    Wal,
    /// One of the rollback modes (DELETE, TRUNCATE, PERSIST), which differ by connection only.
    Rollback,
}

impl JournalMode {
    /// The two header bytes, at offset 18, that make SQLite open a file in this mode.
    #[must_use]
    pub fn header_bytes(self) -> [u8; 2] {
        match self {
            Self::Wal => [2, 2],
            Self::Rollback => [1, 1],
        }
    }

    /// The word for people and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Wal => "wal",
            Self::Rollback => "rollback",
        }
    }
}

/// The header's fields, as far as anybody here asks for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes a page: a power of two from 512 to 65536.
    pub page_size: u32,
    /// The journal mode in bytes 18 and 19.
    pub journal_mode: JournalMode,
    /// Those two bytes as they are: the write version and the read version.
    pub journal_mode_bytes: [u8; 2],
    /// Incremented with each change outside WAL mode.
    pub change_counter: u32,
    /// Pages in the file, as far as the header knows (0 if a SQLite before 3.7.0 wrote last).
    pub page_count: u32,
    /// The change counter as it was when the page count was written: where they differ, a SQLite before 3.7.0 wrote later.
    pub version_valid_for: u32,
    /// Bytes at the end of each page that SQLite leaves to an extension.
    pub reserved_bytes: u8,
    /// The first page of the freelist, 0 if it is empty.
    pub freelist_first: u32,
    /// Pages on the freelist.
    pub freelist_count: u32,
    /// Incremented with each change of the schema.
    pub schema_version: u32,
    /// The format of the schema: 4 since 2006; 0 in a database without a table.
    pub schema_format: u32,
    /// The highest root page of a tree, 0 without auto-vacuum.
    pub largest_root: u32,
    /// 0 none, 1 full, 2 incremental: as `PRAGMA auto_vacuum` says it.
    pub auto_vacuum: u8,
    /// 1 UTF-8, 2 UTF-16le, 3 UTF-16be; 0 in a database without a table.
    pub encoding: u32,
    /// The application's own number.
    pub user_version: i32,
    /// What `file(1)` and applications tell files apart by.
    pub application_id: i32,
    /// The SQLite that wrote last, as `SQLITE_VERSION_NUMBER`: 3054001 is 3.54.1.
    pub writer_version: u32,
}

/// Why bytes are not the header of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Fewer than 100 bytes.
    #[error("it is too short for a SQLite database ({0} bytes)")]
    TooShort(usize),
    /// The first 16 bytes are not SQLite's.
    #[error("it is not a SQLite database (its first 16 bytes are something else)")]
    NotADatabase,
    /// The page size is none of the eight that SQLite has.
    #[error("its header says a page size of {0}, which SQLite does not have")]
    PageSize(u32),
}

impl Header {
    /// Reads the header of an open file.
    ///
    /// # Errors
    ///
    /// The outer error if the file cannot be read, the inner one if it is no database.
    pub fn read(file: &File) -> io::Result<Result<Self, HeaderError>> {
        let mut bytes = [0; HEADER_BYTES];
        let length = file.read_at(&mut bytes, 0)?;
        Ok(Self::parse(&bytes[..length]))
    }

    /// Reads the first 100 bytes of a file.
    ///
    /// # Errors
    ///
    /// Why they are no header.
    pub fn parse(bytes: &[u8]) -> Result<Self, HeaderError> {
        if bytes.len() < HEADER_BYTES {
            return Err(HeaderError::TooShort(bytes.len()));
        }
        if !bytes.starts_with(MAGIC) {
            return Err(HeaderError::NotADatabase);
        }
        let field = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let page_size = match u32::from(u16::from_be_bytes([bytes[16], bytes[17]])) {
            1 => 65536,
            size if size >= 512 && size.is_power_of_two() => size,
            size => return Err(HeaderError::PageSize(size)),
        };
        Ok(Self {
            page_size,
            journal_mode: if bytes[19] == 2 { JournalMode::Wal } else { JournalMode::Rollback },
            journal_mode_bytes: [bytes[18], bytes[19]],
            change_counter: field(24),
            page_count: field(28),
            version_valid_for: field(92),
            reserved_bytes: bytes[20],
            freelist_first: field(32),
            freelist_count: field(36),
            schema_version: field(40),
            schema_format: field(44),
            largest_root: field(52),
            auto_vacuum: match (field(52), field(64)) {
                (0, _) => 0,
                (_, 0) => 1,
                _ => 2,
            },
            encoding: field(56),
            user_version: field(60).cast_signed(),
            application_id: field(68).cast_signed(),
            writer_version: field(96),
        })
    }

    /// How many pages the header says there are; `None` where it does not count and the file's size tells.
    #[must_use]
    pub fn valid_page_count(&self) -> Option<u32> {
        (self.page_count != 0 && self.version_valid_for == self.change_counter).then_some(self.page_count)
    }

    /// The last writer's version as people write it, such as `3.54.1`.
    #[must_use]
    pub fn writer_version_text(&self) -> String {
        version_text(self.writer_version)
    }

    /// The text encoding's name; a database without a table has none yet and will be UTF-8.
    #[must_use]
    pub fn encoding_name(&self) -> &'static str {
        match self.encoding {
            2 => "UTF-16le",
            3 => "UTF-16be",
            _ => "UTF-8",
        }
    }
}

/// A `SQLITE_VERSION_NUMBER` as people write it.
#[must_use]
pub fn version_text(number: u32) -> String {
    format!("{}.{}.{}", number / 1_000_000, number / 1000 % 1000, number % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn agrees_with_sqlites_own_pragmas() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let connection = rusqlite::Connection::open(&path).unwrap();
        connection
            .execute_batch(
                "PRAGMA page_size=65536; PRAGMA auto_vacuum=2; PRAGMA encoding='UTF-16be'; PRAGMA user_version=-7;
                 PRAGMA application_id=1234567; PRAGMA journal_mode=WAL; CREATE TABLE t(a);
                 PRAGMA wal_checkpoint(TRUNCATE);",
            )
            .unwrap();
        let header = Header::parse(&std::fs::read(&path).unwrap()).unwrap();
        let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(i64::from(header.page_size), pragma("page_size"));
        assert_eq!(i64::from(header.page_count), pragma("page_count"));
        assert_eq!(header.valid_page_count(), Some(header.page_count));
        assert_eq!(i64::from(header.freelist_count), pragma("freelist_count"));
        assert_eq!((header.reserved_bytes, header.schema_format, header.largest_root), (0, 4, 3));
        assert_eq!(i64::from(header.auto_vacuum), pragma("auto_vacuum"));
        assert_eq!(i64::from(header.schema_version), pragma("schema_version"));
        assert_eq!(i64::from(header.user_version), -7);
        assert_eq!(i64::from(header.application_id), 1_234_567);
        assert_eq!(header.encoding_name(), "UTF-16be");
        assert_eq!(header.journal_mode, JournalMode::Wal);
        assert_eq!(header.writer_version_text(), crate::sqlite::version());
    }

    #[test]
    fn says_why_something_is_no_database() {
        assert_eq!(Header::parse(&[]), Err(HeaderError::TooShort(0)));
        assert_eq!(Header::parse(&[7; 100]), Err(HeaderError::NotADatabase));
        let mut bytes = [0; 100];
        bytes[..16].copy_from_slice(MAGIC);
        assert_eq!(Header::parse(&bytes), Err(HeaderError::PageSize(0)));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), magic in any::<bool>()) {
            if magic && bytes.len() >= 16 {
                bytes[..16].copy_from_slice(MAGIC);
            }
            if let Ok(header) = Header::parse(&bytes) {
                prop_assert!(header.page_size.is_power_of_two());
            }
        }
    }
}
