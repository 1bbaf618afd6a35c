//! A newcomer's first hour: the demo, what it prints, and every command of the README.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use serde_json::Value;

use crate::support::{counted, first_line};

const README: &str = include_str!("../../README.md");
const WORDS: &str = include_str!("../../query-api/pages/words.json");
/// A listing file such as the README's example of an import.
const CARS: &str = "Brand,Model,year,Title,UsedOrNew,Transmission,engine,DriveType,FuelType,kilometres,ColourExtInt,Location,\
BodyType,doors,seats,price\n\
Toyota,Corolla,2019,2019 Toyota Corolla Ascent,USED,Automatic,\"4 cyl, 1.8 L\",Front,Unleaded,40000,White / Black,\
\"Caringbah, NSW\",Hatchback, 5 Doors, 5 Seats,21990\n";

/// `forecourt up --demo` with a `nats-server` of its own. Ended when dropped.
struct Demo {
    http: String,
    postgres: String,
    position: u64,
    /// The lines that it printed after being ready.
    to_try: Vec<String>,
    child: Child,
}

impl Drop for Demo {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        // In order, so that its nats-server ends with it.
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).stderr(Stdio::null()).status();
        let _ = self.child.wait();
    }
}

impl Demo {
    fn start(data: &Path) -> Self {
        let mut child = forecourt(data)
            .args(["up", "--demo", "--http", "localhost:0", "--postgres", "127.0.0.1:0", "--flight", "127.0.0.1:0"])
            .arg("--data")
            .arg(data)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (ready, lines) = first_line(&mut child);
        let word = |name: &str| {
            let found = ready.split_whitespace().find_map(|word| word.strip_prefix(name));
            found.unwrap_or_else(|| panic!("not ready: {ready}")).to_owned()
        };
        let to_try: Vec<String> = lines.into_iter().take_while(|line| !line.contains("simulate --live")).collect();
        let position = word("position=").parse().unwrap();
        Self { http: word("http="), postgres: word("postgres="), position, to_try, child }
    }

    async fn get(&self, path: &str) -> Value {
        let answer = reqwest::get(format!("{}{path}", self.http)).await.unwrap();
        assert!(answer.status().is_success(), "{path}");
        answer.json().await.unwrap()
    }

    fn stop(mut self) {
        assert!(Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap().success());
        assert!(self.child.wait().unwrap().success());
    }

    /// Run a command as somebody types it, against this server.
    fn run(&self, command: &str, folder: &Path) -> Output {
        let command = command.replace("http://127.0.0.1:8080", &self.http);
        let path = std::env::var("PATH").unwrap();
        let own = Path::new(env!("CARGO_BIN_EXE_forecourt")).parent().unwrap();
        Command::new("bash")
            .args(["-c", &command])
            .current_dir(folder)
            .env("PATH", format!("{}:{path}", own.display()))
            .env("FORECOURT_URL", &self.http)
            .output()
            .unwrap()
    }
}

fn forecourt(data: &Path) -> Command {
    let tools = || Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools");
    let tools = std::env::var_os("FORECOURT_TOOLS").map_or_else(tools, PathBuf::from);
    let mut command = Command::new(env!("CARGO_BIN_EXE_forecourt"));
    command.env("FORECOURT_TOOLS", tools).current_dir(data.parent().unwrap());
    command
}

/// The commands that the README shows, each whole: a quotation may go over several lines.
fn documented() -> Vec<String> {
    let mut commands: Vec<String> = Vec::new();
    let is_open = |command: &String| command.matches('\'').count() % 2 == 1;
    for line in README.lines() {
        let Some(line) = line.strip_prefix("    ") else { continue };
        match commands.last_mut().filter(|last| is_open(last)) {
            Some(open) => open.extend(["\n", line]),
            None if ["curl ", "forecourt "].iter().any(|name| line.starts_with(name)) => commands.push(line.to_owned()),
            None => {}
        }
    }
    commands
}

fn command_output(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test]
async fn the_demo_is_a_living_market_and_every_documented_command_finds_something_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let demo = Demo::start(&folder.path().join("data"));
    assert!(demo.position < 1_000_000, "{}", demo.position);

    // Cars: many on offer, their prices rated, each with pictures that are there and differ.
    let page = demo.get("/v1/search?page_size=20").await;
    let total = page["total"].as_u64().unwrap();
    assert!(total >= 3_000, "{total}");
    let deals = page["facets"]["deal"].as_array().unwrap();
    let unrated =
        deals.iter().find(|deal| deal["value"] == "unrated").map_or(0, |deal| deal["count"].as_u64().unwrap());
    assert!(unrated * 20 < total, "{unrated} of {total} are unrated");
    let mut pictures: Vec<&str> = Vec::new();
    for hit in page["hits"].as_array().unwrap() {
        pictures.extend(hit["photos"].as_array().unwrap().iter().filter_map(Value::as_str));
    }
    assert!(pictures.len() >= 60, "{pictures:?}");
    pictures.sort_unstable();
    pictures.dedup();
    assert!(pictures.len() > 20, "{pictures:?}");
    for picture in pictures {
        let answer = reqwest::get(format!("{}{picture}", demo.http)).await.unwrap();
        assert_eq!(answer.headers()["content-type"], "image/svg+xml", "{picture}");
        assert!(answer.text().await.unwrap().contains("Illustration"), "{picture}");
    }

    // The example text of the page, in each language.
    let words: Value = serde_json::from_str(WORDS).unwrap();
    for hint in words["search_hint"].as_array().unwrap() {
        let url = format!("{}/v1/search", demo.http);
        let answer = reqwest::Client::new().get(url).query(&[("q", hint.as_str().unwrap())]).send().await.unwrap();
        let answer: Value = answer.json().await.unwrap();
        assert!(answer["total"].as_u64().unwrap() > 3, "{hint}: {}", answer["total"]);
    }

    // It lives until its last day: the last fortnight has as much of everything as the one before, more or less.
    for (kpi, value) in [
        ("offer_volume", "offers_generated"),
        ("production_rate", "vehicles_completed"),
        ("sales_volume", "units_sold"),
    ] {
        let rows = demo.get(&format!("/v1/kpis/{kpi}?grain=day")).await;
        let days: Vec<f64> =
            rows["rows"].as_array().unwrap().iter().filter_map(|row| row["values"][value].as_f64()).collect();
        let (before, last) = days[days.len().saturating_sub(29)..days.len() - 1].split_at(14);
        let [before, last] = [before, last].map(|days| days.iter().sum::<f64>());
        assert!(last > before * 0.5 && last > 5.0, "{kpi}: {before} and then {last}");
    }

    // What it prints, and what the README shows, works as it is printed.
    fs::write(folder.path().join("cars.csv"), CARS).unwrap();
    let printed = demo.to_try.iter().skip_while(|line| *line != "Try:").skip(1).map(|line| line.trim().to_owned());
    let printed: Vec<String> = printed.filter(|line| !line.is_empty()).collect();
    assert!(printed.len() >= 3, "{:?}", demo.to_try);
    let documented = documented();
    assert!(documented.len() >= 7, "{documented:?}");
    for command in printed.into_iter().chain(documented) {
        // A server is running; a shell needs a terminal.
        if command.starts_with("forecourt up") || command == "forecourt sql" {
            continue;
        }
        let run = demo.run(&command, folder.path());
        let said = command_output(&run);
        assert!(run.status.success() && !said.trim().is_empty(), "{command}\n{said}");
        if let Ok(answer) = serde_json::from_slice::<Value>(&run.stdout) {
            let nothing = answer["total"] == 0 || answer["rows"].as_array().is_some_and(Vec::is_empty);
            assert!(!nothing && answer["code"].is_null(), "{command}\n{said}");
        }
    }
    let more = demo.run("forecourt simulate --live --days 2 --vehicles 4 --rate 5000", folder.path());
    assert!(more.status.success() && command_output(&more).contains("accepted"), "{}", command_output(&more));
    let accepted = counted(&command_output(&more), "accepted");
    assert!(accepted > 100, "a live play is not what is there: {}", command_output(&more));

    // Started again, it goes on with the same market.
    let end = demo.get("/v1/tables").await["as_of"]["position"].as_u64().unwrap();
    demo.stop();
    let demo = Demo::start(&folder.path().join("data"));
    let again = demo.get("/v1/tables").await["as_of"]["position"].as_u64().unwrap();
    assert!(again >= end && again < end + 2_000, "{end} and then {again}");
    assert!(!demo.postgres.is_empty());
}

#[test]
fn a_first_build_says_what_it_will_do() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("scripts/build-server");
    fs::create_dir(folder.path().join("scripts")).unwrap();
    fs::copy(format!("{}/scripts/build-server", env!("CARGO_MANIFEST_DIR")), &script).unwrap();
    let fetch = folder.path().join("scripts/get-nats-server");
    fs::write(&fetch, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&fetch, fs::metadata(&script).unwrap().permissions()).unwrap();
    let mut child = Command::new(script).arg("echo").stdout(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(said.contains("minutes") && said.contains("GB of disk"), "{said}");
    assert!(said.trim_end().ends_with("build --locked -p forecourt"), "{said}");
}
