//! BLAKE3 of a file and of its chunks, in one pass, on all cores, with bounded memory.
//!
//! BLAKE3 is a tree over the content. The chaining values of aligned chunks whose size is a power of two are inner
//! nodes of that tree, so they merge into the hash of the whole file: the list cannot disagree with the hash, and it
//! tells *which* chunk is damaged. `docs/manifest.md` specifies both.

use std::fs::File;
use std::io;
use std::num::NonZero;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use blake3::{Hash, Hasher};
use camino::Utf8Path;

use crate::error::{Error, ErrorKind, Result};

/// No chunk is smaller.
const MIN_CHUNK_BYTES: u64 = 1 << 20;

/// No list is longer.
pub const MAX_CHUNKS: u64 = 1024;

/// What one thread holds in memory. Reads of this size keep readahead and the hash's vector code busy.
const BUFFER_BYTES: usize = 512 << 10;

/// The alignment of that.
const PAGE_BYTES: usize = 4096;

/// The digest of a file's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    /// How many bytes were hashed.
    pub size_bytes: u64,
    /// BLAKE3 of all of them, the very value that `b3sum` prints.
    pub blake3: Hash,
    /// The chaining value of each chunk of [`chunk_size_bytes`], in file order; empty where there is only one chunk.
    pub chunks: Vec<ChainingValue>,
}

/// Bytes that are hashed in the place of the file's own.
#[derive(Clone, Copy, Debug)]
pub struct Overlay<'a> {
    /// Where they begin in the file.
    pub offset: u64,
    /// The bytes.
    pub bytes: &'a [u8],
}

/// The smallest power of two from 1 MiB up that cuts a file of `size_bytes` into at most [`MAX_CHUNKS`] chunks.
#[must_use]
pub fn chunk_size_bytes(size_bytes: u64) -> u64 {
    let mut size = MIN_CHUNK_BYTES;
    while size_bytes.div_ceil(size) > MAX_CHUNKS {
        size *= 2;
    }
    size
}

/// The hash of the whole file from its chunk list; `None` if the list has not the length that a file of `size_bytes`
/// needs (an empty list can only be a file of one chunk, whose hash it does not hold).
#[must_use]
pub fn merge_chunks(chunks: &[ChainingValue], size_bytes: u64) -> Option<Hash> {
    let count = size_bytes.div_ceil(chunk_size_bytes(size_bytes));
    if count < 2 || chunks.len() as u64 != count {
        return None;
    }
    let (left, right) = chunks.split_at(left_length(chunks.len()));
    Some(merge_subtrees_root(&merge(left), &merge(right), Mode::Hash))
}

fn merge(chunks: &[ChainingValue]) -> ChainingValue {
    if let [one] = chunks {
        return *one;
    }
    let (left, right) = chunks.split_at(left_length(chunks.len()));
    merge_subtrees_non_root(&merge(left), &merge(right), Mode::Hash)
}

/// BLAKE3's left subtree is the largest power of two that leaves something for the right one.
fn left_length(count: usize) -> usize {
    count.next_power_of_two() / 2
}

/// Hashes all of `file`, in which `overlay` stands in for the bytes at its place. `progress` gets the bytes done so far
/// and stops the pass with an error. The file's cursor is neither used nor moved.
///
/// # Errors
///
/// [`ErrorKind::Failed`] if the file cannot be read to the end that it had at first, and whatever `progress` returned.
pub fn digest_file(
    file: &File,
    path: &Utf8Path,
    overlay: Option<Overlay<'_>>,
    progress: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<Digest> {
    let failed = |e: io::Error| Error::io("read", path, e);
    let size_bytes = file.metadata().map_err(failed)?.len();
    let count = size_bytes.div_ceil(chunk_size_bytes(size_bytes));
    if count < 2 {
        let mut hasher = Hasher::new();
        let mut buffer = vec![0; BUFFER_BYTES];
        hash_range(file, 0..size_bytes, overlay, &mut buffer, &mut hasher).map_err(failed)?;
        progress(size_bytes)?;
        return Ok(Digest { size_bytes, blake3: hasher.finalize(), chunks: Vec::new() });
    }

    let pass = Pass::new(file, overlay, size_bytes);
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get) as u64;
    let mut found = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads.min(count)).map(|_| scope.spawn(|| pass.work(&mut |_| Ok(())))).collect();
        let mut found = pass.work(&mut *progress)?;
        for other in others {
            let bug = || Error::new(ErrorKind::Internal, "hash", path).because("a hashing thread panicked");
            found.extend(other.join().map_err(|_panic| bug())??);
        }
        Ok::<_, Failure>(found)
    })
    .map_err(|failure| match failure {
        Failure::Io(e) => failed(e),
        Failure::Stopped(e) => e,
    })?;
    found.sort_unstable_by_key(|(index, _)| *index);
    let chunks: Vec<_> = found.into_iter().map(|(_, value)| value).collect();
    let blake3 = merge_chunks(&chunks, size_bytes)
        .ok_or_else(|| Error::new(ErrorKind::Internal, "hash", path).because("a chunk is missing"))?;
    progress(size_bytes)?;
    Ok(Digest { size_bytes, blake3, chunks })
}

enum Failure {
    Io(io::Error),
    Stopped(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Stopped(error)
    }
}

/// One pass over a file of several chunks, shared by the threads that work on it.
struct Pass<'a> {
    file: &'a File,
    overlay: Option<Overlay<'a>>,
    size_bytes: u64,
    chunk_bytes: u64,
    count: u64,
    next: AtomicU64,
    done_bytes: AtomicU64,
    stop: AtomicBool,
}

impl<'a> Pass<'a> {
    fn new(file: &'a File, overlay: Option<Overlay<'a>>, size_bytes: u64) -> Self {
        let chunk_bytes = chunk_size_bytes(size_bytes);
        let count = size_bytes.div_ceil(chunk_bytes);
        let (next, done_bytes, stop) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
        Self { file, overlay, size_bytes, chunk_bytes, count, next, done_bytes, stop }
    }

    /// Hashes chunks until none is left. The first failure stops every thread.
    fn work(&self, progress: &mut dyn FnMut(u64) -> Result<()>) -> Result<Vec<(u64, ChainingValue)>, Failure> {
        let mut found = Vec::new();
        // On a page boundary: the kernel copies into it a tenth faster than to where the allocator begins.
        let mut space = vec![0; BUFFER_BYTES + PAGE_BYTES];
        let start = space.as_ptr().align_offset(PAGE_BYTES);
        let buffer = &mut space[start..start + BUFFER_BYTES];
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if index >= self.count || self.stop.load(Ordering::Relaxed) {
                return Ok(found);
            }
            let value = self.chunk(index, buffer, progress);
            found.push((index, value.inspect_err(|_| self.stop.store(true, Ordering::Relaxed))?));
        }
    }

    fn chunk(
        &self,
        index: u64,
        buffer: &mut [u8],
        progress: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<ChainingValue, Failure> {
        let offset = index * self.chunk_bytes;
        let length = self.chunk_bytes.min(self.size_bytes - offset);
        let mut hasher = Hasher::new();
        hasher.set_input_offset(offset);
        hash_range(self.file, offset..offset + length, self.overlay, buffer, &mut hasher).map_err(Failure::Io)?;
        progress(self.done_bytes.fetch_add(length, Ordering::Relaxed) + length)?;
        Ok(hasher.finalize_non_root())
    }
}

fn hash_range(
    file: &File,
    range: Range<u64>,
    overlay: Option<Overlay<'_>>,
    buffer: &mut [u8],
    hasher: &mut Hasher,
) -> io::Result<()> {
    let mut at = range.start;
    while at < range.end {
        let length = buffer.len().min(usize::try_from(range.end - at).unwrap_or(usize::MAX));
        let part = &mut buffer[..length];
        file.read_exact_at(part, at)?;
        if let Some(overlay) = overlay {
            lay_over(part, at, overlay);
        }
        hasher.update(part);
        at += length as u64;
    }
    Ok(())
}

fn lay_over(buffer: &mut [u8], at: u64, overlay: Overlay<'_>) {
    for (position, byte) in (overlay.offset..).zip(overlay.bytes) {
        let place = position.checked_sub(at).and_then(|index| buffer.get_mut(usize::try_from(index).ok()?));
        if let Some(place) = place {
            *place = *byte;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn digest(bytes: &[u8], overlay: Option<Overlay<'_>>) -> Digest {
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, bytes).unwrap();
        digest_file(&file, "x".into(), overlay, &mut |_| Ok(())).unwrap()
    }

    fn content(size: usize) -> Vec<u8> {
        let mut bytes = vec![0; size];
        Hasher::new().update(b"content").finalize_xof().fill(&mut bytes);
        bytes
    }

    #[test]
    fn chunk_size_is_the_smallest_that_gives_at_most_1024() {
        let mib = 1 << 20;
        assert_eq!(chunk_size_bytes(0), mib);
        assert_eq!(chunk_size_bytes(1024 * mib), mib);
        assert_eq!(chunk_size_bytes(1024 * mib + 1), 2 * mib);
        assert_eq!(chunk_size_bytes(u64::MAX / 2), 1 << 53);
    }

    #[test]
    fn the_hash_is_plain_blake3_at_every_chunk_boundary() {
        for size in [0, 1, 1023, 1 << 20, (1 << 20) + 1, 2 << 20, (3 << 20) - 1, 5 << 20, (7 << 20) + 4096] {
            let bytes = content(size);
            let digest = digest(&bytes, None);
            assert_eq!(digest.blake3, blake3::hash(&bytes), "size {size}");
            assert_eq!(digest.chunks.is_empty(), size <= 1 << 20, "size {size}");
            if size > 1 << 20 {
                assert_eq!(merge_chunks(&digest.chunks, size as u64), Some(digest.blake3), "size {size}");
            }
        }
    }

    #[test]
    fn one_changed_byte_changes_just_its_chunk() {
        let mut bytes = content(5 << 20);
        let before = digest(&bytes, None);
        bytes[(3 << 20) + 7] ^= 1;
        let after = digest(&bytes, None);
        let changed: Vec<_> = (0..5).filter(|i| before.chunks[*i] != after.chunks[*i]).collect();
        assert_eq!(changed, [3]);
        assert_ne!(before.blake3, after.blake3);
    }

    #[test]
    fn a_list_of_another_length_never_merges() {
        let digest = digest(&content(3 << 20), None);
        assert_eq!(merge_chunks(&digest.chunks[..2], 3 << 20), None);
        assert_eq!(merge_chunks(&[], 1 << 20), None);
    }

    #[test]
    fn an_error_of_the_observer_stops_the_pass() {
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, &content(8 << 20)).unwrap();
        let stop = Error::new(ErrorKind::Interrupted, "hash", "x");
        let mut stop = Some(stop);
        let result = digest_file(&file, "x".into(), None, &mut |_| stop.take().map_or(Ok(()), Err));
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Interrupted);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn an_overlay_hashes_as_if_it_were_written(size in 1_usize..3_000_000, at in 0_usize..3_000_000, n in 1_usize..40) {
            let mut bytes = content(size);
            let at = at % size;
            let overlay = vec![0xa5; n.min(size - at)];
            let seen = digest(&bytes, Some(Overlay { offset: at as u64, bytes: &overlay }));
            bytes[at..at + overlay.len()].copy_from_slice(&overlay);
            prop_assert_eq!(seen.blake3, blake3::hash(&bytes));
        }
    }
}
