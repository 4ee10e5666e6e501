//! The part of `headers.md` about the request of a fill: what becomes of each header of the client.
//!
//! Invariant: each row stands for one list of the code, and a test sends each header of each list
//! through a plan, so that no row says what the code does not do.

use http::header::{ACCEPT, ACCEPT_ENCODING, HeaderName};

use super::markdown::{Page, codes, link};
use crate::policy::known_headers::{self, FORGERY_TOKENS, KnownHeaders, PREFETCH, TRACING};
use crate::policy::plan::{FILL_ADDRESS, FILL_USER_AGENT};
use crate::policy::route::headers as roles;
use crate::policy::route::headers::MAX_LEARNED;
use crate::semantics::negotiation;

/// Headers of [`roles::WITHHELD`] with which a request passes.
const PRECONDITIONS: [&str; 2] = ["if-match", "if-unmodified-since"];

/// What becomes of the headers of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HeaderFate {
    /// In the key, and sent in the form that the key has.
    Keyed,
    /// The same from a trusted proxy. From others it makes the request pass.
    KeyedFromTrusted,
    /// The origin gets the same, whatever the client sent; a response must not vary on it.
    Replaced,
    /// The origin gets the same, whatever the client sent, until it names the header in `Vary`.
    /// Then it is keyed.
    WithheldUntilNamed,
    /// The origin gets the same, whatever the client sent.
    Withheld,
    /// The request passes, so that there is no fill.
    Passes,
    /// It depends on the scope.
    Credential,
}

struct FillRow {
    names: Vec<&'static str>,
    #[cfg_attr(not(test), allow(dead_code, reason = "what the test holds the text to"))]
    fate: HeaderFate,
    text: String,
}

/// The rows of [`crate::policy::known_headers`].
fn known_rows() -> Vec<FillRow> {
    let row = |names: &[&'static str], fate, text: &str| FillRow {
        names: names.to_vec(),
        fate,
        text: text.to_owned(),
    };
    vec![
        row(
            &unlisted(TRACING),
            HeaderFate::Replaced,
            "Tracing: withheld, unless a field reads it. A response that varies on one is not \
             stored.",
        ),
        row(
            &unlisted(FORGERY_TOKENS),
            HeaderFate::WithheldUntilNamed,
            "Anti-forgery tokens, which count for writes: withheld, until the origin names one in \
             `Vary`. If the origin answers such a fill with 400, 403, 419 or 422, the client's own \
             request goes to it.",
        ),
        row(
            &unlisted(PREFETCH),
            HeaderFate::WithheldUntilNamed,
            "The page is fetched ahead: withheld, until the origin names it in `Vary`.",
        ),
    ]
}

fn rows() -> Vec<FillRow> {
    let row = |names: &[&'static str], fate, text: &str| FillRow {
        names: names.to_vec(),
        fate,
        text: text.to_owned(),
    };
    let constant = |name: &HeaderName| negotiation::default_on_the_wire(name).unwrap_or_default();
    let negotiated = format!(
        "In the key, and sent in the form that the key has. Without it: `Accept: {}`, \
         `Accept-Encoding: {}`, no `Accept-Language`. A request for a `Range` counts as one \
         without `Accept-Encoding`.",
        constant(&ACCEPT),
        constant(&ACCEPT_ENCODING)
    );
    let substituted = format!(
        "Not the client's. `X-Forwarded-For`, `X-Real-IP` and `Forwarded` say `{FILL_ADDRESS}`, or \
         what a field `{{ client = \"address\" }}` has put into the key; `X-Request-Id` is made \
         anew; `Via` names the sidecar alone, with `via = true` in `[upstream]`; the others are \
         withheld. A response that varies on one of them is not stored, unless it is an address \
         that the key holds."
    );
    let harmless = format!(
        "Withheld, as are `Sec-Fetch-*` and `Sec-CH-*`. If the origin names one in `Vary`, the \
         client gets an answer to its own request, and the header is in the key of the route from \
         then on (at most {MAX_LEARNED} for each route). `User-Agent` is `{FILL_USER_AGENT}` or \
         that of `[upstream] user_agent`; in scope `private` a client with a credential keeps its \
         own."
    );
    let mut withheld = roles::WITHHELD.to_vec();
    withheld.retain(|name| !PRECONDITIONS.contains(name));
    let mut rows = vec![
        row(roles::NEGOTIATED, HeaderFate::Keyed, &negotiated),
        row(roles::IMPLICIT, HeaderFate::Keyed, "In the key, and sent as they are."),
        row(
            roles::FROM_TRUSTED,
            HeaderFate::KeyedFromTrusted,
            "From a trusted proxy: in the key, and sent as they are. From others a header that no \
             key has seen. Without them `X-Forwarded-Proto` is `http`, and `X-Forwarded-Host` the \
             authority of the key.",
        ),
        row(roles::SUBSTITUTED, HeaderFate::Replaced, &substituted),
        row(roles::HARMLESS, HeaderFate::WithheldUntilNamed, &harmless),
        row(&withheld, HeaderFate::Withheld, "Withheld: they are for caches."),
        row(&PRECONDITIONS, HeaderFate::Passes, "The request passes (`precondition`)."),
        row(
            roles::TRANSPORT,
            HeaderFate::Withheld,
            "The sidecar's own. `Host` is the authority of the key, in lower case. An `Upgrade` to \
             what `[upstream] upgrades` names makes the request pass.",
        ),
        row(
            &["authorization"],
            HeaderFate::Credential,
            "With the headers of `[credential] headers`: in scope `private` hashed in the key, and \
             sent; in scope `shared` sent, for the origin decides who is admitted; in scope \
             `public` withheld.",
        ),
        row(
            &["cookie"],
            HeaderFate::Credential,
            "Without the cookies that `ignore_cookies` names. In scope `private` hashed in the \
             key, and sent; in scope `shared` sent, and those that do not identify the caller are \
             in the key; in scope `public` only the cookies that fields read.",
        ),
    ];
    rows.extend(known_rows());
    rows
}

/// The names of a list that have no row of their own.
fn unlisted(list: &'static [KnownHeaders]) -> Vec<&'static str> {
    known_headers::names(list).filter(|name| !roles::SUBSTITUTED.contains(name)).collect()
}

/// What the origin receives on a fill, by the lists that the code itself goes by.
pub(super) fn section(page: &mut Page) {
    page.section("The request of a fill");
    page.paragraph(
        "When the sidecar fetches a response to store it, the request is made from the key, not \
         copied from the client: two requests that share a key are one request to the origin. A \
         request that passes (`BYPASS`) keeps all that it has. `sidecache explain` prints the \
         request of a fill (`the app would get`).",
    );
    let rows: Vec<_> =
        rows().into_iter().map(|row| [codes(row.names.iter().copied()), row.text]).collect();
    page.table(["Headers of the client", "What the origin receives"], &rows);
    page.paragraph(
        "Any other header makes the request a `BYPASS` (`unkeyed header`), unless the route names \
         it in `key`, `pass_headers` or `drop_headers`, or sets `unknown_headers`, or the origin \
         has named it in `Vary`.",
    );
    page.section("Headers that are known to change nothing");
    page.paragraph(
        "Whose they are, and where they are described. Names count as a whole: of `x-datadog-new`, \
         nobody knows what it does. For headers of load balancers and content delivery networks, \
         name these in `fronts`: [Headers of fronts](fronts.md).",
    );
    let lists = [TRACING, FORGERY_TOKENS, PREFETCH];
    let rows: Vec<_> = lists
        .into_iter()
        .flatten()
        .map(|known| {
            let names = codes(known.names.iter().copied());
            [known.whose.to_owned(), names, link(known.source)]
        })
        .collect();
    page.table(["Whose", "Headers", "Described at"], &rows);
}

#[cfg(test)]
mod tests;
