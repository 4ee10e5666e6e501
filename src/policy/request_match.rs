//! Conditions on a request beside its method and path: values of query parameters and headers, and
//! its host.
//!
//! What decides whether a request is a write is read in every way that an origin might: any
//! occurrence of a parameter or header counts, with its name in any spelling.

use http::header::{HeaderMap, HeaderName};

use crate::policy::request_target;

/// What a request must have. Without conditions, every request matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestMatch {
    /// Query parameters and their values.
    pub query: Box<[(Box<str>, Box<str>)]>,
    /// Headers and their values.
    pub headers: Box<[(HeaderName, Box<str>)]>,
    /// The host, lower-case. Without a port, any port matches.
    pub host: Option<Box<str>>,
}

impl RequestMatch {
    /// Whether a request to this host, with this query and these headers, meets all conditions.
    #[must_use]
    pub fn is_met(&self, host: &str, query: &str, headers: &HeaderMap) -> bool {
        self.query.iter().all(|(name, value)| request_target::has_value(query, name, value))
            && self.headers.iter().all(|(name, value)| has_header(headers, name, value))
            && self.host.as_deref().is_none_or(|wanted| is_host(host, wanted))
    }

    /// Whether it has no conditions.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.query.is_empty() && self.headers.is_empty() && self.host.is_none()
    }
}

/// Whether a line of the header, or a member of a line, is this value.
fn has_header(headers: &HeaderMap, name: &HeaderName, value: &str) -> bool {
    headers.iter().filter(|(given, _)| is_same_header(given, name)).any(|(_, line)| {
        let line = line.as_bytes();
        line.trim_ascii() == value.as_bytes()
            || line.split(|&byte| byte == b',').any(|part| part.trim_ascii() == value.as_bytes())
    })
}

/// Whether CGI makes the same variable of two names: `_` stands for all but letters and digits.
fn is_same_header(one: &HeaderName, other: &HeaderName) -> bool {
    let (one, other) = (one.as_str().as_bytes(), other.as_str().as_bytes());
    let is_same = |(one, other): (&u8, &u8)| {
        one == other || !(one.is_ascii_alphanumeric() || other.is_ascii_alphanumeric())
    };
    one.len() == other.len() && one.iter().zip(other).all(is_same)
}

/// Whether a host is the wanted one, on any port if that has none. A final dot does not count.
fn is_host(host: &str, wanted: &str) -> bool {
    let (name, port) = split_port(host);
    let (wanted_name, wanted_port) = split_port(wanted);
    name == wanted_name && (wanted_port.is_none() || wanted_port == port)
}

/// A host's name without its final dot, and its port.
fn split_port(host: &str) -> (&str, Option<&str>) {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (name, Some(port)),
        _ => (host, None),
    };
    (name.strip_suffix('.').unwrap_or(name), port.filter(|port| !port.is_empty()))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn by_query(name: &str, value: &str) -> RequestMatch {
        RequestMatch { query: [(name.into(), value.into())].into(), ..RequestMatch::default() }
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
            headers: [(HeaderName::from_static("x-do"), "it".into())].into(),
            host: Some("app.test".into()),
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
}
