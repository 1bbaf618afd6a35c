//! `/`: the search.

use askama::Template;
use axum::{extract::State, response::Response};
use search_index::{
    Correction, Criterion, Facet, Instead, Range, SearchPage, Sort,
    query::Bounds,
    reading::{Meaning, Read},
    without_words,
};

use super::{Asked, Page, card::Card, links, shown, words::Language};
use crate::{
    Api,
    parameters::Parameters,
    problem::Problem,
    search::{Searched, searched},
};

/// The order of what can be chosen: the most used first.
const GROUPS: [Group; 18] = [
    Group::Facet(Facet::Make),
    Group::Facet(Facet::Model),
    Group::Range(Range::Price),
    Group::Range(Range::Year),
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
    Group::Facet(Facet::Availability),
    Group::Facet(Facet::Dealer),
];
/// Groups that are open before anything is chosen.
const OPEN: usize = 4;
/// Values shown of a facet, unless all are asked for.
const VALUES: usize = 40;
/// What the form says itself; anything else of the address is kept beside it.
const OF_THE_FORM: [&str; 4] = ["q", "sort", "lang", "cursor"];

enum Group {
    Facet(Facet),
    Range(Range),
}

struct GroupView {
    name: &'static str,
    label: &'static str,
    open: bool,
    range: Option<RangeView>,
    values: Vec<ValueView>,
    /// The way to every value, where some are not shown.
    rest: Option<Chip>,
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

pub(crate) async fn home(State(api): State<Api>, asked: Asked) -> Response {
    let page = results(&api, &asked).await;
    shown(&asked, page)
}

async fn results(api: &Api, asked: &Asked) -> Result<ResultsPage, Problem> {
    let Searched { page: found, request, read, priced, asked_text, .. } = search(api, asked).await?;
    let parameters = &asked.parameters;
    let filtered = parameters.pairs().any(|(name, value)| !value.is_empty() && name != "lang");
    let mut page =
        Page::new(asked, "Forecourt".to_owned(), &links::only(parameters, &["make", "model", "body_type", "lang"]));
    page.title = title(&page, parameters);
    let language = page.language;
    let card = |hit| Card::of(hit, &page, &priced);
    let cards = found.hits.iter().map(card).collect();
    let near_misses = found.near_misses.iter().map(|(hit, criterion)| Card {
        misses: Some(format!("{} {}", page.t("without"), label(&page, criterion.name()))),
        ..Card::of(hit, &page, &priced)
    });
    let near_misses: Vec<Card> = near_misses.collect();
    let groups = GROUPS.iter().enumerate().filter_map(|(at, group)| view(at, group, &found, asked, &page));
    let groups: Vec<GroupView> = groups.collect();
    let in_form = |name: &str| {
        OF_THE_FORM.contains(&name)
            || groups.iter().any(|group| {
                name == group.name
                    || (group.range.is_some()
                        && name.strip_suffix("_min").or(name.strip_suffix("_max")) == Some(group.name))
            })
    };
    let kept = parameters.pairs().filter(|(name, value)| !value.is_empty() && !in_form(name)).cloned().collect();
    let sorts = Sort::ALL.iter().filter(|sort| **sort != Sort::Distance || request.near.is_some());
    let sorts = sorts.map(|sort| ValueView {
        value: if *sort == Sort::Relevance { String::new() } else { sort.name().to_owned() },
        label: page.t(&format!("sort_{}", sort.name())).to_owned(),
        count: String::new(),
        selected: *sort == request.sort,
    });
    let relaxations = found.relaxations.iter().map(|relaxation| {
        let total = language.number(i64::try_from(relaxation.total).unwrap_or(i64::MAX));
        let (what, href) = match &relaxation.instead {
            Instead::Without(criterion) => {
                let name = criterion.name();
                let text = match criterion {
                    // What was read from the text stays.
                    Criterion::Text => read.iter().map(|read| read.words.as_str()).collect::<Vec<_>>().join(" "),
                    _ => without_reads(&asked_text, &read, |means| says(means, name)),
                };
                let (min, max) = (format!("{name}_min"), format!("{name}_max"));
                let mut given_up = vec![name, &min, &max, "q"];
                if *criterion == Criterion::Radius {
                    // Without a place nothing is near or far.
                    given_up.extend(["near", "sort"]);
                }
                let href = links::changed(parameters, &given_up, &[("q", &text)]);
                (format!("{} {}", page.t("without"), label(&page, name)), href)
            }
            Instead::WithoutWord(word) => {
                let text = without_words(&asked_text, word);
                (format!("{} “{word}”", page.t("without")), links::with(parameters, "q", &text))
            }
            Instead::WithinKm(radius) => {
                (format!("{} {radius} km", page.t("within")), links::with(parameters, "radius_km", &radius.to_string()))
            }
        };
        Chip { label: format!("{what} ({total})"), href: format!("/{href}") }
    });
    let interpreted = read.iter().map(|read| Chip {
        label: meaning(&page, read, request.radius_km),
        href: format!("/{}", links::with(parameters, "q", &without_words(&asked_text, &read.words))),
    });
    let next =
        found.next_cursor.as_ref().map(|cursor| format!("/{}", links::with(parameters, "cursor", &cursor.encode())));
    Ok(ResultsPage {
        // What is ticked in the form is not said again by its words.
        q: without_reads(&asked_text, &read, |means| matches!(means, Meaning::Values(facet, _) if is_ticked(*facet))),
        indexed: !filtered
            || parameters.pairs().all(|(name, _)| ["make", "model", "body_type", "lang"].contains(&name.as_str())),
        kept,
        save_search: links::without(parameters, &["lang", "sort", "all"]),
        sorts: sorts.collect(),
        total: language.number(i64::try_from(found.total).unwrap_or(i64::MAX)),
        one: found.total == 1,
        interpreted: interpreted.collect(),
        raw_href: format!("/{}", links::with(parameters, "raw", "true")),
        chips: chips(parameters, &page),
        clear_href: format!("/{}", links::only(parameters, &["lang"])),
        next_href: next,
        empty_market: found.total == 0 && !filtered,
        relaxations: relaxations.collect(),
        corrections: found.corrections.clone(),
        cards,
        near_misses,
        groups,
        page,
    })
}

/// Search as the page is asked to. A distance from nowhere, left by a place that was taken away, is left out.
async fn search(api: &Api, asked: &Asked) -> Result<Searched, Problem> {
    let found = searched(api, &asked.parameters, &asked.headers).await;
    let is_nowhere = |problem: &Problem| matches!(problem.parameter_at_fault(), Some("radius_km" | "sort"));
    match found {
        Err(problem) if is_nowhere(&problem) && !asked.parameters.has("near") => {
            let parameters = asked.parameters.clone().without(&["radius_km", "sort"]);
            searched(api, &parameters, &asked.headers).await
        }
        found => found,
    }
}

/// Whether the form has boxes for it.
fn is_ticked(facet: Facet) -> bool {
    GROUPS.iter().any(|group| matches!(group, Group::Facet(other) if *other == facet))
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
        "payment_max" => format!("{}/{}", page.t("price"), page.t("month")),
        "radius_km" | "near" => page.t("city").to_owned(),
        "days_listed_max" => page.t("listed").to_owned(),
        "owners_max" => page.t("owner_count").to_owned(),
        "availability" => page.t("available").to_owned(),
        other => page.t(other).to_owned(),
    }
}

fn view(at: usize, group: &Group, found: &SearchPage, asked: &Asked, page: &Page) -> Option<GroupView> {
    match group {
        Group::Facet(facet) => {
            let counts = found.facets.get(facet).filter(|counts| !counts.is_empty())?;
            let chosen = counts.iter().filter(|count| count.selected);
            let is_whole = asked.parameters.all("all").any(|name| name == facet.name());
            let shown = if is_whole { usize::MAX } else { VALUES };
            let others = counts.iter().filter(|count| !count.selected).take(shown);
            let values = chosen.chain(others).map(|count| ValueView {
                value: count.value.clone(),
                label: value_label(page, *facet, &count.value),
                count: page.language.number(i64::try_from(count.count).unwrap_or(i64::MAX)),
                selected: count.selected,
            });
            let values: Vec<ValueView> = values.collect();
            let rest = (values.len() < counts.len()).then(|| Chip {
                label: page.t("all_values").to_owned(),
                href: format!("/{}#filters", links::with(&asked.parameters, "all", facet.name())),
            });
            Some(GroupView {
                name: facet.name(),
                label: page.t(facet.name()),
                open: at < OPEN || is_whole || values.iter().any(|value| value.selected),
                range: None,
                values,
                rest,
            })
        }
        Group::Range(range) => {
            let summary = found.ranges.get(range)?;
            let given = |end: &str| {
                let name = format!("{}_{end}", range.name());
                asked.parameters.all(&name).next().unwrap_or_default().to_owned()
            };
            let most = summary.buckets.iter().map(|bucket| bucket.count).max().unwrap_or(1).max(1);
            let (min, max) = (given("min"), given("max"));
            let plain = |bound: Option<f64>| bound.map_or_else(String::new, |bound| bound.round().to_string());
            Some(GroupView {
                name: range.name(),
                label: page.t(range.name()),
                open: at < OPEN || !min.is_empty() || !max.is_empty(),
                range: Some(RangeView {
                    min,
                    max,
                    lowest: plain(summary.min),
                    highest: plain(summary.max),
                    bars: summary.buckets.iter().map(|bucket| bucket.count * 100 / most).collect(),
                }),
                values: Vec::new(),
                rest: None,
            })
        }
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
    let filters = chips(parameters, page).into_iter().map(|chip| chip.label);
    text.chain(filters).collect()
}

/// What is filtered by, each with the address without it.
fn chips(parameters: &Parameters, page: &Page) -> Vec<Chip> {
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
            None => match (name.strip_suffix("_min"), name.strip_suffix("_max")) {
                (Some(range), _) => format!("{} ≥ {value}", label(page, range)),
                (_, Some("payment")) => format!("{} ≤ {value}", label(page, name)),
                (_, Some("days_listed" | "owners")) => format!("{} ≤ {value}", label(page, name)),
                (_, Some(range)) => format!("{} ≤ {value}", label(page, range)),
                _ if name == "raw" => page.t("raw").to_owned(),
                _ if value == "true" => label(page, name),
                _ if name == "radius_km" => format!("{} {value} km", page.t("within")),
                _ => format!("{}: {value}", label(page, name)),
            },
        };
        // A distance from nowhere means nothing.
        let href = match name.as_str() {
            "near" => links::without(parameters, &["near", "radius_km", "sort"]),
            _ => links::without_value(parameters, name, value),
        };
        Chip { label: shown, href: format!("/{href}") }
    });
    chips.collect()
}

/// What words of the text were read as.
fn meaning(page: &Page, read: &Read, radius_km: Option<f64>) -> String {
    match &read.means {
        Meaning::Values(facet, values) => {
            let values: Vec<String> = values.iter().map(|value| value_label(page, *facet, value)).collect();
            format!("{}: {}", page.t(facet.name()), values.join(" / "))
        }
        Meaning::Bounds(range, Bounds { min, max }) => {
            let number = |bound: f64| bounded(page.language, *range, bound);
            let name = page.t(range.name());
            match (min, max) {
                (Some(min), Some(max)) if min == max => format!("{name}: {}", number(*min)),
                (Some(min), Some(max)) => format!("{name}: {}–{}", number(*min), number(*max)),
                (Some(min), None) => format!("{name} ≥ {}", number(*min)),
                (None, Some(max)) => format!("{name} ≤ {}", number(*max)),
                (None, None) => name.to_owned(),
            }
        }
        Meaning::Payment(monthly) => format!("≤ {}/{}", page.language.money(*monthly, None), page.t("month")),
        Meaning::Near { city, .. } => match radius_km {
            Some(radius) => format!("{city} ({} {radius} km)", page.t("within")),
            None => city.clone(),
        },
        Meaning::OwnersMax(most) => format!("{} ≤ {most}", page.t("owner_count")),
        Meaning::AccidentFree => page.t("accident_free").to_owned(),
        Meaning::PriceDrop => page.t("price_drop").to_owned(),
    }
}

fn bounded(language: Language, range: Range, bound: f64) -> String {
    #[expect(clippy::cast_possible_truncation, reason = "prices, years and kilometres are far below 2^53")]
    let whole = bound.round() as i64;
    match range {
        Range::Price => language.money(bound, None),
        Range::Year => whole.to_string(),
        Range::Mileage => language.km(whole),
    }
}

/// Whether this filter is meant.
fn says(means: &Meaning, name: &str) -> bool {
    match means {
        Meaning::Values(facet, _) => facet.name() == name,
        Meaning::Bounds(range, _) => range.name() == name,
        Meaning::Payment(_) => name == "payment_max",
        Meaning::Near { .. } => name == "radius_km",
        Meaning::OwnersMax(_) => name == "owners_max",
        Meaning::AccidentFree => name == "accident_free",
        Meaning::PriceDrop => name == "price_drop",
    }
}
