//! What each page of a sound database is for.

use camino::Utf8Path;
use rusqlite::Connection;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    TableLeaf,
    TableInterior,
    IndexLeaf,
    IndexInterior,
    Overflow,
    FreeTrunk,
    FreeLeaf,
    PointerMap,
}

#[derive(Clone, Debug)]
pub(crate) struct Page {
    /// From 1.
    pub(crate) number: usize,
    pub(crate) class: Class,
}

pub(crate) struct Map {
    pub(crate) page_size: usize,
    pub(crate) pages: Vec<Page>,
}

pub(crate) fn field(bytes: &[u8], at: usize) -> usize {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

impl Map {
    pub(crate) fn of(path: &Utf8Path) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let connection = Connection::open(path).unwrap();
        let page_size: i64 = connection.query_row("PRAGMA page_size", [], |row| row.get(0)).unwrap();
        let page_size = usize::try_from(page_size).unwrap();
        let mut statement = connection.prepare("SELECT pageno, pagetype FROM dbstat").unwrap();
        let found = statement.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))).unwrap();
        let at = |number: usize| (number - 1) * page_size;
        let mut pages: Vec<_> = found
            .map(Result::unwrap)
            .map(|(number, kind)| {
                let number = usize::try_from(number).unwrap();
                let kind_byte = bytes[at(number) + if number == 1 { 100 } else { 0 }];
                let class = match (kind.as_str(), kind_byte) {
                    ("overflow", _) => Class::Overflow,
                    (_, 2) => Class::IndexInterior,
                    (_, 5) => Class::TableInterior,
                    (_, 10) => Class::IndexLeaf,
                    (_, 13) => Class::TableLeaf,
                    other => panic!("page {number} is {other:?}"),
                };
                Page { number, class }
            })
            .collect();
        let mut trunk = field(&bytes, 32);
        while trunk > 0 {
            pages.push(Page { number: trunk, class: Class::FreeTrunk });
            let leaves = field(&bytes, at(trunk) + 4);
            pages.extend(
                (0..leaves).map(|i| Page { number: field(&bytes, at(trunk) + 8 + 4 * i), class: Class::FreeLeaf }),
            );
            trunk = field(&bytes, at(trunk));
        }
        if field(&bytes, 52) > 0 {
            let every = page_size / 5 + 1;
            let maps = (2..=bytes.len() / page_size).step_by(every);
            pages.extend(maps.map(|number| Page { number, class: Class::PointerMap }));
        }
        pages.sort_unstable_by_key(|page| page.number);
        let map = Self { page_size, pages };
        let numbers: Vec<_> = map.pages.iter().map(|page| page.number).collect();
        assert_eq!(numbers, (1..=bytes.len() / page_size).collect::<Vec<_>>(), "the map of {path} is wrong");
        map
    }

    pub(crate) fn of_class(&self, class: Class) -> Vec<usize> {
        self.pages.iter().filter(|page| page.class == class).map(|page| page.number).collect()
    }

    /// The first byte of a page.
    pub(crate) fn at(&self, number: usize) -> usize {
        (number - 1) * self.page_size
    }

    /// The first byte of a page's b-tree header.
    pub(crate) fn tree_at(&self, number: usize) -> usize {
        self.at(number) + if number == 1 { 100 } else { 0 }
    }
}
