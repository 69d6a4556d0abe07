//! How a database is put back from the backup of a guarded command: the command lines, and which of them would be refused.

use camino::Utf8Path;
use serde::Serialize;

use super::beside::Beside;
use crate::database;
use crate::holders::parted_holders;
use crate::sqlite::{admit_source, live_header};
use crate::storage::{open_regular, parent_of};

/// The command lines with which a backup is put back, from whatever folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PutBack {
    /// Where nobody has the database open; `None` where that would be refused.
    pub swap: Option<String>,
    /// Why it would be refused, and in place too.
    pub not_at_all: Option<String>,
    /// Beside programs that have it open; `None` where that would be refused.
    pub in_place: Option<String>,
    /// Why it would be refused.
    pub not_in_place: Option<String>,
}

impl PutBack {
    pub(super) fn new(
        database: &Utf8Path,
        backup: &Utf8Path,
        config: Option<&Utf8Path>,
        keys: &[String],
        is_damaged: bool,
    ) -> Self {
        let swap = command_line(database, backup, config, keys);
        let not_at_all = not_at_all(database, backup);
        let found_damaged = || is_damaged.then(|| "it is damaged".to_owned());
        let not_in_place = not_at_all.clone().or_else(|| not_in_place(database, backup)).or_else(found_damaged);
        let in_place = not_in_place.is_none().then(|| format!("{swap} --in-place"));
        Self { swap: not_at_all.is_none().then_some(swap), not_at_all, in_place, not_in_place }
    }

    /// All of it as one sentence.
    #[must_use]
    pub fn sentence(&self) -> String {
        let Self { swap, not_at_all, in_place, not_in_place } = self;
        let Some(swap) = swap else {
            let why = not_at_all.as_deref().unwrap_or_default();
            return format!("it cannot be put back as it is: {why}");
        };
        match (in_place, not_in_place) {
            (Some(in_place), _) => format!("to put it back: {swap}; beside programs that have it open: {in_place}"),
            (None, Some(why)) => format!(
                "to put it back, stop the programs that have it open, then: {swap} (beside them it cannot be: {why})"
            ),
            (None, None) => format!("to put it back: {swap}"),
        }
    }
}

fn command_line(database: &Utf8Path, backup: &Utf8Path, config: Option<&Utf8Path>, keys: &[String]) -> String {
    let folder = parent_of(backup);
    let is_default = folder == database.with_file_name("backups");
    let archive = if is_default { String::new() } else { format!(" --archive {}", word(folder)) };
    let config = config.map_or_else(String::new, |path| format!(" --config {}", word(path)));
    let keys = keys.iter().map(|key| word(Utf8Path::new(key)));
    let keys = keys.fold(String::new(), |line, key| line + " --public-key " + &key);
    format!("engram-restore --db {}{archive}{config}{keys} restore {}", word(database), word(backup))
}

/// Why any restore of it would be refused, as far as that is known without reading the backup.
fn not_at_all(database: &Utf8Path, backup: &Utf8Path) -> Option<String> {
    let second_name = Beside::new(database).kept_new();
    let checked = database::regular_file(database, Some(&second_name)).and_then(|_there| database::resolve(database));
    match checked {
        Ok(now) if now != *database => return Some(format!("{database} leads to {now} now")),
        Ok(_) => {}
        Err(e) => return Some(e.message()),
    }
    let opened = open_regular(backup);
    opened.err().map(|e| format!("the backup {backup} cannot be opened: {e}"))
}

/// Why a restore in place would be refused, as far as that is known without SQLite. What cannot be looked at is none.
fn not_in_place(database: &Utf8Path, backup: &Utf8Path) -> Option<String> {
    match database::regular_file(database, None) {
        Ok(None) => return Some("there is no such file any more".to_owned()),
        Ok(Some(metadata)) if metadata.len() == 0 => return Some("the file is empty (0 bytes)".to_owned()),
        Ok(Some(_)) | Err(_) => {}
    }
    if let Some(holders) = parted_holders(database) {
        return Some(format!("{holders} still has open what was under its name before"));
    }
    let ours = open_regular(backup).ok()?;
    let Some(header) = live_header(database, &ours).ok()? else { return Some("it has no readable header".to_owned()) };
    let refused = admit_source(backup, database, header.journal_mode, header.page_size, header.encoding_name());
    refused.err().map(|e| e.message())
}

/// A path as a word for a shell.
fn word(path: &Utf8Path) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:@%".contains(c);
    if path.as_str().chars().all(is_plain) {
        return path.to_string();
    }
    format!("'{}'", path.as_str().replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

    use camino::Utf8PathBuf;

    use super::*;
    use crate::sqlite::Connection;

    /// Would catch a command line that a shell takes apart.
    #[test]
    fn command_lines_survive_a_shell() {
        let line = command_line("/a b/it's.db".into(), "/a b/backups/x.db".into(), None, &[]);
        assert_eq!(line, r"engram-restore --db '/a b/it'\''s.db' restore '/a b/backups/x.db'");
        let line = command_line("/a/e.db".into(), "/c/x.db".into(), Some("/etc/e r.toml".into()), &["RWx".to_owned()]);
        assert_eq!(
            line,
            "engram-restore --db /a/e.db --archive /c --config '/etc/e r.toml' --public-key RWx restore /c/x.db"
        );
    }

    /// Would catch a command line that is known to be refused, and one that is kept back although it would do.
    #[test]
    fn in_place_is_named_only_where_it_would_be_taken() {
        let folder = tempfile::tempdir().unwrap();
        let dir = Utf8PathBuf::from_path_buf(folder.path().canonicalize().unwrap()).unwrap();
        let (db, backup) = (dir.join("e.db"), dir.join("backup.db"));
        let make = |path: &Utf8Path, pragmas: &str| {
            Connection::open(path).unwrap().execute_batch(&format!("{pragmas}; CREATE TABLE t(a)")).unwrap();
        };
        let why = |is_damaged| PutBack::new(&db, &backup, None, &[], is_damaged).not_in_place;
        make(&backup, "");
        assert!(why(false).unwrap().contains("no such file"));
        std::fs::write(&db, "").unwrap();
        assert!(why(false).unwrap().contains("empty"));
        std::fs::write(&db, [7; 4096]).unwrap();
        assert!(why(false).unwrap().contains("header"));
        std::fs::remove_file(&db).unwrap();
        make(&db, "PRAGMA page_size=8192; PRAGMA journal_mode=WAL");
        assert!(why(false).unwrap().contains("8192"));
        std::fs::remove_file(&db).unwrap();
        // SQLite changes it where no WAL is in the way.
        make(&db, "PRAGMA page_size=8192");
        assert_eq!(why(false), None);
        let sound = PutBack::new(&db, &backup, None, &[], false);
        assert_eq!(sound.in_place, sound.swap.clone().map(|swap| swap + " --in-place"));
        assert!(sound.swap.is_some());
        let damaged = PutBack::new(&db, &backup, None, &[], true);
        assert_eq!((damaged.in_place.clone(), damaged.swap.clone()), (None, sound.swap));
        assert!(damaged.sentence().contains("stop the programs"), "{}", damaged.sentence());
        // What is not this database any more, or has no backup any more, is put back by nothing.
        std::fs::rename(&db, dir.join("other.db")).unwrap();
        std::os::unix::fs::symlink("other.db", &db).unwrap();
        let other = PutBack::new(&db, &backup, None, &[], false);
        assert_eq!((other.swap, other.in_place), (None, None), "{:?}", other.not_at_all);
        std::fs::remove_file(&db).unwrap();
        std::fs::rename(dir.join("other.db"), &db).unwrap();
        std::fs::remove_file(&backup).unwrap();
        let gone = PutBack::new(&db, &backup, None, &[], false);
        assert_eq!((gone.swap, gone.in_place), (None, None));
        assert!(gone.not_at_all.unwrap().contains("cannot be opened"));
    }
}
