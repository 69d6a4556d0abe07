//! What lay at the database's path before a restore, and whether a restore has kept it: the old database may hold what no
//! backup has.

use std::io::{BufReader, Read as _};
use std::ops::Range;

use camino::{Utf8Path, Utf8PathBuf};

use super::scratch;
use super::stage::Stage;
use super::tool::Run;
use crate::database::is_there;
use crate::error::{Error, Result};
use crate::sample::Application;
use crate::storage::open_regular;

/// The sidecars that have content of their own: the index of a WAL is made from that.
const SIDECARS: [&str; 2] = ["-wal", "-journal"];

/// What SQLite sets in the header when it goes over to a rollback journal, which the fold of an old database ends with: the
/// journal mode, the change counter, and for which one the page count holds, with the version that wrote it.
const MODE_FIELDS: [Range<usize>; 3] = [18..20, 24..28, 92..100];

/// How many bytes are compared at once. All fields of the header are in the first such block.
const BLOCK_BYTES: u64 = 1 << 16;

impl Stage<'_> {
    /// A copy of what lies at the database's path, under the same name in a folder of its own.
    pub(super) fn copy_aside(&self, folder: &str) -> Result<Utf8PathBuf> {
        copy_to(&self.database, &self.aside(folder)?)
    }

    /// An empty folder, in which the program under drill has nothing to do.
    pub(super) fn aside(&self, name: &str) -> Result<Utf8PathBuf> {
        let folder = asides(&self.folder).join(name);
        scratch::remove_folder(&folder)?;
        scratch::create_folder(&folder)?;
        Ok(folder)
    }

    /// Restores the newest good backup: what an application sees then is that, and what lay there `before` is kept.
    pub(super) fn recover(&mut self, before: &Utf8Path) -> Result<()> {
        let restored = self.restore(&["latest-good"])?;
        self.expect_kept(before, &restored)?;
        self.expect(&self.past.newest)
    }

    /// What was copied aside `before` a restore must still be there after it: the database where the program says that it
    /// keeps it, with the WAL beside it or folded in, the sidecars of a database that was lost among the orphans.
    pub(super) fn expect_kept(&mut self, before: &Utf8Path, restored: &Run) -> Result<()> {
        self.step("look for the old one", |stage| {
            if !is_there(before)? {
                return Ok(((), stage.expect_orphans(before, restored)?));
            }
            let Some(kept) = restored.path("pre_restore") else {
                stage.problem("the restore does not say where the database is that was there before");
                return Ok(((), "not kept".to_owned()));
            };
            let detail = if is_as_it_was(before, &kept)? {
                "kept byte for byte"
            } else if is_folded(before, &kept, &stage.aside("copy")?)? {
                "kept, as it is when the last application closes it"
            } else {
                stage.problem(format!("{kept} is not the database that was there before"));
                "not kept"
            };
            Ok(((), format!("{detail}: {kept}")))
        })
    }

    fn expect_orphans(&mut self, before: &Utf8Path, restored: &Run) -> Result<String> {
        let said = restored.json.as_ref().and_then(|json| json["orphans"].as_array()).cloned().unwrap_or_default();
        let mut kept = Vec::new();
        for left in SIDECARS.map(|suffix| scratch::beside(before, suffix)) {
            if !has_content(&left)? {
                continue;
            }
            let mut orphans = said.iter().filter_map(|orphan| orphan.as_str());
            let name = left.file_name().unwrap_or_default();
            match orphans
                .find_map(|orphan| same(&left, orphan.into(), &[]).map(|same| same.then_some(orphan)).transpose())
            {
                Some(orphan) => kept.push(format!("{name} is {}", orphan?)),
                None => self
                    .problem(format!("{name}, which the lost database had left, is among no orphans of the restore")),
            }
        }
        Ok(kept.join(", "))
    }

    /// What was copied aside `before` something that was to change nothing must lie at the database's path.
    pub(super) fn expect_untouched(&mut self, before: &Utf8Path) -> Result<()> {
        self.step("compare the database", |stage| {
            let is_same = is_as_it_was(before, &stage.database)?;
            if !is_same {
                stage.problem("the database is not as it was, and nothing was to change it");
            }
            Ok(((), if is_same { "as it was" } else { "changed" }.to_owned()))
        })
    }
}

/// Where the folders are that a scenario has beside its stage.
pub(super) fn asides(stage: &Utf8Path) -> Utf8PathBuf {
    stage.with_file_name("aside")
}

/// Copies a database and its sidecars into a folder.
pub(super) fn copy_to(database: &Utf8Path, folder: &Utf8Path) -> Result<Utf8PathBuf> {
    let copy = folder.join(database.file_name().unwrap_or_default());
    for suffix in ["", "-wal", "-journal"] {
        let from = scratch::beside(database, suffix);
        if is_there(&from)? {
            scratch::copy(&from, &scratch::beside(&copy, suffix))?;
        }
    }
    Ok(copy)
}

/// Byte for byte, with its sidecars.
fn is_as_it_was(before: &Utf8Path, now: &Utf8Path) -> Result<bool> {
    for suffix in SIDECARS {
        let [before, now] = [before, now].map(|path| scratch::beside(path, suffix));
        let is_same = match (has_content(&before)?, has_content(&now)?) {
            (true, true) => same(&before, &now, &[])?,
            (false, false) => true,
            (true, false) | (false, true) => false,
        };
        if !is_same {
            return Ok(false);
        }
    }
    same(before, now, &[])
}

/// Whether it is what SQLite makes of it when the last application closes it.
fn is_folded(before: &Utf8Path, now: &Utf8Path, empty: &Utf8Path) -> Result<bool> {
    let folded = copy_to(before, empty)?;
    if let Err(e) = Application::open(&folded).and_then(Application::close) {
        // Then nobody could fold it, and it had to stay as it was.
        tracing::debug!("{}", e.message());
        return Ok(false);
    }
    // A fold that fails is not told at the close: the WAL stays.
    for path in [folded.as_path(), now] {
        for suffix in SIDECARS {
            if has_content(&scratch::beside(path, suffix))? {
                return Ok(false);
            }
        }
    }
    same(&folded, now, &MODE_FIELDS)
}

fn has_content(path: &Utf8Path) -> Result<bool> {
    Ok(is_there(path)? && scratch::size(path)? > 0)
}

/// Whether two files have the same bytes, but for these of the header. One that is not there is not the same.
fn same(one: &Utf8Path, other: &Utf8Path, but_for: &[Range<usize>]) -> Result<bool> {
    if !is_there(other)? {
        return Ok(false);
    }
    let open = |path: &Utf8Path| open_regular(path).map(BufReader::new).map_err(|e| Error::io("open", path, e));
    let (mut one_file, mut other_file) = (open(one)?, open(other)?);
    let mut masked = but_for;
    let (mut left, mut right) = (Vec::new(), Vec::new());
    loop {
        left.clear();
        right.clear();
        one_file.by_ref().take(BLOCK_BYTES).read_to_end(&mut left).map_err(|e| Error::io("read", one, e))?;
        other_file.by_ref().take(BLOCK_BYTES).read_to_end(&mut right).map_err(|e| Error::io("read", other, e))?;
        for field in std::mem::take(&mut masked) {
            for block in [&mut left, &mut right] {
                if let Some(bytes) = block.get_mut(field.clone()) {
                    bytes.fill(0);
                }
            }
        }
        if left != right {
            return Ok(false);
        }
        if left.is_empty() {
            return Ok(true);
        }
    }
}
