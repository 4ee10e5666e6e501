//! The cache: stored responses, both tiers as one store, and the fills that bring them.

pub mod entry;
pub mod fills;
pub mod store;
