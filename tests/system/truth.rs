//! A disorderly market against the ledger of the model that told it.

use std::collections::BTreeMap;

use datasets::{Disorder, Market, truth::Truth};
use serde_json::Value;

use crate::support::{Forecourt, Nats, counted, forecourt};

const MICROS_2026: i64 = 1_767_225_600_000_000;
const MICROS_PER_HOUR: f64 = 3_600_000_000.0;

#[tokio::test]
async fn a_disorderly_market_is_what_its_ledger_says() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("market.ndjson");
    let disorder = Disorder { duplicates: 0.05, late: 0.10, malformed: 0.02, shuffled: 0.25 };
    let market = Market { disorder, ..Market::new(23, MICROS_2026, 60, 60) };
    let truth = market.write(&mut std::fs::File::create(&file).unwrap()).unwrap();

    let nats = Nats::start().await;
    let server = Forecourt::start(&nats, &folder.path().join("data")).await;
    let output = forecourt(&["ingest", file.to_str().unwrap(), "--to", &server.url]);
    let table = String::from_utf8(output.stdout).unwrap();
    assert_eq!((counted(&table, "accepted"), counted(&table, "duplicates")), (truth.events, truth.duplicates));
    let mut malformed: BTreeMap<&str, u64> = BTreeMap::new();
    for line in &truth.malformed {
        *malformed.entry(line.code).or_default() += 1;
    }
    for (code, count) in malformed {
        assert_eq!(counted(&table, &format!("rejected: {code}")), count, "{table}");
    }

    let position = counted(&table, "position");
    events_agree(&server, &truth, position).await;
    listings_agree(&server, &truth, position).await;
    kpis_agree(&server, &truth, position).await;
}

async fn events_agree(server: &Forecourt, truth: &Truth, position: u64) {
    for (context, view, name) in [
        ("inventory", "price_set", "PriceSet"),
        ("dealers", "vehicle_sold", "VehicleSold"),
        ("shop", "order_placed", "OrderPlaced"),
    ] {
        let rows = server.sql(&format!("SELECT count(*) FROM {context}.{view}"), position).await;
        assert_eq!(rows[0][0].as_u64().unwrap(), truth.counts[&format!("{context}.{name}")], "{context}.{view}");
    }
    let rows = server.sql("SELECT event_type, count(*) FROM lake.events GROUP BY 1", position).await;
    let ours: BTreeMap<String, u64> =
        rows.iter().map(|row| (row[0].as_str().unwrap().to_owned(), row[1].as_u64().unwrap())).collect();
    // Contexts share names.
    let mut theirs = BTreeMap::new();
    for (name, count) in &truth.counts {
        *theirs.entry(name.split_once('.').unwrap().1.to_owned()).or_insert(0) += count;
    }
    assert_eq!(ours, theirs);
}

async fn listings_agree(server: &Forecourt, truth: &Truth, position: u64) {
    let fresh = format!("wait_ms=60000&min_position={position}");
    let public = truth.listings.values().filter(|listing| listing.status == "public").count();
    let page = server.get(&format!("/v1/search?page_size=1&{fresh}")).await;
    assert_eq!(page["total"].as_u64().unwrap(), public as u64);
    for (id, told) in &truth.listings {
        let listing = server.get(&format!("/v1/listings/{id}?{fresh}")).await;
        let text = |name: &str| listing[name].as_str().unwrap_or_default().to_owned();
        assert_eq!(listing["price"].as_f64(), told.price.map(|price| price as f64), "{id}");
        assert_eq!(
            (text("make"), text("model"), text("trim"), text("city")),
            (told.make.to_owned(), told.model.to_owned(), told.trim.to_owned(), told.city.to_owned()),
            "{id}"
        );
        assert_eq!(
            (listing["year"].as_i64(), listing["mileage"].as_i64()),
            (Some(told.year), Some(told.mileage)),
            "{id}"
        );
        let sold = listing["sold"] == true;
        assert_eq!(sold, told.status == "sold", "{id}: {listing}");
    }
}

/// Values of a KPI by day.
async fn kpi(server: &Forecourt, name: &str, position: u64) -> BTreeMap<String, Value> {
    let answer = server
        .get(&format!("/v1/kpis/{name}?grain=day&from=2026-01-01&to=2026-03-15&wait_ms=60000&min_position={position}"))
        .await;
    let rows = answer["rows"].as_array().unwrap();
    rows.iter().map(|row| (row["bucket"].as_str().unwrap()[..10].to_owned(), row["values"].clone())).collect()
}

async fn kpis_agree(server: &Forecourt, truth: &Truth, position: u64) {
    let count = |row: Option<&Value>, name: &str| row.and_then(|row| row[name].as_f64()).unwrap_or_default();
    let same = |ours: f64, theirs: f64, what: &str| assert!((ours - theirs).abs() < 1e-6, "{what}: {ours} {theirs}");
    let sales = kpi(server, "sales_volume", position).await;
    assert_eq!(sales.len(), truth.kpis.sales_volume.len());
    for (day, told) in &truth.kpis.sales_volume {
        let row = sales.get(day);
        same(count(row, "units_sold"), told.units_sold as f64, day);
        same(count(row, "revenue"), told.revenue as f64, day);
        same(count(row, "units_returned"), told.units_returned as f64, day);
    }
    let offers = kpi(server, "offer_volume", position).await;
    assert_eq!(offers.len(), truth.kpis.offer_volume.len());
    for (day, told) in &truth.kpis.offer_volume {
        let row = offers.get(day);
        same(count(row, "offers_generated"), told.offers_generated as f64, day);
        same(count(row, "offers_accepted"), told.offers_accepted as f64, day);
        same(count(row, "offers_rejected"), told.offers_rejected as f64, day);
        same(count(row, "offers_expired"), told.offers_expired as f64, day);
        same(count(row, "average_offer") * told.offers_generated as f64, told.offered as f64, day);
    }
    let produced = kpi(server, "production_rate", position).await;
    assert_eq!(produced.len(), truth.kpis.production_rate.len());
    for (day, told) in &truth.kpis.production_rate {
        let row = produced.get(day);
        same(count(row, "vehicles_completed"), told.vehicles_completed as f64, day);
        let hours = told.in_production as f64 / MICROS_PER_HOUR / told.vehicles_completed as f64;
        same(count(row, "average_hours_per_vehicle"), hours, day);
    }
    let said = kpi(server, "customer_satisfaction", position).await;
    assert_eq!(said.len(), truth.kpis.customer_satisfaction.len());
    for (day, told) in &truth.kpis.customer_satisfaction {
        let row = said.get(day);
        same(count(row, "nps_answers"), told.nps_answers as f64, day);
        same(count(row, "promoters"), told.promoters as f64, day);
        same(count(row, "detractors"), told.detractors as f64, day);
        same(count(row, "ratings"), told.ratings as f64, day);
        same(count(row, "csat") * told.ratings as f64, told.satisfied as f64, day);
        same(count(row, "reviews"), told.reviews as f64, day);
        same(count(row, "review_score") * told.reviews as f64, told.stars as f64, day);
    }
}
