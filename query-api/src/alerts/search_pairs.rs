//! The parameters of a saved search.

use url::form_urlencoded;

/// The names and values of a query string.
pub(crate) fn pairs_of(query: &str) -> Vec<(String, String)> {
    form_urlencoded::parse(query.trim_start_matches('?').as_bytes()).into_owned().collect()
}
