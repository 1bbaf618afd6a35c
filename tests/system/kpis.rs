//! KPIs against a count of their own, late events, and how they are asked for.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::{
    door::event,
    support::{Forecourt, Nats, counted, eventually, finish, ingest, run},
};

/// The KPIs of a history by day, as a program that knows nothing of ours counts them.
fn expected(history: &Path) -> BTreeMap<String, BTreeMap<String, BTreeMap<String, Value>>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kpis/oracle.py");
    let counted = Command::new("python3").arg(script).arg(history).output().unwrap();
    assert!(counted.status.success(), "{}", String::from_utf8_lossy(&counted.stderr));
    serde_json::from_slice(&counted.stdout).unwrap()
}

fn same(ours: &Value, theirs: &Value) -> bool {
    match (ours.as_f64(), theirs.as_f64()) {
        (Some(ours), Some(theirs)) => (ours - theirs).abs() <= 1e-9 * theirs.abs().max(1.0),
        _ => ours == theirs,
    }
}

/// What Grafana's dashboard asks has rows, put as Grafana puts it.
async fn panels(forecourt: &Forecourt) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/grafana/provisioning/dashboards/forecourt.json");
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    let at = format!(
        "host=127.0.0.1 port={} user=grafana dbname=forecourt",
        forecourt.postgres().split(':').nth(1).unwrap()
    );
    let (client, connection) = tokio_postgres::connect(&at, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let panels = dashboard["panels"].as_array().unwrap();
    assert_eq!(panels.len(), 8);
    for query in panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap()) {
        let asked = query["rawSql"].as_str().unwrap();
        let sql =
            asked.replace("$__timeFilter(bucket)", "bucket BETWEEN '2000-01-01T00:00:00Z' AND '2100-01-01T00:00:00Z'");
        let rows = client.query(&sql, &[]).await.unwrap();
        assert!(rows.len() > 20 && rows[0].columns()[0].name() == "time", "{sql}: {} rows", rows.len());
    }
}

/// A year that arrives in disorder: repeated, late and shuffled.
#[tokio::test]
async fn every_kpi_of_a_year_is_what_an_independent_count_says_day_by_day() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("year.ndjson");
    let disorder = "duplicates=0.05,late=0.1,shuffled=0.25";
    let arguments = ["simulate", "--seed", "5", "--days", "365", "--vehicles", "150", "--disorder", disorder, "-o"];
    assert!(run(&[&arguments[..], &[file.to_str().unwrap()]].concat()).status.success());
    let nats = Nats::start().await;
    let kpis = folder.path().join("kpis");
    fs::create_dir(&kpis).unwrap();
    fs::write(kpis.join("settings.toml"), "market_size = 42_000").unwrap();
    let told = ["--kpis", kpis.to_str().unwrap()];
    let forecourt = Forecourt::start_with(&nats, &folder.path().join("data"), &told).await;
    let position = counted(&finish(ingest(&file, &forecourt.url)), "position");
    let known = forecourt.get("/v1/kpis").await;
    let known: Vec<&str> = known["kpis"].as_array().unwrap().iter().map(|kpi| kpi["name"].as_str().unwrap()).collect();
    let expected = expected(&file);
    assert_eq!(known.len(), expected.len());
    for (name, days) in expected {
        assert!(days.len() > 20, "{name} has {} days", days.len());
        let ours = forecourt.get(&format!("/v1/kpis/{name}?gaps=omit&min_position={position}&wait_ms=60000")).await;
        let rows = ours["rows"].as_array().unwrap();
        let rows: BTreeMap<&str, &Value> =
            rows.iter().map(|row| (row["bucket"].as_str().unwrap(), &row["values"])).collect();
        if name != "inventory" {
            // What there is, there is on every day.
            assert_eq!(rows.keys().copied().collect::<Vec<_>>(), days.keys().collect::<Vec<_>>(), "{name}");
        }
        for (day, values) in days {
            for (value, theirs) in values {
                let ours = &rows[day.as_str()][&value];
                assert!(same(ours, &theirs), "{name}.{value} of {day}: {ours}, counted {theirs}");
            }
        }
    }
    panels(&forecourt).await;
    let verified = forecourt.client.post(format!("{}/v1/verify?wait_ms=60000", forecourt.url)).send().await.unwrap();
    let verified: Value = verified.json().await.unwrap();
    let kpis = verified["checks"].as_array().unwrap().iter().find(|check| check["name"] == "kpis").unwrap().clone();
    assert!(kpis["checked"].as_u64() > Some(3_000) && kpis["different"] == 0, "{kpis}");
}

fn sale(id: &str, listing: &str, at: &str, price: i64) -> Value {
    let mut sale = event(id, "VehicleSold", listing, json!({"listingId": listing, "soldAt": at, "finalPrice": price}));
    sale["timestamp"] = json!(at);
    sale
}

async fn sold(forecourt: &Forecourt, sales: &[Value]) -> u64 {
    let lines: Vec<String> = sales.iter().map(Value::to_string).collect();
    let (status, report) = forecourt.publish(lines.join("\n")).await;
    assert_eq!(status, StatusCode::OK, "{report}");
    report["position"].as_u64().unwrap()
}

/// What `value` is in each bucket.
fn values<'a>(answer: &'a Value, value: &str) -> Vec<(&'a str, Value)> {
    let rows = answer["rows"].as_array().unwrap();
    rows.iter().map(|row| (row["bucket"].as_str().unwrap(), row["values"][value].clone())).collect()
}

/// A sale every half hour: what a bucket counts is how long it is.
#[tokio::test]
async fn buckets_are_as_long_as_their_days_and_hours_where_clocks_change() {
    let folder = tempfile::tempdir().unwrap();
    let nats = Nats::start().await;
    let forecourt = Forecourt::start(&nats, &folder.path().join("data")).await;
    let mut sales = Vec::new();
    for first in ["2025-12-28", "2026-03-06", "2026-04-03", "2026-10-02", "2026-10-30"] {
        let first: chrono::NaiveDate = first.parse().unwrap();
        for half_hour in 0..6 * 48 {
            let at = first.and_hms_opt(0, 0, 0).unwrap() + chrono::TimeDelta::minutes(30 * half_hour);
            let at = format!("{}Z", at.format("%Y-%m-%dT%H:%M:%S"));
            sales.push(sale(&format!("s-{at}"), &format!("lst-{at}"), &at, 1));
        }
    }
    let position = sold(&forecourt, &sales).await;
    let asked = async |zone: &str, grain: &str, from: &str, to: &str| -> Vec<(String, i64)> {
        let question = format!("timezone={zone}&grain={grain}&from={from}&to={to}&min_position={position}");
        let question = question.replace('+', "%2B");
        let answer = forecourt.get(&format!("/v1/kpis/sales_volume?{question}")).await;
        values(&answer, "units_sold").into_iter().map(|(at, count)| (at.to_owned(), count.as_i64().unwrap())).collect()
    };
    let told = |told: &[(&str, i64)]| told.iter().map(|(at, count)| ((*at).to_owned(), *count)).collect::<Vec<_>>();

    let (toronto, lord_howe, kathmandu) = ("America/Toronto", "Australia/Lord_Howe", "Asia/Kathmandu");
    let spring = asked(toronto, "day", "2026-03-07", "2026-03-10").await;
    assert_eq!(
        spring,
        told(&[
            ("2026-03-07T00:00:00-05:00", 48),
            ("2026-03-08T00:00:00-05:00", 46),
            ("2026-03-09T00:00:00-04:00", 48)
        ])
    );
    let autumn = asked(toronto, "day", "2026-10-31", "2026-11-03").await;
    assert_eq!(
        autumn,
        told(&[
            ("2026-10-31T00:00:00-04:00", 48),
            ("2026-11-01T00:00:00-04:00", 50),
            ("2026-11-02T00:00:00-05:00", 48)
        ])
    );
    let hours = asked(toronto, "hour", "2026-03-08T01:00:00-05:00", "2026-03-08T04:00:00-04:00").await;
    assert_eq!(hours, told(&[("2026-03-08T01:00:00-05:00", 2), ("2026-03-08T03:00:00-04:00", 2)]));
    let hours = asked(toronto, "hour", "2026-11-01T01:00:00-04:00", "2026-11-01T02:00:00-05:00").await;
    assert_eq!(hours, told(&[("2026-11-01T01:00:00-04:00", 2), ("2026-11-01T01:00:00-05:00", 2)]));

    // Half an hour at 2 o'clock, back and forth.
    let autumn = asked(lord_howe, "day", "2026-04-05", "2026-04-07").await;
    assert_eq!(autumn, told(&[("2026-04-05T00:00:00+11:00", 49), ("2026-04-06T00:00:00+10:30", 48)]));
    let spring = asked(lord_howe, "day", "2026-10-04", "2026-10-06").await;
    assert_eq!(spring, told(&[("2026-10-04T00:00:00+10:30", 47), ("2026-10-05T00:00:00+11:00", 48)]));
    let hours = asked(lord_howe, "hour", "2026-10-04T01:00:00+10:30", "2026-10-04T04:00:00+11:00").await;
    assert_eq!(hours.iter().map(|(_, count)| count).sum::<i64>(), 5, "{hours:?}");
    assert_eq!(hours.last().unwrap().0, "2026-10-04T03:00:00+11:00");

    let days = asked(kathmandu, "day", "2026-03-08", "2026-03-10").await;
    assert_eq!(days, told(&[("2026-03-08T00:00:00+05:45", 48), ("2026-03-09T00:00:00+05:45", 48)]));
    let hours = asked(kathmandu, "hour", "2026-03-08T00:00:00+05:45", "2026-03-08T02:00:00+05:45").await;
    assert_eq!(hours, told(&[("2026-03-08T00:00:00+05:45", 2), ("2026-03-08T01:00:00+05:45", 2)]));

    // A week lies in two years, and a month in one.
    let weeks = asked("UTC", "week", "2025-12-29", "2026-01-05").await;
    assert_eq!(weeks, told(&[("2025-12-29T00:00:00Z", 5 * 48)]));
    let years = asked("UTC", "year", "2025-01-01", "2027-01-01").await;
    assert_eq!(years, told(&[("2025-01-01T00:00:00Z", 4 * 48), ("2026-01-01T00:00:00Z", (2 + 4 * 6) * 48)]));
}

#[tokio::test]
async fn a_late_sale_corrects_every_bucket_and_comparison_it_belongs_to() {
    let folder = tempfile::tempdir().unwrap();
    let nats = Nats::start().await;
    let forecourt = Forecourt::start(&nats, folder.path()).await;
    let sales = [
        sale("s-1", "l-1", "2025-11-15T12:00:00Z", 10_000),
        sale("s-2", "l-2", "2026-08-15T12:00:00Z", 20_000),
        sale("s-3", "l-3", "2026-11-15T12:00:00Z", 30_000),
        sale("s-4", "l-4", "2026-11-17T12:00:00Z", 40_000),
    ];
    let position = sold(&forecourt, &sales).await;
    let ask = |query: String| {
        let forecourt = &forecourt;
        async move { forecourt.get(&format!("/v1/kpis/sales_volume?{query}")).await }
    };
    for grain in ["day", "month", "quarter", "year"] {
        ask(format!("grain={grain}&compare=previous,year_ago&min_position={position}")).await;
    }
    // Three months late.
    let position = sold(&forecourt, &[sale("s-5", "l-5", "2026-08-16T12:00:00Z", 25_000)]).await;
    let day = ask(format!("from=2026-08-15&to=2026-08-18&compare=previous&min_position={position}")).await;
    assert_eq!(
        values(&day, "units_sold"),
        [("2026-08-15T00:00:00Z", json!(1)), ("2026-08-16T00:00:00Z", json!(1)), ("2026-08-17T00:00:00Z", json!(0))]
    );
    assert_eq!(day["totals"]["values"]["average_price"], 22_500.0);
    assert_eq!(day["as_of"]["position"], position);
    assert_eq!(day["compared"]["previous"]["totals"]["percent"]["units_sold"], Value::Null, "nothing before");
    let month = ask("grain=month&from=2026-08-01&to=2026-10-01".to_owned()).await;
    assert_eq!(
        values(&month, "revenue"),
        [("2026-08-01T00:00:00Z", json!(45_000.0)), ("2026-09-01T00:00:00Z", json!(0.0))]
    );
    let quarter = ask("grain=quarter&from=2026-07-01&compare=previous".to_owned()).await;
    let compared = &quarter["compared"]["previous"]["rows"][1];
    assert_eq!((&compared["values"]["units_sold"], &compared["difference"]["units_sold"]), (&json!(2), &json!(0)));
    assert_eq!(compared["percent"]["revenue"], 55.555556, "70,000 after 45,000");
    let year = ask("grain=year&compare=year_ago".to_owned()).await;
    assert_eq!(values(&year, "units_sold").last().unwrap(), &("2026-01-01T00:00:00Z", json!(4)));
    assert_eq!(year["compared"]["year_ago"]["rows"][1]["percent"]["units_sold"], 300.0);
    let rolling = ask("rolling=3d&from=2026-11-15".to_owned()).await;
    let units: Vec<Value> = values(&rolling, "units_sold").into_iter().map(|(_, units)| units).collect();
    assert_eq!(units, [json!(1), json!(1), json!(2)]);
    let cumulative = ask("cumulative=true&grain=month&from=2026-08-01".to_owned()).await;
    let revenue: Vec<Value> = values(&cumulative, "revenue").into_iter().map(|(_, revenue)| revenue).collect();
    assert_eq!(revenue, [json!(45_000.0), json!(45_000.0), json!(45_000.0), json!(115_000.0)]);
    assert_eq!(cumulative["rows"][3]["values"]["average_price"], Value::Null, "a mean has no sum");

    // Days of a zone with summer time; a week that begins on Sunday.
    let local = ask("timezone=America/Toronto&from=2026-11-15&to=2026-11-16".to_owned()).await;
    assert_eq!(values(&local, "units_sold"), [("2026-11-15T00:00:00-05:00", json!(1))]);
    let weeks = ask("grain=week&week_start=sunday&from=2026-11-15&to=2026-11-22".to_owned()).await;
    assert_eq!(values(&weeks, "units_sold"), [("2026-11-15T00:00:00Z", json!(2))]);

    // A clock that is wrong by years does not say how far answers are complete, nor what a period is.
    let mut wrong =
        event("o-1", "OfferAccepted", "o-1", json!({"offerId": "o-1", "acceptedAt": "2199-12-31T00:00:00Z"}));
    wrong["timestamp"] = json!("2199-12-31T00:00:00Z");
    let position = sold(&forecourt, &[wrong]).await;
    let answer = ask(format!("grain=year&min_position={position}")).await;
    assert!(answer["complete_through"].as_str().unwrap() < "2199", "{}", answer["complete_through"]);
    let offers = forecourt.get("/v1/kpis/offer_volume?grain=hour").await;
    assert_eq!(values(&offers, "offers_accepted"), [("2199-12-31T00:00:00Z", json!(1))]);
    assert_eq!(forecourt.try_get("/v1/kpis/inventory?grain=hour").await.0, StatusCode::OK);
}

#[tokio::test]
async fn polls_are_cached_streams_tell_what_changes_and_groups_add_up() {
    let folder = tempfile::tempdir().unwrap();
    let nats = Nats::start().await;
    let forecourt = Forecourt::start(&nats, folder.path()).await;
    let listed = |id: &str, make: &str| {
        event(
            &format!("c-{id}"),
            "VehicleListingCreated",
            id,
            json!({"listingId": id, "vehicleId": format!("v-{id}"), "make": make}),
        )
    };
    let first = [
        listed("l-1", "Honda"),
        listed("l-2", "Ford"),
        sale("s-1", "l-1", "2026-11-15T12:00:00Z", 10_000),
        sale("s-2", "l-2", "2026-11-15T13:00:00Z", 20_000),
    ];
    let position = sold(&forecourt, &first).await;
    let get = |path: String, header: Option<(&'static str, String)>| {
        let request = forecourt.client.get(format!("{}{path}", forecourt.url));
        let request = header.into_iter().fold(request, |request, (name, value)| request.header(name, value));
        async move { request.send().await.unwrap() }
    };
    let path = format!("/v1/kpis/sales_volume?by=make&min_position={position}");
    let answer = get(path.clone(), None).await;
    let tag = answer.headers()["etag"].to_str().unwrap().to_owned();
    let body: Value = answer.json().await.unwrap();
    let groups: Vec<(&Value, &Value)> = body["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (&row["dimensions"]["make"], &row["values"]["revenue"]))
        .collect();
    assert_eq!(groups, [(&json!("Ford"), &json!(20_000.0)), (&json!("Honda"), &json!(10_000.0))]);
    assert_eq!(body["totals"]["values"]["revenue"], 30_000.0);
    assert_eq!(body["totals"]["rows"].as_array().unwrap().len(), 2);
    let same = get(path.clone(), Some(("if-none-match", tag.clone()))).await;
    assert_eq!((same.status(), same.bytes().await.unwrap().len()), (StatusCode::NOT_MODIFIED, 0));
    // What is not about it changes nothing.
    let position = sold(
        &forecourt,
        &[event("o-1", "OfferAccepted", "o-1", json!({"offerId": "o-1", "acceptedAt": "2026-11-15T12:00:00Z"}))],
    )
    .await;
    let same =
        get(format!("/v1/kpis/sales_volume?by=make&min_position={position}"), Some(("if-none-match", tag.clone())))
            .await;
    assert_eq!(same.status(), StatusCode::NOT_MODIFIED);

    // A stream has all rows, then those that change alone.
    let mut stream = get("/v1/kpis/sales_volume/stream?by=make".to_owned(), None).await;
    let first = next_event(&mut stream).await;
    assert_eq!(first.1["rows"].as_array().unwrap().len(), 2);
    let position = sold(&forecourt, &[sale("s-3", "l-1", "2026-11-15T14:00:00Z", 12_000)]).await;
    let (id, second) = next_event(&mut stream).await;
    let rows = second["rows"].as_array().unwrap();
    assert_eq!(
        (rows.len(), &rows[0]["dimensions"]["make"], &rows[0]["values"]["revenue"]),
        (1, &json!("Honda"), &json!(22_000.0))
    );
    assert_eq!(id, position.to_string());
    let changed = get(path, Some(("if-none-match", tag))).await;
    assert_eq!(changed.status(), StatusCode::OK);
    // Who comes back is told what it missed; the make of a sale that is corrected late moves it.
    let mut moved = listed("l-1", "Acura");
    moved["eventId"] = json!("c-again");
    moved["timestamp"] = json!("2026-11-03T08:30:00Z");
    sold(&forecourt, &[moved]).await;
    let (_, third) = next_event(&mut stream).await;
    assert!(third["rows"].as_array().unwrap().iter().any(|row| row["dimensions"]["make"] == "Acura"), "{third}");
    let mut again = get("/v1/kpis/sales_volume/stream?by=make".to_owned(), Some(("last-event-id", id))).await;
    let (_, missed) = next_event(&mut again).await;
    assert!(missed["rows"].as_array().unwrap().iter().any(|row| row["dimensions"]["make"] == "Acura"), "{missed}");

    // Several at one position, lines for a spreadsheet, and one make.
    let batch = forecourt.get("/v1/kpis?names=sales_volume,inventory,funnel&grain=month").await;
    let names: Vec<&str> = batch["kpis"].as_array().unwrap().iter().map(|kpi| kpi["kpi"].as_str().unwrap()).collect();
    assert_eq!(names, ["sales_volume", "inventory", "funnel"]);
    let csv = get(
        "/v1/kpis/sales_volume?filter.make=Ford&compare=previous".to_owned(),
        Some(("accept", "text/csv".to_owned())),
    )
    .await;
    assert_eq!(csv.headers()["content-type"], "text/csv; charset=utf-8");
    let csv = csv.text().await.unwrap();
    let lines: Vec<&str> = csv.lines().collect();
    assert!(
        lines[0].starts_with("bucket,units_sold,revenue,average_price,units_returned,net_units,previous_units_sold"),
        "{csv}"
    );
    assert_eq!((lines.len(), &lines[1][..25]), (2, "2026-11-15T00:00:00Z,1,20"));
    let records = forecourt.get("/v1/kpis/sales_volume?by=make&compare=previous&format=records").await;
    let ford = records.as_array().unwrap().iter().find(|record| record["make"] == "Ford").unwrap();
    assert_eq!((&ford["bucket"], &ford["units_sold"]), (&json!("2026-11-15T00:00:00Z"), &json!(1)));
    assert!(ford["previous_units_sold"].is_null() && ford.get("previous_units_sold_percent").is_some(), "{ford}");
    for wrong in
        ["by=colour", "filter.colour=red", "rolling=3q", "compare=tomorrow", "top=3", "gaps=maybe", "week_start=x"]
    {
        let (status, problem) = forecourt.try_get(&format!("/v1/kpis/sales_volume?{wrong}")).await;
        let name = wrong.split('=').next().unwrap();
        assert_eq!((status, &problem["parameter"]), (StatusCode::BAD_REQUEST, &json!(name)), "{problem}");
    }
}

/// The next event of a stream: its id and data.
async fn next_event(stream: &mut reqwest::Response) -> (String, Value) {
    let mut text = String::new();
    loop {
        text.push_str(&String::from_utf8_lossy(&stream.chunk().await.unwrap().expect("the stream goes on")));
        let line = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
        if text.ends_with("\n\n")
            && let (Some(id), Some(data)) = (line("id: "), line("data: "))
        {
            return (id, serde_json::from_str(&data).unwrap());
        }
    }
}

/// A KPI of one's own is computed like the others; a wrong one is told before anything starts.
#[tokio::test]
async fn a_kpi_of_ones_own_is_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let (kpis, data) = (folder.path().join("kpis"), folder.path().join("data"));
    std::fs::create_dir(&kpis).unwrap();
    let file = kpis.join("dear_sales.sql");
    let text = "-- title: Dear sales\n-- definition: Sales of 30,000 and more.\n-- input: inventory.vehicle_sold at sold_at\n\
                -- value: units integer = count(*); sales\nSELECT sold_at AS at FROM inventory.vehicle_sold WHERE final_price >= 30000;\n";
    std::fs::write(&file, text).unwrap();
    let fails = "-- title: F\n-- definition: Fails with its first fact.\n-- input: inventory.vehicle_sold at sold_at\n\
                 -- value: a integer = sum(CAST(listing_id AS BIGINT)); A\nSELECT sold_at AS at, listing_id FROM inventory.vehicle_sold";
    std::fs::write(kpis.join("fails.sql"), fails).unwrap();
    let nats = Nats::start().await;
    let mut forecourt = Forecourt::start_with(&nats, &data, &["--kpi-metrics", "--kpis", kpis.to_str().unwrap()]).await;
    assert_eq!(forecourt.get("/v1/kpis/fails").await["rows"], json!([]));
    let sales =
        [sale("s-1", "l-1", "2026-11-15T12:00:00Z", 10_000), sale("s-2", "l-2", "2026-11-15T13:00:00Z", 30_000)];
    let position = sold(&forecourt, &sales).await;
    // One that fails while it is kept holds up no other.
    let answer = forecourt.get(&format!("/v1/kpis/dear_sales?min_position={position}")).await;
    assert_eq!(forecourt.try_get("/v1/kpis/fails").await.0, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(values(&answer, "units"), [("2026-11-15T00:00:00Z", json!(1))]);
    assert_eq!(forecourt.sql("SELECT units FROM kpi.dear_sales", position).await, [json!([1])]);
    let metrics = forecourt.metrics().await;
    assert!(metrics.contains("kpi_value{kpi=\"dear_sales\",value=\"units\"} 1"), "{metrics}");
    let listed = run(&["kpi", "show", "dear_sales", "--kpis", kpis.to_str().unwrap()]);
    assert!(String::from_utf8_lossy(&listed.stdout).contains("Sales of 30,000 and more."));
    forecourt.stop();

    std::fs::write(&file, text.replace("final_price", "price")).unwrap();
    let checked = run(&["kpi", "check", "--kpis", kpis.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(!checked.status.success() && said.contains("dear_sales.sql, line 5: "), "{said}");
    forecourt.launch();
    let said = forecourt.wait_for_end().await;
    assert!(said.contains("dear_sales.sql, line 5: "), "{said}");
}

/// Closed periods are told to the log: once, whatever restarts; again when late events change them.
#[tokio::test]
async fn a_closed_period_is_told_once_and_again_when_it_changes() {
    let folder = tempfile::tempdir().unwrap();
    let nats = Nats::start().await;
    let mut forecourt = Forecourt::start_with(&nats, folder.path(), &["--close-periods-from", "2026-08-01"]).await;
    sold(&forecourt, &[sale("s-1", "l-1", "2026-08-15T12:00:00Z", 10_000)]).await;
    let told = "SELECT period, revision, units_sold, revenue FROM analytics.sales_volume_recorded \
                WHERE source = 'forecourt' AND period IN ('2026-08', '2026-08-15') ORDER BY period, revision";
    let first = [json!(["2026-08", 1, 1, 10_000.0]), json!(["2026-08-15", 1, 1, 10_000.0])];
    eventually("the periods", || async { (forecourt.sql(told, 0).await == first).then_some(()) }).await;
    let count = "SELECT count(*) FROM analytics.sales_volume_recorded";
    let before = forecourt.sql(count, 0).await;
    forecourt.kill();
    forecourt.launch();
    forecourt.ready().await;
    // What is told next shows that it has looked at every period again.
    sold(&forecourt, &[sale("s-2", "l-2", "2026-08-16T12:00:00Z", 20_000)]).await;
    let corrected = [first[0].clone(), json!(["2026-08", 2, 2, 30_000.0]), first[1].clone()];
    eventually("the correction", || async { (forecourt.sql(told, 0).await == corrected).then_some(()) }).await;
    let grown = before[0][0].as_u64().unwrap() + 2;
    assert_eq!(forecourt.sql(count, 0).await, [json!([grown])], "the month and its day, and nothing else again");
    let metrics = forecourt.metrics().await;
    let computed = metrics.lines().find(|line| line.starts_with("kpi_computations_total "));
    assert_eq!(computed, Some("kpi_computations_total 0"), "nobody asked for a KPI");
}
