//! From the log to the sinks.
//!
//! ```text
//! log ─ read ─ decode ─ [dead letters] ─ lake ─┬─ listings (index)
//!                                              └─ KPIs (board)
//! ```
//!
//! Messages are decoded once. The lake takes the rows first; with them go its new view to the board and the rows to
//! the index. Every sink stores the position it reflects with its data, so a restart reads on from the lake's and
//! each sink passes over what it already has.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use datafusion::error::DataFusionError;
use futures::{FutureExt, TryStreamExt, future::BoxFuture};
use ingest::{Backoff, DeadLetters, Log, LogError, LogReader, RawMessage, SeenError, SeenEvents};
use lake::{Lake, LakeConfig, LakeError, LakeView, SqlError, SqlSession, ledger::Closing};
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
    decode::{DecodeError, Decoded, decode},
    derived_tables::derived_tables,
    index_keeper::{ForIndex, IndexSource, SHOW_PROGRESS_EVERY, keep_listings},
    kpi_definition::{KpiDefinition, KpiFileError},
    kpis::{self, BoardUpdate, Freezer, KpiService, Kpis},
    listings::ListingsError,
    maintenance::{Maintenance, OrderGiven, foresee},
    upkeep::{Changed, Demand, Taken, Upkeep},
};

/// Batches between two stages: one being worked on, one ready.
const STAGE_QUEUE: usize = 2;
/// What arrives within this after a batch makes one batch: many small ones would cost more than they tell.
const GATHER_FOR: Duration = Duration::from_millis(3);
/// Tries of decoding before the process ends. Its messages are in the log.
const MAX_DECODE_TRIES: u32 = 5;
/// How often the log is looked at for what must not happen to it.
const LOOK_AT_LOG_EVERY: Duration = Duration::from_secs(2);

/// Where the pipeline keeps its things.
#[derive(Clone, Debug)]
pub struct PipelineConfig {
    /// The lake's folder.
    pub lake: PathBuf,
    /// The index's folder.
    pub index: PathBuf,
    /// The seen events' folder.
    pub seen: PathBuf,
    pub flush: LakeConfig,
    /// What is counted.
    pub kpis: Vec<KpiDefinition>,
    /// How long events are kept.
    pub retention: RetentionPolicy,
    /// Go on although the log has forgotten events that the lake never had.
    pub accept_loss: bool,
}

/// What stops the pipeline. Nothing is lost: what is acknowledged is in the log.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Lake(#[from] LakeError),
    #[error(transparent)]
    Listings(#[from] ListingsError),
    #[error(transparent)]
    KpiFile(#[from] KpiFileError),
    #[error("the query engine cannot be set up")]
    Engine(#[from] DataFusionError),
    #[error("the lake cannot be read to rebuild the index")]
    Rebuild(#[source] SqlError),
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error(transparent)]
    Seen(#[from] SeenError),
    #[error("the folder {path} cannot be used")]
    Folder {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the lake was left in the middle of a flush; start forecourt on it once")]
    Unsettled,
    #[error("not all of the maintenance could be done; the warnings above say why")]
    Maintenance,
    #[error("a stage of the pipeline failed")]
    Stage(#[from] tokio::task::JoinError),
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
                lake.append([], state.before_first, None)?;
            }
            tracing::info!(position = lake.position().get(), "opened the lake");
            let seen = Arc::new(SeenEvents::open(&config.seen, &state.identity.to_string(), state.last)?);
            fill_seen(&seen, &lake).await?;

            let definitions = config.kpis;
            let sql = SqlSession::new(queries.clone(), derived_tables(&definitions))?;
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
            let (to_kpis, board_updates) = mpsc::channel(STAGE_QUEUE);
            let (closings, close_requests) = mpsc::channel(STAGE_QUEUE);
            let (maintenance, orders) = mpsc::channel(STAGE_QUEUE);
            let reader = LogReader::after(log.clone(), lake.position());
            let dead_letters = DeadLetters::open(log.clone()).await?;
            let from_lake = lake.position();
            tasks.spawn(read(reader, Arc::clone(&catalogue), Arc::clone(&seen), dead_letters, to_lake, stop.clone()));
            tasks.spawn(watch_log(log.clone(), state.identity, lake_views.clone(), stop.clone()));
            let board = BoardFeed {
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
                board,
                retention: config.retention,
                freezer: Freezer { session: sql.clone(), definitions: Arc::clone(&service.definitions) },
                log: log.clone(),
                queries,
            };
            tasks.spawn(keeper.run());
            tasks.spawn(keep_listings(listings, source, from_lake, listing_rows, listing_sender));
            tasks.spawn(async move {
                kpis.run(board_updates, requests, stop).await;
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

/// Look at the log now and then: an operator may recreate, purge or rewind it under us.
async fn watch_log(
    log: Log,
    identity: i64,
    lake: watch::Receiver<Option<Arc<LakeView>>>,
    stop: CancellationToken,
) -> Result<(), PipelineError> {
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(LOOK_AT_LOG_EVERY) => {}
        }
        // What has been decoded before the log is looked at cannot be missing from it for any other reason.
        let reached = lake.borrow().as_ref().map(|view| view.position);
        match log.look().await {
            Ok(state) => {
                metrics::gauge!("log_position").set(position_gauge(state.last));
                metrics::gauge!("log_bytes").set(position_gauge(Position::new(state.bytes)));
                if let Some(reached) = reached {
                    state.check_continues(reached, Some(identity), false)?;
                    if state.identity != identity {
                        return Err(LogError::Recreated {
                            first: state.before_first.next(),
                            last: state.last,
                            lake: reached,
                        }
                        .into());
                    }
                }
            }
            // It may be away for a while; the reader and the publisher say so.
            Err(error) => tracing::debug!(error = %error, "cannot look at the log"),
        }
    }
}

pub(crate) fn folder_url(path: &Path) -> Result<url::Url, PipelineError> {
    lake::folder_url(path).map_err(|source| PipelineError::Folder { path: path.to_owned(), source })
}

/// Read and decode until `stop`.
async fn read(
    mut reader: LogReader,
    catalogue: Arc<Catalogue>,
    seen: Arc<SeenEvents>,
    mut dead_letters: DeadLetters,
    to_lake: mpsc::Sender<Decoded>,
    stop: CancellationToken,
) -> Result<(), PipelineError> {
    loop {
        let messages = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            messages = reader.next_messages() => messages,
        };
        let next = Instant::now() + GATHER_FOR;
        let decoded = decode_patiently(&catalogue, &seen, messages).await?;
        metrics::counter!("pipeline_events_total").increment(decoded.events as u64);
        metrics::counter!("pipeline_duplicates_total").increment(decoded.duplicates as u64);
        metrics::counter!("pipeline_dead_letters_total").increment(decoded.dead_letters.len() as u64);
        let mut backoff = Backoff::default();
        while let Err(error) = dead_letters.copy(&decoded.dead_letters).await {
            tracing::warn!(error = %error, "cannot copy dead letters; trying again");
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(backoff.next_pause()) => {}
            }
        }
        if to_lake.send(decoded).await.is_err() {
            return Ok(());
        }
        tokio::time::sleep_until(next).await;
    }
}

/// Decode on a thread for such work. What fails for a while is tried again; a store of seen events that stays unreadable
/// is deleted, to be filled from the lake by the next start.
async fn decode_patiently(
    catalogue: &Arc<Catalogue>,
    seen: &Arc<SeenEvents>,
    messages: Vec<RawMessage>,
) -> Result<Decoded, PipelineError> {
    let (mut tries, mut backoff, messages) = (0, Backoff::default(), Arc::new(messages));
    loop {
        tries += 1;
        let work = (Arc::clone(catalogue), Arc::clone(seen), Arc::clone(&messages));
        match tokio::task::spawn_blocking(move || decode(&work.0, &work.1, &work.2)).await? {
            Ok(decoded) => return Ok(decoded),
            Err(error) if tries < MAX_DECODE_TRIES => {
                tracing::warn!(error = &error as &dyn std::error::Error, "cannot decode; trying again");
                tokio::time::sleep(backoff.next_pause()).await;
            }
            Err(error) => {
                if matches!(error, DecodeError::Seen(_)) {
                    seen.discard()?;
                }
                return Err(error.into());
            }
        }
    }
}

/// The way to the board.
struct BoardFeed {
    catalogue: Arc<Catalogue>,
    definitions: Arc<Vec<KpiDefinition>>,
    queue: mpsc::Sender<BoardUpdate>,
}

/// The task that owns the lake.
struct LakeKeeper {
    lake: Lake,
    decoded: mpsc::Receiver<Decoded>,
    close_requests: mpsc::Receiver<CloseRequest>,
    orders: mpsc::Receiver<OrderGiven>,
    views: watch::Sender<Option<Arc<LakeView>>>,
    to_listings: mpsc::Sender<ForIndex>,
    board: BoardFeed,
    retention: RetentionPolicy,
    freezer: Freezer,
    log: Log,
    queries: Handle,
}

impl LakeKeeper {
    /// Append to the lake, hand on to the other sinks, flush; until the decoded batches end.
    async fn run(self) -> Result<(), PipelineError> {
        let Self { mut lake, mut decoded, mut close_requests, mut orders, views, to_listings, board, .. } = self;
        let mut flush = JoinSet::new();
        let mut upkeep = Upkeep::new(self.queries.clone(), self.retention, self.freezer, Some(self.log));
        upkeep.look();
        // What the board has not taken yet: it computes at its own pace and never holds up the lake.
        let mut pending = Some(BoardUpdate { view: show(&lake, &views), ..BoardUpdate::default() });
        loop {
            let due = [lake.flush_due(), upkeep.due()].into_iter().flatten().min();
            let due = due.unwrap_or_else(|| Instant::now() + Duration::from_secs(3_600));
            tokio::select! {
                biased;
                Some(flushed) = flush.join_next() => {
                    let flushed: lake::Flushed = flushed??;
                    told(&flushed);
                    lake.finish_flush(flushed);
                    upkeep.look();
                    // The board reads the files that there are now: those it knew may be merged and deleted.
                    if let Some(view) = show(&lake, &views) {
                        pending.get_or_insert_default().view = Some(view);
                    }
                }
                Some(done) = upkeep.running.join_next() => {
                    let changed = upkeep.take(done, &mut lake)?;
                    if !matches!(changed, Changed::Nothing)
                        && let Some(view) = show(&lake, &views)
                    {
                        let update = pending.get_or_insert_default();
                        update.view = Some(Arc::clone(&view));
                        if let Changed::Retired(Taken { table, rows, .. }) = changed {
                            update.touched.mark(&board.definitions, &board.catalogue, &[(table, rows.clone())]);
                            let _ = to_listings.send(ForIndex::Retired { table, rows, view }).await;
                        }
                    }
                }
                Ok(permit) = board.queue.reserve(), if pending.is_some() => {
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
                Some(OrderGiven { order, reply }) = orders.recv() => {
                    if order.dry_run {
                        foresee(&lake, &self.retention, order.keep_old_files, &self.queries, reply);
                    } else {
                        upkeep.demand(Demand::new(order.keep_old_files, reply), &lake);
                    }
                }
                batch = decoded.recv(), if !lake.is_full() => {
                    let Some(batch) = batch else { break };
                    lake.append(batch.tables.iter().cloned(), batch.to, batch.event_time)?;
                    let update = pending.get_or_insert_default();
                    update.touched.mark(&board.definitions, &board.catalogue, &batch.tables);
                    update.view = show(&lake, &views);
                    // A sink whose queue is closed has failed, which ends the process: there is nobody to hand on to.
                    let _ = to_listings.send(ForIndex::Rows(Arc::new(batch))).await;
                }
                () = tokio::time::sleep_until(due) => {}
            }
            // A merged file first: its commit is short, and while catching up there is always something to flush.
            upkeep.step(&mut lake);
            if lake.wants_flush()
                && let Some(next) = lake.begin_flush()
            {
                flush.spawn(next.run());
            }
        }
        upkeep.end(&mut lake).await?;
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

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float; positions are far below 2^53")]
pub(crate) fn position_gauge(position: Position) -> f64 {
    position.get() as f64
}
