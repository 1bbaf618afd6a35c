//! Statements that would change something, read the machine's files, or take it whole: each is refused or bounded, on
//! HTTP and on the Postgres wire, and the server goes on.

use std::fmt::Write as _;

use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio_postgres::{Client, NoTls};

use crate::support::{Forecourt, Nats, counted, finish, ingest, market};

const STATEMENTS: &str = include_str!("hostile.sql");
/// How long each may run: it is asked for what never ends.
const TIME_MS: u64 = 700;
/// What the server may have taken at its highest: queries share 2 GB.
const MOST_MEMORY_KB: u64 = 5 << 20;

/// What is refused, and what is bounded.
fn statements() -> (Vec<String>, Vec<String>) {
    let mut parts = STATEMENTS.split("-- ").skip(1).map(|part| part.lines().skip(1).map(str::to_owned).collect());
    let (refused, bounded): (Vec<String>, Vec<String>) = (parts.next().unwrap(), parts.next().unwrap());
    (refused, bounded.into_iter().chain(grown()).collect())
}

/// Statements that are hostile by their size.
fn grown() -> Vec<String> {
    let many = |part: &str, times: usize| part.repeat(times);
    let joined = |count: usize, between: &str, part: &dyn Fn(usize) -> String| {
        (0..count).map(part).collect::<Vec<_>>().join(between)
    };
    let mut doubled = "WITH t0 AS (SELECT * FROM lake.events)".to_owned();
    for level in 1..12 {
        let below = level - 1;
        write!(doubled, ", t{level} AS (SELECT a.* FROM t{below} AS a, t{below} AS b)").unwrap();
    }
    vec![
        format!("SELECT {}1{}", many("(", 20_000), many(")", 20_000)),
        format!("SELECT {}true", many("NOT ", 20_000)),
        format!("SELECT {}1", many("- ", 20_000)),
        format!("SELECT 1{}", many(" + 1", 1_500)),
        format!("SELECT 1{}", many(" + 1", 400_000)),
        format!("SELECT 1{}", many(" IS NULL", 200_000)),
        format!("SELECT data{} FROM lake.events", many(" -> 'a'", 200_000)),
        format!("SELECT 1{}", many("::int", 300_000)),
        format!("SELECT {}1{}", many("coalesce(", 5_000), many(")", 5_000)),
        format!("SELECT {}1{}", many("CASE WHEN true THEN ", 3_000), many(" END", 3_000)),
        format!("SELECT {}1{}", many("[", 5_000), many("]", 5_000)),
        format!("SELECT * FROM {}lake.events{}", many("(SELECT * FROM ", 2_000), many(") AS x", 2_000)),
        joined(500, " UNION ALL ", &|_| "SELECT 1".to_owned()),
        format!("SELECT 1 IN ({})", joined(50_000, ",", &|n| n.to_string())),
        format!("SELECT '{}'", many("x", 1_900_000)),
        format!("SELECT position FROM lake.events WHERE {}", joined(2_000, " OR ", &|n| format!("position = {n}"))),
        format!("SELECT {} FROM lake.events", joined(2_000, ",", &|n| format!("position + {n} AS c{n}"))),
        format!("SELECT 'a' LIKE '{}'", many("%a", 200_000)),
        format!("{doubled} SELECT count(*) FROM t11"),
    ]
}

async fn served(folder: &std::path::Path) -> (Nats, Forecourt) {
    let nats = Nats::start().await;
    let server = Forecourt::start(&nats, &folder.join("data")).await;
    let file = market(folder, 7, 60, 60);
    server.reflects(counted(&finish(ingest(&file, &server.url)), "position")).await;
    (nats, server)
}

async fn asked(server: &Forecourt, query: &str, time_ms: u64) -> (StatusCode, Value) {
    let body = json!({"query": query, "timeout_ms": time_ms, "limit": 10});
    let answer = server.client.post(format!("{}/v1/sql", server.url)).json(&body).send().await.unwrap();
    let status = answer.status();
    // A result that fails on its way ends without its end.
    let body = answer.text().await.unwrap_or_default();
    (status, serde_json::from_str(&body).unwrap_or_default())
}

async fn connected(server: &Forecourt) -> Client {
    let address = server.postgres();
    let (host, port) = address.split_once(':').unwrap();
    let config = format!("host={host} port={port} dbname=forecourt user=analyst");
    let (client, connection) = tokio_postgres::connect(&config, NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute(&format!("SET statement_timeout = {TIME_MS}")).await.unwrap();
    client
}

/// The most memory the server ever had, in KB.
fn most_memory(server: &Forecourt) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn hostile_statements_are_refused_or_bounded_and_the_server_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (_nats, server) = served(folder.path()).await;
    let (refused, bounded) = statements();
    let _ = std::fs::remove_file("/tmp/forecourt-stolen.csv");
    assert!(refused.len() + bounded.len() >= 60);
    let shown = |query: &str| query.chars().take(100).collect::<String>();

    for query in &refused {
        let (status, problem) = asked(&server, query, TIME_MS).await;
        let code = problem["code"].as_str().unwrap_or_default();
        assert_eq!(status, StatusCode::BAD_REQUEST, "{query}: {problem}");
        assert!(["read_only", "invalid_sql"].contains(&code), "{query}: {problem}");
    }
    for query in &bounded {
        let (status, problem) = asked(&server, query, TIME_MS).await;
        let code = problem["code"].as_str().unwrap_or_default();
        let known = ["invalid_sql", "too_slow", "too_large", "invalid_body", "body_too_large"].contains(&code);
        assert!(status == StatusCode::OK || known, "{}: {status} {problem}", shown(query));
        // It leaves the threads to others.
        let (status, answer) = asked(&server, "SELECT count(*) AS events FROM lake.events", 60_000).await;
        assert_eq!(status, StatusCode::OK, "after {}: {answer}", shown(query));
    }

    for query in &refused {
        let client = connected(&server).await;
        // Of several statements, those before the one that is refused are answered.
        let error = client.simple_query(query).await.expect_err(query);
        let code = error.code().map(|code| code.code().to_owned()).unwrap_or_default();
        assert!(["25006", "42601", "42704", "42P01"].contains(&code.as_str()), "{query}: {code} {error:?}");
    }
    for query in &bounded {
        let client = connected(&server).await;
        if let Err(error) = client.simple_query(query).await {
            let code = error.code().map(|code| code.code().to_owned()).unwrap_or_default();
            let known = ["42601", "42P01", "57014", "53200", "22000", "0A000"].contains(&code.as_str());
            assert!(known, "{}: {code} {error:?}", shown(query));
            // The connection lives on.
            client.batch_execute("SET statement_timeout = '60s'").await.unwrap();
            assert_eq!(client.query_one("SELECT 1::int", &[]).await.unwrap().get::<_, i32>(0), 1, "{}", shown(query));
        }
    }
    assert!(most_memory(&server) < MOST_MEMORY_KB, "{} KB", most_memory(&server));
    assert!(!std::path::Path::new("/tmp/forecourt-stolen.csv").exists());
}
