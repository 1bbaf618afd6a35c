//! The types a field may have, and what is coerced to them.
//!
//! | type | JSON taken as it is | coerced | refused, for example |
//! |---|---|---|---|
//! | `id` | text | nothing | `""`, `7` |
//! | `string` | text | nothing | `7` |
//! | `integer` | whole numbers of 64 bits | `12.0` → `12` | `"12"`, `12.5` |
//! | `number` | numbers | nothing | `"12.5"` |
//! | `money` | numbers of two decimals and ten digits before them | `"12.50"` → `12.50` | `12.505`, `"12,50"` |
//! | `boolean` | `true`, `false` | nothing | `"true"`, `1` |
//! | `timestamp` | RFC 3339 between 1970 and 2200 | `"2026-11-02"` → its midnight in UTC | `1793608200`, `"yesterday"` |
//! | `json` | anything | nothing | |
//! | `list<string>` | arrays of text | nothing | `"a"`, `["a", 1]` |
//! | `list<json>` | arrays | nothing | `{}` |
//!
//! In the envelope, a version may be a number, and `null` is the same as absent everywhere.

use std::{fmt, str::FromStr, sync::Arc};

use arrow::datatypes::{DataType, Field, TimeUnit};
use chrono::{DateTime, NaiveDate};
use serde::{Deserialize, Deserializer, de};
use serde_json::Value;

/// Digits of a money amount, and how many of them are cents.
pub const MONEY_PRECISION: u8 = 12;
pub const MONEY_SCALE: i8 = 2;

/// The time zone of every stored time.
pub const UTC: &str = "UTC";

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldType {
    /// An identifier: a non-empty string.
    Id,
    String,
    /// A whole number.
    Integer,
    Number,
    /// An amount with two decimals.
    Money,
    Boolean,
    /// RFC 3339, or a plain date, which is its midnight in UTC.
    Timestamp,
    /// Any JSON, kept as its text.
    Json,
    StringList,
    /// A list of any JSON, each item kept as its text.
    JsonList,
}

const SPELLINGS: [(FieldType, &str); 10] = [
    (FieldType::Id, "id"),
    (FieldType::String, "string"),
    (FieldType::Integer, "integer"),
    (FieldType::Number, "number"),
    (FieldType::Money, "money"),
    (FieldType::Boolean, "boolean"),
    (FieldType::Timestamp, "timestamp"),
    (FieldType::Json, "json"),
    (FieldType::StringList, "list<string>"),
    (FieldType::JsonList, "list<json>"),
];

impl fmt::Display for FieldType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spelling = SPELLINGS.iter().find(|(kind, _)| kind == self);
        f.pad(spelling.map_or("", |(_, text)| text))
    }
}

impl FromStr for FieldType {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        SPELLINGS.iter().find(|(_, spelling)| *spelling == text).map(|(kind, _)| *kind).ok_or(())
    }
}

impl<'de> Deserialize<'de> for FieldType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|()| {
            let known: Vec<_> = SPELLINGS.iter().map(|(_, spelling)| *spelling).collect();
            de::Error::custom(format!("unknown type {text:?}; one of {}", known.join(", ")))
        })
    }
}

/// One typed value of an event, ready for its column.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    Text(String),
    Integer(i64),
    Number(f64),
    /// Cents.
    Money(i128),
    Boolean(bool),
    /// Microseconds since 1970, UTC.
    Timestamp(i64),
    List(Vec<String>),
}

impl FieldType {
    /// The column's Arrow type.
    #[must_use]
    pub fn arrow(self) -> DataType {
        match self {
            Self::Id | Self::String | Self::Json => DataType::Utf8,
            Self::Integer => DataType::Int64,
            Self::Number => DataType::Float64,
            Self::Money => DataType::Decimal128(MONEY_PRECISION, MONEY_SCALE),
            Self::Boolean => DataType::Boolean,
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into())),
            Self::StringList | Self::JsonList => DataType::List(Arc::new(Field::new("element", DataType::Utf8, true))),
        }
    }

    /// What the field expects, in words for a person.
    #[must_use]
    pub const fn expects(self) -> &'static str {
        match self {
            Self::Id => "a non-empty string",
            Self::String => "a string",
            Self::Integer => "a whole number",
            Self::Number => "a number",
            Self::Money => "an amount with at most two decimals and ten digits before them",
            Self::Boolean => "true or false",
            Self::Timestamp => "a time such as 2026-11-02T08:30:00Z, between 1970 and 2200",
            Self::Json => "any JSON",
            Self::StringList => "a list of strings",
            Self::JsonList => "a list",
        }
    }

    /// The value as this type, or `None` when it is not one. `null` is no value and never comes here.
    #[must_use]
    pub fn cell(self, value: &Value) -> Option<Cell> {
        match (self, value) {
            (Self::Id, Value::String(text)) => (!text.is_empty()).then(|| Cell::Text(text.clone())),
            (Self::String, Value::String(text)) => Some(Cell::Text(text.clone())),
            (Self::Integer, Value::Number(number)) => integer(number).map(Cell::Integer),
            (Self::Number, Value::Number(number)) => number.as_f64().map(Cell::Number),
            (Self::Money, Value::Number(number)) => cents(number).map(Cell::Money),
            (Self::Money, Value::String(text)) => written_cents(text).map(Cell::Money),
            (Self::Boolean, Value::Bool(flag)) => Some(Cell::Boolean(*flag)),
            (Self::Timestamp, Value::String(text)) => parse_timestamp(text).map(Cell::Timestamp),
            (Self::Json, value) => Some(Cell::Text(value.to_string())),
            (Self::StringList, Value::Array(items)) => {
                items.iter().map(|item| item.as_str().map(str::to_owned)).collect::<Option<_>>().map(Cell::List)
            }
            (Self::JsonList, Value::Array(items)) => Some(Cell::List(items.iter().map(Value::to_string).collect())),
            (
                Self::Id
                | Self::String
                | Self::Integer
                | Self::Number
                | Self::Money
                | Self::Boolean
                | Self::Timestamp
                | Self::StringList
                | Self::JsonList,
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_),
            ) => None,
        }
    }
}

/// A whole number, also when it is written `12.0`.
fn integer(number: &serde_json::Number) -> Option<i64> {
    /// Beyond this a float no longer names one whole number.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    number.as_i64().or_else(|| {
        let float = number.as_f64()?;
        #[expect(clippy::cast_possible_truncation, reason = "whole and within ±2^53")]
        let whole = (float.fract() == 0.0 && float.abs() <= EXACT).then_some(float as i64);
        whole
    })
}

/// The amount in cents: exact for every amount `decimal(12,2)` can hold.
fn cents(number: &serde_json::Number) -> Option<i128> {
    const LIMIT: f64 = 1e12;
    /// A float below 10^10 is within this of the two-decimal amount it was written as.
    const WRITTEN: f64 = 1e-3;
    if let Some(whole) = number.as_i64() {
        let cents = i128::from(whole) * 100;
        return (cents.unsigned_abs() < 1_000_000_000_000).then_some(cents);
    }
    let scaled = number.as_f64()? * 100.0;
    let cents = scaled.round();
    #[expect(clippy::cast_possible_truncation, reason = "whole and within ±10^12")]
    let exact = (cents.abs() < LIMIT && (scaled - cents).abs() < WRITTEN).then_some(cents as i128);
    exact
}

/// The cents of an amount as text: `-12.5` → -1250. Text keeps what a float may not, so producers of money prefer it.
fn written_cents(text: &str) -> Option<i128> {
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let all_digits =
        |part: &str, most: usize| (1..=most).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
    if !all_digits(whole, 10) || !all_digits(fraction, 2) {
        return None;
    }
    let cents: i128 = format!("{whole}{fraction:0<2}").parse().ok()?;
    Some(if negative { -cents } else { cents })
}

/// Microseconds since 1970 of an RFC 3339 time or of the midnight, UTC, that begins a plain date.
///
/// `None` when the text is neither or the year lies outside 1970..=2199.
#[must_use]
pub fn parse_timestamp(text: &str) -> Option<i64> {
    /// 2200-01-01T00:00:00Z.
    const END: i64 = 7_258_118_400_000_000;
    const DATE: &str = "2026-11-02";
    let micros = match DateTime::parse_from_rfc3339(text) {
        Ok(time) => time.timestamp_micros(),
        Err(_) if text.len() != DATE.len() => return None,
        Err(_) => NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0)?.and_utc().timestamp_micros(),
    };
    (0..END).contains(&micros).then_some(micros)
}

/// RFC 3339 in UTC, with as many decimals as the time needs.
#[must_use]
pub fn format_timestamp(micros: i64) -> String {
    DateTime::from_timestamp_micros(micros)
        .map(|time| time.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Cell, FieldType, format_timestamp, parse_timestamp};

    #[test]
    fn values_become_cells_of_their_type_or_nothing() {
        let cases = [
            (FieldType::Id, json!("v-1"), Some(Cell::Text("v-1".into()))),
            (FieldType::Id, json!(""), None),
            (FieldType::Id, json!(7), None),
            (FieldType::Integer, json!(12.0), Some(Cell::Integer(12))),
            (FieldType::Integer, json!(12.5), None),
            (FieldType::Integer, json!("12"), None),
            (FieldType::Money, json!(19_999.99), Some(Cell::Money(1_999_999))),
            (FieldType::Money, json!(0.07), Some(Cell::Money(7))),
            (FieldType::Money, json!(9_999_999_999.99_f64), Some(Cell::Money(999_999_999_999))),
            (FieldType::Money, json!(1.005), None),
            (FieldType::Money, json!(1e11), None),
            (FieldType::Money, json!("9999999999.99"), Some(Cell::Money(999_999_999_999))),
            (FieldType::Money, json!("-12.5"), Some(Cell::Money(-1_250))),
            (FieldType::Money, json!("12"), Some(Cell::Money(1_200))),
            (FieldType::Money, json!("12."), None),
            (FieldType::Money, json!("1.005"), None),
            (FieldType::Money, json!("1e3"), None),
            (FieldType::Money, json!(""), None),
            (FieldType::Boolean, json!("true"), None),
            (FieldType::Json, json!({"a": [1]}), Some(Cell::Text(r#"{"a":[1]}"#.into()))),
            (FieldType::StringList, json!(["a", 1]), None),
            (FieldType::JsonList, json!(["a", 1]), Some(Cell::List(vec!["\"a\"".into(), "1".into()]))),
        ];
        for (kind, value, cell) in cases {
            assert_eq!(kind.cell(&value), cell, "{kind} {value}");
        }
    }

    #[test]
    fn times_keep_their_instant_and_dates_begin_at_midnight() {
        assert_eq!(parse_timestamp("1970-01-01T01:00:00.5+01:00"), Some(500_000));
        assert_eq!(parse_timestamp("2026-11-02").map(format_timestamp).as_deref(), Some("2026-11-02T00:00:00Z"));
        for bad in ["yesterday", "2026-13-01", "2026-1-2", "0001-01-01T00:00:00Z", "2200-01-01T00:00:00Z", ""] {
            assert_eq!(parse_timestamp(bad), None, "{bad}");
        }
    }
}
