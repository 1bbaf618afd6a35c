//! The way of a match to the address that asked for it, as the Standard Webhooks specification has it: signed, tried again
//! for a day, the same id each time.

use std::{
    collections::HashMap,
    error::Error,
    fs,
    io::{self, Write},
    net::{IpAddr, SocketAddr},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use reqwest::{
    Client, StatusCode,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect,
};
use schemas::field_type::format_timestamp;
use serde_json::json;
use sha2::Sha256;
use tokio::sync::{AcquireError, Semaphore, SemaphorePermit};
use url::Url;
use uuid::Uuid;

use super::{
    Match,
    keeper::{DELIVERED_WITHIN, event, publish},
    told,
};
use crate::{Api, problem::Problem};

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
struct Host {
    turns: Semaphore,
    /// Whether it did not answer the last one.
    is_failing: AtomicBool,
}

impl Webhooks {
    /// With the key in this file, made when there is none.
    pub(super) fn open(file: &Path, inside: bool) -> io::Result<Self> {
        let key = match fs::read(file) {
            Ok(key) if !key.is_empty() => key,
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {
                let key = [Uuid::new_v4().into_bytes(), Uuid::new_v4().into_bytes()].concat();
                let mut made = fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(file)?;
                made.write_all(&key)?;
                made.sync_all()?;
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
            let host =
                Arc::new(Host { turns: Semaphore::new(AT_ONCE_OF_ONE as usize), is_failing: AtomicBool::new(false) });
            *one = Arc::downgrade(&host);
            host
        })
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

/// A match on its way.
pub(super) struct Delivery {
    pub(super) api: Api,
    pub(super) alert: String,
    pub(super) url: Url,
    pub(super) found: Match,
}

impl Delivery {
    /// Post it until it is taken, a day has passed, or the alert is given up; and say in the log which it was.
    pub(super) async fn run(self) {
        let host = self.api.alerts.webhooks.host(&self.url);
        let (mut attempts, mut pause) = (0_u32, FIRST_PAUSE);
        let delivered = loop {
            if !self.api.alerts.has(&self.alert) {
                return;
            }
            attempts += 1;
            match self.attempt(&host).await {
                Ok(()) => break true,
                Err(Refusal::ForGood) => break false,
                Err(Refusal::ForNow(why)) => {
                    tracing::debug!(alert = self.alert, attempts, why, "a webhook did not take a match")
                }
            }
            metrics::counter!("alert_delivery_failures_total").increment(1);
            if (self.api.now)() > self.found.matched_at + DELIVERED_WITHIN {
                break false;
            }
            if !self.rest(pause).await {
                return;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        };
        let now = (self.api.now)();
        let data = json!({
            "alertId": self.alert, "matchId": self.found.id, "listingId": self.found.listing_id,
            "delivered": delivered, "attempts": attempts, "notifiedAt": format_timestamp(now),
        });
        let id = Uuid::new_v5(&NOTICES, self.found.id.as_bytes()).to_string();
        let notice = event("SearchAlertNotified", &id, &self.alert, now, data);
        let mut pause = FIRST_PAUSE;
        while let Err(error) = publish(&self.api.intake, std::slice::from_ref(&notice)).await {
            tracing::warn!(error = &error as &dyn Error, "what became of a match was not published; trying again");
            if !self.rest(pause).await {
                return;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Wait, unless everything stops.
    async fn rest(&self, pause: Duration) -> bool {
        tokio::select! {
            () = self.api.stop.cancelled() => false,
            () = tokio::time::sleep(pause) => true,
        }
    }

    async fn attempt(&self, host: &Host) -> Result<(), Refusal> {
        let webhooks = &self.api.alerts.webhooks;
        if is_refused(&self.url, webhooks.inside) {
            return Err(Refusal::ForGood);
        }
        let Ok(_turn) = webhooks.turn(host).await else { return Err(Refusal::ForNow("stopping".to_owned())) };
        if !self.api.alerts.has(&self.alert) {
            return Err(Refusal::ForNow("given up".to_owned()));
        }
        let told = told(&self.api, &self.alert, std::slice::from_ref(&self.found)).await;
        let mut told = told.map_err(|problem| Refusal::ForNow(problem.detail().to_owned()))?;
        let told = told.pop().unwrap_or_default();
        let body = json!({"type": "alert.matched", "timestamp": format_timestamp(self.found.matched_at), "data": told})
            .to_string();
        // Signed when it is its turn: who checks it refuses what is old.
        let seconds = (self.api.now)().div_euclid(1_000_000);
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
    };

    use super::{AT_ONCE, AT_ONCE_OF_FAILING, AT_ONCE_OF_ONE, Webhooks, is_outside, mac};
    use base64::{Engine, engine::general_purpose::STANDARD};
    use futures::FutureExt;
    use tokio::task::unconstrained;
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
