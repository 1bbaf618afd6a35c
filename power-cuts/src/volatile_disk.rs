//! A disk in memory that knows what a power failure would leave of it.
//!
//! Every file and folder has two states: what processes see, and what is durable. `fsync` of a file makes its content
//! durable, `fsync` of a folder its names, as POSIX promises and no more. A power failure leaves what is durable and, of
//! what was not synced, whatever the disk happened to write.
//!
//! `nats-server` syncs no folder of a new file of messages. It relies on what ext4, XFS and btrfs do beyond POSIX: a new
//! file's first `fsync` makes its path durable. A folder can have that rule.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    time::SystemTime,
};

use fuser::Errno;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

pub(crate) type Inode = u64;

pub(crate) const ROOT: Inode = 1;
/// Disks write whole sectors.
const SECTOR_BYTES: usize = 512;

#[derive(Debug)]
pub(crate) struct VolatileDisk {
    rules: Rules,
    nodes: BTreeMap<Inode, Node>,
    next: Inode,
    /// Changes of names that no `fsync` of a folder has made durable, in the order they were made.
    unsynced_names: Vec<NameChange>,
}

/// What is different in folders of some names, and in what they hold.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    /// A new file's first `fsync` makes its path durable there.
    pub journaled_folder: Option<OsString>,
    /// `fsync` does nothing there: a planted fault.
    pub broken_folder: Option<OsString>,
}

#[derive(Debug)]
pub(crate) struct Node {
    pub body: Body,
    is_journaled: bool,
    is_broken: bool,
    pub permissions: u16,
    pub modified: SystemTime,
}

#[derive(Debug)]
pub(crate) enum Body {
    File(File),
    Folder(Folder),
}

#[derive(Debug, Default)]
pub(crate) struct File {
    content: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Debug, Default)]
pub(crate) struct Folder {
    entries: BTreeMap<OsString, Inode>,
    durable: BTreeMap<OsString, Inode>,
}

/// A change of a file's content.
#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Resize(usize),
}

/// Entries set or removed at once: a rename touches two, perhaps in two folders.
#[derive(Debug)]
struct NameChange(Vec<EntryChange>);

#[derive(Clone, Debug)]
struct EntryChange {
    folder: Inode,
    name: OsString,
    entry: Option<Inode>,
}

/// How much of what was not synced survives a power failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Survival {
    /// Only what was synced.
    Synced,
    /// Name changes up to some moment, and any of the writes, the last of them torn.
    Some,
}

impl VolatileDisk {
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            rules,
            nodes: BTreeMap::from([(ROOT, Node::new(Body::Folder(Folder::default()), 0o755))]),
            next: ROOT + 1,
            unsynced_names: Vec::new(),
        }
    }

    pub(crate) fn node(&self, inode: Inode) -> Result<&Node, Errno> {
        self.nodes.get(&inode).ok_or(Errno::ENOENT)
    }

    pub(crate) fn node_mut(&mut self, inode: Inode) -> Result<&mut Node, Errno> {
        self.nodes.get_mut(&inode).ok_or(Errno::ENOENT)
    }

    pub(crate) fn lookup(&self, folder: Inode, name: &OsStr) -> Result<Inode, Errno> {
        self.folder(folder)?.entries.get(name).copied().ok_or(Errno::ENOENT)
    }

    pub(crate) fn entries(&self, folder: Inode) -> Result<Vec<(OsString, Inode)>, Errno> {
        Ok(self.folder(folder)?.entries.iter().map(|(name, inode)| (name.clone(), *inode)).collect())
    }

    pub(crate) fn used_bytes(&self) -> u64 {
        self.nodes.values().map(Node::size).sum()
    }

    pub(crate) fn create_file(&mut self, folder: Inode, name: &OsStr, permissions: u16) -> Result<Inode, Errno> {
        self.create(folder, name, Node::new(Body::File(File::default()), permissions))
    }

    pub(crate) fn create_folder(&mut self, folder: Inode, name: &OsStr, permissions: u16) -> Result<Inode, Errno> {
        self.create(folder, name, Node::new(Body::Folder(Folder::default()), permissions))
    }

    pub(crate) fn link(&mut self, inode: Inode, folder: Inode, name: &OsStr) -> Result<(), Errno> {
        if self.folder(folder)?.entries.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        self.file(inode)?;
        self.change_names(vec![EntryChange::set(folder, name, inode)])
    }

    pub(crate) fn remove_file(&mut self, folder: Inode, name: &OsStr) -> Result<(), Errno> {
        let inode = self.lookup(folder, name)?;
        self.file(inode)?;
        self.change_names(vec![EntryChange::removed(folder, name)])
    }

    pub(crate) fn remove_folder(&mut self, folder: Inode, name: &OsStr) -> Result<(), Errno> {
        let inode = self.lookup(folder, name)?;
        if !self.folder(inode)?.entries.is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        self.change_names(vec![EntryChange::removed(folder, name)])
    }

    /// An entry that had the new name is replaced.
    pub(crate) fn rename(&mut self, from: (Inode, &OsStr), to: (Inode, &OsStr), replace: bool) -> Result<(), Errno> {
        let inode = self.lookup(from.0, from.1)?;
        match self.lookup(to.0, to.1) {
            Ok(_) if !replace => return Err(Errno::EEXIST),
            // Two names of one file stay as they are.
            Ok(replaced) if replaced == inode => return Ok(()),
            Ok(replaced) => {
                if let Body::Folder(folder) = &self.node(replaced)?.body
                    && !folder.entries.is_empty()
                {
                    return Err(Errno::ENOTEMPTY);
                }
            }
            Err(_) => {}
        }
        self.change_names(vec![EntryChange::removed(from.0, from.1), EntryChange::set(to.0, to.1, inode)])
    }

    pub(crate) fn read(&self, inode: Inode, offset: usize, size: usize) -> Result<&[u8], Errno> {
        let content = &self.file(inode)?.content;
        let start = offset.min(content.len());
        Ok(&content[start..(start + size).min(content.len())])
    }

    pub(crate) fn write(&mut self, inode: Inode, offset: usize, bytes: &[u8]) -> Result<(), Errno> {
        self.change_content(inode, Change::Write { offset, bytes: bytes.to_vec() })
    }

    pub(crate) fn resize(&mut self, inode: Inode, size: usize) -> Result<(), Errno> {
        self.change_content(inode, Change::Resize(size))
    }

    pub(crate) fn sync_file(&mut self, inode: Inode) -> Result<(), Errno> {
        if self.node(inode)?.is_broken {
            return Ok(());
        }
        let file = self.file_mut(inode)?;
        for change in std::mem::take(&mut file.unsynced) {
            change.apply(&mut file.durable);
        }
        if self.node(inode)?.is_journaled {
            self.sync_path(inode);
        }
        Ok(())
    }

    /// Make the names durable by which a new file is found, and nothing else of their folders.
    fn sync_path(&mut self, mut inode: Inode) {
        let names = |change: &NameChange, inode| change.0.iter().find(|it| it.entry == Some(inode)).map(|it| it.folder);
        while let Some(at) = self.unsynced_names.iter().rposition(|change| names(change, inode).is_some()) {
            let change = self.unsynced_names.remove(at);
            // What the same entries were before is no longer written.
            for earlier in &mut self.unsynced_names[..at] {
                earlier.0.retain(|it| !change.0.iter().any(|new| (new.folder, &new.name) == (it.folder, &it.name)));
            }
            inode = names(&change, inode).unwrap_or(ROOT);
            self.persist(change);
        }
    }

    /// Make a folder's names durable, and the changes of other folders that led to them.
    pub(crate) fn sync_folder(&mut self, inode: Inode) -> Result<(), Errno> {
        self.folder(inode)?;
        if self.node(inode)?.is_broken {
            return Ok(());
        }
        let mut folders = BTreeSet::from([inode]);
        let mut is_due = vec![false; self.unsynced_names.len()];
        for (change, is_due) in self.unsynced_names.iter().zip(&mut is_due).rev() {
            if change.0.iter().any(|entry| folders.contains(&entry.folder)) {
                folders.extend(change.0.iter().map(|entry| entry.folder));
                *is_due = true;
            }
        }
        let changes = std::mem::take(&mut self.unsynced_names);
        for (change, is_due) in changes.into_iter().zip(is_due) {
            if is_due { self.persist(change) } else { self.unsynced_names.push(change) }
        }
        Ok(())
    }

    /// Everything is as the disk has it after a power failure.
    pub(crate) fn lose_power(&mut self, survival: Survival, rng: &mut ChaCha8Rng) {
        let mut changes = std::mem::take(&mut self.unsynced_names);
        changes.truncate(if survival == Survival::Some { rng.random_range(0..=changes.len()) } else { 0 });
        changes.into_iter().for_each(|change| self.persist(change));
        for node in self.nodes.values_mut() {
            match &mut node.body {
                Body::File(file) => file.lose_power(survival, rng),
                Body::Folder(folder) => folder.entries.clone_from(&folder.durable),
            }
        }
        self.remove_unreachable();
    }

    fn create(&mut self, folder: Inode, name: &OsStr, mut node: Node) -> Result<Inode, Errno> {
        let parent = self.node(folder)?;
        node.is_journaled = parent.is_journaled || self.rules.journaled_folder.as_deref() == Some(name);
        node.is_broken = parent.is_broken || self.rules.broken_folder.as_deref() == Some(name);
        if self.folder(folder)?.entries.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        let inode = self.next;
        self.next += 1;
        self.nodes.insert(inode, node);
        self.change_names(vec![EntryChange::set(folder, name, inode)])?;
        Ok(inode)
    }

    fn change_names(&mut self, changes: Vec<EntryChange>) -> Result<(), Errno> {
        for change in &changes {
            let now = SystemTime::now();
            let node = self.node_mut(change.folder)?;
            node.modified = now;
            let Body::Folder(folder) = &mut node.body else { return Err(Errno::ENOTDIR) };
            change.apply(&mut folder.entries);
        }
        self.unsynced_names.push(NameChange(changes));
        Ok(())
    }

    fn persist(&mut self, change: NameChange) {
        for change in change.0 {
            if let Some(Node { body: Body::Folder(folder), .. }) = self.nodes.get_mut(&change.folder) {
                change.apply(&mut folder.durable);
            }
        }
    }

    fn change_content(&mut self, inode: Inode, change: Change) -> Result<(), Errno> {
        self.node_mut(inode)?.modified = SystemTime::now();
        let file = self.file_mut(inode)?;
        change.apply(&mut file.content);
        file.unsynced.push(change);
        Ok(())
    }

    fn remove_unreachable(&mut self) {
        let mut reachable = BTreeSet::from([ROOT]);
        let mut folders = vec![ROOT];
        while let Some(folder) = folders.pop() {
            let Some(Node { body: Body::Folder(folder), .. }) = self.nodes.get(&folder) else { continue };
            folders.extend(folder.entries.values().copied().filter(|inode| reachable.insert(*inode)));
        }
        self.nodes.retain(|inode, _| reachable.contains(inode));
    }

    fn file(&self, inode: Inode) -> Result<&File, Errno> {
        match &self.node(inode)?.body {
            Body::File(file) => Ok(file),
            Body::Folder(_) => Err(Errno::EISDIR),
        }
    }

    fn file_mut(&mut self, inode: Inode) -> Result<&mut File, Errno> {
        match &mut self.node_mut(inode)?.body {
            Body::File(file) => Ok(file),
            Body::Folder(_) => Err(Errno::EISDIR),
        }
    }

    fn folder(&self, inode: Inode) -> Result<&Folder, Errno> {
        match &self.node(inode)?.body {
            Body::Folder(folder) => Ok(folder),
            Body::File(_) => Err(Errno::ENOTDIR),
        }
    }
}

impl Node {
    fn new(body: Body, permissions: u16) -> Self {
        Self { body, is_journaled: false, is_broken: false, permissions, modified: SystemTime::now() }
    }

    pub(crate) fn size(&self) -> u64 {
        match &self.body {
            Body::File(file) => file.content.len() as u64,
            Body::Folder(_) => 0,
        }
    }
}

impl File {
    fn lose_power(&mut self, survival: Survival, rng: &mut ChaCha8Rng) {
        let unsynced = std::mem::take(&mut self.unsynced);
        if survival == Survival::Some {
            // A disk may have written all of a file, nothing of it or, in any order, some of it.
            let share = *[0.0, 0.5, 1.0].get(rng.random_range(0..3)).unwrap_or(&0.0);
            for change in unsynced {
                if rng.random_bool(share) {
                    change.torn(share < 1.0, rng).apply(&mut self.durable);
                }
            }
        }
        self.content.clone_from(&self.durable);
    }
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => {
                let end = offset + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[*offset..end].copy_from_slice(bytes);
            }
            Self::Resize(size) => content.resize(*size, 0),
        }
    }

    /// Some of a write's sectors, from its start.
    fn torn(self, is_torn: bool, rng: &mut ChaCha8Rng) -> Self {
        match self {
            Self::Write { offset, mut bytes } if is_torn => {
                let sectors = bytes.len().div_ceil(SECTOR_BYTES);
                bytes.truncate(rng.random_range(0..=sectors) * SECTOR_BYTES);
                Self::Write { offset, bytes }
            }
            whole => whole,
        }
    }
}

impl EntryChange {
    fn set(folder: Inode, name: &OsStr, inode: Inode) -> Self {
        Self { folder, name: name.to_owned(), entry: Some(inode) }
    }

    fn removed(folder: Inode, name: &OsStr) -> Self {
        Self { folder, name: name.to_owned(), entry: None }
    }

    fn apply(&self, entries: &mut BTreeMap<OsString, Inode>) {
        match self.entry {
            Some(inode) => entries.insert(self.name.clone(), inode),
            None => entries.remove(&self.name),
        };
    }
}

#[cfg(test)]
mod tests;
