//! The way from the header to every page that something refers to.

use std::fmt;

use super::btree::{MAX_DEPTH, Page, Payload, page_number_at};
use super::file::Pages;
use super::schema::{Root, RootKind, SchemaReader};
use super::set::PageSet;
use crate::error::Result;

/// More lines than this nobody reads, and they are bounded whatever the file.
pub(super) const MAX_PROBLEMS: usize = 100;

/// No more of a name is shown.
const MAX_NAME_CHARS: usize = 80;

/// What a page belongs to.
pub(super) enum Owner {
    LockByte,
    PointerMap,
    Freelist,
    /// A tree with its overflow pages.
    Tree(Root),
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LockByte => f.write_str("the lock bytes"),
            Self::PointerMap => f.write_str("the pointer map"),
            Self::Freelist => f.write_str("the freelist"),
            Self::Tree(Root { name, kind, .. }) => {
                let kind = match kind {
                    RootKind::Table => "table",
                    RootKind::Index => "index",
                };
                let cut: String = name.chars().take(MAX_NAME_CHARS).collect();
                write!(f, "{kind} {}", cut.escape_debug())?;
                if cut.len() < name.len() { f.write_str("...") } else { Ok(()) }
            }
        }
    }
}

/// A page to which something refers.
pub(super) struct Reached {
    pub(super) page: u32,
    /// The owner's index in [`Walk::owners`].
    pub(super) owner: usize,
    /// Something referred to it before.
    pub(super) again: bool,
}

/// Told of every page that is reached; its error ends the walk.
pub(super) type OnPage<'a> = dyn FnMut(Reached) -> Result<()> + 'a;

/// A walk through a database. A page is gone into once only, so it ends whatever the pages say.
pub(super) struct Walk<'a> {
    pages: &'a Pages<'a>,
    on_page: &'a mut OnPage<'a>,
    pub(super) used: PageSet,
    /// In the order in which the walk came to them; the same in each walk through the same pages.
    pub(super) owners: Vec<Owner>,
    /// How many pages each of them has.
    pub(super) page_counts: Vec<u64>,
    pub(super) problems: Problems,
    /// One for each level of the tree that is being walked.
    buffers: Vec<Vec<u8>>,
}

/// What is done with each row of a tree; the inner error is what is wrong with it.
type OnRow<'r> = dyn FnMut(&Payload<'_>) -> Result<Result<(), &'static str>> + 'r;

impl<'a> Walk<'a> {
    pub(super) fn new(pages: &'a Pages<'a>, on_page: &'a mut OnPage<'a>) -> Result<Self> {
        Ok(Self {
            pages,
            on_page,
            used: PageSet::new(pages.count)?,
            owners: Vec::new(),
            page_counts: Vec::new(),
            problems: Problems::default(),
            buffers: vec![Vec::new(); MAX_DEPTH],
        })
    }

    /// Goes everywhere.
    pub(super) fn everywhere(&mut self) -> Result<()> {
        if let Some(page) = self.pages.lock_byte_page() {
            self.begin(Owner::LockByte);
            self.reach(page, 1)?;
        }
        let mut pointer_map = self.pages.pointer_map().peekable();
        if pointer_map.peek().is_some() {
            self.begin(Owner::PointerMap);
            for page in pointer_map {
                self.reach(page, 1)?;
            }
        }
        if self.pages.header.freelist_first != 0 || self.pages.header.freelist_count != 0 {
            self.begin(Owner::Freelist);
            self.freelist()?;
        }
        let roots = self.schema()?;
        // With auto-vacuum the header says it: a vacuum moves no page up to there.
        let (last, said) = (roots.iter().map(|root| root.page).max().unwrap_or(1), self.pages.header.largest_root);
        if said != 0 && said != last {
            self.problems.add(format!("the last tree begins at page {last}, and the header says page {said}"));
        }
        for root in roots {
            let page = root.page;
            self.begin(Owner::Tree(root));
            self.subtree(page, 1, 0, None)?;
        }
        Ok(())
    }

    /// Goes through the schema only, and gives back where the other trees begin.
    pub(super) fn schema(&mut self) -> Result<Vec<Root>> {
        let mut reader = SchemaReader::new(self.pages);
        let root = Root::of_schema();
        let page = root.page;
        self.begin(Owner::Tree(root));
        self.subtree(page, 1, 0, Some(&mut |row| reader.row(row)))?;
        Ok(reader.roots)
    }

    fn begin(&mut self, owner: Owner) {
        self.owners.push(owner);
        self.page_counts.push(0);
    }

    /// What is walked now.
    fn owner(&self) -> String {
        self.owners.last().map(Owner::to_string).unwrap_or_default()
    }

    /// Page `from` refers to `page`. Says whether that is a page which nothing referred to before.
    fn reach(&mut self, page: u32, from: u32) -> Result<bool> {
        if page == 0 || page > self.pages.count {
            self.problem(page, format_args!("does not exist (page {from} refers to it)"));
            return Ok(false);
        }
        let is_new = self.used.insert(page);
        (self.on_page)(Reached { page, owner: self.owners.len() - 1, again: !is_new })?;
        if let Some(pages) = self.page_counts.last_mut() {
            *pages += u64::from(is_new);
        }
        Ok(is_new)
    }

    fn problem(&mut self, page: u32, what: impl fmt::Display) {
        let line = format!("page {page} of {} {what}", self.owner());
        self.problems.add(line);
    }

    /// Trunk pages, each with the numbers of many leaves, of which nothing is read.
    fn freelist(&mut self) -> Result<()> {
        let header = &self.pages.header;
        let (mut trunk, said) = (header.freelist_first, header.freelist_count);
        let (mut from, mut found) = (1, 0_u64);
        let mut page = Vec::new();
        while trunk != 0 {
            if !self.reach(trunk, from)? {
                return Ok(());
            }
            self.pages.read(trunk, &mut page)?;
            let leaves = page_number_at(&page, 4);
            if leaves > self.pages.usable_bytes / 4 - 2 {
                self.problem(trunk, format_args!("has more leaves than fit: {leaves}"));
                return Ok(());
            }
            for leaf in page[8..].as_chunks().0.iter().take(leaves as usize) {
                self.reach(u32::from_be_bytes(*leaf), trunk)?;
            }
            found += 1 + u64::from(leaves);
            (from, trunk) = (trunk, page_number_at(&page, 0));
        }
        if found != u64::from(said) {
            self.problems.add(format!("the freelist has {found} pages, and the header says {said}"));
        }
        Ok(())
    }

    fn subtree(&mut self, number: u32, from: u32, depth: usize, on_row: Option<&mut OnRow<'_>>) -> Result<()> {
        if !self.reach(number, from)? {
            return Ok(());
        }
        let Some(buffer) = self.buffers.get_mut(depth) else {
            self.problem(number, format_args!("is deeper in the tree than {MAX_DEPTH} pages"));
            return Ok(());
        };
        let mut buffer = std::mem::take(buffer);
        self.pages.read(number, &mut buffer)?;
        let walked = match Page::parse(number, self.pages.header.page_size, &buffer) {
            Ok(page) => self.cells(number, &page, depth, on_row),
            Err(what) => {
                self.problem(number, what);
                Ok(())
            }
        };
        self.buffers[depth] = buffer;
        walked
    }

    fn cells(&mut self, number: u32, page: &Page<'_>, depth: usize, mut on_row: Option<&mut OnRow<'_>>) -> Result<()> {
        for index in 0..page.cells {
            let cell = match page.cell(index) {
                Ok(cell) => cell,
                Err(what) => {
                    self.problem(number, format_args!("has a cell (number {index}) that {what}"));
                    continue;
                }
            };
            if let Some(payload) = &cell.payload {
                if let Some((first, pages)) = payload.overflow {
                    self.overflow(number, first, pages)?;
                }
                if let Some(on_row) = on_row.as_deref_mut().filter(|_| page.has_rows())
                    && let Err(what) = on_row(payload)?
                {
                    self.problem(number, format_args!("has a cell (number {index}) that {what}"));
                }
            }
            if let Some(child) = cell.child {
                self.subtree(child, number, depth + 1, on_row.as_deref_mut())?;
            }
        }
        match page.right_child {
            Some(child) => self.subtree(child, number, depth + 1, on_row),
            None => Ok(()),
        }
    }

    /// The chain of pages with the rest of a payload, of which only the links are read.
    fn overflow(&mut self, number: u32, first: u32, pages: u32) -> Result<()> {
        let (mut next, mut from) = (first, number);
        for done in 0..pages {
            if next == 0 {
                self.problem(number, format_args!("has an overflow chain of {done} pages in the place of {pages}"));
                return Ok(());
            }
            if !self.reach(next, from)? {
                return Ok(());
            }
            (from, next) = (next, self.pages.next_in_chain(next)?);
        }
        if next != 0 {
            let what = format_args!("has an overflow chain that goes on at page {next} after its {pages} pages");
            self.problem(number, what);
        }
        Ok(())
    }
}

/// Lines for people, not too many.
#[derive(Default)]
pub(super) struct Problems {
    pub(super) lines: Vec<String>,
    pub(super) truncated: bool,
}

impl Problems {
    pub(super) fn add(&mut self, line: String) {
        if self.lines.len() < MAX_PROBLEMS {
            self.lines.push(line);
        } else {
            self.truncated = true;
        }
    }
}
