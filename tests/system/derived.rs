//! What a history comes to does not depend on its order, and `verify` finds what is not what the log says.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use chrono_tz::Tz;
use datasets::Market;
use ingest::SeenEvents;
use lake::{Lake, LakeConfig, LakeView, ParamValues, SqlSession, result_json};
use processors::{
    KpiDefinition,
    calendar::{Calendar, Grain},
    decode::decode,
    kpis::{DAYS, DirtySet, KpiCache, KpiCacheUpdate, Kpis, Series, SeriesKey},
    listings::Listings,
    verify::Subject,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use schemas::{Catalogue, Position};
use search_index::{Listing, ListingSnapshot};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{runtime::Handle, sync::mpsc};
use tokio_util::sync::CancellationToken;

use crate::support::{events_of, message};

const MICROS_2026: i64 = 1_767_225_600_000_000;

/// Everything that a history comes to, kept up batch by batch as the pipeline does.
struct Derived {
    catalogue: Arc<Catalogue>,
    sql: SqlSession,
    definitions: Vec<KpiDefinition>,
    view: Arc<LakeView>,
    listings: Arc<ListingSnapshot>,
    board: Arc<KpiCache>,
    seen: SeenEvents,
    _folder: TempDir,
}

impl Derived {
    async fn from(history: &[Value], rng: &mut ChaCha8Rng) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let catalogue = Catalogue::embedded().unwrap();
        std::fs::create_dir(at("lake")).unwrap();
        let root = url::Url::from_directory_path(at("lake")).unwrap();
        let mut lake = Lake::open(&root, Arc::clone(&catalogue), LakeConfig::default()).await.unwrap();
        let mut listings = Listings::open(&at("index"), Arc::clone(&catalogue)).unwrap();
        let seen = SeenEvents::open(&at("seen"), "log", Position::new(u64::MAX)).unwrap();
        let sql = SqlSession::new(Handle::current(), Vec::new()).unwrap();
        let definitions = KpiDefinition::embedded().unwrap();
        let (sink, service, requests) = Kpis::new(sql.clone(), definitions.clone());
        let (updates, received) = mpsc::channel(2);
        let stop = CancellationToken::new();
        let running = tokio::spawn(sink.run(received, requests, stop.clone()));
        updates.send(KpiCacheUpdate { view: Some(Arc::new(lake.view())), ..KpiCacheUpdate::default() }).await.unwrap();
        let hours = Calendar { grain: Grain::Hour, zone: Tz::Australia__Lord_Howe, week_start: chrono::Weekday::Mon };
        for kpi in &definitions {
            for calendar in [DAYS, hours] {
                service.cache_with(&SeriesKey::whole(kpi.name.clone(), calendar)).await.unwrap();
            }
        }

        let (mut end, mut rest) = (0, history);
        while !rest.is_empty() {
            let (batch, later) = rest.split_at(rng.random_range(1..=rest.len().min(400)));
            rest = later;
            let before = Position::new(end);
            let messages = batch.iter().map(|event| {
                end += 1;
                message(&catalogue, end, event)
            });
            let decoded = decode(&catalogue, &seen, before, &messages.collect::<Vec<_>>()).unwrap();
            assert!(decoded.dead_letters.is_empty(), "{:?}", decoded.dead_letters);
            let mut dirty = DirtySet::default();
            dirty.mark(&definitions, &catalogue, &decoded.tables);
            listings.fold_tables(&decoded.tables).unwrap();
            lake.append(decoded.tables, decoded.to, decoded.event_time).unwrap();
            updates.send(KpiCacheUpdate { dirty, view: Some(Arc::new(lake.view())) }).await.unwrap();
            match rng.random_range(0..10) {
                0..3 => drop(listings.refresh(lake.position(), None).unwrap()),
                3 => drop(listings.commit(lake.position(), None).unwrap()),
                4..7 => _ = listings.keep().unwrap(),
                _ => {}
            }
            if rng.random_bool(0.1) {
                let flushed = lake.begin_flush().unwrap().run().await.unwrap();
                lake.finish_flush(flushed);
            }
        }
        let listings = listings.commit(lake.position(), None).unwrap();
        let mut board = service.cache.clone();
        let reached = |board: &Option<Arc<KpiCache>>| board.as_ref().is_some_and(|board| board.position.get() == end);
        let board = tokio::time::timeout(Duration::from_secs(120), board.wait_for(reached)).await.unwrap();
        let board = Arc::clone(board.unwrap().as_ref().unwrap());
        stop.cancel();
        running.await.unwrap();
        let view = Arc::new(lake.view());
        Self { catalogue, sql, definitions, view, listings, board, seen, _folder: folder }
    }

    /// Every row but where and when the log took it.
    async fn rows(&self) -> Vec<Value> {
        let columns = "event_id, context, event_type, event_version, event_time, tenant_id, aggregate_type, \
                       aggregate_id, correlation_id, causation_id, source, data";
        let context = self.sql.context(&self.view, Vec::new());
        let sql = format!("SELECT {columns} FROM lake.events ORDER BY event_id");
        let rows = self.sql.collect(context, &sql, ParamValues::List(Vec::new())).await.unwrap();
        result_json::rows(&rows).collect()
    }

    fn listings(&self) -> BTreeMap<String, Value> {
        let keys = self.listings.keys().unwrap();
        let ids = keys.iter().filter_map(|key| key.strip_prefix("listing/"));
        ids.map(|id| (id.to_owned(), json!(self.listings.listing(id).unwrap().map(anywhere)))).collect()
    }

    fn kpis(&self) -> BTreeMap<String, Value> {
        let kept = self.board.kept();
        let rows = |series: &Series| -> Vec<Value> {
            series.iter().map(|(key, row)| json!([key.bucket, key.dimensions, row.values])).collect()
        };
        let named = kept.map(|(key, series)| (format!("{} {:?}", key.kpi, key.calendar), json!(rows(series))));
        named.collect()
    }

    /// What a check finds.
    async fn differences(&self, name: &str) -> Vec<String> {
        let subject = Subject {
            catalogue: &self.catalogue,
            sql: &self.sql,
            view: &self.view,
            listings: Some(&self.listings),
            seen: Some(&self.seen),
            log: None,
            board: Some(&self.board),
            definitions: &self.definitions,
        };
        let checks = subject.verify().await.unwrap();
        let check = checks.into_iter().find(|check| check.name == name).unwrap();
        assert!(check.checked > 0, "{name}");
        check.differences
    }
}

fn market(seed: u64) -> Vec<Value> {
    events_of(&Market::new(seed, MICROS_2026, 30, 10))
}

/// Without where in the log it became what it is, which another order changes.
fn anywhere(mut listing: Listing) -> Listing {
    listing.listed_position = None;
    listing.prices.iter_mut().for_each(|price| price.position = Position::START);
    listing
}

/// The same events: some again, each delayed by nothing, a little, or the whole history.
fn disordered(history: &[Value], rng: &mut ChaCha8Rng) -> Vec<Value> {
    let again: Vec<&Value> = history.iter().filter(|_| rng.random_bool(0.2)).collect();
    let mut delayed: Vec<(usize, &Value)> = Vec::new();
    for (at, event) in history.iter().chain(again).enumerate() {
        let most = [0, 50, history.len()][rng.random_range(0..3)];
        delayed.push((at % history.len() + rng.random_range(0..=most), event));
    }
    delayed.sort_by_key(|(at, _)| *at);
    delayed.into_iter().map(|(_, event)| event.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn any_order_repetition_and_delay_of_a_history_gives_the_same_rows_listings_and_kpis() {
    for seed in 1..=2 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let history = market(seed);
        let straight = Derived::from(&history, &mut rng).await;
        let (rows, listings, kpis) = (straight.rows().await, straight.listings(), straight.kpis());
        assert_eq!(rows.len(), history.len());
        assert!(listings.len() >= 8 && kpis.len() >= 8, "{} listings, {} series", listings.len(), kpis.len());
        for _ in 0..2 {
            let crooked = Derived::from(&disordered(&history, &mut rng), &mut rng).await;
            let found = crooked.rows().await;
            assert_eq!(found.len(), rows.len(), "seed {seed}");
            for (found, expected) in found.iter().zip(&rows) {
                assert_eq!(found, expected, "seed {seed}");
            }
            assert_eq!(crooked.listings(), listings, "seed {seed}");
            assert_eq!(crooked.kpis(), kpis, "seed {seed}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_board_and_a_store_that_forgot_an_id_are_found() {
    let mut derived = Derived::from(&market(3), &mut ChaCha8Rng::seed_from_u64(3)).await;
    assert_eq!(derived.differences("kpis").await, Vec::<String>::new());
    assert_eq!(derived.differences("seen events").await, Vec::<String>::new());

    let key = SeriesKey::whole("sales_volume".to_owned(), DAYS);
    let mut board = KpiCache::clone(&derived.board);
    let series = board.series_mut(&key).unwrap();
    series.first_entry().unwrap().get_mut().values.insert("units_sold".to_owned(), json!(999));
    series.pop_last();
    derived.board = Arc::new(board);
    let found = derived.differences("kpis").await;
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].contains("sales_volume") && found[0].contains("999"), "{found:?}");
    assert!(found[1].contains(" is null and computes to "), "{found:?}");

    let rows = derived.rows().await;
    let id = rows[0][0].as_str().unwrap();
    let key = schemas::EventKey::of(id);
    let position = derived.seen.positions(&[key]).unwrap()[0].unwrap();
    derived.seen.forget(&[(key, position)]).unwrap();
    let expected = format!("event {id} is at position {position} and known to be at nowhere");
    assert_eq!(derived.differences("seen events").await, [expected]);
}
