//! The marketplace's own measurements: when a day or month closes, what the KPIs say of it is published to the log; and
//! again, as its next revision, whenever late events change it.
//!
//! An event's id follows from its KPI, period and revision. So a restart publishes nothing twice; and nothing of what is
//! published here is an input of a KPI that is.

use std::{
    collections::{BTreeMap, HashMap},
    error::Error,
    fs, io,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use ingest::{Backoff, disk::write_private};
use lake::{
    LakeView, ParamValues,
    arrow::array::{Array, AsArray, RecordBatch},
};
use processors::{
    KpiDefinition, SeriesKey,
    calendar::{Calendar, Grain},
    kpi_definition::Measures,
    kpis::{DAYS, RowKey, recomputed},
};
use schemas::{
    Position,
    field_type::{format_timestamp, parse_timestamp},
    time::MICROS_PER_DAY,
};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::{AppState, alerts, consistency::Freshness};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// After a look at every period this many times as long as computing it passes before the next, unless a day ends.
const REST_FACTOR: u32 = 10;
/// Periods that are closed.
const GRAINS: [Grain; 2] = [Grain::Day, Grain::Month];
/// A period that ended longer ago is told as it was: its events begin to go.
const CORRECTED_FOR: i64 = 700 * MICROS_PER_DAY;
/// Events published at once.
const AT_ONCE: usize = 500;
/// Of the ids of measurements.
const MEASUREMENTS: Uuid = Uuid::from_u128(0x51a7_4f0e_9f53_4a71_8d5e_62c0_7b1b_0e4d);

/// What is told of a KPI.
struct Measurement {
    kpi: &'static str,
    /// The event that tells it.
    event: &'static str,
    /// The field of the time when it was computed.
    at: &'static str,
    /// Each field with the value it tells.
    fields: &'static [(&'static str, &'static str)],
}

const TOLD: [Measurement; 5] = [
    Measurement {
        kpi: "sales_volume",
        event: "SalesVolumeRecorded",
        at: "recordedAt",
        fields: &[("unitsSold", "units_sold"), ("revenue", "revenue")],
    },
    Measurement {
        kpi: "offer_volume",
        event: "OfferVolumeRecorded",
        at: "recordedAt",
        fields: &[("offersGenerated", "offers_generated"), ("offersAccepted", "offers_accepted")],
    },
    Measurement {
        kpi: "production_rate",
        event: "ProductionRateCalculated",
        at: "calculatedAt",
        fields: &[("vehiclesCompleted", "vehicles_completed"), ("averageTimePerVehicle", "average_hours_per_vehicle")],
    },
    Measurement {
        kpi: "customer_satisfaction",
        event: "CustomerSatisfactionScored",
        at: "scoredAt",
        fields: &[("nps", "nps"), ("csat", "csat"), ("reviewScore", "review_score")],
    },
    Measurement {
        kpi: "inventory",
        event: "InventoryCountUpdated",
        at: "timestamp",
        fields: &[("inventoryCount", "total"), ("availableCount", "available"), ("reservedCount", "reserved")],
    },
];

/// By event and period: the revision, and what it said.
type Published = HashMap<(&'static str, String), (i64, Value)>;
type Failure = Box<dyn Error + Send + Sync>;

/// Since when periods are closed: as somebody said, or else since the folder was used first. What was before that is
/// history, and is not told.
///
/// # Errors
/// When the folder cannot be used.
pub fn since(folder: &Path, said: Option<i64>, now: i64) -> io::Result<i64> {
    let file = folder.join("periods-since");
    let known = match fs::read_to_string(&file) {
        Ok(text) => parse_timestamp(text.trim()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let first = known.unwrap_or(now);
    if known.is_none() {
        write_private(&file, format_timestamp(now).as_bytes())?;
    }
    Ok(said.unwrap_or(first))
}

/// Close periods that begin at `since` or later, until everything stops. What fails is tried again.
pub async fn close(api: AppState, since: i64) {
    let stop = api.stop.clone();
    let mut closer =
        Closer { api, since, published: None, looked_at: Position::START, day: None, next: Instant::now() };
    let (mut backoff, mut pause, mut behind_since) = (Backoff::default(), EVERY, None::<Instant>);
    loop {
        let step = async {
            tokio::time::sleep(pause).await;
            closer.step().await
        };
        let done = tokio::select! {
            () = stop.cancelled() => return,
            done = step => done,
        };
        if let Err(error) = done {
            // What was told by now is in the lake, and what was not is looked at again.
            closer.published = None;
            closer.day = None;
            behind_since.get_or_insert_with(Instant::now);
            pause = EVERY.max(backoff.next_pause());
            tracing::warn!(error = error.as_ref() as &dyn Error, "closed periods were not told; trying again");
        } else {
            (backoff, pause, behind_since) = (Backoff::default(), EVERY, None);
        }
        let behind = behind_since.map_or(Duration::ZERO, |since| since.elapsed());
        metrics::gauge!("period_events_lag_seconds").set(behind.as_secs_f64());
    }
}

struct Closer {
    api: AppState,
    since: i64,
    /// None, before it is read from the lake.
    published: Option<Published>,
    /// The position by which every period was looked at last.
    looked_at: Position,
    /// The day on which that was; none, when it is to be looked at again.
    day: Option<i64>,
    /// When the next look on the same day may be.
    next: Instant,
}

impl Closer {
    async fn step(&mut self) -> Result<(), Failure> {
        if !crate::operations::knows_the_log(&self.api) {
            return Ok(());
        }
        let now = (self.api.now)();
        // Nothing has closed yet, most of the time.
        if DAYS.start(self.since).and_then(|start| DAYS.offset(start, 1)).is_none_or(|end| end > now) {
            return Ok(());
        }
        let Some(view) = self.api.pipeline.lake.borrow().clone() else { return Ok(()) };
        let day = DAYS.start(now);
        let rests = self.looked_at == view.position || Instant::now() < self.next;
        if rests && self.day == day {
            return Ok(());
        }
        if self.published.is_none() {
            self.published = Some(self.read().await?);
        }
        let started = Instant::now();
        let events = self.look(&view, now).await?;
        let took = started.elapsed();
        for some in events.chunks(AT_ONCE) {
            alerts::publish_events(&self.api.intake, some).await?;
        }
        (self.looked_at, self.day, self.next) = (view.position, day, Instant::now() + took * REST_FACTOR);
        Ok(())
    }

    /// What is to be told of every closed period. The board is not asked: it would keep up to date what nobody reads.
    async fn look(&mut self, view: &Arc<LakeView>, now: i64) -> Result<Vec<Value>, Failure> {
        let mut events = Vec::new();
        for grain in GRAINS {
            for measurement in &TOLD {
                let kpi = self.api.pipeline.kpis.definition(measurement.kpi).cloned();
                // One's own that counts what is told here would be told of itself without end.
                let is_fed = |kpi: &KpiDefinition| kpi.inputs.iter().any(|input| input.context == "analytics");
                let Some(kpi) = kpi.filter(|kpi| !is_fed(kpi)) else { continue };
                let calendar = Calendar { grain, ..DAYS };
                let key = SeriesKey::whole(kpi.name.clone(), calendar);
                let series = recomputed(&self.api.pipeline.sql, view, &kpi, &key).await?;
                self.tell(measurement, &kpi, calendar, &series, now, &mut events);
            }
        }
        Ok(events)
    }

    /// The events of closed periods that have not been told, or differently.
    fn tell(
        &mut self,
        &Measurement { event, at, fields, .. }: &Measurement,
        kpi: &KpiDefinition,
        calendar: Calendar,
        series: &BTreeMap<RowKey, Map<String, Value>>,
        now: i64,
        events: &mut Vec<Value>,
    ) {
        let mut start = calendar.start(self.since).filter(|start| *start >= self.since);
        start = start.or_else(|| calendar.offset(calendar.start(self.since)?, 1));
        let Some(published) = &mut self.published else { return };
        while let Some(begin) = start {
            let Some(end) = calendar.offset(begin, 1).filter(|end| *end <= now) else { break };
            let values = match kpi.measures {
                Measures::Flow => series.get(&RowKey::first_of(begin)).cloned(),
                Measures::Level => Some(level(series.range(..RowKey::first_of(end)).map(|(_, values)| values))),
            };
            let values = values.unwrap_or_default();
            let mut data = Map::new();
            for (field, value) in fields {
                let is_count = kpi.values.iter().any(|known| known.name == *value && known.is_zero_in_a_gap());
                match values.get(*value) {
                    Some(told) if !told.is_null() => drop(data.insert((*field).to_owned(), told.clone())),
                    // Nothing was counted: that is 0, and a mean of nothing is not told.
                    _ if is_count => drop(data.insert((*field).to_owned(), json!(0))),
                    _ => {}
                }
            }
            let period = name(calendar.grain, begin);
            let said = Value::Object(data.clone());
            let known = published.get(&(event, period.clone()));
            // What retention has taken since is no correction.
            let stays = known.is_some() && end < now - CORRECTED_FOR;
            if !stays && known.is_none_or(|(_, before)| !same(before, &said)) {
                let revision = known.map_or(1, |(revision, _)| revision + 1);
                data.insert("period".to_owned(), json!(period));
                data.insert("revision".to_owned(), json!(revision));
                // What is counted at the end of a period is as of then.
                let computed = if kpi.measures == Measures::Level { end } else { now };
                data.insert(at.to_owned(), json!(format_timestamp(computed)));
                let id = Uuid::new_v5(&MEASUREMENTS, format!("{event}\n{period}\n{revision}").as_bytes()).to_string();
                events.push(json!({
                    "eventId": id, "eventType": format!("analytics.{event}"), "eventVersion": "1.0",
                    "timestamp": format_timestamp(end), "aggregateType": "Metric", "aggregateId": period,
                    "source": "forecourt", "data": data,
                }));
                published.insert((event, period), (revision, said));
            }
            start = Some(end);
        }
    }

    /// What was told before.
    async fn read(&self) -> Result<Published, Failure> {
        let waited = Freshness::new(self.api.pipeline.log_end_at_start, None).wait(&self.api.pipeline.lake).await;
        let view = waited.map_err(|problem| problem.detail().to_owned())?;
        let sql = &self.api.pipeline.sql;
        let query = "SELECT event_type, data FROM lake.events WHERE context = 'analytics' AND source = 'forecourt' ORDER BY position";
        let rows = sql.collect(sql.context(&view, Vec::new()), query, ParamValues::List(Vec::new())).await?;
        let mut published = Published::new();
        for (event_type, data) in rows.iter().flat_map(texts) {
            let Some(Measurement { event, fields, .. }) = TOLD.iter().find(|told| told.event == event_type) else {
                continue;
            };
            let data: Value = serde_json::from_str(&data)?;
            let (Some(period), Some(revision)) = (data["period"].as_str(), data["revision"].as_i64()) else { continue };
            let said: Map<String, Value> = fields
                .iter()
                .filter(|(field, _)| !data[*field].is_null())
                .map(|(field, _)| ((*field).to_owned(), data[*field].clone()))
                .collect();
            let known = published.entry((*event, period.to_owned())).or_insert((0, Value::Null));
            if revision > known.0 {
                *known = (revision, Value::Object(said));
            }
        }
        Ok(published)
    }
}

fn texts(batch: &RecordBatch) -> Vec<(String, String)> {
    let column = |at: usize| batch.column(at).as_string_opt::<i32>();
    let (Some(types), Some(data)) = (column(0), column(1)) else { return Vec::new() };
    (0..batch.num_rows())
        .filter(|row| data.is_valid(*row))
        .map(|row| (types.value(row).to_owned(), data.value(row).to_owned()))
        .collect()
}

/// What there is after all that came and went.
fn level<'a>(changes: impl Iterator<Item = &'a Map<String, Value>>) -> Map<String, Value> {
    let mut level: Map<String, Value> = Map::new();
    for change in changes {
        for (name, value) in change {
            let before = level.get(name).and_then(Value::as_f64).unwrap_or_default();
            let sum = before + value.as_f64().unwrap_or_default();
            #[expect(clippy::cast_possible_truncation, reason = "counts are far below 2^53")]
            level.insert(name.clone(), if value.is_i64() { json!(sum as i64) } else { json!(sum) });
        }
    }
    level
}

/// Whether two accounts of a period are the same. What was written to the log may have been rounded there.
fn same(before: &Value, now: &Value) -> bool {
    let (Some(before), Some(now)) = (before.as_object(), now.as_object()) else { return false };
    let close = |a: &Value, b: &Value| match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => (a - b).abs() <= 1e-6 * a.abs().max(1.0),
        _ => a == b,
    };
    before.len() == now.len()
        && now.iter().all(|(name, value)| before.get(name).is_some_and(|before| close(before, value)))
}

/// `2026-11-22`, or `2026-11`.
fn name(grain: Grain, start: i64) -> String {
    let length = if grain == Grain::Month { 7 } else { 10 };
    format_timestamp(start).chars().take(length).collect()
}
