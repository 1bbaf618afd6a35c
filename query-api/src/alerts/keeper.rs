//! The task that keeps the alerts: it reads what the log says of them, holds changed listings against them, and publishes
//! what starts to match.

use std::{
    collections::{BTreeSet, HashSet},
    error::Error,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::http::Method;
use futures::TryStreamExt;
use ingest::Backoff;
use lake::{LakeView, create_durable_folder};
use schemas::{Position, field_type::format_timestamp};
use search_index::{
    ListingSnapshot, Market, SearchRequest,
    alerts::{Changed, SavedSearches},
    reading::Overrules,
};
use serde_json::{Value, json};
use tokio::{sync::watch, time::Instant};
use uuid::Uuid;

use super::{
    publishing::{event, publish},
    search_pairs::pairs_of,
    state::{Alert, AlertBook, Fact, Match, Reflects, facts},
    webhooks::{self, DELIVERED_WITHIN, Delivery, Webhooks},
};
use crate::{
    AppState, endpoints, operations,
    parameters::Parameters,
    payment::PaymentTerms,
    search::{ParsedSearch, parse_search_request},
};

/// Changes within this are looked at together.
const EVERY: Duration = Duration::from_millis(100);
/// How often the position that was matched to is written: what comes after it is matched again, to the same matches.
const WRITTEN_EVERY: Duration = Duration::from_secs(1);
/// Events published at once.
const PUBLISHED_AT_ONCE: usize = 500;
/// Of the ids of matches.
const MATCHES: Uuid = Uuid::from_u128(0x7d0f_6a52_64c5_4ef5_9d0c_3a3d_5a1c_88e1);

/// The alerts, for those who ask.
#[derive(Clone)]
pub struct Alerts {
    book: Arc<Mutex<AlertBook>>,
    pub(crate) reflects: watch::Receiver<Option<Arc<Reflects>>>,
    reflect: Arc<watch::Sender<Option<Arc<Reflects>>>>,
    pub(super) webhooks: Arc<Webhooks>,
    /// Where the position that was matched to is kept.
    file: PathBuf,
}

impl Alerts {
    /// Alerts that keep their key and their position in `folder`. Webhooks go to addresses inside the network only if
    /// `inside` is true.
    ///
    /// # Errors
    /// When the folder cannot be used.
    pub fn open(folder: &Path, inside: bool) -> io::Result<Self> {
        create_durable_folder(folder)?;
        let webhooks = Arc::new(Webhooks::open(&folder.join("key"), inside)?);
        let (reflect, reflects) = watch::channel(None);
        let (book, reflect) = (Arc::default(), Arc::new(reflect));
        Ok(Self { book, reflects, reflect, webhooks, file: folder.join("position") })
    }

    /// Keep them until they are stopped. What fails is tried again.
    pub async fn keep(api: AppState) {
        let (mut lake, mut listings) = (api.pipeline.lake.clone(), api.pipeline.listings.clone());
        let stop = api.stop.clone();
        let mut keeper = Keeper::new(api);
        let mut backoff = Backoff::default();
        loop {
            let step = keeper.step().await;
            let pause = match &step {
                Ok(()) => {
                    backoff = Backoff::default();
                    EVERY
                }
                Err(error) => {
                    tracing::warn!(error = error.as_ref() as &dyn Error, "alerts are behind; trying again");
                    backoff.next_pause()
                }
            };
            let changed = async {
                tokio::time::sleep(pause).await;
                if step.is_err() {
                    return true;
                }
                tokio::select! {
                    changed = lake.changed() => changed.is_ok(),
                    changed = listings.changed() => changed.is_ok(),
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                goes_on = changed => if !goes_on { return },
            }
        }
    }

    pub(crate) fn get(&self, id: &str) -> Option<Alert> {
        self.book().alerts.get(id).cloned()
    }

    pub(crate) fn has(&self, id: &str) -> bool {
        self.book().alerts.contains_key(id)
    }

    /// What `told` says of alerts after an id, in their order; all, or those of one person.
    pub(crate) fn after<T>(&self, id: &str, limit: usize, user: Option<&str>, told: fn(&Alert) -> T) -> Vec<T> {
        let book = self.book();
        let after = book.alerts.range::<str, _>((std::ops::Bound::Excluded(id), std::ops::Bound::Unbounded));
        let meant = after
            .map(|(_, alert)| alert)
            .filter(|alert| user.is_none_or(|user| alert.user_id.as_deref() == Some(user)));
        meant.take(limit).map(told).collect()
    }

    /// Tell Prometheus how far they are behind the lake, and what waits for its webhook.
    pub(crate) fn set_lag_gauges(&self, lake: Position, now: i64) {
        let reached = self.reflects.borrow().as_ref().map_or(Position::START, |reflects| reflects.position);
        let lag = u32::try_from(lake.get().saturating_sub(reached.get())).unwrap_or(u32::MAX);
        metrics::gauge!("alerts_lag_positions").set(lag);
        let (count, oldest) = self.webhooks.waiting();
        metrics::gauge!("alert_deliveries_waiting").set(u32::try_from(count).unwrap_or(u32::MAX));
        let seconds =
            Duration::from_micros(oldest.map_or(0, |oldest| now.saturating_sub(oldest).max(0)).unsigned_abs());
        metrics::gauge!("alert_delivery_lag_seconds").set(seconds.as_secs_f64());
    }

    fn book(&self) -> MutexGuard<'_, AlertBook> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Failure = Box<dyn Error + Send + Sync>;

struct Keeper {
    api: AppState,
    saved: SavedSearches,
    /// Alerts by when they end.
    ending: BTreeSet<(i64, String)>,
    /// What the log said up to here is in the book.
    read_to: Position,
    /// The committed position of the alerts' table when it was last read.
    committed: Option<Position>,
    /// Listings written up to here were held against the alerts.
    matched_to: Position,
    written: Instant,
    /// Published, and not read back yet.
    published: HashSet<String>,
}

impl Keeper {
    fn new(api: AppState) -> Self {
        let matched_to = fs::read_to_string(&api.alerts.file).ok().and_then(|text| text.trim().parse().ok());
        Self {
            api,
            saved: SavedSearches::default(),
            ending: BTreeSet::new(),
            read_to: Position::START,
            committed: None,
            matched_to: Position::new(matched_to.unwrap_or_default()),
            written: Instant::now(),
            published: HashSet::new(),
        }
    }

    async fn step(&mut self) -> Result<(), Failure> {
        if !operations::knows_the_log(&self.api) {
            // What was delivered may be in the part of the log that is still to be read.
            return Ok(());
        }
        // Listings first: the lake is never behind them, so that every alert saved before a change is known.
        let (Some(snapshot), Some(view)) =
            (self.api.pipeline.listings.borrow().clone(), self.api.pipeline.lake.borrow().clone())
        else {
            return Ok(());
        };
        self.read(&view).await?;
        let reflects = Reflects { position: view.position, event_time: view.event_time };
        self.api.alerts.reflect.send_replace(Some(Arc::new(reflects)));
        self.end_what_is_over();
        self.match_changed(snapshot).await
    }

    /// Read what the log says of alerts.
    async fn read(&mut self, view: &Arc<LakeView>) -> Result<(), Failure> {
        const CONTEXT: &str = "alerts";
        let (Some((index, _)), Some(table)) = (view.catalogue.context(CONTEXT), view.table(CONTEXT)) else {
            return Ok(());
        };
        let is_new = !table.tail.is_empty() || self.committed != Some(table.committed_position);
        if is_new && self.read_to < view.position {
            let rows = self.api.pipeline.sql.rows_between(view, index, self.read_to, view.position).await?;
            let batches: Vec<_> = rows.try_collect().await?;
            self.take(facts(&batches));
            self.committed = Some(table.committed_position);
        }
        self.read_to = view.position;
        Ok(())
    }

    fn take(&mut self, facts: Vec<(Position, Fact)>) {
        let (mut matched, mut notified) = (Vec::new(), HashSet::new());
        for (position, fact) in facts {
            match &fact {
                // The first that the log has of an id is the alert, unless it was given up before.
                Fact::Created { id, .. } if !self.api.alerts.book().is_new(id) => {}
                Fact::Created { id, search, expires_at, .. } => match self.request(search) {
                    Ok(request) => {
                        self.saved.insert(id, request, position);
                        self.ending.extend(expires_at.map(|end| (end, id.clone())));
                    }
                    Err(why) => {
                        tracing::warn!(alert = id, why, "an alert's search cannot be asked; nobody is told of it");
                    }
                },
                Fact::Notified { match_id, .. } => drop(notified.insert(match_id.clone())),
                Fact::Deleted { id } => drop(self.saved.remove(id)),
                Fact::Matched { alert, id, listing_id, matched_at } => {
                    self.published.remove(id);
                    let (id, listing_id, matched_at) = (id.clone(), listing_id.clone(), *matched_at);
                    matched.push((alert.clone(), Match { id, listing_id, matched_at, position, delivered: None }));
                }
            }
            self.api.alerts.book().apply(position, fact);
        }
        let now = (self.api.now)();
        for (alert, found) in matched {
            let url = self.api.alerts.book().alerts.get(&alert).and_then(|alert| alert.webhook.clone());
            if let Some(url) = url
                && !notified.contains(&found.id)
                && found.matched_at + DELIVERED_WITHIN > now
            {
                webhooks::deliver(&self.api, Delivery::new(alert, url, found));
            }
        }
    }

    /// A saved search as it is asked.
    fn request(&self, search: &str) -> Result<SearchRequest, String> {
        let asked = || {
            let parameters = Parameters::checked(endpoints::parameters(&Method::GET, "/v1/search"), pairs_of(search))?;
            let ParsedSearch { request, .. } =
                parse_search_request(&parameters, None, PaymentTerms::of(&parameters)?, 0, Overrules::Filter)?;
            Ok::<_, crate::problem::Problem>(request)
        };
        asked().map_err(|problem| problem.detail().to_owned())
    }

    /// Keep the searches of the book: those there were are lost.
    fn save_again(&mut self) {
        let alerts: Vec<Alert> = self.api.alerts.book().alerts.values().cloned().collect();
        let now = (self.api.now)();
        for alert in alerts.iter().filter(|alert| !alert.is_over(now)) {
            if let Ok(request) = self.request(&alert.search) {
                self.saved.insert(&alert.id, request, alert.position);
            }
        }
    }

    fn end_what_is_over(&mut self) {
        let now = (self.api.now)();
        while let Some((end, id)) = self.ending.pop_first() {
            if end > now {
                self.ending.insert((end, id));
                break;
            }
            self.saved.remove(&id);
        }
    }

    /// Hold the listings that changed against the alerts, and publish what starts to match.
    async fn match_changed(&mut self, snapshot: Arc<ListingSnapshot>) -> Result<(), Failure> {
        // An index that was begun anew is read from its beginning.
        let after = self.matched_to.min(snapshot.position);
        let position = snapshot.position;
        if after < position && !self.saved.is_empty() {
            let (saved, now) = (std::mem::take(&mut self.saved), (self.api.now)());
            let market =
                self.api.markets.get(&snapshot, Position::START).await.map_err(|problem| problem.detail().to_owned());
            let done = tokio::task::spawn_blocking(move || {
                let found =
                    market.map_err(Failure::from).and_then(|market| matching(&saved, &snapshot, &market, after, now));
                (saved, found)
            });
            let (saved, found) = match done.await {
                Ok(done) => done,
                Err(error) => {
                    self.save_again();
                    return Err(error.into());
                }
            };
            self.saved = saved;
            self.publish(found?, now).await?;
        }
        self.matched_to = position;
        if !self.saved.is_empty() && self.written.elapsed() >= WRITTEN_EVERY {
            self.written = Instant::now();
            let part = self.api.alerts.file.with_extension("part");
            fs::write(&part, position.to_string()).and_then(|()| fs::rename(&part, &self.api.alerts.file))?;
        }
        Ok(())
    }

    async fn publish(&mut self, found: Vec<Found>, now: i64) -> Result<(), Failure> {
        let is_told = |found: &Found| {
            let book = self.api.alerts.book();
            book.alerts.get(&found.alert).is_none_or(|alert| alert.listings.contains(&found.listing))
        };
        let new: Vec<Found> =
            found.into_iter().filter(|found| !self.published.contains(&found.id()) && !is_told(found)).collect();
        for some in new.chunks(PUBLISHED_AT_ONCE) {
            let events: Vec<Value> = some.iter().map(|found| found.event(now)).collect();
            publish(&self.api.intake, &events).await?;
            metrics::counter!("alert_matches_total").increment(some.len() as u64);
            self.published.extend(some.iter().map(Found::id));
        }
        Ok(())
    }
}

/// A listing that starts to match an alert.
struct Found {
    alert: String,
    listing: String,
    price_cents: Option<i64>,
}

impl Found {
    /// The same for the same alert and listing, ever.
    fn id(&self) -> String {
        Uuid::new_v5(&MATCHES, format!("{}\n{}", self.alert, self.listing).as_bytes()).to_string()
    }

    fn event(&self, now: i64) -> Value {
        let id = self.id();
        let mut data = json!({"alertId": self.alert, "listingId": self.listing, "matchId": id, "matchedAt": format_timestamp(now)});
        if let Some(cents) = self.price_cents {
            data["price"] = schemas::rows::money(cents.into());
        }
        event("SearchAlertMatched", &id, &self.alert, now, data)
    }
}

fn matching(
    saved: &SavedSearches,
    snapshot: &ListingSnapshot,
    market: &Market,
    after: Position,
    now: i64,
) -> Result<Vec<Found>, Failure> {
    let mut found = Vec::new();
    snapshot.each_written_after(after, |listings| {
        let changed: Vec<Changed<'_>> =
            listings.iter().map(|listing| Changed { listing, rating: market.rate(listing) }).collect();
        for (listing, alerts) in listings.iter().zip(saved.matching(&changed, now)) {
            found.extend(alerts.into_iter().map(|alert| Found {
                alert: alert.to_owned(),
                listing: listing.listing_id.clone(),
                price_cents: listing.price_cents,
            }));
        }
        Ok::<_, search_index::IndexError>(())
    })?;
    Ok(found)
}
