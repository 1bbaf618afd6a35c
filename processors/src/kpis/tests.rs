use std::{sync::Arc, time::Duration};

use chrono_tz::Tz;
use ingest::SeenEvents;
use lake::{Lake, LakeConfig, SqlSession};
use rand::{Rng, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use schemas::{Catalogue, Position};
use serde_json::{Value, json};
use tokio::{runtime::Handle, sync::mpsc};
use tokio_util::sync::CancellationToken;

use super::{Board, BoardUpdate, EARLIEST, Kpis, LATEST, SeriesKey, Touched, compute};
use crate::{
    calendar::{Calendar, Grain},
    decode::{decode, message},
    kpi_definition::KpiDefinition,
};

fn event(rng: &mut ChaCha8Rng, number: usize) -> Value {
    let time = format!(
        "2026-{:02}-{:02}T{:02}:{:02}:00Z",
        rng.random_range(1..=12),
        rng.random_range(1..=28),
        rng.random_range(0..24),
        rng.random_range(0..60)
    );
    let vehicle = format!("v-{}", rng.random_range(0..6));
    let (name, data) = match rng.random_range(0..9) {
        0 => ("VehicleSold", json!({"listingId": vehicle, "soldAt": time, "finalPrice": rng.random_range(1..90_000)})),
        1 => ("VehicleReturned", json!({"returnId": vehicle, "returnedAt": time})),
        2 => (
            "AIOfferGenerated",
            json!({"offerId": vehicle, "vehicleId": vehicle, "offerAmount": rng.random_range(1..90_000)}),
        ),
        3 => ("OfferAccepted", json!({"offerId": vehicle, "acceptedAt": time})),
        4 => ("OfferRejected", json!({"offerId": vehicle})),
        5 => ("ProductionStarted", json!({"productionJobId": "j", "vehicleId": vehicle, "startedAt": time})),
        6 => ("QualityCheckCompleted", json!({"vehicleId": vehicle})),
        7 => (
            "SurveyCompleted",
            json!({"surveyId": "s", "responses": [{"question": "nps", "answer": rng.random_range(0..=10)}]}),
        ),
        _ => ("RatingProvided", json!({"ratingId": "r", "score": rng.random_range(1..=5)})),
    };
    json!({"eventId": format!("e-{number}"), "eventType": name, "timestamp": time, "aggregateId": vehicle, "data": data})
}

/// Events come in small batches and in no order of time: each is late for some bucket. After every batch, what is kept
/// equals what a full computation over the same cut gives.
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
    updates.send(BoardUpdate { view: Some(Arc::new(lake.view())), ..BoardUpdate::default() }).await.unwrap();

    let calendars = [(Grain::Hour, Tz::Asia__Kathmandu), (Grain::Day, Tz::UTC), (Grain::Month, Tz::America__Toronto)];
    let calendars = calendars.map(|(grain, zone)| Calendar { grain, zone });
    let mut rng = ChaCha8Rng::seed_from_u64(17);
    let mut events: Vec<Value> = (0..120).map(|number| event(&mut rng, number)).collect();
    events.shuffle(&mut rng);
    let seen_folder = tempfile::tempdir().unwrap();
    let seen = SeenEvents::open(seen_folder.path(), "log", Position::new(u64::MAX)).unwrap();
    let (mut end, mut found) = (0, 0);
    for batch in events.chunks(30) {
        let messages = batch.iter().map(|event| {
            end += 1;
            message(&catalogue, end, event)
        });
        let decoded = decode(&catalogue, &seen, &messages.collect::<Vec<_>>()).unwrap();
        assert!(decoded.dead_letters.is_empty());
        lake.append(decoded.tables.iter().cloned(), decoded.to, decoded.event_time).unwrap();
        let view = Arc::new(lake.view());
        let mut touched = Touched::default();
        touched.mark(&definitions, &catalogue, &decoded.tables);
        updates.send(BoardUpdate { touched, view: Some(Arc::clone(&view)) }).await.unwrap();
        let reached = |board: &Option<Arc<Board>>| board.as_ref().is_some_and(|board| board.position.get() == end);
        let mut board = service.board.clone();
        tokio::time::timeout(Duration::from_secs(120), board.wait_for(reached)).await.unwrap().unwrap();
        for kpi in &definitions {
            for calendar in calendars {
                let key = SeriesKey { kpi: kpi.name.clone(), calendar };
                let kept = service.board_with(&key).await.unwrap();
                let whole = compute(&sql, &view, kpi, calendar, EARLIEST, LATEST).await.unwrap();
                found += whole.len();
                assert_eq!(**kept.series(&key).unwrap(), whole, "{} by {} at {end}", kpi.name, calendar.grain);
            }
        }
    }
    assert!(found > 500, "{found}");
    stop.cancel();
    running.await.unwrap();
}
