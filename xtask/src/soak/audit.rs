//! What was committed must be somewhere: in the database, or, after a restore, in what that has kept.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::io::Read as _;

use camino::{Utf8Path, Utf8PathBuf};
use rusqlite::{Connection, OpenFlags};

use crate::Result;

/// A row: who has written it, and which of theirs it is.
pub(crate) type Row = (u32, u64);

/// Who has written the rows that were there in the beginning.
pub(crate) const NOBODY: u32 = 1000;

/// What is known of the rows.
#[derive(Default)]
pub(crate) struct Ledger {
    /// Of each writer, the file in which it notes what is committed, and how much of it was read.
    logs: Vec<(Utf8PathBuf, u64)>,
    acknowledged: HashSet<Row>,
    /// Those that restores have taken out of the database, and that were found where they were kept.
    lost: HashSet<Row>,
}

impl Ledger {
    /// Of writers with these logs, and of a database that has so many rows already.
    pub(crate) fn of(logs: &[Utf8PathBuf], beginning: u64) -> Self {
        let acknowledged = (0..beginning).map(|number| (NOBODY, number)).collect();
        Self { logs: logs.iter().map(|log| (log.clone(), 0)).collect(), acknowledged, ..Self::default() }
    }

    pub(crate) fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }

    pub(crate) fn lost(&self) -> usize {
        self.lost.len()
    }

    /// Reads what the writers have noted since.
    pub(crate) fn read_logs(&mut self) -> Result {
        for (writer, (log, done)) in (0_u32..).zip(&mut self.logs) {
            let Ok(mut file) = fs::File::open(&*log) else { continue };
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            let (numbers, _torn) = bytes.as_chunks::<8>();
            let known = usize::try_from(*done)?;
            for number in numbers.iter().skip(known) {
                self.acknowledged.insert((writer, u64::from_le_bytes(*number)));
            }
            *done = numbers.len() as u64;
        }
        Ok(())
    }

    /// What is wrong if the database holds these rows. `kept` tells the rows of one kept database after the other, as long as
    /// there are any; it is asked only after a restore, which alone may take rows away.
    pub(crate) fn judge(
        &mut self,
        live: &HashSet<Row>,
        restored: bool,
        mut kept: impl FnMut() -> Result<Option<HashSet<Row>>>,
    ) -> Result<Option<String>> {
        let missing: HashSet<Row> = self.acknowledged.difference(live).copied().collect();
        let mut nowhere: HashSet<Row> = missing.difference(&self.lost).copied().collect();
        while restored && !nowhere.is_empty() {
            let Some(rows) = kept()? else { break };
            nowhere.retain(|row| !rows.contains(row));
        }
        self.lost = missing;
        let first: BTreeSet<_> = nowhere.iter().copied().collect();
        Ok(first.first().map(|row| {
            format!(
                "{} commits that were acknowledged are nowhere, such as {row:?}; after a restore: {restored}",
                first.len()
            )
        }))
    }
}

/// The rows of the live database, as one transaction sees them.
pub(crate) fn rows_of_live(database: &Utf8Path) -> Result<HashSet<Row>> {
    let connection = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.busy_timeout(std::time::Duration::from_secs(20))?;
    rows(&connection)
}

/// The rows of a file that nobody uses, with its sidecars: of a copy, so that it stays as it is.
pub(crate) fn rows_of_file(file: &Utf8Path) -> Result<HashSet<Row>> {
    let scratch = tempfile::tempdir()?;
    let copy = Utf8PathBuf::try_from(scratch.path().join("copy.db"))?;
    fs::copy(file, &copy)?;
    for suffix in ["-wal", "-journal"] {
        let sidecar = format!("{file}{suffix}");
        if fs::exists(&sidecar)? {
            fs::copy(sidecar, format!("{copy}{suffix}"))?;
        }
    }
    rows(&Connection::open(&copy)?)
}

fn rows(connection: &Connection) -> Result<HashSet<Row>> {
    let mut statement = connection.prepare("SELECT writer, number FROM ledger")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs())))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Names in the folder and the archive that neither a database, nor a backup, nor anything documented has.
pub(crate) fn strangers(folder: &[String], archive: &[String]) -> Vec<String> {
    let is_known = |name: &String| {
        ["", "-wal", "-shm", ".restore-lock", ".guard-lock", ".in-place.json"]
            .iter()
            .any(|rest| *name == format!("engram.db{rest}"))
            || name == "engram-restore.toml"
            || name.starts_with("engram.db.pre-restore") && Utf8Path::new(name).extension() != Some("new")
    };
    let is_backup = |name: &String| {
        let name = name.strip_suffix(".manifest.json").unwrap_or(name);
        name.starts_with("engram-") && Utf8Path::new(name).extension() == Some("db")
    };
    let of_folder = folder.iter().filter(|name| !is_known(name));
    let of_archive = archive.iter().filter(|name| !is_backup(name) && *name != ".state");
    of_folder.chain(of_archive).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::super::actors::mixture;
    use super::*;

    fn ledger() -> Ledger {
        Ledger { acknowledged: (0..10).map(|number| (0, number)).collect(), ..Ledger::default() }
    }

    fn upto(count: u64) -> HashSet<Row> {
        (0..count).map(|number| (0, number)).collect()
    }

    #[test]
    fn a_commit_that_is_gone_is_noticed() {
        assert_eq!(ledger().judge(&upto(10), false, || Ok(None)).unwrap(), None);
        let wrong = ledger().judge(&upto(9), false, || panic!("nothing was restored")).unwrap().unwrap();
        assert!(wrong.contains("1 commits") && wrong.contains("(0, 9)"), "{wrong}");
    }

    #[test]
    fn what_a_restore_takes_away_has_to_be_kept() {
        let mut ledger = ledger();
        let mut kept = vec![upto(7), upto(10)].into_iter();
        assert_eq!(ledger.judge(&upto(4), true, || Ok(kept.next())).unwrap(), None);
        // It is known by now, and nothing more may go; what an undo brings back may not go again.
        assert_eq!(ledger.judge(&upto(4), false, || Ok(None)).unwrap(), None);
        assert!(ledger.judge(&upto(3), true, || Ok(None)).unwrap().is_some());
        assert_eq!(ledger.judge(&upto(10), true, || Ok(None)).unwrap(), None);
        let mut kept = vec![upto(9)].into_iter();
        assert!(ledger.judge(&upto(4), true, || Ok(kept.next())).unwrap().is_some());
    }

    #[test]
    fn a_mixture_is_noticed() {
        assert_eq!(mixture(((2, 1), (2, 1)), ((2, 1), (2, 1))), None);
        assert!(mixture(((2, 1), (3, 3)), ((2, 1), (3, 3))).is_some());
        assert!(mixture(((2, 1), (2, 1)), ((3, 3), (3, 3))).is_some());
    }

    #[test]
    fn a_file_that_is_left_behind_is_noticed() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let folder = ["engram.db", "engram.db-wal", "engram.db.pre-restore", "engram.db.pre-restore.json"];
        let archive = ["engram-2026-11-22T05-30-00Z.db", "engram-2026-11-22T05-30-00Z.db.manifest.json", ".state"];
        assert_eq!(strangers(&names(&folder), &names(&archive)), [""; 0]);
        for stranger in
            ["engram.db.restore-staged", "engram.db.restore-intent", "engram.db.pre-restore.new", "engram.db-journal"]
        {
            assert_eq!(strangers(&names(&[stranger]), &[]), [stranger]);
        }
        let left = [".engram-restore-a.partial", "engram-2026.db.pruned", "engram-2026.db-wal"];
        assert_eq!(strangers(&[], &names(&left)), left);
    }
}
