//! `proxy-toml.md`: every section and key of the file, from its JSON Schema.

use std::fmt::Write as _;

use serde_json::Value;

use super::markdown::{Page, code, codes};
use crate::config::{self, key_order};

/// Each table of the file: its name in the schema, its header, and an example.
const TABLES: [(&str, &str, &str); 27] = [
    ("ConfigFile", "Top of the file", "mode = \"on\"\nwatch = \"1s\""),
    (
        "ListenSection",
        "[listen]",
        "[listen]\naddress = \"0.0.0.0:8080\"\ntrusted_proxies = [\"127.0.0.1\", \"10.0.0.0/8\"]",
    ),
    (
        "UpstreamSection",
        "[upstream]",
        "[upstream]\nurl = \"http://127.0.0.1:8000\"\nmax_connections = 128",
    ),
    (
        "AppSection",
        "[[apps]]",
        "[[apps]]\nname  = \"shop\"\nhosts = [\"shop.example.com\", \"*.shop.example.com\"]\n\
         url   = \"http://127.0.0.1:8001\"\n\n\
         [[routes]]\napp  = \"shop\"\npath = \"/products/{id}\"\nttl  = \"5m\"",
    ),
    (
        "AdminSection",
        "[admin]",
        "[admin]\naddress = \"0.0.0.0:9090\"\ntoken = \"${ADMIN_TOKEN}\"\nhosts = [\"sidecache\"]",
    ),
    ("MemorySection", "[memory]", "[memory]\nsize = \"256MiB\""),
    (
        "RedisSection",
        "[redis]",
        "[redis]\nurl = \"redis://127.0.0.1:6379/0\"\npassword = \"${REDIS_PASSWORD}\"\n\
         journal = \"sidecache.journal\"\ncollapse = \"cluster\"",
    ),
    ("LimitsSection", "[limits]", "[limits]\nobject = \"16MiB\"\nstale = \"1h\""),
    (
        "CodingsSection",
        "[compress]",
        "[compress]\ncodings = [\"br\", \"gzip\"]\nmin_size = \"2KiB\"",
    ),
    (
        "FreshnessSection",
        "[freshness]",
        "[freshness]\ntargeted = [\"sidecache-cache-control\", \"cdn-cache-control\"]",
    ),
    ("LogSection", "[log]", "[log]\nlevel = \"info\"\nformat = \"json\"\naccess = true"),
    ("TraceSection", "[trace]", "[trace]\nendpoint = \"http://127.0.0.1:4318\"\nsample = 0.01"),
    (
        "FieldForm",
        "[fields]",
        "[fields]\ntenant   = { header = \"x-tenant-id\" }\nsession  = { cookie = \"session\" }\n\
         token    = { auth = \"token\" }\ncampaign = { body = \"/campaign/id\" }",
    ),
    (
        "JwtSection",
        "[jwt]",
        "[jwt]\njwks_url = \"https://login.example.com/keys\"\nalgorithms = [\"RS256\"]\nissuer = \
         [\"https://login.example.com\"]\naudience = [\"api\"]\n\n[fields]\ntenant = { jwt = \
         \"/tenant_id\" }",
    ),
    (
        "IdentitySection",
        "[identity]",
        "[identity]\npath = \"/api/v1/me\"\nttl  = \"30s\"\n\n[fields]\ntenant = { identity = \
         \"/tenant/id\" }",
    ),
    (
        "CredentialSection",
        "[credential]",
        "[credential]\nheaders = [\"x-api-key\"]\ncookies = [\"session\"]",
    ),
    ("TagsSection", "[tags]", "[tags]\nresponse_headers = [\"surrogate-key\"]\nkeep = true"),
    ("DebugSection", "[debug]", "[debug]\nheaders = true"),
    (
        "RouteSection",
        "[[routes]]",
        "[fields]\ntenant = { header = \"x-tenant-id\" }\n\n\
         [[routes]]\npath = \"/api/v1/campaigns/{id}\"\nttl = \"5m\"\nscope = \"shared\"\n\
         key = [\"tenant\"]\ntags = [\"campaigns:{tenant}\", \"campaign:{id}\"]",
    ),
    (
        "SignedInForm",
        "[[routes]].signed_in",
        "[[routes]]\npath = \"/{*rest}\"\nttl = \"5m\"\n\
         signed_in = { cookie = [\"wordpress_logged_in_*\", \"comment_author_*\"] }",
    ),
    (
        "PurgeSection",
        "[[purges]]",
        "[fields]\ntenant = { header = \"x-tenant-id\" }\n\n\
         [[purges]]\npath = \"/api/v1/campaigns/{*rest}\"\nmethods = [\"POST\", \"PUT\", \
         \"DELETE\"]\n\
         tags = [\"campaigns:{tenant}\"]\nrepurge_after = [\"1s\"]",
    ),
    (
        "MatchSection",
        "match of routes and purge rules",
        "[[routes]]\npath = \"/index.php\"\nttl = \"5m\"\ntags = [\"posts\"]\n\
         match = { host = \"shop.example.com\", query.action = [\"list\", \"show\"] }\n\n\
         [[purges]]\npath = \"/wp-admin/post.php\"\nmethods = [\"GET\"]\n\
         match = { query.action = \"trash\" }\ntags = [\"posts\"]",
    ),
    (
        "PurgeRequestsSection",
        "[purge_requests]",
        "[purge_requests]\nfrom = [\"127.0.0.1\", \"10.0.0.0/8\"]\ntoken = \"${PURGE_TOKEN}\"",
    ),
    (
        "SourceSection",
        "[[sources]]",
        "[fields]\ntenant = { header = \"x-tenant-id\" }\n\n\
         [[routes]]\npath = \"/api/v1/campaigns\"\nttl = \"5m\"\nkey = [\"tenant\"]\n\
         tags = [\"campaigns:{tenant}\"]\n\n\
         [[sources]]\nkind = \"postgres\"\n\
         url  = \"postgres://sidecache:${DATABASE_PASSWORD}@127.0.0.1:5432/app\"\n\
         tags = [\"campaigns:{tenant_id}\"]",
    ),
    (
        "NotifySection",
        "[[notify]]",
        "[[routes]]\npath = \"/products/{id}\"\nttl = \"5m\"\nscope = \"public\"\n\
         tags = [\"product:{id}\"]\n\n\
         [[notify]]\nkind  = \"cloudflare\"\nzone  = \"023e105f4ecef8ad9ca31a8372d0c353\"\n\
         token = \"${CLOUDFLARE_TOKEN}\"",
    ),
    (
        "ExpectSection",
        "[[expect]]",
        "[[routes]]\npath = \"/api/v1/campaigns\"\nttl = \"5m\"\nscope = \"public\"\n\
         query = [\"page\"]\n\n\
         [[expect]]\nrequest = \"GET /api/v1/campaigns?page=2\"\n\
         route = \"/api/v1/campaigns\"\nscope = \"public\"",
    ),
    (
        "OtherRequestSection",
        "[[expect]].same_entry_as",
        "[[routes]]\npath = \"/api/v1/campaigns\"\nttl = \"5m\"\nscope = \"public\"\n\
         query = [\"page\"]\n\n\
         [[expect]]\nrequest = \"GET /api/v1/campaigns?page=2\"\n\
         same_entry_as = { request = \"GET /api/v1/campaigns?page=2&utm_source=x\" }",
    ),
];

pub(super) fn page() -> String {
    let schema = schema();
    let mut page = Page::new("proxy.toml");
    page.paragraph(
        "One TOML file contains all settings. `sidecache check` reports all its errors, and \
         `sidecache schema` prints the JSON Schema, which editors use for completion. Unknown \
         keys are errors.",
    );
    page.paragraph(
        "A duration is a number with a unit: `250ms`, `30s`, `5m`, `1h30m`, \
         `7d`. A size is too: `10kB`, `64MiB`, `1GiB`.",
    );
    page.paragraph(
        "The file is read again when it changes, at SIGHUP, and by `sidecache reload`. Keys that \
         need a restart keep their old value until then; `sidecache reload` and `/stats` name \
         them. \
         After a change of a route, entries stay if the route still stores the same responses \
         under the same keys. Otherwise they are not found any more.",
    );
    for (definition, title, example) in TABLES {
        add(&mut page, &schema, definition, title, example);
    }
    page.finish()
}

fn schema() -> Value {
    serde_json::from_str(&config::json_schema()).unwrap_or_default()
}

fn table<'a>(schema: &'a Value, definition: &str) -> &'a Value {
    if definition == "ConfigFile" { schema } else { &schema["$defs"][definition] }
}

fn add(page: &mut Page, schema: &Value, definition: &str, title: &str, example: &str) {
    let table = table(schema, definition);
    page.section(&if title.starts_with('[') { code(title) } else { title.to_owned() });
    page.paragraph(text(&table["description"]));
    if definition == "FieldForm" {
        page.paragraph(text(&schema["properties"]["fields"]["description"]));
        page.paragraph(
            "A key of `[fields]` is the name of a field. Its value is a table with these keys.",
        );
    }
    let section = title.trim_matches(['[', ']']);
    let properties = &table["properties"];
    let rows: Vec<_> = key_order(definition)
        .iter()
        // Sections have headings of their own.
        .filter(|key| definition != "ConfigFile" || is_plain(&properties[**key]))
        .map(|key| {
            let property = &properties[*key];
            let is_required =
                table["required"].as_array().is_some_and(|keys| keys.iter().any(|one| one == *key));
            let restart = config::diff::at_start(section, key);
            [
                code(key),
                kind(property),
                default(property, is_required),
                if restart { "restart" } else { "reload" }.to_owned(),
                meaning(property),
            ]
        })
        .collect();
    page.table(["Key", "Type", "Default", "In force after", "Meaning"], &rows);
    page.code("toml", example);
}

/// Whether a key has a plain value, rather than a section or a list of tables.
fn is_plain(property: &Value) -> bool {
    let refers = |value: &Value| value["$ref"].is_string();
    !refers(property) && !refers(&property["items"]) && property["type"] != "object"
}

fn meaning(property: &Value) -> String {
    let mut meaning = text(&property["description"]).to_owned();
    if let Some(words) = property["enum"].as_array() {
        let _ = write!(meaning, " One of {}.", values(words));
    }
    let bounds = [
        ("minimum", "least", ""),
        ("maximum", "most", ""),
        ("minItems", "least", " in the list"),
        ("maxItems", "most", " in the list"),
    ];
    for (bound, word, of) in bounds {
        // Every number is at least 0, and a share is at most 1.
        let said =
            property[bound].as_u64().filter(|number| *number > 0 && property["type"] != "number");
        if let Some(number) = said {
            let _ = write!(meaning, " At {word} {number}{of}.");
        }
    }
    if let Some(examples) = property["examples"].as_array().filter(|_| property["title"].is_null())
    {
        let _ = write!(meaning, " For example {}.", values(examples));
    }
    meaning
}

fn values(values: &[Value]) -> String {
    let texts: Vec<String> = values.iter().map(ToString::to_string).collect();
    codes(texts.iter().map(String::as_str))
}

fn kind(property: &Value) -> String {
    if let Some(title) = property["title"].as_str() {
        return title.to_lowercase();
    }
    match property["type"].as_str() {
        Some("string") => "string".to_owned(),
        Some("integer") => "number".to_owned(),
        Some("number") => "share, 0 to 1".to_owned(),
        Some("array") => format!("list of {}s", kind(&property["items"]).trim_end_matches('s')),
        Some("object") | None => "table".to_owned(),
        Some(other) => other.to_owned(),
    }
}

fn default(property: &Value, is_required: bool) -> String {
    match &property["default"] {
        _ if is_required => "(required)".to_owned(),
        Value::Null => "(none)".to_owned(),
        value => code(&value.to_string()),
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    /// The part of the page below a heading.
    fn part<'a>(page: &'a str, title: &str) -> &'a str {
        let heading = if title.starts_with('[') {
            format!("\n## `{title}`\n")
        } else {
            format!("\n## {title}\n")
        };
        let from = page.find(&heading).unwrap_or_else(|| panic!("{title}")) + heading.len();
        let part = &page[from..];
        &part[..part.find("\n## ").unwrap_or(part.len())]
    }

    #[test]
    fn every_key_of_every_section_is_on_the_page() {
        let (schema, page) = (schema(), page());
        assert_eq!(schema["$defs"].as_object().map(serde_json::Map::len), Some(TABLES.len() - 1));
        for (definition, title, _) in TABLES {
            let part = part(&page, title);
            let properties =
                table(&schema, definition)["properties"].as_object().expect(definition);
            for (key, property) in properties {
                let row = format!("\n| `{key}` |");
                let wanted = definition != "ConfigFile" || is_plain(property);
                assert_eq!(part.contains(&row), wanted, "{title}: {key}");
                assert!(
                    !text(&property["description"]).is_empty(),
                    "{title}: {key} has no description"
                );
            }
        }
    }

    #[test]
    fn what_waits_for_a_restart_is_told() {
        let page = page();
        let row = |title, key: &str| {
            let rows = part(&page, title).lines();
            rows.into_iter()
                .find(|line| line.starts_with(&format!("| `{key}` |")))
                .expect(key)
                .to_owned()
        };
        assert!(row("[redis]", "lease").contains("| duration | `\"2s\"` | restart |"));
        assert!(row("[limits]", "object").contains("| size | `\"8MiB\"` | restart |"));
        assert!(row("[limits]", "tags").contains("| number | `2048` | reload |"));
        let ttl = "| duration, or table of statuses and durations | (none) | reload |";
        assert!(row("[[routes]]", "ttl").contains(ttl));
        assert!(row("[[routes]]", "jitter").contains("| duration | (none) | reload |"));
        assert!(row("[upstream]", "url").contains("| string | (required) | reload |"));
        assert!(row("[upstream]", "wait_timeout").contains("| restart |"));
        assert!(row("[listen]", "trusted_proxies").contains("| reload |"));
        assert!(row("[log]", "level").contains("| reload |"));
    }

    #[test]
    fn the_examples_can_be_used() {
        let env = |name: &str| Some(format!("the-value-of-{name}-is-long-enough"));
        for (definition, title, example) in TABLES {
            let upstream = "[upstream]\nurl = \"http://127.0.0.1:8000\"\n";
            let text = match definition {
                "UpstreamSection" => example.to_owned(),
                "ConfigFile" => format!("{example}\n{upstream}"),
                _ => format!("{upstream}{example}\n"),
            };
            // The folder of the journal must exist.
            let text = text.replace("/var/lib/sidecache/", "/tmp/");
            if let Err(diagnostics) = Config::parse(&text, "proxy.toml", &env) {
                panic!("{title}: {diagnostics}");
            }
        }
    }
}
