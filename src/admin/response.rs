//! Responses of the admin API: JSON that must not be cached, and errors with a message and a hint.

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, Request};
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

/// An error response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ApiError {
    status: StatusCode,
    error: String,
    hint: Option<String>,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, error: error.into(), hint: None }
    }

    /// A 400 response.
    pub(super) fn bad_request(error: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error).hint(hint)
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = match self.hint {
            Some(hint) => json!({ "error": self.error, "hint": hint }),
            None => json!({ "error": self.error }),
        };
        json_response(self.status, &body)
    }
}

/// The body of a POST: JSON with a JSON content type.
pub(super) struct JsonBody<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        match Json::<T>::from_request(request, state).await {
            Ok(Json(value)) => Ok(Self(value)),
            // SECURITY: a page of another origin can send a form or plain text without a preflight,
            // but not JSON.
            Err(JsonRejection::MissingJsonContentType(_)) => {
                let refused =
                    ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body must be JSON");
                Err(refused.hint("send it with `content-type: application/json`"))
            }
            Err(rejection) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large")
                    .hint("the limit is 1 MiB"))
            }
            Err(rejection) => Err(ApiError::bad_request(
                rejection.body_text(),
                "`/openapi.json` says what each request takes",
            )),
        }
    }
}

/// A JSON response that must not be stored.
pub(super) fn json_response(status: StatusCode, value: &impl Serialize) -> Response {
    json_text(status, serde_json::to_string(value).unwrap_or_default())
}

/// The same for text that is JSON already.
pub(super) fn json_text(status: StatusCode, mut text: String) -> Response {
    text.push('\n');
    content(status, "application/json", text)
}

/// A response with this media type and body.
pub(super) fn content(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Body>,
) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    set_security_headers(response.headers_mut());
    response
}

/// Adds the headers for browsers and caches that every response has.
pub(super) fn set_security_headers(headers: &mut HeaderMap) {
    const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src \
                          'self'; img-src 'self' data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // SECURITY: labels and tags may contain text of strangers, so browsers must not interpret it as
    // markup, nor show it in a frame of another site.
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(
        HeaderName::from_static("content-security-policy"),
        HeaderValue::from_static(POLICY),
    );
    headers.insert(
        HeaderName::from_static("referrer-policy"),
        HeaderValue::from_static("no-referrer"),
    );
}
