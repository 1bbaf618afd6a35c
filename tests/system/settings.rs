//! Settings: where each comes from, and a log behind TLS and a password.

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};

use crate::support::{Forecourt, Nats, stdout};

const DOCUMENTED: &str = include_str!("../../docs/forecourt.toml");

/// Run the command in a folder, with an environment of its own.
fn run_in(folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forecourt"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("FORECOURT_") && name != "FORECOURT_TOOLS") {
        command.env_remove(name);
    }
    command.args(arguments).envs(environment.iter().copied()).current_dir(folder).output().unwrap()
}

/// What `config show --json` says of a setting: its value, and where it comes from.
fn shown(output: &Output, name: &str) -> (Value, String) {
    let settings: Vec<Value> = serde_json::from_str(&stdout(output)).unwrap();
    let setting = settings.iter().find(|setting| setting["setting"] == name).unwrap();
    (setting["value"].clone(), setting["from"].as_str().unwrap().to_owned())
}

#[test]
fn a_flag_goes_before_the_environment_the_environment_before_the_file_and_the_file_before_the_default() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("forecourt.toml"), "[lake]\nflush_seconds = 7\nflush_rows = 8\n").unwrap();
    let show = |more: &[&str], environment: &[(&str, &str)]| {
        run_in(folder.path(), &[&["config", "show", "--json"], more].concat(), environment)
    };
    let setting = |output: &Output| shown(output, "lake.flush_seconds");
    let environment = [("FORECOURT_FLUSH_SECONDS", "6")];
    let flagged = show(&["--flush-seconds", "5"], &environment);
    assert_eq!(setting(&flagged), (json!("5"), "flag --flush-seconds".to_owned()));
    assert_eq!(setting(&show(&[], &environment)), (json!("6"), "environment FORECOURT_FLUSH_SECONDS".to_owned()));
    assert_eq!(setting(&show(&[], &[])), (json!("7"), "forecourt.toml:2".to_owned()));
    assert_eq!(shown(&show(&[], &[]), "lake.flush_rows"), (json!("8"), "forecourt.toml:3".to_owned()));
    fs::remove_file(folder.path().join("forecourt.toml")).unwrap();
    assert_eq!(setting(&show(&[], &[])), (json!("30"), "default".to_owned()));
    assert_eq!(shown(&show(&[], &[]), "log.nats"), (Value::Null, "not set".to_owned()));
}

#[test]
fn a_file_is_taken_whole_or_refused_with_every_mistake() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("other.toml");
    fs::write(&file, "[server]\nhttp = \"localhost\"\ndatas = \"x\"\n").unwrap();
    let named = file.to_str().unwrap();
    let refused = run_in(folder.path(), &["up", "--config", named], &[]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success());
    assert!(said.contains(&format!("{named}:2: server.http: localhost is not valid: a host and a port")), "{said}");
    assert!(
        said.contains(&format!("{named}:3: there is no setting server.datas; did you mean server.data?")),
        "{said}"
    );
    let checked = run_in(folder.path(), &["config", "check", named], &[]);
    assert_eq!((checked.status.code(), stdout_of(&checked).lines().count()), (Some(1), 2));
    let missing = run_in(folder.path(), &["up", "--config", "nowhere.toml"], &[]);
    assert!(String::from_utf8(missing.stderr).unwrap().contains("nowhere.toml"));
}

fn stdout_of(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn the_documented_file_is_valid_and_has_every_key_with_its_default() {
    let folder = tempfile::tempdir().unwrap();
    let (file, whole) = (folder.path().join("forecourt.toml"), folder.path().join("whole.toml"));
    fs::write(&file, DOCUMENTED).unwrap();
    let is_key = |line: &str| line.starts_with("# ") && line.contains(" = ");
    let lines = DOCUMENTED.lines().map(|line| if is_key(line) { line.trim_start_matches("# ") } else { line });
    fs::write(&whole, lines.collect::<Vec<_>>().join("\n")).unwrap();
    for file in [&file, &whole] {
        let checked = run_in(folder.path(), &["config", "check", file.to_str().unwrap()], &[]);
        assert!(checked.status.success(), "{}", stdout_of(&checked));
    }
    let all = run_in(folder.path(), &["config", "show", "--json", "--config", whole.to_str().unwrap()], &[]);
    for setting in serde_json::from_str::<Vec<Value>>(&stdout(&all)).unwrap() {
        let is_secret = setting["setting"] == "log.nats_password";
        let from = setting["from"].as_str().unwrap();
        assert!(is_secret || from.contains("whole.toml:"), "docs/forecourt.toml lacks {setting}");
    }
    let documented = run_in(folder.path(), &["config", "show", "--json"], &[]);
    fs::remove_file(&file).unwrap();
    let defaults = run_in(folder.path(), &["config", "show", "--json"], &[]);
    let values = |output: &Output| -> Vec<(Value, Value)> {
        let settings: Vec<Value> = serde_json::from_str(&stdout(output)).unwrap();
        settings.iter().map(|setting| (setting["setting"].clone(), setting["value"].clone())).collect()
    };
    assert_eq!(values(&documented), values(&defaults));
}

#[test]
fn a_path_in_a_file_is_relative_to_the_file_and_a_secret_is_never_printed() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("inner");
    fs::create_dir(&inner).unwrap();
    fs::write(inner.join("f.toml"), "[server]\ndata = \"market\"\n[log]\nnats = \"nats://ann:s3cret@h:1\"\n").unwrap();
    let arguments = ["config", "show", "--json", "--config", "inner/f.toml"];
    let output = run_in(folder.path(), &arguments, &[("FORECOURT_NATS_PASSWORD", "t0psecret")]);
    assert_eq!(shown(&output, "server.data").0, "inner/market");
    assert_eq!(shown(&output, "log.nats").0, "nats://ann:(hidden)@h:1");
    assert_eq!(shown(&output, "log.nats_password").0, "(hidden)");
    let text = stdout(&output);
    assert!(!text.contains("s3cret") && !text.contains("t0psecret"), "{text}");
    let refused = run_in(folder.path(), &["up", "--nats", "nats://ann:s3cret@127.0.0.1:1"], &[]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && said.contains("ann:(hidden)@") && !said.contains("s3cret"), "{said}");
}

#[test]
fn a_closed_pipe_ends_a_command_quietly() {
    for command in [
        "config show",
        "kpi list --json",
        "catalogue list",
        "catalogue show PriceSet",
        "simulate --days 5 --vehicles 3",
    ] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_forecourt"))
            .args(command.split(' '))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Nobody reads: the first write fails.
        drop(child.stdout.take());
        let run = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&run.stderr), "", "{command}");
        // As SIGPIPE would have ended it.
        assert_eq!(run.status.code(), Some(141), "{command}");
    }
}

/// Behind TLS with a certificate of its own authority, a user and a password.
#[tokio::test]
async fn a_log_behind_tls_and_a_password_is_read_and_written() {
    let folder = tempfile::tempdir().unwrap();
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (certificate, key, password) = (path("cert.pem"), path("key.pem"), path("password"));
    fs::write(&certificate, cert.pem()).unwrap();
    fs::write(&key, signing_key.serialize_pem()).unwrap();
    fs::write(&password, "c0rrect\n").unwrap();
    let lines = format!(
        "tls {{ cert_file: {certificate:?}, key_file: {key:?} }}\nauthorization {{ user: ann, password: c0rrect }}"
    );
    let nats = Nats::start_with_lines(lines).await;
    let arguments = ["--nats-ca", &certificate, "--nats-user", "ann", "--nats-password-file", &password];
    let mut server = Forecourt::new(&nats, &folder.path().join("data"), &arguments);
    server.nats = format!("tls://localhost:{}", nats.port());
    server.launch();
    server.ready().await;
    let event = json!({
        "eventId": "p-1", "eventType": "PriceSet", "timestamp": "2026-03-01T10:00:00Z",
        "data": {"listingId": "l-1", "price": 7}
    });
    server.publish(event.to_string()).await;
    server.reflects(1).await;
    server.stop();
    // The login may stand in the address; nobody is shown its password.
    let in_address = ["--nats-ca", &certificate];
    let mut server = Forecourt::new(&nats, &folder.path().join("data"), &in_address);
    server.nats = format!("tls://ann:c0rrect@localhost:{}", nats.port());
    server.launch();
    server.ready().await;
    assert_eq!(server.sql("SELECT count(*) FROM inventory.price_set", 1).await, [json!([1])]);
    server.stop();
    assert!(!server.said().contains("c0rrect"), "{}", server.said());
    server.nats = format!("tls://localhost:{}", nats.port());
    let wrong = [("FORECOURT_NATS_PASSWORD", "wrong")];
    let data = path("data2");
    let up = ["up", "--nats", &server.nats, "--data", &data, "--nats-ca", &certificate, "--nats-user", "ann"];
    let refused = run_in(folder.path(), &up, &wrong);
    assert!(!refused.status.success());
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("authorization") && !said.contains("wrong") && !said.contains("panicked"), "{said}");
}
