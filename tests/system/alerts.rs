//! Saved searches: told of what starts to match, once, by stream, webhook and event; whatever crashes.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::SystemTime,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use reqwest::{Response, StatusCode};
use schemas::field_type::format_timestamp;
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpListener,
};

use crate::support::{Forecourt, Nats, eventually};

const SECOND: i64 = 1_000_000;

fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros()).unwrap()
}

fn event(event_type: &str, listing: &str, at: i64, data: Value) -> String {
    let mut data = data;
    data["listingId"] = json!(listing);
    json!({
        "eventId": format!("{event_type}-{listing}-{at}"), "eventType": event_type, "eventVersion": "1.0",
        "timestamp": format_timestamp(at), "aggregateType": "Listing", "aggregateId": listing, "data": data,
    })
    .to_string()
}

/// A Civic that is listed at a time and a price; the position of that.
async fn listed(forecourt: &Forecourt, id: &str, at: i64, price: i64) -> u64 {
    let lines = [
        event(
            "VehicleListingCreated",
            id,
            at,
            json!({"vehicleId": format!("veh-{id}"), "make": "Honda", "model": "Civic", "year": 2021, "title": format!("2021 Honda Civic {id}")}),
        ),
        event("PriceSet", id, at, json!({"price": price})),
        event("ListingPublished", id, at, json!({})),
    ];
    forecourt.publish(lines.join("\n")).await.1["position"].as_u64().unwrap()
}

async fn priced(forecourt: &Forecourt, id: &str, at: i64, price: i64) {
    forecourt.publish(event("PriceSet", id, at, json!({"price": price}))).await;
}

/// What a webhook was sent: each body with its headers.
type Sent = Arc<Mutex<Vec<(BTreeMap<String, String>, String)>>>;

/// An address that refuses the first two deliveries of each match.
async fn webhook() -> (String, Sent) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/cars", listener.local_addr().unwrap());
    let sent = Sent::default();
    let kept = Arc::clone(&sent);
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            let kept = Arc::clone(&kept);
            tokio::spawn(async move {
                let mut connection = BufReader::new(connection);
                let mut headers = BTreeMap::new();
                loop {
                    let mut line = String::new();
                    if connection.read_line(&mut line).await.unwrap_or_default() == 0 {
                        return;
                    }
                    let Some((name, value)) = line.trim_end().split_once(": ") else {
                        if line == "\r\n" {
                            break;
                        }
                        continue;
                    };
                    headers.insert(name.to_lowercase(), value.to_owned());
                }
                let mut body = vec![0; headers["content-length"].parse().unwrap()];
                connection.read_exact(&mut body).await.unwrap();
                let id = headers["webhook-id"].clone();
                let tries = {
                    let mut kept = kept.lock().unwrap();
                    kept.push((headers, String::from_utf8(body).unwrap()));
                    kept.iter().filter(|(headers, _)| headers["webhook-id"] == id).count()
                };
                let status = if tries <= 2 { "503 Service Unavailable" } else { "204 No Content" };
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                connection.write_all(answer.as_bytes()).await.unwrap();
            });
        }
    });
    (url, sent)
}

/// Follow an alert.
async fn stream(forecourt: &Forecourt, alert: &str, after: Option<&str>) -> Response {
    let mut request = forecourt.client.get(format!("{}/v1/alerts/{alert}/stream", forecourt.url));
    if let Some(after) = after {
        request = request.header("last-event-id", after);
    }
    request.send().await.unwrap()
}

/// The ids and listings of this many matches of a stream.
async fn matches(mut answer: Response, count: usize) -> Vec<(String, String)> {
    let mut text = String::new();
    loop {
        let events: Vec<(String, String)> = text
            .split("\n\n")
            .filter(|event| event.contains("event: match"))
            .filter_map(|event| {
                let line = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
                let data: Value = serde_json::from_str(&line("data: ")?).ok()?;
                Some((line("id: ")?, data["listing"]["listing_id"].as_str()?.to_owned()))
            })
            .collect();
        if events.len() >= count {
            return events;
        }
        text.push_str(&String::from_utf8_lossy(&answer.chunk().await.unwrap().expect("the stream goes on")));
    }
}

async fn save(forecourt: &Forecourt, body: Value) -> (StatusCode, Value) {
    let answer = forecourt.client.post(format!("{}/v1/alerts", forecourt.url)).body(body.to_string()).send();
    let answer = answer.await.unwrap();
    (answer.status(), answer.json().await.unwrap())
}

fn told(alert: &Value) -> Vec<&str> {
    let matches = alert["matches"].as_array().unwrap().iter().rev();
    matches.map(|found| found["listing_id"].as_str().unwrap()).collect()
}

/// Wait until an alert was told of so many listings.
async fn told_of(forecourt: &Forecourt, id: &str, count: u64) -> Value {
    eventually("the matches", || async {
        let alert = forecourt.get(&format!("/v1/alerts/{id}")).await;
        (alert["match_count"].as_u64() >= Some(count)).then_some(alert)
    })
    .await
}

#[tokio::test]
async fn a_saved_search_is_told_once_of_what_starts_to_match_whatever_crashes() {
    let folder = tempfile::tempdir().unwrap();
    let nats = Nats::start().await;
    let mut forecourt = Forecourt::start_with(&nats, folder.path(), &["--webhooks-inside"]).await;
    let start = now();
    listed(&forecourt, "cheap-before", start - 3_600 * SECOND, 19_000).await;
    let position = listed(&forecourt, "dear-before", start - 3_600 * SECOND, 25_000).await;
    forecourt.get(&format!("/v1/search?q=civic&min_position={position}")).await;
    let (url, sent) = webhook().await;
    let asked = json!({"search": {"q": "civic under 20k", "year_min": 2020}, "name": "For Mara", "webhook": url});
    let (status, alert) = save(&forecourt, asked).await;
    assert_eq!(status, StatusCode::CREATED, "{alert}");
    assert_eq!(alert["search"], "year_min=2020&model=Civic&price_max=20000", "the text as it was read");
    let (id, secret) = (alert["alert_id"].as_str().unwrap(), alert["webhook_secret"].as_str().unwrap());

    let following = stream(&forecourt, id, None).await;
    // What was there before is not told, nor what is too dear; what is new is, and what gets cheap enough: also what is
    // brought late, as from a file of last month.
    priced(&forecourt, "cheap-before", start + SECOND, 18_500).await;
    listed(&forecourt, "new-dear", start + 60 * SECOND, 30_000).await;
    listed(&forecourt, "new", start - 30 * 86_400 * SECOND, 18_000).await;
    told_of(&forecourt, id, 1).await;
    priced(&forecourt, "dear-before", start - 1_800 * SECOND, 19_900).await;
    let alert = told_of(&forecourt, id, 2).await;
    assert_eq!(told(&alert), ["new", "dear-before"]);
    let events = matches(following, 2).await;
    assert_eq!(events.iter().map(|(_, listing)| listing.as_str()).collect::<Vec<_>>(), ["new", "dear-before"]);

    // The webhook has each, signed, after it was refused twice; the log says so.
    let delivered = eventually("the deliveries", || async {
        let sent = sent.lock().unwrap().clone();
        (sent.len() >= 6).then_some(sent)
    })
    .await;
    let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
    for (headers, body) in &delivered {
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
        mac.update(format!("{}.{}.{body}", headers["webhook-id"], headers["webhook-timestamp"]).as_bytes());
        let expected = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
        assert_eq!(headers["webhook-signature"], expected);
        let body: Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["data"]["match_id"], headers["webhook-id"]);
    }
    let notices = "SELECT delivered, attempts, count(*) FROM alerts.search_alert_notified GROUP BY 1, 2";
    eventually("the notices", || async { (forecourt.sql(notices, 0).await == [json!([true, 3, 2])]).then_some(()) })
        .await;

    // After a crash nothing is told again, and what is new is told.
    forecourt.kill();
    forecourt.launch();
    forecourt.ready().await;
    priced(&forecourt, "new", start + 180 * SECOND, 17_500).await;
    listed(&forecourt, "newer", start + 180 * SECOND, 16_000).await;
    let alert = told_of(&forecourt, id, 3).await;
    assert_eq!(told(&alert), ["new", "dear-before", "newer"]);
    eventually("the third delivery", || async { (sent.lock().unwrap().len() >= 9).then_some(()) }).await;
    let mut ids: Vec<String> = sent.lock().unwrap().iter().map(|(headers, _)| headers["webhook-id"].clone()).collect();
    ids.sort();
    assert!(ids.chunks(3).all(|tries| tries.len() == 3 && tries[0] == tries[2]), "each match three times: {ids:?}");
    let later = matches(stream(&forecourt, id, Some(&events[0].0)).await, 2).await;
    assert_eq!(later.iter().map(|(_, listing)| listing.as_str()).collect::<Vec<_>>(), ["dear-before", "newer"]);

    // Given up, it is told of nothing more: another alert sees what it would have been told of.
    let (_, other) = save(&forecourt, json!({"search": "make=Honda"})).await;
    let deleted = forecourt.client.delete(format!("{}/v1/alerts/{id}", forecourt.url)).send().await.unwrap();
    assert_eq!(deleted.status(), StatusCode::OK);
    listed(&forecourt, "newest", now() + SECOND, 15_000).await;
    told_of(&forecourt, other["alert_id"].as_str().unwrap(), 1).await;
    assert_eq!(forecourt.try_get(&format!("/v1/alerts/{id}")).await.0, StatusCode::NOT_FOUND);
    let all = forecourt.sql("SELECT listing_id FROM alerts.search_alert_matched ORDER BY position", 0).await;
    assert_eq!(all, [json!(["new"]), json!(["dear-before"]), json!(["newer"]), json!(["newest"])]);
    let listed = forecourt.get("/v1/alerts").await;
    assert_eq!(listed["alerts"].as_array().unwrap().len(), 1, "{listed}");
}

/// What was mistyped, or only begun, finds as an alert what it found as a search.
#[tokio::test]
async fn a_saved_search_asks_what_the_search_showed() {
    let folder = tempfile::tempdir().unwrap();
    let nats = Nats::start().await;
    let forecourt = Forecourt::start(&nats, folder.path()).await;
    let position = listed(&forecourt, "before", now() - 3_600 * SECOND, 19_000).await;
    let found = forecourt.get(&format!("/v1/search?q=hinda&min_position={position}")).await;
    assert_eq!((&found["total"], &found["corrections"][0]["to"]), (&json!(1), &json!("honda")));
    let mut alerts = Vec::new();
    for (text, saved) in [
        ("hinda", "q=honda&raw=true"),
        ("civ", "q=civ&raw=true"),
        ("2021 hond", "year_max=2021&year_min=2021&q=hond&raw=true"),
    ] {
        let (status, alert) = save(&forecourt, json!({"search": {"q": text}})).await;
        assert_eq!((status, &alert["search"]), (StatusCode::CREATED, &json!(saved)), "{alert}");
        alerts.push(alert["alert_id"].as_str().unwrap().to_owned());
    }
    listed(&forecourt, "new", now() - 60 * SECOND, 15_000).await;
    for id in &alerts {
        assert_eq!(told(&told_of(&forecourt, id, 1).await), ["new"]);
    }
    // A page that shows no match yet misses none that comes before it listens.
    let url = format!("{}/v1/alerts/{}/stream?after=0", forecourt.url, alerts[0]);
    let late = matches(forecourt.client.get(url).send().await.unwrap(), 1).await;
    assert_eq!(late[0].1, "new");
}

#[tokio::test]
async fn what_cannot_be_saved_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let nats = Nats::start().await;
    let forecourt = Forecourt::start(&nats, folder.path()).await;
    for (body, said) in [
        (json!({}), "search"),
        (json!({"search": "colour=blue"}), "there is no parameter \"colour\" here"),
        (json!({"search": {"price_max": "cheap"}}), "price_max is a number, not \"cheap\""),
        (json!({"search": "", "webhook": "ftp://example.org"}), "webhook is an address"),
        (json!({"search": "", "expires_at": "soon"}), "expires_at is an RFC 3339 time, not \"soon\""),
        (json!({"search": "", "email": "a@example.org"}), "there is no field \"email\" here"),
    ] {
        let (status, problem) = save(&forecourt, body.clone()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(said), "{body}: {problem}");
    }
    let ended = json!({"search": "make=Honda", "expires_at": format_timestamp(now() - SECOND)});
    let (status, ended) = save(&forecourt, ended).await;
    assert_eq!(status, StatusCode::CREATED, "{ended}");
    let (_, open) = save(&forecourt, json!({"search": "make=Honda"})).await;
    listed(&forecourt, "new", now() + SECOND, 15_000).await;
    told_of(&forecourt, open["alert_id"].as_str().unwrap(), 1).await;
    let ended = forecourt.get(&format!("/v1/alerts/{}", ended["alert_id"].as_str().unwrap())).await;
    assert_eq!(ended["match_count"], 0, "an alert that has ended is told of nothing");
}
