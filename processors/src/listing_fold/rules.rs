//! What each event says about which entity.

use std::collections::HashSet;

use schemas::{field_type::Cell, time::MICROS_PER_DAY};
use serde_json::{Value, json};

use super::{
    entity::{Change, EntityKey, EntityKind, MAX_PHOTOS},
    row::Row,
};

/// The contexts whose events say something about listings.
pub const CONTEXTS: [&str; 5] = ["acquisition", "production", "inventory", "browsing", "purchase"];

/// Facts of a vehicle, which its listing may state anew.
pub(super) const VEHICLE_FACTS: [&str; 17] = [
    "vin",
    "make",
    "model",
    "trim",
    "year",
    "mileage",
    "condition",
    "body_type",
    "fuel_type",
    "transmission",
    "drivetrain",
    "engine",
    "exterior_color",
    "interior_color",
    "doors",
    "seats",
    "features",
];

/// Facts of the listing alone.
const LISTING_FACTS: [&str; 9] =
    ["title", "description", "dealer_id", "dealer_name", "city", "province", "country", "latitude", "longitude"];

/// How much a view, and how much a favourite, adds to popularity.
const VIEW: i64 = 1;
const FAVORITE: i64 = 5;

type Changes = Vec<(EntityKey, Change)>;

/// Add what one event says. Events that say nothing about listings add nothing.
pub(super) fn extract_changes(changes: &mut Changes, event_type: &str, row: &Row<'_>) {
    match event_type {
        "VehicleDetailsSubmitted" => {
            say_about(changes, EntityKind::Vehicle, row, |row| copy(row, &VEHICLE_FACTS, &["photos"]))
        }
        "VehicleReceivedAtFacility" => {
            say_about(changes, EntityKind::Vehicle, row, |row| renamed(row, "mileage_in", "mileage"))
        }
        "VehiclePhotographed" => {
            say_about(changes, EntityKind::Vehicle, row, |row| renamed(row, "photo_urls", "studio_photos"))
        }
        "VehicleHistoryVerified" => say_about(changes, EntityKind::Vehicle, row, |row| {
            copy(row, &["history_status", "accident_history", "owner_count"], &[])
        }),
        "VehicleCertified" => {
            say_about(changes, EntityKind::Vehicle, row, |row| vec![row.set("certified", json!(true))])
        }
        "CertificationFailed" => {
            say_about(changes, EntityKind::Vehicle, row, |row| vec![row.set("certified", json!(false))])
        }
        "VehicleSentToWholesale" => {
            say_about(changes, EntityKind::Vehicle, row, |row| vec![row.set("wholesale", json!(true))])
        }
        "VehicleAvailable" => {
            say_about(changes, EntityKind::Vehicle, row, |row| vec![row.set("unavailable", json!(false))])
        }
        "VehicleUnavailable" => {
            say_about(changes, EntityKind::Vehicle, row, |row| vec![row.set("unavailable", json!(true))])
        }
        "VehicleInspectionStarted" => say_about(changes, EntityKind::Inspection, row, |_| Vec::new()),
        "ConditionAssessed" => {
            say_about(changes, EntityKind::Inspection, row, |row| renamed(row, "actual_condition", "condition"))
        }
        "VehicleListingCreated" => say_about(changes, EntityKind::Listing, row, |row| {
            let mut facts = copy(row, &VEHICLE_FACTS, &LISTING_FACTS);
            facts.extend(photos(row, "photos"));
            facts
        }),
        "VehicleDetailsUpdated" => say_about(changes, EntityKind::Listing, row, updated_fields),
        "PriceSet" => say_about(changes, EntityKind::Listing, row, |row| {
            let mut facts = copy(row, &["price", "currency"], &[]);
            facts.extend(price_named(row));
            facts
        }),
        "PhotosUploaded" => say_about(changes, EntityKind::Listing, row, |row| photos(row, "photo_urls")),
        "ListingPublished" => say_about(changes, EntityKind::Listing, row, |row| vec![published(row, "published_at")]),
        "VehicleListedForSale" => say_about(changes, EntityKind::Listing, row, |row| {
            let mut facts = copy(row, &["price"], &[]);
            facts.extend(price_named(row));
            facts.push(published(row, "listed_at"));
            facts
        }),
        "ListingFeatured" => say_about(changes, EntityKind::Listing, row, |row| {
            let (from, to) = (row.time("featured_from").unwrap_or(row.event_time()), row.time("featured_to"));
            vec![row.set("featured", json!({"from": from, "to": to}))]
        }),
        "ListingDeactivated" => {
            say_about(changes, EntityKind::Listing, row, |row| vec![row.set("withdrawn", json!(true))])
        }
        "VehicleSold" => say_about(changes, EntityKind::Listing, row, |row| {
            let sold_at = row.time("sold_at").unwrap_or(row.event_time());
            vec![row.set("sold", json!({"at": sold_at, "price": row.value("final_price")}))]
        }),
        "VehicleReserved" => say_about(changes, EntityKind::Reservation, row, |row| held(row, "reserved_until")),
        "ReservationConfirmed" => say_about(changes, EntityKind::Reservation, row, |row| held(row, "expires_at")),
        "ReservationExpired" => {
            say_about(changes, EntityKind::Reservation, row, |row| vec![row.set("ended", json!(true))])
        }
        "VehicleViewed" => say_about(changes, EntityKind::Vehicle, row, |row| vec![viewed(row, VIEW)]),
        "FavoriteAdded" => say_about(changes, EntityKind::Vehicle, row, |row| vec![viewed(row, FAVORITE)]),
        "FavoriteRemoved" => say_about(changes, EntityKind::Vehicle, row, |row| vec![viewed(row, -FAVORITE)]),
        _ => {}
    }
}

/// Add facts of the event's entity of this kind, and link it with the vehicle the event names.
fn say_about(changes: &mut Changes, kind: EntityKind, row: &Row<'_>, facts: impl FnOnce(&Row<'_>) -> Vec<Change>) {
    let id = match kind {
        EntityKind::Vehicle => vehicle_id(row),
        EntityKind::Listing => row.text("listing_id"),
        EntityKind::Reservation => row.text("reservation_id"),
        EntityKind::Inspection => row.text("inspection_id"),
    };
    let Some(key) = id.map(|id| kind.key(id)) else { return };
    changes.extend(facts(row).into_iter().map(|fact| (key.clone(), fact)));
    if kind != EntityKind::Vehicle
        && let Some(vehicle) = vehicle_id(row)
    {
        let vehicle_key = EntityKind::Vehicle.key(vehicle);
        changes.push((key.clone(), row.set("vehicle_id", vehicle.into())));
        changes.push((key.clone(), Change::Link(vehicle_key.clone())));
        changes.push((vehicle_key, Change::Link(key)));
    }
}

/// The vehicle an event names: in its payload, or as its aggregate.
fn vehicle_id<'a>(row: &'a Row<'_>) -> Option<&'a str> {
    let aggregate = || row.text("aggregate_id").filter(|_| row.text("aggregate_type") == Some("Vehicle"));
    row.text("vehicle_id").or_else(aggregate)
}

/// The named fields that the event carries.
fn copy(row: &Row<'_>, names: &[&str], more: &[&str]) -> Vec<Change> {
    let names = names.iter().chain(more);
    names.filter_map(|name| row.value(name).map(|value| row.set(name, value))).collect()
}

fn renamed(row: &Row<'_>, column: &str, fact: &str) -> Vec<Change> {
    row.value(column).map(|value| row.set(fact, value)).into_iter().collect()
}

/// Photos only ever come in addition, so each event's are a fact of their own: as many as a listing shows.
fn photos(row: &Row<'_>, column: &str) -> Vec<Change> {
    let name = format!("photos/{}", row.text("event_id").unwrap_or_default());
    row.value(column).map(|urls| row.set(&name, first_photos(urls))).into_iter().collect()
}

/// The first that differ, at most [`MAX_PHOTOS`]: no more of one event are ever shown.
fn first_photos(urls: Value) -> Value {
    let Value::Array(urls) = urls else { return urls };
    let mut known = HashSet::new();
    let differing = urls.into_iter().filter(|url| known.insert(url.as_str().map(str::to_owned)));
    Value::Array(differing.take(MAX_PHOTOS).collect())
}

/// Prices follow each other: each event's is a fact of its own.
fn price_named(row: &Row<'_>) -> Option<Change> {
    row.value("price").map(|price| row.set(&price_fact(row), price))
}

fn price_fact(row: &Row<'_>) -> String {
    format!("prices/{}", row.text("event_id").unwrap_or_default())
}

fn published(row: &Row<'_>, column: &str) -> Change {
    row.set("published", row.time(column).unwrap_or(row.event_time()).into())
}

/// A reservation holds until the end last named; if none ever is, until it is said to have ended.
fn held(row: &Row<'_>, column: &str) -> Vec<Change> {
    let until = row.time(column).map(|until| row.set("held_until", until.into()));
    let mut facts = copy(row, &["listing_id"], &[]);
    facts.push(row.set("held", json!(true)));
    facts.extend(until);
    facts
}

fn viewed(row: &Row<'_>, weight: i64) -> Change {
    Change::View { day: row.event_time().div_euclid(MICROS_PER_DAY), weight }
}

/// `updatedFields[]`, each `{"field", "value"}`: the facts we know, by either spelling of their name.
fn updated_fields(row: &Row<'_>) -> Vec<Change> {
    let Some(Value::Array(updates)) = row.value("updated_fields") else { return Vec::new() };
    let change = |update: &Value| {
        let name = schemas::names::snake_case(update.get("field")?.as_str()?);
        let known = VEHICLE_FACTS.iter().chain(&LISTING_FACTS).chain(&["price", "currency"]).any(|fact| *fact == name);
        let column = row.rows.context.columns.iter().find(|column| known && column.name == name)?;
        // What is not of the field's type is no fact: it must not replace one.
        let value = match column.kind.cell(update.get("value")?)? {
            Cell::Integer(whole) => whole.into(),
            _ => update.get("value")?.clone(),
        };
        let history = (name == "price").then(|| row.set(&price_fact(row), value.clone()));
        Some(history.into_iter().chain([row.set(&name, value)]))
    };
    updates.iter().filter_map(change).flatten().collect()
}
