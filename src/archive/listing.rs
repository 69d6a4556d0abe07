//! What lies in an archive.

use std::io;
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;

use super::names::{parse_name, sort_key};
use super::pin::PIN_SUFFIX;
use super::{ManifestProblem, PRUNED_SUFFIX, pruned_path, read_manifest};
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{MANIFEST_SUFFIX, Manifest};

/// Fewer files than this are read sooner than a thread is begun.
const WORTH_A_THREAD: usize = 100;

/// So many bytes of text are kept of all manifests together, beside their lists. Those of a million backups have a third of it.
const MOST_TEXT_BYTES: usize = 1 << 30;

/// A backup whose manifest could be read. That says nothing yet about its file.
#[derive(Clone, Debug)]
pub struct Backup {
    /// The backup file.
    pub path: Utf8PathBuf,
    /// Its manifest, without the lists of chunks and tables: those of thousands of backups would fill the memory.
    pub manifest: Manifest,
    /// Whether it is pinned, so that no prune removes it.
    pub is_pinned: bool,
}

/// A backup whose manifest could not be read.
#[derive(Debug)]
pub struct Unreadable {
    /// The backup file.
    pub path: Utf8PathBuf,
    /// Why.
    pub problem: ManifestProblem,
}

impl Unreadable {
    /// The latest moment at which it may have been taken: the end of the second in its name, or any time at all if the
    /// name tells none. Damage must never make a backup look older than it is.
    #[must_use]
    pub fn at_latest(&self) -> Timestamp {
        let named = self.path.file_name().and_then(parse_name);
        let end = named.and_then(|parts| parts.second.checked_add(jiff::SignedDuration::from_nanos(999_999_999)).ok());
        end.unwrap_or(Timestamp::MAX)
    }

    /// The stem of the database that it was taken of, as far as its name still tells.
    #[must_use]
    pub fn stem(&self) -> Option<String> {
        parse_name(self.path.file_name()?).map(|parts| parts.stem)
    }
}

/// What lies in an archive.
#[derive(Debug, Default)]
pub struct Listing {
    /// Backups, newest first.
    pub backups: Vec<Backup>,
    /// Manifests that could not be read, by name.
    pub unreadable: Vec<Unreadable>,
    /// Database files without a manifest, by name: reported, never removed.
    pub orphans: Vec<Utf8PathBuf>,
    /// Backups that a prune has begun to remove, by name: the next one goes on with it.
    pub half_pruned: Vec<Utf8PathBuf>,
}

/// Reads every manifest in `folder`. Nothing is changed or created.
///
/// # Errors
///
/// [`ErrorKind::NotFound`] if there is no such folder; [`ErrorKind::Failed`] if it cannot be read. A manifest that
/// cannot be read is in [`Listing::unreadable`]. Manifests that together say more than 1 GiB are [`ErrorKind::Failed`] too: no
/// archive of backups has such.
///
/// # Example
///
/// ```
/// use engram_restore::archive::list;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let scratch = tempfile::tempdir()?;
/// # let folder = camino::Utf8Path::from_path(scratch.path()).ok_or("not UTF-8")?;
/// # let (database, archive) = (folder.join("engram.db"), folder.join("backups"));
/// # let few = engram_restore::sample::SampleOptions { rows: 10, ..Default::default() };
/// # engram_restore::sample::create(&database, &few)?;
/// # let now = jiff::Timestamp::now();
/// # let taken = engram_restore::BackupOptions::new(database.clone(), archive.clone(), now);
/// # let backup = engram_restore::backup(&taken, &engram_restore::storage::Storage::new(), &mut engram_restore::Quiet)?.backup;
/// let listing = list(&archive)?;
/// assert_eq!(listing.backups.len(), 1);
/// assert_eq!(listing.backups[0].path, backup);
/// # Ok(())
/// # }
/// ```
pub fn list(folder: &Utf8Path) -> Result<Listing> {
    list_within(folder, MOST_TEXT_BYTES)
}

fn list_within(folder: &Utf8Path, most_bytes: usize) -> Result<Listing> {
    let failed = |e: io::Error| {
        let missing = matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
        let kind = if missing { ErrorKind::NotFound } else { ErrorKind::Failed };
        let error = Error::new(kind, "list the archive", folder).because(e);
        if missing { error.hint("engram-restore backup makes it; or say where it is with --archive") } else { error }
    };
    let mut names = Vec::new();
    for entry in folder.read_dir_utf8().map_err(failed)? {
        match entry {
            Ok(entry) => names.push(entry.file_name().to_owned()),
            // Not UTF-8: no name of ours.
            Err(e) if e.kind() == io::ErrorKind::InvalidData => {}
            Err(e) => return Err(failed(e)),
        }
    }
    names.sort_unstable();

    // Only what was a manifest: a file of that name may be somebody's own.
    let is_ours = |backup: &Utf8PathBuf| {
        super::read_bounded(&pruned_path(backup)).is_ok_and(|bytes| crate::manifest::parse(&bytes).is_ok())
    };
    let half_pruned = names.iter().filter_map(|name| name.strip_suffix(PRUNED_SUFFIX)).map(|name| folder.join(name));
    let half_pruned: Vec<_> = half_pruned.filter(is_ours).collect();
    let is_orphan = |name: &&String| {
        let is_database = Utf8Path::new(name).extension() == Some("db");
        let lacks_manifest = names.binary_search(&format!("{name}{MANIFEST_SUFFIX}")).is_err();
        is_database && lacks_manifest && !half_pruned.contains(&folder.join(name))
    };
    let orphans = names.iter().filter(is_orphan).map(|name| folder.join(name)).collect();
    let mut listing = Listing { orphans, half_pruned, ..Listing::default() };
    let Some(all) = read_all(folder, &names, most_bytes) else {
        return Err(Error::new(ErrorKind::Failed, "list the archive", folder)
            .because(format!("its manifests say more than {most_bytes} bytes, beside their lists of chunks and tables"))
            .hint("those of backups have few; move the largest away, or say a backup by its path"));
    };
    for (path, manifest) in all {
        match manifest {
            Ok(manifest) => {
                let pin = path.file_name().map(|name| format!("{name}{PIN_SUFFIX}"));
                let is_pinned = pin.is_some_and(|pin| names.binary_search(&pin).is_ok());
                listing.backups.push(Backup { path, manifest, is_pinned });
            }
            Err(ManifestProblem::Missing) => {} // Removed since the folder was read.
            Err(problem) => listing.unreadable.push(Unreadable { path, problem }),
        }
    }
    listing.backups.sort_by_cached_key(|backup| {
        let key = sort_key(backup.manifest.created_at, backup.path.file_name().unwrap_or_default());
        std::cmp::Reverse((key, backup.path.clone()))
    });
    Ok(listing)
}

type Read = (Utf8PathBuf, Result<Manifest, ManifestProblem>);

/// Reads the manifests among the files of a folder, in the order of their names, on as many threads as pay; `None` if what
/// is kept of them has more than `most_bytes` of text.
fn read_all(folder: &Utf8Path, names: &[String], most_bytes: usize) -> Option<Vec<Read>> {
    let kept_bytes = AtomicUsize::new(0);
    let is_too_much = || kept_bytes.load(Ordering::Relaxed) > most_bytes;
    let read = |name: &String| {
        let path = folder.join(name.strip_suffix(MANIFEST_SUFFIX)?);
        if is_too_much() {
            return None;
        }
        let mut manifest = read_manifest(&path);
        if let Ok(manifest) = &mut manifest {
            manifest.file.chunks = Vec::new();
            manifest.tables = Vec::new();
            kept_bytes.fetch_add(text_bytes(manifest), Ordering::Relaxed);
        }
        Some((path, manifest))
    };
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let share = names.len().div_ceil(threads).max(WORTH_A_THREAD);
    std::thread::scope(|scope| {
        let mut shares = names.chunks(share);
        let ours = shares.next().unwrap_or_default();
        let begin = |share| {
            let all = move || -> Vec<Read> { <[String]>::iter(share).filter_map(read).collect() };
            std::thread::Builder::new().spawn_scoped(scope, all).map_err(|_no_more_threads| share)
        };
        let others: Vec<_> = shares.map(begin).collect();
        let mut all: Vec<Read> = ours.iter().filter_map(read).collect();
        for other in others {
            match other {
                // A panic goes on in the thread that asked.
                Ok(thread) => all.extend(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))),
                Err(share) => all.extend(share.iter().filter_map(read)),
            }
        }
        (!is_too_much()).then_some(all)
    })
}

/// What the texts of a manifest take, but for its lists.
fn text_bytes(manifest: &Manifest) -> usize {
    let (check, source) = (&manifest.integrity_check, &manifest.source);
    let texts = [&manifest.tool, &manifest.engine, &manifest.file.name, &check.sqlite_version, &source.host];
    let lists = manifest.requires.iter().chain(&check.rows).chain(manifest.label.iter()).chain(check.error.iter());
    let database = &manifest.database;
    let texts = texts.into_iter().chain(lists).chain([&database.encoding, &database.writer_version]);
    texts.map(|text| text.len() + size_of::<String>()).sum::<usize>() + source.path.as_str().len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::encode;
    use crate::manifest::tests::small;

    /// Would catch a folder of large manifests, which may all be one file with many names, that fills the memory.
    #[test]
    fn manifests_that_say_too_much_together_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let folder = Utf8Path::from_path(folder.path()).unwrap();
        let mut manifest = small();
        manifest.integrity_check.rows = vec!["x".repeat(1 << 20)];
        let text = encode(&manifest).unwrap();
        for number in 0..4 {
            std::fs::write(folder.join(format!("{number}.db{MANIFEST_SUFFIX}")), &text).unwrap();
        }
        assert_eq!(list(folder).unwrap().backups.len(), 4);
        let error = list_within(folder, 3 << 20).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Failed);
        assert!(error.message().contains("say more than 3145728 bytes"), "{}", error.message());
    }
}
