//! The settings of a server, a struct per concern.
//!
//! Each setting is a flag, an environment variable and a key of the settings file; [`file`](crate::settings_file) lists the
//! keys.

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::Context;
use clap::Args;
use processors::{KpiDefinition, KpiNumber};
use schemas::RetentionPolicy;

/// The password of the NATS server, where it is not in a file.
pub(crate) const NATS_PASSWORD: &str = "FORECOURT_NATS_PASSWORD";

#[derive(Debug, Args)]
pub(crate) struct Settings {
    #[command(flatten)]
    pub server: ServerSettings,
    #[command(flatten)]
    pub log: LogSettings,
    #[command(flatten)]
    pub lake: LakeSettings,
    /// Folder of catalogue files (*.toml) with contexts of your own
    #[arg(long, env = "FORECOURT_CATALOGUE", value_name = "DIR")]
    pub catalogue: Option<PathBuf>,
    #[command(flatten)]
    pub kpis: KpiSettings,
    #[command(flatten)]
    pub dashboards: DashboardSettings,
    #[command(flatten)]
    pub alerts: AlertSettings,
}

/// Where the data lies and where people reach it.
#[derive(Debug, Args)]
pub(crate) struct ServerSettings {
    /// Folder for the lake, the index and the log
    #[arg(long, default_value = "data", env = "FORECOURT_DATA", value_name = "DIR")]
    pub data: PathBuf,
    /// Address of the HTTP API; port 0 picks a free one
    #[arg(long, default_value = "127.0.0.1:8080", env = "FORECOURT_HTTP", value_name = "HOST:PORT")]
    pub http: ListenAddress,
    /// Address of the Postgres wire; 127.0.0.1:5433 unless given, or a free port where that is taken
    #[arg(long, env = "FORECOURT_POSTGRES", value_name = "HOST:PORT")]
    pub postgres: Option<ListenAddress>,
    /// Address of Arrow Flight SQL; 127.0.0.1:50051 unless given, or a free port where that is taken
    #[arg(long, env = "FORECOURT_FLIGHT", value_name = "HOST:PORT")]
    pub flight: Option<ListenAddress>,
    /// Which log lines are written, by module: info, or warn,forecourt=debug
    #[arg(long, env = "FORECOURT_LOG", value_name = "FILTER")]
    pub log_filter: Option<String>,
}

/// The event log.
#[derive(Debug, Args)]
pub(crate) struct LogSettings {
    /// An existing NATS server, such as nats://127.0.0.1:4222, tls:// with TLS; without it one is started in the data folder
    #[arg(long, env = "FORECOURT_NATS", value_name = "URL", hide_env_values = true)]
    pub nats: Option<String>,
    /// The user at the NATS server
    #[arg(long, env = "FORECOURT_NATS_USER", value_name = "NAME")]
    pub nats_user: Option<String>,
    /// A file with the user's password; the environment's FORECOURT_NATS_PASSWORD goes before it
    #[arg(long, env = "FORECOURT_NATS_PASSWORD_FILE", value_name = "FILE")]
    pub nats_password_file: Option<PathBuf>,
    /// A file of PEM certificates that the NATS server's own is signed by, beside those of this machine
    #[arg(long, env = "FORECOURT_NATS_CA", value_name = "FILE")]
    pub nats_ca: Option<PathBuf>,
    /// Where the given NATS server answers HTTP, such as http://127.0.0.1:8222, to check that it syncs every write
    #[arg(long, env = "FORECOURT_NATS_MONITOR", value_name = "URL", hide_env_values = true)]
    pub nats_monitor: Option<String>,
}

/// How events become files, and how long they stay.
#[derive(Debug, Args)]
pub(crate) struct LakeSettings {
    /// Write a data file when this many rows wait in memory
    #[arg(long, default_value_t = 100_000, env = "FORECOURT_FLUSH_ROWS", value_name = "ROWS", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub flush_rows: u32,
    /// Write a data file when rows have waited this many seconds
    #[arg(long, default_value_t = 30, env = "FORECOURT_FLUSH_SECONDS", value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub flush_seconds: u64,
    /// How long events are kept, by class, since they happened or came, whichever is later; off keeps everything
    #[arg(long, default_value_t, env = "FORECOURT_RETENTION", value_name = "CLASS=TIME,...")]
    pub retention: RetentionPolicy,
}

/// KPI files of the user, and the numbers that KPIs need.
#[derive(Clone, Debug, Args)]
pub(crate) struct KpiSettings {
    /// Folder of KPI files (*.sql) of your own; one of a known name replaces it
    #[arg(long, global = true, env = "FORECOURT_KPIS", value_name = "DIR")]
    pub kpis: Option<PathBuf>,
    /// A number that KPIs need and events do not carry, such as market_size=42000; may be repeated
    #[arg(
        long = "kpi-number",
        global = true,
        env = "FORECOURT_KPI_NUMBERS",
        value_name = "NAME=NUMBER",
        value_delimiter = ','
    )]
    pub kpi_numbers: Vec<KpiNumber>,
}

impl KpiSettings {
    /// The KPIs of the program and of the folder, with their numbers.
    pub(crate) fn definitions(&self) -> anyhow::Result<Vec<KpiDefinition>> {
        let numbers = self.kpis.as_ref().map(|folder| folder.join("settings.toml")).filter(|file| file.exists());
        if let Some(file) = numbers {
            eprintln!(
                "warning: {} is read for the last release: write its numbers under [kpis.numbers] of forecourt.toml",
                file.display()
            );
        }
        Ok(KpiDefinition::with_folder(self.kpis.as_deref(), &self.kpi_numbers)?)
    }
}

/// What is published for dashboards beside the API.
#[derive(Debug, Args)]
pub(crate) struct DashboardSettings {
    /// Show every KPI's latest day on /metrics as well, as kpi_value{kpi, value}
    #[arg(long, env = "FORECOURT_KPI_METRICS")]
    pub kpi_metrics: bool,
    /// Publish an event for each day and month that closes, from this date on; from the first start on unless given
    #[arg(long, env = "FORECOURT_CLOSE_PERIODS_FROM", value_name = "DATE", value_parser = date)]
    pub close_periods_from: Option<i64>,
}

/// Saved searches.
#[derive(Debug, Args)]
pub(crate) struct AlertSettings {
    /// Let saved searches post to addresses inside this machine's network
    #[arg(long, env = "FORECOURT_WEBHOOKS_INSIDE")]
    pub webhooks_inside: bool,
}

/// A date or an RFC 3339 time, as microseconds since 1970, UTC.
fn date(text: &str) -> Result<i64, String> {
    schemas::field_type::parse_timestamp(text).ok_or_else(|| format!("{text:?} is no date, such as 2026-01-01"))
}

impl LogSettings {
    /// How to sign in at the NATS server.
    ///
    /// # Errors
    /// When the file of the password cannot be read.
    pub(crate) fn access(&self) -> anyhow::Result<ingest::LogAccess> {
        let password = match (std::env::var(NATS_PASSWORD), &self.nats_password_file) {
            (Ok(password), _) => Some(password),
            (Err(_), Some(file)) => Some(secret(file)?),
            (Err(_), None) => None,
        };
        Ok(ingest::LogAccess { user: self.nats_user.clone(), password, authorities: self.nats_ca.clone() })
    }
}

/// The secret that a file holds, without the line's end.
fn secret(file: &Path) -> anyhow::Result<String> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read the password in {}", file.display()))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// Where to listen: a host's name or address, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListenAddress {
    host: String,
    port: u16,
}

impl ListenAddress {
    /// The addresses that the host's name stands for.
    ///
    /// # Errors
    /// When nobody knows the name.
    pub(crate) async fn resolve(&self) -> std::io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host((self.host.as_str(), self.port)).await?.collect())
    }
}

impl From<SocketAddr> for ListenAddress {
    fn from(address: SocketAddr) -> Self {
        Self { host: address.ip().to_string(), port: address.port() }
    }
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const SHAPE: &str = "a host and a port, such as localhost:8080, 0.0.0.0:8080 or [::1]:8080";
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(address.into());
        }
        let (host, port) = text.rsplit_once(':').ok_or(SHAPE)?;
        let port = port.parse().map_err(|_| SHAPE)?;
        let is_name = !host.is_empty()
            && host.chars().all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '.' | '_'));
        if is_name { Ok(Self { host: host.to_owned(), port }) } else { Err(SHAPE.to_owned()) }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ListenAddress;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for text in ["localhost:8080", "0.0.0.0:0", "[::1]:5433", "cars.example.org:80", "my_host:1"] {
            assert_eq!(text.parse::<ListenAddress>().map(|it| it.to_string()), Ok(text.to_owned()));
        }
        for text in ["localhost", ":8080", "localhost:", "localhost:99999", "http://localhost:80", "::1:80", "a b:1"] {
            assert!(text.parse::<ListenAddress>().is_err(), "{text}");
        }
    }
}
