//! Bodies under way, and how long each lets us wait: a slow one ends, and makes room for others when there is none.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long a client may let us wait over a whole body, beside what its bytes take at [`MIN_BODY_BYTES_PER_SECOND`].
pub const MAX_BODY_WAIT: Duration = Duration::from_secs(60);
/// Bytes a second of the slowest client.
pub const MIN_BODY_BYTES_PER_SECOND: u64 = 1 << 10;
/// A body that has let us wait for so long since its last byte gives its place to another that needs one.
const YIELDS_AFTER: Duration = Duration::from_millis(500);

/// The places there are for bodies.
#[derive(Debug)]
pub(crate) struct Bodies {
    most: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    places: HashMap<u64, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    /// Since when the client has been waited for, if it is.
    since: Option<Instant>,
    /// Ends the body.
    end: CancellationToken,
}

/// A body's place.
pub(crate) struct Body {
    bodies: Arc<Bodies>,
    number: u64,
    end: CancellationToken,
    waited: Duration,
    received: u64,
}

/// Why nothing more comes of a body.
#[derive(Debug)]
pub(crate) enum Stopped {
    /// It let us wait for too long, or others needed its place.
    Slow,
    Failed(io::Error),
}

impl Bodies {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, taken: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place, if need be that of the body which has let us wait the longest; none, when all are being sent.
    pub(crate) fn enter(self: &Arc<Self>) -> Option<Body> {
        let mut taken = self.lock();
        if taken.places.len() >= self.most {
            let waiting = taken.places.iter().filter_map(|(number, place)| Some((place.since?, *number)));
            let (since, slowest) = waiting.min()?;
            if since.elapsed() < YIELDS_AFTER {
                return None;
            }
            if let Some(place) = taken.places.remove(&slowest) {
                place.end.cancel();
            }
        }
        let (number, end) = (taken.next, CancellationToken::new());
        taken.next += 1;
        taken.places.insert(number, Waiting { since: None, end: end.clone() });
        drop(taken);
        Some(Body { bodies: Arc::clone(self), number, end, waited: Duration::ZERO, received: 0 })
    }
}

impl Body {
    /// Wait for the client's next bytes, as long as it may still let us wait; how many came.
    pub(crate) async fn wait(&mut self, read: impl Future<Output = io::Result<usize>>) -> Result<usize, Stopped> {
        self.wait_at_most(Duration::MAX, read).await?.ok_or(Stopped::Slow)
    }

    /// The same; `None`, if nothing came for so long.
    pub(crate) async fn wait_at_most(
        &mut self,
        most: Duration,
        read: impl Future<Output = io::Result<usize>>,
    ) -> Result<Option<usize>, Stopped> {
        let allowed = MAX_BODY_WAIT + Duration::from_secs(self.received / MIN_BODY_BYTES_PER_SECOND);
        let allowed = allowed.saturating_sub(self.waited);
        let started = Instant::now();
        self.note(Some(started));
        let read = tokio::select! {
            biased;
            read = read => read.map(Some).map_err(Stopped::Failed),
            () = self.end.cancelled() => Err(Stopped::Slow),
            () = tokio::time::sleep(allowed.min(most)) => if allowed > most { Ok(None) } else { Err(Stopped::Slow) },
        };
        self.note(None);
        self.waited += started.elapsed();
        if let Ok(Some(count)) = &read {
            self.received += *count as u64;
        }
        read
    }

    fn note(&self, since: Option<Instant>) {
        if let Some(place) = self.bodies.lock().places.get_mut(&self.number) {
            place.since = since;
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        self.bodies.lock().places.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, io, sync::Arc, time::Duration};

    use super::{Bodies, MAX_BODY_WAIT, Stopped};

    #[tokio::test(start_paused = true)]
    async fn a_body_that_drips_ends_and_one_that_flows_goes_on() {
        let bodies = Arc::new(Bodies::new(2));
        let (mut dripping, mut flowing) = (bodies.enter().unwrap(), bodies.enter().unwrap());
        let after = |seconds: u64, bytes: usize| async move {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            io::Result::Ok(bytes)
        };
        let mut drops = 0;
        while dripping.wait(after(25, 1)).await.is_ok() {
            drops += 1;
        }
        assert_eq!(drops, MAX_BODY_WAIT.as_secs() / 25);
        for _ in 0..100 {
            assert_eq!(flowing.wait(after(20, 30 << 10)).await.unwrap(), 30 << 10);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_lets_us_wait_makes_room_and_who_sends_does_not() {
        let bodies = Arc::new(Bodies::new(2));
        let (mut still, sending) = (bodies.enter().unwrap(), bodies.enter().unwrap());
        assert!(bodies.enter().is_none());
        let waiting = tokio::spawn(async move { still.wait(pending()).await });
        tokio::time::sleep(Duration::from_secs(1)).await;
        let third = bodies.enter().unwrap();
        assert!(matches!(waiting.await.unwrap(), Err(Stopped::Slow)));
        assert!(bodies.enter().is_none());
        drop(sending);
        assert!(bodies.enter().is_some());
        drop(third);
    }
}
