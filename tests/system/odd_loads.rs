//! Odd but legal loads: what is published beside them is found soon, and nothing gives up.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{
    door::event,
    support::{DEADLINE, Forecourt, Nats, eventually},
};

/// From an acknowledgement until a search finds it, beside the load. A second on an idle machine; tests share theirs.
const FOUND_WITHIN: Duration = Duration::from_secs(45);

/// List a car beside the load; how long until a search finds it.
async fn found_after(server: &Forecourt, id: &str) -> Duration {
    let events = [
        event(
            &format!("{id}-1"),
            "VehicleListingCreated",
            id,
            json!({"listingId": id, "vehicleId": format!("v-{id}"), "make": "Honda", "model": "Civic", "year": 2021}),
        ),
        event(&format!("{id}-2"), "PriceSet", id, json!({"listingId": id, "price": 9})),
        event(&format!("{id}-3"), "ListingPublished", id, json!({"listingId": id})),
    ];
    let (_, report) = server.publish(events.map(|event| event.to_string()).join("\n")).await;
    let (position, acknowledged) = (report["position"].as_u64().unwrap(), Instant::now());
    let deadline = acknowledged + DEADLINE;
    loop {
        let path = format!("/v1/search?make=Honda&page_size=100&min_position={position}&wait_ms=60000");
        let (status, found) = server.try_get(&path).await;
        if status.is_success() && crate::support::ids(&found).contains(&id) {
            return acknowledged.elapsed();
        }
        assert!(Instant::now() < deadline, "{id} is not found");
    }
}

#[tokio::test]
async fn many_photos_and_prices_of_one_car_hold_up_nobody_and_its_page_stays_small() {
    let folder = tempfile::tempdir().unwrap();
    let nats = Nats::start().await;
    let server = Forecourt::start(&nats, folder.path()).await;
    found_after(&server, "lst-odd").await;
    for number in 0..10 {
        let urls: Vec<String> = (0..30_000).map(|photo| format!("https://x.example/{number}/{photo}.jpg")).collect();
        let data = json!({"listingId": "lst-odd", "photoUrls": urls});
        let (status, report) =
            server.publish(event(&format!("photos-{number}"), "PhotosUploaded", "lst-odd", data).to_string()).await;
        assert!(status.is_success(), "{report}");
    }
    let took = found_after(&server, "lst-beside-photos").await;
    assert!(took < FOUND_WITHIN, "{took:?}");
    let prices = (0..20_000).map(|number| {
        let mut price = event(
            &format!("price-{number}"),
            "PriceSet",
            "lst-odd",
            json!({"listingId": "lst-odd", "price": 10_000 + number % 777}),
        );
        price["timestamp"] = json!(schemas::field_type::format_timestamp(1_767_225_600_000_000 + number * 1_000_000));
        price.to_string()
    });
    let (_, report) = server.publish(prices.collect::<Vec<_>>().join("\n")).await;
    assert_eq!(report["accepted"], 20_000);
    let took = found_after(&server, "lst-beside-prices").await;
    assert!(took < FOUND_WITHIN, "{took:?}");
    for path in ["/vehicles/lst-odd", "/v1/listings/lst-odd", "/v1/search?make=Honda"] {
        let answer = server.client.get(format!("{}{path}", server.url)).send().await.unwrap();
        let bytes = answer.bytes().await.unwrap().len();
        // Most of the page is the 200 photos that are shown of a listing.
        assert!(bytes < 300 << 10, "{path} has {bytes} bytes");
    }
    let history = async |query: &str| server.get(&format!("/v1/listings/lst-odd/price-history{query}")).await;
    let usual = history("").await;
    let shown = usual["prices"].as_array().unwrap();
    assert_eq!((shown.len(), usual["left_out"].as_u64()), (1_000, Some(19_001)));
    // The latest, each compared with the one before it; the first price that it had was set for a later time.
    assert_eq!(shown[999]["price"].as_f64(), Some(9.0));
    assert_eq!(shown[998]["price"].as_f64(), Some(f64::from(10_000 + 19_999 % 777)));
    assert_eq!(shown[0]["change"].as_f64(), Some(f64::from(19_001 % 777 - 19_000 % 777)));
    assert_eq!((usual["lowest"].as_f64(), usual["highest"].as_f64()), (Some(9.0), Some(10_776.0)));
    assert_eq!(history("?limit=10000").await["left_out"], 10_001);
}

#[tokio::test]
async fn events_of_a_megabyte_are_merged_or_left_and_maintenance_ends_well() {
    let folder = tempfile::tempdir().unwrap();
    let nats = Nats::start().await;
    let server = Forecourt::start(&nats, folder.path()).await;
    for number in 0..120 {
        let text: String = (0..1_000_000_u32)
            .map(|at| char::from(b'a' + (at.wrapping_mul(2_654_435_761 + number) >> 27) as u8 % 26))
            .collect();
        let data = json!({"listingId": "lst-1", "price": 9, "note": text});
        let (status, report) =
            server.publish(event(&format!("large-{number}"), "PriceSet", "lst-1", data).to_string()).await;
        assert!(status.is_success(), "{report}");
    }
    let took = found_after(&server, "lst-beside").await;
    assert!(took < FOUND_WITHIN, "{took:?}");
    for _ in 0..2 {
        let request = server.client.post(format!("{}/v1/maintenance", server.url)).json(&json!({}));
        let answer = request.send().await.unwrap();
        let status = answer.status();
        assert!(status.is_success(), "{status}: {}", answer.text().await.unwrap());
    }
}

#[tokio::test]
async fn matches_of_alerts_there_are_not_hold_up_no_new_alert() {
    const MATCHES: usize = 300_000;
    let folder = tempfile::tempdir().unwrap();
    let nats = Nats::start().await;
    let server = Forecourt::start(&nats, folder.path()).await;
    let mut position = 0;
    for first in (0..MATCHES).step_by(50_000) {
        let matches = (first..first + 50_000).map(|number| {
            let data = json!({"alertId": format!("nobody-{}", number % 1_000), "listingId": format!("l-{number}"),
                "matchId": format!("m-{number}"), "matchedAt": "2026-11-02T08:30:00Z"});
            event(&format!("match-{number}"), "alerts.SearchAlertMatched", "nobody", data).to_string()
        });
        let (_, report) = server.publish(matches.collect::<Vec<_>>().join("\n")).await;
        assert_eq!(report["accepted"], 50_000, "{report}");
        position = report["position"].as_u64().unwrap();
    }
    server.reflects(position).await;
    for number in 0..5 {
        let started = Instant::now();
        let request = server.client.post(format!("{}/v1/alerts", server.url));
        let made: Value = request
            .json(&json!({"search": "make=Honda", "name": format!("alert {number}")}))
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        let id = made["alert_id"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned();
        eventually("the alert there", || async {
            let (status, _) = server.try_get(&format!("/v1/alerts/{id}")).await;
            status.is_success().then_some(())
        })
        .await;
        assert!(started.elapsed() < FOUND_WITHIN, "{:?}", started.elapsed());
    }
}

#[tokio::test]
async fn sixty_thousand_makes_are_found_and_pages_stay_small() {
    const MAKES: usize = 60_000;
    let folder = tempfile::tempdir().unwrap();
    let nats = Nats::start().await;
    let server = Forecourt::start(&nats, folder.path()).await;
    for first in (0..MAKES).step_by(10_000) {
        let cars = (first..first + 10_000).flat_map(|number| {
            let id = format!("lst-{number}");
            let car = json!({"listingId": id, "vehicleId": format!("v-{number}"), "make": format!("Make {number}"),
                "model": format!("Model {number}"), "year": 2021});
            let created = event(&format!("{id}-1"), "VehicleListingCreated", &id, car);
            let published = event(&format!("{id}-2"), "ListingPublished", &id, json!({"listingId": id}));
            [created.to_string(), published.to_string()]
        });
        let (_, report) = server.publish(cars.collect::<Vec<_>>().join("\n")).await;
        assert_eq!(report["accepted"], 20_000, "{report}");
    }
    let took = found_after(&server, "lst-beside-makes").await;
    assert!(took < FOUND_WITHIN, "{took:?}");
    let paths = [
        "/v1/search?hierarchy=true&page_size=1",
        "/v1/search?facets=make:1000&page_size=1",
        "/v1/search?facet_query=make:mak&page_size=1",
        "/v1/suggest?q=mak",
        "/?q=make",
        "/sitemap.xml",
    ];
    for path in paths {
        let answer = server.client.get(format!("{}{path}", server.url)).send().await.unwrap();
        let status = answer.status();
        let bytes = answer.bytes().await.unwrap().len();
        assert!(status.is_success() && bytes < 1 << 20, "{path}: {status}, {bytes} bytes");
    }
    let tree = server.get("/v1/search?hierarchy=true&page_size=1").await;
    assert_eq!(tree["total"], MAKES + 1);
    let makes = tree["hierarchy"].as_array().unwrap();
    // Each make has a model; the one of the car beside them is among them, or is left out.
    let shown = makes.iter().map(|make| 1 + make["below"].as_array().map_or(0, Vec::len)).sum::<usize>();
    assert_eq!((shown, tree["hierarchy_left_out"].as_u64().unwrap()), (5_000, 2 * (MAKES as u64 + 1) - 5_000));
}
