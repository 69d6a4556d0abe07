//! What the header of a backup tells that nothing else in it does. Pure, and warnings only: the database can be sound all
//! the same.

use std::ops::RangeInclusive;

use camino::Utf8Path;

use crate::findings::{Code, Finding};
use crate::header::{Header, JournalMode, version_text};

/// The schema format that SQLite has written by default since 3.3.0; 0 is that of a database without a table.
const SCHEMA_FORMATS: [u32; 2] = [0, 4];

/// A bug of SQLite's by which a database can go corrupt, as <https://sqlite.org/howtocorrupt.html#bugs_in_sqlite> and
/// <https://sqlite.org/wal.html#walresetbug> have them. Those are left out that need another system than Linux, or an
/// operating system that fails in a way that none was ever seen to.
struct Bug {
    what: &'static str,
    /// The versions that have it, as `SQLITE_VERSION_NUMBER`. The header names no version before 3.7.0.
    versions: RangeInclusive<u32>,
    /// Releases among those to which the fix was taken back.
    but_not: &'static [RangeInclusive<u32>],
    /// Only databases of this kind have it.
    only: fn(&Header, JournalMode) -> bool,
}

const BUGS: [Bug; 5] = [
    Bug {
        what: "two connections that write and checkpoint at the same moment can corrupt it (the WAL-reset bug)",
        versions: 3_007_000..=3_051_002,
        but_not: &[3_044_006..=3_044_999, 3_050_007..=3_050_999],
        only: |_, source_mode| matches!(source_mode, JournalMode::Wal),
    },
    Bug {
        what: "ROLLBACK TO a savepoint can corrupt it where temporary files are kept in memory",
        versions: 3_035_000..=3_037_001,
        but_not: &[],
        only: |_, _| true,
    },
    Bug {
        what: "VACUUM and a change of the journal mode can corrupt it beside another connection",
        versions: 3_007_000..=3_007_004,
        but_not: &[],
        only: |_, _| true,
    },
    Bug {
        what: "incremental_vacuum loses pages of the freelist",
        versions: 3_007_000..=3_007_001,
        but_not: &[],
        only: |header, _| header.auto_vacuum == 2,
    },
    Bug {
        what: "writing in turn with a SQLite before 3.7.0 corrupts it",
        versions: 3_007_000..=3_007_000,
        but_not: &[],
        only: |_, _| true,
    },
];

/// The bugs that the SQLite which wrote this header's database last can have brought in.
fn bugs(header: &Header, source_mode: JournalMode) -> Vec<&'static str> {
    let version = header.writer_version;
    let has = |bug: &&Bug| {
        bug.versions.contains(&version)
            && !bug.but_not.iter().any(|fixed| fixed.contains(&version))
            && (bug.only)(header, source_mode)
    };
    BUGS.iter().filter(has).map(|bug| bug.what).collect()
}

/// What is to be said of the SQLite that wrote this header's database last, if it has a bug of that sort.
pub(crate) fn writer_bugs(whose: &str, header: &Header, source_mode: JournalMode) -> Option<String> {
    let bugs = bugs(header, source_mode);
    let version = version_text(header.writer_version);
    (!bugs.is_empty()).then(|| format!("SQLite {version} wrote {whose} last: {}", bugs.join("; ")))
}

/// What is odd about the header of `backup`, a file of `size_bytes` whose source was in `source_mode`; also beside the
/// header of the live database, where that is known.
pub(crate) fn audit(
    backup: &Utf8Path,
    header: &Header,
    size_bytes: u64,
    source_mode: JournalMode,
    live: Option<&Header>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut add = |code, message: String| findings.push(Finding::new(code, backup, message));
    // A copy by SQLite itself names our own SQLite as its writer: then it is the live database that tells.
    for (whose, header) in [("the backup", Some(header)), ("the live database", live)] {
        let Some(header) = header else { continue };
        if let Some(message) = writer_bugs(whose, header, source_mode) {
            add(Code::WriterVersion, message);
        }
    }
    if let Some(live) = live {
        if header.application_id != live.application_id {
            let message = format!("application_id is {}, live {}", header.application_id, live.application_id);
            add(Code::ApplicationIdDiffers, message);
        }
        if header.user_version != live.user_version {
            let message = format!("user_version is {}, live {}", header.user_version, live.user_version);
            add(Code::UserVersionDiffers, message);
        }
    }
    let page_size = u64::from(header.page_size);
    let pages = size_bytes / page_size;
    if !size_bytes.is_multiple_of(page_size) {
        let message = format!("the file has {size_bytes} bytes, which is no multiple of its page size, {page_size}");
        add(Code::PageCountDiffers, message);
    } else if let Some(said) = header.valid_page_count().filter(|said| u64::from(*said) != pages) {
        add(Code::PageCountDiffers, format!("the header says {said} pages, and the file has {pages}"));
    }
    if header.reserved_bytes != 0 {
        let message = format!("{} bytes at the end of each page are reserved for an extension", header.reserved_bytes);
        add(Code::ReservedBytes, message);
    }
    if !SCHEMA_FORMATS.contains(&header.schema_format) {
        add(Code::SchemaFormat, format!("the schema format is {}, and SQLite writes 4 today", header.schema_format));
    }
    if header.journal_mode_bytes.contains(&2) {
        add(Code::JournalMode, "the backup is in WAL mode: opened by hand it grows sidecars".to_owned());
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        let mut bytes = [0; 100];
        bytes[..24].copy_from_slice(b"SQLite format 3\0\x10\0\x01\x01\0\x40\x20\x20");
        bytes[31] = 3;
        bytes[47] = 4;
        Header::parse(&bytes).unwrap()
    }

    fn with_version(writer_version: u32) -> Header {
        Header { writer_version, ..header() }
    }

    fn codes(header: &Header, size_bytes: u64, mode: JournalMode, live: Option<&Header>) -> Vec<Code> {
        audit("a.db".into(), header, size_bytes, mode, live).into_iter().map(|finding| finding.code).collect()
    }

    /// Would catch a fixed release that is warned of, and a broken one that is not.
    #[test]
    fn versions_with_the_wal_reset_bug_are_known() {
        let broken = [3_007_005, 3_044_005, 3_045_000, 3_050_006, 3_051_000, 3_051_002];
        let fixed = [0, 3_044_006, 3_050_007, 3_051_003, 3_052_000, 3_053_000, 3_054_001];
        for version in broken {
            let header = with_version(version);
            assert_eq!(codes(&header, 12_288, JournalMode::Wal, None), [Code::WriterVersion], "{version}");
            assert_eq!(codes(&header, 12_288, JournalMode::Rollback, None), [], "{version}");
        }
        for version in fixed {
            assert_eq!(codes(&with_version(version), 12_288, JournalMode::Wal, None), [], "{version}");
        }
    }

    #[test]
    fn other_bugs_need_what_they_need() {
        for (version, broken) in [(3_034_001, false), (3_035_000, true), (3_037_001, true), (3_037_002, false)] {
            let found = codes(&with_version(version), 12_288, JournalMode::Rollback, None);
            assert_eq!(found == [Code::WriterVersion], broken, "{version}");
        }
        let first = with_version(3_007_000);
        assert_eq!(bugs(&first, JournalMode::Rollback).len(), 2);
        assert_eq!(bugs(&Header { auto_vacuum: 2, ..first }, JournalMode::Wal).len(), 4);
    }

    /// A backup that SQLite copied names the SQLite that copied it.
    #[test]
    fn writer_of_the_live_database_counts_too() {
        let live = with_version(3_045_001);
        let found = audit("a.db".into(), &with_version(3_054_001), 12_288, JournalMode::Wal, Some(&live));
        assert_eq!(found.len(), 1);
        assert!(found[0].message.starts_with("SQLite 3.45.1 wrote the live database last: "), "{found:?}");
    }

    #[test]
    fn each_field_has_its_code() {
        let sound = header();
        let mode = JournalMode::Rollback;
        assert_eq!(codes(&sound, 12_288, mode, Some(&sound)), []);
        assert_eq!(codes(&sound, 16_384, mode, None), [Code::PageCountDiffers]);
        assert_eq!(codes(&sound, 12_289, mode, None), [Code::PageCountDiffers]);
        let old = Header { change_counter: 7, ..sound.clone() };
        assert_eq!(codes(&old, 16_384, mode, None), [], "the header's count does not count");
        let live = Header { application_id: 1, user_version: 2, ..sound.clone() };
        assert_eq!(codes(&sound, 12_288, mode, Some(&live)), [Code::ApplicationIdDiffers, Code::UserVersionDiffers]);
        let odd = Header { reserved_bytes: 8, schema_format: 1, journal_mode_bytes: [2, 2], ..sound.clone() };
        let expected = [Code::ReservedBytes, Code::SchemaFormat, Code::JournalMode];
        assert_eq!(codes(&odd, 12_288, mode, None), expected);
        assert_eq!(codes(&Header { schema_format: 0, ..sound }, 12_288, mode, None), []);
    }
}
