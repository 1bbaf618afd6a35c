//! Small files of a partition become one larger, beside the commits: a table stays quick to open, read and commit to.
//!
//! A compaction reads files that a version of the table has, writes their rows sorted as one, and then, in one short
//! commit of its own, puts the new file in their place. Files never change and only compactions take them away, so what
//! was written stays right whatever is appended meanwhile. Positions are rows' own and are not touched.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use datafusion::{arrow::datatypes::SchemaRef, prelude::SessionContext};
use deltalake::kernel::{Action, Add};
use futures::{FutureExt, future::BoxFuture};
use object_store::{ObjectStoreExt, path::Path};
use parquet::{
    errors::ParquetError,
    file::metadata::{ColumnChunkMetaData, ParquetMetaDataReader, RowGroupMetaData},
};

use crate::{
    rewrite::{Rewrite, RewriteError},
    table::{Committed, PartFile},
    table_spec::TableSpec,
};

/// A file is made no larger than this.
pub(crate) const LARGEST: i64 = 16 << 20;
/// Nor than this once it is read: it is sorted in memory. Rows that are alike take far less in a file.
const LARGEST_READ: i64 = 64 << 20;
/// A file of at least this size stays as it is.
const LARGE: i64 = LARGEST / 2;
/// So many small files of a partition that is written to are merged.
const MANY: usize = 8;
/// A partition that was not written to for this long is brought to as few files as can be.
const QUIET_AFTER: Duration = Duration::from_secs(3_600);

/// How eagerly files are merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eagerness {
    /// Where there are many, and where nothing is written any more.
    Continuous,
    /// Wherever there is more than one.
    Thorough,
}

/// What keeps a compaction from being made. Nothing is lost: the files stay as they were.
#[derive(Debug, thiserror::Error)]
pub enum CompactionError {
    #[error(transparent)]
    Rewrite(#[from] RewriteError),
    #[error("the small files' footers cannot be read")]
    Footer(#[source] ParquetError),
}

/// The files of one partition that are merged next: those of the partition with the most.
pub(crate) fn choose(
    partitions: &BTreeMap<String, Vec<PartFile>>,
    now: i64,
    eagerness: Eagerness,
) -> Option<Vec<PartFile>> {
    let chosen = partitions.values().filter_map(|files| of_partition(files, now, eagerness));
    chosen.max_by_key(Vec::len)
}

fn of_partition(files: &[PartFile], now: i64, eagerness: Eagerness) -> Option<Vec<PartFile>> {
    let mut small: Vec<&PartFile> = files.iter().filter(|file| file.bytes < LARGE).collect();
    small.sort_by_key(|file| file.bytes);
    let quiet_since = now - i64::try_from(QUIET_AFTER.as_millis()).unwrap_or(i64::MAX);
    let settled = eagerness == Eagerness::Thorough || files.iter().all(|file| file.written_at < quiet_since);
    let mut merged: Vec<PartFile> = Vec::new();
    let mut bytes = 0;
    for file in small {
        // One much larger than the others is not written again for their sake.
        let too_large = !settled && merged.len() > 1 && file.bytes > 2 * bytes;
        if too_large || bytes + file.bytes > LARGEST {
            break;
        }
        bytes += file.bytes;
        merged.push(file.clone());
    }
    (merged.len() >= if settled { 2 } else { MANY }).then_some(merged)
}

/// Files to be merged, taken away to be run beside the lake.
pub struct Compaction {
    pub(crate) index: usize,
    pub(crate) spec: Arc<TableSpec>,
    pub(crate) committed: Committed,
    pub(crate) columns: SchemaRef,
    pub(crate) files: Vec<PartFile>,
    pub(crate) session: SessionContext,
}

/// A merged file that the table does not know yet.
pub struct Compacted {
    pub(crate) index: usize,
    /// What takes its place, and what it takes the place of.
    pub(crate) actions: Vec<Action>,
    pub files: usize,
    pub bytes: i64,
}

impl Compaction {
    /// The table and the partition whose files are merged.
    #[must_use]
    pub fn partition(&self) -> String {
        let folder = self.files.first().and_then(|file| file.path.rsplit_once('/')).map_or("", |(folder, _)| folder);
        format!("{}/{folder}", self.spec.name)
    }

    /// Read the files and write one; none, when no two of them fit into memory.
    ///
    /// # Errors
    /// When the store does not give or take them.
    pub fn run(mut self) -> BoxFuture<'static, Result<Option<Compacted>, CompactionError>> {
        async move {
            self.files = self.within_memory().await?;
            if self.files.len() < 2 {
                return Ok(None);
            }
            let paths = self.files.iter().map(|file| file.path.clone()).collect();
            let rewrite = Rewrite {
                spec: &self.spec,
                committed: &self.committed,
                columns: &self.columns,
                session: &self.session,
            };
            let added = rewrite.run(&paths, None).await?;
            let mut actions = self.committed.removals(|path| paths.contains(path), false);
            actions.extend(added.into_iter().map(|add| Action::Add(Add { data_change: false, ..add })));
            let bytes = self.files.iter().map(|file| file.bytes).sum();
            Ok(Some(Compacted { index: self.index, actions, files: self.files.len(), bytes }))
        }
        .boxed()
    }

    /// As many of the files as may be read at once.
    async fn within_memory(&self) -> Result<Vec<PartFile>, CompactionError> {
        let (mut bytes, mut files) = (0, Vec::new());
        let store = self.committed.table.object_store();
        for file in &self.files {
            let whole = async { store.get(&Path::from(file.path.as_str())).await?.bytes().await };
            let whole =
                whole.await.map_err(|error| CompactionError::Footer(ParquetError::External(Box::new(error))))?;
            let metadata = ParquetMetaDataReader::new().parse_and_finish(&whole).map_err(CompactionError::Footer)?;
            bytes += metadata.row_groups().iter().map(bytes_read).sum::<i64>();
            if bytes > LARGEST_READ {
                break;
            }
            files.push(file.clone());
        }
        Ok(files)
    }
}

/// What a row group takes in memory, about: texts as long as they are, and the rest as it is written.
fn bytes_read(group: &RowGroupMetaData) -> i64 {
    let of_column = |column: &ColumnChunkMetaData| {
        column.uncompressed_size().max(column.unencoded_byte_array_data_bytes().unwrap_or_default())
    };
    group.columns().iter().map(of_column).sum()
}

#[cfg(test)]
mod tests;
