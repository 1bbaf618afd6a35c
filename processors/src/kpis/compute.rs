//! A KPI's query, asked of one cut of the lake.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::TimestampMicrosecondType,
};
use datafusion::{
    common::{ParamValues, ScalarValue, metadata::ScalarAndMetadata},
    logical_expr::ScalarUDF,
};
use futures::{FutureExt, future::BoxFuture};
use lake::{LakeView, SqlSession, result_json};
use schemas::field_type::UTC;
use serde_json::{Map, Value};

use super::{EARLIEST, KpiError, LATEST, Meant, RowKey, SeriesKey, TOUCH_STEP, bucket_function, history};
use crate::kpi_definition::{BucketBy, KpiDefinition};

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

/// The parameters of a KPI's query for all of time.
pub(crate) fn all_time() -> ParamValues {
    between(EARLIEST, LATEST)
}

pub(super) fn between(from: i64, to: i64) -> ParamValues {
    let time =
        |micros: i64| ScalarAndMetadata::new(ScalarValue::TimestampMicrosecond(Some(micros), Some(UTC.into())), None);
    ParamValues::Map(HashMap::from([("from".to_owned(), time(from)), ("to".to_owned(), time(to))]))
}

/// The rows of the buckets of `[from, to)`, whose ends are bucket ends.
pub(super) async fn compute(
    session: &SqlSession,
    view: &Arc<LakeView>,
    kpi: &KpiDefinition,
    key: &SeriesKey,
    from: i64,
    to: i64,
) -> Result<Vec<(RowKey, Map<String, Value>)>, KpiError> {
    let bucket = if key.window > 1 { BucketBy::Rolling } else { BucketBy::Time };
    let sql = kpi.query(&key.by, &key.filters, bucket);
    // A window reaches back.
    let earliest = if from == EARLIEST { Some(from) } else { key.calendar.offset(from, 1 - i64::from(key.window)) };
    let rows = rows_of(session, view, kpi, key, &sql, earliest.unwrap_or(EARLIEST), to).await?;
    let keyed = rows.into_iter().filter_map(|(bucket, dimensions, values)| {
        let bucket = bucket.filter(|bucket| (from..to).contains(bucket))?;
        Some((RowKey { bucket, dimensions }, values))
    });
    let rows = keyed.collect();
    if view.frozen == 0 {
        return Ok(rows);
    }
    history::restore(session, view, kpi, key, (from, to), rows).await
}

/// What a query answers that a KPI needs.
pub(super) async fn asked(
    session: &SqlSession,
    view: &Arc<LakeView>,
    functions: Vec<ScalarUDF>,
    kpi: &KpiDefinition,
    sql: &str,
    parameters: ParamValues,
) -> Result<Vec<RecordBatch>, KpiError> {
    let found = session.collect(session.context(view, functions), sql, parameters).await;
    found.map_err(|source| KpiError::Query { kpi: kpi.name.clone(), source })
}

pub(super) type ComputedRow = (Option<i64>, Vec<Option<String>>, Map<String, Value>);

/// What a KPI's query answers for facts of `[from, to)`.
pub(super) async fn rows_of(
    session: &SqlSession,
    view: &Arc<LakeView>,
    kpi: &KpiDefinition,
    key: &SeriesKey,
    sql: &str,
    from: i64,
    to: i64,
) -> Result<Vec<ComputedRow>, KpiError> {
    let functions = bucket_function::functions(key.calendar, key.window);
    let batches = asked(session, view, functions, kpi, sql, between(from, to)).await?;
    let mut rows = Vec::new();
    for batch in &batches {
        let starts = batch.column_by_name("bucket").map(|starts| {
            let starts = starts.as_primitive_opt::<TimestampMicrosecondType>();
            starts.ok_or_else(|| KpiError::NoBucket { kpi: kpi.name.clone() })
        });
        let starts = starts.transpose()?;
        for row in 0..batch.num_rows() {
            let cell =
                |name: &String| batch.column_by_name(name).map_or(Value::Null, |column| result_json::cell(column, row));
            let dimensions = key.by.iter().map(|name| cell(name).as_str().map(str::to_owned)).collect();
            let values = kpi.values.iter().map(|value| (value.name.clone(), cell(&value.name))).collect();
            let start = starts.and_then(|starts| starts.is_valid(row).then(|| starts.value(row)));
            rows.push((start, dimensions, values));
        }
    }
    Ok(rows)
}

/// When the facts count that are meant; to `TOUCH_STEP`.
pub(super) async fn times_of_facts(
    session: &SqlSession,
    view: &Arc<LakeView>,
    kpi: &KpiDefinition,
    Meant { condition, from }: &Meant,
) -> Result<BTreeSet<i64>, KpiError> {
    let sql = format!("SELECT DISTINCT at FROM ({}) WHERE {condition}", kpi.facts(&[]));
    let found = asked(session, view, Vec::new(), kpi, &sql, between(*from, LATEST)).await?;
    let columns = found.iter().filter_map(|batch| batch.column(0).as_primitive_opt::<TimestampMicrosecondType>());
    Ok(columns.flat_map(|column| column.iter().flatten()).map(|time| time - time.rem_euclid(TOUCH_STEP)).collect())
}
