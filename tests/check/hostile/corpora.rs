//! Collections of broken databases, such as SQLite's own: what is in them, and all of it judged.

use std::fs;
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;
use rusqlite::{Connection, OpenFlags};

use super::judge;

/// The databases of a collection, each with a name.
///
/// A collection is a database with tables `db` (of databases) and `xsql` (of statements, or of databases as hexadecimal digits),
/// as SQLite's `test/fuzzdata*.db` are; a text with dumps in it, as `dbtotxt` writes them; or else a database itself.
fn databases(file: &Utf8Path) -> Vec<(String, Vec<u8>)> {
    let name = |number: usize| format!("{file}#{number}");
    let found = if let Some(found) = collected(file) {
        found
    } else {
        let bytes = fs::read(file).unwrap();
        let dumped = dumps(&String::from_utf8_lossy(&bytes));
        if dumped.is_empty() { vec![bytes] } else { dumped }
    };
    let numbered = found.into_iter().enumerate().map(|(number, bytes)| (name(number), bytes));
    numbered.filter(|(_, bytes)| !bytes.is_empty()).collect()
}

fn collected(file: &Utf8Path) -> Option<Vec<Vec<u8>>> {
    let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let all = |sql: &str| -> rusqlite::Result<Vec<Vec<u8>>> {
        let mut statement = connection.prepare(sql)?;
        statement.query_map([], |row| row.get(0))?.collect()
    };
    let mut found = all("SELECT CAST(dbcontent AS BLOB) FROM db ORDER BY dbid").ok()?;
    let scripts = all("SELECT CAST(sqltext AS BLOB) FROM xsql ORDER BY sqlid").ok()?;
    found.extend(scripts.iter().map(|script| {
        let (digits, statements) = script.split_at(script.windows(4).position(|end| end == b"\n--\n").unwrap_or(0));
        let start = from_digits(digits);
        let statements = if digits.is_empty() { script } else { statements };
        // Beside a database that cannot be opened, all statements fail, and it stays as it is.
        worked_on(&start, &String::from_utf8_lossy(statements))
    }));
    Some(found)
}

/// Two digits are a byte; `[7f]` goes on at that place.
fn from_digits(text: &[u8]) -> Vec<u8> {
    let (mut bytes, mut at, mut high) = (Vec::new(), 0, None);
    let mut text = text.iter().copied();
    while let Some(letter) = text.next() {
        if letter == b'[' {
            let place: Vec<u8> = text.by_ref().take_while(|letter| *letter != b']').collect();
            at = usize::from_str_radix(&String::from_utf8_lossy(&place), 16).unwrap_or(at);
            high = None;
        } else if let Some(digit) = char::from(letter).to_digit(16).and_then(|digit| u8::try_from(digit).ok()) {
            let Some(high_digit) = high.take() else {
                high = Some(digit);
                continue;
            };
            if at >= 1 << 20 {
                break;
            }
            bytes.resize(bytes.len().max(at + 1), 0);
            bytes[at] = high_digit << 4 | digit;
            at += 1;
        }
    }
    bytes
}

/// Every dump in a text: `| size N pagesize N ...`, then `| page N offset N`, and lines of sixteen bytes from there.
fn dumps(text: &str) -> Vec<Vec<u8>> {
    let (mut found, mut offset): (Vec<Vec<u8>>, usize) = (Vec::new(), 0);
    for line in text.lines() {
        let Some(line) = line.trim_start().strip_prefix('|') else { continue };
        let words: Vec<_> = line.split_whitespace().collect();
        match words.as_slice() {
            ["size", size, "pagesize", ..] => {
                found.push(vec![0; size.parse::<usize>().unwrap_or(0).min(1 << 24)]);
            }
            ["page", _, "offset", at, ..] => offset = at.parse().unwrap_or(0),
            [at, bytes @ ..] => {
                let (Some(at), Some(database)) =
                    (at.strip_suffix(':').and_then(|at| at.parse::<usize>().ok()), found.last_mut())
                else {
                    continue;
                };
                let digits = bytes.iter().take(16).map_while(|byte| u8::from_str_radix(byte, 16).ok());
                for (place, byte) in database.iter_mut().skip(offset + at).zip(digits) {
                    *place = byte;
                }
            }
            [] => {}
        }
    }
    found
}

/// What is left of a database when these statements have been run on it, as far as they go.
fn worked_on(start: &[u8], statements: &str) -> Vec<u8> {
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let path = folder.path().join("a.db");
    fs::write(&path, start).unwrap();
    let mut connection = Connection::open(&path).unwrap();
    connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, 1_000_000).unwrap();
    let deadline = Instant::now() + Duration::from_secs(1);
    connection.progress_handler(1000, Some(move || Instant::now() > deadline)).unwrap();
    connection.authorizer(Some(within_the_file)).unwrap();
    for pragma in ["journal_mode=MEMORY", "synchronous=OFF"] {
        connection.execute_batch(&format!("PRAGMA {pragma}")).unwrap_or_default();
    }
    // Statements that fail are left out; where one cannot be told from the next, so is the rest.
    for statement in statements.split_inclusive(';') {
        connection.execute_batch(statement).unwrap_or_default();
    }
    drop(connection);
    fs::read(&path).unwrap()
}

/// Ends of the names of pragmas that are for the whole process.
const REACHING_OUT: [&str; 2] = ["_directory", "_heap_limit"];

fn within_the_file(context: AuthContext<'_>) -> Authorization {
    let elsewhere = matches!(context.action, AuthAction::Attach { .. } | AuthAction::Detach { .. })
        || matches!(context.action, AuthAction::Pragma { pragma_name, .. } if REACHING_OUT.iter().any(|end| pragma_name.ends_with(end)));
    if elsewhere { Authorization::Deny } else { Authorization::Allow }
}

/// `ENGRAM_HOSTILE_CORPORA`: files, one a line. With `ENGRAM_HOSTILE_REPLAY`, a name as a failure has it, only that one.
#[test]
#[ignore = "what it judges is no part of the project"]
fn every_database_of_every_corpus() {
    let files: Vec<Utf8PathBuf> = std::env::var("ENGRAM_HOSTILE_CORPORA").unwrap().lines().map(Into::into).collect();
    let replay = std::env::var("ENGRAM_HOSTILE_REPLAY").ok();
    for file in files {
        let cases =
            databases(&file).into_iter().filter(|(name, _)| replay.as_ref().is_none_or(|wanted| wanted == name));
        println!("{file}: {:?}", judge::all(cases));
    }
}

/// Would catch a reader of corpora that hands over nothing, or something else.
#[test]
fn each_form_of_a_collection_is_read() {
    assert_eq!(from_digits(b"53514c\n[5]ff [1]aA"), [0x53, 0xaa, 0x4c, 0, 0, 0xff]);
    let text = "db deserialize [decode_hexdb {\n| size 512 pagesize 512 filename a.db\n| page 1 offset 0\n\
                |      0: 53 51 4c   SQL\n|     16: 0a 0b   ..\n| end a.db\n";
    let [dump] = &dumps(text)[..] else { panic!("one dump") };
    assert_eq!((dump.len(), &dump[..4], &dump[16..19]), (512, &b"SQL\0"[..], &[0x0a, 0x0b, 0][..]));
    let made = worked_on(&[], "CREATE TABLE t(a); nonsense; INSERT INTO t VALUES (7); ATTACH '/tmp/x' AS x;");
    assert!(made.starts_with(b"SQLite format 3\0"));

    let folder = tempfile::tempdir().unwrap();
    let corpus = Utf8PathBuf::from_path_buf(folder.path().join("corpus.db")).unwrap();
    let connection = Connection::open(&corpus).unwrap();
    connection
        .execute_batch("CREATE TABLE db(dbid INTEGER PRIMARY KEY, dbcontent); CREATE TABLE xsql(sqlid, sqltext)")
        .unwrap();
    connection.execute("INSERT INTO db(dbcontent) VALUES (?1), (x'00')", [&made]).unwrap();
    connection.execute("INSERT INTO xsql VALUES (1, 'CREATE TABLE other(a);'), (2, 'SELECT 1;')", []).unwrap();
    drop(connection);
    let found = databases(&corpus);
    assert_eq!(found.len(), 3, "a script that makes nothing leaves nothing: {found:?}");
    let counts = judge::all(found.into_iter());
    assert_eq!(counts.into_iter().collect::<Vec<_>>(), [("damaged", 1), ("good", 2)]);
}
