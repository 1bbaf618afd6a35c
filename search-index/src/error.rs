//! Errors of reading and writing the index.

use std::io;

/// An error of reading or writing the index. The lake has everything: delete the folder to rebuild it.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    #[error("cannot use the index folder")]
    Folder(#[source] io::Error),
    #[error("the index failed")]
    Engine(#[from] tantivy::TantivyError),
    #[error("the index holds a listing that cannot be read")]
    Document(#[from] serde_json::Error),
    #[error("a commit of the index failed before; it has to be opened again")]
    Failed,
}
