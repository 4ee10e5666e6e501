//! Connections that stay open: the stream of server-sent events, and a WebSocket that echoes.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use hyper::body::{Body, Frame, Incoming};
use hyper::header::{
    CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use hyper::upgrade::Upgraded;
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::sync::{broadcast, mpsc};
use tokio::time::MissedTickBehavior;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::reply::{self, Reply, error};

/// How many events a slow reader may fall behind.
const BACKLOG: usize = 256;

/// The open connections of the app.
pub struct Live {
    writes: broadcast::Sender<(String, String)>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Live {
    /// Connections that close when `stop` is cancelled. Their tasks are counted in `tasks`.
    pub fn new(stop: CancellationToken, tasks: TaskTracker) -> Self {
        Self { writes: broadcast::channel(BACKLOG).0, stop, tasks }
    }

    /// Publishes a write to the subscribers of this tenant's events.
    pub fn wrote(&self, tenant: &str, what: &Value) {
        // An error only means that there are no subscribers.
        let _ = self.writes.send((tenant.to_owned(), format!("event: write\ndata: {what}\n\n")));
    }

    /// A stream of server-sent events: a tick each second, and this tenant's writes as they happen.
    pub fn events(&self, tenant: &str) -> Reply {
        let (sender, receiver) = mpsc::channel(16);
        let writes = self.writes.subscribe();
        self.tasks.spawn(feed(tenant.to_owned(), writes, sender, self.stop.clone()));
        let mut reply = reply::with_body(StatusCode::OK, "text/event-stream", EventBody(receiver));
        reply
            .headers_mut()
            .insert(hyper::header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        reply
    }

    /// A WebSocket that echoes.
    pub fn websocket(&self, mut request: Request<Incoming>) -> Reply {
        let Some(key) = websocket_key(request.headers()) else {
            let mut refusal = error(
                StatusCode::UPGRADE_REQUIRED,
                "this is a WebSocket: ask for an upgrade to it, version 13",
            );
            refusal.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
            refusal.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
            return refusal;
        };
        let Ok(accept) = HeaderValue::try_from(derive_accept_key(key.as_bytes())) else {
            return error(StatusCode::BAD_REQUEST, "no such key");
        };
        let upgrade = hyper::upgrade::on(&mut request);
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            if let Ok(upgraded) = upgrade.await {
                tokio::select! { () = echo(upgraded) => {}, () = stop.cancelled() => {} }
            }
        });
        let mut reply = reply::empty(StatusCode::SWITCHING_PROTOCOLS);
        reply.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
        reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
        reply.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, accept);
        reply
    }
}

fn websocket_key(headers: &HeaderMap) -> Option<HeaderValue> {
    let lists = |name, word: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value: &HeaderValue| value.to_str().ok())
            .any(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(word)))
    };
    let version =
        headers.get(SEC_WEBSOCKET_VERSION).is_some_and(|version| version.as_bytes() == b"13");
    if lists(CONNECTION, "upgrade") && lists(UPGRADE, "websocket") && version {
        headers.get(SEC_WEBSOCKET_KEY).cloned()
    } else {
        None
    }
}

async fn echo(upgraded: Upgraded) {
    let mut socket =
        WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
    while let Some(Ok(message)) = socket.next().await {
        // The library answers pings and close frames.
        if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
            break;
        }
    }
}

async fn feed(
    tenant: String,
    mut writes: broadcast::Receiver<(String, String)>,
    sender: mpsc::Sender<Bytes>,
    stop: CancellationToken,
) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut tick = 0_u64;
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return,
            () = sender.closed() => return,
            _ = ticks.tick() => {
                tick += 1;
                format!("event: tick\ndata: {}\n\n", json!({ "tick": tick }))
            }
            write = writes.recv() => match write {
                Ok((of, event)) if of == tenant => event,
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => continue,
                Err(broadcast::error::RecvError::Closed) => return,
            },
        };
        if sender.send(Bytes::from(event)).await.is_err() {
            return;
        }
    }
}

/// A body of events, each sent when it happens. It ends when its sender is dropped.
struct EventBody(mpsc::Receiver<Bytes>);

impl Body for EventBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|event| event.map(|bytes| Ok(Frame::data(bytes))))
    }
}
