//! The app's responses: JSON, text, streams. Each has a content-length unless it is endless.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Body;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};

/// A response of the app.
pub type Reply = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// A response with this body. If the body knows its length, that is the content-length.
pub fn with_body<B>(status: StatusCode, content_type: &'static str, body: B) -> Reply
where
    B: Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    let mut reply = Response::new(body.boxed_unsync());
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}

/// A JSON response.
pub fn json(status: StatusCode, value: &Value) -> Reply {
    with_body(status, "application/json", Full::new(Bytes::from(format!("{value}\n"))))
}

/// A failure, as JSON.
pub fn error(status: StatusCode, message: &str) -> Reply {
    json(status, &json!({ "error": message, "status": status.as_u16() }))
}

/// Why a request is refused.
pub struct AppError(pub StatusCode, pub &'static str);

/// A refusal as a response.
pub fn refused(refusal: &AppError) -> Reply {
    error(refusal.0, refusal.1)
}

/// Plain text.
pub fn text(text: &'static str) -> Reply {
    with_body(
        StatusCode::OK,
        "text/plain; charset=utf-8",
        Full::new(Bytes::from_static(text.as_bytes())),
    )
}

/// A page of HTML.
pub fn page(html: &'static str) -> Reply {
    with_body(
        StatusCode::OK,
        "text/html; charset=utf-8",
        Full::new(Bytes::from_static(html.as_bytes())),
    )
}

/// A response without content.
pub fn empty(status: StatusCode) -> Reply {
    let mut reply = Response::new(Empty::new().boxed_unsync());
    *reply.status_mut() = status;
    reply
}
