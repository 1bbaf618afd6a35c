//! A folder of KPI files, and the numbers that KPIs need.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
};

use toml::Spanned;

use super::{
    KpiDefinition,
    error::{KpiFileError, KpiFolderError},
    settings::{KpiNumber, is_name},
};

/// The file of numbers in a folder of KPI files.
const SETTINGS_FILE: &str = "settings.toml";

impl KpiDefinition {
    /// The KPIs of the program and those of a folder's `*.sql` files, which replace those of the same name; each with the
    /// numbers it needs.
    ///
    /// # Errors
    /// When the folder cannot be read, a file is not valid (with its line and what is wrong in it), or no KPI needs a number.
    pub fn with_folder(folder: Option<&Path>, numbers: &[KpiNumber]) -> Result<Vec<Self>, KpiFolderError> {
        let mut kpis = Self::embedded()?;
        if let Some(folder) = folder {
            Self::add_folder(&mut kpis, folder)?;
        }
        set_numbers(&mut kpis, numbers)?;
        Ok(kpis)
    }

    fn add_folder(kpis: &mut Vec<Self>, folder: &Path) -> Result<(), KpiFolderError> {
        let failed = |source| KpiFolderError::Folder { folder: folder.display().to_string(), source };
        let mut files: Vec<_> = fs::read_dir(folder)
            .and_then(Iterator::collect::<io::Result<Vec<_>>>)
            .map_err(failed)?
            .iter()
            .map(fs::DirEntry::path)
            .collect();
        files.sort();
        for file in files.iter().filter(|file| file.extension().is_some_and(|it| it == "sql")) {
            let name = file.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let text = fs::read_to_string(file).map_err(failed)?;
            let shown = file.display().to_string();
            if !is_name(&name) {
                let problem = "a KPI is named by its file: lower-case letters, digits and _".to_owned();
                return Err(KpiFileError { file: shown, line: 1, problem }.into());
            }
            let kpi = Self::parse(&name, &text).map_err(|error| KpiFileError { file: shown.clone(), ..error })?;
            let kpi = Self { file: Some(shown), ..kpi };
            match kpis.iter_mut().find(|known| known.name == kpi.name) {
                Some(known) => *known = kpi,
                None => kpis.push(kpi),
            }
        }
        read_settings_file(folder, kpis)
    }
}

/// Give the KPIs their numbers.
fn set_numbers(kpis: &mut [KpiDefinition], numbers: &[KpiNumber]) -> Result<(), KpiFolderError> {
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
fn read_settings_file(folder: &Path, kpis: &mut [KpiDefinition]) -> Result<(), KpiFolderError> {
    let file = folder.join(SETTINGS_FILE).display().to_string();
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(KpiFolderError::Folder { folder: file, source }),
    };
    let failed = |at: usize, problem: String| {
        let line = text.get(..at).unwrap_or_default().matches('\n').count() + 1;
        KpiFileError { file: file.clone(), line, problem }
    };
    let numbers: BTreeMap<Spanned<String>, Spanned<f64>> = toml::from_str(&text)
        .map_err(|error| failed(error.span().map_or(0, |span| span.start), error.message().to_owned()))?;
    let known: BTreeSet<&str> = kpis.iter().flat_map(|kpi| &kpi.settings).map(|it| it.name.as_str()).collect();
    for (name, value) in &numbers {
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
        let number = numbers.iter().find(|(name, _)| *name.get_ref() == setting.name);
        setting.value = number.map(|(_, value)| *value.get_ref());
    }
    Ok(())
}
