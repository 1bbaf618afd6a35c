//! The disk as a file system of Linux, with a switch for its power.
//!
//! Once the power is off, nothing is answered until everybody who uses the disk was killed: a process that runs without
//! power would report what no real one could.

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    io,
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant, SystemTime},
};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use rand_chacha::ChaCha8Rng;
use rustix::fs::OFlags;

use crate::volatile_disk::{Body, Inode, Node, Rules, Survival, VolatileDisk};

/// Everything that changes goes through the kernel that caches it.
const CACHED_FOR: Duration = Duration::from_secs(600);
const CAPACITY_BYTES: u64 = 8 << 30;
const BLOCK_BYTES: u32 = 4_096;
/// Killed processes leave the disk soon.
const UNMOUNT_WITHIN: Duration = Duration::from_secs(20);

/// A mounted disk.
pub(crate) struct MountedDisk {
    shared: Arc<Shared>,
    session: Option<BackgroundSession>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    disk: VolatileDisk,
    power: Power,
    /// What each open folder listed when it was opened.
    listings: HashMap<u64, Vec<(OsString, Inode)>>,
    next_handle: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Power {
    /// On, for ever or for so many more changes.
    On(Option<u64>),
    /// Off, and nothing is answered.
    Failed,
    /// Off, and whoever still asks gets an error.
    Off,
}

impl MountedDisk {
    pub(crate) fn new(mount_point: &Path, rules: Rules) -> io::Result<Self> {
        let disk = VolatileDisk::new(rules);
        let state = State { disk, power: Power::On(None), listings: HashMap::new(), next_handle: 1 };
        let mut disk =
            Self { shared: Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() }), session: None };
        disk.mount(mount_point)?;
        Ok(disk)
    }

    fn mount(&mut self, mount_point: &Path) -> io::Result<()> {
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("volatile-disk".to_owned())];
        self.session = Some(fuser::spawn_mount(FileSystem(Arc::clone(&self.shared)), mount_point, &config)?);
        Ok(())
    }

    /// Let the power fail after so many more changes.
    pub(crate) fn fail_after(&self, changes: u64) {
        self.shared.lock().power = Power::On(Some(changes));
    }

    /// Let the power stay on; whether it had not failed yet.
    pub(crate) fn stay_on(&self) -> bool {
        let mut state = self.shared.lock();
        let is_on = matches!(state.power, Power::On(_));
        if is_on {
            state.power = Power::On(None);
        }
        is_on
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.shared.lock().power == Power::Failed
    }

    /// Answer those who were killed, so that they end.
    pub(crate) fn release(&self) {
        self.shared.lock().power = Power::Off;
        self.shared.changed.notify_all();
    }

    /// Switch the power on again, with what the failure left. Nobody uses the disk any more.
    pub(crate) fn restart(&mut self, mount_point: &Path, survival: Survival, rng: &mut ChaCha8Rng) -> io::Result<()> {
        self.unmount(mount_point)?;
        {
            let mut state = self.shared.lock();
            state.disk.lose_power(survival, rng);
            state.power = Power::On(None);
            state.listings.clear();
        }
        self.mount(mount_point)
    }

    fn unmount(&mut self, mount_point: &Path) -> io::Result<()> {
        let Some(session) = self.session.take() else { return Ok(()) };
        let deadline = Instant::now() + UNMOUNT_WITHIN;
        // A killed process holds its files until the kernel has taken it down.
        loop {
            match rustix::mount::unmount(mount_point, rustix::mount::UnmountFlags::empty()) {
                Ok(()) => {
                    // Requests of killed processes may have been cut off.
                    drop(session.join());
                    return Ok(());
                }
                Err(error) if Instant::now() > deadline => return Err(error.into()),
                Err(_) => thread::sleep(Duration::from_millis(5)),
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, while there is power.
    fn powered(&self) -> Result<MutexGuard<'_, State>, Errno> {
        let waited = self.changed.wait_while(self.lock(), |state| state.power == Power::Failed);
        let state = waited.unwrap_or_else(PoisonError::into_inner);
        if state.power == Power::Off { Err(Errno::EIO) } else { Ok(state) }
    }

    /// The state, to be changed; the power may fail at this very change.
    fn changing(&self) -> Result<MutexGuard<'_, State>, Errno> {
        let mut state = self.powered()?;
        match state.power {
            Power::On(Some(0)) => {
                state.power = Power::Failed;
                self.changed.notify_all();
                drop(state);
                self.powered()
            }
            Power::On(Some(left)) => {
                state.power = Power::On(Some(left - 1));
                Ok(state)
            }
            _ => Ok(state),
        }
    }
}

fn attributes(inode: Inode, node: &Node) -> FileAttr {
    let (kind, links) = match node.body {
        Body::File(_) => (FileType::RegularFile, 1),
        Body::Folder(_) => (FileType::Directory, 2),
    };
    FileAttr {
        ino: INodeNo(inode),
        size: node.size(),
        blocks: node.size().div_ceil(512),
        atime: node.modified,
        mtime: node.modified,
        ctime: node.modified,
        crtime: node.modified,
        kind,
        perm: node.permissions,
        nlink: links,
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
        rdev: 0,
        blksize: BLOCK_BYTES,
        flags: 0,
    }
}

impl State {
    fn attributes(&self, inode: Inode) -> Result<FileAttr, Errno> {
        Ok(attributes(inode, self.disk.node(inode)?))
    }
}

struct FileSystem(Arc<Shared>);

/// Answer with what a closure gives, or with its error.
macro_rules! answer {
    ($reply:ident, $result:expr, |$value:pat_param| $answered:expr) => {
        match $result {
            Ok($value) => $answered,
            Err(error) => $reply.error(error),
        }
    };
}

fn permissions(mode: u32, umask: u32) -> u16 {
    u16::try_from(mode & !umask & 0o7777).unwrap_or(0o600)
}

/// Whether each write is to be durable when it returns.
fn opened_to_sync(flags: OpenFlags) -> bool {
    // O_SYNC has the bit of O_DSYNC as well.
    OFlags::from_bits_retain(flags.0.cast_unsigned()).contains(OFlags::DSYNC)
}

fn length(number: u64) -> Result<usize, Errno> {
    usize::try_from(number).map_err(|_| Errno::EFBIG)
}

impl Filesystem for FileSystem {
    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.0.powered().and_then(|state| state.attributes(state.disk.lookup(parent.0, name)?));
        answer!(reply, found, |attributes| reply.entry(&CACHED_FOR, &attributes, Generation(0)));
    }

    fn getattr(&self, _request: &Request, inode: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        let found = self.0.powered().and_then(|state| state.attributes(inode.0));
        answer!(reply, found, |attributes| reply.attr(&CACHED_FOR, &attributes));
    }

    fn setattr(
        &self,
        _request: &Request,
        inode: INodeNo,
        mode: Option<u32>,
        _user: Option<u32>,
        _group: Option<u32>,
        size: Option<u64>,
        _accessed: Option<TimeOrNow>,
        modified: Option<TimeOrNow>,
        _changed: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _created: Option<SystemTime>,
        _changed_at: Option<SystemTime>,
        _backed_up: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let set = self.0.changing().and_then(|mut state| {
            if let Some(size) = size {
                state.disk.resize(inode.0, length(size)?)?;
            }
            let node = state.disk.node_mut(inode.0)?;
            if let Some(mode) = mode {
                node.permissions = permissions(mode, 0);
            }
            match modified {
                Some(TimeOrNow::SpecificTime(time)) => node.modified = time,
                Some(TimeOrNow::Now) => node.modified = SystemTime::now(),
                None => {}
            }
            state.attributes(inode.0)
        });
        answer!(reply, set, |attributes| reply.attr(&CACHED_FOR, &attributes));
    }

    fn mkdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let made = self.0.changing().and_then(|mut state| {
            let inode = state.disk.create_folder(parent.0, name, permissions(mode, umask))?;
            state.attributes(inode)
        });
        answer!(reply, made, |attributes| reply.entry(&CACHED_FOR, &attributes, Generation(0)));
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let removed = self.0.changing().and_then(|mut state| state.disk.remove_file(parent.0, name));
        answer!(reply, removed, |()| reply.ok());
    }

    fn rmdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let removed = self.0.changing().and_then(|mut state| state.disk.remove_folder(parent.0, name));
        answer!(reply, removed, |()| reply.ok());
    }

    fn rename(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let renamed = self.0.changing().and_then(|mut state| {
            if !RenameFlags::RENAME_NOREPLACE.contains(flags) {
                return Err(Errno::EINVAL);
            }
            state.disk.rename((parent.0, name), (new_parent.0, new_name), flags.is_empty())
        });
        answer!(reply, renamed, |()| reply.ok());
    }

    fn link(&self, _request: &Request, inode: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let linked = self.0.changing().and_then(|mut state| {
            state.disk.link(inode.0, parent.0, name)?;
            state.attributes(inode.0)
        });
        answer!(reply, linked, |attributes| reply.entry(&CACHED_FOR, &attributes, Generation(0)));
    }

    fn create(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let created = self.0.changing().and_then(|mut state| {
            let inode = state.disk.create_file(parent.0, name, permissions(mode, umask))?;
            state.attributes(inode)
        });
        answer!(reply, created, |attributes| reply.created(
            &CACHED_FOR,
            &attributes,
            Generation(0),
            FileHandle(0),
            FopenFlags::empty()
        ));
    }

    fn read(
        &self,
        _request: &Request,
        inode: INodeNo,
        _handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let state = match self.0.powered() {
            Ok(state) => state,
            Err(error) => return reply.error(error),
        };
        let read = length(offset).and_then(|offset| state.disk.read(inode.0, offset, size as usize));
        answer!(reply, read, |bytes| reply.data(bytes));
    }

    fn write(
        &self,
        _request: &Request,
        inode: INodeNo,
        _handle: FileHandle,
        offset: u64,
        bytes: &[u8],
        _write_flags: WriteFlags,
        flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let written = self.0.changing().and_then(|mut state| {
            if state.disk.used_bytes() + bytes.len() as u64 > CAPACITY_BYTES {
                return Err(Errno::ENOSPC);
            }
            state.disk.write(inode.0, length(offset)?, bytes)?;
            if opened_to_sync(flags) {
                state.disk.sync_file(inode.0)?;
            }
            Ok(())
        });
        let size = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        answer!(reply, written, |()| reply.written(size));
    }

    fn fsync(&self, _request: &Request, inode: INodeNo, _handle: FileHandle, _data_only: bool, reply: ReplyEmpty) {
        let synced = self.0.changing().and_then(|mut state| state.disk.sync_file(inode.0));
        answer!(reply, synced, |()| reply.ok());
    }

    fn opendir(&self, _request: &Request, inode: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let opened = self.0.powered().and_then(|mut state| {
            let entries = state.disk.entries(inode.0)?;
            let handle = state.next_handle;
            state.next_handle += 1;
            state.listings.insert(handle, entries);
            Ok(handle)
        });
        answer!(reply, opened, |handle| reply.opened(FileHandle(handle), FopenFlags::empty()));
    }

    fn readdir(&self, _request: &Request, inode: INodeNo, handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let state = match self.0.powered() {
            Ok(state) => state,
            Err(error) => return reply.error(error),
        };
        let dots = [".", ".."].map(|name| (OsString::from(name), inode.0));
        let listed = state.listings.get(&handle.0).map_or(&[][..], Vec::as_slice);
        for (entry, (name, inode)) in dots.iter().chain(listed).enumerate().skip(length(offset).unwrap_or(usize::MAX)) {
            let kind = match state.disk.node(*inode).map(|node| &node.body) {
                Ok(Body::Folder(_)) => FileType::Directory,
                _ => FileType::RegularFile,
            };
            if reply.add(INodeNo(*inode), entry as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(
        &self,
        _request: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.0.lock().listings.remove(&handle.0);
        reply.ok();
    }

    fn fsyncdir(&self, _request: &Request, inode: INodeNo, _handle: FileHandle, _data_only: bool, reply: ReplyEmpty) {
        let synced = self.0.changing().and_then(|mut state| state.disk.sync_folder(inode.0));
        answer!(reply, synced, |()| reply.ok());
    }

    fn statfs(&self, _request: &Request, _inode: INodeNo, reply: ReplyStatfs) {
        let blocks = |bytes: u64| bytes / u64::from(BLOCK_BYTES);
        let used = self.0.lock().disk.used_bytes();
        let free = blocks(CAPACITY_BYTES.saturating_sub(used));
        reply.statfs(blocks(CAPACITY_BYTES), free, free, 1 << 20, 1 << 20, BLOCK_BYTES, 255, BLOCK_BYTES);
    }
}
