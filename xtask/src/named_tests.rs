//! Every test that the documentation names is there: `path.rs::name`, and `::name` for a further one in the same file.

use std::fs;

use camino::Utf8Path;

use crate::Result;

/// Where a path in the documentation begins: at the root, or among the tests of the command line.
const BEGINNINGS: [&str; 2] = ["", "tests/cli"];

/// A test that is named, but not there.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Missing {
    /// In which line, from 1.
    pub(crate) line: usize,
    /// As the text has it.
    pub(crate) named: String,
}

/// Those in one text. `source` gives what stands in a source file.
pub(crate) fn missing(text: &str, source: impl Fn(&str) -> Option<String>) -> Vec<Missing> {
    let mut missing = Vec::new();
    let mut last_path = String::new();
    for (number, line) in text.lines().enumerate() {
        for span in line.split('`').skip(1).step_by(2) {
            let Some((path, name)) = test_of(span) else { continue };
            if !path.is_empty() {
                path.clone_into(&mut last_path);
            }
            if !source(&last_path).is_some_and(|source| names(&source, name)) {
                missing.push(Missing { line: number + 1, named: format!("{last_path}::{name}") });
            }
        }
    }
    missing
}

/// The file and the test that a span of code names, if it names one.
fn test_of(span: &str) -> Option<(&str, &str)> {
    let (path, _) = span.split_once("::")?;
    let name = span.rsplit("::").next()?;
    let is_plain = !name.is_empty() && name.chars().all(|letter| letter == '_' || letter.is_alphanumeric());
    ((path.is_empty() || Utf8Path::new(path).extension() == Some("rs")) && is_plain).then_some((path, name))
}

/// Whether the name stands in the source as a word of its own, as a function or as what a macro makes one of.
fn names(source: &str, name: &str) -> bool {
    source.split(|letter: char| letter != '_' && !letter.is_alphanumeric()).any(|word| word == name)
}

/// The source file that a path in the documentation means.
pub(crate) fn source(root: &Utf8Path, path: &str) -> Option<String> {
    BEGINNINGS.iter().find_map(|beginning| fs::read_to_string(root.join(beginning).join(path)).ok())
}

/// Those in README and docs, as lines to print.
pub(crate) fn check(root: &Utf8Path) -> Result<Vec<String>> {
    let mut pages = vec![root.join("README.md")];
    for entry in root.join("docs").read_dir_utf8()? {
        pages.push(entry?.into_path());
    }
    pages.sort();
    let mut lines = Vec::new();
    for page in pages.iter().filter(|page| page.extension() == Some("md")) {
        for Missing { line, named } in missing(&fs::read_to_string(page)?, |path| source(root, path)) {
            lines.push(format!("{}:{line}: there is no test {named}", page.strip_prefix(root)?));
        }
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_that_is_not_there_is_found() {
        let text =
            "a `src/a.rs::is_there` b\nc `::is_gone`, `tests/b.rs::sweep::is_there`, `Storage::sync`, `::is_gone_too`";
        let source = |path: &str| (path == "src/a.rs").then(|| "fn is_there() {} // is_gone_too_long".to_owned());
        let found = missing(text, source).into_iter().map(|Missing { line, named }| (line, named));
        let expected = [
            (2, "src/a.rs::is_gone".to_owned()),
            (2, "tests/b.rs::is_there".to_owned()),
            (2, "tests/b.rs::is_gone_too".to_owned()),
        ];
        assert_eq!(found.collect::<Vec<_>>(), expected);
    }
}
