//! Sends the requests of a warm-up: so many at once, so many a second, each within its time, until
//! the end or a signal.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::header::{ACCEPT, HOST, HeaderMap, HeaderValue, USER_AGENT};
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::super::http::Endpoint;
use super::summary::{Tally, WarmResponse};
use crate::clock::Clock;

/// A request to send.
#[derive(Clone, Debug)]
pub(super) struct WarmRequest {
    pub(super) host: HeaderValue,
    pub(super) target: String,
}

/// How requests are sent.
#[derive(Clone, Debug)]
pub(super) struct SendSettings {
    pub(super) to: Endpoint,
    pub(super) headers: HeaderMap,
    pub(super) concurrency: usize,
    /// Requests per second, if they are limited.
    pub(super) rate: Option<f64>,
    pub(super) timeout: Duration,
}

/// The state that all workers share.
struct SendRun<'a> {
    settings: &'a SendSettings,
    jobs: &'a [WarmRequest],
    next: AtomicUsize,
    started: Instant,
    tally: Mutex<Tally>,
    bar: ProgressBar,
}

/// Sends all requests, or stops at `stop`. Requests in progress at that time are not counted.
pub(super) async fn send(
    settings: &SendSettings,
    jobs: &[WarmRequest],
    clock: &Clock,
    stop: &CancellationToken,
) -> Tally {
    // indicatif draws to stderr, and only if it is a terminal.
    let bar = ProgressBar::new(jobs.len() as u64);
    if let Ok(style) =
        ProgressStyle::with_template("{bar:30} {pos}/{len} {per_sec}, {eta} left  {msg}")
    {
        bar.set_style(style);
    }
    let begun = Instant::from_std(clock.now());
    let round = SendRun {
        settings,
        jobs,
        next: AtomicUsize::new(0),
        started: begun,
        tally: Mutex::default(),
        bar,
    };
    let workers = (0..settings.concurrency.min(jobs.len())).map(|_| round.work());
    let stopped = stop.run_until_cancelled(join_all(workers)).await.is_none();
    round.bar.finish_and_clear();
    let mut tally = round.tally.into_inner();
    tally.stopped = stopped;
    tally.elapsed = clock.now().saturating_duration_since(begun.into_std());
    tally
}

impl SendRun<'_> {
    async fn work(&self) {
        let mut connection = None;
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(job) = self.jobs.get(number) else { return };
            if let Some(rate) = self.settings.rate {
                #[allow(clippy::cast_precision_loss, reason = "far fewer than 2^52 requests")]
                let after =
                    Duration::try_from_secs_f64(number as f64 / rate).unwrap_or(Duration::MAX);
                sleep_until(self.started.checked_add(after).unwrap_or(self.started)).await;
            }
            let sent = timeout(self.settings.timeout, self.send_one(job, &mut connection)).await;
            let sent = sent.unwrap_or_else(|_| Err("no response in time".to_owned()));
            let mut tally = self.tally.lock();
            tally.add(&job.target, sent);
            self.bar.set_message(tally.brief());
            drop(tally);
            self.bar.inc(1);
        }
    }

    /// Sends one request and reads the whole response. Only then is the connection reused, so that
    /// late data cannot be taken for the next response.
    async fn send_one(
        &self,
        job: &WarmRequest,
        kept: &mut Option<SendRequest<Full<Bytes>>>,
    ) -> Result<WarmResponse, String> {
        let mut open = kept.take();
        if let Some(sender) = &mut open
            && sender.ready().await.is_err()
        {
            // The server has closed the connection meanwhile.
            open = None;
        }
        let mut sender = match open {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        let request = self.request(job).ok_or("the request cannot be sent")?;
        let response = match sender.send_request(request).await {
            // The connection was closed after `ready`, before anything was sent.
            Err(error) if error.is_canceled() => {
                sender = self.connect().await?;
                let again = self.request(job).ok_or("the request cannot be sent")?;
                sender.send_request(again).await
            }
            other => other,
        };
        let response = response.map_err(|error| format!("no response: {error}"))?;
        let sent = Self::drain(response).await?;
        *kept = Some(sender);
        Ok(sent)
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, String> {
        self.settings
            .to
            .connect()
            .await
            .map(|(sender, _)| sender)
            .map_err(|error| format!("cannot connect: {error}"))
    }

    fn request(&self, job: &WarmRequest) -> Option<Request<Full<Bytes>>> {
        let mut request = Request::new(Full::default());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = job.target.parse().ok()?;
        let headers = request.headers_mut();
        headers.insert(
            USER_AGENT,
            HeaderValue::from_static(concat!("sidecache-warm/", env!("CARGO_PKG_VERSION"))),
        );
        headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        for name in self.settings.headers.keys() {
            headers.remove(name);
        }
        for (name, value) in &self.settings.headers {
            headers.append(name, value.clone());
        }
        headers.insert(HOST, job.host.clone());
        Some(request)
    }

    async fn drain(response: Response<Incoming>) -> Result<WarmResponse, String> {
        let (head, mut body) = response.into_parts();
        let mut bytes = 0;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| format!("the response was cut off: {error}"))?;
            bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        Ok(WarmResponse::new(head.status.as_u16(), &head.headers, bytes))
    }
}
