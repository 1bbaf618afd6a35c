//! The command line.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Where a server listens unless told otherwise.
const DEFAULT_HTTP: &str = "127.0.0.1:8080";
/// Where commands look for a server unless told otherwise.
const DEFAULT_URL: &str = "http://127.0.0.1:8080";

/// The read side of a used-car marketplace: one event log, and search, SQL and KPIs that agree on it.
#[derive(Debug, Parser)]
#[command(
    name = "forecourt",
    version,
    max_term_width = 100,
    after_help = "\
Try it:
  forecourt up --demo
  curl 'http://127.0.0.1:8080/v1/search?make=Honda&price_max=25000&sort=price'
  forecourt sql 'SELECT event_type, count(*) FROM lake.events GROUP BY 1 ORDER BY 2 DESC LIMIT 5'"
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run everything in one process: the door, the pipeline, and the API
    Up(Up),
    /// Send files of events to a running server; safe to repeat
    Ingest(Ingest),
    /// Write a coherent market history to try things on
    Simulate(Simulate),
    /// Ask a running server in SQL
    Sql(Sql),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Prints one line that begins with `ready` when everything is up; GET /ready then answers 200.
Stop it with Ctrl-C or SIGTERM: the lake is flushed and nothing is lost.")]
pub(crate) struct Up {
    /// Folder for the lake, the index and the log
    #[arg(long, default_value = "data", env = "FORECOURT_DATA")]
    pub data: PathBuf,
    /// An existing NATS server, such as nats://127.0.0.1:4222; without it one is started in the data folder
    #[arg(long, env = "FORECOURT_NATS")]
    pub nats: Option<String>,
    /// Address of the HTTP API; port 0 picks a free one
    #[arg(long, default_value = DEFAULT_HTTP, env = "FORECOURT_HTTP")]
    pub http: SocketAddr,
    /// Write a data file when this many rows wait in memory
    #[arg(long, default_value_t = 100_000, env = "FORECOURT_FLUSH_ROWS", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub flush_rows: u32,
    /// Write a data file when rows have waited this many seconds
    #[arg(long, default_value_t = 30, env = "FORECOURT_FLUSH_SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub flush_seconds: u64,
    /// Load a generated market history of more than 100,000 events, and say what to try
    #[arg(long)]
    pub demo: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Files hold one JSON event per line, or one JSON array. What is refused is listed with its file, line and reason.
Exit status: 0 when every event was accepted or a duplicate, 1 otherwise.")]
pub(crate) struct Ingest {
    /// Files of events; - is standard input
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// The server to send them to
    #[arg(long, default_value = DEFAULT_URL, env = "FORECOURT_URL")]
    pub to: String,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The same seed, start, days and vehicles give the same bytes.
  forecourt simulate --seed 7 --days 90 --vehicles 500 -o market.ndjson")]
pub(crate) struct Simulate {
    /// Which of the possible histories
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How many days it lasts
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub days: u32,
    /// How many vehicles the marketplace buys
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub vehicles: u32,
    /// First day, such as 2026-01-01
    #[arg(long, default_value = "2026-01-01", value_parser = parse_date)]
    pub start: i64,
    /// Where to write the events, one per line; - is standard output
    #[arg(short, long, default_value = "-")]
    pub output: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = "\
  forecourt sql 'SELECT count(*) FROM inventory.vehicle_sold'
  forecourt sql --format csv 'SELECT listing_id, price FROM inventory.price_set' > prices.csv
Every event type is a view: its context, a dot, its name in snake_case. lake.events has them all.")]
pub(crate) struct Sql {
    /// A SELECT; - reads it from standard input
    pub query: String,
    /// How to print the rows
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
    /// Most rows to fetch
    #[arg(long, default_value_t = 10_000)]
    pub limit: usize,
    /// Answer only when the server reflects this position
    #[arg(long)]
    pub min_position: Option<u64>,
    /// The server to ask
    #[arg(long, default_value = DEFAULT_URL, env = "FORECOURT_URL")]
    pub to: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns
    Table,
    /// The server's answer
    Json,
    /// RFC 4180, with a header
    Csv,
}

/// Microseconds since 1970 of a date's midnight, UTC.
fn parse_date(text: &str) -> Result<i64, String> {
    let is_date = text.len() == "2026-01-01".len();
    let micros = is_date.then(|| schemas::field_type::parse_timestamp(text)).flatten();
    micros.ok_or_else(|| "a date such as 2026-01-01".to_owned())
}
