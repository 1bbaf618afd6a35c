//! What comes in: accepted once, or refused with a reason; and read back by whoever sent it.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{DEADLINE, Forecourt, Nats, assert_same, counted, eventually, finish, ingest, market};

pub(crate) fn event(id: &str, event_type: &str, aggregate: &str, data: Value) -> Value {
    json!({
        "eventId": id, "eventType": event_type, "eventVersion": "1.0", "timestamp": "2026-11-02T08:30:00Z",
        "aggregateType": "Listing", "aggregateId": aggregate, "data": data
    })
}

/// A published listing at a price.
fn listed(price: i64) -> String {
    [
        event(
            "e-1",
            "VehicleListingCreated",
            "lst-1",
            json!({"listingId": "lst-1", "vehicleId": "veh-1", "make": "Honda", "model": "Civic", "year": 2021}),
        ),
        event("e-2", "PriceSet", "lst-1", json!({"listingId": "lst-1", "price": price})),
        event("e-3", "ListingPublished", "lst-1", json!({"listingId": "lst-1"})),
    ]
    .map(|event| event.to_string())
    .join("\n")
}

#[tokio::test]
async fn a_writer_reads_its_own_writes_in_search_sql_and_the_listing() {
    let folder = tempfile::tempdir().unwrap();
    let nats = Nats::start().await;
    let forecourt = Forecourt::start(&nats, folder.path()).await;
    let (status, report) = forecourt.publish(listed(20_000)).await;
    assert_eq!((status, &report["accepted"]), (StatusCode::OK, &json!(3)), "{report}");
    for (second, price) in [(10, 19_500), (11, 18_250)] {
        let mut change =
            event(&format!("p-{price}"), "PriceSet", "lst-1", json!({"listingId": "lst-1", "price": price}));
        change["timestamp"] = json!(format!("2026-11-03T08:30:{second}Z"));
        let (_, report) = forecourt.publish(change.to_string()).await;
        let position = report["position"].as_u64().unwrap();
        let found = forecourt.get(&format!("/v1/search?make=honda&min_position={position}")).await;
        assert_eq!(found["hits"][0]["price"], price);
        let listing = forecourt.get(&format!("/v1/listings/lst-1?min_position={position}")).await;
        assert_eq!(listing["price"], price);
        let rows =
            forecourt.sql("SELECT price FROM inventory.price_set ORDER BY position DESC LIMIT 1", position).await;
        assert_eq!(rows, [json!([price as f64])]);
        for answer in [found, listing] {
            assert!(answer["as_of"]["position"].as_u64().unwrap() >= position);
        }
    }
}

#[tokio::test]
async fn reservations_sales_and_wholesale_decide_what_a_buyer_sees() {
    let folder = tempfile::tempdir().unwrap();
    let nats = Nats::start().await;
    let forecourt = Forecourt::start(&nats, folder.path()).await;
    forecourt.publish(listed(20_000)).await;
    let mut second = 0;
    let mut then = async |event_type: &str, data: Value| {
        second += 1;
        let mut event = event(&format!("then-{second}"), event_type, "x", data);
        event["timestamp"] = json!(format!("2026-11-02T09:00:{second:02}Z"));
        let (status, report) = forecourt.publish(event.to_string()).await;
        assert_eq!(status, StatusCode::OK, "{report}");
        let listing = forecourt.get(&format!("/v1/listings/lst-1?min_position={}", report["position"])).await;
        let total = forecourt.get("/v1/search").await["total"].as_u64().unwrap();
        (listing["status"].as_str().unwrap().to_owned(), listing["availability"].as_str().unwrap().to_owned(), total)
    };
    let is = |status: &str, availability: &str, total: u64| (status.to_owned(), availability.to_owned(), total);
    let hold = json!({"reservationId": "r-1", "vehicleId": "veh-1", "reservedUntil": "2150-01-01T00:00:00Z"});
    assert_eq!(then("VehicleReserved", hold).await, is("public", "reserved", 1));
    assert_eq!(then("ReservationExpired", json!({"reservationId": "r-1"})).await, is("public", "available", 1));
    let past = json!({"reservationId": "r-2", "vehicleId": "veh-1", "reservedUntil": "2026-11-02T09:30:00Z"});
    assert_eq!(then("VehicleReserved", past).await, is("public", "available", 1));
    assert_eq!(then("VehicleUnavailable", json!({"vehicleId": "veh-1"})).await, is("public", "unavailable", 1));
    assert_eq!(then("VehicleAvailable", json!({"vehicleId": "veh-1"})).await, is("public", "available", 1));
    assert_eq!(then("ListingDeactivated", json!({"listingId": "lst-1"})).await, is("withdrawn", "unavailable", 0));
    assert_eq!(then("ListingPublished", json!({"listingId": "lst-1"})).await, is("public", "available", 1));
    assert_eq!(then("VehicleSentToWholesale", json!({"vehicleId": "veh-1"})).await, is("wholesale", "unavailable", 0));
    let sale = json!({"listingId": "lst-1", "soldAt": "2026-11-02T09:10:00Z", "finalPrice": 19_000});
    assert_eq!(then("VehicleSold", sale).await, is("sold", "unavailable", 0));
}

#[tokio::test]
async fn garbage_is_refused_item_by_item_and_the_good_events_around_it_are_taken() {
    let folder = tempfile::tempdir().unwrap();
    let nats = Nats::start().await;
    let forecourt = Forecourt::start(&nats, folder.path()).await;
    let good = |id: &str| event(id, "PriceSet", "lst-1", json!({"listingId": "lst-1", "price": 9}));
    let garbage = [
        ("not json".to_owned(), "invalid_json", None),
        (event("g-1", "PriceSat", "x", json!({})).to_string(), "unknown_event_type", Some("eventType")),
        (event("g-2", "PriceSet", "x", json!({"listingId": "x"})).to_string(), "missing_field", Some("data.price")),
        (
            event("g-3", "PriceSet", "x", json!({"listingId": "x", "price": "a lot"})).to_string(),
            "wrong_type",
            Some("data.price"),
        ),
        (format!("{{\"x\":\"{}\"}}", "x".repeat(10 << 20)), "event_too_large", None),
        ("\u{0}\u{fffd}".to_owned(), "invalid_json", None),
        // What is refused is not repeated in the reason, nor in a header.
        (format!("{{\"specversion\":\"{}\"}}", "9".repeat(600_000)), "invalid_value", Some("specversion")),
    ];
    let mut lines = vec![good("good-0").to_string()];
    for (number, (text, _, _)) in garbage.iter().enumerate() {
        lines.push(text.clone());
        lines.push(good(&format!("good-{}", number + 1)).to_string());
    }
    let (status, report) = forecourt.publish(lines.join("\n")).await;
    assert_eq!((status, &report["accepted"]), (StatusCode::OK, &json!(garbage.len() + 1)));
    let rejected = report["rejected"].as_array().unwrap();
    for (number, (found, (_, code, field))) in rejected.iter().zip(&garbage).enumerate() {
        assert_eq!((&found["index"], &found["code"]), (&json!(2 * number + 1), &json!(code)));
        assert_eq!(found["field"].as_str(), *field);
    }
    assert_eq!(rejected.len(), garbage.len());
    let (status, report) = forecourt.publish("[1, {}]").await;
    assert_eq!((status, report["rejected"].as_array().unwrap().len()), (StatusCode::UNPROCESSABLE_ENTITY, 2));
    let (status, problem) = forecourt.publish("  ").await;
    assert_eq!((status, &problem["code"]), (StatusCode::BAD_REQUEST, &json!("empty_body")));

    // The same straight to the stream: each is a dead letter with its bytes and the reason, and nothing is harmed.
    let mut wire = Wire::connect(&nats.url()).await;
    for (text, _, _) in &garbage {
        wire.publish("events.inventory.PriceSet.x", text.as_bytes()).await;
        wire.publish("events.inventory.PriceSet.lst-1", good(&format!("wire-{}", text.len())).to_string().as_bytes())
            .await;
    }
    wire.publish("events.support.PriceSet.x", good("mismatch").to_string().as_bytes()).await;
    let (_, report) = forecourt.publish(good("last").to_string()).await;
    let position = report["position"].as_u64().unwrap();
    let rows = forecourt
        .sql("SELECT reason, field, octet_length(arrow_cast(payload, 'Utf8')) FROM system.dead_letters ORDER BY position", position)
        .await;
    let expected: Vec<Value> = garbage
        .iter()
        .map(|(text, code, field)| json!([code, field, text.len()]))
        .chain([json!(["subject_mismatch", "eventType", good("mismatch").to_string().len()])])
        .collect();
    assert_eq!(rows, expected);
    let taken = forecourt.sql("SELECT count(*), count(DISTINCT event_id) FROM inventory.price_set", position).await;
    let good_ones = 2 * garbage.len() + 2 - duplicate_lengths(&garbage);
    assert_eq!(taken, [json!([good_ones, good_ones])]);
    accounted_once(&forecourt, position).await;
    let copied = tokio::sync::Mutex::new(wire);
    eventually("a copy of each dead letter", || async {
        let count = copied.lock().await.stream_messages("DEAD_LETTERS").await;
        (count == garbage.len() as u64 + 1).then_some(())
    })
    .await;
}

/// How many of the garbage texts have the length, and so the good event's id, of another.
fn duplicate_lengths(garbage: &[(String, &str, Option<&str>)]) -> usize {
    let lengths: std::collections::HashSet<_> = garbage.iter().map(|(text, _, _)| text.len()).collect();
    garbage.len() - lengths.len()
}

/// Invariant 3: every position is a row, a dead letter or a duplicate, and only one of them.
async fn accounted_once(forecourt: &Forecourt, position: u64) {
    let rows = forecourt
        .sql(
            "SELECT count(*), count(DISTINCT position), min(position), max(position) FROM (\
             SELECT position FROM lake.events UNION ALL SELECT position FROM system.dead_letters \
             UNION ALL SELECT position FROM system.duplicates)",
            position,
        )
        .await;
    assert_eq!(rows, [json!([position, position, 1, position])]);
}

#[tokio::test]
async fn sending_a_file_again_changes_nothing_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let nats = Nats::start().await;
    let mut forecourt = Forecourt::start(&nats, &folder.path().join("data")).await;
    let file = market(folder.path(), 5, 30, 15);
    let first = finish(ingest(&file, &forecourt.url));
    let events = counted(&first, "accepted");
    let before = everything(&forecourt, counted(&first, "position")).await;

    let second = finish(ingest(&file, &forecourt.url));
    assert_eq!((counted(&second, "accepted"), counted(&second, "duplicates")), (0, events));
    // After a restart the ids are known from the lake.
    forecourt.stop();
    forecourt.launch();
    forecourt.ready().await;
    let third = finish(ingest(&file, &forecourt.url));
    assert_eq!((counted(&third, "accepted"), counted(&third, "duplicates")), (0, events));
    assert_same(&everything(&forecourt, counted(&third, "position")).await, &before, "after re-sending");

    // A repetition that slips past the door, straight to the stream, is a duplicate there.
    let history = std::fs::read_to_string(&file).unwrap();
    let line = history.lines().find(|line| line.contains("\"OfferRequested\"")).unwrap();
    let sent: Value = serde_json::from_str(line).unwrap();
    let subject = format!("events.acquisition.OfferRequested.{}", sent["aggregateId"].as_str().unwrap());
    Wire::connect(&nats.url()).await.publish(&subject, line.as_bytes()).await;
    let position = counted(&third, "position") + 1;
    let id = sent["eventId"].as_str().unwrap().to_owned();
    let first = forecourt.sql(&format!("SELECT position FROM lake.events WHERE event_id = '{id}'"), position).await;
    let rows = forecourt.sql("SELECT event_id, position, first_position FROM system.duplicates", position).await;
    assert_eq!(rows, [json!([id, position, first[0][0]])]);
    accounted_once(&forecourt, position).await;
}

/// A request whose body has begun and does not end.
async fn unfinished(forecourt: &Forecourt, begun: &str) -> TcpStream {
    let address = forecourt.url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = "POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(format!("{head}{:x}\r\n{begun}\r\n", begun.len()).as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn too_many_requests_are_told_to_come_back_and_one_that_breaks_off_loses_nothing() {
    /// More than the door takes at once.
    const REQUESTS: usize = 300;
    let folder = tempfile::tempdir().unwrap();
    let nats = Nats::start().await;
    let forecourt = Forecourt::start(&nats, folder.path()).await;
    let price = |id: usize| event(&format!("p-{id}"), "PriceSet", "lst-1", json!({"listingId": "lst-1", "price": 9}));
    let open = Arc::new(Mutex::new(Vec::<TcpStream>::new()));
    // Who lets the server wait gives its place to another: these go on sending white space.
    let sending = tokio::spawn({
        let open = Arc::clone(&open);
        async move {
            loop {
                for stream in open.lock().unwrap().iter() {
                    // One that was ended takes nothing any more.
                    let _ = stream.try_write(b"1\r\n\n\r\n");
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    });
    let refused = crate::support::eventually("a request too many", || async {
        // Again, if need be: on a busy machine some are given up for their pause before the others are there.
        let begun = open.lock().unwrap().len();
        let bodies: Vec<String> = (begun..begun + REQUESTS).map(|id| format!("{}\n", price(id))).collect();
        let more = futures::future::join_all(bodies.iter().map(|body| unfinished(&forecourt, body))).await;
        open.lock().unwrap().extend(more);
        let answer = forecourt.client.post(format!("{}/v1/events", forecourt.url)).body(price(0).to_string()).send();
        Some(answer.await.unwrap()).filter(|answer| answer.status() == StatusCode::TOO_MANY_REQUESTS)
    })
    .await;
    assert_eq!(refused.headers()["retry-after"], "1");
    // Its body was not read: who sends the next request over this connection would find it closed.
    assert_eq!(refused.headers()["connection"], "close");
    assert_eq!(refused.json::<Value>().await.unwrap()["code"], "busy");

    sending.abort();
    // They break off. What came before is taken, or not; sent again, each is there once.
    let requests = open.lock().unwrap().drain(..).count();
    let all: Vec<String> = (0..requests).map(|id| price(id).to_string()).collect();
    let position = crate::support::eventually("room again", || async {
        let (status, report) = forecourt.publish(all.join("\n")).await;
        (status == StatusCode::OK).then(|| {
            let count = |name: &str| report[name].as_u64().unwrap();
            assert_eq!(count("accepted") + count("duplicates"), requests as u64);
            count("position")
        })
    })
    .await;
    let rows = forecourt.sql("SELECT count(*), count(DISTINCT event_id) FROM inventory.price_set", position).await;
    assert_eq!(rows, [json!([requests, requests])]);
}

/// What the system answers, without what depends on when it was asked.
pub(crate) async fn everything(forecourt: &Forecourt, position: u64) -> Value {
    let counts = forecourt
        .sql("SELECT event_type, count(*), count(DISTINCT event_id) FROM lake.events GROUP BY 1 ORDER BY 1", position)
        .await;
    // Prices are compared as of a moment ago: until that is now.
    crate::support::eventually("prices being compared as of now", || async {
        let page = forecourt.get(&format!("/v1/search?page_size=1&wait_ms=60000&min_position={position}")).await;
        (page["rated_as_of"]["position"].as_u64().unwrap() >= position).then_some(())
    })
    .await;
    let mut listings = std::collections::BTreeMap::new();
    let ids = forecourt.sql("SELECT DISTINCT listing_id FROM inventory.vehicle_listing_created", position).await;
    for id in ids {
        let id = id[0].as_str().unwrap();
        let (_, mut listing) =
            forecourt.try_get(&format!("/v1/listings/{id}?wait_ms=60000&min_position={position}")).await;
        for reflected in ["as_of", "rated_as_of"] {
            listing.as_object_mut().unwrap().remove(reflected);
        }
        listings.insert(id.to_owned(), listing);
    }
    let page = forecourt.get("/v1/search?page_size=100&sort=price").await;
    let mut kpis = Vec::new();
    for name in ["sales_volume", "offer_volume", "production_rate", "customer_satisfaction"] {
        kpis.push(
            forecourt.get(&format!("/v1/kpis/{name}?wait_ms=60000&min_position={position}")).await["rows"].clone(),
        );
    }
    json!({"counts": counts, "listings": listings, "total": page["total"], "facets": page["facets"], "hits": page["hits"], "kpis": kpis})
}

/// A client of the NATS protocol, small enough to send what no library would.
pub(crate) struct Wire {
    stream: TcpStream,
}

impl Wire {
    pub(crate) async fn connect(url: &str) -> Self {
        let stream = TcpStream::connect(url.trim_start_matches("nats://")).await.unwrap();
        let mut wire = Self { stream };
        wire.line().await;
        wire.stream.write_all(b"CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":false}\r\nSUB _REPLY 1\r\n").await.unwrap();
        wire
    }

    /// Publish, and wait until the stream has it on disk.
    pub(crate) async fn publish(&mut self, subject: &str, payload: &[u8]) {
        let answer = self.request(subject, payload).await;
        assert!(answer["seq"].as_u64().is_some(), "{answer}");
    }

    /// As [`Self::publish`], with the id by which the server recognises a repetition.
    pub(crate) async fn publish_as(&mut self, id: &str, subject: &str, payload: &[u8]) {
        let headers = format!("NATS/1.0\r\nNats-Msg-Id: {id}\r\n\r\n");
        let whole = headers.len() + payload.len();
        let answer = self.ask(format!("HPUB {subject} _REPLY {} {whole}\r\n{headers}", headers.len()), payload).await;
        assert!(answer["seq"].as_u64().is_some(), "{answer}");
    }

    pub(crate) async fn stream_messages(&mut self, stream: &str) -> u64 {
        let answer = self.request(&format!("$JS.API.STREAM.INFO.{stream}"), b"").await;
        // It may not be there yet.
        answer["state"]["messages"].as_u64().unwrap_or_default()
    }

    pub(crate) async fn stream_config(&mut self, stream: &str) -> Value {
        self.request(&format!("$JS.API.STREAM.INFO.{stream}"), b"").await["config"].take()
    }

    pub(crate) async fn delete_stream(&mut self, stream: &str) {
        let answer = self.request(&format!("$JS.API.STREAM.DELETE.{stream}"), b"").await;
        assert_eq!(answer["success"], true, "{answer}");
    }

    /// Whether there was one.
    pub(crate) async fn try_delete_stream(&mut self, stream: &str) -> bool {
        self.request(&format!("$JS.API.STREAM.DELETE.{stream}"), b"").await["success"] == true
    }

    pub(crate) async fn create_stream(&mut self, config: &Value) {
        let name = config["name"].as_str().unwrap();
        let answer = self.request(&format!("$JS.API.STREAM.CREATE.{name}"), config.to_string().as_bytes()).await;
        assert!(answer["error"].is_null(), "{answer}");
    }

    pub(crate) async fn update_stream(&mut self, config: &Value) {
        let name = config["name"].as_str().unwrap();
        let answer = self.request(&format!("$JS.API.STREAM.UPDATE.{name}"), config.to_string().as_bytes()).await;
        assert!(answer["error"].is_null(), "{answer}");
    }

    pub(crate) async fn delete_message(&mut self, stream: &str, position: u64) {
        let order = format!("{{\"seq\":{position}}}");
        let answer = self.request(&format!("$JS.API.STREAM.MSG.DELETE.{stream}"), order.as_bytes()).await;
        assert_eq!(answer["success"], true, "{answer}");
    }

    /// Publish what may be no text; the position it has.
    pub(crate) async fn publish_bytes(&mut self, subject: &[u8], headers: Option<&[u8]>, payload: &[u8]) -> u64 {
        self.try_publish_bytes(subject, headers, payload).await.expect("the server takes it")
    }

    /// The same; none, if the server does not take it.
    pub(crate) async fn try_publish_bytes(
        &mut self,
        subject: &[u8],
        headers: Option<&[u8]>,
        payload: &[u8],
    ) -> Option<u64> {
        let whole = headers.map_or(0, <[u8]>::len) + payload.len();
        let head = match headers {
            Some(headers) => {
                [b"HPUB ", subject, format!(" _REPLY {} {whole}\r\n", headers.len()).as_bytes(), headers].concat()
            }
            None => [b"PUB ", subject, format!(" _REPLY {whole}\r\n").as_bytes()].concat(),
        };
        let answer = tokio::time::timeout(DEADLINE, self.try_ask(&head, payload)).await.unwrap()?;
        answer["seq"].as_u64()
    }

    async fn request(&mut self, subject: &str, payload: &[u8]) -> Value {
        self.ask(format!("PUB {subject} _REPLY {}\r\n", payload.len()), payload).await
    }

    async fn ask(&mut self, head: String, payload: &[u8]) -> Value {
        self.try_ask(head.as_bytes(), payload).await.expect("the server answers")
    }

    /// None, if the server takes it for a fault of the protocol.
    async fn try_ask(&mut self, head: &[u8], payload: &[u8]) -> Option<Value> {
        self.stream.write_all(&[head, payload, b"\r\n"].concat()).await.ok()?;
        loop {
            let line = self.line().await;
            if line.is_empty() || line.starts_with("-ERR") {
                return None;
            }
            if let Some(message) = line.strip_prefix("MSG _REPLY 1 ") {
                let mut body = vec![0; message.trim().parse::<usize>().unwrap() + 2];
                self.stream.read_exact(&mut body).await.unwrap();
                return Some(serde_json::from_slice(body.trim_ascii()).unwrap());
            }
            if line.starts_with("PING") {
                self.stream.write_all(b"PONG\r\n").await.unwrap();
            }
        }
    }

    async fn line(&mut self) -> String {
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            match self.stream.read_u8().await {
                Ok(byte) => line.push(byte),
                // It has closed the connection.
                Err(_) => break,
            }
        }
        String::from_utf8_lossy(&line).into_owned()
    }
}
