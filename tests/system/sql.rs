//! SQL as it is asked over HTTP: formats, parameters, past positions, limits.

use std::io::Cursor;

use arrow::{array::AsArray, compute::concat_batches, datatypes::Int64Type, ipc::reader::StreamReader};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use reqwest::{Response, StatusCode, header};
use serde_json::{Value, json};

use crate::support::{Forecourt, Nats};

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
