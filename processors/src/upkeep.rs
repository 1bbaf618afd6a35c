//! What keeps the lake quick for years: events past their time are taken out, small files are merged and old ones
//! deleted, a piece at a time, beside commits.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use arrow::array::RecordBatch;
use ingest::Log;
use lake::{Applied, Eagerness, Frozen, KEEP_FOR, Lake, LakeError, Rewritten, TableFiles, Vacuumed};
use schemas::{ContextIndex, Position, RetentionPolicy};
use tokio::{
    runtime::Handle,
    sync::oneshot,
    task::{JoinError, JoinSet},
    time::Instant,
};

use crate::{kpis::Freezer, maintenance::Maintained, pipeline::PipelineError};

/// How often the lake's files are looked at, beside after each flush.
const LOOK_AT_FILES_EVERY: Duration = Duration::from_secs(60);
/// How soon again while the lake catches up with itself and somebody waits.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(200);
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
    /// Keeps what KPIs say of events before they are taken out.
    freezer: Freezer,
    /// What waits to be kept, before the events go that it is about.
    freezing: Option<RecordBatch>,
    /// The log, which forgets what the lake does.
    log: Option<Log>,
    /// Waits until no table is being written.
    rewritten: Option<Rewritten>,
    /// The events of the files that are on their way into their table, or the partition that is merged.
    taking: Option<Taken>,
    merging: Option<String>,
    /// What the log has to forget still, and what it could not, until the next vacuum.
    forgettable: Vec<Forgettable>,
    unforgotten: Vec<Forgettable>,
    /// The context whose events past their time are taken out next, while that goes on.
    retiring: Option<ContextIndex>,
    look_at: Instant,
    retire_at: Instant,
    vacuum_at: Instant,
    /// Partitions whose files could not be merged, or are too large to be, until the next vacuum.
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
    pub(crate) reply: oneshot::Sender<Option<Vec<Maintained>>>,
    before: Vec<TableFiles>,
    retired: BTreeMap<String, u64>,
    /// Files that come meanwhile are not waited for.
    merges_left: u64,
    /// Something of it failed, as the log says.
    failed: bool,
}

impl Demand {
    pub(crate) const fn new(keep: Duration, reply: oneshot::Sender<Option<Vec<Maintained>>>) -> Self {
        Self { keep, reply, before: Vec::new(), retired: BTreeMap::new(), merges_left: 0, failed: false }
    }
}

/// Events that were taken out of a table.
pub(crate) struct Taken {
    pub(crate) table: usize,
    pub(crate) rows: RecordBatch,
    last: Vec<(String, Position)>,
}

/// Events of one type that the log need not hold any more.
pub(crate) struct Forgettable {
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
    /// No two of its files fit into memory.
    TooLarge(String),
    /// Some events of a context that were past their time; none, if there are no more.
    Retired(ContextIndex, Option<Rewritten>, Option<Taken>),
    /// The same, when KPIs say something of them that is kept first.
    ToFreeze(RecordBatch, Rewritten, Taken),
    Frozen(Box<Frozen>),
    /// They could not be taken out.
    NotRetired(ContextIndex),
    Applied(Box<Applied>),
    /// What the log did not forget.
    Forgotten(Option<Forgettable>),
    Vacuumed(Option<Vacuumed>, For),
}

/// Whom a vacuum is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum For {
    Upkeep,
    Demand,
}

impl Upkeep {
    pub(crate) fn new(runtime: Handle, policy: RetentionPolicy, freezer: Freezer, log: Option<Log>) -> Self {
        let now = Instant::now();
        Self {
            running: JoinSet::new(),
            runtime,
            policy,
            freezer,
            freezing: None,
            log,
            rewritten: None,
            taking: None,
            merging: None,
            forgettable: Vec::new(),
            unforgotten: Vec::new(),
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
            // Each merge leaves fewer.
            demand.merges_left = demand.before.iter().map(|table| table.files).sum();
            self.failed.clear();
            self.retiring = Some(ContextIndex::FIRST);
            self.look();
        }
    }

    /// When to look for work; none while some is done.
    pub(crate) fn due(&self) -> Option<Instant> {
        (self.running.is_empty() && self.rewritten.is_none() && self.freezing.is_none()).then_some(self.look_at)
    }

    /// Begin what can be begun.
    pub(crate) fn step(&mut self, lake: &mut Lake) {
        if let Some(rows) = self.freezing.take() {
            match lake.begin_freeze(rows) {
                Ok(freeze) => {
                    let frozen = async { Ok(Done::Frozen(Box::new(freeze.run().await?))) };
                    self.running.spawn_on(frozen, &self.runtime);
                }
                Err(rows) => self.freezing = Some(rows),
            }
        } else if let Some(rewritten) = self.rewritten.take() {
            // While something is being frozen, the lake does not take it.
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
        while self.demands.front().is_some_and(|demand| demand.reply.is_closed()) {
            self.demands.pop_front();
            self.begin_demand(lake);
        }
        if !self.demands.is_empty() && !lake.is_settled() {
            // While the lake catches up with itself, events are not taken out: what was wanted waits.
            self.look_at = Instant::now() + LOOK_AGAIN_AFTER;
            return;
        }
        if self.retire_at <= Instant::now() {
            self.retire_at = Instant::now() + RETIRE_EVERY;
            self.retiring.get_or_insert(ContextIndex::FIRST);
        }
        if !self.forget() && !self.retire(lake) {
            let wanted = self.demands.front().map(|demand| demand.keep);
            let eagerness = if wanted.is_some() { Eagerness::Thorough } else { Eagerness::Continuous };
            if wanted.is_none() && self.vacuum_at <= Instant::now() {
                self.vacuum(lake, KEEP_FOR, For::Upkeep);
            } else if !self.merge(lake, eagerness)
                && let Some(keep) = wanted
            {
                self.vacuum(lake, keep, For::Demand);
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
            let (freezer, view, now) = (self.freezer.clone(), Arc::new(lake.view()), retirement.now());
            let retired = async move {
                let retired = match retirement.run().await {
                    Ok(retired) => retired,
                    Err(error) => {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(error, "cannot take out events past their time");
                        return Ok(Done::NotRetired(context));
                    }
                };
                let Some(retired) = retired else { return Ok(Done::Retired(context, None, None)) };
                let frozen = freezer.freeze(&view, context.get(), &retired.rows, now).await;
                let taken =
                    Taken { table: context.get(), rows: retired.rows.clone(), last: retired.last_of_each_type() };
                let retired = Rewritten::Retired(retired);
                Ok(match frozen {
                    Ok(None) => Done::Retired(context, Some(retired), Some(taken)),
                    Ok(Some(rows)) => Done::ToFreeze(rows, retired, taken),
                    Err(error) => {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(error, "cannot keep what KPIs say of events past their time: they stay");
                        Done::NotRetired(context)
                    }
                })
            };
            self.running.spawn_on(retired, &self.runtime);
            return true;
        }
        false
    }

    fn merge(&mut self, lake: &Lake, eagerness: Eagerness) -> bool {
        if self.demands.front().is_some_and(|demand| demand.merges_left == 0) {
            return false;
        }
        let Some(compaction) = lake.next_compaction(eagerness, &self.failed) else { return false };
        if let Some(demand) = self.demands.front_mut() {
            demand.merges_left -= 1;
        }
        let merged = async {
            let partition = compaction.partition();
            let merged = compaction.run().await.inspect_err(|error| {
                let error = error as &dyn std::error::Error;
                tracing::warn!(error, partition, "cannot merge small files");
            });
            Ok(match merged {
                Ok(Some(merged)) => Done::Merged(partition, Some(Rewritten::Compacted(merged))),
                Ok(None) => Done::TooLarge(partition),
                Err(_) => Done::Merged(partition, None),
            })
        };
        self.running.spawn_on(merged, &self.runtime);
        true
    }

    fn vacuum(&mut self, lake: &Lake, keep: Duration, whom: For) {
        self.vacuum_at = Instant::now() + VACUUM_EVERY;
        self.failed.clear();
        self.forgettable.append(&mut self.unforgotten);
        let (vacuum, strays) = (lake.vacuum(keep), std::mem::take(&mut self.strays));
        let vacuumed = async move {
            let vacuumed = match whom {
                For::Upkeep => vacuum.run(&strays).await,
                For::Demand => vacuum.run_after_readers(&strays).await,
            };
            let vacuumed = vacuumed.inspect_err(|error| tracing::warn!(%error, "cannot delete old files"));
            Ok(Done::Vacuumed(vacuumed.ok(), whom))
        };
        self.running.spawn_on(vacuumed, &self.runtime);
    }

    /// Have the log forget the events of one type; whether there is one.
    fn forget(&mut self) -> bool {
        let Some((log, forgettable)) = self.log.clone().zip(self.forgettable.pop()) else { return false };
        let forgotten = async move {
            let Forgettable { context, event_type, to, kept } = &forgettable;
            let Err(error) = log.forget(context, event_type, *to, *kept).await else {
                return Ok(Done::Forgotten(None));
            };
            let error = &error as &dyn std::error::Error;
            tracing::warn!(
                error,
                context,
                event_type,
                "the log cannot forget events past their time; trying again within the hour"
            );
            Ok(Done::Forgotten(Some(forgettable)))
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
                self.fail();
                self.answer(lake, &Vacuumed::default());
                return Ok(Changed::Nothing);
            }
            done => done??,
        };
        match done {
            Done::Merged(partition, Some(merged)) => {
                (self.rewritten, self.merging) = (Some(merged), Some(partition));
            }
            Done::Merged(partition, None) => {
                self.failed.insert(partition);
                self.fail();
                self.look();
            }
            // They stay as they are, which is no failure; others may be merged.
            Done::TooLarge(partition) => {
                self.failed.insert(partition);
                self.look();
            }
            Done::NotRetired(context) => {
                self.fail();
                self.retired_all(context, lake);
            }
            Done::Retired(context, None, _) => self.retired_all(context, lake),
            Done::ToFreeze(rows, retired, taken) => {
                (self.freezing, self.rewritten, self.taking) = (Some(rows), Some(retired), Some(taken));
            }
            Done::Frozen(frozen) => {
                lake.finish_freeze(*frozen);
                return Ok(Changed::Files);
            }
            Done::Retired(_, retired, taken) => (self.rewritten, self.taking) = (retired, taken),
            Done::Applied(applied) => {
                let (taken, merging, is_taken) = (self.taking.take(), self.merging.take(), applied.is_taken());
                lake.finish_apply(*applied);
                self.look();
                if !is_taken {
                    // The store does not take it: another time.
                    self.retiring = None;
                    self.failed.extend(merging);
                    self.fail();
                }
                return Ok(match taken.filter(|_| is_taken) {
                    None => Changed::Files,
                    Some(taken) => {
                        self.count(&taken, lake);
                        Changed::Retired(taken)
                    }
                });
            }
            Done::Forgotten(None) => self.look(),
            // Later: the log may be away, and other work does not wait for it.
            Done::Forgotten(Some(forgettable)) => {
                self.unforgotten.push(forgettable);
                self.look();
            }
            Done::Vacuumed(vacuumed, whom) => {
                if vacuumed.is_none() {
                    self.fail();
                }
                let mut vacuumed = vacuumed.unwrap_or_default();
                self.strays = std::mem::take(&mut vacuumed.strays);
                self.look();
                if whom == For::Demand {
                    self.answer(lake, &vacuumed);
                }
            }
        }
        Ok(Changed::Nothing)
    }

    /// A context has no more events to take out: the next one's turn, unless it has all begun anew meanwhile.
    fn retired_all(&mut self, context: ContextIndex, lake: &Lake) {
        if self.retiring == Some(context) {
            self.retiring = lake.context_after(context);
        }
        self.look();
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

    /// Not all that was wanted is done.
    fn fail(&mut self) {
        if let Some(demand) = self.demands.front_mut() {
            demand.failed = true;
        }
    }

    /// Tell who wanted all of it done, and go on with the next.
    fn answer(&mut self, lake: &Lake, vacuumed: &Vacuumed) {
        if let Some(demand) = self.demands.pop_front() {
            let report = Maintained::compare(&demand.before, &lake.files(), &demand.retired, &vacuumed.deleted);
            // Whoever asked and went away may ask again.
            let _ = demand.reply.send((!demand.failed).then_some(report));
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
