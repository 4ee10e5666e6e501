//! The last response of a connection that hyper does not serve: the one too many, and the one whose
//! head hyper has refused. Written by hand.

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
pub(super) async fn reject<S: Service>(stream: ClientStream, service: &S) {
    let response = service.refuse(StatusCode::SERVICE_UNAVAILABLE, "too many connections");
    send_last(stream, response, false).await;
}

/// Sends a response whose body is in memory, and closes the connection.
pub(super) async fn send_last(mut stream: ClientStream, response: Response<Body>, is_head: bool) {
    let response = render(response, is_head);
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

fn render(response: Response<Body>, is_head: bool) -> Vec<u8> {
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
    if !is_head {
        bytes.extend_from_slice(&body);
    }
    bytes
}
