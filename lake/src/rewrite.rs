//! Rows of some files written anew as others, which the table does not know yet.

use std::{collections::HashSet, sync::Arc};

use datafusion::{
    arrow::datatypes::SchemaRef,
    error::DataFusionError,
    logical_expr::Expr,
    prelude::{SessionContext, col},
};
use deltalake::{
    DeltaTableError,
    kernel::Add,
    writer::{DeltaWriter, RecordBatchWriter},
};
use futures::StreamExt;

use crate::{
    table::{Committed, Effort, writer_properties},
    table_spec::TableSpec,
};

/// What keeps files from being written anew. Nothing is lost: they stay as they were.
#[derive(Debug, thiserror::Error)]
pub enum RewriteError {
    #[error("the files cannot be read")]
    Read(#[source] DataFusionError),
    #[error("the new file cannot be written")]
    Write(#[source] DeltaTableError),
}

/// A table whose files are written anew.
pub(crate) struct Rewrite<'a> {
    pub(crate) spec: &'a TableSpec,
    pub(crate) committed: &'a Committed,
    /// The table's own columns, in their order.
    pub(crate) columns: &'a SchemaRef,
    pub(crate) session: &'a SessionContext,
}

impl Rewrite<'_> {
    /// Write the rows of these files, or those of them that are to be kept, sorted.
    pub(crate) async fn run(&self, paths: &HashSet<String>, keep: Option<Expr>) -> Result<Vec<Add>, RewriteError> {
        let rows = async {
            let names: Vec<&str> = self.columns.fields().iter().map(|field| field.name().as_str()).collect();
            let files = self.committed.rows_with_files(Some(paths))?;
            let mut frame = self.session.read_table(files)?;
            if let Some(keep) = keep {
                frame = frame.filter(keep)?;
            }
            let order = self.spec.sort.iter().map(|name| col(*name).sort(true, true)).collect();
            frame.select_columns(&names)?.sort(order)?.execute_stream().await
        };
        let mut rows = rows.await.map_err(RewriteError::Read)?;
        let writer = RecordBatchWriter::for_table(&self.committed.table).map_err(RewriteError::Write)?;
        let mut writer = writer.with_writer_properties(writer_properties(Effort::Lasting));
        while let Some(batch) = rows.next().await {
            let batch = batch.and_then(|batch| Ok(batch.with_schema(Arc::clone(self.columns))?));
            let batch = batch.map_err(RewriteError::Read)?;
            if batch.num_rows() > 0 {
                writer.write(batch).await.map_err(RewriteError::Write)?;
            }
        }
        writer.flush().await.map_err(RewriteError::Write)
    }
}
