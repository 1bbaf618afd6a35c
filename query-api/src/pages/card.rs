//! A listing among others.

use schemas::rows::money;
use search_index::{Availability, Hit};

use super::{Page, drawing, escape::escaped, illustration, links};
use crate::search::Priced;

pub(crate) struct Card {
    pub(super) id: String,
    pub(super) href: String,
    /// HTML: what was found in it is marked.
    pub(super) title: String,
    pub(super) photo: Option<String>,
    /// HTML, where there is no photo.
    pub(super) drawing: String,
    pub(super) price: String,
    pub(super) drop: Option<String>,
    pub(super) deal: &'static str,
    pub(super) facts: String,
    pub(super) place: String,
    pub(super) state: Option<&'static str>,
    /// What it is not, of what was asked for.
    pub(super) misses: Option<String>,
}

impl Card {
    pub(super) fn of(hit: &Hit, page: &Page, priced: &Priced) -> Self {
        let (listing, language) = (&hit.listing, page.language);
        let currency = listing.currency.as_deref();
        let amount = |cents: i64| language.money(whole_units(cents), currency);
        let price = listing.price_cents.map_or_else(|| "–".to_owned(), amount);
        let monthly = listing.price_cents.map(|cents| {
            let monthly = language.money(priced.terms.monthly(whole_units(cents)).ceil(), currency);
            format!("{monthly}/{}", page.t("month"))
        });
        let mileage = listing.mileage.map(|km| language.km(km));
        let gearbox = listing.transmission.clone();
        let facts: Vec<String> = [mileage, gearbox, listing.fuel_type.clone(), monthly].into_iter().flatten().collect();
        let distance = hit.distance_km.map(|km| {
            #[expect(clippy::cast_possible_truncation, reason = "distances on Earth are below 20,038 km")]
            let km = language.number(km.round() as i64);
            format!("{km} {}", page.t("km_away"))
        });
        let place: Vec<String> =
            [listing.city.clone(), listing.province.clone(), distance].into_iter().flatten().collect();
        let state = match hit.availability {
            Availability::Available => None,
            Availability::Reserved => Some(page.t("reserved")),
            Availability::Unavailable => Some(page.t("unavailable")),
        };
        let title = hit.highlights.get("title").cloned();
        Self {
            id: listing.listing_id.clone(),
            href: links::vehicle(&listing.listing_id, &page.kept),
            title: title.unwrap_or_else(|| escaped(&title_of(listing))),
            photo: listing.photos.iter().find(|photo| is_shown(photo)).cloned(),
            drawing: drawing::car(listing.body_type.as_deref(), listing.color.as_deref()),
            price,
            drop: listing.price_drop_cents().map(amount),
            deal: priced.market.rate(listing).deal.name(),
            facts: facts.join(" · "),
            place: place.join(" · "),
            state,
            misses: None,
        }
    }
}

/// Its title, or what it is.
pub(super) fn title_of(listing: &search_index::Listing) -> String {
    let parts = || {
        let year = listing.year.map(|year| year.to_string());
        let parts = [year, listing.make.clone(), listing.model.clone(), listing.trim.clone()];
        parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
    };
    let title = listing.title.clone().filter(|title| !title.trim().is_empty()).unwrap_or_else(parts);
    if title.is_empty() { listing.listing_id.clone() } else { title }
}

/// Photos elsewhere on the web.
pub(super) fn is_web(photo: &str) -> bool {
    photo.starts_with("https://") || photo.starts_with("http://")
}

/// Photos elsewhere on the web, and our own illustrations; other addresses are not shown.
pub(super) fn is_shown(photo: &str) -> bool {
    is_web(photo) || photo.starts_with(illustration::FOLDER)
}

pub(super) fn whole_units(cents: i64) -> f64 {
    money(cents.into()).as_f64().unwrap_or_default()
}
