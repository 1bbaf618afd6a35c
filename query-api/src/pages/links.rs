//! Addresses of the same search with something more or less. A change begins at the first page again.

use url::form_urlencoded::Serializer;

use crate::parameters::Parameters;

/// `?a=b&c=d`, or nothing.
pub(crate) fn query<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut serializer = Serializer::new(String::new());
    pairs.filter(|(_, value)| !value.is_empty()).for_each(|(name, value)| {
        serializer.append_pair(name, value);
    });
    let text = serializer.finish();
    if text.is_empty() { text } else { format!("?{text}") }
}

fn pairs(parameters: &Parameters) -> impl Iterator<Item = (&str, &str)> {
    let pairs = parameters.pairs().map(|(name, value)| (name.as_str(), value.as_str()));
    pairs.filter(|(name, _)| *name != "cursor")
}

/// With one more parameter, or another value of it.
pub(crate) fn with(parameters: &Parameters, name: &str, value: &str) -> String {
    query(pairs(parameters).filter(|(other, _)| *other != name).chain([(name, value)]))
}

/// Without some parameters, and with these.
pub(crate) fn changed(parameters: &Parameters, without: &[&str], with: &[(&str, &str)]) -> String {
    query(pairs(parameters).filter(|(name, _)| !without.contains(name)).chain(with.iter().copied()))
}

/// Without some parameters.
pub(crate) fn without(parameters: &Parameters, names: &[&str]) -> String {
    query(pairs(parameters).filter(|(name, _)| !names.contains(name)))
}

/// Without one value of a parameter.
pub(crate) fn without_value(parameters: &Parameters, name: &str, value: &str) -> String {
    query(pairs(parameters).filter(|pair| *pair != (name, value)))
}

/// With these parameters alone.
pub(crate) fn only(parameters: &Parameters, names: &[&str]) -> String {
    query(pairs(parameters).filter(|(name, _)| names.contains(name)))
}

/// Where a listing's page is.
pub(crate) fn vehicle(id: &str, lang_query: &str) -> String {
    let mut url = url::Url::parse("http://localhost/vehicles/").ok();
    if let Some(Ok(mut path)) = url.as_mut().map(url::Url::path_segments_mut) {
        path.pop_if_empty().push(id);
    }
    format!("{}{lang_query}", url.as_ref().map_or("/", url::Url::path))
}
