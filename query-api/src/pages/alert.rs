//! `/alerts/{id}`: a saved search and what it was told of; and the forms that save one and give it up.

use askama::Template;
use axum::{
    body::Bytes,
    extract::State,
    http::{HeaderMap, Method, StatusCode},
    response::{IntoResponse, Redirect, Response},
};
use schemas::Position;
use search_index::Hit;

use super::{Page, PageRequest, card::Card, results::said, shown};
use crate::{
    AppState,
    alerts::{NewAlert, give_up, pairs_of, save},
    consistency::Freshness,
    endpoints,
    parameters::{Id, Parameters},
    payment::PaymentTerms,
    problem::Problem,
    search::{Priced, market},
};

/// Cars shown, the newest first.
const SHOWN: usize = 60;

#[derive(Template)]
#[template(path = "alert.html")]
struct AlertPage {
    page: Page,
    id: String,
    /// What the log has after it is not shown.
    position: u64,
    /// What it asks, in words.
    chips: Vec<String>,
    over: bool,
    search_href: String,
    cards: Vec<Card>,
}

pub(crate) async fn alert(State(api): State<AppState>, id: Id, asked: PageRequest) -> Response {
    let page = alert_page(&api, id, &asked).await;
    shown(&asked, page)
}

async fn alert_page(api: &AppState, id: Id, asked: &PageRequest) -> Result<AlertPage, Problem> {
    let freshness = Freshness::of(&asked.parameters, &asked.headers)?;
    freshness.wait(&api.alerts.reflects).await?;
    let mut page = Page::new(asked, "Forecourt".to_owned(), "");
    let unknown = || Problem::not_found(page.t("unknown_alert"));
    let id = id.map_err(|_| unknown())?.0;
    let alert = api.alerts.get(&id).ok_or_else(unknown)?;
    let snapshot = freshness.wait(&api.pipeline.listings).await?;
    let priced = Priced { market: market(api, &snapshot).await?, terms: PaymentTerms::default() };
    let now = (api.now)();
    page.title = format!("{} – Forecourt", page.t("alert_title"));
    let position = alert.matches.back().map_or(Position::START, |last| last.position).get();
    let mut cards = Vec::new();
    for found in alert.matches.iter().rev().take(SHOWN) {
        let listing = snapshot.listing(&found.listing_id).map_err(|error| Problem::internal(&error))?;
        cards.extend(listing.map(|listing| {
            let availability = listing.availability(now);
            let hit = Hit { listing, availability, distance_km: None, highlights: Default::default() };
            Card::of(&hit, &page, &priced)
        }));
    }
    let search = Parameters::known(endpoints::parameters(&Method::GET, "/v1/search"), &alert.search);
    let mut chips = said(&page, &search.clone().without(&["raw"]));
    if chips.is_empty() {
        chips.push(page.t("alert_any").to_owned());
    }
    let lang = page.lang_query();
    let joined = if lang.is_empty() { String::new() } else { format!("&{}", &lang[1..]) };
    let search_href = format!("/?{}{joined}", alert.search);
    Ok(AlertPage { over: alert.is_over(now), search_href, chips, cards, id, position, page })
}

/// `POST /alerts`, from the search's form.
pub(crate) async fn save_alert(
    State(api): State<AppState>,
    headers: HeaderMap,
    asked: PageRequest,
    body: Bytes,
) -> Response {
    let saved = async {
        of_our_own(&headers)?;
        let form = url::form_urlencoded::parse(&body).into_owned().find(|(name, _)| name == "search");
        let missing = || Problem::parameter("search", "the form has no search");
        let (_, search) = form.ok_or_else(missing)?;
        let search = pairs_of(&search).into_iter().filter(|(_, value)| !value.is_empty()).collect();
        save(&api, NewAlert { search, ..NewAlert::default() }).await
    };
    let lang = Page::new(&asked, String::new(), "").lang_query();
    match saved.await {
        Ok((alert, position)) => {
            let id = alert.id;
            let query = match api.alerts.has(&id) {
                true => lang,
                false if lang.is_empty() => format!("?min_position={position}"),
                false => format!("{lang}&min_position={position}"),
            };
            Redirect::to(&format!("/alerts/{id}{query}")).into_response()
        }
        Err(problem) => shown::<AlertPage>(&asked, Err(problem)),
    }
}

/// `POST /alerts/{id}/delete`
pub(crate) async fn stop_alert(
    State(api): State<AppState>,
    headers: HeaderMap,
    id: Id,
    asked: PageRequest,
) -> Response {
    let page = Page::new(&asked, String::new(), "");
    let stopped = async {
        of_our_own(&headers)?;
        let id = id.map_err(|_| Problem::not_found(page.t("unknown_alert")))?.0;
        give_up(&api, &id).await
    };
    match stopped.await {
        Ok(_) => Redirect::to(&format!("/{}", page.lang_query())).into_response(),
        Err(problem) => shown::<AlertPage>(&asked, Err(problem)),
    }
}

/// A form of another site does nothing here.
fn of_our_own(headers: &HeaderMap) -> Result<(), Problem> {
    let site = headers.get("sec-fetch-site").and_then(|site| site.to_str().ok());
    if site.is_none_or(|site| ["same-origin", "none"].contains(&site)) {
        return Ok(());
    }
    let detail = "This form was sent from another site. Send it from the page itself.";
    Err(Problem::new(StatusCode::FORBIDDEN, "cross_site", "Not from here", detail))
}
