//! Tables of SQL beside the events: where things stand (`current`), and the KPIs by day (`kpi`).
//!
//! Most are queries of their own over the events, so they are right at every cut. `current.listings` is what search
//! shows, and is as of the index's position.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray},
    datatypes::{DataType, Field, Schema},
    error::ArrowError,
};
use datafusion::{datasource::MemTable, error::DataFusionError};
use lake::{ColumnMeaning, ExtraTable};
use schemas::{Position, columns::timestamp_type, field_type::UTC};
use search_index::{IndexError, Listing, ListingSnapshot};
use serde_json::{Value, json};

use crate::{
    kpi_definition::{BucketBy, KpiDefinition, KpiValue, Measures},
    kpis::{DAYS, all_time, bucket_function},
};

/// The schema of what stands now, and its table of listings.
pub const CURRENT: &str = "current";
pub const LISTINGS: &str = "listings";
/// The schema of the system itself, and its table of positions.
pub const SYSTEM: &str = "system";
pub const POSITIONS: &str = "positions";
const KPI: &str = "kpi";
const OFFERS: &str = include_str!("../current/offers.sql");
const VEHICLES: &str = include_str!("../current/vehicles.sql");

/// Every table beside the events. The rows of listings and positions come with the question.
#[must_use]
pub fn derived_tables(definitions: &[KpiDefinition]) -> Vec<ExtraTable> {
    let current = [("offers", OFFERS), ("vehicles", VEHICLES)].map(|(name, sql)| {
        let (meaning, columns) = header(sql);
        ExtraTable::query(CURRENT, name, &meaning, columns, sql, Vec::new(), all_time())
    });
    let kpis = definitions.iter().map(|kpi| {
        let meaning = format!("{} by day, in UTC. {}", kpi.title, kpi.definition);
        let bucket = ColumnMeaning { name: "bucket".to_owned(), meaning: "The day.".to_owned(), unit: None };
        let values = kpi.values.iter().map(|value| ColumnMeaning {
            name: value.name.clone(),
            meaning: value.meaning.clone(),
            unit: Some(value.unit.clone()),
        });
        let columns = [bucket].into_iter().chain(values).collect();
        let functions = bucket_function::functions(DAYS, 1);
        ExtraTable::query(KPI, &kpi.name, &meaning, columns, &by_day(kpi), functions, all_time())
    });
    current.into_iter().chain(kpis).chain([listings(), positions()]).collect()
}

/// A KPI's values of each day, or at its end.
fn by_day(kpi: &KpiDefinition) -> String {
    let values = |of: &dyn Fn(&KpiValue) -> String| -> String {
        let values: Vec<String> =
            kpi.values.iter().map(|value| format!("{} AS \"{}\"", of(value), value.name)).collect();
        values.join(", ")
    };
    // Days that have lost events are as they were.
    let kept = format!(
        "FROM system.kpi_history AS kept WHERE kept.kpi = '{}' AND kept.grain = 'day' AND kept.dimension IS NULL",
        kpi.name
    );
    let amount = |value: &KpiValue| {
        let kind = if value.is_whole() { "BIGINT" } else { "DOUBLE" };
        format!("CAST(max(kept.amount) FILTER (WHERE kept.measure = '{}') AS {kind})", value.name)
    };
    let days = format!(
        "SELECT live.bucket AS bucket, {} FROM ({}) AS live \
         LEFT ANTI JOIN (SELECT DISTINCT kept.bucket AS kept_bucket {kept}) ON live.bucket = kept_bucket \
         UNION ALL SELECT kept.bucket AS bucket, {} {kept} GROUP BY kept.bucket",
        values(&|value| format!("live.\"{}\"", value.name)),
        kpi.query(&[], &[], BucketBy::Time),
        values(&amount)
    );
    match kpi.measures {
        Measures::Flow => days,
        Measures::Level => {
            let level = |value: &KpiValue| format!("sum(\"{}\") OVER (ORDER BY bucket)", value.name);
            format!("SELECT bucket, {} FROM ({days})", values(&level))
        }
    }
}

/// What a file's header says of its table and columns: `-- definition: …`, `-- column: name; …`.
fn header(sql: &str) -> (String, Vec<ColumnMeaning>) {
    let lines = sql.lines().map_while(|line| line.strip_prefix("-- ")).filter_map(|line| line.split_once(": "));
    let (mut definition, mut columns) = (String::new(), Vec::new());
    for (key, text) in lines {
        match (key, text.split_once("; ")) {
            ("column", Some((name, meaning))) => {
                columns.push(ColumnMeaning { name: name.to_owned(), meaning: meaning.to_owned(), unit: None });
            }
            _ => definition = text.to_owned(),
        }
    }
    (definition, columns)
}

fn listings() -> ExtraTable {
    let meaning = "Listings as search knows them: one row per listing, public or not, as it stands now.";
    let missing = "listings are in the index of a running server; ask it";
    ExtraTable::brought(CURRENT, LISTINGS, meaning, listing_columns(), missing)
}

fn positions() -> ExtraTable {
    let columns = vec![
        (Field::new("name", DataType::Utf8, false), "What reflects the log: lake, index or kpis.".to_owned()),
        (Field::new("position", DataType::Int64, false), "The last position it reflects.".to_owned()),
        (Field::new("event_time", timestamp_type(), true), "The latest event time in it.".to_owned()),
    ];
    let missing = "positions are those of a running server; ask it";
    ExtraTable::brought(SYSTEM, POSITIONS, "How far each reader of the log has come.", columns, missing)
}

/// Rows of a table that cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum RowsError {
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error("the rows do not fit their columns")]
    Rows(#[from] ArrowError),
    #[error("the rows cannot be queried")]
    Engine(#[from] DataFusionError),
}

/// `system.positions` with these rows: a name, a position, an event time in microseconds since 1970, UTC.
///
/// # Errors
/// Never: the rows are built to the columns.
pub fn positions_table(rows: &[(&str, Position, Option<i64>)]) -> Result<ExtraTable, RowsError> {
    let times: TimestampMicrosecondArray = rows.iter().map(|(_, _, time)| *time).collect();
    let columns: [(&str, ArrayRef, bool); 3] = [
        ("name", Arc::new(rows.iter().map(|(name, _, _)| Some(*name)).collect::<StringArray>()), false),
        (
            "position",
            Arc::new(rows.iter().map(|(_, position, _)| Some(position.as_i64())).collect::<Int64Array>()),
            false,
        ),
        ("event_time", Arc::new(times.with_timezone(UTC)), true),
    ];
    let batch = RecordBatch::try_from_iter_with_nullable(columns)?;
    Ok(positions().with(Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]])?)))
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
pub fn listings_table(snapshot: &ListingSnapshot) -> Result<ExtraTable, RowsError> {
    let rows: Vec<Value> = snapshot.every_listing()?.iter().map(row).collect();
    let schema = Arc::new(Schema::new(listing_columns().into_iter().map(|(field, _)| field).collect::<Vec<_>>()));
    let mut decoder =
        arrow_json::ReaderBuilder::new(Arc::clone(&schema)).with_batch_size(rows.len().max(1)).build_decoder()?;
    decoder.serialize(&rows)?;
    let batch = decoder.flush()?.unwrap_or_else(|| RecordBatch::new_empty(Arc::clone(&schema)));
    Ok(listings().with(Arc::new(MemTable::try_new(schema, vec![vec![batch]])?)))
}

fn listing_columns() -> Vec<(Field, String)> {
    let of =
        |kind: DataType| move |name: &str, meaning: &str| (Field::new(name, kind.clone(), true), meaning.to_owned());
    let (text, whole, real) = (of(DataType::Utf8), of(DataType::Int64), of(DataType::Float64));
    let (time, money, truth) = (of(timestamp_type()), of(DataType::Decimal128(12, 2)), of(DataType::Boolean));
    let texts = of(DataType::List(Arc::new(Field::new("item", DataType::Utf8, true))));
    vec![
        text("listing_id", "The listing."),
        text("vehicle_id", "The vehicle it offers."),
        text("status", "Where it stands: draft, public, withdrawn, sold or wholesale."),
        truth("unavailable", "Whether it is taken off the market for a while."),
        time("reserved_until", "Until when somebody has reserved it."),
        text("title", "What it is called."),
        text("vin", "The vehicle's identification number."),
        text("make", "Who made the vehicle."),
        text("model", "Its model."),
        text("trim", "Its trim."),
        whole("year", "Its model year."),
        money("price", "What is asked."),
        text("currency", "The currency of its amounts."),
        whole("mileage", "What it has gone (km)."),
        text("condition", "The state it is in."),
        text("body_type", "Its body."),
        text("fuel_type", "What it runs on."),
        text("transmission", "Its gearbox."),
        text("drivetrain", "The wheels that are driven."),
        text("engine", "Its engine."),
        text("color", "Its colour."),
        text("interior_color", "Its colour inside."),
        whole("doors", "Its doors."),
        whole("seats", "Its seats."),
        texts("features", "What it is equipped with."),
        whole("photos", "How many photos there are."),
        text("dealer_id", "Who sells it."),
        text("dealer_name", "Their name."),
        text("city", "Where it stands: the city."),
        text("province", "Where it stands: the province."),
        text("country", "Where it stands: the country."),
        real("latitude", "Where it stands (degrees)."),
        real("longitude", "Where it stands (degrees)."),
        truth("certified", "Whether it was inspected and certified."),
        text("history_status", "What its history report says."),
        whole("owner_count", "How many owners it has had."),
        time("featured_from", "Since when it is promoted."),
        time("featured_to", "Until when it is promoted."),
        time("listed_at", "When it was first shown."),
        time("sold_at", "When it was sold."),
        money("sold_price", "What it was sold for."),
        text("description", "What the seller says of it."),
    ]
}
