//! The command line.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use datasets::Disorder;
use schemas::{
    RetentionPolicy,
    envelope::{STYLES, Style},
    retention,
};

use crate::settings::{KpiSettings, Settings};

/// What --disorder alone means.
const BAD_DAY: &str = "duplicates=0.05,late=0.1,malformed=0.02,shuffled=0.25";
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
    /// A file of settings; forecourt.toml in this folder is read unless another is named
    #[arg(long, global = true, env = "FORECOURT_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run everything in one process: the door, the pipeline, and the API
    Up(Box<Up>),
    /// Send files of events to a running server; safe to interrupt and to repeat
    Ingest(Ingest),
    /// Turn a file of listings into events
    Import(Import),
    /// Write a coherent market history to try things on
    Simulate(Simulate),
    /// Ask a running server in SQL
    Sql(Sql),
    /// Take out events past their time, merge small files and delete old ones, now
    Maintain(Maintain),
    /// Compute everything derived again, and prove that it is what the log says
    Verify(Verify),
    /// What events there are, and how they are written
    Catalogue(CatalogueCommand),
    /// What is counted, and how it is defined
    Kpi(KpiCommand),
    /// Messages of the log that are no events: look at them, retry them, drop them
    DeadLetters(DeadLettersCommand),
    /// Where a producer on this machine finds the log
    NatsContext(NatsContextCommand),
    /// The settings: each value and where it comes from; check a file of them
    Config(ConfigCommand),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Prints one line that begins with `ready` when everything is up; GET /ready then answers 200.
Stop it with Ctrl-C or SIGTERM: the lake is flushed and nothing is lost.
Every option can stand in a file (--config); `forecourt config show` prints each value and where it comes from.")]
pub(crate) struct Up {
    #[command(flatten)]
    pub settings: Settings,
    /// Go on, this once, although the log was purged of events the lake never had
    #[arg(long)]
    pub accept_loss: bool,
    /// Load a generated market history of more than 100,000 events, and say what to try
    #[arg(long)]
    pub demo: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ConfigCommand {
    #[command(subcommand)]
    pub action: ConfigAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigAction {
    /// Print every setting with its value, where the value comes from, and what it means
    #[command(after_help = "\
  forecourt config show
  forecourt config show --config /etc/forecourt.toml --http 0.0.0.0:8080
A flag goes before the environment, the environment before the file, the file before the default. A secret is never printed.")]
    Show {
        #[command(flatten)]
        settings: Box<Settings>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Check a settings file: each mistake is listed with its line
    #[command(after_help = "Exit status: 0 when the file is valid, 1 otherwise.")]
    Check {
        /// The file
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "\
  forecourt ingest history/*.ndjson.gz --rejected refused.ndjson --resume progress.json
Files hold one JSON event per line, or a JSON array; .gz and .zst are read as what they hold. What is refused is listed
with its file, line and reason. Interrupt it as you like: an event takes effect once, however often it is sent, and with
--resume the next run does not send again what was acknowledged.
Exit status: 0 when every event was accepted or a duplicate, 1 otherwise, 130 when interrupted.")]
pub(crate) struct Ingest {
    /// Files of events; - is standard input
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// Write refused events to this file, one JSON object per line: file, line, code, field, message, text
    #[arg(long)]
    pub rejected: Option<PathBuf>,
    /// Keep progress in this file, and go on from it when it is there; it is removed at the end
    #[arg(long)]
    pub resume: Option<PathBuf>,
    /// The server to send them to
    #[arg(long, default_value = DEFAULT_URL, env = "FORECOURT_URL")]
    pub to: String,
}

#[derive(Debug, Args)]
#[command(after_help = "\
  forecourt import cars.csv --mapping australia -o cars.ndjson && forecourt ingest cars.ndjson
A mapping says which column of the file says what: names, units, words, what counts as missing. australia, uk and
new-zealand come with forecourt; --mapping FILE.toml is one of your own. Rows that are of no use are listed with their line
and reason. Events' ids come from the rows, so that a file imported twice has no effect the second time.
Exit status: 0 when there are listings, 1 otherwise.")]
pub(crate) struct Import {
    /// A .csv file with a header, or a .parquet file
    pub file: PathBuf,
    /// A mapping that comes with forecourt, or a .toml file; without it, the one that reads the file's columns
    #[arg(long)]
    pub mapping: Option<String>,
    /// Write rows that are of no use to this file, one JSON object per line: file, line, code, field, message
    #[arg(long)]
    pub rejected: Option<PathBuf>,
    /// Where to write the events, one per line, compressed for .zst; - is standard output
    #[arg(short, long, default_value = "-")]
    pub output: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = "\
  forecourt simulate --days 90 --vehicles 500 -o market.ndjson
  forecourt simulate --days 365 --vehicles 5000 --disorder --truth truth.json -o year.ndjson.zst
  forecourt simulate --live --rate 500          a market of the last 90 days, into a running server
The same arguments give the same bytes: sellers, inspections, listings, shoppers, sales, trials and what
follows, and the shop, dealers, courses and loyalty programme around them.
--disorder lets events arrive as they do on a bad day; --disorder duplicates=0.05,late=0.1,malformed=0.02,shuffled=0.25 says
how many of each. Late is by a second to three weeks.
Memory holds the vehicles' lives that overlap, about 100 KB each; a life takes 90 days.
Exit status: 0; 1 when something could not be written or sent; 130 when a live play was interrupted.")]
pub(crate) struct Simulate {
    /// Which of the possible histories; 1 unless given, with --live another one each time
    #[arg(long)]
    pub seed: Option<u64>,
    /// How many days it lasts
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub days: u32,
    /// How many vehicles the marketplace buys
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub vehicles: u32,
    /// About how many cars dealers have on offer besides; only their listing events are generated
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub stock: u32,
    /// So many times as many vehicles, and everything that follows them
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub scale: u32,
    /// First day; 2026-01-01 unless given, with --live the one from which the history lasts until now
    #[arg(long, value_parser = parse_date)]
    pub start: Option<i64>,
    /// How events are written: canonical, snake_case, business or cloudevents
    #[arg(long, default_value = "canonical", value_parser = parse_style)]
    pub envelope: Style,
    /// What befalls events on their way: shares of duplicates, late, malformed and shuffled
    #[arg(long, value_name = "SHARES", num_args = 0..=1, default_missing_value = BAD_DAY)]
    pub disorder: Option<Disorder>,
    /// Write what happened to this file, as JSON: counts, malformed lines, listings as they end, KPIs by day (UTC)
    #[arg(long, value_name = "FILE")]
    pub truth: Option<PathBuf>,
    /// Where to write the events, one per line, compressed for .zst; - is standard output
    #[arg(short, long, default_value = "-")]
    pub output: PathBuf,
    /// Send the events to a running server at a steady rate instead
    #[arg(long, conflicts_with = "output")]
    pub live: bool,
    /// Events a second, with --live
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub rate: u32,
    /// The server to send them to
    #[arg(long, default_value = DEFAULT_URL, env = "FORECOURT_URL")]
    pub to: String,
}

#[derive(Clone, Debug, Args)]
#[command(after_help = "\
  forecourt sql 'SELECT count(*) FROM inventory.vehicle_sold'
  forecourt sql --format parquet 'SELECT listing_id, price FROM inventory.price_set' > prices.parquet
  forecourt sql --as-of 2026-11-02T08:30:00Z 'SELECT max(price) FROM inventory.price_set'
  forecourt sql --data data 'SELECT count(*) FROM lake.events'       a folder that no server uses
  forecourt sql                                                      a shell: \\? tells what it can do
  forecourt sql < report.sql                                         every statement of a file
Every event type is a view: its context, a dot, its name in snake_case. lake.events has them all.")]
pub(crate) struct Sql {
    /// A SELECT; without one, a shell, or what standard input says
    pub query: Option<String>,
    /// How to print the rows
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
    /// Most rows to fetch; 10000 in a table or JSON unless given, else all
    #[arg(long)]
    pub limit: Option<usize>,
    /// Answer as of an earlier position, or a time of the log
    #[arg(long, value_name = "POSITION|TIME")]
    pub as_of: Option<String>,
    /// Seconds it may take
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub timeout: u64,
    /// Answer only when the server reflects this position
    #[arg(long)]
    pub min_position: Option<u64>,
    /// Ask the folder of a server that does not run
    #[arg(long, conflicts_with = "min_position")]
    pub data: Option<PathBuf>,
    /// A folder of more catalogue files, with --data
    #[arg(long, value_name = "DIR", env = "FORECOURT_CATALOGUE")]
    pub catalogue: Option<PathBuf>,
    #[command(flatten)]
    pub kpis: KpiSettings,
    /// The server to ask
    #[arg(long, default_value = DEFAULT_URL, env = "FORECOURT_URL")]
    pub to: String,
}

#[derive(Debug, Args)]
#[command(after_help = "\
  forecourt verify                              a running server, as it stands
  forecourt verify --data data                  a folder that no server uses
  forecourt verify --truth truth.json           also what happened, as simulate --truth kept it
Looks at every position of the log, every event id, every table, listing and KPI bucket; changes nothing.
Exit status: 0 when all of it holds, 1 with what differs.")]
pub(crate) struct Verify {
    /// The folder of a server that does not run
    #[arg(long, conflicts_with_all = ["min_position", "truth"])]
    pub data: Option<PathBuf>,
    /// The ledger of the history that the server holds, and nothing else
    #[arg(long, value_name = "FILE")]
    pub truth: Option<PathBuf>,
    /// Begin when the server reflects this position
    #[arg(long)]
    pub min_position: Option<u64>,
    /// Folder of catalogue files (*.toml) with contexts of your own
    #[arg(long, env = "FORECOURT_CATALOGUE", requires = "data")]
    pub catalogue: Option<PathBuf>,
    /// The server to verify
    #[arg(long, default_value = DEFAULT_URL, env = "FORECOURT_URL")]
    pub to: String,
}

#[derive(Debug, Args)]
#[command(after_help = "\
  forecourt maintain --dry-run                  what there is to do, on a running server
  forecourt maintain                            do it
  forecourt maintain --data data --retention short=7d
A running server does all of this by itself, a piece at a time; nothing waits for it. Files that were merged or emptied are
kept for a day, for readers of an older version; --keep-old-files 0s deletes them at once, but for those that a query of
the server still reads.
Exit status: 0 when it is done, 1 otherwise.")]
pub(crate) struct Maintain {
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// How long files are kept that no table has any more, such as 12h
    #[arg(long, default_value = "1d", value_parser = parse_duration)]
    pub keep_old_files: Duration,
    /// The folder of a server that does not run
    #[arg(long)]
    pub data: Option<PathBuf>,
    /// How long events are kept, as for up, with --data; a running server has its own
    #[arg(long, default_value_t, env = "FORECOURT_RETENTION", value_name = "CLASS=TIME,...")]
    pub retention: RetentionPolicy,
    /// A folder of more catalogue files, with --data
    #[arg(long, env = "FORECOURT_CATALOGUE")]
    pub catalogue: Option<PathBuf>,
    #[command(flatten)]
    pub kpis: KpiSettings,
    /// The server to maintain
    #[arg(long, default_value = DEFAULT_URL, env = "FORECOURT_URL")]
    pub to: String,
}

#[derive(Debug, Args)]
pub(crate) struct CatalogueCommand {
    /// Folder of catalogue files (*.toml) with contexts of your own
    #[arg(long, env = "FORECOURT_CATALOGUE", global = true)]
    pub catalogue: Option<PathBuf>,
    #[command(subcommand)]
    pub action: CatalogueAction,
}

#[derive(Debug, Args)]
#[command(after_help = "\
A KPI is a SQL file: a header of `-- key: value` lines says what it is, and a query returns the facts it counts, each with
the time `at` which it counts. `forecourt kpi show sales_volume` prints one to begin with. Some need a number that only you
know, such as --kpi-number market_size=42000 (forecourt kpi show market_share).
  forecourt kpi check --kpis ours && forecourt up --kpis ours")]
pub(crate) struct KpiCommand {
    #[command(subcommand)]
    pub action: KpiAction,
    #[command(flatten)]
    pub kpis: KpiSettings,
    /// Folder of catalogue files (*.toml) with contexts of your own
    #[arg(long, global = true, env = "FORECOURT_CATALOGUE")]
    pub catalogue: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KpiAction {
    /// Every KPI, a line each
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// One KPI: its definition, values, dimensions and query
    Show {
        name: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Whether every KPI can be computed; what is wrong is told with its file and line
    #[command(after_help = "Exit status: 0 when all can, 1 otherwise.")]
    Check,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CatalogueAction {
    /// Every event, a line each
    List {
        /// Only this context
        #[arg(long)]
        context: Option<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// One event: its fields, and an example in every envelope
    #[command(after_help = "\
  forecourt catalogue show PriceSet
  forecourt catalogue show shop.OrderPlaced --envelope cloudevents > order.json")]
    Show {
        /// Its name, or context.Name where contexts share it
        name: String,
        /// Print only the example, in this envelope: canonical, snake_case, business or cloudevents
        #[arg(long)]
        envelope: Option<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Whether the catalogue is valid; with --against, whether it still takes what an earlier one took
    #[command(after_help = "\
  forecourt catalogue check --catalogue ours --against last-release/ours
Exit status: 0 when it is, 1 otherwise.")]
    Check {
        /// Folder of an earlier catalogue's files
        #[arg(long)]
        against: Option<PathBuf>,
    },
    /// The catalogue as documents for others
    #[command(after_help = "\
  forecourt catalogue export --as json-schema -o schemas/      a file per event and version, JSON Schema 2020-12
  forecourt catalogue export --as asyncapi -o asyncapi.json    the log as an API, AsyncAPI 3.0
  forecourt catalogue export --as markdown -o dictionary.md    the data dictionary")]
    Export {
        /// Which documents
        #[arg(long = "as", value_enum)]
        form: ExportForm,
        /// Where to: a folder for json-schema, a file otherwise; - is standard output
        #[arg(short, long, default_value = "-")]
        output: PathBuf,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportForm {
    JsonSchema,
    Asyncapi,
    Markdown,
}

#[derive(Debug, Args)]
pub(crate) struct NatsContextCommand {
    /// The server's folder
    #[arg(long, default_value = "data", env = "FORECOURT_DATA")]
    pub data: PathBuf,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DeadLettersCommand {
    /// The server to ask
    #[arg(long, default_value = DEFAULT_URL, env = "FORECOURT_URL", global = true)]
    pub to: String,
    #[command(subcommand)]
    pub action: DeadLettersAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeadLettersAction {
    /// The latest, and how many there are by reason
    List {
        /// open, retried, dropped or all
        #[arg(long, default_value = "open")]
        status: String,
        /// Only those with this reason, such as missing_field
        #[arg(long)]
        reason: Option<String>,
        /// Most to show
        #[arg(long, default_value_t = 20)]
        limit: usize,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// One of them, with its bytes
    Show {
        /// Its position
        position: u64,
    },
    /// Send them through the door again; what is accepted now is closed
    Retry(Chosen),
    /// Publish an event in the place of one of them, and close it; its own bytes stay
    Correct {
        /// Its position
        position: u64,
        /// A file with the event as it should have been; standard input unless given
        file: Option<PathBuf>,
    },
    /// Close them without their events; who did it and when stays on record
    Drop {
        #[command(flatten)]
        chosen: Chosen,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// Which open dead letters.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Chosen {
    /// These, by position
    pub positions: Vec<u64>,
    /// All with this reason
    #[arg(long)]
    pub reason: Option<String>,
    /// All
    #[arg(long)]
    pub all: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns
    Table,
    /// One object: columns, rows, and what they reflect
    Json,
    /// An object per line
    Ndjson,
    /// RFC 4180, with a header
    Csv,
    /// Arrow's IPC stream
    Arrow,
    Parquet,
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    retention::duration(text).ok_or_else(|| "a number and a unit: 90s, 15m, 12h, 30d or 7y".to_owned())
}

fn parse_style(text: &str) -> Result<Style, String> {
    STYLES.iter().find(|envelope| envelope.name == text).map(|envelope| envelope.style).ok_or_else(|| {
        let names: Vec<_> = STYLES.iter().map(|envelope| envelope.name).collect();
        format!("one of {}", names.join(", "))
    })
}

/// Microseconds since 1970 of a date's midnight, UTC.
fn parse_date(text: &str) -> Result<i64, String> {
    let is_date = text.len() == "2026-01-01".len();
    let micros = is_date.then(|| schemas::field_type::parse_timestamp(text)).flatten();
    micros.ok_or_else(|| "a date such as 2026-01-01".to_owned())
}
