//! What keeps the lake quick for years: small files are merged and old ones deleted, a piece at a time, beside commits.

use std::{collections::HashSet, time::Duration};

use lake::{Applied, Compacted, Eagerness, Lake, LakeError};
use tokio::{
    runtime::Handle,
    task::{JoinError, JoinSet},
    time::Instant,
};

use crate::pipeline::PipelineError;

/// How often the lake's files are looked at, beside after each flush.
const LOOK_AT_FILES_EVERY: Duration = Duration::from_secs(60);
/// How often files that no version has any more are deleted.
const VACUUM_EVERY: Duration = Duration::from_secs(3_600);

/// Work on the lake's files beside its commits, a piece at a time.
pub(crate) struct Upkeep {
    pub(crate) running: JoinSet<Result<Done, LakeError>>,
    /// Where it runs: merging is work for the processor.
    runtime: Handle,
    /// Waits until no table is being written.
    merged: Option<Compacted>,
    look_at: Instant,
    vacuum_at: Instant,
    /// Partitions whose files could not be merged, until the next vacuum.
    failed: HashSet<String>,
    /// What the last vacuum would have deleted: one that still would, does.
    unwanted: HashSet<String>,
}

pub(crate) enum Done {
    /// A partition's files, if they could be.
    Merged(String, Option<Compacted>),
    Applied(Box<Applied>),
    Vacuumed(Option<HashSet<String>>),
}

impl Upkeep {
    pub(crate) fn new(runtime: Handle) -> Self {
        let now = Instant::now();
        Self {
            running: JoinSet::new(),
            runtime,
            merged: None,
            look_at: now,
            vacuum_at: now,
            failed: HashSet::new(),
            unwanted: HashSet::new(),
        }
    }

    /// Something has changed: look for work now.
    pub(crate) fn look(&mut self) {
        self.look_at = Instant::now();
    }

    /// When to look for work; none while some is done.
    pub(crate) fn due(&self) -> Option<Instant> {
        (self.running.is_empty() && self.merged.is_none()).then_some(self.look_at)
    }

    /// Begin what can be begun.
    pub(crate) fn step(&mut self, lake: &mut Lake) {
        if let Some(compacted) = self.merged.take() {
            match lake.begin_apply(compacted) {
                Ok(apply) => {
                    let applied = async { Ok(Done::Applied(Box::new(apply.run().await?))) };
                    self.running.spawn_on(applied, &self.runtime);
                }
                Err(compacted) => self.merged = Some(compacted),
            }
        }
        if self.due().is_none_or(|due| due > Instant::now()) {
            return;
        }
        self.look_at = Instant::now() + LOOK_AT_FILES_EVERY;
        if self.vacuum_at <= Instant::now() {
            self.vacuum_at = Instant::now() + VACUUM_EVERY;
            self.failed.clear();
            let (vacuum, unwanted) = (lake.vacuum(), std::mem::take(&mut self.unwanted));
            let vacuumed = async move {
                let unwanted = vacuum.run(&unwanted).await;
                Ok(Done::Vacuumed(unwanted.inspect_err(|error| tracing::warn!(%error, "cannot delete old files")).ok()))
            };
            self.running.spawn_on(vacuumed, &self.runtime);
        } else if let Some(compaction) = lake.next_compaction(Eagerness::Continuous, &self.failed) {
            let merged = async {
                let partition = compaction.partition();
                let merged = compaction.run().await.inspect_err(|error| {
                    let error = error as &dyn std::error::Error;
                    tracing::warn!(error, partition, "cannot merge small files");
                });
                Ok(Done::Merged(partition, merged.ok()))
            };
            self.running.spawn_on(merged, &self.runtime);
        }
    }

    /// Take in what was done; whether the lake shows other files now.
    ///
    /// # Errors
    /// When a table did not come back.
    pub(crate) fn take(
        &mut self,
        done: Result<Result<Done, LakeError>, JoinError>,
        lake: &mut Lake,
    ) -> Result<bool, PipelineError> {
        match done {
            // What broke off without a table in its hands is only not done.
            Err(error) if !lake.is_applying() => {
                tracing::error!(error = %error, "work on the lake's files broke off");
                Ok(false)
            }
            done => match done?? {
                Done::Merged(_, Some(merged)) => {
                    self.merged = Some(merged);
                    Ok(false)
                }
                Done::Merged(partition, None) => {
                    self.failed.insert(partition);
                    Ok(false)
                }
                Done::Applied(applied) => {
                    if applied.is_taken() {
                        self.look();
                    }
                    lake.finish_apply(*applied);
                    Ok(true)
                }
                Done::Vacuumed(unwanted) => {
                    self.unwanted = unwanted.unwrap_or_default();
                    self.look();
                    Ok(false)
                }
            },
        }
    }

    /// End: what is being committed is committed, all else can be done another time.
    pub(crate) async fn end(mut self, lake: &mut Lake) -> Result<(), PipelineError> {
        if !lake.is_applying() {
            self.running.shutdown().await;
        }
        while let Some(done) = self.running.join_next().await {
            self.take(done, lake)?;
        }
        Ok(())
    }
}
