//! The `OpenAPI` 3.1 document of the admin API. A test compares it with the code.

use serde_json::{Value, json};

/// The document, with the version of this build.
pub(crate) fn document() -> Value {
    let mut document: Value =
        serde_json::from_str(include_str!("openapi.json")).unwrap_or_default();
    document["info"]["version"] = json!(env!("CARGO_PKG_VERSION"));
    document
}

#[cfg(test)]
mod tests {
    use super::super::api::PATHS;
    use super::*;

    #[test]
    fn it_describes_every_path_and_no_other() {
        let document = document();
        let mut described: Vec<&str> =
            document["paths"].as_object().expect("paths").keys().map(String::as_str).collect();
        let mut served = PATHS.to_vec();
        described.sort_unstable();
        served.sort_unstable();
        assert_eq!(described, served);
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn walk(whole: &Value, at: &Value) {
            match at {
                Value::Object(map) => {
                    if let Some(Value::String(reference)) = map.get("$ref") {
                        assert!(whole.pointer(&reference[1..]).is_some(), "{reference}");
                    }
                    map.values().for_each(|value| walk(whole, value));
                }
                Value::Array(list) => list.iter().for_each(|value| walk(whole, value)),
                _ => {}
            }
        }
        let document = document();
        walk(&document, &document);
    }
}
