//! Whether a query's rows are read: one whose rows nobody reads can be stopped, so that another may run.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{task::AbortHandle, time::Instant};

#[cfg(doc)]
use crate::SqlError;

/// Whether a query's rows are read, as seen from elsewhere.
#[derive(Clone, Debug)]
pub struct RowReader {
    activity: Arc<Mutex<ReaderActivity>>,
    query: AbortHandle,
}

#[derive(Clone, Copy, Debug)]
enum ReaderActivity {
    Reading,
    IdleSince(Instant),
    Stopped,
}

impl RowReader {
    /// That of a query whose rows nobody has read yet.
    pub(crate) fn new(query: AbortHandle) -> Self {
        Self { activity: Arc::new(Mutex::new(ReaderActivity::IdleSince(Instant::now()))), query }
    }

    fn activity(&self) -> MutexGuard<'_, ReaderActivity> {
        self.activity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Since when nobody has read rows, if nobody does.
    #[must_use]
    pub fn idle_since(&self) -> Option<Instant> {
        match *self.activity() {
            ReaderActivity::IdleSince(since) => Some(since),
            ReaderActivity::Reading | ReaderActivity::Stopped => None,
        }
    }

    /// Rows that were fetched before have been taken: a batch may last its reader for long.
    pub fn touch(&self) {
        let mut activity = self.activity();
        if let ReaderActivity::IdleSince(since) = &mut *activity {
            *since = Instant::now();
        }
    }

    /// End the query, unless its rows were read lately: who reads them after all gets [`SqlError::NotRead`]. Whether it ended.
    pub fn stop_if_idle(&self, timeout: Duration) -> bool {
        let mut activity = self.activity();
        let is_idle = matches!(*activity, ReaderActivity::IdleSince(since) if since.elapsed() >= timeout);
        if is_idle {
            *activity = ReaderActivity::Stopped;
            self.query.abort();
        }
        is_idle
    }

    pub(crate) fn is_stopped(&self) -> bool {
        matches!(*self.activity(), ReaderActivity::Stopped)
    }

    /// Somebody waits for the next rows, until the guard is dropped.
    pub(crate) fn read(&self) -> ReadGuard<'_> {
        self.note(ReaderActivity::Reading);
        ReadGuard(self)
    }

    fn note(&self, activity: ReaderActivity) {
        let mut known = self.activity();
        if !matches!(*known, ReaderActivity::Stopped) {
            *known = activity;
        }
    }
}

/// Notes that nobody reads any more, when it is dropped.
pub(crate) struct ReadGuard<'a>(&'a RowReader);

impl Drop for ReadGuard<'_> {
    fn drop(&mut self) {
        self.0.note(ReaderActivity::IdleSince(Instant::now()));
    }
}
