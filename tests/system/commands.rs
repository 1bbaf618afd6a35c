//! The command line, and what is written about it.

use std::{collections::BTreeSet, sync::Mutex};

use serde_json::{Value, json};

use crate::language::TELEMETRY;
use crate::support::{Forecourt, Nats, counted, eventually, forecourt, stdout};

const README: &str = include_str!("../../README.md");

#[test]
fn simulate_is_deterministic_and_says_what_it_wrote() {
    let run = |seed: &str| forecourt(&["simulate", "--seed", seed, "--days", "20", "--vehicles", "10", "-o", "-"]);
    let first = run("4");
    assert_eq!(first.stdout, run("4").stdout);
    assert_ne!(first.stdout, run("5").stdout);
    let lines = stdout(&first).lines().count();
    assert!(String::from_utf8_lossy(&first.stderr).starts_with(&format!("wrote {lines} events to -")));
    let full = forecourt(&["simulate", "--days", "2", "--vehicles", "2", "--truth", "/dev/full"]);
    assert!(!full.status.success() && String::from_utf8_lossy(&full.stderr).contains("cannot write /dev/full"));
    let late = forecourt(&["simulate", "--start", "2199-12-31", "--days", "3"]);
    assert!(!late.status.success() && String::from_utf8_lossy(&late.stderr).contains("ends after 2199"));
}

#[tokio::test]
async fn a_live_play_keeps_its_rate_and_ends_when_interrupted() {
    let folder = tempfile::tempdir().unwrap();
    let nats = Nats::start().await;
    let server = Forecourt::start(&nats, folder.path()).await;
    let truth = folder.path().join("truth.json");
    let play = ["simulate", "--live", "--rate", "3000", "--days", "3", "--vehicles", "12", "--to"];
    let played = forecourt(&[&play[..], &[&server.url, "--truth", truth.to_str().unwrap()]].concat());
    let told: Value = serde_json::from_slice(&std::fs::read(truth).unwrap()).unwrap();
    assert_eq!(counted(&stdout(&played), "accepted"), told["events"].as_u64().unwrap());

    // Nobody answers at this address: it would ask again for long.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let child = std::process::Command::new(env!("CARGO_BIN_EXE_forecourt"))
        .args(["simulate", "--live", "--to", &url])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let (_asked, _) = silent.accept().unwrap();
    let id = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    let ended = Mutex::new(child);
    let status = eventually("the end of the play", || async { ended.lock().unwrap().try_wait().unwrap() }).await;
    assert_eq!(status.code(), Some(130));
}

#[tokio::test]
async fn a_listing_file_is_imported_by_the_mapping_that_reads_its_columns() {
    let folder = tempfile::tempdir().unwrap();
    let (cars, events) = (folder.path().join("cars.csv"), folder.path().join("cars.ndjson.zst"));
    let header = "make,model,year,price,transmission,mileage,fuelType,tax,mpg,engineSize,source_file";
    let rows = "Ford,Focus,2017,9000,Manual,20000,Petrol,20,50.1,1.0,f.csv\nFord,Focus,2060,9000,Manual,1,Petrol,20,50.1,1.0,f.csv";
    std::fs::write(&cars, format!("{header}\n{rows}\n")).unwrap();
    let (cars, events) = (cars.to_str().unwrap(), events.to_str().unwrap());
    let imported = forecourt(&["import", cars, "-o", events]);
    assert!(imported.status.success());
    let said = String::from_utf8(imported.stderr).unwrap();
    assert!(said.contains(&format!("{cars}:3: invalid_value: data.year")), "{said}");
    assert_eq!((counted(&said, "rows"), counted(&said, "listings"), counted(&said, "events")), (2, 1, 4));

    let nats = Nats::start().await;
    let server = Forecourt::start(&nats, &folder.path().join("data")).await;
    let sent = stdout(&forecourt(&["ingest", events, "--to", &server.url]));
    assert_eq!((counted(&sent, "accepted"), counted(&sent, "duplicates")), (4, 0));
    let again = stdout(&forecourt(&["ingest", events, "--to", &server.url]));
    assert_eq!((counted(&again, "accepted"), counted(&again, "duplicates")), (0, 4));
    let page = server.get("/v1/search?fuel_type=Gasoline&min_position=4&wait_ms=60000").await;
    let hit = &page["hits"][0];
    assert_eq!(
        (&page["total"], &hit["title"], &hit["mileage"]),
        (&json!(1), &json!("2017 Ford Focus"), &json!(32_187))
    );

    let over_itself = forecourt(&["import", cars, "-o", cars]);
    assert!(String::from_utf8(over_itself.stderr).unwrap().contains("is named twice"));
    std::fs::write(cars, "colour,wheels\nred,4\n").unwrap();
    let refused = forecourt(&["import", cars]);
    assert!(!refused.status.success());
    assert!(String::from_utf8(refused.stderr).unwrap().contains("Its columns are colour, wheels"));
}

#[tokio::test]
async fn sql_prints_tables_csv_and_json_and_points_at_mistakes() {
    let folder = tempfile::tempdir().unwrap();
    let nats = Nats::start().await;
    let mut server = Forecourt::start(&nats, folder.path()).await;
    let url = server.url.clone();
    let ask = |query: &str, format: &str| forecourt(&["sql", query, "--format", format, "--to", &url]);
    let query = "SELECT 1 AS one, 'a,b' AS text, NULL AS nothing";
    assert_eq!(stdout(&ask(query, "csv")), "one,text,nothing\r\n1,\"a,b\",\r\n");
    assert!(stdout(&ask(query, "table")).contains("a,b"));
    let json: Value = serde_json::from_str(&stdout(&ask(query, "json"))).unwrap();
    assert_eq!(json["rows"], json!([[1, "a,b", null]]));
    let wrong = ask("SELECT count(* FROM lake.events", "table");
    assert!(!wrong.status.success());
    let message = String::from_utf8(wrong.stderr).unwrap();
    assert!(message.ends_with("  SELECT count(* FROM lake.events\n                 ^\n"), "{message}");
    server
        .publish(
            json!({
                "eventId": "p-1", "eventType": "PriceSet", "timestamp": "2026-03-01T10:00:00Z",
                "data": {"listingId": "l-1", "price": 7}
            })
            .to_string(),
        )
        .await;
    server.reflects(1).await;
    let asked = |format: &str| ask("SELECT position, listing_id, price FROM inventory.price_set", format);
    assert_eq!(stdout(&asked("ndjson")), "{\"position\":1,\"listing_id\":\"l-1\",\"price\":7.0}\n");
    let (answer, parquet) = (stdout(&asked("json")), asked("parquet").stdout);
    assert_eq!(&parquet[..4], b"PAR1");
    server.stop();
    let data = folder.path().to_str().unwrap();
    let offline = |query: &str, format: &str| forecourt(&["sql", query, "--format", format, "--data", data]);
    let query = "SELECT position, listing_id, price FROM inventory.price_set";
    let parsed = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    assert_eq!(parsed(&stdout(&offline(query, "json"))), parsed(&answer));
    assert_eq!(offline(query, "parquet").stdout, parquet);
    assert_eq!(
        stdout(&forecourt(&["sql", query, "--format", "csv", "--data", data, "--as-of", "0"])),
        "position,listing_id,price\r\n"
    );
    // A folder that is asked is not changed, whatever catalogue is named.
    let more = folder.path().join("catalogue");
    std::fs::create_dir(&more).unwrap();
    std::fs::write(more.join("telemetry.toml"), TELEMETRY).unwrap();
    let refused = forecourt(&["sql", "SELECT 1", "--data", data, "--catalogue", more.to_str().unwrap()]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("telemetry"), "{said}");
    assert!(!folder.path().join("lake/telemetry").exists());
    let wrong = String::from_utf8(offline("SELECT nothing FROM inventory.price_set", "table").stderr).unwrap();
    assert!(wrong.contains("       ^"), "{wrong}");
    let nobody = forecourt(&["sql", "SELECT 1", "--to", "http://127.0.0.1:1"]);
    assert!(String::from_utf8(nobody.stderr).unwrap().contains("is `forecourt up` running?"));
}

#[test]
fn every_command_and_route_is_in_the_readme_and_the_readme_names_no_other() {
    let help = stdout(&forecourt(&["--help"]));
    let section = help.split("Commands:").nth(1).unwrap().split("\n\n").next().unwrap();
    let commands: BTreeSet<&str> = section.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let commands: BTreeSet<&str> = commands.into_iter().filter(|name| *name != "help").collect();
    assert_eq!(
        commands,
        BTreeSet::from([
            "up",
            "ingest",
            "import",
            "simulate",
            "sql",
            "maintain",
            "verify",
            "catalogue",
            "kpi",
            "dead-letters",
            "nats-context",
            "config"
        ])
    );
    for command in &commands {
        assert!(README.contains(&format!("`forecourt {command}")), "README lacks forecourt {command}");
    }
    let named = README.split("`forecourt ").skip(1).filter_map(|rest| rest.split([' ', '`', '\n']).next());
    for command in named {
        assert!(commands.contains(command), "README names forecourt {command}, which is not a command");
    }
    let document = query_api::openapi::document();
    let routes: BTreeSet<String> = document["paths"].as_object().unwrap().keys().cloned().collect();
    for route in &routes {
        assert!(README.contains(&format!("{route}`")), "README lacks {route}");
    }
    let named = README.split(['`', ' ', '\n', '?', '\'']).filter(|word| word.starts_with("/v1/"));
    for route in named {
        let known = routes.contains(route) || routes.iter().any(|known| matches_template(known, route));
        assert!(known, "README names {route}, which is not a route");
    }
}

fn matches_template(template: &str, path: &str) -> bool {
    let (known, parts): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
    known.len() == parts.len() && known.iter().zip(&parts).all(|(known, part)| known.starts_with('{') || known == part)
}

#[tokio::test]
async fn every_route_of_openapi_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let nats = Nats::start().await;
    let server = Forecourt::start(&nats, folder.path()).await;
    let document = server.get("/openapi.json").await;
    for (path, methods) in document["paths"].as_object().unwrap() {
        let path = path.replace("{name}", "sales_volume").replace("{id}", "none").replace("{position}", "1");
        for method in methods.as_object().unwrap().keys() {
            let method = method.to_uppercase().parse().unwrap();
            let answer = server.client.request(method, format!("{}{path}", server.url)).send().await.unwrap();
            let status = answer.status();
            assert!(status != 500 && status != 503, "{path}: {status}");
            if answer.headers().get("content-type").is_some_and(|kind| kind == "text/event-stream") {
                // It has no end.
                continue;
            }
            let body = answer.text().await.unwrap();
            assert!(!body.contains("nothing at this address") && !body.contains("another method"), "{path}: {body}");
        }
    }
    let metrics = server.metrics().await;
    assert!(metrics.contains("lake_position 0"), "{metrics}");
}
