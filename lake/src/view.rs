//! An immutable cut of the whole lake.

use std::sync::Arc;

use datafusion::{arrow::array::RecordBatch, catalog::TableProvider};
use schemas::{Catalogue, Position};

use crate::{cut_table::CutTable, table::Committed, table_spec::TableSpec};

/// A table as part of a view.
#[derive(Clone, Debug)]
pub struct TableView {
    pub spec: Arc<TableSpec>,
    /// The position up to which the committed rows are complete.
    pub committed_position: Position,
    pub(crate) committed: Committed,
    /// The rows in `(committed position, view position]`.
    pub tail: Vec<RecordBatch>,
}

impl TableView {
    /// Whether every row is of this position or before it.
    pub(crate) fn ends_by(&self, position: Position) -> bool {
        self.committed_position <= position && self.tail.is_empty()
    }

    pub(crate) fn provider(&self) -> Arc<dyn TableProvider> {
        Arc::new(CutTable::new(&self.spec.schema, Arc::clone(&self.committed.rows), self.tail.clone()))
    }
}

/// Every table, cut at one position. A query holds one view and so never mixes positions.
#[derive(Clone, Debug)]
pub struct LakeView {
    pub catalogue: Arc<Catalogue>,
    /// What the view reflects: everything up to here and nothing after.
    pub position: Position,
    /// The latest event time in it, in microseconds since 1970, UTC.
    pub event_time: Option<i64>,
    /// Rows after this are not part of it; every row is, when none.
    pub(crate) until: Option<Position>,
    /// One per context in the catalogue's order, then dead letters, then gaps, then duplicates.
    pub tables: Vec<TableView>,
    /// What became of dead letters, by somebody's decision: as of now rather than of the position.
    pub(crate) closings: Arc<dyn TableProvider>,
    /// What retention has taken, by now.
    pub(crate) retired: Arc<dyn TableProvider>,
    /// Grows whenever retention takes events.
    pub retirements: u64,
    /// What KPIs said of them, by now.
    pub(crate) kpi_history: Arc<dyn TableProvider>,
    /// How many values of KPIs are frozen.
    pub frozen: u64,
}

impl LakeView {
    /// The same as of an earlier position, whose latest event time this is. What became of dead letters stays as of now.
    #[must_use]
    pub(crate) fn cut(&self, position: Position, event_time: Option<i64>) -> Self {
        Self { position, event_time, until: Some(position), ..self.clone() }
    }

    /// The table of this name.
    #[must_use]
    pub fn table(&self, name: &str) -> Option<&TableView> {
        self.tables.iter().find(|table| table.spec.name == name)
    }
}
