//! A set of page numbers, one bit each.

use std::ops::RangeInclusive;

use crate::error::{Error, ErrorKind, Result};

const BITS: u32 = u64::BITS;

/// Which of the pages 1 to `count` were seen.
pub(super) struct PageSet {
    words: Vec<u64>,
    count: u32,
}

impl PageSet {
    /// With none of `count` pages. Too little memory for them is no damage.
    pub(super) fn new(count: u32) -> Result<Self> {
        let length = count as usize / BITS as usize + 1;
        let mut words = Vec::new();
        words.try_reserve_exact(length).map_err(|e| {
            Error::new(ErrorKind::Inconclusive, "account for the pages of", "the database file").because(e)
        })?;
        words.resize(length, 0);
        Ok(Self { words, count })
    }

    /// Adds a page, which must be one of them. Says whether it is new.
    pub(super) fn insert(&mut self, page: u32) -> bool {
        let (word, bit) = (&mut self.words[(page / BITS) as usize], 1 << (page % BITS));
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }

    /// Runs of pages that were never added.
    pub(super) fn absent(&self) -> impl Iterator<Item = RangeInclusive<u32>> + '_ {
        let mut from = 1;
        std::iter::from_fn(move || {
            let first = self.find(from, false)?;
            let end = self.find(first, true).unwrap_or(u64::from(self.count) + 1);
            from = end;
            let page = |number: u64| u32::try_from(number).ok();
            Some(page(first)?..=page(end - 1)?)
        })
    }

    /// The first page from `from` on that is in the set, or not in it.
    fn find(&self, from: u64, present: bool) -> Option<u64> {
        let mut word = usize::try_from(from / u64::from(BITS)).ok()?;
        let mut mask = u64::MAX << (from % u64::from(BITS));
        while let Some(bits) = self.words.get(word) {
            let wanted = mask & if present { *bits } else { !*bits };
            if wanted != 0 {
                let page = word as u64 * u64::from(BITS) + u64::from(wanted.trailing_zeros());
                return (page <= u64::from(self.count)).then_some(page);
            }
            (word, mask) = (word + 1, u64::MAX);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Would catch a run that is cut or joined where one word ends and the next begins.
        #[test]
        fn runs_of_absent_pages_are_what_a_list_of_all_says(
            count in 1_u32..300,
            present in proptest::collection::btree_set(1_u32..300, 0..300),
        ) {
            let mut set = PageSet::new(count).unwrap();
            let present: std::collections::BTreeSet<u32> = present.into_iter().filter(|page| *page <= count).collect();
            for page in &present {
                prop_assert!(set.insert(*page));
                prop_assert!(!set.insert(*page));
            }
            let runs: Vec<_> = set.absent().collect();
            let absent: Vec<u32> = (1..=count).filter(|page| !present.contains(page)).collect();
            prop_assert_eq!(runs.iter().cloned().flatten().collect::<Vec<_>>(), absent);
            prop_assert!(runs.windows(2).all(|two| two[0].end() + 1 < *two[1].start()));
        }
    }
}
