//! What SQLite's own check says of a file, and what ours does.

use camino::Utf8Path;
use engram_restore::{CheckOptions, CheckReport, Quiet, check};
use rusqlite::limits::Limit;
use rusqlite::{Connection, ErrorCode, OpenFlags};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Sound,
    Damaged(Vec<String>),
    /// It could not be looked at.
    NotDone(String),
}

impl Verdict {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Sound => "sound",
            Self::Damaged(_) => "damaged",
            Self::NotDone(_) => "not done",
        }
    }
}

/// So many millions of operations take some seconds, and no sound database here that many.
const MOST_LOOKS: u32 = 300;

/// `PRAGMA integrity_check`, as anybody runs it.
pub(crate) fn stock(path: &Utf8Path) -> Verdict {
    let mut rows = Vec::new();
    let checked = (|| {
        // Opened read-only it would pass over CHECK constraints.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags)?;
        // What damage makes endless is not done.
        let mut looks = 0;
        connection.progress_handler(
            1_000_000,
            Some(move || {
                looks += 1;
                looks > MOST_LOOKS
            }),
        )?;
        // What it cannot hold it could not look at either.
        connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, 100_000_000)?;
        let mut statement = connection.prepare("PRAGMA integrity_check")?;
        let mut found = statement.query([])?;
        while let Some(row) = found.next()? {
            rows.push(String::from_utf8_lossy(row.get_ref(0)?.as_bytes()?).into_owned());
        }
        Ok::<_, rusqlite::Error>(())
    })();
    match checked {
        Ok(()) if rows == ["ok"] => Verdict::Sound,
        Ok(()) => Verdict::Damaged(rows),
        Err(e) if matches!(e.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)) => {
            rows.push(e.to_string());
            Verdict::Damaged(rows)
        }
        Err(e) => Verdict::NotDone(e.to_string()),
    }
}

pub(crate) fn ours(path: &Utf8Path) -> (Verdict, CheckReport) {
    let report = check(path, &CheckOptions::default(), &mut Quiet).unwrap();
    let verdict = match &report.integrity.error {
        _ if report.integrity.rows.iter().any(|row| row != "ok") => Verdict::Damaged(report.integrity.rows.clone()),
        Some(error) => Verdict::NotDone(error.clone()),
        None => Verdict::Sound,
    };
    (verdict, report)
}
