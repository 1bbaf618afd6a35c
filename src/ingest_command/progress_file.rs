//! How far each file has been sent, kept between runs.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// How often progress is written. What is lost with it is sent again, and is a duplicate then.
const SAVE_EVERY: Duration = Duration::from_secs(1);

/// A file as it was when it was sent: if it has changed since, it is sent from its beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    path: String,
    bytes: u64,
    /// Microseconds since 1970.
    modified: u64,
}

impl Source {
    pub(crate) fn of(path: &Path) -> Self {
        let metadata = fs::metadata(path).ok();
        let modified = metadata.as_ref().and_then(|metadata| metadata.modified().ok());
        let since = modified.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok()).unwrap_or_default();
        Self {
            path: path.display().to_string(),
            bytes: metadata.map_or(0, |metadata| metadata.len()),
            modified: u64::try_from(since.as_micros()).unwrap_or_default(),
        }
    }
}

#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
struct Done {
    bytes: u64,
    modified: u64,
    /// Events acknowledged, from the file's beginning on.
    events: u64,
}

/// The file that `--resume` names.
#[derive(Debug)]
pub(crate) struct ProgressFile {
    path: PathBuf,
    kept: Kept,
    saved: Instant,
}

/// What is kept between runs.
#[derive(Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
struct Kept {
    files: BTreeMap<String, Done>,
    /// Events refused so far, by reason.
    rejected: BTreeMap<String, u64>,
}

impl ProgressFile {
    /// What an earlier run left, or nothing.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let kept = match fs::read(path) {
            Ok(text) => serde_json::from_slice(&text)
                .with_context(|| format!("{} holds no progress of an ingest; choose another file", path.display()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Kept::default(),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        Ok(Self { path: path.to_owned(), kept, saved: Instant::now() })
    }

    /// Whether an earlier run left something to go on from.
    pub(crate) fn goes_on(&self) -> bool {
        !self.kept.files.is_empty()
    }

    /// What earlier runs were refused, by reason.
    pub(crate) const fn rejected(&self) -> &BTreeMap<String, u64> {
        &self.kept.rejected
    }

    /// Events of a file that need not be sent again.
    pub(crate) fn done(&self, source: &Source) -> u64 {
        let known = self.kept.files.get(&source.path);
        let same = known.filter(|done| done.bytes == source.bytes && done.modified == source.modified);
        same.map_or(0, |done| done.events)
    }

    /// Keep how far a file is sent, and what all of them were refused; whether it is time to save that.
    pub(crate) fn reached(&mut self, source: &Source, events: u64, rejected: &BTreeMap<String, u64>) -> bool {
        let done = Done { bytes: source.bytes, modified: source.modified, events };
        self.kept.files.insert(source.path.clone(), done);
        self.kept.rejected.clone_from(rejected);
        self.saved.elapsed() >= SAVE_EVERY
    }

    /// Write it so that a crash leaves the old or the new, never half.
    pub(crate) fn save(&mut self) -> anyhow::Result<()> {
        let failed = || format!("cannot write {}", self.path.display());
        let new = self.path.with_extension("new");
        fs::write(&new, serde_json::to_vec_pretty(&self.kept)?).with_context(failed)?;
        fs::rename(&new, &self.path).with_context(failed)?;
        self.saved = Instant::now();
        Ok(())
    }

    /// Everything is sent: there is nothing to go on from.
    pub(crate) fn remove(&mut self) -> anyhow::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", self.path.display()))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{ProgressFile, Source};

    #[test]
    fn progress_is_kept_for_the_file_as_it_was() -> anyhow::Result<()> {
        let folder = std::env::temp_dir().join(format!("forecourt-progress-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let (events, progress) = (folder.join("events.ndjson"), folder.join("progress.json"));
        std::fs::write(&events, "{}\n")?;
        let mut file = ProgressFile::open(&progress)?;
        let refused = BTreeMap::from([("invalid_json".to_owned(), 2)]);
        file.reached(&Source::of(&events), 7, &refused);
        file.save()?;
        let mut again = ProgressFile::open(&progress)?;
        assert_eq!((again.done(&Source::of(&events)), again.rejected(), again.goes_on()), (7, &refused, true));
        std::fs::write(&events, "{}\n{}\n")?;
        assert_eq!(again.done(&Source::of(&events)), 0);
        again.remove()?;
        assert!(!progress.exists());
        std::fs::write(&progress, "no progress")?;
        assert!(ProgressFile::open(&progress).is_err());
        std::fs::remove_dir_all(&folder)?;
        Ok(())
    }
}
