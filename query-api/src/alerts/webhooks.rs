//! The way of a match to the address that asked for it, as the Standard Webhooks specification has it: signed, tried again
//! for a day, the same id each time.

use std::{
    collections::{BTreeMap, HashMap},
    error::Error,
    fs, io,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use ingest::{Backoff, disk::write_private};
use reqwest::{
    Client, StatusCode,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect,
};
use schemas::{field_type::format_timestamp, time::MICROS_PER_DAY};
use serde_json::json;
use sha2::Sha256;
use tokio::{
    sync::{AcquireError, Notify, Semaphore, SemaphorePermit},
    time::Instant,
};
use url::Url;
use uuid::Uuid;

use super::{
    match_json::render_matches,
    publishing::{event, publish},
    state::Match,
};
use crate::{AppState, problem::Problem};

/// An address has so long to answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60 * 60);
/// Deliveries under way at once to hosts that answer.
const AT_ONCE: usize = 24;
/// And to those that did not answer the last one, each one at a time: however many they are, they do not hold up the others.
const AT_ONCE_OF_FAILING: usize = 8;
/// And to one host that answers.
const AT_ONCE_OF_ONE: u32 = 4;
/// A match that its webhook has not taken within this is given up.
pub(super) const DELIVERED_WITHIN: i64 = MICROS_PER_DAY;
/// Of the ids of notices.
const NOTICES: Uuid = Uuid::from_u128(0x3b5a_11c9_0a51_4d5e_8c5f_9f77_51a0_2c44);

/// What deliveries are sent and signed with.
pub(crate) struct Webhooks {
    client: Client,
    key: Vec<u8>,
    /// Whether addresses inside the network may be asked for.
    inside: bool,
    turns: Semaphore,
    turns_of_failing: Semaphore,
    /// Hosts and ports, as long as they have something to take.
    hosts: Mutex<HashMap<String, Weak<Host>>>,
}

/// A host and port that deliveries go to.
#[derive(Debug)]
struct Host {
    turns: Semaphore,
    /// Whether it did not answer the last one.
    is_failing: AtomicBool,
    waiting: Mutex<DeliveryQueue>,
    /// Something that is due earlier waits now.
    changed: Notify,
}

/// The deliveries queued for a host, by due time. A few tasks take them one after the other.
#[derive(Debug, Default)]
struct DeliveryQueue {
    deliveries: BTreeMap<(Instant, u64), Delivery>,
    next: u64,
    tasks: usize,
    /// Tasks that wait for something to be due.
    idle_tasks: usize,
}

impl Host {
    fn new() -> Self {
        Self {
            turns: Semaphore::new(AT_ONCE_OF_ONE as usize),
            is_failing: AtomicBool::new(false),
            waiting: Mutex::default(),
            changed: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, DeliveryQueue> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, due: Instant, delivery: Delivery) {
        let mut waiting = self.lock();
        let number = waiting.next;
        waiting.next += 1;
        waiting.deliveries.insert((due, number), delivery);
        self.changed.notify_one();
    }

    /// A place for another task, when all that work are busy with something else.
    fn task(self: &Arc<Self>) -> Option<DeliveryTask> {
        let mut waiting = self.lock();
        let is_wanted = waiting.tasks < AT_ONCE_OF_ONE as usize && waiting.idle_tasks == 0;
        is_wanted.then(|| {
            waiting.tasks += 1;
            DeliveryTask { host: Arc::clone(self), is_counted: true }
        })
    }

    /// How many deliveries wait or are under way, and when the first of those that wait matched.
    fn count(&self) -> (usize, Option<i64>) {
        let waiting = self.lock();
        let oldest = waiting.deliveries.values().map(|delivery| delivery.found.matched_at).min();
        (waiting.deliveries.len() + waiting.tasks.saturating_sub(waiting.idle_tasks), oldest)
    }
}

/// A task that delivers to a host, counted until it ends.
struct DeliveryTask {
    host: Arc<Host>,
    is_counted: bool,
}

impl DeliveryTask {
    /// The next delivery, when it is due; none, when nothing waits: the task is not counted from then on.
    async fn next(&mut self) -> Option<Delivery> {
        loop {
            let due = {
                let mut waiting = self.host.lock();
                match waiting.deliveries.first_entry() {
                    Some(first) if first.key().0 <= Instant::now() => return Some(first.remove()),
                    Some(first) => first.key().0,
                    // In one step: what is added after this finds no task.
                    None => {
                        waiting.tasks -= usize::from(std::mem::take(&mut self.is_counted));
                        return None;
                    }
                }
            };
            self.host.lock().idle_tasks += 1;
            tokio::select! {
                () = tokio::time::sleep_until(due) => {}
                () = self.host.changed.notified() => {}
            }
            self.host.lock().idle_tasks -= 1;
        }
    }
}

impl Drop for DeliveryTask {
    fn drop(&mut self) {
        self.host.lock().tasks -= usize::from(self.is_counted);
    }
}

impl Webhooks {
    /// With the key in this file, made when there is none.
    pub(super) fn open(file: &Path, inside: bool) -> io::Result<Self> {
        let key = match fs::read(file) {
            Ok(key) if !key.is_empty() => key,
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {
                let key = [Uuid::new_v4().into_bytes(), Uuid::new_v4().into_bytes()].concat();
                write_private(file, &key)?;
                key
            }
        };
        let client = Client::builder()
            .timeout(ANSWERS_WITHIN)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .user_agent("forecourt")
            .dns_resolver(Arc::new(Resolver { inside }))
            .build()
            .map_err(io::Error::other)?;
        let (turns, turns_of_failing) = (Semaphore::new(AT_ONCE), Semaphore::new(AT_ONCE_OF_FAILING));
        Ok(Self { client, key, inside, turns, turns_of_failing, hosts: Mutex::default() })
    }

    fn host(&self, url: &Url) -> Arc<Host> {
        let mut known = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, host| host.strong_count() > 0);
        let one = known.entry(url.origin().ascii_serialization()).or_default();
        one.upgrade().unwrap_or_else(|| {
            let host = Arc::new(Host::new());
            *one = Arc::downgrade(&host);
            host
        })
    }

    /// How many deliveries wait, and when the first of them matched.
    pub(super) fn waiting(&self) -> (usize, Option<i64>) {
        let hosts: Vec<Arc<Host>> = {
            let known = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
            known.values().filter_map(Weak::upgrade).collect()
        };
        hosts
            .iter()
            .map(|host| host.count())
            .fold((0, None), |(count, oldest), (more, other)| (count + more, oldest.into_iter().chain(other).min()))
    }

    /// A turn to deliver to this host.
    async fn turn<'a>(&'a self, host: &'a Host) -> Result<[SemaphorePermit<'a>; 2], AcquireError> {
        loop {
            let is_failing = host.is_failing.load(Ordering::Relaxed);
            let (own, all) = if is_failing { (AT_ONCE_OF_ONE, &self.turns_of_failing) } else { (1, &self.turns) };
            let turn = [host.turns.acquire_many(own).await?, all.acquire().await?];
            // While this one waited, others may have found out.
            if host.is_failing.load(Ordering::Relaxed) == is_failing {
                return Ok(turn);
            }
        }
    }

    /// What an alert's deliveries are signed with, as its owner keeps it.
    pub(super) fn secret(&self, alert: &str) -> String {
        format!("whsec_{}", STANDARD.encode(mac(&self.key, alert.as_bytes())))
    }

    /// `v1,…` over the id, the time in seconds and the body.
    fn signature(&self, alert: &str, id: &str, seconds: i64, body: &str) -> String {
        let secret = mac(&self.key, alert.as_bytes());
        format!("v1,{}", STANDARD.encode(mac(&secret, format!("{id}.{seconds}.{body}").as_bytes())))
    }
}

fn mac(key: &[u8], text: &[u8]) -> Vec<u8> {
    // A key of any length is taken.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return Vec::new() };
    mac.update(text);
    mac.finalize().into_bytes().to_vec()
}

/// Names as the system knows them; addresses inside the network only when that is allowed.
struct Resolver {
    inside: bool,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let inside = self.inside;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed: Vec<SocketAddr> = found.filter(|address| inside || is_outside(address.ip())).collect();
            if allowed.is_empty() {
                return Err(Box::<dyn Error + Send + Sync>::from("the name has no address outside the network"));
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

/// Whether an address is of the internet rather than of a machine or network near this one.
fn is_outside(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(it) => {
            let [first, second, ..] = it.octets();
            let shared = first == 100 && (64..128).contains(&second);
            !(it.is_loopback()
                || it.is_private()
                || it.is_link_local()
                || it.is_unspecified()
                || it.is_broadcast()
                || it.is_multicast()
                || first == 0
                || first >= 240
                || (first == 198 && (18..20).contains(&second))
                || it.octets().starts_with(&[192, 0, 0])
                || shared)
        }
        IpAddr::V6(it) => {
            let [first, second, ..] = it.segments();
            // Addresses that hold one of the older kind, or are of a site: what they lead to is not known here.
            let holds_another = first == 0 || (first == 0x64 && second == 0xff9b) || first == 0x2002;
            let of_site = (first & 0xffc0) == 0xfec0;
            !(it.is_loopback()
                || it.is_unspecified()
                || it.is_multicast()
                || it.is_unique_local()
                || it.is_unicast_link_local()
                || holds_another
                || of_site)
        }
    }
}

/// An address that matches may be posted to.
pub(super) fn address(text: &str) -> Result<Url, Problem> {
    let wrong = || Problem::parameter("webhook", format!("webhook is an address, https://… or http://…, not {text:?}"));
    let url = Url::parse(text).map_err(|_| wrong())?;
    if !["http", "https"].contains(&url.scheme()) || url.host().is_none() {
        return Err(wrong());
    }
    Ok(url)
}

/// Whether the address itself names a place that may not be asked for. Names are looked at when they are resolved.
fn is_refused(url: &Url, inside: bool) -> bool {
    let address = match url.host() {
        Some(url::Host::Ipv4(address)) => IpAddr::V4(address),
        Some(url::Host::Ipv6(address)) => IpAddr::V6(address),
        _ => return false,
    };
    !inside && !is_outside(address)
}

/// Deliver a match, apart from whoever found it.
pub(super) fn deliver(api: &AppState, delivery: Delivery) {
    let host = api.alerts.webhooks.host(&delivery.url);
    host.add(Instant::now(), delivery);
    if let Some(mut task) = host.task() {
        let api = api.clone();
        tokio::spawn(async move {
            let stop = api.stop.clone();
            tokio::select! {
                () = stop.cancelled() => {}
                () = deliver_queued(&api, &mut task) => {}
            }
        });
    }
}

async fn deliver_queued(api: &AppState, task: &mut DeliveryTask) {
    while let Some(delivery) = task.next().await {
        if let Some((pause, delivery)) = delivery.deliver(api, &task.host).await {
            task.host.add(Instant::now() + pause, delivery);
        }
    }
}

/// A match on its way.
#[derive(Debug)]
pub(super) struct Delivery {
    alert: String,
    url: Url,
    found: Match,
    attempts: u32,
    /// Before the next attempt, if this one fails.
    pause: Duration,
}

impl Delivery {
    pub(super) const fn new(alert: String, url: Url, found: Match) -> Self {
        Self { alert, url, found, attempts: 0, pause: FIRST_PAUSE }
    }

    /// Post it, and say in the log what became of it: until it is taken, a day has passed, or the alert is given up. None
    /// then; else itself, and how long it waits for the next attempt.
    async fn deliver(mut self, api: &AppState, host: &Host) -> Option<(Duration, Self)> {
        if !api.alerts.has(&self.alert) {
            return None;
        }
        let is_over = (api.now)() > self.found.matched_at + DELIVERED_WITHIN;
        let delivered = if is_over {
            false
        } else {
            self.attempts += 1;
            match self.attempt(api, host).await {
                Ok(()) => true,
                Err(Refusal::ForGood) => false,
                Err(Refusal::ForNow(why)) => {
                    let (attempts, pause) = (self.attempts, self.pause);
                    let host = self.url.host_str().unwrap_or_default();
                    tracing::warn!(host, attempts, error = why, "a webhook did not take a match; trying again");
                    metrics::counter!("alert_delivery_failures_total").increment(1);
                    self.pause = (pause * 2).min(LONGEST_PAUSE);
                    return Some((pause, self));
                }
            }
        };
        let now = (api.now)();
        let data = json!({
            "alertId": self.alert, "matchId": self.found.id, "listingId": self.found.listing_id,
            "delivered": delivered, "attempts": self.attempts, "notifiedAt": format_timestamp(now),
        });
        let id = Uuid::new_v5(&NOTICES, self.found.id.as_bytes()).to_string();
        let notice = event("SearchAlertNotified", &id, &self.alert, now, data);
        let mut backoff = Backoff::default();
        while let Err(error) = publish(&api.intake, std::slice::from_ref(&notice)).await {
            tracing::warn!(error = &error as &dyn Error, "what became of a match was not published; trying again");
            tokio::time::sleep(backoff.next_pause()).await;
        }
        None
    }

    async fn attempt(&self, api: &AppState, host: &Host) -> Result<(), Refusal> {
        let webhooks = &api.alerts.webhooks;
        if is_refused(&self.url, webhooks.inside) {
            return Err(Refusal::ForGood);
        }
        let Ok(_turn) = webhooks.turn(host).await else { return Err(Refusal::ForNow("stopping".to_owned())) };
        if !api.alerts.has(&self.alert) {
            return Err(Refusal::ForNow("given up".to_owned()));
        }
        let rendered = render_matches(api, &self.alert, std::slice::from_ref(&self.found)).await;
        let mut rendered = rendered.map_err(|problem| Refusal::ForNow(problem.detail().to_owned()))?;
        let rendered = rendered.pop().unwrap_or_default();
        let body =
            json!({"type": "alert.matched", "timestamp": format_timestamp(self.found.matched_at), "data": rendered})
                .to_string();
        // Signed when it is its turn: who checks it refuses what is old.
        let seconds = (api.now)().div_euclid(1_000_000);
        let signature = webhooks.signature(&self.alert, &self.found.id, seconds, &body);
        let request = webhooks
            .client
            .post(self.url.clone())
            .header("content-type", "application/json")
            .header("webhook-id", &self.found.id)
            .header("webhook-timestamp", seconds)
            .header("webhook-signature", signature)
            .body(body);
        let answer = request.send().await;
        let answers = answer.as_ref().is_ok_and(|answer| !answer.status().is_server_error());
        host.is_failing.store(!answers, Ordering::Relaxed);
        match answer {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) if answer.status() == StatusCode::GONE => Err(Refusal::ForGood),
            Ok(answer) => Err(Refusal::ForNow(answer.status().to_string())),
            Err(error) => Err(Refusal::ForNow(error.to_string())),
        }
    }
}

enum Refusal {
    /// It says that it will never take it, or may not be asked.
    ForGood,
    ForNow(String),
}

#[cfg(test)]
mod tests {
    use std::{
        net::IpAddr,
        pin::pin,
        sync::{Arc, atomic::Ordering},
        time::Duration,
    };

    use super::{AT_ONCE, AT_ONCE_OF_FAILING, AT_ONCE_OF_ONE, Delivery, Host, Match, Webhooks, is_outside, mac};
    use base64::{Engine, engine::general_purpose::STANDARD};
    use futures::FutureExt;
    use schemas::Position;
    use tokio::{task::unconstrained, time::Instant};
    use url::Url;

    #[test]
    fn addresses_near_this_machine_are_inside() {
        for inside in [
            "127.0.0.1",
            "10.1.2.3",
            "192.168.0.9",
            "172.16.5.5",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "::1",
            "fe80::1",
            "fc00::1",
            "::ffff:127.0.0.1",
            "64:ff9b::a00:1",
            "2002:a00:1::1",
            "::10.0.0.1",
            "fec0::1",
            "240.0.0.1",
        ] {
            assert!(!is_outside(inside.parse::<IpAddr>().unwrap()), "{inside}");
        }
        for outside in ["93.184.216.34", "172.32.0.1", "2606:2800:220:1::1"] {
            assert!(is_outside(outside.parse::<IpAddr>().unwrap()), "{outside}");
        }
    }

    /// However many hosts take nothing, and however much there is for them, one that does gets its turn.
    #[tokio::test]
    async fn hosts_that_take_nothing_leave_turns_for_others() {
        let folder = tempfile::tempdir().unwrap();
        let webhooks = Webhooks::open(&folder.path().join("key"), false).unwrap();
        let host = |number: usize| webhooks.host(&Url::parse(&format!("https://h{number}.example/hook")).unwrap());
        let (dead, well): (Vec<_>, _) = ((0..40).map(host).collect(), host(99));
        assert!(Arc::ptr_eq(&dead[3], &host(3)));
        let turn = |host| unconstrained(webhooks.turn(host)).now_or_never();
        // Nothing is known of them at first.
        let mut held: Vec<_> = dead.iter().filter_map(|host| turn(host)).collect();
        assert_eq!(held.len(), AT_ONCE);
        let mut waits = pin!(unconstrained(webhooks.turn(&dead[AT_ONCE])));
        assert!((&mut waits).now_or_never().is_none());
        dead.iter().for_each(|host| host.is_failing.store(true, Ordering::Relaxed));
        held.clear();
        held.extend((&mut waits).now_or_never());
        held.extend(dead.iter().flat_map(|host| [host; 2]).filter_map(|host| turn(host)));
        assert_eq!(held.len(), AT_ONCE_OF_FAILING);
        for _ in 0..AT_ONCE_OF_ONE {
            held.push(turn(&well).unwrap());
        }
        assert!(turn(&well).is_none());
    }

    /// However many wait, a few tasks deliver them, each when it is due.
    #[tokio::test]
    async fn what_waits_is_taken_when_it_is_due_by_few_tasks() {
        let host = Arc::new(Host::new());
        let delivery = |id: &str| {
            let (id, listing_id) = (id.to_owned(), "l".to_owned());
            let found = Match { id, listing_id, matched_at: 0, position: Position::START, delivered: None };
            Delivery::new("a".to_owned(), Url::parse("https://shop.example/hook").unwrap(), found)
        };
        let (now, long) = (Instant::now(), Duration::from_secs(1_000));
        for (id, millis) in [("last", 40), ("first", 0), ("next", 20)] {
            host.add(now + Duration::from_millis(millis), delivery(id));
        }
        let mut task = host.task().unwrap();
        for (id, millis) in [("first", 0), ("next", 20), ("last", 40)] {
            assert_eq!(task.next().await.unwrap().found.id, id);
            assert!(now.elapsed() >= Duration::from_millis(millis), "{id}");
        }
        // One that is due earlier than what is waited for wakes who waits; no other task is wanted meanwhile.
        host.add(now + long, delivery("far off"));
        let mut waiting = Box::pin(task.next());
        assert!((&mut waiting).now_or_never().is_none());
        assert!(host.task().is_none());
        assert_eq!(host.count(), (1, Some(0)));
        host.add(now, delivery("sooner"));
        assert_eq!(waiting.as_mut().await.unwrap().found.id, "sooner");
        drop(waiting);
        // It is busy now: what comes is for another, and a few work at most.
        assert_eq!(host.count(), (2, Some(0)));
        let others: Vec<_> = (0..10).filter_map(|_| host.task()).collect();
        assert_eq!(others.len(), AT_ONCE_OF_ONE as usize - 1);
        drop(others);
        drop(host.lock().deliveries.pop_first());
        assert!(task.next().await.is_none());
        assert_eq!(host.count(), (0, None));
        drop(task);
        assert_eq!((host.count(), host.lock().idle_tasks), ((0, None), 0));
    }

    /// Whoever has the secret can check a signature; the key is kept for the next start.
    #[test]
    fn a_signature_is_checked_with_the_secret() {
        let folder = tempfile::tempdir().unwrap();
        let webhooks = Webhooks::open(&folder.path().join("key"), false).unwrap();
        let secret = webhooks.secret("a");
        let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
        let expected = format!("v1,{}", STANDARD.encode(mac(&key, b"m.12.{}")));
        assert_eq!(webhooks.signature("a", "m", 12, "{}"), expected);
        assert_ne!(webhooks.signature("b", "m", 12, "{}"), expected);
        let again = Webhooks::open(&folder.path().join("key"), false).unwrap();
        assert_eq!(again.secret("a"), secret);
    }
}
