//! What the origin would receive on a fill, for `explain`.

use http::header::{AUTHORIZATION, COOKIE, HeaderName, HeaderValue};

use crate::policy::plan::{FillHead, Lookup};
use crate::policy::route::HeaderRole;

/// The request line and the headers of a fill, one text for each.
pub(super) fn fill_lines(lookup: &Lookup<'_>) -> Vec<String> {
    let id = HeaderValue::from_static("(made anew for each request)");
    let FillHead { target, headers } = lookup.fill_request(id);
    let mut lines = vec![format!("{} {target}", lookup.fill_method())];
    for (name, value) in &headers {
        // SECURITY: an explanation is copied into tickets.
        let shown = if is_secret(lookup, name) {
            "(the caller's own)".into()
        } else {
            String::from_utf8_lossy(value.as_bytes())
        };
        lines.push(format!("{name}: {shown}"));
    }
    lines
}

fn is_secret(lookup: &Lookup<'_>, name: &HeaderName) -> bool {
    *name == AUTHORIZATION
        || *name == COOKIE
        || lookup.route.headers.role(name, &lookup.roles) == HeaderRole::Credential
}
