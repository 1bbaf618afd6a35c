//! A listing from the facts of its entities.

use std::collections::HashSet;

use search_index::{Listing, ListingStatus, Price};
use serde_json::{Value, json};

use super::entity::{Entity, MAX_PHOTOS, Register, WriteStamp};

/// The currency of a price that names none.
const DEFAULT_CURRENCY: &str = "CAD";

/// Build the listing of these facts: its own, its vehicle's, and those of the vehicle's reservations and inspections.
/// What is not known is empty.
#[must_use]
pub fn listing(id: &str, own: &Entity, vehicle: &Entity, reservations: &[Entity], inspections: &[Entity]) -> Listing {
    let facts = Facts { own, vehicle, inspections };
    let (status, sold) = status(own, vehicle);
    let (sold_at, sold_price) = sold.map_or((None, None), |sold| (sold["at"].as_i64(), cents(&sold["price"])));
    let featured = own.register("featured").map(|Register(_, value)| value);
    let mut listing = Listing {
        listing_id: id.to_owned(),
        vehicle_id: own.text("vehicle_id").map(str::to_owned),
        status,
        unavailable: vehicle.register("unavailable").is_some_and(|Register(_, value)| *value == json!(true)),
        reserved_until: reservations.iter().filter_map(|reservation| held_until(id, reservation)).max(),
        title: facts.text("title"),
        description: facts.text("description"),
        vin: facts.text("vin"),
        make: facts.text("make"),
        model: facts.text("model"),
        trim: facts.text("trim"),
        year: facts.integer("year"),
        price_cents: facts.latest("price").and_then(cents),
        currency: facts.text("currency"),
        mileage: facts.integer("mileage"),
        condition: facts.text("condition"),
        body_type: facts.text("body_type"),
        fuel_type: facts.text("fuel_type"),
        transmission: facts.text("transmission"),
        drivetrain: facts.text("drivetrain"),
        engine: facts.text("engine"),
        color: facts.text("exterior_color"),
        interior_color: facts.text("interior_color"),
        doors: facts.integer("doors"),
        seats: facts.integer("seats"),
        features: facts.latest("features").map(texts).unwrap_or_default(),
        photos: photos(own, vehicle),
        dealer_id: facts.text("dealer_id"),
        dealer_name: facts.text("dealer_name"),
        city: facts.text("city"),
        province: facts.text("province"),
        country: facts.text("country"),
        latitude: facts.latest("latitude").and_then(Value::as_f64),
        longitude: facts.latest("longitude").and_then(Value::as_f64),
        certified: facts.latest("certified").is_some_and(|value| *value == json!(true)),
        history_status: facts.text("history_status"),
        owner_count: facts.integer("owner_count"),
        accident_free: vehicle.register("accident_history").and_then(|Register(_, accidents)| has_none(accidents)),
        featured_from: featured.and_then(|featured| featured["from"].as_i64()),
        featured_to: featured.and_then(|featured| featured["to"].as_i64()),
        listed_at: own.register("published").and_then(|Register(_, at)| at.as_i64()),
        listed_position: own.register("published").map(|Register(stamp, _)| stamp.position),
        sold_at,
        sold_price_cents: sold_price,
        prices: prices(own),
        popularity: popularity(vehicle),
    };
    if listing.price_cents.is_some() && listing.currency.is_none() {
        listing.currency = Some(DEFAULT_CURRENCY.to_owned());
    }
    if listing.title.is_none() {
        listing.title = composed_title(&listing);
    }
    listing
}

/// The facts of a listing and those its vehicle lends it.
struct Facts<'a> {
    own: &'a Entity,
    vehicle: &'a Entity,
    inspections: &'a [Entity],
}

impl<'a> Facts<'a> {
    /// The latest word on a fact, by whomever.
    fn latest(&self, name: &str) -> Option<&'a Value> {
        let sources = [self.own, self.vehicle].into_iter().chain(self.inspections);
        let registers = sources.filter_map(|entity| entity.register(name));
        registers.max_by(|Register(a, _), Register(b, _)| a.cmp(b)).map(|Register(_, value)| value)
    }

    fn text(&self, name: &str) -> Option<String> {
        self.latest(name).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
    }

    fn integer(&self, name: &str) -> Option<i64> {
        self.latest(name).and_then(Value::as_i64)
    }
}

/// The latest fact decides. A sale precedes other reasons for which a listing is not public.
fn status<'a>(own: &'a Entity, vehicle: &Entity) -> (ListingStatus, Option<&'a Value>) {
    let stamp = |entity: &'a Entity, name: &str| entity.register(name).map(|Register(stamp, _)| stamp);
    let published = stamp(own, "published");
    let since = |stamp: Option<&WriteStamp>| stamp.is_some() && stamp > published;
    let wholesale = vehicle.register("wholesale").map(|Register(stamp, _)| stamp);
    let sold = own.register("sold").filter(|Register(stamp, _)| since(Some(stamp))).map(|Register(_, sold)| sold);
    let status = if sold.is_some() {
        ListingStatus::Sold
    } else if since(wholesale) {
        ListingStatus::Wholesale
    } else if since(stamp(own, "withdrawn")) {
        ListingStatus::Withdrawn
    } else if published.is_some() {
        ListingStatus::Public
    } else {
        ListingStatus::Draft
    };
    (status, sold)
}

/// Until when a reservation holds this listing, if it has not been said to have ended.
fn held_until(listing_id: &str, reservation: &Entity) -> Option<i64> {
    let Register(held, _) = reservation.register("held")?;
    let until = reservation.register("held_until").map_or(Some(i64::MAX), |Register(_, until)| until.as_i64());
    let ended = reservation.register("ended").is_some_and(|Register(ended, _)| ended > held);
    let elsewhere = reservation.text("listing_id").is_some_and(|other| other != listing_id);
    if ended || elsewhere { None } else { until }
}

/// The listing's photos in the order they came; without any, the studio's, then the seller's.
fn photos(own: &Entity, vehicle: &Entity) -> Vec<String> {
    let mut uploads: Vec<&Register> =
        own.facts.iter().filter(|(name, _)| name.starts_with("photos/")).map(|(_, register)| register).collect();
    uploads.sort_by(|Register(a, _), Register(b, _)| a.cmp(b));
    let (mut photos, mut known) = (Vec::new(), HashSet::new());
    for url in uploads.into_iter().flat_map(|Register(_, urls)| texts(urls)) {
        if photos.len() < MAX_PHOTOS && known.insert(url.clone()) {
            photos.push(url);
        }
    }
    for fallback in ["studio_photos", "photos"] {
        if photos.is_empty() {
            photos = vehicle.register(fallback).map(|Register(_, urls)| texts(urls)).unwrap_or_default();
            photos.truncate(MAX_PHOTOS);
        }
    }
    photos
}

/// The listing's prices, each since it was named, without those that only repeat the one before.
fn prices(own: &Entity) -> Vec<Price> {
    let mut named: Vec<&Register> =
        own.facts.iter().filter(|(name, _)| name.starts_with("prices/")).map(|(_, register)| register).collect();
    named.sort_by(|Register(a, _), Register(b, _)| a.cmp(b));
    let mut prices: Vec<Price> = Vec::new();
    for Register(stamp, price) in named {
        let Some(cents) = cents(price) else { continue };
        match prices.last_mut().filter(|last| last.cents == cents) {
            Some(last) => last.position = last.position.min(stamp.position),
            None => prices.push(Price { since: stamp.time, cents, position: stamp.position }),
        }
    }
    prices
}

/// Whether there are no accidents on record: a count, a flag or a list of them, also as text. None, when it says nothing.
fn has_none(accidents: &Value) -> Option<bool> {
    match accidents {
        Value::Null | Value::Object(_) => None,
        Value::Bool(had) => Some(!had),
        Value::Number(count) => Some(count.as_f64() == Some(0.0)),
        Value::Array(list) => Some(list.is_empty()),
        Value::String(text) => match text.trim().to_lowercase().as_str() {
            "" | "unknown" => None,
            "none" | "no" | "clean" | "0" | "false" | "[]" => Some(true),
            _ => Some(false),
        },
    }
}

/// The logarithm of the weights of all views, each doubling every week: it orders listings the same at any time.
#[expect(clippy::cast_precision_loss, reason = "days and counts of views are small")]
fn popularity(vehicle: &Entity) -> f64 {
    const WEEK: f64 = 7.0;
    let Some((&last, _)) = vehicle.views.last_key_value() else { return 0.0 };
    let weight: f64 =
        vehicle.views.iter().map(|(day, count)| *count as f64 * ((day - last) as f64 / WEEK).exp2()).sum();
    if weight > 0.0 { (last as f64 / WEEK + weight.log2()).max(0.0) } else { 0.0 }
}

fn texts(list: &Value) -> Vec<String> {
    let items = list.as_array().into_iter().flatten();
    items.filter_map(|item| item.as_str().map(str::to_owned)).collect()
}

/// An amount in hundredths.
#[expect(clippy::cast_possible_truncation, reason = "an amount of decimal(12,2) is below 10^12 hundredths")]
fn cents(amount: &Value) -> Option<i64> {
    amount.as_f64().filter(|amount| amount.abs() < 1e10).map(|amount| (amount * 100.0).round() as i64)
}

/// `2021 Honda Civic EX`, of what is known.
fn composed_title(listing: &Listing) -> Option<String> {
    listing.make.as_ref()?;
    let year = listing.year.map(|year| year.to_string());
    let words = [&year, &listing.make, &listing.model, &listing.trim].into_iter().flatten();
    Some(words.map(String::as_str).collect::<Vec<_>>().join(" "))
}
