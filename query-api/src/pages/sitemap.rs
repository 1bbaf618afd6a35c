//! `/sitemap.xml` and its pages, and `/robots.txt`: <https://www.sitemaps.org/protocol.html>.

use std::fmt::Write;

use axum::{
    extract::{Path, State, rejection::PathRejection},
    http::header,
    response::{IntoResponse, Response},
};
use schemas::Position;

use super::{Page, PageRequest, escape::escaped, links};
use crate::{AppState, problem::Problem};

/// Addresses on a page; the protocol allows 50,000.
const PAGE: usize = 10_000;
const XML: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";

pub(crate) async fn robots(request: PageRequest) -> Response {
    let page = Page::new(&request, String::new(), "");
    let text = format!("User-agent: *\nDisallow: /v1/\nDisallow: /metrics\nSitemap: {}/sitemap.xml\n", page.origin());
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}

/// The pages of the sitemap.
pub(crate) async fn sitemap(State(api): State<AppState>, request: PageRequest) -> Result<Response, Problem> {
    let ids = ids(&api).await?;
    let page = Page::new(&request, String::new(), "");
    let mut text = format!("{XML}<sitemapindex xmlns=\"http://www.sitemaps.org/schemas/sitemap/0.9\">\n");
    for number in 1..=ids.len().div_ceil(PAGE).max(1) {
        let _ = writeln!(text, "<sitemap><loc>{}/sitemaps/{number}</loc></sitemap>", page.origin());
    }
    text.push_str("</sitemapindex>\n");
    Ok(xml(text))
}

/// One of its pages: the addresses of listings.
pub(crate) async fn sitemaps(
    State(api): State<AppState>,
    number: Result<Path<usize>, PathRejection>,
    request: PageRequest,
) -> Result<Response, Problem> {
    let ids = ids(&api).await?;
    let number =
        number.ok().map(|Path(number)| number).filter(|number| (1..=ids.len().div_ceil(PAGE).max(1)).contains(number));
    let number = number.ok_or_else(|| Problem::not_found("The sitemap has no such page; /sitemap.xml lists them."))?;
    let page = Page::new(&request, String::new(), "");
    let mut text = format!("{XML}<urlset xmlns=\"http://www.sitemaps.org/schemas/sitemap/0.9\">\n");
    for id in ids.iter().skip((number - 1) * PAGE).take(PAGE) {
        let _ = writeln!(
            text,
            "<url><loc>{}</loc></url>",
            escaped(&format!("{}{}", page.origin(), links::vehicle(id, "")))
        );
    }
    text.push_str("</urlset>\n");
    Ok(xml(text))
}

async fn ids(api: &AppState) -> Result<std::sync::Arc<Vec<String>>, Problem> {
    let snapshot = crate::consistency::Freshness::new(Position::START, None).wait(&api.pipeline.listings).await?;
    api.public_ids.get(&snapshot, Position::START).await
}

fn xml(text: String) -> Response {
    ([(header::CONTENT_TYPE, "application/xml; charset=utf-8")], text).into_response()
}
