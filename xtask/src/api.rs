//! `cargo xtask api`: every public name of the library, as rustdoc finds them, beside the kept list of them. A name that
//! became public or got lost by accident shows there.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use camino::Utf8Path;

use crate::Result;

/// Another crate's type under a name of ours: what belongs to it is theirs to change.
const OF_OTHERS: [&str; 1] = ["sqlite::Connection"];
/// The kept list.
const KEPT: &str = "docs/public-api.txt";

#[derive(clap::Args, Default)]
pub(crate) struct Options {
    /// Write the list anew, for the change that means it.
    #[arg(long)]
    write: bool,
}

pub(crate) fn run(options: &Options, root: &Utf8Path) -> Result {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(&cargo)
        .args(["doc", "--quiet", "--package", "engram-restore", "--lib", "--no-deps"])
        .current_dir(root)
        .status()?;
    if !built.success() {
        return Err(format!("cargo doc failed: {built}").into());
    }
    // Pages of what is gone stay there, but the list of all items, by which they are found, is written anew.
    let names = names(&crate::target(root)?.join("doc/engram_restore"))?;
    let kept = root.join(KEPT);
    if options.write {
        let text = names.iter().map(String::as_str).collect::<Vec<_>>().join("\n");
        fs::write(&kept, text + "\n")?;
        println!("{} public names are in {KEPT}", names.len());
        return Ok(());
    }
    let text = fs::read_to_string(&kept)?;
    let known: BTreeSet<_> = text.lines().map(str::to_owned).collect();
    let mut differences: Vec<_> = names.difference(&known).map(|name| format!("new:  {name}")).collect();
    differences.extend(known.difference(&names).map(|name| format!("gone: {name}")));
    if differences.is_empty() {
        println!("{} public names, as in {KEPT}", names.len());
        return Ok(());
    }
    differences.push("if that is meant: cargo xtask api --write".to_owned());
    Err(differences.join("\n").into())
}

/// Every item that rustdoc has a page for, and what belongs to it, by the pages' own links and anchors.
fn names(folder: &Utf8Path) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for link in values(&fs::read_to_string(folder.join("all.html"))?, "<li><a href=\"") {
        let Some((kind, name)) = item(link) else { continue };
        if !OF_OTHERS.contains(&name.as_str()) {
            let page = fs::read_to_string(folder.join(link))?;
            names.extend(
                parts(&page).into_iter().map(|part| format!("{kind} {name}::{}", part.replace(".field.", "::"))),
            );
        }
        names.insert(format!("{kind} {name}"));
    }
    if names.is_empty() { Err("rustdoc's list of all items is not as it was".into()) } else { Ok(names) }
}

/// The kind and the path of the item that a link such as `archive/struct.History.html` leads to.
fn item(link: &str) -> Option<(&str, String)> {
    let (folder, file) = link.rsplit_once('/').unwrap_or(("", link));
    let (kind, name) = file.strip_suffix(".html")?.split_once('.')?;
    let path = if folder.is_empty() { name.to_owned() } else { format!("{}::{name}", folder.replace('/', "::")) };
    Some((kind, path))
}

/// Fields, variants and functions of an item; of those that come from traits only the trait's own.
fn parts(page: &str) -> BTreeSet<&str> {
    let own = page.split("id=\"trait-implementations").next().unwrap_or(page);
    let own = own.split("id=\"deref-methods").next().unwrap_or(own);
    let anchors = values(own, " id=\"").filter_map(|anchor| anchor.split_once('.'));
    let kinds = ["structfield", "variant", "method", "tymethod", "associatedconstant"];
    let of_it = anchors.filter(|(kind, name)| kinds.contains(kind) && !name.ends_with(".fields"));
    of_it.map(|(_, name)| name).collect()
}

/// What stands between each of these beginnings and the next quotation mark.
fn values<'a>(text: &'a str, beginning: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(beginning).skip(1).filter_map(|rest| rest.split('"').next())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Would catch methods of every derived trait among a type's own, and paths that are cut.
    #[test]
    fn names_are_read_from_pages() {
        let page = r#"<span id="structfield.size" ></span><section id="method.new" class=""></section>
            <h2 id="trait-implementations"></h2><section id="method.clone"></section>"#;
        assert_eq!(parts(page).into_iter().collect::<Vec<_>>(), ["new", "size"]);
        assert_eq!(item("archive/names/fn.sort_key.html"), Some(("fn", "archive::names::sort_key".to_owned())));
        assert_eq!(item("struct.Quiet.html"), Some(("struct", "Quiet".to_owned())));
        assert_eq!(item("index.html"), None);
    }
}
