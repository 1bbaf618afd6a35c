//! Computes series: by the KPI's query, with snapshots in the place of buckets that have lost events.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures::{FutureExt, future::BoxFuture};
use lake::{LakeView, SqlSession};
use serde_json::{Map, Value};

use super::{
    error::KpiError,
    history::{Rows, covers, snapshot_rows, summed},
    query::rows_of,
    series::{DAYS, EARLIEST, LATEST, RowKey, SeriesKey},
};
use crate::{
    calendar::Grain,
    kpi_definition::{BucketBy, KpiDefinition},
};

/// Rows of a KPI by their key: each value by its name.
pub type ComputedRows = BTreeMap<RowKey, Map<String, Value>>;

/// Every row of a series there is at this cut, computed at once.
///
/// # Errors
/// When the KPI cannot be computed.
pub fn recomputed<'a>(
    session: &'a SqlSession,
    view: &'a Arc<LakeView>,
    kpi: &'a KpiDefinition,
    key: &'a SeriesKey,
) -> BoxFuture<'a, Result<ComputedRows, KpiError>> {
    async move { Ok(compute(session, view, kpi, key, EARLIEST, LATEST).await?.into_iter().collect()) }.boxed()
}

/// The rows of the buckets of `[from, to)`, whose ends are bucket ends. A bucket with a snapshot is the snapshot. A longer
/// bucket without one that has lost days is the sum of its days.
pub(super) async fn compute(
    session: &SqlSession,
    view: &Arc<LakeView>,
    kpi: &KpiDefinition,
    key: &SeriesKey,
    from: i64,
    to: i64,
) -> Result<Rows, KpiError> {
    let computed = compute_from_events(session, view, kpi, key, from, to).await?;
    if view.frozen == 0 || !covers(key) {
        return Ok(computed);
    }
    let snapshots = snapshot_rows(session, view, kpi, key, from, to).await?;
    let mut complete: BTreeSet<i64> = snapshots.keys().map(|row| row.bucket).collect();
    let mut rows: Rows = snapshots.into_iter().collect();
    if ![Grain::Hour, Grain::Day].contains(&key.calendar.grain) {
        let day = SeriesKey { calendar: DAYS, ..key.clone() };
        let days = snapshot_rows(session, view, kpi, &day, from, to).await?;
        let mut begun: BTreeSet<i64> = days.keys().filter_map(|row| key.calendar.start(row.bucket)).collect();
        begun.retain(|start| !complete.contains(start));
        for start in begun {
            let Some(end) = key.calendar.next(start) else { continue };
            let days = compute_days(session, view, kpi, &day, start, end).await?;
            rows.extend(summed(kpi, start, days));
            complete.insert(start);
        }
    }
    rows.extend(computed.into_iter().filter(|(row, _)| !complete.contains(&row.bucket)));
    Ok(rows)
}

/// The rows of days: snapshots where there are any, computed where not.
async fn compute_days(
    session: &SqlSession,
    view: &Arc<LakeView>,
    kpi: &KpiDefinition,
    key: &SeriesKey,
    from: i64,
    to: i64,
) -> Result<Rows, KpiError> {
    let computed = compute_from_events(session, view, kpi, key, from, to).await?;
    let snapshots = snapshot_rows(session, view, kpi, key, from, to).await?;
    let complete: BTreeSet<i64> = snapshots.keys().map(|row| row.bucket).collect();
    let computed = computed.into_iter().filter(|(row, _)| !complete.contains(&row.bucket));
    Ok(snapshots.into_iter().chain(computed).collect())
}

/// The rows that the events still there give.
async fn compute_from_events(
    session: &SqlSession,
    view: &Arc<LakeView>,
    kpi: &KpiDefinition,
    key: &SeriesKey,
    from: i64,
    to: i64,
) -> Result<Rows, KpiError> {
    let bucket = if key.window > 1 { BucketBy::Rolling } else { BucketBy::Time };
    let sql = kpi.query(&key.by, &key.filters, bucket);
    // A window reaches back.
    let earliest = if from == EARLIEST { Some(from) } else { key.calendar.offset(from, 1 - i64::from(key.window)) };
    let rows = rows_of(session, view, kpi, key, &sql, earliest.unwrap_or(EARLIEST), to).await?;
    let keyed = rows.into_iter().filter_map(|(bucket, dimensions, values)| {
        let bucket = bucket.filter(|bucket| (from..to).contains(bucket))?;
        Some((RowKey { bucket, dimensions }, values))
    });
    Ok(keyed.collect())
}
