//! Versions of an event, and how an older one becomes the newer: as data.

use std::{cmp::Ordering, collections::BTreeMap, fmt};

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::field_type::FieldType;

/// A version such as `2` or `1.1`, ordered by its numbers; `1` and `1.0` are the same.
#[derive(Clone, Debug)]
pub struct Version {
    text: String,
    /// Without trailing zeros.
    numbers: Vec<u32>,
}

impl Version {
    /// The version, or `None` when the text is not numbers with dots between them.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers: Vec<u32> = text.split('.').map(|part| part.parse().ok()).collect::<Option<_>>()?;
        while numbers.last() == Some(&0) {
            numbers.pop();
        }
        Some(Self { text: text.to_owned(), numbers })
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl Default for Version {
    fn default() -> Self {
        Self { text: "1.0".to_owned(), numbers: vec![1] }
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.numbers == other.numbers
    }
}

impl Eq for Version {}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        self.numbers.cmp(&other.numbers)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A version before the current one.
#[derive(Clone, Debug, PartialEq)]
pub struct OlderVersion {
    pub version: Version,
    /// What makes it the next version, in order.
    pub steps: Vec<Step>,
}

/// One change from a version to the next. A step whose field is absent does nothing.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(
    untagged,
    deny_unknown_fields,
    expecting = "a step is one of { rename, to }, { default, value }, { split, on, into }, \
                 { convert, multiply | values | to } and { drop }"
)]
pub enum Step {
    /// The field is called something else now.
    Rename { rename: String, to: String },
    /// The field is new: older events have this value.
    Default { default: String, value: Value },
    /// One text became several: cut at `on`, the last part keeps the rest.
    Split { split: String, on: String, into: Vec<String> },
    /// The number is in another unit now.
    Multiply { convert: String, multiply: f64 },
    /// The values are spelled otherwise now; others stay as they are.
    Values { convert: String, values: BTreeMap<String, Value> },
    /// The field has another type now.
    Retype { convert: String, to: FieldType },
    /// The field is gone, and its value with it.
    Drop { drop: String },
}

impl Step {
    /// The field it takes.
    #[must_use]
    pub fn takes(&self) -> Option<&str> {
        match self {
            Self::Rename { rename: field, .. }
            | Self::Split { split: field, .. }
            | Self::Multiply { convert: field, .. }
            | Self::Values { convert: field, .. }
            | Self::Retype { convert: field, .. }
            | Self::Drop { drop: field } => Some(field),
            Self::Default { .. } => None,
        }
    }

    /// The fields it gives.
    #[must_use]
    pub fn gives(&self) -> Vec<&str> {
        match self {
            Self::Rename { to, .. } => vec![to],
            Self::Default { default: field, .. }
            | Self::Multiply { convert: field, .. }
            | Self::Values { convert: field, .. }
            | Self::Retype { convert: field, .. } => vec![field],
            Self::Split { into, .. } => into.iter().map(String::as_str).collect(),
            Self::Drop { .. } => Vec::new(),
        }
    }

    /// Take the step. What a field has under its new name already is kept; `null` is the same as absent.
    fn apply(&self, data: &mut Map<String, Value>, kind_of: &dyn Fn(&str) -> Option<FieldType>) {
        match self {
            Self::Rename { rename, to } => {
                if is_absent(data, to)
                    && let Some(value) = data.remove(rename)
                {
                    data.insert(to.clone(), value);
                }
            }
            Self::Default { default, value } => {
                if is_absent(data, default) {
                    data.insert(default.clone(), value.clone());
                }
            }
            Self::Split { split, on, into } => {
                if let Some(Value::String(text)) = data.get(split) {
                    let parts: Vec<Value> = text.splitn(into.len(), on.as_str()).map(Value::from).collect();
                    data.remove(split);
                    for (field, part) in into.iter().zip(parts) {
                        if is_absent(data, field) {
                            data.insert(field.clone(), part);
                        }
                    }
                }
            }
            Self::Multiply { convert, multiply } => {
                let number = data.get(convert).and_then(number);
                let kind = kind_of(convert);
                if let Some(product) = number.and_then(|number| rounded(number * multiply, kind)) {
                    data.insert(convert.clone(), product);
                }
            }
            Self::Values { convert, values } => {
                let spelled = data.get(convert).map(|value| value.as_str().map_or(value.to_string(), str::to_owned));
                if let Some(value) = spelled.and_then(|spelled| values.get(&spelled)) {
                    data.insert(convert.clone(), value.clone());
                }
            }
            Self::Retype { convert, to } => {
                if let Some(value) = data.get(convert).and_then(|value| retyped(value, *to)) {
                    data.insert(convert.clone(), value);
                }
            }
            Self::Drop { drop } => {
                data.remove(drop);
            }
        }
    }
}

/// Bring the payload of an older version to the current shape.
///
/// `kind_of` says what type a field has in the current one.
pub(crate) fn upgrade(
    older: &[OlderVersion],
    from: &Version,
    data: &mut Map<String, Value>,
    kind_of: &dyn Fn(&str) -> Option<FieldType>,
) {
    for step in steps_from(older, from) {
        step.apply(data, kind_of);
    }
}

fn is_absent(data: &Map<String, Value>, field: &str) -> bool {
    data.get(field).is_none_or(Value::is_null)
}

/// A number, also when it is written as text, as amounts may be.
fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.trim().parse().ok())
}

/// The steps from a version to the current one. A version between two that are declared has the shape of the earlier.
pub(crate) fn steps_from<'a>(older: &'a [OlderVersion], from: &Version) -> impl Iterator<Item = &'a Step> {
    let first = older.iter().rposition(|known| known.version <= *from).unwrap_or(0);
    older[first..].iter().flat_map(|version| &version.steps)
}

/// A product as its field takes it: whole for an integer, cents for money, six decimals for anything else, as
/// conversions of units carry no more.
fn rounded(number: f64, kind: Option<FieldType>) -> Option<Value> {
    let decimals = match kind {
        Some(FieldType::Integer) => 1.0,
        Some(FieldType::Money) => 1e2,
        _ => 1e6,
    };
    let rounded = (number * decimals).round() / decimals;
    #[expect(clippy::cast_possible_truncation, reason = "whole and within ±2^53")]
    let whole = (rounded.fract() == 0.0 && rounded.abs() < 9e15).then_some(rounded as i64);
    match whole {
        Some(whole) => Some(whole.into()),
        None => serde_json::Number::from_f64(rounded).map(Value::Number),
    }
}

/// The value as JSON of another type, where it says the same.
fn retyped(value: &Value, to: FieldType) -> Option<Value> {
    match (to, value) {
        (FieldType::Integer | FieldType::Number | FieldType::Money, Value::String(text)) => {
            serde_json::from_str::<serde_json::Number>(text.trim()).ok().map(Value::Number)
        }
        (FieldType::Boolean, Value::String(text)) => text.trim().parse().ok().map(Value::Bool),
        (FieldType::Id | FieldType::String, Value::Number(number)) => Some(number.to_string().into()),
        (FieldType::Id | FieldType::String, Value::Bool(flag)) => Some(flag.to_string().into()),
        (FieldType::StringList | FieldType::JsonList, Value::Array(_)) => None,
        (FieldType::StringList | FieldType::JsonList, value) => Some(Value::Array(vec![value.clone()])),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{OlderVersion, Step, Version, upgrade};
    use crate::field_type::FieldType;

    fn older(version: &str, steps: Value) -> Option<OlderVersion> {
        let steps: Vec<Step> = serde_json::from_value(steps).ok()?;
        Some(OlderVersion { version: Version::parse(version)?, steps })
    }

    #[test]
    fn an_older_version_takes_every_step_to_the_current_one() {
        let older: Vec<_> = [
            older(
                "1.0",
                json!([{"rename": "miles", "to": "distance"}, {"convert": "distance", "multiply": 1.609344},
                       {"split": "name", "on": " ", "into": ["first", "last"]}]),
            ),
            older(
                "2",
                json!([{"default": "currency", "value": "CAD"}, {"convert": "grade", "values": {"1": "good"}},
                              {"convert": "paid", "to": "boolean"}, {"drop": "color"}]),
            ),
        ]
        .into_iter()
        .flatten()
        .collect();
        assert_eq!(older.len(), 2);
        let upgraded = |version: &str, data: Value| {
            let (Some(version), Value::Object(mut data)) = (Version::parse(version), data) else { return Value::Null };
            upgrade(&older, &version, &mut data, &|field| match field {
                "km" => Some(FieldType::Integer),
                "price" => Some(FieldType::Money),
                _ => None,
            });
            Value::Object(data)
        };
        let first = json!({"miles": 1000, "name": "Ada King Lovelace", "grade": 1, "paid": "true", "color": "red"});
        let current = json!({"distance": 1609.344, "first": "Ada", "last": "King Lovelace", "currency": "CAD",
                             "grade": "good", "paid": true});
        assert_eq!(upgraded("1", first), current);
        assert_eq!(upgraded("2.0", json!({"distance": 5})), json!({"distance": 5, "currency": "CAD"}));
        assert_eq!(
            upgraded("1.5", json!({"miles": 10, "distance": 7})),
            json!({"miles": 10, "distance": 11.265408, "currency": "CAD"})
        );
    }

    #[test]
    fn a_product_is_what_its_field_takes_and_null_is_absent() {
        let steps = json!([{"convert": "km", "multiply": 1.609344}, {"convert": "price", "multiply": 0.01},
                           {"rename": "colour", "to": "color"}, {"default": "grade", "value": "good"}]);
        let older: Vec<_> = older("1", steps).into_iter().collect();
        let kind_of = |field: &str| match field {
            "km" => Some(FieldType::Integer),
            "price" => Some(FieldType::Money),
            _ => None,
        };
        let data = json!({"km": 1000, "price": "1999950", "colour": "red", "color": null, "grade": null});
        let Value::Object(mut data) = data else { return };
        upgrade(&older, &Version::default(), &mut data, &kind_of);
        assert_eq!(Value::Object(data), json!({"km": 1609, "price": 19999.5, "color": "red", "grade": "good"}));
    }

    #[test]
    fn versions_are_numbers() {
        assert!(Version::parse("1.10") > Version::parse("1.9"));
        assert_eq!(Version::parse("1"), Version::parse("1.0.0"));
        for bad in ["", "v1", "1.", "-1"] {
            assert_eq!(Version::parse(bad), None, "{bad}");
        }
    }
}
