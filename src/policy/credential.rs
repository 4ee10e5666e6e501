//! What identifies a client: its credential.

use std::fmt;

use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use percent_encoding::percent_decode;

use crate::policy::cookie_header;
use crate::policy::cookies::IgnoredCookies;
use crate::policy::glob::{Glob, any_matches};
use crate::policy::session::SessionRules;
use crate::secret::Hasher;
use crate::units::short_hex;

/// What identifies a client, besides `Authorization`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialRule {
    /// Further headers that identify a client.
    pub headers: Box<[HeaderName]>,
    /// The cookies that count; `None` for the whole `Cookie` header.
    pub cookies: Option<Box<[Glob]>>,
    /// The cookies that are withheld on fills and count for nothing.
    pub ignored_cookies: IgnoredCookies,
    /// The paths that the origin redirects to when a caller must log in; see [`login_glob`].
    pub login_paths: Box<[Glob]>,
    /// Whether the operator has named them. Only then a redirect to one of them may mean that a
    /// write was refused: by default none does, because many an application answers so when it has
    /// carried out a write of a stranger, such as a registration or a new password.
    pub names_logins: bool,
    /// The signed session cookies that fields read: each identifies the client.
    pub sessions: SessionRules,
}

/// Where common frameworks and identity providers let a caller log in, below any path.
pub const LOGIN_PATHS: &[&str] = &[
    "*/login",
    "*/login/*",
    "*/login.*",
    "*/log-in",
    "*/log_in",
    "*/logon*",
    "*/signin*",
    "*/sign_in",
    "*/sign-in",
    "*/session/new",
    "*/sessions/new",
    "*/wp-login.php",
    "*/accounts/login*",
    "*/auth",
    "*/auth/login*",
    "*/user/login*",
    "*/sso",
    "*/sso/*",
    "*/saml/*",
    "*/saml2/*",
    "*/authorize*",
    "*/oauth2/*",
    "*/openid-connect/auth",
    "*/adfs/ls*",
];

/// What the host of an identity provider begins with.
const LOGIN_LABELS: [&str; 7] = ["login", "auth", "sso", "accounts", "account", "id", "idp"];

/// A pattern of the paths of logins. Case and escapes do not count, in it as in paths.
#[must_use]
pub fn login_glob(text: &str) -> Glob {
    Glob::new(&String::from_utf8_lossy(&without_case_and_escapes(text.as_bytes())))
}

fn without_case_and_escapes(path: &[u8]) -> Vec<u8> {
    let mut plain: Vec<u8> = percent_decode(path).collect();
    plain.make_ascii_lowercase();
    plain
}

impl Default for CredentialRule {
    fn default() -> Self {
        Self {
            headers: Box::default(),
            cookies: None,
            ignored_cookies: IgnoredCookies::default(),
            login_paths: LOGIN_PATHS.iter().copied().map(login_glob).collect(),
            names_logins: false,
            sessions: SessionRules::default(),
        }
    }
}

/// What the names of session cookies have in common.
const SESSION_NAMES: [&str; 13] = [
    "sess", "sid", "auth", "token", "jwt", "login", "logged", "remember", "identity",
    // Of CakePHP, Symfony, Magento 1 and XenForo.
    "cakephp", "symfony", "frontend", "xf_user",
];

fn names_session(name: &[u8]) -> bool {
    let name = name.to_ascii_lowercase();
    // Joomla's are 32 hexadecimal digits.
    let is_digest = name.len() == 32 && name.iter().all(u8::is_ascii_hexdigit);
    is_digest
        || SESSION_NAMES.iter().any(|part| memchr::memmem::find(&name, part.as_bytes()).is_some())
}

/// A keyed hash of a client's whole credential.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Credential(pub [u8; 32]);

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential({})", short_hex(&self.0))
    }
}

impl CredentialRule {
    /// The client's credential; `None` for a request without one. `further` are headers that count
    /// besides those of the rule, and `cookies` those that identify the client, as one `Cookie`
    /// header.
    #[must_use]
    pub fn credential(
        &self,
        headers: &HeaderMap,
        further: &[HeaderName],
        cookies: Option<&[u8]>,
        hasher: &Hasher,
    ) -> Option<Credential> {
        let is_bare = self.headers.is_empty() && further.is_empty();
        if !headers.contains_key(AUTHORIZATION) && cookies.is_none() && is_bare {
            return None;
        }
        let others = || self.headers.iter().chain(further);
        let any = cookies.is_some()
            || headers.contains_key(AUTHORIZATION)
            || others().any(|name| headers.contains_key(name));
        let digest = || {
            hasher.digest_of("credential", |write| {
                let mut part = |kind: u8, name: &[u8], value: &[u8]| {
                    write(&[kind]);
                    for bytes in [name, value] {
                        write(&(bytes.len() as u64).to_be_bytes());
                        write(bytes);
                    }
                };
                for value in headers.get_all(AUTHORIZATION) {
                    part(b'A', b"", value.as_bytes());
                }
                for name in others() {
                    for value in headers.get_all(name) {
                        part(b'H', name.as_str().as_bytes(), value.as_bytes());
                    }
                }
                if let Some(cookies) = cookies {
                    part(b'C', b"", cookies);
                }
            })
        };
        any.then(|| Credential(digest()))
    }

    /// Whether a request has something that its sender alone knows: `Authorization`, a header of
    /// `headers`, or a cookie of `cookies`. Without such a list, a cookie whose name says that it
    /// is a session; other cookies are the same for many, as those of consent and of themes.
    #[must_use]
    pub fn identifies(&self, headers: &HeaderMap) -> bool {
        headers.contains_key(AUTHORIZATION)
            || self.headers.iter().any(|name| headers.contains_key(name))
            || self.identifying_cookies(headers).next().is_some()
    }

    /// The cookies of a request that its sender alone knows: name and value.
    pub fn identifying_cookies<'a>(
        &'a self,
        headers: &'a HeaderMap,
    ) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let cookies = cookie_header::cookies(headers);
        cookies.filter(|(name, value)| self.is_identifying_cookie(name, value))
    }

    /// Whether the owner of this cookie alone knows it.
    #[must_use]
    pub fn is_identifying_cookie(&self, name: &[u8], value: &[u8]) -> bool {
        !value.is_empty()
            && (self.sessions.names(name)
                || match &self.cookies {
                    Some(listed) => any_matches(listed, name),
                    None => !self.ignored_cookies.ignores(name) && names_session(name),
                })
    }

    /// Whether a redirect to this `Location`, of a request to this host, asks the caller to log in.
    /// Of a relative or absolute reference, the path counts, without parameters; and the host,
    /// where it is another one whose first label is that of an identity provider.
    #[must_use]
    pub fn is_login(&self, location: &HeaderValue, request_host: &str) -> bool {
        let (authority, path) = authority_and_path(location.as_bytes());
        let host = authority.and_then(host_of);
        if host.is_some_and(|host| is_login_host(host) && !is_same_host(host, request_host)) {
            return true;
        }
        self.is_login_path(path)
    }

    /// Whether a redirect of a stranger's write to this `Location` says that it was refused: to one
    /// of the paths that the operator has named.
    #[must_use]
    pub fn refuses_writes(&self, location: &HeaderValue) -> bool {
        self.names_logins && self.is_login_path(authority_and_path(location.as_bytes()).1)
    }

    /// Whether a path is one of `login_paths`.
    #[must_use]
    pub fn is_login_path(&self, path: &[u8]) -> bool {
        let mut plain = without_case_and_escapes(path);
        if !plain.starts_with(b"/") {
            // Relative to the request's path: only its end is known.
            plain.insert(0, b'/');
        }
        any_matches(&self.login_paths, &plain)
    }
}

/// The host of an authority, without user and port.
fn host_of(authority: &[u8]) -> Option<&str> {
    let authority = str::from_utf8(authority).ok()?;
    let host = authority.rsplit('@').next()?;
    host.split(':').next()
}

fn is_login_host(host: &str) -> bool {
    let label = host.split('.').next().unwrap_or_default();
    LOGIN_LABELS.iter().any(|known| known.eq_ignore_ascii_case(label))
}

fn is_same_host(host: &str, request_host: &str) -> bool {
    host_of(request_host.as_bytes()).is_some_and(|own| own.eq_ignore_ascii_case(host))
}

/// The authority, if there is one, and the path of a URI reference (RFC 3986 4.1), without the
/// parameters that Java puts after `;`.
fn authority_and_path(reference: &[u8]) -> (Option<&[u8]>, &[u8]) {
    let reference = reference.trim_ascii();
    let end = reference.iter().position(|byte| b"?#;".contains(byte)).unwrap_or(reference.len());
    let mut path = &reference[..end];
    let after_scheme = match path.iter().position(|&byte| byte == b'/' || byte == b':') {
        Some(colon) if path[colon] == b':' => path.get(colon + 1..),
        _ => Some(path),
    };
    let mut authority = None;
    if let Some(rest) = after_scheme.and_then(|rest| rest.strip_prefix(b"//")) {
        let end = rest.iter().position(|&byte| byte == b'/').unwrap_or(rest.len());
        (authority, path) = (Some(&rest[..end]), &rest[end..]);
    }
    while let Some(rest) = path.strip_prefix(b"../").or_else(|| path.strip_prefix(b"./")) {
        path = rest;
    }
    (authority, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn a_credential_is_all_that_identifies_the_caller() {
        let hasher = Hasher::default();
        let rule = CredentialRule {
            headers: [HeaderName::from_static("x-api-key")].into(),
            ..CredentialRule::default()
        };
        let of = |lines: &[(&'static str, &'static str)]| {
            let headers = headers(lines);
            let cookies = headers.get("cookie").map(HeaderValue::as_bytes);
            rule.credential(&headers, &[], cookies, &hasher)
        };
        assert_eq!(of(&[("accept", "*/*")]), None);
        let all = [
            of(&[("authorization", "a")]),
            of(&[("cookie", "a")]),
            of(&[("x-api-key", "a")]),
            of(&[("authorization", "a"), ("cookie", "a")]),
            of(&[("authorization", "b")]),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(one.is_some());
            assert!(!all[at + 1..].contains(one));
        }
    }

    #[test]
    fn a_client_is_identified_by_what_it_alone_knows() {
        let plain = CredentialRule::default();
        let listed = CredentialRule { cookies: Some(["app_*".into()].into()), ..plain.clone() };
        let of = |rule: &CredentialRule, lines: &[_]| rule.identifies(&headers(lines));
        for cookie in [
            "sessionid=1",
            "a=1; PHPSESSID=2",
            "connect.sid=x",
            "access_token=y",
            "CAKEPHP=1",
            "0123456789abcdef0123456789abcdef=1",
        ] {
            assert!(of(&plain, &[("cookie", cookie)]), "{cookie}");
            assert!(!of(&listed, &[("cookie", cookie)]), "{cookie}: another is listed");
        }
        for cookie in ["theme=dark", "cookieconsent_status=dismiss", "_ga=1", "sessionid=", ""] {
            assert!(!of(&plain, &[("cookie", cookie)]), "{cookie}");
        }
        assert!(of(&listed, &[("cookie", "app_user=1")]));
        assert!(of(&listed, &[("authorization", "a")]) && !of(&plain, &[]));
    }

    #[test]
    fn a_login_is_known_by_the_path_of_its_location() {
        let rule = CredentialRule {
            login_paths: ["/Login", "*/accounts/log%69n*", "/"].map(login_glob).into(),
            ..CredentialRule::default()
        };
        let of = |location: &'static str| {
            rule.is_login(&HeaderValue::from_static(location), "app.test:8080")
        };
        for login in [
            "/login",
            "/login?next=/a",
            "/login#top",
            "/login;jsessionid=1",
            "login",
            "../login?x",
            "./login",
            "https://app.test/login",
            "https://app.test:8443/login?next=https://x/y",
            "//app.test/login",
            "http://app.test/en/accounts/login/",
            " /login",
            "/",
            "/LOGIN",
            "/%6cog%49n",
            "https://login/a",
            "https://login.test/a",
            "//SSO.test:443/a",
            "https://someone@idp.test/a",
        ] {
            assert!(of(login), "{login}");
        }
        for other in [
            "/logins",
            "/a?next=https://login.test/",
            "https://logins.test/a",
            "https://www.login.test/a",
            "https://login:a@app.test/a",
            "/a?next=/login",
            "/a#/login",
            "https://user:login@app.test/a",
            "urn:login",
        ] {
            assert!(!of(other), "{other}");
        }
        // A host of its own is no other host.
        let own = HeaderValue::from_static("https://login.test:8443/a");
        assert!(!rule.is_login(&own, "login.test"));
    }

    #[test]
    fn the_usual_logins_are_known() {
        let rule = CredentialRule::default();
        for login in [
            "/connect/authorize?x",
            "/oauth2/authorize",
            "/authorize",
            "/Account/LogOn",
            "/signin-oidc",
            "/sso/a",
            "/saml/a",
            "/auth",
            "/en/login",
        ] {
            assert!(rule.is_login(&HeaderValue::from_static(login), "app.test"), "{login}");
        }
        assert!(!rule.is_login(&HeaderValue::from_static("/authors"), "app.test"));
    }

    #[test]
    fn the_secret_changes_every_hash() {
        let headers = headers(&[("authorization", "a")]);
        let rule = CredentialRule::default();
        assert_ne!(
            rule.credential(&headers, &[], None, &Hasher::new(b"one")),
            rule.credential(&headers, &[], None, &Hasher::new(b"two"))
        );
        assert_ne!(Hasher::default().digest("a", b"bc"), Hasher::default().digest("ab", b"c"));
    }
}
