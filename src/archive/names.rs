//! Backup names, pure: `<database stem>-2026-11-22T05-30-00Z.db`, with `-2` and so on before the extension when taken.
//! UTC and no colons, which break Windows, tar and scp.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// How temporary files in an archive begin and end. Only such files are ever swept.
pub(crate) const PARTIAL_PREFIX: &str = ".engram-restore-";
/// See [`PARTIAL_PREFIX`].
pub(crate) const PARTIAL_SUFFIX: &str = ".partial";

/// Whether a file name is one of our temporary ones, or a sidecar that SQLite put beside one.
pub(crate) fn is_partial(name: &str) -> bool {
    let main = ["-journal", "-wal", "-shm"].iter().find_map(|sidecar| name.strip_suffix(sidecar)).unwrap_or(name);
    main.starts_with(PARTIAL_PREFIX) && main.ends_with(PARTIAL_SUFFIX)
}

/// The time in a name: to the second, UTC.
fn time_text(at: Timestamp) -> String {
    at.to_zoned(TimeZone::UTC).strftime("%Y-%m-%dT%H-%M-%SZ").to_string()
}

/// The name of the `number`th backup (counted from 1) that a database with this file stem got in the second of `at`.
#[must_use]
pub fn backup_name(stem: &str, at: Timestamp, number: u32) -> String {
    numbered(&format!("{stem}-{}", time_text(at)), number) + ".db"
}

/// A name, with `-2` and so on from the second one up.
fn numbered(name: &str, number: u32) -> String {
    if number < 2 { name.to_owned() } else { format!("{name}-{number}") }
}

/// A prefix and a time in the form that file names have, for those beside a database.
pub(crate) fn with_time(prefix: &str, at: Timestamp, number: u32) -> String {
    numbered(&format!("{prefix}{}", time_text(at)), number)
}

/// Reads what [`with_time`] made after its prefix: the second and the number.
pub(crate) fn parse_time(text: &str) -> Option<(Timestamp, u32)> {
    // Of a backup's name it is all but the stem.
    parse_name(&format!("x-{text}.db")).filter(|parts| parts.stem == "x").map(|parts| (parts.second, parts.number))
}

/// What a backup's name says: the database's stem, the second it was taken in, and its number there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NameParts {
    /// The database's file stem.
    pub(crate) stem: String,
    /// The second.
    pub(crate) second: Timestamp,
    /// From 1.
    pub(crate) number: u32,
}

/// Reads a name that [`backup_name`] made; `None` for any other.
#[must_use]
pub(crate) fn parse_name(name: &str) -> Option<NameParts> {
    const TIME_LENGTH: usize = "2026-11-22T05-30-00Z".len();
    let name = name.strip_suffix(".db")?;
    let (name, number) = match name.rsplit_once("Z-") {
        Some((start, number)) if number.bytes().all(|b| b.is_ascii_digit()) && !number.starts_with('0') => {
            (format!("{start}Z"), number.parse().ok().filter(|number| *number >= 2)?)
        }
        _ => (name.to_owned(), 1),
    };
    let (stem, time) = name.split_at_checked(name.len().checked_sub(TIME_LENGTH)?)?;
    let zoned = jiff::civil::DateTime::strptime("%Y-%m-%dT%H-%M-%SZ", time).ok()?.to_zoned(TimeZone::UTC).ok()?;
    let parts = NameParts { stem: stem.strip_suffix('-')?.to_owned(), second: zoned.timestamp(), number };
    // One name has one reading.
    (backup_name(&parts.stem, parts.second, parts.number).strip_suffix(".db")? == numbered(&name, number))
        .then_some(parts)
}

/// The second in a name that [`backup_name`] made.
pub(crate) fn named_second(name: &str) -> Option<Timestamp> {
    parse_name(name).map(|parts| parts.second)
}

/// What backups are ordered by: creation time, then the number at the end of the name.
#[must_use]
pub fn sort_key(created_at: Timestamp, name: &str) -> (Timestamp, u32) {
    (created_at, parse_name(name).map_or(1, |parts| parts.number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_have_no_colons_and_count_from_two() {
        let at = "2026-11-22T05:30:00.9Z".parse().unwrap();
        assert_eq!(backup_name("engram", at, 1), "engram-2026-11-22T05-30-00Z.db");
        assert_eq!(backup_name("engram", at, 2), "engram-2026-11-22T05-30-00Z-2.db");
    }

    #[test]
    fn other_names_are_not_ours() {
        for name in [
            "engram.db",
            "engram-2026-11-22T05-30-00Z",
            "engram-2026-13-22T05-30-00Z.db",
            "Z-2.db",
            ".db",
            "engram-2026-11-22T05-30-00Z-1.db",
            "engram-2026-11-22T05-30-00Z-02.db",
            "2026-11-22T05-30-00Z.db",
        ] {
            assert_eq!(parse_name(name), None, "{name}");
        }
    }

    #[test]
    fn only_our_temporary_names_are_partial() {
        assert!(is_partial(".engram-restore-a1B2.partial"));
        assert!(is_partial(".engram-restore-a1B2.partial-journal"));
        for name in ["engram-restore-a.partial", ".engram-restore-a.db", "a.partial", ".partial", "x.db-journal"] {
            assert!(!is_partial(name), "{name}");
        }
    }

    proptest! {
        #[test]
        fn a_name_is_read_back(stem in "[a-zZ.-]{1,12}", second in 0_i64..4_000_000_000, number in 1_u32..1000) {
            let second = Timestamp::from_second(second).unwrap();
            let parts = parse_name(&backup_name(&stem, second, number));
            prop_assert_eq!(parts, Some(NameParts { stem, second, number }));
        }

        #[test]
        fn arbitrary_names_never_panic(name in ".{0,60}") {
            let ours = parse_name(&name).is_some() || parse_name(&(name.clone() + ".db")).is_some();
            prop_assert!(!ours || name.contains('Z'));
        }
    }
}
