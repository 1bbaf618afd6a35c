//! Retention and maintenance on a running system: what is past its time is gone from everywhere, and from nowhere else.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use schemas::Catalogue;
use serde_json::{Value, json};

use crate::{
    door::event,
    support::{Forecourt, Nats, counted, eventually, forecourt, stdout},
};

/// How many events of each class a file has; every event once.
fn of_classes(file: &str) -> [u64; 3] {
    let catalogue = Catalogue::embedded().unwrap();
    let mut counts = [0; 3];
    for line in fs::read_to_string(file).unwrap().lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        let event = schemas::validation::parse_event(&catalogue, event.to_string().as_bytes(), None).unwrap();
        counts[catalogue.event_at(event.kind).retention as usize] += 1;
    }
    counts
}

async fn count(server: &Forecourt, table: &str) -> u64 {
    server.sql(&format!("SELECT count(*) FROM {table}"), 0).await[0][0].as_u64().unwrap()
}

/// The messages that the log holds.
async fn messages(server: &Forecourt, nats: &Nats) -> u64 {
    let url = format!("{}/jsz?streams=true&accounts=true", nats.monitor());
    let told: Value = server.client.get(url).send().await.unwrap().json().await.unwrap();
    let streams = told["account_details"][0]["stream_detail"].as_array().unwrap().clone();
    let events = streams.iter().find(|stream| stream["name"] == "EVENTS").unwrap();
    events["state"]["messages"].as_u64().unwrap()
}

fn data_files(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .map(|path| match path.is_dir() {
            true => data_files(&path),
            false => usize::from(path.extension().is_some_and(|ending| ending == "parquet")),
        })
        .sum()
}

fn verified(url: &str) {
    let verified = forecourt(&["verify", "--to", url]);
    let said = [verified.stdout, verified.stderr].concat();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&said));
}

#[tokio::test]
async fn events_past_their_time_are_gone_from_table_files_log_and_index_and_stay_taken() {
    let folder = tempfile::tempdir().unwrap();
    let (file, data) = (folder.path().join("market.ndjson"), folder.path().join("data"));
    let file = file.to_str().unwrap();
    let market = ["simulate", "--seed", "5", "--days", "45", "--vehicles", "30", "-o", file];
    assert!(forecourt(&market).status.success());
    let [short, medium, long] = of_classes(file);
    let all = short + medium + long;
    assert!(short > 1_000 && medium > 100 && long > 100, "{short} {medium} {long}");

    let nats = Nats::start().await;
    let flush = ["--flush-seconds", "1"];
    let mut server = Forecourt::start_with(&nats, &data, &[&flush[..], &["--retention", "off"]].concat()).await;
    assert!(forecourt(&["ingest", file, "--to", &server.url]).status.success());
    server.reflects(all).await;
    assert_eq!(count(&server, "lake.events").await, all);
    server.stop();

    let found = async |server: &Forecourt| server.get("/v1/search?page_size=100&sort=popular").await;
    // What is said to be done is what is done; and the index, which is folded again, forgets with the lake.
    for (policy, gone) in [("short=1s,medium=off", short), ("short=1s,medium=1s", short + medium)] {
        server = Forecourt::start_with(&nats, &data, &[&flush[..], &["--retention", policy]].concat()).await;
        eventually("the events past their time going", || async {
            let maintained = forecourt(&["maintain", "--keep-old-files", "0s", "--to", &server.url]);
            assert!(maintained.status.success(), "{}", String::from_utf8_lossy(&maintained.stderr));
            (count(&server, "lake.events").await == all - gone).then_some(())
        })
        .await;
        assert_eq!(count(&server, "system.retired").await, gone);
        assert_eq!(count(&server, "browsing.vehicle_viewed").await, 0);
        verified(&server.url);
        eventually("the log forgetting", || async { (messages(&server, &nats).await == all - gone).then_some(()) })
            .await;
        // An id takes effect once, also when its event is gone.
        let again = stdout(&forecourt(&["ingest", file, "--to", &server.url]));
        assert_eq!((counted(&again, "accepted"), counted(&again, "duplicates")), (0, all));
        let idle = stdout(&forecourt(&["maintain", "--to", &server.url]));
        assert!(idle.contains("nothing to do"), "{idle}");
        let kept = found(&server).await;
        server.stop();
        assert!(server.said().contains("took out events past their time"));

        // A start keeps what the index knows, and an index that is built anew knows the same.
        for index in ["kept", "built anew"] {
            server = Forecourt::start_with(&nats, &data, &[&flush[..], &["--retention", policy]].concat()).await;
            let now = found(&server).await;
            assert_eq!((&now["total"], &now["hits"]), (&kept["total"], &kept["hits"]), "{index}");
            server.stop();
            assert!(!server.said().contains("building it again"));
            fs::remove_dir_all(data.join("index")).unwrap();
        }
        // What is left of the first is worth comparing: listings, without what was seen of them.
        assert!(gone > short || kept["total"].as_u64().unwrap() > 0, "{kept}");
    }
    // The files they were in are gone, and another engine's view of the table with them.
    assert_eq!(data_files(&data.join("lake/browsing")), 0);

    // Nor does an id take effect again when those that have were read again from the lake.
    fs::remove_dir_all(data.join("seen")).unwrap();
    let server = Forecourt::start_with(&nats, &data, &["--retention", "off"]).await;
    assert_eq!(count(&server, "system.retired").await, short + medium);
    let again = stdout(&forecourt(&["ingest", file, "--to", &server.url]));
    assert_eq!((counted(&again, "accepted"), counted(&again, "duplicates")), (0, all));
    verified(&server.url);
}

/// What every KPI says: at several grains, by each dimension, and as a table.
async fn said_by_kpis(server: &Forecourt) -> BTreeMap<String, Value> {
    let mut said = BTreeMap::new();
    let kpis = server.get("/v1/kpis").await;
    for kpi in kpis["kpis"].as_array().unwrap() {
        let name = kpi["name"].as_str().unwrap();
        let dimensions = kpi["dimensions"].as_array().unwrap().iter();
        let by = dimensions.map(|dimension| format!("grain=day&by={}", dimension["name"].as_str().unwrap()));
        for question in
            ["grain=hour", "grain=day", "grain=week", "grain=month"].map(str::to_owned).into_iter().chain(by)
        {
            let question = format!("/v1/kpis/{name}?{question}");
            let answer = server.get(&question).await;
            said.insert(question, answer);
        }
        let days = server.sql(&format!("SELECT * FROM kpi.{name} ORDER BY 1"), 0).await;
        said.insert(format!("kpi.{name}"), json!(days));
    }
    said
}

fn rows(answer: &Value) -> Vec<Value> {
    let rows = answer["rows"].as_array().or(answer.as_array()).unwrap().iter().cloned();
    rows.map(|mut row| {
        if let Some(row) = row.as_object_mut() {
            row.remove("frozen");
        }
        row
    })
    .collect()
}

#[tokio::test]
async fn what_kpis_said_of_events_past_their_time_stays() {
    let folder = tempfile::tempdir().unwrap();
    let (file, data) = (folder.path().join("market.ndjson"), folder.path().join("data"));
    let file = file.to_str().unwrap();
    assert!(forecourt(&["simulate", "--seed", "7", "--days", "40", "--vehicles", "40", "-o", file]).status.success());
    let [short, medium, long] = of_classes(file);
    let nats = Nats::start().await;
    let flush = ["--flush-seconds", "1"];
    let mut server = Forecourt::start_with(&nats, &data, &[&flush[..], &["--retention", "off"]].concat()).await;
    assert!(forecourt(&["ingest", file, "--to", &server.url]).status.success());
    // The last event of all stays: answers reach to it.
    let mut sale = event(
        "last",
        "VehicleSold",
        "lst-last",
        json!({"listingId": "lst-last", "soldAt": "2026-02-20T10:00:00Z", "finalPrice": 20_000}),
    );
    sale["timestamp"] = json!("2026-02-20T10:00:00Z");
    assert_eq!(server.publish(sale.to_string()).await.1["accepted"], 1);
    server.reflects(short + medium + long + 1).await;
    let before = said_by_kpis(&server).await;
    let total = "/v1/kpis/search_activity?grain=month&totals=1";
    let searches = server.get(total).await["totals"]["values"]["searches"].clone();
    assert!(searches.as_i64().unwrap() > 100, "{searches}");
    server.stop();

    let policy = ["--retention", "short=1s,medium=1s"];
    server = Forecourt::start_with(&nats, &data, &[&flush[..], &policy[..]].concat()).await;
    // Some are on the board when their events go.
    assert_eq!(rows(&server.get("/v1/kpis/funnel?grain=week").await), rows(&before["/v1/kpis/funnel?grain=week"]));
    eventually("the events past their time going", || async {
        assert!(forecourt(&["maintain", "--keep-old-files", "0s", "--to", &server.url]).status.success());
        (count(&server, "lake.events").await == long + 1).then_some(())
    })
    .await;
    for again in ["kept", "built anew", "with everything retention had left"] {
        let after = said_by_kpis(&server).await;
        for (question, answer) in &before {
            assert_eq!(rows(&after[question]), rows(answer), "{question}, {again}");
        }
        let frozen = &after["/v1/kpis/search_activity?grain=day"];
        assert!(frozen["rows"].as_array().unwrap().iter().all(|row| row["frozen"] == true), "{frozen}");
        assert!(frozen["frozen_through"].is_string());
        assert_eq!(server.get(total).await["totals"]["values"]["searches"], searches);
        // Nothing is kept of other zones: what is missing is said to be.
        let local = server.get("/v1/kpis/search_activity?timezone=America/Toronto&from=2026-01-05&to=2026-01-07").await;
        assert!(local["rows"].as_array().unwrap().iter().all(|row| row["incomplete"] == true), "{local}");
        verified(&server.url);
        server.stop();
        let policy = if again == "kept" { "short=1s,medium=1s" } else { "off" };
        server = Forecourt::start_with(&nats, &data, &[&flush[..], &["--retention", policy]].concat()).await;
    }

    // What comes later for a day that is kept changes nothing of it; a day after it counts as ever.
    let day = before["/v1/kpis/search_activity?grain=day"]["rows"][3]["bucket"].as_str().unwrap().to_owned();
    let search = |id: &str, at: &str| {
        let mut event = event(id, "UserSearched", "u-1", json!({"userId": "u-1", "searchQuery": "civic"}));
        event["timestamp"] = json!(at);
        event
    };
    let events = [search("late", &day), search("new", "2026-11-20T10:00:00Z")];
    let body = events.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    let (_, taken) = server.publish(body).await;
    let position = taken["position"].as_u64().unwrap();
    let now = server.get(&format!("/v1/kpis/search_activity?min_position={position}&wait_ms=60000")).await;
    let was = rows(&before["/v1/kpis/search_activity?grain=day"]);
    let is = rows(&now);
    assert_eq!(is[..was.len()], was[..]);
    assert_eq!(is[was.len()]["bucket"], "2026-11-20T00:00:00Z");
    assert_eq!(is[was.len()]["values"]["searches"], 1);
}

#[tokio::test]
async fn maintenance_is_foretold_and_then_done_on_a_server_and_in_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let (file, data) = (folder.path().join("market.ndjson"), folder.path().join("data"));
    let (file, at) = (file.to_str().unwrap(), data.to_str().unwrap());
    assert!(forecourt(&["simulate", "--seed", "6", "--days", "30", "--vehicles", "10", "-o", file]).status.success());
    let [short, medium, long] = of_classes(file);
    let nats = Nats::start().await;
    let mut server = Forecourt::start_with(&nats, &data, &["--flush-seconds", "1"]).await;
    assert!(forecourt(&["ingest", file, "--to", &server.url]).status.success());
    server.reflects(short + medium + long).await;
    let before = count(&server, "lake.events").await;
    let refused =
        server.client.post(format!("{}/v1/maintenance", server.url)).body("{\"dry\":1}").send().await.unwrap();
    assert_eq!(refused.status(), 400);
    let refused: Value = refused.json().await.unwrap();
    assert!(refused["detail"].as_str().unwrap().contains("dry_run"), "{refused}");
    assert!(forecourt(&["maintain", "--to", &server.url]).status.success());
    server.stop();
    let foretold = stdout(&forecourt(&["maintain", "--data", at, "--dry-run", "--retention", "short=0s"]));
    let line = |text: &str, table: &str| -> Vec<u64> {
        let line = text.lines().find(|line| line.trim_start().starts_with(table)).unwrap_or_default();
        line.split_whitespace().skip(1).map(|word| word.parse().unwrap()).collect()
    };
    let events =
        |text: &str| text.lines().filter_map(|line| line.split_whitespace().nth(4)?.parse::<u64>().ok()).sum::<u64>();
    assert_eq!(events(&foretold), short, "{foretold}");
    assert!(foretold.contains("events past their time"));
    let done = stdout(&forecourt(&["maintain", "--data", at, "--retention", "short=0s", "--keep-old-files", "0s"]));
    assert_eq!(events(&done), short, "{done}");
    assert_eq!((line(&done, "browsing")[1], data_files(&data.join("lake/browsing"))), (0, 0), "{done}");
    let left = forecourt(&["sql", "SELECT count(*) FROM lake.events", "--format", "csv", "--data", at]);
    assert_eq!(stdout(&left).lines().nth(1).unwrap(), (before - short).to_string());
    let verified = forecourt(&["verify", "--data", at]);
    assert!(verified.status.success());
    assert!(String::from_utf8_lossy(&verified.stderr).contains("retention took events out"));
    let server = Forecourt::start_with(&nats, &data, &["--retention", "off"]).await;
    self::verified(&server.url);
    // Every table is told of, also where there was nothing to do.
    let answer = server.client.post(format!("{}/v1/maintenance", server.url)).body("{\"dry_run\": true}").send().await;
    let answer: Value = answer.unwrap().json().await.unwrap();
    let tables: BTreeSet<&str> =
        answer["tables"].as_array().unwrap().iter().map(|table| table["table"].as_str().unwrap()).collect();
    let contexts = Catalogue::embedded().unwrap();
    assert!(contexts.contexts().iter().all(|context| tables.contains(context.name.as_str())));
    assert!(["dead_letters", "duplicates", "kpi_history", "retired"].iter().all(|table| tables.contains(table)));
}
