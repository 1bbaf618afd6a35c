//! A query that gave no answer: what is wrong with it, and where.

use std::time::Duration;

use datafusion::{arrow::error::ArrowError, common::DataFusionError};
use tokio::time::Instant;

/// A query that gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum SqlError {
    /// The query is not right: syntax, a name, a type.
    #[error("{message}")]
    Invalid {
        message: String,
        /// Line and column, from 1, where they are known.
        at: Option<(u64, u64)>,
        #[source]
        source: Box<DataFusionError>,
    },
    #[error("only SELECT and EXPLAIN are allowed: {what} would change something")]
    ReadOnly { what: String },
    #[error("the query did not finish within {0:?}; narrow it, for example by event_time")]
    TooSlow(Duration),
    #[error("the query needs more memory than queries may use; select fewer columns or rows")]
    TooLarge(#[source] Box<DataFusionError>),
    #[error("nobody read the rows for a while, and another query needed the room; read them as they come")]
    NotRead,
    #[error("the query failed")]
    Internal(#[source] Box<DataFusionError>),
}

impl SqlError {
    /// Why a query said no more: its time was up, or else its task broke off.
    pub(crate) fn broken_off(deadline: Instant, limit: Duration) -> Self {
        if deadline <= Instant::now() {
            return Self::TooSlow(limit);
        }
        Self::Internal(Box::new(DataFusionError::Internal("the query's task broke off".to_owned())))
    }
}

/// Which of our errors an engine error is. The engine's words about a query go to its author; all others do not.
pub(crate) fn classify(error: DataFusionError) -> SqlError {
    match error.find_root() {
        DataFusionError::ResourcesExhausted(_) => SqlError::TooLarge(Box::new(error)),
        DataFusionError::Plan(message) if is_refusal(message) => SqlError::ReadOnly { what: refused(message) },
        DataFusionError::SQL(_, _)
        | DataFusionError::Plan(_)
        | DataFusionError::SchemaError(_, _)
        | DataFusionError::NotImplemented(_)
        | DataFusionError::Execution(_)
        | DataFusionError::ArrowError(_, _) => invalid(error),
        _ => SqlError::Internal(Box::new(error)),
    }
}

fn is_refusal(message: &str) -> bool {
    ["DDL not supported", "DML not supported", "Statement not supported"].iter().any(|m| message.starts_with(m))
}

/// `DDL not supported: CreateView` → `CreateView`.
fn refused(message: &str) -> String {
    message.rsplit(": ").next().unwrap_or(message).to_owned()
}

fn invalid(error: DataFusionError) -> SqlError {
    let message = match error.find_root() {
        DataFusionError::SQL(error, _) => error.to_string().replace("sql parser error: ", ""),
        DataFusionError::ArrowError(error, _) => describe_arrow(error),
        root => root.strip_backtrace(),
    };
    let prefixes = ["Error during planning: ", "Execution error: ", "Schema error: "];
    let message = prefixes.iter().fold(message.as_str(), |message, prefix| message.trim_start_matches(prefix));
    let at = diagnosed(&error).or_else(|| written(message));
    SqlError::Invalid { message: message.to_owned(), at, source: Box::new(error) }
}

fn describe_arrow(error: &ArrowError) -> String {
    match error {
        ArrowError::ExternalError(source) => source.to_string(),
        other => other.to_string(),
    }
}

/// Where the planner says the fault is.
fn diagnosed(error: &DataFusionError) -> Option<(u64, u64)> {
    let start = error.diagnostic()?.span?.start;
    Some((start.line, start.column))
}

/// `... at Line: 1, Column: 15` → (1, 15): where the parser says the fault is.
fn written(message: &str) -> Option<(u64, u64)> {
    let (_, place) = message.rsplit_once("Line: ")?;
    let (line, column) = place.split_once(", Column: ")?;
    let digits = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok();
    Some((digits(line)?, digits(column)?))
}
