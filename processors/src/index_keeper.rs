//! The task that keeps the index: it folds what the lake hands on, refreshes and commits, and opens the index again when it
//! fails.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arrow::array::RecordBatch;
use futures::TryStreamExt;
use ingest::Backoff;
use lake::{LakeView, SqlSession};
use schemas::{Catalogue, Position};
use search_index::ListingSnapshot;
use tokio::{
    runtime::Handle,
    sync::{mpsc, watch},
    task::JoinHandle,
    time::Instant,
};

use crate::{
    decode::Decoded,
    error::PipelineError,
    freeing::Freeing,
    gauges::position_gauge,
    listing_fold::{CONTEXTS, Change, Entity, EntityKey, changes},
    listings::{Listings, ListingsError},
};

/// Entities the index may hold back for one refresh while more rows are waiting.
const MAX_PENDING_ENTITIES: usize = 20_000;
/// How long the index may hold back a refresh while more rows are waiting.
const MAX_REFRESH_DELAY: Duration = Duration::from_millis(500);
/// A refresh of more entities, or one that takes longer than the longest rest, is followed by a rest of its length: while so much
/// comes, more at once is cheaper.
const FEW: usize = 200;
const MOST_REST: Duration = Duration::from_millis(50);
/// How often what was refreshed is committed. A restart folds what came since again.
const COMMIT_EVERY: Duration = Duration::from_secs(2);
/// How often an index that was opened again looks for what the lake has got meanwhile.
const CATCH_UP_EVERY: Duration = Duration::from_millis(20);

/// How often a long catch-up says how far it is.
pub(crate) const SHOW_PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// What the lake hands on to the index.
pub(crate) enum ForIndex {
    Rows(Arc<Decoded>),
    /// Rows of a table that retention has taken, and the lake without them: it has all rows handed on before.
    Retired {
        table: usize,
        rows: RecordBatch,
        view: Arc<LakeView>,
    },
}

/// What the index is opened from.
pub(crate) struct IndexSource {
    pub(crate) folder: PathBuf,
    pub(crate) catalogue: Arc<Catalogue>,
    pub(crate) sql: SqlSession,
    pub(crate) lake: watch::Receiver<Option<Arc<LakeView>>>,
}

/// Fold, refresh and commit until the rows end. What no commit reflects is folded again after a restart.
pub(crate) async fn keep_listings(
    listings: Listings,
    source: IndexSource,
    position: Position,
    rows: mpsc::Receiver<ForIndex>,
    snapshots: watch::Sender<Option<Arc<ListingSnapshot>>>,
) -> Result<(), PipelineError> {
    let event_time = listings.snapshot().event_time;
    // It may be ahead of the lake: what it has comes again from the log, and is passed over.
    let position = position.max(listings.position());
    let keeper = IndexKeeper {
        listings: Some(listings),
        source: Arc::new(source),
        position,
        event_time,
        rows,
        snapshots,
        gone: Freeing::start("index-freeing"),
        forgetting: None,
        held_since: None,
        due: Instant::now(),
        commit_due: Instant::now(),
        is_kept: true,
    };
    let runtime = Handle::current();
    tokio::task::spawn_blocking(move || keeper.run(&runtime)).await?
}

struct IndexKeeper {
    /// None while it is opened again.
    listings: Option<Listings>,
    source: Arc<IndexSource>,
    /// What has been handed on.
    position: Position,
    event_time: Option<i64>,
    rows: mpsc::Receiver<ForIndex>,
    snapshots: watch::Sender<Option<Arc<ListingSnapshot>>>,
    /// Segments that were merged take long to free: neither a refresh nor a search should be the last that has one.
    gone: Freeing<ListingSnapshot>,
    forgetting: Option<Forgetting>,
    /// Since when something waits for a refresh.
    held_since: Option<Instant>,
    /// When the next refresh may be made.
    due: Instant,
    /// When the next commit may be begun.
    commit_due: Instant,
    /// Whether a commit has all that was refreshed.
    is_kept: bool,
}

/// Entities of which retention took events, while what is left of them is read from the lake.
struct Forgetting {
    keys: Arc<HashSet<EntityKey>>,
    retirements: u64,
    left: JoinHandle<Result<HashMap<EntityKey, Entity>, PipelineError>>,
    /// What was handed on about them since: the lake's view has none of it.
    later: Vec<(EntityKey, Change)>,
}

/// What the keeper has to do next.
enum Step {
    Take(ForIndex),
    Forget(Result<HashMap<EntityKey, Entity>, PipelineError>),
    /// Refresh or commit what is due.
    Write,
    End,
}

impl IndexKeeper {
    fn run(mut self, runtime: &Handle) -> Result<(), PipelineError> {
        loop {
            let Some(mut listings) = self.listings.take() else { return Ok(()) };
            let done = match runtime.block_on(self.next()) {
                Step::End => {
                    // What is committed now need not be folded again.
                    let has_more = self.held_since.is_some() || !self.is_kept;
                    if has_more && let Err(error) = listings.commit(self.position, self.event_time) {
                        tracing::warn!(error = &error as &dyn std::error::Error, "the index could not be committed");
                    }
                    return Ok(());
                }
                Step::Write => Ok(()),
                Step::Take(ForIndex::Rows(batch)) => self.fold(&mut listings, &batch),
                Step::Take(ForIndex::Retired { table, rows, view }) => {
                    self.begin_to_forget(&mut listings, table, &rows, view, runtime)
                }
                Step::Forget(left) => left.and_then(|left| Ok(self.forget(&mut listings, left)?)),
            };
            match done.and_then(|()| Ok(self.write_what_is_due(&mut listings)?)) {
                Ok(()) => self.listings = Some(listings),
                Err(error) => {
                    // The disk may be full. What was not committed is lost with the writer, and is in the lake.
                    tracing::warn!(error = &error as &dyn std::error::Error, "the index failed; opening it again");
                    drop(listings);
                    self.is_kept = true;
                    self.forgetting = None;
                    self.held_since = None;
                    self.listings = runtime.block_on(self.open_patiently());
                    if let Some(listings) = &self.listings {
                        let snapshot = listings.snapshot();
                        self.position = self.position.max(snapshot.position);
                        self.event_time = self.event_time.max(snapshot.event_time);
                        self.show(snapshot);
                    }
                }
            }
        }
    }

    /// Wait for something to do: while something is not visible or not kept, only until it may be.
    async fn next(&mut self) -> Step {
        let commit_due = (!self.is_kept).then_some(self.commit_due);
        let due = self.held_since.map(|_| self.due).or(commit_due);
        let write = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        let forgotten = async {
            match &mut self.forgetting {
                Some(forgetting) => (&mut forgetting.left).await.unwrap_or_else(|error| Err(error.into())),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            left = forgotten => Step::Forget(left),
            given = self.rows.recv() => given.map_or(Step::End, Step::Take),
            () = write => Step::Write,
        }
    }

    fn fold(&mut self, listings: &mut Listings, batch: &Decoded) -> Result<(), PipelineError> {
        self.position = self.position.max(batch.to);
        self.event_time = self.event_time.max(batch.event_time);
        if self.position > listings.position() {
            self.held_since.get_or_insert_with(Instant::now);
        }
        if let Some(forgetting) = &mut self.forgetting {
            for (table, rows) in &batch.tables {
                let about = self.source.changes(*table, rows).into_iter();
                forgetting.later.extend(about.filter(|(key, _)| forgetting.keys.contains(key)));
            }
        }
        Ok(listings.fold_tables(&batch.tables)?)
    }

    /// Read what is left of the entities that these rows said something about.
    fn begin_to_forget(
        &mut self,
        listings: &mut Listings,
        table: usize,
        rows: &RecordBatch,
        view: Arc<LakeView>,
        runtime: &Handle,
    ) -> Result<(), PipelineError> {
        // An index that was opened since has nothing of them.
        if view.retirements <= listings.retirements() {
            return Ok(());
        }
        let mut keys: HashSet<EntityKey> = self.source.changes(table, rows).into_iter().map(|(key, _)| key).collect();
        if let Some(before) = self.forgetting.take() {
            // What is left is read once for both: the view has what came since.
            before.left.abort();
            keys.extend(before.keys.iter().cloned());
        }
        let (keys, source, retirements) = (Arc::new(keys), Arc::clone(&self.source), view.retirements);
        let left = runtime.spawn({
            let keys = Arc::clone(&keys);
            async move { source.left_of(&view, &keys).await }
        });
        self.forgetting = Some(Forgetting { keys, retirements, left, later: Vec::new() });
        Ok(())
    }

    fn forget(&mut self, listings: &mut Listings, mut left: HashMap<EntityKey, Entity>) -> Result<(), ListingsError> {
        let Some(forgetting) = self.forgetting.take() else { return Ok(()) };
        for (key, change) in forgetting.later {
            left.entry(key).or_default().apply(change);
        }
        listings.replace(&forgetting.keys, left)?;
        listings.set_retirements(forgetting.retirements);
        self.held_since.get_or_insert_with(Instant::now);
        // An index that was killed without it would be built again.
        self.commit_due = Instant::now();
        Ok(())
    }

    fn write_what_is_due(&mut self, listings: &mut Listings) -> Result<(), ListingsError> {
        if let Some(since) = self.held_since {
            let may_hold = listings.pending() < MAX_PENDING_ENTITIES && since.elapsed() < MAX_REFRESH_DELAY;
            if may_hold && (!self.rows.is_empty() || Instant::now() < self.due) {
                return Ok(());
            }
            self.held_since = None;
            let (started, entities) = (Instant::now(), listings.pending());
            let snapshot = listings.refresh(self.position, self.event_time)?;
            self.show(snapshot);
            self.is_kept = false;
            let took = started.elapsed();
            listings.prepare()?;
            metrics::histogram!("index_refresh_seconds").record(took);
            let rest = if entities > FEW || took > MOST_REST { took.min(MOST_REST) } else { Duration::ZERO };
            self.due = Instant::now() + rest;
        }
        if !self.is_kept && Instant::now() >= self.commit_due {
            self.is_kept = listings.keep()?;
            metrics::gauge!("index_committed_position").set(position_gauge(listings.committed()));
            self.show(listings.snapshot());
            self.commit_due = Instant::now() + COMMIT_EVERY;
        }
        Ok(())
    }

    fn show(&mut self, snapshot: Arc<ListingSnapshot>) {
        metrics::gauge!("index_position").set(position_gauge(snapshot.position));
        if let Some(before) = self.snapshots.send_replace(Some(snapshot)) {
            self.gone.free(before);
        }
    }

    /// Open the index and bring it to where the rows are, however long that takes; none, if the rows end meanwhile.
    ///
    /// Rows are still taken, so that the lake goes on, and left to be read from it again.
    async fn open_patiently(&mut self) -> Option<Listings> {
        let (mut backoff, mut opened, mut retirements) = (Backoff::default(), None, 0);
        loop {
            let before: Option<Listings> = opened.take();
            let pause = if before.is_none() { backoff.next_pause() } else { CATCH_UP_EVERY };
            let work = async {
                tokio::time::sleep(pause).await;
                self.source.advance(before).await.unwrap_or_else(|error| {
                    tracing::warn!(error = &error as &dyn std::error::Error, "cannot open the index; trying again");
                    None
                })
            };
            tokio::pin!(work);
            let advanced = loop {
                tokio::select! {
                    advanced = &mut work => break advanced,
                    given = self.rows.recv() => match given? {
                        ForIndex::Rows(batch) => self.position = self.position.max(batch.to),
                        ForIndex::Retired { view, .. } => retirements = view.retirements,
                    }
                }
            };
            match advanced {
                Some(listings) if listings.position() >= self.position && listings.retirements() >= retirements => {
                    return Some(listings);
                }
                advanced => opened = advanced,
            }
        }
    }
}

impl IndexSource {
    /// Open the index and bring it to a view's position, from the lake. `log_end` is where the log ends.
    pub(crate) async fn open(&self, view: &Arc<LakeView>, log_end: Position) -> Result<Listings, PipelineError> {
        let mut listings = Listings::open(&self.folder, Arc::clone(&self.catalogue))?;
        if listings.position() > log_end {
            tracing::warn!("the index is ahead of the log; building it again");
            listings = self.start_over(listings)?;
        }
        self.catch_up(listings, view).await
    }

    /// Bring an index, or the one in the folder, to what the lake shows; none, while it shows nothing.
    async fn advance(&self, opened: Option<Listings>) -> Result<Option<Listings>, PipelineError> {
        let Some(view) = self.lake.borrow().clone() else { return Ok(None) };
        match opened {
            Some(listings) => self.catch_up(listings, &view).await.map(Some),
            // The log has what the index has: it was checked when the pipeline started.
            None => self.open(&view, Position::new(u64::MAX)).await.map(Some),
        }
    }

    /// Bring the index to a view's position, from the lake.
    async fn catch_up(&self, mut listings: Listings, view: &Arc<LakeView>) -> Result<Listings, PipelineError> {
        if listings.retirements() != view.retirements {
            if listings.position() > Position::START {
                tracing::info!("the index has facts of events that retention has taken; building it again");
                listings = self.start_over(listings)?;
            }
            listings.set_retirements(view.retirements);
        }
        if listings.position() >= view.position {
            return Ok(listings);
        }
        let (started, after) = (Instant::now(), listings.position());
        let (mut shown, mut events) = (started, 0);
        let contexts: Vec<_> =
            self.catalogue.indexed().filter(|(_, it)| CONTEXTS.contains(&it.name.as_str())).collect();
        for (number, (index, context)) in contexts.iter().enumerate() {
            let rows = self.sql.rows_between(view, *index, after, view.position);
            let mut rows = rows.await.map_err(PipelineError::Rebuild)?;
            while let Some(batch) = rows.try_next().await.map_err(PipelineError::Engine)? {
                events += batch.num_rows();
                listings.fold(context, &batch)?;
                if shown.elapsed() >= SHOW_PROGRESS_EVERY {
                    shown = Instant::now();
                    let (table, tables) = (number + 1, contexts.len());
                    tracing::info!(events, table, tables, context = context.name, "building the index from the lake");
                }
            }
        }
        listings.commit(view.position, view.event_time)?;
        tracing::info!(
            from = after.get(),
            to = view.position.get(),
            seconds = started.elapsed().as_secs_f64(),
            "brought the index to the lake's position"
        );
        Ok(listings)
    }

    fn start_over(&self, listings: Listings) -> Result<Listings, PipelineError> {
        drop(listings);
        empty(&self.folder)?;
        Ok(Listings::open(&self.folder, Arc::clone(&self.catalogue))?)
    }

    /// What a table's rows say about entities.
    fn changes(&self, table: usize, rows: &RecordBatch) -> Vec<(EntityKey, Change)> {
        match self.catalogue.contexts().get(table) {
            Some(context) if CONTEXTS.contains(&context.name.as_str()) => changes(context, rows, Position::START),
            _ => Vec::new(),
        }
    }

    /// What the lake's rows say of some entities. An entity that none is about is not among them.
    async fn left_of(
        &self,
        view: &Arc<LakeView>,
        keys: &HashSet<EntityKey>,
    ) -> Result<HashMap<EntityKey, Entity>, PipelineError> {
        let mut left: HashMap<EntityKey, Entity> = HashMap::new();
        if keys.is_empty() {
            return Ok(left);
        }
        for (index, context) in self.catalogue.indexed().filter(|(_, it)| CONTEXTS.contains(&it.name.as_str())) {
            let rows = self.sql.rows_between(view, index, Position::START, view.position);
            let mut rows = rows.await.map_err(PipelineError::Rebuild)?;
            while let Some(batch) = rows.try_next().await.map_err(PipelineError::Engine)? {
                for (key, change) in changes(context, &batch, Position::START) {
                    if keys.contains(&key) {
                        left.entry(key).or_default().apply(change);
                    }
                }
            }
        }
        Ok(left)
    }
}

fn empty(folder: &Path) -> Result<(), PipelineError> {
    std::fs::remove_dir_all(folder).map_err(|source| PipelineError::Folder { path: folder.to_owned(), source })
}
