//! A table at a cut: committed rows and the tail's, as one.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::{
    arrow::{array::RecordBatch, datatypes::SchemaRef},
    catalog::{Session, TableProvider, memory::MemorySourceConfig},
    common::Result,
    logical_expr::{Expr, TableProviderFilterPushDown, TableType},
    physical_plan::{ExecutionPlan, union::UnionExec},
};

/// Committed rows ∪ tail. The tail holds exactly the rows after the committed position.
#[derive(Debug)]
pub(crate) struct CutTable {
    pub(crate) schema: SchemaRef,
    /// Has these columns, in any order, and others that no query sees: the partition, and what is no longer known.
    pub(crate) committed: Arc<dyn TableProvider>,
    pub(crate) tail: Vec<RecordBatch>,
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
        let tail: Arc<dyn ExecutionPlan> = MemorySourceConfig::try_new_exec(
            std::slice::from_ref(&self.tail),
            self.schema.clone(),
            Some(projection.clone()),
        )?;
        UnionExec::try_new(vec![committed, tail])
    }
}
