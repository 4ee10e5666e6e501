//! Fields of purge rules that a mutation, or its answer, does not tell.

use std::sync::Arc;

use http::request::Parts;

use crate::proxy::resources::Resources;
use crate::telemetry::log::LogText;

/// Notes which fields of purge rules could not be told, so that families are purged.
pub(super) fn record_unread_fields(
    resources: &Resources,
    parts: &Parts,
    missing: &[Arc<str>],
    too_many: &[Arc<str>],
) {
    let path = parts.uri.path();
    if !missing.is_empty() {
        resources.counters.missing_fields.add(missing.len() as u64);
        let fields = missing.join(" ");
        tracing::warn!(
            method = %LogText(parts.method.as_str()),
            path = %LogText(path),
            fields,
            "fields that a purge rule names cannot be read in this mutation; the families of their \
             tags are purged"
        );
    }
    if !too_many.is_empty() {
        resources.counters.too_many_values.add(too_many.len() as u64);
        let fields = too_many.join(" ");
        tracing::warn!(
            method = %LogText(parts.method.as_str()),
            path = %LogText(path),
            fields,
            "fields that a purge rule names have too many values in this mutation; the families of \
             their tags are purged"
        );
    }
}
