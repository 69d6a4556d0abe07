//! The database file is gone.

use crate::drill::scratch;
use crate::drill::stage::Stage;
use crate::error::Result;

/// The file alone: its WAL stays as an orphan, which must not get into the restored database.
pub(super) fn deleted(stage: &mut Stage<'_>) -> Result<()> {
    stage.disaster("delete the database", |stage| {
        scratch::remove(&stage.database)?;
        Ok("the file is gone, its -wal is an orphan now".to_owned())
    })?;
    let before = stage.copy_aside("before")?;
    stage.recover(&before)
}
