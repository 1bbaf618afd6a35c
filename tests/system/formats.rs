//! Data folders of earlier versions: each is opened by this one, proves to be what it was, and answers what it answered.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use reqwest::Client;
use serde_json::Value;

use crate::support::first_line;

/// A server with a `nats-server` of its own. Ended when dropped.
struct Server {
    url: String,
    child: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        // In order, so that its nats-server ends with it.
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).stderr(Stdio::null()).status();
        let _ = self.child.wait();
    }
}

fn up(data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forecourt"));
    command
        .args(["up", "--retention", "off", "--close-periods-from", "2100-01-01", "--http", "127.0.0.1:0"])
        .args(["--postgres", "127.0.0.1:0", "--flight", "127.0.0.1:0", "--data"])
        .arg(data)
        .env("FORECOURT_TOOLS", tools());
    command
}

fn tools() -> PathBuf {
    let own = || Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools");
    std::env::var_os("FORECOURT_TOOLS").map_or_else(own, PathBuf::from)
}

impl Server {
    fn start(data: &Path) -> Self {
        let mut child = up(data).stdout(Stdio::piped()).spawn().unwrap();
        let (ready, _) = first_line(&mut child);
        let url = ready.split_whitespace().find_map(|word| word.strip_prefix("http="));
        Self { url: url.unwrap_or_else(|| panic!("not ready: {ready}")).to_owned(), child }
    }

    async fn ask(&self, path: &str) -> BTreeMap<String, Value> {
        let join = if path.contains('?') { '&' } else { '?' };
        let answer = Client::new().get(format!("{}{path}{join}wait_ms=60000", self.url)).send().await.unwrap();
        let mut answer: BTreeMap<String, Value> = answer.json().await.unwrap();
        // Of the moment it was given in.
        for name in ["took_ms", "rated_as_of", "median_error_percent", "complete_through"] {
            answer.remove(name);
        }
        answer
    }

    fn stop(mut self) {
        assert!(Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap().success());
        assert!(self.child.wait().unwrap().success(), "forecourt did not end cleanly");
    }
}

/// The fixtures' versions.
fn versions() -> Vec<String> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let names = fs::read_dir(fixtures).unwrap().flatten().map(|file| file.file_name().into_string().unwrap());
    let mut versions: Vec<String> =
        names.filter_map(|name| Some(name.strip_prefix("data-")?.strip_suffix(".tar.gz")?.to_owned())).collect();
    versions.sort();
    versions
}

fn unpack(version: &str, folder: &Path) -> PathBuf {
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/data-{version}.tar.gz"));
    let unpacked = Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(folder).status().unwrap();
    assert!(unpacked.success());
    folder.join("data")
}

#[tokio::test]
async fn folders_of_earlier_versions_are_opened_hold_and_answer_what_they_answered() {
    let versions = versions();
    assert!(versions.contains(&"0.1".to_owned()), "{versions:?}");
    for version in versions {
        let folder = tempfile::tempdir().unwrap();
        let data = unpack(&version, folder.path());
        let answers = format!("{}/tests/fixtures/answers-{version}.json", env!("CARGO_MANIFEST_DIR"));
        let answers: BTreeMap<String, BTreeMap<String, Value>> =
            serde_json::from_slice(&fs::read(answers).unwrap()).unwrap();
        // Version 0.1 said nothing of formats.
        assert_eq!(data.join("format.json").exists(), version != "0.1", "{version}");
        let server = Server::start(&data);
        for (path, expected) in &answers {
            assert_eq!(&server.ask(path).await, expected, "{version}: {path}");
        }
        let verified = Command::new(env!("CARGO_BIN_EXE_forecourt")).args(["verify", "--to", &server.url]).output();
        let verified = verified.unwrap();
        assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
        server.stop();
        let formats: Value = serde_json::from_slice(&fs::read(data.join("format.json")).unwrap()).unwrap();
        assert!(formats["parts"]["lake"].is_u64(), "{formats}");
    }
}

#[tokio::test]
async fn an_index_of_an_older_format_is_built_again_and_a_newer_folder_is_refused_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let data = unpack("0.1", folder.path());
    let server = Server::start(&data);
    let page = server.ask("/v1/search?page_size=50&sort=price").await;
    server.stop();
    let path = data.join("format.json");
    let formats: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let with = |part: &str, by: i64| {
        let mut other = formats.clone();
        other["parts"][part] = (other["parts"][part].as_i64().unwrap() + by).into();
        other["written_by"] = "9.9.0".into();
        fs::write(&path, other.to_string()).unwrap();
        other
    };
    with("index", -1);
    let server = Server::start(&data);
    assert_eq!(server.ask("/v1/search?page_size=50&sort=price").await, page);
    server.stop();
    assert_eq!(serde_json::from_slice::<Value>(&fs::read(&path).unwrap()).unwrap(), formats);

    let newer = with("lake", 1);
    for command in ["up", "sql", "verify", "maintain"] {
        let refused = match command {
            "up" => up(&data).output().unwrap(),
            "sql" => offline(&["sql", "SELECT 1", "--data"], &data),
            _ => offline(&[command, "--data"], &data),
        };
        let said = String::from_utf8(refused.stderr).unwrap();
        assert!(!refused.status.success(), "{command}");
        assert!(said.contains("its lake has format 3") && said.contains("Start forecourt 9.9.0 or later"), "{said}");
    }
    assert_eq!(serde_json::from_slice::<Value>(&fs::read(&path).unwrap()).unwrap(), newer);
}

fn offline(arguments: &[&str], data: &Path) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_forecourt")).args(arguments).arg(data).output().unwrap()
}
