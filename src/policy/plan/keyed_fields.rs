//! The fields of a route in the key of a request.

use std::borrow::Cow;
use std::sync::Arc;

use crate::outcome::{Outcome, Reason};
use crate::policy::field::{Field, FieldError, FieldSource, FieldView};
use crate::policy::jwt::{TokenFault, TokenPlace};
use crate::policy::key::{KeyPart, KeyWriter};
use crate::policy::keyed_body::KeyedBody;
use crate::policy::route::Route;
use crate::policy::session::{RouteSessions, SessionFault};

/// Which part of a key holds the value of a field. Of a JSON value, `"1"` and `1` are two.
fn value_part(field: &Field, view: &FieldView<'_>) -> KeyPart {
    let value = match &field.source {
        FieldSource::Jwt(claim) => view.tokens.claim(claim).ok().flatten(),
        FieldSource::Identity(identity) => view.identity_value(identity).ok(),
        _ => None,
    };
    if value.is_some_and(|value| !value.is_string) { KeyPart::JsonValue } else { KeyPart::Value }
}

/// Adds the fields of the route to the key.
pub(super) fn add_fields(
    route: &Route,
    sessions: &RouteSessions<'_>,
    view: &FieldView<'_>,
    body: Option<&KeyedBody>,
    key: &mut KeyWriter,
) -> Result<(), Outcome> {
    for field in &route.fields {
        if let FieldSource::Body(pointer) = &field.source {
            // The body as a whole is in the key; a GET has none.
            if body.is_some() || pointer.is_empty() || field.is_optional {
                continue;
            }
        }
        let value = keyed_value(field, sessions, view);
        let value = value.map_err(|error| field_outcome(field, error))?;
        key.part(KeyPart::Field, field.name.as_bytes());
        match value {
            Some(value) => key.part(value_part(field, view), &value),
            None => key.part(KeyPart::FieldAbsent, b""),
        }
    }
    if let Some(body) = body {
        key.part(KeyPart::Body, &body.digest);
    }
    if route.is_due_for_renewal(sessions, view.now) {
        return Err(Outcome::bypass(Reason::SessionRenewal));
    }
    Ok(())
}

/// The value of a field in the key.
fn keyed_value<'a>(
    field: &Field,
    sessions: &'a RouteSessions<'_>,
    view: &FieldView<'a>,
) -> Result<Option<Cow<'a, [u8]>>, FieldError> {
    let FieldSource::Session(rule) = &field.source else { return field.value(view) };
    match sessions.get(rule).and_then(|session| session.keyed()) {
        Ok(value) => Ok(Some(Cow::Borrowed(value))),
        Err(fault) => field.absent_or(fault.into()),
    }
}

fn field_outcome(field: &Field, error: FieldError) -> Outcome {
    match (error, &field.source) {
        (FieldError::Token(TokenFault::KeysUnavailable), _) => {
            Outcome::bypass(Reason::TokenKeysUnavailable)
        }
        // SECURITY: why it is not, and nothing of the token.
        (FieldError::Token(fault), _) => {
            let subject = format!("{}: {}", field.name, fault.as_str());
            Outcome::bypass_with(Reason::UnverifiedToken, subject)
        }
        (FieldError::Identity(fault), _) => {
            let subject = format!("{}: {}", field.name, fault.as_str());
            Outcome::bypass_with(Reason::IdentityUnknown, subject)
        }
        (FieldError::Ambiguous, FieldSource::Jwt(claim)) => match &claim.place {
            TokenPlace::Cookie(name) => Outcome::bypass_with(Reason::AmbiguousCookie, &**name),
            TokenPlace::Authorization => {
                Outcome::bypass_with(Reason::MissingField, Arc::clone(&field.name))
            }
        },
        (FieldError::Session(SessionFault::Repeated), FieldSource::Session(rule)) => {
            Outcome::bypass_with(Reason::AmbiguousCookie, &*rule.settings.cookie)
        }
        (FieldError::Session(fault), _) if fault != SessionFault::Absent => {
            let subject = format!("{} ({})", field.name, fault.as_str());
            Outcome::bypass_with(Reason::MissingField, subject)
        }
        (FieldError::Missing | FieldError::Session(_), _) => {
            Outcome::bypass_with(Reason::MissingField, Arc::clone(&field.name))
        }
        (FieldError::Ambiguous, FieldSource::Cookie(name)) => {
            Outcome::bypass_with(Reason::AmbiguousCookie, &**name)
        }
        (FieldError::Ambiguous, _) => Outcome::bypass(Reason::AmbiguousQuery),
    }
}
