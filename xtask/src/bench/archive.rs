//! What commands that read a whole archive cost with the number of backups in it.

use camino::{Utf8Path, Utf8PathBuf};
use engram_restore::archive::read_manifest;
use engram_restore::manifest::{MANIFEST_SUFFIX, Manifest, encode};
use jiff::{SignedDuration, Timestamp};

use super::contenders::ours;
use super::process::{Runner, Step, remove};
use super::report::ArchiveEntry;
use super::stage::{Stage, Tools};
use crate::Result;

/// A command that changes nothing, so that it can be run again and again. One that does needs its archive made anew
/// before each run.
const COMMANDS: &[(&str, &[&str])] =
    &[("list", &["list"]), ("list --json", &["list", "--json"]), ("status", &["status"])];

pub(super) struct Bench<'a> {
    pub(super) runner: &'a Runner,
    pub(super) tools: &'a Tools,
    pub(super) dir: Utf8PathBuf,
}

impl Bench<'_> {
    /// Archives of so many backups of a tiny database each, whose manifests are as small as they can be.
    pub(super) fn small(&self, counts: &[usize], rounds: usize) -> Result<Vec<ArchiveEntry>> {
        std::fs::create_dir_all(&self.dir)?;
        let database = self.dir.join("tiny.db");
        let sample = ["sample", database.as_str(), "--rows", "0", "--page-size", "512"];
        self.runner.run(&Step::new("sample", self.tools.xtask.as_str(), &sample))?;
        let (backup, manifest) = self.back_up(&database)?;
        let place = |path: &Utf8Path| std::fs::copy(&backup, path).map(drop);
        let entries = self.measure_all(&database, &manifest, &place, counts, rounds);
        remove(&[backup])?;
        entries
    }

    /// Archives of backups of the stage's database: the larger it is, the longer the lists of chunks in the manifests.
    /// The backups themselves are holes of their size, which neither command opens.
    pub(super) fn large(&self, stage: &Stage, counts: &[usize], rounds: usize) -> Result<Vec<ArchiveEntry>> {
        std::fs::create_dir_all(&self.dir)?;
        let (backup, manifest) = self.back_up(&stage.database)?;
        remove(&[backup])?;
        let size_bytes = manifest.file.size_bytes;
        let place = |path: &Utf8Path| std::fs::File::create(path)?.set_len(size_bytes);
        self.measure_all(&stage.database, &manifest, &place, counts, rounds)
    }

    /// A real backup, from which the others are made.
    fn back_up(&self, database: &Utf8Path) -> Result<(Utf8PathBuf, Manifest)> {
        let backup = self.dir.join("original.db");
        let manifest = Utf8PathBuf::from(format!("{backup}{MANIFEST_SUFFIX}"));
        self.runner.run(&ours(self.tools, "backup", database, &["backup", "--path", backup.as_str()]))?;
        let parsed = read_manifest(&backup).map_err(|problem| format!("{backup}: {problem}"))?;
        remove(&[manifest])?;
        Ok((backup, parsed))
    }

    fn measure_all(
        &self,
        database: &Utf8Path,
        manifest: &Manifest,
        place: &dyn Fn(&Utf8Path) -> std::io::Result<()>,
        counts: &[usize],
        rounds: usize,
    ) -> Result<Vec<ArchiveEntry>> {
        let archive = self.dir.join("archive");
        let mut entries = Vec::new();
        for count in counts {
            remove(std::slice::from_ref(&archive))?;
            std::fs::create_dir_all(&archive)?;
            let manifest_bytes = fill(&archive, manifest, place, *count)?;
            rustix::fs::sync();
            for (name, arguments) in COMMANDS {
                let arguments = [&["--archive", archive.as_str()], *arguments].concat();
                let step = ours(self.tools, name, database, &arguments);
                let mut entry = ArchiveEntry {
                    command: (*name).to_owned(),
                    backups: *count,
                    manifest_bytes,
                    seconds: Vec::new(),
                    peak_own_bytes: 0,
                };
                for _ in 0..rounds {
                    let cost = self.runner.run(&step)?;
                    entry.seconds.push(cost.seconds);
                    entry.peak_own_bytes = entry.peak_own_bytes.max(cost.peak_own_bytes);
                }
                entries.push(entry);
            }
        }
        remove(&[archive])?;
        Ok(entries)
    }
}

/// `count` backups, one an hour up to the time of the original, each with a manifest of its own that is right in all;
/// returns the size of a manifest.
fn fill(
    archive: &Utf8Path,
    original: &Manifest,
    place: &dyn Fn(&Utf8Path) -> std::io::Result<()>,
    count: usize,
) -> Result<u64> {
    let mut manifest_bytes = 0;
    for number in 0..count {
        let manifest = aged(original, number)?;
        let backup = archive.join(&manifest.file.name);
        let text = encode(&manifest).map_err(|error| error.to_string())?;
        place(&backup)?;
        std::fs::write(format!("{backup}{MANIFEST_SUFFIX}"), &text)?;
        manifest_bytes = text.len() as u64;
    }
    Ok(manifest_bytes)
}

/// The manifest of the same backup, if it had been taken so many hours before.
fn aged(original: &Manifest, hours: usize) -> Result<Manifest> {
    let created_at: Timestamp = original.created_at.checked_sub(SignedDuration::from_hours(i64::try_from(hours)?))?;
    let mut manifest = Manifest { created_at, ..original.clone() };
    manifest.file.name = format!("live-{}.db", created_at.strftime("%Y-%m-%dT%H-%M-%SZ"));
    Ok(manifest)
}

#[cfg(test)]
mod tests {
    use engram_restore::archive::list;

    use super::*;

    /// If the made manifests were not read as backups, `list` would be measured on an archive of damage.
    #[test]
    fn made_backups_are_backups() {
        let folder = tempfile::tempdir().unwrap();
        let folder = Utf8Path::from_path(folder.path()).unwrap();
        let (database, backup) = (folder.join("live.db"), folder.join("original.db"));
        engram_restore::sample::create(
            &database,
            &engram_restore::sample::SampleOptions { rows: 10, ..Default::default() },
        )
        .unwrap();
        let options = engram_restore::BackupOptions {
            database,
            destination: engram_restore::Destination::File(backup.clone()),
            engine: engram_restore::Engine::Online,
            label: None,
            busy_limit: std::time::Duration::ZERO,
            limits: engram_restore::Limits::default(),
            now: Timestamp::now(),
            keys: engram_restore::signature::Keys::default(),
        };
        let storage = engram_restore::storage::Storage::new();
        engram_restore::backup(&options, &storage, &mut engram_restore::Quiet).unwrap();
        let manifest = read_manifest(&backup).unwrap();
        let archive = folder.join("archive");
        std::fs::create_dir(&archive).unwrap();
        fill(&archive, &manifest, &|path| std::fs::copy(&backup, path).map(drop), 30).unwrap();
        let listing = list(&archive).unwrap();
        assert_eq!((listing.backups.len(), listing.unreadable.len(), listing.orphans.len()), (30, 0, 0));
        let oldest = &listing.backups[29];
        let verdict =
            engram_restore::verify(&oldest.path, &engram_restore::VerifyOptions::deep(), &mut engram_restore::Quiet)
                .unwrap();
        assert_eq!(verdict.verdict, engram_restore::Verdict::Pass, "{:?}", verdict.findings);
    }
}
