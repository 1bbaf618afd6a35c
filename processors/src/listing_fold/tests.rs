use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use ingest::SeenEvents;
use proptest::{prelude::*, sample::Index};
use schemas::{Catalogue, Position};
use search_index::{Listing, ListingStatus};
use serde_json::{Value, json};

use super::{Entity, EntityKey, EntityKind, changes, listing};
use crate::decode::{decode, message};

/// Few ids and few instants, so that events meet and conflict.
fn event() -> impl Strategy<Value = Value> {
    (0..13_usize, 0..2_u8, 0..2_u8, 0..40_u32, 0..1_000_u32).prop_map(|(kind, listing, reservation, second, salt)| {
        let (lst, veh, res) = (format!("l{listing}"), format!("v{listing}"), format!("r{reservation}"));
        let (name, aggregate, data) = match kind {
            0 => ("VehicleListingCreated", &lst, json!({"listingId": lst, "vehicleId": veh, "make": format!("M{}", salt % 3)})),
            1 => ("PriceSet", &lst, json!({"listingId": lst, "price": salt + 1})),
            2 => ("ListingPublished", &lst, json!({"listingId": lst})),
            3 => ("ListingDeactivated", &lst, json!({"listingId": lst})),
            4 => ("VehicleSold", &lst, json!({"listingId": lst, "soldAt": "2026-01-05T00:00:00Z", "finalPrice": salt + 1})),
            5 => ("VehicleSentToWholesale", &veh, json!({"vehicleId": veh})),
            6 => ("VehicleReserved", &veh, json!({"reservationId": res, "vehicleId": veh, "reservedUntil": "2030-01-01T00:00:00Z"})),
            7 => ("ReservationExpired", &res, json!({"reservationId": res})),
            8 => ("VehicleUnavailable", &veh, json!({"vehicleId": veh})),
            9 => ("VehicleAvailable", &veh, json!({"vehicleId": veh})),
            10 => ("VehicleDetailsSubmitted", &veh, json!({"vehicleId": veh, "make": format!("M{}", salt % 3), "model": "X", "year": 2020, "mileage": salt})),
            11 => ("VehicleDetailsUpdated", &lst, json!({"listingId": lst, "updatedFields": [{"field": "mileage", "value": salt}]})),
            _ => ("VehicleViewed", &veh, json!({"vehicleId": veh})),
        };
        let aggregate_type = if aggregate == &veh { "Vehicle" } else { "Listing" };
        json!({
            "eventId": format!("{name}-{lst}-{res}-{second}-{salt}"), "eventType": name,
            "timestamp": format!("2026-01-01T00:00:{second:02}Z"),
            "aggregateType": aggregate_type, "aggregateId": aggregate, "data": data
        })
    })
}

/// Decode in this order, and fold: all listings there are.
fn folded(catalogue: &Arc<Catalogue>, events: &[&Value]) -> BTreeMap<String, Listing> {
    let messages = events.iter().zip(1..).map(|(event, position)| message(catalogue, position, event));
    let folder = tempfile::tempdir().unwrap();
    let seen = SeenEvents::open(folder.path(), "log", Position::new(u64::MAX)).unwrap();
    let decoded = decode(catalogue, &seen, Position::START, &messages.collect::<Vec<_>>()).unwrap();
    assert!(decoded.dead_letters.is_empty(), "{:?}", decoded.dead_letters);
    let mut entities: HashMap<EntityKey, Entity> = HashMap::new();
    for (table, batch) in &decoded.tables {
        if let Some(context) = catalogue.contexts().get(*table) {
            for (key, change) in changes(context, batch, Position::START) {
                entities.entry(key).or_default().apply(change);
            }
        }
    }
    let get = |key: Option<EntityKey>| key.and_then(|key| entities.get(&key).cloned()).unwrap_or_default();
    let ids = entities.keys().filter_map(|key| key.id(EntityKind::Listing));
    let build = |id: &str| {
        let own = get(Some(EntityKind::Listing.key(id)));
        let vehicle = get(own.vehicle());
        let linked = |kind: EntityKind| -> Vec<Entity> {
            vehicle.links().filter(|link| link.id(kind).is_some()).map(|link| get(Some(link.clone()))).collect()
        };
        listing(id, &own, &vehicle, &linked(EntityKind::Reservation), &linked(EntityKind::Inspection))
    };
    ids.map(|id| (id.to_owned(), build(id))).collect()
}

/// What a plain loop over the events in order of time makes of one listing: status, price, mileage.
fn naive(events: &[Value], id: &str) -> (ListingStatus, Option<i64>, Option<i64>) {
    let vehicle = id.replace('l', "v");
    let mut sorted: Vec<&Value> = events.iter().collect();
    let key = |event: &Value| (event["timestamp"].to_string(), event["eventId"].to_string());
    sorted.sort_by_key(|event| key(event));
    let linked =
        events.iter().any(|event| event["eventType"] == "VehicleListingCreated" && event["data"]["listingId"] == *id);
    let (mut published, mut sold, mut wholesale, mut withdrawn) = (None, None, None, None);
    let (mut price, mut mileage) = (None, None);
    for (at, event) in sorted.into_iter().enumerate() {
        let data = &event["data"];
        let (own, of_vehicle) = (data["listingId"] == *id, linked && data["vehicleId"] == *vehicle);
        match event["eventType"].as_str().unwrap() {
            "PriceSet" if own => price = data["price"].as_i64().map(|price| price * 100),
            "ListingPublished" if own => published = Some(at),
            "ListingDeactivated" if own => withdrawn = Some(at),
            "VehicleSold" if own => sold = Some(at),
            "VehicleSentToWholesale" if of_vehicle => wholesale = Some(at),
            "VehicleDetailsSubmitted" if of_vehicle => mileage = data["mileage"].as_i64(),
            "VehicleDetailsUpdated" if own => mileage = data["updatedFields"][0]["value"].as_i64(),
            _ => {}
        }
    }
    let status = match () {
        () if sold > published => ListingStatus::Sold,
        () if wholesale > published => ListingStatus::Wholesale,
        () if withdrawn > published => ListingStatus::Withdrawn,
        () if published.is_some() => ListingStatus::Public,
        () => ListingStatus::Draft,
    };
    (status, price, mileage)
}

/// A listing, wherever the log has what it is made of.
fn anywhere(mut listing: Listing) -> Listing {
    listing.listed_position = None;
    listing.prices.iter_mut().for_each(|price| price.position = Position::START);
    listing
}

/// Where the latest event that lists it is.
fn listed_at(events: &[Value], id: &str) -> Option<Position> {
    let lists = |event: &Value| event["eventType"] == "ListingPublished" && event["data"]["listingId"] == *id;
    let listed = (1..).zip(events).filter(|(_, event)| lists(event));
    let latest = listed.max_by_key(|(_, event)| (event["timestamp"].to_string(), event["eventId"].to_string()));
    latest.map(|(position, _)| Position::new(position))
}

/// Each price in the order of time, and where it was said first of those that follow each other.
fn prices(events: &[Value], id: &str) -> (Vec<i64>, Vec<Position>) {
    let prices =
        (1..).zip(events).filter(|(_, event)| event["eventType"] == "PriceSet" && event["data"]["listingId"] == *id);
    let mut prices: Vec<(u64, &Value)> = prices.collect();
    prices.sort_by_key(|(_, event)| (event["timestamp"].to_string(), event["eventId"].to_string()));
    let (mut cents, mut positions) = (Vec::new(), Vec::<Position>::new());
    for (position, event) in prices {
        let (price, position) = (event["data"]["price"].as_i64().unwrap() * 100, Position::new(position));
        if cents.last() == Some(&price) {
            let last = positions.last_mut().unwrap();
            *last = position.min(*last);
        } else {
            cents.push(price);
            positions.push(position);
        }
    }
    (cents, positions)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_order_and_any_repetition_of_a_history_gives_the_listings_of_the_naive_fold(
        events in proptest::collection::vec(event(), 1..40),
        order in proptest::collection::vec(any::<Index>(), 40),
        repeated in proptest::collection::vec(any::<Index>(), 0..10),
    ) {
        let catalogue = Catalogue::embedded().unwrap();
        let in_order: Vec<&Value> = events.iter().collect();
        let mut disorderly = in_order.clone();
        for (place, other) in order.iter().enumerate().take(disorderly.len()) {
            let other = other.index(disorderly.len());
            disorderly.swap(place, other);
        }
        for again in &repeated {
            disorderly.push(again.get(&events));
        }
        let listings = folded(&catalogue, &in_order);
        let anywhere = |listings: &BTreeMap<String, Listing>| -> Vec<Listing> { listings.values().cloned().map(anywhere).collect() };
        prop_assert_eq!(anywhere(&folded(&catalogue, &disorderly)), anywhere(&listings));
        // Two different events may have been given one id; then only the first of them counts, and order does matter.
        let ids: std::collections::HashSet<_> = events.iter().map(|event| event["eventId"].to_string()).collect();
        prop_assume!(ids.len() == events.len());
        for (id, listing) in &listings {
            let (status, price, mileage) = naive(&events, id);
            prop_assert_eq!((listing.status, listing.price_cents, listing.mileage), (status, price, mileage), "{}", id);
            prop_assert_eq!(listing.listed_position, listed_at(&events, id), "{}", id);
            let cents: Vec<i64> = listing.prices.iter().map(|price| price.cents).collect();
            let positions: Vec<Position> = listing.prices.iter().map(|price| price.position).collect();
            prop_assert_eq!((cents, positions), prices(&events, id), "{}", id);
        }
    }
}
