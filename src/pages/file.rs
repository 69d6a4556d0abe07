//! A database file as numbered pages.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use crate::error::{Error, Result};
use crate::header::Header;

/// SQLite takes its locks on bytes from here on, and puts nothing into the page that has them.
const LOCK_BYTE: u64 = 1 << 30;

/// Fewer usable bytes than this SQLite does not accept; every formula for payloads relies on it.
const LEAST_USABLE_BYTES: u32 = 480;

/// What an open file turned out to be.
pub(super) enum Opened<'a> {
    /// A file of no bytes: a database without a table.
    Empty,
    /// Why it is no database.
    Unusable(String),
    /// A database.
    Database(Pages<'a>),
}

/// The pages of an open database, counted from 1.
pub(super) struct Pages<'a> {
    file: &'a File,
    pub(super) header: Header,
    /// How many there are: as the header says, where that counts and the file is as long, else by the file's size.
    pub(super) count: u32,
    /// Bytes of a page that SQLite uses; what is reserved is at its end.
    pub(super) usable_bytes: u32,
    /// Set if the header says more pages than the file has.
    pub(super) missing: Option<u32>,
}

impl<'a> Pages<'a> {
    /// Looks at the header.
    pub(super) fn open(file: &'a File) -> Result<Opened<'a>> {
        let size_bytes = file.metadata().map_err(failed)?.len();
        if size_bytes == 0 {
            return Ok(Opened::Empty);
        }
        let header = match Header::read(file).map_err(failed)? {
            Ok(header) => header,
            Err(why) => return Ok(Opened::Unusable(why.to_string())),
        };
        let usable_bytes = header.page_size - u32::from(header.reserved_bytes);
        if usable_bytes < LEAST_USABLE_BYTES {
            let (reserved, size) = (header.reserved_bytes, header.page_size);
            return Ok(Opened::Unusable(format!("the header reserves {reserved} bytes of each page of {size}")));
        }
        // A page that the end of the file cuts counts, as it does for SQLite.
        let in_file = u32::try_from(size_bytes.div_ceil(u64::from(header.page_size))).unwrap_or(u32::MAX);
        let said = header.valid_page_count();
        let count = said.unwrap_or(in_file).min(in_file);
        let missing = said.filter(|said| *said > in_file);
        Ok(Opened::Database(Self { file, header, count, usable_bytes, missing }))
    }

    /// Reads the usable bytes of a page; what is behind the end of the file is zero.
    pub(super) fn read(&self, page: u32, buffer: &mut Vec<u8>) -> Result<()> {
        buffer.resize(self.usable_bytes as usize, 0);
        self.fill(page, buffer)
    }

    /// Reads the page number that an overflow page or a trunk of the freelist begins with: the next one, or 0.
    pub(super) fn next_in_chain(&self, page: u32) -> Result<u32> {
        let mut next = [0; 4];
        self.fill(page, &mut next)?;
        Ok(u32::from_be_bytes(next))
    }

    fn fill(&self, page: u32, buffer: &mut [u8]) -> Result<()> {
        let start = u64::from(page.saturating_sub(1)) * u64::from(self.header.page_size);
        let mut done = 0;
        while done < buffer.len() {
            match self.file.read_at(&mut buffer[done..], start + done as u64) {
                Ok(0) => {
                    buffer[done..].fill(0);
                    break;
                }
                Ok(bytes) => done += bytes,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(failed(e)),
            }
        }
        Ok(())
    }

    /// The page with the lock bytes, where the file is long enough to have it.
    pub(super) fn lock_byte_page(&self) -> Option<u32> {
        u32::try_from(LOCK_BYTE / u64::from(self.header.page_size) + 1).ok().filter(|page| *page <= self.count)
    }

    /// The pages of the pointer map: none without auto-vacuum, else one at page 2 and one before each run of pages whose
    /// entries fit into it. The lock-byte page is never one: the page behind it is, in its place.
    pub(super) fn pointer_map(&self) -> impl Iterator<Item = u32> + use<> {
        let lock_byte_page = self.lock_byte_page();
        let entries = u64::from(self.usable_bytes / 5);
        let end = if self.header.largest_root == 0 { 0 } else { u64::from(self.count) };
        (0..)
            .map(move |map: u64| 2 + map * (entries + 1))
            .take_while(move |page| *page <= end)
            .filter_map(|page| u32::try_from(page).ok())
            .map(move |page| if Some(page) == lock_byte_page { page.saturating_add(1) } else { page })
            .filter(move |page| u64::from(*page) <= end)
    }
}

/// The caller knows the file's name and puts it around this.
fn failed(e: io::Error) -> Error {
    Error::io("read", "the database file", e)
}
