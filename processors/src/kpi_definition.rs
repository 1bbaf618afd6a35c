//! A KPI as a SQL file: a header that says what it is, and a query of the facts it counts.
//!
//! The header is lines of `-- key: value`. The query returns a row per fact: when it counts (`at`), the columns that
//! values are computed from, and dimensions. Each value is an aggregate over these rows; the engine groups them by bucket
//! and by whatever dimensions are asked for, so one definition answers every grain, filter, window and total.

mod error;
mod folder;
mod settings;

use std::{collections::BTreeSet, fmt::Write};

use serde::Serialize;
use serde_json::{Value, json};

pub use error::{KpiFileError, KpiFolderError};
use settings::is_name;
pub use settings::{KpiNumber, Setting};

use crate::calendar::Grain;

/// The KPIs compiled into the program.
const EMBEDDED: [(&str, &str); 26] = [
    ("sales_volume", include_str!("../kpis/sales_volume.sql")),
    ("offer_volume", include_str!("../kpis/offer_volume.sql")),
    ("production_rate", include_str!("../kpis/production_rate.sql")),
    ("customer_satisfaction", include_str!("../kpis/customer_satisfaction.sql")),
    ("inventory", include_str!("../kpis/inventory.sql")),
    ("market_share", include_str!("../kpis/market_share.sql")),
    ("days_to_sell", include_str!("../kpis/days_to_sell.sql")),
    ("gross_margin", include_str!("../kpis/gross_margin.sql")),
    ("inventory_turnover", include_str!("../kpis/inventory_turnover.sql")),
    ("funnel", include_str!("../kpis/funnel.sql")),
    ("return_rate", include_str!("../kpis/return_rate.sql")),
    ("delivery_performance", include_str!("../kpis/delivery_performance.sql")),
    ("reconditioning", include_str!("../kpis/reconditioning.sql")),
    ("acquisition", include_str!("../kpis/acquisition.sql")),
    ("pricing", include_str!("../kpis/pricing.sql")),
    ("financing", include_str!("../kpis/financing.sql")),
    ("trade_in", include_str!("../kpis/trade_in.sql")),
    ("warranty_claims", include_str!("../kpis/warranty_claims.sql")),
    ("support", include_str!("../kpis/support.sql")),
    ("marketing", include_str!("../kpis/marketing.sql")),
    ("search_activity", include_str!("../kpis/search_activity.sql")),
    ("accounts", include_str!("../kpis/accounts.sql")),
    ("dealer_performance", include_str!("../kpis/dealer_performance.sql")),
    ("shop_orders", include_str!("../kpis/shop_orders.sql")),
    ("loyalty", include_str!("../kpis/loyalty.sql")),
    ("courses", include_str!("../kpis/courses.sql")),
];

/// Where attributes of what facts are about are looked up.
pub(crate) struct Lookup {
    pub(crate) name: &'static str,
    /// The column it is looked up by.
    pub(crate) key: &'static str,
    pub(crate) sql: &'static str,
    /// The events it is made of: context, view, the column whose values they are about, and the keys these mean.
    pub(crate) inputs: &'static [(&'static str, &'static str, &'static str, &'static str)],
}

/// In what a lookup's event means, the values of its column.
pub(crate) const IDS: &str = "{ids}";

pub(crate) const LOOKUPS: [Lookup; 2] = [
    Lookup {
        name: "listings",
        key: "listing_id",
        sql: include_str!("../kpis/lookups/listings.sql"),
        inputs: &[
            ("inventory", "vehicle_listing_created", "listing_id", "{ids}"),
            (
                "acquisition",
                "vehicle_details_submitted",
                "vehicle_id",
                "SELECT listing_id FROM inventory.vehicle_listing_created WHERE vehicle_id IN ({ids})",
            ),
        ],
    },
    Lookup {
        name: "vehicles",
        key: "vehicle_id",
        sql: include_str!("../kpis/lookups/vehicles.sql"),
        inputs: &[
            ("acquisition", "vehicle_details_submitted", "vehicle_id", "{ids}"),
            ("inventory", "vehicle_listing_created", "vehicle_id", "{ids}"),
        ],
    },
];

/// One figure of a KPI.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KpiValue {
    pub name: String,
    pub unit: String,
    pub meaning: String,
    /// Whether the sum over buckets or dimensions is the value of all of them.
    pub additive: bool,
    /// What it should be, if somebody said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// The aggregate over the facts' rows.
    #[serde(skip)]
    pub expression: String,
    /// Where it is in its file, from 1.
    #[serde(skip)]
    pub(crate) line: usize,
}

impl KpiValue {
    /// What a bucket without facts has: nothing was counted, so that is 0; a mean of nothing is nothing.
    #[must_use]
    pub fn is_zero_in_a_gap(&self) -> bool {
        let text = self.expression.to_lowercase();
        let calls = text.match_indices('(').filter_map(|(at, _)| {
            let head = text[..at].trim_end();
            let start =
                head.rfind(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').map_or(0, |at| at + 1);
            Some(&head[start..]).filter(|name| !name.is_empty())
        });
        let counts =
            ["sum", "count", "coalesce", "cast", "where", "filter", "and", "or", "in", "when", "then", "distinct"];
        // Nor are settings and lengths of buckets counted.
        !text.contains(['/', '{']) && calls.into_iter().all(|name| counts.contains(&name))
    }

    /// Whether it counts things.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        ["integer", "points"].contains(&self.unit.as_str())
    }

    fn sql(&self, settings: &[Setting], years: &str) -> String {
        let expression = settings::put(&self.expression, settings, years);
        let kind = if self.is_whole() { "BIGINT" } else { "DOUBLE" };
        let zero = if self.is_zero_in_a_gap() { ", 0" } else { "" };
        format!("coalesce(CAST({expression} AS {kind}){zero}) AS \"{}\"", self.name)
    }
}

/// What a value should be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Target {
    pub value: f64,
    /// Whether it is of a day, and of a bucket as many times as it has days.
    pub a_day: bool,
}

impl Eq for Target {}

/// By what a KPI may be grouped and filtered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Dimension {
    pub name: String,
    pub meaning: String,
    /// Where it is looked up, by which column of the facts; none, when the facts have it.
    #[serde(skip)]
    pub lookup: Option<(String, String)>,
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
    /// Those of the facts that share this column's value; of these, when `after` is true, only those at the event's time
    /// or later.
    FactsBy { key: String, after: bool },
}

/// Which way a KPI is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    Up,
    Down,
    Neither,
}

/// What a bucket's values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Measures {
    /// What happened in it.
    Flow,
    /// What there is at its end: everything that came and went until then.
    Level,
}

/// What facts are grouped by, in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BucketBy {
    Time,
    Rolling,
    Nothing,
}

/// A KPI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KpiDefinition {
    pub name: String,
    pub title: String,
    /// What is counted, in words.
    pub definition: String,
    pub owner: Option<String>,
    pub better: Better,
    pub measures: Measures,
    pub inputs: Vec<KpiInput>,
    pub dimensions: Vec<Dimension>,
    pub settings: Vec<Setting>,
    pub values: Vec<KpiValue>,
    /// The value that says most; the first, unless the header says which.
    pub headline: Option<String>,
    /// The query of the facts.
    pub sql: String,
    /// Where it comes from: a file, or none for those that come with the program.
    pub file: Option<String>,
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
            owner: None,
            better: Better::Neither,
            measures: Measures::Flow,
            inputs: Vec::new(),
            dimensions: Vec::new(),
            settings: Vec::new(),
            values: Vec::new(),
            headline: None,
            // A trailing semicolon ends a statement, and ours goes on around it.
            sql: text.trim_end().trim_end_matches(';').to_owned(),
            file: None,
        };
        let failed = |line: usize, problem: &str| KpiFileError {
            file: format!("{name}.sql"),
            line,
            problem: problem.to_owned(),
        };
        for (number, line) in (1..).zip(text.lines()) {
            let Some(entry) = line.strip_prefix("-- ") else { break };
            let (key, value) =
                entry.split_once(": ").ok_or_else(|| failed(number, "a header line is `-- key: value`"))?;
            let said = match key {
                "title" => {
                    kpi.title = value.to_owned();
                    Some(())
                }
                "definition" => {
                    kpi.definition = value.to_owned();
                    Some(())
                }
                "owner" => {
                    kpi.owner = Some(value.to_owned());
                    Some(())
                }
                "better" => ["up", "down", "neither"].iter().position(|it| *it == value).map(|at| {
                    kpi.better = [Better::Up, Better::Down, Better::Neither][at];
                }),
                "measures" => ["flow", "level"].iter().position(|it| *it == value).map(|at| {
                    kpi.measures = [Measures::Flow, Measures::Level][at];
                }),
                "input" => parse_input(value).map(|input| kpi.inputs.push(input)),
                "dimension" => parse_dimension(value).map(|dimension| kpi.dimensions.push(dimension)),
                "setting" => Setting::parse(value).map(|setting| kpi.settings.push(setting)),
                "value" => parse_value(value).map(|value| kpi.values.push(KpiValue { line: number, ..value })),
                "headline" => {
                    let is_known = kpi.values.iter().any(|known| known.name == value);
                    is_known.then(|| kpi.headline = Some(value.to_owned()))
                }
                "target" => parse_target(value, &mut kpi.values),
                _ => {
                    let keys = "the keys are title, definition, owner, better, measures, input, dimension, setting, value, headline and target";
                    return Err(failed(number, keys));
                }
            };
            said.ok_or_else(|| failed(number, expected(key)))?;
        }
        let incomplete =
            kpi.title.is_empty() || kpi.definition.is_empty() || kpi.inputs.is_empty() || kpi.values.is_empty();
        if incomplete {
            return Err(failed(1, "the header needs title, definition, input and value"));
        }
        let values = kpi.values.iter().map(|value| value.name.as_str());
        let dimensions = kpi.dimensions.iter().map(|dimension| dimension.name.as_str());
        let settings = kpi.settings.iter().map(|setting| setting.name.as_str()).chain([settings::YEARS]);
        let mut names: Vec<&str> = values.chain(dimensions).chain(settings).collect();
        names.sort_unstable();
        if names.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(failed(1, "each value, dimension and setting has a name of its own, and none is years"));
        }
        Ok(kpi)
    }

    /// The value that says most.
    #[must_use]
    pub fn headline(&self) -> Option<&KpiValue> {
        let named = self.headline.as_ref().and_then(|name| self.values.iter().find(|value| value.name == *name));
        named.or(self.values.first())
    }

    /// What it is, for those who ask.
    #[must_use]
    pub fn description(&self) -> Value {
        json!({
            "name": self.name,
            "title": self.title,
            "definition": self.definition,
            "owner": self.owner,
            "better": self.better,
            "measures": self.measures,
            "additive": self.values.iter().all(|value| value.additive),
            "settings": self.settings,
            "values": self.values,
            "headline": self.headline().map(|value| &value.name),
            "grains": Grain::ALL,
            "dimensions": self.dimensions,
            "inputs": self.inputs.iter().map(|input| format!("{}.{}", input.context, input.view)).collect::<BTreeSet<_>>(),
        })
    }

    /// The dimension of this name.
    #[must_use]
    pub fn dimension(&self, name: &str) -> Option<&Dimension> {
        self.dimensions.iter().find(|dimension| dimension.name == name)
    }

    /// The facts between `$from` and `$to`, with the columns of these dimensions.
    #[must_use]
    pub fn facts(&self, dimensions: &[&str]) -> String {
        let mut facts = format!("(SELECT * FROM ({}\n) WHERE at >= $from AND at < $to) AS facts", self.sql);
        let (mut columns, mut joined) = (String::from("facts.*"), Vec::new());
        for dimension in dimensions.iter().filter_map(|name| self.dimension(name)) {
            let Some((table, key)) = &dimension.lookup else { continue };
            if !joined.contains(table) {
                let Some(lookup) = LOOKUPS.iter().find(|lookup| lookup.name == table) else { continue };
                let _ =
                    write!(facts, " LEFT JOIN ({}\n) AS {table} ON {table}.{} = facts.{key}", lookup.sql, lookup.key);
                joined.push(table.clone());
            }
            let _ = write!(columns, ", {table}.{} AS {}", dimension.name, dimension.name);
        }
        format!("SELECT {columns} FROM {facts}")
    }

    /// The lookups that these dimensions need.
    pub(crate) fn lookups<'a>(&'a self, names: impl Iterator<Item = &'a String>) -> Vec<&'a (String, String)> {
        names.filter_map(|name| self.dimension(name)?.lookup.as_ref()).collect()
    }

    /// The query of its values by bucket, and by these dimensions, where filters are met. A fact that counts in several
    /// buckets, as `buckets(at)` says, is `rolling`; without a bucket, all facts are one.
    #[must_use]
    pub(crate) fn query(&self, by: &[String], filters: &[(String, Vec<String>)], bucket: BucketBy) -> String {
        let mut dimensions: Vec<&str> =
            by.iter().chain(filters.iter().map(|(name, _)| name)).map(String::as_str).collect();
        dimensions.sort_unstable();
        dimensions.dedup();
        let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
        let conditions: Vec<String> = filters
            .iter()
            .map(|(name, values)| {
                let values: Vec<String> = values.iter().map(|value| quoted(value)).collect();
                format!("CAST({name} AS VARCHAR) IN ({})", values.join(", "))
            })
            .collect();
        let condition =
            if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
        let mut facts = self.facts(&dimensions);
        let (bucket, years) = match bucket {
            BucketBy::Time => (Some("bucket(at) AS bucket".to_owned()), "years(bucket(at))"),
            BucketBy::Rolling => {
                facts = format!("SELECT unnest(buckets(at)) AS rolling_bucket, * FROM ({facts})");
                (Some("rolling_bucket AS bucket".to_owned()), "years(rolling_bucket)")
            }
            BucketBy::Nothing => (None, "years($from, $to)"),
        };
        let groups: Vec<String> =
            bucket.into_iter().chain(by.iter().map(|name| format!("CAST({name} AS VARCHAR) AS {name}"))).collect();
        let values: Vec<String> = self.values.iter().map(|value| value.sql(&self.settings, years)).collect();
        let grouped: Vec<String> = (1..=groups.len()).map(|number| number.to_string()).collect();
        let by = if grouped.is_empty() { String::new() } else { format!(" GROUP BY {}", grouped.join(", ")) };
        let columns: Vec<String> = groups.into_iter().chain(values).collect();
        format!("SELECT {} FROM ({facts}){condition}{by}", columns.join(", "))
    }
}

/// What an entry of the header looks like.
fn expected(key: &str) -> &'static str {
    match key {
        "better" => "better is up, down or neither",
        "measures" => "measures is flow or level",
        "input" => "an input is `context.view`, `… at column`, `… by column` or `… by column after`",
        "dimension" => "a dimension is `name; meaning` or `name of listings by column; meaning`, or vehicles",
        "setting" => "a setting is `name unit; meaning`",
        "value" => "a value is `name unit = aggregate; meaning`",
        "headline" => "headline is the name of a value above it",
        _ => "a target is `value number` or `value number a day`, after the value",
    }
}

fn parse_input(text: &str) -> Option<KpiInput> {
    let words: Vec<&str> = text.split(' ').collect();
    let touches = match words.as_slice() {
        [_] => Touches::TimeOf(None),
        [_, "at", column] => Touches::TimeOf(Some((*column).to_owned())),
        [_, "by", key] => Touches::FactsBy { key: (*key).to_owned(), after: false },
        [_, "by", key, "after"] => Touches::FactsBy { key: (*key).to_owned(), after: true },
        _ => return None,
    };
    let (context, view) = words.first()?.split_once('.')?;
    Some(KpiInput { context: context.to_owned(), view: view.to_owned(), touches })
}

fn parse_dimension(text: &str) -> Option<Dimension> {
    let (head, meaning) = text.split_once("; ")?;
    let words: Vec<&str> = head.split(' ').collect();
    let lookup = match words.as_slice() {
        [_] => None,
        [_, "of", table, "by", key] if LOOKUPS.iter().any(|lookup| lookup.name == *table) && is_name(key) => {
            Some(((*table).to_owned(), (*key).to_owned()))
        }
        _ => return None,
    };
    let name = words.first().filter(|name| is_name(name))?;
    Some(Dimension { name: (*name).to_owned(), meaning: meaning.to_owned(), lookup })
}

fn parse_value(text: &str) -> Option<KpiValue> {
    let (head, meaning) = text.split_once("; ")?;
    let (named, expression) = head.split_once(" = ")?;
    let (name, unit) = named.split_once(' ').filter(|(name, _)| is_name(name))?;
    let mut value = KpiValue {
        name: name.to_owned(),
        unit: unit.to_owned(),
        meaning: meaning.to_owned(),
        additive: false,
        target: None,
        expression: expression.to_owned(),
        line: 0,
    };
    value.additive = value.is_zero_in_a_gap() && !expression.to_lowercase().contains("distinct");
    Some(value)
}

fn parse_target(text: &str, values: &mut [KpiValue]) -> Option<()> {
    let words: Vec<&str> = text.split(' ').collect();
    let (name, number, a_day) = match words.as_slice() {
        [name, number] => (name, number, false),
        [name, number, "a", "day"] => (name, number, true),
        _ => return None,
    };
    let value = values.iter_mut().find(|value| value.name == *name)?;
    value.target = Some(Target { value: number.parse().ok().filter(|it: &f64| it.is_finite())?, a_day });
    Some(())
}

#[cfg(test)]
mod tests {
    use super::KpiDefinition;

    #[test]
    fn the_embedded_kpis_are_valid_and_named_after_their_files() {
        let kpis = KpiDefinition::embedded().unwrap();
        let names: Vec<_> = kpis.iter().map(|kpi| kpi.name.as_str()).collect();
        assert_eq!(names[..4], ["sales_volume", "offer_volume", "production_rate", "customer_satisfaction"]);
        assert_eq!(kpis.len(), 26);
    }

    #[test]
    fn what_a_gap_has_follows_from_the_aggregate() {
        let text = "-- title: T\n-- definition: D\n-- input: a.b\n-- value: a integer = count(DISTINCT x); \
                    A\n-- value: b CAD = sum(y) FILTER (WHERE z IS NOT NULL) - sum(v); B\n-- value: c ratio = CAST(count(*) AS DOUBLE) / \
                    count(x); C\n-- value: d days = median(x); D";
        let kpi = KpiDefinition::parse("k", text).unwrap();
        let told: Vec<_> = kpi.values.iter().map(|value| (value.is_zero_in_a_gap(), value.additive)).collect();
        assert_eq!(told, [(true, false), (true, true), (false, false), (false, false)]);
    }

    #[test]
    fn a_bad_header_is_refused_with_its_line() {
        let head = "-- title: T\n-- definition: D\n";
        for (text, message) in [
            ("SELECT 1", "k.sql, line 1: the header needs title, definition, input and value"),
            ("-- title: T\n-- nothing", "k.sql, line 2: a header line is `-- key: value`"),
            (
                &format!("{head}-- input: sold"),
                "k.sql, line 3: an input is `context.view`, `… at column`, `… by column` or `… by column after`",
            ),
            (&format!("{head}-- value: units"), "k.sql, line 3: a value is `name unit = aggregate; meaning`"),
            (&format!("{head}-- better: more"), "k.sql, line 3: better is up, down or neither"),
            (
                &format!("{head}-- target: units 5"),
                "k.sql, line 3: a target is `value number` or `value number a day`, after the value",
            ),
            (
                &format!("{head}-- grain: second"),
                "k.sql, line 3: the keys are title, definition, owner, better, measures, input, dimension, setting, value, headline and target",
            ),
        ] {
            assert_eq!(KpiDefinition::parse("k", text).map_err(|e| e.to_string()), Err(message.to_owned()));
        }
    }
}
