//! Checking backups against their manifests.
//!
//! Damage is an answer: [`verify`] returns findings, and an error only if the caller asked to stop. What could not be
//! looked at is *inconclusive*, never damage and never a pass. What a pass does not prove is in `docs/manifest.md`.

mod content;
mod locate;
mod subset;

use std::fs::File;
use std::io;
use std::time::Instant;

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;
use serde::Serialize;

use crate::archive::{Closeness, ManifestProblem, Verification, Verified, read_trusted};
use crate::check::{CheckOptions, Depth, Part, audit, check};
use crate::database::{Stamp, resolve, sidecars_there};
use crate::digest::{Digest, digest_file};
use crate::error::{Error, ErrorKind, Result};
use crate::findings::{Code, DamagedRange, Finding, Severity, Verdict};
use crate::header::Header;
use crate::manifest::{Hex32, Manifest, ManifestError};
use crate::observe::{Event, Observer, Step};
use crate::signature::{SignatureProblem, TrustedKeys};
use crate::sqlite::live_header;
use crate::storage::open_regular;
pub use subset::{Percent, SubsetOptions, SubsetReport, verify_subset};

/// How closely a backup is looked at; by default, its bytes are hashed.
#[derive(Clone, Debug, Default)]
pub struct VerifyOptions {
    /// What is checked beside the hash.
    pub check: Option<CheckOptions>,
    /// The live database: with `check`, the header of a backup of it is compared to its own, if that can be read.
    pub live: Option<Utf8PathBuf>,
    /// Who has to have signed the manifest, if anybody.
    pub trusted: TrustedKeys,
}

impl VerifyOptions {
    /// Everything that can be looked at.
    #[must_use]
    pub fn deep() -> Self {
        Self { check: Some(CheckOptions { depth: Depth::Deep, ..CheckOptions::default() }), ..Self::default() }
    }

    /// The hash, of what one of these keys has signed.
    #[must_use]
    pub fn signed_by(trusted: &TrustedKeys) -> Self {
        Self { trusted: trusted.clone(), ..Self::default() }
    }
}

/// What was found out about one backup.
#[derive(Clone, Debug, Serialize)]
pub struct BackupVerdict {
    /// The backup file.
    pub backup: Utf8PathBuf,
    /// The worst of the findings.
    pub verdict: Verdict,
    /// Everything found; empty, or warnings only, for a pass.
    pub findings: Vec<Finding>,
    /// The parts of the check with their times.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Part>,
    /// How long all of it took, in milliseconds, where the content was checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// What was hashed, where that was not all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subset: Option<SubsetReport>,
    /// The hash of the file by its manifest; `None` if that could not be read.
    #[serde(skip)]
    pub blake3: Option<Hex32>,
}

impl BackupVerdict {
    fn new(backup: &Utf8Path) -> Self {
        Self {
            backup: backup.to_owned(),
            verdict: Verdict::Pass,
            findings: Vec::new(),
            parts: Vec::new(),
            duration_ms: None,
            subset: None,
            blake3: None,
        }
    }

    /// For the history of the archive, if there was a manifest to go by.
    #[must_use]
    pub fn verified(&self, at: Timestamp, depth: Closeness) -> Option<Verified> {
        Some(Verified {
            backup: self.backup.clone(),
            blake3: self.blake3?,
            look: Verification { at, depth, verdict: self.verdict },
            sound: self.subset.as_ref().map(|subset| (subset.sound, subset.chunks_total)),
        })
    }
}

/// Checks one backup: its manifest, then the file against it, as closely as the options say.
///
/// Nothing is changed, and nothing is created beside the file.
///
/// # Errors
///
/// Only [`ErrorKind::Interrupted`] and bugs of ours: whatever is wrong with the backup is a finding.
///
/// # Example
///
/// ```
/// use engram_restore::{Quiet, Verdict, VerifyOptions, verify};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let scratch = tempfile::tempdir()?;
/// # let folder = camino::Utf8Path::from_path(scratch.path()).ok_or("not UTF-8")?;
/// # let (database, archive) = (folder.join("engram.db"), folder.join("backups"));
/// # let few = engram_restore::sample::SampleOptions { rows: 10, ..Default::default() };
/// # engram_restore::sample::create(&database, &few)?;
/// # let now = jiff::Timestamp::now();
/// # let taken = engram_restore::BackupOptions::new(database.clone(), archive.clone(), now);
/// # let backup = engram_restore::backup(&taken, &engram_restore::storage::Storage::new(), &mut engram_restore::Quiet)?.backup;
/// let answer = verify(&backup, &VerifyOptions::deep(), &mut Quiet)?;
/// assert_eq!(answer.verdict, Verdict::Pass, "{:?}", answer.findings);
/// # Ok(())
/// # }
/// ```
pub fn verify(backup: &Utf8Path, options: &VerifyOptions, observer: &mut dyn Observer) -> Result<BackupVerdict> {
    let started = Instant::now();
    let mut found = BackupVerdict::new(backup);
    match read_trusted(backup, &options.trusted) {
        Err(problem) => found.findings.push(manifest_finding(backup, &problem)),
        Ok(manifest) => {
            found.blake3 = Some(manifest.file.blake3);
            check_file(backup, &manifest, options, &mut found, observer)?;
        }
    }
    found.verdict = Verdict::of(&found.findings);
    found.duration_ms =
        options.check.as_ref().map(|_| u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX));
    Ok(found)
}

/// The first of these backups, newest first, that verifies; and what was found out about those passed over.
///
/// # Errors
///
/// [`ErrorKind::Damaged`] if none does.
pub fn first_good(
    candidates: &[Utf8PathBuf],
    trusted: &TrustedKeys,
    observer: &mut dyn Observer,
) -> Result<(Utf8PathBuf, Vec<BackupVerdict>)> {
    let mut passed_over = Vec::new();
    for candidate in candidates {
        let verdict = verify(candidate, &VerifyOptions::signed_by(trusted), observer)?;
        if verdict.verdict == Verdict::Pass {
            return Ok((candidate.clone(), passed_over));
        }
        passed_over.push(verdict);
    }
    Err(none_good(&passed_over))
}

/// The error for who needs a good backup, where none of these is.
#[must_use]
pub fn none_good(verdicts: &[BackupVerdict]) -> Error {
    let any_damaged = verdicts.iter().any(|verdict| verdict.verdict == Verdict::Fail);
    let kind = if any_damaged { ErrorKind::Damaged } else { ErrorKind::Inconclusive };
    let newest = verdicts.first();
    let finding = newest.and_then(|verdict| verdict.findings.first()).map_or("", |finding| finding.message.as_str());
    Error::new(kind, "find a good backup: the newest is", newest.map_or("".into(), |verdict| verdict.backup.as_path()))
        .because(format!("{finding}; none of {} verifies", verdicts.len()))
        .hint("see what is wrong with each of them with: engram-restore verify --all; or name another backup yourself")
}

/// Why there is no manifest to act on.
pub(crate) fn manifest_finding(backup: &Utf8Path, problem: &ManifestProblem) -> Finding {
    let code = match problem {
        ManifestProblem::Missing => Code::ManifestMissing,
        ManifestProblem::Unreadable(_) => Code::ManifestUnreadable,
        ManifestProblem::Invalid(ManifestError::NewerVersion { .. } | ManifestError::UnknownFeature(_)) => {
            Code::ManifestVersion
        }
        ManifestProblem::Invalid(ManifestError::Torn | ManifestError::Checksum { .. }) => Code::ManifestDamaged,
        ManifestProblem::Invalid(_) => Code::ManifestInvalid,
        ManifestProblem::Untrusted(SignatureProblem::Missing) => Code::NotSigned,
        ManifestProblem::Untrusted(SignatureProblem::Unreadable(_)) => Code::SignatureUnreadable,
        ManifestProblem::Untrusted(_) => Code::SignatureWrong,
    };
    let mut message = problem.to_string();
    let mut cause = std::error::Error::source(problem);
    while let Some(error) = cause {
        message.push_str(": ");
        message.push_str(&error.to_string());
        cause = error.source();
    }
    Finding::new(code, backup, message)
}

fn check_file(
    backup: &Utf8Path,
    manifest: &Manifest,
    options: &VerifyOptions,
    found: &mut BackupVerdict,
    observer: &mut dyn Observer,
) -> Result<()> {
    let Some(opened) = open_backup(backup, manifest, &mut found.findings) else { return Ok(()) };
    let file = &opened.file;
    found.findings.extend(check_content(backup, file, manifest, observer)?);
    if let Some(check_options) = &options.check {
        found.findings.extend(check_header(backup, file, manifest, options.live.as_deref()));
        let report = check(backup, check_options, observer)?;
        found.findings.extend(report.findings);
        found.findings.extend(content::compare_content(backup, manifest, &report.content));
        found.parts = report.parts;
    }
    found.findings.extend(opened.check_unchanged(backup));
    Ok(())
}

/// A backup file, and what it was when it was opened.
struct Opened {
    file: File,
    before: Stamp,
}

impl Opened {
    fn open(backup: &Utf8Path) -> io::Result<Self> {
        let file = open_regular(backup)?;
        let before = Stamp::of_file(&file)?;
        Ok(Self { file, before })
    }

    /// The check opens the file by its name again, and all of it takes time: what was found out is true of one file only if
    /// nobody has changed or replaced that meanwhile.
    fn check_unchanged(&self, backup: &Utf8Path) -> Option<Finding> {
        let is_same = |now: io::Result<Stamp>| now.is_ok_and(|now| now == self.before);
        let is_one = is_same(Stamp::of_file(&self.file)) && is_same(Stamp::of_name(backup));
        (!is_one).then(|| Finding::new(Code::FileChanged, backup, "it was changed or replaced while it was read"))
    }
}

/// What can be said without reading the file, and the file itself.
fn open_backup(backup: &Utf8Path, manifest: &Manifest, findings: &mut Vec<Finding>) -> Option<Opened> {
    let name = backup.file_name().unwrap_or_default();
    if manifest.file.name != name {
        let message = format!("the manifest was written for a file named {:?}", manifest.file.name);
        findings.push(Finding::new(Code::NameDiffers, backup, message));
    }
    findings.extend(check_sidecars(backup));
    findings.extend(check_record(backup, manifest));
    match Opened::open(backup) {
        Ok(opened) => Some(opened),
        Err(e) => {
            findings.push(open_finding(backup, &e));
            None
        }
    }
}

/// The header by itself, and against that of `live` if the backup is one of that database.
fn check_header(backup: &Utf8Path, file: &File, manifest: &Manifest, live: Option<&Utf8Path>) -> Vec<Finding> {
    let (Ok(Ok(header)), Ok(metadata)) = (Header::read(file), file.metadata()) else {
        // Without a header it is no database, and what cannot be read could not be hashed: both are said already.
        return Vec::new();
    };
    let source = &manifest.source.path;
    let is_source = |live: &&Utf8Path| resolve(live).is_ok_and(|path| path == *source);
    let live = live.filter(is_source).and_then(|_| match live_header(source, file) {
        Ok(header) => header,
        Err(e) => {
            tracing::debug!("the header of {source} cannot be compared: {e}");
            None
        }
    });
    audit(backup, &header, metadata.len(), manifest.database.journal_mode, live.as_ref())
}

fn open_finding(backup: &Utf8Path, e: &io::Error) -> Finding {
    let code = if e.kind() == io::ErrorKind::NotFound {
        Code::FileMissing
    } else if e.kind() == io::ErrorKind::InvalidInput {
        Code::FileNotRegular
    } else {
        Code::FileUnreadable
    };
    Finding::new(code, backup, e.to_string())
}

/// A sidecar beside a backup was not there when it was hashed, and SQLite would replay it onto the file.
pub(crate) fn check_sidecars(backup: &Utf8Path) -> Vec<Finding> {
    match sidecars_there(backup) {
        Ok(there) => {
            let finding = |path: Utf8PathBuf| {
                let message = format!("{path} lies beside it; SQLite would take it for a part of the backup");
                Finding::new(Code::SidecarPresent, backup, message)
            };
            there.into_iter().map(finding).collect()
        }
        Err(e) => vec![Finding::new(Code::FileUnreadable, backup, e.message())],
    }
}

/// What the manifest itself says of the file's soundness.
pub(crate) fn check_record(backup: &Utf8Path, manifest: &Manifest) -> Option<Finding> {
    let check = &manifest.integrity_check;
    if check.is_ok() {
        return None;
    }
    Some(if let Some(error) = &check.error {
        let message = format!("the integrity check could not be done when the backup was taken: {error}");
        Finding::new(Code::RecordedCheckNotDone, backup, message)
    } else {
        let message = format!("the integrity check failed when the backup was taken: {}", check.rows.join("; "));
        Finding::new(Code::RecordedCheckFailed, backup, message)
    })
}

/// Size and hash of the file against the manifest.
fn check_content(
    backup: &Utf8Path,
    file: &File,
    manifest: &Manifest,
    observer: &mut dyn Observer,
) -> Result<Option<Finding>> {
    let total = match file.metadata() {
        Ok(metadata) => metadata.len(),
        Err(e) => return Ok(Some(Finding::new(Code::FileUnreadable, backup, e.to_string()))),
    };
    if let Some(finding) = check_size(backup, total, manifest) {
        return Ok(Some(finding));
    }
    observer.event(Event::Step(Step::Hash));
    let cancel = observer.cancel();
    let digest = digest_file(file, backup, None, &mut |done| {
        observer.event(Event::Bytes { done, total });
        cancel.check("verify", backup)
    });
    match digest {
        Ok(digest) => Ok(compare(backup, &digest, manifest, observer)),
        Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::Internal) => Err(e),
        Err(e) => Ok(Some(Finding::new(Code::FileUnreadable, backup, e.message()))),
    }
}

/// The file's size against the manifest.
pub(crate) fn check_size(backup: &Utf8Path, size_bytes: u64, manifest: &Manifest) -> Option<Finding> {
    let recorded = manifest.file.size_bytes;
    (size_bytes != recorded).then(|| {
        let what = if size_bytes < recorded { "is cut short" } else { "has grown" };
        let message = format!("the file {what}: it has {size_bytes} bytes, the manifest says {recorded}");
        Finding::new(Code::SizeMismatch, backup, message)
    })
}

/// A digest against the manifest, with the damage located as closely as the chunk list tells.
pub(crate) fn compare(
    backup: &Utf8Path,
    digest: &Digest,
    manifest: &Manifest,
    observer: &mut dyn Observer,
) -> Option<Finding> {
    let found = Hex32(*digest.blake3.as_bytes());
    let recorded = manifest.file.blake3;
    if found == recorded && digest.size_bytes == manifest.file.size_bytes {
        return None;
    }
    let both = format!("the file's hash is {found}, the manifest says {recorded}");
    Some(mismatch(backup, &both, locate::damaged_ranges(digest, manifest), observer))
}

/// The finding for these ranges, with what lies there; `both` sides of it go before.
fn mismatch(backup: &Utf8Path, both: &str, damaged: Vec<DamagedRange>, observer: &mut dyn Observer) -> Finding {
    let tables = locate::owners(backup, &damaged, &observer.cancel());
    let mut message = both.to_owned();
    if !damaged.is_empty() {
        message.push_str(": ");
        message.push_str(&damaged.iter().map(DamagedRange::to_string).collect::<Vec<_>>().join(", "));
    }
    if !tables.is_empty() {
        message.push_str("; there lie pages of ");
        message.push_str(&tables.join(", "));
    }
    Finding { damaged, tables, ..Finding::new(Code::HashMismatch, backup, message) }
}

/// Refuses a backup because of a finding, in the words of the operation that wanted it.
pub(crate) fn refusal(finding: &Finding, action: &str, path: &Utf8Path) -> Error {
    let kind = match finding.severity {
        Severity::Error => ErrorKind::Damaged,
        Severity::Inconclusive | Severity::Warning => ErrorKind::Inconclusive,
    };
    let name = finding.backup.file_name().unwrap_or(finding.backup.as_str());
    Error::new(kind, action, path)
        .because(format!("{} {name}: {}", finding.code, finding.message))
        .hint("take the newest good one with: engram-restore restore latest-good")
}
