//! A drill's report as a file: JSON, JUnit XML, Markdown or one HTML page, all of the one [`DrillReport`]. Each is a function from
//! that to text; what comes from outside (paths, names, statements, what a program said) is escaped in it and cut to a bound.

mod chart;
mod html;
mod junit;
mod markdown;
mod page_map;
mod words;

#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::io::{self, Read as _};

use camino::Utf8Path;

use super::report::DrillReport;
use crate::backup::{Partial, sweep};
use crate::error::{Error, ErrorKind, Result};
use crate::signature::{SignatureProblem, Signed, SigningKey, TrustedKeys, check_signed, is_signature, signature_path};
use crate::storage::{Ownership, Storage, open_regular, parent_of, replace};

/// How far the mark of a report is looked for.
const MARK_WITHIN: u64 = 1024;

/// A CI or a web server reads it as a user of its own; it says no more than the program prints.
const MODE: u32 = 0o644;

/// The form of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportFormat {
    /// The report itself, `.json`.
    Json,
    /// A test case for each scenario, as a CI reads it, `.xml`.
    Junit,
    /// For a ticket or a job's summary, `.md`.
    Markdown,
    /// One page that needs nothing else, `.html`.
    Html,
}

impl ReportFormat {
    /// What a report of this form has near its beginning, and nothing else that is ours or anybody's: a manifest and a history name
    /// the program, too.
    fn mark(self) -> &'static [u8] {
        match self {
            Self::Json => b"\"format\": \"engram-restore-drill\"",
            Self::Junit => b"<testsuites name=\"engram-restore drill\"",
            Self::Markdown => b"<!-- engram-restore drill -->",
            Self::Html => b"<meta name=\"generator\" content=\"engram-restore\"",
        }
    }

    /// The one that the file name's extension says.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Usage`] for any other extension.
    pub fn of(path: &Utf8Path) -> Result<Self> {
        match path.extension() {
            Some("json") => Ok(Self::Json),
            Some("xml") => Ok(Self::Junit),
            Some("md") => Ok(Self::Markdown),
            Some("html") => Ok(Self::Html),
            Some(_) | None => Err(Error::new(ErrorKind::Usage, "write the report", path)
                .because("its form is told by the extension: .json, .xml (JUnit), .md or .html")),
        }
    }
}

/// Whether a report could be written to `path`, as far as that can be told beforehand: a drill of many minutes should not end
/// without its report.
///
/// # Errors
///
/// [`ErrorKind::Usage`] for an extension that says no form; [`ErrorKind::NotFound`] without its folder; [`ErrorKind::Failed`]
/// if something lies there that is no report, which stays as it is.
pub fn admit_report(path: &Utf8Path) -> Result<()> {
    ReportFormat::of(path)?;
    let folder = parent_of(path);
    match folder.metadata() {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => return Err(Error::new(ErrorKind::Usage, "write the report into", folder).because("it is no folder")),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(Error::new(ErrorKind::NotFound, "find the folder of the report", folder).because(e));
        }
        Err(e) => return Err(Error::io("look at the folder of the report", folder, e)),
    }
    require_ours(path).map_err(|e| e.within("write the report to", path))
}

/// No report of a drill is longer.
const MAX_REPORT_BYTES: u64 = 64 << 20;

/// Writes the report to `path`, in the form that its extension says, in the place of an older one. With a key, its signature
/// goes beside it before: a report that was not signed yet has a wrong one, never none.
///
/// Once it returned `Ok`, the new file survives a power cut. After an error it is the old one or the new one.
///
/// # Errors
///
/// Those of [`admit_report`], and [`ErrorKind::Failed`] if it cannot be written.
pub fn write_report(
    report: &DrillReport,
    path: &Utf8Path,
    signing: Option<&SigningKey>,
    storage: &Storage,
) -> Result<()> {
    admit_report(path)?;
    let text = render_report(report, ReportFormat::of(path)?)?;
    let signature = signature_path(path);
    if let Some(key) = signing {
        let name = path.file_name().unwrap_or_default();
        require_signature(&signature)?;
        put(&signature, &key.sign(text.as_bytes(), name, report.started_at)?, storage)?;
    }
    put(path, &text, storage)
}

/// Whether a report is what one of these keys has signed, whatever is in it.
///
/// # Errors
///
/// [`ErrorKind::NotFound`] without the file; [`ErrorKind::Failed`] if it cannot be read, or is no regular file.
pub fn verify_report(path: &Utf8Path, trusted: &TrustedKeys) -> Result<Result<Signed, SignatureProblem>> {
    let failed = |e: io::Error| {
        let missing = e.kind() == io::ErrorKind::NotFound;
        let error = Error::io("read the report", path, e);
        if missing { error.with_kind(ErrorKind::NotFound) } else { error }
    };
    let file = open_regular(path).map_err(failed)?;
    let mut text = Vec::new();
    file.take(MAX_REPORT_BYTES + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_REPORT_BYTES {
        let why = format!("it has more than {MAX_REPORT_BYTES} bytes: no drill writes such a report");
        return Err(Error::new(ErrorKind::Failed, "read the report", path).because(why));
    }
    Ok(check_signed(path, &text, trusted).and_then(|signed| signed.ok_or(SignatureProblem::Missing)))
}

/// Only an older signature may be in its place.
fn require_signature(path: &Utf8Path) -> Result<()> {
    match path.symlink_metadata() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(Error::io("look at", path, e)),
        Ok(_) if is_signature(path) => Ok(()),
        Ok(_) => Err(Error::new(ErrorKind::Usage, "write the signature to", path)
            .because("what is there is no signature, and would be lost")),
    }
}

fn put(path: &Utf8Path, text: &str, storage: &Storage) -> Result<()> {
    let written = (|| {
        let folder = parent_of(path);
        sweep(folder, storage)?;
        let partial = Partial::create(folder, storage)?;
        let metadata = partial.file.file.metadata().map_err(|e| Error::io("look at", &partial.file.path, e))?;
        let ownership = Ownership { mode: MODE, ..Ownership::of(&metadata) };
        let written = storage
            .write_at(&partial.file, 0, text.as_bytes())
            .and_then(|()| storage.set_attributes(&partial.file, ownership, None))
            .and_then(|()| replace(storage, &partial.file, path));
        written.map_err(|e| partial.discard(e, storage))
    })();
    written.map_err(|e: Error| e.within("write the report to", path))
}

/// The report in this form.
///
/// # Errors
///
/// Only if it has no such form: no report that a drill makes.
pub fn render_report(report: &DrillReport, format: ReportFormat) -> Result<String> {
    let failed =
        |why: String| Error::new(ErrorKind::Failed, "render the report of", &report.subject.database).because(why);
    match format {
        ReportFormat::Json => {
            serde_json::to_string_pretty(report).map(|text| plain_json(&text)).map_err(|e| failed(e.to_string()))
        }
        ReportFormat::Junit => junit::render(report).map_err(|e| failed(e.to_string())),
        ReportFormat::Markdown => Ok(markdown::render(report)),
        ReportFormat::Html => Ok(html::render(report)),
    }
}

/// JSON without any character that drives a terminal or reorders text: its own rules escape only those below U+0020. All of these
/// stand in strings, but for the line ends between fields.
fn plain_json(json: &str) -> String {
    let mut text = String::with_capacity(json.len() + 1);
    for character in json.chars() {
        let reorders = matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if reorders || (character.is_control() && character != '\n') {
            // Writing into a String does not fail. All of them are in the basic plane.
            write!(text, "\\u{:04x}", u32::from(character)).unwrap_or_default();
        } else {
            text.push(character);
        }
    }
    text.push('\n');
    text
}

/// A path that was mistyped must not cost anybody a file.
fn require_ours(path: &Utf8Path) -> Result<()> {
    let opened = match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => Err(e),
        Ok(_) => open_regular(path),
    };
    let mut beginning = Vec::new();
    let read = opened.and_then(|file| file.take(MARK_WITHIN).read_to_end(&mut beginning));
    read.map_err(|e| Error::io("read", path, e))?;
    let mark = ReportFormat::of(path)?.mark();
    if beginning.windows(mark.len()).any(|window| window == mark) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Failed, "replace", path)
        .because("another file lies there, which is no report of a drill")
        .hint("say another --report file, or move that one away"))
}
