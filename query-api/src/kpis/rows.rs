//! The rows of an answer: buckets filled, levels added up, compared, and measured against their targets.

use std::collections::{BTreeMap, BTreeSet};

use processors::{
    KpiDefinition,
    calendar::{Ago, Calendar, Grain},
    kpi_definition::{Better, KpiValue, Measures},
    kpis::{RowKey, Series, Totals},
};
use serde_json::{Map, Value, json};

use super::question::{Compare, Question};
use crate::problem::Problem;

/// Rows of an answer at most.
const MOST_ROWS: usize = 200_000;
const MICROS_PER_DAY: f64 = 86_400_000_000.0;

type Values = Map<String, Value>;
type Dimensions = Vec<Option<String>>;

/// A KPI's rows as they are asked for, and what is beside them.
pub(crate) struct Rows<'a> {
    kpi: &'a KpiDefinition,
    question: &'a Question,
    series: &'a Series,
    /// What there was at the end of each bucket, for what is a level.
    levels: BTreeMap<Dimensions, BTreeMap<i64, Values>>,
    /// The buckets, in order; what compares looks before them.
    buckets: Vec<i64>,
    /// How many buckets the period before has: as many as this one, or one, when no period is asked for.
    period: i64,
    /// The end of the last.
    pub(crate) end: i64,
    groups: Vec<Dimensions>,
    /// The days that have lost events, in UTC, and whether what was said of them is kept.
    frozen: Option<(&'a BTreeSet<i64>, bool)>,
    /// The latest event time.
    latest: Option<i64>,
}

impl<'a> Rows<'a> {
    /// # Errors
    /// When there would be too many.
    pub(crate) fn of(
        kpi: &'a KpiDefinition,
        question: &'a Question,
        latest: Option<i64>,
        series: &'a Series,
        top: Option<&Totals>,
        frozen: Option<(&'a BTreeSet<i64>, bool)>,
    ) -> Result<Self, Problem> {
        let calendar = question.key.calendar;
        let level = kpi.measures == Measures::Level;
        let now = latest.and_then(|time| calendar.start(time));
        let to = question.to.unwrap_or(i64::MAX);
        // A level reaches on from before, and to now.
        let begin = if level { i64::MIN } else { question.from.unwrap_or(i64::MIN) };
        let present: BTreeSet<i64> =
            series.range(RowKey::first_of(begin)..).map(|(key, _)| key.bucket).filter(|start| *start < to).collect();
        let first = question.from.or(present.first().copied());
        let mut last = present.last().copied();
        if level || question.to.is_some() {
            // What is asked for and lies before now is known: nothing happened in it.
            last = last.max(now.filter(|now| first.is_some_and(|first| first <= *now)));
        }
        if question.key.window > 1 {
            // A window that ends after now is not over.
            last = last.min(now);
        }
        // What is filled lies between the ends; one fact far away in time does not make a desert of it.
        let all = calendar_between(calendar, first, last, to);
        let bounded = question.from.is_some() || level;
        let buckets = match all {
            Some(all) if question.fill || level => all,
            None if bounded => return Err(too_many()),
            _ => present.iter().copied().filter(|start| Some(*start) <= last).collect(),
        };
        let period =
            question.from.zip(question.to).and_then(|(from, _)| calendar_between(calendar, Some(from), last, to));
        let period = period.map_or(1, |buckets| i64::try_from(buckets.len()).unwrap_or(i64::MAX).max(1));
        let within = |start: i64| level || question.from.is_none_or(|from| start >= from);
        let groups: BTreeSet<&Dimensions> =
            series.keys().filter(|key| within(key.bucket) && key.bucket < to).map(|key| &key.dimensions).collect();
        let mut groups: Vec<Dimensions> = groups.into_iter().cloned().collect();
        if question.key.by.is_empty() && !buckets.is_empty() {
            groups = vec![Vec::new()];
        }
        if let (Some(top), Some(totals)) = (question.top, top) {
            groups = topmost(kpi, totals, groups, top);
        }
        if buckets.len().saturating_mul(groups.len()) > MOST_ROWS {
            return Err(too_many());
        }
        let levels = if level { levels(kpi, series) } else { BTreeMap::new() };
        let end = buckets.last().and_then(|last| calendar.offset(*last, 1)).unwrap_or(i64::MIN);
        Ok(Self { kpi, question, series, levels, buckets, period, end, groups, frozen, latest })
    }

    /// The start of the first bucket.
    pub(crate) fn first(&self) -> Option<i64> {
        self.buckets.first().copied()
    }

    /// The values of a bucket; those of a gap, when nothing was counted in it. None before the first that was.
    fn values(&self, bucket: i64, group: &Dimensions) -> Option<Values> {
        if self.kpi.measures == Measures::Level {
            let level = self.levels.get(group).and_then(|levels| levels.range(..=bucket).next_back());
            return level.map(|(_, values)| values.clone());
        }
        let key = RowKey { bucket, dimensions: group.clone() };
        match self.series.get(&key) {
            Some(row) => Some(row.values.clone()),
            None => (self.series.first_key_value()?.0.bucket <= bucket).then(|| self.gap()),
        }
    }

    fn gap(&self) -> Values {
        let value = |value: &KpiValue| match (value.is_zero_in_a_gap(), value.is_whole()) {
            (true, true) => json!(0),
            (true, false) => json!(0.0),
            (false, _) => Value::Null,
        };
        self.kpi.values.iter().map(|it| (it.name.clone(), value(it))).collect()
    }

    /// Every row, in order.
    pub(crate) fn rows(&self) -> Vec<Value> {
        let mut sums: BTreeMap<&Dimensions, Values> = BTreeMap::new();
        let mut rows = Vec::with_capacity(self.buckets.len() * self.groups.len());
        for &bucket in &self.buckets {
            for group in &self.groups {
                if !self.is_told(bucket, group) {
                    continue;
                }
                let mut values = self.values(bucket, group).unwrap_or_else(|| self.gap());
                if self.question.cumulative {
                    values = self.added(sums.entry(group).or_default(), &values);
                }
                let mut row = json!({
                    "bucket": self.calendar().format(bucket),
                    "dimensions": self.named(group),
                    "values": values,
                });
                if let Some(state) = self.kept(bucket) {
                    row[state] = json!(true);
                }
                let targets = self.targets(bucket, row["values"].as_object());
                if !targets.is_empty() && !self.question.cumulative {
                    row["targets"] = Value::Object(targets);
                }
                rows.push(row);
            }
        }
        rows
    }

    /// Whether a bucket that has lost events is as it was before (`frozen`), or tells only what is left (`incomplete`).
    fn kept(&self, bucket: i64) -> Option<&'static str> {
        let (days, is_kept) = self.frozen?;
        let end = self.calendar().offset(bucket, 1)?;
        // A window reaches back, and a level to the beginning, unless what came and went is kept.
        let start = if self.kpi.measures == Measures::Level && !is_kept {
            i64::MIN
        } else {
            self.calendar().offset(bucket, 1 - i64::from(self.question.key.window))?
        };
        // A day of UTC that begins before may reach into it.
        days.range(start.saturating_sub(schemas::time::MICROS_PER_DAY).saturating_add(1)..end).next()?;
        match (is_kept, Some(end) <= self.latest) {
            (true, true) => Some("frozen"),
            // One that is not over goes on growing, by its days.
            (true, false) => None,
            (false, _) => Some("incomplete"),
        }
    }

    /// Whether there is a row: gaps are told unless they are not wanted.
    fn is_told(&self, bucket: i64, group: &Dimensions) -> bool {
        self.question.fill
            || self.kpi.measures == Measures::Level
            || self.series.contains_key(&RowKey { bucket, dimensions: group.clone() })
    }

    const fn calendar(&self) -> Calendar {
        self.question.key.calendar
    }

    fn named(&self, group: &Dimensions) -> Map<String, Value> {
        self.question.key.by.iter().cloned().zip(group.iter().map(|value| json!(value))).collect()
    }

    /// The sum of what is additive so far; what is not has none.
    fn added(&self, sums: &mut Values, values: &Values) -> Values {
        for value in &self.kpi.values {
            let so_far = sums.entry(value.name.clone()).or_insert(Value::Null);
            if value.additive {
                *so_far = sum(so_far, &values[&value.name]);
            }
        }
        sums.clone()
    }

    /// What each value should be, and whether it is.
    fn targets(&self, bucket: i64, values: Option<&Values>) -> Map<String, Value> {
        let days = || {
            let end = self.calendar().offset(bucket, 1).unwrap_or(bucket);
            as_float(end - bucket) / MICROS_PER_DAY
        };
        let target = |value: &KpiValue| {
            let target = value.target?;
            let window = f64::from(self.question.key.window);
            let wanted = if target.a_day { target.value * days() * window } else { target.value };
            let is = values?.get(&value.name)?.as_f64();
            let met = is.map(|is| if self.kpi.better == Better::Down { is <= wanted } else { is >= wanted });
            Some((value.name.clone(), json!({"target": rounded(wanted), "met": met})))
        };
        self.kpi.values.iter().filter_map(target).collect()
    }

    /// The bucket that one is compared with.
    fn before(&self, compare: Compare, bucket: i64) -> Option<i64> {
        let calendar = self.calendar();
        match compare {
            Compare::Previous => calendar.offset(bucket, -self.period),
            // Fifty-two weeks ago is the same week.
            Compare::Ago(_, Ago::Months(12)) if calendar.grain == Grain::Week => calendar.offset(bucket, -52),
            Compare::Ago(_, ago) => calendar.ago(bucket, ago),
        }
    }

    /// The range that a comparison is with, as times.
    pub(crate) fn range_before(&self, compare: Compare) -> Option<(i64, i64)> {
        let (first, last) = (self.first()?, *self.buckets.last()?);
        let end = self.calendar().offset(self.before(compare, last)?, 1)?;
        Some((self.before(compare, first)?, end))
    }

    /// Each row beside the one it is compared with.
    pub(crate) fn compared(&self, compare: Compare) -> Vec<Value> {
        let mut rows = Vec::new();
        for &bucket in &self.buckets {
            for group in &self.groups {
                if !self.is_told(bucket, group) {
                    continue;
                }
                let Some(before) = self.before(compare, bucket) else { continue };
                let values = self.values(before, group).unwrap_or_else(|| self.nothing());
                let now = self.values(bucket, group).unwrap_or_else(|| self.gap());
                let (difference, percent) = self.difference(&now, &values);
                rows.push(json!({
                    "bucket": self.calendar().format(bucket),
                    "compared_bucket": self.calendar().format(before),
                    "dimensions": self.named(group),
                    "values": values,
                    "difference": difference,
                    "percent": percent,
                }));
            }
        }
        rows
    }

    fn nothing(&self) -> Values {
        self.kpi.values.iter().map(|value| (value.name.clone(), Value::Null)).collect()
    }

    /// How much more it is now, and in percent of what it was.
    pub(crate) fn difference(&self, now: &Values, before: &Values) -> (Values, Values) {
        let of = |name: &str, values: &Values| values.get(name).and_then(Value::as_f64);
        let (mut difference, mut percent) = (Values::new(), Values::new());
        for value in &self.kpi.values {
            let pair = of(&value.name, now).zip(of(&value.name, before));
            let change = pair.map(|(now, before)| now - before);
            let whole = value.is_whole();
            #[expect(clippy::cast_possible_truncation, reason = "counts are far below 2^53")]
            let told = change.map(|change| if whole { json!(change as i64) } else { rounded(change) });
            difference.insert(value.name.clone(), told.unwrap_or_default());
            let share =
                pair.filter(|(_, before)| *before != 0.0).map(|(now, before)| (now - before) / before.abs() * 100.0);
            percent.insert(value.name.clone(), share.map(rounded).unwrap_or_default());
        }
        (difference, percent)
    }

    /// What a level is at the end, by group and for all.
    pub(crate) fn level_totals(&self) -> Totals {
        let Some(&last) = self.buckets.last() else { return Totals::new() };
        let groups = self.levels.keys();
        groups.filter_map(|group| Some((group.clone(), self.values(last, group)?))).collect()
    }
}

/// The buckets from the first to the last, before an end; none, when they are too many.
fn calendar_between(calendar: Calendar, first: Option<i64>, last: Option<i64>, to: i64) -> Option<Vec<i64>> {
    let mut buckets = Vec::new();
    let mut next = first;
    while let Some(start) = next.filter(|start| *start < to && Some(*start) <= last) {
        if buckets.len() >= MOST_ROWS {
            return None;
        }
        buckets.push(start);
        next = calendar.offset(start, 1);
    }
    Some(buckets)
}

/// The sum of what groups have; none, when there is no group.
pub(crate) fn sum_of<'a>(kpi: &KpiDefinition, groups: impl Iterator<Item = &'a Values>) -> Option<Values> {
    groups.cloned().reduce(|sums, values| {
        kpi.values.iter().map(|value| (value.name.clone(), sum(&sums[&value.name], &values[&value.name]))).collect()
    })
}

fn too_many() -> Problem {
    Problem::parameter(
        "from",
        format!("the answer would have more than {MOST_ROWS} rows; narrow it with from, to, top or a wider grain"),
    )
}

/// The groups with the most of the first value that is known.
fn topmost(kpi: &KpiDefinition, totals: &Totals, groups: Vec<Dimensions>, top: usize) -> Vec<Dimensions> {
    // What is no sum is not known where days have lost events.
    let is_known = |value: &&KpiValue| totals.values().any(|values| !values[&value.name].is_null());
    let Some(first) = kpi.values.iter().find(is_known).or(kpi.values.first()) else { return groups };
    let amount =
        |group: &Dimensions| totals.get(group).and_then(|values| values[&first.name].as_f64()).unwrap_or(f64::MIN);
    let mut ranked = groups;
    ranked.sort_by(|a, b| amount(b).total_cmp(&amount(a)).then_with(|| a.cmp(b)));
    ranked.truncate(top);
    ranked
}

/// What there is at the end of each bucket in which something came or went.
fn levels(kpi: &KpiDefinition, series: &Series) -> BTreeMap<Dimensions, BTreeMap<i64, Values>> {
    let mut levels: BTreeMap<Dimensions, BTreeMap<i64, Values>> = BTreeMap::new();
    for (key, row) in series {
        let of_group = levels.entry(key.dimensions.clone()).or_default();
        let before = of_group.last_key_value().map(|(_, values)| values.clone()).unwrap_or_default();
        let added = kpi.values.iter().map(|value| {
            let before = before.get(&value.name).unwrap_or(&Value::Null);
            (value.name.clone(), sum(before, &row.values[&value.name]))
        });
        let added = added.collect();
        of_group.insert(key.bucket, added);
    }
    levels
}

fn sum(left: &Value, right: &Value) -> Value {
    match (left.as_i64(), right.as_i64()) {
        (Some(left), Some(right)) => json!(left + right),
        _ if left.is_null() => right.clone(),
        _ if right.is_null() => left.clone(),
        // Money has cents: a sum of many stays exact in them.
        _ => rounded(left.as_f64().unwrap_or_default() + right.as_f64().unwrap_or_default()),
    }
}

/// To a millionth: differences of floats end in noise.
fn rounded(value: f64) -> Value {
    json!((value * 1e6).round() / 1e6)
}

#[expect(clippy::cast_precision_loss, reason = "the length of a bucket")]
fn as_float(micros: i64) -> f64 {
    micros as f64
}
