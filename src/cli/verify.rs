//! `verify`: check backups against their manifests.

use std::fmt::Write as _;
use std::hash::{BuildHasher as _, RandomState};

use camino::{Utf8Path, Utf8PathBuf};
use clap::ValueEnum as _;
use engram_restore::archive::{Closeness, History, Meant, Verified, lies_in, list, record, was_removed};
use engram_restore::signature::TrustedKeys;
use engram_restore::{
    BackupVerdict, CheckOptions, Depth, Error, ErrorKind, Event, ForeignKeys, Observer as _, Percent, Result,
    SubsetOptions, Verdict, VerifyOptions, none_good, verify, verify_subset,
};
use serde_json::json;

use super::args::{ForeignKeysArg, VerifyArgs};
use super::config::{Config, Key};
use super::context::{Context, reason, say_doubts};
use super::exit::Exit;
use super::output::{Outcome, colored, printable};
use super::progress::Progress;

pub(crate) fn run(args: &VerifyArgs, context: &Context, progress: &mut Progress) -> Result<Outcome> {
    let interrupted = context.interrupted(&args.backups, progress);
    let mut looks = Looks::begin(args, context, progress)?;
    let looked = look_at_all(args, context, &mut looks, progress);
    // Also what was seen before somebody stopped it.
    looks.remember(context, progress);
    let (orphans, error) = looked?;
    let verdicts: Vec<_> = looks.verdicts.iter().map(|verdict| verdict.verdict).collect();
    let exit = Exit::of_verdicts(&verdicts);
    let fields = json!({ "backups": looks.verdicts, "orphans": orphans, "interrupted_restore": interrupted });
    let outcome = Outcome::new(exit, fields, looks.text(context.is_verbose()));
    Ok(Outcome { error, ..outcome })
}

/// Looks at every backup that is meant. Returns the files without a manifest, and the error of a `latest-good` that found
/// none.
fn look_at_all(
    args: &VerifyArgs,
    context: &Context,
    looks: &mut Looks,
    progress: &mut Progress,
) -> Result<(Vec<Utf8PathBuf>, Option<Error>)> {
    if args.all || args.backups.is_empty() && args.subset.is_some() {
        let (backups, orphans) = all(context)?;
        for orphan in &orphans {
            progress.event(Event::Warning(&format!("{orphan} has no manifest: it is no backup")));
        }
        for backup in &backups {
            looks.add_listed(backup, progress)?;
        }
        return Ok((orphans, None));
    }
    let latest = ["latest".to_owned()];
    let words = if args.backups.is_empty() { &latest[..] } else { &args.backups };
    let selected = words.iter().map(|word| context.select(word, args.any_source)).collect::<Result<Vec<_>>>()?;
    let mut error = None;
    for selected in selected {
        match &selected.meant {
            Meant::One(backup) => {
                context.warn_of_keys_beside(backup, progress)?;
                looks.add(backup, progress)?;
            }
            Meant::FirstGood(candidates) => error = looks.add_first_good(candidates, progress)?,
        }
        if let Some(chosen) = looks.verdicts.last().filter(|_| error.is_none()) {
            say_doubts(&selected, &chosen.backup, progress);
        }
    }
    Ok((Vec::new(), error))
}

/// How closely to look.
enum How {
    Whole(VerifyOptions),
    Part { percent: Percent, seed: u64, trusted: TrustedKeys },
}

impl How {
    fn of(args: &VerifyArgs, context: &Context) -> Result<Self> {
        let trusted = context.trusted()?;
        if let Some(percent) = args.subset {
            // Of 32 bits, so that every reader of JSON keeps all digits.
            let seed = args.seed.unwrap_or_else(|| RandomState::new().hash_one(0) >> 32);
            return Ok(Self::Part { percent, seed, trusted });
        }
        let config = context.config();
        let check = CheckOptions {
            depth: Depth::Deep,
            jobs: args.jobs.or(config.count(Key::VerifyJobs).and_then(|jobs| jobs.try_into().ok())),
            max_time: args.max_time.or(config.duration(Key::VerifyMaxTime)),
            foreign_keys: foreign_keys(args, config),
        };
        Ok(Self::Whole(VerifyOptions {
            check: args.deep.then_some(check),
            // Without a database, there is nothing to compare with.
            live: context.database_of(&args.backups).and_then(Result::ok),
            trusted,
        }))
    }

    fn closeness(&self) -> Closeness {
        match self {
            Self::Whole(VerifyOptions { check: Some(_), .. }) => Closeness::Deep,
            Self::Whole(_) => Closeness::Hash,
            Self::Part { .. } => Closeness::Subset,
        }
    }
}

fn foreign_keys(args: &VerifyArgs, config: &Config) -> ForeignKeys {
    let configured = || ForeignKeysArg::from_str(config.word(Key::VerifyForeignKeys)?, false).ok();
    args.foreign_keys.or_else(configured).map_or_else(ForeignKeys::default, Into::into)
}

impl From<ForeignKeysArg> for ForeignKeys {
    fn from(arg: ForeignKeysArg) -> Self {
        match arg {
            ForeignKeysArg::Fail => Self::Fail,
            ForeignKeysArg::Warn => Self::Warn,
            ForeignKeysArg::Off => Self::Off,
        }
    }
}

/// The looks of one run, and what is to be remembered of them.
struct Looks {
    how: How,
    /// The archive in use, as far as there is one.
    archive: Option<Utf8PathBuf>,
    history: History,
    is_kept: bool,
    verdicts: Vec<BackupVerdict>,
    noted: Vec<Verified>,
}

impl Looks {
    fn begin(args: &VerifyArgs, context: &Context, progress: &mut Progress) -> Result<Self> {
        let archive = context.archive().ok();
        let read = archive.as_deref().map_or_else(|| Ok(History::default()), History::read);
        let mut is_kept = true;
        let history = read.unwrap_or_else(|e| {
            // What is damaged is begun anew, what is of somebody else is left alone.
            is_kept = e.kind() == ErrorKind::Damaged;
            let anew = if is_kept { "it is begun anew" } else { "it stays as it is" };
            progress
                .event(Event::Warning(&format!("the history of verifications is not used, {anew}: {}", e.message())));
            History::default()
        });
        let how = How::of(args, context)?;
        Ok(Self { how, archive, history, is_kept, verdicts: Vec::new(), noted: Vec::new() })
    }

    fn look(&mut self, backup: &Utf8Path, progress: &mut Progress) -> Result<BackupVerdict> {
        let is_ours = self.archive.as_deref().is_some_and(|archive| lies_in(archive, backup));
        let verdict = match &self.how {
            How::Whole(options) => verify(backup, options, progress)?,
            How::Part { percent, seed, trusted } => {
                let elsewhere = History::default();
                let history = if is_ours { &self.history } else { &elsewhere };
                let options = SubsetOptions { percent: *percent, seed: *seed, history, trusted };
                verify_subset(backup, &options, progress)?
            }
        };
        if is_ours && let Some(verified) = verdict.verified(jiff::Timestamp::now(), self.how.closeness()) {
            self.history.note(&verified);
            self.noted.push(verified);
        }
        Ok(verdict)
    }

    fn add(&mut self, backup: &Utf8Path, progress: &mut Progress) -> Result<()> {
        let verdict = self.look(backup, progress)?;
        self.verdicts.push(verdict);
        Ok(())
    }

    /// One that was there a moment ago. A prune that runs beside is no damage.
    fn add_listed(&mut self, backup: &Utf8Path, progress: &mut Progress) -> Result<()> {
        let verdict = self.look(backup, progress)?;
        if verdict.verdict != Verdict::Pass && was_removed(backup) {
            progress.event(Event::Warning(&format!("{backup} was removed meanwhile")));
            return Ok(());
        }
        self.verdicts.push(verdict);
        Ok(())
    }

    /// Candidates up to the first good one. With that, those passed over are no more than warnings; without one, they
    /// stay beside the error.
    fn add_first_good(&mut self, candidates: &[Utf8PathBuf], progress: &mut Progress) -> Result<Option<Error>> {
        let mut passed_over = Vec::new();
        for candidate in candidates {
            let verdict = self.look(candidate, progress)?;
            if verdict.verdict == Verdict::Pass {
                for bad in &passed_over {
                    progress.event(Event::Warning(&reason(bad)));
                }
                self.verdicts.push(verdict);
                return Ok(None);
            }
            passed_over.push(verdict);
        }
        let error = none_good(&passed_over);
        self.verdicts.append(&mut passed_over);
        Ok(Some(error))
    }

    /// Writes down what was seen. Where that cannot be, it is seen all the same.
    fn remember(&self, context: &Context, progress: &mut Progress) {
        let Some(archive) = self.archive.as_deref().filter(|_| self.is_kept && !self.noted.is_empty()) else { return };
        if let Err(e) = record(archive, &self.noted, jiff::Timestamp::now(), context.storage()) {
            progress.event(Event::Warning(&format!("this is not in the history of verifications: {}", e.message())));
        }
    }

    fn text(&self, is_verbose: bool) -> String {
        let mut text = String::new();
        for verdict in &self.verdicts {
            // Writing into a String does not fail.
            writeln!(text, "{} {}", colored(verdict.verdict), printable(verdict.backup.as_str())).unwrap_or_default();
            for finding in &verdict.findings {
                writeln!(text, "  {}: {}", finding.code, printable(&finding.message)).unwrap_or_default();
            }
            if let Some(ms) = verdict.duration_ms {
                writeln!(text, "  checked in {ms} ms").unwrap_or_default();
            }
            for part in verdict.parts.iter().filter(|_| is_verbose) {
                writeln!(text, "    {:>6} ms  {}", part.duration_ms, printable(&part.name)).unwrap_or_default();
            }
            if let Some(subset) = &verdict.subset {
                let (checked, covered, total) = (subset.chunks_checked, subset.chunks_covered, subset.chunks_total);
                let seed = if is_verbose { format!(", seed {}", subset.seed) } else { String::new() };
                writeln!(text, "  {checked} of {total} chunks, {covered} covered in this round{seed}")
                    .unwrap_or_default();
            }
        }
        if self.verdicts.len() > 1 {
            let count = |wanted| self.verdicts.iter().filter(|verdict| verdict.verdict == wanted).count();
            let (pass, fail) = (count(Verdict::Pass), count(Verdict::Fail));
            let inconclusive = count(Verdict::Inconclusive);
            writeln!(text, "{pass} pass, {fail} fail, {inconclusive} inconclusive").unwrap_or_default();
        }
        text
    }
}

fn all(context: &Context) -> Result<(Vec<Utf8PathBuf>, Vec<Utf8PathBuf>)> {
    let archive = context.archive()?;
    let listing = list(&archive)?;
    let readable = listing.backups.into_iter().map(|backup| backup.path);
    let backups: Vec<_> = readable.chain(listing.unreadable.into_iter().map(|unreadable| unreadable.path)).collect();
    if backups.is_empty() {
        return Err(Error::new(ErrorKind::NotFound, "find a backup in", archive)
            .because("there is none")
            .hint("take one with: engram-restore backup"));
    }
    Ok((backups, listing.orphans))
}
