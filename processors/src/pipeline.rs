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
use futures::TryStreamExt;
use ingest::{Backoff, DeadLetters, Log, LogError, LogReader, RawMessage, SeenError, SeenEvents};
use lake::{Lake, LakeConfig, LakeError, LakeView, SqlError, SqlSession, ledger::Closing};
use schemas::{Catalogue, Position};
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
    kpi_definition::{KpiDefinition, KpiFileError},
    kpis::{BoardUpdate, KpiService, Kpis},
    listing_fold::CONTEXTS,
    listings::{Listings, ListingsError},
    upkeep::Upkeep,
};

/// Batches between two stages: one being worked on, one ready.
const STAGE_QUEUE: usize = 2;
/// Entities the index may hold back for one commit while more rows are waiting.
const MAX_PENDING_ENTITIES: usize = 20_000;
/// How long the index may hold back a commit while more rows are waiting.
const MAX_COMMIT_DELAY: Duration = Duration::from_millis(500);
/// What arrives within this after a batch makes one batch: many small ones would cost more than they tell.
const GATHER_FOR: Duration = Duration::from_millis(5);
/// Tries of decoding before the process ends. Its messages are in the log.
const MAX_DECODE_TRIES: u32 = 5;
/// The index commits at most this often: a commit writes files, and the log's syncs wait for the disk with it. After a
/// pause of this length a change is committed at once.
const COMMIT_EVERY: Duration = Duration::from_millis(100);
/// How often an index that was opened again looks for what the lake has got meanwhile.
const CATCH_UP_EVERY: Duration = Duration::from_millis(20);
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
    /// The end of the log when the pipeline started: having reached it, it knows every event there was.
    pub log_end_at_start: Position,
}

impl Pipeline {
    /// Open the sinks, catch the index up with the lake, and start reading the log. Stages run on `tasks` until
    /// `stop`; then the lake is flushed and they end.
    ///
    /// # Errors
    /// When a sink cannot be opened, or the log does not continue it.
    pub async fn start(
        config: PipelineConfig,
        catalogue: Arc<Catalogue>,
        log: Log,
        queries: Handle,
        tasks: &mut JoinSet<Result<(), PipelineError>>,
        stop: CancellationToken,
    ) -> Result<Self, PipelineError> {
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

        let definitions = KpiDefinition::embedded()?;
        let sql = SqlSession::new(queries.clone(), derived_tables(&definitions))?;
        let log_end = log.last_message().await?;
        let view = Arc::new(lake.view());
        let listings = open_listings(&config.index, &catalogue, &sql, &view, log_end).await?;

        let (view_sender, lake_views) = watch::channel(None);
        let (listing_sender, listing_snapshots) = watch::channel(Some(listings.snapshot()));
        let (kpis, service, requests) = Kpis::new(sql.clone(), definitions);

        let (to_lake, decoded) = mpsc::channel(STAGE_QUEUE);
        let (to_listings, listing_rows) = mpsc::channel(STAGE_QUEUE);
        let (to_kpis, board_updates) = mpsc::channel(STAGE_QUEUE);
        let (closings, close_requests) = mpsc::channel(STAGE_QUEUE);
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
        tasks.spawn(keep_lake(lake, decoded, close_requests, view_sender, to_listings, board, queries));
        let source = IndexSource { folder: config.index, catalogue, sql: sql.clone(), lake: lake_views.clone() };
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
            log_end_at_start: log_end,
        })
    }

    /// Record what was decided about dead letters. Those that are closed already stay as they are; how many were not.
    ///
    /// # Errors
    /// When the lake does not take it, or is going down.
    pub async fn close_dead_letters(&self, closings: Vec<Closing>) -> Result<usize, CloseError> {
        let (reply, closed) = oneshot::channel();
        self.closings.send(CloseRequest { closings, reply }).await.map_err(|_| CloseError::ShuttingDown)?;
        Ok(closed.await.map_err(|_| CloseError::ShuttingDown)??)
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
    let insert = |batch: Vec<_>| Ok::<_, PipelineError>(seen.insert(&batch, None)?);
    lake.for_each_event(from, insert).await?;
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

/// Open the index and bring it to the lake's position, from the lake.
async fn open_listings(
    folder: &Path,
    catalogue: &Arc<Catalogue>,
    sql: &SqlSession,
    view: &Arc<LakeView>,
    log_end: Position,
) -> Result<Listings, PipelineError> {
    let mut listings = Listings::open(folder, Arc::clone(catalogue))?;
    if listings.position() > log_end {
        tracing::warn!("the index is ahead of the log; building it again");
        listings = start_over(listings, folder, catalogue)?;
    }
    catch_up(&mut listings, catalogue, sql, view).await?;
    Ok(listings)
}

/// Bring the index to a view's position, from the lake.
async fn catch_up(
    listings: &mut Listings,
    catalogue: &Arc<Catalogue>,
    sql: &SqlSession,
    view: &Arc<LakeView>,
) -> Result<(), PipelineError> {
    if listings.position() >= view.position {
        return Ok(());
    }
    let started = Instant::now();
    let after = listings.position();
    for (index, context) in catalogue.indexed().filter(|(_, context)| CONTEXTS.contains(&context.name.as_str())) {
        let rows = sql.rows_between(view, index, after, view.position);
        let mut rows = rows.await.map_err(PipelineError::Rebuild)?;
        while let Some(batch) = rows.try_next().await.map_err(PipelineError::Engine)? {
            listings.fold(context, &batch)?;
        }
    }
    listings.commit(view.position, view.event_time)?;
    tracing::info!(
        from = after.get(),
        to = view.position.get(),
        seconds = started.elapsed().as_secs_f64(),
        "brought the index to the lake's position"
    );
    Ok(())
}

fn start_over(listings: Listings, folder: &Path, catalogue: &Arc<Catalogue>) -> Result<Listings, PipelineError> {
    drop(listings);
    std::fs::remove_dir_all(folder).map_err(|source| PipelineError::Folder { path: folder.to_owned(), source })?;
    Ok(Listings::open(folder, Arc::clone(catalogue))?)
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
            messages = reader.next() => messages,
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

/// Append to the lake, hand on to the other sinks, flush; until the decoded batches end.
async fn keep_lake(
    mut lake: Lake,
    mut decoded: mpsc::Receiver<Decoded>,
    mut close_requests: mpsc::Receiver<CloseRequest>,
    views: watch::Sender<Option<Arc<LakeView>>>,
    to_listings: mpsc::Sender<Arc<Decoded>>,
    board: BoardFeed,
    queries: Handle,
) -> Result<(), PipelineError> {
    let (mut flush, mut upkeep) = (JoinSet::new(), Upkeep::new(queries));
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
                tracing::info!(position = flushed.position.get(), rows = flushed.rows, "flushed the lake");
                lake.finish_flush(flushed);
                upkeep.look();
                // The board reads the files that there are now: those it knew may be merged and deleted.
                if let Some(view) = show(&lake, &views) {
                    pending.get_or_insert_default().view = Some(view);
                }
            }
            Some(done) = upkeep.running.join_next() => {
                if upkeep.take(done, &mut lake)?
                    && let Some(view) = show(&lake, &views)
                {
                    pending.get_or_insert_default().view = Some(view);
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
            batch = decoded.recv(), if !lake.is_full() => {
                let Some(batch) = batch else { break };
                lake.append(batch.tables.iter().cloned(), batch.to, batch.event_time)?;
                let update = pending.get_or_insert_default();
                update.touched.mark(&board.definitions, &board.catalogue, &batch);
                update.view = show(&lake, &views);
                // A sink whose queue is closed has failed, which ends the process: there is nobody to hand on to.
                let _ = to_listings.send(Arc::new(batch)).await;
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

fn show(lake: &Lake, views: &watch::Sender<Option<Arc<LakeView>>>) -> Option<Arc<LakeView>> {
    if !lake.is_settled() {
        return None;
    }
    let view = Arc::new(lake.view());
    views.send_replace(Some(Arc::clone(&view)));
    metrics::gauge!("lake_position").set(position_gauge(view.position));
    Some(view)
}

/// What the index is opened again from, when it fails.
struct IndexSource {
    folder: PathBuf,
    catalogue: Arc<Catalogue>,
    sql: SqlSession,
    lake: watch::Receiver<Option<Arc<LakeView>>>,
}

/// Fold and commit until the rows end. What no commit reflects is folded again after a restart.
async fn keep_listings(
    mut listings: Listings,
    source: IndexSource,
    mut position: Position,
    mut rows: mpsc::Receiver<Arc<Decoded>>,
    snapshots: watch::Sender<Option<Arc<ListingSnapshot>>>,
) -> Result<(), PipelineError> {
    let runtime = Handle::current();
    let work = move || {
        let mut event_time = listings.snapshot().event_time;
        let mut held_since: Option<Instant> = None;
        let mut committed = Instant::now();
        loop {
            // While something is held, wait for more rows only until a commit may be made again.
            let due = held_since.map(|_| committed + COMMIT_EVERY);
            let received = match due {
                None => Some(rows.blocking_recv()),
                Some(due) => runtime.block_on(tokio::time::timeout_at(due, rows.recv())).ok(),
            };
            let folded = match received {
                Some(Some(batch)) => {
                    position = position.max(batch.to);
                    event_time = event_time.max(batch.event_time);
                    if position > listings.position() {
                        held_since.get_or_insert_with(Instant::now);
                    }
                    listings.fold_tables(&batch.tables)
                }
                Some(None) => return Ok(()),
                None => Ok(()),
            };
            let Some(since) = held_since else { continue };
            let may_hold = listings.pending() < MAX_PENDING_ENTITIES && since.elapsed() < MAX_COMMIT_DELAY;
            if folded.is_ok() && may_hold && (!rows.is_empty() || committed.elapsed() < COMMIT_EVERY) {
                continue;
            }
            held_since = None;
            let snapshot = match folded.and_then(|()| listings.commit(position, event_time)) {
                Ok(snapshot) => snapshot,
                Err(error) => {
                    // The disk may be full. What was not committed is lost with the writer, and is in the lake.
                    tracing::warn!(error = &error as &dyn std::error::Error, "the index failed; opening it again");
                    drop(listings);
                    let Some(opened) = runtime.block_on(source.open_patiently(position, &mut rows)) else {
                        return Ok(());
                    };
                    listings = opened;
                    let snapshot = listings.snapshot();
                    (position, event_time) = (position.max(snapshot.position), event_time.max(snapshot.event_time));
                    snapshot
                }
            };
            committed = Instant::now();
            metrics::gauge!("index_position").set(position_gauge(snapshot.position));
            snapshots.send_replace(Some(snapshot));
        }
    };
    tokio::task::spawn_blocking(work).await?
}

impl IndexSource {
    /// Open the index and bring it to where the rows are, however long that takes; none, if the rows end meanwhile.
    ///
    /// Rows are still taken, so that the lake goes on, and left to be read from it again.
    async fn open_patiently(
        &self,
        mut position: Position,
        rows: &mut mpsc::Receiver<Arc<Decoded>>,
    ) -> Option<Listings> {
        let (mut backoff, mut opened) = (Backoff::default(), None);
        loop {
            let before: Option<Listings> = opened.take();
            let pause = if before.is_none() { backoff.next_pause() } else { CATCH_UP_EVERY };
            let work = async {
                tokio::time::sleep(pause).await;
                self.advance(before).await.unwrap_or_else(|error| {
                    tracing::warn!(error = &error as &dyn std::error::Error, "cannot open the index; trying again");
                    None
                })
            };
            tokio::pin!(work);
            let advanced = loop {
                tokio::select! {
                    advanced = &mut work => break advanced,
                    row = rows.recv() => position = position.max(row?.to),
                }
            };
            match advanced {
                Some(listings) if listings.position() >= position => return Some(listings),
                advanced => opened = advanced,
            }
        }
    }

    /// Bring an index, or the one in the folder, to what the lake shows; none, while it shows nothing.
    async fn advance(&self, opened: Option<Listings>) -> Result<Option<Listings>, PipelineError> {
        let Some(view) = self.lake.borrow().clone() else { return Ok(None) };
        match opened {
            Some(mut listings) => {
                catch_up(&mut listings, &self.catalogue, &self.sql, &view).await?;
                Ok(Some(listings))
            }
            // The log has what the index has: it was checked when the pipeline started.
            None => {
                let log_end = Position::new(u64::MAX);
                open_listings(&self.folder, &self.catalogue, &self.sql, &view, log_end).await.map(Some)
            }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float; positions are far below 2^53")]
fn position_gauge(position: Position) -> f64 {
    position.get() as f64
}
