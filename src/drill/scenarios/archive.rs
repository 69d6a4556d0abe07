//! The database is lost, and something of the archive too: what is left is taken, and what that costs is said.

use camino::{Utf8Path, Utf8PathBuf};
use fastrand::Rng;
use jiff::SignedDuration;

use super::damage::flip_bit;
use crate::drill::stage::Stage;
use crate::drill::tool::Run;
use crate::drill::{damage_map, scratch};
use crate::error::Result;

/// One bit is enough: a backup is what it was, or it is none.
pub(super) fn newest_damaged(stage: &mut Stage<'_>) -> Result<()> {
    let (newest, cancel) = (stage.past.newest.path.clone(), stage.cast.cancel.clone());
    let whole = stage.aside("copy")?.join("whole.db");
    scratch::copy(&newest, &whole)?;
    stage.step("flip a bit of the newest", |stage| {
        let mut lot = Rng::with_seed(stage.cast.seed);
        let offset = lot.u64(0..scratch::size(&newest)?);
        flip_bit(&newest, offset, &mut lot)?;
        Ok(((), format!("in byte {offset} of {newest}")))
    })?;
    let pages = damage_map::pages_of(&whole, &cancel)?;
    let damage = damage_map::draw(&pages, &whole, &newest, &cancel)?;
    if damage.runs.iter().all(|run| !run.is_damaged) {
        stage.report.unknown.push(format!("{newest} is as it was: the damage was not made"));
    }
    stage.report.damage = Some(damage);
    stage.run("verify the newest backup", &["verify", newest.as_str()], 1)?;
    let before = stage.copy_aside("before")?;
    stage.run("restore the damaged one", &["restore", newest.as_str()], 1)?;
    stage.expect_untouched(&before)?;
    lose_database(stage)?;
    fall_back(stage)
}

/// Without its manifest nobody can tell whether a file is what was backed up, so it is no backup; but it is not forgotten.
pub(super) fn manifest_lost(stage: &mut Stage<'_>) -> Result<()> {
    let newest = stage.past.newest.path.clone();
    stage.step("delete the manifest", |_stage| {
        let manifest = manifest_of(&newest);
        scratch::remove(&manifest)?;
        Ok(((), format!("{manifest} is gone")))
    })?;
    lose_database(stage)?;
    let restored = stage.restore(&["latest-good"])?;
    expect_backup(stage, &restored, &stage.past.older.path);
    stage.expect(&stage.past.older)?;
    let list = stage.run("list the backups", &["list"], 0)?;
    let is_reported = list
        .json
        .as_ref()
        .and_then(|json| json["orphans"].as_array())
        .is_some_and(|orphans| orphans.iter().any(|orphan| orphan.as_str() == Some(newest.as_str())));
    if !is_reported {
        stage.problem(format!("the list does not say that {newest} has no manifest"));
    }
    // Its name tells the second only, and both may be of the same.
    let at = stage.past.newest.at.to_string();
    stage.run("adopt the file", &["adopt", newest.as_str(), "--at", &at], 0)?;
    let restored = stage.restore(&["latest-good"])?;
    expect_backup(stage, &restored, &newest);
    stage.expect(&stage.past.newest)
}

/// The newest backup cannot be read, whoever asks: its file is on a disk that is not there, then its manifest is no file.
pub(super) fn partly_unreadable(stage: &mut Stage<'_>) -> Result<()> {
    let newest = stage.past.newest.path.clone();
    stage.step("hide the newest backup", |stage| {
        scratch::remove(&newest)?;
        let elsewhere = stage.folder.join("unmounted").join(newest.file_name().unwrap_or_default());
        scratch::link(&newest, &elsewhere)?;
        Ok(((), format!("{newest} is a link to a place that is not there")))
    })?;
    lose_database(stage)?;
    fall_back(stage)?;
    stage.reset()?;
    stage.step("block the manifest", |_stage| {
        let manifest = manifest_of(&newest);
        scratch::remove(&manifest)?;
        scratch::create_folder(&manifest)?;
        Ok(((), format!("{manifest} is a folder")))
    })?;
    lose_database(stage)?;
    fall_back(stage)
}

fn lose_database(stage: &mut Stage<'_>) -> Result<()> {
    stage.disaster("delete the database", |stage| {
        scratch::remove(&stage.database)?;
        Ok("the file is gone".to_owned())
    })
}

/// Restores, which must take the older backup and say that it passed the newest over.
fn fall_back(stage: &mut Stage<'_>) -> Result<()> {
    let (older, newest) = (&stage.past.older, &stage.past.newest);
    let before = stage.copy_aside("before")?;
    let restored = stage.restore(&["latest-good"])?;
    stage.expect_kept(&before, &restored)?;
    expect_backup(stage, &restored, &older.path);
    let name = newest.path.file_name().unwrap_or_default();
    let warnings = restored.json.as_ref().and_then(|json| json["warnings"].as_array()).cloned().unwrap_or_default();
    // What drives a terminal is escaped in it.
    let escaped = name.escape_debug().to_string();
    let names_it = |text: &str| text.contains(name) || text.contains(&escaped);
    if !warnings.iter().any(|warning| warning.as_str().is_some_and(names_it)) {
        stage.problem(format!("the restore does not say that it passed {name} over"));
    }
    stage.expect(older)?;
    stage.step("what that costs", |_stage| {
        let commits = newest.commits.saturating_sub(older.commits);
        let earlier = i64::try_from(newest.at.duration_since(older.at).as_millis())
            .map_or(SignedDuration::MAX, SignedDuration::from_millis);
        let lost = format!("{commits} commits more than with the newest backup");
        Ok(((), format!("{lost}: the older one is from {earlier:#} before it")))
    })
}

fn expect_backup(stage: &mut Stage<'_>, restored: &Run, expected: &Utf8Path) {
    let taken = restored.path("backup");
    if taken.as_deref() != Some(expected) {
        let taken = taken.map_or_else(|| "none".to_owned(), Utf8PathBuf::into_string);
        stage.problem(format!("the restore was to take {expected}, and says that it took {taken}"));
    }
}

fn manifest_of(backup: &Utf8Path) -> Utf8PathBuf {
    scratch::beside(backup, ".manifest.json")
}
