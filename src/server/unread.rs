//! A request whose head hyper has refused: which rule it breaks, and the response to it.
//!
//! hyper's own response has no body, and nobody hears of it. [`super::socket`] drops it and gives
//! the stream back.
//!
//! Limit: HTTP/2 refuses malformed requests one by one, with a reset of their streams, and says
//! nothing of it. Only what ends the connection is counted.

use std::error::Error;

use http::Method;

use super::counters::ServerCounters;
use super::overload;
use super::service::Service;
use super::socket::ReturnedStream;
use crate::semantics::forward::{BadRequest, UnreadHead};

/// What hyper has refused at the end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The head of a request in HTTP/1.
    Head(BadRequest),
    /// Something in HTTP/2 that ends the connection.
    Http2,
}

impl Refused {
    /// What this error of a connection is about, if hyper has refused something. hyper tells the
    /// kinds apart in its text alone.
    pub(super) fn from_error(error: &(dyn Error + Send + Sync + 'static)) -> Option<Self> {
        let error = error.downcast_ref::<hyper::Error>()?;
        let text = error.to_string();
        let starts = |start: &str| text.starts_with(start);
        if starts("http2 error") {
            return Some(Self::Http2);
        }
        let why = match () {
            () if !error.is_parse() => return None,
            () if starts("URI too long") => BadRequest::TargetTooLong,
            () if error.is_parse_too_large() => BadRequest::HeadTooLarge,
            () if starts("invalid HTTP method") => BadRequest::MethodMalformed,
            () if text.contains("HTTP2 preface") => BadRequest::Http2Preface,
            () if starts("invalid HTTP version") => BadRequest::HttpVersion,
            () if starts("invalid URI") => BadRequest::Target,
            () if starts("invalid content-length") => BadRequest::LengthMalformed,
            () if text.contains("transfer-encoding") => BadRequest::TransferEncoding,
            () if starts("invalid HTTP header") => BadRequest::FieldMalformed,
            () => BadRequest::Unreadable,
        };
        Some(Self::Head(why))
    }
}

/// Counts and logs a head that hyper has refused, and answers it where hyper has not. `number` is
/// that of the head on its connection.
pub(super) async fn answer<S: Service>(
    (service, client): (&S, &S::Client),
    counters: &ServerCounters,
    (why, number): (BadRequest, u32),
    max_header_bytes: usize,
    returned: Option<ReturnedStream>,
) {
    let scanner = returned.as_ref().map(|returned| &returned.scanner);
    let why = match scanner {
        // hyper calls both the same. A head that is whole, or not that long, has too many fields.
        Some(scanner)
            if why == BadRequest::HeadTooLarge
                && (scanner.heads() > number
                    || scanner
                        .head_length(number)
                        .is_some_and(|length| length < max_header_bytes)) =>
        {
            BadRequest::TooManyFields
        }
        _ => why,
    };
    let start = scanner.map_or(&[][..], |scanner| scanner.head_start(number));
    let head = UnreadHead::new(why, start);
    counters.refused_head(head.why).inc();
    let response = service.reject(&head, client);
    if let Some(returned) = returned {
        let is_head = head.method == Some(Method::HEAD);
        let ReturnedStream { stream, permit: _permit, .. } = returned;
        overload::send_last(stream, response, is_head).await;
    }
}
