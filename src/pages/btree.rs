//! One page of a b-tree (<https://sqlite.org/fileformat2.html#b_tree_pages>). Nothing of it is believed: whatever the bytes
//! say, the answer is a cell that lies within the page, or why there is none.

/// Nobody needs more: a tree of this depth has more rows than there are numbers for them. SQLite allows no more either.
pub(super) const MAX_DEPTH: usize = 20;

/// The smallest cell, padding included.
const LEAST_CELL_BYTES: usize = 4;

/// A page of a b-tree.
pub(super) struct Page<'b> {
    /// The usable bytes.
    bytes: &'b [u8],
    is_leaf: bool,
    /// Whether it is of a table with rowids: only its leaves have payloads then.
    is_table: bool,
    pub(super) cells: usize,
    pointers_at: usize,
    content_at: usize,
    /// The highest keys are there; only an interior page has it.
    pub(super) right_child: Option<u32>,
}

/// One cell of a page.
pub(super) struct Cell<'b> {
    /// The page with the keys before it, in an interior page.
    pub(super) child: Option<u32>,
    /// The record, where the page has records.
    pub(super) payload: Option<Payload<'b>>,
}

/// A record, as far as it is in the page itself.
pub(super) struct Payload<'b> {
    pub(super) size_bytes: u32,
    pub(super) local: &'b [u8],
    /// The first page of the rest, and how many pages that takes.
    pub(super) overflow: Option<(u32, u32)>,
}

impl<'b> Page<'b> {
    /// `bytes` are the usable ones of page `number`.
    pub(super) fn parse(number: u32, page_size: u32, bytes: &'b [u8]) -> Result<Self, String> {
        // The first page begins with the header of the file.
        let at = if number == 1 { 100 } else { 0 };
        let (is_leaf, is_table) = match bytes[at] {
            0x02 => (false, false),
            0x05 => (false, true),
            0x0a => (true, false),
            0x0d => (true, true),
            other => return Err(format!("is no page of a tree: its type is {other:#04x}")),
        };
        let cells = number_at::<2>(bytes, at + 3);
        let pointers_at = at + if is_leaf { 8 } else { 12 };
        // A cell takes 6 bytes at least, its pointer included.
        if cells > (page_size as usize - 8) / 6 || pointers_at + 2 * cells > bytes.len() {
            return Err(format!("has more cells than fit: {cells}"));
        }
        let content_at = match number_at::<2>(bytes, at + 5) {
            0 => 65_536,
            at => at,
        };
        let right_child = (!is_leaf).then(|| page_number_at(bytes, at + 8));
        Ok(Self { bytes, is_leaf, is_table, cells, pointers_at, content_at, right_child })
    }

    /// Whether a cell of this page is a row of a table.
    pub(super) fn has_rows(&self) -> bool {
        self.is_leaf && self.is_table
    }

    /// The cell at `index`, which is below [`Self::cells`].
    pub(super) fn cell(&self, index: usize) -> Result<Cell<'b>, &'static str> {
        let at = number_at::<2>(self.bytes, self.pointers_at + 2 * index);
        if at < self.content_at || at + LEAST_CELL_BYTES > self.bytes.len() {
            return Err("points outside of the page's cells");
        }
        let mut rest = &self.bytes[at..];
        let mut child = None;
        if !self.is_leaf {
            child = Some(page_number_at(rest, 0));
            rest = &rest[4..];
        }
        let fitted = if self.is_table && !self.is_leaf {
            skip_varint(rest).map(|_key| None)
        } else {
            self.payload(rest).map(Some)
        };
        let payload = fitted.ok_or("extends over the end of the page")?;
        Ok(Cell { child, payload })
    }

    /// The payload at the start of `bytes`, which reach to the end of the page; `None` if it does not fit.
    fn payload(&self, bytes: &'b [u8]) -> Option<Payload<'b>> {
        let (size_bytes, mut bytes) = payload_size(bytes)?;
        if self.is_table {
            bytes = skip_varint(bytes)?;
        }
        let usable = self.bytes.len();
        let most = if self.is_table { usable - 35 } else { (usable - 12) * 64 / 255 - 23 };
        let size = size_bytes as usize;
        if size <= most {
            return Some(Payload { size_bytes, local: bytes.get(..size)?, overflow: None });
        }
        let least = (usable - 12) * 32 / 255 - 23;
        let filling = least + (size - least) % (usable - 4);
        let (local, rest) = bytes.split_at_checked(if filling <= most { filling } else { least })?;
        let first = u32::from_be_bytes(*rest.first_chunk()?);
        let pages = u32::try_from((size - local.len()).div_ceil(usable - 4)).ok()?;
        Some(Payload { size_bytes, local, overflow: Some((first, pages)) })
    }
}

/// A big-endian number of at most four bytes.
fn number_at<const BYTES: usize>(bytes: &[u8], at: usize) -> usize {
    bytes[at..at + BYTES].iter().fold(0, |number, byte| number << 8 | usize::from(*byte))
}

pub(super) fn page_number_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The size of a payload and what comes behind it. What does not fit into 32 bits is cut off, as SQLite does.
fn payload_size(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let mut size = 0;
    for (index, byte) in bytes.iter().take(9).enumerate() {
        size = size << 7 | u32::from(byte & 0x7f);
        if *byte < 0x80 || index == 8 {
            return Some((size, &bytes[index + 1..]));
        }
    }
    None
}

/// What comes behind a varint of at most nine bytes.
fn skip_varint(bytes: &[u8]) -> Option<&[u8]> {
    let length = bytes.iter().take(8).position(|byte| *byte < 0x80).map_or(9, |last| last + 1);
    bytes.get(length..)
}
