//! Words about sessions in signed cookies: a field can read them, however often they are signed
//! anew. No secret is ever asked for here, nor proposed.

use super::evidence::KeyEvidence;
use crate::policy::route::Route;
use crate::policy::session::SessionFormat;
use crate::telemetry::log::printable;

/// How much of a name is shown.
const MAX_SHOWN: usize = 64;

/// How a route would read this cookie, if its values look like those of a known framework and no
/// field reads it yet.
pub(super) fn words(name: &str, evidence: &KeyEvidence, route: &Route) -> Option<String> {
    if route.reads_session(name.as_bytes()) {
        return None;
    }
    let (_, format) = evidence.signed.iter().find(|(known, _)| known == name)?;
    let (word, maker) = match format {
        SessionFormat::Flask => (format.as_str(), "Flask"),
        SessionFormat::Django => (format.as_str(), "Django"),
        SessionFormat::Express => (format.as_str(), "cookie-session of Express"),
    };
    let max_age = if format.has_time() { ", max_age = \"…\"" } else { "" };
    let name = printable(name, MAX_SHOWN);
    Some(format!(
        "The values of `{name}` look like sessions that {maker} signs. A field `session = {{ \
         cookie = \"{name}\", format = \"{word}\", secret = \"${{…}}\"{max_age} }}` in `key` \
         verifies them with the key of the app, so that a session that is signed anew is the same \
         caller; `strip_set_cookie` may then name the cookie, and takes it out only where its \
         payload stays the same."
    ))
}
