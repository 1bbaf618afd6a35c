//! The schedule of the lake's maintenance: retention, compaction and vacuum, one task at a time between commits.

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

use crate::{error::PipelineError, kpis::KpiSnapshotter, table_report::TableReport};

/// How often the lake's files are looked at, beside after each flush.
const LOOK_AT_FILES_EVERY: Duration = Duration::from_secs(60);
/// How soon again while the lake catches up with itself and somebody waits.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(200);
/// How often events past their time are looked for: each time writes the files anew that hold some.
const RETIRE_EVERY: Duration = Duration::from_secs(86_400);
/// How often files that no version has any more are deleted.
const VACUUM_EVERY: Duration = Duration::from_secs(3_600);

/// Runs one maintenance task of the lake at a time, between commits.
pub(crate) struct MaintenanceScheduler {
    pub(crate) running: JoinSet<Result<TaskOutcome, LakeError>>,
    /// Where it runs: merging is work for the processor.
    runtime: Handle,
    policy: RetentionPolicy,
    /// Keeps what KPIs say of events before they are taken out.
    snapshotter: KpiSnapshotter,
    /// What waits to be kept, before the events go that it is about.
    freezing: Option<RecordBatch>,
    /// The log, which forgets what the lake does.
    log: Option<Log>,
    /// Waits until no table is being written.
    rewritten: Option<Rewritten>,
    /// The events of the files that are on their way into their table, or the partition that is merged.
    taking: Option<ExpiredBatch>,
    merging: Option<String>,
    /// What the log has to forget still, and what it could not, until the next vacuum.
    forgettable: Vec<LogPurge>,
    unforgotten: Vec<LogPurge>,
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
    demands: VecDeque<OnDemandRun>,
}

/// A requested run of all maintenance, reported when it ends.
pub(crate) struct OnDemandRun {
    /// How long files are kept that no table has any more.
    pub(crate) keep: Duration,
    pub(crate) reply: oneshot::Sender<Option<Vec<TableReport>>>,
    before: Vec<TableFiles>,
    retired: BTreeMap<String, u64>,
    /// Files that come meanwhile are not waited for.
    merges_left: u64,
    /// Something of it failed, as the log says.
    failed: bool,
}

impl OnDemandRun {
    pub(crate) const fn new(keep: Duration, reply: oneshot::Sender<Option<Vec<TableReport>>>) -> Self {
        Self { keep, reply, before: Vec::new(), retired: BTreeMap::new(), merges_left: 0, failed: false }
    }
}

/// Events that retention has removed from a table.
pub(crate) struct ExpiredBatch {
    pub(crate) table: usize,
    pub(crate) rows: RecordBatch,
    last: Vec<(String, Position)>,
}

/// A purge of the log: events of one type that retention has removed from the lake.
pub(crate) struct LogPurge {
    context: String,
    event_type: String,
    to: Position,
    kept: Duration,
}

/// The effect of a finished task on the lake.
pub(crate) enum LakeChange {
    Nothing,
    Files,
    Retired(ExpiredBatch),
}

pub(crate) enum TaskOutcome {
    /// A partition's files, if they could be.
    Merged(String, Option<Rewritten>),
    /// No two of its files fit into memory.
    TooLarge(String),
    /// Some events of a context that were past their time; none, if there are no more.
    Retired(ContextIndex, Option<Rewritten>, Option<ExpiredBatch>),
    /// The same, when KPIs say something of them that is kept first.
    ToFreeze(RecordBatch, Rewritten, ExpiredBatch),
    Frozen(Box<Frozen>),
    /// They could not be taken out.
    NotRetired(ContextIndex),
    Applied(Box<Applied>),
    /// What the log did not forget.
    Forgotten(Option<LogPurge>),
    Vacuumed(Option<Vacuumed>, VacuumTrigger),
}

/// The reason for a vacuum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VacuumTrigger {
    Schedule,
    OnDemandRun,
}

impl MaintenanceScheduler {
    pub(crate) fn new(runtime: Handle, policy: RetentionPolicy, snapshotter: KpiSnapshotter, log: Option<Log>) -> Self {
        let now = Instant::now();
        Self {
            running: JoinSet::new(),
            runtime,
            policy,
            snapshotter,
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
    pub(crate) fn demand(&mut self, demand: OnDemandRun, lake: &Lake) {
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
                    let frozen = async { Ok(TaskOutcome::Frozen(Box::new(freeze.run().await?))) };
                    self.running.spawn_on(frozen, &self.runtime);
                }
                Err(rows) => self.freezing = Some(rows),
            }
        } else if let Some(rewritten) = self.rewritten.take() {
            // While something is being frozen, the lake does not take it.
            match lake.begin_apply(rewritten) {
                Ok(apply) => {
                    let applied = async { Ok(TaskOutcome::Applied(Box::new(apply.run().await?))) };
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
                self.vacuum(lake, KEEP_FOR, VacuumTrigger::Schedule);
            } else if !self.merge(lake, eagerness)
                && let Some(keep) = wanted
            {
                self.vacuum(lake, keep, VacuumTrigger::OnDemandRun);
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
            let (snapshotter, view, now) = (self.snapshotter.clone(), Arc::new(lake.view()), retirement.now());
            let retired = async move {
                let retired = match retirement.run().await {
                    Ok(retired) => retired,
                    Err(error) => {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(error, "cannot take out events past their time");
                        return Ok(TaskOutcome::NotRetired(context));
                    }
                };
                let Some(retired) = retired else { return Ok(TaskOutcome::Retired(context, None, None)) };
                let frozen = snapshotter.snapshot(&view, context.get(), &retired.rows, now).await;
                let taken = ExpiredBatch {
                    table: context.get(),
                    rows: retired.rows.clone(),
                    last: retired.last_of_each_type(),
                };
                let retired = Rewritten::Retired(retired);
                Ok(match frozen {
                    Ok(None) => TaskOutcome::Retired(context, Some(retired), Some(taken)),
                    Ok(Some(rows)) => TaskOutcome::ToFreeze(rows, retired, taken),
                    Err(error) => {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(error, "cannot keep what KPIs say of events past their time: they stay");
                        TaskOutcome::NotRetired(context)
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
                Ok(Some(merged)) => TaskOutcome::Merged(partition, Some(Rewritten::Compacted(merged))),
                Ok(None) => TaskOutcome::TooLarge(partition),
                Err(_) => TaskOutcome::Merged(partition, None),
            })
        };
        self.running.spawn_on(merged, &self.runtime);
        true
    }

    fn vacuum(&mut self, lake: &Lake, keep: Duration, trigger: VacuumTrigger) {
        self.vacuum_at = Instant::now() + VACUUM_EVERY;
        self.failed.clear();
        self.forgettable.append(&mut self.unforgotten);
        let (vacuum, strays) = (lake.vacuum(keep), std::mem::take(&mut self.strays));
        let vacuumed = async move {
            let vacuumed = match trigger {
                VacuumTrigger::Schedule => vacuum.run(&strays).await,
                VacuumTrigger::OnDemandRun => vacuum.run_after_readers(&strays).await,
            };
            let vacuumed = vacuumed.inspect_err(|error| tracing::warn!(%error, "cannot delete old files"));
            Ok(TaskOutcome::Vacuumed(vacuumed.ok(), trigger))
        };
        self.running.spawn_on(vacuumed, &self.runtime);
    }

    /// Have the log forget the events of one type; whether there is one.
    fn forget(&mut self) -> bool {
        let Some((log, forgettable)) = self.log.clone().zip(self.forgettable.pop()) else { return false };
        let forgotten = async move {
            let LogPurge { context, event_type, to, kept } = &forgettable;
            let Err(error) = log.forget(context, event_type, *to, *kept).await else {
                return Ok(TaskOutcome::Forgotten(None));
            };
            let error = &error as &dyn std::error::Error;
            tracing::warn!(
                error,
                context,
                event_type,
                "the log cannot forget events past their time; trying again within the hour"
            );
            Ok(TaskOutcome::Forgotten(Some(forgettable)))
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
        done: Result<Result<TaskOutcome, LakeError>, JoinError>,
        lake: &mut Lake,
    ) -> Result<LakeChange, PipelineError> {
        let done = match done {
            // What broke off without a table in its hands is only not done.
            Err(error) if !lake.is_applying() => {
                tracing::error!(error = %error, "work on the lake's files broke off");
                // It would break off again.
                self.retiring = None;
                self.fail();
                self.answer(lake, &Vacuumed::default());
                return Ok(LakeChange::Nothing);
            }
            done => done??,
        };
        match done {
            TaskOutcome::Merged(partition, Some(merged)) => {
                (self.rewritten, self.merging) = (Some(merged), Some(partition));
            }
            TaskOutcome::Merged(partition, None) => {
                self.failed.insert(partition);
                self.fail();
                self.look();
            }
            // They stay as they are, which is no failure; others may be merged.
            TaskOutcome::TooLarge(partition) => {
                self.failed.insert(partition);
                self.look();
            }
            TaskOutcome::NotRetired(context) => {
                self.fail();
                self.retired_all(context, lake);
            }
            TaskOutcome::Retired(context, None, _) => self.retired_all(context, lake),
            TaskOutcome::ToFreeze(rows, retired, taken) => {
                (self.freezing, self.rewritten, self.taking) = (Some(rows), Some(retired), Some(taken));
            }
            TaskOutcome::Frozen(frozen) => {
                lake.finish_freeze(*frozen);
                return Ok(LakeChange::Files);
            }
            TaskOutcome::Retired(_, retired, taken) => (self.rewritten, self.taking) = (retired, taken),
            TaskOutcome::Applied(applied) => {
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
                    None => LakeChange::Files,
                    Some(taken) => {
                        self.count(&taken, lake);
                        LakeChange::Retired(taken)
                    }
                });
            }
            TaskOutcome::Forgotten(None) => self.look(),
            // Later: the log may be away, and other work does not wait for it.
            TaskOutcome::Forgotten(Some(forgettable)) => {
                self.unforgotten.push(forgettable);
                self.look();
            }
            TaskOutcome::Vacuumed(vacuumed, trigger) => {
                if vacuumed.is_none() {
                    self.fail();
                }
                let mut vacuumed = vacuumed.unwrap_or_default();
                self.strays = std::mem::take(&mut vacuumed.strays);
                self.look();
                if trigger == VacuumTrigger::OnDemandRun {
                    self.answer(lake, &vacuumed);
                }
            }
        }
        Ok(LakeChange::Nothing)
    }

    /// A context has no more events to take out: the next one's turn, unless it has all begun anew meanwhile.
    fn retired_all(&mut self, context: ContextIndex, lake: &Lake) {
        if self.retiring == Some(context) {
            self.retiring = lake.context_after(context);
        }
        self.look();
    }

    /// Note events that were taken out: for the log, and for who wants to know.
    fn count(&mut self, taken: &ExpiredBatch, lake: &Lake) {
        let Some(context) = lake.catalogue().contexts().get(taken.table) else { return };
        tracing::info!(context = context.name, events = taken.rows.num_rows(), "took out events past their time");
        metrics::counter!("lake_events_retired_total").increment(taken.rows.num_rows() as u64);
        for (event_type, last) in &taken.last {
            let kept = context.event(event_type).and_then(|event| self.policy.of(event.retention));
            self.forgettable.extend(kept.map(|kept| LogPurge {
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
            let report = TableReport::compare(&demand.before, &lake.files(), &demand.retired, &vacuumed.deleted);
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
