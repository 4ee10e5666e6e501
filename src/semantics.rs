//! HTTP itself, as RFC 9110 and RFC 9111 define it: pure functions of headers and times that know
//! neither routes nor Redis.

pub mod body;
pub mod broken_upload;
pub mod browser;
pub mod cache_control;
pub mod cache_status;
pub mod conditional;
pub mod content_coding;
pub mod daily_end;
pub mod digest;
pub mod early_refresh;
pub mod forward;
pub mod freshness;
pub mod media_type;
pub mod negotiation;
pub mod range;
pub(crate) mod recent_values;
pub mod request_fields;
pub mod revalidation;
pub mod server_timing;
pub mod storability;
pub mod targeted_cache_control;
pub mod times;
pub mod ttl;
pub mod vary;
