//! Search, SQL and KPIs against a naive count over the same events.

use std::collections::BTreeMap;

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::{
    oracle,
    support::{Forecourt, Nats, counted, finish, ingest, market},
};

/// A running system that holds a market, and the market's history.
async fn loaded(folder: &std::path::Path) -> (Nats, Forecourt, String, u64) {
    let nats = Nats::start().await;
    let forecourt = Forecourt::start(&nats, &folder.join("data")).await;
    let file = market(folder, 11, 120, 70);
    let position = counted(&finish(ingest(&file, &forecourt.url)), "position");
    (nats, forecourt, std::fs::read_to_string(file).unwrap(), position)
}

#[tokio::test]
async fn answers_equal_a_naive_count_over_the_events() {
    let folder = tempfile::tempdir().unwrap();
    let (_nats, forecourt, history, position) = loaded(folder.path()).await;
    search_agrees(&forecourt, &history, position).await;
    pages_neither_repeat_nor_skip(&forecourt, &history, position).await;
    sql_agrees(&forecourt, &history, position).await;
    kpis_agree(&forecourt, &history, position).await;
    errors_say_what_and_where(&forecourt).await;
}

fn counts(facet: &Value) -> BTreeMap<String, u64> {
    let values = facet.as_array().unwrap().iter();
    values.map(|value| (value["value"].as_str().unwrap().to_owned(), value["count"].as_u64().unwrap())).collect()
}

fn tally<'a>(names: impl Iterator<Item = &'a String>) -> BTreeMap<String, u64> {
    let mut tally = BTreeMap::new();
    for name in names {
        *tally.entry(name.clone()).or_default() += 1;
    }
    tally
}

async fn search_agrees(forecourt: &Forecourt, history: &str, position: u64) {
    let cars = oracle::public_listings(history);
    assert!(cars.len() > 10, "{}", cars.len());
    let all = forecourt.get(&format!("/v1/search?page_size=100&wait_ms=60000&min_position={position}")).await;
    assert_eq!(all["total"], cars.len());
    assert_eq!(counts(&all["facets"]["make"]), tally(cars.values().map(|car| &car.make)));
    assert_eq!(all["as_of"]["position"].as_u64().unwrap(), position);

    // Chosen makes, a price range and a distance together; each facet counted without its own filter.
    let near = (43.6532, -79.3832);
    let (low, high, radius) = (12_000.0, 45_000.0, 900.0);
    let makes: Vec<&String> = cars.values().map(|car| &car.make).take(2).collect();
    let within = |car: &oracle::Car| haversine_km(near, (car.latitude, car.longitude)) <= radius;
    let in_price = |car: &oracle::Car| (low..=high).contains(&car.price);
    let of_make = |car: &oracle::Car| makes.contains(&&car.make);
    let found = forecourt
        .get(&format!(
            "/v1/search?make={}&make={}&price_min={low}&price_max={high}&near={},{}&radius_km={radius}&sort=distance&page_size=100",
            makes[0], makes[1], near.0, near.1
        ))
        .await;
    let mut expected: Vec<(f64, &String)> = cars
        .iter()
        .filter(|(_, car)| within(car) && in_price(car) && of_make(car))
        .map(|(id, car)| (haversine_km(near, (car.latitude, car.longitude)), id))
        .collect();
    expected.sort_by(|a, b| a.0.total_cmp(&b.0));
    let hits: Vec<&str> =
        found["hits"].as_array().unwrap().iter().map(|hit| hit["listing_id"].as_str().unwrap()).collect();
    assert_eq!(hits, expected.iter().map(|(_, id)| id.as_str()).collect::<Vec<_>>());
    assert_eq!(found["total"], expected.len());
    let makes_counted =
        counts(&found["facets"]["make"]).into_iter().filter(|(_, count)| *count > 0).collect::<BTreeMap<_, _>>();
    assert_eq!(makes_counted, tally(cars.values().filter(|car| within(car) && in_price(car)).map(|car| &car.make)));
    let matching = || cars.values().filter(|car| within(car) && in_price(car) && of_make(car));
    assert_eq!(counts(&found["facets"]["body_type"]), tally(matching().map(|car| &car.body)));
    let priced: u64 =
        found["ranges"]["price"]["buckets"].as_array().unwrap().iter().map(|b| b["count"].as_u64().unwrap()).sum();
    assert_eq!(priced as usize, cars.values().filter(|car| within(car) && of_make(car)).count());

    // Text finds what the title says.
    let (id, car) = cars.first_key_value().unwrap();
    let texts = forecourt.get(&format!("/v1/search?q={}&page_size=100", car.make.to_lowercase())).await;
    assert_eq!(texts["total"], cars.values().filter(|other| other.make == car.make).count());
    let listing = forecourt.get(&format!("/v1/listings/{id}")).await;
    assert_eq!(
        (&listing["make"], &listing["price"], &listing["status"]),
        (&json!(car.make), &json!(car.price as i64), &json!("public"))
    );
}

fn haversine_km(a: (f64, f64), b: (f64, f64)) -> f64 {
    let (la, lb) = (a.0.to_radians(), b.0.to_radians());
    let dlat = (lb - la) / 2.0;
    let dlon = (b.1 - a.1).to_radians() / 2.0;
    let h = dlat.sin().powi(2) + la.cos() * lb.cos() * dlon.sin().powi(2);
    2.0 * 6_371.008_8 * h.sqrt().asin()
}

async fn pages_neither_repeat_nor_skip(forecourt: &Forecourt, history: &str, position: u64) {
    let cars = oracle::public_listings(history);
    for sort in ["relevance", "price", "-price", "mileage", "year", "-year", "newest", "popular", "deal"] {
        let (mut ids, mut prices, mut cursor) = (Vec::new(), Vec::new(), String::new());
        loop {
            let page = forecourt
                .get(&format!("/v1/search?sort={sort}&page_size=3&facets=&min_position={position}&cursor={cursor}"))
                .await;
            for hit in page["hits"].as_array().unwrap() {
                ids.push(hit["listing_id"].as_str().unwrap().to_owned());
                prices.push(hit["price"].as_f64().unwrap());
            }
            match page["next_cursor"].as_str() {
                Some(next) => cursor = next.to_owned(),
                None => break,
            }
        }
        match sort {
            "price" => assert!(prices.is_sorted()),
            "-price" => assert!(prices.iter().rev().is_sorted()),
            _ => {}
        }
        ids.sort();
        assert_eq!(ids, cars.keys().cloned().collect::<Vec<_>>(), "{sort}");
    }
}

async fn sql_agrees(forecourt: &Forecourt, history: &str, position: u64) {
    let rows = forecourt.sql("SELECT event_type, count(*) FROM lake.events GROUP BY 1", position).await;
    let counted = rows.iter().map(|row| (row[0].as_str().unwrap().to_owned(), row[1].as_u64().unwrap()));
    assert_eq!(counted.collect::<BTreeMap<_, _>>(), oracle::counts_by_type(history));

    // The payload comes back as it went in, whatever became of its columns.
    let line: Value = history
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .find(|event| event["eventType"] == "VehicleListingCreated")
        .unwrap();
    let id = line["eventId"].as_str().unwrap();
    let rows = forecourt.sql(&format!("SELECT data FROM lake.events WHERE event_id = '{id}'"), position).await;
    assert_eq!(serde_json::from_str::<Value>(rows[0][0].as_str().unwrap()).unwrap(), line["data"]);

    // Two event types joined: what each sold vehicle was first listed at.
    let rows = forecourt
        .sql(
            "SELECT count(*), sum(sold.final_price) FROM inventory.vehicle_sold AS sold \
             JOIN production.vehicle_listed_for_sale AS listed ON listed.listing_id = sold.listing_id",
            position,
        )
        .await;
    let sold: Vec<f64> = history
        .lines()
        .filter(|line| line.contains("\"VehicleSold\""))
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["data"]["finalPrice"].as_f64().unwrap())
        .collect();
    assert!(sold.len() > 10);
    assert_eq!(rows, [json!([sold.len(), sold.iter().sum::<f64>()])]);
}

async fn kpis_agree(forecourt: &Forecourt, history: &str, position: u64) {
    for (name, days) in oracle::kpis(history) {
        assert!(days.len() > 5, "{name}");
        let answer = forecourt.get(&format!("/v1/kpis/{name}?wait_ms=60000&min_position={position}")).await;
        let rows = answer["rows"].as_array().unwrap();
        let found: BTreeMap<&str, &Value> =
            rows.iter().map(|row| (&row["bucket"].as_str().unwrap()[..10], &row["values"])).collect();
        assert_eq!(
            found.keys().copied().collect::<Vec<_>>(),
            days.keys().map(String::as_str).collect::<Vec<_>>(),
            "{name}"
        );
        for (day, values) in &days {
            assert_eq!(found[day.as_str()].as_object().unwrap().len(), values.len(), "{name}");
            for (value, expected) in values {
                let found = &found[day.as_str()][*value];
                assert!(is_near(found, expected), "{name} on {day}: {value} is {found}, not {expected}");
            }
        }

        // Wider buckets and other zones are computed, not added up from days.
        let years = forecourt
            .get(&format!("/v1/kpis/{name}?grain=year&timezone=America/Toronto&min_position={position}"))
            .await;
        assert!((1..=2).contains(&years["rows"].as_array().unwrap().len()), "{years}");
    }
    let list = forecourt.get("/v1/kpis").await;
    let names: Vec<&str> = list["kpis"].as_array().unwrap().iter().map(|kpi| kpi["name"].as_str().unwrap()).collect();
    assert_eq!(names[..4], ["sales_volume", "offer_volume", "production_rate", "customer_satisfaction"]);
    let sold = |body: &Value| -> i64 {
        body["rows"].as_array().unwrap().iter().map(|row| row["values"]["units_sold"].as_i64().unwrap()).sum()
    };
    let daily = forecourt.get("/v1/kpis/sales_volume?from=2026-01-01&to=2027-01-01").await;
    let monthly = forecourt.get("/v1/kpis/sales_volume?grain=month&timezone=Asia/Kathmandu").await;
    let total = history.lines().filter(|line| line.contains("\"VehicleSold\"")).count() as i64;
    assert_eq!((sold(&daily), sold(&monthly)), (total, total));
}

/// The same number, but for the last digits of a float; or both null.
fn is_near(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => (a - b).abs() <= 1e-6 * b.abs().max(1.0),
        _ => a == b,
    }
}

async fn errors_say_what_and_where(forecourt: &Forecourt) {
    for (path, status, code, place) in [
        ("/v1/search?colour=red", 400, "invalid_parameter", Some(("parameter", json!("colour")))),
        ("/v1/search?sort=cheapest", 400, "invalid_parameter", Some(("parameter", json!("sort")))),
        ("/v1/search?sort=distance", 400, "invalid_parameter", Some(("parameter", json!("sort")))),
        ("/v1/search?price_min=9&price_max=1", 400, "invalid_parameter", Some(("parameter", json!("price_min")))),
        ("/v1/search?cursor=abc", 400, "invalid_parameter", Some(("parameter", json!("cursor")))),
        ("/v1/search?near=Atlantis", 400, "invalid_parameter", Some(("parameter", json!("near")))),
        ("/v1/kpis/sales", 404, "not_found", None),
        ("/v1/kpis/sales_volume?timezone=Toronto", 400, "invalid_parameter", Some(("parameter", json!("timezone")))),
        ("/v1/kpis/sales_volume?grain=second", 400, "invalid_parameter", Some(("parameter", json!("grain")))),
        ("/v1/listings/none", 404, "not_found", None),
        ("/nowhere", 404, "not_found", None),
        ("/v1/search?min_position=999999999&wait_ms=1", 503, "not_yet", None),
    ] {
        let (found, body) = forecourt.try_get(path).await;
        assert_eq!((found.as_u16(), body["code"].as_str().unwrap()), (status, code), "{path}: {body}");
        assert_eq!(body["status"], status, "{path}");
        assert!(!body["detail"].as_str().unwrap().is_empty());
        if let Some((name, value)) = place {
            assert_eq!(body[name], value, "{path}");
        }
    }
    for (query, code, place) in [
        ("SELECT nothing FROM lake.events", "invalid_sql", (json!(1), json!(8))),
        ("SELECT count(* FROM lake.events", "invalid_sql", (json!(1), json!(16))),
        ("SELECT * FROM lake.nowhere", "invalid_sql", (json!(1), json!(15))),
        ("CREATE TABLE t (a INT)", "read_only", (Value::Null, Value::Null)),
        ("INSERT INTO lake.events VALUES (1)", "read_only", (Value::Null, Value::Null)),
        ("SET datafusion.execution.batch_size = 1", "read_only", (Value::Null, Value::Null)),
    ] {
        let (status, body) = forecourt.try_sql(query, 0).await;
        assert_eq!((status, body["code"].as_str().unwrap()), (StatusCode::BAD_REQUEST, code), "{query}: {body}");
        assert_eq!((&body["line"], &body["column"]), (&place.0, &place.1), "{query}: {body}");
    }
}
