use std::collections::{HashMap, HashSet};

use schemas::{Catalogue, validation::parse_event};
use serde_json::Value;

use super::Market;

const MICROS_2026: i64 = 1_767_225_600_000_000;

fn history(seed: u64, days: u32, vehicles: u32) -> String {
    let mut bytes = Vec::new();
    Market { seed, days, vehicles, start: MICROS_2026 }.write(&mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn a_small_market_tells_every_event_of_the_marketplace_validly_and_in_order() {
    let catalogue = Catalogue::embedded().unwrap();
    for (days, vehicles) in [(90, 20), (7, 30), (365, 20)] {
        let history = history(7, days, vehicles);
        let (mut kinds, mut last) = (HashSet::new(), 0);
        for line in history.lines() {
            let event = parse_event(&catalogue, line.as_bytes(), None).unwrap();
            assert_eq!(event.extra, None, "{line}");
            assert!(event.time >= last, "{line}");
            last = event.time;
            kinds.insert((event.kind.context, catalogue.event_at(event.kind).name.clone()));
        }
        // The shop, the dealers, the courses and the loyalty programme are other systems.
        let marketplace = |name: &str| !["shop", "dealers", "courses", "loyalty"].contains(&name);
        let missing: Vec<_> = catalogue
            .indexed()
            .filter(|(_, context)| marketplace(&context.name))
            .flat_map(|(index, context)| context.events.iter().map(move |event| (index, event.name.clone())))
            .filter(|kind| !kinds.contains(kind))
            .collect();
        assert!(missing.is_empty(), "{days} days, {vehicles} vehicles lack {missing:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_seed_does_not() {
    assert_eq!(history(1, 30, 12), history(1, 30, 12));
    assert_ne!(history(1, 30, 12), history(2, 30, 12));
}

#[test]
fn ids_agree_and_effects_follow_their_causes() {
    let history = history(3, 120, 60);
    let mut happened: HashMap<(&'static str, String), usize> = HashMap::new();
    let mut ids = HashSet::new();
    // What must have happened before, to the same id.
    let causes: HashMap<&str, (&'static str, &str)> = HashMap::from([
        ("VehicleSold", ("ListingPublished", "listingId")),
        ("ListingPublished", ("VehicleListingCreated", "listingId")),
        ("ProductionStarted", ("VehiclePurchased", "vehicleId")),
        ("VehiclePurchased", ("VehicleDetailsSubmitted", "vehicleId")),
        ("OfferAccepted", ("AIOfferGenerated", "offerId")),
        ("QualityCheckCompleted", ("ProductionStarted", "vehicleId")),
        ("VehicleListingCreated", ("VehicleCertified", "vehicleId")),
        ("ReservationExpired", ("VehicleReserved", "reservationId")),
        ("DeliveryCompleted", ("DeliveryScheduled", "deliveryId")),
        ("VehicleKept", ("TestOwnershipStarted", "trialId")),
        ("VehicleReturned", ("ReturnRequested", "returnId")),
        ("WarrantyClaimSubmitted", ("WarrantyIncluded", "warrantyId")),
    ]);
    let mut checked = 0;
    for line in history.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        assert!(ids.insert(event["eventId"].as_str().unwrap().to_owned()), "a repeated event id: {line}");
        let name = event["eventType"].as_str().unwrap();
        if let Some((cause, key)) = causes.get(name) {
            let id = event["data"][*key].as_str().unwrap();
            assert!(happened.contains_key(&(*cause, id.to_owned())), "{name} of {id} without {cause}");
            checked += 1;
        }
        for (cause, key) in causes.values().filter(|(cause, _)| *cause == name) {
            *happened.entry((*cause, event["data"][*key].as_str().unwrap().to_owned())).or_default() += 1;
        }
    }
    assert!(checked > 300, "{checked}");
}
