//! The cache: stored responses, a store of two tiers, the fills that bring new responses, what
//! codes their bodies for clients, and the snapshot by which the memory tier outlives its process.

pub mod encoder;
pub mod entry;
pub mod fills;
pub mod snapshot;
pub mod store;
