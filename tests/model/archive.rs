//! The backups: what was in each when it was taken, and whether it is still what it was.

use std::collections::BTreeMap;
use std::fs;

use camino::{Utf8Path, Utf8PathBuf};
use engram_restore::VerifyOptions;
use engram_restore::archive::{Meant, PRE_RESTORE_LABEL, Scope, Selection, manifest_path, read_manifest, select};
use engram_restore::signature::TrustedKeys;
use engram_restore::{Error, Quiet, Verdict, first_good, header, verify};

use crate::crash_fs::Tree;
use crate::operation::{Damage, JournalMode};
use crate::rows::Rows;
use crate::view::{Bytes, Found};

/// Its name in the folder.
pub(crate) const ARCHIVE: &str = "backups";

/// All backups that there ever were, and every file in their folder but for temporary ones.
#[derive(Default)]
pub(crate) struct Archive {
    backups: Vec<Backup>,
    files: BTreeMap<String, Bytes>,
}

struct Backup {
    name: String,
    rows: Rows,
    mode: JournalMode,
    /// It was taken by a restore in place, so `latest` does not mean it.
    is_pre_restore: bool,
    /// The file and its manifest, as they were made.
    bytes: [Bytes; 2],
}

impl Backup {
    fn files(&self) -> [String; 2] {
        [self.name.clone(), manifest_path(Utf8Path::new(&self.name)).into_string()]
    }
}

/// Without the temporary files of a run that was interrupted.
fn files(tree: &Tree) -> BTreeMap<String, Bytes> {
    let names = tree.names.keys().filter(|name| name.starts_with(&format!("{ARCHIVE}/")) && !is_temporary(name));
    names.filter_map(|name| Some((name.clone(), tree.bytes(name)?.clone()))).collect()
}

/// Whether it is one of those.
pub(crate) fn is_temporary(name: &str) -> bool {
    name.starts_with(&format!("{ARCHIVE}/.engram-restore-"))
}

impl Archive {
    pub(crate) fn is_good(&self, number: usize) -> bool {
        let backup = &self.backups[number];
        backup.files().iter().zip(&backup.bytes).all(|(name, bytes)| self.files.get(name) == Some(bytes))
    }

    /// What is in it.
    pub(crate) fn content(&self, number: usize) -> (Rows, JournalMode) {
        (self.backups[number].rows.clone(), self.backups[number].mode)
    }

    pub(crate) fn path(&self, dir: &Utf8Path, number: usize) -> Utf8PathBuf {
        dir.join(&self.backups[number].name)
    }

    /// How many there ever were.
    pub(crate) fn len(&self) -> usize {
        self.backups.len()
    }

    /// Whether there is one more in this folder.
    pub(crate) fn has_grown(&self, tree: &Tree) -> bool {
        files(tree).keys().any(|name| name.ends_with(".manifest.json") && !self.files.contains_key(name))
    }

    /// Which one a number in a history means.
    pub(crate) fn number(&self, number: u8) -> usize {
        usize::from(number) % self.backups.len()
    }

    /// The newest good one, as the command finds it; `None` if there is none.
    pub(crate) fn latest_good(&self, dir: &Utf8Path, database: &Utf8Path) -> Result<Option<usize>, String> {
        let is_readable = |backup: &&Backup| {
            let [_, manifest] = backup.files();
            self.files.get(&manifest) == Some(&backup.bytes[1])
        };
        let others = self.backups.iter().filter(is_readable).any(|backup| !backup.is_pre_restore);
        let counts = |number: &usize| self.is_good(*number) && !(others && self.backups[*number].is_pre_restore);
        let expected = (0..self.backups.len()).rev().find(counts);
        let found = find_latest_good(&dir.join(ARCHIVE), database);
        match (&found, expected) {
            (Err(_), None) => Ok(None),
            (Ok(found), Some(number)) if *found == self.path(dir, number) => Ok(Some(number)),
            _ => {
                let expected = expected.map(|number| &self.backups[number].name);
                Err(format!("the latest good backup is {expected:?}, and what is found is {found:?}"))
            }
        }
    }

    /// Nothing was changed, added or removed.
    pub(crate) fn is_as_it_was(&self, tree: &Tree) -> Result<(), String> {
        if files(tree) == self.files {
            return Ok(());
        }
        let (was, is): (Vec<_>, Vec<_>) = (self.files.keys().collect(), files(tree).into_keys().collect());
        Err(format!("the archive was changed: {was:?} before, {is:?} now, or other bytes"))
    }

    /// There may be one more backup, of a database with these rows, or the beginning of one. Says whether there is.
    pub(crate) fn may_have_grown(&mut self, tree: &Tree, dir: &Utf8Path, live: &Found) -> Result<bool, String> {
        let mut new = files(tree);
        for (name, bytes) in &self.files {
            if new.remove(name).as_ref() != Some(bytes) {
                return Err(format!("a backup has changed {name}"));
            }
        }
        let names: Vec<_> = new.keys().cloned().collect();
        let begun = names.first().cloned();
        self.files.extend(new);
        let Some(name) = begun else { return Ok(false) };
        let path = dir.join(&name);
        match names.get(1) {
            // No backup without a manifest.
            None if path.extension() == Some("db") => return Ok(false),
            Some(manifest) if *manifest == manifest_path(Utf8Path::new(&name)).as_str() && names.len() == 2 => {}
            None | Some(_) => return Err(format!("a backup has left {names:?}")),
        }
        let Found::Rows(rows) = live else { return Err(format!("there is a backup of {live:?}")) };
        if Found::of(tree, &name) != *live {
            return Err(format!("{name} is {:?}, and the database {live:?}", Found::of(tree, &name)));
        }
        let verdict = verify(&path, &VerifyOptions::deep(), &mut Quiet).map_err(|e| e.message())?;
        if verdict.verdict != Verdict::Pass {
            return Err(format!("{name} is no good backup: {:?}", verdict.findings));
        }
        let manifest = read_manifest(&path).map_err(|e| e.to_string())?;
        let mode = match manifest.database.journal_mode {
            header::JournalMode::Wal => JournalMode::Wal,
            header::JournalMode::Rollback => JournalMode::Delete,
        };
        let bytes = [0, 1].map(|at| self.files[&names[at]].clone());
        let is_pre_restore = manifest.label.as_deref() == Some(PRE_RESTORE_LABEL);
        self.backups.push(Backup { name, rows: rows.clone(), mode, is_pre_restore, bytes });
        Ok(true)
    }

    /// Its journal mode; of the one that was taken last.
    pub(crate) fn last_mode(&self) -> Option<JournalMode> {
        self.backups.last().map(|backup| backup.mode)
    }

    /// What interrupted runs have left.
    pub(crate) fn temporary(tree: &Tree) -> Vec<&String> {
        tree.names.keys().filter(|name| is_temporary(name)).collect()
    }

    /// Every backup is good if and only if nobody has damaged it.
    pub(crate) fn verify(&self, dir: &Utf8Path) -> Result<(), String> {
        for number in 0..self.backups.len() {
            let options = if number.is_multiple_of(2) { VerifyOptions::deep() } else { VerifyOptions::default() };
            let verdict = verify(&self.path(dir, number), &options, &mut Quiet).map_err(|e| e.message())?;
            if (verdict.verdict == Verdict::Pass) != self.is_good(number) {
                return Err(format!("{verdict:?}, and is {}", if self.is_good(number) { "good" } else { "damaged" }));
            }
        }
        Ok(())
    }

    /// Somebody does that to a backup. The same twice may mend it.
    pub(crate) fn damage(&mut self, dir: &Utf8Path, number: usize, damage: Damage) {
        let [file, manifest] = self.backups[number].files();
        let (name, at, cuts) = match damage {
            Damage::Flip { at } => (file, at, false),
            Damage::Cut { at } => (file, at, true),
            Damage::ManifestFlip { at } => (manifest, at, false),
            Damage::ManifestTorn { at } => (manifest, at, true),
            Damage::ManifestGone => {
                if self.files.remove(&manifest).is_some() {
                    fs::remove_file(dir.join(manifest)).unwrap();
                }
                return;
            }
        };
        let Some(bytes) = self.files.get_mut(&name).filter(|bytes| !bytes.is_empty()) else { return };
        let mut changed = bytes.to_vec();
        let at = usize::from(at) % changed.len();
        if cuts {
            changed.truncate(at);
        } else {
            changed[at] ^= 0x40;
        }
        fs::write(dir.join(name), &changed).unwrap();
        *bytes = Bytes::new(changed);
    }
}

/// As `restore latest-good` does.
fn find_latest_good(archive: &Utf8Path, database: &Utf8Path) -> Result<Utf8PathBuf, Error> {
    match select(archive, &Scope::Database(database.to_owned()), &Selection::LatestGood)?.meant {
        Meant::One(path) => Ok(path),
        Meant::FirstGood(paths) => first_good(&paths, &TrustedKeys::default(), &mut Quiet).map(|(path, _)| path),
    }
}
