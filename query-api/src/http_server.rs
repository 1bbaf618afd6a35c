//! HTTP connections: as many as there is room for. A silent one ends, at once if others need its place.

use std::{
    collections::HashMap,
    convert::Infallible,
    io,
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{Router, body::Body};
use bytes::Bytes;
use hyper::{
    body::{Frame, Incoming, SizeHint},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use ingest::bodies::{MAX_BODY_WAIT, MIN_BODY_BYTES_PER_SECOND, share};
use schemas::{Position, scarcity::is_scarcity};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Instant, Sleep, sleep},
};
use tokio_util::sync::CancellationToken;
use tower_service::Service;

use crate::{AppState, client_places::ClientAddress, consistency::POSITION, operations, router};

/// How long a request's head may take, and how long a connection may be silent between two requests: longer than usual clients
/// and proxies keep one that they do not use, so that it is them who end it and none asks on one that has just ended.
const HEAD_OR_IDLE_TIMEOUT: Duration = Duration::from_secs(100);
/// A connection that has been silent for so long gives its place to another.
const YIELDS_AFTER: Duration = Duration::from_millis(500);
/// After a connection could not be taken: too many open files pass.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// Clients that are told at once that there are too many; more are closed unheard.
const MOST_REFUSALS: usize = 64;
/// How often it is told that connections are refused.
const TOLD_EVERY: Duration = Duration::from_secs(10);
const REFUSED: &str = "{\"type\":\"urn:forecourt:problem:too_many_connections\",\"title\":\"Not available right now\",\
    \"status\":503,\"detail\":\"There are too many connections. Try again.\",\"code\":\"too_many_connections\"}";

/// The connections there are.
#[derive(Default)]
struct Connections {
    next: AtomicU64,
    /// Of each: how many requests of it are being answered, since when there are none, and what ends it.
    known: Mutex<HashMap<u64, Known>>,
}

struct Known {
    client: IpAddr,
    requests: usize,
    silent_since: Instant,
    end: CancellationToken,
}

impl Connections {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, client: IpAddr) -> (u64, CancellationToken) {
        let (number, end) = (self.next.fetch_add(1, Ordering::Relaxed), CancellationToken::new());
        self.lock().insert(number, Known { client, requests: 0, silent_since: Instant::now(), end: end.clone() });
        (number, end)
    }

    /// Whether there is room for a connection of a client among so many. A silent one ends to make it: of the client itself,
    /// when it has its share.
    fn make_room(&self, client: IpAddr, most: usize) -> bool {
        let (all, of_client) = {
            let known = self.lock();
            (known.len(), known.values().filter(|it| it.client == client).count())
        };
        if of_client >= share(most) {
            self.end_a_silent_one(Some(client))
        } else {
            all < most || self.end_a_silent_one(None)
        }
    }

    /// End the connection that has been silent the longest, of one client or of all; whether there is one.
    fn end_a_silent_one(&self, client: Option<IpAddr>) -> bool {
        let mut known = self.lock();
        let silent = known.iter().filter(|(_, it)| it.requests == 0 && client.is_none_or(|client| it.client == client));
        let silent = silent.map(|(number, it)| (it.silent_since, *number));
        let Some((since, number)) = silent.min() else { return false };
        if since.elapsed() < YIELDS_AFTER {
            return false;
        }
        if let Some(ended) = known.remove(&number) {
            ended.end.cancel();
        }
        true
    }

    fn begin_request(self: &Arc<Self>, number: u64) -> Answering {
        if let Some(known) = self.lock().get_mut(&number) {
            known.requests += 1;
        }
        Answering { connections: Arc::clone(self), number }
    }
}

/// A request, until the last of its answer is sent.
struct Answering {
    connections: Arc<Connections>,
    number: u64,
}

impl Drop for Answering {
    fn drop(&mut self) {
        if let Some(known) = self.connections.lock().get_mut(&self.number) {
            known.requests -= 1;
            known.silent_since = Instant::now();
        }
    }
}

/// An answer's body, and that it is being sent.
struct Sending {
    body: Body,
    _answering: Answering,
}

impl hyper::body::Body for Sending {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A request's body, for which its client is waited for so long, beside what its bytes take at the slowest.
struct Patient {
    body: Incoming,
    left: Duration,
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl hyper::body::Body for Patient {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let left = self.left;
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(frame) => {
                if let Some((since, _)) = self.waiting.take() {
                    self.left = left.saturating_sub(since.elapsed());
                }
                if let Some(Ok(frame)) = &frame {
                    let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
                    self.left += Duration::from_micros(bytes * 1_000_000 / MIN_BODY_BYTES_PER_SECOND);
                }
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Poll::Pending => {
                let (_, end) = self.waiting.get_or_insert_with(|| (Instant::now(), Box::pin(sleep(left))));
                end.as_mut().poll(context).map(|()| Some(Err("the body came too slowly".into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The routes that are served: those of the API once there is one, before that those of a start.
pub(crate) struct Routes {
    api: Arc<OnceLock<AppState>>,
    router: OnceLock<Router>,
    starting: Router,
}

impl Routes {
    pub(crate) fn new(api: Arc<OnceLock<AppState>>) -> Self {
        Self { api, router: OnceLock::new(), starting: router::starting() }
    }

    fn router(&self) -> Router {
        let router = self.api.get().map(|api| self.router.get_or_init(|| router::router(api.clone())));
        router.unwrap_or(&self.starting).clone()
    }

    /// Where the server stands.
    fn position(&self) -> Option<Position> {
        self.api.get().and_then(operations::lake_position)
    }
}

/// Take connections until `stop`, at most so many at once; requests under way then still end.
pub(crate) async fn serve(
    listener: TcpListener,
    routes: Arc<Routes>,
    most: usize,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let connections = Arc::new(Connections::default());
    let (mut tasks, mut refusals) = (JoinSet::new(), JoinSet::new());
    let stopping = CancellationToken::new();
    let mut told = None::<Instant>;
    let mut tell = |what: &str, error: Option<&io::Error>| {
        if told.is_none_or(|told| told.elapsed() >= TOLD_EVERY) {
            told = Some(Instant::now());
            let error = error.map(tracing::field::display);
            tracing::warn!(error, most, "{what}");
        }
    };
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => match accepted {
                Err(error) if is_scarcity(&error) => {
                    tell("HTTP connections cannot be taken", Some(&error));
                    connections.end_a_silent_one(None);
                    sleep(ACCEPT_AGAIN).await;
                }
                // It was gone before it was taken.
                Err(error) => tracing::debug!(%error, "an HTTP connection broke off"),
                Ok((stream, address)) => {
                    let client = address.ip();
                    if !connections.make_room(client, most) {
                        tell("there are too many HTTP connections; more are refused", None);
                        if refusals.len() < MOST_REFUSALS {
                            refusals.spawn(refuse(stream, routes.position()));
                        }
                        continue;
                    }
                    let known = connections.add(client);
                    let (connections, routes, stopping) =
                        (Arc::clone(&connections), Arc::clone(&routes), stopping.clone());
                    tasks.spawn(connection(stream, client, routes, connections, known, stopping));
                }
            },
            Some(_) = tasks.join_next() => {}
            Some(_) = refusals.join_next() => {}
        }
    }
    drop(listener);
    stopping.cancel();
    while tasks.join_next().await.is_some() {}
    Ok(())
}

/// Tell a client that there are too many, if it takes that within a moment.
async fn refuse(mut stream: TcpStream, position: Option<Position>) {
    let position = position.map_or(String::new(), |position| format!("{POSITION}: {position}\r\n"));
    let refused = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nretry-after: 1\r\n\
         connection: close\r\n{position}content-length: {}\r\n\r\n{REFUSED}",
        REFUSED.len()
    );
    let told = async {
        stream.write_all(refused.as_bytes()).await?;
        stream.shutdown().await?;
        // What it has sent is read, or it would be told that the connection broke.
        let mut sent = [0; 1_024];
        while stream.read(&mut sent).await? > 0 {}
        io::Result::Ok(())
    };
    // Who does not take it is gone.
    let _ = tokio::time::timeout(Duration::from_secs(1), told).await;
}

async fn connection(
    stream: TcpStream,
    client: IpAddr,
    routes: Arc<Routes>,
    connections: Arc<Connections>,
    (number, end): (u64, CancellationToken),
    stopping: CancellationToken,
) {
    // What is written is sent: the end of an answer would wait 40 ms for the other side to confirm its beginning.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection keeps small packets back");
    }
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let mut router = routes.router();
        let answering = connections.begin_request(number);
        let mut request = request.map(|body| Body::new(Patient { body, left: MAX_BODY_WAIT, waiting: None }));
        request.extensions_mut().insert(ClientAddress(client));
        async move {
            let answer = router.call(request).await?;
            Ok::<_, Infallible>(answer.map(|body| Sending { body, _answering: answering }))
        }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_OR_IDLE_TIMEOUT);
    let served = http.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(served);
    tokio::select! {
        served = served.as_mut() => log_connection_error(served),
        () = stopping.cancelled() => {
            served.as_mut().graceful_shutdown();
            log_connection_error(served.await);
        }
        // It is silent: there is nothing to be finished.
        () = end.cancelled() => {}
    }
    connections.lock().remove(&number);
}

fn log_connection_error(served: hyper::Result<()>) {
    if let Err(error) = served {
        tracing::debug!(%error, "an HTTP connection broke off");
    }
}
