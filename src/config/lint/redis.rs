//! Lint of the Redis server: `sidecache check` queries the eviction policy and the persistence of
//! the Redis at `[redis] url`.
//!
//! Entries and tag records expire; the generation, the step and the list of sidecars do not. So
//! `volatile-*` never evicts these three, and `allkeys-*` may evict them, which empties the cache
//! or ends leases. No policy leads to a wrong response: whatever is missing is a miss.
//! `volatile-ttl` evicts entries before their records, which live longer, so it is fine. If Redis
//! cannot be reached, `check` prints a note and still succeeds, because build machines have none.

use std::time::Duration;

use toml::de::DeTable;

use super::super::diagnostics::DiagnosticCollector;
use super::super::diagnostics::diagnostic::{Diagnostic, DiagnosticBuilder, SourceSpan};
use super::super::diagnostics::source_text::SourceText;
use crate::redis::{CallError, NothingWrong, RedisClient, RedisFault, RedisInfo, RedisSettings};
use crate::units::show_size;

/// How long all queries together may take. Finding out why they failed takes as long again.
const INSPECT_TIMEOUT: Duration = Duration::from_millis(500);

/// The command that sets the recommended policy.
const LRU: &str = "redis-cli CONFIG SET maxmemory-policy volatile-lru";

/// Queries Redis and warns about unsuitable settings. `text` is the file's text, to find the line
/// of the URL.
pub fn inspect(settings: &RedisSettings, name: &str, text: &str) -> Vec<Diagnostic> {
    let mut report = DiagnosticCollector::new(SourceText::new(name, text));
    let at = url_span(text);
    // Runs in its own thread, because the caller may be inside a runtime already.
    let asked = std::thread::scope(|scope| scope.spawn(|| facts(settings)).join());
    let builders = match asked {
        Ok(Ok(facts)) => assess(&facts, &at),
        Ok(Err(failure)) => vec![unusable(&failure, &at)],
        Err(_) => Vec::new(),
    };
    for builder in builders {
        report.push(builder);
    }
    report.finish().1
}

/// Why Redis was not asked.
enum InspectFailure {
    Fault(RedisFault),
    /// The question could not be asked.
    Setup(String),
}

/// A Redis that cannot be used. One that does not answer at all may be another machine's.
fn unusable(failure: &InspectFailure, at: &SourceSpan) -> DiagnosticBuilder {
    let fault = match failure {
        InspectFailure::Fault(fault) => fault,
        InspectFailure::Setup(why) => {
            return note(at, format!("the configuration of Redis was not checked: {why}"));
        }
    };
    if fault.is_absence() {
        note(at, format!("the configuration of Redis was not checked: {fault}"))
            .hint(format!("{}; `--offline` skips this check", fault.kind.remedy()))
    } else {
        DiagnosticBuilder::warning(at.clone(), format!("this Redis cannot be used: {fault}"))
            .hint(fault.kind.remedy())
    }
}

fn facts(settings: &RedisSettings) -> Result<RedisInfo, InspectFailure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| InspectFailure::Setup(error.to_string()))?;
    let asked = runtime.block_on(async {
        let link = RedisClient::new(settings.clone())
            .map_err(|error| InspectFailure::Setup(error.to_string()))?;
        let asked = tokio::time::timeout(INSPECT_TIMEOUT, link.inspect())
            .await
            .unwrap_or(Err(CallError::Timeout));
        match asked {
            Ok(facts) => Ok(facts),
            Err(error) => {
                let found = link.diagnose(&error).await;
                Err(InspectFailure::Fault(found.unwrap_or_else(|NothingWrong(fault)| fault)))
            }
        }
    });
    // A pending name lookup would block dropping the runtime.
    runtime.shutdown_background();
    asked
}

/// The position of the URL.
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

/// Warns about settings that are unsuitable for a cache.
fn assess(facts: &RedisInfo, at: &SourceSpan) -> Vec<DiagnosticBuilder> {
    let mut builders = Vec::new();
    let mut warn = |message: String, hint: &str| {
        builders.push(DiagnosticBuilder::warning(at.clone(), message).hint(hint));
    };
    if facts.role.as_deref() == Some("slave") {
        warn(
            "this Redis is a replica: it rejects writes, so the sidecar treats it as lost".into(),
            "name its primary in `url`, or the sentinels: \
             redis-sentinel://HOST:26379?sentinelServiceName=NAME",
        );
    }
    let policy = facts.policy.as_deref().unwrap_or_default();
    match facts.maxmemory {
        Some(0) => warn(
            "this Redis has no `maxmemory`: it grows with the requests of clients until the \
             machine runs out of memory"
                .into(),
            &format!("redis-cli CONFIG SET maxmemory 1gb, and {LRU}; the same in redis.conf"),
        ),
        Some(most) if policy == "noeviction" => warn(
            format!(
                "`maxmemory-policy` is `noeviction`: once its {} are full, this Redis stores \
                     nothing until something expires",
                show_size(most)
            ),
            &format!("{LRU}; the same in redis.conf"),
        ),
        _ => {}
    }
    match policy {
        "allkeys-random" => warn(
            "`maxmemory-policy` is `allkeys-random`: it may evict used keys, even the generation \
             of the whole cache, after which every request is a miss"
                .into(),
            &format!("{LRU}; the same in redis.conf"),
        ),
        "volatile-random" => warn(
            "`maxmemory-policy` is `volatile-random`: it may evict the record of a busy tag, \
             after which all its entries are a miss"
                .into(),
            &format!("{LRU}; the same in redis.conf"),
        ),
        _ => {}
    }
    builders.extend(persistence(facts, at));
    if facts.loading {
        builders.push(note(
            at,
            "this Redis is still loading its data from disk; until it has finished, the sidecar \
             treats it as lost",
        ));
    }
    builders
}

/// Warns about persistence. Records have the replication id of the Redis that wrote them, and each
/// start of Redis has a new one. So restored records do not match, and their entries are a miss.
fn persistence(facts: &RedisInfo, at: &SourceSpan) -> Vec<DiagnosticBuilder> {
    let why = "the sidecar uses none of it after a restart of Redis. It costs memory and disk, \
               and while the disk is full Redis rejects writes and counts as lost";
    let mut builders = Vec::new();
    if facts.appendonly == Some(true) {
        let builder = DiagnosticBuilder::warning(
            at.clone(),
            format!("this Redis logs all writes to disk (`appendonly`), but {why}"),
        );
        builders.push(builder.hint(
            "redis-cli CONFIG SET appendonly no, and the same in redis.conf, \
                                if this Redis is only a cache",
        ));
    }
    match &facts.save {
        Ok(save) if !save.is_empty() => {
            let builder = DiagnosticBuilder::warning(
                at.clone(),
                format!("this Redis saves to disk (`save {save}`), but {why}"),
            );
            builders.push(builder.hint(
                "redis-cli CONFIG SET save \"\", and the same in redis.conf, \
                                    if this Redis is only a cache",
            ));
        }
        Err(Some(error)) => builders.push(note(
            at,
            format!("whether this Redis saves to disk could not be checked: {error}"),
        )),
        Ok(_) | Err(None) => {}
    }
    builders
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

    fn stated(facts: &RedisInfo) -> Vec<String> {
        let source = SourceText::new("proxy.toml", "x = 1\n");
        assess(facts, &(4..5))
            .into_iter()
            .map(|builder| source.locate(builder).to_string())
            .collect()
    }

    #[test]
    fn a_redis_that_evicts_by_use_and_keeps_nothing_is_suitable() {
        for policy in ["volatile-lru", "volatile-lfu", "volatile-ttl", "allkeys-lru", "allkeys-lfu"]
        {
            assert_eq!(
                stated(&RedisInfo { policy: Some(policy.into()), ..suitable() }),
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
        assert_eq!(stated(&silent), Vec::<String>::new(), "what is not known is not judged");
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
            (RedisInfo { appendonly: Some(true), ..suitable() }, "`appendonly`", "appendonly no"),
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
            let stated = stated(&facts);
            assert_eq!(stated.len(), 1, "{stated:?}");
            assert!(
                stated[0].contains("warning")
                    && stated[0].contains(message)
                    && stated[0].contains(mend),
                "{stated:?}"
            );
        }
    }

    #[test]
    fn what_cannot_be_known_is_a_note() {
        for facts in [
            RedisInfo { save: Err(Some(CallError::Reply("NOPERM".into()))), ..suitable() },
            RedisInfo { loading: true, ..suitable() },
        ] {
            let stated = stated(&facts);
            assert!(stated.len() == 1 && stated[0].contains(": note: "), "{stated:?}");
        }
    }

    #[test]
    fn the_url_is_found_in_the_text() {
        let text = "[upstream]\nurl = \"http://a\"\n[redis]\n# here\nurl = \"redis://h\"\n";
        assert_eq!(&text[url_span(text)], "\"redis://h\"");
        assert_eq!(url_span("url = "), 0..0);
    }
}
