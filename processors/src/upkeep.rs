//! What keeps the lake quick for years: events past their time are taken out, small files are merged and old ones
//! deleted, a piece at a time, beside commits.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    time::Duration,
};

use arrow::array::RecordBatch;
use ingest::Log;
use lake::{Applied, Eagerness, KEEP_FOR, Lake, LakeError, Rewritten, TableFiles, Vacuumed};
use schemas::{ContextIndex, Position, RetentionPolicy};
use tokio::{
    runtime::Handle,
    sync::oneshot,
    task::{JoinError, JoinSet},
    time::Instant,
};

use crate::{maintenance::Maintained, pipeline::PipelineError};

/// How often the lake's files are looked at, beside after each flush.
const LOOK_AT_FILES_EVERY: Duration = Duration::from_secs(60);
/// How often events past their time are looked for: each time writes the files anew that hold some.
const RETIRE_EVERY: Duration = Duration::from_secs(86_400);
/// How often files that no version has any more are deleted.
const VACUUM_EVERY: Duration = Duration::from_secs(3_600);

/// Work on the lake's files beside its commits, a piece at a time.
pub(crate) struct Upkeep {
    pub(crate) running: JoinSet<Result<Done, LakeError>>,
    /// Where it runs: merging is work for the processor.
    runtime: Handle,
    policy: RetentionPolicy,
    /// The log, which forgets what the lake does.
    log: Option<Log>,
    /// Waits until no table is being written.
    rewritten: Option<Rewritten>,
    /// The events of the files that are on their way into their table.
    taking: Option<Taken>,
    /// What the log has to forget still.
    forgettable: Vec<Forgettable>,
    /// The context whose events past their time are taken out next, while that goes on.
    retiring: Option<ContextIndex>,
    look_at: Instant,
    retire_at: Instant,
    vacuum_at: Instant,
    /// Partitions whose files could not be merged, until the next vacuum.
    failed: HashSet<String>,
    /// What the last vacuum would have deleted: one that still would, does.
    strays: HashSet<String>,
    /// Those who want all of it done now, one after the other.
    demands: VecDeque<Demand>,
}

/// Somebody wants all that can be done to be done now.
pub(crate) struct Demand {
    /// How long files are kept that no table has any more.
    pub(crate) keep: Duration,
    pub(crate) reply: oneshot::Sender<Vec<Maintained>>,
    before: Vec<TableFiles>,
    retired: BTreeMap<String, u64>,
}

impl Demand {
    pub(crate) const fn new(keep: Duration, reply: oneshot::Sender<Vec<Maintained>>) -> Self {
        Self { keep, reply, before: Vec::new(), retired: BTreeMap::new() }
    }
}

/// Events that were taken out of a table.
pub(crate) struct Taken {
    pub(crate) table: usize,
    pub(crate) rows: RecordBatch,
    last: Vec<(String, Position)>,
}

/// Events of one type that the log need not hold any more.
struct Forgettable {
    context: String,
    event_type: String,
    to: Position,
    kept: Duration,
}

/// Whether the lake shows other files now, and the events that are not in them any more.
pub(crate) enum Changed {
    Nothing,
    Files,
    Retired(Taken),
}

pub(crate) enum Done {
    /// A partition's files, if they could be.
    Merged(String, Option<Rewritten>),
    /// Some events of a context that were past their time; none, if there are no more.
    Retired(ContextIndex, Option<Rewritten>, Option<Taken>),
    Applied(Box<Applied>),
    Forgotten,
    Vacuumed(Option<Vacuumed>),
}

impl Upkeep {
    pub(crate) fn new(runtime: Handle, policy: RetentionPolicy, log: Option<Log>) -> Self {
        let now = Instant::now();
        Self {
            running: JoinSet::new(),
            runtime,
            policy,
            log,
            rewritten: None,
            taking: None,
            forgettable: Vec::new(),
            retiring: None,
            look_at: now,
            retire_at: now,
            vacuum_at: now,
            failed: HashSet::new(),
            strays: HashSet::new(),
            demands: VecDeque::new(),
        }
    }

    /// Something has changed: look for work now.
    pub(crate) fn look(&mut self) {
        self.look_at = Instant::now();
    }

    /// Do all that can be done, then answer.
    pub(crate) fn demand(&mut self, demand: Demand, lake: &Lake) {
        self.demands.push_back(demand);
        if self.demands.len() == 1 {
            self.begin_demand(lake);
        }
    }

    fn begin_demand(&mut self, lake: &Lake) {
        if let Some(demand) = self.demands.front_mut() {
            demand.before = lake.files();
            self.failed.clear();
            self.retiring = Some(ContextIndex::FIRST);
            self.look();
        }
    }

    /// When to look for work; none while some is done.
    pub(crate) fn due(&self) -> Option<Instant> {
        (self.running.is_empty() && self.rewritten.is_none()).then_some(self.look_at)
    }

    /// Begin what can be begun.
    pub(crate) fn step(&mut self, lake: &mut Lake) {
        if let Some(rewritten) = self.rewritten.take() {
            match lake.begin_apply(rewritten) {
                Ok(apply) => {
                    let applied = async { Ok(Done::Applied(Box::new(apply.run().await?))) };
                    self.running.spawn_on(applied, &self.runtime);
                }
                Err(rewritten) => self.rewritten = Some(rewritten),
            }
        }
        if self.due().is_none_or(|due| due > Instant::now()) {
            return;
        }
        self.look_at = Instant::now() + LOOK_AT_FILES_EVERY;
        if self.retire_at <= Instant::now() {
            self.retire_at = Instant::now() + RETIRE_EVERY;
            self.retiring.get_or_insert(ContextIndex::FIRST);
        }
        if !self.forget() && !self.retire(lake) {
            let wanted = self.demands.front().map(|demand| demand.keep);
            let eagerness = if wanted.is_some() { Eagerness::Thorough } else { Eagerness::Continuous };
            if wanted.is_none() && self.vacuum_at <= Instant::now() {
                self.vacuum(lake, KEEP_FOR);
            } else if !self.merge(lake, eagerness)
                && let Some(keep) = wanted
            {
                self.vacuum(lake, keep);
            }
        }
    }

    /// Begin to take out events past their time; whether there may be any.
    fn retire(&mut self, lake: &Lake) -> bool {
        // While the lake catches up with itself, it shows nothing.
        while let Some(context) = self.retiring.filter(|_| lake.is_settled()) {
            let Some(retirement) = lake.retirement(context, &self.policy) else {
                self.retiring = lake.context_after(context);
                continue;
            };
            let retired = async move {
                let retired = retirement.run().await.unwrap_or_else(|error| {
                    tracing::warn!(error = &error as &dyn std::error::Error, "cannot take out events past their time");
                    None
                });
                let taken = retired.as_ref().map(|retired| Taken {
                    table: context.get(),
                    rows: retired.rows.clone(),
                    last: retired.last_of_each_type(),
                });
                Ok(Done::Retired(context, retired.map(Rewritten::Retired), taken))
            };
            self.running.spawn_on(retired, &self.runtime);
            return true;
        }
        false
    }

    fn merge(&mut self, lake: &Lake, eagerness: Eagerness) -> bool {
        let Some(compaction) = lake.next_compaction(eagerness, &self.failed) else { return false };
        let merged = async {
            let partition = compaction.partition();
            let merged = compaction.run().await.inspect_err(|error| {
                let error = error as &dyn std::error::Error;
                tracing::warn!(error, partition, "cannot merge small files");
            });
            Ok(Done::Merged(partition, merged.ok().map(Rewritten::Compacted)))
        };
        self.running.spawn_on(merged, &self.runtime);
        true
    }

    fn vacuum(&mut self, lake: &Lake, keep: Duration) {
        self.vacuum_at = Instant::now() + VACUUM_EVERY;
        self.failed.clear();
        let (vacuum, strays) = (lake.vacuum(keep), std::mem::take(&mut self.strays));
        let vacuumed = async move {
            let vacuumed = vacuum.run(&strays).await;
            Ok(Done::Vacuumed(vacuumed.inspect_err(|error| tracing::warn!(%error, "cannot delete old files")).ok()))
        };
        self.running.spawn_on(vacuumed, &self.runtime);
    }

    /// Have the log forget the events of one type; whether there is one.
    fn forget(&mut self) -> bool {
        let Some((log, forgettable)) = self.log.clone().zip(self.forgettable.pop()) else { return false };
        let forgotten = async move {
            let Forgettable { context, event_type, to, kept } = forgettable;
            if let Err(error) = log.forget(&context, &event_type, to, kept).await {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, context, event_type, "the log cannot forget events past their time");
            }
            Ok(Done::Forgotten)
        };
        self.running.spawn_on(forgotten, &self.runtime);
        true
    }

    /// Take in what was done.
    ///
    /// # Errors
    /// When a table did not come back.
    pub(crate) fn take(
        &mut self,
        done: Result<Result<Done, LakeError>, JoinError>,
        lake: &mut Lake,
    ) -> Result<Changed, PipelineError> {
        let done = match done {
            // What broke off without a table in its hands is only not done.
            Err(error) if !lake.is_applying() => {
                tracing::error!(error = %error, "work on the lake's files broke off");
                // It would break off again.
                self.retiring = None;
                self.answer(lake, &Vacuumed::default());
                return Ok(Changed::Nothing);
            }
            done => done??,
        };
        match done {
            Done::Merged(_, Some(merged)) => self.rewritten = Some(merged),
            Done::Merged(partition, None) => {
                self.failed.insert(partition);
                self.look();
            }
            Done::Retired(context, None, _) => {
                self.retiring = lake.context_after(context);
                self.look();
            }
            Done::Retired(_, retired, taken) => (self.rewritten, self.taking) = (retired, taken),
            Done::Applied(applied) => {
                let (taken, is_taken) = (self.taking.take(), applied.is_taken());
                lake.finish_apply(*applied);
                if is_taken {
                    self.look();
                } else {
                    // The store does not take it: another time.
                    self.retiring = None;
                }
                return Ok(match taken.filter(|_| is_taken) {
                    None => Changed::Files,
                    Some(taken) => {
                        self.count(&taken, lake);
                        Changed::Retired(taken)
                    }
                });
            }
            Done::Forgotten => self.look(),
            Done::Vacuumed(vacuumed) => {
                let mut vacuumed = vacuumed.unwrap_or_default();
                self.strays = std::mem::take(&mut vacuumed.strays);
                self.look();
                self.answer(lake, &vacuumed);
            }
        }
        Ok(Changed::Nothing)
    }

    /// Note events that were taken out: for the log, and for who wants to know.
    fn count(&mut self, taken: &Taken, lake: &Lake) {
        let Some(context) = lake.catalogue().contexts().get(taken.table) else { return };
        tracing::info!(context = context.name, events = taken.rows.num_rows(), "took out events past their time");
        metrics::counter!("lake_events_retired_total").increment(taken.rows.num_rows() as u64);
        for (event_type, last) in &taken.last {
            let kept = context.event(event_type).and_then(|event| self.policy.of(event.retention));
            self.forgettable.extend(kept.map(|kept| Forgettable {
                context: context.name.clone(),
                event_type: event_type.clone(),
                // A restart reads on from there.
                to: (*last).min(lake.flushed_position()),
                kept,
            }));
        }
        if let Some(demand) = self.demands.front_mut() {
            *demand.retired.entry(context.name.clone()).or_default() += taken.rows.num_rows() as u64;
        }
    }

    /// Tell who wanted all of it done, and go on with the next.
    fn answer(&mut self, lake: &Lake, vacuumed: &Vacuumed) {
        if let Some(demand) = self.demands.pop_front() {
            let report = Maintained::compare(&demand.before, &lake.files(), &demand.retired, &vacuumed.deleted);
            // Whoever asked and went away may ask again.
            let _ = demand.reply.send(report);
            self.begin_demand(lake);
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
