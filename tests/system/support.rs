//! Guards that start real servers and end them, and what tests ask of them.

use std::{
    ffi::OsString,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use ingest::{RawMessage, topology::event_subject};
use reqwest::{Client, StatusCode};
use schemas::{Catalogue, Position, validation::parse_event};
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long anything may take on a busy machine before a test gives up.
pub(crate) const DEADLINE: Duration = Duration::from_secs(180);
/// Between two looks at a condition.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Wait until `look` gives something.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} did not happen within {DEADLINE:?}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// A port that nobody has, nor gets: below those that connections are given, each once.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Other runs on the machine begin elsewhere.
    let first = 10_000 + u16::try_from(std::process::id() % 100).unwrap_or_default() * 100;
    loop {
        let port = first + NEXT.fetch_add(1, Ordering::Relaxed);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn nats_binary() -> PathBuf {
    let tools = std::env::var_os("FORECOURT_TOOLS")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(".tools"), PathBuf::from);
    let own = tools.join("nats-server");
    if own.exists() { own } else { PathBuf::from("nats-server") }
}

/// A `nats-server` of a test's own. Killed when dropped.
pub(crate) struct Nats {
    port: u16,
    /// Where it answers HTTP.
    monitor: u16,
    /// Its jetstream block's settings, as an operator writes them.
    settings: &'static str,
    /// What its configuration says besides.
    more: String,
    folder: TempDir,
    child: Option<Child>,
}

impl Nats {
    pub(crate) async fn start() -> Self {
        Self::start_with("sync_interval: always").await
    }

    /// With these settings of the jetstream block.
    pub(crate) async fn start_with(settings: &'static str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self::launch(settings, String::new(), folder).await
    }

    /// With these lines of its configuration besides.
    pub(crate) async fn start_with_lines(more: String) -> Self {
        Self::launch("sync_interval: always", more, tempfile::tempdir().unwrap()).await
    }

    async fn launch(settings: &'static str, more: String, folder: TempDir) -> Self {
        let mut nats = Self { port: free_port(), monitor: free_port(), settings, more, folder, child: None };
        nats.restart().await;
        nats
    }

    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn monitor(&self) -> String {
        format!("http://127.0.0.1:{}", self.monitor)
    }

    /// The files of the log's messages.
    pub(crate) fn message_files(&self) -> PathBuf {
        self.folder.path().join("store/jetstream/$G/streams/EVENTS/msgs")
    }

    /// Start it again on the same store and port.
    pub(crate) async fn restart(&mut self) {
        let config = self.folder.path().join("nats.conf");
        let store = self.folder.path().join("store");
        let text = format!(
            "listen: \"127.0.0.1:{}\"\nhttp: \"127.0.0.1:{}\"\nmax_payload: 16777216\n\
             jetstream {{ store_dir: {store:?}, {} }}\n{}\n",
            self.port, self.monitor, self.settings, self.more
        );
        std::fs::write(&config, text).unwrap();
        let started =
            Command::new(nats_binary()).arg("-c").arg(&config).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.child = Some(started.expect("cannot start nats-server; run scripts/get-nats-server"));
        eventually("nats-server listening", || async { async_connect(self.port).await }).await;
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// SIGTERM, and wait for its end in order.
    pub(crate) fn stop(&mut self) {
        let mut child = self.child.take().unwrap();
        assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
        child.wait().unwrap();
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        kill(&mut self.child);
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn async_connect(port: u16) -> Option<()> {
    tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok().map(drop)
}

fn kill(child: &mut Option<Child>) {
    if let Some(mut child) = child.take() {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

/// The first line that a started server prints, and the lines after it.
pub(crate) fn first_line(child: &mut Child) -> (String, std::sync::mpsc::Receiver<String>) {
    let (sender, lines) = std::sync::mpsc::channel();
    let output = child.stdout.take().unwrap();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    let first = lines.recv_timeout(DEADLINE).unwrap_or_else(|error| panic!("not ready within {DEADLINE:?}: {error}"));
    (first, lines)
}

/// A `forecourt up` on a data folder. Killed when dropped.
pub(crate) struct Forecourt {
    pub url: String,
    pub client: Client,
    port: u16,
    /// Those of the Postgres wire and of Flight SQL.
    wires: [u16; 2],
    pub nats: String,
    data: PathBuf,
    more: Vec<String>,
    /// Beside what the test itself was started with.
    pub environment: Vec<(String, OsString)>,
    /// How many files it may have open.
    pub open_files: Option<u32>,
    /// What it has said on standard error.
    said: Arc<Mutex<String>>,
    child: Option<Child>,
}

impl Forecourt {
    pub(crate) async fn start(nats: &Nats, data: &Path) -> Self {
        Self::start_with(nats, data, &[]).await
    }

    /// With more arguments than every test's.
    pub(crate) async fn start_with(nats: &Nats, data: &Path, more: &[&str]) -> Self {
        let mut forecourt = Self::new(nats, data, more);
        forecourt.launch();
        forecourt.ready().await;
        forecourt
    }

    /// Not started yet.
    pub(crate) fn new(nats: &Nats, data: &Path, more: &[&str]) -> Self {
        let port = free_port();
        Self {
            url: format!("http://127.0.0.1:{port}"),
            // None asks on a connection that the server has just ended for its silence.
            client: Client::builder().pool_idle_timeout(Duration::from_secs(30)).build().unwrap(),
            port,
            wires: [free_port(), free_port()],
            nats: nats.url(),
            data: data.to_owned(),
            more: more.iter().map(|argument| (*argument).to_owned()).collect(),
            environment: Vec::new(),
            open_files: None,
            said: Arc::default(),
            child: None,
        }
    }

    /// Start the process, ready or not. Small flushes, so that a test sees many.
    pub(crate) fn launch(&mut self) {
        let mut command = match self.open_files {
            None => Command::new(env!("CARGO_BIN_EXE_forecourt")),
            Some(count) => {
                let mut shell = Command::new("sh");
                shell.args([
                    "-c",
                    &format!("ulimit -n {count} && exec \"$0\" \"$@\""),
                    env!("CARGO_BIN_EXE_forecourt"),
                ]);
                shell
            }
        };
        let child = command
            .args(["up", "--nats", &self.nats, "--http", &format!("127.0.0.1:{}", self.port), "--flush-rows", "20000"])
            .args(["--postgres", &self.postgres(), "--flight", &self.flight()])
            .arg("--data")
            .arg(&self.data)
            .args(&self.more)
            .envs(self.environment.iter().cloned())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = child.unwrap();
        let (output, errors) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        // Nobody reads more than the tests ask for, and a full pipe would stop the process.
        thread::spawn(move || BufReader::new(output).lines().map_while(Result::ok).for_each(drop));
        let said = Arc::clone(&self.said);
        thread::spawn(move || {
            for line in BufReader::new(errors).lines().map_while(Result::ok) {
                eprintln!("{line}");
                said.lock().unwrap().push_str(&line);
            }
        });
        self.child = Some(child);
    }

    /// Where the Postgres wire is.
    pub(crate) fn postgres(&self) -> String {
        format!("127.0.0.1:{}", self.wires[0])
    }

    /// Where Flight SQL is.
    pub(crate) fn flight(&self) -> String {
        format!("127.0.0.1:{}", self.wires[1])
    }

    /// Wait until it has caught up with the log.
    pub(crate) async fn ready(&mut self) {
        eventually("forecourt ready", || async { self.is_ready().await.then_some(()) }).await;
    }

    /// Whether it has caught up with the log.
    pub(crate) async fn is_ready(&self) -> bool {
        let answer = self.client.get(format!("{}/ready", self.url)).send().await;
        answer.is_ok_and(|answer| answer.status() == StatusCode::OK)
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        kill(&mut self.child);
    }

    /// SIGTERM, and wait for a clean end.
    pub(crate) fn stop(&mut self) {
        let mut child = self.child.take().unwrap();
        let sent = Command::new("kill").arg("-TERM").arg(child.id().to_string()).status().unwrap();
        assert!(sent.success());
        assert!(child.wait().unwrap().success(), "forecourt did not end cleanly");
    }

    /// What it has said on standard error.
    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.as_mut().unwrap().try_wait().unwrap().is_some()
    }

    /// Wait until it ends by itself; what it said.
    pub(crate) async fn wait_for_end(&mut self) -> String {
        let child = Mutex::new(self.child.take().unwrap());
        eventually("the end of forecourt", || async { child.lock().unwrap().try_wait().unwrap() }).await;
        self.said()
    }

    /// Wait until the lake reflects a position. It has long to come, but must come nearer all the time.
    pub(crate) async fn reflects(&self, position: u64) {
        let mut reached = self.position().await.unwrap_or_default();
        while reached < position {
            let before = reached;
            reached = eventually("the lake coming nearer", || async {
                self.position().await.filter(|reached| *reached > before)
            })
            .await;
        }
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// The lake's position, while it runs.
    pub(crate) async fn position(&self) -> Option<u64> {
        let answer = self.client.get(format!("{}/ready", self.url)).send().await.ok()?;
        answer.json::<Value>().await.ok()?["positions"]["lake"].as_u64()
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let (status, body) = self.try_get(path).await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        body
    }

    pub(crate) async fn try_get(&self, path: &str) -> (StatusCode, Value) {
        let answer = self.client.get(format!("{}{path}", self.url)).send().await.unwrap();
        (answer.status(), answer.json().await.unwrap())
    }

    /// What it tells Prometheus.
    pub(crate) async fn metrics(&self) -> String {
        self.client.get(format!("{}/metrics", self.url)).send().await.unwrap().text().await.unwrap()
    }

    pub(crate) async fn publish(&self, body: impl Into<reqwest::Body>) -> (StatusCode, Value) {
        let answer = self.client.post(format!("{}/v1/events", self.url)).body(body).send().await.unwrap();
        (answer.status(), answer.json().await.unwrap())
    }

    /// The rows of a query that reflects `min_position`.
    pub(crate) async fn sql(&self, query: &str, min_position: u64) -> Vec<Value> {
        let (status, body) = self.try_sql(query, min_position).await;
        assert_eq!(status, StatusCode::OK, "{query}: {body}");
        body["rows"].as_array().unwrap().clone()
    }

    pub(crate) async fn try_sql(&self, query: &str, min_position: u64) -> (StatusCode, Value) {
        let url = format!("{}/v1/sql?wait_ms=60000&min_position={min_position}", self.url);
        let answer = self.client.post(url).json(&json!({"query": query, "limit": 1_000_000})).send().await.unwrap();
        (answer.status(), answer.json().await.unwrap())
    }
}

impl Drop for Forecourt {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Run a command of the binary to its end, which must come: one that goes on is stopped.
pub(crate) fn forecourt(arguments: &[&str]) -> Output {
    let bound = format!("{}s", 5 * DEADLINE.as_secs());
    Command::new("timeout").arg(bound).arg(env!("CARGO_BIN_EXE_forecourt")).args(arguments).output().unwrap()
}

pub(crate) fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A market's history in a file of its own.
pub(crate) fn market(folder: &Path, seed: u64, days: u32, vehicles: u32) -> PathBuf {
    written(folder, &datasets::Market::new(seed, 1_767_225_600_000_000, days, vehicles))
}

/// Write a market to a file.
pub(crate) fn written(folder: &Path, market: &datasets::Market) -> PathBuf {
    let path = folder.join("market.ndjson");
    let mut bytes = Vec::new();
    market.write(&mut bytes).unwrap();
    std::fs::File::create(&path).unwrap().write_all(&bytes).unwrap();
    path
}

/// A market's events, in the order in which they arrive.
pub(crate) fn events_of(market: &datasets::Market) -> Vec<Value> {
    let mut lines = Vec::new();
    market.write(&mut lines).unwrap();
    lines.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
}

/// An event as the log would hand it on.
pub(crate) fn message(catalogue: &Catalogue, position: u64, event: &Value) -> RawMessage {
    let payload = event.to_string().into_bytes();
    let parsed = parse_event(catalogue, &payload, None).unwrap();
    let context = &catalogue.context_at(parsed.kind.context).name;
    let subject = event_subject(context, &catalogue.event_at(parsed.kind).name, &parsed.aggregate_id);
    RawMessage { position: Position::new(position), ingested_at: 0, subject, payload: payload.into(), fault: None }
}

/// Start sending a file; the process ends when everything is acknowledged.
pub(crate) fn ingest(file: &Path, url: &str) -> Child {
    Command::new(env!("CARGO_BIN_EXE_forecourt"))
        .arg("ingest")
        .arg(file)
        .args(["--to", url])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Wait for an ingest to end well; what it printed.
pub(crate) fn finish(child: Child) -> String {
    stdout(&child.wait_with_output().unwrap())
}

/// A command, run to its end.
pub(crate) fn run(arguments: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_forecourt")).args(arguments).output().unwrap()
}

/// The listings of a page, in order.
pub(crate) fn ids(answer: &Value) -> Vec<&str> {
    answer["hits"].as_array().unwrap().iter().map(|hit| hit["listing_id"].as_str().unwrap()).collect()
}

/// The number after a word in the table that `ingest` prints.
pub(crate) fn counted(table: &str, label: &str) -> u64 {
    let line = table
        .lines()
        .find(|line| line.trim_start().starts_with(label))
        .unwrap_or_else(|| panic!("no {label}: {table}"));
    line.trim_start()[label.len()..].split_whitespace().next().unwrap().parse().unwrap()
}

/// Two answers are the same, or the test fails naming the first place where they differ.
pub(crate) fn assert_same(found: &Value, expected: &Value, when: &str) {
    if let Some((place, found, expected)) = difference(found, expected, String::new()) {
        panic!("{when}: at {place}: {found}, not {expected}");
    }
}

fn difference(found: &Value, expected: &Value, place: String) -> Option<(String, String, String)> {
    match (found, expected) {
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).enumerate().find_map(|(at, (a, b))| difference(a, b, format!("{place}/{at}")))
        }
        (Value::Object(a), Value::Object(b)) if a.len() == b.len() => {
            a.iter().find_map(|(name, a)| difference(a, b.get(name).unwrap_or(&Value::Null), format!("{place}/{name}")))
        }
        _ => (found != expected).then(|| (place, found.to_string(), expected.to_string())),
    }
}
