//! A running server against the ledger that `forecourt simulate --truth` wrote.
//!
//! The server must hold that history and no other.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::BufReader,
    path::Path,
};

use anyhow::{Context, ensure};
use reqwest::Client;
use serde_json::{Map, Value, json};

use super::check::Check;

/// Differences told; all are counted.
const TOLD: usize = 20;
const MICROS_PER_HOUR: f64 = 3_600_000_000.0;
/// Means are compared to this share: sums are exact, and a mean is one division away from them.
const MEAN: f64 = 1e-9;

impl Check {
    fn of(name: &str, claim: &str) -> Self {
        Self { name: name.to_owned(), claim: claim.to_owned(), checked: 0, different: 0, differences: Vec::new() }
    }

    fn same(&mut self, what: &str, ours: &Value, theirs: &Value) {
        self.checked += 1;
        if !alike(ours, theirs) {
            self.different += 1;
            if self.differences.len() < TOLD {
                self.differences.push(format!("{what} is {ours} and happened as {theirs}"));
            }
        }
    }
}

fn alike(ours: &Value, theirs: &Value) -> bool {
    match (ours.as_f64(), theirs.as_f64()) {
        (Some(ours), Some(theirs)) => (ours - theirs).abs() <= MEAN * theirs.abs(),
        _ => ours == theirs,
    }
}

struct Server<'a> {
    client: &'a Client,
    to: &'a str,
    position: u64,
}

pub(super) fn read(path: &Path) -> anyhow::Result<Value> {
    let failed = || format!("cannot read {}", path.display());
    let file = BufReader::new(File::open(path).with_context(failed)?);
    serde_json::from_reader(file).with_context(failed)
}

pub(super) async fn checks(client: &Client, to: &str, truth: &Value, position: u64) -> anyhow::Result<Vec<Check>> {
    let server = Server { client, to, position };
    Ok(vec![server.events(truth).await?, server.listings(truth).await?, server.kpis(truth).await?])
}

impl Server<'_> {
    async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let url = format!("{}{path}", self.to);
        let query = [("min_position", self.position), ("wait_ms", 60_000)];
        let answer = self.client.get(&url).query(&query).send().await?;
        let (status, body) = (answer.status(), answer.json::<Value>().await?);
        ensure!(status.is_success() || status == 404, "{url} answered {status}: {}", body["detail"]);
        Ok(body)
    }

    async fn events(&self, truth: &Value) -> anyhow::Result<Check> {
        let mut check = Check::of("truth: events", "every event that happened is in the lake, by type");
        let query = json!({"query": "SELECT event_type, count(*) FROM lake.events GROUP BY 1", "limit": 100_000});
        let url = format!("{}/v1/sql?wait_ms=60000&min_position={}", self.to, self.position);
        let answer: Value = self.client.post(url).json(&query).send().await?.json().await?;
        let rows = answer["rows"].as_array().context("the server's answer has no rows")?;
        let ours: BTreeMap<&str, u64> =
            rows.iter().filter_map(|row| Some((row[0].as_str()?, row[1].as_u64()?))).collect();
        // Contexts share names.
        let mut theirs: BTreeMap<&str, u64> = BTreeMap::new();
        for (name, count) in truth["counts"].as_object().into_iter().flatten() {
            let bare = name.split_once('.').map_or(name.as_str(), |(_, name)| name);
            *theirs.entry(bare).or_default() += count.as_u64().unwrap_or_default();
        }
        for name in ours.keys().chain(theirs.keys()).collect::<BTreeSet<_>>() {
            let count = |counts: &BTreeMap<&str, u64>| json!(counts.get(*name).copied().unwrap_or_default());
            check.same(&format!("the number of {name}"), &count(&ours), &count(&theirs));
        }
        Ok(check)
    }

    async fn listings(&self, truth: &Value) -> anyhow::Result<Check> {
        let mut check = Check::of("truth: listings", "every listing ends as it did");
        for (id, told) in truth["listings"].as_object().into_iter().flatten() {
            let listing = self.get(&format!("/v1/listings/{id}")).await?;
            for field in ["make", "model", "trim", "year", "mileage", "city", "price"] {
                // What was never shown to the public is not for it.
                if told["status"] != "created" {
                    check.same(&format!("{field} of {id}"), &listing[field], &told[field]);
                }
            }
            check.same(
                &format!("whether {id} was sold"),
                &json!(listing["sold"] == true),
                &json!(told["status"] == "sold"),
            );
        }
        Ok(check)
    }

    async fn kpis(&self, truth: &Value) -> anyhow::Result<Check> {
        let mut check = Check::of("truth: kpis", "every day of every KPI is what happened on it");
        for (kpi, days) in truth["kpis"].as_object().into_iter().flatten() {
            let answer = self.get(&format!("/v1/kpis/{kpi}?grain=day&from=1970-01-02&to=2199-01-01")).await?;
            let rows = answer["rows"].as_array().context("the server's answer has no rows")?;
            let ours: BTreeMap<&str, &Value> =
                rows.iter().filter_map(|row| Some((row["bucket"].as_str()?.get(..10)?, &row["values"]))).collect();
            let days: BTreeMap<&str, Map<String, Value>> =
                days.as_object().into_iter().flatten().map(|(day, told)| (day.as_str(), values(kpi, told))).collect();
            for (day, values) in &ours {
                let happens =
                    values.as_object().is_some_and(|values| values.values().any(|value| value.as_f64() > Some(0.0)));
                if happens && !days.contains_key(day) {
                    check.same(&format!("{kpi} on {day}"), values, &Value::Null);
                }
            }
            for (day, values) in days {
                for (name, theirs) in values {
                    let ours = ours.get(day).map_or(&Value::Null, |row| &row[&name]);
                    check.same(&format!("{kpi}.{name} on {day}"), ours, &theirs);
                }
            }
        }
        Ok(check)
    }
}

/// A day's values as the KPI names them, from the sums that the ledger keeps.
fn values(kpi: &str, told: &Value) -> Map<String, Value> {
    let sum = |name: &str| told[name].as_f64().unwrap_or_default();
    let mean = |part: f64, of: &str| if sum(of) > 0.0 { json!(part / sum(of)) } else { Value::Null };
    let mut values = told.as_object().cloned().unwrap_or_default();
    let means = match kpi {
        "sales_volume" => vec![("average_price", mean(sum("revenue"), "units_sold"))],
        "offer_volume" => vec![("average_offer", mean(sum("offered"), "offers_generated"))],
        "production_rate" => {
            let hours = sum("in_production") / MICROS_PER_HOUR;
            vec![("average_hours_per_vehicle", mean(hours, "vehicles_completed"))]
        }
        "customer_satisfaction" => vec![
            ("nps", mean(100.0 * (sum("promoters") - sum("detractors")), "nps_answers")),
            ("csat", mean(sum("satisfied"), "ratings")),
            ("review_score", mean(sum("stars"), "reviews")),
        ],
        _ => Vec::new(),
    };
    for sums_only in ["offered", "in_production", "satisfied", "stars"] {
        values.remove(sums_only);
    }
    values.extend(means.into_iter().map(|(name, value)| (name.to_owned(), value)));
    values
}
