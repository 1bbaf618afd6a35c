//! Errors that end the pipeline.

use std::path::{Path, PathBuf};

use datafusion::error::DataFusionError;
use ingest::{LogError, SeenError};
use lake::{LakeError, SqlError};

use crate::{decode::DecodeError, kpi_definition::KpiFileError, listings::ListingsError};

/// An error that ends the pipeline. Acknowledged events stay in the log, and a restart reads them again.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Lake(#[from] LakeError),
    #[error(transparent)]
    Listings(#[from] ListingsError),
    #[error(transparent)]
    KpiFile(#[from] KpiFileError),
    #[error("the query engine cannot be set up")]
    Engine(#[from] DataFusionError),
    #[error("the lake cannot be read to rebuild the index")]
    Rebuild(#[source] SqlError),
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error(transparent)]
    Seen(#[from] SeenError),
    #[error("the folder {path} cannot be used")]
    Folder {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the lake was left in the middle of a flush; start forecourt on it once")]
    Unsettled,
    #[error("not all of the maintenance could be done; the warnings above say why")]
    Maintenance,
    #[error("a stage of the pipeline failed")]
    Stage(#[from] tokio::task::JoinError),
}

/// The URL of the lake's folder, which is created when it is missing.
pub(crate) fn folder_url(path: &Path) -> Result<url::Url, PipelineError> {
    lake::folder_url(path).map_err(|source| PipelineError::Folder { path: path.to_owned(), source })
}
