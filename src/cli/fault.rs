//! `fault`: another command, of which one file operation goes wrong. For tests and drills; hidden.
//!
//! Status, standard output and messages are those of the other command. Only where it ended before the fault had struck,
//! one more line on standard error says so: whoever counts up is at the end.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::sync::Arc;

use clap::error::{ContextKind, ContextValue, Error, ErrorKind};
use clap::{CommandFactory as _, Parser as _};
use engram_restore::storage::{Fault, FaultAt};
use rustix::io::Errno;

use super::args::{Cli, Command, ErrnoArg, FaultArgs, Global, When};

/// A command line that makes no sense (or asks for help), and whether the answer is to be JSON.
pub(crate) struct Refused {
    pub(crate) error: Error,
    pub(crate) json: bool,
}

/// The command to run, and the fault that stands around it.
pub(crate) fn parse(words: &[OsString]) -> Result<(Cli, Option<Arc<FaultAt>>), Refused> {
    let outer = parse_one(words, false)?;
    let Command::Fault(args) = outer.command else { return Ok((outer, None)) };
    let inner_words: Vec<_> = words.iter().take(1).chain(&args.command).cloned().collect();
    let inner = parse_one(&inner_words, outer.global.json)?;
    let global = both(outer.global, inner.global);
    if matches!(inner.command, Command::Fault(_)) {
        let error = Cli::command().error(ErrorKind::ArgumentConflict, "a fault cannot stand around a fault");
        return Err(Refused { error, json: global.json });
    }
    Ok((Cli { global, command: inner.command }, Some(Arc::new(fault_of(&args)))))
}

/// Tells whoever counts up that the command has fewer operations.
pub(crate) fn report_unreached(fault: &FaultAt) {
    if !fault.fired() {
        // Nobody is left to tell if standard error is gone.
        writeln!(io::stderr(), "fault: not reached, {} operations", fault.seen()).unwrap_or_default();
    }
}

fn parse_one(words: &[OsString], json: bool) -> Result<Cli, Refused> {
    // It may stand behind the word that is wrong, so the parser has not seen it.
    let asks_for_json = || words.iter().take_while(|word| *word != "--").any(|word| word == "--json");
    Cli::try_parse_from(words).map_err(|error| Refused { error: without_hidden(error), json: json || asks_for_json() })
}

/// Nobody has meant a command that nobody sees.
fn without_hidden(mut error: Error) -> Error {
    let Some(ContextValue::Strings(suggested)) = error.get(ContextKind::SuggestedSubcommand) else { return error };
    let all = Cli::command();
    let is_seen = |name: &&String| !all.find_subcommand(name).is_some_and(clap::Command::is_hide_set);
    let seen: Vec<_> = suggested.iter().filter(is_seen).cloned().collect();
    if seen.is_empty() {
        error.remove(ContextKind::SuggestedSubcommand);
    } else {
        error.insert(ContextKind::SuggestedSubcommand, ContextValue::Strings(seen));
    }
    error
}

/// The global options of both command lines; where they differ, the inner one is closer to its command.
fn both(outer: Global, inner: Global) -> Global {
    let closer = |outer, inner| if inner == When::Auto { outer } else { inner };
    Global {
        public_key: Vec::new(),
        secret_key: None,
        db: inner.db.or(outer.db),
        archive: inner.archive.or(outer.archive),
        config: inner.config.or(outer.config),
        json: inner.json || outer.json,
        quiet: inner.quiet || outer.quiet,
        verbose: inner.verbose.max(outer.verbose),
        color: closer(outer.color, inner.color),
        progress: closer(outer.progress, inner.progress),
    }
}

fn fault_of(args: &FaultArgs) -> FaultAt {
    let fault = match (args.errno, args.short_write) {
        (Some(errno), _) => Fault::Error(number(errno).raw_os_error()),
        (None, true) => Fault::ShortWrite,
        (None, false) => Fault::Kill,
    };
    FaultAt::new(args.at, fault, args.sticky)
}

fn number(errno: ErrnoArg) -> Errno {
    match errno {
        ErrnoArg::Eio => Errno::IO,
        ErrnoArg::Enospc => Errno::NOSPC,
        ErrnoArg::Edquot => Errno::DQUOT,
        ErrnoArg::Eacces => Errno::ACCESS,
        ErrnoArg::Erofs => Errno::ROFS,
    }
}
