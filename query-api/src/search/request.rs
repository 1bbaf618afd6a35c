//! What a search asks, from its parameters.

use std::hash::{DefaultHasher, Hash, Hasher};

use search_index::{
    Facet, FacetOrder, FacetShape, Range, SearchRequest, Sort,
    geo::Place,
    lexicon::Lexicon,
    query::{Bounds, Cursor},
    reading::{Overrules, Read, Reading},
};

use crate::{parameters::Parameters, payment::PaymentTerms, problem::Problem};

const DEFAULT_PAGE: usize = 20;
const MAX_PAGE: usize = 100;
/// Bytes of a text.
const LONGEST_TEXT: usize = 500;
const MOST_WORDS: usize = 50;
/// Values of a facet that may be chosen.
const MOST_VALUES: usize = 100;
/// Values of a facet shown at most.
const MAX_FACET_VALUES: usize = 1_000;
/// Parameters that a page has to itself: a cursor is good for any of them.
const OF_THE_PAGE: [&str; 7] = ["cursor", "page_size", "facets", "facet_query", "hierarchy", "min_position", "wait_ms"];

/// A search, and how its text was read.
pub(crate) struct ParsedSearch {
    pub(crate) request: SearchRequest,
    pub(crate) read: Vec<Read>,
    /// Words that do not count beside other parameters.
    pub(crate) passed_over: Vec<Read>,
    /// Parameters that do not count beside the words.
    pub(crate) overruled: Vec<String>,
}

/// Whether the lexicon is needed to know what is asked.
pub(crate) fn needs_lexicon(parameters: &Parameters) -> bool {
    parameters.has("q") || parameters.has("near")
}

/// `now` is the time of asking, in microseconds since 1970, UTC.
pub(crate) fn parse_search_request(
    parameters: &Parameters,
    lexicon: Option<&Lexicon>,
    terms: PaymentTerms,
    now: i64,
    overrules: Overrules,
) -> Result<ParsedSearch, Problem> {
    let mut request = SearchRequest {
        text: text(parameters)?,
        near: parameters.text("near")?.map(|near| place(near, lexicon)).transpose()?,
        radius_km: parameters.parsed("radius_km", "a distance in kilometres")?,
        affordable: positive(parameters, "payment_max", "an amount a month")?.map(|monthly| terms.affordable(monthly)),
        price_drop: flag(parameters, "price_drop")?,
        days_listed_max: positive(parameters, "days_listed_max", "a number of days")?,
        accident_free: flag(parameters, "accident_free")?,
        owners_max: parameters.parsed("owners_max", "a number of owners")?,
        page_size: page_size(parameters)?,
        hierarchy: flag(parameters, "hierarchy")?,
        fingerprint: fingerprint(parameters),
        now,
        ..SearchRequest::default()
    };
    for facet in Facet::ALL {
        let values: Vec<String> = parameters.all(facet.name()).map(str::to_owned).collect();
        if values.len() > MOST_VALUES {
            let detail = format!("{} has {} values, and may have {MOST_VALUES}", facet.name(), values.len());
            return Err(Problem::parameter(facet.name(), detail));
        }
        if !values.is_empty() {
            request.filters.insert(facet, values);
        }
    }
    for range in Range::ALL {
        let bounds = bounds(parameters, range)?;
        if !bounds.is_open() {
            request.ranges.insert(range, bounds);
        }
    }
    if request.radius_km.is_some_and(|radius| radius.is_nan() || radius < 0.0) {
        return Err(Problem::parameter("radius_km", "radius_km is a distance, at least 0"));
    }
    let (mut read, mut passed_over, mut overruled) = (Vec::new(), Vec::new(), Vec::new());
    if let Some(lexicon) = lexicon.filter(|_| !request.text.is_empty())
        && !flag(parameters, "raw")?
    {
        let (reading, gone) = Reading::of(&request.text.clone(), lexicon, &mut request, overrules);
        overruled = gone;
        reading.ask(&mut request, |monthly| terms.affordable(monthly));
        Reading { read, passed_over, .. } = reading;
    }
    if request.near.is_none() && request.radius_km.is_some() {
        return Err(Problem::parameter("radius_km", "radius_km needs near=LAT,LON or a city"));
    }
    if let Some(name) = parameters.text("sort")? {
        let names: Vec<_> = Sort::ALL.iter().map(|sort| sort.name()).collect();
        let unknown = || Problem::parameter("sort", format!("sort is one of {}, not {name:?}", names.join(", ")));
        request.sort = Sort::parse(name).ok_or_else(unknown)?;
    }
    if request.near.is_none() && request.sort == Sort::Distance {
        return Err(Problem::parameter("sort", "sort=distance needs near=LAT,LON or a city"));
    }
    facets(parameters, &mut request)?;
    if let Some(text) = parameters.text("cursor")? {
        let cursor = Cursor::decode(text).filter(|cursor| cursor.search == request.fingerprint);
        let foreign = || Problem::parameter("cursor", "the cursor is not from this search; start at its first page");
        let cursor = cursor.ok_or_else(foreign)?;
        // What depends on the time stays as it was on the first page.
        request.now = cursor.now;
        request.cursor = Some(cursor);
    }
    Ok(ParsedSearch { request, read, passed_over, overruled })
}

pub(crate) fn text(parameters: &Parameters) -> Result<String, Problem> {
    let text = parameters.text("q")?.unwrap_or_default().trim();
    if text.len() > LONGEST_TEXT {
        let detail = format!("q has {} bytes, and may have {LONGEST_TEXT}", text.len());
        return Err(Problem::parameter("q", detail));
    }
    let words = text.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty()).count();
    if words > MOST_WORDS {
        return Err(Problem::parameter("q", format!("q has {words} words, and may have {MOST_WORDS}")));
    }
    Ok(text.to_owned())
}

/// What a cursor must agree on with the search that made it: everything but the page.
fn fingerprint(parameters: &Parameters) -> u64 {
    let mut asked: Vec<&(String, String)> =
        parameters.pairs().filter(|(name, value)| !OF_THE_PAGE.contains(&name.as_str()) && !value.is_empty()).collect();
    asked.sort();
    let mut hasher = DefaultHasher::new();
    asked.hash(&mut hasher);
    hasher.finish()
}

fn flag(parameters: &Parameters, name: &str) -> Result<bool, Problem> {
    match parameters.text(name)? {
        None | Some("false" | "0") => Ok(false),
        Some("true" | "1") => Ok(true),
        Some(other) => Err(Problem::parameter(name, format!("{name} is true or false, not {other:?}"))),
    }
}

fn positive(parameters: &Parameters, name: &str, expects: &str) -> Result<Option<f64>, Problem> {
    let value = parameters.parsed::<f64>(name, expects)?;
    if value.is_some_and(|value| !value.is_finite() || value < 0.0) {
        return Err(Problem::parameter(name, format!("{name} is {expects}, at least 0")));
    }
    Ok(value)
}

fn page_size(parameters: &Parameters) -> Result<usize, Problem> {
    let size = parameters.parsed("page_size", "a number of hits")?.unwrap_or(DEFAULT_PAGE);
    if (1..=MAX_PAGE).contains(&size) {
        Ok(size)
    } else {
        Err(Problem::parameter("page_size", format!("page_size is 1 to {MAX_PAGE}, not {size}")))
    }
}

/// `facets=make,city:20,seats:50:value`: which, how many values of each, and whether by count or by value; all when it is
/// not given, none when it is empty. `facet_query=make:to` has only values with a word that begins like this.
fn facets(parameters: &Parameters, request: &mut SearchRequest) -> Result<(), Problem> {
    request.facets = Facet::ALL.to_vec();
    if parameters.has("facets") {
        let lists = parameters.all("facets").flat_map(|list| list.split(',')).map(str::trim);
        request.facets = Vec::new();
        for asked in lists.filter(|asked| !asked.is_empty()) {
            let (facet, shape) = shape(asked)?;
            if request.facets.contains(&facet) {
                let detail = format!("{} is among the facets twice", facet.name());
                return Err(Problem::parameter("facets", detail));
            }
            request.facets.push(facet);
            if shape != FacetShape::default() {
                request.shapes.insert(facet, shape);
            }
        }
    }
    for asked in parameters.all("facet_query") {
        let wrong = || {
            let detail = format!("facet_query is a facet and the beginning of a value, such as make:to, not {asked:?}");
            Problem::parameter("facet_query", detail)
        };
        let (name, query) = asked.split_once(':').ok_or_else(wrong)?;
        let facet = facet(name, "facet_query")?;
        if !request.facets.contains(&facet) {
            request.facets.push(facet);
        }
        request.shapes.entry(facet).or_default().query = Some(query.to_owned());
    }
    // Of the page alone.
    for facet in parameters.all("all").filter_map(Facet::parse) {
        request.shapes.entry(facet).or_default().limit = MAX_FACET_VALUES;
    }
    Ok(())
}

fn shape(asked: &str) -> Result<(Facet, FacetShape), Problem> {
    let mut parts = asked.split(':');
    let facet = facet(parts.next().unwrap_or_default(), "facets")?;
    let mut shape = FacetShape::default();
    for part in parts {
        match (part, part.parse::<usize>()) {
            ("count", _) => shape.order = FacetOrder::Count,
            ("value", _) => shape.order = FacetOrder::Value,
            (_, Ok(limit)) if limit <= MAX_FACET_VALUES => shape.limit = limit,
            _ => {
                let detail = format!(
                    "after a facet comes how many of its values, at most {MAX_FACET_VALUES}, or their order, count or \
                     value: city:20:value, not {asked:?}"
                );
                return Err(Problem::parameter("facets", detail));
            }
        }
    }
    Ok((facet, shape))
}

fn facet(name: &str, parameter: &str) -> Result<Facet, Problem> {
    let known: Vec<_> = Facet::ALL.iter().map(|facet| facet.name()).collect();
    let unknown = || Problem::parameter(parameter, format!("facets are {}, not {name:?}", known.join(", ")));
    Facet::parse(name.trim()).ok_or_else(unknown)
}

fn place(text: &str, lexicon: Option<&Lexicon>) -> Result<Place, Problem> {
    let degrees = |text: &str| text.trim().parse::<f64>().ok();
    let place =
        text.split_once(',').and_then(|(latitude, longitude)| Place::new(degrees(latitude)?, degrees(longitude)?));
    place.or_else(|| lexicon?.city(text)).ok_or_else(|| {
        let detail =
            format!("near is LAT,LON in degrees, such as 43.65,-79.38, or a city that a listing is in, not {text:?}");
        Problem::parameter("near", detail)
    })
}

fn bounds(parameters: &Parameters, range: Range) -> Result<Bounds, Problem> {
    let (min, max) = (format!("{}_min", range.name()), format!("{}_max", range.name()));
    let number = |name: &str| -> Result<Option<f64>, Problem> {
        let value = parameters.parsed::<f64>(name, "a number")?;
        if value.is_some_and(f64::is_nan) {
            Err(Problem::parameter(name, format!("{name} is a number")))
        } else {
            Ok(value)
        }
    };
    let bounds = Bounds { min: number(&min)?, max: number(&max)? };
    match (bounds.min, bounds.max) {
        (Some(low), Some(high)) if low > high => {
            Err(Problem::parameter(&min, format!("{min} is {low}, more than {max}, which is {high}")))
        }
        _ => Ok(bounds),
    }
}
