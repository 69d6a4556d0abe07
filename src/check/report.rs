//! From what came of the parts to one answer.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use camino::Utf8Path;

use super::plan::Task;
use super::pool::{Done, Outcome};
use super::{CheckOptions, CheckReport, Depth, ForeignKeys, Integrity, Part};
use crate::error::{Error, ErrorKind, Result};
use crate::findings::{Code, Finding, Severity};
use crate::fingerprint::{Content, TableContent};
use crate::pages::Accounting;
use crate::sqlite::{Checked, Differs, Halt, MAX_CHECK_ROWS, References, quoted};

/// What stands before a line of our own accounts.
const OWN_ACCOUNTS: &str = "page accounting: ";

/// How many names or counts one finding lists.
const MAX_LISTED: usize = 20;

/// Puts everything together.
///
/// # Errors
///
/// [`ErrorKind::Interrupted`], if that ended a part.
pub(super) fn report(
    file: &Utf8Path,
    parts: Vec<Done>,
    unlisted: Option<Halt>,
    options: &CheckOptions,
    limit: Duration,
) -> Result<CheckReport> {
    let mut found = Found::new(file, options);
    let names = parts.iter().map(|part| Part { name: part.task.name(), duration_ms: milliseconds(part.duration) });
    let names = names.collect();
    let duration = wall_time(&parts);
    for part in parts {
        found.add(part)?;
    }
    if let Some(halt) = unlisted {
        found.halted(&Task::Schema, halt)?;
    }
    Ok(found.finish(names, duration, limit))
}

struct Found<'a> {
    file: &'a Utf8Path,
    options: &'a CheckOptions,
    /// What SQLite says is damaged, and what of it was said before.
    rows: Vec<String>,
    seen: BTreeSet<String>,
    accounts: Option<Accounting>,
    content: Content,
    not_done: Vec<NotDone>,
    dangling: Vec<String>,
    findings: Vec<Finding>,
}

impl<'a> Found<'a> {
    fn new(file: &'a Utf8Path, options: &'a CheckOptions) -> Self {
        Self {
            file,
            options,
            rows: Vec::new(),
            seen: BTreeSet::new(),
            accounts: None,
            content: Content::default(),
            not_done: Vec::new(),
            dangling: Vec::new(),
            findings: Vec::new(),
        }
    }

    fn add(&mut self, Done { task, outcome, .. }: Done) -> Result<()> {
        match outcome {
            Outcome::Checked(checked) => self.checked(&task, checked)?,
            Outcome::Pages(accounts) => self.accounts = Some(accounts),
            Outcome::FullText(outcome) => {
                self.checked(&task, outcome.structure)?;
                if let (Some(differs), Task::FullText(name)) = (outcome.differs, &task) {
                    self.full_text(name, &differs);
                }
            }
            Outcome::References(References::Dangling(parents)) => self.references(&task, &parents),
            Outcome::References(References::Undefined(why)) => {
                let message = format!("{}: cannot be looked at: {why}", task.name());
                let finding = Finding::new(Code::ForeignKeyViolations, self.file, message);
                // A mistake in the schema: nothing is known to be missing, nor that nothing is.
                let severity = match self.options.foreign_keys {
                    ForeignKeys::Fail => Severity::Inconclusive,
                    ForeignKeys::Warn | ForeignKeys::Off => Severity::Warning,
                };
                self.findings.push(Finding { severity, ..finding });
            }
            Outcome::Schema(schema) => self.content.schema = schema,
            Outcome::Content(table) => self.content.tables.push(table),
            Outcome::Halted(halt) => {
                self.halted(&task, halt)?;
                if let Task::Content(name) = task {
                    self.content.tables.push(TableContent { name, rows: None, blake3: None });
                }
            }
        }
        Ok(())
    }

    fn checked(&mut self, task: &Task, checked: Checked) -> Result<()> {
        for row in checked.rows {
            if self.seen.insert(row.clone()) {
                self.rows.push(row);
            }
        }
        if let Some(halt) = checked.halt {
            self.halted(task, halt)?;
        }
        Ok(())
    }

    fn halted(&mut self, task: &Task, halt: Halt) -> Result<()> {
        let why = match halt {
            Halt::Interrupted => {
                let interrupted = Error::new(ErrorKind::Interrupted, "check", self.file);
                return Err(interrupted.because("it was interrupted"));
            }
            Halt::OutOfTime => None,
            Halt::Failed(why) => Some(why),
        };
        self.not_done.push(NotDone { part: task.name(), why, is_beside: task.is_beside() });
        Ok(())
    }

    fn full_text(&mut self, name: &str, differs: &Differs) {
        let message = match differs {
            Differs::Words => {
                let table = quoted(name);
                format!(
                    "the full-text index {name} has other words than the table that it indexes; in the live database, put it \
                     right with: INSERT INTO {table}({table}) VALUES('rebuild')"
                )
            }
            Differs::NoTable(why) => format!(
                "the table that the full-text index {name} is of cannot be read: {why}; in the live database, make it again, or \
                 drop the index"
            ),
        };
        self.findings.push(Finding::new(Code::FtsIndexDiffers, self.file, message));
    }

    fn references(&mut self, task: &Task, parents: &BTreeMap<String, u64>) {
        let Task::References(table) = task else { return };
        self.dangling.extend(parents.iter().map(|(parent, rows)| {
            let references = if *rows == 1 { "reference" } else { "references" };
            format!("{table}: {rows} {references} to missing rows of {parent}")
        }));
    }

    fn finish(mut self, parts: Vec<Part>, duration: Duration, limit: Duration) -> CheckReport {
        let whole = parts.iter().any(|part| part.name == Task::Whole.name());
        if whole && self.options.depth == Depth::Deep && self.rows.is_empty() {
            let part = "full-text indexes and foreign keys".to_owned();
            let why = Some("the schema is not one that SQLite would write".to_owned());
            self.not_done.push(NotDone { part, why, is_beside: true });
        }
        if !self.rows.is_empty() {
            let message = format!("the integrity check failed: {}", listed(&self.rows, MAX_CHECK_ROWS));
            self.push(Code::DeepCheckFailed, message);
        }
        let accounts = self.accounts.take().unwrap_or_default();
        if !accounts.problems.is_empty() {
            let more = if accounts.truncated { "; and more" } else { "" };
            let problems = listed(&accounts.problems, MAX_CHECK_ROWS);
            self.push(Code::PageAccountingFailed, format!("the pages do not add up: {problems}{more}"));
        }
        for message in NotDone::told(self.not_done.iter(), limit) {
            self.push(Code::DeepCheckNotDone, message);
        }
        if !self.dangling.is_empty() {
            let finding = Finding::new(Code::ForeignKeyViolations, self.file, listed(&self.dangling, MAX_LISTED));
            let severity = match self.options.foreign_keys {
                ForeignKeys::Fail => Severity::Error,
                ForeignKeys::Warn | ForeignKeys::Off => Severity::Warning,
            };
            self.findings.push(Finding { severity, ..finding });
        }
        self.content.tables.sort_by(|one, other| one.name.cmp(&other.name));
        let mut rows = self.rows;
        rows.extend(accounts.problems.iter().map(|problem| format!("{OWN_ACCOUNTS}{problem}")));
        let truncated = accounts.truncated || rows.len() > MAX_CHECK_ROWS;
        rows.truncate(MAX_CHECK_ROWS);
        // Damage that was found is damage, whatever could not be looked at.
        let not_done = NotDone::told(self.not_done.iter().filter(|part| !part.is_beside), limit);
        let error = (rows.is_empty() && !not_done.is_empty()).then(|| not_done.join("; "));
        if rows.is_empty() && error.is_none() {
            rows.push("ok".to_owned());
        }
        let integrity = Integrity { rows, truncated, error, duration };
        CheckReport { integrity, content: self.content, findings: self.findings, parts }
    }

    fn push(&mut self, code: Code, message: String) {
        self.findings.push(Finding::new(code, self.file, message));
    }
}

/// A part that was not done.
struct NotDone {
    part: String,
    /// `None`: the time was over.
    why: Option<String>,
    is_beside: bool,
}

impl NotDone {
    /// One line for all that the time was not enough for, and one for all others.
    fn told<'a>(parts: impl Iterator<Item = &'a Self>, limit: Duration) -> Vec<String> {
        let (mut late, mut failed) = (Vec::new(), Vec::new());
        for Self { part, why, .. } in parts {
            match why {
                None => late.push(part.clone()),
                Some(why) => failed.push(format!("{part}: {why}")),
            }
        }
        let late = (!late.is_empty())
            .then(|| format!("not done in {} s: {}", limit.as_secs_f64(), listed_with(&late, MAX_LISTED, ", ")));
        late.into_iter().chain((!failed.is_empty()).then(|| listed(&failed, MAX_LISTED))).collect()
    }
}

/// From the beginning of the first part of the integrity check to the end of the last one. The comparison of a full-text
/// index with its table is more than that check does, and is not counted.
fn wall_time(parts: &[Done]) -> Duration {
    let integrity = || parts.iter().filter(|part| !part.task.is_beside() && !matches!(part.task, Task::FullText(_)));
    let first: Option<Instant> = integrity().map(|part| part.began).min();
    let last = integrity().map(|part| part.began + part.duration).max();
    first.zip(last).map_or(Duration::ZERO, |(first, last)| last - first)
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn listed(items: &[String], most: usize) -> String {
    listed_with(items, most, "; ")
}

fn listed_with(items: &[String], most: usize, between: &str) -> String {
    let more = items.len().saturating_sub(most);
    let more = (more > 0).then(|| format!("and {more} more"));
    items.iter().take(most).map(String::as_str).chain(more.as_deref()).collect::<Vec<_>>().join(between)
}
