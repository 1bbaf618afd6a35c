//! The sink that keeps the board: every KPI's buckets, as of one position.
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

use chrono::Weekday;
use chrono_tz::Tz;
use futures::{FutureExt, future::BoxFuture};
use lake::{LakeView, SqlError, SqlSession};
use schemas::Position;
use serde_json::{Map, Value};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    calendar::{Calendar, Grain},
    kpi_definition::{BucketBy, KpiDefinition},
};

pub(crate) mod bucket_function;
mod check;
mod compute;
mod history;
mod touched;

pub use check::check;
pub(crate) use compute::all_time;
pub use compute::{ComputedRows, recomputed};
use compute::{compute, rows_of, times_of_facts};
pub use history::{FreezeError, Freezer};
use history::{covers, frozen_days};
pub use touched::Touched;
use touched::{Asked, Meant, TOUCH_STEP};

/// Between two computations of the board: people do not read faster.
const REFRESH_EVERY: Duration = Duration::from_millis(150);
/// The board rests at least this many times as long as computing it took, so that it leaves the machine to others.
const REST_FACTOR: u32 = 2;
/// Series kept up to date at once; the one that was not asked for longest makes room.
const MAX_SERIES: usize = 256;
/// A series that nobody asks for is kept so long.
const KEPT_FOR: Duration = Duration::from_secs(15 * 60);
/// How long a series that somebody asks for may take.
const COMPUTED_WITHIN: Duration = Duration::from_secs(20);
/// Totals kept at once; all go when there are more.
const MAX_TOTALS: usize = 512;
/// Requests for new series that may wait.
const QUEUE: usize = 64;
/// More touched stretches than this are computed as one.
const MAX_STRETCHES: usize = 8;

/// One KPI in one grain and time zone, by some dimensions, of some of its facts, over a window.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SeriesKey {
    pub kpi: String,
    pub calendar: Calendar,
    /// Dimensions, in the order they are asked for.
    pub by: Vec<String>,
    /// Values of dimensions, of which a fact has one each.
    pub filters: Vec<(String, Vec<String>)>,
    /// Buckets that a window is long, its own the last; 1 is a bucket by itself.
    pub window: u32,
}

impl SeriesKey {
    /// A whole KPI, bucket by bucket.
    #[must_use]
    pub const fn whole(kpi: String, calendar: Calendar) -> Self {
        Self { kpi, calendar, by: Vec::new(), filters: Vec::new(), window: 1 }
    }

    fn dimensions(&self) -> impl Iterator<Item = &String> {
        self.by.iter().chain(self.filters.iter().map(|(name, _)| name))
    }
}

/// Where a row of a series is: the start of its bucket (microseconds since 1970, UTC), and its dimensions' values.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowKey {
    pub bucket: i64,
    pub dimensions: Vec<Option<String>>,
}

impl RowKey {
    /// Before every row of this bucket.
    #[must_use]
    pub const fn first_of(bucket: i64) -> Self {
        Self { bucket, dimensions: Vec::new() }
    }
}

/// A row of a series.
#[derive(Clone, Debug)]
pub struct Row {
    pub values: Map<String, Value>,
    /// The position by which it became what it is.
    pub changed: Position,
}

/// A KPI's rows.
pub type Series = BTreeMap<RowKey, Row>;

/// By KPI, the days that have lost events.
type FrozenDays = BTreeMap<String, BTreeSet<i64>>;

/// The values of some facts, by their dimensions.
pub type Totals = BTreeMap<Vec<Option<String>>, Map<String, Value>>;

/// Every kept series, as of one position.
#[derive(Clone, Debug)]
pub struct Board {
    pub position: Position,
    /// The latest event time reflected, in microseconds since 1970, UTC.
    pub event_time: Option<i64>,
    /// The cut it was computed over.
    pub view: Arc<LakeView>,
    /// The days that have lost events.
    frozen: Arc<FrozenDays>,
    series: HashMap<SeriesKey, Kept>,
}

impl Board {
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
type TouchedFacts = HashMap<(usize, Meant), BTreeSet<i64>>;

/// A series that is kept.
#[derive(Clone, Debug)]
struct Kept {
    series: Arc<Series>,
    /// The position by which a row changed last, or went.
    changed: Position,
    /// When it was asked for last.
    asked: Arc<Mutex<Instant>>,
}

impl Kept {
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

/// A KPI that could not be computed.
#[derive(Debug, thiserror::Error)]
pub enum KpiError {
    #[error("KPI {kpi} cannot be computed")]
    Query {
        kpi: String,
        #[source]
        source: SqlError,
    },
    #[error("KPI {kpi} has no column `bucket` of times")]
    NoBucket { kpi: String },
    #[error("KPI {kpi} takes too long to compute this way; ask with fewer dimensions or a shorter window")]
    TooSlow { kpi: String },
    #[error("the board is shutting down")]
    ShuttingDown,
}

/// What changed, on its way to the board.
#[derive(Clone, Debug, Default)]
pub struct BoardUpdate {
    pub touched: Touched,
    /// The lake with it; `None` while the lake catches up with itself.
    pub view: Option<Arc<LakeView>>,
}

struct Wanted {
    key: SeriesKey,
    reply: oneshot::Sender<Result<(), Arc<KpiError>>>,
}

/// A handle to the board.
#[derive(Clone)]
pub struct KpiService {
    pub definitions: Arc<Vec<KpiDefinition>>,
    pub board: watch::Receiver<Option<Arc<Board>>>,
    session: SqlSession,
    totals: Arc<Mutex<KeptTotals>>,
    wanted: mpsc::Sender<Wanted>,
}

/// Totals, by what they are of, as of the position their series changed last.
type KeptTotals = HashMap<(SeriesKey, i64, i64), (Position, Arc<Totals>)>;

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
    pub fn board_with<'a>(&'a self, key: &'a SeriesKey) -> BoxFuture<'a, Result<Arc<Board>, Arc<KpiError>>> {
        async move {
            let mut board = self.board.clone();
            loop {
                if let Some(board) = board.borrow_and_update().as_ref()
                    && let Some(kept) = board.series.get(key)
                {
                    kept.ask();
                    return Ok(Arc::clone(board));
                }
                let (reply, answer) = oneshot::channel();
                let closing = |_| Arc::new(KpiError::ShuttingDown);
                self.wanted.send(Wanted { key: key.clone(), reply }).await.map_err(|_| closing(()))?;
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
        board: &'a Board,
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

    fn kept_totals(&self) -> std::sync::MutexGuard<'_, KeptTotals> {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The sink itself; one task owns it.
pub struct Kpis {
    session: SqlSession,
    definitions: Arc<Vec<KpiDefinition>>,
    kept: HashMap<SeriesKey, Kept>,
    /// Since the last computation.
    touched: Touched,
    view: Option<Arc<LakeView>>,
    /// The days that have lost events, and of how many frozen values that was read.
    frozen: (u64, Arc<FrozenDays>),
    /// Whether something came since the last computation.
    stale: bool,
    publish: watch::Sender<Option<Arc<Board>>>,
}

impl Kpis {
    /// The sink, and the handle to it.
    #[must_use]
    pub fn new(session: SqlSession, definitions: Vec<KpiDefinition>) -> (Self, KpiService, KpiRequests) {
        let definitions = Arc::new(definitions);
        let (publish, board) = watch::channel(None);
        let (wanted, requests) = mpsc::channel(QUEUE);
        let (session_of_service, totals) = (session.clone(), Arc::default());
        let service =
            KpiService { definitions: Arc::clone(&definitions), board, session: session_of_service, totals, wanted };
        let sink = Self {
            session,
            definitions,
            kept: HashMap::new(),
            touched: Touched::default(),
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
        mut updates: mpsc::Receiver<BoardUpdate>,
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

    fn take(&mut self, update: BoardUpdate) {
        self.touched.merge(update.touched);
        if let Some(view) = update.view {
            self.view = Some(view);
        }
        self.stale = true;
    }

    /// Compute what was touched, over the latest view, and publish the board.
    async fn refresh(&mut self) {
        let Some(view) = self.view.clone() else { return };
        let computed = self.read_frozen(&view).await + self.compute_touched(&view).await;
        metrics::counter!("kpi_computations_total").increment(computed);
        self.stale = false;
        self.publish_board(&view);
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
                Err(error) => not_computed(&error),
            }
            computed += 1;
        }
        computed
    }

    /// Bring every kept series to the view; how many computations it took. A KPI that cannot be computed is no longer
    /// kept, and the others go on: whoever asks for it next is told, or has it computed anew.
    async fn compute_touched(&mut self, view: &Arc<LakeView>) -> u64 {
        self.kept.retain(|_, kept| kept.idle() < KEPT_FOR);
        let touched = std::mem::take(&mut self.touched);
        let mut facts = TouchedFacts::default();
        let mut computed = 0_u64;
        let mut kept = std::mem::take(&mut self.kept);
        let mut failed = Vec::new();
        for (key, series) in &mut kept {
            match self.bring(key, series, view, &touched, &mut facts).await {
                Ok(count) => computed += count,
                Err(error) => {
                    not_computed(&error);
                    failed.push(key.clone());
                }
            }
        }
        kept.retain(|key, _| !failed.contains(key));
        self.kept = kept;
        computed
    }

    /// Bring one series to the view.
    async fn bring(
        &self,
        key: &SeriesKey,
        kept: &mut Kept,
        view: &Arc<LakeView>,
        touched: &Touched,
        facts: &mut TouchedFacts,
    ) -> Result<u64, KpiError> {
        let found = self.definitions.iter().enumerate().find(|(_, kpi)| kpi.name == key.kpi);
        let Some((index, kpi)) = found else { return Ok(0) };
        let mut all = touched.times.get(&key.kpi).cloned().unwrap_or_default();
        for meant in touched.facts(index, kpi, key.dimensions(), Asked::Roughly) {
            // Other series of the KPI ask for the same.
            let times = match facts.entry((index, meant)) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => {
                    let times = times_of_facts(&self.session, view, kpi, &new.key().1).await?;
                    new.insert(times)
                }
            };
            all.extend(times.iter().copied());
        }
        let stretches = stretches(key, all.iter());
        let count = stretches.len() as u64;
        for (from, to) in stretches {
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
            let rows = tokio::time::timeout(COMPUTED_WITHIN, rows).await;
            let rows = rows.map_err(|_| KpiError::TooSlow { kpi: kpi.name.clone() })??;
            if self.kept.len() >= MAX_SERIES
                && let Some(oldest) = self.kept.iter().max_by_key(|(_, kept)| kept.idle()).map(|(key, _)| key.clone())
            {
                self.kept.remove(&oldest);
            }
            let mut kept = Kept::new(view.position);
            kept.replace(EARLIEST, LATEST, rows, view.position);
            self.kept.insert(key, kept);
        }
        self.publish_board(&view);
        Ok(())
    }

    fn publish_board(&self, view: &Arc<LakeView>) {
        let series = self.kept.iter().map(|(key, kept)| (key.clone(), kept.clone()));
        let board = Board {
            position: view.position,
            event_time: view.event_time,
            view: Arc::clone(view),
            frozen: Arc::clone(&self.frozen.1),
            series: series.collect(),
        };
        self.publish.send_replace(Some(Arc::new(board)));
    }
}

fn not_computed(error: &KpiError) {
    tracing::error!(error = error as &dyn std::error::Error, "a KPI cannot be computed");
}

/// Requests for new series, taken by [`Kpis::run`].
pub struct KpiRequests(mpsc::Receiver<Wanted>);

/// The usual calendar.
pub const DAYS: Calendar = Calendar { grain: Grain::Day, zone: Tz::UTC, week_start: Weekday::Mon };
/// Event times lie between these: 1970-01-01 and 2200-01-01.
const EARLIEST: i64 = 0;
const LATEST: i64 = 7_258_118_400_000_000;

/// The stretches of whole buckets that hold the touched times: few, in order, half-open.
fn stretches<'a>(key: &SeriesKey, times: impl Iterator<Item = &'a i64>) -> Vec<(i64, i64)> {
    let calendar = key.calendar;
    let mut stretches: Vec<(i64, i64)> = Vec::new();
    for &time in times {
        // The step a time was rounded to may begin before the bucket: both ends of it are touched.
        for instant in [time, time + TOUCH_STEP - 1] {
            let Some(start) = calendar.start(instant) else { continue };
            // Windows that end later have it too.
            let Some(end) = calendar.offset(start, i64::from(key.window)) else { continue };
            merged(&mut stretches, start, end);
        }
    }
    few(stretches)
}

/// Add a stretch that begins no earlier than those before.
fn merged(stretches: &mut Vec<(i64, i64)>, start: i64, end: i64) {
    match stretches.last_mut() {
        Some((_, known)) if *known >= start => *known = end.max(*known),
        _ => stretches.push((start, end)),
    }
}

/// Many stretches as one.
fn few(stretches: Vec<(i64, i64)>) -> Vec<(i64, i64)> {
    match (stretches.first(), stretches.last()) {
        (Some(&(from, _)), Some(&(_, to))) if stretches.len() > MAX_STRETCHES => vec![(from, to)],
        _ => stretches,
    }
}
