//! RFC 9111, HTTP Caching, tested from the outside: one module per group of sections, one test per
//! rule.
//!
//! A response with `max-age=0` and a validator is stored and stale at once, so most tests need no
//! time to pass.

mod directives;
mod freshness;
mod invalidation;
mod stale;
mod storing;
mod tiers;
mod validation;
mod vary;

use crate::support::scene::assert_cache;
use crate::support::{Reply, Response, Scene};

/// One public route below `/`, without `ttl`: a plain shared cache.
const PUBLIC: &str = "[[routes]]\npath = \"/{*rest}\"\nscope = \"public\"\n";

/// The same for a route with these further keys.
fn public(keys: &str) -> String {
    format!("{PUBLIC}{keys}\n")
}

/// The header lines of a response.
type Lines = Vec<(&'static str, String)>;

fn lines(lines: &[(&'static str, &str)]) -> Lines {
    lines.iter().map(|(name, value)| (*name, (*value).to_owned())).collect()
}

/// A response with these lines.
fn answer(status: u16, lines: &Lines) -> Response {
    lines.iter().fold(Response::status(status, body_of(status)), |answer, (name, value)| {
        answer.header(name, value)
    })
}

/// The body for a status, if the status allows one.
const fn body_of(status: u16) -> &'static str {
    if matches!(status, 204 | 304) { "" } else { "the body" }
}

/// Requests a response with each of these statuses and lines twice, and returns the second replies.
async fn ask_twice(rules: &str, cases: &[(u16, Lines)]) -> Vec<Reply> {
    let answers = cases.to_vec();
    let scene = Scene::start(rules, move |request| {
        let index: usize = request.path[1..].parse().expect("the path is a number");
        let (status, lines) = &answers[index];
        answer(*status, lines)
    })
    .await;
    let mut seconds = Vec::new();
    for (index, case) in cases.iter().enumerate() {
        let path = format!("/{index}");
        let first = scene.get(&path).await;
        assert_eq!((first.status, first.text()), (case.0, body_of(case.0)), "{case:?}");
        assert_ne!(first.cache(), "HIT", "{case:?}");
        let second = scene.get(&path).await;
        assert_eq!((second.status, second.text()), (case.0, body_of(case.0)), "{case:?}");
        seconds.push(second);
    }
    seconds
}

/// Asserts that the second of two requests is a hit for each of these.
async fn reused(rules: &str, cases: &[(u16, Lines)]) {
    for (reply, case) in ask_twice(rules, cases).await.iter().zip(cases) {
        assert_cache(reply, "HIT", &format!("{case:?}"));
    }
}

/// Asserts that both requests reach the origin for each of these.
async fn not_reused(rules: &str, cases: &[(u16, Lines)]) {
    for (reply, case) in ask_twice(rules, cases).await.iter().zip(cases) {
        assert!(
            ["MISS", "BYPASS"].contains(&reply.cache()),
            "{case:?}: {} {}",
            reply.cache(),
            reply.cache_status()
        );
    }
}
