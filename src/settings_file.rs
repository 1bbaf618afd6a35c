//! The settings file: its keys, and their values as what the flags are unless given.
//!
//! A flag goes before the environment, the environment before the file, the file before the default. So a file's values
//! become the defaults of the command line, and are judged by the same rules as a flag's.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::{Arg, ArgAction, Command};
use strsim::damerau_levenshtein;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// The file that is read where none is named.
pub(crate) const DEFAULT_FILE: &str = "forecourt.toml";
/// A key that differs by more letters than this is not proposed.
const MAX_TYPING_ERRORS: usize = 4;

/// A key of the file, and the option of the command line that it is the default of.
#[derive(Debug)]
pub(crate) struct Key {
    pub name: &'static str,
    /// The option's id.
    pub option: &'static str,
    /// The unit of its value, where it has one.
    pub unit: &'static str,
    pub kind: Kind,
}

/// What stands behind a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One value, as the flag takes it.
    Value,
    /// A path: one that is relative is so to the file's folder.
    Path,
    /// A table of numbers by name.
    Numbers,
}

const fn key(name: &'static str, option: &'static str, unit: &'static str, kind: Kind) -> Key {
    Key { name, option, unit, kind }
}

/// Every key, in the order of the documentation.
pub(crate) const KEYS: [Key; 19] = [
    key("server.data", "data", "", Kind::Path),
    key("server.http", "http", "", Kind::Value),
    key("server.postgres", "postgres", "", Kind::Value),
    key("server.flight", "flight", "", Kind::Value),
    key("server.log_filter", "log_filter", "", Kind::Value),
    key("log.nats", "nats", "", Kind::Value),
    key("log.nats_user", "nats_user", "", Kind::Value),
    key("log.nats_password_file", "nats_password_file", "", Kind::Path),
    key("log.nats_ca", "nats_ca", "", Kind::Path),
    key("log.nats_monitor", "nats_monitor", "", Kind::Value),
    key("lake.flush_rows", "flush_rows", "rows", Kind::Value),
    key("lake.flush_seconds", "flush_seconds", "seconds", Kind::Value),
    key("lake.retention", "retention", "time by class", Kind::Value),
    key("catalogue.folder", "catalogue", "", Kind::Path),
    key("kpis.folder", "kpis", "", Kind::Path),
    key("kpis.numbers", "kpi_numbers", "", Kind::Numbers),
    key("dashboards.kpi_metrics", "kpi_metrics", "", Kind::Value),
    key("dashboards.close_periods_from", "close_periods_from", "", Kind::Value),
    key("alerts.webhook_allow_private_networks", "webhooks_inside", "", Kind::Value),
];

/// Options that other commands than the server share with it: they follow the file too.
const SHARED: [&str; 4] = ["catalogue", "kpis", "kpi_numbers", "retention"];
/// The commands that take all settings, with the commands they belong to.
const SERVERS: [&str; 2] = ["forecourt up", "forecourt config show"];

/// A settings file that was read.
#[derive(Debug)]
pub(crate) struct SettingsFile {
    pub path: PathBuf,
    /// By the id of the option: the values as the command line takes them, and the line of the key.
    values: BTreeMap<&'static str, (Vec<String>, usize)>,
}

/// A place in a settings file, and what is wrong there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mistake {
    pub line: usize,
    pub problem: String,
}

impl SettingsFile {
    /// Read the file that was named, or the default one if it is there.
    ///
    /// # Errors
    /// When it cannot be read or is not valid; every mistake is named.
    pub(crate) fn find(named: Option<&Path>, server: &Command) -> anyhow::Result<Option<Self>> {
        let path = named.unwrap_or(Path::new(DEFAULT_FILE));
        let text = match fs::read_to_string(path) {
            Err(error) if named.is_none() && error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text.with_context(|| format!("cannot read the settings in {}", path.display()))?,
        };
        match Self::parse(path, &text, server) {
            Ok(file) => Ok(Some(file)),
            Err(mistakes) => {
                let lines: Vec<_> = mistakes.iter().map(|it| format!("{}:{it}", path.display())).collect();
                anyhow::bail!("the settings file is not valid:\n  {}", lines.join("\n  "))
            }
        }
    }

    /// Read a file's text; `server` is the command whose options judge the values.
    pub(crate) fn parse(path: &Path, text: &str, server: &Command) -> Result<Self, Vec<Mistake>> {
        let line = |at: usize| text.get(..at).unwrap_or_default().matches('\n').count() + 1;
        let table = DeTable::parse(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            vec![Mistake { line: line(at), problem: error.message().to_owned() }]
        })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let (mut values, mut mistakes) = (BTreeMap::new(), Vec::new());
        leaves("", table.get_ref(), &mut |name, at, value| {
            let line = line(at);
            match read(&name, value, folder, server) {
                Ok((option, texts)) => drop(values.insert(option, (texts, line))),
                Err(problem) => mistakes.push(Mistake { line, problem }),
            }
        });
        mistakes.sort_by_key(|mistake| mistake.line);
        if mistakes.is_empty() { Ok(Self { path: path.to_owned(), values }) } else { Err(mistakes) }
    }

    /// The line on which an option's key is.
    pub(crate) fn line(&self, option: &str) -> Option<usize> {
        self.values.get(option).map(|(_, line)| *line)
    }

    /// The command line with the file's values as its defaults.
    pub(crate) fn defaults(&self, command: Command) -> Command {
        self.defaults_of("forecourt", command)
    }

    fn defaults_of(&self, path: &str, mut command: Command) -> Command {
        let takes_all = SERVERS.contains(&path);
        for (option, (texts, _)) in &self.values {
            let has = command.get_arguments().any(|argument| argument.get_id() == option);
            if has && (takes_all || SHARED.contains(option)) {
                command = command.mut_arg(option, |argument| argument.default_values(texts));
            }
        }
        let names: Vec<String> = command.get_subcommands().map(|it| it.get_name().to_owned()).collect();
        names.into_iter().fold(command, |command, name| {
            let path = format!("{path} {name}");
            command.mut_subcommand(name, |it| self.defaults_of(&path, it))
        })
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.problem)
    }
}

/// Call `visit` with each key that is no table of others: its whole name, where it begins, and its value.
fn leaves<'a>(prefix: &str, table: &'a DeTable<'_>, visit: &mut impl FnMut(String, usize, &'a DeValue<'_>)) {
    for (key, value) in table {
        let name = format!("{prefix}{}", key.get_ref());
        let is_numbers = KEYS.iter().any(|key| key.name == name && key.kind == Kind::Numbers);
        match value.get_ref() {
            DeValue::Table(inner) if !is_numbers => leaves(&format!("{name}."), inner, visit),
            value => visit(name, key.span().start, value),
        }
    }
}

/// The option of a key, and its values as the command line takes them.
fn read(
    name: &str,
    value: &DeValue<'_>,
    folder: &Path,
    server: &Command,
) -> Result<(&'static str, Vec<String>), String> {
    if name == "log.nats_password" {
        return Err(format!(
            "a password does not stand in this file: name a file of its own with log.nats_password_file, or set {}",
            crate::settings::NATS_PASSWORD
        ));
    }
    let key = KEYS.iter().find(|key| key.name == name).ok_or_else(|| unknown(name))?;
    let texts = match (key.kind, value) {
        (Kind::Numbers, DeValue::Table(numbers)) => {
            let number = |(name, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
                Ok(format!("{}={}", name.get_ref(), scalar(value.get_ref())?))
            };
            numbers.iter().map(number).collect::<Result<_, String>>()?
        }
        (Kind::Numbers, _) => return Err(format!("{name} is a table of numbers, such as market_size = 42000")),
        (Kind::Path, value) => vec![folder.join(scalar(value)?).display().to_string()],
        (Kind::Value, value) => vec![scalar(value)?],
    };
    let option = server.get_arguments().find(|argument| argument.get_id() == key.option);
    let option = option.ok_or_else(|| format!("{name} has no option"))?;
    judge(option, &texts).map_err(|problem| format!("{name}: {problem}"))?;
    Ok((key.option, texts))
}

fn unknown(name: &str) -> String {
    let nearest = KEYS.iter().map(|key| (damerau_levenshtein(key.name, name), key.name)).min();
    // A key whose section is missing or another one is found by its last part.
    let last = name.rsplit('.').next().unwrap_or(name);
    let elsewhere = KEYS.iter().find(|key| key.name.rsplit('.').next() == Some(last)).map(|key| key.name);
    match nearest.filter(|(distance, _)| *distance <= MAX_TYPING_ERRORS).map(|(_, name)| name).or(elsewhere) {
        Some(nearest) => format!("there is no setting {name}; did you mean {nearest}?"),
        None => format!("there is no setting {name}; `forecourt config show` lists them"),
    }
}

fn scalar(value: &DeValue<'_>) -> Result<String, String> {
    match value {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Integer(number) => {
            let number = i64::from_str_radix(number.as_str(), number.radix());
            number.map(|number| number.to_string()).map_err(|_| "the number is too large".to_owned())
        }
        DeValue::Float(number) => Ok(number.as_str().to_owned()),
        DeValue::Boolean(value) => Ok(value.to_string()),
        DeValue::Datetime(time) => Ok(time.to_string()),
        DeValue::Array(_) | DeValue::Table(_) => Err("one value is expected, not several".to_owned()),
    }
}

/// Whether an option takes these values, as its flag would.
fn judge(option: &Arg, texts: &[String]) -> Result<(), String> {
    if matches!(option.get_action(), ArgAction::SetTrue) {
        return match texts {
            [text] if text == "true" || text == "false" => Ok(()),
            _ => Err(format!("{} is not true or false", texts.join(", "))),
        };
    }
    let flag = option.get_long().unwrap_or_default();
    let words = texts.iter().map(|text| format!("--{flag}={text}"));
    // Of the option's own, without what it reads besides.
    let alone = Command::new("settings").no_binary_name(true).arg(option.clone().env(None::<&str>).global(false));
    match alone.try_get_matches_from(words) {
        Ok(_) => Ok(()),
        Err(error) => {
            let reason = std::error::Error::source(&error).map(ToString::to_string);
            let reason = reason.unwrap_or_else(|| error.to_string().lines().next().unwrap_or_default().to_owned());
            Err(format!("{} is not valid: {reason}", texts.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::CommandFactory;

    use super::{KEYS, SettingsFile};
    use crate::arguments::Arguments;

    fn server() -> clap::Command {
        Arguments::command().find_subcommand("up").cloned().unwrap()
    }

    #[test]
    fn every_setting_of_the_server_has_a_key_and_every_key_an_option() {
        let server = server();
        let once = ["accept_loss", "demo", "help"];
        let options: Vec<&str> = server.get_arguments().map(|it| it.get_id().as_str()).collect();
        for option in options.iter().filter(|option| !once.contains(option)) {
            assert!(KEYS.iter().any(|key| key.option == *option), "{option} has no key");
        }
        for key in &KEYS {
            assert!(options.contains(&key.option), "{} has no option", key.name);
        }
    }

    #[test]
    fn each_mistake_is_named_with_its_line() {
        let refused = |text: &str| {
            let mistakes = SettingsFile::parse(Path::new("forecourt.toml"), text, &server()).unwrap_err();
            mistakes.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            refused("[server]\nhtpp = \"localhost:80\"\n[lake]\nflush_rows = 0\nflush_seconds = \"soon\"\n"),
            [
                "2: there is no setting server.htpp; did you mean server.http?",
                "4: lake.flush_rows: 0 is not valid: 0 is not in 1..=1000000",
                "5: lake.flush_seconds: soon is not valid: invalid digit found in string",
            ]
        );
        assert_eq!(refused("data = \"x\""), ["1: there is no setting data; did you mean server.data?"]);
        assert_eq!(refused("colour = 1"), ["1: there is no setting colour; `forecourt config show` lists them"]);
        assert_eq!(refused("[dashboards]\nkpi_metrics = 1"), ["2: dashboards.kpi_metrics: 1 is not true or false"]);
        assert_eq!(
            refused("[kpis.numbers]\nmarket_size = \"many\""),
            ["1: kpis.numbers: market_size=many is not valid: a name and a number, such as market_size=42000"]
        );
        assert!(refused("[log]\nnats_password = \"x\"")[0].contains("FORECOURT_NATS_PASSWORD"));
        assert!(refused("[server\n")[0].starts_with("1: "));
    }
}
