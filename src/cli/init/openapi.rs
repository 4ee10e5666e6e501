//! Proposes routes from an `OpenAPI` 3 or Swagger 2 document in JSON: what it says of GETs, their
//! parameters and credentials, and of the writes beside them.
//!
//! SECURITY: a document may be hostile. Its size is bounded by the caller, its depth by the parser,
//! its paths by [`MAX_PATHS`], and references are followed [`MAX_HOPS`] times, within the document.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::super::format::counted;
use super::proposals::Proposals;
use crate::admin::drafts;
use crate::cli::first_file::FileRule;
use crate::policy::names::{Meaning, meaning};
use crate::uncached::facts::{Facts, is_unkeyed};
use crate::uncached::fold::{Kind, MAX_SEGMENTS, PathPart};
use crate::uncached::tree::PathTemplate;

/// The most paths of a document.
const MAX_PATHS: usize = 1000;
/// The most parameters of an operation.
const MAX_PARAMETERS: usize = 32;
/// How many references in a row are followed.
const MAX_HOPS: usize = 8;
/// The longest name of a parameter.
const MAX_NAME: usize = 64;

/// What is no page: the media types of streams and downloads.
const UNFIT: [&str; 5] = [
    "text/event-stream",
    "application/octet-stream",
    "application/zip",
    "multipart/x-mixed-replace",
    "application/pdf",
];

/// Whether a file that begins so may be a document, and no log.
pub(super) fn looks_like_one(start: &str) -> bool {
    let start = start.trim_start_matches('\u{feff}').trim_start();
    let first = start.lines().next().unwrap_or_default();
    let is_object = |text: &str| serde_json::from_str::<Value>(text).is_ok_and(|it| it.is_object());
    start.starts_with('{')
        && (["\"openapi\"", "\"swagger\""].iter().any(|key| start.contains(key))
            || !is_object(first))
}

/// A GET of the document.
struct Operation<'a> {
    path: String,
    query: Vec<&'a str>,
    headers: Vec<String>,
    credential_headers: Vec<String>,
    /// How it says who asks; empty where it asks nobody.
    credentials: Vec<&'static str>,
    /// Why it gets no route.
    why_not: Option<String>,
    writes: Vec<&'static str>,
    template: PathTemplate,
    has_get: bool,
}

/// The routes that a document suggests.
pub(super) fn proposals(text: &str) -> Result<Proposals, String> {
    let text = text.trim_start_matches('\u{feff}');
    let document: Value =
        serde_json::from_str(text).map_err(|error| format!("this is not JSON: {error}"))?;
    let version = ["openapi", "swagger"].iter().find_map(|key| document.get(key)?.as_str());
    let is_known = version.is_some_and(|version| version.starts_with("3.") || version == "2.0");
    if !is_known {
        return Err("this is no OpenAPI document: allowed are `\"openapi\": \"3.x\"` and \
                    `\"swagger\": \"2.0\"`"
            .to_owned());
    }
    let Some(paths) = document.get("paths").and_then(Value::as_object) else {
        return Err("the document has no `paths`".to_owned());
    };
    let base = base_path(&document);
    let known = paths.iter().take(MAX_PATHS);
    let mut left_out = Vec::new();
    let operations: Vec<Operation<'_>> = known
        .filter_map(|(path, item)| match operation(&document, &base, path, item) {
            Ok(operation) => Some(operation),
            Err(why) => {
                left_out.push((path.clone(), why));
                None
            }
        })
        .collect();
    let templates: Vec<PathTemplate> = operations.iter().map(|one| one.template.clone()).collect();
    let (routes, refused) = drafts::drafts(&templates, false);
    left_out.extend(refused.into_iter().map(|one| (one.path, one.why)));
    let mut rules = Vec::new();
    for draft in routes {
        let operation = &operations[draft.template];
        if let Some(why) = &operation.why_not {
            left_out.push((operation.path.clone(), why.clone()));
            continue;
        }
        let below = templates[draft.template].segments.first();
        let writes = writes_beside(&operations, &draft.purge);
        rules.push(FileRule {
            reasons: reasons(operation, &writes, &draft.purge),
            path: if below.is_some() { operation.path.clone() } else { draft.path },
            mode: Some("shadow"),
            ttl: "1m".to_owned(),
            credential_headers: operation.credential_headers.clone(),
            key_headers: operation.headers.clone(),
            query: Some(operation.query.iter().map(|name| (*name).to_owned()).collect()),
            tag: draft.tag,
            purges: vec![draft.purge],
            kept_out: draft.kept_out,
            ..FileRule::default()
        });
    }
    let more = paths.len().saturating_sub(MAX_PATHS) as u64;
    Ok(Proposals {
        source: format!("an OpenAPI document of {}", counted(paths.len() as u64, "path")),
        rules,
        left_out,
        counts: vec![("path", paths.len() as u64), ("unread path", more)],
    })
}

/// The path that all paths of the document are below.
fn base_path(document: &Value) -> String {
    let own = document.get("basePath").and_then(Value::as_str);
    let server = document.pointer("/servers/0/url").and_then(Value::as_str);
    let url = own.or(server).unwrap_or_default();
    let path = match url.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("", |at| &rest[at..]),
        None => url,
    };
    // What is variable is not known.
    let is_plain = path.starts_with('/') && !path.contains(['{', '?', '#']);
    if is_plain { path.trim_end_matches('/').to_owned() } else { String::new() }
}

/// What a value is, or refers to.
fn resolve<'a>(document: &'a Value, mut value: &'a Value) -> Option<&'a Value> {
    for _ in 0..MAX_HOPS {
        let Some(reference) = value.get("$ref") else { return Some(value) };
        value = document.pointer(reference.as_str()?.strip_prefix('#')?)?;
    }
    None
}

fn operation<'a>(
    document: &'a Value,
    base: &str,
    path: &str,
    item: &'a Value,
) -> Result<Operation<'a>, String> {
    let item = resolve(document, item).ok_or("its reference leads nowhere")?;
    let (path, segments) = template(&format!("{base}{path}"))?;
    let writes: Vec<&'static str> = ["post", "put", "patch", "delete"]
        .into_iter()
        .filter(|method| item.get(method).is_some_and(Value::is_object))
        .collect();
    let get = item.get("get").filter(|get| get.is_object());
    let mut operation = Operation {
        path,
        query: Vec::new(),
        headers: Vec::new(),
        credential_headers: Vec::new(),
        credentials: Vec::new(),
        why_not: None,
        template: PathTemplate {
            segments,
            facts: Facts {
                requests: u64::from(get.is_some()),
                mutations: writes.len() as u64,
                ..Facts::default()
            },
        },
        writes,
        has_get: get.is_some(),
    };
    let Some(get) = get else { return Ok(operation) };
    let lists = [item.get("parameters"), get.get("parameters")];
    for parameter in lists.into_iter().flatten().filter_map(Value::as_array).flatten() {
        if operation.query.len() + operation.headers.len() >= MAX_PARAMETERS {
            operation.why_not = Some(format!("it has more than {MAX_PARAMETERS} parameters"));
            break;
        }
        operation.add_parameter(resolve(document, parameter));
    }
    operation.add_security(document, get);
    if let Some(kind) = unfit(document, get) {
        operation.why_not.get_or_insert(format!("its response is {kind}: a stream or a download"));
    }
    Ok(operation)
}

impl<'a> Operation<'a> {
    fn add_parameter(&mut self, parameter: Option<&'a Value>) {
        let text = |key: &str| parameter.and_then(|it| it.get(key)).and_then(Value::as_str);
        let (Some(name), Some(place)) = (text("name"), text("in")) else {
            self.why_not = Some("one of its parameters cannot be read".to_owned());
            return;
        };
        let is_name = !name.is_empty()
            && name.len() <= MAX_NAME
            && name.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"'\\&=#".contains(&byte));
        match place {
            _ if !is_name => {
                self.why_not = Some("one of its parameters has an unusual name".to_owned());
            }
            "query" if meaning(name) == Some(Meaning::Credential) => {
                self.why_not = Some(format!("its parameter `{name}` is a credential"));
            }
            "query" if !self.query.contains(&name) => self.query.push(name),
            "header" => self.add_header(name),
            _ => {}
        }
    }

    fn add_header(&mut self, name: &str) {
        let name = name.to_ascii_lowercase();
        if http::HeaderName::from_bytes(name.as_bytes()).is_err() || !is_unkeyed(&name) {
            return;
        }
        let list = match meaning(&name) {
            Some(Meaning::Credential) => &mut self.credential_headers,
            Some(Meaning::Address | Meaning::Cache) => return,
            _ => &mut self.headers,
        };
        if !list.contains(&name) {
            list.push(name);
        }
    }

    fn add_security(&mut self, document: &'a Value, get: &'a Value) {
        let asked = get.get("security").or_else(|| document.get("security"));
        let schemes = document
            .pointer("/components/securitySchemes")
            .or_else(|| document.get("securityDefinitions"));
        let asked = asked.and_then(Value::as_array).into_iter().flatten();
        let names: BTreeSet<&str> = asked
            .filter_map(Value::as_object)
            .flat_map(Map::keys)
            .map(String::as_str)
            .take(MAX_PARAMETERS)
            .collect();
        for name in names {
            let scheme = schemes.and_then(|all| all.get(name));
            let scheme = scheme.and_then(|scheme| resolve(document, scheme));
            let text = |key: &str| scheme.and_then(|it| it.get(key)).and_then(Value::as_str);
            match (text("type"), text("in"), text("name")) {
                (Some("apiKey"), Some("header"), Some(header)) => {
                    let header = header.to_ascii_lowercase();
                    let is_own = http::HeaderName::from_bytes(header.as_bytes()).is_ok()
                        && !["authorization", "cookie"].contains(&header.as_str());
                    if is_own && !self.credential_headers.contains(&header) {
                        self.credential_headers.push(header);
                    }
                    self.credentials.push("a header");
                }
                (Some("apiKey"), Some("cookie"), _) => self.credentials.push("a cookie"),
                (Some("apiKey"), Some("query"), _) => {
                    self.why_not = Some("its credential is a parameter of the query".to_owned());
                }
                (Some(_), _, _) => self.credentials.push("`Authorization`"),
                (None, _, _) => {
                    self.credentials.push("something that the document does not define");
                }
            }
        }
    }
}

/// The path of a route, and its segments.
fn template(path: &str) -> Result<(String, Vec<PathPart>), String> {
    if !path.starts_with('/') || path.len() > 1024 || path.contains(['?', '#', '%', '\\', ';']) {
        return Err("no route can have such a path".to_owned());
    }
    let (mut text, mut segments, mut names) = (String::new(), Vec::new(), BTreeSet::new());
    for segment in path[1..].split('/') {
        if segments.len() == MAX_SEGMENTS {
            return Err("its paths are too deep for a route".to_owned());
        }
        text.push('/');
        let inner = segment.strip_prefix('{').and_then(|rest| rest.split_once('}'));
        match inner {
            Some((name, ending)) if !ending.contains(['{', '}']) => {
                let name = capture(name, &mut names);
                let _ = write!(text, "{{{name}}}{ending}");
                segments.push(PathPart::Value(Kind::Id, ending.into()));
            }
            None if !segment.contains(['{', '}', '*']) => {
                text += segment;
                segments.push(PathPart::Literal(segment.into()));
            }
            _ => return Err("it has more than one parameter in a segment".to_owned()),
        }
    }
    Ok((text, segments))
}

/// A name for a capture, which no other one of the path has.
fn capture(name: &str, names: &mut BTreeSet<String>) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
    let mut name: String = name.chars().take(32).map(plain).collect();
    if !name.starts_with(|c: char| c.is_ascii_alphabetic()) || name == "caller" {
        name = format!("id_{name}");
    }
    while !names.insert(name.clone()) {
        name.push('_');
    }
    name
}

/// The media type of a response that is no page.
fn unfit<'a>(document: &'a Value, get: &'a Value) -> Option<&'a str> {
    let responses = get.get("responses").and_then(Value::as_object);
    let responses = responses.into_iter().flat_map(Map::values).take(MAX_PARAMETERS);
    let contents = responses
        .filter_map(|response| resolve(document, response)?.get("content")?.as_object())
        .flat_map(Map::keys)
        .map(String::as_str);
    let produced = get.get("produces").and_then(Value::as_array).into_iter().flatten();
    let mut kinds = contents.chain(produced.filter_map(Value::as_str));
    kinds.find(|kind| UNFIT.iter().any(|unfit| kind.starts_with(unfit)))
}

/// The writes at and below this path: methods and paths.
fn writes_beside(operations: &[Operation<'_>], purge: &str) -> Vec<String> {
    let base = purge.trim_end_matches("/{*rest}");
    let is_below = |path: &str| {
        path.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    operations
        .iter()
        .filter(|one| !one.writes.is_empty() && is_below(&one.path))
        .map(|one| format!("{} {}", one.writes.join(", ").to_uppercase(), one.path))
        .take(8)
        .collect()
}

fn reasons(operation: &Operation<'_>, writes: &[String], purge: &str) -> Vec<String> {
    let mut reasons = Vec::new();
    reasons.push(if operation.credentials.is_empty() {
        "By the document nobody has to say who asks. If everybody gets the same, scope = \
         \"public\" shares one entry; without it, callers with a credential have their own."
            .to_owned()
    } else {
        format!(
            "By the document {} says who asks: each caller has entries of its own. If all who may \
             ask get the same, see scope = \"shared\".",
            operation.credentials.join(" or ")
        )
    });
    if operation.query.is_empty() {
        reasons.push("It has no parameters: others are withheld from the app.".to_owned());
    }
    reasons.push(if writes.is_empty() {
        format!("The document has no write at or below {}.", purge.trim_end_matches("/{*rest}"))
    } else {
        format!("Writes that purge it: {}.", writes.join("; "))
    });
    debug_assert!(operation.has_get, "a route is for a GET");
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = r##"{
      "openapi": "3.0.1", "servers": [{"url": "https://api.test/v1"}],
      "security": [{"token": []}],
      "components": {
        "securitySchemes": {
          "token": {"type": "http", "scheme": "bearer"},
          "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"}
        },
        "parameters": {"page": {"name": "page", "in": "query"}}
      },
      "paths": {
        "/items": {
          "parameters": [{"$ref": "#/components/parameters/page"}],
          "get": {"parameters": [{"name": "X-Tenant-Id", "in": "header"}]},
          "post": {}
        },
        "/items/{item-id}": {"get": {"security": [{"key": []}]}, "put": {}, "delete": {}},
        "/login": {"get": {}}, "/admin/x": {"get": {}},
        "/events": {"get": {"responses": {"200": {"content": {"text/event-stream": {}}}}}},
        "/signed": {"get": {"parameters": [{"name": "api_key", "in": "query"}]}},
        "/a/{x}-{y}": {"get": {}}, "/imports": {"post": {}}
      }
    }"##;

    #[test]
    fn gets_become_routes_in_shadow_mode_with_the_writes_beside_them() {
        let found = proposals(DOCUMENT).expect("a document");
        let paths: Vec<&str> = found.rules.iter().map(|rule| rule.path.as_str()).collect();
        assert_eq!(paths, ["/v1/items", "/v1/items/{item_id}"]);
        let (list, item) = (&found.rules[0], &found.rules[1]);
        assert_eq!(list.query.as_deref(), Some(&["page".to_owned()][..]));
        assert_eq!(list.key_headers, ["x-tenant-id"]);
        assert_eq!(item.credential_headers, ["x-api-key"]);
        assert_eq!(item.purges, ["/v1/items/{*rest}"]);
        assert!(item.reasons.join(" ").contains("PUT, DELETE /v1/items/{item_id}"));
        assert!(list.reasons[0].contains("`Authorization`"), "{:?}", list.reasons);
        assert_eq!(found.left_out.len(), 5, "{:?}", found.left_out);
    }

    #[test]
    fn swagger_2_is_read() {
        let text = r#"{"swagger":"2.0","basePath":"/api","paths":{"/a/{id}.json":{"get":{
            "parameters":[{"name":"q","in":"query"}]}}}}"#;
        let found = proposals(text).expect("a document");
        assert_eq!(found.rules[0].path, "/api/a/{id}.json");
    }

    #[test]
    fn hostile_documents_end() {
        let cycle = r##"{"openapi":"3.1.0","a":{"$ref":"#/b"},"b":{"$ref":"#/a"},
            "paths":{"/x":{"$ref":"#/a"},"/y":{"get":{"parameters":[{"$ref":"#/a"}]}}}}"##;
        let found = proposals(cycle).expect("the rest can be read");
        assert!(found.rules.is_empty());
        assert_eq!(found.left_out.len(), 2, "{:?}", found.left_out);
        let deep = format!("{{\"openapi\":\"3.0.0\",\"paths\":{}", "[".repeat(100_000));
        assert!(proposals(&deep).is_err());
        for text in ["", "[]", "{}", r#"{"openapi":"4.0"}"#, r#"{"openapi":"3.0","paths":[]}"#] {
            assert!(proposals(text).is_err(), "{text}");
        }
        let many: Vec<String> =
            (0..5000).map(|at| format!("\"/p{at}/x\":{{\"get\":{{}}}}")).collect();
        let many = format!("{{\"openapi\":\"3.0.0\",\"paths\":{{{}}}}}", many.join(","));
        assert!(proposals(&many).expect("a document").rules.len() <= MAX_PATHS);
    }

    #[test]
    fn a_document_is_told_from_a_log() {
        for (start, expected) in [
            ("{\"openapi\":\"3.0.0\"}", true),
            ("{\n  \"info\": {", true),
            ("{\"method\":\"GET\",\"path\":\"/a\"}\n{\"method\":\"GET\"}", false),
            ("1.2.3.4 - - [t] \"GET / HTTP/1.1\" 200", false),
        ] {
            assert_eq!(looks_like_one(start), expected, "{start}");
        }
    }
}
