//! Queries while the log is being written: no answer mixes positions, a query that nobody waits for ends, and a plan can
//! be asked for.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::{Forecourt, Nats, eventually};

/// Vehicles that go through five events each, and how many are sent at once.
const VEHICLES: usize = 12_000;
const AT_ONCE: usize = 400;

/// The five tables, in the order in which each vehicle's events are sent.
const TABLES: [(&str, &str); 5] = [
    ("acquisition.ai_offer_generated", "AIOfferGenerated"),
    ("acquisition.vehicle_purchased", "VehiclePurchased"),
    ("production.vehicle_received_at_facility", "VehicleReceivedAtFacility"),
    ("inventory.vehicle_listing_created", "VehicleListingCreated"),
    ("inventory.vehicle_sold", "inventory.VehicleSold"),
];

/// The whole way of one vehicle.
const ALL_FIVE: &str = "SELECT count(*), sum(sold.final_price - bought.amount) \
    FROM acquisition.ai_offer_generated AS offered \
    JOIN acquisition.vehicle_purchased AS bought ON bought.offer_id = offered.offer_id \
    JOIN production.vehicle_received_at_facility AS received ON received.vehicle_id = bought.vehicle_id \
    JOIN inventory.vehicle_listing_created AS listed ON listed.vehicle_id = received.vehicle_id \
    JOIN inventory.vehicle_sold AS sold ON sold.listing_id = listed.listing_id";

/// How far each came.
const FUNNEL: &str = "SELECT count(offered.offer_id), count(bought.vehicle_id), count(received.vehicle_id), \
    count(listed.vehicle_id), count(sold.listing_id), (SELECT count(*) FROM lake.events) \
    FROM acquisition.ai_offer_generated AS offered \
    LEFT JOIN acquisition.vehicle_purchased AS bought ON bought.offer_id = offered.offer_id \
    LEFT JOIN production.vehicle_received_at_facility AS received ON received.vehicle_id = bought.vehicle_id \
    LEFT JOIN inventory.vehicle_listing_created AS listed ON listed.vehicle_id = received.vehicle_id \
    LEFT JOIN inventory.vehicle_sold AS sold ON sold.listing_id = listed.listing_id";

fn events_of(vehicle: usize) -> String {
    let time = "2026-05-01T10:00:00Z";
    let data = [
        json!({"offerId": format!("o-{vehicle}"), "vehicleId": format!("v-{vehicle}"), "offerAmount": 900}),
        json!({"purchaseId": format!("p-{vehicle}"), "vehicleId": format!("v-{vehicle}"), "sellerId": "s",
            "offerId": format!("o-{vehicle}"), "amount": 1_000, "purchaseDate": time}),
        json!({"vehicleId": format!("v-{vehicle}"), "facilityId": "f", "mileageIn": 1, "receivedAt": time}),
        json!({"listingId": format!("l-{vehicle}"), "vehicleId": format!("v-{vehicle}"), "createdAt": time}),
        json!({"listingId": format!("l-{vehicle}"), "vehicleId": format!("v-{vehicle}"), "soldAt": time,
            "finalPrice": 1_000 + vehicle % 7}),
    ];
    let lines = data.iter().zip(TABLES).enumerate().map(|(step, (data, (_, event_type)))| {
        let id = format!("e-{vehicle}-{step}");
        format!("{}\n", json!({"eventId": id, "eventType": event_type, "timestamp": time, "data": data}))
    });
    lines.collect()
}

/// What is true at a position, worked out from which event stands where.
struct Truth {
    /// Events of each step, at or before each position.
    steps: Vec<[u64; 5]>,
    /// Whole ways, and what they earned.
    ways: Vec<(u64, u64)>,
}

impl Truth {
    fn of(ids: &[String]) -> Self {
        let (mut steps, mut ways) = (vec![[0; 5]], vec![(0, 0)]);
        let mut seen: BTreeMap<usize, u32> = BTreeMap::new();
        for id in ids {
            let mut parts = id.split('-').skip(1).map(|part| part.parse::<usize>().unwrap());
            let (vehicle, step) = (parts.next().unwrap(), parts.next().unwrap());
            let mut counts = *steps.last().unwrap();
            counts[step] += 1;
            steps.push(counts);
            let came = seen.entry(vehicle).or_default();
            *came += 1;
            let (count, earned) = *ways.last().unwrap();
            let ended = u64::from(*came == 5);
            ways.push((count + ended, earned + ended * (vehicle as u64 % 7)));
        }
        Self { steps, ways }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_queries_that_join_five_event_types_see_one_cut_while_events_pour_in() {
    let folder = tempfile::tempdir().unwrap();
    let nats = Nats::start().await;
    let server = Forecourt::start(&nats, folder.path()).await;
    let sending = async {
        let mut end = 0;
        for first in (0..VEHICLES).step_by(AT_ONCE) {
            let body: String = (first..first + AT_ONCE).map(events_of).collect();
            end = server.publish(body).await.1["position"].as_u64().unwrap();
        }
        end
    };
    // In their own time, until everything is there.
    let asking = async |query: &'static str| {
        let mut answers: Vec<(usize, Vec<u64>)> = Vec::new();
        while answers.last().is_none_or(|(position, _)| *position < VEHICLES * 5) {
            let (status, body) = server.try_sql(query, 0).await;
            assert_eq!(status, 200, "{body}");
            let number = |cell: &Value| cell.as_f64().unwrap_or_default().round().abs();
            let row = body["rows"][0].as_array().unwrap().iter().map(|cell| number(cell).to_string().parse().unwrap());
            answers.push((usize::try_from(body["as_of"]["position"].as_u64().unwrap()).unwrap(), row.collect()));
        }
        answers
    };
    let (end, ways, funnels) = tokio::join!(sending, asking(ALL_FIVE), asking(FUNNEL));
    assert_eq!(end, (VEHICLES * 5) as u64);

    let order = server.sql("SELECT event_id FROM lake.events ORDER BY position", end).await;
    let ids: Vec<String> = order.iter().map(|row| row[0].as_str().unwrap().to_owned()).collect();
    let truth = Truth::of(&ids);
    for (position, row) in &ways {
        assert_eq!((row[0], row[1]), truth.ways[*position], "at {position}");
    }
    for (position, row) in &funnels {
        assert_eq!(row[..5], truth.steps[*position], "at {position}");
        assert_eq!(row[5], *position as u64);
    }
    // They were asked while it went on.
    let middle = |answers: &[(usize, Vec<u64>)]| {
        answers.iter().filter(|(position, _)| (1..VEHICLES * 5).contains(position)).count()
    };
    assert!(middle(&ways) >= 3 && middle(&funnels) >= 3, "{} {}", middle(&ways), middle(&funnels));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_nobody_waits_for_ends_and_a_plan_can_be_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let nats = Nats::start().await;
    let server = Forecourt::start(&nats, folder.path()).await;
    let running = async || {
        let metrics = server.metrics().await;
        let line = metrics.lines().find_map(|line| line.strip_prefix("sql_queries_running ")).map(str::to_owned);
        line.map_or(0.0, |value| value.parse::<f64>().unwrap())
    };
    let endless = "SELECT count(*) FROM range(0, 10000000) AS a, range(0, 10000000) AS b WHERE a.value + b.value = 7";
    let question = json!({"query": endless, "timeout_ms": 600_000});
    let ask = || server.client.post(format!("{}/v1/sql", server.url)).json(&question).send();
    let asked = tokio::sync::Mutex::new((0..4).map(|_| Box::pin(ask())).collect::<Vec<_>>());
    eventually("four queries running", || async {
        for answer in asked.lock().await.iter_mut() {
            assert!(futures::poll!(answer.as_mut()).is_pending(), "it has no end");
        }
        (running().await == 4.0).then_some(())
    })
    .await;
    drop(asked);
    eventually("all of them ended", || async { (running().await == 0.0).then_some(()) }).await;

    server
        .publish(
            json!({"eventId": "p-1", "eventType": "PriceSet", "timestamp": "2026-03-01T10:00:00Z",
            "data": {"listingId": "l-1", "price": 7}})
            .to_string(),
        )
        .await;
    let plan = server.sql("EXPLAIN SELECT price FROM inventory.price_set WHERE listing_id = 'l-1'", 1).await;
    let plan = Value::from(plan).to_string();
    assert!(plan.contains("logical_plan") && plan.contains("listing_id"), "{plan}");
    let (status, refused) = server.try_sql("EXPLAIN INSERT INTO inventory.price_set VALUES (1)", 0).await;
    assert_eq!(status, 400, "{refused}");
    let measured = server.sql("EXPLAIN ANALYZE SELECT count(*) FROM inventory.price_set", 0).await;
    assert!(Value::from(measured).to_string().contains("output_rows"));
}
