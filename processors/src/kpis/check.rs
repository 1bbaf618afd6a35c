//! Whether KPIs can be computed, told by file and line before anything is.

use std::sync::Arc;

use futures::{FutureExt, future::BoxFuture};
use lake::{LakeView, SqlSession};

use super::{
    error::KpiError,
    query::rows_of,
    series::{DAYS, EARLIEST, SeriesKey},
};
use crate::kpi_definition::{BucketBy, KpiDefinition, KpiFileError};

/// Whether KPIs can be computed over a lake: their inputs are there, and their queries are right.
///
/// # Errors
/// The file, line and reason of the first that cannot.
pub fn check<'a>(
    session: &'a SqlSession,
    view: &'a Arc<LakeView>,
    definitions: &'a [KpiDefinition],
) -> BoxFuture<'a, Result<(), KpiFileError>> {
    async move {
        for kpi in definitions {
            let file = kpi.file.clone().unwrap_or_else(|| format!("{}.sql", kpi.name));
            let failed = |line: usize, problem: String| KpiFileError { file: file.clone(), line, problem };
            for input in &kpi.inputs {
                let context = view.catalogue.context(&input.context).map(|(_, context)| context);
                if !context.is_some_and(|context| context.events.iter().any(|event| event.view == input.view)) {
                    let problem = format!(
                        "there is no event view {}.{}; forecourt catalogue list shows all",
                        input.context, input.view
                    );
                    return Err(failed(1, problem));
                }
            }
            // By itself first: only so does the parser tell where it is wrong.
            if let Err(source) = session.parse(&kpi.sql) {
                let error = KpiError::Query { kpi: kpi.name.clone(), source };
                return Err(failed(error.line(), error.reason()));
            }
            let key = SeriesKey {
                by: kpi.dimensions.iter().map(|dimension| dimension.name.clone()).collect(),
                ..SeriesKey::whole(kpi.name.clone(), DAYS)
            };
            let nothing = |kpi: KpiDefinition| {
                let key = key.clone();
                async move {
                    let sql = kpi.query(&key.by, &key.filters, BucketBy::Time);
                    rows_of(session, view, &kpi, &key, &sql, EARLIEST, EARLIEST).await
                }
            };
            let Err(error) = nothing(kpi.clone()).await else { continue };
            let dimensions: Vec<&str> = key.by.iter().map(String::as_str).collect();
            if let Err(error) = rows_of(session, view, kpi, &key, &kpi.facts(&dimensions), EARLIEST, EARLIEST).await {
                return Err(failed(error.line(), error.reason()));
            }
            // A value at fault is told by its own line.
            for value in &kpi.values {
                let others: Vec<_> = kpi.values.iter().filter(|other| *other != value).cloned().collect();
                if others.is_empty() || nothing(KpiDefinition { values: others, ..kpi.clone() }).await.is_ok() {
                    return Err(failed(value.line, error.reason()));
                }
            }
            return Err(failed(error.line(), error.reason()));
        }
        Ok(())
    }
    .boxed()
}
