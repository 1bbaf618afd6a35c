//! A KPI as a SQL file: a header that says what it is, and a query that computes it.
//!
//! The header is lines of `-- key: value`. The query returns one row per `bucket` and one column per declared value.
//! `bucket(time)` is the start of the bucket a time lies in; `$from` and `$to` bound the buckets asked for, half-open.

use serde::Serialize;

/// The KPIs compiled into the program.
const EMBEDDED: [(&str, &str); 4] = [
    ("sales_volume", include_str!("../kpis/sales_volume.sql")),
    ("offer_volume", include_str!("../kpis/offer_volume.sql")),
    ("production_rate", include_str!("../kpis/production_rate.sql")),
    ("customer_satisfaction", include_str!("../kpis/customer_satisfaction.sql")),
];

/// One figure of a KPI.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KpiValue {
    pub name: String,
    pub unit: String,
    pub meaning: String,
}

/// Events a KPI is computed from, and how a new one tells which buckets it touches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KpiInput {
    pub context: String,
    /// The event's view.
    pub view: String,
    pub touches: Touches,
}

/// Which buckets a new event touches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Touches {
    /// The one its time lies in: this column's, or the event's own where it is null or none is named.
    TimeOf(Option<String>),
    /// Those of another input's events that share this column's value.
    EventsOf { context: String, view: String, key: String },
}

/// A KPI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KpiDefinition {
    pub name: String,
    pub title: String,
    /// What is counted, in words.
    pub definition: String,
    pub inputs: Vec<KpiInput>,
    pub values: Vec<KpiValue>,
    pub sql: String,
}

/// A KPI file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{file}, line {line}: {problem}")]
pub struct KpiFileError {
    pub file: String,
    /// From 1.
    pub line: usize,
    pub problem: &'static str,
}

impl KpiDefinition {
    /// The KPIs compiled into the program.
    ///
    /// # Errors
    /// When an embedded file is not valid; a test keeps this from happening.
    pub fn embedded() -> Result<Vec<Self>, KpiFileError> {
        EMBEDDED.iter().map(|(name, text)| Self::parse(name, text)).collect()
    }

    /// Read a KPI file.
    ///
    /// # Errors
    /// With the line and what is wrong in it.
    pub fn parse(name: &str, text: &str) -> Result<Self, KpiFileError> {
        let mut kpi = Self {
            name: name.to_owned(),
            title: String::new(),
            definition: String::new(),
            inputs: Vec::new(),
            values: Vec::new(),
            sql: text.to_owned(),
        };
        let failed = |line: usize, problem| KpiFileError { file: format!("{name}.sql"), line, problem };
        for (number, line) in (1..).zip(text.lines()) {
            let Some(entry) = line.strip_prefix("-- ") else { break };
            let (key, value) =
                entry.split_once(": ").ok_or_else(|| failed(number, "a header line is `-- key: value`"))?;
            match key {
                "title" => kpi.title = value.to_owned(),
                "definition" => kpi.definition = value.to_owned(),
                "grain" if value == "hour" => {}
                "grain" => return Err(failed(number, "the only smallest grain is hour")),
                "input" => kpi.inputs.push(parse_input(value).ok_or_else(|| {
                    failed(number, "an input is `context.view`, `… at column` or `… joins context.view on column`")
                })?),
                "value" => kpi
                    .values
                    .push(parse_value(value).ok_or_else(|| failed(number, "a value is `name unit; meaning`"))?),
                _ => return Err(failed(number, "the keys are title, definition, grain, input and value")),
            }
        }
        let incomplete =
            kpi.title.is_empty() || kpi.definition.is_empty() || kpi.inputs.is_empty() || kpi.values.is_empty();
        if incomplete { Err(failed(1, "the header needs title, definition, input and value")) } else { Ok(kpi) }
    }
}

fn parse_input(text: &str) -> Option<KpiInput> {
    let words: Vec<&str> = text.split(' ').collect();
    let view = |name: &str| name.split_once('.').map(|(context, view)| (context.to_owned(), view.to_owned()));
    let touches = match words.as_slice() {
        [_] => Touches::TimeOf(None),
        [_, "at", column] => Touches::TimeOf(Some((*column).to_owned())),
        [_, "joins", other, "on", key] => {
            let (context, view) = view(other)?;
            Touches::EventsOf { context, view, key: (*key).to_owned() }
        }
        _ => return None,
    };
    let (context, view) = view(words.first()?)?;
    Some(KpiInput { context, view, touches })
}

fn parse_value(text: &str) -> Option<KpiValue> {
    let (head, meaning) = text.split_once("; ")?;
    let (name, unit) = head.split_once(' ')?;
    Some(KpiValue { name: name.to_owned(), unit: unit.to_owned(), meaning: meaning.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::KpiDefinition;

    #[test]
    fn the_embedded_kpis_are_valid_and_named_after_their_files() {
        let names: Vec<_> = KpiDefinition::embedded().unwrap().into_iter().map(|kpi| kpi.name).collect();
        assert_eq!(names, ["sales_volume", "offer_volume", "production_rate", "customer_satisfaction"]);
    }

    #[test]
    fn a_bad_header_is_refused_with_its_line() {
        let head = "-- title: T\n-- definition: D\n";
        for (text, message) in [
            ("SELECT 1", "k.sql, line 1: the header needs title, definition, input and value"),
            ("-- title: T\n-- nothing", "k.sql, line 2: a header line is `-- key: value`"),
            (
                &format!("{head}-- input: sold"),
                "k.sql, line 3: an input is `context.view`, `… at column` or `… joins context.view on column`",
            ),
            (&format!("{head}-- value: units"), "k.sql, line 3: a value is `name unit; meaning`"),
            (&format!("{head}-- grain: second"), "k.sql, line 3: the only smallest grain is hour"),
        ] {
            assert_eq!(KpiDefinition::parse("k", text).map_err(|e| e.to_string()), Err(message.to_owned()));
        }
    }
}
