//! Takes one copy, and says what is wrong with it.

use std::fs;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use engram_restore::VerifyOptions;
use engram_restore::signature::Keys;
use engram_restore::storage::{Interceptor, Storage};
use engram_restore::{BackupOptions, BackupReport, Destination, Engine, Error, Limits, Quiet, Verdict, backup, verify};
use rusqlite::Connection;

use crate::model::{Replica, content, content_of_file};

/// Where the copies go.
pub(crate) fn archive_of(database: &Utf8Path) -> Utf8PathBuf {
    database.with_file_name("backups")
}

/// A copy by the engine that is tested.
pub(crate) fn take(
    database: &Utf8Path,
    busy_limit: Duration,
    interceptor: Arc<dyn Interceptor>,
) -> Result<BackupReport, Error> {
    take_within(Limits::default(), database, busy_limit, interceptor)
}

/// The same, held to limits.
pub(crate) fn take_within(
    limits: Limits,
    database: &Utf8Path,
    busy_limit: Duration,
    interceptor: Arc<dyn Interceptor>,
) -> Result<BackupReport, Error> {
    let options = BackupOptions {
        database: database.to_owned(),
        destination: Destination::Archive(archive_of(database)),
        engine: Engine::Snapshot,
        label: None,
        busy_limit,
        limits,
        now: jiff::Timestamp::now(),
        keys: Keys::default(),
    };
    backup(&options, &Storage::intercepted(interceptor), &mut Quiet)
}

/// Which generation a copy holds, one of `possible`, or what is wrong with it. It is removed.
pub(crate) fn judge(
    report: &BackupReport,
    possible: &RangeInclusive<u64>,
    replica: &mut Replica,
) -> Result<u64, String> {
    let file = &report.backup;
    let archive = file.parent().unwrap();
    let mut names: Vec<_> = archive.read_dir_utf8().unwrap().map(|entry| entry.unwrap().into_path()).collect();
    names.sort();
    if names != [file.clone(), report.manifest_path.clone()] {
        return Err(format!("beside the backup lies something else: {names:?}"));
    }
    let bytes = fs::read(file).unwrap();
    if blake3::hash(&bytes).to_hex().as_str() != report.manifest.file.blake3.to_string() {
        return Err("the hash in the manifest is not that of the file".to_owned());
    }
    if bytes[18..20] != [1, 1] {
        return Err(format!("the journal mode in the copy's header is {:?}", &bytes[18..20]));
    }
    if !report.manifest.integrity_check.is_ok() {
        return Err(format!("integrity check: {:?}", report.manifest.integrity_check.rows));
    }
    let answer = verify(file, &VerifyOptions::deep(), &mut Quiet).unwrap();
    if answer.verdict != Verdict::Pass || !answer.findings.is_empty() {
        return Err(format!("verify: {:?}", answer.findings));
    }
    let (generation, content) = content_of_file(file).map_err(|e| e.to_string())?;
    if !possible.contains(&generation) {
        return Err(format!("generation {generation}, not one of {possible:?}"));
    }
    if replica.content(generation) != content {
        return Err(format!("the content is not that of generation {generation}"));
    }
    for name in names {
        fs::remove_file(name).unwrap();
    }
    Ok(generation)
}

/// What the live database holds in the end: it is sound, and nothing is lost.
pub(crate) fn sound_generation(database: &Utf8Path, replica: &mut Replica) -> Result<u64, String> {
    let live = Connection::open(database).unwrap();
    let check: String = live.query_row("PRAGMA integrity_check", [], |row| row.get(0)).map_err(|e| e.to_string())?;
    let (generation, found) = content(&live).map_err(|e| e.to_string())?;
    if check != "ok" || replica.content(generation) != found {
        return Err(format!("the live database is damaged in generation {generation}: {check}"));
    }
    Ok(generation)
}
