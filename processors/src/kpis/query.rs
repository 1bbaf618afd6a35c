//! Runs a KPI's query on one view of the lake.

use std::{
    collections::{BTreeSet, HashMap},
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
use lake::{LakeView, SqlSession, result_json};
use schemas::field_type::UTC;
use serde_json::{Map, Value};

use super::{
    bucket_function,
    dirty_set::{FactCondition, TIME_STEP},
    error::KpiError,
    series::{EARLIEST, LATEST, SeriesKey},
};
use crate::kpi_definition::KpiDefinition;

/// The parameters of a KPI's query for all of time.
pub(crate) fn all_time() -> ParamValues {
    time_range_params(EARLIEST, LATEST)
}

/// The parameters of a KPI's query for `[from, to)`.
pub(super) fn time_range_params(from: i64, to: i64) -> ParamValues {
    let time =
        |micros: i64| ScalarAndMetadata::new(ScalarValue::TimestampMicrosecond(Some(micros), Some(UTC.into())), None);
    ParamValues::Map(HashMap::from([("from".to_owned(), time(from)), ("to".to_owned(), time(to))]))
}

/// Run a query for a KPI on a view of the lake.
pub(super) async fn run_kpi_query(
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

/// The rows of a KPI's query for facts of `[from, to)`.
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
    let batches = run_kpi_query(session, view, functions, kpi, sql, time_range_params(from, to)).await?;
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

/// The times of the facts that fulfil a condition, rounded down to [`TIME_STEP`].
pub(super) async fn times_of_facts(
    session: &SqlSession,
    view: &Arc<LakeView>,
    kpi: &KpiDefinition,
    FactCondition { condition, from }: &FactCondition,
) -> Result<BTreeSet<i64>, KpiError> {
    let sql = format!("SELECT DISTINCT at FROM ({}) WHERE {condition}", kpi.facts(&[]));
    let found = run_kpi_query(session, view, Vec::new(), kpi, &sql, time_range_params(*from, LATEST)).await?;
    let columns = found.iter().filter_map(|batch| batch.column(0).as_primitive_opt::<TimestampMicrosecondType>());
    Ok(columns.flat_map(|column| column.iter().flatten()).map(|time| time - time.rem_euclid(TIME_STEP)).collect())
}
