//! Conditions on a request beside its method and path: values of query parameters and headers, and
//! its host.
//!
//! Programs read one request in different ways, so that the verdict has three values.
//! Invariants:
//! 1. [`MatchVerdict::Met`] and [`MatchVerdict::Unmet`] are what every program would say.
//! 2. What decides whether a request is a write, and what it purges, takes doubt for yes: any
//!    occurrence of a parameter or header counts, with its name in any spelling.
//! 3. What decides which responses share an entry takes doubt for neither.

use std::fmt;

use http::header::{HeaderMap, HeaderName};

pub use self::label::{labelled, match_label};
pub use self::space::any_request;

mod label;
mod readings;
mod space;

/// The values that meet a condition: one of them must be there.
pub type MatchValues = Box<[Box<str>]>;

/// What a request must have. Without conditions, every request matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestMatch {
    /// Query parameters and their values.
    pub query: Box<[(Box<str>, MatchValues)]>,
    /// Headers and their values.
    pub headers: Box<[(HeaderName, MatchValues)]>,
    /// The hosts, lower-case; none for every host. Without a port, any port matches.
    pub hosts: MatchValues,
    /// The conditions for people, with variables by their names. Empty without conditions.
    pub label: Box<str>,
}

/// What a condition is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition<'a> {
    /// A parameter of the query.
    Query(&'a str),
    /// A header.
    Header(&'a HeaderName),
    /// The host.
    Host,
}

/// Whether a request meets conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatchVerdict<'a> {
    /// It does.
    Met,
    /// It does not.
    Unmet,
    /// Some programs would say that it does, and others that it does not, because of this.
    Doubtful(Condition<'a>),
}

impl fmt::Display for Condition<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Query(name) => write!(f, "query.{name}"),
            Self::Header(name) => write!(f, "header.{name}"),
            Self::Host => f.write_str("host"),
        }
    }
}

impl Condition<'_> {
    /// Whether a value is one of these.
    fn has(&self, wanted: &[Box<str>], value: &str) -> bool {
        match self {
            Self::Host => wanted.iter().any(|one| is_host(value, one)),
            Self::Query(_) | Self::Header(_) => wanted.iter().any(|one| **one == *value),
        }
    }
}

impl RequestMatch {
    /// Whether a request to this host, with this query and these headers, meets all conditions, by
    /// any reading of it.
    #[must_use]
    pub fn is_met(&self, host: &str, query: &str, headers: &HeaderMap) -> bool {
        self.verdict(host, query, headers) != MatchVerdict::Unmet
    }

    /// Whether a request to this host, with this query and these headers, meets all conditions.
    #[must_use]
    pub fn verdict(&self, host: &str, query: &str, headers: &HeaderMap) -> MatchVerdict<'_> {
        let mut verdict = MatchVerdict::Met;
        for (condition, wanted) in self.conditions() {
            let (surely, perhaps) = match condition {
                Condition::Query(name) => judge(&readings::of_parameter(query, name), wanted),
                Condition::Header(name) => judge(&readings::of_header(headers, name), wanted),
                Condition::Host => judge_host(host, headers, wanted),
            };
            if !perhaps {
                return MatchVerdict::Unmet;
            }
            if !surely && verdict == MatchVerdict::Met {
                verdict = MatchVerdict::Doubtful(condition);
            }
        }
        verdict
    }

    /// The conditions with their values.
    pub fn conditions(&self) -> impl Iterator<Item = (Condition<'_>, &[Box<str>])> {
        let query = self.query.iter().map(|(name, values)| (Condition::Query(name), &**values));
        let headers =
            self.headers.iter().map(|(name, values)| (Condition::Header(name), &**values));
        let hosts = (!self.hosts.is_empty()).then_some((Condition::Host, &*self.hosts));
        query.chain(headers).chain(hosts)
    }

    /// Whether it has no conditions.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.query.is_empty() && self.headers.is_empty() && self.hosts.is_empty()
    }

    /// Whether every request that meets these conditions meets the others, too.
    #[must_use]
    pub fn implies(&self, other: &Self) -> bool {
        other.conditions().all(|(condition, values)| {
            self.values(condition)
                .is_some_and(|own| own.iter().all(|value| condition.has(values, value)))
        })
    }

    /// Whether no request meets both.
    #[must_use]
    pub fn excludes(&self, other: &Self) -> bool {
        other.conditions().any(|(condition, values)| {
            self.values(condition).is_some_and(|own| {
                !own.iter().any(|value| condition.has(values, value))
                    && !values.iter().any(|value| condition.has(own, value))
            })
        })
    }

    /// Whether a request may meet both, and neither is narrower than the other.
    #[must_use]
    pub fn ties(&self, other: &Self) -> bool {
        !self.excludes(other) && self.implies(other) == other.implies(self)
    }

    fn values(&self, wanted: Condition<'_>) -> Option<&[Box<str>]> {
        self.conditions().find(|(condition, _)| *condition == wanted).map(|(_, values)| values)
    }
}

/// Whether every program, and whether some program, reads one of these values.
fn judge(readings: &readings::Readings<'_>, wanted: &[Box<str>]) -> (bool, bool) {
    (readings.is_surely(wanted), readings.is_perhaps(wanted))
}

fn judge_host(host: &str, headers: &HeaderMap, wanted: &[Box<str>]) -> (bool, bool) {
    let is_wanted = |host: &str| wanted.iter().any(|one| is_host(host, one));
    // Some tell `app.test.` from `app.test`.
    let is_plain = !split_name(host).ends_with('.');
    let (mut all, mut any) = (is_wanted(host) && is_plain, is_wanted(host));
    for host in readings::further_hosts(headers) {
        let is = is_wanted(&host);
        (all, any) = (all && is, any || is);
    }
    (all, any)
}

/// Whether a host is the wanted one, on any port if that has none. A final dot does not count.
fn is_host(host: &str, wanted: &str) -> bool {
    let (name, port) = split_port(host);
    let (wanted_name, wanted_port) = split_port(wanted);
    name == wanted_name && (wanted_port.is_none() || wanted_port == port)
}

/// A host's name without its final dot, and its port.
pub(super) fn split_port(host: &str) -> (&str, Option<&str>) {
    let name = split_name(host);
    let port = host[name.len()..].strip_prefix(':').filter(|port| !port.is_empty());
    (name.strip_suffix('.').unwrap_or(name), port)
}

/// A host's name.
fn split_name(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn by_query(name: &str, value: &str) -> RequestMatch {
        let query = [(name.into(), [value.into()].into())].into();
        RequestMatch { query, ..RequestMatch::default() }
    }

    #[test]
    fn any_occurrence_of_a_parameter_counts() {
        let trash = by_query("action", "trash");
        for query in [
            "action=trash",
            "post=7&action=trash",
            "action=edit&action=trash",
            "action=trash&action=edit",
            "%61ction=tr%61sh",
            "a=1;action=trash",
            "action[]=trash",
            "Action=trash",
            "action=trash;x=1",
            "+action=trash",
            "%20action=trash",
            "action%00=trash",
            "action%00x[]=trash",
            "%09ACTION+=trash",
        ] {
            assert!(trash.is_met("app", query, &HeaderMap::new()), "{query}");
        }
        for query in ["", "action", "action=", "action=trash2", "action=Trash", "xaction=trash"] {
            assert!(!trash.is_met("app", query, &HeaderMap::new()), "{query}");
        }
        let flag = by_query("delete", "");
        for query in ["delete", "delete=", "a=1&delete"] {
            assert!(flag.is_met("app", query, &HeaderMap::new()), "{query}");
        }
        assert!(!flag.is_met("app", "delete=1", &HeaderMap::new()));
        assert!(by_query("q", "a b").is_met("app", "q=a+b", &HeaderMap::new()));
    }

    #[test]
    fn all_conditions_must_be_met() {
        let rule = RequestMatch {
            headers: [(HeaderName::from_static("x-do"), ["it".into()].into())].into(),
            hosts: ["app.test".into()].into(),
            ..by_query("a", "1")
        };
        let mut headers = HeaderMap::new();
        assert!(!rule.is_met("app.test", "a=1", &headers));
        headers.append("x-do", HeaderValue::from_static("nothing"));
        headers.append("x-do", HeaderValue::from_static("this, it"));
        assert!(rule.is_met("app.test", "a=1", &headers));
        assert!(rule.is_met("app.test:8080", "a=1", &headers));
        for same in ["app.test.", "app.test.:8080", "app.test:"] {
            assert!(rule.is_met(same, "a=1", &headers), "{same}");
        }
        let by_cgi = [(HeaderName::from_static("x_do"), HeaderValue::from_static("it"))];
        assert!(rule.is_met("app.test", "a=1", &by_cgi.into_iter().collect()));
        let other = [(HeaderName::from_static("xado"), HeaderValue::from_static("it"))];
        assert!(!rule.is_met("app.test", "a=1", &other.into_iter().collect()));
        for (host, wanted, same) in [
            ("app.test:80", "app.test.", true),
            ("app.test.:80", "app.test:80", true),
            ("app.test", "app.test:80", false),
            ("app.test:8", "app.test:80", false),
            ("[::1]:80", "[::1]", true),
            ("[::1]", "[::1]", true),
            ("[::1]", "[::2]", false),
        ] {
            assert_eq!(is_host(host, wanted), same, "{host} {wanted}");
        }
        for other in ["app.test.evil", "app", "app.test:80.evil"] {
            assert!(!rule.is_met(other, "a=1", &headers), "{other}");
        }
        assert!(!rule.is_met("app.test", "a=2", &headers));
        assert!(RequestMatch::default().is_empty() && !rule.is_empty());
        assert!(RequestMatch::default().is_met("", "", &HeaderMap::new()));
    }

    fn verdict(rule: &RequestMatch, query: &str) -> &'static str {
        match rule.verdict("app.test", query, &HeaderMap::new()) {
            MatchVerdict::Met => "met",
            MatchVerdict::Unmet => "unmet",
            MatchVerdict::Doubtful(_) => "doubtful",
        }
    }

    #[test]
    fn what_programs_read_differently_is_in_doubt() {
        let list = by_query("action", "list");
        for query in ["action=list", "a=1&action=list&b=%20", "action=list&x=%FF&y=+"] {
            assert_eq!(verdict(&list, query), "met", "{query}");
        }
        for query in [
            "action=list&action=save",
            "action=save&action=list",
            "action=list&action=list",
            "%61ction=list",
            "action=l%69st",
            "action=list%00x",
            "action=list%20",
            "action=%2Blist%2520&action=list",
            "action=l%2569st",
            "action[]=list",
            "Action=list",
            "action=save&Action=list",
            "action=list;x=1",
            "x=1;action=list",
            "+action=list",
            "action=%FFlist",
            "action=%zz",
            "action=%zz&action=list",
        ] {
            let expected = if query == "action=%zz" { "unmet" } else { "doubtful" };
            assert_eq!(verdict(&list, query), expected, "{query}");
        }
        for query in ["", "action", "action=save", "%61ction=save", "x=action=list", "action=LIST"]
        {
            assert_eq!(verdict(&list, query), "unmet", "{query}");
        }
        // A space is `%20` to everyone, and `+` to most.
        let spaced = by_query("q", "a b");
        assert_eq!((verdict(&spaced, "q=a%20b"), verdict(&spaced, "q=a+b")), ("met", "doubtful"));
        let joined = by_query("q", "a,b");
        assert_eq!((verdict(&joined, "q=a&q=b"), verdict(&joined, "q=a,b")), ("doubtful", "met"));
        let indexed = by_query("f[a]", "1");
        assert_eq!((verdict(&indexed, "f[a]=1"), verdict(&indexed, "f%5Ba%5D=1")), ("met", "met"));
    }

    #[test]
    fn headers_and_hosts_can_be_in_doubt() {
        let rule = RequestMatch {
            headers: [(HeaderName::from_static("x-do"), ["it".into(), "that".into()].into())]
                .into(),
            hosts: ["app.test".into()].into(),
            ..RequestMatch::default()
        };
        let of = |host: &str, lines: &[(&'static str, &'static str)]| {
            let headers: HeaderMap = lines
                .iter()
                .map(|(name, value)| {
                    (HeaderName::from_static(name), HeaderValue::from_static(value))
                })
                .collect();
            match rule.verdict(host, "", &headers) {
                MatchVerdict::Met => "met".to_owned(),
                MatchVerdict::Unmet => "unmet".to_owned(),
                MatchVerdict::Doubtful(condition) => condition.to_string(),
            }
        };
        let it = ("x-do", "it");
        assert_eq!(of("app.test", &[it]), "met");
        assert_eq!(of("app.test:81", &[("x-do", " that ")]), "met");
        assert_eq!(of("app.test", &[]), "unmet");
        assert_eq!(of("app.test", &[it, it]), "header.x-do");
        assert_eq!(of("app.test", &[("x-do", "it, this")]), "header.x-do");
        assert_eq!(of("app.test", &[("x_do", "it")]), "header.x-do");
        assert_eq!(of("app.test", &[("x-do", "this")]), "unmet");
        assert_eq!(of("app.test.", &[it]), "host");
        assert_eq!(of("other.test", &[it]), "unmet");
        for (name, value) in [
            ("x-forwarded-host", "other.test"),
            ("x-host", "App.test, other.test"),
            ("forwarded", "for=1.1.1.1;host=\"other.test\""),
        ] {
            assert_eq!(of("app.test", &[it, (name, value)]), "host", "{name}");
        }
        assert_eq!(of("app.test", &[it, ("x-forwarded-host", "App.test:80")]), "met");
        assert_eq!(of("other.test", &[it, ("forwarded", "host=app.test")]), "host");
    }

    #[test]
    fn conditions_are_compared_by_the_requests_that_meet_them() {
        let of = |query: &[(&str, &[&str])], hosts: &[&str]| RequestMatch {
            query: query
                .iter()
                .map(|(name, values)| {
                    ((*name).into(), values.iter().map(|value| (*value).into()).collect())
                })
                .collect(),
            hosts: hosts.iter().map(|host| (*host).into()).collect(),
            ..RequestMatch::default()
        };
        let any = of(&[], &[]);
        let list = of(&[("a", &["list"])], &[]);
        let both = of(&[("a", &["list", "show"])], &[]);
        let save = of(&[("a", &["save"])], &[]);
        let more = of(&[("a", &["list"]), ("b", &["1"])], &[]);
        let other = of(&[("b", &["1"])], &[]);
        for (one, two, narrower) in [
            (&list, &any, true),
            (&list, &both, true),
            (&more, &list, true),
            (&more, &other, true),
            (&of(&[], &["a.test:80"]), &of(&[], &["a.test"]), true),
            (&list, &save, false),
            (&list, &other, false),
        ] {
            assert_eq!(one.implies(two), narrower, "{one:?} {two:?}");
            assert!(!two.implies(one), "{one:?} {two:?}");
            let is_tied = !narrower && two == &other;
            assert_eq!((one.ties(two), two.ties(one)), (is_tied, is_tied), "{one:?} {two:?}");
        }
        assert!(list.excludes(&save) && !list.excludes(&both) && !list.excludes(&other));
        assert!(list.ties(&list.clone()) && any.ties(&any.clone()));
        let meet = |wanted: &RequestMatch, but: &[&RequestMatch]| {
            any_request(but.iter().copied().chain([wanted]), |sample| {
                sample.meets(wanted) && !but.iter().any(|one| sample.meets(one))
            })
        };
        let show = of(&[("a", &["show"])], &[]);
        assert!(meet(&both, &[&list]) && meet(&any, &[&list, &show]) && meet(&list, &[&more]));
        assert!(!meet(&both, &[&list, &show]) && !meet(&list, &[&both]));
    }
}
