//! What can be told of a file that may become a backup without reading all of it, and whether it is still what it was.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;

use super::{AdoptOptions, Adopted, Adoption, Placement};
use crate::archive::{is_partial, manifest_path, named_second, pruned_path, read_trusted};
use crate::backup::check_label;
use crate::check::audit;
use crate::database::{self, Stamp, file_or_nothing, is_there, regular_file, sidecars_there};
use crate::error::{Error, ErrorKind, Result};
use crate::findings::{Code, Finding, Verdict};
use crate::header::{Header, JournalMode};
use crate::live::look;
use crate::observe::{Event, Observer};
use crate::storage::{Ownership, open_regular};
use crate::verify::{VerifyOptions, verify};

pub(super) enum Admitted<'a> {
    Subject(Subject<'a>),
    /// There is nothing to be done.
    Answer(Adoption),
}

/// A file that may become a backup, as far as can be told without reading it.
pub(super) struct Subject<'a> {
    pub(super) options: &'a AdoptOptions,
    /// Its real path.
    pub(super) file: Utf8PathBuf,
    pub(super) source: Utf8PathBuf,
    pub(super) ownership: Ownership,
    pub(super) created_at: Timestamp,
    /// By its header.
    pub(super) journal_mode: JournalMode,
    /// Those to fold in; none where only a file that is alone is taken.
    pub(super) sidecars: Vec<Utf8PathBuf>,
    /// The file and its sidecars as they were at first.
    pub(super) before: Vec<Stamp>,
}

pub(super) fn admit<'a>(options: &'a AdoptOptions, observer: &mut dyn Observer) -> Result<Admitted<'a>> {
    // What has a manifest is a backup, and a link in the place of one is none. Any other link stands for what it leads to.
    if options.file.is_symlink() && is_there(&manifest_path(&options.file))? {
        return already_one(&options.file, options, observer).map(Admitted::Answer);
    }
    let file = database::resolve(&options.file)?;
    let source = match &options.source {
        Some(source) => database::resolve(source).unwrap_or_else(|_no_folder| source.clone()),
        None => file.clone(),
    };
    // It may be lost, but what is no file was never backed up.
    file_or_nothing(&source)?;
    check_label(options.label.as_deref(), &file)?;
    let Some(metadata) = regular_file(&file, None)? else {
        return Err(refused(ErrorKind::NotFound, &file).because("there is no such file"));
    };
    // Our own sweep would take it for one, even before it is copied.
    if file.file_name().is_some_and(is_partial) {
        return Err(refused(ErrorKind::Usage, &file)
            .because("files of that name are what an interrupted run has left, and the next one removes them")
            .hint("give it another name"));
    }
    let fold = match &options.placement {
        Placement::Beside => {
            admit_place(options, &file)?;
            false
        }
        Placement::Copied { fold, .. } => *fold,
    };
    let pruned = pruned_path(&file);
    if is_there(&pruned)? {
        let why = format!("{pruned} says that a prune has begun to remove it, and the next one goes on with that");
        return Err(refused(ErrorKind::Busy, &file).because(why).hint(format!("remove {pruned} to keep the file")));
    }
    if is_there(&manifest_path(&file))? {
        return already_one(&file, options, observer).map(Admitted::Answer);
    }
    let sidecars = sidecars_there(&file)?;
    if !sidecars.is_empty() && !fold {
        let findings = sidecars.iter().map(|sidecar| sidecar_finding(&file, sidecar));
        return findings.collect::<Result<_>>().map(|findings| Admitted::Answer(Adoption::Refused(findings)));
    }
    let before = stamps(&file)?;
    let header = match read_header(&file, &metadata, !sidecars.is_empty())? {
        Ok(header) => header,
        Err(finding) => return Ok(Admitted::Answer(Adoption::Refused(vec![finding]))),
    };
    let owner = std::fs::metadata(&source).ok().filter(Metadata::is_file).unwrap_or_else(|| metadata.clone());
    let subject = Subject {
        created_at: created_at(options, &file, &metadata)?,
        before,
        journal_mode: header.as_ref().map_or(JournalMode::Rollback, |header| header.journal_mode),
        options,
        source,
        ownership: Ownership::of(&owner),
        file,
        sidecars,
    };
    if options.keys.signing.is_some()
        && let Some(journal) = subject.sidecar("-journal")
    {
        // SQLite finds the copied journal by its name: whoever can write there could have another one signed.
        return Err(refused(ErrorKind::Usage, &subject.file)
            .because(format!("what is in {journal} is not signed: it would be folded in where others may write"))
            .hint("let SQLite open a copy of both in a folder of your own, and adopt that"));
    }
    if let Some(unseen) = subject.require_quiet()? {
        let text = format!("whether somebody has {} open could not be seen for certain: {unseen}", subject.file);
        observer.event(Event::Warning(&text));
    }
    if let Some(header) = header {
        subject.say_what_is_odd(&header, metadata.len(), observer);
    }
    Ok(Admitted::Subject(subject))
}

fn refused(kind: ErrorKind, file: &Utf8Path) -> Error {
    Error::new(kind, "adopt", file)
}

/// A manifest beside a file that others write, or take for theirs, would be wrong before long.
fn admit_place(options: &AdoptOptions, file: &Utf8Path) -> Result<()> {
    let is_file = |database: &Utf8PathBuf| database::resolve(database).is_ok_and(|database| database == *file);
    if options.live.iter().chain(&options.source).any(is_file) {
        return Err(refused(ErrorKind::Usage, file)
            .because("it is the database itself, and changes with its next commit")
            .hint("take a backup of it with: engram-restore backup; say --db for another database"));
    }
    database::require_own_name(file).map_err(|e| e.hint("adopt a copy of it with --into-archive"))?;
    Ok(())
}

/// A file that has a manifest is a backup or a damaged one: neither gets another.
fn already_one(file: &Utf8Path, options: &AdoptOptions, observer: &mut dyn Observer) -> Result<Adoption> {
    let trusted = &options.keys.trusted;
    let verdict = verify(file, &VerifyOptions::signed_by(trusted), observer)?;
    if verdict.verdict != Verdict::Pass {
        return Ok(Adoption::Refused(verdict.findings));
    }
    let manifest = read_trusted(file, trusted).map_err(|problem| problem.into_error(file))?;
    let text = format!("{file} is a backup already, with a manifest, which stays as it is");
    observer.event(Event::Warning(&text));
    let (backup, manifest_path) = (file.to_owned(), manifest_path(file));
    Ok(Adoption::Already(Box::new(Adopted { backup, manifest_path, manifest, folded: Vec::new() })))
}

/// Also one that holds nothing: no restore takes a file that SQLite would take sidecars for a part of.
fn sidecar_finding(file: &Utf8Path, sidecar: &Utf8Path) -> Result<Finding> {
    let size_bytes = std::fs::symlink_metadata(sidecar).map_err(|e| Error::io("look at", sidecar, e))?.len();
    let what = if sidecar.as_str().ends_with("-shm") || size_bytes == 0 {
        "and belongs to whoever has opened the file".to_owned()
    } else {
        format!("with {size_bytes} bytes, which may hold commits that the file lacks, or undo some that it has")
    };
    let message = format!("{sidecar} lies beside it, {what}; --fold makes a complete copy in the archive");
    Ok(Finding::new(Code::SidecarPresent, file, message))
}

/// The file's header; the inner error is why it is refused. Where there are sidecars, only folding tells whether there
/// has to be one: they may have the first page.
fn read_header(file: &Utf8Path, metadata: &Metadata, has_sidecars: bool) -> Result<Result<Option<Header>, Finding>> {
    let refused = |message: String| Finding::new(Code::NotADatabase, file, message);
    if metadata.len() == 0 {
        return Ok(Err(refused("the file is empty (0 bytes)".to_owned())));
    }
    let header = open_regular(file).and_then(|file| Header::read(&file)).map_err(|e| Error::io("read", file, e))?;
    Ok(match header {
        Ok(header) => Ok(Some(header)),
        Err(_in_a_sidecar) if has_sidecars => Ok(None),
        Err(e) => Err(refused(e.to_string())),
    })
}

/// What the manifest says of the file's time. Backups are ordered by it, so it must not make an old one the latest.
fn created_at(options: &AdoptOptions, file: &Utf8Path, metadata: &Metadata) -> Result<Timestamp> {
    let now = options.now.max(Timestamp::UNIX_EPOCH);
    if let Some(at) = options.created_at {
        if at < Timestamp::UNIX_EPOCH || at > now {
            return Err(refused(ErrorKind::Usage, file)
                .because(format!("the time of a backup lies between 1970 and now, which is {now:.0}")));
        }
        return Ok(at);
    }
    // A copy of an old backup is as old as its name, whatever the copy did to the file's time.
    if let Some(second) = file.file_name().and_then(named_second).filter(|second| *second <= now) {
        return Ok(second);
    }
    let changed = i32::try_from(metadata.mtime_nsec()).ok().and_then(|ns| Timestamp::new(metadata.mtime(), ns).ok());
    Ok(changed.unwrap_or(now).clamp(Timestamp::UNIX_EPOCH, now))
}

/// Those of the file and its sidecars.
fn stamps(file: &Utf8Path) -> Result<Vec<Stamp>> {
    let stamp = |path: &Utf8PathBuf| Stamp::of_name(path).map_err(|e| Error::io("look at", path, e));
    [file.to_owned()].iter().chain(&sidecars_there(file)?).map(stamp).collect()
}

impl Subject<'_> {
    /// Refuses while somebody has it open. Returns why not everybody may have been seen.
    fn require_quiet(&self) -> Result<Option<String>> {
        let look = look(&self.file)?;
        if look.is_quiet() {
            return Ok(look.unseen);
        }
        Err(refused(ErrorKind::Busy, &self.file).because(look.who()).hint(format!(
            "stop that program; or back the file up beside it with: engram-restore backup --db {}",
            self.file
        )))
    }

    /// What was read is one state of the file only if nobody has changed it since the first look.
    pub(super) fn require_unchanged(&self) -> Result<()> {
        self.require_quiet()?;
        if stamps(&self.file).is_ok_and(|now| now == self.before) {
            return Ok(());
        }
        let error = refused(ErrorKind::Busy, &self.file).because("it was changed while it was read");
        Err(error.hint("find out who writes it, and try again"))
    }

    /// Somebody should know, and it is a backup all the same. A copy that we make is in rollback mode.
    fn say_what_is_odd(&self, header: &Header, size_bytes: u64, observer: &mut dyn Observer) {
        for finding in audit(&self.file, header, size_bytes, self.journal_mode, None) {
            if self.options.placement == Placement::Beside || finding.code != Code::JournalMode {
                observer.event(Event::Warning(&format!("{}: {}", self.file, finding.message)));
            }
        }
    }
}
