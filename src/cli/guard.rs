//! `guard`: a verified backup, a command, and the database put back if the command breaks it.
//!
//! Standard output is the command's, so what there is to say goes to standard error.

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};

use camino::Utf8Path;
use engram_restore::{
    Error, ErrorKind, Event, Guard, GuardOptions, GuardReport, Observer as _, OnFailure, Result, Verdict, guard,
    named_backups,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use signal_hook::consts::SIGCHLD;
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::low_level::siginfo::Cause;

use super::args::{GuardArgs, OnFailureArg};
use super::config::Key;
use super::context::Context;
use super::exit::Exit;
use super::output::{Outcome, note, warn};
use super::progress::Progress;
use super::prune;
use super::signals::Signals;

/// What a signal is answered that comes after the command has ended.
const GOING_ON: &str =
    "guard: the database is still being looked at or put back, or old backups are removed; once more to give up";

pub(crate) fn run(args: &GuardArgs, context: &Context, progress: &mut Progress, signals: &mut Signals) -> Outcome {
    let config = context.config();
    // An option goes before the file: nothing could be restored without a backup.
    if config.flag(Key::PreCycleBackup) == Some(false) && args.on_failure == OnFailureArg::Keep {
        let place = config.place(Key::PreCycleBackup).unwrap_or_default();
        return unguarded(args, &place, context, progress, signals);
    }
    match begin(args, context, progress) {
        Ok((guard, named)) => go_on(guard, named, args, context, progress, signals),
        Err(e) => not_begun(e, signals),
    }
}

/// Runs the command without a backup, and so without a check that could take it back: the configuration wants it so.
fn unguarded(
    args: &GuardArgs,
    place: &str,
    context: &Context,
    progress: &mut Progress,
    signals: &mut Signals,
) -> Outcome {
    let text = format!(
        "no backup is taken before the command, and the database is not checked after it: {place} sets {} to false",
        Key::PreCycleBackup.name()
    );
    progress.event(Event::Warning(&text));
    match run_command(args, context, progress, signals, |_pid, _progress| {}) {
        // Nothing is left to do that a signal could stop.
        Ok((status, _queue)) => {
            let status = number(status);
            let fields = json!({
                "exit": status, "backup": null, "reused": null, "verdict": null, "problem": null, "restored": null,
                "pre_restore": null, "put_back": null,
            });
            Outcome::new(if status == 0 { Exit::Done } else { Exit::Command(status) }, fields, String::new())
        }
        Err((exit, error)) => not_run(exit, None, error),
    }
}

/// No status of a command: it was not run.
pub(crate) fn not_begun(error: Error, signals: &Signals) -> Outcome {
    not_run(Exit::of_own_part(error.kind(), signals.received()), None, error)
}

/// The guard, and the backups that records named before it explained them.
fn begin(args: &GuardArgs, context: &Context, progress: &mut Progress) -> Result<(Guard, Vec<String>)> {
    let options = GuardOptions {
        database: context.database()?,
        archive: context.archive()?,
        config: context.named_config()?,
        label: args.label.clone(),
        on_failure: match args.on_failure {
            OnFailureArg::Keep => OnFailure::Keep,
            OnFailureArg::Restore => OnFailure::Restore,
        },
        wait: args.wait,
        command: args.command.iter().map(|word| word.to_string_lossy().into_owned()).collect(),
        now: jiff::Timestamp::now(),
        keys: context.keys()?,
    };
    let named = named_backups(&options.database);
    let guard = guard(&options, context.storage(), progress)?;
    progress.end();
    let already = if guard.reused() { ", which is there already" } else { "" };
    context.note(&format!("guard: the database from before is {}{already}", guard.backup()));
    Ok((guard, named))
}

/// For a command that was never started: what there is of the guard's own part, and the error.
fn not_run(exit: Exit, backup: Option<(&Utf8Path, bool)>, error: Error) -> Outcome {
    let fields = json!({
        "exit": null, "backup": backup.map(|(path, _)| path), "reused": backup.map(|(_, reused)| reused),
        "verdict": null, "problem": null, "restored": null, "pre_restore": null, "put_back": null,
    });
    Outcome::refused(exit, fields, error)
}

fn go_on(
    mut guard: Guard,
    named: Vec<String>,
    args: &GuardArgs,
    context: &Context,
    progress: &mut Progress,
    signals: &mut Signals,
) -> Outcome {
    let ran = run_command(args, context, progress, signals, |pid, progress| {
        if let Err(e) = guard.started(pid, context.storage()) {
            progress.event(Event::Warning(&format!("what is under way is not recorded: {}", e.message())));
        }
    });
    match ran {
        Ok((status, queue)) => signals.carry_on(queue, GOING_ON, || {
            let status = number(status);
            let report = guard.finish(i32::from(status), jiff::Timestamp::now(), context.storage(), progress);
            progress.end();
            let mut outcome = finished(report, status, args, context);
            // What broke something may yet have to be taken back.
            if outcome.exit == Exit::Done && !args.no_prune {
                prune_after(&mut outcome, named, context, progress);
            }
            outcome
        }),
        Err((exit, error)) => {
            let (backup, reused) = (guard.backup().to_owned(), guard.reused());
            if let Err(e) = guard.called_off(context.storage()) {
                progress.event(Event::Warning(&format!("the record of the guard was left behind: {}", e.message())));
            }
            not_run(exit, Some((&backup, reused)), error)
        }
    }
}

/// Runs the command to its end, with signals passed on to it; `started` is told its pid. Those that come after it are in the
/// queue that is returned.
fn run_command(
    args: &GuardArgs,
    context: &Context,
    progress: &mut Progress,
    signals: &mut Signals,
    mut started: impl FnMut(u32, &mut Progress),
) -> Result<(ExitStatus, SignalsInfo<WithOrigin>), (Exit, Error)> {
    let mut queue =
        signals.hand_over().map_err(|e| (Exit::NotGuarded, Error::io("pass signals on to", "the command", e)))?;
    // A signal that came before is no command's.
    if progress.cancel().is_requested() {
        let error = Error::new(ErrorKind::Interrupted, "run", "the command").because("it was interrupted");
        return Err((Exit::of_own_part(ErrorKind::Interrupted, signals.received()), error));
    }
    let mut child = start(args, context)?;
    started(child.id(), progress);
    let status = wait(&mut child, &mut queue);
    Ok((status.map_err(|e| (Exit::NotGuarded, Error::io("wait for", "the command", e)))?, queue))
}

/// Removes what the configured policy keeps no longer, now that all went well. Whatever comes of it, the command has
/// succeeded.
fn prune_after(outcome: &mut Outcome, named: Vec<String>, context: &Context, progress: &mut Progress) {
    match prune::after_backup(context, named, progress) {
        Ok(None) => {}
        Ok(Some(pruned)) => {
            for line in prune::pruned_lines(&pruned) {
                context.note(&format!("guard:{line}"));
            }
            outcome.fields.insert("pruned".to_owned(), prune::pruned_json(&pruned));
        }
        Err(e) => progress.event(Event::Warning(&format!("old backups were not removed: {}", e.message()))),
    }
}

/// Starts the command. Under `--json`, standard output is not its own.
fn start(args: &GuardArgs, context: &Context) -> Result<Child, (Exit, Error)> {
    let Some((program, arguments)) = args.command.split_first() else {
        let error = Error::new(ErrorKind::Usage, "run", "the command").because("there is none");
        return Err((Exit::NotGuarded, error));
    };
    let mut command = Command::new(program);
    command.args(arguments);
    if context.is_json() {
        let stderr = io::stderr().as_fd().try_clone_to_owned();
        let stderr = stderr.map_err(|e| (Exit::NotGuarded, Error::io("use", "standard error", e)))?;
        command.stdout(Stdio::from(stderr));
    }
    command.spawn().map_err(|e| {
        let (exit, kind) = if e.kind() == io::ErrorKind::NotFound {
            (Exit::NoSuchCommand, ErrorKind::NotFound)
        } else {
            (Exit::NotExecutable, ErrorKind::Failed)
        };
        let name = program.to_string_lossy();
        (exit, Error::io("run", name.as_ref(), e).with_kind(kind).target(false, "the database was not touched"))
    })
}

/// Waits for the command to end. Signals go to it, but for those that the terminal has sent to all of us.
fn wait(child: &mut Child, queue: &mut SignalsInfo<WithOrigin>) -> io::Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        for arrived in queue.wait() {
            let is_for_child = arrived.signal != SIGCHLD && !matches!(arrived.cause, Cause::Kernel);
            if is_for_child && let Some(signal) = Signal::from_named_raw(arrived.signal) {
                // Until it was waited for, its number is nobody else's. It may have become another user's.
                if let Err(e) = kill_process(Pid::from_child(child), signal) {
                    warn(&format!("signal {} was not passed on to the command: {e}", arrived.signal));
                }
            }
        }
    }
}

/// As a shell has it: 128 and the signal for who died of one.
fn number(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

fn finished(report: GuardReport, status: u8, args: &GuardArgs, context: &Context) -> Outcome {
    let exit = match (status, report.verdict) {
        (1.., _) => Exit::Command(status),
        (0, verdict) => Exit::of_verdict(verdict),
    };
    say(&report, status, args, context);
    let fields = json!({
        "db": report.db,
        "exit": status,
        "backup": report.backup,
        "reused": report.reused,
        "verdict": report.verdict,
        "problem": report.problem,
        "restored": report.restored,
        "pre_restore": report.pre_restore,
        "put_back": report.put_back,
    });
    let outcome = Outcome::new(exit, fields, String::new());
    Outcome { error: report.error, ..outcome }
}

/// What went wrong is said even if nothing else is.
fn say(report: &GuardReport, status: u8, args: &GuardArgs, context: &Context) {
    let name = args.command.first().map(|word| word.to_string_lossy().into_owned()).unwrap_or_default();
    let db = &report.db;
    let soundness = match (&report.problem, report.verdict) {
        (Some(problem), Verdict::Fail) => format!("{db} is damaged: {problem}"),
        (Some(problem), _) => format!("whether {db} is sound could not be looked at: {problem}"),
        (None, _) => format!("{db} is sound"),
    };
    let summary = format!("guard: {name} ended with {status}; {soundness}");
    if status == 0 && report.verdict == Verdict::Pass {
        context.note(&summary);
        return;
    }
    note(&summary);
    if let Some(mode) = report.restored {
        note(&format!("guard: the database from before was put back ({}) from {}", mode.name(), report.backup));
        if let Some(kept) = &report.pre_restore {
            note(&format!("guard: what the command has left of it is kept at {kept}"));
        }
    }
    let Some(put_back) = &report.put_back else { return };
    let state = match report.error.as_ref().and_then(Error::target_state) {
        Some(target) if target.changed => "",
        Some(_) | None => "the database is as the command has left it; ",
    };
    let Some(swap) = &put_back.swap else {
        let why = put_back.not_at_all.as_deref().unwrap_or_default();
        note(&format!("guard: {state}the one from before cannot be put back as it is: {why}"));
        return;
    };
    match (&put_back.in_place, &put_back.not_in_place) {
        (Some(in_place), _) => {
            note(&format!("guard: {state}to put the one from before back:"));
            note(&format!("  {swap}"));
            note("beside programs that have it open:");
            note(&format!("  {in_place}"));
        }
        (None, why) => {
            note(&format!("guard: {state}to put the one from before back, stop the programs that have it open, then:"));
            note(&format!("  {swap}"));
            if let Some(why) = why {
                note(&format!("guard: beside them it cannot be put back: {why}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_those_of_a_shell() {
        for (raw, expected) in [(0, 0), (9 << 8, 9), (255 << 8, 255), (15, 143), (9, 137)] {
            assert_eq!(number(ExitStatus::from_raw(raw)), expected);
        }
    }
}
