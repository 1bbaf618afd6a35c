//! What KPIs said of buckets that lose events to retention: kept before these go, and shown from then on.
//!
//! Kept are whole KPIs and by each of their dimensions, in UTC: every bucket that is over, at every grain (hours of the whole
//! only). A longer bucket that is not over yet when its first days go is the sum of its days from then on: values that are
//! no sums have none for it.

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
    Cutoffs, LakeView, ParamValues, SqlSession,
    ledger::{FrozenValue, frozen_batch},
};
use schemas::Catalogue;
use serde_json::{Map, Value, json};

use super::{DAYS, KpiError, LATEST, RowKey, SeriesKey, compute::compute, not_computed};
use crate::{
    calendar::{Calendar, Grain},
    kpi_definition::{KpiDefinition, KpiValue, LOOKUPS, Lookup},
};

type Rows = Vec<(RowKey, Map<String, Value>)>;

/// Keeps what KPIs say before retention takes what they say it of.
#[derive(Clone)]
pub struct Freezer {
    pub session: SqlSession,
    pub definitions: Arc<Vec<KpiDefinition>>,
}

impl Freezer {
    /// The buckets that lose events when those before the cutoffs go, and are not kept yet; none, if there are none.
    ///
    /// # Errors
    /// Never: the rows are built to their table.
    pub(crate) async fn freeze(
        &self,
        view: &Arc<LakeView>,
        cutoffs: Cutoffs,
    ) -> Result<Option<RecordBatch>, ArrowError> {
        let mut frozen = Vec::new();
        for kpi in self.definitions.iter() {
            let Some(cutoff) = cutoff(kpi, &view.catalogue, cutoffs) else { continue };
            match self.frozen_of(view, kpi, cutoff, cutoffs.now).await {
                Ok(rows) => frozen.extend(rows),
                // It keeps no events: nobody could compute it with them either.
                Err(error) => not_computed(&error),
            }
        }
        if frozen.is_empty() { Ok(None) } else { frozen_batch(&frozen, view.position, cutoffs.now).map(Some) }
    }

    async fn frozen_of(
        &self,
        view: &Arc<LakeView>,
        kpi: &KpiDefinition,
        cutoff: i64,
        now: i64,
    ) -> Result<Vec<FrozenValue>, KpiError> {
        let mut frozen = Vec::new();
        for grain in Grain::ALL {
            let calendar = Calendar { grain, ..DAYS };
            let last = last_frozen(&self.session, view, kpi, grain).await?;
            let from = last.and_then(|last| calendar.next(last));
            // The bucket that the cutoff is in loses some of its events too.
            let Some(start) = calendar.start(cutoff.saturating_sub(1)) else { continue };
            let end = calendar.next(start).filter(|end| *end <= now).unwrap_or(start);
            let from = from.unwrap_or(super::EARLIEST);
            if from >= end {
                continue;
            }
            let dimensions = kpi.dimensions.iter().filter(|_| grain != Grain::Hour).map(|it| vec![it.name.clone()]);
            for by in [Vec::new()].into_iter().chain(dimensions) {
                let key = SeriesKey { by, ..SeriesKey::whole(kpi.name.clone(), calendar) };
                for (row, values) in compute(&self.session, view, kpi, &key, from, end).await? {
                    frozen.extend(values.iter().map(|(measure, amount)| FrozenValue {
                        kpi: kpi.name.clone(),
                        grain: grain.name(),
                        dimension: key.by.first().cloned(),
                        group: row.dimensions.first().cloned().flatten(),
                        bucket: row.bucket,
                        measure: measure.clone(),
                        amount: amount.as_f64(),
                    }));
                }
            }
        }
        Ok(frozen)
    }
}

/// Before when some events are past their time that a KPI, or an attribute it is grouped by, is computed from.
fn cutoff(kpi: &KpiDefinition, catalogue: &Catalogue, cutoffs: Cutoffs) -> Option<i64> {
    let of = |context: &str, view: &str| {
        let (_, context) = catalogue.context(context)?;
        cutoffs.of(context.events.iter().find(|event| event.view == view)?.retention)
    };
    let is_used = |lookup: &&Lookup| {
        kpi.dimensions.iter().any(|dimension| dimension.lookup.as_ref().is_some_and(|(table, _)| table == lookup.name))
    };
    let own = kpi.inputs.iter().filter_map(|input| of(&input.context, &input.view));
    let looked_up = LOOKUPS.iter().filter(is_used).flat_map(|lookup| lookup.inputs);
    own.chain(looked_up.filter_map(|(context, view, ..)| of(context, view))).max()
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
    let kept = kept(session, view, kpi, key, from, to).await?;
    let buckets: BTreeSet<i64> = kept.keys().map(|row| row.bucket).collect();
    let mut rows: Rows = kept.into_iter().collect();
    let mut begun = BTreeMap::new();
    if ![Grain::Hour, Grain::Day].contains(&key.calendar.grain) {
        // What is not kept whole, and has lost days.
        let day = SeriesKey { calendar: DAYS, ..key.clone() };
        let since = buckets.last().and_then(|last| key.calendar.next(*last)).unwrap_or(from).max(from);
        for row in self::kept(session, view, kpi, &day, since, to).await?.keys() {
            let bucket = key.calendar.start(row.bucket).filter(|bucket| !buckets.contains(bucket));
            begun.extend(bucket.and_then(|bucket| Some((bucket, key.calendar.next(bucket)?))));
        }
        for (&start, &end) in &begun {
            let days = Box::pin(compute(session, view, kpi, &day, start, end)).await?;
            rows.extend(summed(kpi, start, days));
        }
    }
    rows.extend(
        computed.into_iter().filter(|(row, _)| !buckets.contains(&row.bucket) && !begun.contains_key(&row.bucket)),
    );
    Ok(rows)
}

/// Days as one bucket: sums of what can be summed.
fn summed(kpi: &KpiDefinition, bucket: i64, days: Rows) -> BTreeMap<RowKey, Map<String, Value>> {
    let mut sums = BTreeMap::new();
    for (day, values) in days {
        let row = RowKey { bucket, dimensions: day.dimensions };
        let sum: &mut Map<String, Value> = sums.entry(row).or_default();
        for value in &kpi.values {
            let before = sum.get(&value.name).and_then(Value::as_f64);
            let more = values.get(&value.name).and_then(Value::as_f64);
            let total = [before, more].into_iter().flatten().reduce(|a, b| a + b).filter(|_| value.additive);
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
async fn kept(
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
         AND {dimension}",
        kpi.name,
        key.calendar.grain.name()
    );
    let mut rows: BTreeMap<RowKey, Map<String, Value>> = BTreeMap::new();
    for batch in asked(session, view, kpi, &sql).await? {
        let (buckets, groups) =
            (batch.column(0).as_primitive::<TimestampMicrosecondType>(), batch.column(1).as_string::<i32>());
        let (measures, amounts) = (batch.column(2).as_string::<i32>(), batch.column(3).as_primitive::<Float64Type>());
        for row in 0..batch.num_rows() {
            let bucket = buckets.value(row);
            let Some(value) = kpi.values.iter().find(|value| value.name == measures.value(row)) else { continue };
            if !(from..to).contains(&bucket) {
                continue;
            }
            let group = groups.is_valid(row).then(|| groups.value(row).to_owned());
            let dimensions = key.by.iter().map(|_| group.clone()).collect();
            let amount = amounts.is_valid(row).then(|| amounts.value(row));
            let values = rows.entry(RowKey { bucket, dimensions }).or_default();
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

/// The last bucket of a grain that is kept.
async fn last_frozen(
    session: &SqlSession,
    view: &Arc<LakeView>,
    kpi: &KpiDefinition,
    grain: Grain,
) -> Result<Option<i64>, KpiError> {
    let sql =
        format!("SELECT max(bucket) FROM system.kpi_history WHERE kpi = '{}' AND grain = '{}'", kpi.name, grain.name());
    let found = asked(session, view, kpi, &sql).await?;
    let columns = found.iter().filter_map(|batch| batch.column(0).as_primitive_opt::<TimestampMicrosecondType>());
    Ok(columns.flat_map(|column| column.iter().flatten()).max())
}

/// The end of the last day of a KPI that is kept: before it, events may be gone.
pub(super) async fn frozen_through(
    session: &SqlSession,
    view: &Arc<LakeView>,
    kpi: &KpiDefinition,
) -> Result<Option<i64>, KpiError> {
    if view.frozen == 0 {
        return Ok(None);
    }
    Ok(last_frozen(session, view, kpi, Grain::Day).await?.and_then(|last| DAYS.next(last)))
}

async fn asked(
    session: &SqlSession,
    view: &Arc<LakeView>,
    kpi: &KpiDefinition,
    sql: &str,
) -> Result<Vec<RecordBatch>, KpiError> {
    let context = session.context(view, Vec::new());
    let found = session.collect(context, sql, ParamValues::List(Vec::new())).await;
    found.map_err(|source| KpiError::Query { kpi: kpi.name.clone(), source })
}

/// What facts between two times come to, of which those before `frozen` may be gone: days that are kept, and the facts
/// after them, together.
pub(super) async fn totals(
    session: &SqlSession,
    view: &Arc<LakeView>,
    kpi: &KpiDefinition,
    key: &SeriesKey,
    from: i64,
    frozen: i64,
    later: Rows,
) -> Result<Rows, KpiError> {
    let day = SeriesKey { calendar: DAYS, window: 1, ..key.clone() };
    let days = compute(session, view, kpi, &day, from, frozen.min(LATEST)).await?;
    Ok(summed(kpi, 0, days.into_iter().chain(later).collect()).into_iter().collect())
}
