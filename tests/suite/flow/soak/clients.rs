//! The clients of a round. Those that stay read, write and use tunnels, and check all that they get.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::ledger::{Ledger, Tolerance};
use crate::support::client::is_sent_again;
use crate::support::departures::{Numbers, leave_somehow, reset_somehow, websocket};
use crate::support::frail_app::{check, digest};
use crate::support::history::{Kind, Log, Operation};
use crate::support::patient_app::{half_close, reset};
use crate::support::{Client, Reply, http1};

/// How long a client pauses between two requests, in milliseconds.
const PAUSE: u64 = 40;
/// No response takes so long.
const PATIENCE: Duration = Duration::from_mins(1);
/// The longest upload, in bytes.
const LONGEST: u64 = 150_000;
/// Bytes that go through a tunnel at once, at most.
const MESSAGE: u64 = 3000;

/// What all clients of a round have in common.
#[derive(Clone)]
pub struct Play {
    /// Where the sidecar is.
    pub address: SocketAddr,
    /// What they get.
    pub ledger: Arc<Ledger>,
    /// All reads and writes of versions.
    pub log: Arc<Log>,
    /// What may go wrong.
    pub tolerance: Tolerance,
    /// How many requests each client that stays sends at least.
    pub least: usize,
}

impl Play {
    fn is_over(&self) -> bool {
        self.ledger.over.load(Ordering::SeqCst)
    }
}

/// Leaves again and again, over HTTP/1 and HTTP/2, until the round is over.
pub async fn leave(play: Play, mut numbers: Numbers) {
    while !play.is_over() {
        let own = numbers.fork();
        let left = if numbers.below(6) == 0 {
            reset_somehow(play.address, own).await.map(|()| play.ledger.reset())
        } else {
            let left = leave_somehow(play.address, own).await;
            left.map(|departure| play.ledger.left(&departure))
        };
        if let Err(error) = left {
            let what = || format!("a client that leaves: {error:?}");
            play.ledger.failed(play.tolerance, Tolerance::NobodyThere, what);
            sleep(Duration::from_millis(PAUSE)).await;
        }
    }
}

/// How a client keeps its connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Habit {
    Keeps,
    Fresh,
    Http2,
}

/// A client that stays.
pub struct Stayer {
    play: Play,
    numbers: Numbers,
    habit: Habit,
    client: Client,
    next: u64,
}

impl Stayer {
    /// The client of this number, whose requests have numbers from `first` on.
    pub fn new(play: Play, number: usize, first: u64, numbers: Numbers) -> Self {
        let habit = [Habit::Keeps, Habit::Http2, Habit::Keeps, Habit::Fresh][number % 4];
        let client = Self::connect(&play, habit);
        Self { play, numbers, habit, client, next: first }
    }

    fn connect(play: &Play, habit: Habit) -> Client {
        if habit == Habit::Http2 { Client::http2(play.address) } else { Client::new(play.address) }
    }

    /// Does one thing after another until the round is over, and returns the number of a next
    /// request.
    pub async fn work(mut self) -> u64 {
        for done in 0.. {
            if done >= self.play.least && self.play.is_over() {
                break;
            }
            self.act().await;
            sleep(Duration::from_millis(self.numbers.below(PAUSE))).await;
        }
        self.next
    }

    async fn act(&mut self) {
        let kind = ["quick", "late", "drip"][usize::try_from(self.numbers.below(3)).unwrap_or(0)];
        let name = self.numbers.below(if kind == "quick" { 100 } else { 3 });
        let versioned = match self.numbers.below(5) {
            0 => format!("/v/short/{}", name % 10),
            _ => format!("/v/{kind}/{name}"),
        };
        match self.numbers.below(20) {
            0..11 => self.ask("GET", &versioned, Vec::new()).await,
            11 => self.ask("HEAD", &versioned, Vec::new()).await,
            12..15 => self.ask("GET", &format!("/p/{kind}/{name}"), Vec::new()).await,
            15..17 => {
                let upload = self.upload();
                self.ask("PUT", &versioned, upload).await;
            }
            17..19 => {
                let upload = self.upload();
                self.ask("POST", &format!("/p/{kind}"), upload).await;
            }
            _ => self.tunnel().await,
        }
    }

    fn upload(&mut self) -> Vec<u8> {
        self.bytes(LONGEST)
    }

    fn bytes(&mut self, most: u64) -> Vec<u8> {
        let (first, length) = (self.numbers.below(256), 1 + self.numbers.below(most));
        let byte = |at| u8::try_from((first + at * 7 + at / 251) % 256).unwrap_or(0);
        (0..length).map(byte).collect()
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.play.ledger.requests.fetch_add(1, Ordering::SeqCst);
        self.next
    }

    /// Sends a request, and checks what comes.
    async fn ask(&mut self, method: &str, path: &str, upload: Vec<u8>) {
        let number = self.number();
        let ledger = Arc::clone(&self.play.ledger);
        let writes = matches!(method, "PUT" | "POST");
        ledger.writes.fetch_add(u64::from(writes), Ordering::SeqCst);
        if self.habit == Habit::Fresh {
            self.client = Self::connect(&self.play, self.habit);
        }
        let sent = Instant::now();
        let sum = digest(&upload);
        let mut reply = self.exchange(method, path, number, upload.clone()).await;
        // Where the sidecar is killed, nobody knows what it has done.
        if let Err((_, error)) = &reply
            && self.play.tolerance < Tolerance::NobodyThere
            && is_sent_again(error)
        {
            self.client = Self::connect(&self.play, self.habit);
            reply = self.exchange(method, path, number, upload).await;
        }
        let done = Instant::now();
        let reply = match reply {
            Ok(reply) => reply,
            Err((head, error)) => {
                self.client = Self::connect(&self.play, self.habit);
                let needed = if head { Tolerance::AppFails } else { Tolerance::NobodyThere };
                let what = || format!("{method} {path} ({number}): {error:?}, head: {head}");
                return ledger.failed(self.play.tolerance, needed, what);
            }
        };
        ledger.bytes.fetch_add(reply.body.len() as u64, Ordering::SeqCst);
        ledger.statuses.lock().insert(id(number), reply.status);
        if reply.status != 200 {
            let gateway = matches!(reply.status, 502..=504);
            let what = || format!("{method} {path} ({number}): {} {}", reply.status, reply.text());
            let needed = Tolerance::AppFails;
            return if gateway {
                ledger.failed(self.play.tolerance, needed, what);
            } else {
                ledger.wrong(what());
            };
        }
        ledger.hits.fetch_add(u64::from(reply.cache() == "HIT"), Ordering::SeqCst);
        if method == "HEAD" {
            return;
        }
        match check(path, &reply.body, true) {
            Err(what) => ledger.wrong(format!("{method} {what} ({})", reply.cache_status())),
            Ok(version) if path.starts_with("/v/") => {
                let kind = if writes { Kind::Write } else { Kind::Read };
                self.play.log.push(Operation {
                    kind,
                    key: path.into(),
                    version,
                    sent,
                    done,
                    through: 0,
                    status: reply.status,
                    hit: reply.cache() == "HIT",
                    said: reply.cache_status().into(),
                });
            }
            Ok(version) if version == Some(number) => {}
            Ok(other) => ledger.wrong(format!("{method} {path}: {other:?} for {number}")),
        }
        if writes {
            ledger.written.lock().push(number);
            if reply.header("x-upload") != sum {
                ledger.wrong(format!("{method} {path}: {sum} was {}", reply.header("x-upload")));
            }
        }
    }

    /// Sends a request, and reads the response to its end. Whether there was a head comes with the
    /// failure.
    async fn exchange(
        &mut self,
        method: &str,
        path: &str,
        number: u64,
        upload: Vec<u8>,
    ) -> Result<Reply, (bool, io::Error)> {
        let (id, number) = (id(number), number.to_string());
        let headers = [("x-request-id", &*id), ("x-id", &*number)];
        let response = self.client.open(method, path, &headers, upload).await;
        let (head, body) = response.map_err(|error| (false, error))?.into_parts();
        let body = match timeout(PATIENCE, body.collect()).await {
            Ok(body) => body.map_err(|error| (true, io::Error::other(error)))?,
            Err(late) => return Err((true, late.into())),
        };
        Ok(Reply::new(head.status.as_u16(), head.headers, body.to_bytes()))
    }

    /// Opens a tunnel, checks that it echoes, and leaves it in one of three ways.
    async fn tunnel(&mut self) {
        self.number();
        let result = timeout(PATIENCE, self.echo()).await.unwrap_or_else(|late| Err(late.into()));
        match result {
            Ok(()) => drop(self.play.ledger.tunnels.fetch_add(1, Ordering::SeqCst)),
            Err(error) => {
                let needed = Tolerance::TunnelsEnd;
                let what = || format!("a tunnel: {error:?}");
                self.play.ledger.failed(self.play.tolerance, needed, what);
            }
        }
    }

    async fn echo(&mut self) -> io::Result<()> {
        let mut stream = TcpStream::connect(self.play.address).await?;
        stream.write_all(websocket("/ws").as_bytes()).await?;
        let mut head = Vec::new();
        while http1::head_length(&head).is_none() {
            if stream.read_buf(&mut head).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        match http1::status(&head) {
            101 => {}
            // There are as many as there may be.
            503 => return Ok(()),
            status => return Err(io::Error::other(format!("{status}"))),
        }
        for _ in 0..self.numbers.below(4) {
            let message = self.bytes(MESSAGE);
            stream.write_all(&message).await?;
            let mut echo = vec![0; message.len()];
            stream.read_exact(&mut echo).await?;
            if echo != message {
                self.play.ledger.wrong("a tunnel echoes something else".to_owned());
            }
        }
        match self.numbers.below(3) {
            0 => reset(stream),
            1 => drop(stream),
            _ => {
                half_close(&mut stream).await;
                drop(stream.read_to_end(&mut head).await);
            }
        }
        Ok(())
    }
}

/// The id of a request, as the access log has it.
fn id(number: u64) -> String {
    format!("soak{number}")
}
