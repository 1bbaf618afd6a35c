//! Where events live: Delta tables on disk, the tail in memory, and SQL over both at one cut.
//!
//! - `table_spec`: a table's columns and partitions; [`table`]: one Delta table, whose commits carry rows and position together;
//! - [`lake`]: all tables, the tail, and when it is flushed;
//! - `error`: errors of reading and writing the lake;
//! - [`commits`]: what is written while the lake goes on: flushes, merged files;
//! - `durable_store`: files are on the disk before anybody sees them;
//! - `commit_failures`: tables whose commits are failing;
//! - [`compaction`]: small files become larger ones, beside the commits;
//! - [`retirement`]: events past their time are taken out, and noted;
//! - [`forecast`]: what maintenance would do;
//! - [`view`]: an immutable cut of everything, which every query reads;
//! - [`audit`]: whether a table's files hold what it says of them;
//! - [`session`]: SQL over a view, read-only and within limits; its tables ([`sql_catalog`]) and errors ([`sql_error`]);
//! - `statement_guard`: refuses statements that change something; `row_stream`: the rows of a running query;
//! - `row_reader`: whether a query's rows are read;
//! - [`plain_texts`]: texts are views inside a query, and plain when they leave it;
//! - [`table_description`]: a table as clients see it; [`sql_type`]: SQL names of types; `schema_names`;
//! - [`description`]: what the tables mean; and `information_schema` and `pg_catalog`, which tell clients;
//! - [`result_format`]: a query's result as it is sent: JSON, CSV, Arrow, Parquet;
//! - [`event_json`]: an event's payload as JSON, from its columns;
//! - [`result_json`]: a query's result as JSON.

pub mod audit;
mod catalogue_questions;
mod commit_failures;
pub mod commits;
mod committed_rows;
pub mod compaction;
mod cut_table;
pub mod description;
mod durable_store;
mod error;
pub mod event_json;
pub mod forecast;
pub mod lake;
pub mod ledger;
pub mod letters;
pub mod plain_texts;
pub mod result_format;
pub mod result_json;
pub mod retirement;
mod rewrite;
mod row_reader;
mod row_stream;
mod runaway;
mod schema_names;
pub mod session;
pub mod sql_catalog;
pub mod sql_error;
pub mod sql_type;
mod standard_schemas;
mod statement_guard;
pub mod table;
pub mod table_description;
mod table_spec;
pub mod view;

pub use audit::Audit;
pub use commit_failures::CommitFailures;
pub use commits::{Applied, Apply, Flush, Flushed, Freeze, Frozen, Vacuum, Vacuumed};
pub use compaction::{Compacted, Compaction, CompactionError, Eagerness};
pub use durable_store::create_durable_folder;
pub use error::LakeError;
pub use forecast::{Forecast, Forecasting, TableFiles};
pub use lake::{Lake, LakeConfig, folder_url, maintenance::Rewritten};
pub use result_format::ResultFormat;
pub use retirement::{Retired, Retirement};
pub use row_reader::RowReader;
pub use row_stream::{QueryLimits, QueryRows};
pub use session::{Prepared, Spill, SqlSession, Statement};
pub use sql_catalog::{ColumnMeaning, ExtraTable};
pub use sql_error::SqlError;
pub use table::KEEP_FOR;
pub use view::LakeView;

/// The format of the tables and of what their files hold; a change of it migrates older ones.
pub const LAKE_FORMAT: u32 = 2;
/// The format of the rows that keep what KPIs said of expired events.
pub const KPI_SNAPSHOT_FORMAT: u32 = 1;

/// What callers need of the query engine: the arrays a result is made of, the values of a statement's parameters, and
/// what a statement is made of.
pub use datafusion::{arrow, common::ParamValues, sql::sqlparser};
