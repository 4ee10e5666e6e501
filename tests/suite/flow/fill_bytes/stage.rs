//! The sidecars and the origin of the property, and the rule by which two requests are compared.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sidecache::app::Clock;
use tokio::sync::Mutex;

use super::requests::{Form, MARK, Sent};
use crate::support::{Origin, Reply, Request, Response, Sidecar, WireClient};

/// A route of each kind.
const RULES: &str = r#"
[debug]
headers = true

[fields]
tenant = { header = "x-tenant-id" }
kind   = { header = "x-kind" }
lang   = { cookie = "lang" }
token  = { auth = "prefix", length = 8 }
at     = { host = true }
office = { client = "address", prefix = "/24" }

[[routes]]
path  = "/pub/{*rest}"
ttl   = "1h"
scope = "public"

[[routes]]
path            = "/pub-drop/{*rest}"
ttl             = "1h"
scope           = "public"
query           = ["page"]
unknown_headers = "drop"

[[routes]]
path  = "/shared/{*rest}"
ttl   = "1h"
scope = "shared"

[[routes]]
path            = "/shared-drop/{*rest}"
ttl             = "1h"
scope           = "shared"
query           = "none"
unknown_headers = "drop"

[[routes]]
path = "/private/{*rest}"
ttl  = "1h"

[[routes]]
path            = "/private-drop/{*rest}"
ttl             = "1h"
drop_headers    = ["origin", "accept-charset"]
unknown_headers = "drop"

[[routes]]
path            = "/field/{*rest}"
ttl             = "1h"
key             = ["tenant", "lang"]
unknown_headers = "drop"

[[routes]]
path            = "/fields/{*rest}"
ttl             = "1h"
key             = ["tenant", "kind"]
unknown_headers = "drop"

[[routes]]
path         = "/passed/{*rest}"
ttl          = "1h"
scope        = "public"
pass_headers = ["x-passed", "x-let-through", "referer"]

[[routes]]
path            = "/field-pub/{*rest}"
ttl             = "1h"
scope           = "public"
key             = ["lang"]
unknown_headers = "drop"

[[routes]]
path            = "/token/{*rest}"
ttl             = "1h"
key             = ["token"]
unknown_headers = "drop"

[[routes]]
path  = "/host/{*rest}"
ttl   = "1h"
scope = "public"
key   = ["at"]
query = ["page"]
tags  = ["host:{at}"]

[[routes]]
path            = "/office/{*rest}"
ttl             = "1h"
scope           = "public"
key             = ["office"]
unknown_headers = "drop"

[[routes]]
path        = "/languages/{*rest}"
ttl         = "1h"
scope       = "public"
languages   = ["en", "de"]
vary_cookie = "ignore"

[[routes]]
path  = "/vary-pub/{*rest}"
ttl   = "1h"
scope = "public"

[[routes]]
path            = "/vary-drop/{*rest}"
ttl             = "1h"
scope           = "public"
unknown_headers = "drop"

[[routes]]
path  = "/vary-shared/{*rest}"
ttl   = "1h"
scope = "shared"

[[routes]]
path = "/vary-private/{*rest}"
ttl  = "1h"
"#;

/// What the sidecars differ by.
pub const SETUPS: [&str; 2] =
    ["", "[credential]\nheaders = [\"x-api-key\"]\ncookies = [\"sid\"]\n"];

/// The clients' addresses; the first is that of a trusted proxy.
const PEERS: [Ipv4Addr; 3] =
    [Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(127, 0, 0, 3), Ipv4Addr::new(127, 0, 0, 4)];

const TRUSTED: (&str, &str) = ("[listen]", "trusted_proxies = [\"127.0.0.2\"]");

/// Beginnings of the names of cookies that count for nothing, for each of the setups.
const IGNORED: [&[&str]; 2] = [
    &["_ga", "_gid", "_gcl_", "_fbp", "_hj", "_pk_"],
    &["_ga", "_gcl_", "_fbp", "_hj", "_pk_", "theme"],
];

/// What came of the cases.
#[derive(Debug, Default)]
pub struct Tally {
    pub cases: AtomicUsize,
    /// The cache took no part in one of the two requests.
    pub passed: AtomicUsize,
    pub equal_keys: AtomicUsize,
    /// The second was answered with what the first had brought.
    pub hits: AtomicUsize,
    pub heads: AtomicUsize,
}

/// The sidecars, with an origin that is literal about each byte.
pub struct Stage {
    sidecars: Vec<(Sidecar, Vec<Mutex<WireClient>>)>,
    pub tally: Tally,
    _origin: Origin,
}

/// A reply, as far as it is compared.
#[derive(Debug)]
struct Seen {
    cache: String,
    key: Option<String>,
    /// The bytes of the head that the origin got for it.
    head: String,
    status: String,
}

impl Seen {
    fn new(reply: &Reply) -> Self {
        let (cache, status) = (reply.cache().to_owned(), reply.cache_status().to_owned());
        let key = Some(reply.header("x-cache-key").to_owned()).filter(|key| !key.is_empty());
        let head = percent_decode_str(reply.header("x-seen")).decode_utf8_lossy().into_owned();
        Self { cache, key, head, status }
    }

    /// Whether it is a fill's, or what a fill has stored.
    fn is_cached(&self) -> bool {
        self.key.is_some() && !self.head.is_empty() && self.cache != "BYPASS"
    }

    fn is_stored(&self) -> bool {
        self.status.split("; ").any(|parameter| parameter == "stored")
    }

    fn is_fill(&self) -> bool {
        self.is_cached() && matches!(self.cache.as_str(), "MISS" | "REVALIDATED")
    }
}

/// Sends the bytes of the request's head back in a header, so that the response, stored or not,
/// says what it was made from.
fn literal(request: &Request) -> Response {
    let text = String::from_utf8_lossy(&request.bytes);
    let seen = utf8_percent_encode(&text, NON_ALPHANUMERIC).to_string();
    let confirms = request.path.contains("/confirm/");
    let response = if confirms && request.header("if-none-match").as_deref() == Some("\"v1\"") {
        Response::status(304, "")
    } else {
        Response::ok("content")
    };
    let response = response.header("x-seen", &seen).header("etag", "\"v1\"");
    let vary = request.path.split('/').find_map(|segment| segment.strip_prefix("by-"));
    match vary {
        Some(name) => response.header("vary", name),
        None => response,
    }
}

impl Stage {
    pub async fn start() -> Self {
        let origin = Origin::start(literal);
        let mut sidecars = Vec::new();
        for setup in SETUPS {
            let rules = format!("{setup}{RULES}");
            let sidecar =
                Sidecar::start_with(Clock::system(), origin.address, &[TRUSTED], &rules).await;
            let clients = PEERS.map(|peer| Mutex::new(WireClient::new(sidecar.address, peer)));
            sidecars.push((sidecar, Vec::from(clients)));
        }
        Self { sidecars, tally: Tally::default(), _origin: origin }
    }

    async fn send(&self, method: &str, sent: &Sent) -> Seen {
        let mut client = self.sidecars[sent.setup].1[sent.peer].lock().await;
        let reply = match sent.form {
            Form::Two | Form::TwoSecure => client.two(sent.request(method)).await,
            _ => client.one(&sent.head(method)).await,
        };
        Seen::new(&reply)
    }

    /// Sends the two requests, for a path that nobody has asked for before, and compares what the
    /// origin got. The error shows both.
    pub async fn compare(&self, one: &Sent, two: &Sent) -> Result<(), String> {
        let case = self.tally.cases.fetch_add(1, Ordering::Relaxed);
        let own_path = |sent: &Sent| Sent { path: format!("{}-{case}", sent.path), ..sent.clone() };
        let (one, two) = (own_path(one), own_path(two));
        let fill = self.send("GET", &one).await;
        let answer = self.send("GET", &two).await;
        if !fill.is_cached() || !answer.is_cached() {
            self.tally.passed.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        let was_hit = !answer.is_fill();
        // What the second request alone would have brought.
        let anew = two.without("cache-control").without("pragma").with("cache-control", "no-cache");
        let own = if was_hit { self.send("GET", &anew).await } else { answer };
        if !own.is_fill() {
            return Ok(());
        }
        let same_key = fill.key == own.key;
        self.tally.equal_keys.fetch_add(usize::from(same_key), Ordering::Relaxed);
        self.tally.hits.fetch_add(usize::from(was_hit), Ordering::Relaxed);
        if was_hit || same_key {
            let [first, second] = comparable((&one, &fill.head), (&two, &own.head));
            if first != second {
                let (one, two) = (shown(&one, &fill), shown(&two, &own));
                let why = if was_hit { "the second was a hit" } else { "the keys are equal" };
                let lines = differing(&first, &second);
                return Err(format!("{why}, but the origin got {lines}\n{one}\n{two}"));
            }
        }
        for (sent, seen) in [(&one, &fill), (&two, &own)] {
            if let Some(what) = foreign(sent, &seen.head) {
                return Err(format!("{what}\n{}", shown(sent, seen)));
            }
        }
        if case.is_multiple_of(8) && own.is_stored() {
            self.compare_head(&two, &anew, &own).await?;
        }
        Ok(())
    }

    /// A HEAD brings what a GET brings, apart from a range, which means nothing to a HEAD.
    async fn compare_head(&self, two: &Sent, anew: &Sent, own: &Seen) -> Result<(), String> {
        if two.value("range").is_some() {
            return Ok(());
        }
        let head = self.send("HEAD", anew).await;
        if head.head.is_empty() || !matches!(head.cache.as_str(), "MISS" | "REVALIDATED") {
            return Ok(());
        }
        self.tally.heads.fetch_add(1, Ordering::Relaxed);
        let Some(rest) = head.head.strip_prefix("HEAD") else {
            return Err(format!("a HEAD is no HEAD any more\n{}", shown(anew, &head)));
        };
        let as_get = format!("GET{rest}");
        let [first, second] = comparable((two, &own.head), (two, &as_get));
        if first == second {
            return Ok(());
        }
        let (one, two) = (shown(two, own), shown(anew, &head));
        Err(format!("HEAD and GET differ by more than the method\n{one}\n{two}"))
    }
}

/// What of a request must not be among the bytes of its own fill.
fn foreign(sent: &Sent, head: &str) -> Option<String> {
    let addresses = ["127.0.0.", "198.51.100.7", "10.0.0.1", "::1"];
    let path = sent.plain_path();
    if path.starts_with("/vary-") || path.starts_with("/passed/") {
        // They learn what is in their keys, or the operator knows better.
        return None;
    }
    let keyed = path.starts_with("/office/");
    let found = head.lines().find(|line| {
        let agent = line.starts_with("user-agent:") && may_have_own_agent(sent);
        let host = line.starts_with("host:");
        !host
            && (line.contains(MARK) && !agent
                || !keyed && addresses.iter().any(|&text| line.contains(text)))
    });
    found.map(|line| format!("the origin got `{line}` on a fill"))
}

/// The bytes, without what may differ between these two requests: the validator of a revalidation,
/// ids that the sidecar makes; where they differ in it, the credential in scope `shared`, and the
/// agent of a private request with a credential.
fn comparable((one, first): (&Sent, &str), (two, second): (&Sent, &str)) -> [String; 2] {
    let shared =
        ["/shared", "/vary-shared"].iter().any(|route| one.plain_path().starts_with(route));
    let credentials = ["authorization", "x-api-key"];
    let other = |name: &str| one.value(name) != two.value(name);
    let caller = shared && (credentials.into_iter().any(other) || counting(one) != counting(two));
    let passed = one.plain_path().starts_with("/passed/");
    let agent = may_have_own_agent(one) && other("user-agent");
    [first, second].map(|head| {
        let kept = head.split_inclusive("\r\n").filter_map(|line| {
            let name = line.split(':').next().unwrap_or_default();
            match name {
                "if-none-match" | "if-modified-since" => None,
                "authorization" | "x-api-key" | "cookie" if caller => None,
                // Written otherwise, it is another credential.
                "cookie" if shared => Some(line.replace("; ", ";")),
                "user-agent" if agent => None,
                // The operator's word.
                "x-passed" | "x-let-through" | "referer" if passed && other(name) => None,
                "x-request-id" | "traceparent" => Some(format!("{name}: (an id)\r\n")),
                _ => Some(line.to_owned()),
            }
        });
        kept.collect()
    })
}

/// The lines that only one of the two has.
fn differing(one: &str, two: &str) -> String {
    let only = |one: &str, two: &str| {
        let lines: Vec<&str> =
            one.lines().filter(|line| !two.lines().any(|l| l == *line)).collect();
        lines.join(", ")
    };
    match (only(one, two), only(two, one)) {
        (one, two) if one.is_empty() && two.is_empty() => "another order of lines".to_owned(),
        (one, two) => format!("`{one}` and `{two}`"),
    }
}

/// The cookies that are not ignored.
fn counting(sent: &Sent) -> Vec<String> {
    let all = sent.value("cookie").unwrap_or_default();
    let pairs = all.split(';').map(str::trim).filter(|pair| !pair.is_empty());
    let counts = |pair: &&str| !IGNORED[sent.setup].iter().any(|name| pair.starts_with(name));
    pairs.filter(counts).map(str::to_owned).collect()
}

/// Whether a fill for this request may have the caller's `User-Agent`.
fn may_have_own_agent(sent: &Sent) -> bool {
    let path = sent.plain_path();
    let private = ["/private", "/field/", "/fields/", "/token", "/vary-private"]
        .iter()
        .any(|route| path.starts_with(route));
    private
        && (sent.value("authorization").is_some()
            || sent.value("x-api-key").is_some()
            || !counting(sent).is_empty())
}

fn shown(sent: &Sent, seen: &Seen) -> String {
    let request = match sent.form {
        Form::Two | Form::TwoSecure => format!("{:?}\n", sent.request("GET")),
        _ => String::from_utf8_lossy(&sent.head("GET")).into_owned(),
    };
    let Seen { cache, key, head, status } = seen;
    format!(
        "--- setup {}, peer {}, {:?}\n{request}--- {cache}, {status}, key {}\n--- at the origin\n\
         {head}",
        sent.setup,
        PEERS[sent.peer],
        sent.form,
        key.as_deref().unwrap_or("(none)")
    )
}
