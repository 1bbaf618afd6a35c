//! `GET /v1/search` and what is around a listing: itself, its like, its prices, and side by side with others.

use std::sync::Arc;

use axum::{extract::State, http::HeaderMap, response::Response};
use schemas::{Position, field_type::format_timestamp};
use search_index::{
    Criterion, Deal, Hit, Instead, Kind, Listing, ListingSnapshot, ListingStatus, Market, Rating, SearchPage,
    SearchRequest,
    lexicon::Lexicon,
    query::Bounds,
    reading::{Meaning, Overrules, Read},
    with_words,
};
use serde_json::{Map, Value, json};

use crate::{
    AppState,
    consistency::{Freshness, answer, as_of},
    parameters::{Id, Parameters, id_of},
    payment::PaymentTerms,
    problem::Problem,
};

mod request;

use request::needs_lexicon;
pub(crate) use request::{ParsedSearch, parse_search_request};

/// Listings shown side by side.
const MOST_COMPARED: usize = 6;
/// The latest prices of one listing in an answer, unless a limit is given, and at most.
const DEFAULT_PRICES: usize = 1_000;
const MAX_PRICES: usize = 10_000;
/// Listings like one that are shown, unless asked otherwise, and at most.
const SIMILAR: usize = 8;
const MOST_SIMILAR: usize = 50;
const SUGGESTED: usize = 8;
const MOST_SUGGESTED: usize = 50;
/// Of these, what other shoppers search for.
const SUGGESTED_QUERIES: usize = 3;

pub(crate) async fn get(
    State(api): State<AppState>,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let found = searched(&api, &parameters, &headers, Overrules::Filter).await?;
    Ok(answer(found.snapshot.as_ref(), page_body(&found)))
}

/// A search, and what it found.
pub(crate) struct Searched {
    pub(crate) snapshot: Arc<ListingSnapshot>,
    /// The text as it was asked; the request has what is left of it.
    pub(crate) asked_text: String,
    pub(crate) request: SearchRequest,
    pub(crate) read: Vec<Read>,
    /// Words that do not count beside other parameters.
    pub(crate) passed_over: Vec<Read>,
    /// Parameters that do not count beside the words.
    pub(crate) overruled: Vec<String>,
    pub(crate) page: SearchPage,
    pub(crate) priced: Priced,
}

/// Search as the parameters say.
pub(crate) async fn searched(
    api: &AppState,
    parameters: &Parameters,
    headers: &HeaderMap,
    overrules: Overrules,
) -> Result<Searched, Problem> {
    let freshness = Freshness::of(parameters, headers)?;
    let snapshot = freshness.wait(&api.pipeline.listings).await?;
    let lexicon = if needs_lexicon(parameters) { Some(lexicon(api, &snapshot, freshness).await?) } else { None };
    let priced = Priced { market: market(api, &snapshot).await?, terms: PaymentTerms::of(parameters)? };
    let asked_text = request::text(parameters)?;
    let (given, terms, market, now) = (parameters.clone(), priced.terms, Arc::clone(&priced.market), (api.now)());
    let done = blocking(&snapshot, move |snapshot| {
        let parsed = parse_search_request(&given, lexicon.as_deref(), terms, now, overrules)?;
        let page = snapshot.search(parsed.request.clone(), Some(&market)).map_err(|error| Problem::internal(&error))?;
        Ok((parsed, page))
    });
    let (ParsedSearch { request, read, passed_over, overruled }, page) = done.await?;
    Ok(Searched { snapshot, asked_text, request, read, passed_over, overruled, page, priced })
}

/// The same search with all that its text was read as said by parameters, as a query string: it means the same tomorrow.
pub(crate) async fn resolved(api: &AppState, parameters: &Parameters) -> Result<String, Problem> {
    const READ_ANEW: [&str; 3] = ["q", "raw", "near"];
    let freshness = Freshness::new(Position::START, None);
    let snapshot = freshness.wait(&api.pipeline.listings).await?;
    let lexicon = if needs_lexicon(parameters) { Some(lexicon(api, &snapshot, freshness).await?) } else { None };
    let ParsedSearch { mut request, read, .. } = parse_search_request(
        parameters,
        lexicon.as_deref(),
        PaymentTerms::of(parameters)?,
        (api.now)(),
        Overrules::Filter,
    )?;
    if !request.text.is_empty() {
        // What a mistyped word is taken for now, is meant.
        let (once, market) = (request.clone(), market(api, &snapshot).await?);
        let found = blocking(&snapshot, move |snapshot| {
            snapshot.search(once, Some(&market)).map_err(|error| Problem::internal(&error))
        });
        let corrections = found.await?.corrections;
        let meant = corrections.iter().map(|correction| (correction.from.as_str(), correction.to.as_str()));
        request.text = with_words(&request.text, &meant.collect());
    }
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in
        parameters.pairs().filter(|(name, value)| !value.is_empty() && !READ_ANEW.contains(&name.as_str()))
    {
        query.append_pair(name, value);
    }
    if let Some(near) = request.near {
        query.append_pair("near", &format!("{:.4},{:.4}", near.latitude, near.longitude));
    }
    for read in &read {
        let said = interpreted(read)["parameters"].take();
        let said = said.as_object().into_iter().flatten();
        for (name, value) in said.filter(|(name, _)| *name != "near" && parameters.all(name).next().is_none()) {
            let values = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
            for value in values {
                // As a person writes it: 20000, not 20000.0.
                let number = value.as_f64().map(|number| number.to_string());
                query.append_pair(
                    name,
                    &number.or_else(|| value.as_str().map(str::to_owned)).unwrap_or_else(|| value.to_string()),
                );
            }
        }
    }
    if !request.text.is_empty() {
        query.append_pair("q", &request.text).append_pair("raw", "true");
    }
    Ok(query.finish())
}

/// Do something with the index where it may take its time.
pub(crate) async fn blocking<T: Send + 'static>(
    snapshot: &Arc<ListingSnapshot>,
    work: impl FnOnce(&ListingSnapshot) -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let snapshot = Arc::clone(snapshot);
    let done = tokio::task::spawn_blocking(move || work(&snapshot)).await;
    done.map_err(|error| Problem::internal(&error))?
}

/// What there is, in words: as new as is asked for.
async fn lexicon(
    api: &AppState,
    snapshot: &Arc<ListingSnapshot>,
    freshness: Freshness,
) -> Result<Arc<Lexicon>, Problem> {
    api.lexicons.get(snapshot, freshness.min_position()).await
}

/// What prices are shown with.
pub(crate) struct Priced {
    pub(crate) market: Arc<Market>,
    pub(crate) terms: PaymentTerms,
}

/// What prices are compared with: what is offered now, or was a moment ago.
pub(crate) async fn market(api: &AppState, snapshot: &Arc<ListingSnapshot>) -> Result<Arc<Market>, Problem> {
    api.markets.get(snapshot, Position::START).await
}

fn page_body(found: &Searched) -> Value {
    let Searched { page, request, read, passed_over, priced, .. } = found;
    let facets: Map<String, Value> =
        page.facets.iter().map(|(facet, counts)| (facet.name().to_owned(), json!(counts))).collect();
    let ranges: Map<String, Value> =
        page.ranges.iter().map(|(range, summary)| (range.name().to_owned(), json!(summary))).collect();
    let relaxations = page.relaxations.iter().map(|relaxation| match &relaxation.instead {
        Instead::Without(criteria) => json!({"without": names(criteria), "total": relaxation.total}),
        Instead::WithoutWord(word) => json!({"without_word": word, "total": relaxation.total}),
        Instead::WithinKm(radius) => json!({"radius_km": radius, "total": relaxation.total}),
    });
    let missed = |(near, criteria): &(Hit, Vec<Criterion>)| {
        let mut body = hit(near, priced);
        body["misses"] = json!(names(criteria));
        body
    };
    let mut body = json!({
        "total": page.total,
        "hits": page.hits.iter().map(|found| hit(found, priced)).collect::<Vec<_>>(),
        "facets": facets,
        "ranges": ranges,
        "next_cursor": page.next_cursor.as_ref().map(|cursor| cursor.encode()),
        "text": request.text,
        "interpreted": read.iter().map(interpreted).collect::<Vec<_>>(),
        "passed_over": passed_over.iter().map(interpreted).collect::<Vec<_>>(),
        "corrections": page.corrections,
        "relaxations": relaxations.collect::<Vec<_>>(),
        "near_misses": page.near_misses.iter().map(missed).collect::<Vec<_>>(),
        "payment_terms": priced.terms,
        "rated_as_of": as_of(priced.market.as_ref()),
        "took_ms": (page.took_ms * 1_000.0).round() / 1_000.0,
    });
    if let Some(hierarchy) = &page.hierarchy {
        body["hierarchy"] = json!(hierarchy.makes);
        body["hierarchy_left_out"] = json!(hierarchy.left_out);
    }
    body
}

/// What is given up or missed, by its parameters; several with commas.
fn names(criteria: &[Criterion]) -> String {
    criteria.iter().map(|criterion| criterion.name()).collect::<Vec<_>>().join(",")
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
pub(crate) async fn known(snapshot: &Arc<ListingSnapshot>, id: &str) -> Result<Listing, Problem> {
    let wanted = id.to_owned();
    let found =
        blocking(snapshot, move |snapshot| snapshot.listing(&wanted).map_err(|error| Problem::internal(&error)))
            .await?;
    let found = found.filter(|listing| listing.status != ListingStatus::Draft);
    found.ok_or_else(|| Problem::not_found(format!("There is no listing {id:?}.")))
}

pub(crate) async fn listing(
    State(api): State<AppState>,
    id: Id,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (id, terms) = (id_of(id)?, PaymentTerms::of(&parameters)?);
    let snapshot = Freshness::of(&parameters, &headers)?.wait(&api.pipeline.listings).await?;
    let listing = known(&snapshot, &id).await?;
    let priced = Priced { market: market(&api, &snapshot).await?, terms };
    Ok(answer(snapshot.as_ref(), whole(listing, (api.now)(), &priced)))
}

/// `GET /v1/listings/{id}/similar`
pub(crate) async fn similar(
    State(api): State<AppState>,
    id: Id,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (id, terms) = (id_of(id)?, PaymentTerms::of(&parameters)?);
    let limit = parameters.limit(SIMILAR, MOST_SIMILAR)?;
    let snapshot = Freshness::of(&parameters, &headers)?.wait(&api.pipeline.listings).await?;
    let (listing, now) = (known(&snapshot, &id).await?, (api.now)());
    let found = blocking(&snapshot, move |snapshot| {
        snapshot.similar(&listing, limit, now).map_err(|error| Problem::internal(&error))
    });
    let found = found.await?;
    let priced = Priced { market: market(&api, &snapshot).await?, terms };
    let hits: Vec<Value> = found.iter().map(|found| hit(found, &priced)).collect();
    Ok(answer(snapshot.as_ref(), json!({"listing_id": id, "hits": hits})))
}

/// `GET /v1/listings/{id}/price-history`
pub(crate) async fn price_history(
    State(api): State<AppState>,
    id: Id,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let id = id_of(id)?;
    let snapshot = Freshness::of(&parameters, &headers)?.wait(&api.pipeline.listings).await?;
    let limit = parameters.limit(DEFAULT_PRICES, MAX_PRICES)?;
    let listing = known(&snapshot, &id).await?;
    let left_out = listing.prices.len().saturating_sub(limit);
    let mut before = left_out.checked_sub(1).map(|before| listing.prices[before].cents);
    let prices = listing.prices[left_out..].iter().map(|price| {
        let change = before.replace(price.cents).map(|before| amount(price.cents - before));
        json!({"at": format_timestamp(price.since), "price": amount(price.cents), "change": change})
    });
    let prices: Vec<Value> = prices.collect();
    let every = || listing.prices.iter().map(|price| price.cents);
    let body = json!({
        "listing_id": listing.listing_id,
        "currency": listing.currency,
        "prices": prices,
        "left_out": left_out,
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
    State(api): State<AppState>,
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
    let priced = Priced { market: market(&api, &snapshot).await?, terms };
    let (mut listings, now) = (Vec::new(), (api.now)());
    for id in ids {
        listings.push(whole(known(&snapshot, id).await?, now, &priced));
    }
    let first = listings[0].as_object().cloned().unwrap_or_default();
    let differing = first.keys().filter(|name| listings.iter().any(|other| other[name.as_str()] != first[*name]));
    let differing: Vec<&String> = differing.collect();
    let body = json!({"differing": differing, "listings": listings});
    Ok(answer(snapshot.as_ref(), body))
}

/// `GET /v1/suggest`
pub(crate) async fn suggest(
    State(api): State<AppState>,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let limit = parameters.limit(SUGGESTED, MOST_SUGGESTED)?;
    let text = request::text(&parameters)?;
    let freshness = Freshness::of(&parameters, &headers)?;
    let snapshot = freshness.wait(&api.pipeline.listings).await?;
    let lexicon = lexicon(&api, &snapshot, freshness).await?;
    let view = api.pipeline.lake.borrow().clone();
    let queries = if text.is_empty() { None } else { view };
    let queries =
        queries.map(|view| api.popular.beginning(&api.pipeline.sql, &view, &text, SUGGESTED_QUERIES.min(limit / 3)));
    let body = blocking(&snapshot, move |_| {
        let queries = queries.unwrap_or_default().into_iter();
        let queries: Vec<Value> = queries
            .map(|(text, shoppers)| json!({"text": text, "kind": "query", "count": shoppers, "filters": {}}))
            .collect();
        let known = lexicon.suggest(&text, limit - queries.len());
        let suggestions = known.into_iter().map(|entry| {
            let filters: Map<String, Value> =
                entry.filters.iter().map(|(facet, value)| (facet.name().to_owned(), json!(value))).collect();
            json!({"text": entry.text, "kind": entry.facet.name(), "count": entry.count, "filters": filters})
        });
        let mut suggestions: Vec<Value> = suggestions.collect();
        suggestions.retain(|known| {
            queries.iter().all(|query| query["text"] != json!(known["text"].as_str().map(str::to_lowercase)))
        });
        suggestions.extend(queries);
        Ok(json!({"suggestions": suggestions}))
    });
    Ok(answer(snapshot.as_ref(), body.await?))
}

/// A listing with everything that is known of it.
fn whole(listing: Listing, now: i64, priced: &Priced) -> Value {
    let (more, rating) = (details(&listing), rating(&listing, &priced.market));
    let mut body = hit_of(listing, now, priced);
    if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
        body.extend(more);
        body.insert("deal_rating".to_owned(), rating);
        body.insert("rated_as_of".to_owned(), as_of(priced.market.as_ref()));
    }
    body
}

/// A listing as a hit.
pub(crate) fn hit_of(listing: Listing, now: i64, priced: &Priced) -> Value {
    let availability = listing.availability(now);
    hit(&Hit { listing, availability, distance_km: None, highlights: Default::default() }, priced)
}

/// What a hit carries.
fn hit(hit: &Hit, priced: &Priced) -> Value {
    let listing = &hit.listing;
    let Rating { deal, estimate } = priced.market.rate(listing);
    let monthly = listing.price_cents.map(|cents| priced.terms.monthly(whole_units(cents)).ceil());
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
        "deal": deal.name(),
        "fair_price": estimate.map(|estimate| estimate.price.round()),
        "photos": listing.photos,
        "listed_at": listing.listed_at.map(format_timestamp),
        "highlights": hit.highlights,
    })
}

/// How a listing's price compares, and why.
fn rating(listing: &Listing, market: &Market) -> Value {
    let Rating { deal, estimate } = market.rate(listing);
    let difference = listing.price_cents.zip(estimate).map(|(cents, estimate)| whole_units(cents) - estimate.price);
    let share = difference.zip(estimate).map(|(difference, estimate)| difference / estimate.price * 100.0);
    let in_common = match estimate.map(|estimate| estimate.kind) {
        Some(Kind::Trim) => [&listing.make, &listing.model, &listing.trim],
        Some(Kind::Model) | None => [&listing.make, &listing.model, &None],
        Some(Kind::Body) => [&listing.make, &listing.body_type, &None],
    };
    let kind: Vec<&str> = in_common.into_iter().filter_map(|name| name.as_deref()).collect();
    let kind = kind.join(" ");
    let reason = match (estimate, listing.price_cents, share) {
        (_, None, _) => "It has no price.".to_owned(),
        (None, ..) => "Too few listings are like it to say what it is worth.".to_owned(),
        (Some(_), _, Some(share)) if deal == Deal::Unrated => {
            format!("The price is {:.0} % below what is usual: it may be a mistake, or a part of the price.", -share)
        }
        (Some(estimate), _, share) => {
            let share = share.unwrap_or_default();
            let compared = match share.round() {
                0.0 => "The price is the usual one".to_owned(),
                share if share < 0.0 => format!("The price is {:.0} % below the usual one", -share),
                share => format!("The price is {share:.0} % above the usual one"),
            };
            format!(
                "{compared} for the {kind} of its year, mileage and place: {} comparable listings.",
                estimate.comparables
            )
        }
    };
    json!({
        "deal": deal.name(),
        "fair_price": estimate.map(|estimate| estimate.price.round()),
        "difference": difference.map(f64::round),
        "difference_percent": share.map(|share| (share * 10.0).round() / 10.0),
        "comparables": estimate.map_or(0, |estimate| estimate.comparables),
        "compared_by": estimate.map(|estimate| estimate.kind.name()),
        "median_error_percent": market.held_out.map(|held_out| (held_out.median_error * 1_000.0).round() / 10.0),
        "reason": reason,
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
