//! The map of a damaged file: its pages in reading order, in the colours of the tables that they belong to.

use maud::{Markup, html};

use super::words::{bytes, damaged_pages, first, plain};
use crate::drill::report::{DamageMap, PageOwner};

/// Cells of a map at most; in a larger file a cell stands for several pages.
const MOST_CELLS: u32 = 600;
/// Owners with colours of their own.
const COLOURS: usize = 8;
/// Owners in the legend at most.
const MOST_OWNERS: usize = 24;

/// A cell: whose pages, and whether one of them is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cell {
    owner: Option<usize>,
    is_damaged: bool,
}

pub(super) fn render(map: &DamageMap) -> Markup {
    let per_cell = map.pages.div_ceil(MOST_CELLS).max(1);
    let order = order(&map.owners);
    let colour = |owner: usize| order.iter().position(|at| *at == owner).filter(|place| *place < COLOURS);
    let class = |owner: Option<usize>| match owner.and_then(colour) {
        Some(place) => format!("p{place}"),
        None => "px".to_owned(),
    };
    let damaged: u64 = map.owners.iter().map(|owner| u64::from(owner.damaged)).sum();
    let (shown, rest) = first(&order, MOST_OWNERS);
    html! {
        div.map {
            h4 { "Where " (plain(&map.file)) " is damaged" }
            p.quiet {
                (damaged) " of " (map.pages) " pages of " (bytes(u64::from(map.page_bytes))) ": " (damaged_pages(map)) ". "
                @if per_cell > 1 { "Each square is " (per_cell) " pages." } @else { "Each square is a page." }
            }
            div.cells aria-hidden="true" {
                @for cell in cells(map, per_cell) {
                    i.(class(cell.owner)).hit[cell.is_damaged] {}
                }
            }
            ul.legend {
                @for owner in shown.iter().copied() {
                    @if let Some(PageOwner { name, pages, damaged }) = map.owners.get(owner) {
                        li {
                            i.(class(Some(owner))).hit[*damaged > 0] aria-hidden="true" {}
                            span { b { (plain(name)) } " " (pages) " pages" @if *damaged > 0 { ", " strong.bad { (damaged) " damaged" } } }
                        }
                    }
                }
                @if rest > 0 { li { i.px aria-hidden="true" {} span { (rest) " others" } } }
            }
        }
    }
}

/// Places of the owners: what is damaged first, then what is large.
fn order(owners: &[PageOwner]) -> Vec<usize> {
    let mut order: Vec<_> = (0..owners.len()).collect();
    order.sort_by_key(|at| {
        owners.get(*at).map(|owner| (std::cmp::Reverse(owner.damaged), std::cmp::Reverse(owner.pages)))
    });
    order
}

/// A cell shows a damaged page if it has one, else its first one.
fn cells(map: &DamageMap, per_cell: u32) -> Vec<Cell> {
    let mut cells = Vec::new();
    let mut runs = map.runs.iter().peekable();
    let mut begin: u32 = 1;
    while begin <= map.pages {
        let end = begin.saturating_add(per_cell - 1).min(map.pages);
        let mut cell = Cell { owner: None, is_damaged: false };
        while let Some(run) = runs.peek() {
            if run.first > end {
                break;
            }
            if run.last >= begin && (cell.owner.is_none() || (run.is_damaged && !cell.is_damaged)) {
                cell = Cell { owner: Some(run.owner), is_damaged: run.is_damaged };
            }
            if run.last > end {
                break;
            }
            runs.next();
        }
        cells.push(cell);
        let Some(next) = end.checked_add(1) else { break };
        begin = next;
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drill::report::PageRun;

    fn map(pages: u32, runs: &[(u32, u32, usize, bool)]) -> DamageMap {
        let run = |&(first, last, owner, is_damaged): &_| PageRun { first, last, owner, is_damaged };
        let runs = runs.iter().map(run).collect();
        DamageMap { file: "a.db".to_owned(), page_bytes: 4096, pages, pages_per_cell: 1, owners: Vec::new(), runs }
    }

    /// Would catch a damaged page that is lost among the sound ones of its cell, and cells that are off by one.
    #[test]
    fn one_damaged_page_marks_its_cell_and_no_other() {
        let map = map(10, &[(1, 4, 0, false), (5, 5, 1, true), (6, 10, 0, false)]);
        let hits = |per_cell| cells(&map, per_cell).iter().map(|cell| cell.is_damaged).collect::<Vec<_>>();
        assert_eq!(hits(4), [false, true, false]);
        assert_eq!(hits(1).iter().position(|hit| *hit), Some(4));
        assert_eq!(cells(&map, 4)[1].owner, Some(1));
        assert_eq!(cells(&map, 10).len(), 1);
    }

    /// Would catch a map that is as large as the file, an endless loop at the last page number, and one over runs that
    /// contradict the number of pages.
    #[test]
    fn odd_maps_are_bounded() {
        let cells = |map: &DamageMap| super::cells(map, map.pages.div_ceil(MOST_CELLS).max(1));
        assert!(cells(&map(u32::MAX, &[(u32::MAX, u32::MAX, 7, true)])).len() <= MOST_CELLS as usize);
        assert_eq!(cells(&map(0, &[(1, 9, 0, true)])), []);
        assert_eq!(cells(&map(2, &[(9, 3, 0, true), (2, 1, 5, false)])).len(), 2);
    }
}
