//! Where in a file the damage is: by the chunk list, and from there by pages and tables.

use camino::Utf8Path;

use super::DamagedRange;
use crate::digest::Digest;
use crate::manifest::Manifest;
use crate::observe::Cancel;
use crate::sqlite::Inspection;

/// Runs of chunks that differ. Empty where the file has one chunk only, or another number of them.
pub(super) fn damaged_ranges(digest: &Digest, manifest: &Manifest) -> Vec<DamagedRange> {
    let recorded = &manifest.file.chunks;
    if recorded.len() != digest.chunks.len() {
        return Vec::new();
    }
    let (chunk, page) = (manifest.file.chunk_size_bytes, u64::from(manifest.database.page_size));
    let mut ranges: Vec<DamagedRange> = Vec::new();
    for (index, _) in (0_u64..).zip(recorded.iter().zip(&digest.chunks)).filter(|(_, (a, b))| a.0 != **b) {
        let first = index * chunk;
        let last = (first + chunk).min(digest.size_bytes) - 1;
        match ranges.last_mut() {
            Some(range) if range.chunks[1] + 1 == index => {
                (range.chunks[1], range.bytes[1], range.pages[1]) = (index, last, last / page + 1);
            }
            _ => ranges.push(DamagedRange {
                chunks: [index, index],
                bytes: [first, last],
                pages: [first / page + 1, last / page + 1],
            }),
        }
    }
    ranges
}

/// The tables and indexes with pages in these ranges, as far as the damaged file's own trees still tell.
pub(super) fn owners(backup: &Utf8Path, damaged: &[DamagedRange], cancel: &Cancel) -> Vec<String> {
    let pages: Vec<_> = damaged.iter().map(|range| range.pages[0]..=range.pages[1]).collect();
    match Inspection::open(backup, cancel) {
        Ok(inspection) if !pages.is_empty() => inspection.owners_of_pages(&pages).into_iter().collect(),
        _ => Vec::new(),
    }
}
