//! `admin-api.md`: the admin API, from the `OpenAPI` document that the sidecar serves.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::markdown::{Page, code};
use crate::admin::openapi_document;

const ADDRESS: &str = "http://127.0.0.1:9090";
/// The path of named schemas.
const SCHEMAS: &str = "#/components/schemas/";

pub(super) fn page() -> String {
    let document = openapi_document();
    let mut page = Page::new("Admin API");
    page.paragraph(text(&document["info"]["description"]));
    page.paragraph(&format!(
        "The examples use the default address of `[admin]`, `{ADDRESS}`, and take the token from \
         `$TOKEN`. `GET /openapi.json` is this page for programs.",
    ));
    page.section("Authentication");
    page.table(["Scheme", "How the token is sent"], &schemes(&document));
    for (path, methods) in entries(&document["paths"]) {
        for (method, operation) in entries(methods) {
            add(&mut page, &document, path, method, operation);
        }
    }
    page.section("Schemas");
    page.paragraph("The objects named above. A dot leads into an object, `[]` into a list.");
    for (name, schema) in entries(&document["components"]["schemas"]) {
        page.subsection(name);
        if let Some(description) = schema["description"].as_str() {
            page.paragraph(description);
        }
        page.table(["Field", "Type", "Always present", "Meaning"], &fields(schema));
    }
    page.finish()
}

fn schemes(document: &Value) -> Vec<[String; 2]> {
    let scheme = |(name, scheme): (&String, &Value)| {
        let how = match (scheme["scheme"].as_str(), scheme["name"].as_str()) {
            (Some("bearer"), _) => "`Authorization: Bearer TOKEN`".to_owned(),
            (_, Some(header)) => code(&format!("{header}: TOKEN")),
            _ => text(&scheme["description"]).to_owned(),
        };
        [code(name), how]
    };
    entries(&document["components"]["securitySchemes"]).map(scheme).collect()
}

fn add(page: &mut Page, document: &Value, path: &str, method: &str, operation: &Value) {
    page.section(&code(&format!("{} {path}", method.to_uppercase())));
    page.paragraph(&format!("{}.", text(&operation["summary"]).trim_end_matches('.')));
    if needs_no_token(operation) {
        page.paragraph("Needs no token.");
    }
    let parameters: Vec<_> =
        operation["parameters"].as_array().into_iter().flatten().map(parameter).collect();
    page.table(["Parameter", "In", "Type", "Meaning"], &parameters);
    let body = &operation["requestBody"]["content"]["application/json"];
    if !body.is_null() {
        page.paragraph(&format!("The body is JSON: {}.", kind(&body["schema"])));
        page.table(["Field", "Type", "Required", "Meaning"], &fields(&body["schema"]));
    }
    let responses: Vec<_> = entries(&operation["responses"])
        .map(|(status, response)| {
            let response = resolve(document, response);
            let content = entries(&response["content"]).next();
            let (media, schema) = content
                .map_or((String::new(), String::new()), |(media, content)| {
                    (code(media), kind(&content["schema"]))
                });
            [code(status), text(&response["description"]).to_owned(), media, schema]
        })
        .collect();
    page.table(["Status", "Meaning", "Media type", "Body"], &responses);
    // The fields of a successful response whose schema has no name.
    let content = operation.pointer("/responses/200/content/application~1json/schema");
    page.table(
        ["Field of the response", "Type", "Always present", "Meaning"],
        &content.map(fields).unwrap_or_default(),
    );
    page.code("sh", &curl(path, method, operation));
}

fn parameter(parameter: &Value) -> [String; 4] {
    [
        code(text(&parameter["name"])),
        text(&parameter["in"]).to_owned(),
        kind(&parameter["schema"]),
        text(&parameter["description"]).to_owned(),
    ]
}

fn needs_no_token(operation: &Value) -> bool {
    operation["security"].as_array().is_some_and(Vec::is_empty)
}

fn curl(path: &str, method: &str, operation: &Value) -> String {
    let streams = operation.pointer("/responses/200/content/text~1event-stream").is_some();
    let mut line = format!("curl{}", if streams { " -N" } else { "" });
    if !needs_no_token(operation) {
        line.push_str(" -H \"Authorization: Bearer $TOKEN\"");
    }
    if method == "post" {
        let example = &operation["requestBody"]["content"]["application/json"]["example"];
        let _ = write!(line, " -H 'Content-Type: application/json' \\\n  -d '{example}' \\\n ");
    }
    format!("{line} {ADDRESS}{}", filled(path, operation))
}

/// The path with the examples of its parameters.
fn filled(path: &str, operation: &Value) -> String {
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    parameters.filter(|parameter| parameter["in"] == "path").fold(path.to_owned(), |path, one| {
        path.replace(&format!("{{{}}}", text(&one["name"])), text(&one["example"]))
    })
}

/// The fields of an object, including those of nested objects and lists.
fn fields(schema: &Value) -> Vec<[String; 4]> {
    let mut rows = Vec::new();
    add_fields(&mut rows, "", schema);
    rows
}

fn add_fields(rows: &mut Vec<[String; 4]>, before: &str, schema: &Value) {
    let required = schema["required"].as_array();
    for (name, field) in entries(&schema["properties"]) {
        let path = format!("{before}{name}");
        let is_required = required.is_some_and(|names| names.iter().any(|one| one == name));
        let needed = if is_required { "yes" } else { "no" };
        let meaning = text(&field["description"]).to_owned();
        rows.push([code(&path), kind(field), needed.to_owned(), meaning]);
        add_fields(rows, &format!("{path}."), field);
        add_fields(rows, &format!("{path}[]."), &field["items"]);
    }
}

/// A type in words.
fn kind(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.trim_start_matches(SCHEMAS);
        return format!("[{name}](#{})", name.to_lowercase());
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        return choices.iter().map(kind).collect::<Vec<_>>().join(" or ");
    }
    if let Some(words) = schema["enum"].as_array() {
        let words = words.iter().map(|word| word.as_str().map_or_else(|| word.to_string(), code));
        return words.collect::<Vec<_>>().join(", ");
    }
    let named = |name: &str| match name {
        "array" => format!("list of {}", kind(&schema["items"])),
        other => other.to_owned(),
    };
    match &schema["type"] {
        Value::String(name) => named(name),
        Value::Array(types) => {
            types.iter().filter_map(Value::as_str).map(named).collect::<Vec<_>>().join(" or ")
        }
        _ => "any".to_owned(),
    }
}

fn resolve<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    let target = value["$ref"].as_str().and_then(|reference| document.pointer(&reference[1..]));
    target.unwrap_or(value)
}

/// Sorted by name, because the order of a map depends on the features of `serde_json`.
fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    let mut entries: Vec<_> = value.as_object().into_iter().flat_map(Map::iter).collect();
    entries.sort_by_key(|(name, _)| *name);
    entries.into_iter()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_and_schema_is_on_the_page() {
        let (document, page) = (openapi_document(), page());
        assert!(entries(&document["paths"]).count() > 8);
        for (path, methods) in entries(&document["paths"]) {
            for (method, _) in entries(methods) {
                let heading = format!("\n## `{} {path}`\n", method.to_uppercase());
                assert!(page.contains(&heading), "{heading}");
            }
        }
        for (name, schema) in entries(&document["components"]["schemas"]) {
            assert!(page.contains(&format!("\n### {name}\n")), "{name}");
            for (field, _) in entries(&schema["properties"]) {
                assert!(page.contains(&format!("| `{field}` |")), "{name}: {field}");
            }
        }
    }

    #[test]
    fn every_body_that_is_sent_has_an_example() {
        let page = page();
        assert!(!page.contains("-d 'null'"), "{page}");
        assert!(page.contains("-d '{\"tags\":[\"campaigns:acme\"]}'"), "{page}");
    }
}
