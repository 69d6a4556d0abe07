//! What happens between a crash and the recovery.

use std::fs;

use crate::databases::{Writes, application_writes};
use crate::folder::Folder;
use crate::scenario::LIVE;
use crate::view::{Family, Found};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meanwhile {
    Nothing,
    /// An application opens the database and commits.
    Application(Writes),
    /// Somebody removes the staged file, to free space.
    StagedRemoved,
    IntentRemoved,
    IntentDamaged,
}

impl Meanwhile {
    pub(crate) const APPLICATION: [Self; 3] = [
        Self::Application(Writes::AndCloses),
        Self::Application(Writes::WalAndCloses),
        Self::Application(Writes::WalAndDies),
    ];
    pub(crate) const BY_HAND: [Self; 3] = [Self::StagedRemoved, Self::IntentRemoved, Self::IntentDamaged];

    /// As in the name of a state.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Self::Nothing => "",
            Self::Application(Writes::AndCloses) => "+writes",
            Self::Application(Writes::WalAndCloses) => "+writes-wal",
            Self::Application(Writes::WalAndDies) => "+dies",
            Self::StagedRemoved => "+staged-removed",
            Self::IntentRemoved => "+intent-removed",
            Self::IntentDamaged => "+intent-damaged",
        }
    }

    /// Whether a recovery has to understand what it finds.
    pub(crate) fn is_honest(self) -> bool {
        match self {
            Self::Nothing | Self::Application(_) => true,
            Self::StagedRemoved | Self::IntentRemoved | Self::IntentDamaged => false,
        }
    }

    /// `false` where it cannot happen.
    pub(crate) fn happen(self, folder: &Folder) -> bool {
        let path = |suffix: &str| folder.dir.join(format!("{LIVE}{suffix}"));
        let remove = |suffix: &str| fs::remove_file(path(suffix)).is_ok();
        match self {
            Self::Nothing => true,
            Self::Application(writes) => {
                let tree = folder.tree();
                let can = match Found::of(&tree, LIVE) {
                    Found::Sound(_) => true,
                    // SQLite would delete the sidecar, which is no fault of ours.
                    Found::Missing => Family::of(&tree, LIVE).sidecars().next().is_none(),
                    Found::Raw(_) => false,
                };
                if can {
                    application_writes(&path(""), writes);
                }
                can
            }
            Self::StagedRemoved => remove(".restore-staged"),
            Self::IntentRemoved => remove(".restore-intent"),
            Self::IntentDamaged => match fs::read(path(".restore-intent")) {
                Ok(mut bytes) if !bytes.is_empty() => {
                    let middle = bytes.len() / 2;
                    bytes[middle] ^= 1;
                    fs::write(path(".restore-intent"), bytes).is_ok()
                }
                Ok(_) | Err(_) => false,
            },
        }
    }
}
