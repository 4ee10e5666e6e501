//! The stage of a run: a sidecar as a service, an app that fails, and what is compared after each
//! round.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::clients::{Play, Stayer, leave};
use super::ledger::{Ledger, Tolerance};
use crate::support::departures::{Numbers, get};
use crate::support::exposition::{self, Exposition, Format};
use crate::support::frail_app::{FrailApp, Mood, Served, check};
use crate::support::history::Log;
use crate::support::patient_app::{reset, sent};
use crate::support::process::{descriptors, resident};
use crate::support::upgrades::{Lines, Service, end};
use crate::support::{Client, eventually, soak_time};

const LONG_ENOUGH: Duration = Duration::from_mins(1);

/// Clients that stay, and clients that leave, in one round.
const STAYERS: usize = 12;
const LEAVERS: usize = 6;
/// How many requests each of those that stay sends at least: in a soak more.
const LEAST: usize = 10;
const LEAST_IN_SOAK: usize = 60;
/// How many requests there are before something happens, and between two things.
const BEFORE: u64 = 40;

/// How many places there are at the app.
const PLACES: usize = 8;
const LISTEN: &str = "half_closed = \"200ms\"";
/// Whoever waits for a place gets one, however slow the machine is. What hangs does so for longer
/// than `first_byte_timeout`.
const UPSTREAM: &str = "max_connections = 8\nwait_timeout = \"1m\"\nfirst_byte_timeout = \"8s\"\n\
                        keep_alive = \"300ms\"\nmax_age = \"10s\"";
const RULES: &str = r#"
[memory]
size = "4MiB"

[log]
access = true

[[routes]]
path  = "/v/{kind}/{name}"
ttl   = "5m"
scope = "public"
tags  = ["v:{kind}:{name}"]
drop_headers = ["x-id"]

[[routes]]
path  = "/v/short/{name}"
ttl   = "1s"
scope = "public"
tags  = ["v:short:{name}"]
drop_headers = ["x-id"]
stale_if_error = "1m"

[[purges]]
path = "/v/{kind}/{name}"
tags = ["v:{kind}:{name}"]
"#;

/// What is zero when nobody is there.
const GAUGES: [&str; 13] = [
    "sidecache_connections_open",
    "sidecache_upstream_waiting",
    "sidecache_upstream_tunnels",
    "sidecache_upstream_pinned",
    "sidecache_upstream_open",
    "sidecache_upstream_idle",
    "sidecache_fills_in_flight",
    "sidecache_fill_waiters",
    "sidecache_upload_bytes",
    "sidecache_purges_waiting",
    "sidecache_journal_depth",
    "sidecache_awaits_predecessor",
    "sidecache_draining",
];

/// What never happens.
const NEVER: [&str; 4] = [
    "sidecache_panics_total",
    "sidecache_framing_errors_total",
    "sidecache_head_errors_total",
    "sidecache_requests_refused_total",
];

/// What happens in a round, besides requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// Nothing; no client leaves, either.
    Calm,
    /// Clients leave, as in all the others.
    Departures,
    /// The app is away for a while.
    AppRefuses,
    /// The app answers nothing for a while.
    AppHangs,
    /// The app breaks off in heads.
    AppCutsHeads,
    /// The app breaks off in bodies.
    AppCutsBodies,
    /// The app is restarted, in a soak three times.
    AppRestarts,
    /// A successor takes over.
    Upgrade,
    /// The sidecar is told to stop, and another one is started.
    Restart,
    /// The sidecar is killed, and another one is started.
    Crash,
    /// A successor takes over from a successor, before the first process has ended.
    Upgrades,
    /// A successor takes over while the app is restarted.
    UpgradeAndAppRestart,
}

impl Event {
    fn tolerance(self) -> Tolerance {
        match self {
            Self::Calm | Self::Departures => Tolerance::Nothing,
            Self::Upgrade | Self::Restart | Self::Upgrades => Tolerance::TunnelsEnd,
            Self::AppRefuses
            | Self::AppHangs
            | Self::AppCutsHeads
            | Self::AppCutsBodies
            | Self::AppRestarts
            | Self::UpgradeAndAppRestart => Tolerance::AppFails,
            Self::Crash => Tolerance::NobodyThere,
        }
    }
}

/// What was true at the begin of a round.
struct Mark {
    process: u32,
    counts: Exposition,
    served: Served,
    /// How long the log of each process was.
    logs: Vec<u64>,
}

/// Everything of one run. Dropping it ends all processes.
pub struct Stage {
    app: FrailApp,
    service: Service,
    log: Arc<Log>,
    numbers: Numbers,
    begun: Instant,
    /// What a process without clients has open.
    descriptors: BTreeMap<String, usize>,
    /// How much memory was resident at the end of each round.
    memory: Vec<(Duration, u64)>,
    rounds: BTreeMap<Event, usize>,
    next: u64,
    /// What was wrong.
    found: Vec<String>,
}

impl Stage {
    /// A stage before the first round; the service manager may hold the sidecar's socket.
    pub async fn set(app: FrailApp, activated: bool, numbers: Numbers) -> Self {
        let upstream = format!("url = \"{}\"\n{UPSTREAM}", app.url());
        let lines = Lines { listen: LISTEN.to_owned(), upstream, rules: RULES.to_owned() };
        let service = Service::with_lines(&lines, activated).await;
        let mut stage = Self {
            app,
            service,
            log: Arc::default(),
            numbers,
            begun: Instant::now(),
            descriptors: BTreeMap::new(),
            memory: Vec::new(),
            rounds: BTreeMap::new(),
            next: 0,
            found: Vec::new(),
        };
        let reply = Client::new(stage.service.address).get("/v/quick/1", &[]).await;
        assert_eq!(reply.status, 200);
        stage.gauges().await;
        stage.descriptors = stage.open_at_rest().await;
        stage
    }

    /// Plays one round, and fails unless everything is as it has to be at its end.
    pub async fn round(&mut self, event: Event) {
        let mark = self.mark().await;
        let ledger = Arc::<Ledger>::default();
        let least = if soak_time().is_zero() { LEAST } else { LEAST_IN_SOAK };
        let play = Play {
            address: self.service.address,
            ledger: Arc::clone(&ledger),
            log: Arc::clone(&self.log),
            tolerance: event.tolerance(),
            least,
        };
        let (mut stayers, mut leavers) = (JoinSet::new(), JoinSet::new());
        for number in 0..STAYERS {
            let first = self.next + (number as u64) * 1_000_000;
            let stayer = Stayer::new(play.clone(), number, first, self.numbers.fork());
            stayers.spawn(stayer.work());
        }
        self.next += STAYERS as u64 * 1_000_000;
        for _ in 0..if event == Event::Calm { 0 } else { LEAVERS } {
            leavers.spawn(leave(play.clone(), self.numbers.fork()));
        }
        goes_on(&ledger).await;
        self.happen(event, &ledger).await;
        goes_on(&ledger).await;
        ledger.over.store(true, Ordering::SeqCst);
        while let Some(stayer) = stayers.join_next().await {
            stayer.expect("a client does not panic");
        }
        while let Some(leaver) = leavers.join_next().await {
            leaver.expect("a client that leaves does not panic");
        }
        *self.rounds.entry(event).or_default() += 1;
        self.compare(event, &mark, &ledger).await;
    }

    async fn happen(&mut self, event: Event, ledger: &Ledger) {
        match event {
            Event::Calm | Event::Departures => {}
            Event::AppRefuses => {
                self.app.end().await;
                goes_on(ledger).await;
                self.app.begin().await;
            }
            Event::AppHangs => self.hang().await,
            Event::AppCutsHeads | Event::AppCutsBodies => {
                let heads = event == Event::AppCutsHeads;
                self.app.set(if heads { Mood::CutsHeads } else { Mood::CutsBodies });
                let before = self.app.served().cut;
                goes_on(ledger).await;
                eventually("the app breaks off", LONG_ENOUGH, async || {
                    self.app.served().cut > before + 10
                })
                .await;
                self.app.set(Mood::Well);
            }
            Event::AppRestarts => {
                for _ in 0..if soak_time().is_zero() { 1 } else { 3 } {
                    self.restart_app().await;
                    goes_on(ledger).await;
                }
            }
            Event::Upgrade => self.service.upgrade().await,
            Event::Restart => self.service.restart().await,
            Event::Crash => self.service.crash().await,
            Event::Upgrades => {
                let mut first = self.service.take_over().await;
                self.service.upgrade().await;
                assert_eq!(end(&mut first).await.code(), Some(0), "the first process has drained");
            }
            Event::UpgradeAndAppRestart => {
                let mut old = self.service.take_over().await;
                self.restart_app().await;
                assert_eq!(end(&mut old).await.code(), Some(0), "the old process has drained");
            }
        }
    }

    async fn restart_app(&mut self) {
        self.app.end().await;
        sleep(Duration::from_millis(self.numbers.below(300))).await;
        self.app.begin().await;
    }

    /// Hangs for a moment, or until the sidecar gives up waiting.
    async fn hang(&mut self) {
        self.app.set(Mood::Hangs);
        if self.numbers.below(2) == 0 && !soak_time().is_zero() {
            let name = "sidecache_upstream_timeouts_total";
            let before = value(&self.counts().await, name);
            eventually("a request takes too long", LONG_ENOUGH, async || {
                value(&self.counts().await, name) > before
            })
            .await;
        } else {
            sleep(Duration::from_secs(1)).await;
        }
        self.app.set(Mood::Well);
    }

    /// Ends the run: every value is what the app has, no read was stale, and the run has shown
    /// something. Returns how much memory was resident, and when.
    pub async fn end(self) -> Vec<(Duration, u64)> {
        let mut client = Client::new(self.service.address);
        for kind in ["quick", "late", "drip", "short"] {
            for name in 0..100 {
                let path = format!("/v/{kind}/{name}");
                let truth = self.app.version(&path);
                if truth > 0 {
                    let reply = client.get(&path, &[]).await;
                    assert_eq!(check(&path, &reply.body, true), Ok(Some(truth)), "{path}");
                }
            }
        }
        let history = self.log.history();
        let counts = history.counts(None);
        println!("{counts:?}, {} processes, rounds: {:?}", self.service.started(), self.rounds);
        let stale = history.stale_reads();
        let shown: Vec<_> = stale.iter().take(5).map(ToString::to_string).collect();
        assert!(stale.is_empty(), "{} stale reads: {}", stale.len(), shown.join("\n"));
        let (wrong, shown) = (self.found.len(), self.found.iter().take(12));
        let shown = shown.cloned().collect::<Vec<_>>().join("\n");
        assert!(wrong == 0, "{wrong} things are wrong:\n{shown}");
        assert!(counts.hits * 10 > counts.reads, "few reads were hits: {counts:?}");
        self.memory
    }

    async fn counts(&self) -> Exposition {
        let reply = Client::of_admin(self.service.admin).get("/metrics", &[]).await;
        exposition::read(reply.text(), Format::Text).expect("the metrics are well-formed")
    }

    async fn mark(&self) -> Mark {
        Mark {
            process: self.service.child.id(),
            counts: self.counts().await,
            served: self.app.served(),
            logs: (0..self.service.started()).map(|number| self.service.logged(number)).collect(),
        }
    }

    /// Returns when no gauge is above zero: how long that took, and which ones were the last.
    async fn gauges(&self) -> (Duration, Vec<&'static str>) {
        let since = Instant::now();
        let mut last = Vec::new();
        loop {
            let counts = self.counts().await;
            let above: Vec<_> = GAUGES
                .iter()
                .map(|name| (name, value(&counts, name)))
                .filter(|(_, value)| *value > 0)
                .collect();
            if above.is_empty() {
                return (since.elapsed(), last);
            }
            last = above.iter().map(|(name, _)| **name).collect();
            assert!(since.elapsed() < LONG_ENOUGH, "above zero: {above:?}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Compares what the sidecar, the clients and the app have counted.
    async fn compare(&mut self, event: Event, mark: &Mark, ledger: &Ledger) {
        let (waited, last) = self.gauges().await;
        let process = self.service.child.id();
        let mut found = ledger.wrongs();
        let counts = self.counts().await;
        for name in NEVER {
            if value(&counts, name) > 0 {
                found.push(format!("{name} is {}", value(&counts, name)));
            }
        }
        let lines = self.access_lines(mark);
        found.extend(compare_lines(event, &lines, ledger));
        for number in ledger.written.lock().iter() {
            if self.app.writes(*number) != 1 {
                found.push(format!("write {number} came {} times", self.app.writes(*number)));
            }
        }
        found
            .extend(self.app.repeated_writes().iter().map(|number| format!("{number} came twice")));
        if process == mark.process {
            let difference = |name: &str| value(&counts, name) - value(&mark.counts, name);
            found.extend(compare_counts(event, &difference, &lines, ledger));
            found.extend(compare_app(event, &difference, mark.served, self.app.served()));
        }
        let memory = resident(process);
        self.memory.push((self.begun.elapsed(), memory));
        let count = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        println!(
            "{:>4} s {event:?}: {} requests, {} excused, {} tunnels, {} left, {} hits, {} MiB, \
             still after {waited:?} ({last:?})",
            self.begun.elapsed().as_secs(),
            count(&ledger.requests),
            count(&ledger.excused),
            count(&ledger.tunnels),
            count(&ledger.departures),
            count(&ledger.hits),
            memory >> 20,
        );
        for wrong in found.iter().take(12) {
            println!("{event:?}: {wrong}");
        }
        self.found.extend(found.into_iter().map(|wrong| format!("{event:?}: {wrong}")));
        self.descriptors(event).await;
        self.places().await;
    }

    /// The statuses of all lines of access since a mark, and how many there are for each id.
    fn access_lines(&self, mark: &Mark) -> Lined {
        let mut lined = Lined::default();
        for number in 0..self.service.started() {
            let from = mark.logs.get(number).copied().unwrap_or(0);
            let said = self.service.said_after(number, from);
            for line in said.lines().filter(|line| line.contains("sidecache::access")) {
                lined.lines += 1;
                let word = |name: &str| {
                    line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
                };
                let status = word("status").and_then(|status| status.parse().ok()).unwrap_or(0);
                if let Some(id) = word("request_id") {
                    lined.statuses.entry(id.trim_matches('"').to_owned()).or_default().push(status);
                }
            }
        }
        lined
    }

    /// What the process has open when that has been the same for a while: connections that were just
    /// closed are gone then.
    async fn open_at_rest(&self) -> BTreeMap<String, usize> {
        let (mut last, mut times) = (BTreeMap::new(), 0);
        while times < 20 {
            sleep(Duration::from_millis(50)).await;
            let now = descriptors(self.service.child.id());
            times = if now == last { times + 1 } else { 0 };
            last = now;
        }
        last
    }

    /// Returns when the process has the same descriptors open as at the start.
    async fn descriptors(&mut self, event: Event) {
        let since = Instant::now();
        loop {
            let now = descriptors(self.service.child.id());
            if now == self.descriptors {
                return;
            }
            if since.elapsed() > LONG_ENOUGH {
                let before = &self.descriptors;
                let wrong = format!("{event:?}: open: {now:?}, at first {before:?}");
                println!("{wrong}");
                self.found.push(wrong);
                self.descriptors = now;
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Takes all places at the app at once, and gives them back.
    async fn places(&self) {
        let before = self.app.served().nevers;
        let mut held = Vec::new();
        for _ in 0..PLACES {
            held.push(sent(self.service.address, &get("/never")).await);
        }
        eventually("all places at the app are free", LONG_ENOUGH, async || {
            self.app.served().nevers == before + PLACES as u64
        })
        .await;
        held.into_iter().for_each(reset);
        self.gauges().await;
    }
}

/// Returns when there were some more requests.
async fn goes_on(ledger: &Ledger) {
    let requests = || ledger.requests.load(Ordering::SeqCst);
    let before = requests();
    eventually("the clients are at work", LONG_ENOUGH, async || requests() > before + BEFORE).await;
}

/// The sum of all series of a name, which has to be there.
fn value(counts: &Exposition, name: &str) -> u64 {
    let samples = counts.0.values().flat_map(|family| &family.samples);
    let mut of = samples.filter(|((full, _), _)| full == name).map(|(_, value)| *value).peekable();
    assert!(of.peek().is_some(), "there is no metric {name}");
    let sum: f64 = of.sum();
    format!("{sum:.0}").parse().expect("a count")
}

/// What the access log says of a round.
#[derive(Default)]
struct Lined {
    lines: u64,
    statuses: HashMap<String, Vec<u16>>,
}

/// Each whole response of a client that stays has one line, with its status.
fn compare_lines(event: Event, lines: &Lined, ledger: &Ledger) -> Vec<String> {
    let mut found = Vec::new();
    let statuses = ledger.statuses.lock();
    for (id, status) in statuses.iter() {
        let logged = lines.statuses.get(id).map_or(&[][..], Vec::as_slice);
        // A process that is killed may not have logged what it has answered.
        let lost = event == Event::Crash && logged.is_empty();
        if logged != [*status] && !lost {
            found.push(format!("{id} was answered with {status}, and logged as {logged:?}"));
        }
    }
    for (id, logged) in lines.statuses.iter().filter(|(_, logged)| logged.len() > 1) {
        found.push(format!("{id} was logged as {logged:?}"));
    }
    found
}

/// What the process has counted agrees with what the clients got.
fn compare_counts(
    event: Event,
    difference: &impl Fn(&str) -> u64,
    lines: &Lined,
    ledger: &Ledger,
) -> Vec<String> {
    let mut found = Vec::new();
    let count = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
    let mut between = |what: &str, value: u64, least: u64, most: u64| {
        if !(least..=most).contains(&value) {
            found.push(format!("{what}: {value}, not from {least} to {most}"));
        }
    };
    let requests = difference("sidecache_requests_total");
    let (sent, heads) = (count(&ledger.requests), count(&ledger.heads));
    between("requests", requests, sent, sent + heads);
    between("access lines", lines.lines, requests, requests);
    let responses = difference("sidecache_responses_total");
    between("responses", responses, requests, requests);
    let bytes = difference("sidecache_response_bytes_total");
    let got = count(&ledger.bytes);
    between("bytes", bytes, got, if event == Event::Calm { got } else { u64::MAX });
    let (writes, left) = (count(&ledger.writes), if event == Event::Calm { 0 } else { heads });
    between("writes", difference("sidecache_mutations_total"), writes, writes + left);
    found
}

/// What the process has counted agrees with what the app has.
fn compare_app(
    event: Event,
    difference: &impl Fn(&str) -> u64,
    before: Served,
    now: Served,
) -> Vec<String> {
    let mut found = Vec::new();
    let mut equal = |what: &str, sidecar: u64, app: u64| {
        if sidecar != app {
            found.push(format!("{what}: the sidecar says {sidecar}, the app {app}"));
        }
    };
    let connects = difference("sidecache_upstream_connects_total");
    let sent = connects + difference("sidecache_upstream_reused_total");
    if event == Event::Calm {
        equal("connections", connects, now.connections - before.connections);
        equal("requests", sent, now.requests - before.requests);
        let tunnels = difference("sidecache_tunnels_total");
        equal("responses", sent, now.responses - before.responses + tunnels);
        equal("unreachable", difference("sidecache_upstream_unreachable_total"), 0);
        equal("broken", difference("sidecache_upstream_broken_total"), 0);
        equal("timeouts", difference("sidecache_upstream_timeouts_total"), 0);
        equal("cut", difference("sidecache_responses_cut_total"), 0);
    } else if now.requests - before.requests > sent {
        equal("requests at most", sent, now.requests - before.requests);
    }
    found
}
