//! The `nats-server` that `forecourt up` runs when no other is named.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use ingest::server::NatsServer;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{forecourt, stdout};

/// It ends in order, so that it need not read its whole store when it starts again; and a store that is larger than what is
/// free may go on growing.
#[tokio::test]
async fn a_server_of_our_own_ends_in_order_and_has_room_beyond_what_it_holds() {
    const HELD: u64 = 3 << 40;
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    fs::create_dir(&store).unwrap();
    // No disk is as large as this file says it is.
    fs::File::create(store.join("held")).unwrap().set_len(HELD).unwrap();
    let server = NatsServer::start(folder.path()).await.unwrap();
    server.stop().await;
    let config = fs::read_to_string(folder.path().join("nats-server.conf")).unwrap();
    let room = config.lines().find_map(|line| line.trim().strip_prefix("max_file_store: ")).unwrap();
    assert!(room.parse::<u64>().unwrap() > HELD, "{config}");
    let log = fs::read_to_string(folder.path().join("nats-server.log")).unwrap();
    assert!(log.contains("Server Exiting"), "{log}");
}

/// Only who can read its folder signs in, and a producer on this machine is told how.
#[tokio::test]
async fn a_server_of_our_own_asks_for_the_credential_that_its_owner_can_read() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = NatsServer::start(&data.join("nats")).await.unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data.join("nats")), 0o700);
    for file in ["context.json", "nats-server.conf", "running.json", "nats-server.log"] {
        assert_eq!(mode(&data.join("nats").join(file)), 0o600, "{file}");
    }
    let said = stdout(&forecourt(&["nats-context", "--json", "--data", data.to_str().unwrap()]));
    let told: Value = serde_json::from_str(&said).unwrap();
    let context: Value = serde_json::from_slice(&fs::read(told["credential_file"].as_str().unwrap()).unwrap()).unwrap();
    assert_eq!(told["url"], context["url"]);
    let address = told["url"].as_str().unwrap().trim_start_matches("nats://").to_owned();
    let signed_in = async |login: Value| {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        stream.write_all(format!("CONNECT {login}\r\nPING\r\n").as_bytes()).await.unwrap();
        let mut said = String::new();
        while !said.contains("PONG\r\n") && !said.contains("-ERR") {
            let mut bytes = vec![0; 4_096];
            let count = stream.read(&mut bytes).await.unwrap();
            said.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
        said.contains("PONG")
    };
    assert!(!signed_in(json!({})).await);
    assert!(!signed_in(json!({"user": context["user"], "pass": "guessed"})).await);
    assert!(signed_in(json!({"user": context["user"], "pass": context["password"]})).await);
    let password = context["password"].as_str().unwrap().to_owned();
    assert!(!said.contains(&password));
    server.stop().await;
    // The same after another start.
    let server = NatsServer::start(&data.join("nats")).await.unwrap();
    assert!(server.context().login_url().contains(&password));
    server.stop().await;
    let none = forecourt(&["nats-context", "--data", folder.path().to_str().unwrap()]);
    assert!(!none.status.success());
}
