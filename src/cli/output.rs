//! What a command leaves on standard output and standard error.

use std::fmt::Write as _;
use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use comfy_table::presets::NOTHING;
use comfy_table::{ColumnConstraint, ContentArrangement, Table};
use engram_restore::{Error, ErrorKind, Result, Verdict};
use serde_json::{Map, Value, json};

use super::exit::Exit;

/// How a command ended, and what it has to say: both as text and as JSON.
pub(crate) struct Outcome {
    pub(crate) exit: Exit,
    pub(crate) fields: Map<String, Value>,
    pub(crate) text: String,
    /// Whether the text is what was asked for, so that `--quiet` does not silence it.
    pub(crate) essential: bool,
    /// An error that stands beside the command's own fields.
    pub(crate) error: Option<Error>,
}

impl Outcome {
    /// An outcome with these JSON fields (an object).
    pub(crate) fn new(exit: Exit, fields: Value, text: String) -> Self {
        let fields = if let Value::Object(fields) = fields { fields } else { Map::new() };
        Self { exit, fields, text, essential: false, error: None }
    }

    /// The text is the result itself.
    pub(crate) fn essential(self) -> Self {
        Self { essential: true, ..self }
    }

    /// Damage that was found stands beside the command's own fields; any other error stands alone.
    pub(crate) fn found(error: Error, fields: Value) -> Result<Self> {
        if error.kind() == ErrorKind::Damaged { Ok(Self::refused(Exit::Damaged, fields, error)) } else { Err(error) }
    }

    /// The command's own fields together with the error that ended it.
    pub(crate) fn refused(exit: Exit, fields: Value, error: Error) -> Self {
        Self { error: Some(error), ..Self::new(exit, fields, String::new()) }
    }
}

/// Where output goes, and in which form.
pub(crate) struct Printer {
    pub(crate) json: bool,
    pub(crate) quiet: bool,
}

impl Printer {
    /// Prints an outcome and returns the status to end with. A reader that has gone away is no error of ours.
    pub(crate) fn finish(&self, outcome: &Outcome) -> u8 {
        if let Some(error) = &outcome.error
            && !self.json
        {
            print_error(error);
        }
        let printed = if self.json {
            let mut object = Map::from_iter([("ok".to_owned(), Value::Bool(outcome.exit == Exit::Done))]);
            object.extend(outcome.fields.clone());
            if let Some(error) = &outcome.error {
                object.insert("error".to_owned(), error_json(error));
            }
            writeln!(io::stdout(), "{}", plain_json(&Value::Object(object)))
        } else if outcome.essential || !self.quiet || outcome.exit != Exit::Done {
            write!(anstream::stdout(), "{}", outcome.text).and_then(|()| anstream::stdout().flush())
        } else {
            Ok(())
        };
        match printed {
            Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
                let status = outcome.exit.status();
                warn(&format!("cannot write to standard output: {e}; the command itself ended with status {status}"));
                Exit::Failed.status()
            }
            Ok(()) | Err(_) => outcome.exit.status(),
        }
    }
}

/// JSON without any character that drives a terminal: its own rules escape only those below U+0020.
fn plain_json(value: &Value) -> String {
    let mut text = String::new();
    for character in value.to_string().chars() {
        if drives_terminal(character) {
            // Writing into a String does not fail. All of them are in the basic plane, and stand in strings only.
            write!(text, "\\u{:04x}", u32::from(character)).unwrap_or_default();
        } else {
            text.push(character);
        }
    }
    text
}

/// The `error` object of the JSON output.
pub(crate) fn error_json(error: &Error) -> Value {
    json!({
        "kind": error.kind().name(),
        "message": error.message(),
        // What is no file has no path.
        "path": Some(error.path()).filter(|path| path.is_absolute()),
        "target_changed": error.target_state().is_some_and(|target| target.changed),
        "state": error.target_state().map(|target| &target.sentence),
        "hint": error.hint_text(),
    })
}

/// Error, state of the target and hint, each on a line of its own.
fn print_error(error: &Error) {
    let mut text = printable(&error.message());
    if let Some(target) = error.target_state() {
        text.push('\n');
        text.push_str(&printable(&target.sentence));
    }
    if let Some(hint) = error.hint_text() {
        text.push_str("\nhint: ");
        text.push_str(&printable(hint));
    }
    say("error", AnsiColor::Red, &text);
}

/// A line on standard error that begins with "warning:".
pub(crate) fn warn(text: &str) {
    say("warning", AnsiColor::Yellow, &printable(text));
}

/// A line on standard error, of a command whose standard output is not its own.
pub(crate) fn note(text: &str) {
    // Nobody is left to tell if standard error is gone.
    writeln!(anstream::stderr(), "{}", printable(text)).unwrap_or_default();
}

fn say(what: &str, color: AnsiColor, text: &str) {
    let style = Style::new().bold().fg_color(Some(color.into()));
    // Nobody is left to tell if standard error is gone.
    writeln!(anstream::stderr(), "{style}{what}:{style:#} {text}").unwrap_or_default();
}

/// Text from outside, which may hold what drives a terminal.
pub(crate) fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        if drives_terminal(character) {
            safe.extend(character.escape_debug());
        } else {
            safe.push(character);
        }
    }
    safe
}

/// Control characters, and those that break a line or reorder the text around them.
fn drives_terminal(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Standard error for the log, which is written line by line. The log makes plain what begins an escape sequence, but
/// not what breaks or reorders a line.
pub(crate) struct Log;

impl io::Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let text = text.strip_suffix('\n').unwrap_or(&text);
        // Those that are left are the log's own colours.
        let plain: Vec<_> = text.split('\u{1b}').map(printable).collect();
        writeln!(io::stderr(), "{}", plain.join("\u{1b}"))?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// A verdict in its colour, which is taken out again where none is wanted.
pub(crate) fn colored(verdict: Verdict) -> String {
    let color = match verdict {
        Verdict::Pass => AnsiColor::Green,
        Verdict::Fail => AnsiColor::Red,
        Verdict::Inconclusive => AnsiColor::Yellow,
    };
    let style = Style::new().bold().fg_color(Some(color.into()));
    format!("{style}{verdict}{style:#}")
}

/// A table for the terminal, no wider than that. The first column, a name that somebody may want to copy, stays whole.
pub(crate) fn table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_header(header);
    for row in rows {
        table.add_row(row);
    }
    if let Some(name) = table.column_mut(0) {
        name.set_constraint(ColumnConstraint::ContentWidth);
    }
    format!("{table}\n")
}

/// Bytes as people read them.
pub(crate) fn bytes(bytes: u64) -> String {
    humansize::format_size(bytes, humansize::BINARY)
}

/// Milliseconds for JSON.
pub(crate) fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
