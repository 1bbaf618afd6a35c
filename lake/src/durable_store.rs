//! A folder as an object store in which a file is on the disk before anybody sees it.
//!
//! Data files, log entries and checkpoints are written under another name, synced, renamed, and their folder is synced. A
//! commit that is reported is on the disk, and a power failure leaves no file of the lake half written. What a process that
//! was killed left under other names is not listed, and the next writer removes it.

use std::{
    collections::HashSet,
    fmt,
    fs::File,
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, future, stream::BoxStream};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, RenameTargetMode, Result,
    UploadPart, local::LocalFileSystem, path::Path as Location,
};

/// The files of this machine, by their whole paths.
#[derive(Clone, Debug, Default)]
pub(crate) struct DurableStore {
    files: Arc<LocalFileSystem>,
    /// Folders whose own names this process has synced.
    folders: Arc<Mutex<HashSet<PathBuf>>>,
}

/// How a file is named that is not published yet. Nothing of a table has such a name, nor a pattern that looks for some.
const STAGED_PREFIX: &str = ".";
const STAGED_SUFFIX: &str = ".new";

fn is_staged(name: &str) -> bool {
    name.starts_with(STAGED_PREFIX) && name.ends_with(STAGED_SUFFIX)
}

/// Create a folder and those above it, so that a power failure leaves them there.
///
/// # Errors
/// When the disk refuses.
pub fn create_durable_folder(folder: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = folder.ancestors().take_while(|it| !it.as_os_str().is_empty() && !it.exists()).collect();
    std::fs::create_dir_all(folder)?;
    let parent =
        |of: &Path| of.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_path_buf();
    for created in &missing {
        sync(&parent(created))?;
    }
    if missing.is_empty() {
        // Who created it may have been killed before it was synced. It need not be ours to sync.
        let _ = sync(&parent(folder));
    }
    Ok(())
}

/// Remove what a process that was killed left in a table's folder and those in it. Nobody may write to it.
///
/// # Errors
/// When the disk refuses.
pub(crate) fn remove_staged(table: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(table)? {
        let path = entry?.path();
        let of_folder = if path.is_dir() { Some(std::fs::read_dir(&path)?) } else { None };
        for file in of_folder.into_iter().flatten() {
            let file = file?;
            if file.file_name().to_str().is_some_and(is_staged) {
                std::fs::remove_file(file.path())?;
            }
        }
    }
    Ok(())
}

/// Sync a file's content, or a folder's names.
pub(crate) fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

impl DurableStore {
    /// Where a file is written before it has its name.
    fn staged(location: &Location) -> Result<Location> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let (folder, name) = location.as_ref().rsplit_once('/').unwrap_or(("", location.as_ref()));
        // The parts of a location are not encoded once more.
        Ok(Location::parse(format!("{folder}/{STAGED_PREFIX}{number}.{name}{STAGED_SUFFIX}"))?)
    }

    /// Create the folder that a file is written to, and sync its name and that of the table's folder.
    async fn create_folder(&self, location: &Location) -> Result<()> {
        let path = self.files.path_to_filesystem(location)?;
        let Some(folder) = path.parent().map(Path::to_path_buf) else { return Ok(()) };
        let is_synced = self.folders.lock().unwrap_or_else(PoisonError::into_inner).contains(&folder);
        if is_synced {
            return Ok(());
        }
        let created = folder.clone();
        blocking(move || {
            std::fs::create_dir_all(&created)?;
            created.ancestors().skip(1).take(2).try_for_each(sync)
        })
        .await?;
        self.folders.lock().unwrap_or_else(PoisonError::into_inner).insert(folder);
        Ok(())
    }

    /// Give a written file its name, once it is on the disk.
    async fn publish(&self, staged: &Location, location: &Location, mode: RenameTargetMode) -> Result<()> {
        let path = self.files.path_to_filesystem(staged)?;
        let synced = blocking(move || sync(&path)).await;
        let renamed = match synced {
            Ok(()) => self.files.rename_opts(staged, location, RenameOptions::default().with_target_mode(mode)).await,
            Err(error) => Err(error),
        };
        if renamed.is_err() {
            // What stays is nobody's.
            let _ = self.files.delete(staged).await;
        }
        renamed?;
        let path = self.files.path_to_filesystem(location)?;
        blocking(move || path.parent().map_or(Ok(()), sync)).await
    }
}

/// Without the files that have no name yet.
fn published(files: BoxStream<'static, Result<ObjectMeta>>) -> BoxStream<'static, Result<ObjectMeta>> {
    files.try_filter(|file| future::ready(!file.location.filename().is_some_and(is_staged))).boxed()
}

async fn blocking(work: impl FnOnce() -> io::Result<()> + Send + 'static) -> Result<()> {
    let done = tokio::task::spawn_blocking(work).await.map_err(io::Error::other).and_then(|done| done);
    done.map_err(|source| Error::Generic { store: "DurableStore", source: Box::new(source) })
}

impl fmt::Display for DurableStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DurableStore({})", self.files)
    }
}

#[async_trait]
impl ObjectStore for DurableStore {
    async fn put_opts(&self, location: &Location, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let mode = match options.mode {
            PutMode::Overwrite => RenameTargetMode::Overwrite,
            PutMode::Create => RenameTargetMode::Create,
            // A folder has no versions: it says so itself.
            PutMode::Update(_) => return self.files.put_opts(location, payload, options).await,
        };
        self.create_folder(location).await?;
        let staged = Self::staged(location)?;
        let put = self.files.put_opts(&staged, payload, PutOptions { mode: PutMode::Overwrite, ..options }).await?;
        self.publish(&staged, location, mode).await?;
        Ok(put)
    }

    async fn put_multipart_opts(
        &self,
        location: &Location,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.create_folder(location).await?;
        let staged = Self::staged(location)?;
        let upload = self.files.put_multipart_opts(&staged, options).await?;
        Ok(Box::new(DurableUpload { store: self.clone(), staged, location: location.clone(), upload }))
    }

    async fn get_opts(&self, location: &Location, options: GetOptions) -> Result<GetResult> {
        self.files.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Location, ranges: &[Range<u64>]) -> Result<Vec<bytes::Bytes>> {
        self.files.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Location>>) -> BoxStream<'static, Result<Location>> {
        self.files.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Location>) -> BoxStream<'static, Result<ObjectMeta>> {
        published(self.files.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Location>, offset: &Location) -> BoxStream<'static, Result<ObjectMeta>> {
        published(self.files.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Location>) -> Result<ListResult> {
        let mut listed = self.files.list_with_delimiter(prefix).await?;
        listed.objects.retain(|file| !file.location.filename().is_some_and(is_staged));
        Ok(listed)
    }

    async fn copy_opts(&self, from: &Location, to: &Location, options: CopyOptions) -> Result<()> {
        self.files.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Location, to: &Location, options: RenameOptions) -> Result<()> {
        self.files.rename_opts(from, to, options).await
    }
}

/// A file that comes in parts.
#[derive(Debug)]
struct DurableUpload {
    store: DurableStore,
    staged: Location,
    location: Location,
    upload: Box<dyn MultipartUpload>,
}

#[async_trait]
impl MultipartUpload for DurableUpload {
    fn put_part(&mut self, payload: PutPayload) -> UploadPart {
        self.upload.put_part(payload)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let put = self.upload.complete().await?;
        self.store.publish(&self.staged, &self.location, RenameTargetMode::Overwrite).await?;
        Ok(put)
    }

    async fn abort(&mut self) -> Result<()> {
        self.upload.abort().await
    }
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;
    use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutPayload, path::Path as Location};

    use super::{DurableStore, create_durable_folder, remove_staged};

    fn names(folder: &std::path::Path) -> Vec<String> {
        let mut names: Vec<String> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn a_file_is_there_whole_under_its_name_alone() {
        let folder = tempfile::tempdir().unwrap();
        let store = DurableStore::default();
        // As names of folders may be.
        let deep = folder.path().join("K\u{f6}ln a~1 50%/table/part=1");
        std::fs::create_dir_all(&deep).unwrap();
        let location = Location::from_absolute_path(deep.join("file")).unwrap();
        store.put(&location, PutPayload::from("one")).await.unwrap();
        store.put(&location, PutPayload::from("two")).await.unwrap();
        let create = store.put_opts(&location, PutPayload::from("three"), PutMode::Create.into()).await;
        assert!(matches!(create, Err(Error::AlreadyExists { .. })), "{create:?}");
        assert_eq!(std::fs::read_to_string(deep.join("file")).unwrap(), "two");
        let parts = Location::from_absolute_path(deep.join("parts")).unwrap();
        let mut upload = store.put_multipart(&parts).await.unwrap();
        upload.put_part("fo".into()).await.unwrap();
        upload.put_part("ur".into()).await.unwrap();
        assert_eq!(names(&deep).len(), 2, "it has no name yet: {:?}", names(&deep));
        upload.complete().await.unwrap();
        assert_eq!(std::fs::read_to_string(deep.join("parts")).unwrap(), "four");
        assert_eq!(names(&deep), ["file", "parts"]);
        assert_eq!(names(folder.path()).len(), 1, "{:?}", names(folder.path()));
    }

    #[tokio::test]
    async fn what_a_killed_process_left_is_not_listed_and_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("_delta_log");
        std::fs::create_dir(&log).unwrap();
        let store = DurableStore::default();
        let checkpoint = Location::from_absolute_path(log.join(format!("{:020}.checkpoint.parquet", 99))).unwrap();
        let staged = DurableStore::staged(&checkpoint).unwrap();
        std::fs::write(store.files.path_to_filesystem(&staged).unwrap(), "half").unwrap();
        let prefix = Location::from_absolute_path(&log).unwrap();
        let listed =
            async || store.list(Some(&prefix)).map_ok(|file| file.location).try_collect::<Vec<_>>().await.unwrap();
        assert_eq!(listed().await, []);
        assert_eq!(store.list_with_delimiter(Some(&prefix)).await.unwrap().objects, []);
        store.put(&checkpoint, PutPayload::from("whole")).await.unwrap();
        assert_eq!(listed().await, [checkpoint]);
        assert_eq!(names(&log).len(), 2);
        remove_staged(folder.path()).unwrap();
        assert_eq!(names(&log), [format!("{:020}.checkpoint.parquet", 99)]);
    }

    #[test]
    fn a_folder_is_created_with_those_above_it() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b/c");
        create_durable_folder(&deep).unwrap();
        create_durable_folder(&deep).unwrap();
        assert!(deep.is_dir());
        std::fs::write(folder.path().join("file"), "").unwrap();
        assert!(create_durable_folder(&folder.path().join("file/below")).is_err());
    }
}
