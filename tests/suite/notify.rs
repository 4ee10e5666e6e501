//! Purges that are told to what is in front of the sidecar: CDNs by their APIs, and webhooks.

mod cdn;
mod config;
mod faults;
