//! The sink that keeps the board: every KPI's buckets, as of one position.
//!
//! A series is one KPI in one grain and time zone. Those in use are kept: new events mark the buckets they touch, and
//! only those are computed again, by the KPI's own SQL over one view of the lake. So a poll is a look-up, a late event
//! corrects the bucket it belongs to, and what is kept equals what a full computation would give.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::TimestampMicrosecondType,
};
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
    kpi_definition::{KpiDefinition, KpiInput, Touches},
};

pub(crate) mod bucket_function;

/// Between two computations of the board: people do not read faster.
const REFRESH_EVERY: Duration = Duration::from_millis(250);
/// The board rests at least this many times as long as computing it took, so that it leaves the machine to others.
const REST_FACTOR: u32 = 3;
/// The pause after a computation that failed.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// Series kept up to date at once, beside those by day in UTC; the one kept longest makes room.
const MAX_SERIES: usize = 64;
/// Requests for new series that may wait.
const QUEUE: usize = 64;
/// Touched times are remembered to this: every time zone's hours begin on one.
const TOUCH_STEP: i64 = 15 * 60 * 1_000_000;
/// More touched stretches than this are computed as one.
const MAX_STRETCHES: usize = 8;

/// One KPI in one grain and time zone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SeriesKey {
    pub kpi: String,
    pub calendar: Calendar,
}

/// A KPI's buckets, by start (microseconds since 1970, UTC).
pub type Series = BTreeMap<i64, Map<String, Value>>;

/// Every kept series, as of one position.
#[derive(Clone, Debug)]
pub struct Board {
    pub position: Position,
    /// The latest event time reflected, in microseconds since 1970, UTC.
    pub event_time: Option<i64>,
    /// The cut it was computed over.
    pub view: Arc<LakeView>,
    pub(crate) series: HashMap<SeriesKey, Arc<Series>>,
}

impl Board {
    #[must_use]
    pub fn series(&self, key: &SeriesKey) -> Option<&Arc<Series>> {
        self.series.get(key)
    }

    /// Every series that is kept.
    pub fn kept(&self) -> impl Iterator<Item = (&SeriesKey, &Series)> {
        self.series.iter().map(|(key, series)| (key, series.as_ref()))
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

/// Which buckets new events touch.
#[derive(Clone, Debug, Default)]
pub struct Touched {
    /// Times by KPI, to [`TOUCH_STEP`].
    times: HashMap<String, BTreeSet<i64>>,
    /// Join keys of events whose buckets other events decide, by KPI and input.
    joined: HashMap<(usize, usize), BTreeSet<String>>,
}

impl Touched {
    /// Add what these rows touch, by table, numbered as in [`LakeView::tables`].
    pub fn mark(&mut self, definitions: &[KpiDefinition], catalogue: &Catalogue, tables: &[(usize, RecordBatch)]) {
        for (kpi_index, kpi) in definitions.iter().enumerate() {
            for (input_index, input) in kpi.inputs.iter().enumerate() {
                let of_context = catalogue.context(&input.context).map(|(index, _)| index.get());
                let batch = tables.iter().find(|(table, _)| Some(*table) == of_context);
                let Some((_, batch)) = batch else { continue };
                match &input.touches {
                    Touches::TimeOf(column) => {
                        let times = self.times.entry(kpi.name.clone()).or_default();
                        each_row(catalogue, input, batch, |row| {
                            let named = column.as_ref().and_then(|name| time_at(batch, name, row));
                            if let Some(time) = named.or_else(|| time_at(batch, "event_time", row)) {
                                times.insert(time - time.rem_euclid(TOUCH_STEP));
                            }
                        });
                    }
                    Touches::EventsOf { key, .. } => {
                        let keys = self.joined.entry((kpi_index, input_index)).or_default();
                        let column = batch.column_by_name(key).and_then(|column| column.as_string_opt::<i32>());
                        each_row(catalogue, input, batch, |row| {
                            keys.extend(column.filter(|ids| ids.is_valid(row)).map(|ids| ids.value(row).to_owned()));
                        });
                    }
                }
            }
        }
    }

    fn merge(&mut self, other: Self) {
        for (kpi, times) in other.times {
            self.times.entry(kpi).or_default().extend(times);
        }
        for (input, keys) in other.joined {
            self.joined.entry(input).or_default().extend(keys);
        }
    }
}

struct Wanted {
    key: SeriesKey,
    reply: oneshot::Sender<Result<(), Arc<KpiError>>>,
}

/// A handle to the board.
#[derive(Clone, Debug)]
pub struct KpiService {
    pub definitions: Arc<Vec<KpiDefinition>>,
    pub board: watch::Receiver<Option<Arc<Board>>>,
    wanted: mpsc::Sender<Wanted>,
}

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
            if let Some(board) = board.borrow_and_update().as_ref().filter(|board| board.series.contains_key(key)) {
                return Ok(Arc::clone(board));
            }
            let (reply, answer) = oneshot::channel();
            let closing = |_| Arc::new(KpiError::ShuttingDown);
            self.wanted.send(Wanted { key: key.clone(), reply }).await.map_err(|_| closing(()))?;
            answer.await.map_err(|_| closing(()))??;
        }
    }
}

/// The sink itself; one task owns it.
pub struct Kpis {
    session: SqlSession,
    definitions: Arc<Vec<KpiDefinition>>,
    /// Kept series, and since when.
    kept: HashMap<SeriesKey, Kept>,
    /// Since the last computation.
    touched: Touched,
    /// Whether every bucket has to be computed.
    everything: bool,
    view: Option<Arc<LakeView>>,
    /// Whether something came since the last computation.
    stale: bool,
    publish: watch::Sender<Option<Arc<Board>>>,
}

struct Kept {
    series: Arc<Series>,
    since: Instant,
}

impl Kpis {
    /// The sink, and the handle to it.
    #[must_use]
    pub fn new(session: SqlSession, definitions: Vec<KpiDefinition>) -> (Self, KpiService, KpiRequests) {
        let definitions = Arc::new(definitions);
        let (publish, board) = watch::channel(None);
        let (wanted, requests) = mpsc::channel(QUEUE);
        let service = KpiService { definitions: Arc::clone(&definitions), board, wanted };
        let sink = Self {
            session,
            definitions,
            kept: HashMap::new(),
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
            if self.kept.is_empty() {
                for kpi in self.definitions.iter() {
                    let key = SeriesKey { kpi: kpi.name.clone(), calendar: DAYS };
                    self.kept.insert(key, Kept { series: Arc::default(), since: Instant::now() });
                }
                // Nothing is known of what the lake already holds.
                self.everything = true;
            }
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
        self.touch_joined(view).await?;
        let touched = std::mem::take(&mut self.touched.times);
        let everything = self.everything;
        let mut computed = 0_u64;
        for (key, kept) in &mut self.kept {
            let Some(kpi) = self.definitions.iter().find(|kpi| kpi.name == key.kpi) else { continue };
            let times = touched.get(&key.kpi).into_iter().flatten();
            let stretches = if everything { vec![(EARLIEST, LATEST)] } else { stretches(key.calendar, times) };
            if stretches.is_empty() {
                continue;
            }
            let mut series = Series::clone(&kept.series);
            for (from, to) in stretches {
                let rows = compute(&self.session, view, kpi, key.calendar, from, to).await?;
                series.retain(|start, _| *start < from || *start >= to);
                series.extend(rows);
                computed += 1;
            }
            kept.series = Arc::new(series);
        }
        Ok(computed)
    }

    /// Events whose buckets other events decide: find those events' times.
    async fn touch_joined(&mut self, view: &Arc<LakeView>) -> Result<(), KpiError> {
        let definitions = Arc::clone(&self.definitions);
        for ((kpi_index, input_index), keys) in std::mem::take(&mut self.touched.joined) {
            let kpi = &definitions[kpi_index];
            let Touches::EventsOf { context, view: other, key } = &kpi.inputs[input_index].touches else { continue };
            if keys.is_empty() {
                continue;
            }
            let listed = keys.iter().map(|id| format!("'{}'", id.replace('\'', "''"))).collect::<Vec<_>>().join(", ");
            let sql = format!("SELECT event_time FROM {context}.{other} WHERE {key} IN ({listed})");
            let session = self.session.context(view, Vec::new());
            let found = self.session.collect(session, &sql, ParamValues::List(Vec::new())).await;
            let found = found.map_err(|source| KpiError::Query { kpi: kpi.name.clone(), source })?;
            let times = self.touched.times.entry(kpi.name.clone()).or_default();
            for batch in &found {
                let column = batch.column(0).as_primitive::<TimestampMicrosecondType>();
                times.extend(column.iter().flatten().map(|time| time - time.rem_euclid(TOUCH_STEP)));
            }
        }
        Ok(())
    }

    /// Begin to keep a series.
    async fn keep(&mut self, key: SeriesKey) -> Result<(), KpiError> {
        if self.stale {
            self.refresh().await?;
        }
        let Some(view) = self.view.clone() else { return Ok(()) };
        if let Some(kept) = self.kept.get_mut(&key) {
            kept.since = Instant::now();
        } else if let Some(kpi) = self.definitions.iter().find(|kpi| kpi.name == key.kpi) {
            let rows = compute(&self.session, &view, kpi, key.calendar, EARLIEST, LATEST).await?;
            if self.kept.len() >= MAX_SERIES + self.definitions.len() {
                let evictable = self.kept.iter().filter(|(key, _)| key.calendar != DAYS);
                if let Some(oldest) = evictable.min_by_key(|(_, kept)| kept.since).map(|(key, _)| key.clone()) {
                    self.kept.remove(&oldest);
                }
            }
            self.kept.insert(key, Kept { series: Arc::new(rows), since: Instant::now() });
        }
        self.publish_board(&view);
        Ok(())
    }

    fn publish_board(&self, view: &Arc<LakeView>) {
        let series = self.kept.iter().map(|(key, kept)| (key.clone(), Arc::clone(&kept.series)));
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

/// The calendar that is always kept.
pub const DAYS: Calendar = Calendar { grain: Grain::Day, zone: Tz::UTC };
/// Event times lie between these: 1970-01-01 and 2200-01-01.
const EARLIEST: i64 = 0;
const LATEST: i64 = 7_258_118_400_000_000;

/// The stretches of whole buckets that hold the touched times: few, in order, half-open.
fn stretches<'a>(calendar: Calendar, times: impl Iterator<Item = &'a i64>) -> Vec<(i64, i64)> {
    let mut stretches: Vec<(i64, i64)> = Vec::new();
    for &time in times {
        // The step a time was rounded to may begin before the bucket: both ends of it are touched.
        for instant in [time, time + TOUCH_STEP - 1] {
            let Some(start) = calendar.start(instant) else { continue };
            let Some(end) = calendar.next(start) else { continue };
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

/// Every bucket of a KPI there is at this cut, computed at once.
///
/// # Errors
/// When the KPI cannot be computed.
pub async fn recomputed(
    session: &SqlSession,
    view: &Arc<LakeView>,
    kpi: &KpiDefinition,
    calendar: Calendar,
) -> Result<Series, KpiError> {
    compute(session, view, kpi, calendar, EARLIEST, LATEST).await
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

/// The buckets of `[from, to)`, whose ends are bucket ends.
async fn compute(
    session: &SqlSession,
    view: &Arc<LakeView>,
    kpi: &KpiDefinition,
    calendar: Calendar,
    from: i64,
    to: i64,
) -> Result<Series, KpiError> {
    let function = ScalarUDF::new_from_impl(bucket_function::Bucket::new(calendar));
    let context = session.context(view, vec![function]);
    let batches = session.collect(context, &kpi.sql, between(from, to)).await;
    let batches = batches.map_err(|source| KpiError::Query { kpi: kpi.name.clone(), source })?;
    let mut series = Series::new();
    for batch in &batches {
        let starts =
            batch.column_by_name("bucket").and_then(|starts| starts.as_primitive_opt::<TimestampMicrosecondType>());
        let starts = starts.ok_or_else(|| KpiError::NoBucket { kpi: kpi.name.clone() })?;
        for (row, start) in starts.iter().enumerate() {
            let value =
                |name: &str| batch.column_by_name(name).map_or(Value::Null, |column| result_json::cell(column, row));
            let values = kpi.values.iter().map(|declared| (declared.name.clone(), value(&declared.name)));
            if let Some(start) = start {
                series.insert(start, values.collect());
            }
        }
    }
    Ok(series)
}

/// Each row of the input's event type.
fn each_row(catalogue: &Catalogue, input: &KpiInput, batch: &RecordBatch, mut each: impl FnMut(usize)) {
    let context = catalogue.context(&input.context).map(|(_, context)| context);
    let event = context.and_then(|context| context.events.iter().find(|event| event.view == input.view));
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
