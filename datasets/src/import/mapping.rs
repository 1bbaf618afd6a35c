//! A mapping: which column of a listing file says what, as data.

use std::collections::{BTreeMap, HashSet};

use regex::Regex;
use schemas::{
    Catalogue,
    field_type::{FieldType, parse_timestamp},
};
use serde::Deserialize;

use super::story::{DETAILS, LISTING, PRICE};

const KM_PER_MILE: f64 = 1.609_344;

/// Whole numbers up to this are exact in a float: 2^53.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// The mappings that come with the program.
const SHIPPED: [(&str, &str); 3] = [
    ("australia.toml", include_str!("../../mappings/australia.toml")),
    ("uk.toml", include_str!("../../mappings/uk.toml")),
    ("new-zealand.toml", include_str!("../../mappings/new-zealand.toml")),
];

/// A mapping that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MappingError {
    #[error("{file}: {}", error.to_string().trim_end())]
    Syntax { file: String, error: Box<toml::de::Error> },
    #[error("{file}: {problem}")]
    Meaning { file: String, problem: String },
}

/// What happens to a listing in one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// It is described, priced and published.
    Listed,
    /// Its price changes.
    Priced,
    /// It is shown again, with a new price where the row has one.
    Published,
    /// It is no longer shown.
    Withdrawn,
    /// It is sold, for the row's price.
    Sold,
}

/// The column that says what happens in a row, and the one that says when.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StorySpec {
    pub time: String,
    pub column: String,
    pub steps: BTreeMap<String, Step>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Unit {
    Km,
    Miles,
}

/// How one field of the listing is read.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FieldSpec {
    /// The column it is read from; else `value` is what every row says.
    column: Option<String>,
    value: Option<String>,
    /// What of the cell counts: the pattern's first group.
    extract: Option<String>,
    /// Characters that do not count, such as thousands separators.
    #[serde(default)]
    remove: String,
    #[serde(default)]
    suffix: String,
    unit: Option<Unit>,
    /// The words of the file and ours.
    #[serde(default)]
    values: BTreeMap<String, String>,
    /// Whether a row without it is of no use.
    #[serde(default)]
    required: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    title: String,
    id: Option<String>,
    listed_at: Option<String>,
    #[serde(default)]
    missing: HashSet<String>,
    story: Option<StorySpec>,
    fields: BTreeMap<String, FieldSpec>,
}

/// One field of the listing, and how it is read.
#[derive(Clone, Debug)]
pub struct Field {
    /// As events spell it.
    pub name: String,
    pub required: bool,
    kind: FieldType,
    spec: FieldSpec,
    extract: Option<Regex>,
}

/// What a cell says about a field.
#[derive(Clone, Debug, PartialEq)]
pub enum Reading {
    Value(serde_json::Value),
    Missing,
    /// Something, but nothing the field can have.
    Unusable,
}

/// Which column of a file says what.
#[derive(Clone, Debug)]
pub struct Mapping {
    pub name: String,
    pub title: String,
    /// The column that identifies a listing. Without one a listing is its row, and a repeated row is refused.
    pub id: Option<String>,
    /// When every listing begins, in microseconds since 1970, UTC, where the file tells no times.
    pub listed_at: Option<i64>,
    pub story: Option<StorySpec>,
    pub fields: Vec<Field>,
    missing: HashSet<String>,
}

impl Mapping {
    /// The mappings that come with the program.
    ///
    /// # Errors
    /// Never: a test reads them all.
    pub fn shipped(catalogue: &Catalogue) -> Result<Vec<Self>, MappingError> {
        SHIPPED.iter().map(|(file, text)| Self::parse(catalogue, file, text)).collect()
    }

    /// Read a mapping.
    ///
    /// # Errors
    /// What is wrong in the file, and where.
    pub fn parse(catalogue: &Catalogue, file: &str, text: &str) -> Result<Self, MappingError> {
        let spec: File = toml::from_str(text)
            .map_err(|error| MappingError::Syntax { file: file.to_owned(), error: Box::new(error) })?;
        let wrong = |problem: String| MappingError::Meaning { file: file.to_owned(), problem };
        let File { name, title, id, listed_at, missing, story, fields } = spec;
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
            return Err(wrong(format!("name {name:?} has letters, digits and hyphens only: ids begin with it")));
        }
        let listed_at = match (listed_at, &story) {
            (Some(text), None) => {
                let micros = parse_timestamp(&text);
                Some(micros.ok_or_else(|| wrong(format!("listed_at {text:?} is no RFC 3339 time or date")))?)
            }
            (None, Some(_)) => None,
            _ => return Err(wrong("say either listed_at or [story]: when do the listings begin?".to_owned())),
        };
        let known = fields_of_a_listing(catalogue);
        let fields = fields.into_iter().map(|(name, spec)| {
            let Some(kind) = known.get(name.as_str()).copied() else {
                let names: Vec<_> = known.keys().copied().collect();
                return Err(wrong(format!("fields.{name} is not in a listing; there are {}", names.join(", "))));
            };
            if spec.column.is_some() == spec.value.is_some() {
                return Err(wrong(format!("fields.{name} has either a column or a value")));
            }
            let pattern = spec.extract.as_deref().map(Regex::new).transpose();
            let extract = pattern.map_err(|error| wrong(format!("fields.{name}.extract: {error}")))?;
            if extract.as_ref().is_some_and(|pattern| pattern.captures_len() != 2) {
                return Err(wrong(format!("fields.{name}.extract has exactly one group: what counts")));
            }
            Ok(Field { name, required: spec.required, kind, spec, extract })
        });
        let fields = fields.collect::<Result<_, _>>()?;
        Ok(Self { name, title, id, listed_at, story, fields, missing })
    }

    /// The columns it reads.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        let fields = self.fields.iter().filter_map(|field| field.spec.column.as_deref());
        let story = self.story.iter().flat_map(|story| [story.time.as_str(), story.column.as_str()]);
        fields.chain(story).chain(self.id.as_deref())
    }

    /// Read a field from its cell.
    #[must_use]
    pub fn read(&self, field: &Field, cell: &str) -> Reading {
        let Field { kind, spec, extract, .. } = field;
        let text = spec.value.as_deref().unwrap_or(cell).trim();
        if self.missing.contains(text) {
            return Reading::Missing;
        }
        let text = match extract.as_ref().map(|pattern| pattern.captures(text)) {
            None => text,
            Some(Some(captures)) => captures.get(1).map_or("", |group| group.as_str()).trim(),
            Some(None) => return Reading::Unusable,
        };
        let text = text.replace(|character| spec.remove.contains(character), "");
        if self.missing.contains(&text) {
            return Reading::Missing;
        }
        let text = spec.values.get(&text).unwrap_or(&text);
        if text.is_empty() {
            return Reading::Missing;
        }
        match kind {
            FieldType::Integer | FieldType::Money | FieldType::Number => {
                let Some(number) = text.parse::<f64>().ok().filter(|number| number.abs() <= EXACT) else {
                    return Reading::Unusable;
                };
                let number = if spec.unit == Some(Unit::Miles) { number * KM_PER_MILE } else { number };
                #[expect(clippy::cast_possible_truncation, reason = "within what a float holds exactly")]
                Reading::Value(match kind {
                    FieldType::Integer => (number.round() as i64).into(),
                    _ if number.fract() == 0.0 => (number as i64).into(),
                    _ => number.into(),
                })
            }
            FieldType::StringList => Reading::Value(vec![format!("{text}{}", spec.suffix)].into()),
            _ => Reading::Value(format!("{text}{}", spec.suffix).into()),
        }
    }

    /// The column a field is read from.
    #[must_use]
    pub fn column<'a>(&self, field: &'a Field) -> Option<&'a str> {
        field.spec.column.as_deref()
    }
}

/// What a listing can be told with, ids and times aside.
fn fields_of_a_listing(catalogue: &Catalogue) -> BTreeMap<&str, FieldType> {
    let mut known = BTreeMap::new();
    for (context, name) in [DETAILS, LISTING, PRICE] {
        let Some((_, context)) = catalogue.context(context) else { continue };
        for field in context.event(name).iter().flat_map(|event| &event.fields) {
            let column = &context.columns[field.column];
            if !matches!(column.kind, FieldType::Id | FieldType::Timestamp) {
                known.insert(column.field.as_str(), column.kind);
            }
        }
    }
    known
}
