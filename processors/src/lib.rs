//! What is derived from the log.
//!
//! In the direction the data flows:
//!
//! - [`data_format`]: whether this version can use a data folder;
//! - [`decode`]: messages become rows by context, duplicates and dead letters; `decoder`: with retries;
//! - [`pipeline`]: reads the log, decodes once, and feeds the sinks, each of which keeps its own position;
//! - `dead_letter_copy`: the copy of what was no event, in a stream of its own;
//! - [`listing_fold`]: events become facts, and facts become listings: pure;
//! - [`listings`]: the sink that keeps the index;
//! - [`log_watch`]: what the log is, and how far the lake is behind;
//! - [`kpi_definition`]: a KPI as a SQL file;
//! - [`calendar`]: buckets of time, in any time zone;
//! - [`kpis`]: the KPI sink: a cache of the series in use;
//! - [`derived_tables`]: what stands now and the KPIs, as tables of SQL;
//! - `index_keeper`: the task around it; `freeing`: of snapshots that are not shown any more;
//! - `maintenance_scheduler`: retention, compaction and vacuum of the lake; [`maintenance`]: all three on demand, with a
//!   `table_report` per table;
//! - `error`: errors that end the pipeline; `gauges`: positions as metrics;
//! - [`verify`]: the proof that all of it is what the log says.

pub mod calendar;
pub mod data_format;
mod dead_letter_copy;
pub mod decode;
mod decoder;
pub mod derived_tables;
mod error;
mod freeing;
mod gauges;
mod index_keeper;
pub mod kpi_definition;
pub mod kpis;
pub mod listing_fold;
pub mod listings;
pub mod log_watch;
pub mod maintenance;
mod maintenance_scheduler;
pub mod pipeline;
mod table_report;
pub mod verify;

pub use data_format::{FormatAccess, FormatError, open_data_folder};
pub use error::PipelineError;
pub use kpi_definition::{KpiDefinition, KpiNumber};
pub use kpis::{KpiCache, KpiError, KpiService, SeriesKey};
pub use log_watch::LogStatus;
pub use maintenance::{Maintenance, MaintenanceOptions};
pub use pipeline::{Pipeline, PipelineConfig};
pub use table_report::TableReport;
