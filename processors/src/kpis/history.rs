//! What KPIs said of buckets that lose events to retention: kept before these go, and shown from then on.
//!
//! Kept are the buckets that the events touch which go, also by facts that share a key with them: whole KPIs and by each of
//! their dimensions, in UTC, at every grain (hours of the whole only). A bucket that is not over is not kept: a longer one that
//! has lost days is the sum of its days, and has none of what is no sum.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::{Float64Type, TimestampMicrosecondType},
    error::ArrowError,
};
use chrono::Weekday;
use chrono_tz::Tz;
use lake::{
    LakeView, SqlError, SqlSession,
    ledger::{FrozenValue, frozen_batch},
};
use serde_json::{Map, Value, json};

use super::{
    DAYS, KpiError, RowKey, SeriesKey, Touched,
    compute::{asked, between, compute, times_of_facts},
    merged, not_computed,
    touched::Asked,
};
use crate::{
    calendar::{Calendar, Grain},
    kpi_definition::{KpiDefinition, KpiValue},
};

type Rows = Vec<(RowKey, Map<String, Value>)>;

/// What keeps what KPIs say from being kept. The events stay until it can be.
#[derive(Debug, thiserror::Error)]
pub enum FreezeError {
    #[error(transparent)]
    Kpi(#[from] KpiError),
    #[error("the values do not fit their columns")]
    Rows(#[from] ArrowError),
}

/// Keeps what KPIs say before retention takes what they say it of.
#[derive(Clone)]
pub struct Freezer {
    pub session: SqlSession,
    pub definitions: Arc<Vec<KpiDefinition>>,
}

impl Freezer {
    /// The buckets that lose something when these rows of a table go, are over by `now` and are not kept yet; none, if there
    /// are none.
    ///
    /// # Errors
    /// When the lake cannot be read.
    pub async fn freeze(
        &self,
        view: &Arc<LakeView>,
        table: usize,
        going: &RecordBatch,
        now: i64,
    ) -> Result<Option<RecordBatch>, FreezeError> {
        let mut touched = Touched::default();
        touched.mark(&self.definitions, &view.catalogue, &[(table, going.clone())]);
        let mut frozen = Vec::new();
        for (index, kpi) in self.definitions.iter().enumerate() {
            match self.frozen_of(view, index, kpi, &touched, now).await {
                Ok(rows) => frozen.extend(rows),
                // It cannot be computed with the events either: they need not stay for it.
                Err(error @ (KpiError::NoBucket { .. } | KpiError::Query { source: SqlError::Invalid { .. }, .. })) => {
                    not_computed(&error);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(if frozen.is_empty() { None } else { Some(frozen_batch(&frozen, view.position, now)?) })
    }

    async fn frozen_of(
        &self,
        view: &Arc<LakeView>,
        index: usize,
        kpi: &KpiDefinition,
        touched: &Touched,
        now: i64,
    ) -> Result<Vec<FrozenValue>, KpiError> {
        let times = self.times(view, index, kpi, touched).await?;
        let mut frozen = Vec::new();
        for grain in Grain::ALL {
            let calendar = Calendar { grain, ..DAYS };
            let starts = times.iter().filter_map(|time| calendar.start(*time));
            let buckets: BTreeSet<i64> =
                starts.filter(|start| calendar.next(*start).is_some_and(|end| end <= now)).collect();
            let dimensions = kpi.dimensions.iter().filter(|_| grain != Grain::Hour).map(|it| vec![it.name.clone()]);
            for by in [Vec::new()].into_iter().chain(dimensions) {
                let key = SeriesKey { by, ..SeriesKey::whole(kpi.name.clone(), calendar) };
                let rows = self.not_kept(view, kpi, &key, buckets.clone()).await?;
                frozen.extend(rows.into_iter().flat_map(|(row, values)| {
                    let (kpi, dimension) = (kpi.name.clone(), key.by.first().cloned());
                    values.into_iter().map(move |(measure, amount)| FrozenValue {
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

    /// When the facts count that these events, or what is looked up in them, are part of.
    async fn times(
        &self,
        view: &Arc<LakeView>,
        index: usize,
        kpi: &KpiDefinition,
        touched: &Touched,
    ) -> Result<BTreeSet<i64>, KpiError> {
        let mut times = touched.times.get(&kpi.name).cloned().unwrap_or_default();
        let dimensions = kpi.dimensions.iter().map(|dimension| &dimension.name);
        for meant in &touched.facts(index, kpi, dimensions, Asked::Exactly) {
            times.extend(times_of_facts(&self.session, view, kpi, meant).await?);
        }
        Ok(times)
    }

    /// The rows of some buckets of a series, without those that are kept.
    async fn not_kept(
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
            for row in kept_rows(&self.session, view, kpi, key, from, to).await?.keys() {
                buckets.remove(&row.bucket);
            }
        }
        let mut stretches = Vec::new();
        for &start in &buckets {
            merged(&mut stretches, start, key.calendar.next(start).unwrap_or(start));
        }
        let mut rows = Vec::new();
        for (from, to) in super::few(stretches) {
            let computed = compute(&self.session, view, kpi, key, from, to).await?;
            rows.extend(computed.into_iter().filter(|(row, _)| buckets.contains(&row.bucket)));
        }
        Ok(rows)
    }
}

/// Whether what is kept has this series.
pub(crate) fn covers(key: &SeriesKey) -> bool {
    let Calendar { grain, zone, week_start } = key.calendar;
    let dimensions = if grain == Grain::Hour { 0 } else { 1 };
    zone == Tz::UTC
        && (grain != Grain::Week || week_start == Weekday::Mon)
        && key.window == 1
        && key.filters.is_empty()
        && key.by.len() <= dimensions
}

/// Put what is kept in the place of what was computed from the events that are left.
pub(super) async fn restore(
    session: &SqlSession,
    view: &Arc<LakeView>,
    kpi: &KpiDefinition,
    key: &SeriesKey,
    (from, to): (i64, i64),
    computed: Rows,
) -> Result<Rows, KpiError> {
    if !covers(key) {
        return Ok(computed);
    }
    let kept = kept_rows(session, view, kpi, key, from, to).await?;
    let mut whole: BTreeSet<i64> = kept.keys().map(|row| row.bucket).collect();
    let mut rows: Rows = kept.into_iter().collect();
    if ![Grain::Hour, Grain::Day].contains(&key.calendar.grain) {
        // What is not kept whole, and has lost days.
        let day = SeriesKey { calendar: DAYS, ..key.clone() };
        let days = kept_rows(session, view, kpi, &day, from, to).await?;
        let mut begun: BTreeSet<i64> = days.keys().filter_map(|row| key.calendar.start(row.bucket)).collect();
        begun.retain(|start| !whole.contains(start));
        for start in begun {
            let Some(end) = key.calendar.next(start) else { continue };
            let days = Box::pin(compute(session, view, kpi, &day, start, end)).await?;
            rows.extend(summed(kpi, start, days));
            whole.insert(start);
        }
    }
    rows.extend(computed.into_iter().filter(|(row, _)| !whole.contains(&row.bucket)));
    Ok(rows)
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

/// The rows of a series that are kept, of the buckets of `[from, to)`.
async fn kept_rows(
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
    let found = asked(session, view, Vec::new(), kpi, &sql, between(from, to)).await?;
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
    for batch in session.collect(session.context(view, Vec::new()), sql, super::all_time()).await? {
        let (kpis, buckets) =
            (batch.column(0).as_string::<i32>(), batch.column(1).as_primitive::<TimestampMicrosecondType>());
        for (kpi, bucket) in kpis.iter().zip(buckets.values()) {
            days.entry(kpi.unwrap_or_default().to_owned()).or_default().insert(*bucket);
        }
    }
    Ok(days)
}
