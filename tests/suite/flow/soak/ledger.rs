//! What the clients of a round got, and what was wrong with it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::support::departures::{Departure, RESETS};
use crate::support::frail_app::check;
use crate::support::http1;

/// What may go wrong for a client that stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tolerance {
    /// Nothing.
    Nothing,
    /// Tunnels end.
    TunnelsEnd,
    /// The app gives no response, or not all of one.
    AppFails,
    /// There is nobody who would answer.
    NobodyThere,
}

/// What the clients of a round got.
#[derive(Default)]
pub struct Ledger {
    /// Whether clients may end.
    pub over: AtomicBool,
    /// Requests of clients that stay.
    pub requests: AtomicU64,
    /// Of them those that write.
    pub writes: AtomicU64,
    /// Of them those answered from the cache.
    pub hits: AtomicU64,
    /// Bytes of bodies that clients that stay got.
    pub bytes: AtomicU64,
    /// Of clients that stay, what failed as it may.
    pub excused: AtomicU64,
    /// Requests of clients that leave, as far as their heads were sent.
    pub heads: AtomicU64,
    /// Clients that left.
    pub departures: AtomicU64,
    /// Tunnels that were used.
    pub tunnels: AtomicU64,
    /// The statuses of all whole responses, by the ids of their requests.
    pub statuses: Mutex<HashMap<String, u16>>,
    /// The numbers of writes that were answered.
    pub written: Mutex<Vec<u64>>,
    wrong: Mutex<Vec<String>>,
}

impl Ledger {
    /// Notes what must not be.
    pub fn wrong(&self, what: String) {
        self.wrong.lock().push(what);
    }

    /// Notes a failure, which is wrong unless so much is tolerated.
    pub fn failed(&self, tolerated: Tolerance, needed: Tolerance, what: impl FnOnce() -> String) {
        if tolerated >= needed {
            self.excused.fetch_add(1, Ordering::SeqCst);
        } else {
            self.wrong(what());
        }
    }

    /// All that is wrong.
    pub fn wrongs(&self) -> Vec<String> {
        self.wrong.lock().clone()
    }

    /// Notes a client that has left.
    pub fn left(&self, departure: &Departure) {
        self.departures.fetch_add(1, Ordering::SeqCst);
        self.heads.fetch_add(departure.heads as u64, Ordering::SeqCst);
        if let Err(what) = check_departure(departure) {
            self.wrong(format!("a client that left got {what}"));
        }
    }

    /// Notes a client of HTTP/2 that has left.
    pub fn reset(&self) {
        self.departures.fetch_add(1, Ordering::SeqCst);
        self.heads.fetch_add(RESETS.len() as u64, Ordering::SeqCst);
    }
}

/// What a client got before it left are the first bytes of what it asked for.
fn check_departure(departure: &Departure) -> Result<(), String> {
    let mut rest = &departure.got[..];
    for (method, path) in &departure.asked {
        let length = loop {
            let Some(length) = http1::head_length(rest) else { return Ok(()) };
            if http1::status(rest) / 100 != 1 || http1::status(rest) == 101 {
                break length;
            }
            rest = &rest[length..];
        };
        let (line, headers) = http1::head(&rest[..length]);
        let status = http1::status(rest);
        rest = &rest[length..];
        if status == 0 {
            return Err(format!("{line} for {method} {path}"));
        }
        if *method == "HEAD" {
            continue;
        }
        if status == 101 || path.contains("/events") {
            return Ok(());
        }
        let (body, used) = if http1::names(&headers, "transfer-encoding", "chunked") {
            match http1::dechunked(rest) {
                Ok((body, used)) => (body, Some(used)),
                Err(part) => (part, None),
            }
        } else {
            let length = headers.get("content-length").and_then(|value| value.to_str().ok());
            let length: usize = length.and_then(|value| value.parse().ok()).unwrap_or(usize::MAX);
            let body = &rest[..length.min(rest.len())];
            (body.to_vec(), (rest.len() >= length).then_some(length))
        };
        if status == 200 {
            check(path, &body, used.is_some())?;
        }
        let Some(used) = used else { return Ok(()) };
        rest = &rest[used..];
    }
    if rest.is_empty() { Ok(()) } else { Err(format!("{} bytes more than asked for", rest.len())) }
}
