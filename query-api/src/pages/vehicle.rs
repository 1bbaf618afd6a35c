//! `/vehicles/{id}`: one car.

use std::sync::Arc;

use askama::Template;
use axum::{
    extract::State,
    http::{StatusCode, header},
    response::Response,
};
use schemas::field_type::format_timestamp;
use search_index::{Availability, Deal, Listing, ListingStatus, Rating};
use serde_json::json;

use super::{
    Page, PageRequest,
    card::{Card, is_shown, is_web, title_of, whole_units},
    drawing, links, shown,
    words::word,
};
use crate::{
    AppState,
    consistency::Freshness,
    parameters::{Id, id_of},
    payment::PaymentTerms,
    problem::Problem,
    search::{Priced, blocking, known, market},
};

const SIMILAR: usize = 6;
/// The latest prices in the table; the chart has all of them.
const MAX_PRICES: usize = 100;

/// Shares of the usual price at the ends of the scale.
const SCALE: (f64, f64) = (0.8, 1.2);

#[derive(Template)]
#[template(path = "vehicle.html")]
struct VehiclePage {
    page: Page,
    title: String,
    /// The search it was found by.
    back: String,
    place: String,
    state: Option<&'static str>,
    price: String,
    drop: Option<String>,
    payment: Option<String>,
    deal: &'static str,
    reason: String,
    /// Where on the scale the price is, in percent.
    marker: Option<String>,
    error_note: Option<String>,
    photos: Vec<String>,
    main_photo: Option<String>,
    drawing: String,
    facts: Vec<(&'static str, String)>,
    description: Option<String>,
    features: Vec<String>,
    /// HTML.
    chart: Option<String>,
    prices: Vec<(String, String)>,
    similar: Vec<Card>,
    json_ld: String,
}

pub(crate) async fn vehicle(State(api): State<AppState>, id: Id, request: PageRequest) -> Response {
    let page = found(&api, id, &request).await;
    shown(&request, page)
}

async fn found(api: &AppState, id: Id, request: &PageRequest) -> Result<VehiclePage, Problem> {
    let (id, terms) = (id_of(id)?, PaymentTerms::of(&request.parameters)?);
    let snapshot = Freshness::of(&request.parameters, &request.headers)?.wait(&api.pipeline.listings).await?;
    let listing = known(&snapshot, &id).await.map_err(|problem| match problem.status() {
        StatusCode::NOT_FOUND => Problem::not_found(word(request.language, "unknown_listing")),
        _ => problem,
    })?;
    let priced = Priced { market: market(api, &snapshot).await?, terms };
    let (now, of) = ((api.now)(), Arc::new(listing));
    let similar = blocking(&snapshot, {
        let of = Arc::clone(&of);
        move |snapshot| snapshot.similar(&of, SIMILAR, now).map_err(|error| Problem::internal(&error))
    });
    let similar = similar.await?;
    let listing = of.as_ref();
    let title = title_of(listing);
    let mut page = Page::new(request, format!("{title} – Forecourt"), &links::only(&request.parameters, &["lang"]));
    let (language, currency) = (page.language, listing.currency.as_deref());
    let amount = |cents: i64| language.money(whole_units(cents), currency);
    let place: Vec<String> =
        [listing.dealer_name.clone(), listing.city.clone(), listing.province.clone()].into_iter().flatten().collect();
    let price = listing.price_cents.map_or_else(|| "–".to_owned(), amount);
    page.description = [title.clone(), price.clone(), place.join(", ")].join(" · ");
    let rating = priced.market.rate(listing);
    let payment = listing.price_cents.filter(|_| listing.status == ListingStatus::Public).map(|cents| {
        let monthly = language.money(terms.monthly(whole_units(cents)).ceil(), currency);
        let PaymentTerms { apr, term_months, down } = terms;
        let at_once = format!(", {} {}", page.t("payment_down"), language.money(down, currency));
        format!(
            "{monthly}/{} · {term_months} {} {}{}",
            page.t("month"),
            page.t("payment_months"),
            language.percent(apr),
            if down > 0.0 { at_once } else { String::new() }
        )
    });
    let error_note = priced.market.held_out.filter(|_| rating.deal != Deal::Unrated).map(|held_out| {
        let error = (held_out.median_error * 1_000.0).round() / 10.0;
        format!("{} {}", page.t("median_error"), language.percent(error))
    });
    let prices = listing.prices.iter().rev().take(MAX_PRICES).map(|price| (day(price.since), amount(price.cents)));
    let until = listing.sold_at.unwrap_or(now);
    Ok(VehiclePage {
        back: back(request, &page),
        place: place.join(" · "),
        state: state(&page, listing, now),
        drop: listing.price_drop_cents().map(amount),
        deal: rating.deal.name(),
        reason: reason(&page, listing, rating),
        marker: marker(listing, rating),
        photos: listing.photos.iter().filter(|photo| is_shown(photo)).cloned().collect(),
        main_photo: listing.photos.iter().find(|photo| is_web(photo)).cloned(),
        drawing: drawing::car(listing.body_type.as_deref(), listing.color.as_deref()),
        facts: facts(&page, listing),
        description: listing.description.clone(),
        features: listing.features.clone(),
        chart: drawing::price_chart(&listing.prices, until, language, currency, page.t("price_history")),
        prices: prices.collect(),
        similar: similar.iter().map(|hit| Card::of(hit, &page, &priced)).collect(),
        json_ld: json_ld(listing, &title, &page, now),
        payment,
        error_note,
        price,
        title,
        page,
    })
}

/// The results that the buyer comes from; from elsewhere, the search.
fn back(request: &PageRequest, page: &Page) -> String {
    let header = |name| request.headers.get(name).and_then(|value| value.to_str().ok());
    let from = header(header::REFERER).and_then(|from| url::Url::parse(from).ok());
    let host = page.origin().split_once("://").map(|(_, host)| host);
    let is_ours =
        |from: &url::Url| from[url::Position::BeforeHost..url::Position::AfterPort] == *host.unwrap_or_default();
    match from.filter(|from| is_ours(from) && from.path() == "/") {
        Some(results) => results[url::Position::BeforePath..url::Position::AfterQuery].to_owned(),
        None => format!("/{}", page.lang_query()),
    }
}

fn day(time: i64) -> String {
    format_timestamp(time).chars().take(10).collect()
}

fn state(page: &Page, listing: &Listing, now: i64) -> Option<&'static str> {
    match listing.status {
        ListingStatus::Sold => Some(page.t("sold")),
        ListingStatus::Draft | ListingStatus::Withdrawn | ListingStatus::Wholesale => Some(page.t("not_public")),
        ListingStatus::Public => match listing.availability(now) {
            Availability::Available => None,
            Availability::Reserved => Some(page.t("reserved")),
            Availability::Unavailable => Some(page.t("unavailable")),
        },
    }
}

/// The price as a share of what is usual.
fn share(listing: &Listing, rating: Rating) -> Option<f64> {
    let (cents, estimate) = listing.price_cents.zip(rating.estimate)?;
    Some(whole_units(cents) / estimate.price)
}

fn marker(listing: &Listing, rating: Rating) -> Option<String> {
    let share = share(listing, rating).filter(|_| rating.deal != Deal::Unrated)?;
    let (from, to) = SCALE;
    Some(format!("{:.1}", ((share - from) / (to - from)).clamp(0.0, 1.0) * 100.0))
}

fn reason(page: &Page, listing: &Listing, rating: Rating) -> String {
    let (Some(share), Some(estimate)) = (share(listing, rating), rating.estimate) else {
        return page.t(if listing.price_cents.is_none() { "no_price" } else { "few_comparables" }).to_owned();
    };
    if rating.deal == Deal::Unrated {
        return page.t("implausible").to_owned();
    }
    let usual = page.language.money(estimate.price, listing.currency.as_deref());
    let percent = ((share - 1.0) * 100.0).round();
    let compared = match percent {
        0.0 => page.t("usual").to_owned(),
        percent if percent < 0.0 => format!("{} {}", page.language.percent(-percent), page.t("under_usual")),
        percent => format!("{} {}", page.language.percent(percent), page.t("over_usual")),
    };
    format!("{compared} ({usual}) · {} {}", estimate.comparables, page.t("comparables"))
}

fn facts(page: &Page, listing: &Listing) -> Vec<(&'static str, String)> {
    let language = page.language;
    let yes = |yes: bool| if yes { page.t("yes") } else { page.t("no") };
    let facts = [
        ("year", listing.year.map(|year| year.to_string())),
        ("mileage", listing.mileage.map(|km| language.km(km))),
        ("make", listing.make.clone()),
        ("model", listing.model.clone()),
        ("trim", listing.trim.clone()),
        ("body_type", listing.body_type.clone()),
        ("fuel_type", listing.fuel_type.clone()),
        ("transmission", listing.transmission.clone()),
        ("drivetrain", listing.drivetrain.clone()),
        ("engine", listing.engine.clone()),
        ("color", listing.color.clone()),
        ("interior_color", listing.interior_color.clone()),
        ("doors", listing.doors.map(|doors| doors.to_string())),
        ("seats", listing.seats.map(|seats| seats.to_string())),
        ("condition", listing.condition.clone()),
        ("certified", Some(yes(listing.certified).to_owned())),
        ("accident_free", Some(listing.accident_free.map_or(page.t("accidents_unknown"), yes).to_owned())),
        ("owner_count", listing.owner_count.map(|owners| owners.to_string())),
        ("vin", listing.vin.clone()),
        ("listed", listing.listed_at.map(day)),
    ];
    facts.into_iter().filter_map(|(name, value)| Some((page.t(name), value?))).collect()
}

/// The car as search engines read it: <https://schema.org/Vehicle> and <https://schema.org/Offer>.
fn json_ld(listing: &Listing, title: &str, page: &Page, now: i64) -> String {
    let is_offered = listing.status == ListingStatus::Public && listing.availability(now) == Availability::Available;
    let is_new = listing.condition.as_deref().is_some_and(|condition| condition.eq_ignore_ascii_case("new"));
    let condition = if is_new { "https://schema.org/NewCondition" } else { "https://schema.org/UsedCondition" };
    let mut body = json!({
        "@context": "https://schema.org",
        "@type": "Vehicle",
        "name": title,
        "url": page.canonical,
        "description": listing.description,
        "image": listing.photos.iter().filter(|photo| is_web(photo)).collect::<Vec<_>>(),
        "brand": listing.make.as_ref().map(|make| json!({"@type": "Brand", "name": make})),
        "model": listing.model,
        "vehicleConfiguration": listing.trim,
        "vehicleModelDate": listing.year.map(|year| year.to_string()),
        "vehicleIdentificationNumber": listing.vin,
        "mileageFromOdometer":
            listing.mileage.map(|km| json!({"@type": "QuantitativeValue", "value": km, "unitCode": "KMT"})),
        "bodyType": listing.body_type,
        "fuelType": listing.fuel_type,
        "vehicleTransmission": listing.transmission,
        "driveWheelConfiguration": listing.drivetrain,
        "color": listing.color,
        "vehicleSeatingCapacity": listing.seats,
        "numberOfDoors": listing.doors,
        "itemCondition": condition,
        "offers": listing.price_cents.map(|cents| json!({
            "@type": "Offer",
            "price": schemas::rows::money(cents.into()),
            "priceCurrency": listing.currency.as_deref().unwrap_or("CAD"),
            "availability":
                if is_offered { "https://schema.org/InStock" } else { "https://schema.org/SoldOut" },
            "url": page.canonical,
        })),
    });
    if let (Some(offer), Some(name)) = (body["offers"].as_object_mut(), &listing.dealer_name) {
        offer.insert("seller".to_owned(), json!({"@type": "AutoDealer", "name": name}));
    }
    // What is not known is left out; and nothing in it may end the script it stands in.
    let known = body.as_object().map(|body| body.iter().filter(|(_, value)| !value.is_null()));
    let known: serde_json::Map<_, _> =
        known.into_iter().flatten().map(|(name, value)| (name.clone(), value.clone())).collect();
    serde_json::Value::Object(known).to_string().replace('<', "\\u003c")
}
