//! The requests to try, and their expected responses. The demo prints them as curl lines; a test
//! sends them and checks the responses.

use std::fmt::Write as _;
use std::net::SocketAddr;

/// One request of the tour.
pub struct TourStep {
    /// What it demonstrates.
    pub title: &'static str,
    /// The request's method.
    pub method: &'static str,
    /// The request's path and query.
    pub path: &'static str,
    /// The tenant it names.
    pub tenant: Option<&'static str>,
    /// The bearer token it carries.
    pub token: Option<&'static str>,
    /// Its body, as JSON.
    pub body: Option<&'static str>,
    /// The status to expect.
    pub status: u16,
    /// The expected value of `X-Cache`.
    pub cache: &'static str,
    /// A text that the body contains.
    pub contains: &'static str,
    /// How long it takes, and why.
    pub note: &'static str,
}

const ALICE: Option<&str> = Some("alice-0001");
const BOB: Option<&str> = Some("bob-0002");
const ACME: Option<&str> = Some("acme");
const LIST: &str = "/api/v1/campaigns?page=1&limit=3";

/// The common base of most steps: alice of acme reads.
const READ: TourStep = TourStep {
    title: "",
    method: "GET",
    path: LIST,
    tenant: ACME,
    token: ALICE,
    body: None,
    status: 200,
    cache: "MISS",
    contains: "acme",
    note: "",
};

/// The tour. It must be taken in this order with an empty cache.
pub const STEPS: &[TourStep] = &[
    TourStep { title: "The first read goes to the app", note: "0.6 s, as slow as the app", ..READ },
    TourStep {
        title: "The same again comes from memory",
        cache: "HIT",
        note: "about 1 ms",
        ..READ
    },
    TourStep {
        title: "A write is forwarded, and purges what it changed",
        method: "PUT",
        path: "/api/v1/campaigns/1",
        body: Some(r#"{"name":"acme autumn sale","status":"live"}"#),
        cache: "BYPASS",
        contains: "acme autumn sale",
        note: "60 ms; cached lists of acme are void before this answer arrives",
        ..READ
    },
    TourStep {
        title: "The next read gets the new data",
        contains: "acme autumn sale",
        note: "0.6 s",
        ..READ
    },
    TourStep {
        title: "... and is a hit from then on",
        cache: "HIT",
        contains: "acme autumn sale",
        note: "about 1 ms",
        ..READ
    },
    TourStep {
        title: "Another tenant has its own data",
        tenant: Some("globex"),
        contains: "globex campaign 1",
        note: "0.6 s, and a hit when repeated",
        ..READ
    },
    TourStep {
        title: "Without a token the app responds with 401, which is not stored",
        token: None,
        status: 401,
        cache: "BYPASS",
        contains: "say who you are",
        note: "a BYPASS each time, however often",
        ..READ
    },
    TourStep {
        title: "The app checks another user of acme once ...",
        token: BOB,
        contains: "acme autumn sale",
        note: "0.6 s; the app accepts bob, which admits him to the shared entry",
        ..READ
    },
    TourStep {
        title: "... and then shares the entry",
        token: BOB,
        cache: "HIT",
        contains: "acme autumn sale",
        note: "about 1 ms",
        ..READ
    },
    TourStep {
        title: "The dashboard is private: each user has an entry of their own",
        path: "/api/v1/dashboard",
        contains: "Hello alice",
        note: "0.85 s",
        ..READ
    },
    TourStep {
        title: "... a hit, though the app says `no-cache, private` on it (origin = \"ignore\")",
        path: "/api/v1/dashboard",
        cache: "HIT",
        contains: "Hello alice",
        note: "about 1 ms",
        ..READ
    },
    TourStep {
        title: "... but not for bob",
        path: "/api/v1/dashboard",
        token: BOB,
        contains: "Hello bob",
        note: "0.85 s",
        ..READ
    },
    TourStep {
        title: "Reference data is public: nobody needs a token",
        path: "/api/v1/property-areas",
        tenant: None,
        token: None,
        contains: "Harbour",
        note: "0.5 s",
        ..READ
    },
    TourStep {
        title: "... and whoever comes gets the same entry",
        path: "/api/v1/property-areas",
        tenant: Some("globex"),
        token: BOB,
        cache: "HIT",
        contains: "Harbour",
        note: "about 1 ms",
        ..READ
    },
];

/// The tour as text to copy.
pub fn text(proxy: SocketAddr, app: SocketAddr, admin: SocketAddr) -> String {
    let mut text = format!(
        "\nThe sample app listens on http://{app}, Sidecache in front of it on \
        http://{proxy}.\nTry these, in this order:\n"
    );
    for step in STEPS {
        // Writing into a String cannot fail.
        let _ = write!(text, "\n# {}\n{}\n", step.title, curl(step, proxy));
        let _ = writeln!(
            text,
            "#   -> {}, X-Cache: {}, \"{}\"; {}",
            step.status, step.cache, step.contains, step.note
        );
    }
    let _ = write!(
        text,
        "
# Server-sent events pass as they are sent: a tick each second, and each write of the tenant. \
Ctrl-C ends it.
curl -sN -H 'x-tenant-id: acme' -H 'authorization: Bearer alice-0001' http://{proxy}/api/v1/events

# A WebSocket passes as well (with websocat, wscat or a browser): it echoes what you type.
websocat ws://{proxy}/ws

# Uploads and downloads stream through, whatever their size: the app answers size and SHA-256.
head -c 100M /dev/zero | curl -s -X POST -T - http://{proxy}/files/zeros
curl -s -o /dev/null -w '%{{size_download}} bytes in %{{time_total}} s\\n' \
'http://{proxy}/files/film?size=104857600'
"
    );
    let _ = write!(
        text,
        "
# The sidecar's statistics, and why requests were not hits. In a browser: http://{admin}/
curl -s http://{admin}/stats

# A purge by hand; the next read asks the app again
curl -s -H 'content-type: application/json' -d '{{\"tags\":[\"campaigns:acme\"]}}' \
http://{admin}/purge

# Edit proxy.toml while this runs: it is read again within two seconds. \
A mistake in it keeps the old rules, and shows.
curl -s http://{admin}/ready
"
    );
    text.push_str("\nEach request is logged below. Ctrl-C stops both.\n\n");
    text
}

fn curl(step: &TourStep, proxy: SocketAddr) -> String {
    let mut line = String::from("curl -si -w '\\n%{time_total} s\\n'");
    if step.method != "GET" {
        let _ = write!(line, " -X {}", step.method);
    }
    if let Some(tenant) = step.tenant {
        let _ = write!(line, " -H 'x-tenant-id: {tenant}'");
    }
    if let Some(token) = step.token {
        let _ = write!(line, " -H 'authorization: Bearer {token}'");
    }
    if let Some(body) = step.body {
        let _ = write!(line, " -H 'content-type: application/json' -d '{body}'");
    }
    let _ = write!(line, " 'http://{proxy}{}'", step.path);
    line
}
