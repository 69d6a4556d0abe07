//! Crash-safe backup, verify and restore for SQLite databases.
//!
//! ```text
//! live.db --snapshot--> partial file --check, hash, sync--> NAME.db, then NAME.db.manifest.json
//!                                              (the manifest comes last: without it there is no backup)
//! NAME.db --verify--> findings
//! NAME.db --stage, hash again--> live.db.restore-staged --COMMIT (one rename)--> live.db
//!                                              (the old database is kept: live.db.pre-restore)
//! ```
//!
//! An operation that changes something is a free function that takes an options struct, a [`storage::Storage`] and an
//! [`Observer`], and returns a report. Damage in a backup is an answer ([`Finding`]); an [`Error`] means that something
//! could not be done or could not be looked at. The library prints nothing and keeps no global state; the time that it
//! records is an option (`now`), and only the drill asks the clock itself.
//!
//! | what | names |
//! |---|---|
//! | taking a backup | [`backup()`], [`BackupOptions`], [`Destination`], [`Engine`], [`Limits`], [`BackupReport`] |
//! | a file of another tool | [`adopt()`], [`plan_adopt()`], [`AdoptOptions`], [`Placement`], [`Adoption`], [`Adopted`], [`AdoptPlan`] |
//! | finding one | [`archive::list()`], [`archive::select()`], [`archive::read_manifest()`], [`first_good()`], [`none_good()`] |
//! | when each was verified | [`archive::History`], [`archive::record()`] |
//! | checking one | [`verify()`], [`VerifyOptions`], [`verify_subset()`], [`SubsetOptions`], [`check()`], [`CheckOptions`], [`CheckReport`], [`BackupVerdict`], [`Verdict`], [`Finding`], [`Code`], [`Severity`] |
//! | comparing | [`diff()`], [`DiffOptions`], [`DiffSide`], [`DiffReport`], [`TableDiff`], [`SchemaDiff`], [`Status`], [`TableKind`], [`Newest`], [`Time`]; [`would_lose()`], [`undo_would_lose()`], [`WouldLose`], [`LostRows`], [`LostTime`] |
//! | putting one in place | [`restore()`], [`plan_restore()`], [`RestoreOptions`], [`RestorePlan`], [`RestoreReport`] |
//! | putting one into a database that is open | [`restore_in_place()`], [`plan_restore_in_place()`], [`undo_in_place()`], [`plan_undo_in_place()`], [`InPlaceReport`], [`InPlacePlan`] |
//! | taking that back | [`undo()`], [`plan_undo()`], [`UndoOptions`] |
//! | after a crash | [`recover()`], [`plan_recover()`], [`restore_state()`], [`RecoverOptions`], [`RecoverOutcome`], [`RestoreState`], [`InterruptedRestore`] |
//! | a command between a backup and a check | [`guard()`], [`GuardOptions`], [`Guard`], [`OnFailure`], [`GuardReport`], [`RestoreMode`], [`guard_state()`], [`GuardState`], [`PutBack`] |
//! | in a daemon, through its own connection | [`before_cycle()`], [`after_cycle()`], [`CycleOptions`], [`Cycle`], [`CycleReport`], [`PutBackReport`], [`backup_connection()`], [`ConnectionBackupOptions`], [`LiveGuard`] |
//! | the health at one look | [`status()`], [`StatusOptions`], [`StatusReport`], [`StatusCheck`], [`write_metrics()`] |
//! | removing old ones | [`prune()`], [`plan_prune()`], [`named_backups()`], [`PruneOptions`], [`Policy`], [`PrunePlan`], [`Judged`], [`Reason`], [`PruneReport`]; [`archive::pin()`], [`archive::unpin()`]; [`prune_kept()`], [`plan_prune_kept()`], [`PruneKeptOptions`], [`KeptPolicy`], [`KeptPlan`] |
//! | rehearsing | [`drill()`], [`DrillOptions`], [`DrillSubject`], [`Pick`], [`Assertion`], [`Thresholds`], [`SCENARIOS`], [`Program`], [`DrillReport`] |
//! | progress, stopping | [`Observer`], [`Event`], [`Step`], [`Quiet`], [`Cancel`] |
//! | failures | [`Error`], [`ErrorKind`], [`TargetState`], [`Result`] |
//! | formats, pure | [`manifest`], [`digest`], [`header`] |
//! | the machine | [`storage`] (every durable file operation), [`holders`] (who has a database open), [`database`] |
//! | for tests and drills | [`sample`] (databases of engram's shape and a writer) |
//!
//! `docs/ARCHITECTURE.md` has the map, `docs/restore-protocol.md` what a restore promises, `docs/manifest.md` the
//! format.
//!
//! # Example
//!
//! A backup of a sample database, and a check of it:
//!
//! ```
//! use camino::Utf8Path;
//! use engram_restore::sample::{SampleOptions, create};
//! use engram_restore::storage::Storage;
//! use engram_restore::{BackupOptions, Quiet, Verdict, VerifyOptions, backup, verify};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let scratch = tempfile::tempdir()?;
//! let folder = Utf8Path::from_path(scratch.path()).ok_or("not UTF-8")?;
//! let database = folder.join("engram.db");
//! create(&database, &SampleOptions::default())?;
//!
//! let options = BackupOptions::new(database, folder.join("backups"), jiff::Timestamp::now());
//! let report = backup(&options, &Storage::new(), &mut Quiet)?;
//! assert!(report.manifest.integrity_check.is_ok());
//!
//! // Everything that can be checked, not only the hash.
//! let answer = verify(&report.backup, &VerifyOptions::deep(), &mut Quiet)?;
//! assert_eq!(answer.verdict, Verdict::Pass, "{:?}", answer.findings);
//! # Ok(())
//! # }
//! ```
// Under this name tests know it, of which some are also a part of it.
#[cfg(any(test, fuzzing))]
extern crate self as engram_restore;

mod adopt;
pub mod archive;
mod backup;
mod check;
mod cycle;
pub mod database;
mod diff;
pub mod digest;
mod drill;
mod error;
mod findings;
mod fingerprint;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod guard;
pub mod header;
pub mod holders;
mod live;
mod lock;
pub mod manifest;
mod medium;
mod observe;
mod pages;
mod prometheus;
mod prune;
mod recover;
mod restore;
mod retention;
pub mod sample;
pub mod signature;
pub mod sqlite;
mod status;
pub mod storage;
mod verify;
pub use adopt::{AdoptOptions, AdoptPlan, Adopted, Adoption, Placement, adopt, plan_adopt};
pub use backup::{
    BackupOptions, BackupPlan, BackupReport, ConnectionBackupOptions, Destination, Engine, Limits, backup,
    backup_connection, plan_backup,
};
pub use check::{CheckOptions, CheckReport, Depth, ForeignKeys, Integrity, Part, check};
pub use cycle::{Cycle, CycleOptions, CycleReport, PutBackReport, after_cycle, before_cycle};
pub use diff::{DiffOptions, DiffReport, DiffSide, Newest, SchemaDiff, Status, TableDiff, diff};
pub use drill::{
    Assertion, AssertionReport, CRASH_SCENARIOS, DRILL_FORMAT, DRILL_VERSION, DamageMap, DrillOptions, DrillReport,
    DrillSubject, PageOwner, PageRun, PastDrill, Phase, Pick, Program, REHEARSE, REHEARSE_ABOUT, ReportFormat, Rpo,
    Rto, SCENARIOS, Scenario, ScenarioReport, Scratch, StepReport, Subject, SubjectKind, Threshold, Thresholds,
    admit_report, drill, render_report, verify_report, write_report,
};
pub use error::{Error, ErrorKind, Result, TargetState};
pub use findings::{Code, DamagedRange, Finding, Severity, Verdict};
pub use fingerprint::{Content, TableContent};
pub use guard::{Guard, GuardOptions, GuardReport, OnFailure, RestoreMode, guard};
pub use live::LiveGuard;
pub use observe::{Cancel, Event, Observer, Quiet, Step};
pub use prometheus::write_metrics;
pub use prune::{Judged, PruneOptions, PrunePlan, PruneReport, plan_prune, prune};
pub use recover::{
    GuardState, InterruptedRestore, KeptPlan, KeptPolicy, PruneKeptOptions, PutBack, RecoverOptions, RecoverOutcome,
    RecoverReport, RestoreState, guard_state, named_backups, plan_prune_kept, plan_recover, prune_kept, recover,
    restore_state,
};
pub use restore::{
    InPlacePlan, InPlaceReport, LostRows, LostTime, NewContent, OldDatabase, RestoreOptions, RestorePlan,
    RestoreReport, UndoOptions, WouldLose, plan_restore, plan_restore_in_place, plan_undo, plan_undo_in_place, restore,
    restore_in_place, undo, undo_in_place, undo_would_lose, would_lose,
};
pub use retention::{LONG_PAUSE, Policy, Reason};
pub use sqlite::{TableKind, Time};
pub use status::{Health, LastVerified, Space, StatusCheck, StatusOptions, StatusReport, status};
pub use verify::{
    BackupVerdict, Percent, SubsetOptions, SubsetReport, VerifyOptions, first_good, none_good, verify, verify_subset,
};
