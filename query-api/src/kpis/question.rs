//! What is asked of a KPI, from its parameters.

use std::hash::{DefaultHasher, Hash, Hasher};

use chrono_tz::Tz;
use processors::{
    KpiDefinition, SeriesKey,
    calendar::{Ago, Calendar, Grain, Weekday},
    kpi_definition::Measures,
    kpis::DAYS,
};

use crate::{parameters::Parameters, problem::Problem};

/// Parameters that change nothing about the answer.
const OF_THE_ASKING: [&str; 3] = ["min_position", "wait_ms", "lang"];
const MOST_DIMENSIONS: usize = 4;
const MOST_WINDOW: u32 = 1_000;
const FILTER: &str = "filter.";

/// With what a row is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compare {
    /// The period before of the same length; the bucket before, when no period is asked for.
    Previous,
    Ago(&'static str, Ago),
}

const AGO: [(&str, Ago); 4] = [
    ("week_ago", Ago::Days(7)),
    ("month_ago", Ago::Months(1)),
    ("quarter_ago", Ago::Months(3)),
    ("year_ago", Ago::Months(12)),
];

impl Compare {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Previous => "previous",
            Self::Ago(name, _) => name,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        if text == "previous" {
            return Some(Self::Previous);
        }
        AGO.into_iter().find(|(name, _)| *name == text).map(|(name, ago)| Self::Ago(name, ago))
    }
}

/// What is asked of one KPI.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) key: SeriesKey,
    /// The start of the first bucket asked for.
    pub(crate) from: Option<i64>,
    /// The end, not included.
    pub(crate) to: Option<i64>,
    pub(crate) compare: Vec<Compare>,
    /// How many of the dimensions' values; those with the most of the first value.
    pub(crate) top: Option<usize>,
    pub(crate) cumulative: bool,
    pub(crate) totals: bool,
    /// Whether buckets without facts are told.
    pub(crate) fill: bool,
    /// The same for the same question.
    pub(crate) fingerprint: u64,
}

impl Question {
    /// # Errors
    /// Which parameter is wrong, and why.
    pub(crate) fn of(kpi: &KpiDefinition, parameters: &Parameters) -> Result<Self, Problem> {
        let calendar = Self::calendar(parameters)?;
        let bound = |name: &'static str| -> Result<Option<i64>, Problem> {
            let wrong =
                |text: &str| Problem::parameter(name, format!("{name} is a date or an RFC 3339 time, not {text:?}"));
            parameters.text(name)?.map(|text| calendar.parse(text).ok_or_else(|| wrong(text))).transpose()
        };
        let (from, to) = (bound("from")?, bound("to")?);
        if from.zip(to).is_some_and(|(from, to)| from >= to) {
            return Err(Problem::parameter("from", "from is not before to"));
        }
        let by = by(kpi, parameters)?;
        let mut compare = Vec::new();
        for text in parameters.all("compare").flat_map(|text| text.split(',')) {
            let names: Vec<&str> = ["previous"].into_iter().chain(AGO.iter().map(|(name, _)| *name)).collect();
            let wrong = || Problem::parameter("compare", format!("compare is {}, not {text:?}", names.join(", ")));
            let one = Compare::parse(text).ok_or_else(wrong)?;
            if !compare.contains(&one) {
                compare.push(one);
            }
        }
        let window = window(kpi, parameters, calendar.grain)?;
        let top = parameters.parsed("top", "a number")?;
        if top == Some(0) || (top.is_some() && by.is_empty()) {
            return Err(Problem::parameter("top", "top is at least 1, and needs by"));
        }
        let cumulative = truth(parameters, "cumulative", false)?;
        if cumulative && kpi.measures == Measures::Level {
            return Err(Problem::parameter(
                "cumulative",
                format!("{} is what there is: it has no sum over time", kpi.name),
            ));
        }
        if cumulative && !compare.is_empty() {
            return Err(Problem::parameter("cumulative", "cumulative and compare are asked for one at a time"));
        }
        Ok(Self {
            key: SeriesKey { kpi: kpi.name.clone(), calendar, filters: filters(kpi, parameters)?, by, window },
            from: from.and_then(|from| calendar.start(from)),
            to,
            compare,
            top,
            cumulative,
            totals: truth(parameters, "totals", true)?,
            fill: match parameters.text("gaps")? {
                // Who asks for a period wants all of it.
                None => from.is_some(),
                Some("fill") => true,
                Some("omit") => false,
                Some(other) => return Err(Problem::parameter("gaps", format!("gaps is fill or omit, not {other:?}"))),
            },
            fingerprint: fingerprint(kpi, parameters),
        })
    }

    /// In what time it is asked.
    pub(crate) fn calendar(parameters: &Parameters) -> Result<Calendar, Problem> {
        let grain = match parameters.text("grain")? {
            None => DAYS.grain,
            Some(text) => text.parse().map_err(|()| {
                let names: Vec<_> = Grain::ALL.iter().map(|grain| grain.name()).collect();
                Problem::parameter("grain", format!("grain is one of {}, not {text:?}", names.join(", ")))
            })?,
        };
        let zone =
            parameters.parsed::<Tz>("timezone", "an IANA time zone such as America/Toronto")?.unwrap_or(DAYS.zone);
        let week_start = parameters.parsed::<Weekday>("week_start", "a day such as sunday")?.unwrap_or(DAYS.week_start);
        // Only weeks depend on it: the same series otherwise.
        let week_start = if grain == Grain::Week { week_start } else { DAYS.week_start };
        Ok(Calendar { grain, zone, week_start })
    }
}

fn known<'a>(kpi: &'a KpiDefinition, parameter: &str, name: &str) -> Result<&'a str, Problem> {
    let unknown = || {
        let names: Vec<&str> = kpi.dimensions.iter().map(|dimension| dimension.name.as_str()).collect();
        let has =
            if names.is_empty() { "no dimensions".to_owned() } else { format!("the dimensions {}", names.join(", ")) };
        Problem::parameter(parameter, format!("{} has {has}, not {name:?}", kpi.name))
    };
    kpi.dimension(name).map(|dimension| dimension.name.as_str()).ok_or_else(unknown)
}

fn by(kpi: &KpiDefinition, parameters: &Parameters) -> Result<Vec<String>, Problem> {
    let mut by: Vec<String> = Vec::new();
    for name in parameters.all("by").flat_map(|names| names.split(',')) {
        let name = known(kpi, "by", name)?;
        if !by.iter().any(|known| known == name) {
            by.push(name.to_owned());
        }
    }
    if by.len() > MOST_DIMENSIONS {
        return Err(Problem::parameter(
            "by",
            format!("by has {} dimensions, and may have {MOST_DIMENSIONS}", by.len()),
        ));
    }
    Ok(by)
}

fn filters(kpi: &KpiDefinition, parameters: &Parameters) -> Result<Vec<(String, Vec<String>)>, Problem> {
    let mut filters: Vec<(String, Vec<String>)> = Vec::new();
    for (parameter, value) in parameters.pairs() {
        let Some(name) = parameter.strip_prefix(FILTER) else { continue };
        let name = known(kpi, parameter, name)?;
        match filters.iter_mut().find(|(known, _)| known == name) {
            Some((_, values)) => values.push(value.clone()),
            None => filters.push((name.to_owned(), vec![value.clone()])),
        }
    }
    for (_, values) in &mut filters {
        values.sort();
        values.dedup();
    }
    filters.sort();
    Ok(filters)
}

/// `7d` at a grain of days: seven buckets.
fn window(kpi: &KpiDefinition, parameters: &Parameters, grain: Grain) -> Result<u32, Problem> {
    let Some(text) = parameters.text("rolling")? else { return Ok(1) };
    if kpi.measures == Measures::Level {
        return Err(Problem::parameter("rolling", format!("{} is what there is: it has no window", kpi.name)));
    }
    let units = match grain {
        Grain::Hour => [("h", 1), ("d", 24), ("w", 168)].as_slice(),
        Grain::Day => &[("d", 1), ("w", 7)],
        Grain::Week => &[("w", 1)],
        Grain::Month => &[("m", 1), ("q", 3), ("y", 12)],
        Grain::Quarter => &[("q", 1), ("y", 4)],
        Grain::Year => &[("y", 1)],
    };
    let wrong = || {
        let names: Vec<&str> = units.iter().map(|(name, _)| *name).collect();
        let detail = format!(
            "rolling is a number with {} at a grain of {grain}, such as 3{}, up to {MOST_WINDOW} buckets; not {text:?}",
            names.join(" or "),
            names[0]
        );
        Problem::parameter("rolling", detail)
    };
    let (number, buckets) =
        units.iter().find_map(|(unit, buckets)| Some((text.strip_suffix(unit)?, *buckets))).ok_or_else(wrong)?;
    let window = number.parse::<u32>().ok().and_then(|number| number.checked_mul(buckets));
    window.filter(|window| (1..=MOST_WINDOW).contains(window)).ok_or_else(wrong)
}

fn truth(parameters: &Parameters, name: &str, usual: bool) -> Result<bool, Problem> {
    match parameters.text(name)? {
        None => Ok(usual),
        Some("true" | "1") => Ok(true),
        Some("false" | "0") => Ok(false),
        Some(other) => Err(Problem::parameter(name, format!("{name} is true or false, not {other:?}"))),
    }
}

fn fingerprint(kpi: &KpiDefinition, parameters: &Parameters) -> u64 {
    let mut asked: Vec<&(String, String)> = parameters
        .pairs()
        .filter(|(name, value)| !OF_THE_ASKING.contains(&name.as_str()) && !value.is_empty())
        .collect();
    asked.sort();
    let mut hasher = DefaultHasher::new();
    (&kpi.name, asked).hash(&mut hasher);
    hasher.finish()
}
