//! The file systems on which power is cut.

use crate::device::is_installed;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum System {
    Ext4,
    /// Without the flush of its own that it adds to a rename, which hides a sync that is missing.
    Ext4NoAutoDaAlloc,
    Xfs,
    Btrfs,
}

impl System {
    pub(crate) const ALL: [Self; 4] = [Self::Ext4, Self::Ext4NoAutoDaAlloc, Self::Xfs, Self::Btrfs];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Ext4NoAutoDaAlloc => "ext4-noauto_da_alloc",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|system| system.name() == name)
    }

    /// As `mount` calls it.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::Ext4 | Self::Ext4NoAutoDaAlloc => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }

    pub(crate) fn options(self) -> &'static str {
        match self {
            Self::Ext4 | Self::Xfs | Self::Btrfs => "defaults",
            Self::Ext4NoAutoDaAlloc => "noauto_da_alloc",
        }
    }

    /// What makes one.
    pub(crate) fn tool(self) -> &'static str {
        match self {
            Self::Ext4 | Self::Ext4NoAutoDaAlloc => "mkfs.ext4",
            Self::Xfs => "mkfs.xfs",
            Self::Btrfs => "mkfs.btrfs",
        }
    }

    pub(crate) fn format(self) -> &'static [&'static str] {
        match self {
            // Blocks as on a large disk; whole at once: the kernel would go on with it while it is recorded.
            Self::Ext4 | Self::Ext4NoAutoDaAlloc => {
                &["-q", "-F", "-b", "4096", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard"]
            }
            Self::Xfs | Self::Btrfs => &["-q", "-f", "-K"],
        }
    }

    /// About the smallest that it takes.
    pub(crate) fn size_bytes(self) -> u64 {
        match self {
            Self::Ext4 | Self::Ext4NoAutoDaAlloc => 48 << 20,
            Self::Xfs => 300 << 20,
            Self::Btrfs => 128 << 20,
        }
    }

    /// Why it cannot be tried here, if it cannot.
    pub(crate) fn missing(self) -> Option<String> {
        let package = match self {
            Self::Ext4 | Self::Ext4NoAutoDaAlloc => "e2fsprogs",
            Self::Xfs => "xfsprogs",
            Self::Btrfs => "btrfs-progs",
        };
        (!is_installed(self.tool())).then(|| format!("there is no {}: install {package}", self.tool()))
    }
}
