//! The pages people look at: rendered here, whole without scripts, quicker with them.
//!
//! - [`words`]: every label in both languages, and numbers as each writes them;
//! - [`links`]: the address of the same search with something more or less;
//! - [`drawing`]: what is drawn: cars without a photo, price charts; [`illustration`]: cars of a generated market;
//! - [`card`], [`results`], [`vehicle`], [`alert`]: the pages and their parts;
//! - [`dashboard`], [`sql`]: for those who look at numbers, with [`chart`];
//! - [`sitemap`]: what search engines ask for.

pub(crate) mod alert;
mod card;
mod chart;
pub(crate) mod dashboard;
mod drawing;
mod escape;
pub(crate) mod illustration;
mod links;
pub(crate) mod results;
pub(crate) mod sitemap;
pub(crate) mod sql;
pub(crate) mod vehicle;
mod words;

use askama::Template;
use axum::{
    extract::{FromRequestParts, OriginalUri},
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    response::{Html, IntoResponse, Response},
};
use words::{Language, word};

use crate::{
    parameters::{DeclaredParameters, Parameters},
    problem::Problem,
};

const STYLE: &str = include_str!("../pages/style.css");
const SEARCH: &str = include_str!("../pages/search.js");
const DASHBOARD: &str = include_str!("../pages/dashboard.js");
const SQL: &str = include_str!("../pages/sql.js");
/// How long a browser keeps a page's style and script.
const ASSETS_FOR: &str = "public, max-age=3600";
/// What a page may load: from here alone; photos come from anywhere.
const POLICY: &str = "default-src 'self'; img-src * data:; style-src 'self' 'unsafe-inline'";

/// A page's address and the language it is asked for in.
pub(crate) struct PageRequest {
    parameters: Parameters,
    headers: HeaderMap,
    path: String,
    language: Language,
    /// Whether the address names the language.
    explicit: bool,
}

impl<S: Send + Sync> FromRequestParts<S> for PageRequest {
    type Rejection = std::convert::Infallible;

    /// Links from elsewhere carry parameters of their own: what a page does not know, it leaves.
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let OriginalUri(uri) = OriginalUri::from_request_parts(parts, state).await?;
        let declared = parts.extensions.get::<DeclaredParameters>().map_or(&[][..], |declared| declared.0);
        let parameters = Parameters::known(declared, uri.query().unwrap_or_default());
        let named = parameters.all("lang").next().and_then(Language::parse);
        let accepted = parts.headers.get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok());
        Ok(Self {
            language: named.or_else(|| accepted.map(Language::preferred)).unwrap_or(Language::English),
            explicit: named.is_some(),
            parameters,
            headers: parts.headers.clone(),
            path: uri.path().to_owned(),
        })
    }
}

/// What every page has.
pub(crate) struct Page {
    pub(crate) language: Language,
    pub(crate) explicit: bool,
    pub(crate) title: String,
    pub(crate) description: String,
    pub(crate) canonical: String,
    /// The same in the other language.
    pub(crate) other_language: String,
    /// What a link to a car keeps: the language, and what payments are reckoned with.
    kept: String,
}

impl Page {
    fn new(request: &PageRequest, title: String, canonical_query: &str) -> Self {
        let host = request.headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let is_plain = |host: &&str| host.chars().all(|c| c.is_ascii_alphanumeric() || ".-:[]".contains(c));
        let host = host.filter(is_plain).unwrap_or("localhost");
        let proxied = request.headers.get("x-forwarded-proto").is_some_and(|scheme| scheme == "https");
        let scheme = if proxied { "https" } else { "http" };
        let other = links::with(&request.parameters, "lang", request.language.other().code());
        Self {
            language: request.language,
            explicit: request.explicit,
            title,
            description: word(request.language, "tagline").to_owned(),
            canonical: format!("{scheme}://{host}{}{canonical_query}", request.path),
            other_language: format!("{}{other}", request.path),
            kept: links::only(&request.parameters, &["lang", "apr", "term_months", "down"]),
        }
    }

    fn t(&self, key: &str) -> &'static str {
        word(self.language, key)
    }

    fn deal(&self, deal: &str) -> &'static str {
        self.t(&format!("deal_{deal}"))
    }

    const fn lang(&self) -> &'static str {
        self.language.code()
    }

    /// As Open Graph names it.
    const fn locale(&self) -> &'static str {
        match self.language {
            Language::English => "en_CA",
            Language::French => "fr_CA",
        }
    }

    const fn other_lang(&self) -> &'static str {
        self.language.other().code()
    }

    fn lang_query(&self) -> String {
        if self.explicit { format!("?lang={}", self.lang()) } else { String::new() }
    }

    /// The scheme and host of the page.
    fn origin(&self) -> &str {
        let path = self.canonical.match_indices('/').nth(2).map_or(self.canonical.len(), |(at, _)| at);
        &self.canonical[..path]
    }
}

#[derive(Template)]
#[template(path = "problem.html")]
struct ProblemPage {
    page: Page,
    detail: String,
    /// Whether the detail is in the page's language.
    translated: bool,
}

/// A page, or the reason there is none.
fn shown<T: Template>(request: &PageRequest, page: Result<T, Problem>) -> Response {
    let mut response = match page {
        Ok(page) => match page.render() {
            Ok(text) => Html(text).into_response(),
            Err(error) => return Problem::internal(&error).into_response(),
        },
        Err(problem) => match problem_page(request, &problem).render() {
            // Its status and headers are those of the problem.
            Ok(text) => {
                let (mut parts, _) = problem.into_response().into_parts();
                parts.headers.remove(header::CONTENT_TYPE);
                parts.headers.remove(header::CONTENT_LENGTH);
                (parts.status, parts.headers, Html(text)).into_response()
            }
            Err(error) => return Problem::internal(&error).into_response(),
        },
    };
    let headers = response.headers_mut();
    headers.insert(header::VARY, HeaderValue::from_static("accept-language"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

fn problem_page(request: &PageRequest, problem: &Problem) -> ProblemPage {
    let title = word(
        request.language,
        match problem.status() {
            StatusCode::NOT_FOUND => "problem_missing",
            StatusCode::SERVICE_UNAVAILABLE => "problem_later",
            _ => "problem_other",
        },
    );
    let translated = request.language == Language::English || problem.status() == StatusCode::NOT_FOUND;
    ProblemPage { page: Page::new(request, title.to_owned(), ""), detail: problem.detail().to_owned(), translated }
}

pub(crate) async fn style() -> Response {
    asset("text/css; charset=utf-8", STYLE)
}

pub(crate) async fn script() -> Response {
    asset("text/javascript; charset=utf-8", SEARCH)
}

pub(crate) async fn dashboard_script() -> Response {
    asset("text/javascript; charset=utf-8", DASHBOARD)
}

pub(crate) async fn sql_script() -> Response {
    asset("text/javascript; charset=utf-8", SQL)
}

fn asset(kind: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, ASSETS_FOR)], text).into_response()
}
