//! `forecourt kpi`: what is counted.

use std::{env, fs, path::Path, process::ExitCode, sync::Arc};

use anyhow::{Context, bail};
use lake::{Lake, LakeConfig, SqlSession};
use processors::{KpiDefinition, derived_tables::derived_tables, kpis};
use tokio::runtime::{Handle, Runtime};

use crate::{
    arguments::{KpiAction, KpiCommand},
    catalogue_files, tables,
};

pub(crate) fn run(arguments: &KpiCommand) -> anyhow::Result<ExitCode> {
    let definitions = arguments.kpis.definitions()?;
    match &arguments.action {
        KpiAction::List { json: true } => println!("{}", serde_json::to_string_pretty(&descriptions(&definitions))?),
        KpiAction::List { json: false } => list(&definitions),
        KpiAction::Show { name, json } => show(&definitions, name, *json)?,
        KpiAction::Check => check(&definitions, arguments.catalogue.as_deref())?,
    }
    Ok(ExitCode::SUCCESS)
}

fn descriptions(definitions: &[KpiDefinition]) -> Vec<serde_json::Value> {
    definitions.iter().map(KpiDefinition::description).collect()
}

fn list(definitions: &[KpiDefinition]) {
    let mut table = tables::fitted(["KPI", "owner", "values", "by"]);
    for kpi in definitions {
        let names = |names: Vec<&str>| if names.is_empty() { "–".to_owned() } else { names.join(", ") };
        table.add_row([
            kpi.name.clone(),
            kpi.owner.clone().unwrap_or_default(),
            names(kpi.values.iter().map(|value| value.name.as_str()).collect()),
            names(kpi.dimensions.iter().map(|dimension| dimension.name.as_str()).collect()),
        ]);
    }
    println!("{table}\n{} KPIs. forecourt kpi show NAME tells more of one.", definitions.len());
}

fn show(definitions: &[KpiDefinition], name: &str, as_json: bool) -> anyhow::Result<()> {
    let Some(kpi) = definitions.iter().find(|kpi| kpi.name == name) else {
        let known: Vec<_> = definitions.iter().map(|kpi| kpi.name.as_str()).collect();
        bail!("there is no KPI {name:?}; there are {}", known.join(", "));
    };
    if as_json {
        println!("{}", serde_json::to_string_pretty(&kpi.description())?);
        return Ok(());
    }
    println!("{}\n\n{}\n", kpi.title, kpi.definition);
    let mut values = tables::fitted(["value", "unit", "meaning"]);
    for value in &kpi.values {
        values.add_row([&value.name, &value.unit, &value.meaning]);
    }
    println!("{values}\n");
    if !kpi.dimensions.is_empty() {
        let mut dimensions = tables::fitted(["by", "meaning"]);
        for dimension in &kpi.dimensions {
            dimensions.add_row([&dimension.name, &dimension.meaning]);
        }
        println!("{dimensions}\n");
    }
    if !kpi.settings.is_empty() {
        let mut settings = tables::fitted(["setting", "unit", "is", "meaning"]);
        for setting in &kpi.settings {
            let is = setting.value.map_or("not set".to_owned(), |value| value.to_string());
            settings.add_row([&setting.name, &setting.unit, &is, &setting.meaning]);
        }
        println!("{settings}\n");
    }
    println!("{}", kpi.sql);
    Ok(())
}

/// Ask every KPI of a lake without events.
fn check(definitions: &[KpiDefinition], catalogue: Option<&Path>) -> anyhow::Result<()> {
    let catalogue = catalogue_files::load(catalogue)?;
    let folder = env::temp_dir().join(format!("forecourt-kpi-check-{}", std::process::id()));
    fs::create_dir_all(&folder).with_context(|| format!("cannot use {}", folder.display()))?;
    let runtime = Runtime::new()?;
    let checked = runtime.block_on(async {
        let lake = Lake::open(&lake::folder_url(&folder)?, catalogue, LakeConfig::default()).await?;
        let view = Arc::new(lake.view());
        let sql = SqlSession::new(Handle::current(), derived_tables(&[]))?;
        anyhow::Ok(kpis::check(&sql, &view, definitions).await?)
    });
    let _ = fs::remove_dir_all(&folder);
    checked?;
    println!("{} KPIs can be computed.", definitions.len());
    Ok(())
}
