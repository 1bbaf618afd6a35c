//! The server under test, the `nats-server` it starts, and the player that sends it a market.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use rustix::{
    io::Errno,
    process::{Pid, Signal, WaitOptions, getpid, kill_process, set_child_subreaper, waitpid},
};

/// Between two looks at a condition.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// A killed process is gone soon.
const END_WITHIN: Duration = Duration::from_secs(30);
/// The market that is played: the truth of so small a one is made in a moment.
const DAYS: &str = "20";
const VEHICLES: &str = "12";

/// Wait until a condition holds; whether it did within the time.
pub(crate) fn eventually(timeout: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + timeout;
    while !condition() {
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(LOOK_EVERY);
    }
    true
}

pub(crate) fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Become the parent of a `nats-server` whose own has ended.
pub(crate) fn adopt_orphans() -> anyhow::Result<()> {
    Ok(set_child_subreaper(Some(getpid()))?)
}

/// What is run, and where.
pub(crate) struct Setup {
    pub forecourt: PathBuf,
    pub data: PathBuf,
    pub port: u16,
}

impl Setup {
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// A disorderly market, sent by the server's own command, which sends again what was not acknowledged.
    pub(crate) fn play(&self, seed: u64, rate: u32, truth: &Path) -> anyhow::Result<Child> {
        Command::new(&self.forecourt)
            .args(["simulate", "--live", "--disorder", "--days", DAYS, "--vehicles", VEHICLES, "--start", "2026-01-01"])
            .args(["--rate", &rate.to_string(), "--seed", &seed.to_string(), "--to", &self.url(), "--truth"])
            .arg(truth)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start the player")
    }

    /// Whether the server holds the truth; and what was said of it.
    pub(crate) fn verify(&self, truth: &Path) -> anyhow::Result<(bool, String)> {
        let verify =
            Command::new(&self.forecourt).args(["verify", "--to", &self.url(), "--truth"]).arg(truth).output()?;
        let said = [verify.stdout, verify.stderr].concat();
        Ok((verify.status.success(), String::from_utf8_lossy(&said).into_owned()))
    }
}

/// A running server.
pub(crate) struct Server {
    child: Child,
    output: Option<JoinHandle<String>>,
    is_ready: Arc<AtomicBool>,
    /// The position up to which it reported the lake as flushed.
    flushed: Arc<AtomicU64>,
}

impl Server {
    pub(crate) fn launch(setup: &Setup) -> anyhow::Result<Self> {
        let mut child = Command::new(&setup.forecourt)
            .args(["up", "--http", &format!("127.0.0.1:{}", setup.port), "--postgres", "127.0.0.1:0"])
            // Flushed often, so that the power fails in the middle of it.
            .args(["--flight", "127.0.0.1:0", "--flush-seconds", "1", "--data"])
            .arg(&setup.data)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", setup.forecourt.display()))?;
        let (is_ready, flushed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let ready = Arc::clone(&is_ready);
        thread::spawn(move || {
            for line in stdout.into_iter().flat_map(|stdout| BufReader::new(stdout).lines().map_while(Result::ok)) {
                if line.starts_with("ready ") {
                    ready.store(true, Ordering::Relaxed);
                }
            }
        });
        let position = Arc::clone(&flushed);
        let output = stderr.map(|stderr| thread::spawn(move || read_log(stderr, &position)));
        Ok(Self { child, output, is_ready, flushed })
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.is_ready.load(Ordering::Relaxed)
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    pub(crate) fn flushed_position(&self) -> u64 {
        self.flushed.load(Ordering::Relaxed)
    }

    /// Send SIGKILL to the server and the `nats-server` it started: from then on neither runs a step of its own.
    pub(crate) fn kill(&mut self) -> anyhow::Result<Killed> {
        let own = Pid::from_child(&self.child);
        let (mut children, orphans) = (children(own)?, children(getpid())?);
        children.extend(orphans.into_iter().filter(|child| is_nats_server(*child)));
        if !self.has_ended() {
            kill_process(own, Signal::KILL)?;
        }
        for child in &children {
            match kill_process(*child, Signal::KILL) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Killed { children })
    }

    /// Wait until the killed ones have ended, and take what the server had logged.
    pub(crate) fn reap(mut self, killed: &Killed) -> anyhow::Result<String> {
        self.child.wait()?;
        let are_gone = || {
            killed.children.iter().all(|child| {
                // An orphan is ours to wait for; another's child is not.
                let _ = waitpid(Some(*child), WaitOptions::NOHANG);
                !is_running(*child)
            })
        };
        ensure!(eventually(END_WITHIN, are_gone), "nats-server did not end within {END_WITHIN:?} of SIGKILL");
        Ok(self.output.take().and_then(|output| output.join().ok()).unwrap_or_default())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !self.has_ended() {
            // Not waited for: they may hang on the disk, which goes away after them.
            let _ = self.kill();
        }
    }
}

/// Processes that were sent SIGKILL with their server.
pub(crate) struct Killed {
    children: Vec<Pid>,
}

/// Read the server's log to its end.
fn read_log(stderr: ChildStderr, flushed: &AtomicU64) -> String {
    let mut log = String::new();
    let mut reader = BufReader::new(stderr);
    let mut line = Vec::new();
    while reader.by_ref().read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
        let text = String::from_utf8_lossy(&line);
        if let Some(position) = flushed_by(&text) {
            flushed.store(position, Ordering::Relaxed);
        }
        log.push_str(&text);
        line.clear();
    }
    log
}

/// The position of a log line that reports a flush.
fn flushed_by(line: &str) -> Option<u64> {
    let (_, fields) = line.split_once("flushed the lake")?;
    let (_, position) = fields.split_once("position=")?;
    position.split(|character: char| !character.is_ascii_digit()).next()?.parse().ok()
}

fn children(parent: Pid) -> anyhow::Result<Vec<Pid>> {
    let mut children = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw) else {
            continue;
        };
        if state_and_parent(pid).is_some_and(|(_, its_parent)| its_parent == parent.as_raw_nonzero().get()) {
            children.push(pid);
        }
    }
    Ok(children)
}

fn is_nats_server(pid: Pid) -> bool {
    fs::read_to_string(format!("/proc/{}/comm", pid.as_raw_nonzero())).is_ok_and(|name| name.trim() == "nats-server")
}

fn is_running(pid: Pid) -> bool {
    state_and_parent(pid).is_some_and(|(state, _)| state != 'Z' && state != 'X')
}

fn state_and_parent(pid: Pid) -> Option<(char, i32)> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    // The name in parentheses may hold anything.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}
