//! What is derived from the log.
//!
//! In the direction the data flows:
//!
//! - [`data_format`]: whether this version can use a data folder;
//! - [`decode`]: messages become rows by context, duplicates and dead letters;
//! - [`pipeline`]: reads the log, decodes once, and feeds the sinks, each of which keeps its own position;
//! - `dead_letter_copy`: the copy of what was no event, in a stream of its own;
//! - [`listing_fold`]: events become facts, and facts become listings: pure;
//! - [`listings`]: the sink that keeps the index;
//! - [`log_watch`]: what the log is, and how far the lake is behind;
//! - [`kpi_definition`]: a KPI as a SQL file;
//! - [`calendar`]: buckets of time, in any time zone;
//! - [`kpis`]: the sink that keeps the board;
//! - [`derived_tables`]: what stands now and the KPIs, as tables of SQL;
//! - `index_keeper`: the task around it; `freeing`: of snapshots that are not shown any more;
//! - `upkeep`: events past their time are taken out of the lake, small files become larger ones, and old ones go;
//!   [`maintenance`]: all of that on demand;
//! - [`verify`]: the proof that all of it is what the log says.

pub mod calendar;
pub mod data_format;
mod dead_letter_copy;
pub mod decode;
pub mod derived_tables;
mod freeing;
mod index_keeper;
pub mod kpi_definition;
pub mod kpis;
pub mod listing_fold;
pub mod listings;
pub mod log_watch;
pub mod maintenance;
pub mod pipeline;
mod upkeep;
pub mod verify;

pub use data_format::{FormatAccess, FormatError, open_data_folder};
pub use kpi_definition::{KpiDefinition, KpiNumber};
pub use kpis::{Board, KpiError, KpiService, SeriesKey};
pub use log_watch::LogStatus;
pub use maintenance::{Maintained, Maintenance, MaintenanceOrder};
pub use pipeline::{Pipeline, PipelineConfig, PipelineError};
