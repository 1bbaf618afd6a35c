//! Numbers that values of KPIs name: those that the settings tell, and how long a bucket is.

use std::str::FromStr;

use serde::Serialize;

/// In a value, how many years its bucket is long: a part of one, by the calendar's own.
pub(super) const YEARS: &str = "years";

/// A number that a KPI's values name, and the settings tell.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Setting {
    pub name: String,
    pub unit: String,
    pub meaning: String,
    /// None as long as nobody said.
    pub value: Option<f64>,
}

impl Eq for Setting {}

impl Setting {
    /// `name unit; meaning`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (head, meaning) = text.split_once("; ")?;
        let (name, unit) = head.split_once(' ').filter(|(name, _)| is_name(name))?;
        Some(Self { name: name.to_owned(), unit: unit.to_owned(), meaning: meaning.to_owned(), value: None })
    }
}

/// A value's expression, with numbers where it names them.
pub(super) fn put(expression: &str, settings: &[Setting], years: &str) -> String {
    settings.iter().fold(expression.replace(&named(YEARS), years), |expression, setting| {
        let value = setting.value.map_or("NULL".to_owned(), |value| value.to_string());
        expression.replace(&named(&setting.name), &format!("CAST({value} AS DOUBLE)"))
    })
}

fn named(name: &str) -> String {
    format!("{{{name}}}")
}

/// A number that KPIs need: `market_size=42000`.
#[derive(Clone, Debug, PartialEq)]
pub struct KpiNumber {
    pub name: String,
    pub value: f64,
}

impl FromStr for KpiNumber {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = text.split_once('=').and_then(|(name, value)| {
            let value: f64 = value.trim().replace('_', "").parse().ok()?;
            let name = name.trim();
            (is_name(name) && value.is_finite()).then(|| Self { name: name.to_owned(), value })
        });
        parsed.ok_or("a name and a number, such as market_size=42000")
    }
}

/// Whether a text is lower-case letters, digits and `_`.
pub(super) fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_')
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use crate::kpi_definition::{BucketBy, KpiDefinition};

    #[test]
    fn settings_are_put_where_values_name_them() {
        let folder = tempfile::tempdir().unwrap();
        let share = |folder: &Path| {
            let kpis = KpiDefinition::with_folder(Some(folder), &[]).map_err(|error| error.to_string())?;
            Ok(kpis.iter().find(|kpi| kpi.name == "market_share").unwrap().query(&[], &[], BucketBy::Time))
        };
        let query = share(folder.path()).unwrap();
        assert!(query.contains("(CAST(NULL AS DOUBLE) * years(bucket(at)),"), "{query}");
        let file = folder.path().join("settings.toml");
        fs::write(&file, "# everybody's\nmarket_size = 42_000").unwrap();
        let query = share(folder.path()).unwrap();
        assert!(query.contains("(CAST(42000 AS DOUBLE) * years(bucket(at)),"), "{query}");
        for (text, message) in [
            ("market_size = 1\nmarket = 2", "line 2: no KPI has the setting market; there are market_size"),
            ("\nmarket_size = inf", "line 2: market_size is not a number"),
            ("market_size = \"many\"", "line 1: invalid type: string \"many\", expected f64"),
        ] {
            fs::write(&file, text).unwrap();
            assert_eq!(share(folder.path()), Err(format!("{}, {message}", file.display())));
        }
    }

    #[test]
    fn a_number_goes_before_the_folders_file_and_has_to_be_needed() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("settings.toml"), "market_size = 1").unwrap();
        let value = |numbers: &[&str]| {
            let numbers: Vec<_> = numbers.iter().map(|it| it.parse().unwrap()).collect();
            let kpis = KpiDefinition::with_folder(Some(folder.path()), &numbers).map_err(|error| error.to_string())?;
            Ok(kpis.iter().find(|kpi| kpi.name == "market_share").unwrap().settings[0].value)
        };
        assert_eq!(value(&[]), Ok(Some(1.0)));
        assert_eq!(value(&["market_size=42_000"]), Ok(Some(42_000.0)));
        assert_eq!(value(&["market=2"]), Err("no KPI needs the number market; there are market_size".to_owned()));
        for text in ["market_size", "market_size=", "market_size=inf", "=2", "Market=2"] {
            assert!(text.parse::<super::KpiNumber>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_setting_has_a_name_of_its_own_and_is_not_counted() {
        let head = "-- title: T\n-- definition: D\n-- input: a.b\n-- value: left integer = {goal} - count(*); L";
        let kpi = KpiDefinition::parse("k", &format!("{head}\n-- setting: goal cars; G")).unwrap();
        assert!(!kpi.values[0].is_zero_in_a_gap());
        for twice in ["goal cars; G\n-- setting: goal cars; G", "years y; Y", "left cars; L"] {
            let refused = KpiDefinition::parse("k", &format!("{head}\n-- setting: {twice}")).map_err(|e| e.to_string());
            let message = "k.sql, line 1: each value, dimension and setting has a name of its own, and none is years";
            assert_eq!(refused, Err(message.to_owned()));
        }
    }
}
