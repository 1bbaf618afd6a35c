//! The `nats-server` that `forecourt up` runs when no other is named.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
};

use ingest::server::NatsServer;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    door::event,
    support::{eventually, forecourt, free_port, stdout},
};

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

/// A `forecourt up` with a server of its own.
fn up(data: &Path, port: u16) -> Child {
    let address = |port: u16| format!("127.0.0.1:{port}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_forecourt"));
    command.args(["up", "--http", &address(port), "--postgres", &address(0), "--flight", &address(0), "--data"]);
    command.arg(data).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// The server that runs in a folder: its process and its port.
fn running(data: &Path) -> (u32, u16) {
    let running: Value = serde_json::from_slice(&fs::read(data.join("nats/running.json")).unwrap()).unwrap();
    let number = |name: &str| running[name].as_u64().unwrap();
    (u32::try_from(number("pid")).unwrap(), u16::try_from(number("port")).unwrap())
}

/// Whether a process runs: one that has ended and that nobody has waited for has no command line.
fn is_alive(process: u32) -> bool {
    fs::read(format!("/proc/{process}/cmdline")).is_ok_and(|words| !words.is_empty())
}

/// The addresses a port is listened at, as the system writes them.
fn listening(port: u16) -> Vec<String> {
    let connections = ["/proc/net/tcp", "/proc/net/tcp6"].map(|file| fs::read_to_string(file).unwrap_or_default());
    let lines = connections.iter().flat_map(|text| text.lines().skip(1));
    let listens = lines.filter_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (local, state) = (words.next()?, words.nth(1)?);
        let (address, at) = local.split_once(':')?;
        (state == "0A" && u16::from_str_radix(at, 16) == Ok(port)).then(|| address.to_owned())
    });
    listens.collect()
}

/// Whoever is killed leaves its server; the next start goes on with it, and a stop ends it. It listens on this machine alone.
#[tokio::test]
async fn a_server_whose_process_was_killed_is_found_by_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let (data, port, client) = (folder.path().join("data"), free_port(), reqwest::Client::new());
    let ready = async || {
        eventually("forecourt ready", || async {
            let answer = client.get(format!("http://127.0.0.1:{port}/ready")).send().await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
    };
    let mut process = up(&data, port);
    ready().await;
    let server = running(&data);
    assert_eq!(listening(server.1), ["0100007F"]);
    let price = event("e-1", "PriceSet", "lst-1", json!({"listingId": "lst-1", "price": 9}));
    let events = format!("http://127.0.0.1:{port}/v1/events");
    let taken = client.post(&events).body(price.to_string()).send().await.unwrap();
    assert_eq!(taken.json::<Value>().await.unwrap()["accepted"], 1);
    process.kill().unwrap();
    process.wait().unwrap();
    assert!(is_alive(server.0), "it ended with the process that was killed");

    let mut process = up(&data, port);
    ready().await;
    assert_eq!(running(&data), server);
    let query = json!({"query": "SELECT count(*) FROM inventory.price_set"});
    let rows = client.post(format!("http://127.0.0.1:{port}/v1/sql?wait_ms=60000&min_position=1")).json(&query);
    assert_eq!(rows.send().await.unwrap().json::<Value>().await.unwrap()["rows"], json!([[1]]));
    assert!(Command::new("kill").args(["-TERM", &process.id().to_string()]).status().unwrap().success());
    assert!(process.wait().unwrap().success());
    assert!(!is_alive(server.0), "it outlived a stop in order");
}
