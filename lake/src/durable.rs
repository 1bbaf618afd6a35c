//! Files of a table, put on the disk before anything relies on them.
//!
//! Data files come first, then the log entry that names them, then what the folders list. A commit that is reported is on
//! the disk: a power failure takes only what came after it. Where the store is not a folder, it says itself when it is.

use std::{
    collections::BTreeSet,
    fs::File,
    io,
    path::{Path, PathBuf},
};

use url::Url;

/// The folder of a table's log.
const LOG: &str = "_delta_log";

/// Sync files of a table, named from its folder, and the folders they are in.
pub(crate) async fn sync_files(table: &Url, files: impl IntoIterator<Item = String>) -> io::Result<()> {
    let Ok(root) = table.to_file_path() else { return Ok(()) };
    let files: Vec<PathBuf> = files.into_iter().map(|file| root.join(file)).collect();
    blocking(move || {
        let mut folders = BTreeSet::new();
        for file in &files {
            File::open(file)?.sync_all()?;
            // A partition's folder may be new as well.
            folders.extend(file.ancestors().skip(1).take_while(|folder| folder.starts_with(&root)).map(Path::to_owned));
        }
        // The deepest first.
        folders.iter().rev().try_for_each(|folder| File::open(folder)?.sync_all())
    })
    .await
}

/// Sync what a commit wrote into a table's log: the entry of this version and its checkpoint, if there is one.
pub(crate) async fn sync_log(table: &Url, version: u64) -> io::Result<()> {
    let Ok(root) = table.to_file_path() else { return Ok(()) };
    let folder = root.join(LOG);
    blocking(move || {
        let entry = folder.join(format!("{version:020}.json"));
        let checkpoint = folder.join(format!("{version:020}.checkpoint.parquet"));
        File::open(entry)?.sync_all()?;
        if checkpoint.exists() {
            File::open(checkpoint)?.sync_all()?;
            File::open(folder.join("_last_checkpoint"))?.sync_all()?;
        }
        File::open(&folder)?.sync_all()
    })
    .await
}

/// Sync a table's whole log and the folders above it: it is new, or its columns are.
pub(crate) async fn sync_table(table: &Url) -> io::Result<()> {
    let Ok(root) = table.to_file_path() else { return Ok(()) };
    blocking(move || {
        let folder = root.join(LOG);
        for entry in folder.read_dir()? {
            File::open(entry?.path())?.sync_all()?;
        }
        // The lake's folder and the data folder list what is new in them.
        [Some(folder.as_path()), Some(&root), root.parent(), root.parent().and_then(Path::parent)]
            .into_iter()
            .flatten()
            .try_for_each(|folder| File::open(folder)?.sync_all())
    })
    .await
}

async fn blocking(work: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
