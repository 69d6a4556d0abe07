//! A backup through the connection that an application has open.
//!
//! The copy is SQLite's backup API on a read transaction of that connection; everything after it is as for any other
//! backup. No file of the live database is opened or closed by hand.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::engine::{Choice, Copy, Engine, replaced};
use super::{BackupOptions, BackupReport, Destination, IfUnsound, Job, Limits, admit, check_label, find_destination};
use crate::database;
use crate::error::{Error, Result};
use crate::holders::FileIdentity;
use crate::observe::{Event, Observer, Step};
use crate::recover::{Beside, refuse_traces};
use crate::signature::Keys;
use crate::sqlite::{self, Connection, Copying};
use crate::storage::Storage;

/// How the database of an open connection is backed up.
#[derive(Clone, Debug)]
pub struct ConnectionBackupOptions {
    /// Where the backup goes.
    pub destination: Destination,
    /// The user's own word for it, at most 200 characters, none of them a control character.
    pub label: Option<String>,
    /// How long locks of others are waited for, on top of the connection's own busy timeout.
    pub busy_limit: Duration,
    /// What the copy may cost others.
    pub limits: Limits,
    /// The time of the backup.
    pub now: Timestamp,
    /// Signs the manifest.
    pub keys: Keys,
}

/// Takes a backup through an application's own connection: of its main database, by a read transaction of its own.
///
/// What survives and what a report means is as for [`super::backup()`]. It blocks until it is done; from an asynchronous
/// program, call it where blocking is allowed. The connection keeps its settings, and the process every lock that it holds.
///
/// # Errors
///
/// [`crate::ErrorKind::Usage`] if the connection is within a transaction or its database is no file;
/// [`crate::ErrorKind::Failed`] if the file was replaced under it, or a restore was interrupted there; otherwise as for
/// [`super::backup()`].
pub fn backup_connection(
    connection: &Connection,
    options: &ConnectionBackupOptions,
    storage: &Storage,
    observer: &mut dyn Observer,
) -> Result<BackupReport> {
    take(connection, options, IfUnsound::Publish, storage, observer)
}

/// The same for somebody who wants to go back to it: of a database that is not sound there is none.
///
/// # Errors
///
/// Those of [`super::backup_sound()`] and [`backup_connection`].
pub(crate) fn backup_connection_sound(
    connection: &Connection,
    options: &ConnectionBackupOptions,
    storage: &Storage,
    observer: &mut dyn Observer,
) -> Result<BackupReport> {
    take(connection, options, IfUnsound::Refuse, storage, observer)
}

fn take(
    connection: &Connection,
    options: &ConnectionBackupOptions,
    if_unsound: IfUnsound,
    storage: &Storage,
    observer: &mut dyn Observer,
) -> Result<BackupReport> {
    let start = Instant::now();
    let database = database::resolve(&sqlite::path_of(connection)?)?;
    check_label(options.label.as_deref(), &database)?;
    sqlite::require_idle(connection, "back up", &database)?;
    refuse_traces(&Beside::new(&database))?;
    let options = BackupOptions {
        keys: options.keys.clone(),
        database: database.clone(),
        destination: options.destination.clone(),
        engine: Engine::Online,
        label: options.label.clone(),
        busy_limit: options.busy_limit,
        limits: options.limits,
        now: options.now,
    };
    let ownership = admit(&database)?;
    find_destination(&options, &database)?;
    let choice = Choice { engine: Engine::Online, reason: "through the application's own connection".to_owned() };
    let job = Job { options: &options, database: &database, ownership, if_unsound, start };
    job.run(choice, storage, observer, |into, pace, observer| {
        observer.event(Event::Step(Step::Copy));
        let identity = || FileIdentity::of_path(&database).map_err(|e| Error::io("look at", &database, e));
        let before = identity()?;
        let cancel = observer.cancel();
        let copied = storage.through_sqlite("copy into", &into.path, |port| {
            let mut progress = |done, total| {
                observer.event(Event::Bytes { done, total });
                pace.keep(done)
            };
            let mut copying = Copying {
                step_bytes: pace.step_bytes(),
                busy_limit: options.busy_limit,
                cancel: &cancel,
                progress: &mut progress,
            };
            sqlite::copy_connection(connection, &database, &into.path, &mut copying, port)
        })?;
        if identity()? != before {
            return Err(replaced(&database));
        }
        Ok(Copy::unhashed(copied))
    })
}
