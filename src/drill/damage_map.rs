//! The map of a damaged file: whose its pages are, by the file as it was before, and which of them differ from that.

use std::fs::File;
use std::io::{BufReader, Read};

use camino::{Utf8Path, Utf8PathBuf};

use super::report::{DamageMap, PageOwner, PageRun};
use crate::error::{Error, Result};
use crate::observe::Cancel;
use crate::pages::PageMap;
use crate::storage::open_regular;

/// No report has more runs than this: the pages of a file with more of them are taken together.
const MOST_RUNS: u32 = 10_000;

/// No more of a name goes into a report.
const MOST_NAME_CHARS: usize = 80;

/// Whose the pages of a sound file are.
pub(super) fn pages_of(file: &Utf8Path, cancel: &Cancel) -> Result<PageMap> {
    let open = open_regular(file).map_err(|e| Error::io("open", file, e))?;
    PageMap::read(&open, &mut || cancel.check("drill", file))
}

/// The map of `damaged`, which was as `whole` before, whose pages are `pages`.
pub(super) fn draw(pages: &PageMap, whole: &Utf8Path, damaged: &Utf8Path, cancel: &Cancel) -> Result<DamageMap> {
    let name = |name: &str| name.chars().take(MOST_NAME_CHARS).collect();
    let owners = pages.owners.iter().map(|owner| owner.name.as_str()).chain(["unknown"]);
    let mut owners: Vec<_> = owners.map(|owner| PageOwner { name: name(owner), pages: 0, damaged: 0 }).collect();
    let unknown = owners.len() - 1;
    let differing = differing_pages(whole, damaged, pages.page_bytes, cancel)?;
    let count = pages.count();
    let pages_per_cell = count.div_ceil(MOST_RUNS).max(1);
    let mut runs: Vec<PageRun> = Vec::new();
    let mut first = 1;
    while first <= count {
        let last = first.saturating_add(pages_per_cell - 1).min(count);
        let mut cell = PageRun { first, last, owner: unknown, is_damaged: false };
        let mut there = Vec::new();
        for page in first..=last {
            let owner = pages.owner(page).unwrap_or(unknown);
            let is_damaged = differing.binary_search(&page).is_ok();
            owners[owner].pages += 1;
            owners[owner].damaged += u32::from(is_damaged);
            cell.is_damaged |= is_damaged;
            there.push(owner);
        }
        cell.owner = most_frequent(there).unwrap_or(unknown);
        match runs.last_mut().filter(|run| run.owner == cell.owner && run.is_damaged == cell.is_damaged) {
            Some(run) => run.last = last,
            None => runs.push(cell),
        }
        first = last + 1;
    }
    if owners[unknown].pages == 0 {
        owners.truncate(unknown);
    }
    let file = damaged.file_name().unwrap_or_default().to_owned();
    Ok(DamageMap { file, page_bytes: pages.page_bytes, pages: count, owners, runs, pages_per_cell })
}

/// The pages of `whole` that `other` has not, or not so, in order.
pub(super) fn differing_pages(
    whole: &Utf8Path,
    other: &Utf8Path,
    page_bytes: u32,
    cancel: &Cancel,
) -> Result<Vec<u32>> {
    let (mut whole, mut other) = (Blocks::open(whole, page_bytes)?, Blocks::open(other, page_bytes)?);
    let mut differing = Vec::new();
    for page in 1.. {
        let block = whole.next()?;
        if block.is_empty() {
            break;
        }
        if block != other.next()? {
            differing.push(page);
        }
        cancel.check("drill", &other.path)?;
    }
    Ok(differing)
}

fn most_frequent(mut owners: Vec<usize>) -> Option<usize> {
    owners.sort_unstable();
    owners.chunk_by(|one, next| one == next).max_by_key(|same| same.len()).map(|same| same[0])
}

/// A file, page by page.
struct Blocks {
    path: Utf8PathBuf,
    file: BufReader<File>,
    page_bytes: u64,
    page: Vec<u8>,
}

impl Blocks {
    fn open(path: &Utf8Path, page_bytes: u32) -> Result<Self> {
        let file = open_regular(path).map_err(|e| Error::io("open", path, e))?;
        let file = BufReader::with_capacity(1 << 20, file);
        Ok(Self { path: path.to_owned(), file, page_bytes: u64::from(page_bytes), page: Vec::new() })
    }

    /// The next page; behind the end of the file it is empty.
    fn next(&mut self) -> Result<&[u8]> {
        self.page.clear();
        let read = self.file.by_ref().take(self.page_bytes).read_to_end(&mut self.page);
        read.map_err(|e| Error::io("read", &self.path, e))?;
        Ok(&self.page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drill::scratch;
    use crate::sample::{SampleOptions, create};

    struct Scene {
        _folder: tempfile::TempDir,
        whole: Utf8PathBuf,
        damaged: Utf8PathBuf,
    }

    impl Scene {
        fn new(rows: u64, page_size: u32) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = |name| Utf8PathBuf::from_path_buf(folder.path().join(name)).unwrap();
            let (whole, damaged) = (path("a.db"), path("b.db"));
            create(&whole, &SampleOptions { rows, page_size, ..SampleOptions::default() }).unwrap();
            scratch::copy(&whole, &damaged).unwrap();
            Self { _folder: folder, whole, damaged }
        }

        fn draw(&self) -> DamageMap {
            let cancel = Cancel::default();
            draw(&pages_of(&self.whole, &cancel).unwrap(), &self.whole, &self.damaged, &cancel).unwrap()
        }
    }

    fn damaged_pages(map: &DamageMap) -> Vec<u32> {
        map.runs.iter().filter(|run| run.is_damaged).flat_map(|run| run.first..=run.last).collect()
    }

    /// Would catch a page that is counted by bytes wrongly, at both ends of the file above all.
    #[test]
    fn pages_that_differ_are_damaged_and_no_others() {
        let scene = Scene::new(50, 1024);
        let map = scene.draw();
        assert_eq!(damaged_pages(&map), [0; 0]);
        let last = map.pages;
        let end = u64::from(last) * 1024;
        assert_eq!(scratch::size(&scene.damaged).unwrap(), end);
        for offset in [1023, 3 * 1024, end - 1] {
            let byte = scratch::read(&scene.damaged, offset, 1).unwrap();
            scratch::overwrite(&scene.damaged, offset, &[!byte[0]]).unwrap();
        }
        assert_eq!(damaged_pages(&scene.draw()), [1, 4, last]);
        scratch::copy(&scene.whole, &scene.damaged).unwrap();
        // The page that the cut goes through has lost something, too.
        scratch::truncate(&scene.damaged, end - 1025).unwrap();
        assert_eq!(damaged_pages(&scene.draw()), [last - 1, last]);
    }

    /// Would catch a report that grows with the file, and one that loses damage where it is cut.
    #[test]
    fn pages_of_a_large_file_are_taken_together() {
        let scene = Scene::new(2_200, 512);
        let page = 7_001;
        scratch::overwrite(&scene.damaged, (page - 1) * 512 + 8, &[0xff; 8]).unwrap();
        let map = scene.draw();
        assert!(map.pages > MOST_RUNS, "the test needs more than {MOST_RUNS} pages: {}", map.pages);
        assert_eq!(map.pages_per_cell, 2);
        assert!(map.runs.len() <= MOST_RUNS as usize);
        assert_eq!(damaged_pages(&map), [7_001, 7_002]);
        assert_eq!(map.runs.iter().map(|run| run.last - run.first + 1).sum::<u32>(), map.pages);
        assert_eq!(map.owners.iter().map(|owner| owner.pages).sum::<u32>(), map.pages);
        assert_eq!(map.owners.iter().map(|owner| owner.damaged).sum::<u32>(), 1, "the numbers stay exact");
    }
}
