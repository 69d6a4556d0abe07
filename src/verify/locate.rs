//! Where in a file the damage is: by the chunk list, and from there by pages and tables.

use camino::Utf8Path;

use super::DamagedRange;
use crate::digest::Digest;
use crate::manifest::Manifest;
use crate::observe::Cancel;
use crate::pages;
use crate::storage::open_regular;

/// Runs of chunks that differ. Empty where the file has one chunk only, or another number of them.
pub(super) fn damaged_ranges(digest: &Digest, manifest: &Manifest) -> Vec<DamagedRange> {
    let recorded = &manifest.file.chunks;
    if recorded.len() != digest.chunks.len() {
        return Vec::new();
    }
    let differ = (0..).zip(recorded.iter().zip(&digest.chunks)).filter(|(_, (a, b))| a.0 != **b);
    ranges(differ.map(|(index, _)| index), manifest)
}

/// Runs of these chunks, which are in ascending order, of a file that has the recorded size.
pub(super) fn ranges(chunks: impl Iterator<Item = u64>, manifest: &Manifest) -> Vec<DamagedRange> {
    let (chunk, page) = (manifest.file.chunk_size_bytes, u64::from(manifest.database.page_size));
    let mut ranges: Vec<DamagedRange> = Vec::new();
    for index in chunks {
        let first = index * chunk;
        let last = (first + chunk).min(manifest.file.size_bytes) - 1;
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
    let ranges: Vec<_> = damaged.iter().map(|range| range.pages[0]..=range.pages[1]).collect();
    match open_regular(backup) {
        Ok(file) if !ranges.is_empty() => {
            pages::owners(&file, &ranges, &mut || cancel.check("verify", backup)).into_iter().collect()
        }
        Ok(_) | Err(_) => Vec::new(),
    }
}
