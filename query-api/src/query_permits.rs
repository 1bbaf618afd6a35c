//! As many queries as may run at once. One whose rows nobody reads gives its permit to another that waits for one.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use lake::RowReader;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

/// Queries that run at once; others wait.
pub(crate) const MAX_QUERIES: usize = 16;
/// How long a query waits for its permit.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(10);
/// A query whose rows were not read for so long is stopped when another waits.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two looks for such a query.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Permits of queries, for every way they come.
#[derive(Debug)]
pub struct QueryPermits {
    permits: Arc<Semaphore>,
    running: Mutex<Running>,
}

#[derive(Debug, Default)]
struct Running {
    next: u64,
    readers: HashMap<u64, (RowReader, CancellationToken)>,
}

/// Permission to run a query, until it is dropped, its time is up or its rows are not read while another waits.
pub(crate) struct QueryPermit {
    permits: Arc<QueryPermits>,
    number: u64,
    /// Once it is given back.
    ended: CancellationToken,
    _dropped: oneshot::Sender<()>,
}

impl Default for QueryPermits {
    fn default() -> Self {
        Self { permits: Arc::new(Semaphore::new(MAX_QUERIES)), running: Mutex::default() }
    }
}

impl QueryPermits {
    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A permit for so long; `None`, when none was free within the time a query waits. Who came first is served first.
    pub(crate) async fn acquire(self: &Arc<Self>, time_limit: Duration) -> Option<QueryPermit> {
        let deadline = Instant::now() + QUEUE_TIMEOUT;
        let acquired = Arc::clone(&self.permits).acquire_owned();
        tokio::pin!(acquired);
        loop {
            let look = deadline.min(Instant::now() + LOOK_EVERY);
            match timeout_at(look, acquired.as_mut()).await {
                Ok(permit) => return Some(self.permit(permit.ok()?, time_limit)),
                Err(_) if look == deadline => return None,
                Err(_) => self.stop_idle(),
            }
        }
    }

    fn permit(self: &Arc<Self>, permit: OwnedSemaphorePermit, time_limit: Duration) -> QueryPermit {
        let (dropped, is_dropped) = oneshot::channel();
        let ended = CancellationToken::new();
        let number = {
            let mut running = self.running();
            running.next += 1;
            running.next
        };
        let (permits, is_ended) = (Arc::clone(self), ended.clone());
        metrics::gauge!("sql_queries_running").increment(1.0);
        tokio::spawn(async move {
            tokio::select! {
                _ = timeout(time_limit, is_dropped) => {}
                () = is_ended.cancelled() => {}
            }
            is_ended.cancel();
            // A query whose time is up holds nothing that another could have.
            permits.running().readers.remove(&number);
            drop(permit);
            metrics::gauge!("sql_queries_running").decrement(1.0);
        });
        QueryPermit { permits: Arc::clone(self), number, ended, _dropped: dropped }
    }

    /// Stop the query whose rows were not read for the longest, if that is long enough.
    fn stop_idle(&self) {
        let running = self.running();
        let idle = running.readers.values().filter_map(|(reader, ended)| Some((reader.idle_since()?, reader, ended)));
        let Some((_, reader, ended)) = idle.min_by_key(|(since, ..)| *since) else { return };
        if reader.stop_if_idle(IDLE_TIMEOUT) {
            ended.cancel();
        }
    }
}

impl QueryPermit {
    /// The query runs, and its rows are read here.
    pub(crate) fn watch(&self, reader: RowReader) {
        let mut running = self.permits.running();
        if !self.ended.is_cancelled() {
            running.readers.insert(self.number, (reader, self.ended.clone()));
        }
    }
}

impl Drop for QueryPermit {
    fn drop(&mut self) {
        self.permits.running().readers.remove(&self.number);
    }
}
