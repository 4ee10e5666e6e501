//! Tests of what a request to a GraphQL endpoint is.

use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use serde_json::json;

use super::known::{MAX_DOCUMENTS, hash_of};
use super::*;
use crate::policy::body_fields::BodyFields;
use crate::units::hex;

mod documents;

const LIST: &str = "query List { orders { id } }";
const SET: &str = "mutation Set { a: createOrder(id: 1) { id } }";
const BOTH: &str = "query Q { orders { id } } mutation M { createOrder { id } }";

fn json_headers() -> HeaderMap {
    HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))])
}

fn posted(body: &str, url: &str, known: Option<&KnownDocuments>) -> String {
    shown(&read_post(&json_headers(), url, body.as_bytes(), known))
}

fn shown(request: &GraphqlRequest) -> String {
    match request {
        GraphqlRequest::Read(_) => "read".to_owned(),
        GraphqlRequest::Pass(cause) => format!("pass {cause}"),
        GraphqlRequest::UnknownDocument => "unknown".to_owned(),
        GraphqlRequest::Write(WrittenFields::Unknown) => "in doubt".to_owned(),
        GraphqlRequest::Write(WrittenFields::These(fields)) => {
            format!("write {}", fields.names.iter().map(|it| &**it).collect::<Vec<_>>().join(","))
        }
    }
}

fn body(query: &str) -> String {
    json!({ "query": query }).to_string()
}

#[test]
fn a_post_is_a_read_only_if_nothing_else_can_run() {
    for (body, url, is) in [
        (body(LIST), "", "read"),
        (body("{ orders { id } }"), "", "read"),
        (body("\u{a0}"), "", "in doubt"),
        (
            json!({ "query": LIST, "operationName": "List", "variables": { "a": 1 } }).to_string(),
            "",
            "read",
        ),
        (
            json!({ "query": LIST, "operationName": null, "variables": null, "extensions": null })
                .to_string(),
            "",
            "read",
        ),
        (
            json!({ "query": LIST, "extensions": { "clientLibrary": { "name": "x" } } })
                .to_string(),
            "",
            "read",
        ),
        (body("{ __schema { types { name } } }"), "", "read"),
        (body(SET), "", "write createOrder"),
        // The operation that runs is chosen by its name.
        (body(BOTH), "", "write createOrder"),
        (json!({ "query": BOTH, "operationName": "Q" }).to_string(), "", "read"),
        (json!({ "query": BOTH, "operationName": "M" }).to_string(), "", "write createOrder"),
        (json!({ "query": BOTH, "operationName": "N" }).to_string(), "", "write createOrder"),
        (json!({ "query": BOTH, "operationName": "" }).to_string(), "", "write createOrder"),
        (json!({ "query": BOTH, "operationName": ["Q"] }).to_string(), "", "write createOrder"),
        (
            json!({ "query": "query Q { a } mutation Q { b }", "operationName": "Q" }).to_string(),
            "",
            "write b",
        ),
        (body("query A { a } query B { b }"), "", "pass (no operation is chosen)"),
        (
            json!({ "query": "query A { a } query B { b }", "operationName": "B" }).to_string(),
            "",
            "read",
        ),
        (body("subscription S { a }"), "", "pass (subscription)"),
        (body("query Q { a } subscription S { b }"), "", "pass (no operation is chosen)"),
        (
            json!({ "query": "query Q { a } subscription S { b }", "operationName": "Q" })
                .to_string(),
            "",
            "read",
        ),
        (body("{ a ... @defer { b } }"), "", "pass (answered in parts)"),
        (body("{ a @stream(initialCount: 1) { b } }"), "", "pass (answered in parts)"),
        (body("query Q @live { a }"), "", "pass (answered in parts)"),
    ] {
        assert_eq!(posted(&body, url, None), is, "{body} {url}");
    }
}

#[test]
fn what_may_name_another_document_is_in_doubt() {
    for (body, url, is) in [
        (r#"{"query":"{a}","query":"mutation{b}"}"#.to_owned(), "", "in doubt"),
        (r#"{"query":"{a}","Query":"mutation{b}"}"#.to_owned(), "", "in doubt"),
        (r#"{"Query":"mutation{b}"}"#.to_owned(), "", "in doubt"),
        (r#"{"query":"{a}"} {"query":"mutation{b}"}"#.to_owned(), "", "in doubt"),
        (json!({ "query": LIST, "id": "x" }).to_string(), "", "in doubt"),
        (json!({ "documentId": "x" }).to_string(), "", "in doubt"),
        (json!({ "query": LIST, "_method": "PUT" }).to_string(), "", "in doubt"),
        (json!({ "query": LIST, "extensions": { "documentId": "x" } }).to_string(), "", "in doubt"),
        (
            json!({ "query": LIST, "extensions": { "persistedQuery": { "sha256Hash": "ab" } } })
                .to_string(),
            "",
            "in doubt",
        ),
        (body(LIST), "query=mutation%7Ba%7D", "in doubt"),
        (body(LIST), "q%75ery=x", "in doubt"),
        (body(LIST), "QUERY=x", "in doubt"),
        (body(LIST), "query[]=x", "in doubt"),
        (body(LIST), "a=1;query=x", "in doubt"),
        (body(LIST), "doc_id=1", "in doubt"),
        (body(LIST), "operationName=Other", "in doubt"),
        (body(LIST), "op=List&tenant=7", "read"),
        (
            json!({ "query": LIST, "operationName": "List" }).to_string(),
            "operationName=List",
            "read",
        ),
        // What no server reads as a document.
        (body("{ a "), "", "in doubt"),
        (body("type Query { a: Int }"), "", "in doubt"),
        (body("fragment F on Q { a }"), "", "pass (no operation is chosen)"),
        (String::new(), "", "in doubt"),
        ("{}".to_owned(), "", "in doubt"),
        ("[]".to_owned(), "", "in doubt"),
        ("7".to_owned(), "", "in doubt"),
        // Batches.
        (format!("[{},{}]", body(LIST), body(LIST)), "", "pass (batch)"),
        (format!("[{},{}]", body(LIST), body(SET)), "", "write createOrder"),
        (format!("[{},{}]", body("mutation { b }"), body(SET)), "", "write b,createOrder"),
        (format!("[{},7]", body(LIST)), "", "in doubt"),
    ] {
        assert_eq!(posted(&body, url, None), is, "{body} {url}");
    }
}

#[test]
fn only_plain_json_is_read() {
    for (kind, coding, is) in [
        ("application/json", None, "read"),
        ("Application/JSON; charset=UTF-8", None, "read"),
        ("application/json; charset=utf-16", None, "in doubt"),
        ("application/json", Some("gzip"), "in doubt"),
        ("application/json", Some("identity"), "in doubt"),
        ("application/graphql", None, "in doubt"),
        ("application/graphql+json", None, "in doubt"),
        ("application/x-www-form-urlencoded", None, "in doubt"),
        ("multipart/form-data; boundary=x", None, "in doubt"),
        ("text/plain", None, "in doubt"),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        if let Some(coding) = coding {
            headers.insert("content-encoding", HeaderValue::from_static(coding));
        }
        let found = read_post(&headers, "", body(LIST).as_bytes(), None);
        assert_eq!(shown(&found), is, "{kind} {coding:?}");
    }
    assert_eq!(shown(&read_post(&HeaderMap::new(), "", body(LIST).as_bytes(), None)), "in doubt");
}

#[test]
fn a_get_may_be_a_mutation() {
    for (url, is) in [
        ("", "pass (no document)"),
        ("a=1", "pass (no document)"),
        ("query=%7Ba%7D", "read"),
        ("query=%7Ba%7D&variables=%7B%7D&operationName=Q&extensions=%7B%7D&x=1", "read"),
        ("query=query+Q%7Ba%7D&operationName=", "read"),
        ("query=mutation%7Ba%7D", "write a"),
        ("query=mutation%7Ba%7D&query=%7Ba%7D", "in doubt"),
        ("query=%7Ba%7D&query%5B%5D=mutation%7Ba%7D", "in doubt"),
        ("query=%7Ba%7D;query=mutation%7Ba%7D", "in doubt"),
        ("query=%7Ba%7D&id=7", "in doubt"),
        ("query=%7Ba%7D&Query=mutation%7Ba%7D", "in doubt"),
        ("query=%7Ba%FF%7D", "in doubt"),
        ("query=%7Ba%", "in doubt"),
        ("query=subscription%7Ba%7D", "pass (subscription)"),
        ("documentId=7", "unknown"),
        ("extensions=%7B%22persistedQuery%22%3A7%7D", "unknown"),
        ("query=%7Ba%7D&extensions=%7B%22persistedQuery%22%3A7%7D", "in doubt"),
    ] {
        assert_eq!(shown(&read_get(url, false, None)), is, "{url}");
    }
    assert_eq!(shown(&read_get("query=%7Ba%7D", true, None)), "in doubt");
}

#[test]
fn a_hash_stands_for_a_document_that_was_seen_and_reads() {
    let known = KnownDocuments::default();
    let hashed = |text: &str, document: bool| {
        let extensions =
            json!({ "persistedQuery": { "version": 1, "sha256Hash": hex(&hash_of(text)) } });
        if document {
            json!({ "query": text, "extensions": extensions }).to_string()
        } else {
            json!({ "extensions": extensions }).to_string()
        }
    };
    assert_eq!(posted(&hashed(LIST, false), "", Some(&known)), "unknown");
    let sent = hashed(LIST, true);
    let read = read_post(&json_headers(), "", sent.as_bytes(), Some(&known));
    let GraphqlRequest::Read(Some(document)) = read else { panic!("{read:?}") };
    assert_eq!(posted(&hashed(LIST, false), "", Some(&known)), "unknown", "not asked yet");
    known.remember(document);
    assert_eq!(posted(&hashed(LIST, false), "", Some(&known)), "read");
    assert_eq!(posted(&hashed(SET, true), "", Some(&known)), "write createOrder");
    assert_eq!(posted(&hashed(SET, false), "", Some(&known)), "unknown");
    // Nothing that may write is ever remembered.
    for text in [SET, BOTH, "{ a ... @defer { b } }", "subscription S { a }"] {
        let named = json!({ "query": text, "operationName": "Q" }).to_string();
        let read = read_post(&json_headers(), "", named.as_bytes(), Some(&known));
        assert!(!matches!(read, GraphqlRequest::Read(Some(_))), "{text}: {read:?}");
    }
    // A hash of another document is a lie.
    let lie = hex(&hash_of(SET));
    for extensions in [
        json!({ "persistedQuery": { "version": 1, "sha256Hash": lie } }),
        json!({ "persistedQuery": { "version": 2, "sha256Hash": hex(&hash_of(LIST)) } }),
        json!({ "persistedQuery": { "sha256Hash": hex(&hash_of(LIST)).to_uppercase() } }),
        json!({ "persistedQuery": [lie] }),
    ] {
        let sent = json!({ "query": LIST, "extensions": extensions }).to_string();
        assert_eq!(posted(&sent, "", Some(&known)), "in doubt", "{sent}");
    }
}

/// A server that checks no hash runs the other document from then on.
#[test]
fn r1265_a_hash_that_comes_with_another_document_is_forgotten() {
    let known = KnownDocuments::default();
    known.remember(KnownDocument { hash: hash_of(LIST), is_single: true });
    let persisted = json!({ "version": 1, "sha256Hash": hex(&hash_of(LIST)) });
    let extensions = json!({ "persistedQuery": persisted });
    let alone = json!({ "extensions": extensions }).to_string();
    assert_eq!(posted(&alone, "", Some(&known)), "read");
    let lie = json!({ "query": SET, "extensions": extensions }).to_string();
    assert_eq!(posted(&lie, "", Some(&known)), "in doubt");
    assert_eq!(posted(&alone, "", Some(&known)), "unknown");
}

#[test]
fn what_is_known_is_bounded() {
    let known = KnownDocuments::default();
    for at in 0..3 * MAX_DOCUMENTS {
        let hash = hash_of(&at.to_string());
        known.remember(KnownDocument { hash, is_single: true });
    }
    assert!(known.len() <= MAX_DOCUMENTS, "{}", known.len());
}

#[test]
fn an_answer_is_whole_if_it_has_data_and_no_errors() {
    for (text, is) in [
        (r#"{"data":{"a":1}}"#, true),
        (r#"{"data":{}}"#, true),
        (r#"{"data":{"errors":[1]},"extensions":{"errors":[1]}}"#, true),
        (r#"{"data":{"a":1},"errors":[]}"#, true),
        (r#"{"data":{"a":1},"errors":null}"#, true),
        ("\u{feff}{\"data\":{}}", true),
        (r#"{"data":{"a":1},"errors":[{"message":"no"}]}"#, false),
        (r#"{"errors":[{"message":"no"}],"data":{"a":1}}"#, false),
        (r#"{"data":{"a":1},"errors":"no"}"#, false),
        (r#"{"data":null}"#, false),
        (r#"{"data":{"a":1},"hasNext":true}"#, false),
        ("{}", false),
        ("[]", false),
        (r#"[{"data":{}}]"#, false),
        ("", false),
        ("<html>", false),
        (r#"{"data":{}} x"#, false),
        (r#"{"data":{}"#, false),
    ] {
        assert_eq!(is_whole_answer(text.as_bytes()), is, "{text}");
    }
    assert!(!is_whole_answer("[".repeat(100_000).as_bytes()));
}

#[test]
fn a_write_is_told_by_its_root_fields() {
    let written = |body: &str, url: &str| {
        let fields = BodyFields::parse(b"application/json", body.as_bytes());
        let method = http::Method::POST;
        shown(&GraphqlRequest::Write(written_by(
            &method,
            &json_headers(),
            url,
            true,
            fields.as_ref(),
        )))
    };
    let persisted = |hash: &str| {
        let persisted = json!({ "persistedQuery": { "version": 1, "sha256Hash": hash } });
        json!({ "query": SET, "extensions": persisted }).to_string()
    };
    for (body, url, is) in [
        (body(SET), "", "write createOrder"),
        (persisted(&hex(&hash_of(SET))), "", "write createOrder"),
        (persisted(&hex(&hash_of(LIST))), "", "in doubt"),
        (body(LIST), "", "in doubt"),
        (body(SET), "query=x", "in doubt"),
        (json!({ "query": SET, "id": 7 }).to_string(), "", "in doubt"),
        (json!({ "query": SET, "extensions": { "docId": 7 } }).to_string(), "", "in doubt"),
        (json!({ "query": [SET] }).to_string(), "", "in doubt"),
        (r#"{"query":"mutation{a}","query":"mutation{b}"}"#.to_owned(), "", "in doubt"),
        (format!("[{}]", body(SET)), "", "in doubt"),
    ] {
        assert_eq!(written(&body, url), is, "{body} {url}");
    }
}
