//! Why requests go around the cache, in a sentence, and the line of `proxy.toml` that would change it.
//!
//! The line is a proposal, for a person to judge: some of them give up a protection, and say so.

use crate::outcome::Reason;
use crate::policy::route::Route;

/// What to know of a reason.
pub(super) struct Mend {
    /// What it means, and what the line would mean.
    pub(super) why: &'static str,
    /// The line, if there is one.
    pub(super) line: Option<String>,
}

/// What can be done about a reason on a route, given the commonest thing that it speaks of.
pub(super) fn mend(reason: Reason, subject: Option<&str>, route: Option<&Route>) -> Option<Mend> {
    let line = |why: &'static str, line: &str| Some(Mend { why, line: Some(line.to_owned()) });
    let words = |why: &'static str| Some(Mend { why, line: None });
    let limit = |why: &'static str, text: &str| Some(Mend { why, line: Some(format!("[limits] {text}")) });
    match reason {
        Reason::UnkeyedHeader => Some(Mend {
            why: "The app may see this header and no key has: if it changes nothing, let it through; if it does, make it a field of the key.",
            line: subject.map(|name| format!("pass_headers = [{name:?}]")),
        }),
        Reason::MissingField => Some(Mend {
            why: "The key or the tags need a field that these requests lack: let clients send it, or take it out of the rule.",
            line: subject.zip(route).map(|(name, route)| without(name, route)),
        }),
        Reason::ModeOff => line("The route, or the whole file, is switched off.", "mode = \"on\""),
        Reason::Shadow => line("The route only watches: see what it found, then let it cache.", "mode = \"on\""),
        Reason::NoRoute => words("No route takes these paths: add one for those that should be cached."),
        Reason::AmbiguousQuery => {
            line("A parameter that counts comes twice, or cannot be read: let every parameter count.", "query = \"all\"")
        }
        Reason::RequestNoCache | Reason::RequestNoStore => {
            line("Clients ask for it with their own Cache-Control: stop listening to them.", "client_cache_control = \"ignore\"")
        }
        Reason::NoStore | Reason::Private | Reason::NoCache | Reason::StaleOnArrival => {
            line("The app says so itself; if it says so of everything, overrule it with the route's ttl.", "origin = \"ignore\"")
        }
        Reason::NoFreshness => line("Neither the app nor the route says for how long it is fresh.", "ttl = \"5m\""),
        Reason::SetCookie => line("The response sets a cookie: store it without, if the cookie is of no use.", "strip_set_cookie = true"),
        Reason::Authorization => {
            line("The request was authorized and the response does not allow sharing: key it by the caller.", "scope = \"private\"")
        }
        Reason::NotAdmitted => line("The app has to answer each caller once within this time.", "admit_for = \"5m\""),
        Reason::Expired => line("What was stored is past its time: give it more, if writes purge it anyway.", "ttl = \"15m\""),
        Reason::MutationPending => line("Hits wait for writes because a purge rule says so.", "guard = \"mark\""),
        Reason::TooLarge => limit("The body is larger than what is stored.", "object = \"32MiB\""),
        Reason::TooManyTags => limit("It carries more tags than an entry may.", "tags = 256"),
        Reason::KeyTooLong => limit("Its key would be longer than a key may be.", "key = \"64KiB\""),
        Reason::Range => {
            limit("A part was asked for of what is not stored; what is small enough is fetched whole.", "range_fill = \"64MiB\"")
        }
        Reason::AmbiguousPath => words("The path has more than one reading: let clients write plain paths."),
        Reason::CacheUnavailable => words("Redis did not answer in time, or is lost; see its state."),
        Reason::VaryStar => words("The app says that nothing tells its answers apart (Vary: *)."),
        Reason::Purged => words("What was stored was purged by a write: as it should be."),
        _ => None,
    }
}

/// The route's key without a field.
fn without(name: &str, route: &Route) -> String {
    let kept: Vec<String> = route.spec.key.iter().filter(|field| *field.name != *name).map(|field| format!("{:?}", field.name)).collect();
    format!("key = [{}]", kept.join(", "))
}
