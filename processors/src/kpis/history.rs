//! Snapshots of KPI buckets that have lost events to retention: read, and summed to longer buckets.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use arrow::{
    array::{Array, AsArray},
    datatypes::{Float64Type, TimestampMicrosecondType},
};
use chrono::Weekday;
use chrono_tz::Tz;
use lake::{LakeView, SqlError, SqlSession};
use serde_json::{Map, Value, json};

use super::{
    error::KpiError,
    query::{all_time, run_kpi_query, time_range_params},
    series::{RowKey, SeriesKey},
};
use crate::{
    calendar::{Calendar, Grain},
    kpi_definition::{KpiDefinition, KpiValue},
};

/// Rows of a series with their keys.
pub(super) type Rows = Vec<(RowKey, Map<String, Value>)>;

/// Whether snapshots include this series.
pub(crate) fn covers(key: &SeriesKey) -> bool {
    let Calendar { grain, zone, week_start } = key.calendar;
    let dimensions = if grain == Grain::Hour { 0 } else { 1 };
    zone == Tz::UTC
        && (grain != Grain::Week || week_start == Weekday::Mon)
        && key.window == 1
        && key.filters.is_empty()
        && key.by.len() <= dimensions
}

/// Days as one bucket: sums of what can be summed.
pub(super) fn summed(kpi: &KpiDefinition, bucket: i64, mut days: Rows) -> BTreeMap<RowKey, Map<String, Value>> {
    // In one order, so that sums of floats are the same each time.
    days.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut sums: BTreeMap<RowKey, Map<String, Value>> = BTreeMap::new();
    for (day, values) in days {
        let sum = sums.entry(RowKey { bucket, dimensions: day.dimensions }).or_default();
        for value in &kpi.values {
            let of = |values: &Map<String, Value>| values.get(&value.name).and_then(Value::as_f64);
            let total = [of(sum), of(&values)].into_iter().flatten().reduce(|a, b| a + b);
            // Money has cents: a sum of many stays exact in them.
            let total = total.filter(|_| value.additive).map(|total| (total * 1e6).round() / 1e6);
            sum.insert(value.name.clone(), amount_of(value, total));
        }
    }
    sums
}

/// An amount as the KPI's query tells it.
fn amount_of(value: &KpiValue, amount: Option<f64>) -> Value {
    #[expect(clippy::cast_possible_truncation, reason = "counts are far below 2^53")]
    let whole = |amount: f64| json!(amount as i64);
    amount.map_or(Value::Null, |amount| if value.is_whole() { whole(amount) } else { json!(amount) })
}

/// The snapshot rows of a series in the buckets of `[from, to)`.
pub(super) async fn snapshot_rows(
    session: &SqlSession,
    view: &Arc<LakeView>,
    kpi: &KpiDefinition,
    key: &SeriesKey,
    from: i64,
    to: i64,
) -> Result<BTreeMap<RowKey, Map<String, Value>>, KpiError> {
    let dimension = match key.by.first() {
        Some(name) => format!("dimension = '{name}'"),
        None => "dimension IS NULL".to_owned(),
    };
    let sql = format!(
        "SELECT bucket, dimension_value, measure, amount FROM system.kpi_history WHERE kpi = '{}' AND grain = '{}' \
         AND {dimension} AND bucket >= $from AND bucket < $to",
        kpi.name,
        key.calendar.grain.name()
    );
    let found = run_kpi_query(session, view, Vec::new(), kpi, &sql, time_range_params(from, to)).await?;
    let mut rows: BTreeMap<RowKey, Map<String, Value>> = BTreeMap::new();
    for batch in found {
        let (buckets, groups) =
            (batch.column(0).as_primitive::<TimestampMicrosecondType>(), batch.column(1).as_string::<i32>());
        let (measures, amounts) = (batch.column(2).as_string::<i32>(), batch.column(3).as_primitive::<Float64Type>());
        for row in 0..batch.num_rows() {
            let Some(value) = kpi.values.iter().find(|value| value.name == measures.value(row)) else { continue };
            let group = groups.is_valid(row).then(|| groups.value(row).to_owned());
            let dimensions = key.by.iter().map(|_| group.clone()).collect();
            let amount = amounts.is_valid(row).then(|| amounts.value(row));
            let values = rows.entry(RowKey { bucket: buckets.value(row), dimensions }).or_default();
            values.insert(value.name.clone(), amount_of(value, amount));
        }
    }
    // A value that was added to the KPI since is not known.
    for values in rows.values_mut() {
        let known = kpi.values.iter().map(|it| (it.name.clone(), values.remove(&it.name).unwrap_or_default()));
        *values = known.collect();
    }
    Ok(rows)
}

/// By KPI, the days that have lost events.
pub(super) async fn frozen_days(
    session: &SqlSession,
    view: &Arc<LakeView>,
) -> Result<BTreeMap<String, BTreeSet<i64>>, SqlError> {
    let mut days: BTreeMap<String, BTreeSet<i64>> = BTreeMap::new();
    if view.frozen == 0 {
        return Ok(days);
    }
    let sql = "SELECT DISTINCT kpi, bucket FROM system.kpi_history WHERE grain = 'day' AND dimension IS NULL";
    for batch in session.collect(session.context(view, Vec::new()), sql, all_time()).await? {
        let (kpis, buckets) =
            (batch.column(0).as_string::<i32>(), batch.column(1).as_primitive::<TimestampMicrosecondType>());
        for (kpi, bucket) in kpis.iter().zip(buckets.values()) {
            days.entry(kpi.unwrap_or_default().to_owned()).or_default().insert(*bucket);
        }
    }
    Ok(days)
}
