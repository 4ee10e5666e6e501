//! What the fuzzer runs: each target reads bytes as a stranger, another sidecar or a file would
//! give them, and panics where an invariant does not hold. `fuzz/` has the driver and the corpora.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{COOKIE, HeaderMap, HeaderValue, SET_COOKIE};

use crate::cache::entry::packed::{self, CompressedBody, Unpacked};
use crate::clock::{Clock, Wall};
use crate::coherence::journal::text as journal;
use crate::coherence::message::Message;
use crate::config::Config;
use crate::policy::canonical_json::CanonicalJson;
use crate::policy::cookie_header::{cookies, set_cookie};
use crate::policy::graphql;
use crate::policy::jwt::{
    Algorithm, KeyStore, TokenCounters, TokenRules, TokenVerifier, UnverifiedToken, VerifyKey,
};
use crate::policy::request_target;
use crate::policy::route::Pattern;
use crate::policy::session::{SessionFormat, SessionRule, SessionSettings, UnverifiedSession};
use crate::secret::{Hasher, Secret};
use crate::semantics::cache_control::CacheControl;
use crate::semantics::vary::VarySpec;
use crate::server::escapes_in_pieces;

/// A target of the fuzzer.
#[derive(Clone, Copy)]
pub struct FuzzTarget {
    /// Its name, and that of its corpus.
    pub name: &'static str,
    /// Reads an input, and panics where an invariant does not hold.
    pub run: fn(&[u8]),
    /// Words that inputs are made of.
    pub words: &'static [&'static str],
}

/// All targets.
pub const TARGETS: &[FuzzTarget] = &[
    FuzzTarget { name: "framing", run: framing, words: HTTP },
    FuzzTarget { name: "request-target", run: target, words: TARGET_WORDS },
    FuzzTarget { name: "cache-control", run: cache_control, words: DIRECTIVES },
    FuzzTarget { name: "vary", run: vary, words: NAMES },
    FuzzTarget { name: "packed", run: packed_entry, words: NAMES },
    FuzzTarget { name: "journal", run: journal_line, words: JOURNAL },
    FuzzTarget { name: "message", run: message, words: MESSAGES },
    FuzzTarget { name: "config", run: config, words: TOML },
    FuzzTarget { name: "pattern", run: pattern, words: PATTERNS },
    FuzzTarget { name: "json", run: json, words: JSON },
    FuzzTarget { name: "session", run: session, words: SESSIONS },
    FuzzTarget { name: "jwt", run: jwt, words: TOKENS },
    FuzzTarget { name: "cookies", run: cookie_lines, words: COOKIES },
    FuzzTarget { name: "graphql", run: graphql_query, words: GRAPHQL },
];

const NAMES: &[&str] =
    &["accept", "accept-encoding", "*", "x-lang", "content-length", "\0\0\0\u{1}"];
const JOURNAL: &[&str] = &["intend ", "withdraw ", "purge ", "everything", "%20"];
const MESSAGES: &[&str] = &["\"say\":", "\"purge\"", "\"tags\":[", "{}"];
const PATTERNS: &[&str] = &["{id}", "{*rest}", "/", "*", "%2F", "\n", "{"];
const JSON: &[&str] = &["{\"a\":", "[", "]", "}", ",", "1e9", "\\ud800", "null"];
const SESSIONS: &[&str] = &["eyJ", ".eJ", ".", ":", "; session=", "session.sig="];
const TOKENS: &[&str] = &["eyJhbGciOiJIUzI1NiJ9", ".", "e30", "eyJhbGciOiJub25lIn0"];
const COOKIES: &[&str] = &["=", ";", "\"", " ", "Max-Age=", "Expires=", "__Host-"];
const GRAPHQL: &[&str] =
    &["query=", "mutation", "{", "}", "$id", "&", "%7B", "operationName=", "extensions="];
const HTTP: &[&str] = &[
    "GET / HTTP/1.1\r\n",
    "Host: a\r\n",
    "\r\n",
    "\n",
    "Content-Length: ",
    "Transfer-Encoding: chunked\r\n",
    "0\r\n\r\n",
    "Upgrade: x\r\n",
    "CONNECT ",
    "#",
    "\u{e9}",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ";ext=1",
];
const TARGET_WORDS: &[&str] =
    &["/", "//", "..", "/./", "%2e", "%2F", "%00", "\\", ";x", "?", "&", "=", "+", "%C3%A9", "[]"];
const DIRECTIVES: &[&str] = &[
    "max-age=",
    "s-maxage=",
    "no-store",
    "private=\"",
    "stale-while-revalidate=",
    ",",
    "\"",
    "=",
    "18446744073709551616",
    "no-cache=\"set-cookie\"",
];
const TOML: &[&str] = &[
    "[[routes]]\n",
    "path = \"/\"\n",
    "ttl = \"1m\"\n",
    "key = [\"",
    "[fields]\n",
    "{ header = \"",
    "[upstream]\n",
    "url = \"http://127.0.0.1:1\"\n",
    "tags = [\"{",
    "[[purges]]\n",
    "scope = \"",
    "${",
    "}",
    "[[apps]]\n",
    "[[sources]]\n",
];

/// Splitting the same bytes over reads changes nothing of what is escaped.
fn framing(input: &[u8]) {
    let whole = escapes_in_pieces(input, input.len().max(1));
    for size in [1, 2, 7] {
        assert_eq!(escapes_in_pieces(input, size), whole, "in pieces of {size}");
    }
}

/// A path in normal form is its own normal form.
fn target(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    if let Some(normal) = request_target::normal_path(path) {
        let again = request_target::normal_path(&normal).expect("the normal form has one");
        assert_eq!(again, normal, "{path:?}");
    }
    let _ = (request_target::kept_path(path), request_target::permissive_path(path));
    let _ = (request_target::readings(path), request_target::write_readings(path));
    let normal = request_target::normal_query(query);
    assert_eq!(request_target::normal_query(&normal), normal, "{query:?}");
    let _ = request_target::parameters(query).count();
    let _ = request_target::pick(query, &["a".into(), "b".into()]);
}

fn cache_control(input: &[u8]) {
    let lines: Vec<HeaderValue> =
        input.split(|byte| *byte == b'\n').filter_map(|line| line.try_into().ok()).collect();
    let _ = CacheControl::parse(lines.iter());
}

/// What is read would be written so.
fn vary(input: &[u8]) {
    if let Some(spec) = VarySpec::decode(input) {
        assert_eq!(spec.encode(), input);
    }
}

/// What has the right seal is read without a panic, whatever is in it, and no body becomes longer
/// than is allowed. What is compressed is read as it was.
fn packed_entry(input: &[u8]) {
    const LONGEST: u64 = 4096;
    let seal = packed::Seal::keyed(b"a secret");
    let received = Bytes::copy_from_slice(input);
    assert!(packed::unpack(&received, &seal, LONGEST).is_err(), "a forged entry");
    let sealed = packed::sealed(input, &seal);
    if let Ok(Unpacked::Entry(entry, _)) = packed::unpack(&sealed, &seal, LONGEST) {
        assert!(entry.body.len() as u64 <= LONGEST.max(sealed.len() as u64), "a body too long");
    }
    if let Some(body) = CompressedBody::of(input, 1) {
        assert_eq!(body.inflated(input.len() as u64).as_deref(), Ok(input), "another body");
    }
}

/// A line that is read is written so that it is read again.
fn journal_line(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let summed = format!("{:08x} {text}", crc32fast::hash(text.as_bytes()));
    for bytes in [input, summed.as_bytes()] {
        let Some(line) = journal::decode(bytes) else { continue };
        let mut out = Vec::new();
        journal::encode(&line, &mut out);
        assert_eq!(journal::decode(out.strip_suffix(b"\n").expect("a line")), Some(line));
    }
}

fn message(input: &[u8]) {
    if let Some(message) = Message::parse(input) {
        assert_eq!(Message::parse(&message.to_bytes()), Some(message));
    }
}

/// A file that is refused has a reason.
fn config(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match Config::parse(text, "proxy.toml", &|_| Some("a value of a variable".to_owned())) {
        Ok(config) => drop(format!("{config:?}").len()),
        Err(problems) => assert!(!problems.to_string().is_empty()),
    }
}

fn pattern(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let (pattern, path) = text.split_once('\n').unwrap_or((text, "/a/b"));
    if let Ok(pattern) = Pattern::parse(pattern) {
        let _ = pattern.captures_of(path);
    }
}

/// The one text of a document is that of the same document.
fn json(input: &[u8]) {
    if let Ok(document) = CanonicalJson::parse(input) {
        let text = document.to_bytes();
        let again = CanonicalJson::parse(&text).expect("the one text is a document");
        assert_eq!(again.to_bytes(), text);
    }
    let _ = graphql::is_whole_answer(input);
}

/// Nobody who does not know the secret has a session.
fn session(input: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(&[b"session=", input].concat()) else { return };
    let headers: HeaderMap = [(COOKIE, value.clone())].into_iter().collect();
    for format in SessionFormat::ALL {
        let rule = SessionRule::new(SessionSettings {
            cookie: "session".into(),
            format,
            secrets: [Secret::new("a secret that no input has")].into(),
            max_age: format.has_time().then_some(Duration::from_mins(1)),
            pointer: None,
            ignore: Box::default(),
        });
        assert!(rule.read(&headers, &Hasher::default()).is_err(), "a forged session");
    }
    if let Some(session) = UnverifiedSession::of_request(&headers) {
        let response: HeaderMap = [(SET_COOKIE, value)].into_iter().collect();
        let _ = session.renewed_by(&response, Wall(0));
    }
}

/// Nobody who does not know the key has a token.
fn jwt(input: &[u8]) {
    let rules = TokenRules {
        algorithms: [Algorithm::HS256].into(),
        issuers: Box::default(),
        audiences: Box::default(),
        leeway: Duration::ZERO,
        capacity: 16,
    };
    let key = VerifyKey::from_secret(b"a secret of 32 bytes, or some more");
    let keys = Arc::new(KeyStore::new(vec![key], None));
    let counters = TokenCounters::default();
    let verifier = TokenVerifier::new(rules, Box::default(), keys, counters, Clock::system());
    assert!(verifier.verify(input, false).is_err(), "a forged token");
    if let Ok(value) = HeaderValue::from_bytes(&[b"Bearer ", input].concat()) {
        let headers = [(http::header::AUTHORIZATION, value)].into_iter().collect();
        let _ = UnverifiedToken::of_request(&headers);
    }
}

fn cookie_lines(input: &[u8]) {
    let _ = set_cookie(input);
    if let Ok(value) = HeaderValue::from_bytes(input) {
        let headers: HeaderMap = [(COOKIE, value)].into_iter().collect();
        for (name, _) in cookies(&headers) {
            assert!(!name.contains(&b';') && !name.contains(&b'='));
        }
    }
}

fn graphql_query(input: &[u8]) {
    if let Ok(query) = std::str::from_utf8(input) {
        let _ = graphql::read_get(query, false, None);
    }
}
