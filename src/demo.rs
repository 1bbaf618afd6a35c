//! The demo: a generated market whose past is loaded through the HTTP API, and which then goes on in real time.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::Context;
use datasets::Market;
use futures::{StreamExt, TryFutureExt, stream::FuturesOrdered};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use reqwest::Client;
use schemas::{
    Position,
    field_type::format_timestamp,
    time::{MICROS_PER_DAY, MICROS_PER_HOUR},
};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::{clock::now, simulate_command::live};

/// The market's past, and how long it goes on after its first start.
const PAST_DAYS: u32 = 120;
const FUTURE_DAYS: u32 = 365;
/// Cars that the marketplace buys in the past's time.
const BOUGHT_IN_PAST: u32 = 650;
/// Cars that dealers have on offer.
const STOCK: u32 = 3_200;
const SEED: u64 = 1;
/// Events in one request, and requests on their way at once.
const EVENTS_PER_REQUEST: usize = 4_000;
const IN_FLIGHT: usize = 4;
/// Events that are generated ahead of being sent.
const MAX_GENERATED_AHEAD: usize = 20_000;
/// What was sent in this time before the last record of it is sent again at a restart, in microseconds: it may not all have
/// been acknowledged.
const RESEND_WINDOW: i64 = MICROS_PER_HOUR;
/// How long the server may take to answer, and the pause after a failure.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
const RETRY_PAUSE: Duration = Duration::from_secs(10);
/// How often it is recorded until when the market was sent, in microseconds.
const RECORD_EVERY: i64 = 600_000_000;
/// How many lines say how far the loading is, where nobody sees a progress bar.
const PROGRESS_LINES: i64 = 10;

/// What the data folder says of the demo in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct DemoState {
    /// The market's first midnight, in microseconds since 1970, UTC.
    start: i64,
    /// Until when it is in the log.
    loaded_until: Option<i64>,
}

/// A demo that goes on until it is dropped.
pub(crate) struct Demo {
    /// The position of the last event of its past.
    pub position: Position,
    file: PathBuf,
    state: DemoState,
    events: mpsc::Receiver<Event>,
    next: Option<Event>,
    sender: Sender,
}

/// An event with its time, in microseconds since 1970, UTC.
type Event = (i64, String);

struct Sender {
    client: Client,
    url: String,
}

impl Demo {
    /// Load the market's past into the server at `address`. A folder that has a demo already goes on with it.
    ///
    /// # Errors
    /// When the server does not take the events.
    pub(crate) async fn load(data: &Path, address: SocketAddr) -> anyhow::Result<Self> {
        let file = data.join("demo.json");
        let now = now();
        let state = read(&file)?.unwrap_or(DemoState { start: first_day(now), loaded_until: None });
        // Written first: a loading that is interrupted goes on with the same market.
        write(&file, state)?;
        let sent_from = state.loaded_until.map_or(state.start, |until| until - RESEND_WINDOW);
        let mut events = generate(market(state.start), sent_from);
        let sender = Sender {
            client: Client::builder().timeout(REQUEST_TIMEOUT).build()?,
            url: format!("http://{address}/v1/events"),
        };
        let progress = Progress::new(sent_from, now)?;
        let (mut next, mut position, mut loaded) = (None, Position::START, 0);
        let mut requests = FuturesOrdered::new();
        loop {
            let batch = gather(&mut events, now, &mut next).await;
            let ended = batch.count == 0;
            if !ended {
                let (client, url) = (sender.client.clone(), sender.url.clone());
                let send = async move { live::post(client, url, batch.body).await.map(|(report, _)| report) };
                requests.push_back(send.map_ok(move |report| (report.position, batch.count, batch.last)));
            }
            while requests.len() >= IN_FLIGHT || (ended && !requests.is_empty()) {
                let Some((reached, count, last)) = requests.next().await.transpose()? else { break };
                position = position.max(Position::new(reached.unwrap_or_default()));
                loaded += count;
                progress.show(last, loaded);
            }
            if ended {
                break;
            }
        }
        progress.end(loaded);
        let state = DemoState { loaded_until: Some(now), ..state };
        write(&file, state)?;
        Ok(Self { position, file, state, events, next, sender })
    }

    /// Send each further event when its time comes. What the server cannot take now is sent again later.
    pub(crate) async fn play_live(mut self) {
        let mut recorded = now();
        loop {
            let next = match self.next.take() {
                Some(next) => Some(next),
                None => self.events.recv().await,
            };
            let Some((time, mut body)) = next else { return };
            let ahead = u64::try_from(time - now()).unwrap_or_default();
            tokio::time::sleep(Duration::from_micros(ahead)).await;
            body.push('\n');
            // What has come due meanwhile goes with it.
            while let Ok((time, line)) = self.events.try_recv() {
                if time > now() {
                    self.next = Some((time, line));
                    break;
                }
                body.push_str(&line);
                body.push('\n');
            }
            while let Err(error) = self.sender.send(body.clone()).await {
                tracing::warn!("demo: the server does not take events, trying again: {error:#}");
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            if now() - recorded > RECORD_EVERY {
                recorded = now();
                self.state.loaded_until = Some(recorded);
                if let Err(error) = write(&self.file, self.state) {
                    tracing::warn!("demo: a restart will send more again: {error:#}");
                }
            }
        }
    }
}

impl Sender {
    async fn send(&self, body: String) -> anyhow::Result<()> {
        live::post(self.client.clone(), self.url.clone(), body).await.map(drop)
    }
}

fn market(start: i64) -> Market {
    let days = PAST_DAYS + FUTURE_DAYS;
    Market { stock: STOCK, ..Market::new(SEED, start, days, BOUGHT_IN_PAST * days / PAST_DAYS) }
}

/// The midnight that begins a market whose past ends today.
fn first_day(now: i64) -> i64 {
    (now.div_euclid(MICROS_PER_DAY) - i64::from(PAST_DAYS)) * MICROS_PER_DAY
}

/// Events of the past for one request.
#[derive(Default)]
struct EventBatch {
    body: String,
    count: usize,
    /// The time of the last one.
    last: i64,
}

/// The next events before `now`. The first that is not past yet ends them, and is kept in `next`.
async fn gather(events: &mut mpsc::Receiver<Event>, now: i64, next: &mut Option<Event>) -> EventBatch {
    let mut batch = EventBatch::default();
    while batch.count < EVENTS_PER_REQUEST && next.is_none() {
        let Some((time, line)) = events.recv().await else { break };
        if time >= now {
            *next = Some((time, line));
            continue;
        }
        batch.body.push_str(&line);
        batch.body.push('\n');
        (batch.count, batch.last) = (batch.count + 1, time);
    }
    batch
}

/// The market's events from a time on, generated on a thread of their own as long as somebody takes them.
fn generate(market: Market, from: i64) -> mpsc::Receiver<Event> {
    let (sender, events) = mpsc::channel(MAX_GENERATED_AHEAD);
    thread::spawn(move || {
        let generated = market.events(&mut |time, line| {
            if time < from {
                return Ok(());
            }
            sender.blocking_send((time, line.to_owned())).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
        });
        match generated {
            Ok(()) | Err(datasets::MarketError::Write(_)) => {}
            Err(error) => tracing::error!(error = &error as &dyn std::error::Error, "the demo cannot go on"),
        }
    });
    events
}

fn read(file: &Path) -> anyhow::Result<Option<DemoState>> {
    match fs::read(file) {
        Ok(text) => {
            serde_json::from_slice(&text).map(Some).with_context(|| format!("{} is not the demo's", file.display()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
    }
}

fn write(file: &Path, state: DemoState) -> anyhow::Result<()> {
    let new = file.with_extension("json.new");
    let written = fs::write(&new, serde_json::to_vec(&state)?).and_then(|()| fs::rename(&new, file));
    written.with_context(|| format!("cannot write {}", file.display()))
}

/// How far the loading is: a bar on a terminal, a line now and then elsewhere.
struct Progress {
    bar: ProgressBar,
    from: i64,
    to: i64,
    shown: std::cell::Cell<i64>,
}

impl Progress {
    fn new(from: i64, to: i64) -> anyhow::Result<Self> {
        let bar = ProgressBar::with_draw_target(Some((to - from).max(1).cast_unsigned()), ProgressDrawTarget::stderr());
        let style = "loading the demo  {bar:30} {percent:>3} %  {msg}, {elapsed}";
        bar.set_style(ProgressStyle::with_template(style)?);
        Ok(Self { bar, from, to, shown: 0.into() })
    }

    /// Everything until `time` is loaded.
    fn show(&self, time: i64, events: usize) {
        let done = time - self.from;
        self.bar.set_position(done.max(0).cast_unsigned());
        self.bar.set_message(format!("{events} events"));
        let tenth = done * PROGRESS_LINES / (self.to - self.from).max(1);
        if self.bar.is_hidden() && tenth > self.shown.get() {
            self.shown.set(tenth);
            let percent = tenth * 100 / PROGRESS_LINES;
            eprintln!("loading the demo: {percent} %, {events} events, until {}", &format_timestamp(time)[..10]);
        }
    }

    fn end(&self, events: usize) {
        self.bar.finish_and_clear();
        eprintln!("loaded {events} events of the demo; it goes on as time does");
    }
}
