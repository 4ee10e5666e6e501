//! The JSON Schema has the same keys, defaults and rules as the decoder.

use std::fmt::Write as _;

use serde_json::Value;

use super::{EXAMPLE, parse};
use crate::config::file::{
    AdminSection, AppSection, CodingsSection, ConfigFile, CredentialSection, DebugSection,
    ExpectSection, FieldForm, FreshnessSection, IdentitySection, JwtSection, LimitsSection,
    ListenSection, LogSection, MatchSection, MemorySection, NotifySection, OtherRequestSection,
    PurgeRequestsSection, PurgeSection, RedisSection, RouteSection, SignedInForm, SourceSection,
    TagsSection, TraceSection, UpstreamSection,
};
use crate::config::json_schema;
use crate::policy::credential::CredentialRule;

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
    let tables: [(&str, &[&str]); 27] = [
        ("ConfigFile", ConfigFile::KEYS),
        ("ListenSection", ListenSection::KEYS),
        ("UpstreamSection", UpstreamSection::KEYS),
        ("AdminSection", AdminSection::KEYS),
        ("MemorySection", MemorySection::KEYS),
        ("RedisSection", RedisSection::KEYS),
        ("LimitsSection", LimitsSection::KEYS),
        ("CodingsSection", CodingsSection::KEYS),
        ("FreshnessSection", FreshnessSection::KEYS),
        ("LogSection", LogSection::KEYS),
        ("TraceSection", TraceSection::KEYS),
        ("FieldForm", FieldForm::KEYS),
        ("JwtSection", JwtSection::KEYS),
        ("IdentitySection", IdentitySection::KEYS),
        ("CredentialSection", CredentialSection::KEYS),
        ("TagsSection", TagsSection::KEYS),
        ("DebugSection", DebugSection::KEYS),
        ("RouteSection", RouteSection::KEYS),
        ("PurgeSection", PurgeSection::KEYS),
        ("AppSection", AppSection::KEYS),
        ("NotifySection", NotifySection::KEYS),
        ("SourceSection", SourceSection::KEYS),
        ("PurgeRequestsSection", PurgeRequestsSection::KEYS),
        ("MatchSection", MatchSection::KEYS),
        ("SignedInForm", SignedInForm::KEYS),
        ("ExpectSection", ExpectSection::KEYS),
        ("OtherRequestSection", OtherRequestSection::KEYS),
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
        route["ttl"]["oneOf"][0]["pattern"].is_string()
            && route["ttl"]["oneOf"][1]["propertyNames"]["enum"].is_array()
            && route["ttl"]["examples"].is_array()
            && route["ttl"]["description"].is_string()
    );
    assert_eq!(schema["$defs"]["PurgeSection"]["required"], serde_json::json!(["path"]));
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
        writeln!(text, "[{}]", section.trim_end_matches("Section").to_lowercase()).expect("text");
        for (key, property) in schema["$defs"][section]["properties"].as_object().expect(section) {
            if let Some(default) = property.get("default") {
                writeln!(text, "{key} = {default}").expect("text");
            }
        }
    }
    let text = text
        .replace("upstream.url = \"http://a\"\n", "")
        .replace("[upstream]\n", "[upstream]\nurl = \"http://a\"\n");
    let spelled = parse(&text).unwrap_or_else(|diagnostics| panic!("{text}{diagnostics}"));
    let silent = parse("[upstream]\nurl = \"http://a\"\n").expect("a good file");
    assert_eq!(spelled.limits, silent.limits);
    assert_eq!(spelled.response_rules, silent.response_rules);
    assert_eq!(spelled.server.idle_timeout, silent.server.idle_timeout);
    assert_eq!(spelled.response_rules.response_tags, crate::policy::tag::ResponseTags::default());
    assert_eq!(*silent.credential, CredentialRule::default());
}
