//! The table of endpoints: method, path, parameters and description of each.
//!
//! The router pairs them with handlers, OpenAPI is written from them, and requests' parameters are checked against them.

use std::sync::LazyLock;

use axum::http::Method;

use crate::parameters::Parameter;

const fn text(name: &'static str, meaning: &'static str) -> Parameter {
    Parameter { name, meaning, kind: "string", repeats: false }
}

const fn number(name: &'static str, meaning: &'static str) -> Parameter {
    Parameter { name, meaning, kind: "number", repeats: false }
}

const fn choice(name: &'static str, meaning: &'static str) -> Parameter {
    Parameter { name, meaning, kind: "string", repeats: true }
}

const MIN_POSITION: Parameter = number("min_position", "Answer only when this position is reflected.");
const WAIT_MS: Parameter = number("wait_ms", "How long to wait for min_position, in milliseconds; 2000 unless given.");

/// The answer to a query.
const RESULT: &str = "Columns with their types and rows in JSON; or, by Accept, NDJSON, CSV, an Arrow stream or Parquet, \
                      streamed. The header x-forecourt-position says what it reflects.";

/// The body of a decision about dead letters.
const DECISION: (&str, &[&str]) =
    ("{\"all\": true}, {\"reason\": \"…\"} or {\"positions\": [1, 2]}; and \"by\", who decides", &["application/json"]);

/// A route and its description.
#[derive(Clone)]
pub struct Endpoint {
    pub method: Method,
    pub path: &'static str,
    pub summary: &'static str,
    pub parameters: Vec<Parameter>,
    /// The body's description and media types.
    pub body: Option<(&'static str, &'static [&'static str])>,
    /// What a good answer is.
    pub answer: &'static str,
}

/// Every endpoint.
pub static ENDPOINTS: LazyLock<Vec<Endpoint>> = LazyLock::new(endpoints);

/// The parameters an endpoint knows.
#[must_use]
pub fn parameters(method: &Method, path: &str) -> &'static [Parameter] {
    // A HEAD request asks what a GET would.
    let method = if method == Method::HEAD { &Method::GET } else { method };
    let endpoint = ENDPOINTS.iter().find(|endpoint| endpoint.method == *method && endpoint.path == path);
    endpoint.map_or(&[], |endpoint| endpoint.parameters.as_slice())
}

fn endpoints() -> Vec<Endpoint> {
    let mut endpoints = pages();
    endpoints.extend(api());
    endpoints
}

/// What people look at in a browser.
fn pages() -> Vec<Endpoint> {
    let page = |path, summary, parameters, answer| Endpoint {
        method: Method::GET,
        path,
        summary,
        parameters,
        body: None,
        answer,
    };
    let with_lang = |mut parameters: Vec<Parameter>| {
        parameters.push(text("lang", "en or fr; what the browser prefers unless given."));
        parameters
    };
    let html = "An HTML page, whole without scripts. Parameters that it does not know are left.";
    vec![
        page("/", "The page to search cars with", with_lang(with_all(search_parameters())), html),
        page("/vehicles/{id}", "The page of one listing", with_lang(with_terms(vec![MIN_POSITION, WAIT_MS])), html),
        Endpoint {
            method: Method::POST,
            body: Some((
                "search: the parameters of a search, as a query string",
                &["application/x-www-form-urlencoded"],
            )),
            answer: "The way to the saved search's page.",
            ..page("/alerts", "The form that saves a search", with_lang(vec![]), html)
        },
        page("/alerts/{id}", "The page of a saved search", with_lang(vec![MIN_POSITION, WAIT_MS]), html),
        Endpoint {
            method: Method::POST,
            answer: "The way to the search.",
            ..page("/alerts/{id}/delete", "The form that gives a saved search up", with_lang(vec![]), html)
        },
        page(
            "/dashboard",
            "Every KPI of a period, and one of them as a chart",
            with_lang(vec![
                number("days", "Days of the period, which ends with the latest event; 30 unless given."),
                text("grain", "hour, day, week, month, quarter or year; what suits the period unless given."),
                text("timezone", "IANA time zone whose days are meant; UTC unless given."),
                text("kpi", "The KPI of the chart; sales_volume unless given."),
                text("value", "Its value; its headline unless given."),
                text("by", "A dimension: a line for each of its greatest groups."),
                choice("filter.*", "Only facts with this value of a dimension, where a KPI has it."),
                MIN_POSITION,
                WAIT_MS,
            ]),
            html,
        ),
        page(
            "/sql",
            "The page to ask in SQL",
            with_lang(vec![text("query", "What is asked; its rows are on the page."), MIN_POSITION, WAIT_MS]),
            html,
        ),
        page("/assets/dashboard.js", "What makes the dashboard live", vec![], "JavaScript."),
        page("/assets/sql.js", "What makes the SQL page quicker", vec![], "JavaScript."),
        page("/sitemap.xml", "What search engines may visit, in pages", vec![], "A sitemap index."),
        page("/sitemaps/{number}", "One page of the sitemap", vec![], "A sitemap of at most 10,000 listings."),
        page("/robots.txt", "Where search engines may go", vec![], "Text."),
        page(
            "/illustrations/{name}",
            "A drawing of a car: <body>-<colour>-<angle>.svg, such as suv-blue-front.svg",
            vec![],
            "SVG.",
        ),
        page("/assets/style.css", "The pages' style", vec![], "CSS."),
        page("/assets/search.js", "What makes the search quicker", vec![], "JavaScript."),
    ]
}

fn api() -> Vec<Endpoint> {
    [
        event_endpoints(),
        dead_letter_endpoints(),
        operator_endpoints(),
        search_endpoints(),
        alert_endpoints(),
        kpi_endpoints(),
        sql_endpoints(),
    ]
    .concat()
}

/// Events and their catalogue.
fn event_endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint {
            method: Method::POST,
            path: "/v1/events",
            summary: "Take events: one, a JSON array, or one per line",
            parameters: vec![],
            body: Some((
                "Events in any of the envelopes, of any number; also compressed (Content-Encoding gzip or zstd), and a \
                 CloudEvent in binary mode (ce- headers). The body is read as fast as the log takes it.",
                &[
                    "application/json",
                    "application/x-ndjson",
                    "application/cloudevents+json",
                    "application/cloudevents-batch+json",
                ],
            )),
            answer: "What became of the events: accepted, duplicates, rejected with reasons (the first 100,000, and \
                     rejected_total), warnings; and the highest position. 422 when all were rejected, 429 when too \
                     much is being sent, 503 when the log is away, both with Retry-After.",
        },
        Endpoint {
            method: Method::GET,
            path: "/v1/catalogue",
            summary: "The events there are",
            parameters: vec![],
            body: None,
            answer: "Each context with its events",
        },
        Endpoint {
            method: Method::GET,
            path: "/v1/catalogue/{name}",
            summary: "One event in full",
            parameters: vec![],
            body: None,
            answer: "Its fields, its JSON Schema by version, and an example in every envelope",
        },
    ]
}

/// Dead letters.
fn dead_letter_endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint {
            method: Method::GET,
            path: "/v1/dead-letters",
            summary: "Messages of the log that are no events, the latest first",
            parameters: vec![
                text("status", "open, retried, dropped or all; open unless given."),
                text("reason", "Only those with this reason, such as missing_field."),
                number("limit", "How many; 100 unless given, at most 10000."),
                number("before", "Only those before this position: next_before of the page before."),
                MIN_POSITION,
                WAIT_MS,
            ],
            body: None,
            answer: "Each with its reason, and counts of all by reason and status",
        },
        Endpoint {
            method: Method::GET,
            path: "/v1/dead-letters/{position}",
            summary: "One dead letter with its bytes",
            parameters: vec![MIN_POSITION, WAIT_MS],
            body: None,
            answer: "The dead letter; payload is its text, payload_base64 its bytes when they are no text",
        },
        Endpoint {
            method: Method::POST,
            path: "/v1/dead-letters/retry",
            summary: "Send open dead letters through the door again, for example after the catalogue was mended",
            parameters: vec![],
            body: Some(DECISION),
            answer: "How many went through and were closed, and those that are still refused with the reasons",
        },
        Endpoint {
            method: Method::POST,
            path: "/v1/dead-letters/{position}/correct",
            summary: "Publish an event in an open dead letter's place and close it; its own bytes stay",
            parameters: vec![text("by", "Who corrects it.")],
            body: Some(("The event as it should have been", &["application/json"])),
            answer: "The position of the event; 409, when its id has taken effect already",
        },
        Endpoint {
            method: Method::POST,
            path: "/v1/dead-letters/drop",
            summary: "Close open dead letters without their events; who did it and when stays on record",
            parameters: vec![],
            body: Some(DECISION),
            answer: "How many were closed",
        },
    ]
}

/// Health, metrics, maintenance and this description.
fn operator_endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint {
            method: Method::POST,
            path: "/v1/verify",
            summary: "Prove that everything derived is what the log says, by computing it again; reads the whole lake",
            parameters: vec![MIN_POSITION, WAIT_MS],
            body: None,
            answer: "Each check with what it claims, how much it looked at, and what differs",
        },
        Endpoint {
            method: Method::POST,
            path: "/v1/maintenance",
            summary: "Take out events past their time, merge small files and delete old ones, now; or say what there is to do",
            parameters: vec![],
            body: Some((
                "{\"dry_run\": true} to be told only; \"keep_old_files_seconds\" for readers of older versions, a day unless \
                 given",
                &["application/json"],
            )),
            answer: "Each table before and after: files, bytes, events taken out, files deleted",
        },
        Endpoint {
            method: Method::GET,
            path: "/health",
            summary: "Whether the process is alive",
            parameters: vec![],
            body: None,
            answer: "Always ok",
        },
        Endpoint {
            method: Method::GET,
            path: "/ready",
            summary: "Whether the server, or a part of it, can do its work",
            parameters: vec![text("part", "intake, search, kpis or sql; all of them unless given.")],
            body: None,
            answer: "ready, or 503 with the reasons: it is starting, the log or the disk refuses, nothing is read though the log \
                     grew. With the positions and the lag, which is no reason once it has caught up.",
        },
        Endpoint {
            method: Method::GET,
            path: "/metrics",
            summary: "Metrics for Prometheus",
            parameters: vec![],
            body: None,
            answer: "Text in the Prometheus format",
        },
        Endpoint {
            method: Method::GET,
            path: "/openapi.json",
            summary: "This API, described",
            parameters: vec![],
            body: None,
            answer: "An OpenAPI 3.1 document",
        },
    ]
}

/// Searches and listings.
fn search_endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint {
            method: Method::GET,
            path: "/v1/search",
            summary: "Search the public listings",
            parameters: search_parameters(),
            body: None,
            answer: "Hits, exact facet counts, ranges, and a cursor to the next page; interpreted, what of q was read as \
                     filters, passed_over, what other parameters overrule, and text, what is left; corrections of \
                     words; rated_as_of, what prices were compared as of; and when nothing matches, relaxations and \
                     near_misses: what would, with one thing given up, or several where one is not enough",
        },
        Endpoint {
            method: Method::GET,
            path: "/v1/suggest",
            summary: "What somebody may be about to type: makes, models, trims, cities, equipment and more",
            parameters: vec![
                text("q", "What has been typed so far; a letter may be wrong."),
                number("limit", "How many; 8 unless given, at most 50."),
                MIN_POSITION,
                WAIT_MS,
            ],
            body: None,
            answer: "Each with its kind, how many listings have it, and the filters that find them",
        },
        Endpoint {
            method: Method::GET,
            path: "/v1/compare",
            summary: "Listings side by side",
            parameters: with_terms(vec![choice("id", "A listing; 2 to 6 of them."), MIN_POSITION, WAIT_MS]),
            body: None,
            answer: "Each listing in full, and the fields in which they differ",
        },
        Endpoint {
            method: Method::GET,
            path: "/v1/listings/{id}",
            summary: "One listing, sold ones included",
            parameters: with_terms(vec![MIN_POSITION, WAIT_MS]),
            body: None,
            answer: "The listing, its status, and deal_rating: how its price compares, and why",
        },
        Endpoint {
            method: Method::GET,
            path: "/v1/listings/{id}/similar",
            summary: "Public listings like one: the same kind of car at a like price and place",
            parameters: with_terms(vec![
                number("limit", "How many; 8 unless given, at most 50."),
                MIN_POSITION,
                WAIT_MS,
            ]),
            body: None,
            answer: "Hits, the likest first",
        },
        Endpoint {
            method: Method::GET,
            path: "/v1/listings/{id}/price-history",
            summary: "The prices a listing had",
            parameters: vec![
                number("limit", "How many, the latest; 1000 unless given, at most 10000."),
                MIN_POSITION,
                WAIT_MS,
            ],
            body: None,
            answer: "Each price since when, with its change, and how many earlier ones are left out; the lowest and the highest \
                     of all; and what it was sold for",
        },
    ]
}

/// Saved searches.
fn alert_endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint {
            method: Method::POST,
            path: "/v1/alerts",
            summary: "Save a search, to be told of every listing that starts to match it",
            parameters: vec![],
            body: Some((
                "{\"search\": {…} or \"make=Honda&price_max=20000\"}: the parameters of GET /v1/search; and name, webhook (an \
                 address that matches are posted to, as Standard Webhooks), user_id and expires_at, if wanted",
                &["application/json"],
            )),
            answer: "The alert with its alert_id, the search as it was understood, and the webhook_secret, once",
        },
        Endpoint {
            method: Method::GET,
            path: "/v1/alerts",
            summary: "The saved searches",
            parameters: vec![
                text("user_id", "Only those of this person."),
                number("limit", "How many; 100 unless given, at most 1000."),
                text("after", "Only those after this alert_id: next of the page before."),
                MIN_POSITION,
                WAIT_MS,
            ],
            body: None,
            answer: "Each with its search and how many listings it was told of; next, for the page after",
        },
        Endpoint {
            method: Method::GET,
            path: "/v1/alerts/{id}",
            summary: "One saved search, and what it was told of",
            parameters: vec![MIN_POSITION, WAIT_MS],
            body: None,
            answer: "The alert and its latest 100 matches, the newest first, each with the listing as it is now",
        },
        Endpoint {
            method: Method::DELETE,
            path: "/v1/alerts/{id}",
            summary: "Give a saved search up",
            parameters: vec![],
            body: None,
            answer: "The position that reflects it",
        },
        Endpoint {
            method: Method::GET,
            path: "/v1/alerts/{id}/stream",
            summary: "Be told of matches as they happen",
            parameters: vec![number("after", "The position of a match: what came after it is told first.")],
            body: None,
            answer: "Server-Sent Events, one a match, with its position as id; Last-Event-ID, or after, goes on after one",
        },
    ]
}

/// KPIs.
fn kpi_endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint {
            method: Method::GET,
            path: "/v1/kpis",
            summary: "What is counted; or, with names, several KPIs over time at one position",
            parameters: [text("names", "KPIs to answer, by commas; without it, all are described.")]
                .into_iter()
                .chain(kpi_parameters())
                .collect(),
            body: None,
            answer: "Each KPI with its definition, values, grains and dimensions; or each one's answer",
        },
        Endpoint {
            method: Method::GET,
            path: "/v1/kpis/{name}",
            summary: "One KPI over time",
            parameters: kpi_parameters(),
            body: None,
            answer: "A row per bucket and group, its totals, and what each is compared with; also as CSV, or as a list of \
                     flat objects. A bucket that has lost events to retention is as it was (frozen: true) or tells what \
                     is left (incomplete: true). 304 when If-None-Match has its ETag",
        },
        Endpoint {
            method: Method::GET,
            path: "/v1/kpis/{name}/stream",
            summary: "One KPI over time, and what changes of it as it does",
            parameters: kpi_parameters(),
            body: None,
            answer: "Server-Sent Events: the rows, then those that change, with the position as id; a row that is no more is \
                     removed: true. With Last-Event-ID nothing is told until something changes, or all rows, if something has",
        },
    ]
}

/// SQL.
fn sql_endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint {
            method: Method::POST,
            path: "/v1/sql",
            summary: "Run a SELECT over the lake",
            parameters: vec![MIN_POSITION, WAIT_MS],
            body: Some((
                "{\"query\": \"SELECT …\"}; and limit (rows; 10000 in JSON, all in other formats, unless given), params \
                 (of $1, $2, …), as_of (an earlier position or time), format (json, ndjson, csv, arrow or parquet, \
                 instead of Accept) and timeout_ms (60000 unless given)",
                &["application/json"],
            )),
            answer: RESULT,
        },
        Endpoint {
            method: Method::GET,
            path: "/v1/sql",
            summary: "Run a SELECT over the lake, for links and spreadsheets",
            parameters: vec![
                text("query", "What to ask."),
                choice("param", "A text for $1, $2 and so on, in their order."),
                number("limit", "Rows at most; 10000 in JSON unless given, all in other formats."),
                text("as_of", "An earlier position, or a time of the log."),
                text("format", "json, ndjson, csv, arrow or parquet, instead of Accept."),
                number("timeout_ms", "How long it may take; 60000 unless given, at most 600000."),
                MIN_POSITION,
                WAIT_MS,
            ],
            body: None,
            answer: RESULT,
        },
        Endpoint {
            method: Method::GET,
            path: "/v1/tables",
            summary: "The tables SQL knows",
            parameters: vec![MIN_POSITION, WAIT_MS],
            body: None,
            answer: "Each view with its columns, types and meanings",
        },
    ]
}

fn kpi_parameters() -> Vec<Parameter> {
    vec![
        text("grain", "hour, day, week, month, quarter or year; day unless given."),
        text("from", "First bucket: the one this date or RFC 3339 time lies in."),
        text("to", "End, not included: a date or RFC 3339 time."),
        text("timezone", "IANA time zone whose days are meant; UTC unless given."),
        text("week_start", "The first day of a week; monday unless given."),
        choice("by", "Dimensions to group by, by commas or repeated."),
        choice("filter.*", "Only facts with this value of a dimension: filter.make=Honda; repeat for OR."),
        number("top", "Only so many groups: those with the most of the first value."),
        choice("compare", "previous, week_ago, month_ago, quarter_ago or year_ago, by commas or repeated."),
        text("rolling", "Each bucket with those before it, such as 7d or 3m."),
        text("cumulative", "true: sums since the first bucket, of what can be added."),
        text("totals", "false: without the totals."),
        text("gaps", "fill or omit buckets in which nothing was counted; fill where from is given, omit otherwise."),
        text("format", "json; records, a list of flat objects; or csv, instead of Accept."),
        MIN_POSITION,
        WAIT_MS,
    ]
}

fn with_all(mut parameters: Vec<Parameter>) -> Vec<Parameter> {
    parameters.push(choice("all", "Facets whose values are all shown, rather than the first 40."));
    parameters
}

/// A loan's terms, for what a price costs a month.
fn with_terms(mut parameters: Vec<Parameter>) -> Vec<Parameter> {
    parameters.extend([
        number("apr", "Yearly interest in percent, for monthly payments; 7.99 unless given."),
        number("term_months", "Months of the loan; 60 unless given."),
        number("down", "Paid at once; 0 unless given."),
    ]);
    parameters
}

fn search_parameters() -> Vec<Parameter> {
    with_terms(vec![
        text("q", "What is looked for, in words: names, colours, years, under 20k, near a city, less than 80000 km."),
        text("raw", "true: q is text alone, and none of its words is read as a filter."),
        choice("make", "Manufacturer."),
        choice("model", "Model."),
        choice("trim", "Trim level."),
        choice("body_type", "Body style."),
        choice("fuel_type", "Energy source."),
        choice("transmission", "Gearbox."),
        choice("drivetrain", "Driven wheels."),
        choice("color", "Colour of the body."),
        choice("condition", "Condition."),
        choice("province", "Province or state."),
        choice("city", "City."),
        choice("features", "Equipment."),
        choice("seats", "Number of seats."),
        choice("deal", "How the price compares: great, good, fair, high, overpriced or unrated."),
        choice("certified", "true or false."),
        choice("availability", "available, reserved or unavailable."),
        number("price_min", "Lowest price."),
        number("price_max", "Highest price."),
        number("year_min", "Earliest model year."),
        number("year_max", "Latest model year."),
        number("mileage_min", "Lowest mileage, in km."),
        number("mileage_max", "Highest mileage, in km."),
        choice("dealer", "Selling dealer."),
        number("payment_max", "Highest monthly payment, by apr, term_months and down."),
        text("price_drop", "true: only listings whose price was lowered last."),
        number("days_listed_max", "Days since it was listed, at most."),
        text("accident_free", "true: only listings whose history check found no accident."),
        number("owners_max", "Previous owners, at most."),
        text("near", "A place: LAT,LON in degrees, or a city."),
        number("radius_km", "How far from near, in km."),
        text("sort", "relevance, price, -price, mileage, year, -year, newest, distance, deal or popular."),
        number("page_size", "Hits on a page, 1 to 100; 20 unless given."),
        text("cursor", "next_cursor of the page before."),
        choice(
            "facets",
            "Facets to count, by commas, each with how many values and their order: make,city:20:value; all \
                          unless given, none when empty.",
        ),
        choice("facet_query", "Only values of a facet with a word that begins like this: make:to."),
        text(
            "hierarchy",
            "true: makes are counted with their models and trims below them, whichever are chosen. At most 5,000 names, makes \
             first; hierarchy_left_out is how many there are besides.",
        ),
        MIN_POSITION,
        WAIT_MS,
    ])
}
