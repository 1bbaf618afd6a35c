//! Bodies under way, and how long each lets us wait: a slow one ends, and makes room for others when there is none.

use std::{
    collections::HashMap,
    io,
    net::IpAddr,
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
    client: Option<IpAddr>,
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
    ///
    /// A client has its share of the places, and only its own bodies make room in it.
    pub(crate) fn enter(self: &Arc<Self>, client: Option<IpAddr>) -> Option<Body> {
        let mut taken = self.lock();
        let of_client = client.map_or(0, |_| taken.places.values().filter(|place| place.client == client).count());
        let has_share = of_client >= share(self.most);
        if has_share || taken.places.len() >= self.most {
            let places = taken.places.iter().filter(|(_, place)| !has_share || place.client == client);
            let waiting = places.filter_map(|(number, place)| Some((place.since?, *number)));
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
        taken.places.insert(number, Waiting { client, since: None, end: end.clone() });
        drop(taken);
        Some(Body { bodies: Arc::clone(self), number, end, waited: Duration::ZERO, received: 0 })
    }
}

/// How much of what there is one client may have: the rest is for others.
#[must_use]
pub const fn share(most: usize) -> usize {
    most - most / 4
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
    use std::{future::pending, io, net::IpAddr, sync::Arc, time::Duration};

    use super::{Bodies, MAX_BODY_WAIT, Stopped};

    #[tokio::test(start_paused = true)]
    async fn a_body_that_drips_ends_and_one_that_flows_goes_on() {
        let bodies = Arc::new(Bodies::new(2));
        let (mut dripping, mut flowing) = (bodies.enter(None).unwrap(), bodies.enter(None).unwrap());
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
        let (mut still, sending) = (bodies.enter(None).unwrap(), bodies.enter(None).unwrap());
        assert!(bodies.enter(None).is_none());
        let waiting = tokio::spawn(async move { still.wait(pending()).await });
        tokio::time::sleep(Duration::from_secs(1)).await;
        let third = bodies.enter(None).unwrap();
        assert!(matches!(waiting.await.unwrap(), Err(Stopped::Slow)));
        assert!(bodies.enter(None).is_none());
        drop(sending);
        assert!(bodies.enter(None).is_some());
        drop(third);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_has_its_share_and_others_the_rest() {
        let bodies = Arc::new(Bodies::new(8));
        let [one, other] = [[10, 0, 0, 1], [10, 0, 0, 2]].map(|address| Some(IpAddr::from(address)));
        let mut held: Vec<_> = (0..6).map(|_| bodies.enter(one).unwrap()).collect();
        assert!(bodies.enter(one).is_none(), "its share is taken");
        held.extend((0..2).map(|_| bodies.enter(other).unwrap()));
        assert!(bodies.enter(other).is_none(), "all places are taken");
        // A body that waits makes room for its own client, and for others when all places are taken.
        let mut still = held.remove(0);
        let waiting = tokio::spawn(async move { still.wait(pending()).await });
        tokio::time::sleep(Duration::from_secs(1)).await;
        held.push(bodies.enter(other).unwrap());
        assert!(matches!(waiting.await.unwrap(), Err(Stopped::Slow)));
        // The share is free again, the places are not.
        assert!(bodies.enter(one).is_none());
        drop(held.pop());
        assert!(bodies.enter(one).is_some());
    }
}
