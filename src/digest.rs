//! BLAKE3 of a file and of its chunks, in one pass, on all cores, with bounded memory; or while the file is written.
//!
//! BLAKE3 is a tree over the content. The chaining values of aligned chunks whose size is a power of two are inner
//! nodes of that tree, so they merge into the hash of the whole file: the list cannot disagree with the hash, and it
//! tells *which* chunk is damaged. `docs/manifest.md` specifies both.

mod chunk_set;
mod draft;
mod hex32;

use std::fs::File;
use std::io;
use std::num::NonZero;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use blake3::{Hash, Hasher};
use camino::Utf8Path;

pub use chunk_set::ChunkSet;
pub(crate) use draft::{Draft, digest_while};
pub use hex32::Hex32;

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
    Draft::default().finish(file, path, overlay, progress)
}

/// The chaining values of some chunks of a file that has several and `size_bytes` in all, in no order. `progress` is as for
/// [`digest_file`].
///
/// # Errors
///
/// [`ErrorKind::Failed`] if one of them cannot be read, and whatever `progress` returned.
pub(crate) fn digest_chunks(
    file: &File,
    path: &Utf8Path,
    size_bytes: u64,
    chunks: Vec<u64>,
    progress: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<Vec<(u64, ChainingValue)>> {
    Pass::new(file, None, size_bytes, chunks, 0).run(path, progress).map_err(|failure| failure.of(path))
}

fn digest_small(file: &File, size_bytes: u64, overlay: Option<Overlay<'_>>) -> io::Result<Digest> {
    let mut hasher = Hasher::new();
    hash_range(file, 0..size_bytes, overlay, &mut vec![0; BUFFER_BYTES], &mut hasher)?;
    Ok(Digest { size_bytes, blake3: hasher.finalize(), chunks: Vec::new() })
}

fn panicked(path: &Utf8Path) -> Error {
    Error::new(ErrorKind::Internal, "hash", path).because("a hashing thread panicked")
}

enum Failure {
    Io(io::Error),
    Stopped(Error),
}

impl Failure {
    fn of(self, path: &Utf8Path) -> Error {
        match self {
            Self::Io(e) => Error::io("read", path, e),
            Self::Stopped(e) => e,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Stopped(error)
    }
}

/// One pass over some chunks of a file, shared by the threads that work on it.
struct Pass<'a> {
    file: &'a File,
    overlay: Option<Overlay<'a>>,
    size_bytes: u64,
    wanted: Vec<u64>,
    next: AtomicUsize,
    done_bytes: AtomicU64,
    stop: AtomicBool,
}

impl<'a> Pass<'a> {
    /// `done_bytes` is what the progress begins with.
    fn new(file: &'a File, overlay: Option<Overlay<'a>>, size_bytes: u64, wanted: Vec<u64>, done_bytes: u64) -> Self {
        let (next, done_bytes, stop) = (AtomicUsize::new(0), AtomicU64::new(done_bytes), AtomicBool::new(false));
        Self { file, overlay, size_bytes, wanted, next, done_bytes, stop }
    }

    /// Hashes what is wanted, on all cores.
    fn run(
        &self,
        path: &Utf8Path,
        progress: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Vec<(u64, ChainingValue)>, Failure> {
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
        std::thread::scope(|scope| {
            let others = 1..threads.min(self.wanted.len());
            // Where no more threads may be had, this one does it all.
            let help = |_| std::thread::Builder::new().spawn_scoped(scope, || self.work(&mut |_| Ok(()))).ok();
            let others: Vec<_> = others.filter_map(help).collect();
            let mut found = self.work(&mut *progress)?;
            for other in others {
                found.extend(other.join().map_err(|_panic| panicked(path))??);
            }
            Ok(found)
        })
    }

    /// Hashes chunks until none is left. The first failure stops every thread.
    fn work(&self, progress: &mut dyn FnMut(u64) -> Result<()>) -> Result<Vec<(u64, ChainingValue)>, Failure> {
        let mut found = Vec::new();
        let mut buffer = Buffer::new();
        while let Some(index) = self.wanted.get(self.next.fetch_add(1, Ordering::Relaxed))
            && !self.stop.load(Ordering::Relaxed)
        {
            let value = self.chunk(*index, buffer.bytes(), progress);
            found.push((*index, value.inspect_err(|_| self.stop.store(true, Ordering::Relaxed))?));
        }
        Ok(found)
    }

    fn chunk(
        &self,
        index: u64,
        buffer: &mut [u8],
        progress: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<ChainingValue, Failure> {
        let chunk_bytes = chunk_size_bytes(self.size_bytes);
        let offset = index * chunk_bytes;
        let range = offset..self.size_bytes.min(offset + chunk_bytes);
        let length = range.end - range.start;
        let value = chunk_value(self.file, range, self.overlay, buffer).map_err(Failure::Io)?;
        progress(self.done_bytes.fetch_add(length, Ordering::Relaxed) + length)?;
        Ok(value)
    }
}

/// What one thread reads into: on a page boundary, since the kernel copies there a tenth faster than to where the
/// allocator begins.
struct Buffer(Vec<u8>);

impl Buffer {
    fn new() -> Self {
        Self(vec![0; BUFFER_BYTES + PAGE_BYTES])
    }

    fn bytes(&mut self) -> &mut [u8] {
        let start = self.0.as_ptr().align_offset(PAGE_BYTES);
        &mut self.0[start..start + BUFFER_BYTES]
    }
}

/// The chaining value of an aligned chunk, or of the rest of the file behind the last one.
fn chunk_value(
    file: &File,
    range: Range<u64>,
    overlay: Option<Overlay<'_>>,
    buffer: &mut [u8],
) -> io::Result<ChainingValue> {
    let mut hasher = Hasher::new();
    hasher.set_input_offset(range.start);
    hash_range(file, range, overlay, buffer, &mut hasher)?;
    Ok(hasher.finalize_non_root())
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
mod tests;
