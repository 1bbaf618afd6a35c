//! Cuts the power of a running server at seeded moments, and shows that no acknowledged event is lost.
//!
//! The data folder lies on a disk of our own that forgets what was not synced ([`volatile_disk`]). A market is played to
//! the server meanwhile. At its end `forecourt verify --truth` compares everything the server holds with what happened.
//! Needs Linux with FUSE and the right to mount: `make test-peers` runs it in a mount namespace of its own.

mod log_purge;
mod mounted_disk;
mod server;
mod volatile_disk;

use std::{
    ffi::OsString,
    ops::Range,
    path::PathBuf,
    process::{Child, ExitCode},
    thread,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use clap::Parser;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{
    mounted_disk::MountedDisk,
    server::{Server, Setup, eventually, free_port},
    volatile_disk::{Rules, Survival},
};

/// Cuts while one market is played.
const CUTS_PER_MARKET: u64 = 10;
/// The power fails after so many changes of the disk, as often among the first as among the last of them.
const CHANGES: Range<f64> = 10.0..15_000.0;
/// How often the log forgets what the lake holds before the power fails.
const PURGES: f64 = 0.8;
/// Where nats-server keeps the log, in the data folder.
const LOG_FOLDER: &str = "nats";
/// Starting, playing and catching up, on a busy machine.
const DEADLINE: Duration = Duration::from_secs(180);

/// Cut the power of a server at seeded moments.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many cuts
    #[arg(long, default_value_t = 50)]
    cuts: u64,
    /// The first market's seed; each market has the next one
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Events a second
    #[arg(long, default_value_t = 300)]
    rate: u32,
    /// Syncs in folders of this name do nothing, such as lake or nats: events are to be lost then
    #[arg(long, value_name = "NAME")]
    broken_sync: Option<String>,
    /// The server's executable
    #[arg(long, default_value = "target/debug/forecourt")]
    forecourt: PathBuf,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without a backtrace, whatever the environment asks for.
            eprintln!("power-cuts: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    server::adopt_orphans()?;
    let (mut cuts, mut purges, mut seed) = (0, 0, arguments.seed);
    while cuts < arguments.cuts {
        let wanted = CUTS_PER_MARKET.min(arguments.cuts - cuts);
        let market = Market::play(arguments, seed, wanted).with_context(|| format!("market {seed} failed"))?;
        cuts += market.cuts;
        purges += market.purges;
        println!("market {seed}: {} cuts, every acknowledged event is there", market.cuts);
        seed += 1;
    }
    println!(
        "power-cuts: {cuts} cuts over {} markets, {purges} purges of the log: nothing lost",
        seed - arguments.seed
    );
    Ok(())
}

/// A market that was played while the power failed.
struct Market {
    cuts: u64,
    purges: u64,
}

impl Market {
    fn play(arguments: &Arguments, seed: u64, wanted: u64) -> anyhow::Result<Self> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let folder = tempfile::tempdir()?;
        let mount_point = folder.path().join("disk");
        std::fs::create_dir(&mount_point)?;
        let rules = Rules {
            journaled_folder: Some(OsString::from(LOG_FOLDER)),
            broken_folder: arguments.broken_sync.clone().map(OsString::from),
        };
        let mut disk = MountedDisk::new(&mount_point, rules)
            .context("cannot mount a disk: FUSE and the right to mount are needed")?;
        let setup =
            Setup { forecourt: arguments.forecourt.clone(), data: mount_point.join("data"), port: free_port()? };
        let truth = folder.path().join("truth.json");
        let mut played = Self { cuts: 0, purges: 0 };
        let mut server = Server::launch(&setup)?;
        let mut player = Player(setup.play(seed, arguments.rate, &truth)?);
        while played.cuts < wanted && !player.has_ended()? {
            let changes = rng.random_range(CHANGES.start.ln()..CHANGES.end.ln()).exp() as u64;
            disk.fail_after(changes);
            let purges = rng.random_bool(PURGES);
            let mut purge = None;
            let has_failed = eventually(DEADLINE, || {
                let position = server.flushed_position();
                if purges && purge.is_none() && position > 0 {
                    let data = setup.data.clone();
                    // Apart, for the power may fail meanwhile.
                    purge = Some(thread::spawn(move || log_purge::purge_log(&data, position)));
                }
                disk.has_failed() || player.has_ended().unwrap_or(true) || server.has_ended()
            });
            player.has_ended()?;
            ensure!(has_failed, "the power did not fail within {DEADLINE:?}");
            if disk.stay_on() {
                // The market ended first, or the server did.
                ensure!(!server.has_ended(), "the server ended by itself:\n{}", take_log(server)?);
                break;
            }
            let killed = server.kill()?;
            disk.release();
            server.reap(&killed)?;
            let purged = purge.map(|purge| purge.join().is_ok_and(|purged| purged.is_ok()));
            let survival = if rng.random_bool(0.5) { Survival::Synced } else { Survival::Some };
            println!("  power failed after {changes} changes; {survival:?} survives; log purged: {purged:?}");
            disk.restart(&mount_point, survival, &mut rng)?;
            played.cuts += 1;
            played.purges += u64::from(purged == Some(true));
            server = Server::launch(&setup)?;
        }
        let is_over = eventually(DEADLINE, || player.has_ended().unwrap_or(true) || server.has_ended());
        player.has_ended()?;
        if !is_over || server.has_ended() {
            bail!("the server does not go on after the cut:\n{}", take_log(server)?);
        }
        ensure!(eventually(DEADLINE, || server.is_ready()), "the server is not ready within {DEADLINE:?}");
        let (holds, said) = setup.verify(&truth)?;
        let log = take_log(server)?;
        ensure!(holds, "what happened is not there:\n{said}\n{log}");
        Ok(played)
    }
}

/// End a server, and take what it had logged.
fn take_log(mut server: Server) -> anyhow::Result<String> {
    let killed = server.kill()?;
    server.reap(&killed)
}

/// Killed when dropped.
struct Player(Child);

impl Player {
    fn has_ended(&mut self) -> anyhow::Result<bool> {
        let Some(status) = self.0.try_wait()? else { return Ok(false) };
        ensure!(status.success(), "the player ended with {status}");
        Ok(true)
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
