//! Lint of the Redis itself: `sidecache check` asks the one that `[redis] url` names how it evicts
//! and what it keeps on disk.
//!
//! Entries and the records of tags expire; the generation, the step and the list of sidecars do
//! not. So `volatile-*` leaves these three alone, `allkeys-*` may take them, which empties the
//! cache or ends leases, and nothing ever makes a wrong answer: what is missing is a miss.
//! `volatile-ttl` takes entries before their records, which live longer, and is as good. A Redis
//! that cannot be asked is a note: a machine that builds and tests has none.

use std::time::Duration;

use toml::de::DeTable;

use super::super::diagnostics::DiagnosticCollector;
use super::super::diagnostics::diagnostic::{
    Diagnostic, DiagnosticBuilder, SourceSpan, SourceText,
};
use crate::redis::{CallError, RedisClient, RedisInfo, RedisSettings};
use crate::units::show_size;

/// How long all of it may take.
const INSPECT_TIMEOUT: Duration = Duration::from_millis(500);

/// How a policy is set.
const LRU: &str = "redis-cli CONFIG SET maxmemory-policy volatile-lru";

/// Asks, and tells what is unsuitable. `text` is the file's, for the line of the url.
pub fn inspect(settings: &RedisSettings, name: &str, text: &str) -> Vec<Diagnostic> {
    let mut report = DiagnosticCollector::new(SourceText::new(name, text));
    let at = url_span(text);
    // A thread of its own: whoever calls this may be in a runtime already.
    let asked = std::thread::scope(|scope| scope.spawn(|| facts(settings)).join());
    let drafts = match asked {
        Ok(Ok(facts)) => assess(&facts, &at),
        Ok(Err(why)) => vec![
            note(&at, format!("Redis was not asked how it is set up: {why}"))
                .hint("`--offline` leaves it out"),
        ],
        Err(_) => Vec::new(),
    };
    for draft in drafts {
        report.push(draft);
    }
    report.finish().1
}

fn facts(settings: &RedisSettings) -> Result<RedisInfo, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let asked = runtime.block_on(async {
        let link = RedisClient::new(settings.clone()).map_err(|error| error.to_string())?;
        let asked = tokio::time::timeout(INSPECT_TIMEOUT, link.inspect())
            .await
            .unwrap_or(Err(CallError::Timeout));
        asked.map_err(|error| error.to_string())
    });
    // A name that is still being looked up would hold it.
    runtime.shutdown_background();
    asked
}

/// Where the url stands.
fn url_span(text: &str) -> SourceSpan {
    let table = DeTable::parse(text).ok();
    let url = table.as_ref().and_then(|table| {
        table.get_ref().get("redis")?.get_ref().as_table()?.get("url").map(toml::Spanned::span)
    });
    url.unwrap_or(0..0)
}

fn note(at: &SourceSpan, message: impl Into<String>) -> DiagnosticBuilder {
    DiagnosticBuilder::note(at.clone(), message)
}

/// What is unsuitable for a cache.
fn assess(facts: &RedisInfo, at: &SourceSpan) -> Vec<DiagnosticBuilder> {
    let mut drafts = Vec::new();
    let mut warn = |message: String, hint: &str| {
        drafts.push(DiagnosticBuilder::warning(at.clone(), message).hint(hint))
    };
    if facts.role.as_deref() == Some("slave") {
        warn(
            "this Redis is a replica: it refuses writes, so that a sidecar counts it as lost"
                .into(),
            "name its primary in `url`, or the sentinels: redis-sentinel://HOST:26379?sentinelServiceName=NAME",
        );
    }
    let policy = facts.policy.as_deref().unwrap_or_default();
    match facts.maxmemory {
        Some(0) => warn(
            "this Redis has no `maxmemory`: it grows with whatever clients ask for, until the machine is out of memory".into(),
            &format!("redis-cli CONFIG SET maxmemory 1gb, and {LRU}; the same in redis.conf"),
        ),
        Some(most) if policy == "noeviction" => warn(
            format!("`noeviction`: once its {} are full, this Redis refuses to store anything until something expires", show_size(most)),
            &format!("{LRU}; the same in redis.conf"),
        ),
        _ => {}
    }
    match policy {
        "allkeys-random" => warn(
            "`allkeys-random` evicts what is used as readily as what is not, the generation of the whole cache included: all is a miss then".into(),
            &format!("{LRU}; the same in redis.conf"),
        ),
        "volatile-random" => warn(
            "`volatile-random` evicts the record of a busy tag as readily as an entry: all entries of that tag are a miss then".into(),
            &format!("{LRU}; the same in redis.conf"),
        ),
        _ => {}
    }
    drafts.extend(persistence(facts, at));
    if facts.loading {
        drafts.push(note(
            at,
            "this Redis is still loading what it had saved; until then it counts as lost",
        ));
    }
    drafts
}

/// A cache on disk. What a restart brings back bears the replication id of the Redis that wrote it,
/// and each start has a new one: the records are foreign, and their entries are a miss.
fn persistence(facts: &RedisInfo, at: &SourceSpan) -> Vec<DiagnosticBuilder> {
    let why = "nothing of it is used after a restart: what an older Redis wrote is a miss. It costs memory and disk, and while the disk is full \
               Redis refuses writes and counts as lost";
    let mut drafts = Vec::new();
    if facts.appendonly == Some(true) {
        let draft = DiagnosticBuilder::warning(
            at.clone(),
            format!("this Redis logs all writes to disk (`appendonly`), and {why}"),
        );
        drafts.push(draft.hint("redis-cli CONFIG SET appendonly no, and the same in redis.conf; for a Redis that keeps nothing else"));
    }
    match &facts.save {
        Ok(save) if !save.is_empty() => {
            let draft = DiagnosticBuilder::warning(
                at.clone(),
                format!("this Redis saves to disk (`save {save}`), and {why}"),
            );
            drafts.push(draft.hint("redis-cli CONFIG SET save \"\", and the same in redis.conf; for a Redis that keeps nothing else"));
        }
        Err(Some(error)) => {
            drafts.push(note(at, format!("whether this Redis saves to disk is not known: {error}")))
        }
        Ok(_) | Err(None) => {}
    }
    drafts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suitable() -> RedisInfo {
        RedisInfo {
            role: Some("master".into()),
            loading: false,
            maxmemory: Some(1 << 30),
            policy: Some("volatile-lru".into()),
            appendonly: Some(false),
            save: Ok(String::new()),
        }
    }

    fn told(facts: &RedisInfo) -> Vec<String> {
        let source = SourceText::new("proxy.toml", "x = 1\n");
        assess(facts, &(4..5)).into_iter().map(|draft| source.locate(draft).to_string()).collect()
    }

    #[test]
    fn a_redis_that_evicts_by_use_and_keeps_nothing_is_suitable() {
        for policy in ["volatile-lru", "volatile-lfu", "volatile-ttl", "allkeys-lru", "allkeys-lfu"]
        {
            assert_eq!(
                told(&RedisInfo { policy: Some(policy.into()), ..suitable() }),
                Vec::<String>::new(),
                "{policy}"
            );
        }
        let silent = RedisInfo {
            role: None,
            loading: false,
            maxmemory: None,
            policy: None,
            appendonly: None,
            save: Err(None),
        };
        assert_eq!(told(&silent), Vec::<String>::new(), "what is not known is not judged");
    }

    #[test]
    fn each_unsuitable_setting_is_one_warning_with_its_mend() {
        let policy = |policy: &str| RedisInfo { policy: Some(policy.into()), ..suitable() };
        for (facts, message, mend) in [
            (policy("noeviction"), "1GiB are full", "volatile-lru"),
            (policy("allkeys-random"), "generation", "volatile-lru"),
            (policy("volatile-random"), "busy tag", "volatile-lru"),
            (
                RedisInfo { maxmemory: Some(0), ..policy("noeviction") },
                "no `maxmemory`",
                "CONFIG SET maxmemory 1gb",
            ),
            (RedisInfo { appendonly: Some(true), ..suitable() }, "a miss", "appendonly no"),
            (
                RedisInfo { save: Ok("60 1".into()), ..suitable() },
                "`save 60 1`",
                "CONFIG SET save \"\"",
            ),
            (
                RedisInfo { role: Some("slave".into()), ..suitable() },
                "a replica",
                "redis-sentinel://",
            ),
        ] {
            let told = told(&facts);
            assert_eq!(told.len(), 1, "{told:?}");
            assert!(
                told[0].contains("warning") && told[0].contains(message) && told[0].contains(mend),
                "{told:?}"
            );
        }
    }

    #[test]
    fn what_cannot_be_known_is_a_note() {
        for facts in [
            RedisInfo { save: Err(Some(CallError::Reply("NOPERM".into()))), ..suitable() },
            RedisInfo { loading: true, ..suitable() },
        ] {
            let told = told(&facts);
            assert!(told.len() == 1 && told[0].contains(": note: "), "{told:?}");
        }
    }

    #[test]
    fn the_url_is_found_in_the_text() {
        let text = "[upstream]\nurl = \"http://a\"\n[redis]\n# here\nurl = \"redis://h\"\n";
        assert_eq!(&text[url_span(text)], "\"redis://h\"");
        assert_eq!(url_span("url = "), 0..0);
    }
}
