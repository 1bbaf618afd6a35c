//! The event ids that have taken effect, and where: on disk, for ever.
//!
//! A sorted store of 16-byte keys holds them, with a filter that knows most new ids without a read. It is derived from
//! the lake and the log like any sink: what becomes a file carries the position it reflects, and what a crash takes is
//! read again from the lake. Nothing relies on its files: a damaged or missing store is filled anew.

use std::{
    collections::HashMap,
    fmt, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
};

use lsm_tree::{
    AbstractTree, AnyTree, Cache, Config, SeqNo, SequenceNumberCounter,
    compaction::Leveled,
    config::{BloomConstructionPolicy, CompressionPolicy, FilterPolicy, FilterPolicyEntry, PartitioningPolicy},
};
use schemas::{EventKey, Position, scarcity::is_scarcity};

/// Blocks of the store kept in memory. Together with [`GATHERED`] it bounds the store's memory, however many ids.
const CACHE: u64 = 64 << 20;
/// Bytes of ids gathered in memory before they become a file.
const GATHERED: u64 = 16 << 20;
/// Bits of the filter per id: one new id in a hundred is looked up in vain.
const FILTER_BITS: f32 = 10.0;
/// Ids that may wait in memory to be read back. Beyond it the publisher writes to the store itself.
const MAX_AHEAD: usize = 500_000;

/// Entries beside the ids; ids have 16 bytes, these have not.
const POSITION: &[u8] = b"position";
const LOG: &[u8] = b"log";
/// The highest position any id was recorded at.
const HIGHEST: &[u8] = b"highest";

/// The store cannot be used. It is derived: delete its folder and it is filled from the lake.
#[derive(Debug, thiserror::Error)]
pub enum SeenError {
    #[error("cannot open the store of seen events at {path}")]
    Open {
        path: PathBuf,
        #[source]
        source: lsm_tree::Error,
    },
    #[error("cannot remove the store of seen events at {path}")]
    Remove {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the store of seen events failed")]
    Store(#[from] lsm_tree::Error),
}

impl SeenError {
    /// Whether it is for want of something on the machine: the store itself is as it was.
    #[must_use]
    pub fn is_scarcity(&self) -> bool {
        is_scarcity(self)
    }
}

/// What the pipeline makes of an event id at a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occurrence {
    /// The first: the event takes effect.
    First,
    /// A repetition of the event at this earlier position.
    Repeated(Position),
}

/// Each accepted event's first position.
///
/// Two tasks share it: the pipeline, which decides, and the publisher, which asks before it publishes and learns
/// from each acknowledgement. The pipeline writes to the store, and what the publisher learns waits in memory until the
/// pipeline has come to it: the publisher, whose callers wait, never waits for the store's writes.
pub struct SeenEvents {
    tree: AnyTree,
    next: SequenceNumberCounter,
    /// Held while positions are lowered, so that the lowest always stays.
    lowering: Mutex<()>,
    ahead: Mutex<Ahead>,
    merging: Merging,
}

/// What is acknowledged and not yet read back.
#[derive(Debug, Default)]
struct Ahead {
    first: HashMap<EventKey, Position>,
    /// Everything up to here has been read back.
    reached: Position,
}

impl fmt::Debug for SeenEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SeenEvents").field("approximate_len", &self.tree.approximate_len()).finish_non_exhaustive()
    }
}

impl SeenEvents {
    /// Open the store in `folder` for the log of this identity, which ends at `end`. A store of another log, one that
    /// knows more than the log holds, and a damaged one are begun anew.
    ///
    /// # Errors
    /// When the folder cannot be used.
    pub fn open(folder: &Path, log: &str, end: Position) -> Result<Self, SeenError> {
        match Self::open_store(folder).and_then(|store| Ok((store.get(LOG)?, store))) {
            Ok((Some(known), store)) if known == log.as_bytes() && store.highest()? <= end => return Ok(store),
            Ok((None, store)) if store.tree.is_empty(SeqNo::MAX, None)? => {
                store.put(LOG, log.as_bytes());
                return Ok(store);
            }
            Ok(_) => tracing::info!("the seen events are not this log's; reading them from the lake"),
            Err(source) if is_scarcity(&source) => return Err(SeenError::Open { path: folder.to_owned(), source }),
            Err(error) => tracing::warn!(error = %error, "the seen events cannot be read; reading them from the lake"),
        }
        let removed = std::fs::remove_dir_all(folder);
        removed.map_err(|source| SeenError::Remove { path: folder.to_owned(), source })?;
        let store = Self::open_store(folder).map_err(|source| SeenError::Open { path: folder.to_owned(), source })?;
        store.put(LOG, log.as_bytes());
        Ok(store)
    }

    /// Open the store in `folder` as it is; none, where there is none.
    ///
    /// # Errors
    /// When it cannot be read: a start begins it anew.
    pub fn look(folder: &Path) -> Result<Option<Self>, SeenError> {
        if !folder.is_dir() {
            return Ok(None);
        }
        let store = Self::open_store(folder);
        store.map(Some).map_err(|source| SeenError::Open { path: folder.to_owned(), source })
    }

    fn open_store(folder: &Path) -> Result<Self, lsm_tree::Error> {
        let (next, visible) = (SequenceNumberCounter::default(), SequenceNumberCounter::default());
        let filter = FilterPolicyEntry::Bloom(BloomConstructionPolicy::BitsPerKey(FILTER_BITS));
        let tree = Config::new(folder, next.clone(), visible)
            .use_cache(Arc::new(Cache::with_capacity_bytes(CACHE)))
            // Keys are as good as random: nothing to compress.
            .data_block_compression_policy(CompressionPolicy::disabled())
            .filter_policy(FilterPolicy::all(filter))
            // A file's filter and index have megabytes: a new id needs some kilobytes of them, not to have all of them read.
            .filter_block_partitioning_policy(PartitioningPolicy::all(true))
            .index_block_partitioning_policy(PartitioningPolicy::all(true))
            .open()?;
        next.fetch_max(tree.get_highest_seqno().map_or(0, |highest| highest + 1));
        let merging = Merging::start(tree.clone(), next.clone());
        let store = Self { tree, next, lowering: Mutex::new(()), ahead: Mutex::default(), merging };
        store.ahead().reached = store.get(POSITION)?.map_or(Position::START, |value| decoded(&value));
        Ok(store)
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.lowering.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Held for as long as some look-ups in a map take.
    fn ahead(&self) -> MutexGuard<'_, Ahead> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where ids were acknowledged that have not been read back.
    fn acknowledged(&self, keys: impl Iterator<Item = EventKey>) -> Vec<Option<Position>> {
        let ahead = self.ahead();
        keys.map(|key| ahead.first.get(&key).copied()).collect()
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, lsm_tree::Error> {
        Ok(self.tree.get(key, SeqNo::MAX)?.map(|value| value.to_vec()))
    }

    fn put(&self, key: &[u8], value: &[u8]) {
        self.tree.insert(key, value, self.next.next());
    }

    fn first(&self, key: EventKey) -> Result<Option<Position>, lsm_tree::Error> {
        Ok(self.tree.get(key.as_bytes(), SeqNo::MAX)?.map(|value| decoded(&value)))
    }

    /// Every event up to here is in the store.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn position(&self) -> Result<Position, SeenError> {
        Ok(self.get(POSITION)?.map_or(Position::START, |value| decoded(&value)))
    }

    fn highest(&self) -> Result<Position, lsm_tree::Error> {
        let recorded = self.get(HIGHEST)?.map_or(Position::START, |value| decoded(&value));
        Ok(recorded.max(self.get(POSITION)?.map_or(Position::START, |value| decoded(&value))))
    }

    /// Forget ids at these positions: their messages are no events, whatever they were taken for before.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn forget(&self, entries: &[(EventKey, Position)]) -> Result<(), SeenError> {
        let _lowering = self.lock();
        for (key, position) in entries {
            if self.first(*key)? == Some(*position) {
                self.tree.remove(key.as_bytes().as_slice(), self.next.next());
            }
            let mut ahead = self.ahead();
            if ahead.first.get(key) == Some(position) {
                ahead.first.remove(key);
            }
        }
        Ok(())
    }

    /// Delete the store's files: the next start fills it from the lake.
    ///
    /// # Errors
    /// When they cannot be deleted.
    pub fn discard(&self) -> Result<(), SeenError> {
        let path = self.tree.tree_config().path.clone();
        std::fs::remove_dir_all(&path).map_err(|source| SeenError::Remove { path, source })
    }

    /// Where each of these ids took effect, if it did.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn positions(&self, keys: &[EventKey]) -> Result<Vec<Option<Position>>, SeenError> {
        let ahead = self.acknowledged(keys.iter().copied());
        keys.iter().zip(ahead).map(|(key, ahead)| Ok(lowest(ahead, self.first(*key)?))).collect()
    }

    /// Everything up to here has been read: an id that is not known by now was in no event there.
    #[must_use]
    pub fn reached(&self) -> Position {
        self.ahead().reached
    }

    /// Record ids that are acknowledged at these positions, and will be read back from there.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub fn acknowledge(&self, entries: &[(EventKey, Position)]) -> Result<(), SeenError> {
        let mut ahead = self.ahead();
        if ahead.first.len() + entries.len() > MAX_AHEAD {
            drop(ahead);
            return self.insert(entries, None);
        }
        let reached = ahead.reached;
        for &(key, position) in entries.iter().filter(|(_, position)| *position > reached) {
            let known = ahead.first.entry(key).or_insert(position);
            *known = position.min(*known);
        }
        Ok(())
    }

    /// Record ids at their positions; an id keeps its lowest position. With `reached`, everything up to there is in.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub fn insert(&self, entries: &[(EventKey, Position)], reached: Option<Position>) -> Result<(), SeenError> {
        self.lower(entries, reached).map(drop)
    }

    /// Record the ids of the positions up to `reached`, and say of each whether it is the first. Reading a position
    /// again gives the same answer.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub fn observe(&self, entries: &[(EventKey, Position)], reached: Position) -> Result<Vec<Occurrence>, SeenError> {
        self.lower(entries, Some(reached))
    }

    fn lower(&self, entries: &[(EventKey, Position)], reached: Option<Position>) -> Result<Vec<Occurrence>, SeenError> {
        let _lowering = self.lock();
        let mut occurrences = Vec::with_capacity(entries.len());
        let mut lowered: HashMap<EventKey, Position> = HashMap::new();
        let ahead = self.acknowledged(entries.iter().map(|(key, _)| *key));
        for (&(key, position), ahead) in entries.iter().zip(ahead) {
            let known = match lowered.get(&key) {
                Some(known) => Some(*known),
                None => {
                    let stored = self.first(key)?;
                    // What waits in memory goes to the store with this batch, if it is lower than what is there.
                    if let Some(ahead) = ahead.filter(|ahead| stored.is_none_or(|stored| *ahead < stored)) {
                        lowered.insert(key, ahead);
                    }
                    lowest(ahead, stored)
                }
            };
            occurrences.push(match known {
                Some(known) if known < position => Occurrence::Repeated(known),
                Some(_) | None => Occurrence::First,
            });
            if known.is_none_or(|known| position < known) {
                lowered.insert(key, position);
            }
        }
        let reached = match reached {
            Some(reached) if reached > self.position()? => Some(reached),
            Some(_) | None => None,
        };
        let highest =
            lowered.values().max().copied().filter(|highest| self.highest().is_ok_and(|known| *highest > known));
        // Nothing fails from here on: a batch is recorded as a whole, or not at all.
        for (key, position) in lowered {
            self.put(key.as_bytes(), &encoded(position));
        }
        if let Some(highest) = highest {
            self.put(HIGHEST, &encoded(highest));
        }
        if let Some(reached) = reached {
            self.put(POSITION, &encoded(reached));
        }
        let mut ahead = self.ahead();
        ahead.reached = ahead.reached.max(reached.unwrap_or_default());
        for (key, _) in entries {
            ahead.first.remove(key);
        }
        drop(ahead);
        if self.tree.active_memtable().size() >= GATHERED
            && let Err(error) = self.to_file()
        {
            // A full disk, for example. What is gathered stays in memory, and goes into the next file.
            tracing::warn!(error = %error, "cannot write a file of seen events; trying again later");
        }
        Ok(occurrences)
    }

    /// Make a file of what is gathered in memory, for example before the process ends.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_out(&self) -> Result<(), SeenError> {
        let _lowering = self.lock();
        Ok(self.to_file()?)
    }

    /// With the lock held.
    fn to_file(&self) -> Result<(), lsm_tree::Error> {
        self.tree.flush_active_memtable(self.next.get())?;
        self.merging.wake();
        Ok(())
    }

    /// What the store takes on disk, in bytes.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        self.tree.disk_space()
    }
}

fn lowest(a: Option<Position>, b: Option<Position>) -> Option<Position> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, None) | (None, one) => one,
    }
}

/// The thread that merges files, so that a look-up meets few of them.
struct Merging {
    wake: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Merging {
    fn start(tree: AnyTree, next: SequenceNumberCounter) -> Self {
        // One call waiting is enough: it merges whatever there is by then.
        let (wake, woken) = sync_channel::<()>(1);
        let strategy = Arc::new(Leveled::default());
        let merge = move || {
            for () in woken {
                if let Err(error) = tree.compact(strategy.clone(), next.get()) {
                    tracing::warn!(error = %error, "cannot merge the files of the seen events");
                }
            }
        };
        let thread = std::thread::Builder::new().name("seen-merging".to_owned()).spawn(merge);
        Self { wake: Some(wake), thread: thread.ok() }
    }

    fn wake(&self) {
        if let Some(wake) = &self.wake {
            match wake.try_send(()) {
                Ok(()) | Err(TrySendError::Full(()) | TrySendError::Disconnected(())) => {}
            }
        }
    }
}

impl Drop for Merging {
    fn drop(&mut self) {
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            // A merge under way ends first: its files are whole.
            let _ = thread.join();
        }
    }
}

/// Big-endian without leading zeros.
fn encoded(position: Position) -> Vec<u8> {
    let bytes = position.get().to_be_bytes();
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes[zeros..].to_vec()
}

fn decoded(bytes: &[u8]) -> Position {
    Position::new(bytes.iter().fold(0, |position, byte| (position << 8) | u64::from(*byte)))
}

#[cfg(test)]
mod tests;
