//! What a write purges, in words.

use http::Method;
use http::header::{CONTENT_TYPE, HeaderValue};

use crate::policy::body_fields::BodyFields;
use crate::policy::explain::lines::ExplainLines;
use crate::policy::plan::{PolicyRules, RequestView};
use crate::policy::tag::Tag;

pub(super) fn explain_mutation(
    lines: &mut ExplainLines,
    rules: &PolicyRules,
    request: &RequestView<'_>,
    effective: &Method,
    data: Option<&str>,
) {
    lines.line("X-Cache", "BYPASS");
    let reason = rules.reason_of_write(request, effective);
    lines.reason(reason, reason.as_str());
    let kind =
        request.headers.get(CONTENT_TYPE).map_or(&b"application/json"[..], HeaderValue::as_bytes);
    let body = data.and_then(|data| BodyFields::parse(kind, data.as_bytes()));
    match rules.mutation(request, effective, body.as_ref()) {
        Err(header) => lines.line(
            "refused",
            format!("400: {header} must occur once, and must not be named in Connection"),
        ),
        Ok(mutation) => {
            let waits = |tag: &&Tag| mutation.until_response.contains(tag);
            for tag in mutation.tags.iter().filter(|tag| !waits(tag)) {
                lines.line("purges", tag.shown());
            }
            for rule in rules.purges.iter().filter(|rule| mutation.rules.contains(&rule.place)) {
                for tag in rule.tags.iter().filter(|tag| tag.reads_response()) {
                    lines.line("purges, by the response", tag.as_str());
                }
            }
            for tag in mutation.tags.iter().filter(waits) {
                lines.line("purges, if the response cannot be read", tag.shown());
            }
            for field in &mutation.missing {
                let families = "cannot be read, so that the families of its tags are purged";
                lines.line("missing", format!("field {field} {families}"));
            }
            for field in &mutation.too_many {
                let families = "has too many values, so that the families of its tags are purged";
                lines.line("too many", format!("field {field} {families}"));
            }
            let callers = rules.caller_purges(request.headers, None);
            for tag in &callers {
                lines.line("purges, if the response sets a cookie that counts", tag.shown());
            }
            for place in &mutation.rules {
                lines.line("rule", format!("at {place}"));
            }
            for place in &mutation.excluded_by {
                lines.line("rule", format!("not the one at {place}, by its `except`"));
            }
            if !mutation.covered {
                lines.line("rule", "none: only its own URI is purged");
            }
        }
    }
}
