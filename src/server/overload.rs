//! The response to one connection too many: written by hand, because such a connection gets no
//! parser and only a short-lived task.

use std::time::Duration;

use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{Response, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::listener::ClientStream;
use super::service::Service;
use crate::semantics::body::Body;

/// How long a rejected client may take to read the response.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);

/// Sends the client a 503 and closes the connection.
pub(super) async fn reject<S: Service>(mut stream: ClientStream, service: &S) {
    let response = render(service.refuse(StatusCode::SERVICE_UNAVAILABLE, "too many connections"));
    let sent = async {
        stream.write_all(&response).await?;
        stream.shutdown().await?;
        // Closing with unread bytes would send a reset, which can destroy the response before the
        // client reads it (RFC 9112 section 9.6).
        let mut scratch = [0; 1024];
        while stream.read(&mut scratch).await? > 0 {}
        std::io::Result::Ok(())
    };
    // Ignore a failure: nothing more can be done for a client that does not read.
    let _ = tokio::time::timeout(REFUSAL_TIMEOUT, sent).await;
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
