//! The database file is there, and some of its bytes are not what was written.

use std::ops::Range;

use camino::Utf8Path;
use fastrand::Rng;

use crate::drill::stage::{Moment, Stage};
use crate::drill::{damage_map, judge, kept, scratch};
use crate::error::{Error, ErrorKind, Result};
use crate::header::HEADER_BYTES;
use crate::pages::{MapOwner, OwnerKind, PageMap};
use crate::sample::{Application, DRILL_TABLE};

/// Pages that are hit, where there are so many.
const PAGES: u32 = 8;

/// Bits that flip in each of them, beside the one in its first bytes.
const FLIPS: usize = 15;

/// A tree's page begins with these: its type, and how its room is used; an overflow page with the number of the next. There is
/// no bit among them that means nothing.
const HEAD_BYTES: u64 = 8;

/// Bytes at the beginning of a file by which SQLite knows a database.
const MAGIC_BYTES: u64 = 16;

/// Damages the file, whose pages the map tells, by lot, and says what it did.
type Damage = fn(&Utf8Path, &PageMap, &mut Rng) -> Result<String>;

/// The application was killed: the WAL with its last commits is there, and belongs to what is kept of the old database.
pub(super) fn bits_in_data(stage: &mut Stage<'_>) -> Result<()> {
    rehearse(stage, "flip bits in tables", |file, pages, lot| {
        // Those of the drill's own table are in the WAL too, which would hide the damage.
        flip_in_pages(file, pages, lot, |owner| owner.kind == OwnerKind::Table && owner.name != DRILL_TABLE)
    })
}

pub(super) fn bits_in_index(stage: &mut Stage<'_>) -> Result<()> {
    shut_down(stage)?;
    rehearse(stage, "flip bits in indexes", |file, pages, lot| {
        flip_in_pages(file, pages, lot, |owner| owner.kind == OwnerKind::Index)
    })
}

pub(super) fn bits_in_header(stage: &mut Stage<'_>) -> Result<()> {
    shut_down(stage)?;
    rehearse(stage, "flip bits in the header", |file, _pages, lot| {
        flip_bits(file, 0..MAGIC_BYTES, 1, lot)?;
        flip_bits(file, MAGIC_BYTES..HEADER_BYTES as u64, FLIPS, lot)?;
        Ok(format!("{} bits of the first {HEADER_BYTES} bytes", FLIPS + 1))
    })
}

/// A run of pages, as a bad block or a lost write leaves it; one of them at least is of a table or index.
pub(super) fn pages_zeroed(stage: &mut Stage<'_>) -> Result<()> {
    shut_down(stage)?;
    rehearse(stage, "zero a run of pages", |file, pages, lot| {
        let used = |owner: &MapOwner| matches!(owner.kind, OwnerKind::Table | OwnerKind::Index);
        let first = draw(pages, 1, lot, used)?[0];
        let last = first.saturating_add(PAGES - 1).min(pages.count());
        let zeros = vec![0; pages.page_bytes as usize];
        for page in first..=last {
            scratch::overwrite(file, start_of(page, pages), &zeros)?;
        }
        Ok(format!("pages {first} to {last} of {}", pages.count()))
    })
}

/// The application is killed, and of its file only a part is left; the WAL is there as it was.
pub(super) fn truncated(stage: &mut Stage<'_>) -> Result<()> {
    rehearse(stage, "cut the database off", |file, _pages, lot| {
        let size = scratch::size(file)?;
        let left = lot.u64(size / 4..=size / 4 * 3);
        scratch::truncate(file, left)?;
        Ok(format!("{left} of {size} bytes are left, and the WAL"))
    })
}

/// The application ends: its commits are in the main file then, and no WAL hides what happens to that.
fn shut_down(stage: &mut Stage<'_>) -> Result<()> {
    stage.step("close the application", |stage| {
        Application::open(&stage.database)?.close()?;
        Ok(((), "its commits are in the main file".to_owned()))
    })
}

/// Damages the database, and recovers from that.
fn rehearse(stage: &mut Stage<'_>, name: &'static str, damage: Damage) -> Result<()> {
    let whole = stage.copy_aside("copy")?;
    let pages = damage_map::pages_of(&whole, &stage.cast.cancel)?;
    let mut lot = Rng::with_seed(stage.cast.seed);
    stage.disaster(name, |stage| damage(&stage.database, &pages, &mut lot))?;
    recover(stage, &pages, &whole)
}

/// Proves that the database is damaged, restores, and looks at what came of the old one and of the new one.
pub(super) fn recover(stage: &mut Stage<'_>, pages: &PageMap, whole: &Utf8Path) -> Result<()> {
    let before = stage.copy_aside("before")?;
    stage.report.damage = Some(damage_map::draw(pages, whole, &before, &stage.cast.cancel)?);
    prove(stage, &before, &stage.past.present)?;
    stage.recover(&before)
}

/// What lies there, damaged, is no more what had the content of `moment`: damage that nobody can see proves nothing.
pub(super) fn prove(stage: &mut Stage<'_>, damaged: &Utf8Path, moment: &Moment) -> Result<()> {
    let seen = stage.step("look at the damage", |stage| {
        let copy = kept::copy_to(damaged, &stage.aside("copy")?)?;
        let seen = judge::damage(&copy, &moment.content)?;
        let detail = judge::in_a_line(&seen);
        Ok((seen, detail))
    })?;
    if seen.is_empty() {
        stage.report.unknown.push("the damage was not seen, so nothing is proven by the restore".to_owned());
    }
    Ok(())
}

fn flip_in_pages(
    file: &Utf8Path,
    pages: &PageMap,
    lot: &mut Rng,
    wanted: impl Fn(&MapOwner) -> bool,
) -> Result<String> {
    let hit = draw(pages, PAGES as usize, lot, wanted)?;
    for page in &hit {
        let start = start_of(*page, pages);
        let head_end = start + HEAD_BYTES;
        flip_bits(file, start..head_end, 1, lot)?;
        flip_bits(file, head_end..start + u64::from(pages.page_bytes), FLIPS, lot)?;
    }
    let list: Vec<_> = hit.iter().map(u32::to_string).collect();
    Ok(format!("{} bits in each of the pages {}", FLIPS + 1, list.join(", ")))
}

/// So many pages of such owners, by lot, in order, or all if there are fewer; but one at least.
fn draw(pages: &PageMap, most: usize, lot: &mut Rng, wanted: impl Fn(&MapOwner) -> bool) -> Result<Vec<u32>> {
    let mut drawn = lot.choose_multiple(pages.pages_of(wanted), most);
    if drawn.is_empty() {
        let error = Error::new(ErrorKind::Inconclusive, "damage", "the database");
        return Err(error.because("it has no page of the kind"));
    }
    drawn.sort_unstable();
    Ok(drawn)
}

fn start_of(page: u32, pages: &PageMap) -> u64 {
    u64::from(page.saturating_sub(1)) * u64::from(pages.page_bytes)
}

/// A bit in each of so many of these bytes.
fn flip_bits(file: &Utf8Path, bytes: Range<u64>, most: usize, lot: &mut Rng) -> Result<()> {
    lot.choose_multiple(bytes, most).into_iter().try_for_each(|offset| flip_bit(file, offset, lot))
}

/// One of the bits of this byte.
pub(super) fn flip_bit(file: &Utf8Path, offset: u64, lot: &mut Rng) -> Result<()> {
    let byte = scratch::read(file, offset, 1)?;
    scratch::overwrite(file, offset, &[byte[0] ^ 1 << lot.u8(0..8)])
}
