//! Seeded plans of misfortune while a disorderly market is played: after each, everything is as it happened.
//!
//! `make chaos PLANS=200 SEED=1` makes as many as one likes, on a small disk of their own that can be filled and with a
//! clock that can jump; without it, plans have neither. A plan that fails says the seed that repeats it.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use datasets::{Disorder, Market};
use rand::{Rng, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::Value;

use crate::{
    crash::reached,
    door::Wire,
    support::{DEADLINE, Forecourt, Nats, eventually, forecourt},
    unreadable::unreadable,
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
    UnreadableMessages,
    LoseTheDeadLetterStream,
    ScarceFiles,
    FillTheDisk,
    JumpTheClock,
}

const ANYWHERE: [Misfortune; 12] = [
    Misfortune::KillForecourt,
    Misfortune::KillNats,
    Misfortune::PauseForecourt,
    Misfortune::PauseNats,
    Misfortune::DeleteIndex,
    Misfortune::FlipAByteOfTheIndex,
    Misfortune::TruncateTheIndex,
    Misfortune::LoseUncommittedFiles,
    Misfortune::SecondWriter,
    Misfortune::UnreadableMessages,
    Misfortune::LoseTheDeadLetterStream,
    Misfortune::ScarceFiles,
];

/// Set when temporary folders are on a small disk that may be filled.
const SMALL_DISK: &str = "CHAOS_SMALL_DISK";
/// The library that shifts a process's clock, when there is one.
const FAKETIME: &str = "CHAOS_FAKETIME";

/// A number from the environment.
fn asked(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_befalls_it_the_system_ends_as_it_happened() {
    let first = asked("CHAOS_SEED").unwrap_or(1);
    let mut befallen: BTreeMap<String, u64> = BTreeMap::new();
    let started = Instant::now();
    for seed in first..first + asked("CHAOS_PLANS").unwrap_or(PLANS) {
        eprintln!("chaos plan {seed}: make chaos PLANS=1 SEED={seed} repeats it");
        for misfortune in plan(seed).await {
            *befallen.entry(format!("{misfortune:?}")).or_default() += 1;
        }
    }
    eprintln!("all hold after {:.0} s: {befallen:?}", started.elapsed().as_secs_f64());
}

/// A system, and where its things are.
struct Stage {
    nats: Nats,
    server: Forecourt,
    data: PathBuf,
    /// What the clock's library reads the shift from.
    clock: PathBuf,
}

/// What befell.
async fn plan(seed: u64) -> Vec<Misfortune> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    // The ledger is no part of the system: it is not on the disk that is filled.
    let ledger = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let truth = ledger.path().join("truth.json");
    let disorder = Disorder { duplicates: 0.05, late: 0.10, malformed: 0.02, shuffled: 0.25 };
    let market = Market { disorder, ..Market::new(seed, MICROS_2026, DAYS, VEHICLES) };
    let events = market.play(&mut |_| Ok(())).unwrap().events;
    let mut instants: Vec<u64> = (0..MISFORTUNES).map(|_| rng.random_range(events / 50..events * 9 / 10)).collect();
    instants.sort_unstable();
    let faketime = std::env::var_os(FAKETIME);
    let mut possible = ANYWHERE.to_vec();
    possible.extend(std::env::var_os(SMALL_DISK).map(|_| Misfortune::FillTheDisk));
    possible.extend(faketime.as_ref().map(|_| Misfortune::JumpTheClock));

    let nats = Nats::start().await;
    // Flushed often, so that misfortunes meet flushes.
    // A clock that jumps closes periods that never were: what is published of them is no part of what happened.
    let mut server = Forecourt::new(&nats, &data, &["--flush-seconds", "1", "--close-periods-from", "2100-01-01"]);
    let clock = folder.path().join("clock");
    if let Some(library) = faketime {
        assert!(Path::new(&library).is_file(), "there is no {}", library.display());
        shift_clock(&clock, 0);
        server.environment = vec![
            ("LD_PRELOAD".into(), library),
            ("FAKETIME_TIMESTAMP_FILE".into(), clock.clone().into()),
            ("FAKETIME_CACHE_DURATION".into(), "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC".into(), "1".into()),
        ];
    }
    server.launch();
    server.ready().await;
    let mut player = play(seed, &server.url, &truth);
    let mut stage = Stage { nats, server, data, clock };
    let mut befallen = Vec::new();
    for instant in instants {
        reached(&stage.server, instant).await;
        let misfortune = *possible.choose(&mut rng).unwrap();
        eprintln!("  at {instant} of {events}: {misfortune:?}");
        stage.befall(misfortune, &mut rng).await;
        befallen.push(misfortune);
    }
    let status = eventually("the end of the play", || {
        let ended = player.try_wait().unwrap();
        async move { ended }
    })
    .await;
    assert!(status.success(), "plan {seed}: the player ended with {status}");
    stage.recover().await;
    let proof = forecourt(&["verify", "--to", &stage.server.url, "--truth", truth.to_str().unwrap()]);
    let said = String::from_utf8([proof.stdout, proof.stderr].concat()).unwrap();
    assert!(proof.status.success(), "plan {seed}: {said}");
    befallen
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

impl Stage {
    async fn befall(&mut self, misfortune: Misfortune, rng: &mut ChaCha8Rng) {
        let index = self.data.join("index");
        match misfortune {
            Misfortune::KillForecourt => self.with_forecourt_killed(|| {}),
            Misfortune::KillNats => {
                self.nats.kill();
                self.nats.restart().await;
            }
            Misfortune::PauseForecourt => pause(self.server.id(), rng).await,
            Misfortune::PauseNats => pause(self.nats.id(), rng).await,
            Misfortune::DeleteIndex => self.with_forecourt_killed(|| fs::remove_dir_all(index).unwrap()),
            Misfortune::FlipAByteOfTheIndex => self.with_forecourt_killed(|| {
                spoil(&index, rng, |rng, bytes| {
                    let at = rng.random_range(0..bytes.len());
                    bytes[at] ^= 1 << rng.random_range(0..8);
                });
            }),
            Misfortune::TruncateTheIndex => self.with_forecourt_killed(|| {
                spoil(&index, rng, |rng, bytes| bytes.truncate(rng.random_range(0..bytes.len())));
            }),
            Misfortune::LoseUncommittedFiles => {
                let lake = self.data.join("lake");
                // In the middle of a flush, if there is one while we look.
                let look_until = Instant::now() + Duration::from_secs(3);
                while uncommitted(&lake).is_empty() && Instant::now() < look_until {}
                self.with_forecourt_killed(|| {
                    for file in uncommitted(&lake) {
                        fs::remove_file(file).unwrap();
                    }
                });
            }
            Misfortune::SecondWriter => {
                let url = self.nats.url();
                let arguments = ["up", "--http", "127.0.0.1:0", "--nats", &url, "--data", self.data.to_str().unwrap()];
                let second = forecourt(&arguments);
                let said = String::from_utf8(second.stderr).unwrap();
                assert!(!second.status.success() && said.contains("another forecourt uses"), "{said}");
            }
            Misfortune::UnreadableMessages => {
                let mut wire = Wire::connect(&self.nats.url()).await;
                for _ in 0..rng.random_range(1..20) {
                    let (subject, headers, payload) = unreadable().choose(rng).unwrap().clone();
                    wire.publish_bytes(&subject, headers.as_deref(), &payload).await;
                }
            }
            Misfortune::LoseTheDeadLetterStream => {
                let mut wire = Wire::connect(&self.nats.url()).await;
                // It may have been lost before, and not be made again yet.
                wire.try_delete_stream("DEAD_LETTERS").await;
                wire.publish("events.inventory.PriceSet.x", b"no event").await;
            }
            Misfortune::ScarceFiles => {
                let pid = Pid::from_raw(i32::try_from(self.server.id()).unwrap());
                let scarce = Rlimit { current: Some(rng.random_range(40..120)), maximum: Some(4_096) };
                prlimit(pid, Resource::Nofile, scarce).unwrap();
                tokio::time::sleep(Duration::from_millis(rng.random_range(200..3_000))).await;
                prlimit(pid, Resource::Nofile, Rlimit { current: Some(4_096), maximum: Some(4_096) }).unwrap();
            }
            Misfortune::FillTheDisk => {
                let filler = fill(&std::env::temp_dir());
                tokio::time::sleep(Duration::from_millis(rng.random_range(200..3_000))).await;
                fs::remove_file(filler).unwrap();
                // As an operator does: JetStream stays away after a full disk until its server starts again.
                self.nats.kill();
                self.nats.restart().await;
                self.recover().await;
            }
            Misfortune::JumpTheClock => {
                let days = rng.random_range(-40..40);
                shift_clock(&self.clock, days);
                if rng.random_bool(0.5) {
                    self.with_forecourt_killed(|| {});
                }
            }
        }
    }

    /// Wait until it is ready; started again, if it gave up meanwhile.
    async fn recover(&mut self) {
        let deadline = Instant::now() + DEADLINE;
        while !self.server.is_ready().await {
            assert!(Instant::now() < deadline, "forecourt is not ready within {DEADLINE:?}");
            if self.server.has_ended() {
                self.server.launch();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn with_forecourt_killed(&mut self, spoil: impl FnOnce()) {
        self.server.kill();
        spoil();
        self.server.launch();
    }
}

/// The shift is read again every second.
fn shift_clock(clock: &Path, days: i32) {
    fs::write(clock, format!("{days:+}d\n")).unwrap();
}

/// Write until there is no room; the file that takes it.
fn fill(folder: &Path) -> PathBuf {
    let filler = folder.join("filler");
    let mut file = fs::File::create(&filler).unwrap();
    while file.write_all(&[0; 1 << 16]).is_ok() {}
    filler
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
