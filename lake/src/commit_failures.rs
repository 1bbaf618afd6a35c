//! Tables whose commits are failing: readiness reports them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

/// The tables whose commits are failing, each with the time of its first failure.
#[derive(Clone, Debug, Default)]
pub struct CommitFailures(Arc<Mutex<BTreeMap<String, Instant>>>);

impl CommitFailures {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn begin(&self, table: &str) {
        self.lock().entry(table.to_owned()).or_insert_with(Instant::now);
    }

    pub(crate) fn end(&self, table: &str) {
        self.lock().remove(table);
    }

    /// The table whose commits have failed the longest, and since when.
    #[must_use]
    pub fn oldest(&self) -> Option<(String, Instant)> {
        let tables = self.lock();
        tables.iter().min_by_key(|(_, since)| **since).map(|(table, since)| (table.clone(), *since))
    }
}
