//! Errors of reading and writing the lake.

use datafusion::{arrow::error::ArrowError, error::DataFusionError};
use deltalake::DeltaTableError;

use crate::table::OpenError;

/// An error of reading or writing the lake.
#[derive(Debug, thiserror::Error)]
pub enum LakeError {
    #[error("cannot open the lake's table {table}")]
    Open {
        table: String,
        #[source]
        source: OpenError,
    },
    #[error(
        "the lake has a table {table} that no catalogue describes; start with the --catalogue folder it came from, or \
         move the folder away"
    )]
    Unknown { table: String },
    #[error("cannot write to the lake's table {table}")]
    Write {
        table: String,
        #[source]
        source: DeltaTableError,
    },
    #[error("cannot read the lake")]
    Read(#[source] DataFusionError),
    #[error(
        "the lake's table {table} was changed by another writer; only one forecourt may own a lake. Stop the other"
    )]
    SecondWriter { table: String },
    #[error("cannot read back the lake's table {table} after a commit")]
    Reload {
        table: String,
        #[source]
        source: DeltaTableError,
    },
    #[error("rows do not fit the lake's columns")]
    Rows(#[from] ArrowError),
}
