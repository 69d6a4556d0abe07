//! Which backup somebody means by a name, a prefix, a path, `latest` or `latest-good`.

use std::cmp::Reverse;

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;

use super::listing::{Backup, Listing, Unreadable, list};
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::MANIFEST_SUFFIX;
use crate::retention::is_later;

/// Which backups of an archive count.
#[derive(Clone, Debug)]
pub enum Scope {
    /// Those of this database: by its resolved path, or, if no backup has that, by its file name.
    Database(Utf8PathBuf),
    /// All.
    AnySource,
}

/// What the user asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// The newest backup, good or not.
    Latest,
    /// The newest one that verifies.
    LatestGood,
    /// A path, a name in the archive, or a prefix of one.
    Named(String),
}

impl Selection {
    /// Reads a command-line argument.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        match text {
            "latest" => Self::Latest,
            "latest-good" => Self::LatestGood,
            name => Self::Named(name.to_owned()),
        }
    }
}

/// What a selection stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selected {
    /// The backup files.
    pub meant: Meant,
    newest_passed_over: Option<PassedOver>,
    /// All that it may mean whose manifest says when they were taken, newest first; nothing where a name was given.
    by_time: Vec<(Timestamp, Utf8PathBuf)>,
}

/// The backup files that a selection stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meant {
    /// One, whatever its state.
    One(Utf8PathBuf),
    /// The first of these, newest first, that verifies.
    FirstGood(Vec<Utf8PathBuf>),
}

/// The newest backup that a restore in place has taken.
#[derive(Clone, Debug, PartialEq, Eq)]
struct PassedOver {
    path: Utf8PathBuf,
    /// Those that may be meant and are newer than it.
    newer: Vec<Utf8PathBuf>,
}

impl Selected {
    fn one(path: Utf8PathBuf) -> Self {
        Self { meant: Meant::One(path), newest_passed_over: None, by_time: Vec::new() }
    }

    /// The newest backup that is not meant because a restore in place has taken it, if it is newer than `chosen`.
    #[must_use]
    pub fn passed_over_for(&self, chosen: &Utf8Path) -> Option<&Utf8Path> {
        let passed_over = self.newest_passed_over.as_ref()?;
        (!passed_over.newer.iter().any(|newer| newer == chosen)).then_some(&passed_over.path)
    }

    /// Whether `chosen` is the newest only by a clock that is ahead of `now`, by more than clocks of two machines differ.
    #[must_use]
    pub fn is_later_than(&self, now: Timestamp, chosen: &Utf8Path) -> bool {
        self.by_time.iter().any(|(time, path)| path.file_name() == chosen.file_name() && is_later(*time, now))
    }

    /// The newest that was not taken later than `now`.
    #[must_use]
    pub fn newest_until(&self, now: Timestamp) -> Option<&Utf8Path> {
        self.by_time.iter().find(|(time, _)| !is_later(*time, now)).map(|(_, path)| path.as_path())
    }
}

/// Finds what `selection` means in the archive at `folder`.
///
/// A backup whose manifest is unreadable still counts as a candidate by what its name says: damage must not make
/// an older backup the latest.
///
/// # Errors
///
/// [`ErrorKind::NotFound`] if nothing fits, [`ErrorKind::Usage`] if a prefix fits several.
pub fn select(folder: &Utf8Path, scope: &Scope, selection: &Selection) -> Result<Selected> {
    match selection {
        Selection::Named(name) => named(folder, name).map(Selected::one),
        Selection::Latest | Selection::LatestGood => {
            let Candidates { readable, unreadable, passed_over } = list(folder)?.candidates(scope);
            let mut by_time: Vec<_> = readable.iter().map(|((time, _), path)| (*time, path.clone())).collect();
            by_time.sort_by(|one, other| other.cmp(one));
            let mut meant = [readable, unreadable].concat();
            let newest_passed_over = passed_over.into_iter().max().map(|(key, path)| {
                let newer = meant.iter().filter(|(other, _)| *other > key).map(|(_, path)| path.clone()).collect();
                PassedOver { path, newer }
            });
            meant.sort_by_key(|(key, path)| Reverse((*key, path.clone())));
            let mut paths = meant.into_iter().map(|(_, path)| path);
            let Some(newest) = paths.next() else { return Err(nothing_here(folder, scope)) };
            let meant = match selection {
                Selection::Latest => Meant::One(newest),
                Selection::LatestGood | Selection::Named(_) => {
                    Meant::FirstGood(std::iter::once(newest).chain(paths).collect())
                }
            };
            Ok(Selected { meant, newest_passed_over, by_time })
        }
    }
}

fn nothing_here(folder: &Utf8Path, scope: &Scope) -> Error {
    let error = Error::new(ErrorKind::NotFound, "find a backup in", folder);
    match scope {
        Scope::AnySource => error.because("there is none").hint("take one with: engram-restore backup"),
        Scope::Database(database) => error
            .because(format!("there is none of {database}"))
            .hint("take one with: engram-restore backup; or look at those of other databases with --any-source"),
    }
}

impl Listing {
    /// The backups in scope, newest first.
    #[must_use]
    pub fn in_scope(&self, scope: &Scope) -> Vec<&Backup> {
        let all = self.backups.iter();
        let Scope::Database(database) = scope else { return all.collect() };
        let by_path: Vec<_> = all.clone().filter(|backup| backup.manifest.source.path == *database).collect();
        // A backup whose manifest cannot be read may be this database's own: no other's may then stand in for it.
        if !by_path.is_empty() || !self.unreadable_in_scope(scope).is_empty() {
            return by_path;
        }
        all.filter(|backup| backup.manifest.source.path.file_name() == database.file_name()).collect()
    }

    /// The unreadable ones that may be in scope, as far as their names tell.
    #[must_use]
    pub fn unreadable_in_scope(&self, scope: &Scope) -> Vec<&Unreadable> {
        let fits = |unreadable: &&Unreadable| match scope {
            Scope::AnySource => true,
            Scope::Database(database) => {
                unreadable.stem().is_none_or(|stem| Some(stem.as_str()) == database.file_stem())
            }
        };
        self.unreadable.iter().filter(fits).collect()
    }

    fn candidates(&self, scope: &Scope) -> Candidates {
        let name = |path: &Utf8PathBuf| path.file_name().unwrap_or_default().to_owned();
        let keyed =
            |backup: &Backup| (super::sort_key(backup.manifest.created_at, &name(&backup.path)), backup.path.clone());
        let is_pre_restore = |backup: &&Backup| backup.manifest.label.as_deref() == Some(super::PRE_RESTORE_LABEL);
        let (mut passed_over, mut readable): (Vec<_>, Vec<_>) =
            self.in_scope(scope).into_iter().partition(is_pre_restore);
        if readable.is_empty() {
            // Where there is nothing else, they are what there is.
            std::mem::swap(&mut passed_over, &mut readable);
        }
        let unreadable = self.unreadable_in_scope(scope).into_iter().map(|unreadable| {
            (super::sort_key(unreadable.at_latest(), &name(&unreadable.path)), unreadable.path.clone())
        });
        Candidates {
            readable: readable.into_iter().map(keyed).collect(),
            unreadable: unreadable.collect(),
            passed_over: passed_over.into_iter().map(keyed).collect(),
        }
    }
}

/// By time, then by the number in the name.
type Key = (Timestamp, u32);

/// What `latest` may mean.
struct Candidates {
    readable: Vec<(Key, Utf8PathBuf)>,
    unreadable: Vec<(Key, Utf8PathBuf)>,
    /// Those that a restore in place has taken.
    passed_over: Vec<(Key, Utf8PathBuf)>,
}

fn named(folder: &Utf8Path, name: &str) -> Result<Utf8PathBuf> {
    let name = name.strip_suffix(MANIFEST_SUFFIX).unwrap_or(name);
    let path = Utf8Path::new(name);
    if name.contains('/') {
        let missing = || Error::new(ErrorKind::NotFound, "find the backup", path).because("there is no such file");
        return if is_backup(path)? { Ok(path.to_owned()) } else { Err(missing()) };
    }
    let refused = |kind, why: String| Error::new(kind, format!("find the backup {name:?} in"), folder).because(why);
    if name.is_empty() {
        return Err(refused(ErrorKind::Usage, "its name is empty".to_owned()));
    }
    // An exact name in the archive wins, then a file here, then a prefix.
    for exact in [folder.join(name), folder.join(format!("{name}.db")), path.to_owned()] {
        if is_backup(&exact)? {
            return Ok(exact);
        }
    }
    let listing = match list(folder) {
        Ok(listing) => listing,
        Err(e) if e.kind() == ErrorKind::NotFound => {
            return Err(refused(ErrorKind::NotFound, "there is no such file here, and no such archive".to_owned()));
        }
        Err(e) => return Err(e),
    };
    let paths = listing.backups.iter().map(|b| &b.path).chain(listing.unreadable.iter().map(|u| &u.path));
    let mut fits = paths.filter(|path| path.file_name().is_some_and(|file| file.starts_with(name)));
    match (fits.next(), fits.next()) {
        (Some(one), None) => Ok(one.clone()),
        (None, _) => Err(refused(ErrorKind::NotFound, "no name there begins so".to_owned())
            .hint("see what there is with: engram-restore list")),
        (Some(one), Some(other)) => {
            let names = [one, other].map(|path| path.file_name().unwrap_or_default());
            let why = format!("several begin so, such as {} and {}", names[0], names[1]);
            Err(refused(ErrorKind::Usage, why).hint("give more of the name"))
        }
    }
}

/// Whether a backup file or at least its manifest is there.
fn is_backup(path: &Utf8Path) -> Result<bool> {
    for path in [path, &super::manifest_path(path)] {
        match std::fs::symlink_metadata(path) {
            Ok(metadata) if !metadata.is_dir() => return Ok(true),
            Ok(_) => {}
            Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {}
            Err(e) => return Err(Error::io("look for", path, e)),
        }
    }
    Ok(false)
}
