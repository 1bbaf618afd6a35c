//! The command of this build, and a server of it.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use ingest::server::NatsContext;

/// A `forecourt up` of this build. Ended when dropped.
pub(crate) struct Server {
    pub(crate) url: String,
    child: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended already, or ends now.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    pub(crate) fn start(data: &Path, nats: &str, more: &[&str]) -> anyhow::Result<Self> {
        let mut child = forecourt()?
            .args(["up", "--http", "127.0.0.1:0", "--nats", nats, "--data"])
            .arg(data)
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let output = child.stdout.take().context("no output")?;
        let ready = BufReader::new(output).lines().next().context("forecourt up ended")??;
        let url = ready.split_whitespace().find_map(|word| word.strip_prefix("http="));
        Ok(Self { url: url.context("no address")?.to_owned(), child })
    }

    /// Send a file through the door.
    pub(crate) fn backfill(&self, file: &Path) -> anyhow::Result<Duration> {
        let started = Instant::now();
        let sent = forecourt()?.arg("ingest").arg(file).args(["--to", &self.url]).stdout(Stdio::null()).status()?;
        ensure!(sent.success(), "forecourt ingest failed");
        Ok(started.elapsed())
    }

    /// Wait until a position is reflected.
    pub(crate) async fn reflects(&self, position: u64) -> anyhow::Result<()> {
        let (client, deadline) = (reqwest::Client::new(), Instant::now() + Duration::from_secs(1_800));
        let url = format!("{}/v1/tables?wait_ms=60000&min_position={position}", self.url);
        while !client.get(&url).send().await?.status().is_success() {
            ensure!(Instant::now() < deadline, "the lake does not catch up with the log");
        }
        Ok(())
    }

    /// Wait until everything that was acknowledged is reflected: what is measured next is alone.
    pub(crate) async fn catches_up(&self) -> anyhow::Result<()> {
        let client = reqwest::Client::new();
        let probe = serde_json::json!({
            "eventId": format!("end-{}", uuid::Uuid::now_v7()), "eventType": "PriceSet",
            "timestamp": "2026-01-01T00:00:00Z", "data": {"listingId": "end", "price": 1},
        });
        let answer = client.post(format!("{}/v1/events", self.url)).body(probe.to_string()).send().await?;
        let answer: serde_json::Value = answer.json().await?;
        self.reflects(answer["position"].as_u64().with_context(|| answer.to_string())?).await
    }

    /// End it as an operator does: what it holds is written out.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status()?;
        ensure!(self.child.wait()?.success(), "forecourt up did not end cleanly");
        Ok(())
    }
}

/// The command that was built beside this one.
pub(crate) fn forecourt() -> anyhow::Result<Command> {
    let own = std::env::current_exe()?;
    Ok(Command::new(own.parent().context("no folder")?.join("forecourt")))
}

/// A client of the log's server without anything of ours.
pub(crate) async fn connect(context: &NatsContext) -> anyhow::Result<async_nats::Client> {
    let options = async_nats::ConnectOptions::with_user_and_password(context.user.clone(), context.password.clone());
    Ok(options.connect(&context.url).await?)
}
