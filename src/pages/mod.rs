//! Page accounting: every page of a database file is reached exactly once. It reads the file format by hand
//! (<https://sqlite.org/fileformat2.html>), believes nothing of it, and changes nothing. What it counts, and what SQLite's
//! own check leaves out, is in `docs/checks.md`.
//!
//! Memory: one bit for each page, a page for each level of a tree, and the names of tables and indexes. What the file says
//! is an answer; an error means that it could not be read, or was not to be read any further.

mod btree;
mod file;
mod map;
mod schema;
mod set;
mod walk;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::ops::RangeInclusive;

use btree::{MAX_DEPTH, Page};
use file::{Opened, Pages};
pub(crate) use map::{MapOwner, OwnerKind, PageMap};
pub(crate) use schema::Root;
use walk::{MAX_PROBLEMS, Owner, Problems, Walk};

use crate::error::Result;

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Accounting {
    /// What does not add up, one line each; empty for a sound file.
    pub(crate) problems: Vec<String>,
    /// Whether there was more than is kept.
    pub(crate) truncated: bool,
    /// The trees in the order of the schema, that of the schema first.
    pub(crate) trees: Vec<TreePages>,
    /// Pages of the database.
    pub(crate) page_count: u64,
    /// Pages on its freelist.
    pub(crate) freelist_pages: u64,
}

/// The pages of a tree, overflow pages included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TreePages {
    /// The table or index.
    pub(crate) name: String,
    /// How many.
    pub(crate) pages: u64,
}

/// Accounts for every page of a database file that nobody writes. `stop` is asked all the while; its error ends it.
///
/// # Errors
///
/// If the file cannot be read, there is not enough memory for a bit a page, or `stop` says so.
pub(crate) fn account(file: &File, stop: &mut dyn FnMut() -> Result<()>) -> Result<Accounting> {
    let pages = match Pages::open(file)? {
        Opened::Empty => return Ok(Accounting::default()),
        Opened::Unusable(why) => return Ok(Accounting { problems: vec![why], ..Accounting::default() }),
        Opened::Database(pages) => pages,
    };
    let mut twice = BTreeMap::new();
    let mut truncated = false;
    let mut on_page = |reached: walk::Reached| {
        if reached.again {
            if twice.len() < MAX_PROBLEMS {
                twice.insert(reached.page, Vec::new());
            } else {
                truncated |= !twice.contains_key(&reached.page);
            }
        }
        stop()
    };
    let mut walk = Walk::new(&pages, &mut on_page)?;
    walk.everywhere()?;
    let Walk { used, owners, page_counts, problems: found, .. } = walk;

    let mut problems = Problems { truncated, ..Problems::default() };
    if let Some(said) = pages.missing {
        problems.add(format!("the header says {said} pages, and the file has {}", pages.count));
    }
    if !twice.is_empty() {
        name_owners(&pages, &mut twice, stop)?;
    }
    for (page, by) in &twice {
        let by: Vec<_> = by.iter().filter_map(|owner| owners.get(*owner)).map(Owner::to_string).collect();
        problems.add(match &by[..] {
            [first, second, ..] if first != second => format!("page {page} is used twice: by {first} and by {second}"),
            [first, ..] => format!("page {page} is used twice by {first}"),
            [] => format!("page {page} is used twice"),
        });
    }
    for line in found.lines {
        problems.add(line);
    }
    for run in used.absent() {
        let (first, last) = run.into_inner();
        problems.add(if first == last {
            format!("page {first} is used by nothing")
        } else {
            format!("pages {first} to {last} are used by nothing")
        });
        if problems.truncated {
            break;
        }
    }
    let truncated = problems.truncated || found.truncated;
    let mut accounting =
        Accounting { problems: problems.lines, truncated, page_count: u64::from(pages.count), ..Accounting::default() };
    for (owner, pages) in owners.into_iter().zip(page_counts) {
        match owner {
            Owner::LockByte | Owner::PointerMap => {}
            Owner::Freelist => accounting.freelist_pages = pages,
            Owner::Tree(root) => accounting.trees.push(TreePages { name: root.name, pages }),
        }
    }
    Ok(accounting)
}

/// Puts the first two that refer to each of these pages beside it.
fn name_owners(
    pages: &Pages<'_>,
    twice: &mut BTreeMap<u32, Vec<usize>>,
    stop: &mut dyn FnMut() -> Result<()>,
) -> Result<()> {
    let mut on_page = |reached: walk::Reached| {
        if let Some(owners) = twice.get_mut(&reached.page).filter(|owners| owners.len() < 2) {
            owners.push(reached.owner);
        }
        stop()
    };
    Walk::new(pages, &mut on_page)?.everywhere()
}

/// Where the trees begin, as far as the schema can be read; without that of the schema itself.
///
/// # Errors
///
/// If the file cannot be read.
pub(crate) fn roots(file: &File) -> Result<Vec<Root>> {
    match Pages::open(file)? {
        Opened::Empty | Opened::Unusable(_) => Ok(Vec::new()),
        Opened::Database(pages) => Walk::new(&pages, &mut |_| Ok(()))?.schema(),
    }
}

/// About how many pages the tree has that begins at `root`, by the pages on one way down: enough to begin with the
/// longest. What cannot be read counts for nothing.
pub(crate) fn estimated_pages(file: &File, root: u32) -> u64 {
    let Ok(Opened::Database(pages)) = Pages::open(file) else { return 0 };
    let (mut number, mut level, mut total) = (root, 1_u64, 0_u64);
    let mut buffer = Vec::new();
    for _ in 0..MAX_DEPTH {
        if number == 0 || number > pages.count || pages.read(number, &mut buffer).is_err() {
            break;
        }
        let Ok(page) = Page::parse(number, pages.header.page_size, &buffer) else { break };
        let cells = (0..page.cells).filter_map(|index| page.cell(index).ok());
        let overflow = cells.filter_map(|cell| cell.payload?.overflow).map(|(_, pages)| u64::from(pages)).sum();
        total = total.saturating_add(level.saturating_mul(1_u64.saturating_add(overflow)));
        let Some(right_child) = page.right_child else { break };
        level = level.saturating_mul(page.cells as u64 + 1);
        let middle = page.cells.checked_sub(1).and_then(|last| page.cell(last / 2).ok()?.child);
        number = middle.unwrap_or(right_child);
    }
    total.min(u64::from(pages.count))
}

/// The tables and indexes that have pages in these ranges, as far as the trees of a file that may be damaged still tell:
/// what cannot be read is left out.
pub(crate) fn owners(
    file: &File,
    ranges: &[RangeInclusive<u64>],
    stop: &mut dyn FnMut() -> Result<()>,
) -> BTreeSet<String> {
    let Ok(Opened::Database(pages)) = Pages::open(file) else { return BTreeSet::new() };
    let mut there = BTreeSet::new();
    let mut on_page = |reached: walk::Reached| {
        if ranges.iter().any(|range| range.contains(&u64::from(reached.page))) {
            there.insert(reached.owner);
        }
        stop()
    };
    let Ok(mut walk) = Walk::new(&pages, &mut on_page) else { return BTreeSet::new() };
    if let Err(e) = walk.everywhere() {
        tracing::debug!("the owners of damaged pages may be incomplete: {}", e.message());
    }
    let owners = walk.owners;
    let name = |owner: usize| match owners.get(owner) {
        Some(Owner::Tree(root)) => Some(root.name.clone()),
        Some(Owner::LockByte | Owner::PointerMap | Owner::Freelist) | None => None,
    };
    there.into_iter().filter_map(name).collect()
}

#[cfg(test)]
mod damage_tests;
#[cfg(test)]
mod tests;
