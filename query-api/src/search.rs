//! `GET /v1/search` and what is around a listing: itself, its like, its prices, and side by side with others.

use std::sync::Arc;

use axum::{
    extract::{Path, State, rejection::PathRejection},
    http::HeaderMap,
    response::Response,
};
use schemas::field_type::format_timestamp;
use search_index::{
    Availability, Criterion, Hit, Instead, Listing, ListingSnapshot, ListingStatus, SearchPage,
    lexicon::Lexicon,
    query::Bounds,
    reading::{Meaning, Read},
};
use serde_json::{Map, Value, json};

use crate::{
    Api,
    consistency::{Freshness, answer},
    parameters::Parameters,
    payment::PaymentTerms,
    problem::Problem,
};

mod request;

use request::{Asked, asked, needs_lexicon};

/// Listings shown side by side.
const MOST_COMPARED: usize = 6;
/// Listings like one that are shown, unless asked otherwise, and at most.
const SIMILAR: usize = 8;
const MOST_SIMILAR: usize = 50;
const SUGGESTED: usize = 8;
const MOST_SUGGESTED: usize = 50;

pub(crate) async fn get(
    State(api): State<Api>,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let freshness = Freshness::of(&parameters, &headers)?;
    let snapshot = freshness.wait(&api.pipeline.listings).await?;
    let lexicon = if needs_lexicon(&parameters) { Some(lexicon(&api, &snapshot, freshness).await?) } else { None };
    let now = (api.now)();
    let body = blocking(&snapshot, move |snapshot| {
        let Asked { request, read, terms } = asked(&parameters, lexicon.as_deref(), now)?;
        let text = request.text.clone();
        let page = snapshot.search(request).map_err(|error| Problem::internal(&error))?;
        Ok(page_body(&page, &text, &read, terms))
    });
    Ok(answer(snapshot.as_ref(), body.await?))
}

/// Do something with the index where it may take its time.
async fn blocking<T: Send + 'static>(
    snapshot: &Arc<ListingSnapshot>,
    work: impl FnOnce(&ListingSnapshot) -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let snapshot = Arc::clone(snapshot);
    let done = tokio::task::spawn_blocking(move || work(&snapshot)).await;
    done.map_err(|error| Problem::internal(&error))?
}

/// What there is, in words: as new as is asked for.
async fn lexicon(api: &Api, snapshot: &Arc<ListingSnapshot>, freshness: Freshness) -> Result<Arc<Lexicon>, Problem> {
    api.lexicons.get(snapshot, freshness.min_position()).await
}

fn page_body(page: &SearchPage, text: &str, read: &[Read], terms: PaymentTerms) -> Value {
    let facets: Map<String, Value> =
        page.facets.iter().map(|(facet, counts)| (facet.name().to_owned(), json!(counts))).collect();
    let ranges: Map<String, Value> =
        page.ranges.iter().map(|(range, summary)| (range.name().to_owned(), json!(summary))).collect();
    let relaxations = page.relaxations.iter().map(|relaxation| match &relaxation.instead {
        Instead::Without(criterion) => json!({"without": criterion.name(), "total": relaxation.total}),
        Instead::WithoutWord(word) => json!({"without_word": word, "total": relaxation.total}),
        Instead::WithinKm(radius) => json!({"radius_km": radius, "total": relaxation.total}),
    });
    let missed = |(near, criterion): &(Hit, Criterion)| {
        let mut body = hit(near, terms);
        body["misses"] = json!(criterion.name());
        body
    };
    let mut body = json!({
        "total": page.total,
        "hits": page.hits.iter().map(|found| hit(found, terms)).collect::<Vec<_>>(),
        "facets": facets,
        "ranges": ranges,
        "next_cursor": page.next_cursor.as_ref().map(|cursor| cursor.encode()),
        "text": text,
        "interpreted": read.iter().map(interpreted).collect::<Vec<_>>(),
        "corrections": page.corrections,
        "relaxations": relaxations.collect::<Vec<_>>(),
        "near_misses": page.near_misses.iter().map(missed).collect::<Vec<_>>(),
        "payment_terms": terms,
        "took_ms": (page.took_ms * 1_000.0).round() / 1_000.0,
    });
    if let Some(hierarchy) = &page.hierarchy {
        body["hierarchy"] = json!(hierarchy);
    }
    body
}

/// Words that were read as a filter, and the parameters that say the same.
fn interpreted(read: &Read) -> Value {
    let parameters = match &read.means {
        Meaning::Values(facet, values) => json!({facet.name(): values}),
        Meaning::Bounds(range, Bounds { min, max }) => {
            let named = [("min", min), ("max", max)].into_iter();
            let named = named.filter_map(|(end, bound)| Some((format!("{}_{end}", range.name()), json!((*bound)?))));
            Value::Object(named.collect())
        }
        Meaning::Payment(monthly) => json!({"payment_max": monthly}),
        Meaning::Near { place, radius_km, .. } => {
            json!({"near": format!("{:.4},{:.4}", place.latitude, place.longitude), "radius_km": radius_km})
        }
        Meaning::OwnersMax(most) => json!({"owners_max": most}),
        Meaning::AccidentFree => json!({"accident_free": true}),
        Meaning::PriceDrop => json!({"price_drop": true}),
    };
    let mut body = json!({"text": read.words, "parameters": parameters});
    if let Meaning::Near { city, .. } = &read.means {
        body["city"] = json!(city);
    }
    body
}

/// A listing by its id. What was never shown to the public is not for it.
async fn known(snapshot: &Arc<ListingSnapshot>, id: &str) -> Result<Listing, Problem> {
    let wanted = id.to_owned();
    let found =
        blocking(snapshot, move |snapshot| snapshot.listing(&wanted).map_err(|error| Problem::internal(&error)))
            .await?;
    let found = found.filter(|listing| listing.status != ListingStatus::Draft);
    found.ok_or_else(|| Problem::not_found(format!("There is no listing {id:?}.")))
}

type Id = Result<Path<String>, PathRejection>;

fn id_of(id: Id) -> Result<String, Problem> {
    id.map(|Path(id)| id).map_err(|_| Problem::not_found("A listing id is text in UTF-8."))
}

pub(crate) async fn listing(
    State(api): State<Api>,
    id: Id,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (id, terms) = (id_of(id)?, PaymentTerms::of(&parameters)?);
    let snapshot = Freshness::of(&parameters, &headers)?.wait(&api.pipeline.listings).await?;
    let listing = known(&snapshot, &id).await?;
    Ok(answer(snapshot.as_ref(), whole(listing, (api.now)(), terms)))
}

/// `GET /v1/listings/{id}/similar`
pub(crate) async fn similar(
    State(api): State<Api>,
    id: Id,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (id, terms) = (id_of(id)?, PaymentTerms::of(&parameters)?);
    let limit = limit(&parameters, SIMILAR, MOST_SIMILAR)?;
    let snapshot = Freshness::of(&parameters, &headers)?.wait(&api.pipeline.listings).await?;
    let (listing, now) = (known(&snapshot, &id).await?, (api.now)());
    let found = blocking(&snapshot, move |snapshot| {
        snapshot.similar(&listing, limit, now).map_err(|error| Problem::internal(&error))
    });
    let found = found.await?;
    let hits: Vec<Value> = found.iter().map(|found| hit(found, terms)).collect();
    Ok(answer(snapshot.as_ref(), json!({"listing_id": id, "hits": hits})))
}

/// `GET /v1/listings/{id}/price-history`
pub(crate) async fn price_history(
    State(api): State<Api>,
    id: Id,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let id = id_of(id)?;
    let snapshot = Freshness::of(&parameters, &headers)?.wait(&api.pipeline.listings).await?;
    let listing = known(&snapshot, &id).await?;
    let mut before: Option<i64> = None;
    let prices = listing.prices.iter().map(|(at, price)| {
        let change = before.replace(*price).map(|before| amount(price - before));
        json!({"at": format_timestamp(*at), "price": amount(*price), "change": change})
    });
    let prices: Vec<Value> = prices.collect();
    let every = || listing.prices.iter().map(|(_, price)| *price);
    let body = json!({
        "listing_id": listing.listing_id,
        "currency": listing.currency,
        "prices": prices,
        "lowest": every().min().map(amount),
        "highest": every().max().map(amount),
        "price": listing.price_cents.map(amount),
        "sold_at": listing.sold_at.map(format_timestamp),
        "sold_price": listing.sold_price_cents.map(amount),
    });
    Ok(answer(snapshot.as_ref(), body))
}

/// `GET /v1/compare?id=…&id=…`
pub(crate) async fn compare(
    State(api): State<Api>,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let terms = PaymentTerms::of(&parameters)?;
    let ids: Vec<&str> = parameters.all("id").collect();
    if !(2..=MOST_COMPARED).contains(&ids.len()) {
        let detail = format!("compare takes 2 to {MOST_COMPARED} listings, id=A&id=B, not {}", ids.len());
        return Err(Problem::parameter("id", detail));
    }
    let snapshot = Freshness::of(&parameters, &headers)?.wait(&api.pipeline.listings).await?;
    let (mut listings, now) = (Vec::new(), (api.now)());
    for id in ids {
        listings.push(whole(known(&snapshot, id).await?, now, terms));
    }
    let first = listings[0].as_object().cloned().unwrap_or_default();
    let differing = first.keys().filter(|name| listings.iter().any(|other| other[name.as_str()] != first[*name]));
    let differing: Vec<&String> = differing.collect();
    let body = json!({"differing": differing, "listings": listings});
    Ok(answer(snapshot.as_ref(), body))
}

/// `GET /v1/suggest`
pub(crate) async fn suggest(
    State(api): State<Api>,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let limit = limit(&parameters, SUGGESTED, MOST_SUGGESTED)?;
    let text = request::text(&parameters)?;
    let freshness = Freshness::of(&parameters, &headers)?;
    let snapshot = freshness.wait(&api.pipeline.listings).await?;
    let lexicon = lexicon(&api, &snapshot, freshness).await?;
    let body = blocking(&snapshot, move |_| {
        let suggestions = lexicon.suggest(&text, limit).into_iter().map(|entry| {
            let filters: Map<String, Value> =
                entry.filters.iter().map(|(facet, value)| (facet.name().to_owned(), json!(value))).collect();
            json!({"text": entry.text, "kind": entry.facet.name(), "count": entry.count, "filters": filters})
        });
        Ok(json!({"suggestions": suggestions.collect::<Vec<_>>()}))
    });
    Ok(answer(snapshot.as_ref(), body.await?))
}

fn limit(parameters: &Parameters, usual: usize, most: usize) -> Result<usize, Problem> {
    let limit = parameters.parsed("limit", "a number")?.unwrap_or(usual);
    if (1..=most).contains(&limit) {
        Ok(limit)
    } else {
        Err(Problem::parameter("limit", format!("limit is 1 to {most}, not {limit}")))
    }
}

/// A listing with everything that is known of it.
fn whole(listing: Listing, now: i64, terms: PaymentTerms) -> Value {
    let more = details(&listing);
    let availability: Availability = listing.availability(now);
    let mut body = hit(&Hit { listing, availability, distance_km: None, highlights: Default::default() }, terms);
    if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
        body.extend(more);
    }
    body
}

/// What a hit carries.
fn hit(hit: &Hit, terms: PaymentTerms) -> Value {
    let listing = &hit.listing;
    let monthly = listing.price_cents.map(|cents| terms.monthly(whole_units(cents)).ceil());
    json!({
        "listing_id": listing.listing_id,
        "vehicle_id": listing.vehicle_id,
        "title": listing.title,
        "make": listing.make,
        "model": listing.model,
        "trim": listing.trim,
        "year": listing.year,
        "price": listing.price_cents.map(amount),
        "currency": listing.currency,
        "price_drop": listing.price_drop_cents().map(amount),
        "monthly_payment": monthly,
        "mileage": listing.mileage,
        "body_type": listing.body_type,
        "fuel_type": listing.fuel_type,
        "transmission": listing.transmission,
        "drivetrain": listing.drivetrain,
        "color": listing.color,
        "condition": listing.condition,
        "city": listing.city,
        "province": listing.province,
        "latitude": listing.latitude,
        "longitude": listing.longitude,
        "distance_km": hit.distance_km.map(|km| (km * 10.0).round() / 10.0),
        "availability": hit.availability.as_str(),
        "certified": listing.certified,
        "deal": null,
        "photos": listing.photos,
        "listed_at": listing.listed_at.map(format_timestamp),
        "highlights": hit.highlights,
    })
}

/// What one listing says beyond a hit.
fn details(listing: &Listing) -> Value {
    json!({
        "status": listing.status,
        "sold": listing.status == ListingStatus::Sold,
        "sold_at": listing.sold_at.map(format_timestamp),
        "sold_price": listing.sold_price_cents.map(amount),
        "reserved_until": listing.reserved_until.filter(|until| *until < i64::MAX).map(format_timestamp),
        "description": listing.description,
        "vin": listing.vin,
        "engine": listing.engine,
        "interior_color": listing.interior_color,
        "doors": listing.doors,
        "seats": listing.seats,
        "features": listing.features,
        "dealer_id": listing.dealer_id,
        "dealer_name": listing.dealer_name,
        "country": listing.country,
        "history_status": listing.history_status,
        "owner_count": listing.owner_count,
        "accident_free": listing.accident_free,
        "featured_from": listing.featured_from.map(format_timestamp),
        "featured_to": listing.featured_to.map(format_timestamp),
    })
}

fn amount(cents: i64) -> Value {
    schemas::rows::money(cents.into())
}

#[expect(clippy::cast_precision_loss, reason = "an amount of decimal(12,2) fits a float's 53 bits")]
fn whole_units(cents: i64) -> f64 {
    cents as f64 / 100.0
}
