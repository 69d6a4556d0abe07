//! Whose each page of a database file is.

use std::fs::File;

use super::file::{Opened, Pages};
use super::schema::RootKind;
use super::walk::{self, Owner, Walk};
use crate::error::{Error, ErrorKind, Result};

/// Stands for a page that nothing refers to.
const NOBODY: u32 = u32::MAX;

/// What sort of thing has pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OwnerKind {
    /// The table of tables, which begins on the first page.
    Schema,
    /// A table with its overflow pages.
    Table,
    /// An index with its overflow pages.
    Index,
    /// What SQLite keeps for itself: the freelist, the pointer map, the lock bytes.
    Housekeeping,
}

/// Something that has pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MapOwner {
    pub(crate) name: String,
    pub(crate) kind: OwnerKind,
}

/// The owner of every page: four bytes of memory a page, beside what the walk takes.
#[derive(Clone, Debug)]
pub(crate) struct PageMap {
    pub(crate) page_bytes: u32,
    /// In the order of the schema.
    pub(crate) owners: Vec<MapOwner>,
    /// The place in `owners` of each page, the first one's first.
    owner_of: Vec<u32>,
}

impl PageMap {
    /// Reads it from a sound file that nobody writes. `stop` is asked all the while; its error ends it.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or is no database, there is not enough memory, or `stop` says so.
    pub(crate) fn read(file: &File, stop: &mut dyn FnMut() -> Result<()>) -> Result<Self> {
        let failed = |kind, why: String| Error::new(kind, "map the pages of", "the database file").because(why);
        let pages = match Pages::open(file)? {
            Opened::Empty => return Err(failed(ErrorKind::Failed, "it is empty".to_owned())),
            Opened::Unusable(why) => return Err(failed(ErrorKind::Failed, why)),
            Opened::Database(pages) => pages,
        };
        let mut owner_of = Vec::new();
        owner_of.try_reserve_exact(pages.count as usize).map_err(|e| failed(ErrorKind::Inconclusive, e.to_string()))?;
        owner_of.resize(pages.count as usize, NOBODY);
        let mut on_page = |reached: walk::Reached| {
            if let Some(owner) = owner_of.get_mut(reached.page as usize - 1).filter(|_| !reached.again) {
                *owner = u32::try_from(reached.owner).unwrap_or(NOBODY);
            }
            stop()
        };
        let mut walk = Walk::new(&pages, &mut on_page)?;
        walk.everywhere()?;
        let owners = walk.owners.into_iter().map(MapOwner::of).collect();
        Ok(Self { page_bytes: pages.header.page_size, owners, owner_of })
    }

    /// How many pages there are.
    pub(crate) fn count(&self) -> u32 {
        // As many as were counted in 32 bits.
        u32::try_from(self.owner_of.len()).unwrap_or(u32::MAX)
    }

    /// The place in `owners` of a page's owner, counted from 1; `None` if nothing refers to it.
    pub(crate) fn owner(&self, page: u32) -> Option<usize> {
        let owner = *self.owner_of.get(page.checked_sub(1)? as usize)?;
        (owner != NOBODY).then_some(owner as usize)
    }

    /// The pages whose owner is as asked for, in order.
    pub(crate) fn pages_of(&self, wanted: impl Fn(&MapOwner) -> bool) -> impl Iterator<Item = u32> {
        (1..=self.count())
            .filter(move |page| self.owner(*page).and_then(|owner| self.owners.get(owner)).is_some_and(&wanted))
    }
}

impl MapOwner {
    fn of(owner: Owner) -> Self {
        let own = |name: &str| Self { name: name.to_owned(), kind: OwnerKind::Housekeeping };
        match owner {
            Owner::LockByte => own("lock bytes"),
            Owner::PointerMap => own("pointer map"),
            Owner::Freelist => own("free"),
            Owner::Tree(root) if root.page == 1 => Self { name: root.name, kind: OwnerKind::Schema },
            Owner::Tree(root) => {
                let kind = match root.kind {
                    RootKind::Table => OwnerKind::Table,
                    RootKind::Index => OwnerKind::Index,
                };
                Self { name: root.name, kind }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::tests::{Scene, everything_there_is, pages_of_trees};
    use super::*;

    /// Would catch a page that is another's than SQLite says, and one that is nobody's in a sound file.
    #[test]
    fn map_says_of_every_page_whose_it_is() {
        for auto_vacuum in 0..3 {
            let settings = format!("PRAGMA page_size=1024; PRAGMA auto_vacuum={auto_vacuum};");
            let scene = Scene::with(&(settings + &everything_there_is(1024)));
            let map = PageMap::read(&File::open(&scene.db).unwrap(), &mut || Ok(())).unwrap();
            assert_eq!((map.page_bytes, map.count()), (1024, scene.number("PRAGMA page_count")));
            let [_, dbstat] = pages_of_trees(&scene.db);
            for (name, pages) in &dbstat {
                assert_eq!(map.pages_of(|owner| owner.name == *name).collect::<BTreeSet<_>>(), *pages, "{name}");
            }
            let own = map.pages_of(|owner| owner.kind == OwnerKind::Housekeeping).count();
            assert_eq!(dbstat.values().map(BTreeSet::len).sum::<usize>() + own, map.count() as usize);
            let name_of = |page| map.owners[map.owner(page).unwrap()].name.as_str();
            assert_eq!(name_of(1), "sqlite_schema");
            assert_eq!(name_of(2) == "pointer map", auto_vacuum != 0);
            assert_eq!([map.owner(0), map.owner(map.count() + 1)], [None, None]);
        }
    }
}
