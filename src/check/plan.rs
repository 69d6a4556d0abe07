//! Which parts a check has, and in which order they are begun.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::{CheckOptions, Depth, ForeignKeys};
use crate::error::ErrorKind;
use crate::pages;
use crate::sqlite::{FinishedFile, Halt, Inspection, Modules, ToCheck};

/// A part of the check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// SQLite's whole check, where its parts cannot be named.
    Whole,
    /// SQLite's accounts of all pages, and its look at each row by itself.
    Quick,
    /// Our own accounts of all pages.
    Pages,
    /// A table with its indexes.
    Table(String),
    /// What a virtual table says of itself.
    Virtual(String),
    /// A full-text index against its table, with what it says of itself.
    FullText(String),
    /// Rows that refer to rows of other tables.
    References(String),
    /// The fingerprint of the schema.
    Schema,
    /// The fingerprint of a table.
    Content(String),
}

impl Task {
    pub(super) fn name(&self) -> String {
        match self {
            Self::Whole => "integrity".to_owned(),
            Self::Quick => "quick check".to_owned(),
            Self::Pages => "pages".to_owned(),
            Self::Table(name) | Self::Virtual(name) => format!("integrity {name}"),
            Self::FullText(name) => format!("fts {name}"),
            Self::References(name) => format!("foreign keys {name}"),
            Self::Schema => "schema".to_owned(),
            Self::Content(name) => format!("fingerprint {name}"),
        }
    }

    /// Whether it says nothing of what `PRAGMA integrity_check` and the page accounting say.
    pub(super) fn is_beside(&self) -> bool {
        match self {
            Self::Whole | Self::Quick | Self::Pages | Self::Table(_) | Self::Virtual(_) | Self::FullText(_) => false,
            Self::References(_) | Self::Schema | Self::Content(_) => true,
        }
    }

    /// What the connection of SQLite has to know; `None` if the part is none of SQLite's.
    pub(super) fn modules(&self) -> Option<Modules> {
        match self {
            Self::Pages => None,
            Self::Whole | Self::Virtual(_) | Self::FullText(_) => Some(Modules::Known),
            Self::Quick | Self::Table(_) | Self::References(_) | Self::Schema | Self::Content(_) => {
                Some(Modules::Unknown)
            }
        }
    }
}

/// A part with a guess of how long it takes: as many pages as `quick_check` looks at in that time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Planned {
    pub(super) task: Task,
    pub(super) weight: u64,
}

/// What is to be done.
pub(super) struct Plan {
    pub(super) parts: Vec<Planned>,
    /// Why there are no fingerprints in it, where that is not damage.
    pub(super) unlisted: Option<Halt>,
}

/// How much longer than `quick_check` the parts take for a page, as measured on a database of engram's shape: an index
/// is looked up for each row, a full-text index is made once more in memory.
mod weight {
    pub(super) const WHOLE: u64 = 15;
    pub(super) const TABLE: u64 = 6;
    pub(super) const VIRTUAL: u64 = 30;
    pub(super) const FULL_TEXT: u64 = 50;
    pub(super) const CONTENT: u64 = 2;
}

/// All parts: what `PRAGMA integrity_check` says first, because it is waited for most, and of that the longest first, so that
/// the last ones to end are short ones. Where the schema cannot be taken apart there is
/// the whole check, which says what is wrong with it.
pub(super) fn plan(finished: &FinishedFile, inspection: &Inspection, options: &CheckOptions) -> Plan {
    let sizes = Sizes::guess(finished);
    // First, for it looks at what the connection does not know yet.
    let tables = inspection.schema_tables();
    let (mut plan, mut unlisted) = (Vec::new(), None);
    let mut add = |task, weight| plan.push(Planned { task, weight });
    if options.depth != Depth::Integrity {
        match inspection.content_tables() {
            Ok(names) => {
                add(Task::Schema, 1);
                for name in names {
                    let pages = sizes.of_table(&name);
                    add(Task::Content(name), pages.saturating_mul(weight::CONTENT));
                }
            }
            // Without the schema either: that and no tables would be some other database.
            Err(e) if e.kind() == ErrorKind::Damaged => {}
            Err(e) => unlisted = Some(inspection.halt().unwrap_or_else(|| Halt::Failed(e.message()))),
        }
    }
    if options.depth == Depth::Fingerprint {
        return Plan { parts: sorted(plan), unlisted };
    }
    add(Task::Pages, sizes.all);
    let Some(tables) = tables else {
        add(Task::Whole, sizes.all.saturating_mul(weight::WHOLE));
        return Plan { parts: sorted(plan), unlisted };
    };
    add(Task::Quick, sizes.all);
    let deep = options.depth == Depth::Deep;
    for (name, kind) in tables {
        match kind {
            ToCheck::Stored { refers } => {
                let pages = sizes.of_table(&name);
                if refers && deep && options.foreign_keys != ForeignKeys::Off {
                    add(Task::References(name.clone()), pages);
                }
                add(Task::Table(name), pages.saturating_mul(weight::TABLE));
            }
            ToCheck::FullText if deep => {
                let pages = sizes.of_shadows(&name);
                add(Task::FullText(name), pages.saturating_mul(weight::FULL_TEXT));
            }
            ToCheck::FullText | ToCheck::Virtual => {
                let pages = sizes.of_shadows(&name);
                add(Task::Virtual(name), pages.saturating_mul(weight::VIRTUAL));
            }
        }
    }
    Plan { parts: sorted(plan), unlisted }
}

fn sorted(mut plan: Vec<Planned>) -> Vec<Planned> {
    plan.sort_by_key(|planned| (planned.task.is_beside(), Reverse(planned.weight)));
    plan
}

/// About how many pages there are, and tables have with their indexes: nothing but the order depends on it.
struct Sizes {
    all: u64,
    tables: BTreeMap<String, u64>,
}

impl Sizes {
    fn guess(finished: &FinishedFile) -> Self {
        let mut tables = BTreeMap::new();
        let roots = pages::roots(&finished.file).unwrap_or_default();
        for root in roots {
            let pages = tables.entry(root.table).or_insert(0_u64);
            *pages = pages.saturating_add(pages::estimated_pages(&finished.file, root.page));
        }
        Self { all: tables.values().fold(1, |sum: u64, pages| sum.saturating_add(*pages)), tables }
    }

    fn of_table(&self, name: &str) -> u64 {
        self.tables.get(name).map_or(1, |pages| pages.saturating_add(1))
    }

    /// The tables in which a virtual one keeps its content are called after it.
    fn of_shadows(&self, name: &str) -> u64 {
        let prefix = format!("{name}_");
        let shadows = self.tables.range(prefix.clone()..).take_while(|(table, _)| table.starts_with(&prefix));
        shadows.fold(1, |sum, (_, pages)| sum.saturating_add(*pages))
    }
}
