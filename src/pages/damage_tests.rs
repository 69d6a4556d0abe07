//! Each kind of damage is found and named, and SQLite's own check finds it too.

use super::tests::{Scene, Small};

/// Would catch a tree that nobody walks, and one that does not exist.
#[test]
fn lost_and_impossible_roots_are_found() {
    let small = Small::new("");
    let lost = small.problems_after_sql("DELETE FROM sqlite_schema WHERE name = 't_word'");
    assert!(lost.iter().all(|line| line.ends_with("used by nothing")) && !lost.is_empty(), "{lost:?}");
    let beyond = small.problems_after_sql("UPDATE sqlite_schema SET rootpage = 9999 WHERE name = 'gone'");
    assert!(beyond.contains(&"page 9999 of table gone does not exist (page 1 refers to it)".to_owned()), "{beyond:?}");
    let negative = small.problems_after_sql("UPDATE sqlite_schema SET rootpage = -3 WHERE name = 'gone'");
    assert!(negative[0].ends_with("has a tree that begins at a page that cannot be"), "{negative:?}");
    let word = small.problems_after_sql("UPDATE sqlite_schema SET rootpage = 'x' WHERE name = 'gone'");
    assert!(word[0].ends_with("is no row of a schema"), "{word:?}");
}

#[test]
fn orphaned_pages_in_a_row_are_one_line() {
    let small = Small::new("");
    let (leaf, pages) = (small.page("name = 'big' AND path = '/'"), [small.chain(1), small.chain(2)].concat());
    let (first, last) = (pages[0], pages[pages.len() - 1]);
    assert_eq!(pages, (first..=last).collect::<Vec<_>>(), "the test needs a run");
    // The leaf has no cells any more.
    let problems = small.problems_after(&[(leaf, 3, &[0, 0])]);
    assert_eq!(problems, [format!("pages {first} to {last} are used by nothing")]);
    let problems = small.problems_after(&[(last - 1, 0, &[0; 4])]);
    assert!(problems.contains(&format!("page {last} is used by nothing")), "{problems:?}");
}

#[test]
fn doubly_used_page_is_named_with_both_owners() {
    let small = Small::new("");
    let (root, leaf) = (small.page("name = 't' AND path = '/'"), small.page("name = 't_word' AND pagetype = 'leaf'"));
    let own = small.read(root, 8);
    let problems = small.problems_after(&[(root, 8, &leaf.to_be_bytes())]);
    let twice = format!("page {leaf} is used twice: by table t and by index t_word");
    assert_eq!(problems, [twice, format!("page {own} is used by nothing")]);
    // One and the same tree, and the page itself.
    let problems = small.problems_after(&[(root, 8, &root.to_be_bytes())]);
    assert_eq!(problems[0], format!("page {root} is used twice by table t"));
}

#[test]
fn child_or_cell_that_cannot_be_is_named() {
    let small = Small::new("");
    let (root, leaf) = (small.page("name = 't' AND path = '/'"), small.page("name = 't' AND pagetype = 'leaf'"));
    for beyond in [0, 9999, u32::MAX] {
        let problems = small.problems_after(&[(root, 8, &beyond.to_be_bytes())]);
        assert_eq!(problems[0], format!("page {beyond} of table t does not exist (page {root} refers to it)"));
    }
    for pointer in [[0, 3], [0xff, 0xff], [3, 0xfd]] {
        let problems = small.problems_after(&[(leaf, 8, &pointer)]);
        let expected = format!("page {leaf} of table t has a cell (number 0) that points outside of the page's cells");
        assert_eq!(problems, [expected]);
    }
    let problems = small.problems_after(&[(leaf, 3, &[0xff, 0xff])]);
    assert_eq!(problems, [format!("page {leaf} of table t has more cells than fit: 65535")]);
    let problems = small.problems_after(&[(leaf, 0, &[0x0c])]);
    assert_eq!(problems, [format!("page {leaf} of table t is no page of a tree: its type is 0x0c")]);
    let last = small.read(leaf, 8) >> 16;
    let problems = small.problems_after(&[(leaf, last as usize, &[0x87, 0x00])]);
    let expected = format!("page {leaf} of table t has a cell (number 0) that extends over the end of the page");
    assert_eq!(problems, [expected]);
}

#[test]
fn overflow_chain_of_another_length_or_place_is_named() {
    let small = Small::new("");
    let leaf = small.page("name = 'big' AND path = '/'");
    let (one, two) = (small.chain(1), small.chain(2));
    assert!(one.len() == 4 && two.len() == 4, "{one:?} {two:?}");
    let short = small.problems_after(&[(one[1], 0, &[0; 4])]);
    assert!(short[0].ends_with("has an overflow chain of 2 pages in the place of 4"), "{short:?}");
    assert!(short[0].starts_with(&format!("page {leaf} of table big")), "{short:?}");
    let long = small.problems_after(&[(one[3], 0, &two[0].to_be_bytes())]);
    let goes_on = format!("has an overflow chain that goes on at page {} after its 4 pages", two[0]);
    assert_eq!(long, [format!("page {leaf} of table big {goes_on}")]);
    let looping = small.problems_after(&[(one[2], 0, &one[0].to_be_bytes())]);
    assert_eq!(looping[0], format!("page {} is used twice by table big", one[0]));
    let shared = small.problems_after(&[(one[2], 0, &two[3].to_be_bytes())]);
    assert_eq!(shared[0], format!("page {} is used twice by table big", two[3]));
    let beyond = small.problems_after(&[(one[2], 0, &9999_u32.to_be_bytes())]);
    assert_eq!(beyond[0], format!("page 9999 of table big does not exist (page {} refers to it)", one[2]));
}

#[test]
fn damage_of_the_freelist_is_named() {
    let small = Small::new("");
    let (trunk, count) = (small.read(1, 32), small.read(1, 36));
    assert!(count > 3);
    let problems = small.problems_after(&[(1, 36, &[0, 0, 0, 2])]);
    assert_eq!(problems, [format!("the freelist has {count} pages, and the header says 2")]);
    let problems = small.problems_after(&[(1, 32, &[0; 4])]);
    assert_eq!(problems[0], format!("the freelist has 0 pages, and the header says {count}"));
    let problems = small.problems_after(&[(trunk, 0, &trunk.to_be_bytes())]);
    assert_eq!(problems, [format!("page {trunk} is used twice by the freelist")]);
    let problems = small.problems_after(&[(trunk, 8, &9999_u32.to_be_bytes())]);
    assert_eq!(problems[0], format!("page 9999 of the freelist does not exist (page {trunk} refers to it)"));
    let problems = small.problems_after(&[(trunk, 4, &[0, 0, 1, 0])]);
    assert_eq!(problems[0], format!("page {trunk} of the freelist has more leaves than fit: 256"));
    let leaf = small.page("name = 't' AND pagetype = 'leaf'");
    let problems = small.problems_after(&[(trunk, 8, &leaf.to_be_bytes())]);
    assert_eq!(problems[0], format!("page {leaf} is used twice: by the freelist and by table t"));
}

#[test]
fn page_of_the_pointer_map_belongs_to_nothing_else() {
    let small = Small::new("PRAGMA auto_vacuum=2;");
    let (root, last) = (small.page("name = 't' AND path = '/'"), small.read(1, 52));
    let problems = small.problems_after(&[(root, 8, &[0, 0, 0, 2])]);
    assert_eq!(problems[0], "page 2 is used twice: by the pointer map and by table t");
    let problems = small.problems_after(&[(1, 52, &[0, 0, 0, 77])]);
    assert_eq!(problems, [format!("the last tree begins at page {last}, and the header says page 77")]);
}

/// Would catch the file's size taken for the page count, and the other way round.
#[test]
fn page_count_is_the_one_that_sqlite_goes_by() {
    let small = Small::new("");
    let pages = small.read(1, 28);
    let more = (pages + 1).to_be_bytes();
    let problems = small.problems_after(&[(1, 28, &more)]);
    assert_eq!(problems, [format!("the header says {} pages, and the file has {pages}", pages + 1)]);
    let mut grown = small.bytes.clone();
    grown.extend([7; 3000]);
    let scene = Scene::of_bytes(&grown);
    assert_eq!((scene.account().problems.len(), scene.stock_check().as_str()), (0, "ok"), "behind the end");
    // Written by a SQLite before 3.7.0: the change counter has gone on.
    grown[27] ^= 1;
    let scene = Scene::of_bytes(&grown);
    assert_ne!(scene.stock_check(), "ok");
    assert_eq!(scene.account().problems, [format!("pages {} to {} are used by nothing", pages + 1, pages + 3)]);
}

#[test]
fn tree_that_is_too_deep_ends() {
    let small = Small::new("");
    let mut bytes = small.bytes.clone();
    let root = small.page("name = 'gone' AND path = '/'");
    let mut page = [0; 1024];
    (page[0], page[5]) = (5, 4);
    let end = u32::try_from(bytes.len() / 1024).unwrap();
    page[8..12].copy_from_slice(&(end + 1).to_be_bytes());
    bytes[(root as usize - 1) * 1024..][..1024].copy_from_slice(&page);
    for child in end + 2..end + 60 {
        page[8..12].copy_from_slice(&child.to_be_bytes());
        bytes.extend(page);
    }
    bytes[28..32].fill(0);
    let scene = Scene::of_bytes(&bytes);
    assert_ne!(scene.stock_check(), "ok");
    let problems = scene.account().problems;
    assert_eq!(problems[0], format!("page {} of table gone is deeper in the tree than 20 pages", end + 20));
}

#[test]
fn lines_are_bounded_and_a_hostile_name_stays_on_one() {
    let name = format!("evil\n{}", "x".repeat(3000));
    let scene =
        Scene::with(&format!("CREATE TABLE \"{name}\"(a, b); INSERT INTO \"{name}\" VALUES(1, zeroblob(900000))"));
    let mut bytes = std::fs::read(&scene.db).unwrap();
    bytes[4096..8192].fill(0xff);
    let problems = Scene::of_bytes(&bytes).account().problems;
    let cut = format!("page 2 of table evil\\n{}... is no page of a tree: its type is 0xff", "x".repeat(75));
    assert_eq!(problems[0], cut);
    // Every second page free, and then the freelist forgotten.
    let sql = "PRAGMA page_size=512; CREATE TABLE t(a INTEGER PRIMARY KEY, b);
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 600)
        INSERT INTO t SELECT i, zeroblob(300) FROM n; DELETE FROM t WHERE a % 2 = 0";
    let mut bytes = std::fs::read(&Scene::with(sql).db).unwrap();
    bytes[32..40].fill(0);
    let accounting = Scene::of_bytes(&bytes).account();
    assert!(accounting.truncated && accounting.problems.len() == 100, "{}", accounting.problems.len());
}

/// Would catch a name of 100 MB that is kept in memory, all of it out of one page.
#[test]
fn schema_without_end_is_inconclusive() {
    let small = Small::new("");
    let mut bytes = small.bytes.clone();
    let loops = small.chain(1)[0];
    bytes[(loops as usize - 1) * 1024..][..4].copy_from_slice(&loops.to_be_bytes());
    // A row of 2,040,000,103 bytes, 103 of them in its page: the formula's least.
    let mut row = vec![0x87, 0xcc, 0xdf, 0xdc, 0x67, 1];
    // Its first column is text of 100,000,000 bytes.
    row.extend([9, 0xdf, 0xaf, 0x84, 0x0d, 0, 0, 0, 0]);
    row.resize(6 + 103, 0);
    row.extend(loops.to_be_bytes());
    bytes[105..107].copy_from_slice(&300_u16.to_be_bytes());
    bytes[108..110].copy_from_slice(&300_u16.to_be_bytes());
    bytes[300..][..row.len()].copy_from_slice(&row);
    let file = std::fs::File::open(Scene::of_bytes(&bytes).db).unwrap();
    let refused = super::account(&file, &mut || Ok(())).unwrap_err();
    assert_eq!(refused.kind(), crate::error::ErrorKind::Inconclusive, "{refused:?}");
    assert!(refused.message().contains("larger than"), "{refused:?}");
}
