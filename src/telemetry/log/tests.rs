//! What the log writes for an event.

use std::io::Write;
use std::sync::{Arc, Mutex};

use super::*;
use crate::outcome::{Disposition, Reason};

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn logged(format: LogFormat, level: &str, log: impl FnOnce()) -> String {
    let captured = Captured::default();
    let writer = captured.clone();
    let settings = LogSettings { level: level.to_owned(), format, access: true, repeats: 3 };
    let filter = filter(&settings).unwrap();
    let (subscriber, _) = subscriber(&settings, filter, Clock::manual(), move || writer.clone());
    tracing::subscriber::with_default(subscriber, log);
    let bytes = captured.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

fn line<'a>(path: &'a str, outcome: &'a Outcome) -> AccessLine<'a> {
    AccessLine {
        method: &Method::GET,
        path,
        host: Some("app.test"),
        peer: [127, 0, 0, 1].into(),
        route: Some("/c/{id}"),
        status: 200,
        outcome,
        bytes: Some(1024),
        duration: Duration::from_micros(1234),
        request_id: None,
        trace_id: None,
    }
}

#[test]
fn a_text_line_has_every_field_that_is_set_and_no_other() {
    let outcome =
        Outcome { tier: Some(Tier::Memory), ttl: Some(243), ..Outcome::new(Disposition::Hit) };
    let text = logged(LogFormat::Text, "info", || access(&line("/c/7", &outcome)));
    let expected = "INFO sidecache::access: request method=GET path=/c/7 host=app.test \
        peer=127.0.0.1 route=/c/{id} status=200 \
        cache=HIT tier=memory ttl=243 stored=false collapsed=false bytes=1024 \
        duration_us=1234\n";
    assert!(text.ends_with(expected), "{text}");
}

#[test]
fn a_json_line_parses_and_holds_the_reason() {
    let outcome = Outcome::bypass_with(Reason::MissingField, "tenant");
    let text = logged(LogFormat::Json, "info", || access(&line("/c/7", &outcome)));
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["message"], "request");
    assert_eq!(json["target"], ACCESS_TARGET);
    assert_eq!(json["reason"], "missing field tenant");
    assert_eq!(json["cache"], "BYPASS");
    assert_eq!(json["status"], 200);
    assert_eq!(json["duration_us"], 1234);
}

#[test]
fn a_hostile_path_stays_on_its_one_line() {
    let hostile = "/a\nFAKE line\r\x1b[2J\u{9b}2J\" status=500 \\";
    let outcome = Outcome::new(Disposition::Miss);
    for format in [LogFormat::Text, LogFormat::Json] {
        let text = logged(format, "info", || {
            access(&AccessLine { host: Some(hostile), ..line(hostile, &outcome) });
        });
        assert_eq!(text.matches('\n').count(), 1, "{text:?}");
        assert!(text.ends_with('\n') && !text.trim_end().contains(char::is_control), "{text:?}");
    }
    let text = logged(LogFormat::Text, "info", || access(&line(hostile, &outcome)));
    assert!(
        text.contains(r#" path="/a\nFAKE line\r\u{1b}[2J\u{9b}2J\" status=500 \\" host="#),
        "{text}"
    );
}

#[test]
fn every_other_event_stays_on_one_line_too() {
    let text = logged(
        LogFormat::Text,
        "info",
        || tracing::warn!(error = %"a\nb", "it said: {}", "x\n\x1b[2J"),
    );
    assert!(text.ends_with("it said: x\\n\\u{1b}[2J error=\"a\\nb\"\n"), "{text:?}");
    assert_eq!(text.matches('\n').count(), 1, "{text:?}");
}

#[test]
fn the_query_string_is_not_logged() {
    let outcome = Outcome::new(Disposition::Miss);
    let text = logged(LogFormat::Text, "info", || access(&line("/c/7?token=hunter2", &outcome)));
    assert!(text.contains(" path=/c/7 ") && !text.contains("hunter2"), "{text}");
}

#[test]
fn a_long_path_is_truncated() {
    let outcome = Outcome::new(Disposition::Miss);
    let path = "/x".repeat(50_000);
    let text = logged(LogFormat::Text, "info", || access(&line(&path, &outcome)));
    assert!(text.len() < 2048 + 512, "{}", text.len());
}

#[test]
fn access_lines_are_logged_at_any_level() {
    let outcome = Outcome::new(Disposition::Hit);
    let text = logged(LogFormat::Text, "error", || {
        access(&line("/c/7", &outcome));
        tracing::info!("not this one");
    });
    assert!(text.contains("path=/c/7") && !text.contains("not this one"), "{text}");
}

#[test]
fn levels_are_checked() {
    for good in ["info", "WARN", "info,sidecache::access=off", "warn, hyper=debug", "off"] {
        assert_eq!(check_level(good), Ok(()), "{good}");
    }
    for bad in ["debgu", "", "info,,warn", "hyper=loud"] {
        assert!(check_level(bad).is_err(), "{bad:?}");
    }
    assert!(check_level("debgu").unwrap_err().contains("levels are off, error, warn"));
}

#[test]
fn whatever_is_logged_is_short_and_harmless_in_both_formats() {
    let hostile = format!("/{}", "\u{202e}x\u{9b}\n\u{200b}".repeat(10_000));
    for format in [LogFormat::Text, LogFormat::Json] {
        let text = logged(format, "info", || {
            tracing::warn!(path = hostile, error = %hostile, "it said: {hostile}");
            tracing::warn!(path = %LogText(&hostile), "short");
        });
        assert!(text.len() < 80_000, "{} bytes", text.len());
        assert_eq!(text.lines().count(), 2);
        assert!(!text.contains(|c: char| c != '\n' && text::is_harmful(c)), "{format:?}");
        let last = text.lines().last().unwrap();
        assert!(last.len() < 3_000, "{last}");
        if format == LogFormat::Json {
            for line in text.lines() {
                serde_json::from_str::<serde_json::Value>(line).unwrap();
            }
        }
    }
}

#[test]
fn lines_of_one_kind_are_suppressed_counted_and_told() {
    let before = SUPPRESSED_LINES.get();
    let text = logged(LogFormat::Text, "info", || {
        for number in 0..10 {
            tracing::warn!(number, "of one kind");
            tracing::info!(number, "not a warning");
        }
        tracing::warn!("of another kind");
        tell_suppressed();
    });
    assert_eq!(text.matches(" of one kind number=").count(), 3, "{text}");
    assert_eq!(text.matches("not a warning").count(), 10, "{text}");
    assert_eq!(text.matches("of another kind").count(), 1, "{text}");
    assert!(text.contains("were suppressed") && text.contains("lines=7 "), "{text}");
    assert_eq!(SUPPRESSED_LINES.get() - before, 7);
}

#[test]
fn a_kind_is_logged_again_in_the_next_interval() {
    let clock = Clock::manual();
    let captured = Captured::default();
    let writer = captured.clone();
    let settings = LogSettings { repeats: 1, ..LogSettings::default() };
    let (subscriber, _) =
        subscriber(&settings, parse("info").unwrap(), clock.clone(), move || writer.clone());
    tracing::subscriber::with_default(subscriber, || {
        for _ in 0..4 {
            tracing::warn!("again");
            clock.advance(repeats::INTERVAL / 2);
        }
    });
    let text = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
    assert_eq!(text.lines().count(), 2, "{text}");
}

/// An event as it comes from the `log` crate.
fn of_the_client_of_redis() {
    tracing::warn!(
        target: "fred::router",
        {
            "log.target" = "fred::router::responses",
            "log.module_path" = "fred::router::responses",
            "log.file" = "/home/builder/registry/fred/src/router/responses.rs",
            "log.line" = 325
        },
        "connection reset"
    );
    tracing::error!(target: "fred::router", "an error");
}

#[test]
fn the_client_of_redis_speaks_only_where_it_is_asked_to() {
    for level in
        ["error", "info", "warn", "DEBUG", "trace", "warn, sidecache=debug", "info,freddy=trace"]
    {
        let text = logged(LogFormat::Text, level, of_the_client_of_redis);
        assert_eq!(text, "", "{level}");
    }
    for level in ["warn,fred=debug", "fred=warn", "info,fred::router=warn", "warn, fred"] {
        let parsed = parse(level).unwrap();
        let shown = parsed.to_string();
        assert!(!shown.contains("fred=off"), "{level}: {shown}");
    }
    for level in ["warn,fred=debug", "info,fred::router=warn"] {
        let text = logged(LogFormat::Text, level, of_the_client_of_redis);
        assert!(text.contains("connection reset"), "{level}: {text}");
    }
    for level in ["off", "off,sidecache=debug"] {
        let text = logged(LogFormat::Text, level, of_the_client_of_redis);
        assert_eq!(text, "", "{level}");
    }
}

#[test]
fn no_path_of_the_machine_that_built_the_program_is_logged() {
    let text = logged(LogFormat::Text, "warn,fred=warn", of_the_client_of_redis);
    assert!(text.contains("connection reset\n") && !text.contains("log."), "{text}");
    let text = logged(LogFormat::Json, "warn,fred=warn", of_the_client_of_redis);
    let json: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(json["message"], "connection reset");
    assert_eq!(json["target"], "fred::router::responses");
    assert!(!text.contains("log.") && !text.contains("builder"), "{text}");
}

#[test]
fn settings_change_while_the_log_is_in_use() {
    let captured = Captured::default();
    let writer = captured.clone();
    let settings = LogSettings { repeats: 1, ..LogSettings::default() };
    let (subscriber, control) =
        subscriber(&settings, filter(&settings).unwrap(), Clock::manual(), move || writer.clone());
    let log = || {
        tracing::debug!("in detail");
        for _ in 0..3 {
            tracing::warn!("a warning");
        }
    };
    tracing::subscriber::with_default(subscriber, || {
        log();
        let louder = LogSettings {
            level: "debug".to_owned(),
            format: LogFormat::Json,
            repeats: 4,
            ..settings.clone()
        };
        control.apply(&louder, filter(&louder).unwrap());
        log();
        control.apply(&settings, filter(&settings).unwrap());
        log();
    });
    let text = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<_> = text.lines().map(|line| (line.starts_with('{'), line)).collect();
    let of = |is_json: bool, words: &str| {
        lines.iter().filter(|(json, line)| *json == is_json && line.contains(words)).count()
    };
    assert_eq!((of(false, "in detail"), of(true, "in detail")), (0, 1), "{text}");
    assert_eq!((of(false, "a warning"), of(true, "a warning")), (1, 1), "one more of its kind");
}
