//! The index on disk: what is said to it, and its commits, which run beside the searches and the refreshes, and give way to
//! them.

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
};

use tantivy::{Index, IndexReader, IndexWriter, ReloadPolicy, TantivyDocument, TantivyError, Term, schema::Field};
use thread_priority::{ThreadPriority, ThreadPriorityValue, set_current_thread_priority};

use crate::{error::IndexError, fresh::Said, market::MarketInUse, segments::Segments};

/// Memory for documents not yet committed.
const WRITER_MEMORY: usize = 64 << 20;
/// The thread of a commit ends when it finds no more than this that came beside it; what comes after is left to whoever takes it.
const FEW: usize = 32;

/// The writing side.
pub(crate) struct Disk {
    key: Field,
    writer: IndexWriter,
    reader: IndexReader,
}

impl Disk {
    pub(crate) fn open(index: &Index, key: Field) -> Result<Self, IndexError> {
        let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()?;
        let opened = index.clone();
        let writer = waited(in_background("index-open", move || opened.writer_with_num_threads(1, WRITER_MEMORY))?)??;
        Ok(Self { key, writer, reader })
    }

    /// The segments of the last commit.
    pub(crate) fn segments(&self, before: &Segments) -> Result<Segments, IndexError> {
        Ok(before.of(self.reader.searcher().segment_readers())?)
    }

    fn say(&self, key: &str, document: Option<TantivyDocument>) -> Result<(), IndexError> {
        self.writer.delete_term(Term::from_field_text(self.key, key));
        if let Some(document) = document {
            self.writer.add_document(document)?;
        }
        Ok(())
    }

    fn commit(mut self, payload: &str, before: &Segments) -> Result<(Self, Segments), IndexError> {
        let mut prepared = self.writer.prepare_commit()?;
        prepared.set_payload(payload);
        prepared.commit()?;
        self.reader.reload()?;
        let segments = self.segments(before)?;
        Ok((self, segments))
    }

    /// Go on with what came beside the commit that left these segments.
    fn catch_up(&self, beside: Beside, segments: &mut Segments) -> Result<(), IndexError> {
        for key in &beside.replaced {
            segments.remove(key)?;
        }
        for (key, document) in beside.said {
            self.say(&key, document)?;
        }
        Ok(())
    }
}

/// The disk, or its commit that runs.
pub(crate) enum Store {
    Idle(Box<Disk>),
    Committing(Committing),
    /// A commit failed: the index must be opened again.
    Failed,
}

pub(crate) struct Committing {
    /// None when it was waited for.
    thread: Option<JoinHandle<Result<(Disk, Segments), IndexError>>>,
    beside: Arc<Mutex<Beside>>,
}

/// What came while a commit ran.
#[derive(Default)]
struct Beside {
    /// What was said: the writer has not heard of it.
    said: Said,
    /// Keys of which there is something newer than the commit.
    replaced: Vec<Term>,
}

impl Committing {
    fn begin(disk: Disk, payload: String, before: Segments, market: MarketInUse) -> Result<Self, IndexError> {
        let beside = Arc::new(Mutex::new(Beside::default()));
        let of_thread = Arc::clone(&beside);
        let thread = in_background("index-commit", move || {
            let (disk, mut segments) = disk.commit(&payload, &before)?;
            if let Err(error) = market.rate(&segments) {
                tracing::warn!(error = %error, "what was committed is not rated; the first search does it");
            }
            loop {
                let beside = mem::take(&mut *locked(&of_thread));
                let were_few = beside.said.len().max(beside.replaced.len()) <= FEW;
                disk.catch_up(beside, &mut segments)?;
                if were_few {
                    return Ok((disk, segments));
                }
            }
        })?;
        Ok(Self { thread: Some(thread), beside })
    }

    fn wait(&mut self) -> Result<(Disk, Segments), IndexError> {
        let (disk, mut segments) = self.thread.take().map_or(Err(IndexError::Failed), |thread| waited(thread)?)?;
        disk.catch_up(mem::take(&mut *locked(&self.beside)), &mut segments)?;
        Ok((disk, segments))
    }
}

fn locked(beside: &Mutex<Beside>) -> MutexGuard<'_, Beside> {
    beside.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Committing {
    fn drop(&mut self) {
        // The index cannot be opened again before its writer is gone. What failed is found out then.
        let _ = self.wait();
    }
}

impl Store {
    /// An entity's document from now on, or that it is gone.
    pub(crate) fn say(&mut self, key: &str, document: Option<TantivyDocument>) -> Result<(), IndexError> {
        match self {
            Self::Idle(disk) => disk.say(key, document),
            Self::Committing(committing) => {
                locked(&committing.beside).said.insert(key.to_owned(), document);
                Ok(())
            }
            Self::Failed => Err(IndexError::Failed),
        }
    }

    /// Newer segments have what is with this key: what a commit that runs leaves of it does not count.
    pub(crate) fn replace(&self, key: Term) {
        if let Self::Committing(committing) = self {
            locked(&committing.beside).replaced.push(key);
        }
    }

    pub(crate) const fn is_idle(&self) -> bool {
        matches!(self, Self::Idle(_))
    }

    /// Whether a commit has begun and not ended.
    pub(crate) fn is_running(&self) -> bool {
        let Self::Committing(committing) = self else { return false };
        committing.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Commit what was said, with this payload, beside whatever else is done, and rate it. One at a time.
    pub(crate) fn begin_commit(
        &mut self,
        payload: String,
        before: Segments,
        market: MarketInUse,
    ) -> Result<(), IndexError> {
        let Self::Idle(disk) = mem::replace(self, Self::Failed) else { return Err(IndexError::Failed) };
        *self = Self::Committing(Committing::begin(*disk, payload, before, market)?);
        Ok(())
    }

    /// What a commit that has ended left, if there is one; without what was replaced since it began.
    pub(crate) fn ended(&mut self) -> Result<Option<Segments>, IndexError> {
        if self.is_running() { Ok(None) } else { self.wait() }
    }

    /// What a commit left, waited for if one runs; without what was replaced since it began.
    pub(crate) fn wait(&mut self) -> Result<Option<Segments>, IndexError> {
        let committing = match self {
            Self::Idle(_) => return Ok(None),
            Self::Committing(committing) => committing,
            Self::Failed => return Err(IndexError::Failed),
        };
        let ended = committing.wait();
        *self = Self::Failed;
        let (disk, segments) = ended?;
        *self = Self::Idle(Box::new(disk));
        Ok(Some(segments))
    }
}

/// Do something on a thread that runs, and whose own threads run, when the others leave them a core.
fn in_background<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, IndexError> {
    /// Of 100: below what folds and refreshes.
    const PRIORITY: u8 = 12;
    let work = move || {
        let priority = ThreadPriorityValue::try_from(PRIORITY).map(ThreadPriority::Crossplatform);
        // Where the system does not allow it, all are equal.
        let _ = priority.map(set_current_thread_priority);
        work()
    };
    thread::Builder::new().name(name.to_owned()).spawn(work).map_err(|error| TantivyError::from(error).into())
}

fn waited<T>(thread: JoinHandle<T>) -> Result<T, IndexError> {
    let panicked = |_| TantivyError::ErrorInThread("a thread of the index panicked".to_owned());
    Ok(thread.join().map_err(panicked)?)
}
