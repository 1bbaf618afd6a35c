//! Takes snapshots of KPI buckets before retention removes events that they depend on.
//!
//! A snapshot has the whole KPI and each of its dimensions, in UTC, at every grain; hours of the whole only. Buckets that share a key
//! with an expired event are included. A bucket that has not ended gets no snapshot: once it has lost days, it is the sum of
//! its days, and null where a value is not additive.

use std::{collections::BTreeSet, sync::Arc};

use arrow::{array::RecordBatch, error::ArrowError};
use lake::{
    LakeView, SqlError, SqlSession,
    ledger::{KpiSnapshotRow, frozen_batch},
};

use super::{
    compute::compute,
    dirty_set::{DirtySet, Precision},
    error::{KpiError, log_failure},
    history::{Rows, snapshot_rows},
    query::times_of_facts,
    series::{DAYS, SeriesKey, coalesce_ranges, push_range},
};
use crate::{
    calendar::{Calendar, Grain},
    kpi_definition::KpiDefinition,
};

/// An error of a snapshot. The events stay until it can be taken.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error(transparent)]
    Kpi(#[from] KpiError),
    #[error("the values do not fit their columns")]
    Rows(#[from] ArrowError),
}

/// Takes snapshots of KPI buckets before retention removes their events.
#[derive(Clone)]
pub struct KpiSnapshotter {
    pub session: SqlSession,
    pub definitions: Arc<Vec<KpiDefinition>>,
}

impl KpiSnapshotter {
    /// The rows of buckets that lose events when these rows of a table go, have ended by `now` and have no snapshot yet.
    ///
    /// # Errors
    /// When the lake cannot be read.
    pub async fn snapshot(
        &self,
        view: &Arc<LakeView>,
        table: usize,
        going: &RecordBatch,
        now: i64,
    ) -> Result<Option<RecordBatch>, SnapshotError> {
        let mut dirty = DirtySet::default();
        dirty.mark(&self.definitions, &view.catalogue, &[(table, going.clone())]);
        let mut frozen = Vec::new();
        for (index, kpi) in self.definitions.iter().enumerate() {
            match self.snapshot_of(view, index, kpi, &dirty, now).await {
                Ok(rows) => frozen.extend(rows),
                // It cannot be computed with the events either: they need not stay for it.
                Err(error @ (KpiError::NoBucket { .. } | KpiError::Query { source: SqlError::Invalid { .. }, .. })) => {
                    log_failure(&error);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(if frozen.is_empty() { None } else { Some(frozen_batch(&frozen, view.position, now)?) })
    }

    async fn snapshot_of(
        &self,
        view: &Arc<LakeView>,
        index: usize,
        kpi: &KpiDefinition,
        dirty: &DirtySet,
        now: i64,
    ) -> Result<Vec<KpiSnapshotRow>, KpiError> {
        let times = self.times(view, index, kpi, dirty).await?;
        let mut frozen = Vec::new();
        for grain in Grain::ALL {
            let calendar = Calendar { grain, ..DAYS };
            let starts = times.iter().filter_map(|time| calendar.start(*time));
            let buckets: BTreeSet<i64> =
                starts.filter(|start| calendar.next(*start).is_some_and(|end| end <= now)).collect();
            let dimensions = kpi.dimensions.iter().filter(|_| grain != Grain::Hour).map(|it| vec![it.name.clone()]);
            for by in [Vec::new()].into_iter().chain(dimensions) {
                let key = SeriesKey { by, ..SeriesKey::whole(kpi.name.clone(), calendar) };
                let rows = self.rows_without_snapshot(view, kpi, &key, buckets.clone()).await?;
                frozen.extend(rows.into_iter().flat_map(|(row, values)| {
                    let (kpi, dimension) = (kpi.name.clone(), key.by.first().cloned());
                    values.into_iter().map(move |(measure, amount)| KpiSnapshotRow {
                        kpi: kpi.clone(),
                        grain: grain.name(),
                        dimension: dimension.clone(),
                        group: row.dimensions.first().cloned().flatten(),
                        bucket: row.bucket,
                        measure,
                        amount: amount.as_f64(),
                    })
                }));
            }
        }
        Ok(frozen)
    }

    /// The times of the facts that these events, or lookups in them, are part of.
    async fn times(
        &self,
        view: &Arc<LakeView>,
        index: usize,
        kpi: &KpiDefinition,
        dirty: &DirtySet,
    ) -> Result<BTreeSet<i64>, KpiError> {
        let mut times = dirty.times.get(&kpi.name).cloned().unwrap_or_default();
        let dimensions = kpi.dimensions.iter().map(|dimension| &dimension.name);
        for condition in &dirty.facts(index, kpi, dimensions, Precision::Exact) {
            times.extend(times_of_facts(&self.session, view, kpi, condition).await?);
        }
        Ok(times)
    }

    /// The rows of the buckets of a series that have no snapshot yet.
    async fn rows_without_snapshot(
        &self,
        view: &Arc<LakeView>,
        kpi: &KpiDefinition,
        key: &SeriesKey,
        mut buckets: BTreeSet<i64>,
    ) -> Result<Rows, KpiError> {
        let ends = |buckets: &BTreeSet<i64>| buckets.first().copied().zip(buckets.last().map(|last| last + 1));
        if let Some((from, to)) = ends(&buckets)
            && view.frozen > 0
        {
            for row in snapshot_rows(&self.session, view, kpi, key, from, to).await?.keys() {
                buckets.remove(&row.bucket);
            }
        }
        let mut ranges = Vec::new();
        for &start in &buckets {
            push_range(&mut ranges, start, key.calendar.next(start).unwrap_or(start));
        }
        let mut rows = Vec::new();
        for (from, to) in coalesce_ranges(ranges) {
            let computed = compute(&self.session, view, kpi, key, from, to).await?;
            rows.extend(computed.into_iter().filter(|(row, _)| buckets.contains(&row.bucket)));
        }
        Ok(rows)
    }
}
