//! What the store does not take at the moment, for those who ask whether the lake can be written.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

/// The tables whose commits fail, and since when.
#[derive(Clone, Debug, Default)]
pub struct StoreTrouble(Arc<Mutex<BTreeMap<String, Instant>>>);

impl StoreTrouble {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn begin(&self, table: &str) {
        self.lock().entry(table.to_owned()).or_insert_with(Instant::now);
    }

    pub(crate) fn end(&self, table: &str) {
        self.lock().remove(table);
    }

    /// The table whose commit has failed the longest, and since when.
    #[must_use]
    pub fn longest(&self) -> Option<(String, Instant)> {
        let tables = self.lock();
        tables.iter().min_by_key(|(_, since)| **since).map(|(table, since)| (table.clone(), *since))
    }
}
