//! From the log to the sinks.
//!
//! ```text
//! log ─ read ─ decode ─ lake ─┬─ listings (index)
//!                             ├─ KPIs (cache)
//!                             └─ dead letters (their stream)
//! ```
//!
//! Messages are decoded once. The lake takes the rows first; with them go its new view to the KPI cache and the rows to
//! the index. Every sink stores the position it reflects with its data, so a restart reads on from the lake's and
//! each sink passes over what it already has.

use std::{path::PathBuf, sync::Arc, time::Duration};

use chrono::Utc;
use futures::{FutureExt, TryStreamExt, future::BoxFuture};
use ingest::{Log, LogError, LogReader, SeenEvents};
use lake::{CommitFailures, Lake, LakeConfig, LakeError, LakeView, Spill, SqlSession, ledger::Closing};
use schemas::{Catalogue, Position, RetentionPolicy};
use search_index::ListingSnapshot;
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    dead_letter_copy::DeadLetterCopier,
    decode::{Decoded, decode},
    decoder::Decoder,
    derived_tables::derived_tables,
    error::{PipelineError, folder_url},
    gauges::position_gauge,
    index_keeper::{ForIndex, IndexSource, SHOW_PROGRESS_EVERY, keep_listings},
    kpi_definition::KpiDefinition,
    kpis::{self, KpiCacheUpdate, KpiService, KpiSnapshotter, Kpis},
    log_watch::{LogStatus, LogWatch},
    maintenance::{Maintenance, MaintenanceRequest, dry_run},
    maintenance_scheduler::{ExpiredBatch, LakeChange, MaintenanceScheduler, OnDemandRun},
};

/// Batches between two stages: one being worked on, one ready.
const STAGE_QUEUE: usize = 2;
/// What arrives within this after a batch makes one batch: many small ones would cost more than they tell.
const GATHER_FOR: Duration = Duration::from_millis(3);

/// Where the pipeline keeps its things.
#[derive(Clone, Debug)]
pub struct PipelineConfig {
    /// The lake's folder.
    pub lake: PathBuf,
    /// The index's folder.
    pub index: PathBuf,
    /// The seen events' folder.
    pub seen: PathBuf,
    /// Where queries spill to.
    pub spill: Spill,
    pub flush: LakeConfig,
    /// What is counted.
    pub kpis: Vec<KpiDefinition>,
    /// How long events are kept.
    pub retention: RetentionPolicy,
    /// Go on although the log has forgotten events that the lake never had.
    pub accept_loss: bool,
}

/// What the pipeline keeps up to date, for those who read it.
#[derive(Clone)]
pub struct Pipeline {
    /// `None` until the lake shows one position.
    pub lake: watch::Receiver<Option<Arc<LakeView>>>,
    pub listings: watch::Receiver<Option<Arc<ListingSnapshot>>>,
    pub kpis: KpiService,
    pub sql: SqlSession,
    /// What everything is derived from.
    pub log: Log,
    /// The event ids that have taken effect.
    pub seen: Arc<SeenEvents>,
    closings: mpsc::Sender<CloseRequest>,
    pub maintenance: Maintenance,
    /// The end of the log when the pipeline started: having reached it, it knows every event there was.
    pub log_end_at_start: Position,
    /// What the log and the disk were when they were looked at last.
    pub log_status: watch::Receiver<LogStatus>,
    /// The lake's tables whose commits are failing.
    pub commit_failures: CommitFailures,
}

impl Pipeline {
    /// Open the sinks, catch the index up with the lake, and start reading the log. Stages run on `tasks` until
    /// `stop`; then the lake is flushed and they end.
    ///
    /// # Errors
    /// When a sink cannot be opened, or the log does not continue it.
    pub fn start(
        config: PipelineConfig,
        catalogue: Arc<Catalogue>,
        log: Log,
        queries: Handle,
        tasks: &mut JoinSet<Result<(), PipelineError>>,
        stop: CancellationToken,
    ) -> BoxFuture<'_, Result<Self, PipelineError>> {
        async move {
            let root = folder_url(&config.lake)?;
            let mut lake = Lake::open(&root, Arc::clone(&catalogue), config.flush).await?;
            log.prepare(lake.highest_position()).await?;
            let state = log.look().await?;
            state.check_continues(lake.position(), lake.log(), config.accept_loss)?;
            if state.last < lake.highest_position() {
                return Err(LogError::Behind { log: state.last, lake: lake.highest_position() }.into());
            }
            lake.set_log(state.identity);
            if state.before_first > lake.position() {
                tracing::warn!(
                    from = lake.position().get(),
                    to = state.before_first.get(),
                    "going on after the loss of events"
                );
                lake.skip_to(state.before_first)?;
            }
            tracing::info!(position = lake.position().get(), "opened the lake");
            let seen = Arc::new(SeenEvents::open(&config.seen, &state.identity.to_string(), state.last)?);
            fill_seen(&seen, &lake).await?;

            let definitions = config.kpis;
            let sql = SqlSession::spilling(queries.clone(), derived_tables(&definitions), Some(&config.spill))?;
            let log_end = log.last_message().await?;
            let view = Arc::new(lake.view());
            let own: Vec<KpiDefinition> = definitions.iter().filter(|kpi| kpi.file.is_some()).cloned().collect();
            kpis::check(&sql, &view, &own).await?;
            let (view_sender, lake_views) = watch::channel(None);
            let source = IndexSource {
                folder: config.index,
                catalogue: Arc::clone(&catalogue),
                sql: sql.clone(),
                lake: lake_views.clone(),
            };
            // The log may have forgotten its last events with retention; the lake has its position from it.
            let listings = source.open(&view, log_end.max(lake.position())).await?;
            let (listing_sender, listing_snapshots) = watch::channel(Some(listings.snapshot()));
            let (kpis, service, requests) = Kpis::new(sql.clone(), definitions);

            let (to_lake, decoded) = mpsc::channel(STAGE_QUEUE);
            let (to_listings, listing_rows) = mpsc::channel(STAGE_QUEUE);
            let (to_kpis, kpi_updates) = mpsc::channel(STAGE_QUEUE);
            let (closings, close_requests) = mpsc::channel(STAGE_QUEUE);
            let (maintenance, orders) = mpsc::channel(STAGE_QUEUE);
            let reader = LogReader::after(log.clone(), lake.position());
            let from_lake = lake.position();
            let (found, letters_found) = watch::channel(Position::START);
            let decoder =
                Decoder { catalogue: Arc::clone(&catalogue), seen: Arc::clone(&seen), after: from_lake, found, decode };
            tasks.spawn(read(reader, decoder, to_lake, stop.clone()));
            let copier = DeadLetterCopier {
                log: log.clone(),
                sql: sql.clone(),
                lake: lake_views.clone(),
                from: from_lake,
                found: letters_found,
            };
            tasks.spawn(copier.run(stop.clone()));
            let (status_sender, log_status) = watch::channel(LogStatus { last: log_end, ..LogStatus::default() });
            let watch = LogWatch {
                log: log.clone(),
                identity: state.identity,
                lake: lake_views.clone(),
                listings: listing_snapshots.clone(),
                kpis: service.cache.clone(),
                folder: config.lake.clone(),
                now: || Utc::now().timestamp_micros(),
                status: status_sender,
            };
            tasks.spawn(watch.run(stop.clone()));
            let commit_failures = lake.commit_failures();
            let kpi_feed = KpiFeed {
                catalogue: Arc::clone(&catalogue),
                definitions: Arc::clone(&service.definitions),
                queue: to_kpis,
            };
            let keeper = LakeKeeper {
                lake,
                decoded,
                close_requests,
                orders,
                views: view_sender,
                to_listings,
                kpi_feed,
                retention: config.retention,
                snapshotter: KpiSnapshotter { session: sql.clone(), definitions: Arc::clone(&service.definitions) },
                log: log.clone(),
                queries,
            };
            tasks.spawn(keeper.run());
            tasks.spawn(keep_listings(listings, source, from_lake, listing_rows, listing_sender));
            tasks.spawn(async move {
                kpis.run(kpi_updates, requests, stop).await;
                Ok(())
            });
            Ok(Self {
                lake: lake_views,
                listings: listing_snapshots,
                kpis: service,
                sql,
                log,
                seen,
                closings,
                maintenance: Maintenance(maintenance),
                log_end_at_start: log_end,
                log_status,
                commit_failures,
            })
        }
        .boxed()
    }

    /// Record what was decided about dead letters. Those that are closed already stay as they are; how many were not.
    ///
    /// # Errors
    /// When the lake does not take it, or is going down.
    pub fn close_dead_letters(&self, closings: Vec<Closing>) -> BoxFuture<'_, Result<usize, CloseError>> {
        async move {
            let (reply, closed) = oneshot::channel();
            self.closings.send(CloseRequest { closings, reply }).await.map_err(|_| CloseError::ShuttingDown)?;
            Ok(closed.await.map_err(|_| CloseError::ShuttingDown)??)
        }
        .boxed()
    }
}

/// A decision about dead letters that was not recorded. Deciding again is safe.
#[derive(Debug, thiserror::Error)]
pub enum CloseError {
    #[error("forecourt is shutting down")]
    ShuttingDown,
    #[error(transparent)]
    Lake(#[from] LakeError),
}

struct CloseRequest {
    closings: Vec<Closing>,
    reply: oneshot::Sender<Result<usize, LakeError>>,
}

/// Bring the seen events to the lake's position, from the lake.
async fn fill_seen(seen: &SeenEvents, lake: &Lake) -> Result<(), PipelineError> {
    let from = seen.position()?;
    if from >= lake.position() {
        return Ok(());
    }
    let started = Instant::now();
    let (mut shown, mut ids) = (started, 0);
    let mut events = lake.events_after(from);
    while let Some(batch) = events.try_next().await? {
        ids += batch.len();
        seen.insert(&batch, None)?;
        if shown.elapsed() >= SHOW_PROGRESS_EVERY {
            shown = Instant::now();
            tracing::info!(ids, "building the store of seen event ids from the lake");
        }
    }
    seen.insert(&[], Some(lake.position()))?;
    seen.write_out()?;
    let seconds = started.elapsed().as_secs_f64();
    tracing::info!(
        from = from.get(),
        to = lake.position().get(),
        seconds,
        "brought the seen events to the lake's position"
    );
    Ok(())
}

/// Read and decode until `stop`.
async fn read(
    mut reader: LogReader,
    mut decoder: Decoder,
    to_lake: mpsc::Sender<Decoded>,
    stop: CancellationToken,
) -> Result<(), PipelineError> {
    loop {
        let messages = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            messages = reader.next_messages() => messages,
        };
        let next = Instant::now() + GATHER_FOR;
        let decoded = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            decoded = decoder.decode_with_retries(messages) => decoded?,
        };
        for decoded in decoded {
            if !hand_on(decoded, &to_lake, &decoder.found).await {
                return Ok(());
            }
        }
        tokio::time::sleep_until(next).await;
    }
}

/// Hand on what was decoded, and count it; whether there is somebody who takes it.
async fn hand_on(decoded: Decoded, to_lake: &mpsc::Sender<Decoded>, letters_found: &watch::Sender<Position>) -> bool {
    metrics::counter!("pipeline_events_total").increment(decoded.events as u64);
    metrics::counter!("pipeline_duplicates_total").increment(decoded.duplicates as u64);
    metrics::counter!("pipeline_dead_letters_total").increment(decoded.dead_letters.len() as u64);
    for gap in &decoded.gaps {
        let (first, last) = (gap.first.get(), gap.last.get());
        metrics::counter!("pipeline_gap_positions_total").increment(last - first + 1);
        tracing::warn!(first, last, "the log no longer has these positions; system.gaps tells of them");
    }
    let found = decoded.dead_letters.iter().map(|letter| letter.position).max();
    if to_lake.send(decoded).await.is_err() {
        return false;
    }
    if let Some(found) = found {
        letters_found.send_replace(found);
    }
    true
}

/// Sends views and dirty buckets to the KPI cache.
struct KpiFeed {
    catalogue: Arc<Catalogue>,
    definitions: Arc<Vec<KpiDefinition>>,
    queue: mpsc::Sender<KpiCacheUpdate>,
}

/// The task that owns the lake.
struct LakeKeeper {
    lake: Lake,
    decoded: mpsc::Receiver<Decoded>,
    close_requests: mpsc::Receiver<CloseRequest>,
    orders: mpsc::Receiver<MaintenanceRequest>,
    views: watch::Sender<Option<Arc<LakeView>>>,
    to_listings: mpsc::Sender<ForIndex>,
    kpi_feed: KpiFeed,
    retention: RetentionPolicy,
    snapshotter: KpiSnapshotter,
    log: Log,
    queries: Handle,
}

impl LakeKeeper {
    /// Append to the lake, hand on to the other sinks, flush; until the decoded batches end.
    async fn run(self) -> Result<(), PipelineError> {
        let Self { mut lake, mut decoded, mut close_requests, mut orders, views, to_listings, kpi_feed, .. } = self;
        let mut flush = JoinSet::new();
        let mut scheduler =
            MaintenanceScheduler::new(self.queries.clone(), self.retention, self.snapshotter, Some(self.log));
        scheduler.look();
        // What the KPI cache has not taken yet: it computes at its own pace and never holds up the lake.
        let mut pending = Some(KpiCacheUpdate { view: show(&lake, &views), ..KpiCacheUpdate::default() });
        loop {
            let due = [lake.flush_due(), scheduler.due()].into_iter().flatten().min();
            let due = due.unwrap_or_else(|| Instant::now() + Duration::from_secs(3_600));
            tokio::select! {
                biased;
                Some(flushed) = flush.join_next() => {
                    let flushed: lake::Flushed = flushed??;
                    told(&flushed);
                    lake.finish_flush(flushed);
                    scheduler.look();
                    // The KPI cache reads the files that there are now: those it knew may be merged and deleted.
                    if let Some(view) = show(&lake, &views) {
                        pending.get_or_insert_default().view = Some(view);
                    }
                }
                Some(done) = scheduler.running.join_next() => {
                    let changed = scheduler.take(done, &mut lake)?;
                    if !matches!(changed, LakeChange::Nothing)
                        && let Some(view) = show(&lake, &views)
                    {
                        let update = pending.get_or_insert_default();
                        update.view = Some(Arc::clone(&view));
                        if let LakeChange::Retired(ExpiredBatch { table, rows, .. }) = changed {
                            update.dirty.mark(&kpi_feed.definitions, &kpi_feed.catalogue, &[(table, rows.clone())]);
                            let _ = to_listings.send(ForIndex::Retired { table, rows, view }).await;
                        }
                    }
                }
                Ok(permit) = kpi_feed.queue.reserve(), if pending.is_some() => {
                    if let Some(update) = pending.take() {
                        permit.send(update);
                    }
                }
                Some(CloseRequest { closings, reply }) = close_requests.recv() => {
                    let closed = lake.close(&closings).await;
                    show(&lake, &views);
                    // Whoever asked and went away may ask again.
                    let _ = reply.send(closed);
                }
                Some(MaintenanceRequest { order, reply }) = orders.recv() => {
                    if order.dry_run {
                        dry_run(&lake, &self.retention, order.keep_old_files, &self.queries, reply);
                    } else {
                        scheduler.demand(OnDemandRun::new(order.keep_old_files, reply), &lake);
                    }
                }
                batch = decoded.recv(), if !lake.is_full() => {
                    let Some(batch) = batch else { break };
                    lake.append(batch.tables.iter().cloned(), batch.to, batch.event_time)?;
                    let update = pending.get_or_insert_default();
                    update.dirty.mark(&kpi_feed.definitions, &kpi_feed.catalogue, &batch.tables);
                    update.view = show(&lake, &views);
                    // A sink whose queue is closed has failed, which ends the process: there is nobody to hand on to.
                    let _ = to_listings.send(ForIndex::Rows(Arc::new(batch))).await;
                }
                () = tokio::time::sleep_until(due) => {}
            }
            // A merged file first: its commit is short, and while catching up there is always something to flush.
            scheduler.step(&mut lake);
            if lake.wants_flush()
                && let Some(next) = lake.begin_flush()
            {
                flush.spawn(next.run());
            }
        }
        scheduler.end(&mut lake).await?;
        // What is flushed now need not be read from the log again.
        while let Some(flushed) = flush.join_next().await {
            lake.finish_flush(flushed??);
        }
        if let Some(last) = lake.begin_flush() {
            lake.finish_flush(last.run().await?);
        }
        Ok(())
    }
}

fn told(flushed: &lake::Flushed) {
    for commit in &flushed.commits {
        metrics::histogram!("lake_commit_seconds").record(*commit);
    }
    let slowest_ms = flushed.commits.iter().max().map_or(0, Duration::as_millis);
    let (tables, position, rows) = (flushed.commits.len(), flushed.position.get(), flushed.rows);
    tracing::info!(position, rows, tables, slowest_ms, "flushed the lake");
}

fn show(lake: &Lake, views: &watch::Sender<Option<Arc<LakeView>>>) -> Option<Arc<LakeView>> {
    if !lake.is_settled() {
        return None;
    }
    let view = Arc::new(lake.view());
    views.send_replace(Some(Arc::clone(&view)));
    metrics::gauge!("lake_position").set(position_gauge(view.position));
    Some(view)
}
