//! The statements of `tests/slt`, over HTTP and over the Postgres wire alike.
//!
//! The fixture is written by hand, so that every answer can be worked out from it.

use std::path::Path;

use reqwest::Client;
use serde_json::{Value, json};
use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType, Runner};
use tokio_postgres::{SimpleQueryMessage, types::Type};

use crate::support::{Forecourt, Nats, forecourt};

/// What a server says that does not answer, and what kept us from asking.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("{0}")]
    Said(String),
    #[error("no answer")]
    Http(#[from] reqwest::Error),
}

struct Http {
    client: Client,
    url: String,
}

#[async_trait::async_trait]
impl AsyncDB for Http {
    type Error = Refused;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Refused> {
        let answer = self.client.post(format!("{}/v1/sql", self.url)).json(&json!({"query": sql})).send().await?;
        let is_answered = answer.status().is_success();
        let body: Value = answer.json().await?;
        if !is_answered {
            return Err(Refused::Said(body["detail"].as_str().unwrap_or_default().to_owned()));
        }
        let columns = body["columns"].as_array().cloned().unwrap_or_default();
        let types = columns.iter().map(|column| match column["type"].as_str().unwrap_or_default() {
            "smallint" | "integer" | "bigint" | "uint64" => DefaultColumnType::Integer,
            kind if ["decimal", "double", "real"].iter().any(|real| kind.starts_with(real)) => {
                DefaultColumnType::FloatingPoint
            }
            _ => DefaultColumnType::Text,
        });
        let types: Vec<_> = types.collect();
        let rows = body["rows"].as_array().cloned().unwrap_or_default();
        let rows = rows.iter().map(|row| {
            let cells = row.as_array().into_iter().flatten();
            let cells = cells.zip(&types).map(|(cell, kind)| match cell {
                Value::Null => "NULL".to_owned(),
                Value::String(text) => told(text, kind),
                other => told(&other.to_string(), kind),
            });
            cells.collect()
        });
        Ok(DBOutput::Rows { rows: rows.collect(), types })
    }

    async fn shutdown(&mut self) {}
}

struct Wire(tokio_postgres::Client);

#[async_trait::async_trait]
impl AsyncDB for Wire {
    type Error = Refused;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Refused> {
        let said = |error: tokio_postgres::Error| {
            Refused::Said(error.as_db_error().map_or_else(|| error.to_string(), |error| error.message().to_owned()))
        };
        let described = self.0.prepare(sql).await.map_err(said)?;
        let types = described.columns().iter().map(|column| match *column.type_() {
            Type::INT2 | Type::INT4 | Type::INT8 => DefaultColumnType::Integer,
            Type::FLOAT4 | Type::FLOAT8 | Type::NUMERIC => DefaultColumnType::FloatingPoint,
            _ => DefaultColumnType::Text,
        });
        let types: Vec<_> = types.collect();
        let mut rows = Vec::new();
        for message in self.0.simple_query(sql).await.map_err(said)? {
            if let SimpleQueryMessage::Row(row) = message {
                let cell = |(index, kind): (usize, &DefaultColumnType)| match row.get(index) {
                    None => "NULL".to_owned(),
                    // In text, true is t and a time has a blank in it.
                    Some("t") if *described.columns()[index].type_() == Type::BOOL => "true".to_owned(),
                    Some("f") if *described.columns()[index].type_() == Type::BOOL => "false".to_owned(),
                    Some(text) => told(text, kind),
                };
                rows.push(types.iter().enumerate().map(cell).collect());
            }
        }
        Ok(DBOutput::Rows { rows, types })
    }

    async fn shutdown(&mut self) {}
}

/// A value as the files write it: numbers without zeros at the end, times as RFC 3339 has them.
fn told(text: &str, kind: &DefaultColumnType) -> String {
    if *kind == DefaultColumnType::FloatingPoint {
        let number: f64 = text.parse().unwrap_or_else(|_| panic!("{text} is no number"));
        return number.to_string();
    }
    let is_time =
        text.len() >= "2026-01-01 00:00:00".len() && text.as_bytes()[4] == b'-' && text.as_bytes()[13] == b':';
    match text {
        "" => "(empty)".to_owned(),
        text if is_time => text.replacen(' ', "T", 1).replace("+00", "Z").replace(".000000", ""),
        text => text.to_owned(),
    }
}

/// The types are held to as well: whole numbers, others, and text.
fn types_agree(found: &Vec<DefaultColumnType>, expected: &Vec<DefaultColumnType>) -> bool {
    found == expected
}

#[tokio::test]
async fn every_statement_is_answered_the_same_over_http_and_the_postgres_wire() {
    let folder = tempfile::tempdir().unwrap();
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slt");
    let nats = Nats::start().await;
    let server = Forecourt::start_with(&nats, folder.path(), &["--retention", "off"]).await;
    let market = tests.join("market.ndjson");
    assert!(forecourt(&["ingest", market.to_str().unwrap(), "--to", &server.url]).status.success());
    server.reflects(41).await;

    let mut areas: Vec<_> = std::fs::read_dir(&tests).unwrap().map(|entry| entry.unwrap().path()).collect();
    areas.retain(|path| path.extension().is_some_and(|ending| ending == "slt"));
    areas.sort();
    assert!(areas.len() >= 8, "{areas:?}");
    let mut http = Runner::new(async || Ok(Http { client: Client::new(), url: server.url.clone() }));
    let wire =
        format!("host=127.0.0.1 port={} user=analyst dbname=forecourt", server.postgres().rsplit(':').next().unwrap());
    let mut postgres = Runner::new(async || {
        let connected = tokio_postgres::connect(&wire, tokio_postgres::NoTls).await;
        let (client, connection) = connected.map_err(|error| Refused::Said(error.to_string()))?;
        tokio::spawn(connection);
        Ok(Wire(client))
    });
    http.with_column_validator(types_agree);
    postgres.with_column_validator(types_agree);
    for area in &areas {
        http.run_file_async(area).await.unwrap_or_else(|error| panic!("over HTTP: {}", error.display(false)));
        postgres.run_file_async(area).await.unwrap_or_else(|error| panic!("over the wire: {}", error.display(false)));
    }
}
