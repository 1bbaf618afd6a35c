//! The KPI sink: a cache of the series in use, as of one position.
//!
//! A series is one KPI in one grain and time zone, by some dimensions, of some of its facts, over a window. Those in use are
//! kept: new events mark the buckets they touch, and only those are computed again, by the KPI's own SQL over one view of
//! the lake. So a poll is a look-up, a late event corrects the bucket it belongs to, and what is kept equals what a full
//! computation would give.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, hash_map::Entry},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use lake::{LakeView, SqlSession};
use schemas::Position;
use serde_json::{Map, Value};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::kpi_definition::{BucketBy, KpiDefinition};

pub(crate) mod bucket_function;
mod check;
mod compute;
mod dirty_set;
mod error;
mod history;
mod query;
mod series;
mod snapshotter;

pub use check::check;
use compute::compute;
pub use compute::{ComputedRows, recomputed};
pub use dirty_set::DirtySet;
use dirty_set::{FactCondition, Precision, TIME_STEP};
pub use error::KpiError;
use error::log_failure;
use history::{covers, frozen_days};
pub(crate) use query::all_time;
use query::{rows_of, times_of_facts};
pub use series::{DAYS, Row, RowKey, Series, SeriesKey, Totals};
use series::{EARLIEST, LATEST, coalesce_ranges, push_range};
pub use snapshotter::{KpiSnapshotter, SnapshotError};

/// Between two computations of the board: people do not read faster.
const REFRESH_EVERY: Duration = Duration::from_millis(150);
/// The board rests at least this many times as long as computing it took, so that it leaves the machine to others.
const REST_FACTOR: u32 = 2;
/// Series kept up to date at once; the one that was not asked for longest makes room.
const MAX_SERIES: usize = 256;
/// A series that nobody asks for is kept so long.
const IDLE_EVICTION_AFTER: Duration = Duration::from_secs(15 * 60);
/// How long a series that somebody asks for may take.
const SERIES_TIMEOUT: Duration = Duration::from_secs(20);
/// Totals kept at once; all go when there are more.
const MAX_TOTALS: usize = 512;
/// Requests for new series that may wait.
const MAX_WAITING_REQUESTS: usize = 64;

/// By KPI, the days that have lost events.
type FrozenDays = BTreeMap<String, BTreeSet<i64>>;

/// The cached series, as of one position.
#[derive(Clone, Debug)]
pub struct KpiCache {
    pub position: Position,
    /// The latest event time reflected, in microseconds since 1970, UTC.
    pub event_time: Option<i64>,
    /// The cut it was computed over.
    pub view: Arc<LakeView>,
    /// The days that have lost events.
    frozen: Arc<FrozenDays>,
    series: HashMap<SeriesKey, CachedSeries>,
}

impl KpiCache {
    #[must_use]
    pub fn series(&self, key: &SeriesKey) -> Option<&Arc<Series>> {
        self.series.get(key).map(|kept| &kept.series)
    }

    /// The same, of a copy of a board, to be changed.
    pub fn series_mut(&mut self, key: &SeriesKey) -> Option<&mut Series> {
        self.series.get_mut(key).map(|kept| Arc::make_mut(&mut kept.series))
    }

    /// The position by which a series became what it is.
    #[must_use]
    pub fn changed(&self, key: &SeriesKey) -> Position {
        self.series.get(key).map_or(Position::START, |kept| kept.changed)
    }

    /// The days of a KPI that have lost events, in UTC, and whether what a series said of them is kept.
    #[must_use]
    pub fn frozen(&self, key: &SeriesKey) -> Option<(&BTreeSet<i64>, bool)> {
        self.frozen.get(&key.kpi).map(|days| (days, covers(key)))
    }

    /// Every series that is kept.
    pub fn kept(&self) -> impl Iterator<Item = (&SeriesKey, &Series)> {
        self.series.iter().map(|(key, kept)| (key, kept.series.as_ref()))
    }
}

/// When facts count that were asked for, by KPI.
type DirtyFacts = HashMap<(usize, FactCondition), BTreeSet<i64>>;

/// A cached series.
#[derive(Clone, Debug)]
struct CachedSeries {
    series: Arc<Series>,
    /// The position by which a row changed last, or went.
    changed: Position,
    /// When it was asked for last.
    asked: Arc<Mutex<Instant>>,
}

impl CachedSeries {
    fn new(position: Position) -> Self {
        Self { series: Arc::default(), changed: position, asked: Arc::new(Mutex::new(Instant::now())) }
    }

    fn ask(&self) {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// How long nobody has asked for it.
    fn idle(&self) -> Duration {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    /// Put newly computed rows in the place of those between two buckets. What is as it was keeps its position.
    fn replace(&mut self, from: i64, to: i64, rows: Vec<(RowKey, Map<String, Value>)>, position: Position) {
        let mut series = Series::clone(&self.series);
        let mut before = series.split_off(&RowKey::first_of(from));
        let after = before.split_off(&RowKey::first_of(to));
        for (key, values) in rows {
            let row = match before.remove(&key) {
                Some(row) if row.values == values => row,
                _ => {
                    self.changed = position;
                    Row { values, changed: position }
                }
            };
            series.insert(key, row);
        }
        if !before.is_empty() {
            self.changed = position;
        }
        series.extend(after);
        self.series = Arc::new(series);
    }
}

/// What changed, on its way to the board.
#[derive(Clone, Debug, Default)]
pub struct KpiCacheUpdate {
    pub dirty: DirtySet,
    /// The lake with it; `None` while the lake catches up with itself.
    pub view: Option<Arc<LakeView>>,
}

struct SeriesRequest {
    key: SeriesKey,
    reply: oneshot::Sender<Result<(), Arc<KpiError>>>,
}

/// A handle to the KPI cache.
#[derive(Clone)]
pub struct KpiService {
    pub definitions: Arc<Vec<KpiDefinition>>,
    pub cache: watch::Receiver<Option<Arc<KpiCache>>>,
    session: SqlSession,
    totals: Arc<Mutex<CachedTotals>>,
    wanted: mpsc::Sender<SeriesRequest>,
}

/// Totals, by what they are of, as of the position their series changed last.
type CachedTotals = HashMap<(SeriesKey, i64, i64), (Position, Arc<Totals>)>;

impl KpiService {
    /// The KPI of this name.
    #[must_use]
    pub fn definition(&self, name: &str) -> Option<&KpiDefinition> {
        self.definitions.iter().find(|kpi| kpi.name == name)
    }

    /// A board that has this series. Computed now if it is not kept yet, and kept from then on.
    ///
    /// # Errors
    /// When the KPI cannot be computed.
    pub fn cache_with<'a>(&'a self, key: &'a SeriesKey) -> BoxFuture<'a, Result<Arc<KpiCache>, Arc<KpiError>>> {
        async move {
            let mut cache = self.cache.clone();
            loop {
                if let Some(current) = cache.borrow_and_update().as_ref()
                    && let Some(kept) = current.series.get(key)
                {
                    kept.ask();
                    return Ok(Arc::clone(current));
                }
                let (reply, answer) = oneshot::channel();
                let closing = |_| Arc::new(KpiError::ShuttingDown);
                self.wanted.send(SeriesRequest { key: key.clone(), reply }).await.map_err(|_| closing(()))?;
                answer.await.map_err(|_| closing(()))??;
            }
        }
        .boxed()
    }

    /// The values of facts between two times, all buckets being one: by the dimensions and filters of `key`, as of a board
    /// that has the series `of`.
    ///
    /// # Errors
    /// When the KPI cannot be computed.
    pub fn totals<'a>(
        &'a self,
        board: &'a KpiCache,
        of: &'a SeriesKey,
        key: &'a SeriesKey,
        from: i64,
        to: i64,
    ) -> BoxFuture<'a, Result<Arc<Totals>, KpiError>> {
        async move {
            let Some(kpi) = self.definition(&key.kpi) else { return Ok(Arc::default()) };
            let (changed, from, to) = (board.changed(of), from.max(EARLIEST), to.min(LATEST));
            let wanted = (key.clone(), from, to);
            let known = self
                .kept_totals()
                .get(&wanted)
                .filter(|(as_of, _)| *as_of == changed)
                .map(|(_, known)| Arc::clone(known));
            if let Some(known) = known {
                return Ok(known);
            }
            let sql = kpi.query(&key.by, &key.filters, BucketBy::Nothing);
            let day = SeriesKey { calendar: DAYS, ..key.clone() };
            let has_lost = |days: &BTreeSet<i64>| days.range(from..to).next().is_some();
            let is_days = [from, to].iter().all(|time| DAYS.start(*time) == Some(*time));
            let totals: Totals = if is_days && covers(&day) && board.frozen.get(&kpi.name).is_some_and(has_lost) {
                let days = compute(&self.session, &board.view, kpi, &day, from, to).await?;
                history::summed(kpi, from, days).into_iter().map(|(row, values)| (row.dimensions, values)).collect()
            } else {
                let rows = rows_of(&self.session, &board.view, kpi, key, &sql, from, to).await?;
                rows.into_iter().map(|(_, dimensions, values)| (dimensions, values)).collect()
            };
            let totals = Arc::new(totals);
            let mut kept = self.kept_totals();
            if kept.len() >= MAX_TOTALS {
                kept.clear();
            }
            kept.insert(wanted, (changed, Arc::clone(&totals)));
            Ok(totals)
        }
        .boxed()
    }

    fn kept_totals(&self) -> std::sync::MutexGuard<'_, CachedTotals> {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The sink itself; one task owns it.
pub struct Kpis {
    session: SqlSession,
    definitions: Arc<Vec<KpiDefinition>>,
    kept: HashMap<SeriesKey, CachedSeries>,
    /// Since the last computation.
    dirty: DirtySet,
    view: Option<Arc<LakeView>>,
    /// The days that have lost events, and of how many frozen values that was read.
    frozen: (u64, Arc<FrozenDays>),
    /// Whether something came since the last computation.
    stale: bool,
    publish: watch::Sender<Option<Arc<KpiCache>>>,
}

impl Kpis {
    /// The sink, and the handle to it.
    #[must_use]
    pub fn new(session: SqlSession, definitions: Vec<KpiDefinition>) -> (Self, KpiService, KpiRequests) {
        let definitions = Arc::new(definitions);
        let (publish, cache) = watch::channel(None);
        let (wanted, requests) = mpsc::channel(MAX_WAITING_REQUESTS);
        let (session_of_service, totals) = (session.clone(), Arc::default());
        let service =
            KpiService { definitions: Arc::clone(&definitions), cache, session: session_of_service, totals, wanted };
        let sink = Self {
            session,
            definitions,
            kept: HashMap::new(),
            dirty: DirtySet::default(),
            view: None,
            frozen: Default::default(),
            stale: false,
            publish,
        };
        (sink, service, KpiRequests(requests))
    }

    /// Keep the board until `stop`.
    pub fn run(
        mut self,
        mut updates: mpsc::Receiver<KpiCacheUpdate>,
        KpiRequests(mut requests): KpiRequests,
        stop: CancellationToken,
    ) -> BoxFuture<'static, ()> {
        async move {
            let mut due = Instant::now();
            loop {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    update = updates.recv() => match update {
                        Some(update) => self.take(update),
                        None => return,
                    },
                    Some(wanted) = requests.recv(), if self.view.is_some() => {
                        let answer = self.keep(wanted.key).await.map_err(Arc::new);
                        // A caller who went away no longer wants the answer.
                        let _ = wanted.reply.send(answer);
                    }
                    () = tokio::time::sleep_until(due), if self.stale && self.view.is_some() => {
                        let started = Instant::now();
                        self.refresh().await;
                        due = Instant::now() + REFRESH_EVERY.max(started.elapsed() * REST_FACTOR);
                    }
                }
            }
        }
        .boxed()
    }

    fn take(&mut self, update: KpiCacheUpdate) {
        self.dirty.merge(update.dirty);
        if let Some(view) = update.view {
            self.view = Some(view);
        }
        self.stale = true;
    }

    /// Compute what was dirty, over the latest view, and publish the board.
    async fn refresh(&mut self) {
        let Some(view) = self.view.clone() else { return };
        let computed = self.read_frozen(&view).await + self.compute_touched(&view).await;
        metrics::counter!("kpi_computations_total").increment(computed);
        self.stale = false;
        self.publish_cache(&view);
    }

    /// When more values are frozen: which, and what is on the board anew with them.
    async fn read_frozen(&mut self, view: &Arc<LakeView>) -> u64 {
        if view.frozen == self.frozen.0 {
            return 0;
        }
        match frozen_days(&self.session, view).await {
            Ok(days) => self.frozen = (view.frozen, Arc::new(days)),
            Err(error) => {
                // With the next view.
                tracing::error!(error = &error as &dyn std::error::Error, "what KPIs said cannot be read");
                return 0;
            }
        }
        let (mut computed, kept) = (0, std::mem::take(&mut self.kept));
        for (key, mut series) in kept {
            let Some(kpi) = self.definitions.iter().find(|kpi| kpi.name == key.kpi) else { continue };
            match compute(&self.session, view, kpi, &key, EARLIEST, LATEST).await {
                Ok(rows) => {
                    series.replace(EARLIEST, LATEST, rows, view.position);
                    self.kept.insert(key, series);
                }
                Err(error) => log_failure(&error),
            }
            computed += 1;
        }
        computed
    }

    /// Bring every kept series to the view; how many computations it took. A KPI that cannot be computed is no longer
    /// kept, and the others go on: whoever asks for it next is told, or has it computed anew.
    async fn compute_touched(&mut self, view: &Arc<LakeView>) -> u64 {
        self.kept.retain(|_, kept| kept.idle() < IDLE_EVICTION_AFTER);
        let dirty = std::mem::take(&mut self.dirty);
        let mut facts = DirtyFacts::default();
        let mut computed = 0_u64;
        let mut kept = std::mem::take(&mut self.kept);
        let mut failed = Vec::new();
        for (key, series) in &mut kept {
            match self.refresh_series(key, series, view, &dirty, &mut facts).await {
                Ok(count) => computed += count,
                Err(error) => {
                    log_failure(&error);
                    failed.push(key.clone());
                }
            }
        }
        kept.retain(|key, _| !failed.contains(key));
        self.kept = kept;
        computed
    }

    /// Bring one series to the view.
    async fn refresh_series(
        &self,
        key: &SeriesKey,
        kept: &mut CachedSeries,
        view: &Arc<LakeView>,
        dirty: &DirtySet,
        facts: &mut DirtyFacts,
    ) -> Result<u64, KpiError> {
        let found = self.definitions.iter().enumerate().find(|(_, kpi)| kpi.name == key.kpi);
        let Some((index, kpi)) = found else { return Ok(0) };
        let mut all = dirty.times.get(&key.kpi).cloned().unwrap_or_default();
        for condition in dirty.facts(index, kpi, key.dimensions(), Precision::Rounded) {
            // Other series of the KPI ask for the same.
            let times = match facts.entry((index, condition)) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => {
                    let times = times_of_facts(&self.session, view, kpi, &new.key().1).await?;
                    new.insert(times)
                }
            };
            all.extend(times.iter().copied());
        }
        let ranges = dirty_ranges(key, all.iter());
        let count = ranges.len() as u64;
        for (from, to) in ranges {
            let rows = compute(&self.session, view, kpi, key, from, to).await?;
            kept.replace(from, to, rows, view.position);
        }
        Ok(count)
    }

    /// Begin to keep a series.
    async fn keep(&mut self, key: SeriesKey) -> Result<(), KpiError> {
        if self.stale {
            self.refresh().await;
        }
        let Some(view) = self.view.clone() else { return Ok(()) };
        if !self.kept.contains_key(&key)
            && let Some(kpi) = self.definitions.iter().find(|kpi| kpi.name == key.kpi)
        {
            // The board waits for it: it has its time.
            let rows = compute(&self.session, &view, kpi, &key, EARLIEST, LATEST);
            let rows = tokio::time::timeout(SERIES_TIMEOUT, rows).await;
            let rows = rows.map_err(|_| KpiError::TooSlow { kpi: kpi.name.clone() })??;
            if self.kept.len() >= MAX_SERIES
                && let Some(oldest) = self.kept.iter().max_by_key(|(_, kept)| kept.idle()).map(|(key, _)| key.clone())
            {
                self.kept.remove(&oldest);
            }
            let mut kept = CachedSeries::new(view.position);
            kept.replace(EARLIEST, LATEST, rows, view.position);
            self.kept.insert(key, kept);
        }
        self.publish_cache(&view);
        Ok(())
    }

    fn publish_cache(&self, view: &Arc<LakeView>) {
        let series = self.kept.iter().map(|(key, kept)| (key.clone(), kept.clone()));
        let cache = KpiCache {
            position: view.position,
            event_time: view.event_time,
            view: Arc::clone(view),
            frozen: Arc::clone(&self.frozen.1),
            series: series.collect(),
        };
        self.publish.send_replace(Some(Arc::new(cache)));
    }
}

/// Requests for new series, taken by [`Kpis::run`].
pub struct KpiRequests(mpsc::Receiver<SeriesRequest>);

/// The stretches of whole buckets that hold the dirty times: few, in order, half-open.
fn dirty_ranges<'a>(key: &SeriesKey, times: impl Iterator<Item = &'a i64>) -> Vec<(i64, i64)> {
    let calendar = key.calendar;
    let mut ranges: Vec<(i64, i64)> = Vec::new();
    for &time in times {
        // The step a time was rounded to may begin before the bucket: both ends of it are dirty.
        for instant in [time, time + TIME_STEP - 1] {
            let Some(start) = calendar.start(instant) else { continue };
            // Windows that end later have it too.
            let Some(end) = calendar.offset(start, i64::from(key.window)) else { continue };
            push_range(&mut ranges, start, end);
        }
    }
    coalesce_ranges(ranges)
}
