//! The room on a folder's disk, and small files that survive a power failure.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

/// With less than this free, or a twentieth of the disk where that is less, a disk counts as full.
const FULL_BELOW: u64 = 32 << 20;

/// The room of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskRoom {
    pub free_bytes: u64,
    pub total_bytes: u64,
}

impl DiskRoom {
    /// That of the disk a folder is on; `None` when it cannot be looked at.
    #[must_use]
    pub fn of(folder: &Path) -> Option<Self> {
        let disk = rustix::fs::statvfs(folder).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
        Some(Self { free_bytes: bytes(disk.f_bavail), total_bytes: bytes(disk.f_blocks) })
    }

    /// Whether there is no room for what a server writes.
    #[must_use]
    pub fn is_full(self) -> bool {
        self.free_bytes < FULL_BELOW.min(self.total_bytes / 20)
    }
}

/// Write a small file that its owner alone can read. A power failure leaves it or the one before.
///
/// # Errors
/// When the disk refuses.
pub fn write_private(path: &Path, text: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut options = fs::File::options();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(&new)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    file.write_all(text)?;
    // Or a power failure could leave an empty file.
    file.sync_all()?;
    fs::rename(new, path)?;
    path.parent().map_or(Ok(()), |folder| fs::File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::DiskRoom;

    #[test]
    fn a_disk_is_full_when_little_of_it_is_free() {
        let room = |free: u64, total: u64| DiskRoom { free_bytes: free << 20, total_bytes: total << 20 };
        assert!(room(31, 100_000).is_full() && !room(33, 100_000).is_full());
        assert!(room(2, 64).is_full() && !room(4, 64).is_full());
        assert!(DiskRoom::of(&std::env::temp_dir()).is_some_and(|room| room.total_bytes > 0));
    }
}
