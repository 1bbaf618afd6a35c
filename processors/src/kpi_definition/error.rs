//! Errors of KPI files.

use std::io;

/// An error in a KPI file.
#[derive(Debug, thiserror::Error)]
#[error("{file}, line {line}: {problem}")]
pub struct KpiFileError {
    pub file: String,
    /// From 1.
    pub line: usize,
    pub problem: String,
}

/// An error in a folder of KPI files.
#[derive(Debug, thiserror::Error)]
pub enum KpiFolderError {
    #[error("the KPI folder {folder} cannot be read")]
    Folder {
        folder: String,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    File(#[from] KpiFileError),
    #[error("no KPI needs the number {name}; there are {known}")]
    UnknownNumber { name: String, known: String },
}
