//! What the configuration promises, shown on whole files.

use std::fmt::Write as _;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::Value;

use super::file::{
    AdminSection, ConfigFile, CredentialSection, DebugSection, FieldForm, FreshnessSection,
    LimitsSection, ListenSection, LogSection, MemorySection, PurgeSection, RedisSection,
    RouteSection, TagsSection, UpstreamSection,
};
use super::*;
use crate::redis::RedisAddress;

mod cases;

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

fn problems(text: &str) -> Diagnostics {
    parse(text).expect_err("a bad file")
}

/// Line, column and message of each error.
fn located(problems: &Diagnostics) -> Vec<(usize, usize, &str)> {
    problems
        .errors()
        .map(|problem| (problem.line, problem.column, problem.message.as_str()))
        .collect()
}

#[test]
fn the_designs_example_is_understood() {
    let config = parse(EXAMPLE).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(config.server.address.to_string(), "127.0.0.1:8080");
    assert_eq!(
        (&*config.upstream.target.host, config.upstream.target.port, config.upstream.target.tls),
        ("127.0.0.1", 8000, false)
    );
    assert_eq!((config.memory.size, config.memory.max_object), (256 << 20, 8 << 20));
    let redis = config.redis.as_ref().expect("redis");
    assert!(matches!(&redis.address, RedisAddress::Tcp { port: 6379, tls: false, .. }));
    assert_eq!(
        (redis.namespace.as_str(), redis.deadline),
        ("sidecache", Duration::from_millis(100))
    );
    let routes: Vec<_> = config.routes.iter().collect();
    assert_eq!((routes.len(), config.purges.len()), (2, 1));
    assert_eq!(routes[0].spec.ttl, Some(Duration::from_mins(5)));
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
    let problems = problems(text);
    let drawn = problems.to_string();
    assert_eq!(
        located(&problems),
        [
            (2, 11, "`localhost:8080` is not an address with a port"),
            (5, 7, "the app's url has a path or a query"),
            (12, 7, "syntax: string values must be quoted"),
            (13, 1, "a route has no key `kee`"),
            (14, 21, "`tenat` is not a field"),
            (15, 9, "`shard` is not a scope"),
            (
                18,
                8,
                "this path and \"/api/{id}\" in line 11 match the same requests, and neither is more specific"
            ),
        ],
        "{drawn}"
    );
    assert!(drawn.contains("proxy.toml:14:21: error: `tenat` is not a field\n   |\n14 | tags = [\"campaigns:{tenat}\"]\n   |                     ^^^^^\n  allowed: tenant, id\n  hint: did you mean `tenant`?\n"), "{drawn}");
    assert!(drawn.contains("hint: did you mean `key`?"), "{drawn}");
    assert!(drawn.ends_with("7 problems in proxy.toml"), "{drawn}");
}

#[test]
fn columns_count_characters() {
    let text = "[upstream]\nurl = \"http://a\"\n[fields]\n\"\u{e4}\u{e4}\" = { hedder = \"x\" }";
    let problems = problems(text);
    assert_eq!(
        located(&problems),
        [
            (4, 1, "`\u{e4}\u{e4}` cannot be the name of a field"),
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
            "{broken}\n[upstream]\nurl = 5\n[[routes]]\nttl = \"1x\"\npath = \"/a\"\n[memory]\nsize = \"5\"\n"
        );
        let problems = problems(&text);
        let found = located(&problems);
        let lines: Vec<usize> = found.iter().map(|(line, ..)| *line).collect();
        let offset = broken.lines().count();
        for line in [offset + 2, offset + 4, offset + 7] {
            assert!(lines.contains(&line), "{broken}: {problems}");
        }
        assert!(lines.iter().any(|&line| line <= offset), "{broken}: {problems}");
        // An unknown key and a syntax error may both be told of the broken text, nothing else.
        assert!(found.len() <= 5, "{broken}: {problems}");
    }
}

#[test]
fn what_follows_from_a_syntax_error_is_not_told() {
    let text = "[upstream]\nurl \"http://a\"\n[[routes]]\npath: \"/x\"\nttl = \"5m\"\nkey = [\"tenant\"]\n[fields]\ntenant = { header \"x\" }\n";
    let problems = problems(text);
    let lines: Vec<usize> = problems.errors().map(|problem| problem.line).collect();
    assert_eq!(lines, [2, 4, 8], "{problems}");
}

#[test]
fn a_header_without_its_brackets_still_heads_its_section() {
    let text = "[listen # here\naddress = 5\n[upstream]]\nurl = \"http://a\"\n[[routes]\npath = \"{id}\"\nttl = 5\nkey = [\"tenat\", \"id\"]\n[fields]\ntenant = { header = \"x\" }\n";
    let problems = problems(text);
    let found: Vec<_> = problems.errors().map(|problem| (problem.line, problem.column)).collect();
    assert_eq!(found, [(1, 1), (2, 11), (3, 1), (5, 1), (6, 8), (7, 7), (8, 9)], "{problems}");
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
    let problems = problems(text);
    for shown in [problems.to_string(), format!("{problems:?}")] {
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    assert!(problems.errors().count() >= 18, "{problems}");
    let text = "[upstream]\nurl = \"http://a\"\n[admin]\ntoken = \"hunter2-hunter2-hunter2\"\n[redis]\nurl = \"redis://u:hunter2@h\"\n";
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
    assert_eq!((config.server.address.port(), &*config.upstream.target.authority), (9999, "app"));
    let problems =
        problems("[listen]\naddress = \"127.0.0.1:${NOPE}\"\n[upstream]\nurl = \"${NOPE} $x\"\n");
    assert_eq!(
        located(&problems),
        [
            (2, 22, "the environment variable `NOPE` is not set"),
            (4, 8, "the environment variable `NOPE` is not set"),
            (4, 8, "a `$` stands alone")
        ]
    );
}

#[test]
fn a_file_that_cannot_be_read_says_how_to_go_on() {
    let problems = Config::load(Path::new("/nonexistent/proxy.toml")).expect_err("no such file");
    let shown = problems.to_string();
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
    let text = "[upstream]\nurl = \"http://a\"\n[admin]\naddress = \"${ADMIN:-}\"\ntoken = \"${TOKEN:-}\"\n";
    let with = |token: Option<&'static str>| {
        Config::parse(text, "proxy.toml", &move |name| {
            token.filter(|_| name == "TOKEN").map(str::to_owned)
        })
    };
    let without = with(None).unwrap_or_else(|problems| panic!("{problems}"));
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
        (code, shown.ends_with(&format!("1 problem in {}\n", path.display()))),
        (64, true),
        "{shown}"
    );
}

#[test]
fn a_token_comes_from_a_file_beside_the_configuration() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("proxy.toml");
    std::fs::write(folder.path().join("token"), "0123456789abcdef\n").expect("written");
    std::fs::write(&path, "[upstream]\nurl = \"http://a\"\n[admin]\naddress = \"0.0.0.0:9090\"\ntoken_file = \"token\"\n")
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

/// The properties of a table in the schema.
fn properties<'a>(schema: &'a Value, name: &str) -> Vec<&'a str> {
    let table = if name == "ConfigFile" { schema } else { &schema["$defs"][name] };
    assert_eq!(table["additionalProperties"], Value::Bool(false), "{name}");
    let mut keys: Vec<&str> =
        table["properties"].as_object().expect(name).keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

#[test]
fn the_schema_has_the_keys_that_the_reader_takes() {
    let schema: Value = serde_json::from_str(&json_schema()).expect("JSON");
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    let tables: [(&str, &[&str]); 15] = [
        ("ConfigFile", ConfigFile::KEYS),
        ("ListenSection", ListenSection::KEYS),
        ("UpstreamSection", UpstreamSection::KEYS),
        ("AdminSection", AdminSection::KEYS),
        ("MemorySection", MemorySection::KEYS),
        ("RedisSection", RedisSection::KEYS),
        ("LimitsSection", LimitsSection::KEYS),
        ("FreshnessSection", FreshnessSection::KEYS),
        ("LogSection", LogSection::KEYS),
        ("FieldForm", FieldForm::KEYS),
        ("CredentialSection", CredentialSection::KEYS),
        ("TagsSection", TagsSection::KEYS),
        ("DebugSection", DebugSection::KEYS),
        ("RouteSection", RouteSection::KEYS),
        ("PurgeSection", PurgeSection::KEYS),
    ];
    for (name, keys) in tables {
        let mut keys = keys.to_vec();
        keys.sort_unstable();
        assert_eq!(properties(&schema, name), keys, "{name}");
    }
    assert_eq!(schema["$defs"].as_object().map(serde_json::Map::len), Some(tables.len() - 1));
    let route = &schema["$defs"]["RouteSection"]["properties"];
    assert_eq!(route["scope"]["enum"], serde_json::json!(["private", "shared", "public"]));
    assert_eq!(route["scope"]["default"], "private");
    assert!(
        route["ttl"]["pattern"].is_string()
            && route["ttl"]["examples"].is_array()
            && route["ttl"]["description"].is_string()
    );
    assert_eq!(schema["$defs"]["PurgeSection"]["required"], serde_json::json!(["path", "tags"]));
}

/// As much of JSON Schema as ours uses, but for patterns.
fn validate(schema: &Value, root: &Value, value: &Value, at: &str) -> Result<(), String> {
    let fail = |what: &str| Err(format!("{at}: {what}: {value}"));
    if let Some(reference) = schema["$ref"].as_str() {
        validate(&root["$defs"][reference.trim_start_matches("#/$defs/")], root, value, at)?;
    }
    let fits = match schema["type"].as_str() {
        Some("string") => value.is_string(),
        Some("integer") => value.is_u64(),
        Some("boolean") => value.is_boolean(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        _ => true,
    };
    if !fits {
        return fail("type");
    }
    if schema["enum"].as_array().is_some_and(|words| !words.contains(value)) {
        return fail("enum");
    }
    if let Some(choices) = schema["oneOf"].as_array()
        && choices.iter().filter(|choice| validate(choice, root, value, at).is_ok()).count() != 1
    {
        return fail("oneOf");
    }
    for required in schema["required"].as_array().into_iter().flatten() {
        if value.get(required.as_str().expect("a key")).is_none() {
            return fail("required");
        }
    }
    for element in value.as_array().into_iter().flatten() {
        validate(&schema["items"], root, element, at)?;
    }
    for (key, element) in value.as_object().into_iter().flatten() {
        let known = schema["properties"].get(key);
        match (known, &schema["additionalProperties"]) {
            (Some(known), _) => validate(known, root, element, &format!("{at}.{key}"))?,
            (None, Value::Bool(false)) => return Err(format!("{at}: unknown {key}")),
            (None, other) => validate(other, root, element, &format!("{at}.{key}"))?,
        }
    }
    Ok(())
}

#[test]
fn the_schema_takes_the_designs_example() {
    let schema: Value = serde_json::from_str(&json_schema()).expect("JSON");
    let example: Value = toml::from_str(EXAMPLE).expect("TOML");
    assert_eq!(validate(&schema, &schema, &example, ""), Ok(()));
    let bad: Value =
        toml::from_str("[upstream]\nurl = \"x\"\n[fields]\na = { header = \"a\", cookie = \"b\" }")
            .expect("TOML");
    assert!(validate(&schema, &schema, &bad, "").is_err());
}

#[test]
fn the_schemas_defaults_are_the_readers() {
    let schema: Value = serde_json::from_str(&json_schema()).expect("JSON");
    let mut text = String::from("upstream.url = \"http://a\"\n");
    for section in [
        "ListenSection",
        "UpstreamSection",
        "AdminSection",
        "MemorySection",
        "LimitsSection",
        "FreshnessSection",
        "LogSection",
        "CredentialSection",
        "TagsSection",
        "DebugSection",
    ] {
        writeln!(text, "[{}]", section.to_lowercase()).expect("text");
        for (key, property) in schema["$defs"][section]["properties"].as_object().expect(section) {
            if let Some(default) = property.get("default") {
                writeln!(text, "{key} = {default}").expect("text");
            }
        }
    }
    let text = text
        .replace("upstream.url = \"http://a\"\n", "")
        .replace("[upstream]\n", "[upstream]\nurl = \"http://a\"\n");
    let spelled = parse(&text).unwrap_or_else(|problems| panic!("{text}{problems}"));
    let silent = parse("[upstream]\nurl = \"http://a\"\n").expect("a good file");
    assert_eq!(spelled.limits, silent.limits);
    assert_eq!(spelled.response_rules, silent.response_rules);
    assert_eq!(spelled.server.idle_timeout, silent.server.idle_timeout);
    assert_eq!(spelled.response_rules.response_tags, crate::policy::tag::ResponseTags::default());
    assert_eq!(*silent.credential, CredentialRule::default());
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(cuts in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..12, "[\\[\\]{}=\"'#\n\\\\$:/a1 .\u{e4}]{0,6}"), 1..8)) {
        let mut text = EXAMPLE.to_owned();
        for (at, length, replacement) in cuts {
            let places: Vec<usize> = text.char_indices().map(|(place, _)| place).collect();
            let start = at.index(places.len().max(1));
            let from = places.get(start).copied().unwrap_or(0);
            let to = places.get(start + length).copied().unwrap_or(text.len());
            text.replace_range(from..to, &replacement);
        }
        if let Err(problems) = parse(&text) {
            prop_assert!(problems.errors().count() > 0, "{}", text);
            for problem in problems.iter() {
                prop_assert!(problem.line <= text.lines().count() + 1);
            }
            let _ = problems.to_string();
        }
    }

    #[test]
    fn any_text_at_all_is_answered(text in "\\PC{0,80}") {
        let _ = parse(&text).map_err(|problems| problems.to_string());
    }
}
