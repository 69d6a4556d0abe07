//! What is found out before anything is changed: whether the file to put in is what its manifest says, whether there is a
//! database to put it into, and whether there is room.

use std::os::unix::fs::MetadataExt as _;

use camino::{Utf8Path, Utf8PathBuf};

use crate::check::{CheckOptions, Depth, check};
use crate::database::{Stamp, regular_file};
use crate::digest::digest_file;
use crate::error::{Error, ErrorKind, Result};
use crate::findings::{Code, Finding, Severity};
use crate::header::JournalMode;
use crate::live::parted;
use crate::manifest::Hex32;
use crate::observe::{Cancel, Event, Observer, Step};
use crate::recover::{Beside, ContentFile};
use crate::restore::{NewContent, Run};
use crate::sqlite::{Inspection, OTHER_WAY, Stop, wal_bytes};
use crate::storage::{Storage, open_regular, parent_of};
use crate::verify::{VerifyOptions, refusal, verify};

/// The file to put in, verified in full.
pub(super) struct Verified {
    pub(super) content: NewContent,
    pub(super) file: ContentFile,
    /// Where the content is read: the file itself, or a copy out of reach of those who can write to the archive.
    pub(super) read_from: Utf8PathBuf,
    pub(super) source: Inspection,
}

pub(super) fn require_database(database: &Utf8Path) -> Result<()> {
    match regular_file(database, None)? {
        Some(metadata) if metadata.len() > 0 => Ok(()),
        // SQLite would make a database of it, and delete a WAL.
        Some(_) => {
            Err(Error::new(ErrorKind::Damaged, "open", database).because("the file is empty (0 bytes)").hint(OTHER_WAY))
        }
        None => {
            let missing = Error::new(ErrorKind::NotFound, "open", database).because("there is no such file");
            Err(missing.hint("restore without --in-place, which puts a new file there"))
        }
    }
}

/// Whoever still has open what was under this name before would not see what is put in, and takes the sidecars of this name
/// away when it closes.
pub(super) fn refuse_parted(database: &Utf8Path, action: &str) -> Result<()> {
    let Some(parted) = parted(database) else { return Ok(()) };
    Err(Error::new(ErrorKind::Busy, action, database)
        .because(parted)
        .hint("stop it first: it would not see what is put in; then restore without --in-place"))
}

/// What SQLite cannot open has nothing that open connections could go on with.
pub(super) fn unusable(e: Error) -> Error {
    if e.kind() == ErrorKind::Damaged { e.hint(OTHER_WAY) } else { e }
}

/// Hashes the file as it will be read, and reads all of its rows.
pub(super) fn admit_content(
    new: NewContent,
    run: &Run,
    database: &Utf8Path,
    observer: &mut dyn Observer,
) -> Result<Verified> {
    let cancel = observer.cancel();
    let blake3 = if let Some(blake3) = new.blake3 {
        let depth = if run.deep { VerifyOptions::deep() } else { VerifyOptions::default() };
        let verdict = verify(&new.path, &VerifyOptions { trusted: run.keys.trusted.clone(), ..depth }, observer)?;
        if let Some(finding) = verdict.findings.iter().find(|finding| finding.severity != Severity::Warning) {
            return Err(refusal(finding, run.action, database));
        }
        if verdict.blake3 != Some(blake3) {
            return Err(Error::new(ErrorKind::Damaged, run.action, database)
                .because(format!("{} was replaced while it was looked at", new.path)));
        }
        blake3
    } else {
        // A database that a restore kept has no manifest; SQLite's check stands in for it.
        require_sound(&new.path, observer)?;
        hash_of(&new.path, &cancel)?
    };
    let read_from = new.path.clone();
    verified(new, blake3, read_from, &cancel, observer)
}

/// As [`admit_content`], of a copy beside the database: what is signed must not change between the look and the use, also
/// where somebody who cannot sign writes to the archive meanwhile. The copy is ours to remove.
pub(super) fn admit_copy(
    new: NewContent,
    run: &Run,
    beside: &Beside,
    storage: &Storage,
    observer: &mut dyn Observer,
) -> Result<Verified> {
    let (database, cancel) = (&beside.database, observer.cancel());
    let source = open_regular(&new.path).map_err(|e| Error::io("open", &new.path, e))?;
    let copy = storage.create(&beside.staged())?;
    storage.copy(&source, &new.path, &copy, new.size_bytes, &mut |done| {
        observer.event(Event::Bytes { done, total: new.size_bytes });
        cancel.check(run.action, database)
    })?;
    let blake3 = hash_of(&copy.path, &cancel)?;
    if new.blake3 != Some(blake3) {
        let why = "the hash of its copy is not that of its signed manifest";
        return Err(refusal(&Finding::new(Code::HashMismatch, &new.path, why), run.action, database));
    }
    if run.deep {
        require_sound(&copy.path, observer)?;
    }
    verified(new, blake3, copy.path, &cancel, observer)
}

fn verified(
    new: NewContent,
    blake3: Hex32,
    read_from: Utf8PathBuf,
    cancel: &Cancel,
    observer: &mut dyn Observer,
) -> Result<Verified> {
    observer.event(Event::Step(Step::Check));
    let stamp = || Stamp::of_name(&read_from).map_err(|e| Error::io("look at", &read_from, e));
    let before = stamp()?;
    let (schema, content) =
        fingerprint_of(&Inspection::open(&read_from, Stop::for_file(&read_from, cancel))?, &new.path)?;
    // Locks are waited for before its pages are copied.
    let source = Inspection::open(&read_from, Stop::when_asked(cancel))?;
    // It was opened by its name again: what is put in has to be the content of what was hashed.
    if new.content.is_some_and(|recorded| recorded != content) || stamp()? != before {
        return Err(Error::new(ErrorKind::Damaged, "read all rows of", &new.path)
            .because("its content is not what its manifest says")
            .hint("find out who writes it, and try again"));
    }
    let file = ContentFile { path: new.path.clone(), blake3, schema, content };
    Ok(Verified { content: new, file, read_from, source })
}

pub(super) fn require_sound(path: &Utf8Path, observer: &mut dyn Observer) -> Result<()> {
    let options = CheckOptions { depth: Depth::Integrity, ..CheckOptions::default() };
    let outcome = check(path, &options, observer)?.integrity;
    match outcome.error {
        Some(why) => Err(Error::new(ErrorKind::Inconclusive, "check", path).because(why)),
        None if outcome.rows == ["ok"] => Ok(()),
        None => Err(Error::new(ErrorKind::Damaged, "put in", path).because(outcome.rows.join("; ")).hint(OTHER_WAY)),
    }
}

pub(super) fn hash_of(path: &Utf8Path, cancel: &Cancel) -> Result<Hex32> {
    let file = open_regular(path).map_err(|e| Error::io("open", path, e))?;
    let digest = digest_file(&file, path, None, &mut |_done| cancel.check("hash", path))?;
    Ok(Hex32(*digest.blake3.as_bytes()))
}

/// The fingerprints of the schema, and of that with all rows, of a file that nobody writes.
fn fingerprint_of(inspection: &Inspection, path: &Utf8Path) -> Result<(Hex32, Hex32)> {
    let (content, mut problems) = inspection.content()?;
    match (problems.pop(), content.schema.zip(content.whole())) {
        (Some(problem), _) => Err(problem),
        (None, Some(fingerprints)) => Ok(fingerprints),
        (None, None) => Err(Error::new(ErrorKind::Damaged, "read all rows of", path)
            .because("some of its pages are damaged")
            .hint(OTHER_WAY)),
    }
}

/// What the write adds to the file system of the database before anything is given back: in WAL mode all of the new
/// content as frames, in rollback mode the old pages in a journal; and what the file itself grows by.
pub(super) fn written_bytes(journal_mode: JournalMode, old_bytes: u64, new_bytes: u64) -> u64 {
    let logged = match journal_mode {
        JournalMode::Wal => new_bytes,
        JournalMode::Rollback => old_bytes,
    };
    // A page of 512 bytes, the smallest, has 24 bytes before it in a WAL.
    logged + logged / 16 + new_bytes.saturating_sub(old_bytes)
}

pub(super) fn require_space(
    database: &Utf8Path,
    new_bytes: u64,
    journal_mode: JournalMode,
    archive: &Utf8Path,
) -> Result<()> {
    let metadata = |path: &Utf8Path| std::fs::metadata(path).map_err(|e| Error::io("look at", path, e));
    let old_bytes = metadata(database)?.len();
    let written = written_bytes(journal_mode, old_bytes, new_bytes);
    let copied = old_bytes + wal_bytes(database)?.unwrap_or(0);
    // It may not be there yet.
    let archive = archive.ancestors().find(|folder| folder.is_dir()).unwrap_or(archive);
    let is_one = metadata(parent_of(database))?.dev() == metadata(archive)?.dev();
    let needs = [
        (parent_of(database), written + if is_one { copied } else { 0 }, "the write-ahead log or journal"),
        (archive, copied, "the backup of the present content"),
    ];
    for (folder, needed, what) in needs {
        let found =
            rustix::fs::statvfs(folder.as_str()).map_err(|e| Error::io("ask for the free space of", folder, e))?;
        let free = found.f_bavail.saturating_mul(found.f_frsize);
        if free < needed {
            let why = format!("up to {needed} bytes are needed in {folder}, for {what} too, and {free} are free");
            let refused = Error::new(ErrorKind::Failed, "restore", database).because(why);
            return Err(refused.hint("make room there first; without --in-place it takes less"));
        }
    }
    Ok(())
}
