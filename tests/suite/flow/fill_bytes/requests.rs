//! Requests as clients write them, and what may differ between two of them.

use hyper::Request;
use percent_encoding::percent_decode_str;
use proptest::prelude::*;

/// In every value that must not reach the origin on a fill.
pub const MARK: &str = "zq7x";

/// Paths of the routes of `RULES`, one for each kind of route.
pub const ROUTES: [&str; 18] = [
    "/pub/",
    "/pub-drop/",
    "/shared/",
    "/shared-drop/",
    "/private/",
    "/private-drop/",
    "/field/",
    "/field-pub/",
    "/fields/",
    "/passed/",
    "/token/",
    "/host/",
    "/office/",
    "/languages/",
    "/vary-pub/",
    "/vary-drop/",
    "/vary-shared/",
    "/vary-private/",
];

/// What follows in the path. Where it reads `confirm`, the origin of these tests answers
/// conditions.
const TAILS: [&str; 4] = ["a", "caf%C3%A9~x_y-z", "a%20b/c.d", "confirm/a"];

/// What the origin varies by on the routes for that: these names in the path. They learn from it,
/// and what they have learned is in their keys.
const VARY_TAILS: [&str; 14] = [
    "by-accept-encoding/a",
    "by-accept-language/a",
    "by-accept/confirm/a",
    "by-user-agent/a",
    "by-user-agent/confirm/a",
    "by-referer/a",
    "by-sec-ch-ua/a",
    "by-cookie/a",
    "by-authorization/a",
    "by-x-odd/a",
    "by-x-forwarded-host/a",
    "by-x-forwarded-for/a",
    "by-x-request-id/a",
    "by-via/a",
];

const QUERIES: [&str; 7] =
    ["", "?", "?page=1", "?page=1&utm=2", "?utm=3&page=1", "?page=%31", "?page=caf%c3%a9"];

const HOSTS: [&str; 4] = ["app.test", "app.test:80", "app.test:8080", "other.test"];

/// A list of languages that is longer than any browser's.
const LONG: &str = concat!(
    "x1,x2,x3,x4,x5,x6,x7,x8,x9,x10,x11,x12,x13,x14,x15,x16,x17,x18,x19,x20,x21,x22,x23,x24,x25,",
    "de;q=0.9                                                                               ,",
    "                                                                                        ",
    "                                                                                        ",
    "                                                                                        ",
    "                                                                                        ",
    "                                                                                        ",
    "                                                                                        ",
    "                                                                                        ",
    "                                                                                        ",
    "                                                                                        ",
    "                                                                                        ",
    "                                                                                        ,en"
);

/// A header and the values that requests give it.
type Choice = (&'static str, &'static [&'static str]);

/// Headers that decide what the response is, with values of which some mean the same.
pub const DECIDING: [Choice; 22] = [
    (
        "Accept",
        &[
            "*/*",
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            "text/html, application/xhtml+xml, application/xml;q=0.9, */*;q=0.8",
            "*/*;q=0.8, application/xml;q=0.9, text/html, application/xhtml+xml",
            "application/json",
            "Application/JSON; q=1.0",
            "application/json, text/plain, */*",
            "image/avif,image/webp,*/*;q=0.8",
            "text/html;level=1",
            "text/html;q=0",
            "",
        ],
    ),
    (
        "Accept-Encoding",
        &[
            "gzip, deflate, br",
            "br,gzip ,deflate",
            "gzip, deflate, br;q=0",
            "gzip;q=1.0, deflate;q=0.5",
            "GZIP,deflate",
            "identity",
            "identity;q=0",
            "",
            "*",
            "*;q=0",
            "x-gzip",
            "gzip;q=0",
            "gzip, gzip;q=0",
            "zz9, gzip",
            "gzip;q=2",
        ],
    ),
    (
        "Accept-Language",
        &[
            "de",
            "de-DE,de;q=0.9,en;q=0.8",
            "EN;q=0.7, de;q=0.75, DE-de",
            "en",
            "en, de;q=0",
            "*",
            "a1,a2,a3,a4,a5,a6,a7,a8,a9",
            "a1,a2,a3,a4,a5,a6,a7,a8,b9",
            "x y",
            "fü, de",
            LONG,
            "",
        ],
    ),
    ("Authorization", &["Bearer alice-alice", "Bearer alice-bobby", "Basic eA=="]),
    (
        "Cookie",
        &[
            "sid=1",
            "sid=2",
            "sid=1; _ga=zq7x",
            "_ga=zq7x; sid=1",
            "_ga=zq7x",
            "_fbp=zq7x; _gid=1",
            "lang=de",
            "lang=de; sid=1; theme=dark",
            "theme=dark;sid=1",
            "messages=hello",
            "",
            "odd",
        ],
    ),
    ("X-Tenant-Id", &["acme", "other"]),
    ("X-Api-Key", &["k1", "k2"]),
    ("X-Kind", &["k", " k"]),
    ("X-Passed", &["p", "q"]),
    ("X-Let-Through", &["p", "q"]),
    ("Origin", &["https://a.test", "https://b.test", "null"]),
    ("X-Requested-With", &["XMLHttpRequest"]),
    ("Content-Type", &["text/plain"]),
    ("X-Odd", &["1", "2", "ü"]),
    ("X-Forwarded-Host", &["a.test", "A.test", "b.test"]),
    ("X-Forwarded-Proto", &["https", "http"]),
    ("X-Forwarded-Port", &["443"]),
    ("X-Forwarded-Prefix", &["/x"]),
    ("X-Forwarded-Ssl", &["on"]),
    ("Cache-Control", &["no-cache", "max-age=0", "max-age=60, x=zq7x"]),
    ("Range", &["bytes=0-3", "bytes=2-"]),
    ("Connection", &["keep-alive", "keep-alive, user-agent", "accept-language"]),
];

/// Headers that change nothing, by the book: none of their bytes may reach the origin on a fill.
pub const HARMLESS: [Choice; 55] = [
    ("User-Agent", &["Mozilla/5.0 zq7x", "curl/8 zq7x"]),
    ("Referer", &["https://app.test/?zq7x"]),
    ("Accept-Charset", &["utf-8, zq7x"]),
    ("DNT", &["zq7x"]),
    ("Sec-GPC", &["zq7x"]),
    ("Sec-Fetch-Mode", &["zq7x"]),
    ("Sec-Fetch-Site", &["zq7x"]),
    ("Sec-Fetch-Dest", &["zq7x"]),
    ("Sec-Fetch-User", &["?zq7x"]),
    ("Sec-CH-UA", &["\"zq7x\";v=\"1\""]),
    ("Sec-CH-UA-Mobile", &["?zq7x"]),
    ("Sec-CH-UA-Platform", &["\"zq7x\""]),
    ("Sec-CH-Prefers-Color-Scheme", &["zq7x"]),
    ("Save-Data", &["zq7x"]),
    ("Priority", &["u=zq7x"]),
    ("Upgrade-Insecure-Requests", &["zq7x"]),
    ("Max-Forwards", &["7"]),
    ("X-Request-Id", &["zq7x-1", "zq7x-2"]),
    ("X-Correlation-Id", &["zq7x"]),
    ("traceparent", &["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-zq7x"]),
    ("tracestate", &["a=zq7x"]),
    ("baggage", &["user=zq7x"]),
    ("b3", &["zq7x"]),
    ("X-B3-TraceId", &["zq7x"]),
    ("X-B3-SpanId", &["zq7x"]),
    ("X-B3-ParentSpanId", &["zq7x"]),
    ("X-B3-Sampled", &["zq7x"]),
    ("X-B3-Flags", &["zq7x"]),
    ("X-Amzn-Trace-Id", &["Root=zq7x"]),
    ("X-Cloud-Trace-Context", &["zq7x"]),
    ("Via", &["1.1 zq7x"]),
    ("Forwarded", &["for=192.0.2.77;by=zq7x"]),
    ("X-Forwarded-For", &["198.51.100.7", "10.0.0.1, 198.51.100.7", "127.0.0.1"]),
    ("X-Real-IP", &["198.51.100.7", "127.0.0.1"]),
    ("TE", &["trailers", "trailers, zq7x"]),
    ("Trailer", &["zq7x"]),
    ("Keep-Alive", &["timeout=zq7x"]),
    ("Proxy-Connection", &["zq7x"]),
    ("Proxy-Authorization", &["Basic zq7x"]),
    ("Pragma", &["no-cache", "zq7x"]),
    ("If-None-Match", &["\"zq7x\"", "W/\"zq7x\""]),
    ("If-Modified-Since", &["Sun, 06 Nov 1994 08:49:37 GMT"]),
    ("If-Range", &["\"zq7x\""]),
    ("Cache-Control", &["x=zq7x"]),
    ("Upgrade", &["zq7x", "h2c"]),
    ("HTTP2-Settings", &["zq7x"]),
    ("Expect", &["100-continue"]),
    ("Content-Length", &["0"]),
    // Cookies that count for nothing. They come beside others, or alone.
    ("Cookie", &["_ga=zq7x"]),
    ("Cookie", &["_gcl_au=zq7x"]),
    ("Cookie", &["_fbp=zq7x"]),
    ("Cookie", &["_hjSession=zq7x"]),
    ("Cookie", &["_pk_id=zq7x"]),
    ("Cookie", &["_ga_ABC=zq7x"]),
    // An address of the loopback is the sidecar's own.
    ("X-Forwarded-For", &["::1"]),
];

/// Headers of one connection, which HTTP/2 does not have.
const HTTP1_ONLY: [&str; 6] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
];

/// How a request is written on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// HTTP/1.1, with a path as its target.
    One,
    /// HTTP/1.1, with an absolute target.
    Absolute,
    /// HTTP/1.0.
    Zero,
    /// HTTP/2.
    Two,
    /// HTTP/2, with `https` as its scheme.
    TwoSecure,
}

pub const FORMS: [Form; 5] = [Form::One, Form::Absolute, Form::Zero, Form::Two, Form::TwoSecure];

/// A request as a client writes it.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Which of the sidecars it is sent to.
    pub setup: usize,
    /// Which of the addresses of the loopback it comes from; the first is trusted.
    pub peer: usize,
    pub form: Form,
    pub host: String,
    pub path: String,
    pub query: String,
    pub headers: Vec<(String, String)>,
}

impl Sent {
    /// A GET of this path and nothing else.
    pub fn plain(path: &str) -> Self {
        Self {
            setup: 0,
            peer: 1,
            form: Form::One,
            host: "app.test".to_owned(),
            path: path.to_owned(),
            query: String::new(),
            headers: Vec::new(),
        }
    }

    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same without a header.
    pub fn without(&self, name: &str) -> Self {
        let mut other = self.clone();
        other.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        other
    }

    /// Its path without escapes.
    pub fn plain_path(&self) -> String {
        percent_decode_str(&self.path).decode_utf8_lossy().into_owned()
    }

    /// The values of a header, joined; None when it is absent.
    pub fn value(&self, name: &str) -> Option<String> {
        let values: Vec<&str> = self
            .headers
            .iter()
            .filter(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
            .collect();
        (!values.is_empty()).then(|| values.join("; "))
    }

    /// Its head as HTTP/1 has it.
    pub fn head(&self, method: &str) -> Vec<u8> {
        let Self { host, path, query, .. } = self;
        let version = if self.form == Form::Zero { "1.0" } else { "1.1" };
        let before =
            if self.form == Form::Absolute { format!("http://{host}") } else { String::new() };
        let first = format!("{method} {before}{path}{query} HTTP/{version}\r\nHost: {host}\r\n");
        let lines = self.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
        let lines: String = lines.collect();
        format!("{first}{lines}\r\n").into_bytes()
    }

    /// The same as a request of HTTP/2.
    pub fn request(&self, method: &str) -> Request<()> {
        let Self { host, path, query, .. } = self;
        let scheme = if self.form == Form::TwoSecure { "https" } else { "http" };
        let mut request =
            Request::builder().method(method).uri(format!("{scheme}://{host}{path}{query}"));
        for (name, value) in &self.headers {
            let name = name.to_ascii_lowercase();
            let fits = name != "te" || value == "trailers";
            if fits && !HTTP1_ONLY.contains(&name.as_str()) {
                request = request.header(name, value.trim().as_bytes());
            }
        }
        request.body(()).expect("a test's request is well-formed")
    }
}

/// What makes one request another.
#[derive(Clone, Debug)]
pub enum Difference {
    /// The letters of the host that are in upper case.
    HostCase(u16),
    Host(usize),
    /// An unreserved character of the path is escaped.
    Escape(usize),
    /// The digits of the path's escapes are in lower case.
    LowerHex,
    Query(usize),
    Form(Form),
    Peer(usize),
    /// A header has another value, or comes beside what there is.
    Set(usize, usize),
    Add(usize, usize),
    Harmless(usize, usize),
    Remove(usize),
    /// Two headers change places.
    Swap(usize, usize),
    /// White space in a header's value.
    Space(usize, usize),
    /// The name is in upper case.
    NameCase(usize),
    /// A list comes on two lines.
    Split(usize),
}

impl Difference {
    /// Makes the difference, where it can be made.
    pub fn apply(&self, sent: &mut Sent) {
        let count = sent.headers.len();
        match self {
            Self::HostCase(mask) => {
                let upper = |at: usize| mask >> (at % 16) & 1 == 1;
                let letters = sent.host.chars().enumerate();
                let cased =
                    letters.map(
                        |(at, letter)| if upper(at) { letter.to_ascii_uppercase() } else { letter },
                    );
                sent.host = cased.collect();
            }
            Self::Host(at) => HOSTS[at % HOSTS.len()].clone_into(&mut sent.host),
            Self::Escape(at) => escape(&mut sent.path, *at),
            Self::LowerHex => lower_hex(&mut sent.path),
            Self::Query(at) => QUERIES[at % QUERIES.len()].clone_into(&mut sent.query),
            Self::Form(form) => sent.form = *form,
            Self::Peer(at) => sent.peer = at % 3,
            Self::Set(header, value) => {
                let (name, value) = choice(&DECIDING, *header, *value);
                *sent = sent.without(name).with(name, value);
            }
            Self::Add(header, value) => {
                let (name, value) = choice(&DECIDING, *header, *value);
                *sent = sent.clone().with(name, value);
            }
            Self::Harmless(header, value) => {
                let (name, value) = choice(&HARMLESS, *header, *value);
                let is_cookie = |(known, _): &&mut (String, String)| known == "Cookie";
                match sent.headers.iter_mut().find(is_cookie) {
                    Some((_, cookies)) if name == "Cookie" => {
                        *cookies = format!("{cookies}; {value}");
                    }
                    _ => *sent = sent.clone().with(name, value),
                }
            }
            _ if count == 0 => {}
            Self::Remove(at) => drop(sent.headers.remove(at % count)),
            Self::Swap(one, two) => sent.headers.swap(one % count, two % count),
            Self::Space(at, kind) => {
                let value = &mut sent.headers[at % count].1;
                *value = match kind % 4 {
                    0 => format!("  {value}\t"),
                    1 => value.replace(", ", ","),
                    2 => value.replace(',', " , "),
                    _ => value.replace(";q", " ; q"),
                };
            }
            Self::NameCase(at) => sent.headers[at % count].0.make_ascii_uppercase(),
            Self::Split(at) => {
                let (name, value) = sent.headers[at % count].clone();
                if let Some((one, two)) = value.split_once(',') {
                    one.clone_into(&mut sent.headers[at % count].1);
                    sent.headers.insert(at % count + 1, (name, two.trim().to_owned()));
                }
            }
        }
    }
}

fn choice(list: &[Choice], header: usize, value: usize) -> (&'static str, &'static str) {
    let (name, values) = list[header % list.len()];
    (name, values[value % values.len()])
}

/// Escapes one of the unreserved characters of a path.
fn escape(path: &mut String, at: usize) {
    let plain = |(index, byte): (usize, u8)| {
        let before = &path.as_bytes()[..index];
        let in_escape = before.last() == Some(&b'%') || before.iter().rev().nth(1) == Some(&b'%');
        (!in_escape && (byte.is_ascii_alphanumeric() || b"-_~".contains(&byte))).then_some(index)
    };
    let places: Vec<usize> = path.bytes().enumerate().filter_map(plain).collect();
    if let Some(&index) = places.get(at % places.len().max(1)) {
        let escaped = format!("%{:02x}", path.as_bytes()[index]);
        path.replace_range(index..=index, &escaped);
    }
}

fn lower_hex(path: &mut String) {
    let mut left = 0;
    let lowered = path.chars().map(|letter| {
        left = if letter == '%' { 3_u8 } else { left }.saturating_sub(1);
        if left > 0 || letter == '%' { letter.to_ascii_lowercase() } else { letter }
    });
    *path = lowered.collect();
}

fn difference() -> impl Strategy<Value = Difference> {
    let any = || any::<usize>();
    prop_oneof![
        6 => (any(), any()).prop_map(|(header, value)| Difference::Harmless(header, value)),
        3 => (any(), any()).prop_map(|(header, value)| Difference::Set(header, value)),
        1 => (any(), any()).prop_map(|(header, value)| Difference::Add(header, value)),
        1 => proptest::num::u16::ANY.prop_map(Difference::HostCase),
        1 => any().prop_map(Difference::Host),
        2 => any().prop_map(Difference::Escape),
        1 => Just(Difference::LowerHex),
        1 => any().prop_map(Difference::Query),
        2 => prop::sample::select(&FORMS[..]).prop_map(Difference::Form),
        2 => any().prop_map(Difference::Peer),
        1 => any().prop_map(Difference::Remove),
        1 => (any(), any()).prop_map(|(one, two)| Difference::Swap(one, two)),
        2 => (any(), any()).prop_map(|(at, kind)| Difference::Space(at, kind)),
        1 => any().prop_map(Difference::NameCase),
        1 => any().prop_map(Difference::Split),
    ]
}

/// Two requests of which the second is the first with some differences.
pub fn pair(setups: usize) -> impl Strategy<Value = (Sent, Sent)> {
    let line = (0..DECIDING.len(), any::<usize>());
    (
        (0..setups, 0..ROUTES.len(), any::<usize>(), 0..QUERIES.len()),
        (1..3_usize, prop::sample::select(&FORMS[..])),
        prop::collection::vec(line, 0..5),
        prop::collection::vec(difference(), 0..5),
        prop::collection::vec(difference(), 1..5),
    )
        .prop_map(|((setup, route, tail, query), (peer, form), lines, before, between)| {
            let tails = if ROUTES[route].starts_with("/vary-") { &VARY_TAILS[..] } else { &TAILS };
            let path = format!("{}{}", ROUTES[route], tails[tail % tails.len()]);
            let query = QUERIES[query].to_owned();
            let mut one = Sent { setup, peer, form, query, ..Sent::plain(&path) };
            // What the keys of these routes need.
            for (name, value) in match ROUTES[route] {
                "/field/" => &[("X-Tenant-Id", "acme"), ("Cookie", "lang=de")][..],
                "/fields/" => &[("X-Kind", "k"), ("X-Tenant-Id", "acme")],
                "/passed/" => &[("X-Passed", "p"), ("X-Let-Through", "p")],
                "/field-pub/" => &[("Cookie", "lang=de")],
                "/token/" => &[("Authorization", "Bearer alice-alice")],
                _ => &[],
            } {
                one = one.with(name, value);
            }
            for (header, value) in lines {
                let (name, value) = choice(&DECIDING, header, value);
                one = one.without(name).with(name, value);
            }
            for difference in before {
                difference.apply(&mut one);
            }
            let mut two = one.clone();
            for difference in between {
                difference.apply(&mut two);
            }
            (one, two)
        })
}
