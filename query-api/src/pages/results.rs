//! `/`: the search.

use askama::Template;
use axum::{extract::State, http::StatusCode, response::Response};
use search_index::{
    Correction, Criterion, Facet, Instead, Range, SearchPage, SearchRequest, Sort,
    query::Bounds,
    reading::{Meaning, Overrules, Read},
    without_words,
};

use super::{Page, PageRequest, card::Card, links, shown, words::Language};
use crate::{
    AppState,
    parameters::Parameters,
    problem::Problem,
    search::{Searched, searched},
};

/// The order of what can be chosen: the most used first.
const GROUPS: [Group; 22] = [
    Group::Facet(Facet::Make),
    Group::Facet(Facet::Model),
    Group::Facet(Facet::Trim),
    Group::Range(Range::Price),
    Group::Range(Range::Year),
    Group::Place,
    Group::Range(Range::Mileage),
    Group::Facet(Facet::Deal),
    Group::Facet(Facet::BodyType),
    Group::Facet(Facet::FuelType),
    Group::Facet(Facet::Transmission),
    Group::Facet(Facet::Drivetrain),
    Group::Facet(Facet::Color),
    Group::Facet(Facet::Province),
    Group::Facet(Facet::City),
    Group::Facet(Facet::Features),
    Group::Facet(Facet::Seats),
    Group::Facet(Facet::Condition),
    Group::Facet(Facet::Certified),
    Group::Facet(Facet::Availability),
    Group::Facet(Facet::Dealer),
    Group::More,
];
/// Groups that are open before anything is chosen.
const OPEN: usize = 6;
/// Parameters that cannot be used, and are left out one by one.
const MOST_LEFT_OUT: usize = 8;
/// Values shown of a facet, unless all are asked for.
const VALUES: usize = 40;
/// What the form says itself; anything else of the address is kept beside it.
const OF_THE_FORM: [&str; 4] = ["q", "sort", "lang", "cursor"];

enum Group {
    Facet(Facet),
    Range(Range),
    /// Where it may be.
    Place,
    /// What is asked seldom.
    More,
}

impl Group {
    /// What it is called in the dictionary.
    const fn name(&self) -> &'static str {
        match self {
            Self::Facet(facet) => facet.name(),
            Self::Range(range) => range.name(),
            Self::Place => "place",
            Self::More => "more",
        }
    }

    /// The fields of a group that is neither a facet nor a range.
    const fn fields(&self) -> &'static [&'static str] {
        match self {
            Self::Facet(_) | Self::Range(_) => &[],
            Self::Place => &["near", "radius_km"],
            Self::More => &["payment_max", "owners_max", "days_listed_max", "price_drop", "accident_free"],
        }
    }

    /// Whether the form says this parameter by it.
    fn says(&self, parameter: &str) -> bool {
        match self {
            Self::Facet(facet) => parameter == facet.name(),
            Self::Range(range) => {
                parameter.strip_suffix("_min").or(parameter.strip_suffix("_max")) == Some(range.name())
            }
            Self::Place | Self::More => self.fields().contains(&parameter),
        }
    }
}

struct GroupView {
    name: &'static str,
    label: &'static str,
    open: bool,
    range: Option<RangeView>,
    values: Vec<ValueView>,
    fields: Vec<FieldView>,
    /// The way to every value, where some are not shown.
    rest: Option<Chip>,
}

impl GroupView {
    /// Without anything in it.
    fn new(group: &Group, page: &Page, open: bool) -> Self {
        let (name, label) = (group.name(), page.t(group.name()));
        Self { name, label, open, range: None, values: Vec::new(), fields: Vec::new(), rest: None }
    }
}

/// Something to write, or to tick.
struct FieldView {
    name: &'static str,
    label: &'static str,
    kind: &'static str,
    value: String,
}

struct RangeView {
    min: String,
    max: String,
    lowest: String,
    highest: String,
    /// Of each bucket, how high it is in percent of the highest.
    bars: Vec<u64>,
}

struct ValueView {
    value: String,
    label: String,
    count: String,
    selected: bool,
}

/// Something that a link takes away.
struct Chip {
    label: String,
    href: String,
}

#[derive(Template)]
#[template(path = "search.html")]
struct ResultsPage {
    page: Page,
    q: String,
    indexed: bool,
    kept: Vec<(String, String)>,
    /// The search as it is saved.
    save_search: String,
    groups: Vec<GroupView>,
    sorts: Vec<ValueView>,
    total: String,
    one: bool,
    /// Why something of the address was left out.
    left_out: Vec<String>,
    corrections: Vec<Correction>,
    interpreted: Vec<Chip>,
    raw_href: String,
    chips: Vec<Chip>,
    clear_href: String,
    cards: Vec<Card>,
    next_href: Option<String>,
    empty_market: bool,
    relaxations: Vec<Chip>,
    near_misses: Vec<Card>,
}

pub(crate) async fn home(State(api): State<AppState>, mut asked: PageRequest) -> Response {
    let page = results(&api, &mut asked).await;
    let is_wrong = page.as_ref().is_ok_and(|page| !page.left_out.is_empty());
    let mut response = shown(&asked, page);
    if is_wrong {
        *response.status_mut() = StatusCode::BAD_REQUEST;
    }
    response
}

async fn results(api: &AppState, asked: &mut PageRequest) -> Result<ResultsPage, Problem> {
    let (searched, left_out) = search(api, asked).await?;
    let Searched { page: found, request, read, overruled, priced, asked_text, .. } = searched;
    let next = found.next_cursor.as_ref();
    let next = next.map(|cursor| format!("/{}", links::with(&asked.parameters, "cursor", &cursor.encode())));
    // What was chosen before the words were written, and they say otherwise, is chosen no more.
    let overruled: Vec<&str> = overruled.iter().map(String::as_str).collect();
    asked.parameters = asked.parameters.clone().without(&overruled);
    let asked = &*asked;
    let parameters = &asked.parameters;
    let filtered = parameters.pairs().any(|(name, value)| !value.is_empty() && name != "lang");
    let mut page =
        Page::new(asked, "Forecourt".to_owned(), &links::only(parameters, &["make", "model", "body_type", "lang"]));
    page.title = title(&page, parameters);
    let language = page.language;
    let card = |hit| Card::of(hit, &page, &priced);
    let cards = found.hits.iter().map(card).collect();
    let near_misses = found.near_misses.iter().map(|(hit, criteria)| Card {
        misses: Some(format!("{} {}", page.t("without"), labels(&page, criteria))),
        ..Card::of(hit, &page, &priced)
    });
    let near_misses: Vec<Card> = near_misses.collect();
    let shown_groups: Vec<(&Group, GroupView)> = GROUPS
        .iter()
        .enumerate()
        .filter_map(|(at, group)| {
            let view = match group {
                Group::Facet(facet) => facet_view(at, *facet, &found, asked, &page),
                Group::Range(range) => range_view(at, *range, &found, &request, &page),
                Group::Place | Group::More => Some(fields_view(at, group, asked, &request, &read, &page)),
            };
            Some((group, view?))
        })
        .collect();
    let in_form = |name: &str| OF_THE_FORM.contains(&name) || shown_groups.iter().any(|(group, _)| group.says(name));
    let kept = parameters.pairs().filter(|(name, value)| !value.is_empty() && !in_form(name)).cloned().collect();
    let sorts = Sort::ALL.iter().filter(|sort| **sort != Sort::Distance || request.near.is_some());
    let sorts = sorts.map(|sort| ValueView {
        value: if *sort == Sort::Relevance { String::new() } else { sort.name().to_owned() },
        label: page.t(&format!("sort_{}", sort.name())).to_owned(),
        count: String::new(),
        selected: *sort == request.sort,
    });
    let currency = found.hits.first().and_then(|hit| hit.listing.currency.as_deref());
    let relaxations = found.relaxations.iter().map(|relaxation| {
        let total = language.number(i64::try_from(relaxation.total).unwrap_or(i64::MAX));
        let (what, href) = match &relaxation.instead {
            Instead::Without(criteria) => {
                let is_given_up = |means: &Meaning| criteria.iter().any(|criterion| says(means, criterion.name()));
                let text = if criteria.contains(&Criterion::Text) {
                    // What was read from the text stays, unless it is given up as well.
                    let kept = read.iter().filter(|read| !is_given_up(&read.means));
                    kept.map(|read| read.words.as_str()).collect::<Vec<_>>().join(" ")
                } else {
                    without_reads(&asked_text, &read, is_given_up)
                };
                let mut given_up = vec!["q".to_owned()];
                for criterion in criteria {
                    let name = criterion.name();
                    given_up.extend([name.to_owned(), format!("{name}_min"), format!("{name}_max")]);
                    if *criterion == Criterion::Radius {
                        // Without a place nothing is near or far.
                        given_up.push("near".to_owned());
                    }
                }
                let given_up: Vec<&str> = given_up.iter().map(String::as_str).collect();
                let href = links::changed(parameters, &given_up, &[("q", &text)]);
                (format!("{} {}", page.t("without"), labels(&page, criteria)), href)
            }
            Instead::WithoutWord(word) => {
                let text = without_words(&asked_text, word);
                (format!("{} “{word}”", page.t("without")), links::with(parameters, "q", &text))
            }
            Instead::WithinKm(radius) => (
                format!("{} {}", page.t("within"), bounded(language, Range::Mileage, *radius, None)),
                links::with(parameters, "radius_km", &radius.to_string()),
            ),
        };
        Chip { label: format!("{what} ({total})"), href: format!("/{href}") }
    });
    let interpreted = read.iter().map(|read| Chip {
        label: meaning(&page, read, request.radius_km, currency),
        href: format!("/{}", links::with(parameters, "q", &without_words(&asked_text, &read.words))),
    });
    Ok(ResultsPage {
        // What the form says is not said again by its words.
        q: without_reads(&asked_text, &read, |means| in_form(parameter_of(means))),
        indexed: !filtered
            || parameters.pairs().all(|(name, _)| ["make", "model", "body_type", "lang"].contains(&name.as_str())),
        kept,
        save_search: links::without(parameters, &["lang", "sort", "all"]),
        sorts: sorts.collect(),
        total: language.number(i64::try_from(found.total).unwrap_or(i64::MAX)),
        one: found.total == 1,
        interpreted: interpreted.collect(),
        raw_href: format!("/{}", links::with(parameters, "raw", "true")),
        chips: chips(parameters, &page, currency),
        clear_href: format!("/{}", links::only(parameters, &["lang"])),
        next_href: next,
        empty_market: found.total == 0 && !filtered,
        relaxations: relaxations.collect(),
        corrections: found.corrections.clone(),
        groups: shown_groups.into_iter().map(|(_, view)| view).collect(),
        cards,
        near_misses,
        left_out,
        page,
    })
}

/// Search as the page is asked to. What of it cannot be used is left out, and why; a distance from nowhere, left by a place
/// that was taken away, needs no word.
async fn search(api: &AppState, asked: &mut PageRequest) -> Result<(Searched, Vec<String>), Problem> {
    let mut left_out = Vec::new();
    loop {
        let problem = match searched(api, &asked.parameters, &asked.headers, Overrules::Words).await {
            Ok(searched) => return Ok((searched, left_out)),
            Err(problem) => problem,
        };
        let Some(name) = problem.parameter_at_fault().filter(|name| asked.parameters.has(name)) else {
            return Err(problem);
        };
        let is_nowhere = ["radius_km", "sort"].contains(&name) && asked.parameters.all("near").next().is_none();
        if left_out.len() == MOST_LEFT_OUT {
            return Err(problem);
        }
        if !is_nowhere || !problem.detail().contains("needs near") {
            left_out.push(problem.detail().to_owned());
        }
        asked.parameters = asked.parameters.clone().without(&[name]);
    }
}

/// A text without the words that were read as something.
fn without_reads(text: &str, read: &[Read], is_meant: impl Fn(&Meaning) -> bool) -> String {
    let meant = read.iter().filter(|read| is_meant(&read.means));
    meant.fold(text.to_owned(), |text, read| without_words(&text, &read.words))
}

fn title(page: &Page, parameters: &Parameters) -> String {
    let named: Vec<&str> = ["make", "model"].into_iter().flat_map(|name| parameters.all(name)).collect();
    if named.is_empty() {
        format!("Forecourt – {}", page.t("tagline"))
    } else {
        format!("{} – Forecourt", named.join(" "))
    }
}

/// What a parameter is called.
fn label(page: &Page, name: &str) -> String {
    match name {
        "q" => page.t("search").to_owned(),
        "near" | "radius_km" => page.t("place").to_owned(),
        other => page.t(other).to_owned(),
    }
}

fn labels(page: &Page, criteria: &[Criterion]) -> String {
    criteria.iter().map(|criterion| label(page, criterion.name())).collect::<Vec<_>>().join(" + ")
}

fn facet_view(at: usize, facet: Facet, found: &SearchPage, asked: &PageRequest, page: &Page) -> Option<GroupView> {
    let counts = found.facets.get(&facet).filter(|counts| !counts.is_empty())?;
    // Trims mean nothing without their model.
    if facet == Facet::Trim && !found.facets.get(&Facet::Model)?.iter().chain(counts).any(|count| count.selected) {
        return None;
    }
    let chosen = counts.iter().filter(|count| count.selected);
    let is_whole = asked.parameters.all("all").any(|name| name == facet.name());
    let shown = if is_whole { usize::MAX } else { VALUES };
    let others = counts.iter().filter(|count| !count.selected).take(shown);
    let values = chosen.chain(others).map(|count| ValueView {
        value: count.value.clone(),
        label: value_label(page, facet, &count.value),
        count: page.language.number(i64::try_from(count.count).unwrap_or(i64::MAX)),
        selected: count.selected,
    });
    let values: Vec<ValueView> = values.collect();
    let rest = (values.len() < counts.len()).then(|| Chip {
        label: page.t("all_values").to_owned(),
        href: format!("/{}#filters", links::with(&asked.parameters, "all", facet.name())),
    });
    let open = at < OPEN || is_whole || values.iter().any(|value| value.selected);
    Some(GroupView { values, rest, ..GroupView::new(&Group::Facet(facet), page, open) })
}

fn range_view(at: usize, range: Range, found: &SearchPage, request: &SearchRequest, page: &Page) -> Option<GroupView> {
    let summary = found.ranges.get(&range)?;
    let Bounds { min, max } = request.ranges.get(&range).copied().unwrap_or_default();
    let most = summary.buckets.iter().map(|bucket| bucket.count).max().unwrap_or(1).max(1);
    let given = |bound: Option<f64>| bound.map_or_else(String::new, |bound| bound.to_string());
    let view = RangeView {
        min: given(min),
        max: given(max),
        lowest: given(summary.min.map(f64::round)),
        highest: given(summary.max.map(f64::round)),
        bars: summary.buckets.iter().map(|bucket| bucket.count * 100 / most).collect(),
    };
    let open = at < OPEN || min.is_some() || max.is_some();
    Some(GroupView { range: Some(view), ..GroupView::new(&Group::Range(range), page, open) })
}

fn fields_view(
    at: usize,
    group: &Group,
    asked: &PageRequest,
    request: &SearchRequest,
    read: &[Read],
    page: &Page,
) -> GroupView {
    let field = |name: &&'static str| {
        let kind = match *name {
            "near" => "text",
            "price_drop" | "accident_free" => "checkbox",
            _ => "number",
        };
        let given = || asked.parameters.all(name).next().map(str::to_owned);
        let said = || read.iter().find_map(|read| field_value(&read.means, name));
        let ticked = |is: bool| is.then(|| "true".to_owned());
        let value = match *name {
            "price_drop" => ticked(request.price_drop),
            "accident_free" => ticked(request.accident_free),
            _ => given().or_else(said),
        };
        FieldView { name, kind, label: page.t(name), value: value.unwrap_or_default() }
    };
    let fields: Vec<FieldView> = group.fields().iter().map(field).collect();
    let open = at < OPEN || fields.iter().any(|field| !field.value.is_empty());
    GroupView { fields, ..GroupView::new(group, page, open) }
}

/// What a field has when words say it.
fn field_value(means: &Meaning, field: &str) -> Option<String> {
    match (means, field) {
        (Meaning::Near { city, .. }, "near") => Some(city.clone()),
        (Meaning::Near { radius_km, .. }, "radius_km") => Some(radius_km.to_string()),
        (Meaning::Payment(monthly), "payment_max") => Some(monthly.to_string()),
        (Meaning::OwnersMax(most), "owners_max") => Some(most.to_string()),
        _ => None,
    }
}

fn value_label(page: &Page, facet: Facet, value: &str) -> String {
    match (facet, value) {
        (Facet::Deal, deal) => page.deal(deal).to_owned(),
        (Facet::Availability, state @ ("available" | "reserved" | "unavailable")) => page.t(state).to_owned(),
        (Facet::Certified, "true") => page.t("yes").to_owned(),
        (Facet::Certified, "false") => page.t("no").to_owned(),
        _ => value.to_owned(),
    }
}

/// What a search asks, in words.
pub(super) fn said(page: &Page, parameters: &Parameters) -> Vec<String> {
    let text = parameters.all("q").map(|text| format!("“{text}”"));
    let filters = chips(parameters, page, None).into_iter().map(|chip| chip.label);
    text.chain(filters).collect()
}

/// What is filtered by, each with the address without it.
fn chips(parameters: &Parameters, page: &Page, currency: Option<&str>) -> Vec<Chip> {
    let other = [
        "q",
        "sort",
        "lang",
        "all",
        "cursor",
        "page_size",
        "facets",
        "facet_query",
        "hierarchy",
        "apr",
        "term_months",
        "down",
        "min_position",
        "wait_ms",
    ];
    let filters = parameters.pairs().filter(|(name, value)| !value.is_empty() && !other.contains(&name.as_str()));
    let chips = filters.map(|(name, value)| {
        let shown = match Facet::parse(name) {
            Some(facet @ (Facet::Certified | Facet::Seats)) => {
                format!("{}: {}", page.t(facet.name()), value_label(page, facet, value))
            }
            Some(facet) => value_label(page, facet, value),
            None => chip_label(page, name, value, currency),
        };
        // A distance from nowhere means nothing.
        let href = match name.as_str() {
            "near" => links::without(parameters, &["near", "radius_km"]),
            _ => links::without_value(parameters, name, value),
        };
        Chip { label: shown, href: format!("/{href}") }
    });
    chips.collect()
}

fn chip_label(page: &Page, name: &str, value: &str, currency: Option<&str>) -> String {
    let language = page.language;
    let number = value.parse::<f64>().ok().filter(|number| number.abs() < 1e15);
    let bound = |range: Range| number.map_or_else(|| value.to_owned(), |it| bounded(language, range, it, currency));
    let range = |end: &str| Range::ALL.into_iter().find(|range| name.strip_suffix(end) == Some(range.name()));
    match (name, range("_min"), range("_max")) {
        (_, Some(range), _) => format!("{} ≥ {}", page.t(range.name()), bound(range)),
        (_, _, Some(range)) => format!("{} ≤ {}", page.t(range.name()), bound(range)),
        ("payment_max", ..) => format!("≤ {}/{}", bound(Range::Price), page.t("month")),
        ("radius_km", ..) => format!("{} {}", page.t("within"), bound(Range::Mileage)),
        ("raw", ..) => page.t("raw").to_owned(),
        _ if value == "true" => label(page, name),
        _ => format!("{}: {value}", label(page, name)),
    }
}

/// What words of the text were read as.
fn meaning(page: &Page, read: &Read, radius_km: Option<f64>, currency: Option<&str>) -> String {
    match &read.means {
        Meaning::Values(facet, values) => {
            let values: Vec<String> = values.iter().map(|value| value_label(page, *facet, value)).collect();
            format!("{}: {}", page.t(facet.name()), values.join(" / "))
        }
        Meaning::Bounds(range, Bounds { min, max }) => {
            let number = |bound: f64| bounded(page.language, *range, bound, currency);
            let name = page.t(range.name());
            match (min, max) {
                (Some(min), Some(max)) if min == max => format!("{name}: {}", number(*min)),
                (Some(min), Some(max)) => format!("{name}: {}–{}", number(*min), number(*max)),
                (Some(min), None) => format!("{name} ≥ {}", number(*min)),
                (None, Some(max)) => format!("{name} ≤ {}", number(*max)),
                (None, None) => name.to_owned(),
            }
        }
        Meaning::Payment(monthly) => format!("≤ {}/{}", page.language.money(*monthly, currency), page.t("month")),
        Meaning::Near { city, .. } => match radius_km {
            Some(radius) => {
                format!("{city} ({} {})", page.t("within"), bounded(page.language, Range::Mileage, radius, None))
            }
            None => city.clone(),
        },
        Meaning::OwnersMax(most) => format!("{} ≤ {most}", page.t("owner_count")),
        Meaning::AccidentFree => page.t("accident_free").to_owned(),
        Meaning::PriceDrop => page.t("price_drop").to_owned(),
    }
}

fn bounded(language: Language, range: Range, bound: f64, currency: Option<&str>) -> String {
    #[expect(clippy::cast_possible_truncation, reason = "prices, years and kilometres are far below 2^53")]
    let whole = bound.round() as i64;
    match range {
        Range::Price => language.money(bound, currency),
        Range::Year => whole.to_string(),
        Range::Mileage => language.km(whole),
    }
}

/// Whether this filter is meant.
fn says(means: &Meaning, name: &str) -> bool {
    parameter_of(means).trim_end_matches("_min") == name
}

/// The parameter that says the same, or the first of several.
const fn parameter_of(means: &Meaning) -> &'static str {
    match means {
        Meaning::Values(facet, _) => facet.name(),
        Meaning::Bounds(Range::Price, _) => "price_min",
        Meaning::Bounds(Range::Year, _) => "year_min",
        Meaning::Bounds(Range::Mileage, _) => "mileage_min",
        Meaning::Payment(_) => "payment_max",
        Meaning::Near { .. } => "radius_km",
        Meaning::OwnersMax(_) => "owners_max",
        Meaning::AccidentFree => "accident_free",
        Meaning::PriceDrop => "price_drop",
    }
}
