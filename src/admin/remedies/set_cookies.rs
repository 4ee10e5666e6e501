//! Words and changes about cookies that keep responses from being stored.

use super::evidence::KeyEvidence;
use super::proposal::Proposal;
use super::signed_sessions;
use super::varying::RENEW_LESS;
use crate::policy::cookie_purpose::CookiePurpose;
use crate::policy::edit::Edit;
use crate::policy::glob::Glob;
use crate::policy::route::{Route, StripSetCookie};

/// How many cookies are named.
const MAX_NAMED: usize = 8;

/// Which cookies the responses set, and what is safe for each.
pub(super) fn words(evidence: &KeyEvidence, route: &Route) -> Option<String> {
    let told: Vec<&(String, u64)> = evidence.set_cookies.iter().take(MAX_NAMED).collect();
    if told.is_empty() {
        return None;
    }
    let counts: Vec<String> =
        told.iter().map(|(name, count)| format!("`{name}` {count} times")).collect();
    let mut words = vec![format!("Responses set {}.", counts.join(", "))];
    let of = |purpose: CookiePurpose| {
        let own = told.iter().filter(|(name, _)| {
            CookiePurpose::from_name(name) == purpose && !route.reads_session(name.as_bytes())
        });
        let own: Vec<&str> = own.map(|(name, _)| name.as_str()).collect();
        (!own.is_empty()).then(|| own.join(", "))
    };
    if let Some(names) = of(CookiePurpose::Session) {
        let rolls = told.iter().any(|(name, _)| evidence.rolling.contains(name));
        let each =
            if rolls { ", and the app replaces it each time that it comes back" } else { "" };
        words.push(format!(
            "Never strip {names}: it looks like a session or the token of a form{each}, and the \
             body may hold what belongs to it. {RENEW_LESS}"
        ));
    }
    let signed = told.iter().filter_map(|(name, _)| signed_sessions::words(name, evidence, route));
    words.extend(signed);
    let read = told.iter().filter(|(name, _)| route.reads_session(name.as_bytes()));
    words.extend(read.map(|(name, _)| {
        format!(
            "A field verifies `{name}`: `strip_set_cookie` may name it, and takes it out only \
             where its payload stays the same."
        )
    }));
    if let Some(names) = of(CookiePurpose::Noise) {
        words.push(format!("No response depends on {names}: `strip_set_cookie` may name it."));
    }
    for purpose in [CookiePurpose::Consent, CookiePurpose::Unknown] {
        if let Some(names) = of(purpose) {
            words.push(format!(
                "Name {names} in `strip_set_cookie` only if neither a login nor a form needs it."
            ));
        }
    }
    Some(words.join(" "))
}

/// Strips the cookies of these responses, where all of them are known to be noise: with one that
/// stays, the response is not stored.
pub(super) fn proposal(evidence: &KeyEvidence, route: &Route) -> Option<Proposal> {
    let names: Vec<&str> = evidence.set_cookies.iter().map(|(name, _)| name.as_str()).collect();
    // Of a session that a field verifies, nothing is taken out but the same payload.
    let is_noise = |name: &&str| {
        route.reads_session(name.as_bytes())
            || CookiePurpose::from_name(name) == CookiePurpose::Noise
    };
    if names.is_empty() || !names.iter().all(is_noise) {
        return None;
    }
    let listed = match &route.spec.strip_set_cookie {
        StripSetCookie::No => Vec::new(),
        StripSetCookie::Named(globs) => globs.iter().map(Glob::as_str).collect(),
        StripSetCookie::All => return None,
    };
    let shown = names.join(", ");
    let all = listed.into_iter().chain(names).map(str::to_owned).collect();
    Some(Proposal {
        edits: vec![Edit::list(route.name(), "strip_set_cookie", all)],
        does: format!("Responses that set nothing but {shown} are stored without the cookie."),
        risks: "A caller who is served from the cache does not get the cookie there.".to_owned(),
    })
}
