//! What has to be true of the files beside a database, at any time and once a run is at its end.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs;
use std::sync::{LazyLock, Mutex};

use camino::{Utf8Path, Utf8PathBuf};
use engram_restore::VerifyOptions;
use engram_restore::archive::list;
use engram_restore::{Quiet, Verdict, verify};

use crate::content::{Content, Entry, snapshot, try_content, with_suffix};
use crate::scenario::Stage;

/// What a name is to whoever opens it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Found {
    Database(Content),
    /// Main file and WAL, as they are.
    Unopenable(Vec<u8>, Option<Vec<u8>>),
    /// The WAL that lies there without a database.
    Missing(Option<Vec<u8>>),
}

impl Found {
    pub(crate) fn is_unopenable(&self) -> bool {
        matches!(self, Self::Unopenable(..))
    }

    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Self::Missing(_))
    }
}

impl fmt::Debug for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = |wal: &Option<Vec<u8>>| wal.as_ref().map(Vec::len);
        match self {
            Self::Database(content) => write!(f, "{content:?}"),
            Self::Unopenable(main, wal) => write!(f, "unopenable ({} bytes), WAL {:?}", main.len(), size(wal)),
            Self::Missing(wal) => write!(f, "no file, WAL {:?}", size(wal)),
        }
    }
}

/// What plain SQLite makes of a copy of it. Most of what is looked at is one of few files, so answers are remembered.
pub(crate) fn found(path: &Utf8Path) -> Found {
    static SEEN: LazyLock<Mutex<HashMap<blake3::Hash, Found>>> = LazyLock::new(Mutex::default);
    let read = |suffix| fs::read(with_suffix(path, suffix)).ok();
    let (main, wal, journal) = (read(""), read("-wal"), read("-journal"));
    let Some(main) = main else { return Found::Missing(wal) };
    let key = blake3::hash(
        format!("{:?}", [Some(&main), wal.as_ref(), journal.as_ref()].map(|f| f.map(|f| blake3::hash(f)))).as_bytes(),
    );
    if let Some(known) = SEEN.lock().unwrap().get(&key) {
        return known.clone();
    }
    let found = try_content(path).map_or_else(|_| Found::Unopenable(main, wal), Found::Database);
    SEEN.lock().unwrap().insert(key, found.clone());
    found
}

/// Bytes 18 and 19 of the header.
pub(crate) fn journal_mode(db: &Utf8Path) -> Option<[u8; 2]> {
    fs::read(db).ok()?.get(18..20)?.try_into().ok()
}

/// The databases that restores have kept, the one of a restore under way among them.
pub(crate) fn kept(db: &Utf8Path) -> Vec<Utf8PathBuf> {
    let is_companion = |name: &str| ["-wal", "-shm", "-journal", ".json"].iter().any(|end| name.ends_with(end));
    let names = beside(db).into_iter().filter(|suffix| suffix.starts_with(".pre-restore") && !is_companion(suffix));
    names.map(|suffix| with_suffix(db, &suffix)).collect()
}

/// What follows the database's name in the names that begin with it.
fn beside(db: &Utf8Path) -> Vec<String> {
    let name = db.file_name().unwrap();
    let entries = db.parent().unwrap().read_dir_utf8().unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().to_owned());
    let mut suffixes: Vec<_> = names.filter_map(|entry| entry.strip_prefix(name).map(str::to_owned)).collect();
    suffixes.sort();
    suffixes
}

/// On which side of the commit the database is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Old,
    New,
}

/// What went wrong on purpose, and what was not as it has to be.
#[derive(Default)]
pub(crate) struct Report {
    /// Runs in which the fault struck.
    pub(crate) faults: usize,
    pub(crate) problems: Vec<String>,
}

impl Report {
    /// `what` says when, and what; the stage knows how that came about.
    pub(crate) fn add(&mut self, stage: &Stage<'_>, what: &str) {
        let scenario = stage.template.scenario;
        let history = stage.history.join("\n    ");
        self.problems.push(format!("{scenario}: {}\n    {history}", stage.plain(what)));
    }

    /// Fails the test if there is any problem.
    pub(crate) fn expect_none(&self) {
        let replay = "to replay one: SCENARIO=what/begins-it FOLDER=/an/empty/one cargo test --test kill lay_out \
                      -- --ignored; then its lines, in that folder";
        let problems = &self.problems;
        assert!(problems.is_empty(), "{} problems:\n{}\n{replay}", problems.len(), problems.join("\n"));
    }
}

impl Stage<'_> {
    /// Which of the two databases is there: complete, to whoever opens it now.
    pub(crate) fn side(&self) -> Option<Side> {
        let live = found(&self.db);
        match (&live, &self.template.old) {
            _ if live == self.template.old => Some(Side::Old),
            _ if live == self.template.new => Some(Side::New),
            // The WAL of what is no database may lie aside already.
            (Found::Unopenable(live, None), Found::Unopenable(old, Some(wal)))
                if live == old && self.has_aside(wal) =>
            {
                Some(Side::Old)
            }
            (Found::Missing(None), Found::Missing(Some(wal))) if self.has_aside(wal) => Some(Side::Old),
            _ => None,
        }
    }

    /// Whether a restore has written down what it is about to do.
    pub(crate) fn is_under_way(&self) -> bool {
        [".restore-intent", ".restore-in-place"].iter().any(|suffix| with_suffix(&self.db, suffix).exists())
    }

    /// Whether it is there with its WAL.
    pub(crate) fn is_old_complete(&self) -> bool {
        found(&self.db) == self.template.old
    }

    /// Whether one of our files has these bytes.
    fn has_aside(&self, bytes: &[u8]) -> bool {
        beside(&self.db).iter().any(|suffix| fs::read(with_suffix(&self.db, suffix)).is_ok_and(|file| file == bytes))
    }

    /// What holds at every instant: the old database or the new one, the old one somewhere, and the earlier ones.
    pub(crate) fn check(&self, when: &str, report: &mut Report) -> Option<Side> {
        let side = self.side();
        if side.is_none() {
            let (live, names) = (found(&self.db), beside(&self.db));
            let (old, new) = (&self.template.old, &self.template.new);
            report.add(self, &format!("{when}: neither old ({old:?}) nor new ({new:?}): {live:?}, {names:?}"));
        }
        if side != Some(Side::Old) && !self.has_in_parts(&self.template.old) {
            report.add(self, &format!("{when}: the old database is nowhere: {:?}", beside(&self.db)));
        }
        for (number, earlier) in self.template.kept.iter().enumerate() {
            if !self.has(earlier) && found(&self.db) != *earlier {
                report.add(self, &format!("{when}: kept database {number} is nowhere: {:?}", beside(&self.db)));
            }
        }
        side
    }

    /// Whether it is kept complete.
    fn has(&self, database: &Found) -> bool {
        kept(&self.db).iter().any(|path| found(path) == *database)
            || self.template.scenario.action.is_in_place() && self.has_backed_up(database)
    }

    /// Whether it is in a backup that verifies.
    fn has_backed_up(&self, database: &Found) -> bool {
        let backups = list(&self.home().join("backups")).map(|listing| listing.backups).unwrap_or_default();
        backups.iter().any(|backup| {
            let verdict = verify(&backup.path, &VerifyOptions::default(), &mut Quiet).unwrap().verdict;
            found(&backup.path) == *database && verdict == Verdict::Pass
        })
    }

    /// The same, while its files are being renamed one after the other.
    fn has_in_parts(&self, database: &Found) -> bool {
        match database {
            Found::Database(_) => self.has(database),
            Found::Unopenable(main, Some(wal)) => self.has_aside(main) && self.has_aside(wal),
            Found::Unopenable(main, None) => self.has_aside(main),
            Found::Missing(Some(wal)) => self.has_aside(wal),
            Found::Missing(None) => true,
        }
    }

    /// What holds besides when no run is under way and none was interrupted.
    pub(crate) fn check_settled(&self, when: &str, report: &mut Report) -> Option<Side> {
        let side = self.check(when, report);
        let (old, names) = (&self.template.old, beside(&self.db));
        let left: Vec<_> = names.iter().filter(|name| !self.may_stay(name, side)).collect();
        if !left.is_empty() {
            report.add(self, &format!("{when}: left over: {left:?}"));
        }
        match side {
            Some(Side::Old) => {
                if !old.is_missing() && !self.is_old_complete() {
                    report.add(self, &format!("{when}: not together with its WAL: {names:?}"));
                }
                if journal_mode(&self.db) != self.template.journal_mode {
                    report.add(self, &format!("{when}: the old database is in another journal mode"));
                }
            }
            Some(Side::New) if !old.is_missing() && !self.has(old) => {
                report.add(self, &format!("{when}: the old database is not kept as it was: {names:?}"));
            }
            Some(Side::New) | None => {}
        }
        side
    }

    /// Whether a file of this name belongs there without any run of ours.
    fn may_stay(&self, suffix: &str, side: Option<Side>) -> bool {
        match suffix {
            "" | ".restore-lock" | ".pre-restore" | ".pre-restore.json" => true,
            // SQLite's own, in the mode that it is in.
            "-wal" | "-shm" if self.template.scenario.action.is_in_place() => {
                self.template.journal_mode == Some([2, 2])
            }
            ".in-place.json" => self.template.scenario.action.is_in_place(),
            // Once there is a new database, nothing of the old one may lie beside it.
            "-wal" | "-shm" | "-journal" => {
                side == Some(Side::Old) && self.template.sidecars.iter().any(|s| s == suffix)
            }
            ".pre-restore-wal" => self.template.old.is_unopenable(),
            _ => suffix.starts_with(".pre-restore.2") || suffix.starts_with(".orphan-2"),
        }
    }

    /// The same for a backup: the source as it was, and every manifest that of a good backup. Returns how many there are.
    pub(crate) fn check_archive(&self, when: &str, report: &mut Report) -> usize {
        if !self.is_old_complete() {
            report.add(self, &format!("{when}: the source was changed: {:?}, {:?}", found(&self.db), beside(&self.db)));
        }
        let backups = list(&self.home().join("backups")).map(|listing| listing.backups).unwrap_or_default();
        for backup in &backups {
            let (verdict, copied) =
                (verify(&backup.path, &VerifyOptions::deep(), &mut Quiet).unwrap(), found(&backup.path));
            if verdict.verdict != Verdict::Pass || copied != self.template.old {
                report.add(self, &format!("{when}: a manifest lies beside a bad backup: {copied:?}, {verdict:?}"));
            }
        }
        backups.len()
    }

    /// What is in the archive, and since when.
    pub(crate) fn archive(&self) -> BTreeMap<String, Entry> {
        let folder = self.home().join("backups");
        if folder.exists() { snapshot(&folder) } else { BTreeMap::new() }
    }

    /// Backups that were begun.
    pub(crate) fn partial_backups(&self) -> Vec<String> {
        self.archive().into_keys().filter(|name| name.contains(".partial")).collect()
    }
}
