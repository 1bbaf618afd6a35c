use std::{io::Write, path::PathBuf, sync::Arc};

use schemas::Catalogue;
use serde_json::{Value, json};

use super::{
    ImportReport, Refused, import,
    mapping::Mapping,
    source::{Row, Source},
};

const LISTINGS: &str = r#"
name = "lot"
title = "A lot"
listed_at = "2024-05-01T00:00:00Z"
missing = ["", "-"]

[fields]
make = { column = "Make", required = true, values = { Chevy = "Chevrolet" } }
model = { column = "Model", required = true }
year = { column = "Year", required = true }
mileage = { column = "Miles", unit = "miles", remove = "," }
doors = { column = "Doors", extract = '^(\d+) doors$' }
price = { column = "Price", remove = "$," }
currency = { value = "USD" }
"#;

const STORY: &str = r#"
name = "auction"
title = "An auction"
id = "lot"
missing = [""]

[story]
time = "day"
column = "what"
steps = { new = "listed", priced = "priced", gone = "withdrawn", back = "published", sold = "sold" }

[fields]
make = { column = "make" }
price = { column = "price" }
"#;

/// What a CSV text becomes: the events, the report, and the refused rows.
fn imported(mapping: &str, csv: &str) -> (Vec<Value>, ImportReport, Vec<Refused>) {
    let catalogue = Catalogue::embedded().unwrap();
    let mapping = Mapping::parse(&catalogue, "lot.toml", mapping).unwrap();
    let (mut output, mut refused) = (Vec::new(), Vec::new());
    let (_folder, path) = file("csv", csv.as_bytes());
    let source = Source::open(&path).unwrap();
    let report = import(&catalogue, &mapping, source, &mut output, &mut |row| refused.push(row)).unwrap();
    let events = String::from_utf8(output).unwrap();
    (events.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), report, refused)
}

fn file(ending: &str, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(format!("rows.{ending}"));
    std::fs::File::create(&path).unwrap().write_all(bytes).unwrap();
    (folder, path)
}

#[test]
fn a_row_becomes_the_events_that_describe_price_and_publish_it() {
    let csv = "Make,Model,Year,Miles,Doors,Price\nChevy,Malibu,2019,\"10,000\",4 doors,\"$15,500.50\"\n";
    let (events, report, refused) = imported(LISTINGS, csv);
    assert_eq!(refused, []);
    assert_eq!((report.rows, report.listings, report.events), (1, 1, 4));
    let told: Vec<(&str, &str)> =
        events.iter().map(|e| (e["eventType"].as_str().unwrap(), e["timestamp"].as_str().unwrap())).collect();
    assert_eq!(
        told,
        [
            ("acquisition.VehicleDetailsSubmitted", "2024-05-01T00:00:00Z"),
            ("inventory.VehicleListingCreated", "2024-05-01T00:00:00.001Z"),
            ("inventory.PriceSet", "2024-05-01T00:00:00.002Z"),
            ("inventory.ListingPublished", "2024-05-01T00:00:00.003Z"),
        ]
    );
    let listing = &events[1]["data"]["listingId"];
    let vehicle = &events[0]["data"]["vehicleId"];
    assert_eq!(
        events[0]["data"],
        json!({"vehicleId": vehicle, "make": "Chevrolet", "model": "Malibu", "year": 2019, "mileage": 16_093, "doors": 4})
    );
    assert_eq!(events[1]["data"]["title"], "2019 Chevrolet Malibu");
    assert_eq!(
        events[2]["data"],
        json!({"listingId": listing, "vehicleId": vehicle, "price": 15_500.5, "currency": "USD"})
    );
}

#[test]
fn a_row_of_no_use_is_refused_with_its_line_and_reason() {
    let csv = "Make,Model,Year,Miles,Doors,Price\n\
        Honda,Civic,2018,1,4 doors,9000\n\
        Honda,Civic,2018,1,4 doors,9000\n\
        -,Civic,2018,1,4 doors,9000\n\
        Honda,Civic,next,1,4 doors,9000\n\
        Honda,Civic,2060,many,4 doors,9000\n\
        Honda,Civic\n\
        Honda,Fit,2017,a few,five,-3\n\
        Honda,HR-V,2017,,,\n";
    let (events, report, refused) = imported(LISTINGS, csv);
    let told: Vec<(u64, &str, Option<&str>)> =
        refused.iter().map(|row| (row.line, row.code, row.field.as_deref())).collect();
    assert_eq!(
        told,
        [
            (3, "repeated_row", None),
            (4, "missing_field", Some("make")),
            (5, "missing_field", Some("year")),
            (6, "invalid_value", Some("data.year")),
            (7, "wrong_cells", None),
        ]
    );
    assert_eq!(refused[1].message, "Make is \"-\", and is needed");
    assert_eq!((report.rows, report.listings), (8, 3));
    assert_eq!(report.rows, report.listings + report.refused.values().sum::<u64>());
    // What the Fit's row says of these is nothing they can be; the HR-V's says nothing.
    for (field, line, text) in [("mileage", 8, "a few"), ("doors", 8, "five"), ("price", 8, "-3")] {
        assert_eq!((report.left_out[field].rows, report.left_out[field].first_line), (1, line), "{field}");
        assert_eq!(report.left_out[field].first_text, text);
        assert_eq!(report.missing[field], 2, "{field}");
    }
    let priced = events.iter().filter(|event| event["eventType"] == "inventory.PriceSet").count();
    let detailed = events.iter().filter(|event| event["eventType"] == "acquisition.VehicleDetailsSubmitted").count();
    assert_eq!((priced, detailed), (1, 1));
}

#[test]
fn rows_that_are_steps_tell_a_listings_story_in_the_files_order() {
    let csv = "day,what,lot,make,price\n\
        2024-01-01,new,7,Ford,500\n\
        2024-01-01,priced,7,,450\n\
        2024-01-02,gone,7,,\n\
        2024-01-03,back,7,,400\n\
        2024-01-04,sold,7,,390\n\
        2024-01-04,gone,8,,\n\
        2024-01-04,priced,7,,\n\
        2024-01-04,lost,7,,\n\
        soon,gone,7,,\n\
        2024-01-05 10:00:00,priced,7,,-5\n\
        2024-01-02,gone,7,,\n\
        2024-01-05 10:00:00,back,7,,\n";
    let (events, report, refused) = imported(STORY, csv);
    let told: Vec<(&str, &str)> = events
        .iter()
        .map(|event| {
            let name = event["eventType"].as_str().unwrap().split_once('.').unwrap().1;
            (name, event["timestamp"].as_str().unwrap())
        })
        .collect();
    assert_eq!(
        told,
        [
            ("VehicleListingCreated", "2024-01-01T00:00:00Z"),
            ("PriceSet", "2024-01-01T00:00:00.001Z"),
            ("ListingPublished", "2024-01-01T00:00:00.002Z"),
            ("PriceSet", "2024-01-01T00:00:00.010Z"),
            ("ListingDeactivated", "2024-01-02T00:00:00Z"),
            ("PriceSet", "2024-01-03T00:00:00Z"),
            ("ListingPublished", "2024-01-03T00:00:00.001Z"),
            ("VehicleSold", "2024-01-04T00:00:00Z"),
            ("ListingPublished", "2024-01-05T10:00:00.010Z"),
        ]
    );
    assert!(events.iter().all(|event| event["data"]["listingId"] == "auction-7"));
    let codes: Vec<(u64, &str)> = refused.iter().map(|row| (row.line, row.code)).collect();
    assert_eq!(
        codes,
        [
            (7, "unknown_listing"),
            (8, "missing_field"),
            (9, "unknown_step"),
            (10, "invalid_time"),
            (11, "invalid_value"),
            (12, "repeated_row")
        ]
    );
    assert_eq!((report.rows, report.listings, report.events), (12, 1, 9));
}

#[test]
fn a_cell_that_is_no_text_and_an_id_that_comes_again_are_their_rows_fault() {
    let catalogue = Catalogue::embedded().unwrap();
    let mapping = LISTINGS.replace("listed_at", "id = \"Doors\"\nlisted_at");
    let mapping = Mapping::parse(&catalogue, "lot.toml", &mapping).unwrap();
    let (_folder, path) = file(
        "csv",
        b"Make,Model,Year,Miles,Doors,Price\nA,B,2010,1,4 doors,5\nA,\xeb,2010,1,5 doors,5\nA,C,2011,1,4 doors,5\n",
    );
    let (mut output, mut refused) = (Vec::new(), Vec::new());
    let source = Source::open(&path).unwrap();
    let report =
        import(&catalogue, &mapping, source, &mut output, &mut |row| refused.push((row.line, row.code))).unwrap();
    assert_eq!(refused, [(3, "invalid_utf8"), (4, "repeated_id")]);
    assert_eq!((report.rows, report.listings), (3, 1));
}

#[test]
fn the_same_rows_have_the_same_ids_wherever_they_stand() {
    let ids = |csv: &str| {
        let (events, ..) = imported(LISTINGS, csv);
        let mut ids: Vec<String> = events.iter().map(|event| event["eventId"].to_string()).collect();
        ids.sort_unstable();
        ids
    };
    let (head, a, b) = ("Make,Model,Year,Miles,Doors,Price\n", "A,B,2010,1,,5\n", "C,D,2011,2,,6\n");
    let once = ids(&format!("{head}{a}{b}"));
    assert_eq!(once, ids(&format!("{head}{b}{a}")));
    let distinct: std::collections::BTreeSet<_> = once.iter().collect();
    assert_eq!(distinct.len(), once.len());
}

#[test]
fn parquet_reads_as_its_text() {
    use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray};
    let columns: [(&str, ArrayRef); 2] = [
        ("make", Arc::new(StringArray::from(vec![Some("Ford"), None]))),
        ("price", Arc::new(Float64Array::from(vec![Some(450.0), None]))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut bytes = Vec::new();
    let mut writer = parquet::arrow::ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let (_folder, path) = file("parquet", &bytes);
    let source = Source::open(&path).unwrap();
    assert_eq!(source.columns, ["make", "price"]);
    let rows: Vec<Row> = source.rows.map(Result::unwrap).collect();
    let row = |line, cells: [&str; 2]| Row { line, cells: Some(cells.map(str::to_owned).into()) };
    assert_eq!(rows, [row(1, ["Ford", "450.0"]), row(2, ["", ""])]);
}

#[test]
fn a_mapping_that_cannot_be_used_says_why() {
    let catalogue = Catalogue::embedded().unwrap();
    let check = |text: &str, expected: &str| {
        let error = Mapping::parse(&catalogue, "m.toml", text).unwrap_err().to_string();
        assert!(error.starts_with("m.toml: ") && error.contains(expected), "{error}");
    };
    let head = "name = \"m\"\ntitle = \"\"\nlisted_at = \"2024-05-01\"\n[fields]\n";
    check("name = 1", "line 1");
    check(&format!("{head}pace = {{ column = \"a\" }}"), "fields.pace is not in a listing");
    check(&format!("{head}make = {{ column = \"a\", value = \"b\" }}"), "either a column or a value");
    check(&format!("{head}make = {{ column = \"a\", extract = \"(\" }}"), "fields.make.extract");
    check(&format!("{head}make = {{ column = \"a\", extract = \"a\" }}"), "exactly one group");
    check(&head.replace("2024-05-01", "soon"), "listed_at \"soon\"");
    check(&head.replace("listed_at = \"2024-05-01\"\n", ""), "either listed_at or [story]");
    check(&head.replace("\"m\"", "\"m n\""), "letters, digits and hyphens");
}

#[test]
fn the_shipped_mappings_can_be_used() {
    let catalogue = Catalogue::embedded().unwrap();
    let names: Vec<String> = Mapping::shipped(&catalogue).unwrap().into_iter().map(|mapping| mapping.name).collect();
    assert_eq!(names, ["australia", "uk", "new-zealand"]);
}
