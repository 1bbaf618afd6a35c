//! What a field's values must keep to, beyond their type.

use std::fmt;

use chrono::{DateTime, Datelike};
use serde::Deserialize;

use crate::field_type::{Cell, FieldType};

/// Bounds and choices of a field. Empty limits allow everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Limits {
    /// The only values there are; any when empty.
    pub values: Vec<String>,
    /// The least value.
    pub min: Option<f64>,
    /// The greatest value.
    pub max: Option<f64>,
    /// Less than every value.
    pub above: Option<f64>,
    pub rule: Option<Rule>,
}

/// A limit that has a name because it is more than a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// From 1886, when the first car was built, to the year after next of the event: next year's models are sold early.
    ModelYear,
    /// The check digit of a North American VIN. Others have none, so a wrong one is only warned of.
    Vin,
}

/// The first model year there is.
const FIRST_MODEL_YEAR: i64 = 1886;
/// How far ahead of an event's year a model year may be.
const MODEL_YEARS_AHEAD: i64 = 2;

/// Limits that do not fit the field's type.
#[derive(Debug, thiserror::Error)]
pub enum LimitsProblem {
    #[error("values are for type string, not {0}")]
    Values(FieldType),
    #[error("min, max and above are for integer, number and money, not {0}")]
    Bounds(FieldType),
    #[error("the rule model_year is for type integer, not {0}")]
    ModelYear(FieldType),
    #[error("the rule vin is for type string, not {0}")]
    Vin(FieldType),
    #[error("no value is within its bounds")]
    Empty,
}

/// What a value that keeps to its limits may still be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    VinCheckDigit,
}

impl Limits {
    /// Whether these limits make sense for a type.
    ///
    /// # Errors
    /// With the limit that does not.
    pub fn check_type(&self, kind: FieldType) -> Result<(), LimitsProblem> {
        let numeric = matches!(kind, FieldType::Integer | FieldType::Number | FieldType::Money);
        if !self.values.is_empty() && kind != FieldType::String {
            return Err(LimitsProblem::Values(kind));
        }
        if (self.min.is_some() || self.max.is_some() || self.above.is_some()) && !numeric {
            return Err(LimitsProblem::Bounds(kind));
        }
        let empty = self
            .max
            .is_some_and(|max| self.min.is_some_and(|min| min > max) || self.above.is_some_and(|above| above >= max));
        if empty {
            return Err(LimitsProblem::Empty);
        }
        match self.rule {
            Some(Rule::ModelYear) if kind != FieldType::Integer => Err(LimitsProblem::ModelYear(kind)),
            Some(Rule::Vin) if kind != FieldType::String => Err(LimitsProblem::Vin(kind)),
            Some(Rule::ModelYear | Rule::Vin) | None => Ok(()),
        }
    }

    /// Whether a value of an event at `event_time` (microseconds since 1970, UTC) keeps to these limits.
    #[must_use]
    pub fn allow(&self, cell: &Cell, event_time: i64) -> bool {
        if let Cell::Text(text) = cell {
            return self.values.is_empty() || self.values.contains(text);
        }
        let Some(number) = number(cell) else { return true };
        let (first, last) = match self.rule {
            Some(Rule::ModelYear) => (Some(FIRST_MODEL_YEAR as f64), Some(last_model_year(event_time) as f64)),
            Some(Rule::Vin) | None => (None, None),
        };
        let at_least = |bound: Option<f64>| bound.is_none_or(|bound| number >= bound);
        let at_most = |bound: Option<f64>| bound.is_none_or(|bound| number <= bound);
        at_least(self.min)
            && at_least(first)
            && at_most(self.max)
            && at_most(last)
            && self.above.is_none_or(|bound| number > bound)
    }

    /// What is doubtful about a value that is allowed.
    #[must_use]
    pub fn doubt(&self, cell: &Cell) -> Option<Doubt> {
        match (self.rule, cell) {
            (Some(Rule::Vin), Cell::Text(vin)) if !has_check_digit(vin) => Some(Doubt::VinCheckDigit),
            _ => None,
        }
    }
}

/// What is allowed, in words: "one of A, B" or "above 0 and at most 5".
impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts: Vec<String> = Vec::new();
        if !self.values.is_empty() {
            parts.push(format!("one of {}", self.values.join(", ")));
        }
        parts.extend(self.above.map(|bound| format!("above {bound}")));
        parts.extend(self.min.map(|bound| format!("at least {bound}")));
        parts.extend(self.max.map(|bound| format!("at most {bound}")));
        parts.extend(self.rule.map(|rule| match rule {
            Rule::ModelYear => format!("a year from {FIRST_MODEL_YEAR} to {MODEL_YEARS_AHEAD} after the event's"),
            Rule::Vin => "a VIN whose check digit is right".to_owned(),
        }));
        f.write_str(&parts.join(" and "))
    }
}

fn number(cell: &Cell) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "bounds are far below 2^53")]
    match cell {
        Cell::Integer(value) => Some(*value as f64),
        Cell::Number(value) => Some(*value),
        Cell::Money(cents) => Some(*cents as f64 / 100.0),
        Cell::Text(_) | Cell::Boolean(_) | Cell::Timestamp(_) | Cell::List(_) => None,
    }
}

fn last_model_year(event_time: i64) -> i64 {
    let year = DateTime::from_timestamp_micros(event_time).map_or(1970, |time| time.year());
    i64::from(year) + MODEL_YEARS_AHEAD
}

/// Whether the ninth of a VIN's 17 characters is the check digit of the others (49 CFR § 565.15).
fn has_check_digit(vin: &str) -> bool {
    const WEIGHTS: [u32; 17] = [8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2];
    let values: Option<Vec<u32>> = vin.chars().map(vin_value).collect();
    let Some(values) = values.filter(|values| values.len() == WEIGHTS.len()) else { return false };
    let sum: u32 = values.iter().zip(WEIGHTS).map(|(value, weight)| value * weight).sum();
    let digit = match sum % 11 {
        10 => 'X',
        rest => char::from_digit(rest, 10).unwrap_or_default(),
    };
    vin.chars().nth(8).is_some_and(|ninth| ninth.eq_ignore_ascii_case(&digit))
}

fn vin_value(letter: char) -> Option<u32> {
    match letter.to_ascii_uppercase() {
        'A' | 'J' => Some(1),
        'B' | 'K' | 'S' => Some(2),
        'C' | 'L' | 'T' => Some(3),
        'D' | 'M' | 'U' => Some(4),
        'E' | 'N' | 'V' => Some(5),
        'F' | 'W' => Some(6),
        'G' | 'P' | 'X' => Some(7),
        'H' | 'Y' => Some(8),
        'R' | 'Z' => Some(9),
        other => other.to_digit(10),
    }
}

#[cfg(test)]
mod tests {
    use super::{Doubt, Limits, Rule};
    use crate::field_type::{Cell, parse_timestamp};

    #[test]
    fn bounds_choices_and_model_years_hold() {
        let at = parse_timestamp("2026-11-02").unwrap_or_default();
        let year = Limits { rule: Some(Rule::ModelYear), ..Limits::default() };
        let price = Limits { above: Some(0.0), max: Some(10.0), ..Limits::default() };
        let method = Limits { values: vec!["AUTO".into(), "SELF".into()], ..Limits::default() };
        for (limits, cell, allowed) in [
            (&year, Cell::Integer(1885), false),
            (&year, Cell::Integer(1886), true),
            (&year, Cell::Integer(2028), true),
            (&year, Cell::Integer(2029), false),
            (&price, Cell::Money(0), false),
            (&price, Cell::Money(1), true),
            (&price, Cell::Money(1_000), true),
            (&price, Cell::Money(1_001), false),
            (&method, Cell::Text("SELF".into()), true),
            (&method, Cell::Text("self".into()), false),
        ] {
            assert_eq!(limits.allow(&cell, at), allowed, "{cell:?} is to be {limits}");
        }
        assert_eq!(price.to_string(), "above 0 and at most 10");
    }

    #[test]
    fn a_vin_is_doubted_when_its_check_digit_is_wrong() {
        let vin = Limits { rule: Some(Rule::Vin), ..Limits::default() };
        let doubt = |text: &str| vin.doubt(&Cell::Text(text.into()));
        assert_eq!(doubt("1M8GDM9AXKP042788"), None);
        assert_eq!(doubt("11111111111111111"), None);
        for wrong in ["1M8GDM9A1KP042788", "1M8GDM9AXKP04278", "IM8GDM9AXKP042788", "é"] {
            assert_eq!(doubt(wrong), Some(Doubt::VinCheckDigit), "{wrong}");
        }
    }
}
