//! `verify`: check backups against their manifests.

use std::fmt::Write as _;

use camino::Utf8PathBuf;
use engram_restore::archive::{Selected, list};
use engram_restore::{BackupVerdict, Error, ErrorKind, Event, Observer as _, Result, Verdict, none_good, verify};
use serde_json::json;

use super::args::VerifyArgs;
use super::context::{Context, reason};
use super::exit::Exit;
use super::output::{Outcome, printable};
use super::progress::Progress;

pub(crate) fn run(args: &VerifyArgs, context: &Context, progress: &mut Progress) -> Result<Outcome> {
    let interrupted = context.interrupted(&args.backups, progress);
    let mut verdicts = Vec::new();
    let mut error = None;
    let mut orphans = Vec::new();
    if args.all {
        let (backups, without_manifest) = all(context)?;
        for orphan in &without_manifest {
            progress.event(Event::Warning(&format!("{orphan} has no manifest: it is no backup")));
        }
        orphans = without_manifest;
        for backup in &backups {
            verdicts.push(verify(backup, args.deep, progress)?);
        }
    } else {
        let latest = ["latest".to_owned()];
        let words = if args.backups.is_empty() { &latest[..] } else { &args.backups };
        let selected = words.iter().map(|word| context.select(word, args.any_source)).collect::<Result<Vec<_>>>()?;
        for selected in selected {
            match selected {
                Selected::One(backup) => verdicts.push(verify(&backup, args.deep, progress)?),
                Selected::FirstGood(candidates) => {
                    error = first_good(&candidates, args.deep, &mut verdicts, progress)?;
                }
            }
        }
    }
    let exit = Exit::of_verdicts(&verdicts);
    let fields = json!({ "backups": verdicts, "orphans": orphans, "interrupted_restore": interrupted });
    let outcome = Outcome::new(exit, fields, text(&verdicts));
    Ok(Outcome { error, ..outcome })
}

/// Candidates up to the first good one. With that, those passed over are no more than warnings; without one, they stay
/// beside the error.
fn first_good(
    candidates: &[Utf8PathBuf],
    deep: bool,
    verdicts: &mut Vec<BackupVerdict>,
    progress: &mut Progress,
) -> Result<Option<Error>> {
    let mut passed_over = Vec::new();
    for candidate in candidates {
        let verdict = verify(candidate, deep, progress)?;
        if verdict.verdict == Verdict::Pass {
            for bad in &passed_over {
                progress.event(Event::Warning(&reason(bad)));
            }
            verdicts.push(verdict);
            return Ok(None);
        }
        passed_over.push(verdict);
    }
    let error = none_good(&passed_over);
    verdicts.append(&mut passed_over);
    Ok(Some(error))
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

fn text(verdicts: &[BackupVerdict]) -> String {
    let mut text = String::new();
    for verdict in verdicts {
        // Writing into a String does not fail.
        writeln!(text, "{} {}", verdict.verdict, printable(verdict.backup.as_str())).unwrap_or_default();
        for finding in &verdict.findings {
            writeln!(text, "  {}: {}", finding.code, printable(&finding.message)).unwrap_or_default();
        }
    }
    if verdicts.len() > 1 {
        let count = |wanted| verdicts.iter().filter(|verdict| verdict.verdict == wanted).count();
        let (pass, fail) = (count(Verdict::Pass), count(Verdict::Fail));
        writeln!(text, "{pass} pass, {fail} fail, {} inconclusive", count(Verdict::Inconclusive)).unwrap_or_default();
    }
    text
}
