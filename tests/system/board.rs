//! What KPIs keep equals what a full computation gives: late events, retention, and files of one's own.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use chrono::Weekday;
use chrono_tz::Tz;
use datasets::Market;
use ingest::{RawMessage, SeenEvents};
use lake::{Lake, LakeConfig, LakeView, Rewritten, SqlSession};
use processors::{
    KpiDefinition,
    calendar::{Calendar, Grain},
    decode::decode,
    kpi_definition::Measures,
    kpis::{DAYS, DirtySet, KpiCache, KpiCacheUpdate, KpiSnapshotter, Kpis, RowKey, SeriesKey, check, recomputed},
};
use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use schemas::{Catalogue, Position, RetentionPolicy, field_type::parse_timestamp};
use serde_json::Value;
use tokio::{runtime::Handle, sync::mpsc};
use tokio_util::sync::CancellationToken;

use crate::support::{events_of, message};

const MICROS_2026: i64 = 1_767_225_600_000_000;

fn market(seed: u64) -> Vec<Value> {
    events_of(&Market::new(seed, MICROS_2026, 60, 25))
}

/// The series that are kept of a KPI: whole, by dimensions, of one value of one, and over windows.
fn keys(kpi: &KpiDefinition) -> Vec<SeriesKey> {
    let calendar = |grain, zone| Calendar { grain, zone, week_start: Weekday::Mon };
    let whole = |grain, zone| SeriesKey::whole(kpi.name.clone(), calendar(grain, zone));
    let mut keys = vec![whole(Grain::Day, Tz::UTC), whole(Grain::Hour, Tz::Asia__Kathmandu)];
    if kpi.measures == Measures::Flow {
        keys.push(SeriesKey { window: 7, ..whole(Grain::Day, Tz::America__Toronto) });
    }
    for dimension in kpi.dimensions.iter().map(|dimension| dimension.name.clone()) {
        keys.push(SeriesKey { by: vec![dimension], ..whole(Grain::Month, Tz::America__Toronto) });
    }
    if kpi.dimension("make").is_some() {
        let filters = vec![("make".to_owned(), vec!["Ford".to_owned(), "Honda".to_owned()])];
        keys.push(SeriesKey { filters, ..whole(Grain::Week, Tz::UTC) });
    }
    keys
}

/// Events come in batches and in no order of time: each is late for some bucket, and what they are joined with comes before
/// or after them. After every batch, what is kept equals what a full computation over the same cut gives.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_event_corrects_its_bucket_and_the_board_equals_a_full_computation() {
    let folder = tempfile::tempdir().unwrap();
    let catalogue = Catalogue::embedded().unwrap();
    let root = url::Url::from_directory_path(folder.path()).unwrap();
    let mut lake = Lake::open(&root, Arc::clone(&catalogue), LakeConfig::default()).await.unwrap();
    let sql = SqlSession::new(Handle::current(), Vec::new()).unwrap();
    let definitions = KpiDefinition::embedded().unwrap();
    let (sink, service, requests) = Kpis::new(sql.clone(), definitions.clone());
    let (updates, received) = mpsc::channel(2);
    let stop = CancellationToken::new();
    let running = tokio::spawn(sink.run(received, requests, stop.clone()));
    updates.send(KpiCacheUpdate { view: Some(Arc::new(lake.view())), ..KpiCacheUpdate::default() }).await.unwrap();

    let mut rng = ChaCha8Rng::seed_from_u64(17);
    let mut events = market(5);
    events.shuffle(&mut rng);
    let seen_folder = tempfile::tempdir().unwrap();
    let seen = SeenEvents::open(seen_folder.path(), "log", Position::new(u64::MAX)).unwrap();
    let (mut end, mut found) = (0, BTreeMap::<&str, usize>::new());
    for batch in events.chunks(events.len().div_ceil(4)) {
        let before = Position::new(end);
        let messages = batch.iter().map(|event| {
            end += 1;
            message(&catalogue, end, event)
        });
        let decoded = decode(&catalogue, &seen, before, &messages.collect::<Vec<_>>()).unwrap();
        assert!(decoded.dead_letters.is_empty());
        lake.append(decoded.tables.iter().cloned(), decoded.to, decoded.event_time).unwrap();
        let view = Arc::new(lake.view());
        let mut dirty = DirtySet::default();
        dirty.mark(&definitions, &catalogue, &decoded.tables);
        updates.send(KpiCacheUpdate { dirty, view: Some(Arc::clone(&view)) }).await.unwrap();
        let reached = |board: &Option<Arc<KpiCache>>| board.as_ref().is_some_and(|board| board.position.get() == end);
        let mut board = service.cache.clone();
        tokio::time::timeout(Duration::from_secs(300), board.wait_for(reached)).await.unwrap().unwrap();
        for kpi in &definitions {
            for key in keys(kpi) {
                let kept = service.cache_with(&key).await.unwrap();
                let whole = recomputed(&sql, &view, kpi, &key).await.unwrap();
                *found.entry(&kpi.name).or_default() += whole.len();
                let kept: BTreeMap<RowKey, _> =
                    kept.series(&key).unwrap().iter().map(|(key, row)| (key.clone(), row.values.clone())).collect();
                assert_eq!(kept, whole, "{key:?} at {end}");
            }
        }
    }
    for kpi in &definitions {
        assert!(found.get(kpi.name.as_str()) > Some(&10), "{} has {:?}", kpi.name, found.get(kpi.name.as_str()));
    }
    stop.cancel();
    running.await.unwrap();
}

/// Retention takes events of some classes, the oldest first: what KPIs said of them stays as it was, also where what they are
/// joined with stays, or goes later.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_said_of_events_that_go_one_after_the_other_stays() {
    let folder = tempfile::tempdir().unwrap();
    let catalogue = Catalogue::embedded().unwrap();
    let root = url::Url::from_directory_path(folder.path()).unwrap();
    let mut lake = Lake::open(&root, Arc::clone(&catalogue), LakeConfig::default()).await.unwrap();
    let definitions = Arc::new(KpiDefinition::embedded().unwrap());
    let session = SqlSession::new(Handle::current(), Vec::new()).unwrap();
    let seen_folder = tempfile::tempdir().unwrap();
    let seen = SeenEvents::open(seen_folder.path(), "log", Position::new(u64::MAX)).unwrap();
    let events = market(6);
    // They came when they happened: what is past its time is told by that too.
    let messages = (1..).zip(&events).map(|(position, event)| {
        let ingested_at = parse_timestamp(event["timestamp"].as_str().unwrap()).unwrap();
        RawMessage { ingested_at, ..message(&catalogue, position, event) }
    });
    let decoded = decode(&catalogue, &seen, Position::START, &messages.collect::<Vec<_>>()).unwrap();
    lake.append(decoded.tables.iter().cloned(), decoded.to, decoded.event_time).unwrap();
    let flush = lake.begin_flush().unwrap();
    lake.finish_flush(flush.run().await.unwrap());

    let said = async |view: &Arc<LakeView>| {
        let mut said = BTreeMap::new();
        for kpi in definitions.iter() {
            let by = kpi.dimensions.iter().map(|dimension| (Grain::Day, vec![dimension.name.clone()]));
            let grains = [Grain::Hour, Grain::Day, Grain::Week, Grain::Month].map(|grain| (grain, Vec::new()));
            for (grain, by) in grains.into_iter().chain(by) {
                let key = SeriesKey { by, ..SeriesKey::whole(kpi.name.clone(), Calendar { grain, ..DAYS }) };
                let rows = recomputed(&session, view, kpi, &key).await.unwrap();
                said.insert(format!("{key:?}"), rows);
            }
        }
        said
    };
    let before = said(&Arc::new(lake.view())).await;
    let snapshotter = KpiSnapshotter { session: session.clone(), definitions: Arc::clone(&definitions) };
    let mut gone = 0;
    for policy in ["short=30d,medium=35d", "short=1d,medium=2d"] {
        let policy: RetentionPolicy = policy.parse().unwrap();
        for (index, _) in catalogue.indexed() {
            while let Some(retirement) = lake.retirement(index, &policy) {
                let now = retirement.now();
                let Some(retired) = retirement.run().await.unwrap() else { break };
                gone += retired.rows.num_rows();
                let view = Arc::new(lake.view());
                if let Some(rows) = snapshotter.snapshot(&view, index.get(), &retired.rows, now).await.unwrap() {
                    let freeze = lake.begin_freeze(rows).unwrap();
                    lake.finish_freeze(freeze.run().await.unwrap());
                }
                let Ok(apply) = lake.begin_apply(Rewritten::Retired(retired)) else { panic!("no table is away") };
                lake.finish_apply(apply.run().await.unwrap());
            }
        }
        let view = Arc::new(lake.view());
        assert!(gone > 500 && view.frozen > 0, "{gone} {}", view.frozen);
        for (key, rows) in said(&view).await {
            assert_eq!(rows, before[&key], "{key} with {policy:?}");
        }
    }
}

/// A file of one's own is told what is wrong in it by its line, before anything is computed.
#[tokio::test(flavor = "multi_thread")]
async fn a_kpi_that_cannot_be_computed_is_told_by_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let root = url::Url::from_directory_path(folder.path()).unwrap();
    let lake = Lake::open(&root, Catalogue::embedded().unwrap(), LakeConfig::default()).await.unwrap();
    let view = Arc::new(lake.view());
    let sql = SqlSession::new(Handle::current(), Vec::new()).unwrap();
    check(&sql, &view, &KpiDefinition::embedded().unwrap()).await.unwrap();
    let head = "-- title: T\n-- definition: D\n-- input: inventory.vehicle_sold\n";
    let query = "SELECT sold_at AS at, final_price FROM inventory.vehicle_sold";
    for (text, message) in [
        (format!("{head}-- value: a CAD = sum(price); A\n{query}"), "k.sql, line 4: "),
        (
            format!(
                "{head}-- value: a CAD = sum(final_price); A\nSELECT sold_at AS at,\n  nothing\nFROM inventory.vehicle_sold"
            ),
            "k.sql, line 6: ",
        ),
        (
            format!(
                "-- title: T\n-- definition: D\n-- input: inventory.sold\n-- value: a CAD = sum(final_price); A\n{query}"
            ),
            "k.sql, line 1: there is no event view inventory.sold",
        ),
        (
            format!("{head}-- value: a CAD = sum(final_price); A\n-- value: b CAD = sum(other); B\n{query}"),
            "k.sql, line 5: ",
        ),
        (
            format!(
                "{head}-- value: a CAD = sum(final_price); A\n-- value: b CAD = max(final_price); B\nSELECT sold_at AS at, final_price\nFORM inventory.vehicle_sold"
            ),
            "k.sql, line 7: ",
        ),
    ] {
        let kpi = KpiDefinition::parse("k", &text).unwrap();
        let error = check(&sql, &view, &[kpi]).await.unwrap_err().to_string();
        assert!(error.starts_with(message), "{error}");
    }
}
