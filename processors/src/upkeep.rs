//! What keeps the lake quick for years: small files are merged and old ones deleted, a piece at a time, beside commits.

use std::time::Duration;

use lake::{Applied, Compacted, Eagerness, Lake, LakeError};
use tokio::{task::JoinSet, time::Instant};

use crate::pipeline::PipelineError;

/// How often the lake's files are looked at, beside after each flush.
const LOOK_AT_FILES_EVERY: Duration = Duration::from_secs(60);
/// How often files that no version has any more are deleted.
const VACUUM_EVERY: Duration = Duration::from_secs(3_600);

/// Work on the lake's files beside its commits, a piece at a time.
#[derive(Default)]
pub(crate) struct Upkeep {
    pub(crate) running: JoinSet<Result<UpkeepDone, LakeError>>,
    /// Waits until no table is being written.
    merged: Option<Compacted>,
    /// When to look for something to do; none while something is done.
    look_at: Option<Instant>,
    vacuumed_at: Option<Instant>,
}

pub(crate) enum UpkeepDone {
    Merged(Option<Compacted>),
    Applied(Box<Applied>),
    Vacuumed,
}

impl Upkeep {
    /// Something has changed: look for work now.
    pub(crate) fn look(&mut self) {
        self.look_at = Some(Instant::now());
    }

    pub(crate) fn due(&self) -> Option<Instant> {
        self.look_at.filter(|_| self.running.is_empty() && self.merged.is_none())
    }

    /// Begin what can be begun.
    pub(crate) fn step(&mut self, lake: &mut Lake) {
        if let Some(compacted) = self.merged.take() {
            match lake.begin_apply(compacted) {
                Ok(apply) => {
                    self.running.spawn(async { Ok(UpkeepDone::Applied(Box::new(apply.run().await?))) });
                }
                Err(compacted) => self.merged = Some(compacted),
            }
        }
        if self.due().is_none_or(|due| due > Instant::now()) {
            return;
        }
        self.look_at = Some(Instant::now() + LOOK_AT_FILES_EVERY);
        if let Some(compaction) = lake.next_compaction(Eagerness::Continuous) {
            self.running.spawn(async {
                let table = compaction.table().to_owned();
                let merged = compaction.run().await;
                Ok(UpkeepDone::Merged(merged.map_or_else(
                    |error| {
                        tracing::warn!(error = &error as &dyn std::error::Error, table, "cannot merge small files");
                        None
                    },
                    Some,
                )))
            });
        } else if self.vacuumed_at.is_none_or(|at| at.elapsed() > VACUUM_EVERY) {
            self.vacuumed_at = Some(Instant::now());
            let vacuum = lake.vacuum();
            self.running.spawn(async {
                match vacuum.run(true).await {
                    Ok((0, _)) => {}
                    Ok((files, bytes)) => tracing::info!(files, bytes, "deleted files that no version has any more"),
                    Err(error) => tracing::warn!(error = %error, "cannot delete old files"),
                }
                Ok(UpkeepDone::Vacuumed)
            });
        }
    }

    /// Take in what was done; whether the lake shows other files now.
    pub(crate) fn take(&mut self, done: UpkeepDone, lake: &mut Lake) -> bool {
        match done {
            UpkeepDone::Merged(merged) => {
                self.merged = merged;
                false
            }
            UpkeepDone::Applied(applied) => {
                lake.finish_apply(*applied);
                self.look();
                true
            }
            UpkeepDone::Vacuumed => false,
        }
    }

    /// End: what is being committed is committed, all else can be done another time.
    pub(crate) async fn end(mut self, lake: &mut Lake) -> Result<(), PipelineError> {
        if !lake.is_applying() {
            self.running.shutdown().await;
        }
        while let Some(done) = self.running.join_next().await {
            self.take(done??, lake);
        }
        Ok(())
    }
}
