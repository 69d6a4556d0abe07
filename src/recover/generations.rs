//! How many of the old databases that restores have kept stay: `.pre-restore` always, since it is what an undo puts back,
//! and of the earlier generations the newest few and the young ones.
//!
//! The commit point of a removal is that of the main file, which is the last step that anybody could regret; what lies
//! beside it (sidecars, note) is worth nothing without it, and a later run clears that away too. Only under the restore
//! lock, and only where no restore was interrupted: its record says where files are to go.

use std::num::NonZero;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::beside::Beside;
use super::kept::note;
use super::{is_interrupted, lock};
use crate::archive::parse_time;
use crate::database::{self, SIDECARS, is_there, sidecar};
use crate::error::{Error, ErrorKind, Result};
use crate::observe::{Event, Observer};
use crate::storage::{Storage, parent_of};

/// Which of the old databases stay. One stays if either says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptPolicy {
    /// The newest so many, `.pre-restore` being the first.
    pub keep: NonZero<u32>,
    /// Those that were kept no longer ago than this.
    pub min_age: Duration,
}

impl Default for KeptPolicy {
    fn default() -> Self {
        Self { keep: NonZero::<u32>::MIN.saturating_add(1), min_age: Duration::from_secs(24 * 60 * 60) }
    }
}

/// Whose old databases.
#[derive(Clone, Debug)]
pub struct PruneKeptOptions {
    /// The database; it need not be there.
    pub database: Utf8PathBuf,
    /// Which ones stay.
    pub policy: KeptPolicy,
    /// How long to wait for another run of ours.
    pub wait: Duration,
    /// The time of the prune.
    pub now: Timestamp,
}

/// Which ones go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct KeptPlan {
    /// The main files that go, with all that lies beside them, the oldest last.
    pub removed: Vec<Utf8PathBuf>,
    /// The main files that stay, newest first.
    pub kept: Vec<Utf8PathBuf>,
    /// The room that this makes.
    pub freed_bytes: u64,
}

/// What [`prune_kept`] would do. Nothing is changed or created.
///
/// # Errors
///
/// [`ErrorKind::Failed`] if a restore was interrupted there, or if it cannot be looked at.
pub fn plan_prune_kept(options: &PruneKeptOptions) -> Result<KeptPlan> {
    match database::resolve(&options.database) {
        Ok(database) => plan(&Beside::new(&database), options),
        // Without its folder, there is nothing of it to be found either.
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(KeptPlan::default()),
        Err(e) => Err(e),
    }
}

/// Removes the old databases that the policy does not keep. Durable on return.
///
/// # Errors
///
/// [`ErrorKind::Busy`] if a restore is under way; those of [`plan_prune_kept`]; [`ErrorKind::Failed`] if the system refuses:
/// then some of them may be gone.
pub fn prune_kept(options: &PruneKeptOptions, storage: &Storage, observer: &mut dyn Observer) -> Result<KeptPlan> {
    // Before a lock file is made for nothing.
    let foreseen = plan_prune_kept(options)?;
    if foreseen.removed.is_empty() {
        return Ok(foreseen);
    }
    let beside = Beside::new(&database::resolve(&options.database)?);
    let _lock = lock(&beside, options.wait, options.now, observer)?;
    let plan = plan(&beside, options)?;
    let folder = parent_of(&beside.database);
    // The oldest first: an interrupted run leaves those that are worth more.
    for kept in plan.removed.iter().rev() {
        observer.cancel().check("remove", kept)?;
        storage.remove(kept)?;
        // Without its WAL, a database that could not be opened would be another one.
        storage.sync_dir(folder)?;
        for path in companions(kept) {
            storage.remove(&path)?;
        }
        tracing::info!("removed {kept}");
    }
    storage.sync_dir(folder)?;
    if plan.removed != foreseen.removed {
        observer.event(Event::Warning("another run has changed the old databases meanwhile"));
    }
    Ok(plan)
}

/// What lies beside a kept database.
fn companions(kept: &Utf8Path) -> impl Iterator<Item = Utf8PathBuf> {
    SIDECARS.into_iter().map(|suffix| sidecar(kept, suffix)).chain([note(kept)])
}

fn plan(beside: &Beside, options: &PruneKeptOptions) -> Result<KeptPlan> {
    let mut plan = KeptPlan::default();
    let mut earlier = generations(beside)?;
    if earlier.is_empty() {
        return Ok(plan);
    }
    if is_interrupted(beside)? {
        return Err(Error::new(ErrorKind::Failed, "remove old copies of", &beside.database)
            .because("a restore was interrupted there, and may have to move them")
            .hint("bring it to its end with: engram-restore recover"));
    }
    earlier.sort_by_key(|(at, number, _)| std::cmp::Reverse((*at, *number)));
    let mut places = usize::try_from(options.policy.keep.get()).unwrap_or(usize::MAX);
    if is_there(&beside.kept())? {
        plan.kept.push(beside.kept());
        places -= 1;
    }
    let min_age = SignedDuration::try_from(options.policy.min_age).unwrap_or(SignedDuration::MAX);
    for (at, _, path) in earlier {
        // Negative, and so young, where the clock was set back since.
        let is_young = options.now.duration_since(at) < min_age;
        // What is left of a removal that was interrupted takes no place.
        let is_main_there = is_there(&path)?;
        if is_main_there && (places > 0 || is_young) {
            places = places.saturating_sub(1);
            plan.kept.push(path);
            continue;
        }
        if is_young {
            continue;
        }
        for part in [path.clone()].into_iter().chain(companions(&path)) {
            plan.freed_bytes += std::fs::symlink_metadata(&part).map_or(0, |metadata| metadata.len());
        }
        plan.removed.push(path);
    }
    Ok(plan)
}

/// The earlier ones of which anything is left: when each was kept, its number in that second, its main file.
fn generations(beside: &Beside) -> Result<Vec<(Timestamp, u32, Utf8PathBuf)>> {
    let folder = parent_of(&beside.database);
    let prefix = beside.generation(".");
    let prefix = prefix.file_name().unwrap_or_default();
    let mut found = Vec::new();
    for entry in folder.read_dir_utf8().map_err(|e| Error::io("list", folder, e))? {
        let Ok(entry) = entry else { continue }; // Not UTF-8: no name of ours.
        let Some(rest) = entry.file_name().strip_prefix(prefix) else { continue };
        let mut beside_main = SIDECARS.iter().chain([&".json"]);
        let time = beside_main.find_map(|suffix| rest.strip_suffix(suffix)).unwrap_or(rest);
        if let Some((at, number)) = parse_time(time) {
            found.push((at, number, beside.generation(&format!(".{time}"))));
        }
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}
