//! What is derived from all listings, made anew now and then, beside the searches that use it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use schemas::Position;
use search_index::{IndexError, ListingSnapshot, Market, lexicon::Lexicon};
use tokio::{runtime::Handle, sync::OwnedMutexGuard};

use crate::{AppState, problem::Problem};

/// How old it is at least before the next is made, when listings have changed.
const MADE_EVERY: Duration = Duration::from_secs(2);
/// Making it takes one core in so many at most.
const SHARE: u32 = 50;
/// Nobody asked for so many times as long: whoever asks next waits for the next.
const OVERDUE: u32 = 10;

/// Keep what every search uses as new as it may be, so that nobody who searches waits for it; until everything ends.
pub async fn keep(api: AppState) {
    let mut listings = api.pipeline.listings.clone();
    let kept = async {
        loop {
            let Ok(snapshot) = listings.wait_for(Option::is_some).await.map(|snapshot| snapshot.clone()) else {
                return;
            };
            if let Some(snapshot) = snapshot {
                // What fails is logged, and tried again.
                let (market, _) = tokio::join!(
                    api.markets.get(&snapshot, Position::START),
                    api.lexicons.get(&snapshot, Position::START),
                );
                market.iter().for_each(|market| snapshot.rate_with(market));
            }
            tokio::time::sleep(MADE_EVERY).await;
        }
    };
    tokio::select! {
        () = kept => {}
        () = api.stop.cancelled() => {}
    }
}

/// What there is to search for, in words.
pub type Lexicons = Derived<Lexicon>;
/// What prices are compared with.
pub type Markets = Derived<Market>;
/// What search engines may visit.
pub type PublicIds = Derived<Vec<String>>;

/// Keeps the newest of something that is made of a snapshot.
pub struct Derived<T> {
    make: fn(&ListingSnapshot) -> Result<T, IndexError>,
    newest: Arc<Mutex<Option<Made<T>>>>,
    /// Held while one is made.
    making: Arc<tokio::sync::Mutex<()>>,
    /// Where it is made while nobody waits for it.
    threads: Handle,
}

impl<T> Clone for Derived<T> {
    fn clone(&self) -> Self {
        let (newest, making) = (Arc::clone(&self.newest), Arc::clone(&self.making));
        Self { make: self.make, newest, making, threads: self.threads.clone() }
    }
}

struct Made<T> {
    value: Arc<T>,
    position: Position,
    at: Instant,
    /// How long it took.
    cost: Duration,
}

impl<T> Made<T> {
    /// After how long the next is made.
    fn due(&self) -> Duration {
        MADE_EVERY.max(self.cost * SHARE)
    }
}

impl<T> Clone for Made<T> {
    fn clone(&self) -> Self {
        Self { value: Arc::clone(&self.value), position: self.position, at: self.at, cost: self.cost }
    }
}

impl Lexicons {
    /// Made on these threads, which give way to searches, while nobody waits for it.
    #[must_use]
    pub fn new(threads: &Handle) -> Self {
        Self::of(Lexicon::of, threads)
    }
}

impl Markets {
    /// Made on these threads, which give way to searches, while nobody waits for it.
    #[must_use]
    pub fn new(threads: &Handle) -> Self {
        Self::of(ListingSnapshot::market, threads)
    }
}

impl PublicIds {
    /// Made on these threads, which give way to searches, while nobody waits for it.
    #[must_use]
    pub fn new(threads: &Handle) -> Self {
        Self::of(ListingSnapshot::public_ids, threads)
    }
}

impl<T: Send + Sync + 'static> Derived<T> {
    fn of(make: fn(&ListingSnapshot) -> Result<T, IndexError>, threads: &Handle) -> Self {
        Self { make, newest: Arc::default(), making: Arc::default(), threads: threads.clone() }
    }

    /// The newest there is, of a position at least. It is waited for when there is none such; otherwise the next is made
    /// while this one is used.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub async fn get(&self, snapshot: &Arc<ListingSnapshot>, min_position: Position) -> Result<Arc<T>, Problem> {
        let is_good = |made: &Made<T>| {
            let is_old = made.position < snapshot.position && made.at.elapsed() >= made.due() * OVERDUE;
            made.position >= min_position && !is_old
        };
        if let Some(made) = self.newest().filter(is_good) {
            if made.position < snapshot.position
                && made.at.elapsed() >= made.due()
                && let Ok(turn) = Arc::clone(&self.making).try_lock_owned()
            {
                // Whoever asks next has it.
                drop(self.remake(snapshot, turn, &self.threads));
            }
            return Ok(made.value);
        }
        let turn = Arc::clone(&self.making).lock_owned().await;
        match self.newest().filter(is_good) {
            Some(made) => Ok(made.value),
            None => {
                let made =
                    self.remake(snapshot, turn, &Handle::current()).await.map_err(|error| Problem::internal(&error))?;
                made.map_err(|error| Problem::internal(&error))
            }
        }
    }

    /// Whether there is one: who asks for any does not wait.
    #[must_use]
    pub fn is_made(&self) -> bool {
        self.newest().is_some()
    }

    fn newest(&self) -> Option<Made<T>> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn remake(
        &self,
        snapshot: &Arc<ListingSnapshot>,
        turn: OwnedMutexGuard<()>,
        threads: &Handle,
    ) -> tokio::task::JoinHandle<Result<Arc<T>, IndexError>> {
        let (newest, snapshot, make) = (Arc::clone(&self.newest), Arc::clone(snapshot), self.make);
        threads.spawn_blocking(move || {
            let _turn = turn;
            let started = Instant::now();
            let made = make(&snapshot).inspect_err(|error| {
                tracing::error!(
                    error = error as &dyn std::error::Error,
                    "what is derived from all listings cannot be made"
                );
            });
            let value = Arc::new(made?);
            let (position, cost) = (snapshot.position, started.elapsed());
            let made = Made { value: Arc::clone(&value), position, at: Instant::now(), cost };
            let mut newest = newest.lock().unwrap_or_else(PoisonError::into_inner);
            if newest.as_ref().is_none_or(|newest| newest.position <= made.position) {
                *newest = Some(made);
            }
            Ok(value)
        })
    }
}
