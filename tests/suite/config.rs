//! `proxy.toml`: what is refused, what is advised, and what a reload changes.

mod check;
mod include;
mod lint;
mod reload;
mod reload_sections;
