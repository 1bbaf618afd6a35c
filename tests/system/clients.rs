//! What analysts use: drivers, SQLAlchemy, ADBC, and other engines on the lake's files. The checks are a script of their
//! own, for a server of yours as well: `scripts/check-clients --help`. psql comes with Debian: `make test-peers` tries it.

use std::process::Command;

use crate::support::{Forecourt, Nats, counted, finish, ingest, market};

#[tokio::test]
async fn clients_of_every_wire_say_what_http_says() {
    let folder = tempfile::tempdir().unwrap();
    let nats = Nats::start().await;
    let data = folder.path().join("data");
    let mut server = Forecourt::start(&nats, &data).await;
    let file = market(folder.path(), 5, 60, 40);
    let end = counted(&finish(ingest(&file, &server.url)), "position");
    server.reflects(end).await;
    // Files of every table, for those who read them without us.
    server.stop();
    server.launch();
    server.ready().await;
    let root = env!("CARGO_MANIFEST_DIR");
    let python = format!("{root}/.tools/clients/bin/python");
    let checked = Command::new(&python)
        .arg(format!("{root}/scripts/check-clients"))
        .args(["--http", &server.url, "--postgres", &server.postgres(), "--flight", &server.flight()])
        .arg("--lake")
        .arg(data.join("lake"))
        .args(["--forecourt", env!("CARGO_BIN_EXE_forecourt"), "--without-psql"])
        .output();
    let checked = checked.unwrap_or_else(|error| panic!("{python}: {error}; make .tools/clients puts it there"));
    let said = String::from_utf8_lossy(&checked.stdout);
    println!("{said}");
    assert!(checked.status.success(), "{said}{}", String::from_utf8_lossy(&checked.stderr));
    // What a client that is missing would have been asked is not left out unseen.
    for client in ["psycopg", "pgAdmin", "JDBC", "asyncpg", "SQLAlchemy", "ADBC Flight", "forecourt sql", "deltalake"] {
        assert!(said.contains(client), "{client} was not there: {said}");
    }
}
