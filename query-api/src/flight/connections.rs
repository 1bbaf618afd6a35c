//! Connections of Flight SQL: as many as there are places. One whose client says nothing gives its place back.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::{Stream, stream};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    time::{Sleep, sleep},
};
use tonic::transport::server::{Connected, TcpConnectInfo};

use crate::client_places::{ClientPlace, ClientPlaces};

/// How long a client may take to begin, and the bytes by which it does. From then on it answers HTTP/2's own pings.
const BEGIN_WITHIN: Duration = Duration::from_secs(5);
const PREFACE_BYTES: usize = 24;
/// How long to wait where the system gives no connection.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);

/// Connections as they come.
pub(super) fn accept(listener: TcpListener, max_connections: usize) -> impl Stream<Item = io::Result<Connection>> {
    let places = ClientPlaces::new(max_connections);
    stream::unfold((listener, places), async |(listener, places)| {
        loop {
            match listener.accept().await {
                Ok((stream, address)) => {
                    let Some(place) = places.take(address.ip()) else {
                        tracing::warn!(%address, most = places.max(), "too many Flight SQL connections; one is closed");
                        continue;
                    };
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "a connection keeps small packets back");
                    }
                    let begin = Some(Box::pin(sleep(BEGIN_WITHIN)));
                    return Some((Ok(Connection { stream, begin, begun_bytes: 0, _place: place }), (listener, places)));
                }
                Err(error) => {
                    // Too many open files, for example: it passes.
                    tracing::warn!(%error, "cannot take a Flight SQL connection");
                    sleep(ACCEPT_AGAIN).await;
                }
            }
        }
    })
}

/// A connection and its place.
pub(super) struct Connection {
    stream: TcpStream,
    /// Until its client has begun: when it ends.
    begin: Option<Pin<Box<Sleep>>>,
    begun_bytes: usize,
    _place: ClientPlace,
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if self.begin.is_some() {
            self.begun_bytes += buffer.filled().len() - before;
            if self.begun_bytes >= PREFACE_BYTES {
                self.begin = None;
            }
        }
        if read.is_pending()
            && let Some(begin) = &mut self.begin
            && begin.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
