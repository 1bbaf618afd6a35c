//! What maintenance would do, without doing it.

use std::{collections::HashSet, time::Duration};

use datafusion::{logical_expr::Expr, prelude::SessionContext};
use futures::{FutureExt, future::BoxFuture};

use crate::{
    compaction::{Eagerness, choose},
    error::LakeError,
    retirement::count_expired,
    table::{Committed, PartFile},
};

/// The files that make up a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableFiles {
    pub table: String,
    pub files: u64,
    pub bytes: u64,
}

impl TableFiles {
    pub(crate) fn of(committed: &Committed) -> Self {
        let files = committed.files();
        let bytes = files.values().flatten().map(|file| u64::try_from(file.bytes).unwrap_or_default()).sum();
        Self { table: committed.name(), files: files.values().map(Vec::len).sum::<usize>() as u64, bytes }
    }
}

/// What maintenance would do to a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forecast {
    pub table: String,
    pub files: u64,
    pub bytes: u64,
    /// How many files there would be, at most: those that are left without rows go.
    pub files_after: u64,
    pub events_past_their_time: u64,
    /// Files and bytes that no version has any more.
    pub deletable: (u64, u64),
}

/// Every table as it is committed, to be looked at beside the lake.
pub struct Forecasting {
    pub(crate) tables: Vec<(Committed, Option<Expr>)>,
    pub(crate) keep: Duration,
    /// Milliseconds since 1970.
    pub(crate) now: i64,
    pub(crate) session: SessionContext,
}

impl Forecasting {
    /// Look at every table.
    ///
    /// # Errors
    /// When the lake cannot be read.
    pub fn run(self) -> BoxFuture<'static, Result<Vec<Forecast>, LakeError>> {
        async move {
            let mut forecasts = Vec::new();
            for (committed, expired) in self.tables {
                let TableFiles { table, files, bytes } = TableFiles::of(&committed);
                let events_past_their_time = match expired {
                    Some(expired) => {
                        count_expired(&self.session, &committed, expired).await.map_err(LakeError::Read)?
                    }
                    None => 0,
                };
                let deletable = committed.deletable(self.keep, &HashSet::new()).await;
                let deletable = deletable.map_err(|source| LakeError::Reload { table: table.clone(), source })?;
                forecasts.push(Forecast {
                    files_after: merged(&committed, self.now),
                    table,
                    files,
                    bytes,
                    events_past_their_time,
                    deletable: (deletable.files.len() as u64, deletable.bytes),
                });
            }
            Ok(forecasts)
        }
        .boxed()
    }
}

/// How many files there would be if they were merged as far as can be.
fn merged(committed: &Committed, now: i64) -> u64 {
    let mut partitions = committed.files();
    while let Some(chosen) = choose(&partitions, now, Eagerness::Thorough) {
        let bytes = chosen.iter().map(|file| file.bytes).sum();
        for files in partitions.values_mut() {
            let before = files.len();
            files.retain(|file| !chosen.contains(file));
            if files.len() < before {
                files.push(PartFile { path: String::new(), bytes, written_at: now });
            }
        }
    }
    partitions.values().map(Vec::len).sum::<usize>() as u64
}
