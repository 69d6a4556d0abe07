//! The binary's own: arguments, one file a command, text and JSON, progress, exit statuses. No decisions.

mod adopt;
mod args;
mod backup;
mod completions;
mod config;
mod context;
mod diff;
mod drill;
#[cfg(test)]
mod examples;
mod exit;
mod fault;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod guard;
mod keygen;
mod keyring;
mod keys;
mod list;
mod manual;
mod nearest;
mod output;
mod pin;
mod progress;
mod prune;
mod recover;
mod restore;
mod settings;
mod show;
mod signals;
mod status;
mod undo;
mod verify;
mod visible;

use std::panic;
use std::process::ExitCode;

use engram_restore::sqlite::limit_memory;
use engram_restore::storage::Storage;
use engram_restore::{Error, ErrorKind};
use serde_json::Value;
use tracing_subscriber::filter::LevelFilter;

use args::{Cli, Command, When};
use config::Config;
use context::{Context, configuration};
use exit::Exit;
use fault::Refused;
use output::{Outcome, Printer};
use progress::{Progress, Shape};
use signals::Signals;

/// Runs the program.
pub(crate) fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().collect();
    let (cli, fault) = match fault::parse(&words) {
        Ok(parsed) => parsed,
        Err(refused) => return ExitCode::from(usage(&refused)),
    };
    let storage = fault.clone().map_or_else(Storage::new, |fault| Storage::intercepted(fault));
    let printer = Printer { json: cli.global.json, quiet: cli.global.quiet };
    set_up_output(&cli.global);
    limit_memory(memory_limit());
    let outcome = panic::catch_unwind(panic::AssertUnwindSafe(|| run(cli, storage))).unwrap_or_else(|_panic| {
        let error =
            Error::new(ErrorKind::Internal, "go on with", "this command").because("this is a bug of engram-restore");
        Outcome::refused(Exit::Internal, Value::Null, error.hint("please report it with the lines above"))
    });
    let status = printer.finish(&outcome);
    if let Some(fault) = fault {
        fault::report_unreached(&fault);
    }
    ExitCode::from(status)
}

fn run(cli: Cli, storage: Storage) -> Outcome {
    let failed = |error: Error, signals: Option<&Signals>| {
        let exit = Exit::of_error(error.kind(), signals.and_then(Signals::received));
        Outcome::refused(exit, Value::Null, error)
    };
    let mut signals = match Signals::install() {
        Ok(signals) => signals,
        Err(e) => return failed(Error::io("catch signals for", "this command", e), None),
    };
    // Beside a log, a bar would be drawn over its lines.
    let shape = Shape::of(cli.global.progress, cli.global.quiet || cli.global.verbose > 0);
    let mut progress = Progress::new(shape, signals.cancel());
    let config = match &cli.command {
        // They make a database of their own, or need none.
        Command::Drill(args) if args.needs_no_database() => Ok(Config::default()),
        Command::DrillApplication(_) | Command::Completions(_) | Command::Manual => Ok(Config::default()),
        Command::Backup(_)
        | Command::List(_)
        | Command::Show(_)
        | Command::Verify(_)
        | Command::Diff(_)
        | Command::Restore(_)
        | Command::Recover(_)
        | Command::Undo(_)
        | Command::Status(_)
        | Command::Adopt(_)
        | Command::Guard(_)
        | Command::Prune(_)
        | Command::Pin(_)
        | Command::Unpin(_)
        | Command::Config(_)
        | Command::Keygen(_)
        | Command::Drill(_)
        | Command::Fault(_) => configuration(&cli.global),
    };
    let context = match config {
        Ok(config) => Context::new(cli.global, config, storage),
        Err(error) if matches!(cli.command, Command::Guard(_)) => return guard::not_begun(error, &signals),
        Err(error) => return failed(error, Some(&signals)),
    };
    let done = match &cli.command {
        Command::Backup(args) => backup::run(args, &context, &mut progress),
        Command::List(args) => list::run(args, &context, &mut progress),
        Command::Show(args) => show::run(args, &context, &mut progress),
        Command::Verify(args) => verify::run(args, &context, &mut progress),
        Command::Diff(args) => diff::run(args, &context, &mut progress),
        Command::Restore(args) => restore::run(args, &context, &mut progress),
        Command::Recover(args) => recover::run(args, &context, &mut progress),
        Command::Undo(args) => undo::run(args, &context, &mut progress),
        Command::Prune(args) => prune::run(args, &context, &mut progress),
        Command::Pin(args) => pin::run(args, &context, &mut progress),
        Command::Unpin(args) => pin::run_unpin(args, &context, &mut progress),
        Command::Config(args) => settings::run(args, &context),
        Command::Status(args) => status::run(args, &context, &mut progress),
        Command::Adopt(args) => adopt::run(args, &context, &mut progress),
        Command::Guard(args) => Ok(guard::run(args, &context, &mut progress, &mut signals)),
        Command::Drill(args) => drill::run(args, &context, &mut progress),
        Command::Keygen(args) => keygen::run(args, &context),
        Command::Completions(args) => completions::run(args),
        Command::Manual => manual::run(),
        Command::DrillApplication(args) => drill::run_application(args),
        Command::Fault(_) => Err(Error::new(ErrorKind::Internal, "run", "a fault without its command")),
    };
    let mut outcome = done.unwrap_or_else(|error| failed(error, Some(&signals)));
    if !progress.warnings().is_empty() {
        outcome.fields.insert("warnings".to_owned(), progress.warnings().into());
    }
    outcome
}

fn set_up_output(global: &args::Global) {
    match global.color {
        When::Auto => {}
        When::Always => anstream::ColorChoice::Always.write_global(),
        When::Never => anstream::ColorChoice::Never.write_global(),
    }
    let level = match global.verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        _ => LevelFilter::DEBUG,
    };
    let ansi = anstream::stderr().current_choice() != anstream::ColorChoice::Never;
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(|| output::Log)
        // It would report a standard error that cannot be written to, on standard error, and panic.
        .log_internal_errors(false)
        .with_ansi(ansi)
        .with_target(false)
        .without_time()
        .init();
}

/// What SQLite may take, in bytes: half of the machine's memory, at most 3 GiB. The longest value that SQLite can store has 1 GB,
/// and takes two and a half times as much while it is looked for in an index.
fn memory_limit() -> u64 {
    const MOST: u64 = 3 << 30;
    let system = rustix::system::sysinfo();
    (system.totalram.saturating_mul(u64::from(system.mem_unit)) / 2).min(MOST)
}

/// Help and version are results; anything else is an error in the form that was asked for.
fn usage(Refused { error, json }: &Refused) -> u8 {
    if *json && error.use_stderr() {
        let text = error.render().to_string();
        let (message, hint) = text.split_once('\n').unwrap_or((&text, ""));
        let error = Error::new(ErrorKind::Usage, "understand", "the command line")
            .because(message.trim_start_matches("error: ").to_owned())
            .hint(hint.split_whitespace().collect::<Vec<_>>().join(" "));
        let outcome = Outcome::refused(Exit::Usage, Value::Null, error);
        return Printer { json: true, quiet: false }.finish(&outcome);
    }
    // Nobody is left to tell if the terminal is gone.
    error.print().unwrap_or_default();
    if error.use_stderr() { Exit::Usage.status() } else { Exit::Done.status() }
}
