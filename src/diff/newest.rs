//! Which columns look like times, and which of two values is the newer one. Pure.

use std::cmp::Ordering;

use crate::sqlite::Time;

/// Whole names of columns that hold times.
const NAMES: [&str; 14] = [
    "timestamp",
    "datetime",
    "date",
    "time",
    "ts",
    "created",
    "updated",
    "modified",
    "deleted",
    "changed",
    "accessed",
    "mtime",
    "ctime",
    "atime",
];

/// How the last word of such a name may read, where words are set apart.
const LAST_WORDS: [&str; 7] = ["at", "on", "time", "date", "ts", "timestamp", "datetime"];

/// What a declared type of such a column begins with.
const TYPES: [&str; 4] = ["date", "time", "datetime", "timestamp"];

/// Whether a column looks like one that holds times, by its name or its declared type.
pub(super) fn is_time(name: &str, declared: &str) -> bool {
    let declared = declared.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
    if TYPES.iter().any(|known| declared.eq_ignore_ascii_case(known)) {
        return true;
    }
    NAMES.iter().any(|known| name.eq_ignore_ascii_case(known))
        || last_word(name).is_some_and(|word| LAST_WORDS.iter().any(|known| word.eq_ignore_ascii_case(known)))
}

/// The last word of `created_at`, `created-at` or `createdAt`, if there is one before it.
fn last_word(name: &str) -> Option<&str> {
    let letters: Vec<_> = name.char_indices().collect();
    let begins = letters.windows(2).rposition(|pair| {
        let (before, letter) = (pair[0].1, pair[1].1);
        !before.is_alphanumeric() || (before.is_lowercase() && letter.is_uppercase())
    });
    begins.map(|at| &name[letters[at + 1].0..])
}

/// The newer of two values, by SQLite's order: any text comes after any number.
pub(super) fn newer(one: Option<Time>, other: Option<Time>) -> Option<Time> {
    match (one, other) {
        (Some(one), Some(other)) => Some(if order(&one, &other) == Ordering::Less { other } else { one }),
        (one, other) => one.or(other),
    }
}

fn order(one: &Time, other: &Time) -> Ordering {
    match (one, other) {
        (Time::Text(one), Time::Text(other)) => one.cmp(other),
        (Time::Text(_), Time::Integer(_) | Time::Real(_)) => Ordering::Greater,
        (Time::Integer(_) | Time::Real(_), Time::Text(_)) => Ordering::Less,
        (Time::Integer(one), Time::Integer(other)) => one.cmp(other),
        (Time::Real(one), Time::Real(other)) => one.total_cmp(other),
        (Time::Integer(one), Time::Real(other)) => approximate(*one).total_cmp(other),
        (Time::Real(one), Time::Integer(other)) => one.total_cmp(&approximate(*other)),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a column that holds both kinds has no order that is more right")]
fn approximate(integer: i64) -> f64 {
    integer as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Would catch `format`, `chat` and `status` taken for times, and the ways to write `created at` that are not.
    #[test]
    fn names_and_types_that_look_like_times() {
        for name in ["created_at", "CREATED_AT", "createdAt", "end-time", "date", "Timestamp", "x_ts", "seen on"] {
            assert!(is_time(name, "TEXT"), "{name}");
        }
        for name in ["format", "chat", "status", "candidate", "at", "_", "", "data", "é", "timely"] {
            assert!(!is_time(name, "TEXT"), "{name}");
        }
        for declared in ["DATETIME", "timestamp with time zone", "Date", "TIME(6)"] {
            assert!(is_time("x", declared), "{declared}");
        }
        assert!(!is_time("x", "dates") && !is_time("x", ""));
    }

    #[test]
    fn the_newer_of_two_values() {
        let text = |text: &str| Some(Time::Text(text.to_owned()));
        assert_eq!(newer(text("2026-11-22"), text("2026-11-09")), text("2026-11-22"));
        assert_eq!(newer(None, text("2026")), text("2026"));
        assert_eq!(newer(text("2026"), Some(Time::Integer(i64::MAX))), text("2026"));
        assert_eq!(newer(Some(Time::Real(2.5)), Some(Time::Integer(2))), Some(Time::Real(2.5)));
        assert_eq!(newer(None, None), None);
    }
}
