//! Whether a template is worth a route, and safe to have one; and if not, why not.

use crate::policy::credential::CredentialRule;
use crate::policy::names::{Meaning, meaning};
use crate::uncached::facts::Facts;
use crate::uncached::fold::{Kind, PathPart, example};
use crate::uncached::tree::PathTemplate;

/// The least number of compared responses that tell anything.
pub(super) const MIN_COMPARED: u64 = 10;
/// One in so many hits is the least for which a route is worth its lines.
const WORTHWHILE: u64 = 20;

/// A name counts if one in so many requests has it.
pub(super) const USUAL: u64 = 20;

/// Words of logins, and of what belongs to them.
#[rustfmt::skip]
const LOGINS: &[&str] = &[
    "login", "logout", "signin", "sign-in", "sign_in", "signout", "sign-out", "signup", "sign-up",
    "register", "oauth", "oauth2", "sso", "saml", "auth", "authorize", "password", "passwords",
    "csrf", "xsrf", "token", "tokens", "session", "sessions", "captcha", "2fa", "mfa", "otp",
    "callback", "impersonate",
];

/// Words of reads that do something, or wait for something.
#[rustfmt::skip]
const DEEDS: &[&str] = &[
    "delete", "remove", "destroy", "confirm", "unsubscribe", "vote", "track", "tracking", "pixel",
    "beacon", "ping", "heartbeat", "poll", "longpoll", "stream", "sse", "ws", "websocket",
    "socket.io", "sockjs", "health", "healthz", "ready", "readyz", "livez", "metrics", "cart",
    "checkout", "basket",
];

/// Parameters that sign a query.
const SIGNATURES: &[&str] =
    &["sig", "expires", "hmac", "x-amz-signature", "x-goog-signature", "se"];

/// Why a template gets no route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WhyNot {
    /// The reason.
    pub(super) text: String,
    /// Whether no route may match its paths at all.
    pub(super) is_unsafe: bool,
}

fn harmful(text: impl Into<String>) -> WhyNot {
    WhyNot { text: text.into(), is_unsafe: true }
}

fn useless(text: impl Into<String>) -> WhyNot {
    WhyNot { text: text.into(), is_unsafe: false }
}

/// Why this template gets no route; `None` if it may get one.
pub(super) fn why_not(template: &PathTemplate, credential: &CredentialRule) -> Option<WhyNot> {
    let facts = &template.facts;
    let no_cache = says_no_cache(facts)
        .then(|| useless("the app says `Cache-Control: no-cache`: it wants to be asked each time"));
    unfit(template, credential, false).or(no_cache).or_else(|| by_comparison(facts))
}

/// Whether the app wants to be asked each time.
pub(super) const fn says_no_cache(facts: &Facts) -> bool {
    2 * facts.no_cache > facts.requests
}

/// Why no rule is fit for it, whatever its responses are: by its name, and by what their heads say.
/// `renews` says that the rule takes out a session cookie that is set again.
pub(super) fn unfit(
    template: &PathTemplate,
    credential: &CredentialRule,
    renews: bool,
) -> Option<WhyNot> {
    by_name(template, credential).or_else(|| by_head(&template.facts, renews))
}

fn by_head(facts: &Facts, renews: bool) -> Option<WhyNot> {
    let all = facts.requests;
    let most = |count: u64| 2 * count > all;
    let some = |count: u64| 10 * count > all;
    if facts.upgraded > 0 {
        return Some(harmful("WebSockets: each connection is one caller's"));
    }
    if facts.streams > 0 {
        return Some(harmful("event streams: they have no end that could be stored"));
    }
    let taken_out = if renews { facts.renewed_sessions } else { 0 };
    if some(facts.set_cookie - taken_out.min(facts.set_cookie)) {
        // A session that is signed anew each time; only its secret tells who has it.
        let renewed = if most(facts.set_cookie) && most(facts.cookies) {
            ". If it is a session that the app signs anew each time, a field with its format and \
             secret makes it one caller's: see \"Signed sessions\" in the manual"
        } else {
            ""
        };
        return Some(harmful(format!(
            "{} of {all} responses set a cookie: they are made for one caller, and never \
             stored{renewed}",
            facts.set_cookie
        )));
    }
    if some(facts.forms) {
        return Some(harmful(
            "pages with forms that a CSRF cookie protects: a stored page holds somebody's token",
        ));
    }
    if some(facts.no_store) {
        return Some(harmful("the app says `Cache-Control: no-store`"));
    }
    if facts.varies_on_all > 0 {
        return Some(harmful("the app says `Vary: *`: no response answers another request"));
    }
    let has_caller = facts.credentials.max(facts.cookies);
    if some(facts.private) && 2 * has_caller < all {
        return Some(harmful(
            "the app says `Cache-Control: private` to callers without credentials: name the \
             headers by which it tells them apart in `[credential]` first",
        ));
    }
    if !most(facts.found) {
        return Some(useless(
            "the app refuses most of these requests, or does not find what they ask for",
        ));
    }
    if most(facts.partial) {
        return Some(useless("most requests are for parts of a response"));
    }
    None
}

fn by_comparison(facts: &Facts) -> Option<WhyNot> {
    let (compared, hits) = (facts.compared, facts.hits);
    if compared < MIN_COMPARED {
        return Some(useless(format!(
            "too few requests so far: {compared} of {MIN_COMPARED} responses could be compared"
        )));
    }
    if facts.changed >= hits.max(1) {
        return Some(harmful(
            "the response changes from one request of a caller to the next: it holds a token, a \
             time, or data that nobody could purge in time",
        ));
    }
    if WORTHWHILE * hits < compared {
        return Some(useless(if 2 * facts.attachments > facts.requests {
            "downloads that hardly anybody repeats within a minute"
        } else {
            "hardly any caller repeats a request within a minute"
        }));
    }
    None
}

/// Why its name alone gives it no route.
pub(super) fn by_name(template: &PathTemplate, credential: &CredentialRule) -> Option<WhyNot> {
    let path = example(&template.segments);
    let words = |list: &[&str]| {
        let mut words = template.segments.iter().filter_map(|segment| match segment {
            PathPart::Literal(word) => Some(word.to_ascii_lowercase()),
            _ => None,
        });
        words.any(|word| {
            let stem = word.split('.').next().unwrap_or_default();
            list.contains(&word.as_str()) || list.contains(&stem)
        })
    };
    if template.segments.contains(&PathPart::Deeper) {
        return Some(useless("its paths are too deep to be told apart"));
    }
    if credential.is_login_path(path.as_bytes()) || words(LOGINS) {
        return Some(harmful(
            "a login, or a part of one: its responses are for one caller and one time",
        ));
    }
    let is_secret = |segment: &PathPart| matches!(segment, PathPart::Value(Kind::Secret, _));
    if template.segments.iter().any(is_secret) {
        return Some(harmful("its paths carry secrets: whoever knows one may use it once"));
    }
    if words(DEEDS) {
        return Some(harmful("by its name, a request does something, or waits for something"));
    }
    let is_signed = |name: &str| {
        let name = name.to_ascii_lowercase();
        SIGNATURES.contains(&name.as_str()) || meaning(&name) == Some(Meaning::Credential)
    };
    // What hardly any request has may be a stranger's, who wants no route to be suggested.
    let least = (template.facts.requests / USUAL).max(1);
    let parameters = template.facts.parameters.frequent(least);
    if let Some((name, _)) = parameters.iter().find(|(name, _)| is_signed(name)) {
        return Some(harmful(format!("the parameter `{name}` of its queries is a credential")));
    }
    None
}
