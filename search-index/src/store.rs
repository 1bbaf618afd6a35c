//! The index on disk: what is said to it, and its commits, which run beside the searches and the refreshes, and give way to
//! them.

use std::thread::{self, JoinHandle};

use tantivy::{Index, IndexReader, IndexWriter, ReloadPolicy, TantivyDocument, TantivyError, Term, schema::Field};
use thread_priority::{ThreadPriority, ThreadPriorityValue, set_current_thread_priority};

use crate::{fresh::Said, index::IndexError, segments::Segments};

/// Memory for documents not yet committed.
const WRITER_MEMORY: usize = 64 << 20;

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
    /// What was said since: the writer hears of it when the commit has ended.
    said: Said,
}

impl Committing {
    fn wait(&mut self) -> Result<(Disk, Segments), IndexError> {
        self.thread.take().map_or(Err(IndexError::Failed), |thread| waited(thread)?)
    }
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
                committing.said.insert(key.to_owned(), document);
                Ok(())
            }
            Self::Failed => Err(IndexError::Failed),
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

    /// Commit what was said, with this payload, beside whatever else is done. One at a time.
    pub(crate) fn begin_commit(&mut self, payload: String, before: Segments) -> Result<(), IndexError> {
        let Self::Idle(disk) = std::mem::replace(self, Self::Failed) else { return Err(IndexError::Failed) };
        let thread = in_background("index-commit", move || disk.commit(&payload, &before))?;
        *self = Self::Committing(Committing { thread: Some(thread), said: Said::new() });
        Ok(())
    }

    /// What a commit that has ended left, if there is one.
    pub(crate) fn ended(&mut self) -> Result<Option<Segments>, IndexError> {
        if self.is_running() { Ok(None) } else { self.wait() }
    }

    /// What a commit left, waited for if one runs.
    pub(crate) fn wait(&mut self) -> Result<Option<Segments>, IndexError> {
        let committing = match self {
            Self::Idle(_) => return Ok(None),
            Self::Committing(committing) => committing,
            Self::Failed => return Err(IndexError::Failed),
        };
        let said = std::mem::take(&mut committing.said);
        let ended = committing.wait();
        *self = Self::Failed;
        let (disk, segments) = ended?;
        for (key, document) in said {
            disk.say(&key, document)?;
        }
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
