//! Byte ranges of a complete stored 200 (RFC 9110 14): what a `Range` asks for, and the 206 or 416
//! that answers it.

mod request;
mod response;

pub use self::request::{complete_length, requested_range};
pub use self::response::respond;
