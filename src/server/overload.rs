//! The answer to a connection that is one too many: written by hand, because such a connection gets
//! no parser and no task for long.

use std::time::Duration;

use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{Response, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::service::Service;
use crate::semantics::body::Body;

/// How long a refused client may take to read its answer.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);

/// Tells the client that the server is full, and closes.
pub(super) async fn reject<S: Service>(mut stream: TcpStream, service: &S) {
    let answer = render(service.refuse(StatusCode::SERVICE_UNAVAILABLE, "too many connections"));
    let told = async {
        stream.write_all(&answer).await?;
        stream.shutdown().await?;
        // Closing over unread bytes would send a reset, which can take the answer away from the
        // client (RFC 9112 section 9.6).
        let mut scratch = [0; 1024];
        while stream.read(&mut scratch).await? > 0 {}
        std::io::Result::Ok(())
    };
    // A client that does not listen has been told as well as can be.
    let _ = tokio::time::timeout(REFUSAL_TIMEOUT, told).await;
}

fn render(response: Response<Body>) -> Vec<u8> {
    let (head, body) = response.into_parts();
    let body = body.replayable().unwrap_or_default();
    let reason = head.status.canonical_reason().unwrap_or_default();
    let mut bytes = format!("HTTP/1.1 {} {reason}\r\n", head.status.as_str()).into_bytes();
    for (name, value) in &head.headers {
        if ![CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING].contains(name) {
            bytes.extend_from_slice(name.as_str().as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
    }
    bytes.extend_from_slice(
        format!("content-length: {}\r\nconnection: close\r\n\r\n", body.len()).as_bytes(),
    );
    bytes.extend_from_slice(&body);
    bytes
}
