//! Damage, by chance: aimed at what the bytes are for, so that most of it is not just an unreadable page.

use super::Chance;
use super::map::{Class, Map, field};

/// One thing that is done to the bytes of a sound database, and what it was.
pub(crate) fn at_random(bytes: &mut Vec<u8>, map: &Map, random: &mut Chance) -> String {
    match random.index(12) {
        0 => header(bytes, random),
        1 => file(bytes, map, random),
        _ => {
            let mut classes: Vec<_> = map.pages.iter().map(|page| page.class).collect();
            classes.sort_unstable();
            classes.dedup();
            let class = random.one_of(&classes);
            let number = random.one_of(&map.of_class(class));
            let what = page(bytes, map, class, number, random);
            format!("{what} of page {number} ({class:?})")
        }
    }
}

/// A byte of the database's header. The first 16 would only make it no database, and the page size another one.
fn header(bytes: &mut [u8], random: &mut Chance) -> String {
    let at = 18 + random.index(82);
    let value = random.one_of(&[0, 1, 2, 3, 4, 5, 127, 255]);
    bytes[at] = if bytes[at] == value { value ^ 1 } else { value };
    format!("byte {at} of the header is {}", bytes[at])
}

fn file(bytes: &mut Vec<u8>, map: &Map, random: &mut Chance) -> String {
    let pages = bytes.len() / map.page_size;
    match random.index(4) {
        0 => {
            let left = 1 + random.index(pages - 1);
            bytes.truncate(left * map.page_size);
            format!("cut to {left} pages")
        }
        1 => {
            let left = map.page_size + random.index(bytes.len() - map.page_size);
            bytes.truncate(left);
            format!("cut to {left} bytes")
        }
        2 => {
            bytes.resize(bytes.len() + map.page_size, 0);
            "a page of zeros at the end".to_owned()
        }
        _ => {
            let more = 1 + random.index(map.page_size - 1);
            bytes.resize(bytes.len() + more, 7);
            format!("{more} bytes more at the end")
        }
    }
}

fn page(bytes: &mut [u8], map: &Map, class: Class, number: usize, random: &mut Chance) -> String {
    let (at, size) = (map.at(number), map.page_size);
    match random.index(8) {
        0 => {
            // Of page 1 only the tree.
            bytes[map.tree_at(number)..at + size].fill(0);
            return "zeros instead".to_owned();
        }
        1 => {
            let from = 1 + random.index(map.pages.len());
            if number > 1 && from != number {
                let copy = bytes[map.at(from)..map.at(from) + size].to_vec();
                bytes[at..at + size].copy_from_slice(&copy);
            }
            return format!("page {from} instead");
        }
        2 => {
            let offset = random.index(map.at(number) + size - map.tree_at(number));
            bytes[map.tree_at(number) + offset] ^= 1 << random.index(8);
            return format!("one bit at {offset}");
        }
        _ => {}
    }
    match class {
        Class::TableLeaf | Class::TableInterior | Class::IndexLeaf | Class::IndexInterior => {
            tree(bytes, map, class, number, random)
        }
        Class::Overflow => format!("next overflow page {}", set_page(bytes, at, number, map, random)),
        Class::FreeTrunk => match random.index(3) {
            0 => format!("next trunk {}", set_page(bytes, at, number, map, random)),
            1 => {
                let count = field(bytes, at + 4);
                let wrong = random.one_of(&[0, count + 1, count.saturating_sub(1), size / 4, 1 << 30]);
                set(bytes, at + 4, wrong);
                format!("{wrong} leaves instead of {count}")
            }
            _ => {
                // Damage on damage: the count may be anything.
                let leaf = random.index(field(bytes, at + 4).clamp(1, size / 4 - 2));
                format!("leaf {leaf} is {}", set_page(bytes, at + 8 + 4 * leaf, number, map, random))
            }
        },
        Class::FreeLeaf => {
            bytes[at..at + size].fill(0xa5);
            "other content".to_owned()
        }
        Class::PointerMap => {
            let entry = random.index((size / 5).min(map.pages.len()));
            if random.index(2) == 0 {
                bytes[at + 5 * entry] = u8::try_from(random.index(7)).unwrap();
                format!("entry {entry} has type {}", bytes[at + 5 * entry])
            } else {
                format!("entry {entry} has parent {}", set_page(bytes, at + 5 * entry + 1, number, map, random))
            }
        }
    }
}

/// The header of a b-tree page, its cell pointers, and the beginnings of its cells.
fn tree(bytes: &mut [u8], map: &Map, class: Class, number: usize, random: &mut Chance) -> String {
    let (at, page_at) = (map.tree_at(number), map.at(number));
    let interior = matches!(class, Class::TableInterior | Class::IndexInterior);
    let two = |bytes: &[u8], at: usize| usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
    // Damage on damage: the count may be more than there is room for.
    let cells = two(bytes, at + 3).min((map.page_size - 112) / 2);
    let pointers = at + if interior { 12 } else { 8 };
    let pointer = pointers + 2 * random.index(cells.max(1));
    match random.index(if interior { 9 } else { 8 }) {
        0 => {
            bytes[at] = random.one_of(&[0, 1, 2, 5, 10, 13, 14, 255]);
            format!("type {}", bytes[at])
        }
        1 => {
            let wrong = random.one_of(&[0, cells + 1, cells.saturating_sub(1), 0xffff]);
            set_two(bytes, at + 3, wrong);
            format!("{wrong} cells instead of {cells}")
        }
        2 => {
            let (field, name) = random.one_of(&[(1, "first free block"), (5, "content area"), (6, "fragments")]);
            let value = random.one_of(&[0, 1, 8, 100, map.page_size - 4, 0xffff]);
            set_two(bytes, at + field, value);
            format!("{name} {value}")
        }
        3 if cells > 1 => {
            let other = pointers + 2 * random.index(cells);
            let (one, two) = (two(bytes, pointer), two(bytes, other));
            set_two(bytes, pointer, two);
            set_two(bytes, other, one);
            format!("cells at {one} and {two} swapped")
        }
        4 if cells > 1 => {
            let other = two(bytes, pointers + 2 * random.index(cells));
            set_two(bytes, pointer, other);
            format!("the cell at {other} twice")
        }
        5 => {
            let value = random.one_of(&[0, 1, 99, map.page_size - 1, 0xffff]);
            set_two(bytes, pointer, value);
            format!("a cell at {value}")
        }
        8 => format!("right child {}", set_page(bytes, at + 8, number, map, random)),
        _ if cells > 0 => {
            // Payload size, rowid, left child, sizes and types of columns lie here.
            let cell = page_at + two(bytes, pointer);
            let offset = random.index(16);
            let Some(byte) = bytes.get_mut(cell + offset) else { return "nothing".to_owned() };
            *byte = random.one_of(&[0, 1, byte.wrapping_add(1), byte.wrapping_sub(1), 0x7f, 0x80, 0xff]);
            format!("byte {offset} of the cell at {} is {}", cell - page_at, *byte)
        }
        _ => "nothing".to_owned(),
    }
}

fn set(bytes: &mut [u8], at: usize, value: usize) {
    bytes[at..at + 4].copy_from_slice(&u32::try_from(value).unwrap().to_be_bytes());
}

fn set_two(bytes: &mut [u8], at: usize, value: usize) {
    bytes[at..at + 2].copy_from_slice(&u16::try_from(value).unwrap_or(u16::MAX).to_be_bytes());
}

/// Another page number where one stands.
fn set_page(bytes: &mut [u8], at: usize, own: usize, map: &Map, random: &mut Chance) -> usize {
    let last = map.pages.len();
    let other = 1 + random.index(last);
    let value = random.one_of(&[0, 1, 2, own, other, last, last + 1, 0x7fff_ffff, 0xffff_ffff]);
    set(bytes, at, value);
    value
}
