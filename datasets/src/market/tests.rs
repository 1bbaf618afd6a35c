use std::collections::{BTreeMap, HashMap, HashSet};

use schemas::{Catalogue, envelope::Style, validation::parse_event};
use serde_json::Value;

use super::Market;
use crate::{Disorder, truth::ListingTruth};

const MICROS_2026: i64 = 1_767_225_600_000_000;

fn history(seed: u64, days: u32, vehicles: u32) -> String {
    let mut bytes = Vec::new();
    Market::new(seed, MICROS_2026, days, vehicles).write(&mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn a_small_market_tells_every_event_of_the_catalogue_validly_and_in_order() {
    let catalogue = Catalogue::embedded().unwrap();
    for (days, vehicles) in [(90, 20), (7, 30), (365, 20), (1, 600)] {
        let history = history(7, days, vehicles);
        let (mut kinds, mut last) = (HashSet::new(), 0);
        for line in history.lines() {
            let event = parse_event(&catalogue, line.as_bytes(), None).unwrap();
            assert_eq!(event.extra, None, "{line}");
            assert!(event.time >= last, "{line}");
            last = event.time;
            kinds.insert(catalogue.qualified_name(event.kind));
        }
        let all = catalogue.events().map(|(context, event)| format!("{}.{}", context.name, event.name));
        let missing: Vec<_> = all.filter(|name| !kinds.contains(name)).collect();
        assert!(missing.is_empty(), "{days} days, {vehicles} vehicles lack {missing:?}");
    }
}

#[test]
fn the_ledger_says_what_the_events_say() {
    let mut bytes = Vec::new();
    let truth = Market::new(11, MICROS_2026, 120, 80).write(&mut bytes).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (mut counts, mut sold, mut revenue, mut returned) = (BTreeMap::<String, u64>::new(), 0, 0, 0);
    let (mut offered, mut answers, mut prices) = (0, 0, HashMap::new());
    for line in text.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        let (name, data) = (event["eventType"].as_str().unwrap(), &event["data"]);
        *counts.entry(name.to_owned()).or_default() += 1;
        match name {
            "VehicleSold" => {
                sold += 1;
                revenue += data["finalPrice"].as_i64().unwrap();
            }
            "VehicleReturned" => returned += 1,
            "AIOfferGenerated" => offered += data["offerAmount"].as_i64().unwrap(),
            "SurveyCompleted" => answers += 1,
            "PriceSet" => drop(prices.insert(data["listingId"].as_str().unwrap().to_owned(), data["price"].as_i64())),
            _ => {}
        }
    }
    let sales = truth.kpis.sales_volume.values();
    let told =
        sales.fold((0, 0, 0), |sum, day| (sum.0 + day.units_sold, sum.1 + day.revenue, sum.2 + day.units_returned));
    assert_eq!(told, (sold, revenue, returned));
    assert_eq!(truth.kpis.offer_volume.values().map(|day| day.offered).sum::<i64>(), offered);
    assert_eq!(truth.kpis.customer_satisfaction.values().map(|day| day.nps_answers).sum::<u64>(), answers);
    assert!(sold > 30 && returned > 0 && answers > 10, "{sold} {returned} {answers}");
    assert_eq!((truth.lines, truth.events), (text.lines().count() as u64, counts.values().sum()));
    assert_eq!(truth.counts["inventory.PriceSet"], counts["PriceSet"]);
    assert_eq!(truth.listings.values().filter(|listing| listing.status == "sold").count() as u64, sold);
    for (id, listing) in &truth.listings {
        assert_eq!(Some(&listing.price), prices.get(id), "{id}");
    }
}

#[test]
fn a_disorderly_history_has_the_events_of_the_orderly_one_and_says_what_befell_them() {
    let catalogue = Catalogue::embedded().unwrap();
    let disorder = Disorder { duplicates: 0.05, late: 0.10, malformed: 0.02, shuffled: 0.25 };
    let mut bytes = Vec::new();
    let truth = Market { disorder, ..Market::new(3, MICROS_2026, 30, 40) }.write(&mut bytes).unwrap();
    let (text, orderly) = (String::from_utf8(bytes).unwrap(), history(3, 30, 40));
    let malformed: HashMap<u64, &str> = truth.malformed.iter().map(|line| (line.line, line.code)).collect();
    let (mut seen, mut repeated, mut late, mut latest) = (HashSet::new(), 0, 0, 0);
    for (number, line) in (1..).zip(text.lines()) {
        match parse_event(&catalogue, line.as_bytes(), None) {
            Err(rejection) => assert_eq!(malformed.get(&number), Some(&rejection.code.as_str()), "{line}"),
            Ok(event) if seen.insert(line) => {
                late += u64::from(event.time < latest);
                latest = latest.max(event.time);
            }
            Ok(_) => repeated += 1,
        }
    }
    assert_eq!(seen, orderly.lines().collect());
    assert_eq!((truth.events, truth.duplicates, truth.late), (seen.len() as u64, repeated, late));
    assert_eq!(truth.lines, truth.events + truth.duplicates + malformed.len() as u64);
    let near = |part: u64, share: f64| (part as f64 / truth.events as f64 - share).abs() < share / 4.0;
    assert!(near(truth.duplicates, 0.05) && near(malformed.len() as u64, 0.02), "{truth:?}");
    // Late by at least a second; of the shuffled, those that something overtook.
    assert!(truth.late as f64 > 0.1 * truth.events as f64, "{}", truth.late);
}

#[test]
fn every_envelope_says_the_same() {
    let catalogue = Catalogue::embedded().unwrap();
    let events = |style: Style| {
        let mut bytes = Vec::new();
        Market { style, ..Market::new(5, MICROS_2026, 20, 12) }.write(&mut bytes).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let read = |line: &str| {
            let event = parse_event(&catalogue, line.as_bytes(), None).unwrap();
            (event.id, event.kind, event.time, event.cells)
        };
        text.lines().map(read).collect::<Vec<_>>()
    };
    let canonical = events(Style::Canonical);
    for style in [Style::SnakeCase, Style::Business, Style::CloudEvents] {
        assert_eq!(events(style), canonical, "{style:?}");
    }
}

#[test]
fn a_car_is_worth_less_the_older_it_is_and_the_further_it_has_gone() {
    let truth = Market::new(2, MICROS_2026, 60, 1_500).write(&mut std::io::sink()).unwrap();
    let mean = |cars: &mut dyn Iterator<Item = &ListingTruth>| {
        let prices: Vec<i64> = cars.filter_map(|car| car.price).collect();
        assert!(prices.len() > 20, "{}", prices.len());
        prices.iter().sum::<i64>() / prices.len() as i64
    };
    let cars = || truth.listings.values();
    let by_age: Vec<i64> = [2025..=2026, 2022..=2024, 2018..=2021, 2010..=2017]
        .into_iter()
        .map(|years| mean(&mut cars().filter(|car| years.contains(&car.year))))
        .collect();
    assert!(by_age.is_sorted_by(|newer, older| newer > older), "{by_age:?}");
    let (few, many) =
        (mean(&mut cars().filter(|car| car.mileage < 40_000)), mean(&mut cars().filter(|car| car.mileage > 120_000)));
    assert!(few > many * 3 / 2, "{few} {many}");
    assert!(cars().map(|car| car.city).collect::<HashSet<_>>().len() > 40);
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_seed_does_not() {
    assert_eq!(history(1, 30, 12), history(1, 30, 12));
    assert_ne!(history(1, 30, 12), history(2, 30, 12));
    let on = |cores: usize| {
        let mut lines = Vec::new();
        let market = Market::new(1, MICROS_2026, 20, 600);
        let mut keep = |line: &str| {
            lines.push(line.to_owned());
            Ok(())
        };
        market.play_on(cores, &mut keep).unwrap();
        lines
    };
    assert_eq!(on(1), on(3));
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
