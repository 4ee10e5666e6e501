//! The rules of `proxy.toml`, applied to a request: its route, its fields, key, tags and scope, and
//! what a mutation purges.

pub mod authorized_clients;
pub mod body_fields;
pub mod cache_groups;
pub mod caller;
pub mod client_address;
pub mod cookie_header;
pub mod cookie_purpose;
pub mod cookies;
pub mod credential;
pub mod edit;
pub mod explain;
pub mod field;
pub mod fold;
pub mod fronts;
pub mod glob;
pub mod key;
pub mod known_callers;
pub(crate) mod known_headers;
pub mod loose_parameters;
pub mod mode_switch;
pub mod names;
pub mod plan;
pub mod purge_rule;
pub mod purge_url;
pub mod query_rule;
pub mod refusal;
pub mod request_directives;
pub mod request_match;
pub mod request_target;
pub mod rolling_cookies;
pub mod route;
pub mod scope;
pub mod tag;
pub mod template;
pub mod varying_keys;
