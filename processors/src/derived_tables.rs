//! Tables of SQL beside the events: where things stand (`current`), and the KPIs by day (`kpi`).
//!
//! Most are queries of their own over the events, so they are right at every cut. `current.listings` is what search
//! shows, and is as of the index's position.

use std::sync::Arc;

use arrow::{
    array::RecordBatch,
    datatypes::{DataType, Field, Schema, SchemaRef},
    error::ArrowError,
};
use datafusion::{datasource::MemTable, error::DataFusionError, logical_expr::ScalarUDF};
use lake::ExtraTable;
use schemas::columns::timestamp_type;
use search_index::{IndexError, Listing, ListingSnapshot};
use serde_json::{Value, json};

use crate::{
    kpi_definition::KpiDefinition,
    kpis::{DAYS, all_time, bucket_function},
};

/// The schema of what stands now, and its table of listings.
pub const CURRENT: &str = "current";
pub const LISTINGS: &str = "listings";
const KPI: &str = "kpi";
const OFFERS: &str = include_str!("../current/offers.sql");
const VEHICLES: &str = include_str!("../current/vehicles.sql");

/// Every table that is a query over the events.
#[must_use]
pub fn derived_tables(definitions: &[KpiDefinition]) -> Vec<ExtraTable> {
    let current = [("offers", OFFERS), ("vehicles", VEHICLES)].map(|(name, sql)| {
        let meaning = sql.lines().next().map_or("", |line| line.trim_start_matches("-- "));
        ExtraTable::query(CURRENT, name, meaning, sql, Vec::new(), all_time())
    });
    let kpis = definitions.iter().map(|kpi| {
        let meaning = format!("{} by day, in UTC. {}", kpi.title, kpi.definition);
        let function = ScalarUDF::new_from_impl(bucket_function::Bucket::new(DAYS));
        ExtraTable::query(KPI, &kpi.name, &meaning, &kpi.sql, vec![function], all_time())
    });
    current.into_iter().chain(kpis).collect()
}

/// Listings that cannot be shown as a table.
#[derive(Debug, thiserror::Error)]
pub enum ListingsTableError {
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error("listings do not fit their columns")]
    Rows(#[from] ArrowError),
    #[error("listings cannot be queried")]
    Engine(#[from] DataFusionError),
}

/// A listing as a row: amounts in their currency, photos counted.
fn row(listing: &Listing) -> Value {
    let amount = |cents: Option<i64>| cents.map(|cents| format!("{}.{:02}", cents / 100, cents % 100));
    let mut row = json!(listing);
    row["price"] = json!(amount(listing.price_cents));
    row["sold_price"] = json!(amount(listing.sold_price_cents));
    row["photos"] = json!(listing.photos.len());
    row
}

/// `current.listings`: one row per listing, public or not, as the index has it. Reads all of it.
///
/// # Errors
/// When the index cannot be read.
pub fn listings_table(snapshot: &ListingSnapshot) -> Result<ExtraTable, ListingsTableError> {
    let rows: Vec<Value> = snapshot.every_listing()?.iter().map(row).collect();
    let schema = listing_columns();
    let mut decoder =
        arrow_json::ReaderBuilder::new(Arc::clone(&schema)).with_batch_size(rows.len().max(1)).build_decoder()?;
    decoder.serialize(&rows)?;
    let batch = decoder.flush()?.unwrap_or_else(|| RecordBatch::new_empty(Arc::clone(&schema)));
    let table = MemTable::try_new(schema, vec![vec![batch]])?;
    let meaning = "Listings as search knows them: one row per listing, public or not, as it stands now.";
    Ok(ExtraTable::provider(CURRENT, LISTINGS, meaning, Arc::new(table)))
}

fn listing_columns() -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let whole = |name: &str| Field::new(name, DataType::Int64, true);
    let real = |name: &str| Field::new(name, DataType::Float64, true);
    let time = |name: &str| Field::new(name, timestamp_type(), true);
    let money = |name: &str| Field::new(name, DataType::Decimal128(12, 2), true);
    let truth = |name: &str| Field::new(name, DataType::Boolean, true);
    let features = Field::new("item", DataType::Utf8, true);
    Arc::new(Schema::new(vec![
        text("listing_id"),
        text("vehicle_id"),
        text("status"),
        truth("unavailable"),
        time("reserved_until"),
        text("title"),
        text("vin"),
        text("make"),
        text("model"),
        text("trim"),
        whole("year"),
        money("price"),
        text("currency"),
        whole("mileage"),
        text("condition"),
        text("body_type"),
        text("fuel_type"),
        text("transmission"),
        text("drivetrain"),
        text("engine"),
        text("color"),
        text("interior_color"),
        whole("doors"),
        whole("seats"),
        Field::new("features", DataType::List(Arc::new(features)), true),
        whole("photos"),
        text("dealer_id"),
        text("dealer_name"),
        text("city"),
        text("province"),
        text("country"),
        real("latitude"),
        real("longitude"),
        truth("certified"),
        text("history_status"),
        whole("owner_count"),
        time("featured_from"),
        time("featured_to"),
        time("listed_at"),
        time("sold_at"),
        money("sold_price"),
        text("description"),
    ]))
}
