//! Sweeps of failing operations, and of writes that write less than they were asked to.

use camino::Utf8Path;
use serde_json::Value;

use crate::again::{act_again, recover};
use crate::promises::{Report, Side};
use crate::run::{ERRNOS, Errno, Fault, Operation, Run};
use crate::scenario::{Stage, Template};
use crate::sweep::{Depth, sweep};

/// The status of what the system refused.
const FAILED: i32 = 5;

/// One error, alone or for all operations from some one on.
#[derive(Clone, Copy)]
struct Failure {
    errno: Errno,
    sticky: bool,
    /// Whether the even operations are those that answer in JSON, or the odd ones.
    json_at: usize,
}

/// An operation of the scenario's command fails, alone and with all after it.
pub(crate) fn failing(template: &Template, depth: Depth, report: &mut Report) {
    for failure in failures(template.scenario.number(), depth) {
        let Failure { errno, sticky, .. } = failure;
        let command = |at| [&template.words()[..], failure.form(at)].concat();
        let fault = Fault::Error { errno, sticky };
        sweep(&template.stage(), command, fault, report, |at, mut stage, run, report| {
            check_failed(&stage, at, failure, run, Operation::goes_forward, report);
            if template.scenario.action.replaces() {
                let side = check_target(&stage, failure, run, report);
                if at % 2 == 0 {
                    recover(&mut stage, side, report);
                }
            } else {
                stage.check_archive("after the failure", report);
            }
            act_again(stage, report);
        });
    }
}

/// All five over all scenarios, two in each; or each in each.
fn failures(number: usize, depth: Depth) -> Vec<Failure> {
    let failure = |errno: usize, sticky, json_at| Failure { errno: ERRNOS[errno % ERRNOS.len()], sticky, json_at };
    match depth {
        Depth::Usual => vec![failure(number, false, number % 2), failure(number + 3, true, (number + 1) % 2)],
        Depth::Full => (0..ERRNOS.len())
            .flat_map(|errno| [(false, 0), (false, 1), (true, 0), (true, 1)].map(|(s, j)| failure(errno, s, j)))
            .collect(),
    }
}

impl Failure {
    fn is_json(self, at: usize) -> bool {
        at % 2 == self.json_at
    }

    fn form(self, at: usize) -> &'static [&'static str] {
        if self.is_json(at) { &["-vv", "--json"] } else { &["-vv"] }
    }
}

/// An operation of `recover` fails, in what a killed command left on this side of the commit.
pub(crate) fn recover_failing(state: &Stage<'_>, side: Option<Side>, report: &mut Report) {
    for failure in failures(state.template.scenario.number(), Depth::Usual) {
        let Failure { errno, sticky, .. } = failure;
        let command = |at| [&["recover"], failure.form(at)].concat();
        let fault = Fault::Error { errno, sticky };
        sweep(state, command, fault, report, |at, mut stage, run, report| {
            check_failed(&stage, at, failure, run, |_after| true, report);
            if stage.check("after recover failed", report) != side {
                report.add(&stage, "a recover that failed put another database in place");
            }
            recover(&mut stage, side, report);
        });
    }
}

/// Status, messages, and what was done after the failure: nothing that is `forward`.
fn check_failed(
    stage: &Stage<'_>,
    at: usize,
    failure: Failure,
    run: &Run,
    forward: impl Fn(&Operation) -> bool,
    report: &mut Report,
) {
    let operations = run.operations();
    let mut rest = operations.get(at..).unwrap_or_default();
    if let [failed, after @ ..] = rest
        && failed.is_optional()
    {
        if run.status == Some(0) {
            return;
        }
        // The next one has failed too, and that is what ended the command.
        if failure.sticky && after.first().is_some_and(&forward) {
            rest = after;
        }
    }
    let Some((failed, after)) = rest.split_first() else {
        return report.add(stage, &format!("operation {at} is not among those that it prints: {operations:?}"));
    };
    let mut say = |what: &str| report.add(stage, &format!("{failed} fails: {what}"));
    // Where the command has failed anyway and is taking things back, that stays its status.
    let ended = stage.template.undisturbed.status;
    if run.status != Some(FAILED) && (run.status != ended || ended == Some(0)) {
        say(&format!("status {:?}: {run:?}", run.status));
    }
    match if failure.is_json(at) { json_error(run) } else { text_error(run) } {
        Err(problem) => say(&format!("{problem}: {run:?}")),
        Ok(error) => {
            if !failed.is_named_in(&error) {
                say(&format!("the error names another path: {error}"));
            }
            if !error.contains(&format!("(os error {})", failure.errno.number)) {
                say(&format!("the error does not say why: {error}"));
            }
        }
    }
    // The kernel may have dropped what could not be written, and report success the next time. A folder is synced again,
    // for the names that are taken back; the command fails all the same.
    if failed.verb == "sync" && after.contains(failed) {
        say("it is tried again");
    }
    let gone_on: Vec<_> = after.iter().filter(|operation| forward(operation)).map(ToString::to_string).collect();
    if !gone_on.is_empty() {
        say(&format!("it goes on: {gone_on:?}"));
    }
}

/// Message and hint of the one JSON object, which is all there is on standard output.
fn json_error(run: &Run) -> Result<String, String> {
    let json = run.json()?;
    let error = &json["error"];
    let is_complete = json["ok"] == Value::Bool(false)
        && error["kind"].is_string()
        && error["message"].is_string()
        && error["path"].as_str().is_some_and(|path| path.starts_with('/'))
        && error["target_changed"].is_boolean()
        && error.get("hint").is_some();
    if !is_complete {
        return Err("the JSON object is not that of an error".to_owned());
    }
    if run.messages().iter().any(|line| line.starts_with("error:")) {
        return Err("an error beside the JSON object".to_owned());
    }
    Ok(format!("{} {}", error["message"], error["hint"]))
}

/// What it says is wrong: one line, with state and hint below it.
fn text_error(run: &Run) -> Result<String, String> {
    let messages = run.messages();
    if !run.stdout.is_empty() || messages.iter().filter(|line| line.starts_with("error: ")).count() != 1 {
        return Err(format!("not exactly one line that says what is wrong: {messages:?}"));
    }
    Ok(messages.join(" "))
}

impl Operation {
    /// Whether a command may do without it.
    fn is_optional(&self) -> bool {
        self.verb == "reflink"
    }

    /// A temporary file has a name that says nothing to anybody: its folder will do.
    fn is_named_in(&self, text: &str) -> bool {
        let named = |path: &String| {
            let path = Utf8Path::new(path);
            let is_temporary = self.verb == "create" && path.extension() == Some("partial");
            text.contains(if is_temporary { path.parent().unwrap_or(path) } else { path }.as_str())
        };
        self.paths.iter().any(named)
    }

    /// Whether it does more than take back.
    fn goes_forward(&self) -> bool {
        let takes_back = match self.verb.as_str() {
            "remove" | "sync-dir" | "sqlite give up" | "sqlite set WAL mode" | "sqlite close" | "sqlite read" => true,
            // Sidecars of the old database, put back beside it.
            "rename" | "rename-new" | "link" => self
                .paths
                .last()
                .is_some_and(|path| ["engram.db-wal", "engram.db-journal"].iter().any(|n| path.ends_with(n))),
            _ => false,
        };
        !takes_back
    }
}

/// Whether it says truly which database is there; and that a failure alone leaves nothing behind before the commit.
fn check_target(stage: &Stage<'_>, failure: Failure, run: &Run, report: &mut Report) -> Option<Side> {
    let when = "after the failure";
    let side = stage.check(when, report);
    let says = match run.json() {
        Ok(json) if run.status != Some(0) => json["error"]["target_changed"].as_bool(),
        Ok(_) | Err(_) => run.messages().iter().find_map(|line| match *line {
            "the database was not changed" => Some(false),
            line if line.starts_with("its content was not changed") => Some(false),
            line if line.starts_with("the new database is in place") => Some(true),
            line if line.starts_with("the new content is in the database") => Some(true),
            _ => None,
        }),
    };
    if run.status == Some(0) && side != Some(Side::New) {
        report.add(stage, &format!("{when}: says that it is done, and it is {side:?}: {run:?}"));
    }
    let is_displaced = side == Some(Side::Old) && !stage.is_old_complete();
    if run.status != Some(0) && !is_displaced && says != Some(side == Some(Side::New)) {
        report.add(stage, &format!("{when}: says that the target was changed: {says:?}, and is {side:?}: {run:?}"));
    }
    if !failure.sticky && side == Some(Side::Old) {
        stage.check_settled(when, report);
    }
    side
}

/// A write writes half of its bytes, alone and with all writes after it: that is no failure.
pub(crate) fn short_writes(template: &Template, report: &mut Report) {
    let operations = template.undisturbed.operations();
    let writes = operations.iter().enumerate().filter(|(_, operation)| operation.verb == "write");
    for (at, sticky) in writes.flat_map(|(at, _)| [(at, false), (at, true)]) {
        let mut stage = template.stage();
        let (words, at) = (template.words(), at.to_string());
        report.faults += 1;
        let run = stage.run(&Fault::ShortWrite { sticky }.around(&at, &words));
        if run.status != template.undisturbed.status || run.unreached().is_some() {
            report.add(&stage, &format!("a short write is not gone on with: {run:?}"));
        }
        if template.scenario.action.replaces() {
            if stage.check_settled("after a short write", report) != Some(Side::New) {
                report.add(&stage, "after a short write: not the new database");
            }
        } else if stage.check_archive("after a short write", report) != 1 {
            report.add(&stage, "after a short write: not exactly one backup");
        }
    }
}
