//! The names of the SQL catalog and of the schemas that no event context has.

/// The catalog of all tables, and the database that Postgres clients connect to.
pub(crate) const DATABASE: &str = "forecourt";
/// The schema of unqualified table names.
pub(crate) const DEFAULT_SCHEMA: &str = "lake";
/// The schema of tables about the log and the lake.
pub(crate) const SYSTEM: &str = "system";
pub(crate) const INFORMATION_SCHEMA: &str = "information_schema";
pub(crate) const PG_CATALOG: &str = "pg_catalog";
