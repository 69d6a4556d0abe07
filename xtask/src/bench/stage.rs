//! Where contenders work: a folder on some file system with a database of some size, and the programs.

use camino::{Utf8Path, Utf8PathBuf};

use super::process::{Runner, Step, first_line, remove};
use crate::Result;

/// A size of the sample database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(super) enum Size {
    #[value(name = "10MB")]
    Mb10,
    #[value(name = "100MB")]
    Mb100,
    #[value(name = "1GB")]
    Gb1,
    #[value(name = "10GB")]
    Gb10,
}

impl Size {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Mb10 => "10 MB",
            Self::Mb100 => "100 MB",
            Self::Gb1 => "1 GB",
            Self::Gb10 => "10 GB",
        }
    }

    /// Observations: one makes 3.26 KB of the file.
    fn rows(self) -> u64 {
        match self {
            Self::Mb10 => 3_070,
            Self::Mb100 => 30_700,
            Self::Gb1 => 307_000,
            Self::Gb10 => 3_070_000,
        }
    }

    pub(super) fn rough_bytes(self) -> u64 {
        self.rows() * 3_260
    }

    /// The sample, made unless an earlier run has made it: the same rows always give the same file.
    pub(super) fn sample(self, tools: &Tools, folder: &Utf8Path, runner: &Runner) -> Result<Utf8PathBuf> {
        std::fs::create_dir_all(folder)?;
        let sample = folder.join(format!("{}-rows.db", self.rows()));
        if !sample.try_exists()? {
            eprintln!("making a sample of {}", self.name());
            let unfinished = folder.join("unfinished.db");
            remove(std::slice::from_ref(&unfinished))?;
            let rows = self.rows().to_string();
            runner.run(&Step::new(
                "sample",
                tools.xtask.as_str(),
                &["sample", unfinished.as_str(), "--rows", &rows],
            ))?;
            std::fs::rename(unfinished, &sample)?;
        }
        Ok(sample)
    }
}

/// The programs that take part.
#[derive(Clone, Debug)]
pub(super) struct Tools {
    pub(super) engram: Utf8PathBuf,
    pub(super) xtask: Utf8PathBuf,
    pub(super) litestream: Option<Utf8PathBuf>,
    pub(super) rustic: Option<Utf8PathBuf>,
    pub(super) restic: bool,
    /// Whether any but ours take part.
    pub(super) peers: bool,
}

impl Tools {
    /// `target` is cargo's folder, with a release build in it.
    pub(super) fn find(target: &Utf8Path, peers: bool) -> Self {
        let installed = |path: &str| Some(target.join("bench-tools").join(path)).filter(|path| peers && path.is_file());
        Self {
            engram: target.join("release/engram-restore"),
            xtask: target.join("release/xtask"),
            litestream: installed("venv/bin/litestream"),
            rustic: installed("bin/rustic"),
            restic: peers && first_line("restic", &["version"]).is_ok(),
            peers,
        }
    }

    pub(super) fn versions(&self) -> Result<Vec<(String, String)>> {
        let mut versions = Vec::new();
        let mut add = |name: &str, program: &str, argument: &str| {
            first_line(program, &[argument]).map(|version| versions.push((name.to_owned(), version)))
        };
        add("engram-restore", self.engram.as_str(), "--version")?;
        add("cp, sync", "cp", "--version")?;
        if self.peers {
            let hint = |error| format!("{error} (xtask/bench-tools.sh installs what is missing)");
            add("sqlite3", "sqlite3", "--version").map_err(hint)?;
            add("b3sum", "b3sum", "--version").map_err(hint)?;
        }
        if self.restic {
            add("restic", "restic", "version")?;
        }
        if let Some(rustic) = &self.rustic {
            add("rustic", rustic.as_str(), "--version")?;
        }
        if let Some(litestream) = &self.litestream {
            add("litestream", litestream.as_str(), "version")?;
        }
        Ok(versions)
    }
}

/// A folder with a database in it.
#[derive(Clone, Debug)]
pub(super) struct Stage {
    pub(super) dir: Utf8PathBuf,
    pub(super) database: Utf8PathBuf,
    pub(super) size: String,
    pub(super) file_system: String,
    pub(super) reflink: bool,
}

impl Stage {
    /// The sample in the new folder `dir`: a copy, which also puts it into the page cache; or the sample itself where it is
    /// huge, because a disk has no room for it twice.
    pub(super) fn set_up(dir: Utf8PathBuf, sample: &Utf8Path, size: Size, reflink: bool) -> Result<Self> {
        std::fs::create_dir_all(dir.join("out"))?;
        let database = dir.join("live.db");
        if size == Size::Gb10 {
            std::fs::rename(sample, &database)?;
        } else {
            std::fs::copy(sample, &database)?;
        }
        let file_system = first_line("findmnt", &["-n", "-o", "FSTYPE", "-T", dir.as_str()])?;
        Ok(Self { dir, database, size: size.name().to_owned(), file_system, reflink })
    }

    /// Removes all that contenders have left, and made once.
    pub(super) fn clear(&self) -> Result {
        remove(&[self.dir.join("out")])?;
        Ok(std::fs::create_dir(self.dir.join("out"))?)
    }

    /// A path for a contender's own use.
    pub(super) fn out(&self, name: &str) -> Utf8PathBuf {
        self.dir.join("out").join(name)
    }
}
