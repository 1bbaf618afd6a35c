//! SQL as it is asked over HTTP: formats, parameters, past positions, limits.

use std::{
    collections::{BTreeMap, HashMap},
    io::Cursor,
};

use arrow::{array::AsArray, compute::concat_batches, datatypes::Int64Type, ipc::reader::StreamReader};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use reqwest::{Response, StatusCode, header};
use serde_json::{Value, json};

use crate::support::{Forecourt, Nats, finish, ingest, market};

fn priced(number: u64) -> String {
    json!({
        "eventId": format!("p-{number}"), "eventType": "PriceSet",
        "timestamp": format!("2026-03-{:02}T10:00:00Z", number % 28 + 1),
        "data": {"listingId": format!("lst, \"{number}\""), "price": number * 10}
    })
    .to_string()
}

async fn asked(server: &Forecourt, body: Value, accept: &str) -> Response {
    let url = format!("{}/v1/sql", server.url);
    server.client.post(url).header(header::ACCEPT, accept).json(&body).send().await.unwrap()
}

async fn bytes(answer: Response, media_type: &str) -> Bytes {
    if answer.status() != StatusCode::OK {
        panic!("{}", answer.text().await.unwrap());
    }
    assert_eq!(answer.headers()[header::CONTENT_TYPE], media_type);
    assert!(answer.headers().contains_key("x-forecourt-position"));
    answer.bytes().await.unwrap()
}

#[tokio::test]
async fn a_result_is_the_same_in_every_format() {
    let (nats, folder) = (Nats::start().await, tempfile::tempdir().unwrap());
    let server = Forecourt::start(&nats, folder.path()).await;
    let lines: String = (1..=2_500).map(|number| priced(number) + "\n").collect();
    let (_, published) = server.publish(lines).await;
    server.reflects(published["position"].as_u64().unwrap()).await;
    let query =
        "SELECT price::bigint AS price, listing_id, price / 2 AS half, event_time FROM inventory.price_set ORDER BY 1";
    let body = json!({"query": query, "limit": 2_000});

    let answer = bytes(asked(&server, body.clone(), "application/json").await, "application/json").await;
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    let rows = answer["rows"].as_array().unwrap();
    assert_eq!((rows.len(), &answer["row_count"], &answer["truncated"]), (2_000, &json!(2_000), &json!(true)));
    assert_eq!(rows[1], json!([20, "lst, \"2\"", 10.0, "2026-03-03T10:00:00Z"]));
    assert_eq!(answer["columns"][2], json!({"name": "half", "type": "decimal(16,6)"}));
    assert_eq!(answer["as_of"]["position"], 2_500);

    let ndjson = bytes(asked(&server, body.clone(), "application/x-ndjson").await, "application/x-ndjson").await;
    let objects: Vec<Value> =
        ndjson.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
    assert_eq!(objects.len(), 2_000);
    assert_eq!(objects[1], json!({"price": 20, "listing_id": "lst, \"2\"", "half": 10.0, "event_time": rows[1][3]}));

    let csv = bytes(asked(&server, body.clone(), "text/csv").await, "text/csv; charset=utf-8").await;
    let csv = String::from_utf8(csv.to_vec()).unwrap();
    let lines: Vec<&str> = csv.split("\r\n").collect();
    assert_eq!(lines.len(), 2_002);
    assert_eq!(lines[0], "price,listing_id,half,event_time");
    assert_eq!(lines[2], "20,\"lst, \"\"2\"\"\",10.0,2026-03-03T10:00:00Z");

    let stream = "application/vnd.apache.arrow.stream";
    let arrow = bytes(asked(&server, body.clone(), stream).await, stream).await;
    let reader = StreamReader::try_new(Cursor::new(arrow), None).unwrap();
    let schema = reader.schema();
    let batches: Vec<_> = reader.map(Result::unwrap).collect();
    let arrow = concat_batches(&schema, &batches).unwrap();

    let kind = "application/vnd.apache.parquet";
    let parquet = bytes(asked(&server, body, "application/parquet;q=0.9, application/json;q=0.1").await, kind).await;
    let reader = ParquetRecordBatchReaderBuilder::try_new(parquet).unwrap().build().unwrap();
    let batches: Vec<_> = reader.map(Result::unwrap).collect();
    let parquet = concat_batches(&batches[0].schema(), &batches).unwrap();
    assert_eq!(arrow.columns(), parquet.columns());
    assert_eq!(
        arrow.column(0).as_primitive::<Int64Type>().values(),
        &(1..=2_000).map(|number| number * 10).collect::<Vec<i64>>()[..]
    );

    // Without a limit, what is streamed is whole.
    let query = [("query", "SELECT * FROM inventory.price_set"), ("format", "csv")];
    let url = format!("{}/v1/sql", server.url);
    let whole = server.client.get(url).query(&query).send().await.unwrap();
    let whole = bytes(whole, "text/csv; charset=utf-8").await;
    assert_eq!(String::from_utf8(whole.to_vec()).unwrap().lines().count(), 2_501);

    let none = asked(&server, json!({"query": "SELECT 1 AS one WHERE false"}), "text/csv").await;
    assert_eq!(bytes(none, "text/csv; charset=utf-8").await, "one\r\n");
}

#[tokio::test]
async fn parameters_past_positions_and_limits_are_kept() {
    let (nats, folder) = (Nats::start().await, tempfile::tempdir().unwrap());
    let mut server = Forecourt::start(&nats, folder.path()).await;
    for number in 1..=30 {
        server.publish(priced(number)).await;
    }
    server.reflects(30).await;
    let ask = async |server: &Forecourt, body: Value| -> (StatusCode, Value) {
        let answer = asked(server, body, "*/*").await;
        (answer.status(), answer.json().await.unwrap())
    };
    let query = "SELECT count(*) FROM inventory.price_set WHERE price >= $1 AND listing_id <> $2 AND event_time >= $3";
    let params = json!([100, "lst, \"30\"", "2026-03-02T00:00:00Z"]);
    let (status, found) = ask(&server, json!({"query": query, "params": params})).await;
    assert_eq!((status, &found["rows"]), (StatusCode::OK, &json!([[19]])), "{found}");
    let (status, wrong) = ask(&server, json!({"query": "SELECT $1", "params": [[1]]})).await;
    assert_eq!((status, &wrong["code"], &wrong["index"]), (StatusCode::BAD_REQUEST, &json!("invalid_body"), &json!(0)));

    // In the tail, and from files.
    let took = "SELECT count(*), max(position), max(price) FROM inventory.price_set";
    let mut times = Vec::new();
    for flushed in [false, true] {
        for position in [0, 1, 17, 30] {
            let (_, found) = ask(&server, json!({"query": took, "as_of": position})).await;
            let last = (position > 0).then_some(position);
            let price = last.map(|last| f64::from(last) * 10.0);
            assert_eq!(found["rows"], json!([[position, last, price]]), "{found}, flushed {flushed}");
            assert_eq!(found["as_of"]["position"], position, "{found}");
        }
        let (_, found) =
            ask(&server, json!({"query": "SELECT ingested_at FROM lake.events WHERE position = 12"})).await;
        times.push(found["rows"][0][0].clone());
        let (_, found) = ask(&server, json!({"query": took, "as_of": times[0]})).await;
        assert!(found["rows"][0][0].as_u64().unwrap() >= 12 && found["rows"][0][1] == found["rows"][0][0], "{found}");
        if !flushed {
            server.stop();
            server.launch();
            server.ready().await;
        }
    }
    assert_eq!(times[0], times[1]);
    let (status, not_yet) = ask(&server, json!({"query": took, "as_of": 31})).await;
    assert_eq!((status, &not_yet["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("not_yet")));
    for (body, code) in [
        (json!({"query": took, "as_of": "yesterday"}), "invalid_parameter"),
        (json!({"query": took, "format": "xml"}), "invalid_parameter"),
        (json!({"query": took, "limit": 1_000_001}), "invalid_body"),
        (json!({"query": took, "timeout_ms": 600_001}), "invalid_body"),
        (json!({"query": "SELECT count(*) FROM generate_series(1, 1000000000000)", "timeout_ms": 300}), "too_slow"),
        (json!({"query": "SELECT $1"}), "invalid_sql"),
    ] {
        let (status, problem) = ask(&server, body).await;
        assert_eq!((status, &problem["code"]), (StatusCode::BAD_REQUEST, &json!(code)), "{problem}");
    }
    let answer = asked(&server, json!({"query": "SELECT 1"}), "image/png").await;
    assert_eq!(answer.status(), StatusCode::NOT_ACCEPTABLE);
}

/// What breaks off is no whole answer: neither where the time is up while the reader rests, nor where it reads nothing.
#[tokio::test]
async fn a_result_that_is_read_too_slowly_ends_as_a_failure_and_gives_its_turn_back() {
    let (nats, folder) = (Nats::start().await, tempfile::tempdir().unwrap());
    let server = Forecourt::start(&nats, folder.path()).await;
    let query = "SELECT value, repeat('x', 100) FROM generate_series(1, 100000000)";
    let mut resting = Vec::new();
    for format in ["csv", "ndjson", "arrow", "parquet", "json"].into_iter().cycle().take(20) {
        let limit = (format == "json").then_some(1_000_000);
        let body = json!({"query": query, "format": format, "timeout_ms": 1_000, "limit": limit});
        let mut answer = asked(&server, body, "*/*").await;
        assert_eq!(answer.status(), StatusCode::OK, "{format}");
        assert!(answer.chunk().await.unwrap().is_some());
        resting.push((format, answer));
    }
    // More than may run at once have been asked, so the first have given up by now.
    for (format, mut answer) in resting {
        let ended = loop {
            match answer.chunk().await {
                Ok(Some(_)) => {}
                ended => break ended,
            }
        };
        assert!(ended.is_err(), "{format} ended as if it were whole");
    }
    assert_eq!(server.sql("SELECT 1", 0).await, [json!([1])]);
}

/// An offer's status, first amount and amount. Its making may come later in the log than what becomes of it.
fn offer(offers: &mut BTreeMap<String, Value>, id: String) -> &mut Value {
    offers.entry(id).or_insert_with(|| json!([null, null, null]))
}

/// What stands now is folded here from the file, naively, and asked of the tables: as of the end, and of the middle.
#[tokio::test]
async fn what_stands_now_is_a_row_each_at_every_position() {
    let (nats, folder) = (Nats::start().await, tempfile::tempdir().unwrap());
    let server = Forecourt::start(&nats, &folder.path().join("data")).await;
    let file = market(folder.path(), 5, 40, 25);
    finish(ingest(&file, &server.url));
    let events: Vec<Value> =
        std::fs::read_to_string(file).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let end = events.len() as u64;
    server.reflects(end).await;
    // Where the log has each event.
    let rows = server.sql("SELECT event_id, position FROM lake.events", end).await;
    let positions: HashMap<String, u64> =
        rows.iter().map(|row| (row[0].as_str().unwrap().to_owned(), row[1].as_u64().unwrap())).collect();
    let ask = async |query: &str, as_of: u64| -> Vec<Value> {
        let body = json!({"query": query, "as_of": as_of, "limit": 100_000});
        let answer: Value = asked(&server, body, "*/*").await.json().await.unwrap();
        assert!(answer["rows"].is_array(), "{answer}");
        answer["rows"].as_array().unwrap().clone()
    };
    for as_of in [end, end / 2, 0] {
        let mut offers: BTreeMap<String, Value> = BTreeMap::new();
        let (mut vehicles, mut vehicle_of) = (BTreeMap::new(), HashMap::new());
        let known = || events.iter().filter(|event| positions[event["eventId"].as_str().unwrap()] <= as_of);
        // Events of the file are in their order of time.
        for event in known() {
            let data = &event["data"];
            let id = |field: &str| data[field].as_str().unwrap().to_owned();
            match event["eventType"].as_str().unwrap().rsplit('.').next().unwrap() {
                "AIOfferGenerated" => {
                    let amount = data["offerAmount"].as_f64();
                    offers.insert(id("offerId"), json!(["made", amount, amount]));
                    vehicles.entry(id("vehicleId")).or_insert_with(|| json!({}))["offer"] = json!(amount);
                }
                "OfferAdjusted" => {
                    let offer = offer(&mut offers, id("offerId"));
                    (offer[0], offer[2]) = ("adjusted".into(), data["adjustedAmount"].as_f64().into());
                }
                "OfferAccepted" => offer(&mut offers, id("offerId"))[0] = "accepted".into(),
                "OfferRejected" => offer(&mut offers, id("offerId"))[0] = "rejected".into(),
                "OfferExpired" => offer(&mut offers, id("offerId"))[0] = "expired".into(),
                "VehiclePurchased" => {
                    if data["offerId"].is_string() {
                        let offer = offer(&mut offers, id("offerId"));
                        (offer[0], offer[2]) = ("purchased".into(), data["amount"].as_f64().into());
                    }
                    vehicles.entry(id("vehicleId")).or_insert_with(|| json!({}))["purchase"] =
                        data["amount"].as_f64().into();
                }
                "VehicleListingCreated" => {
                    vehicle_of.insert(id("listingId"), id("vehicleId"));
                    vehicles.entry(id("vehicleId")).or_insert_with(|| json!({}))["listing"] = id("listingId").into();
                }
                "VehicleSold" if data["soldAt"].is_string() && data["finalPrice"].is_number() => {
                    if let Some(vehicle) = vehicle_of.get(&id("listingId")) {
                        let sold = &mut vehicles.entry(vehicle.clone()).or_insert_with(|| json!({}))["sold"];
                        *sold = json!([data["soldAt"].as_str().unwrap(), data["finalPrice"].as_f64()]);
                    }
                }
                _ => {}
            }
        }
        let found =
            ask("SELECT offer_id, status, first_amount, amount FROM current.offers ORDER BY offer_id", as_of).await;
        let expected: Vec<Value> = offers.iter().map(|(id, it)| json!([id, it[0], it[1], it[2]])).collect();
        assert_eq!(found, expected, "as of {as_of}");
        let query = "SELECT vehicle_id, listing_id, offer_amount, purchase_amount, sold_at, sold_price FROM current.vehicles \
                     WHERE coalesce(listing_id, first_offered_at::text, purchased_at::text) IS NOT NULL ORDER BY 1";
        let expected = vehicles.iter().map(|(id, it): (&String, &Value)| {
            json!([id, it["listing"], it["offer"], it["purchase"], it["sold"][0], it["sold"][1]])
        });
        assert_eq!(ask(query, as_of).await, expected.collect::<Vec<_>>(), "as of {as_of}");
        assert!(as_of < end || (offers.len() > 20 && vehicles.len() > 20));
    }

    let days = server.get(&format!("/v1/kpis/sales_volume?grain=day&wait_ms=60000&min_position={end}")).await;
    let days: Vec<Value> = days["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| json!([row["values"]["units_sold"], row["values"]["revenue"]]))
        .collect();
    assert!(!days.is_empty());
    assert_eq!(ask("SELECT units_sold, revenue FROM kpi.sales_volume ORDER BY bucket", end).await, days);

    // What search shows, at the position of the events it is asked with.
    let query = "SELECT count(*), count(DISTINCT l.listing_id), (SELECT max(position) FROM lake.events), \
                 sum(l.price) = (SELECT sum(last_price) FROM current.vehicles) \
                 FROM current.listings AS l JOIN inventory.vehicle_listing_created AS c ON l.listing_id = c.listing_id";
    let answer: Value = asked(&server, json!({"query": query}), "*/*").await.json().await.unwrap();
    let listed =
        events.iter().filter(|event| event["eventType"].as_str().unwrap().ends_with("VehicleListingCreated")).count();
    assert_eq!(answer["rows"], json!([[listed, listed, answer["as_of"]["position"], true]]), "{answer}");
    let tables = server.get("/v1/tables").await;
    let shown = tables["tables"].as_array().unwrap().iter().find(|table| table["name"] == "listings").unwrap();
    let price = shown["columns"].as_array().unwrap().iter().find(|column| column["name"] == "price").unwrap();
    assert_eq!((&price["type"], &price["meaning"]), (&json!("decimal(12,2)"), &json!("What is asked.")));
    // Every table and every column says what it means, wherever one looks.
    let silent =
        "SELECT table_schema, table_name, column_name FROM information_schema.columns WHERE column_comment IS NULL";
    assert_eq!(ask(silent, end).await, Vec::<Value>::new());
    let described = ask("DESCRIBE current.offers", end).await;
    assert!(described.contains(&json!(["made_at", "timestamp with time zone", "YES", "When it was made."])));
    let positions = ask("SELECT name, position FROM system.positions ORDER BY name", end).await;
    assert_eq!(positions.iter().map(|row| row[0].clone()).collect::<Vec<_>>(), ["index", "kpis", "lake"]);
    let past = asked(&server, json!({"query": "SELECT * FROM current.listings", "as_of": 3}), "*/*").await;
    assert_eq!(past.json::<Value>().await.unwrap()["code"], "invalid_parameter");
}
