//! What sort of file system a database lies on, as far as promises depend on it.

use camino::Utf8Path;

use crate::error::{Error, Result};
use crate::storage::{existing_ancestor, parent_of};

/// File systems behind which another machine or another program stands, by the number that `statfs` gives
/// (`linux/magic.h`): locks, leases and the list of open files may end here, and a sync is only as good as theirs.
const FOREIGN: [(u32, &str); 5] = [
    (0x0102_1997, "9p"),
    (0xbacb_acbc, "a shared folder of VMware"),
    (0x7c7c_6673, "a shared folder of Parallels"),
    (0x786f_4256, "a shared folder of VirtualBox"),
    (0x6573_5546, "FUSE"),
];

/// Those of them that other machines use too.
const NETWORK: [(u32, &str); 15] = [
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xff53_4d42, "SMB (cifs)"),
    (0xfe53_4d42, "SMB (smb3)"),
    (0x00c3_6400, "Ceph"),
    (0x5346_414f, "AFS"),
    (0x6b41_4653, "AFS"),
    (0x7375_7245, "Coda"),
    (0x7461_636f, "OCFS2"),
    (0x0bd0_0bd0, "Lustre"),
    (0x0116_1970, "GFS2"),
    (0x4750_4653, "GPFS"),
    (0x1983_0326, "BeeGFS"),
    (0x2003_0528, "OrangeFS"),
    (0xaad7_aaea, "PanFS"),
];

/// The name of the file system under `database`, a file that may be missing, if the promises of a restore are weaker
/// there, or what is read by hand need not be what SQLite reads.
///
/// # Errors
///
/// If the system cannot say.
pub(crate) fn foreign_file_system(database: &Utf8Path) -> Result<Option<&'static str>> {
    found(database, |number| name_in(&NETWORK, number).or_else(|| name_in(&FOREIGN, number)))
}

/// The name of the network file system under `database`: programs on other machines may have it open, and neither a lease
/// nor the list of open files here tells.
///
/// # Errors
///
/// If the system cannot say.
pub(crate) fn network_file_system(database: &Utf8Path) -> Result<Option<&'static str>> {
    found(database, |number| name_in(&NETWORK, number))
}

fn found(database: &Utf8Path, name_of: impl Fn(i128) -> Option<&'static str>) -> Result<Option<&'static str>> {
    // A file can be a mount point of its own.
    for path in [parent_of(database), database] {
        match rustix::fs::statfs(path.as_str()) {
            Ok(found) => {
                if let Some(name) = name_of(found.f_type.into()) {
                    return Ok(Some(name));
                }
            }
            // What is not there lies nowhere, and whoever needs it says so.
            Err(rustix::io::Errno::NOENT) => {}
            Err(e) => return Err(Error::io("ask for the file system of", path, e)),
        }
    }
    Ok(None)
}

/// What this user may still write there, or where the folder would be made; `None` where the file system does not say.
pub(crate) fn free_bytes(folder: &Utf8Path) -> Result<Option<u64>> {
    let folder = existing_ancestor(folder)?;
    let found = rustix::fs::statvfs(folder.as_str()).map_err(|e| Error::io("ask for the free space of", &folder, e))?;
    Ok((found.f_blocks > 0).then(|| found.f_bavail.saturating_mul(found.f_frsize)))
}

/// The name of the file system that a folder lies on, as the kernel gives it, such as `ext4`; `None` where it does not say.
pub(crate) fn file_system(folder: &Utf8Path) -> Option<String> {
    let mounts = procfs::process::Process::myself().and_then(|own| own.mountinfo()).ok()?;
    // Of several at one place, the last one is on top.
    let covers = mounts.0.into_iter().filter(|mount| folder.as_std_path().starts_with(&mount.mount_point));
    covers.max_by_key(|mount| mount.mount_point.components().count()).map(|mount| mount.fs_type)
}

/// What people should know about it.
pub(crate) fn warning(name: &str, database: &Utf8Path) -> String {
    format!(
        "{database} lies on {name}: programs on other machines that use it are not seen, and what a sync promises there \
         is that file system's word"
    )
}

/// The number's width and sign differ between machines; its 32 bits do not.
fn name_in(table: &[(u32, &'static str)], number: i128) -> Option<&'static str> {
    table.iter().find(|(known, _)| i128::from(*known) == number & 0xffff_ffff).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

    use super::*;

    #[test]
    fn network_file_systems_are_told_from_local_ones() {
        let name_of = |number: i128| name_in(&NETWORK, number);
        assert_eq!(name_of(0x6969), Some("NFS"));
        assert_eq!(name_of(0xff53_4d42_u32.cast_signed().into()), Some("SMB (cifs)"));
        assert_eq!(name_of(0xff53_4d42), Some("SMB (cifs)"));
        assert_eq!(name_of(0x0116_1970), Some("GFS2"));
        for local in [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0x794c_7630, 0x6573_5546] {
            assert_eq!(name_of(local), None, "{local:x}");
        }
        let folder = tempfile::tempdir().unwrap();
        let database = Utf8Path::from_path(folder.path()).unwrap().join("engram.db");
        let found = foreign_file_system(&database).unwrap();
        assert!(found.is_none_or(|name| NETWORK.iter().chain(&FOREIGN).any(|(_, known)| *known == name)));
    }
}
