//! A table at a cut: committed rows and the tail's, as one.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::{
    arrow::{
        array::{RecordBatch, RecordBatchOptions},
        compute::cast,
        datatypes::{Field, FieldRef, Schema, SchemaRef},
    },
    catalog::{Session, TableProvider, memory::MemorySourceConfig},
    common::Result,
    logical_expr::{Expr, TableProviderFilterPushDown, TableType},
    physical_plan::{ExecutionPlan, union::UnionExec},
};

/// Committed rows ∪ tail. The tail holds exactly the rows after the committed position.
#[derive(Debug)]
pub(crate) struct CutTable {
    schema: SchemaRef,
    /// Has these columns, in any order, and others that no query sees: the partition, and what is no longer known.
    committed: Arc<dyn TableProvider>,
    /// As the events came: with other types of text.
    tail: Vec<RecordBatch>,
}

impl CutTable {
    /// The columns of `schema`, as the committed rows have them.
    pub(crate) fn new(schema: &Schema, committed: Arc<dyn TableProvider>, tail: Vec<RecordBatch>) -> Self {
        let stored = committed.schema();
        let as_stored = |field: &FieldRef| match stored.field_with_name(field.name()) {
            Ok(stored) => Field::clone(field).with_data_type(stored.data_type().clone()),
            Err(_) => Field::clone(field),
        };
        let schema = Arc::new(Schema::new(schema.fields().iter().map(as_stored).collect::<Vec<_>>()));
        Self { schema, committed, tail }
    }
}

/// Some columns of it, each of the type it has in `schema`.
fn selected(batch: &RecordBatch, columns: &[usize], schema: &SchemaRef) -> Result<RecordBatch> {
    let cast = |(column, field): (&usize, &FieldRef)| cast(batch.column(*column), field.data_type());
    let arrays = columns.iter().zip(schema.fields()).map(cast).collect::<std::result::Result<_, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), arrays, &options)?)
}

#[async_trait]
impl TableProvider for CutTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        // They prune files and row groups; the engine filters what is read.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let every: Vec<usize> = (0..self.schema.fields().len()).collect();
        let projection = projection.unwrap_or(&every);
        let stored = self.committed.schema();
        let named = projection.iter().map(|column| stored.index_of(self.schema.field(*column).name()));
        let named = named.collect::<std::result::Result<Vec<_>, _>>()?;
        let committed = self.committed.scan(state, Some(&named), filters, limit).await?;
        if self.tail.is_empty() {
            return Ok(committed);
        }
        let schema = Arc::new(self.schema.project(projection)?);
        let tail = self.tail.iter().map(|batch| selected(batch, projection, &schema)).collect::<Result<Vec<_>>>()?;
        let tail: Arc<dyn ExecutionPlan> = MemorySourceConfig::try_new_exec(&[tail], schema, None)?;
        UnionExec::try_new(vec![committed, tail])
    }
}
