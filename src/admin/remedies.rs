//! Suggests the line of `proxy.toml` that would remove a reason for missing the cache. The operator
//! decides.
//!
//! The texts about a reason come from `outcome::Reason`; this adds the line, with the names from
//! the requests and the route. Some lines give up a protection.

use crate::outcome::Reason;
use crate::policy::route::Route;

/// The explanation of a reason and its remedy.
pub(super) struct Remedy {
    /// What the reason means, and what to do about it.
    pub(super) why: String,
    /// The line of `proxy.toml`, if there is one.
    pub(super) line: Option<String>,
}

/// The remedy for a reason on a route. `subject` is the name that the reason is most often about.
pub(super) fn remedy(reason: Reason, subject: Option<&str>, route: Option<&Route>) -> Remedy {
    let words = [Some(reason.meaning()), reason.remedy()];
    let why = words.into_iter().flatten().collect::<Vec<_>>().join(" ");
    Remedy { why, line: line(reason, subject, route) }
}

fn line(reason: Reason, subject: Option<&str>, route: Option<&Route>) -> Option<String> {
    let line = match reason {
        Reason::UnkeyedHeader => return subject.map(|name| format!("pass_headers = [{name:?}]")),
        Reason::MissingField => {
            return subject.zip(route).map(|(name, route)| key_without(name, route));
        }
        Reason::ModeOff | Reason::Shadow => "mode = \"on\"",
        Reason::AmbiguousQuery => "query = \"all\"",
        Reason::RequestNoCache | Reason::RequestNoStore => "client_cache_control = \"ignore\"",
        Reason::NoStore | Reason::Private | Reason::NoCache | Reason::StaleOnArrival => {
            "origin = \"ignore\""
        }
        Reason::NoFreshness => "ttl = \"5m\"",
        Reason::SetCookie => "strip_set_cookie = [\"NAME\"]",
        Reason::Authorization => "scope = \"private\"",
        Reason::NotAdmitted => "admit_for = \"5m\"",
        Reason::CredentialUnconfirmed => "revalidate_after = \"5m\"",
        Reason::Expired => "ttl = \"15m\"",
        Reason::MutationPending => "guard = \"mark\"",
        Reason::TooLarge => "[limits] object = \"32MiB\"",
        Reason::TooManyTags => "[limits] tags = 4096",
        Reason::MethodOverride => "[upstream] method_override = true",
        Reason::KeyTooLong => "[limits] key = \"64KiB\"",
        Reason::Range => "[limits] range_fill = \"64MiB\"",
        Reason::NoRoute
        | Reason::WithheldHeader
        | Reason::FillRefused
        | Reason::ContentCoding
        | Reason::Method
        | Reason::AmbiguousPath
        | Reason::RequestBody
        | Reason::Precondition
        | Reason::Upgrade
        | Reason::ConnectionLogin
        | Reason::DeclaredWrite
        | Reason::CacheUnavailable
        | Reason::NotStored
        | Reason::StaleWhileRevalidate
        | Reason::Purged
        | Reason::OnlyIfCached
        | Reason::VaryMiss
        | Reason::VaryStar
        | Reason::Status
        | Reason::Truncated
        | Reason::Unframed
        | Reason::ClientGone
        | Reason::EventStream
        | Reason::Trailers
        | Reason::PurgedDuringFill
        | Reason::StoreFailed
        | Reason::Unverifiable
        | Reason::BadRequest
        | Reason::UpstreamUnreachable
        | Reason::UpstreamTimeout
        | Reason::UpstreamProtocolError
        | Reason::UpstreamError
        | Reason::UpstreamBusy
        | Reason::WriteRefused
        | Reason::Handover => return None,
    };
    Some(line.to_owned())
}

/// The `key` line of a route, without one field.
fn key_without(name: &str, route: &Route) -> String {
    let others = route.spec.key.iter().filter(|field| *field.name != *name);
    let kept: Vec<String> = others.map(|field| format!("{:?}", field.name)).collect();
    format!("key = [{}]", kept.join(", "))
}
