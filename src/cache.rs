//! The cache: stored responses, a store of two tiers, and the fills that bring new responses.

pub mod entry;
pub mod fills;
pub mod store;
