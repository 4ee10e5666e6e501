//! The standards, by their numbers: what a cache must do with a request and a response.

mod http_gaps;
mod rfc5861;
mod rfc9110_ranges;
mod rfc9111;
mod rfc9211;
mod rfc9213;
mod rfc9875;
