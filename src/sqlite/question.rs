//! A question of the user to a finished file: one statement that only reads, on a connection that trusts nothing.

use std::time::Instant;

use camino::Utf8Path;
use rusqlite::Connection;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::types::ValueRef;

use super::finished::{FinishedFile, Halt, Stop};
use super::inspect::Inspection;
use crate::error::{Error, ErrorKind, Result};
use crate::observe::Cancel;

/// No more of an answer is kept.
const MOST_CHARS: usize = 1000;

/// What became of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The first column of the first row as text; `None` if there is no row, or it is NULL.
    Value(Option<String>),
    /// SQLite, or what it may not do here, says no: the sentence.
    Refused(String),
    /// It took too long, or the file could not be read.
    NotDone(String),
}

/// Asks it. A sidecar of the file is ignored: look for one first.
///
/// # Errors
///
/// [`ErrorKind::Interrupted`], or that the file cannot be opened.
pub(crate) fn ask(file: &Utf8Path, sql: &str, deadline: Instant, cancel: &Cancel) -> Result<Answer> {
    let stop = Stop { cancel: cancel.clone(), deadline: Some(deadline) };
    let finished = FinishedFile::open(file, stop).map_err(|e| Error::io("open", file, e))?;
    let mut inspection = Inspection::connect(&finished, "PRAGMA cell_size_check=ON;")?.with_views()?;
    let authorized = inspection.connection.authorizer(Some(|context: AuthContext<'_>| may(&context)));
    let answered = authorized.and_then(|()| first_value(&inspection.connection, sql));
    match (inspection.halt(), answered) {
        (Some(Halt::Interrupted), _) => {
            Err(Error::new(ErrorKind::Interrupted, "ask", file).because("it was interrupted"))
        }
        (Some(Halt::OutOfTime), _) => Ok(Answer::NotDone("the time limit was reached".to_owned())),
        (Some(Halt::Failed(why)), _) => Ok(Answer::NotDone(why)),
        (None, Ok(value)) => Ok(Answer::Value(value)),
        (None, Err(e)) => Ok(Answer::Refused(e.to_string())),
    }
}

fn first_value(connection: &Connection, sql: &str) -> rusqlite::Result<Option<String>> {
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let cut = |text: &str| text.chars().take(MOST_CHARS).collect::<String>();
    Ok(match row.get_ref(0)? {
        ValueRef::Null => None,
        ValueRef::Integer(value) => Some(value.to_string()),
        ValueRef::Real(value) => Some(value.to_string()),
        ValueRef::Text(bytes) => Some(cut(&String::from_utf8_lossy(bytes))),
        ValueRef::Blob(bytes) => Some(format!("a blob of {} bytes", bytes.len())),
    })
}

/// Reading, and nothing else: nothing attached, no setting, no table changed, no extension.
fn may(context: &AuthContext<'_>) -> Authorization {
    let may = matches!(context.action, AuthAction::Select | AuthAction::Read { .. } | AuthAction::Recursive)
        || matches!(context.action, AuthAction::Function { function_name } if !function_name.eq_ignore_ascii_case("load_extension"))
        || matches!(context.action, AuthAction::Pragma { pragma_name, pragma_value: None } if LOOKS.contains(&pragma_name));
    if may { Authorization::Allow } else { Authorization::Deny }
}

/// Pragmas that only tell, asked without a value.
const LOOKS: [&str; 6] =
    ["user_version", "application_id", "schema_version", "page_count", "page_size", "freelist_count"];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

    use std::time::Duration;

    use camino::Utf8PathBuf;

    use super::*;

    fn asked(sql: &str, limit: Duration) -> Answer {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(folder.path().join("engram.db")).unwrap();
        let made = Connection::open(&path).unwrap();
        made.execute_batch("PRAGMA user_version=7; CREATE TABLE t(a, b); INSERT INTO t VALUES (1, 'x'), (2.5, x'00')")
            .unwrap();
        drop(made);
        let before = std::fs::read(&path).unwrap();
        let answer = ask(&path, sql, Instant::now() + limit, &Cancel::default()).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), before, "{sql}");
        assert_eq!(folder.path().read_dir().unwrap().count(), 1, "{sql}");
        answer
    }

    fn answer(sql: &str) -> Answer {
        asked(sql, Duration::from_secs(60))
    }

    #[test]
    fn first_column_of_the_first_row_is_the_answer() {
        let value = |text: &str| Answer::Value(Some(text.to_owned()));
        assert_eq!(answer("SELECT count(*), 9 FROM t"), value("2"));
        assert_eq!(answer("SELECT a FROM t ORDER BY a DESC"), value("2.5"));
        assert_eq!(answer("SELECT b FROM t WHERE a > 2"), value("a blob of 1 bytes"));
        assert_eq!(answer("WITH x AS (SELECT max(a) m FROM t) SELECT m FROM x;"), value("2.5"));
        assert_eq!(answer("PRAGMA user_version"), value("7"));
        assert_eq!(answer("SELECT a FROM t WHERE a > 5"), Answer::Value(None));
        assert_eq!(answer("SELECT NULL"), Answer::Value(None));
    }

    /// Would catch a question that changes something, or reads what is not in the file.
    #[test]
    fn what_does_more_than_read_is_refused() {
        for sql in [
            "DELETE FROM t",
            "CREATE TEMP TABLE x(a)",
            "ATTACH '/dev/null' AS x",
            "PRAGMA user_version=8",
            "PRAGMA journal_mode=WAL",
            "PRAGMA writable_schema=ON",
            "SELECT load_extension('x')",
            "VACUUM INTO 'x.db'",
            "SELECT 1; SELECT 2",
            "SELECT nothing FROM nowhere",
            "SELECT ?1 +",
            "",
        ] {
            assert!(matches!(answer(sql), Answer::Refused(_)), "{sql}: {:?}", answer(sql));
        }
    }

    #[test]
    fn question_without_an_end_is_not_done() {
        let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n) SELECT count(*) FROM n";
        assert_eq!(asked(endless, Duration::from_millis(50)), Answer::NotDone("the time limit was reached".to_owned()));
    }
}
