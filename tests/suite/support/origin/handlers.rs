//! Origins that several suites use, as handlers.

use std::collections::HashMap;
use std::sync::Mutex;

use hyper::Method;
use serde_json::json;

use super::{Request, Response, lock};

/// Numbers that writes count up: a GET of `/v/NAME` answers the number, a PUT or POST of `/w/NAME`
/// (or `/v/NAME`) adds one. The header `x-test` changes what a write does: `401` refuses it; `500`
/// and `hangup` happen after it is done.
pub fn versioned() -> impl Fn(&Request) -> Response + Send + Sync {
    let versions: Mutex<HashMap<String, u64>> = Mutex::default();
    move |request| {
        let name = request.path.rsplit('/').next().unwrap_or_default().to_owned();
        let mut versions = lock(&versions);
        let version = versions.entry(name).or_default();
        if matches!(request.method, Method::GET | Method::HEAD) {
            return Response::ok(version.to_string());
        }
        match request.header("x-test").as_deref() {
            Some("401") => return Response::status(401, "no"),
            Some("500") => {
                *version += 1;
                return Response::status(500, "after the write");
            }
            Some("hangup") => {
                *version += 1;
                return Response::hang_up();
            }
            _ => *version += 1,
        }
        Response::ok(version.to_string())
    }
}

/// Routes and purge rules for [`versioned`]: writes to `/w/NAME` purge `/v/NAME` by tag alone, not
/// by their own URL.
pub const VERSIONED_RULES: &str = r#"
[[routes]]
path  = "/v/{name}"
ttl   = "5m"
scope = "public"
tags  = ["v:{name}"]

[[purges]]
path = "/w/{name}"
tags = ["v:{name}"]
"#;

/// Answers everybody who they are: tenant, credentials and account as they came, and what was
/// request for. Without a bearer token, or with one that begins with `bad`, it says the same with a
/// 401; public paths need no token.
pub fn identity(request: &Request) -> Response {
    let authorization = request.header("authorization");
    let known = authorization
        .as_deref()
        .is_some_and(|value| value.starts_with("Bearer ") && !value.starts_with("Bearer bad"));
    let body = json!({
        "tenant": request.header("x-tenant-id"),
        "authorization": authorization,
        "cookie": request.header("cookie"),
        "account": request.header("x-account-id"),
        "path": request.path,
        "query": request.query,
    });
    let status = if known || request.path.starts_with("/public") { 200 } else { 401 };
    Response::status(status, body.to_string())
}
