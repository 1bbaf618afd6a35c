//! Seeded plans of misfortune while a disorderly market is played: after each, everything is as it happened.
//!
//! `make chaos PLANS=200 SEED=1` makes as many as one likes. A plan that fails says the seed that repeats it.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use datasets::{Disorder, Market};
use rand::{Rng, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use crate::{
    crash::reached,
    support::{Forecourt, Nats, eventually, forecourt},
};

/// Plans unless `CHAOS_PLANS` says otherwise.
const PLANS: u64 = 2;
const MISFORTUNES: usize = 4;
const MICROS_2026: i64 = 1_767_225_600_000_000;
const DAYS: u32 = 20;
const VEHICLES: u32 = 12;

#[derive(Clone, Copy, Debug)]
enum Misfortune {
    KillForecourt,
    KillNats,
    PauseForecourt,
    PauseNats,
    DeleteIndex,
    FlipAByteOfTheIndex,
    TruncateTheIndex,
    LoseUncommittedFiles,
    SecondWriter,
}

const ALL: [Misfortune; 9] = [
    Misfortune::KillForecourt,
    Misfortune::KillNats,
    Misfortune::PauseForecourt,
    Misfortune::PauseNats,
    Misfortune::DeleteIndex,
    Misfortune::FlipAByteOfTheIndex,
    Misfortune::TruncateTheIndex,
    Misfortune::LoseUncommittedFiles,
    Misfortune::SecondWriter,
];

/// A number from the environment.
fn asked(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_befalls_it_the_system_ends_as_it_happened() {
    let first = asked("CHAOS_SEED").unwrap_or(1);
    for seed in first..first + asked("CHAOS_PLANS").unwrap_or(PLANS) {
        eprintln!("chaos plan {seed}: make chaos PLANS=1 SEED={seed} repeats it");
        plan(seed).await;
    }
}

async fn plan(seed: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let folder = tempfile::tempdir().unwrap();
    let (data, truth) = (folder.path().join("data"), folder.path().join("truth.json"));
    let disorder = Disorder { duplicates: 0.05, late: 0.10, malformed: 0.02, shuffled: 0.25 };
    let market = Market { disorder, ..Market::new(seed, MICROS_2026, DAYS, VEHICLES) };
    let events = market.play(&mut |_| Ok(())).unwrap().events;
    let mut instants: Vec<u64> = (0..MISFORTUNES).map(|_| rng.random_range(events / 50..events * 9 / 10)).collect();
    instants.sort_unstable();

    let mut nats = Nats::start().await;
    // Flushed often, so that misfortunes meet flushes.
    let mut server = Forecourt::start_with(&nats, &data, &["--flush-seconds", "1"]).await;
    let mut player = play(seed, &server.url, &truth);
    for instant in instants {
        reached(&server, instant).await;
        let misfortune = *ALL.choose(&mut rng).unwrap();
        eprintln!("  at {instant} of {events}: {misfortune:?}");
        befall(misfortune, &mut rng, &mut nats, &mut server, &data).await;
    }
    let status = eventually("the end of the play", || {
        let ended = player.try_wait().unwrap();
        async move { ended }
    })
    .await;
    assert!(status.success(), "plan {seed}: the player ended with {status}");
    server.ready().await;
    let proof = forecourt(&["verify", "--to", &server.url, "--truth", truth.to_str().unwrap()]);
    let said = String::from_utf8([proof.stdout, proof.stderr].concat()).unwrap();
    assert!(proof.status.success(), "plan {seed}: {said}");
}

/// Play the market to the server; what cannot be sent is sent again.
fn play(seed: u64, url: &str, truth: &Path) -> Child {
    let (days, vehicles, seed) = (DAYS.to_string(), VEHICLES.to_string(), seed.to_string());
    Command::new(env!("CARGO_BIN_EXE_forecourt"))
        .args(["simulate", "--live", "--rate", "2000", "--disorder", "--days", &days, "--vehicles", &vehicles])
        .args(["--seed", &seed, "--to", url, "--truth"])
        .arg(truth)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

async fn befall(misfortune: Misfortune, rng: &mut ChaCha8Rng, nats: &mut Nats, server: &mut Forecourt, data: &Path) {
    match misfortune {
        Misfortune::KillForecourt => {
            server.kill();
            server.launch();
        }
        Misfortune::KillNats => {
            nats.kill();
            nats.restart().await;
        }
        Misfortune::PauseForecourt => pause(server.id(), rng).await,
        Misfortune::PauseNats => pause(nats.id(), rng).await,
        Misfortune::DeleteIndex => {
            server.kill();
            fs::remove_dir_all(data.join("index")).unwrap();
            server.launch();
        }
        Misfortune::FlipAByteOfTheIndex => {
            server.kill();
            spoil(&data.join("index"), rng, |rng, bytes| {
                let at = rng.random_range(0..bytes.len());
                bytes[at] ^= 1 << rng.random_range(0..8);
            });
            server.launch();
        }
        Misfortune::TruncateTheIndex => {
            server.kill();
            spoil(&data.join("index"), rng, |rng, bytes| bytes.truncate(rng.random_range(0..bytes.len())));
            server.launch();
        }
        Misfortune::LoseUncommittedFiles => {
            server.kill();
            for file in uncommitted(&data.join("lake")) {
                fs::remove_file(file).unwrap();
            }
            server.launch();
        }
        Misfortune::SecondWriter => {
            let url = nats.url();
            let arguments = ["up", "--http", "127.0.0.1:0", "--nats", &url, "--data", data.to_str().unwrap()];
            let second = forecourt(&arguments);
            let said = String::from_utf8(second.stderr).unwrap();
            assert!(!second.status.success() && said.contains("another forecourt uses"), "{said}");
        }
    }
}

/// Stop a process for a moment: the misfortune itself, not a wait for something.
async fn pause(id: u32, rng: &mut ChaCha8Rng) {
    let signal = |name: &str| assert!(Command::new("kill").args([name, &id.to_string()]).status().unwrap().success());
    signal("-STOP");
    tokio::time::sleep(Duration::from_millis(rng.random_range(50..1_500))).await;
    signal("-CONT");
}

/// Spoil one file of a folder that has something in it.
fn spoil(folder: &Path, rng: &mut ChaCha8Rng, how: impl FnOnce(&mut ChaCha8Rng, &mut Vec<u8>)) {
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.is_file() && file.metadata().unwrap().len() > 0);
    files.sort();
    let Some(file) = files.choose(rng) else { return };
    let mut bytes = fs::read(file).unwrap();
    how(rng, &mut bytes);
    fs::write(file, bytes).unwrap();
}

/// Data files that no commit of their table names.
fn uncommitted(lake: &Path) -> Vec<PathBuf> {
    let mut lost = Vec::new();
    for table in fs::read_dir(lake).unwrap().map(|entry| entry.unwrap().path()) {
        let commits = fs::read_dir(table.join("_delta_log")).into_iter().flatten();
        let texts =
            commits.map(|commit| commit.unwrap().path()).filter(|path| path.extension().is_some_and(|it| it == "json"));
        let actions: Vec<Value> = texts
            .flat_map(|path| {
                let text = fs::read_to_string(path).unwrap();
                text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>()
            })
            .collect();
        let named: HashSet<&str> = actions.iter().filter_map(|action| action["add"]["path"].as_str()).collect();
        for partition in fs::read_dir(&table).unwrap().map(|entry| entry.unwrap().path()) {
            if !partition.is_dir() || partition.ends_with("_delta_log") {
                continue;
            }
            let files = fs::read_dir(&partition).unwrap().map(|entry| entry.unwrap().path());
            lost.extend(files.filter(|file| {
                let name = file.strip_prefix(&table).unwrap().to_str().unwrap();
                !named.contains(name)
            }));
        }
    }
    lost
}
