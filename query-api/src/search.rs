//! `GET /v1/search` and `GET /v1/listings/{id}`.

use std::sync::Arc;

use axum::{
    extract::{Path, State, rejection::PathRejection},
    http::HeaderMap,
    response::Response,
};
use schemas::field_type::format_timestamp;
use search_index::{
    Facet, Hit, Listing, ListingStatus, Range, SearchRequest, Sort,
    geo::Place,
    query::{Bounds, Cursor},
};
use serde_json::{Map, Value, json};

use crate::{
    Api,
    consistency::{Freshness, answer},
    parameters::Parameters,
    problem::Problem,
};

const DEFAULT_PAGE: usize = 20;
const MAX_PAGE: usize = 100;

pub(crate) async fn get(
    State(api): State<Api>,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let request = request(&parameters, (api.now)())?;
    let snapshot = Freshness::of(&parameters, &headers)?.wait(&api.pipeline.listings).await?;
    let searched = Arc::clone(&snapshot);
    let page = tokio::task::spawn_blocking(move || searched.search(request));
    let page = page.await.map_err(|error| Problem::internal(&error))?.map_err(|error| Problem::internal(&error))?;
    let facets: Map<String, Value> =
        page.facets.into_iter().map(|(facet, counts)| (facet.name().to_owned(), json!(counts))).collect();
    let ranges: Map<String, Value> =
        page.ranges.into_iter().map(|(range, summary)| (range.name().to_owned(), json!(summary))).collect();
    let body = json!({
        "total": page.total,
        "hits": page.hits.iter().map(hit).collect::<Vec<_>>(),
        "facets": facets,
        "ranges": ranges,
        "next_cursor": page.next_cursor.map(|cursor| cursor.encode()),
        "corrections": [],
        "took_ms": (page.took_ms * 1_000.0).round() / 1_000.0,
    });
    Ok(answer(snapshot.as_ref(), body))
}

pub(crate) async fn listing(
    State(api): State<Api>,
    id: Result<Path<String>, PathRejection>,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Path(id) = id.map_err(|_| Problem::not_found("A listing id is text in UTF-8."))?;
    let snapshot = Freshness::of(&parameters, &headers)?.wait(&api.pipeline.listings).await?;
    let (read, wanted) = (Arc::clone(&snapshot), id.clone());
    let found = tokio::task::spawn_blocking(move || read.listing(&wanted));
    let found = found.await.map_err(|error| Problem::internal(&error))?.map_err(|error| Problem::internal(&error))?;
    // What was never shown to the public is not for it.
    let found = found.filter(|listing| listing.status != ListingStatus::Draft);
    let listing = found.ok_or_else(|| Problem::not_found(format!("There is no listing {id:?}.")))?;
    let availability = listing.availability((api.now)());
    let mut body = hit(&Hit { listing: listing.clone(), availability, distance_km: None });
    if let (Some(body), Value::Object(more)) = (body.as_object_mut(), details(&listing)) {
        body.extend(more);
    }
    Ok(answer(snapshot.as_ref(), body))
}

/// What a hit carries.
fn hit(hit: &Hit) -> Value {
    let listing = &hit.listing;
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
        "highlights": {},
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
        "featured_from": listing.featured_from.map(format_timestamp),
        "featured_to": listing.featured_to.map(format_timestamp),
    })
}

fn amount(cents: i64) -> Value {
    schemas::rows::money(cents.into())
}

fn request(parameters: &Parameters, now: i64) -> Result<SearchRequest, Problem> {
    let mut request = SearchRequest {
        text: parameters.text("q")?.unwrap_or_default().trim().to_owned(),
        near: parameters.text("near")?.map(place).transpose()?,
        radius_km: parameters.parsed("radius_km", "a distance in kilometres")?,
        page_size: page_size(parameters)?,
        facets: facets(parameters)?,
        now,
        ..SearchRequest::default()
    };
    for facet in Facet::ALL {
        let values: Vec<String> = parameters.all(facet.name()).map(str::to_owned).collect();
        if !values.is_empty() {
            request.filters.insert(facet, values);
        }
    }
    for range in Range::ALL {
        let bounds = bounds(parameters, range)?;
        if !bounds.is_open() {
            request.ranges.insert(range, bounds);
        }
    }
    if let Some(name) = parameters.text("sort")? {
        let names: Vec<_> = Sort::ALL.iter().map(|sort| sort.name()).collect();
        let unknown = || Problem::parameter("sort", format!("sort is one of {}, not {name:?}", names.join(", ")));
        request.sort = Sort::parse(name).ok_or_else(unknown)?;
    }
    if request.near.is_none() && request.sort == Sort::Distance {
        return Err(Problem::parameter("sort", "sort=distance needs near=LAT,LON"));
    }
    if request.near.is_none() && request.radius_km.is_some() {
        return Err(Problem::parameter("radius_km", "radius_km needs near=LAT,LON"));
    }
    if request.radius_km.is_some_and(|radius| radius.is_nan() || radius < 0.0) {
        return Err(Problem::parameter("radius_km", "radius_km is a distance, at least 0"));
    }
    if let Some(text) = parameters.text("cursor")? {
        let cursor = Cursor::decode(text).filter(|cursor| cursor.search == request.fingerprint());
        let foreign = || Problem::parameter("cursor", "the cursor is not from this search; start at its first page");
        request.cursor = Some(cursor.ok_or_else(foreign)?);
    }
    Ok(request)
}

fn page_size(parameters: &Parameters) -> Result<usize, Problem> {
    let size = parameters.parsed("page_size", "a number of hits")?.unwrap_or(DEFAULT_PAGE);
    if (1..=MAX_PAGE).contains(&size) {
        Ok(size)
    } else {
        Err(Problem::parameter("page_size", format!("page_size is 1 to {MAX_PAGE}, not {size}")))
    }
}

/// `facets=make,model`; all when it is not given, none when it is empty.
fn facets(parameters: &Parameters) -> Result<Vec<Facet>, Problem> {
    if !parameters.has("facets") {
        return Ok(Facet::ALL.to_vec());
    }
    let names =
        parameters.all("facets").flat_map(|list| list.split(',')).map(str::trim).filter(|name| !name.is_empty());
    let facet = |name: &str| {
        let known: Vec<_> = Facet::ALL.iter().map(|facet| facet.name()).collect();
        let unknown = || Problem::parameter("facets", format!("facets are {}, not {name:?}", known.join(", ")));
        Facet::parse(name).ok_or_else(unknown)
    };
    names.map(facet).collect()
}

fn place(text: &str) -> Result<Place, Problem> {
    let degrees = |text: &str| text.trim().parse::<f64>().ok();
    let place =
        text.split_once(',').and_then(|(latitude, longitude)| Place::new(degrees(latitude)?, degrees(longitude)?));
    place.ok_or_else(|| {
        Problem::parameter("near", format!("near is LAT,LON in degrees, such as 43.65,-79.38, not {text:?}"))
    })
}

fn bounds(parameters: &Parameters, range: Range) -> Result<Bounds, Problem> {
    let (min, max) = (format!("{}_min", range.name()), format!("{}_max", range.name()));
    let number = |name: &str| -> Result<Option<f64>, Problem> {
        let value = parameters.parsed::<f64>(name, "a number")?;
        if value.is_some_and(f64::is_nan) {
            Err(Problem::parameter(name, format!("{name} is a number")))
        } else {
            Ok(value)
        }
    };
    let bounds = Bounds { min: number(&min)?, max: number(&max)? };
    match (bounds.min, bounds.max) {
        (Some(low), Some(high)) if low > high => {
            Err(Problem::parameter(&min, format!("{min} is {low}, more than {max}, which is {high}")))
        }
        _ => Ok(bounds),
    }
}
