//! Errors of computing KPIs.

use lake::SqlError;

/// An error of computing a KPI.
#[derive(Debug, thiserror::Error)]
pub enum KpiError {
    #[error("KPI {kpi} cannot be computed")]
    Query {
        kpi: String,
        #[source]
        source: SqlError,
    },
    #[error("KPI {kpi} has no column `bucket` of times")]
    NoBucket { kpi: String },
    #[error("KPI {kpi} takes too long to compute this way; ask with fewer dimensions or a shorter window")]
    TooSlow { kpi: String },
    #[error("the KPI cache is shutting down")]
    ShuttingDown,
}

impl KpiError {
    /// The first line of the error.
    pub(super) fn reason(&self) -> String {
        match self {
            // The first line says it; what follows lists every name there is.
            Self::Query { source, .. } => source.to_string().lines().next().unwrap_or_default().to_owned(),
            other => other.to_string(),
        }
    }

    /// The line of the KPI's file. A query begins in the first line.
    pub(super) fn line(&self) -> usize {
        match self {
            Self::Query { source: SqlError::Invalid { at: Some((line, _)), .. }, .. } => {
                usize::try_from(*line).unwrap_or(1)
            }
            _ => 1,
        }
    }
}

/// Log that a KPI cannot be computed.
pub(super) fn log_failure(error: &KpiError) {
    tracing::error!(error = error as &dyn std::error::Error, "a KPI cannot be computed");
}
