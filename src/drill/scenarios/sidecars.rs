//! What lies beside the database is not its own, or is gone.

use std::fs::File;

use camino::{Utf8Path, Utf8PathBuf};

use super::damage::{prove, recover};
use crate::drill::stage::Stage;
use crate::drill::{damage_map, scratch};
use crate::error::{Error, ErrorKind, Result};
use crate::header::Header;
use crate::sample::{Application, SampleOptions, create_unless, write_hot};

/// Commits in a WAL that does not belong to the database.
const COMMITS: u64 = 10;

/// Rows of the other database.
const ROWS: u64 = 20;

/// First while nothing of the WAL is in the main file: its commits are lost, and no check of what is left finds anything. Then in
/// the midst of a checkpoint: the main file has some of the pages only.
pub(super) fn deleted(stage: &mut Stage<'_>) -> Result<()> {
    stage.disaster("delete the sidecars", |stage| {
        remove_sidecars(stage)?;
        Ok("the commits that were in the -wal are gone".to_owned())
    })?;
    let before = stage.copy_aside("before")?;
    prove(stage, &before, &stage.past.present)?;
    stage.recover(&before)?;
    stage.reset()?;
    let whole = stage.copy_aside("copy")?;
    Application::open(&whole)?.close()?;
    let pages = damage_map::pages_of(&whole, &stage.cast.cancel)?;
    stage.disaster("cut a checkpoint off", |stage| {
        let todo = damage_map::differing_pages(&whole, &stage.database, pages.page_bytes, &stage.cast.cancel)?;
        // It goes from the first page to the last, and is cut off in the midst of one.
        let all = todo.len() * pages.page_bytes as usize;
        let mut left = all / 2;
        for page in &todo {
            let length = left.min(pages.page_bytes as usize);
            let start = u64::from(page - 1) * u64::from(pages.page_bytes);
            scratch::overwrite(&stage.database, start, &scratch::read(&whole, start, length)?)?;
            left -= length;
        }
        remove_sidecars(stage)?;
        Ok(format!("{} of {all} bytes are in the main file, and the sidecars are gone", all / 2))
    })?;
    recover(stage, &pages, &whole)
}

fn remove_sidecars(stage: &Stage<'_>) -> Result<()> {
    for suffix in ["-wal", "-shm"] {
        scratch::remove(&scratch::beside(&stage.database, suffix))?;
    }
    Ok(())
}

/// SQLite replays whatever WAL it finds under the name, if that is whole: it does not know whose it is.
pub(super) fn stale_wal(stage: &mut Stage<'_>) -> Result<()> {
    let another = wal_of_another(stage)?;
    let older = wal_of_older(stage)?;
    let newest = &stage.past.newest;
    for (whose, wal) in [("of another database", &another), ("of an older generation", &older)] {
        stage.disaster("leave a stale WAL", |stage| {
            lay(wal, &stage.database)?;
            scratch::remove(&stage.database)?;
            Ok(format!("one {whose} lies where the database was"))
        })?;
        // That is what a restore would do that leaves it there.
        let careless = stage.aside("careless")?.join(stage.database.file_name().unwrap_or_default());
        scratch::copy(&newest.path, &careless)?;
        lay(wal, &careless)?;
        prove(stage, &careless, newest)?;
        let before = stage.copy_aside("before")?;
        stage.recover(&before)?;
        stage.reset()?;
    }
    stage.disaster("put a stale WAL there", |stage| {
        lay(&another, &stage.database)?;
        Ok("one of another database lies where that of the database was".to_owned())
    })?;
    let before = stage.copy_aside("before")?;
    prove(stage, &before, &stage.past.present)?;
    stage.recover(&before)
}

/// Puts a WAL in the place of a database's own, and lets nothing tell of that.
fn lay(wal: &Utf8Path, database: &Utf8Path) -> Result<()> {
    scratch::remove(&scratch::beside(database, "-shm"))?;
    scratch::copy(wal, &scratch::beside(database, "-wal"))
}

/// That of a database which has nothing to do with this one, but for the size of its pages.
fn wal_of_another(stage: &Stage<'_>) -> Result<Utf8PathBuf> {
    let database = stage.aside("another")?.join("another.db");
    let page_size = page_size(&stage.past.newest.path)?;
    let sample = SampleOptions { rows: ROWS, seed: stage.cast.seed, page_size, ..SampleOptions::default() };
    create_unless(&database, &sample, &stage.cast.cancel)?;
    write_hot(&database, COMMITS, stage.cast.seed)?;
    Ok(scratch::beside(&database, "-wal"))
}

/// That of this database, as it would be if it had gone on from the older backup.
fn wal_of_older(stage: &Stage<'_>) -> Result<Utf8PathBuf> {
    let database = stage.aside("older")?.join("older.db");
    scratch::copy(&stage.past.older.path, &database)?;
    let mut application = Application::open(&database)?;
    application.prepare()?;
    application.keep_wal()?;
    for _ in 0..COMMITS {
        application.commit()?;
    }
    application.close()?;
    scratch::remove(&database)?;
    Ok(scratch::beside(&database, "-wal"))
}

fn page_size(file: &Utf8Path) -> Result<u32> {
    let header = File::open(file).and_then(|file| Header::read(&file)).map_err(|e| Error::io("read", file, e))?;
    let header = header.map_err(|why| Error::new(ErrorKind::Failed, "read the header of", file).because(why))?;
    Ok(header.page_size)
}
