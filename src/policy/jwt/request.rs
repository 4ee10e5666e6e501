//! The tokens of a request: where they are, and what was found of them. They are looked at once for
//! each request, so that all that is made of one request is made of the same values, however long
//! it takes and whatever becomes of the keys meanwhile.

use std::sync::Arc;

use http::header::{AUTHORIZATION, HeaderMap};
use smallvec::SmallVec;

use super::claims::ClaimValue;
use super::verifier::{TokenVerifier, VerifiedToken};
use super::{TokenFault, TokenField};
use crate::policy::cookie_header::cookies;

/// Where a token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenPlace {
    /// `Authorization: Bearer`.
    Authorization,
    /// The cookie of this name.
    Cookie(Arc<str>),
}

/// Why a request has no verified token in a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// There is none.
    Missing,
    /// There are several.
    Ambiguous,
    /// It is not verified.
    Unverified(TokenFault),
}

/// The tokens of a request, by their places.
#[derive(Clone, Debug, Default)]
pub struct RequestTokens(SmallVec<[FoundToken; 1]>);

/// What was found in a place.
type FoundToken = (TokenPlace, Result<Arc<VerifiedToken>, TokenError>);

impl RequestTokens {
    /// Without tokens.
    pub const NONE: Self = Self(SmallVec::new_const());

    /// Looks at the tokens in these places, and counts them, unless this is done again.
    #[must_use]
    pub fn read(
        places: &[TokenPlace],
        verifier: Option<&TokenVerifier>,
        headers: &HeaderMap,
        is_again: bool,
    ) -> Self {
        let look = |place: &TokenPlace| {
            let token = token(place, headers);
            let found = token.and_then(|token| match verifier {
                Some(verifier) => {
                    let found = verifier.verify(token, is_again);
                    found.map_err(TokenError::Unverified)
                }
                None => Err(TokenError::Unverified(TokenFault::KeysUnavailable)),
            });
            (place.clone(), found)
        };
        Self(places.iter().map(look).collect())
    }

    /// The value of a field. `None` where the verified token lacks it.
    pub fn claim(&self, field: &TokenField) -> Result<Option<&ClaimValue>, TokenError> {
        let found = self.0.iter().find(|(place, _)| *place == field.place);
        match found {
            Some((_, Ok(token))) => Ok(token.claim(&field.pointer)),
            Some((_, Err(error))) => Err(*error),
            // Nothing reads a field whose place was not looked at.
            None => Err(TokenError::Missing),
        }
    }

    /// The verified tokens.
    pub fn verified(&self) -> impl Iterator<Item = &VerifiedToken> {
        self.0.iter().filter_map(|(_, found)| found.as_deref().ok())
    }
}

/// The token in a place.
pub(super) fn token<'a>(
    place: &TokenPlace,
    headers: &'a HeaderMap,
) -> Result<&'a [u8], TokenError> {
    let token = match place {
        TokenPlace::Authorization => {
            let mut lines = headers.get_all(AUTHORIZATION).iter();
            let line = lines.next().ok_or(TokenError::Missing)?;
            if lines.next().is_some() {
                return Err(TokenError::Ambiguous);
            }
            bearer(line.as_bytes()).ok_or(TokenError::Missing)?
        }
        TokenPlace::Cookie(name) => {
            let mut values =
                cookies(headers).filter(|(key, _)| *key == name.as_bytes()).map(|(_, value)| value);
            let value = values.next().ok_or(TokenError::Missing)?;
            if values.next().is_some() {
                return Err(TokenError::Ambiguous);
            }
            value
        }
    };
    if token.is_empty() { Err(TokenError::Missing) } else { Ok(token) }
}

/// The token of `Bearer` credentials (RFC 6750 2.1). The scheme is in any case (RFC 9110 11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let value = value.trim_ascii();
    let (scheme, token) = value.split_at_checked(6)?;
    let token = token.strip_prefix(b" ")?;
    scheme.eq_ignore_ascii_case(b"bearer").then(|| token.trim_ascii_start())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::COOKIE;

    use super::*;

    #[test]
    fn a_bearer_token_is_read_in_any_case_and_only_once() {
        let found = |lines: &[&'static str]| {
            let line = |line: &&'static str| (AUTHORIZATION, HeaderValue::from_static(line));
            let headers: HeaderMap = lines.iter().map(line).collect();
            token(&TokenPlace::Authorization, &headers).map(<[u8]>::to_vec)
        };
        for line in ["Bearer a.b.c", "bearer a.b.c", "BEARER  a.b.c", " Bearer a.b.c "] {
            assert_eq!(found(&[line]), Ok(b"a.b.c".to_vec()), "{line}");
        }
        for line in ["Basic YTpi", "Bearer", "Bearer ", "a.b.c", "Bearera.b.c", "", "Bearer\ta.b.c"]
        {
            assert_eq!(found(&[line]), Err(TokenError::Missing), "{line}");
        }
        assert_eq!(found(&[]), Err(TokenError::Missing));
        // It is refused as a token, and is not two of them.
        assert_eq!(found(&["Bearer a.b.c, Bearer d"]), Ok(b"a.b.c, Bearer d".to_vec()));
        assert_eq!(found(&["Bearer a", "Bearer a"]), Err(TokenError::Ambiguous));
        assert_eq!(found(&["Basic a", "Bearer a"]), Err(TokenError::Ambiguous));
    }

    #[test]
    fn a_cookie_is_read_only_once() {
        let found = |line: &'static str| {
            let headers = HeaderMap::from_iter([(COOKIE, HeaderValue::from_static(line))]);
            token(&TokenPlace::Cookie("jwt".into()), &headers).map(<[u8]>::to_vec)
        };
        assert_eq!(found("a=1; jwt=x.y.z; JWT=q"), Ok(b"x.y.z".to_vec()));
        assert_eq!(found("jwt=x; jwt=x"), Err(TokenError::Ambiguous));
        assert_eq!(found("jwt="), Err(TokenError::Missing));
        assert_eq!(found("a=1"), Err(TokenError::Missing));
    }
}
