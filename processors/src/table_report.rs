//! A table before and after maintenance.

use std::collections::BTreeMap;

use lake::{Forecast, TableFiles};
use serde::{Deserialize, Serialize};

/// A table before and after maintenance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableReport {
    pub table: String,
    /// Files and bytes that make up the table.
    pub files_before: u64,
    pub files_after: u64,
    pub bytes_before: u64,
    pub bytes_after: u64,
    /// Events that were past their time and are gone.
    pub events_retired: u64,
    /// Files that no version of the table has any more, which were deleted.
    pub files_deleted: u64,
    pub bytes_deleted: u64,
}

impl TableReport {
    pub(crate) fn compare(
        before: &[TableFiles],
        after: &[TableFiles],
        retired: &BTreeMap<String, u64>,
        deleted: &BTreeMap<String, (u64, u64)>,
    ) -> Vec<Self> {
        let of_table = |(before, after): (&TableFiles, &TableFiles)| {
            let (files_deleted, bytes_deleted) = deleted.get(&after.table).copied().unwrap_or_default();
            Self {
                table: after.table.clone(),
                files_before: before.files,
                files_after: after.files,
                bytes_before: before.bytes,
                bytes_after: after.bytes,
                events_retired: retired.get(&after.table).copied().unwrap_or_default(),
                files_deleted,
                bytes_deleted,
            }
        };
        before.iter().zip(after).map(of_table).collect()
    }
}

impl From<Forecast> for TableReport {
    fn from(forecast: Forecast) -> Self {
        let Forecast { table, files, bytes, files_after, events_past_their_time, deletable } = forecast;
        Self {
            table,
            files_before: files,
            files_after,
            bytes_before: bytes,
            // Merging makes them smaller, by how much is known then.
            bytes_after: bytes,
            events_retired: events_past_their_time,
            files_deleted: deletable.0,
            bytes_deleted: deletable.1,
        }
    }
}
