//! `pin` and `unpin`: keep backups from being pruned, or let them go again.

use camino::Utf8PathBuf;
use engram_restore::Result;
use engram_restore::archive::{pin, pin_path, unpin};
use serde_json::json;

use super::args::{PinArgs, UnpinArgs};
use super::context::Context;
use super::exit::Exit;
use super::output::{Outcome, printable};
use super::progress::Progress;

pub(crate) fn run(args: &PinArgs, context: &Context, progress: &mut Progress) -> Result<Outcome> {
    let backups = selected(&args.backups, args.any_source, context, progress)?;
    let change = |backup: &Utf8PathBuf| {
        if args.dry_run {
            return Ok(!pin_path(backup).is_file());
        }
        pin(backup, &args.reason, context.storage())
    };
    told(&backups, change, args.dry_run, ["pinned", "is pinned already"])
}

pub(crate) fn run_unpin(args: &UnpinArgs, context: &Context, progress: &mut Progress) -> Result<Outcome> {
    let backups = selected(&args.backups, args.any_source, context, progress)?;
    let change = |backup: &Utf8PathBuf| {
        if args.dry_run {
            return Ok(pin_path(backup).is_file());
        }
        unpin(backup, context.storage())
    };
    told(&backups, change, args.dry_run, ["unpinned", "was not pinned"])
}

/// All that are meant, before the first is changed.
fn selected(
    words: &[String],
    any_source: bool,
    context: &Context,
    progress: &mut Progress,
) -> Result<Vec<Utf8PathBuf>> {
    words.iter().map(|word| context.backup(word, any_source, progress)).collect()
}

fn told(
    backups: &[Utf8PathBuf],
    change: impl Fn(&Utf8PathBuf) -> Result<bool>,
    dry_run: bool,
    [changed, unchanged]: [&str; 2],
) -> Result<Outcome> {
    let mut text = String::new();
    let mut fields = Vec::new();
    for backup in backups {
        let is_changed = change(backup)?;
        let what = match (is_changed, dry_run) {
            (true, true) => format!("{backup} would be {changed}"),
            (true, false) => format!("{changed} {backup}"),
            (false, _) => format!("{backup} {unchanged}"),
        };
        text.push_str(&(printable(&what) + "\n"));
        fields.push(json!({ "backup": backup, "pin": pin_path(backup), "changed": is_changed }));
    }
    Ok(Outcome::new(Exit::Done, json!({ "backups": fields, "dry_run": dry_run }), text))
}
