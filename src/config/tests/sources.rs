//! `[[sources]]`: their names, tags and URLs, and what is wrong with them.

use std::time::Duration;

use super::parse;
use crate::config::model::Config;
use crate::policy::template::Template;
use crate::sources::SourceKind;

const HEAD: &str = "[upstream]\nurl = \"http://127.0.0.1:8000\"\n";
const URL: &str = "url = \"postgres://app:hunter2@127.0.0.1/app\"";

fn told(text: &str) -> String {
    parse(&format!("{HEAD}{text}")).err().map(|found| found.to_string()).unwrap_or_default()
}

fn config(text: &str) -> Config {
    parse(&format!("{HEAD}{text}")).unwrap_or_else(|problems| panic!("{problems}"))
}

fn source(lines: &str) -> String {
    format!("[[sources]]\nkind = \"postgres\"\n{lines}\n")
}

#[test]
fn a_source_has_a_name_a_channel_and_tags() {
    let tags = "tags = [\"items:{tenant_id}\", \"all\"]";
    let text = [
        source(&format!("{URL}\n{tags}")),
        source(&format!("{URL}\n{tags}\nchannel = \"Other one\"\ndegraded_ttl = \"0s\"")),
        source(&format!("{URL}\n{tags}\nname = \"orders-db\"")),
    ];
    let sources = config(&text.concat()).sources;
    let names: Vec<&str> = sources.iter().map(|source| &*source.name).collect();
    assert_eq!(names, ["postgres", "postgres-2", "orders-db"]);
    let channels = sources.iter().map(|source| match &source.kind {
        SourceKind::Postgres(settings) => &*settings.channel,
        other => panic!("{other:?}"),
    });
    assert_eq!(channels.collect::<Vec<_>>(), ["sidecache", "Other one", "sidecache"]);
    let ttls: Vec<Duration> = sources.iter().map(|source| source.degraded_ttl).collect();
    assert_eq!(ttls, [Duration::from_secs(2), Duration::ZERO, Duration::from_secs(2)]);
    let texts: Vec<&str> = sources[0].tags.iter().map(Template::as_str).collect();
    assert_eq!(texts, ["items:{tenant_id}", "all"]);
    assert!(sources[0].is_same(&sources[0]) && !sources[0].is_same(&sources[1]));
    let shown = format!("{sources:?}");
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn mistakes_in_sources_are_pointed_at() {
    let tags = "tags = [\"a\"]";
    for (lines, expected) in [
        (URL.to_owned(), "`tags` is missing"),
        (format!("{URL}\ntags = []"), "purges nothing"),
        (format!("{URL}\ntags = [\"a {{x}}\"]"), "contains white space"),
        (format!("{URL}\ntags = [\"a:{{x\"]"), "without its `}`"),
        (format!("{URL}\ntags = [\"a:{{/x/y}}\"]"), "no name of a member"),
        (format!("{URL}\ntags = [\"a\", \"a\"]"), "twice"),
        (tags.to_owned(), "`url` is missing"),
        (format!("{tags}\nurl = \"mysql://h\""), "not the scheme"),
        (format!("{tags}\nurl = \"postgres://app@h/a?sslmode=verify-full\""), "sslmode=require"),
        (format!("{tags}\nurl = \"postgres:///a\""), "has no host"),
        (format!("{tags}\n{URL}\nchannel = \"\""), "not a name of a channel"),
        (format!("{tags}\n{URL}\nname = \"a b\""), "not a name of a source"),
        (format!("{tags}\n{URL}\nchanel = \"a\""), "did you mean `channel`?"),
        (format!("{tags}\n{URL}\ndegraded_ttl = \"2h\""), "too large"),
        (format!("{tags}\n{URL}\nkind = \"x\""), "duplicate"),
    ] {
        let told = told(&source(&lines));
        assert!(told.contains(expected) && !told.contains("hunter2"), "{lines}: {told}");
    }
    assert!(told("[[sources]]\nkind = \"postgre\"\ntags = [\"a\"]").contains("did you mean"));
    assert!(told(&format!("[[sources]]\n{URL}\n{tags}")).contains("`kind` is missing"));
    let twice = source(&format!("{URL}\n{tags}\nname = \"a\"")).repeat(2);
    assert!(told(&twice).contains("another source has this name"));
    assert!(told(&source(&format!("{URL}\n{tags}")).repeat(17)).contains("17 sources"));
}

#[cfg(feature = "mysql")]
#[test]
fn a_mysql_has_a_table_that_is_read_now_and_then() {
    let head = "[[sources]]\nkind = \"mysql\"\ntags = [\"a\"]\n";
    let url = "url = \"mysql://app:hunter2@127.0.0.1/app\"";
    let settings = |lines: &str| {
        let source = config(&format!("{head}{url}\n{lines}\n")).sources.remove(0);
        match source.kind {
            SourceKind::Mysql(settings) => settings,
            other => panic!("{other:?}"),
        }
    };
    let usual = settings("");
    assert_eq!((&*usual.table, usual.every), ("sidecache_changes", Duration::from_millis(250)));
    assert_eq!(usual.max_transaction, Duration::from_mins(1));
    let own = settings("table = \"x.y\"\nevery = \"1s\"\nmax_transaction = \"5s\"");
    assert_eq!((&*own.table, own.every), ("x.y", Duration::from_secs(1)));
    assert_eq!(own.max_transaction, Duration::from_secs(5));
    assert!(!format!("{own:?}").contains("hunter2"));
    for (lines, expected) in [
        (String::new(), "`url` is missing"),
        ("url = \"postgres://app:hunter2@h/a\"".to_owned(), "not the scheme of a MySQL URL"),
        ("url = \"mysql://app:hunter2@h\"".to_owned(), "names no database"),
        ("url = \"mysql://app:hunter2@h/a?sslmode=x\"".to_owned(), "sslmode=require"),
        ("url = \"mysql://app:hunter2@h/a?tls=x\"".to_owned(), "sslmode and socket"),
        (format!("{url}\nevery = \"2s\""), "too large"),
        (format!("{url}\nevery = \"1ms\""), "too small"),
        (format!("{url}\nmax_transaction = \"1ms\""), "too small"),
        (format!("{url}\ntable = \"a.b.c\""), "not a name of a table"),
        (format!("{url}\ntable = \"\""), "not a name of a table"),
        (format!("{url}\nchannel = \"a\""), "`channel` says nothing"),
    ] {
        let told = told(&format!("{head}{lines}\n"));
        assert!(told.contains(expected) && !told.contains("hunter"), "{lines}: {told}");
    }
    let postgres = told(&source(&format!("{URL}\ntags = [\"a\"]\ntable = \"a\"")));
    assert!(postgres.contains("it is for sources of kind \"mysql\""), "{postgres}");
}
