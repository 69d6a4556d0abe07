//! What an application sees of a database after a disaster: it opens it as it would any, reads, writes and closes it; and what
//! it then holds is told by the deep check and the content's fingerprint, not by what the program under drill says.

use std::os::unix::fs::MetadataExt as _;
use std::time::Instant;

use camino::Utf8Path;

use super::tool::micros;
use crate::check::{CheckOptions, CheckReport, Depth, check};
use crate::database::sidecars_there;
use crate::error::{Error, ErrorKind, Result};
use crate::findings::Severity;
use crate::header::Header;
use crate::manifest::Hex32;
use crate::observe::Quiet;
use crate::sample::Application;
use crate::storage::open_regular;

/// No more of a finding is shown: a check may say much of one damage.
const MOST_CHARS: usize = 200;

/// What was seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// The fingerprint of what it holds, if it could be told.
    pub(super) content: Option<Hex32>,
    /// How many commits of the drill's own.
    pub(super) commits: Option<u64>,
    /// From opening it to the first answers.
    pub(super) first_query_us: Option<u64>,
    /// What is wrong with it.
    pub(super) problems: Vec<String>,
}

impl Seen {
    /// In a line.
    pub(super) fn detail(&self) -> String {
        match (self.problems.first(), self.commits) {
            (Some(problem), _) => problem.clone(),
            (None, Some(commits)) => format!("sound, reads and writes, {commits} commits of the drill are there"),
            (None, None) => "sound, reads and writes".to_owned(),
        }
    }
}

/// Looks at a database as an application would. Its own trial row is taken back.
pub(super) fn look(database: &Utf8Path) -> Result<Seen> {
    let mut seen = Seen::default();
    // A link would be written through: to a backup, say.
    match database.symlink_metadata() {
        Ok(metadata) if metadata.is_file() && metadata.nlink() == 1 => {}
        Ok(_) => {
            seen.problems.push(format!("{database} is no file of its own, but a link or something else"));
            return Ok(seen);
        }
        Err(e) => {
            seen.problems.push(format!("cannot look at {database}: {e}"));
            return Ok(seen);
        }
    }
    let start = Instant::now();
    let application = match Application::open(database) {
        Ok(application) => application,
        Err(e) => {
            seen.problems.push(e.message());
            return Ok(seen);
        }
    };
    match application.first_query() {
        Ok(_tables) => seen.first_query_us = Some(micros(start.elapsed())),
        Err(e) => seen.problems.push(e.message()),
    }
    // A real database has no such table: then there is nothing to count.
    match application.is_prepared().and_then(|is_prepared| is_prepared.then(|| application.commits()).transpose()) {
        Ok(commits) => seen.commits = commits,
        Err(e) => seen.problems.push(e.message()),
    }
    if let Err(e) = application.close() {
        seen.problems.push(e.message());
    }
    for sidecar in sidecars_there(database)? {
        seen.problems.push(format!("{sidecar} stays when the last application has closed the database"));
    }
    let report = deep(database)?;
    let wrong = report.findings.iter().filter(|finding| finding.severity != Severity::Warning);
    seen.problems.extend(wrong.map(|finding| format!("{}: {}", finding.code, finding.message)));
    seen.content = report.content.whole();
    let written = Application::open(database).and_then(|mut application| {
        application.try_commit()?;
        application.close()
    });
    if let Err(e) = written {
        seen.problems.push(e.message());
    }
    Ok(seen)
}

/// What is wrong with a copy of a database that was damaged, once an application has opened it, or that its content is
/// another: nothing, if the damage is not to be seen.
pub(super) fn damage(copy: &Utf8Path, content: &Hex32) -> Result<Vec<String>> {
    let opened = Application::open(copy).and_then(Application::close);
    let report = deep(copy)?;
    let wrong = report.findings.iter().filter(|finding| finding.severity == Severity::Error);
    let mut seen: Vec<_> = wrong.map(|finding| format!("{}: {}", finding.code, finding.message)).collect();
    if let Err(e) = opened {
        seen.push(e.message());
    }
    if report.content.whole().is_some_and(|found| found != *content) {
        seen.push("it holds other rows than before".to_owned());
    }
    Ok(seen)
}

/// What was seen of a damage, in a line.
pub(super) fn in_a_line(seen: &[String]) -> String {
    let Some(first) = seen.first() else { return "nothing is seen of it".to_owned() };
    let cut: String = first.chars().take(MOST_CHARS).collect();
    let dots = if cut.len() < first.len() { "..." } else { "" };
    let more = if seen.len() > 1 { format!(" (and {} more)", seen.len() - 1) } else { String::new() };
    format!("{cut}{dots}{more}")
}

fn deep(file: &Utf8Path) -> Result<CheckReport> {
    check(file, &CheckOptions { depth: Depth::Deep, ..CheckOptions::default() }, &mut Quiet)
}

/// The fingerprint of a file that nobody has open and that has no sidecars.
pub(super) fn content(file: &Utf8Path) -> Result<Hex32> {
    let report = check(file, &CheckOptions { depth: Depth::Fingerprint, ..CheckOptions::default() }, &mut Quiet)?;
    report.content.whole().ok_or_else(|| {
        let why = report.findings.first().map_or_else(String::new, |finding| finding.message.clone());
        Error::new(ErrorKind::Failed, "read the whole content of", file).because(why)
    })
}

/// `user_version` and `application_id`, which are in no fingerprint.
pub(super) fn numbers(file: &Utf8Path) -> Result<(i32, i32)> {
    let io = |e| Error::io("read the header of", file, e);
    let header = open_regular(file).and_then(|opened| Header::read(&opened)).map_err(io)?;
    let header =
        header.map_err(|why| Error::new(ErrorKind::Damaged, "read the header of", file).because(why.to_string()))?;
    Ok((header.user_version, header.application_id))
}

#[cfg(test)]
mod tests {
    use camino::Utf8PathBuf;

    use super::*;
    use crate::sample::{SampleOptions, create};

    /// Would catch a proof of damage that proves it of anything.
    #[test]
    fn damage_is_seen_where_there_is_some_and_only_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(folder.path().join("a.db")).unwrap();
        create(&path, &SampleOptions { rows: 50, ..SampleOptions::default() }).unwrap();
        let content = content(&path).unwrap();
        assert_eq!(damage(&path, &content).unwrap(), [""; 0]);
        let mut application = Application::open(&path).unwrap();
        application.prepare().unwrap();
        application.close().unwrap();
        assert_eq!(damage(&path, &content).unwrap(), ["it holds other rows than before"]);
        crate::drill::scratch::truncate(&path, 5_000).unwrap();
        let seen = damage(&path, &content).unwrap();
        assert!(seen[0].starts_with("DEEP_CHECK_FAILED"), "{seen:?}");
    }

    #[test]
    fn what_was_seen_is_a_short_line() {
        assert_eq!(in_a_line(&[]), "nothing is seen of it");
        assert_eq!(in_a_line(&["one".to_owned()]), "one");
        let long = in_a_line(&["ü".repeat(10_000), "two".to_owned()]);
        assert_eq!(long, "ü".repeat(MOST_CHARS) + "... (and 1 more)");
    }
}
