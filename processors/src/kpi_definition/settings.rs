//! Numbers that values of KPIs name: those that the settings tell, and how long a bucket is.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
    str::FromStr,
};

use serde::Serialize;
use toml::Spanned;

use super::{KpiDefinition, KpiFileError, KpiFolderError, is_name};

/// The file of numbers in a folder of KPI files.
const FILE: &str = "settings.toml";

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

/// Give the KPIs their numbers.
pub(super) fn set(kpis: &mut [KpiDefinition], numbers: &[KpiNumber]) -> Result<(), KpiFolderError> {
    for number in numbers {
        let mut needed = false;
        for setting in kpis.iter_mut().flat_map(|kpi| &mut kpi.settings) {
            if setting.name == number.name {
                setting.value = Some(number.value);
                needed = true;
            }
        }
        if !needed {
            let known: BTreeSet<&str> = kpis.iter().flat_map(|kpi| &kpi.settings).map(|it| it.name.as_str()).collect();
            let known = known.into_iter().collect::<Vec<_>>().join(", ");
            return Err(KpiFolderError::UnknownNumber { name: number.name.clone(), known });
        }
    }
    Ok(())
}

/// Read the folder's own file of numbers, which the settings file has replaced.
pub(super) fn read(folder: &Path, kpis: &mut [KpiDefinition]) -> Result<(), KpiFolderError> {
    let file = folder.join(FILE).display().to_string();
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(KpiFolderError::Folder { folder: file, source }),
    };
    let failed = |at: usize, problem: String| {
        let line = text.get(..at).unwrap_or_default().matches('\n').count() + 1;
        KpiFileError { file: file.clone(), line, problem }
    };
    let said: BTreeMap<Spanned<String>, Spanned<f64>> = toml::from_str(&text)
        .map_err(|error| failed(error.span().map_or(0, |span| span.start), error.message().to_owned()))?;
    let known: BTreeSet<&str> = kpis.iter().flat_map(|kpi| &kpi.settings).map(|it| it.name.as_str()).collect();
    for (name, value) in &said {
        if !known.contains(name.get_ref().as_str()) {
            let known = known.into_iter().collect::<Vec<_>>().join(", ");
            let problem = format!("no KPI has the setting {}; there are {known}", name.get_ref());
            return Err(failed(name.span().start, problem).into());
        }
        if !value.get_ref().is_finite() {
            return Err(failed(value.span().start, format!("{} is not a number", name.get_ref())).into());
        }
    }
    for setting in kpis.iter_mut().flat_map(|kpi| &mut kpi.settings) {
        let said = said.iter().find(|(name, _)| *name.get_ref() == setting.name);
        setting.value = said.map(|(_, value)| *value.get_ref());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::KpiDefinition;
    use crate::kpi_definition::BucketBy;

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
