//! `forecourt config`: what the settings are, and whether a file of them is valid.

use std::{env, fs, io::Write, path::Path, process::ExitCode};

use anyhow::Context;
use clap::{ArgMatches, Command, parser::ValueSource};
use ingest::without_password;
use serde::Serialize;

use crate::{
    output_error,
    settings::NATS_PASSWORD,
    settings_file::{KEYS, Key, SettingsFile},
    tables,
};

/// A setting as it stands.
#[derive(Debug, Serialize)]
struct SettingRow {
    setting: &'static str,
    /// None where nothing is set.
    value: Option<String>,
    from: String,
    unit: &'static str,
    flag: String,
    environment: String,
    meaning: String,
}

/// Print every setting of `command`, as `matches` has it.
pub(crate) fn show(
    command: &Command,
    matches: &ArgMatches,
    file: Option<&SettingsFile>,
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    let mut settings: Vec<SettingRow> = KEYS.iter().map(|key| setting_row(key, command, matches, file)).collect();
    settings.push(password());
    let mut output = std::io::stdout().lock();
    if as_json {
        writeln!(output, "{}", serde_json::to_string_pretty(&settings)?).map_err(output_error)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = tables::fitted(["setting", "value", "from", "meaning"]);
    for setting in settings {
        let unit = if setting.unit.is_empty() { String::new() } else { format!(" ({})", setting.unit) };
        let value = setting.value.unwrap_or_else(|| "–".to_owned());
        table.add_row([setting.setting.to_owned(), value, setting.from, format!("{}{unit}", setting.meaning)]);
    }
    writeln!(output, "{table}").map_err(output_error)?;
    Ok(ExitCode::SUCCESS)
}

fn setting_row(key: &Key, command: &Command, matches: &ArgMatches, file: Option<&SettingsFile>) -> SettingRow {
    let option = command.get_arguments().find(|option| option.get_id() == key.option);
    let flag = option.and_then(clap::Arg::get_long).map(|flag| format!("--{flag}")).unwrap_or_default();
    let environment = option.and_then(clap::Arg::get_env).map(|name| name.to_string_lossy().into_owned());
    let environment = environment.unwrap_or_default();
    let values = matches.get_raw(key.option).map(|values| {
        let values: Vec<_> = values.map(|value| without_password(&value.to_string_lossy())).collect();
        values.join(",")
    });
    let from = match (matches.value_source(key.option), file) {
        (Some(ValueSource::CommandLine), _) => format!("flag {flag}"),
        (Some(ValueSource::EnvVariable), _) => format!("environment {environment}"),
        (Some(_), Some(file)) if file.line(key.option).is_some() => {
            format!("{}:{}", file.path.display(), file.line(key.option).unwrap_or_default())
        }
        (Some(_), _) => "default".to_owned(),
        (None, _) => "not set".to_owned(),
    };
    let meaning = option.and_then(clap::Arg::get_help).map(ToString::to_string).unwrap_or_default();
    SettingRow { setting: key.name, value: values, from, unit: key.unit, flag, environment, meaning }
}

/// The one secret that the environment may hold.
fn password() -> SettingRow {
    let is_set = env::var_os(NATS_PASSWORD).is_some();
    SettingRow {
        setting: "log.nats_password",
        value: is_set.then(|| "(hidden)".to_owned()),
        from: if is_set { format!("environment {NATS_PASSWORD}") } else { "not set".to_owned() },
        unit: "",
        flag: String::new(),
        environment: NATS_PASSWORD.to_owned(),
        meaning: "The user's password at the NATS server; only the environment or a file may hold it".to_owned(),
    }
}

/// Say whether a settings file is valid, and list its mistakes.
pub(crate) fn check(file: &Path, server: &Command) -> anyhow::Result<ExitCode> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    match SettingsFile::parse(file, &text, server) {
        Ok(_) => {
            println!("{} is valid.", file.display());
            Ok(ExitCode::SUCCESS)
        }
        Err(mistakes) => {
            for mistake in mistakes {
                println!("{}:{mistake}", file.display());
            }
            Ok(ExitCode::FAILURE)
        }
    }
}
