//! What the rules of `proxy.toml` make of a request: which route it is on, its fields, key, tags
//! and scope, and what a mutation purges.

pub mod cache_groups;
pub mod credential;
pub mod explain;
pub mod field;
pub mod key;
pub mod plan;
pub mod purge_rule;
pub mod request_directives;
pub mod request_target;
pub mod route;
pub mod tag;
