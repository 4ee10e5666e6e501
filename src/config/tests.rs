//! The config as a whole: parsing, diagnostics, secrets and variables in complete files.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::redis::RedisAddress;
use crate::upstream::UpstreamAddress;

mod addresses;
mod apps;
mod body_reads;
mod bounds;
mod callers;
mod cases;
mod codings;
mod compress;
mod defaults;
mod expect;
mod first_mistakes;
mod fronts;
mod guests;
mod headers;
mod identity;
mod include;
mod jwt;
mod matches;
mod purging;
mod query;
mod schema;
mod sessions;
#[cfg(feature = "postgres")]
mod sources;
mod times;

/// The example of the design, with a variable in it.
const EXAMPLE: &str = r#"
[listen]
address = "127.0.0.1:8080"

[upstream]
url = "${UPSTREAM_URL:-http://127.0.0.1:8000}"

[admin]
address = "127.0.0.1:9090"

[memory]
size = "256MiB"                           # "0" turns the memory tier off

[redis]
url = "redis://127.0.0.1:6379/0"
secret = "0123456789abcdef"
[fields]
tenant = { header = "x-tenant-id" }
token  = { auth = "prefix", length = 20 }

[[routes]]
path  = "/api/v1/campaigns"
ttl   = "5m"
scope = "shared"
key   = ["tenant"]
query = ["page", "limit"]
tags  = ["campaigns:{tenant}"]

[[routes]]
path = "/api/v1/campaigns/{id}"
ttl  = "5m"
key  = ["tenant"]
tags = ["campaigns:{tenant}", "campaign:{id}"]

[[purges]]
path = "/api/v1/campaigns/{*rest}"
tags = ["campaigns:{tenant}"]
"#;

fn env(name: &str) -> Option<String> {
    match name {
        "SECRET_VALUE" => Some("hunter2-hunter2-hunter2".into()),
        "BAD_VALUE" => Some("hunter2 \u{1}".into()),
        "PORT" => Some("9999".into()),
        _ => None,
    }
}

fn parse(text: &str) -> Result<Config, Diagnostics> {
    Config::parse(text, "proxy.toml", &env)
}

fn diagnostics(text: &str) -> Diagnostics {
    parse(text).expect_err("a bad file")
}

/// Line, column and message of each error.
fn located(diagnostics: &Diagnostics) -> Vec<(usize, usize, &str)> {
    diagnostics
        .errors()
        .map(|diagnostic| (diagnostic.line, diagnostic.column, diagnostic.message.as_str()))
        .collect()
}

#[test]
fn the_designs_example_is_understood() {
    let config = parse(EXAMPLE).unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
    assert_eq!(config.server.address.to_string(), "127.0.0.1:8080");
    let UpstreamAddress::Tcp { tls, host, port } = &config.upstream.target.address else {
        panic!("{}", config.upstream.target)
    };
    assert_eq!((&**host, *port, *tls), ("127.0.0.1", 8000, false));
    assert_eq!((config.memory.size, config.memory.max_object), (256 << 20, 8 << 20));
    let redis = config.redis.as_ref().expect("redis");
    assert!(matches!(&redis.address, RedisAddress::Tcp { port: 6379, tls: false, .. }));
    assert_eq!(
        (redis.namespace.as_str(), redis.deadline),
        ("sidecache", Duration::from_millis(100))
    );
    let routes: Vec<_> = config.routes.iter().collect();
    assert_eq!((routes.len(), config.purges.len()), (2, 1));
    assert_eq!(routes[0].spec.ttl.plain(), Some(Duration::from_mins(5)));
    assert_eq!(routes[0].spec.admit_for, Duration::from_mins(1));
    assert_eq!(routes[1].spec.tags.len(), 2);
    let warnings: Vec<_> =
        config.warnings.iter().map(|warning| (warning.line, warning.column)).collect();
    assert_eq!(warnings, [(19, 1), (19, 1)], "a prefix field, and an unused one");
    assert_eq!(config.limits.waiters, 10_000);
}

#[test]
fn seven_mistakes_are_seven_located_messages() {
    let text = r#"[listen]
address = "localhost:8080"

[upstream]
url = "http://127.0.0.1:8000/api"

[fields]
tenant = { header = "x-tenant-id" }

[[routes]]
path = "/api/{id}"
ttl = 5m
kee = ["tenant"]
tags = ["campaigns:{tenat}"]
scope = "shard"

[[routes]]
path = "/api/{name}"
"#;
    let diagnostics = diagnostics(text);
    let drawn = diagnostics.to_string();
    assert_eq!(
        located(&diagnostics),
        [
            (2, 11, "`localhost:8080` is not an address with a port"),
            (5, 7, "the origin's URL has a path or a query"),
            (12, 7, "syntax error: string values must be quoted"),
            (13, 1, "a route has no key `kee`"),
            (14, 21, "`tenat` is not a field"),
            (15, 9, "`shard` is not a scope"),
            (
                18,
                8,
                "this path and \"/api/{id}\" at line 11 match the same requests, and neither is \
                 more specific"
            ),
        ],
        "{drawn}"
    );
    assert!(
        drawn.contains(
            "proxy.toml:14:21: error: `tenat` is not a field\n   |\n14 | tags = \
                            [\"campaigns:{tenat}\"]\n   |                     ^^^^^\n  allowed: \
                            tenant, id\n  hint: did you mean `tenant`?\n"
        ),
        "{drawn}"
    );
    assert!(drawn.contains("hint: did you mean `key`?"), "{drawn}");
    assert!(drawn.ends_with("7 errors in proxy.toml"), "{drawn}");
}

#[test]
fn columns_count_characters() {
    let text = "[upstream]\nurl = \"http://a\"\n[fields]\n\"\u{e4}\u{e4}\" = { hedder = \"x\" }";
    let diagnostics = diagnostics(text);
    assert_eq!(
        located(&diagnostics),
        [
            (4, 1, "`\u{e4}\u{e4}` is not a valid name of a field"),
            (4, 10, "a field has no key `hedder`")
        ]
    );
}

#[test]
fn a_syntax_error_hides_nothing_else() {
    for broken in [
        "oops",
        "path \"/x\"",
        "k = [\"a\",",
        "k = { a = ",
        "k = \"\"\"",
        "k = \"x",
        "k = 'x",
        "k = 5m",
        "k: 5",
        "= 5",
        "k = ",
        "k = tru",
        "k = \"\\q\"",
        "[x",
        "k == 1",
        "k = ]",
        "k = }",
        "k = [1 2]",
        "k = \"a\" b",
        "a.b. = 1",
        "k = 1\nk = 2",
        "k = {a=1,,}",
    ] {
        let text = format!(
            "{broken}\n[upstream]\nurl = 5\n[[routes]]\nttl = \"1x\"\npath = \
             \"/a\"\n[memory]\nsize = \"5\"\n"
        );
        let diagnostics = diagnostics(&text);
        let found = located(&diagnostics);
        let lines: Vec<usize> = found.iter().map(|(line, ..)| *line).collect();
        let offset = broken.lines().count();
        for line in [offset + 2, offset + 4, offset + 7] {
            assert!(lines.contains(&line), "{broken}: {diagnostics}");
        }
        assert!(lines.iter().any(|&line| line <= offset), "{broken}: {diagnostics}");
        // An unknown key and a syntax error may both be told of the broken text, nothing else.
        assert!(found.len() <= 5, "{broken}: {diagnostics}");
    }
}

#[test]
fn what_follows_from_a_syntax_error_is_not_told() {
    let text = "[upstream]\nurl \"http://a\"\n[[routes]]\npath: \"/x\"\nttl = \"5m\"\nkey = \
                [\"tenant\"]\n[fields]\ntenant = { header \"x\" }\n";
    let diagnostics = diagnostics(text);
    let lines: Vec<usize> = diagnostics.errors().map(|diagnostic| diagnostic.line).collect();
    assert_eq!(lines, [2, 4, 8], "{diagnostics}");
}

#[test]
fn a_header_without_its_brackets_still_heads_its_section() {
    let text = "[listen # here\naddress = 5\n[upstream]]\nurl = \"http://a\"\n[[routes]\npath = \
                \"{id}\"\nttl = 5\nkey = [\"tenat\", \"id\"]\n[fields]\ntenant = { header = \"x\" \
                }\n";
    let diagnostics = diagnostics(text);
    let found: Vec<_> =
        diagnostics.errors().map(|diagnostic| (diagnostic.line, diagnostic.column)).collect();
    assert_eq!(found, [(1, 1), (2, 11), (3, 1), (5, 1), (6, 8), (7, 7), (8, 9)], "{diagnostics}");
}

#[test]
fn secrets_are_never_shown() {
    let text = r#"
[upstream]
url = "http://user:hunter2@127.0.0.1"
[admin]
token = "hunter2"
[redis]
url = "redis://u:hunter2@h/x"
pasword = "hunter2"
password = hunter2
secret = "hunter2"
[[routes]]
path = "${SECRET_VALUE}"
ttl = "${SECRET_VALUE}"
scope = "${SECRET_VALUE}"
key = ["${SECRET_VALUE}"]
query = ["${SECRET_VALUE}", "${SECRET_VALUE}"]
tags = ["{${SECRET_VALUE}}", "${BAD_VALUE}"]
drop_headers = ["${BAD_VALUE}"]
[[routes]]
path = "/{a}"
key = ["${SECRET_VALUE}"]
tags = ["{${SECRET_VALUE}}"]
[[purges]]
path = "/${BAD_VALUE}"
methods = ["${SECRET_VALUE}"]
tags = []
[memory]
size = "${SECRET_VALUE}"
[log]
level = "${SECRET_VALUE}"
[fields]
a = { body = "${SECRET_VALUE}" }
b = { cookie = "${BAD_VALUE}" }
[listen]
address = "${SECRET_VALUE}"
trusted_proxies = ["${SECRET_VALUE}"]
"#;
    let diagnostics = diagnostics(text);
    for shown in [diagnostics.to_string(), format!("{diagnostics:?}")] {
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    assert!(diagnostics.errors().count() >= 18, "{diagnostics}");
    let text = "[upstream]\nurl = \"http://a\"\n[admin]\ntoken = \
                \"hunter2-hunter2-hunter2\"\n[redis]\nurl = \"redis://u:hunter2@h\"\n";
    let config = parse(text).expect("a good file");
    assert!(
        !format!(
            "{config:?} {:?} {:?}",
            config.admin.token,
            config.redis.as_ref().map(|redis| &redis.password)
        )
        .contains("hunter2")
    );
    assert_eq!(
        config.admin.token.as_ref().map(crate::secret::Secret::expose),
        Some("hunter2-hunter2-hunter2")
    );
}

#[test]
fn variables_are_filled_in_and_missed_where_they_stand() {
    let config = parse(
        "[listen]\naddress = \"127.0.0.1:${PORT}\"\n[upstream]\nurl = \"http://${APP:-app}:80\"\n",
    )
    .expect("a good file");
    let port = config.server.address.tcp().map(|address| address.port());
    assert_eq!((port, &*config.upstream.target.authority), (Some(9999), "app"));
    let diagnostics = diagnostics(
        "[listen]\naddress = \"127.0.0.1:${NOPE}\"\n[upstream]\nurl = \"${NOPE} $x\"\n",
    );
    assert_eq!(
        located(&diagnostics),
        [
            (2, 22, "the environment variable `NOPE` is not set"),
            (4, 8, "the environment variable `NOPE` is not set"),
            (4, 8, "a `$` stands alone")
        ]
    );
}

#[test]
fn a_file_that_cannot_be_read_says_how_to_go_on() {
    let diagnostics = Config::load(Path::new("/nonexistent/proxy.toml")).expect_err("no such file");
    let shown = diagnostics.to_string();
    assert!(
        shown.starts_with("/nonexistent/proxy.toml: error: the file cannot be read")
            && shown.contains("--config"),
        "{shown}"
    );
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("proxy.toml");
    std::fs::write(&path, b"a = 1\nb = \"\xff\"").expect("written");
    assert!(
        Config::load(&path).expect_err("not UTF-8").to_string().contains("line 2 is not UTF-8")
    );
}

#[test]
fn a_key_whose_variable_may_be_nothing_is_left_out() {
    let text = "[upstream]\nurl = \"http://a\"\n[admin]\naddress = \"${ADMIN:-}\"\ntoken = \
                \"${TOKEN:-}\"\n";
    let with = |token: Option<&'static str>| {
        Config::parse(text, "proxy.toml", &move |name| {
            token.filter(|_| name == "TOKEN").map(str::to_owned)
        })
    };
    let without = with(None).unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
    assert_eq!(
        (without.admin.address.port(), without.admin.token.is_some()),
        (9090, false),
        "the default, and none"
    );
    assert!(with(Some("")).is_ok_and(|config| config.admin.token.is_none()), "set to nothing");
    assert!(with(Some("0123456789abcdef")).is_ok_and(|config| config.admin.token.is_some()));
    let required = Config::parse("[upstream]\nurl = \"${APP:-}\"\n", "proxy.toml", &|_| None)
        .expect_err("no app")
        .to_string();
    assert!(required.contains("`url` is missing"), "{required}");
}

#[test]
fn check_tells_the_exit_code() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("proxy.toml");
    let run = |text: &str, deny_warnings| {
        std::fs::write(&path, text).expect("written");
        let mut out = Vec::new();
        let code =
            check(&path, CheckOptions { deny_warnings, offline: true }, &mut out).expect("written");
        (code, String::from_utf8(out).expect("text"))
    };
    let good = "[upstream]\nurl = \"http://a\"\n[[routes]]\npath = \"/a\"\n";
    assert_eq!(run(good, true), (0, format!("{}: ok: 1 route, 0 purge rules\n", path.display())));
    let (code, shown) = run(EXAMPLE, false);
    assert_eq!(
        (code, shown.ends_with("ok: 2 routes, 1 purge rule, 2 warnings\n")),
        (0, true),
        "{shown}"
    );
    assert_eq!(run(EXAMPLE, true).0, 64);
    let (code, shown) = run("[upstream]\nurl = 1\n", false);
    assert_eq!(
        (code, shown.ends_with(&format!("1 error in {}\n", path.display()))),
        (64, true),
        "{shown}"
    );
}

#[test]
fn a_token_comes_from_a_file_beside_the_configuration() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("proxy.toml");
    std::fs::write(folder.path().join("token"), "0123456789abcdef\n").expect("written");
    std::fs::write(
        &path,
        "[upstream]\nurl = \"http://a\"\n[admin]\naddress = \
                           \"0.0.0.0:9090\"\ntoken_file = \"token\"\n",
    )
    .expect("written");
    let config = Config::load(&path).expect("a good file");
    assert_eq!(
        config.admin.token.as_ref().map(crate::secret::Secret::expose),
        Some("0123456789abcdef")
    );
    std::fs::write(folder.path().join("token"), "short").expect("written");
    assert!(
        Config::load(&path).expect_err("a short token").to_string().contains("shorter than 16")
    );
    std::fs::remove_file(folder.path().join("token")).expect("removed");
    assert_eq!(Config::load(&path).expect_err("no token").errors().count(), 1);
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(cuts in prop::collection::vec(
        (any::<prop::sample::Index>(), 0_usize..12, "[\\[\\]{}=\"'#\n\\\\$:/a1 .\u{e4}]{0,6}"),
        1..8,
    )) {
        let mut text = EXAMPLE.to_owned();
        for (at, length, replacement) in cuts {
            let places: Vec<usize> = text.char_indices().map(|(place, _)| place).collect();
            let start = at.index(places.len().max(1));
            let from = places.get(start).copied().unwrap_or(0);
            let to = places.get(start + length).copied().unwrap_or(text.len());
            text.replace_range(from..to, &replacement);
        }
        if let Err(diagnostics) = parse(&text) {
            prop_assert!(diagnostics.errors().count() > 0, "{}", text);
            for diagnostic in diagnostics.iter() {
                prop_assert!(diagnostic.line <= text.lines().count() + 1);
            }
            let _ = diagnostics.to_string();
        }
    }

    #[test]
    fn any_text_at_all_is_answered(text in "\\PC{0,80}") {
        let _ = parse(&text).map_err(|diagnostics| diagnostics.to_string());
    }
}
