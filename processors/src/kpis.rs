//! The sink that keeps the board: every KPI's buckets, as of one position.
//!
//! A series is one KPI in one grain and time zone, by some dimensions, of some of its facts, over a window. Those in use are
//! kept: new events mark the buckets they touch, and only those are computed again, by the KPI's own SQL over one view of
//! the lake. So a poll is a look-up, a late event corrects the bucket it belongs to, and what is kept equals what a full
//! computation would give.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::TimestampMicrosecondType,
};
use chrono::Weekday;
use chrono_tz::Tz;
use datafusion::{
    common::{ParamValues, ScalarValue, metadata::ScalarAndMetadata},
    logical_expr::ScalarUDF,
};
use lake::{LakeView, SqlError, SqlSession, result_json};
use schemas::{Catalogue, Position, field_type::UTC};
use serde_json::{Map, Value};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    calendar::{Calendar, Grain},
    kpi_definition::{BucketBy, IDS, KpiDefinition, KpiFileError, LOOKUPS, Touches},
};

pub(crate) mod bucket_function;

/// Between two computations of the board: people do not read faster.
const REFRESH_EVERY: Duration = Duration::from_millis(250);
/// The board rests at least this many times as long as computing it took, so that it leaves the machine to others.
const REST_FACTOR: u32 = 3;
/// The pause after a computation that failed.
const RETRY_AFTER: Duration = Duration::from_secs(5);
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
/// Touched times are remembered to this: every time zone's hours begin on one.
const TOUCH_STEP: i64 = 15 * 60 * 1_000_000;
/// More touched stretches than this are computed as one.
const MAX_STRETCHES: usize = 8;
/// Facts of more keys than this are not looked for: all buckets are touched.
const MAX_KEYS: usize = 5_000;

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
    pub(crate) series: HashMap<SeriesKey, Kept>,
}

impl Board {
    #[must_use]
    pub fn series(&self, key: &SeriesKey) -> Option<&Arc<Series>> {
        self.series.get(key).map(|kept| &kept.series)
    }

    /// The position by which a series became what it is.
    #[must_use]
    pub fn changed(&self, key: &SeriesKey) -> Position {
        self.series.get(key).map_or(Position::START, |kept| kept.changed)
    }

    /// Every series that is kept.
    pub fn kept(&self) -> impl Iterator<Item = (&SeriesKey, &Series)> {
        self.series.iter().map(|(key, kept)| (key, kept.series.as_ref()))
    }
}

/// A series that is kept.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) series: Arc<Series>,
    /// The position by which a row changed last, or went.
    changed: Position,
    /// When it was asked for last, in milliseconds since the board began.
    asked: Arc<AtomicU64>,
    began: Instant,
}

impl Kept {
    fn new(series: Series, changed: Position, began: Instant) -> Self {
        let kept = Self { series: Arc::new(series), changed, asked: Arc::default(), began };
        kept.ask();
        kept
    }

    fn ask(&self) {
        let since = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.asked.store(since, Ordering::Relaxed);
    }

    /// How long nobody has asked for it.
    fn idle(&self) -> Duration {
        self.began.elapsed().saturating_sub(Duration::from_millis(self.asked.load(Ordering::Relaxed)))
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

impl KpiError {
    /// What is wrong with its query.
    fn reason(&self) -> String {
        match self {
            // The first line says it; what follows lists every name there is.
            Self::Query { source, .. } => source.to_string().lines().next().unwrap_or_default().to_owned(),
            other => other.to_string(),
        }
    }

    /// Where in its file: a query begins in the first line.
    fn line(&self) -> usize {
        match self {
            Self::Query { source: SqlError::Invalid { at: Some((line, _)), .. }, .. } => {
                usize::try_from(*line).unwrap_or(1)
            }
            _ => 1,
        }
    }
}

/// What changed, on its way to the board.
#[derive(Clone, Debug, Default)]
pub struct BoardUpdate {
    pub touched: Touched,
    /// The lake with it; `None` while the lake catches up with itself.
    pub view: Option<Arc<LakeView>>,
}

/// Which buckets new events touch.
#[derive(Clone, Debug, Default)]
pub struct Touched {
    /// Times by KPI, to [`TOUCH_STEP`].
    times: HashMap<String, BTreeSet<i64>>,
    /// Values of the column that facts share with an event, by KPI and input, and the earliest time they matter from.
    keys: HashMap<(usize, usize), (BTreeSet<String>, i64)>,
    /// Ids that a lookup's events are about, by lookup and input.
    looked_up: HashMap<(usize, usize), BTreeSet<String>>,
}

impl Touched {
    /// Add what these rows touch, by table, numbered as in [`LakeView::tables`].
    pub fn mark(&mut self, definitions: &[KpiDefinition], catalogue: &Catalogue, tables: &[(usize, RecordBatch)]) {
        let rows_of = |context: &str| {
            let (index, _) = catalogue.context(context)?;
            tables.iter().find(|(table, _)| *table == index.get()).map(|(_, batch)| batch)
        };
        for (kpi_index, kpi) in definitions.iter().enumerate() {
            for (input_index, input) in kpi.inputs.iter().enumerate() {
                let Some(batch) = rows_of(&input.context) else { continue };
                match &input.touches {
                    Touches::TimeOf(column) => {
                        let times = self.times.entry(kpi.name.clone()).or_default();
                        each_row(catalogue, &input.context, &input.view, batch, |row| {
                            let named = column.as_ref().and_then(|name| time_at(batch, name, row));
                            if let Some(time) = named.or_else(|| time_at(batch, "event_time", row)) {
                                times.insert(time - time.rem_euclid(TOUCH_STEP));
                            }
                        });
                    }
                    Touches::FactsBy { key, after } => {
                        let (keys, from) =
                            self.keys.entry((kpi_index, input_index)).or_insert((BTreeSet::new(), LATEST));
                        let column = batch.column_by_name(key).and_then(|column| column.as_string_opt::<i32>());
                        each_row(catalogue, &input.context, &input.view, batch, |row| {
                            keys.extend(column.filter(|ids| ids.is_valid(row)).map(|ids| ids.value(row).to_owned()));
                            let time = if *after { time_at(batch, "event_time", row) } else { None };
                            *from = (*from).min(time.unwrap_or(EARLIEST));
                        });
                    }
                }
            }
        }
        for (lookup_index, lookup) in LOOKUPS.iter().enumerate() {
            for (input_index, (context, view, column, _)) in lookup.inputs.iter().enumerate() {
                let Some(batch) = rows_of(context) else { continue };
                let column = batch.column_by_name(column).and_then(|column| column.as_string_opt::<i32>());
                let ids = self.looked_up.entry((lookup_index, input_index)).or_default();
                each_row(catalogue, context, view, batch, |row| {
                    ids.extend(column.filter(|ids| ids.is_valid(row)).map(|ids| ids.value(row).to_owned()));
                });
            }
        }
    }

    fn merge(&mut self, other: Self) {
        for (kpi, times) in other.times {
            self.times.entry(kpi).or_default().extend(times);
        }
        for (input, (keys, from)) in other.keys {
            let (known, earliest) = self.keys.entry(input).or_insert((BTreeSet::new(), LATEST));
            known.extend(keys);
            *earliest = from.min(*earliest);
        }
        for (input, ids) in other.looked_up {
            self.looked_up.entry(input).or_default().extend(ids);
        }
    }
}

/// Texts as a list of SQL.
fn listed(texts: &BTreeSet<String>) -> String {
    let quoted: Vec<String> = texts.iter().map(|text| format!("'{}'", text.replace('\'', "''"))).collect();
    quoted.join(", ")
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
    pub async fn board_with(&self, key: &SeriesKey) -> Result<Arc<Board>, Arc<KpiError>> {
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

    /// The values of facts between two times, all buckets being one: by the dimensions and filters of `key`, as of a board
    /// that has the series `of`.
    ///
    /// # Errors
    /// When the KPI cannot be computed.
    pub async fn totals(
        &self,
        board: &Board,
        of: &SeriesKey,
        key: &SeriesKey,
        from: i64,
        to: i64,
    ) -> Result<Arc<Totals>, KpiError> {
        let Some(kpi) = self.definition(&key.kpi) else { return Ok(Arc::default()) };
        let (changed, from, to) = (board.changed(of), from.max(EARLIEST), to.min(LATEST));
        let wanted = (key.clone(), from, to);
        let known =
            self.kept_totals().get(&wanted).filter(|(as_of, _)| *as_of == changed).map(|(_, known)| Arc::clone(known));
        if let Some(known) = known {
            return Ok(known);
        }
        let sql = kpi.query(&key.by, &key.filters, BucketBy::Nothing);
        let rows = rows_of(&self.session, &board.view, kpi, key, &sql, from, to).await?;
        let totals: Totals = rows.into_iter().map(|(_, dimensions, values)| (dimensions, values)).collect();
        let totals = Arc::new(totals);
        let mut kept = self.kept_totals();
        if kept.len() >= MAX_TOTALS {
            kept.clear();
        }
        kept.insert(wanted, (changed, Arc::clone(&totals)));
        Ok(totals)
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
    began: Instant,
    /// Since the last computation.
    touched: Touched,
    /// Whether every bucket has to be computed.
    everything: bool,
    view: Option<Arc<LakeView>>,
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
            began: Instant::now(),
            touched: Touched::default(),
            everything: false,
            view: None,
            stale: false,
            publish,
        };
        (sink, service, KpiRequests(requests))
    }

    /// Keep the board until `stop`. What cannot be computed is tried again.
    pub async fn run(
        mut self,
        mut updates: mpsc::Receiver<BoardUpdate>,
        KpiRequests(mut requests): KpiRequests,
        stop: CancellationToken,
    ) {
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
                    let refreshed = self.refresh().await;
                    let rest = REFRESH_EVERY.max(started.elapsed() * REST_FACTOR);
                    due = Instant::now() + if refreshed.is_ok() { rest } else { RETRY_AFTER };
                    if let Err(error) = refreshed {
                        tracing::error!(error = &error as &dyn std::error::Error, "the board cannot be computed; trying again");
                    }
                }
            }
        }
    }

    fn take(&mut self, update: BoardUpdate) {
        self.touched.merge(update.touched);
        if let Some(view) = update.view {
            self.view = Some(view);
        }
        self.stale = true;
    }

    /// Compute what was touched, over the latest view, and publish the board.
    async fn refresh(&mut self) -> Result<(), KpiError> {
        let Some(view) = self.view.clone() else { return Ok(()) };
        let computed = self.compute_touched(&view).await;
        // What was touched is forgotten by now: after a failure, everything is.
        self.everything = computed.is_err();
        metrics::counter!("kpi_computations_total").increment(computed?);
        self.stale = false;
        self.publish_board(&view);
        Ok(())
    }

    /// Bring every kept series to the view; how many computations it took.
    async fn compute_touched(&mut self, view: &Arc<LakeView>) -> Result<u64, KpiError> {
        self.kept.retain(|_, kept| kept.idle() < KEPT_FOR);
        let touched = std::mem::take(&mut self.touched);
        let mut times = touched.times;
        for ((kpi_index, input_index), (keys, from)) in touched.keys {
            let kpi = &self.definitions[kpi_index];
            let Touches::FactsBy { key, .. } = &kpi.inputs[input_index].touches else { continue };
            let is_kept = self.kept.keys().any(|kept| kept.kpi == kpi.name);
            if is_kept && !keys.is_empty() {
                let condition = (keys.len() <= MAX_KEYS).then(|| format!("{key} IN ({})", listed(&keys)));
                match times_of_facts(&self.session, view, kpi, condition.as_deref(), from).await {
                    Ok(found) => times.entry(kpi.name.clone()).or_default().extend(found),
                    Err(error) => {
                        tracing::error!(error = &error as &dyn std::error::Error, "a KPI cannot be computed");
                        self.kept.retain(|key, _| key.kpi != kpi.name);
                    }
                }
            }
        }
        let mut computed = 0_u64;
        let mut kept = std::mem::take(&mut self.kept);
        let mut failed = Vec::new();
        for (key, series) in &mut kept {
            match self.bring(key, series, view, &times, &touched.looked_up).await {
                Ok(count) => computed += count,
                // The others go on. This one is computed anew by whoever asks for it next.
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "a KPI cannot be computed");
                    failed.push(key.clone());
                }
            }
        }
        kept.retain(|key, _| !failed.contains(key));
        self.kept = kept;
        Ok(computed)
    }

    /// Bring one series to the view.
    async fn bring(
        &self,
        key: &SeriesKey,
        kept: &mut Kept,
        view: &Arc<LakeView>,
        times: &HashMap<String, BTreeSet<i64>>,
        looked_up: &HashMap<(usize, usize), BTreeSet<String>>,
    ) -> Result<u64, KpiError> {
        let Some(kpi) = self.definitions.iter().find(|kpi| kpi.name == key.kpi) else { return Ok(0) };
        let touched = times.get(&key.kpi);
        let mut attributes = BTreeSet::new();
        for (table, column) in kpi.lookups(key.dimensions()) {
            for ((lookup_index, input_index), ids) in looked_up {
                let lookup = &LOOKUPS[*lookup_index];
                if lookup.name != table || ids.is_empty() {
                    continue;
                }
                let (.., meant) = lookup.inputs[*input_index];
                let meant = meant.replace(IDS, &listed(ids));
                let condition = (ids.len() <= MAX_KEYS).then(|| format!("{column} IN ({meant})"));
                attributes.extend(times_of_facts(&self.session, view, kpi, condition.as_deref(), EARLIEST).await?);
            }
        }
        let all: BTreeSet<i64> = touched.into_iter().flatten().copied().chain(attributes).collect();
        let stretches = if self.everything { vec![(EARLIEST, LATEST)] } else { stretches(key, all.iter()) };
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
            self.refresh().await?;
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
            let mut kept = Kept::new(Series::new(), view.position, self.began);
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
            series: series.collect(),
        };
        self.publish.send_replace(Some(Arc::new(board)));
    }
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
            match stretches.last_mut() {
                Some((_, known)) if *known >= start => *known = end.max(*known),
                _ => stretches.push((start, end)),
            }
        }
    }
    if stretches.len() > MAX_STRETCHES
        && let (Some(&(from, _)), Some(&(_, to))) = (stretches.first(), stretches.last())
    {
        return vec![(from, to)];
    }
    stretches
}

/// Whether KPIs can be computed over a lake: their inputs are there, and their queries are right.
///
/// # Errors
/// The file, line and reason of the first that cannot.
pub async fn check(
    session: &SqlSession,
    view: &Arc<LakeView>,
    definitions: &[KpiDefinition],
) -> Result<(), KpiFileError> {
    for kpi in definitions {
        let file = kpi.file.clone().unwrap_or_else(|| format!("{}.sql", kpi.name));
        let failed = |line: usize, problem: String| KpiFileError { file: file.clone(), line, problem };
        for input in &kpi.inputs {
            let context = view.catalogue.context(&input.context).map(|(_, context)| context);
            if !context.is_some_and(|context| context.events.iter().any(|event| event.view == input.view)) {
                let problem = format!(
                    "there is no event view {}.{}; forecourt catalogue list shows all",
                    input.context, input.view
                );
                return Err(failed(1, problem));
            }
        }
        // By itself first: only so does the parser tell where it is wrong.
        if let Err(source) = session.parse(&kpi.sql) {
            let error = KpiError::Query { kpi: kpi.name.clone(), source };
            return Err(failed(error.line(), error.reason()));
        }
        let key = SeriesKey {
            by: kpi.dimensions.iter().map(|dimension| dimension.name.clone()).collect(),
            ..SeriesKey::whole(kpi.name.clone(), DAYS)
        };
        let nothing = |kpi: KpiDefinition| {
            let key = key.clone();
            async move {
                let sql = kpi.query(&key.by, &key.filters, BucketBy::Time);
                rows_of(session, view, &kpi, &key, &sql, EARLIEST, EARLIEST).await
            }
        };
        let Err(error) = nothing(kpi.clone()).await else { continue };
        let dimensions: Vec<&str> = key.by.iter().map(String::as_str).collect();
        if let Err(error) = rows_of(session, view, kpi, &key, &kpi.facts(&dimensions), EARLIEST, EARLIEST).await {
            return Err(failed(error.line(), error.reason()));
        }
        // A value at fault is told by its own line.
        for value in &kpi.values {
            let others: Vec<_> = kpi.values.iter().filter(|other| *other != value).cloned().collect();
            if others.is_empty() || nothing(KpiDefinition { values: others, ..kpi.clone() }).await.is_ok() {
                return Err(failed(value.line, error.reason()));
            }
        }
        return Err(failed(error.line(), error.reason()));
    }
    Ok(())
}

/// Every row of a series there is at this cut, computed at once.
///
/// # Errors
/// When the KPI cannot be computed.
pub async fn recomputed(
    session: &SqlSession,
    view: &Arc<LakeView>,
    kpi: &KpiDefinition,
    key: &SeriesKey,
) -> Result<BTreeMap<RowKey, Map<String, Value>>, KpiError> {
    Ok(compute(session, view, kpi, key, EARLIEST, LATEST).await?.into_iter().collect())
}

/// The parameters of a KPI's query for all of time.
pub(crate) fn all_time() -> ParamValues {
    between(EARLIEST, LATEST)
}

fn between(from: i64, to: i64) -> ParamValues {
    let time =
        |micros: i64| ScalarAndMetadata::new(ScalarValue::TimestampMicrosecond(Some(micros), Some(UTC.into())), None);
    ParamValues::Map(HashMap::from([("from".to_owned(), time(from)), ("to".to_owned(), time(to))]))
}

/// The rows of the buckets of `[from, to)`, whose ends are bucket ends.
async fn compute(
    session: &SqlSession,
    view: &Arc<LakeView>,
    kpi: &KpiDefinition,
    key: &SeriesKey,
    from: i64,
    to: i64,
) -> Result<Vec<(RowKey, Map<String, Value>)>, KpiError> {
    let bucket = if key.window > 1 { BucketBy::Rolling } else { BucketBy::Time };
    let sql = kpi.query(&key.by, &key.filters, bucket);
    // A window reaches back.
    let earliest = if from == EARLIEST { Some(from) } else { key.calendar.offset(from, 1 - i64::from(key.window)) };
    let rows = rows_of(session, view, kpi, key, &sql, earliest.unwrap_or(EARLIEST), to).await?;
    let keyed = rows.into_iter().filter_map(|(bucket, dimensions, values)| {
        let bucket = bucket.filter(|bucket| (from..to).contains(bucket))?;
        Some((RowKey { bucket, dimensions }, values))
    });
    Ok(keyed.collect())
}

type ComputedRow = (Option<i64>, Vec<Option<String>>, Map<String, Value>);

/// What a KPI's query answers for facts of `[from, to)`.
async fn rows_of(
    session: &SqlSession,
    view: &Arc<LakeView>,
    kpi: &KpiDefinition,
    key: &SeriesKey,
    sql: &str,
    from: i64,
    to: i64,
) -> Result<Vec<ComputedRow>, KpiError> {
    let bucket = ScalarUDF::new_from_impl(bucket_function::Bucket::new(key.calendar));
    let buckets = ScalarUDF::new_from_impl(bucket_function::Buckets::new(key.calendar, key.window));
    let context = session.context(view, vec![bucket, buckets]);
    let batches = session.collect(context, sql, between(from, to)).await;
    let batches = batches.map_err(|source| KpiError::Query { kpi: kpi.name.clone(), source })?;
    let mut rows = Vec::new();
    for batch in &batches {
        let starts = batch.column_by_name("bucket").map(|starts| {
            let starts = starts.as_primitive_opt::<TimestampMicrosecondType>();
            starts.ok_or_else(|| KpiError::NoBucket { kpi: kpi.name.clone() })
        });
        let starts = starts.transpose()?;
        for row in 0..batch.num_rows() {
            let cell =
                |name: &String| batch.column_by_name(name).map_or(Value::Null, |column| result_json::cell(column, row));
            let dimensions = key.by.iter().map(|name| cell(name).as_str().map(str::to_owned)).collect();
            let values = kpi.values.iter().map(|value| (value.name.clone(), cell(&value.name))).collect();
            let start = starts.and_then(|starts| starts.is_valid(row).then(|| starts.value(row)));
            rows.push((start, dimensions, values));
        }
    }
    Ok(rows)
}

/// When the facts count that meet a condition, or all, from a time on; to [`TOUCH_STEP`].
async fn times_of_facts(
    session: &SqlSession,
    view: &Arc<LakeView>,
    kpi: &KpiDefinition,
    condition: Option<&str>,
    from: i64,
) -> Result<Vec<i64>, KpiError> {
    let condition = condition.map_or_else(String::new, |condition| format!(" WHERE {condition}"));
    let sql = format!("SELECT DISTINCT at FROM ({}){condition}", kpi.facts(&[]));
    let found = session.collect(session.context(view, Vec::new()), &sql, between(from, LATEST)).await;
    let found = found.map_err(|source| KpiError::Query { kpi: kpi.name.clone(), source })?;
    let columns = found.iter().filter_map(|batch| batch.column(0).as_primitive_opt::<TimestampMicrosecondType>());
    Ok(columns.flat_map(|column| column.iter().flatten()).map(|time| time - time.rem_euclid(TOUCH_STEP)).collect())
}

/// Each row of an event type.
fn each_row(catalogue: &Catalogue, context: &str, view: &str, batch: &RecordBatch, mut each: impl FnMut(usize)) {
    let context = catalogue.context(context).map(|(_, context)| context);
    let event = context.and_then(|context| context.events.iter().find(|event| event.view == view));
    let types = batch.column_by_name("event_type").map(|types| types.as_string::<i32>());
    let (Some(event), Some(types)) = (event, types) else { return };
    for row in (0..batch.num_rows()).filter(|&row| types.value(row) == event.name) {
        each(row);
    }
}

fn time_at(batch: &RecordBatch, column: &str, row: usize) -> Option<i64> {
    let times = batch.column_by_name(column)?.as_primitive_opt::<TimestampMicrosecondType>()?;
    times.is_valid(row).then(|| times.value(row))
}

#[cfg(test)]
mod tests;
