//! `PURGE` and `BAN` as plugins of content management systems send them: who may, and what they
//! name. Off unless the file has `[purge_requests]`; then the app never sees them.
//!
//! A request names one path, or tags, or a folder as a regular expression of plain text and a final
//! `.*`. Other expressions are refused: a purge that leaves something out is a stale response.

use http::header::{HeaderMap, HeaderName};
use http::{Method, StatusCode};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::peer_address::PeerAddress;
use crate::policy::client_address::ClientAddressRule;
use crate::policy::folder::{Folder, MAX_FOLDER_SEGMENTS};
use crate::policy::fronts;
use crate::policy::request_target;
use crate::policy::tag::Tag;
use crate::secret::Secret;
use crate::semantics::forward::{self, ClientPeer, Network};

/// The most tags that one request may name.
pub const MAX_REQUEST_TAGS: usize = 1000;

/// The headers in which a request names tags, separated by spaces or commas.
pub const TAG_HEADERS: [&str; 6] =
    ["cache-tags", "surrogate-key", "xkey", "cache-tag", "x-cache-tags", "purge-cache-tags"];

/// The header with a regular expression of paths.
const REGEX_HEADER: &str = "x-purge-regex";

/// The header by which plugins of `WordPress` say that the path is a regular expression.
const METHOD_HEADER: &str = "x-purge-method";

/// Who may send purge requests.
#[derive(Clone, Debug)]
pub struct PurgeRequestRule {
    from: Box<[Network]>,
    // The hash of the token: comparing hashes reveals nothing of a guess, not even its length.
    token: Option<[u8; 32]>,
    token_header: HeaderName,
}

/// What a purge request purges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PurgeTarget {
    /// The entries of one path.
    Path(Vec<Tag>),
    /// What carries these tags, or is in this folder.
    Tags(Vec<Tag>),
    /// All entries: it names every path.
    Everything,
}

/// Why a purge request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PurgeRefusal {
    /// It comes from an address that `from` does not name.
    Address,
    /// Its token is missing or wrong.
    Token,
    /// Its regular expression is more than plain text and a final `.*`.
    Regex,
    /// It names more than [`MAX_REQUEST_TAGS`] tags.
    TooManyTags,
}

impl PurgeRefusal {
    /// Why, for the client and the log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Address => {
                "purge requests are not taken from this address; behind a proxy that \
                 trusted_proxies does not name, none is known"
            }
            Self::Token => "the token of the purge request is missing or wrong",
            Self::Regex => {
                "only regular expressions of plain text are taken: ^/path/.* for a folder, \
                 ^/path$ for one path, with \\ before a dot; or name tags in Cache-Tags"
            }
            Self::TooManyTags => "the purge request names more than 1000 tags",
        }
    }

    /// The status of the response.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::Address | Self::Token => StatusCode::FORBIDDEN,
            Self::Regex | Self::TooManyTags => StatusCode::BAD_REQUEST,
        }
    }
}

impl PurgeRequestRule {
    /// The rule for these networks and this token; where there are both, both count.
    #[must_use]
    pub fn new(from: Box<[Network]>, token: Option<&Secret>, token_header: HeaderName) -> Self {
        Self { from, token: token.map(|token| hash(token.expose().as_bytes())), token_header }
    }

    /// Whether a method is one of purge requests.
    #[must_use]
    pub fn is_for(method: &Method) -> bool {
        matches!(method.as_str(), "PURGE" | "BAN")
    }

    /// Whether this request may purge.
    ///
    /// # Errors
    /// Why it may not.
    pub fn allow(
        &self,
        headers: &HeaderMap,
        peer: &ClientPeer,
        addresses: &ClientAddressRule,
    ) -> Result<(), PurgeRefusal> {
        if !self.from.is_empty() {
            let sender = sender(headers, peer, addresses).ok_or(PurgeRefusal::Address)?;
            if !self.from.iter().any(|network| network.includes(sender)) {
                return Err(PurgeRefusal::Address);
            }
        }
        if let Some(expected) = &self.token {
            let mut lines = headers.get_all(&self.token_header).iter();
            let (Some(token), None) = (lines.next(), lines.next()) else {
                return Err(PurgeRefusal::Token);
            };
            if !bool::from(hash(token.as_bytes()).ct_eq(expected)) {
                return Err(PurgeRefusal::Token);
            }
        }
        Ok(())
    }
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Where a request comes from. SECURITY: a client is never taken for the proxy that carries its
/// request: through one that is not trusted, nobody is known.
fn sender(
    headers: &HeaderMap,
    peer: &ClientPeer,
    addresses: &ClientAddressRule,
) -> Option<PeerAddress> {
    if peer.trusted {
        return addresses.behind_proxy(headers, peer).map(PeerAddress::from);
    }
    (!headers.keys().any(is_of_proxies)).then_some(peer.addr)
}

/// Whether a header is one that proxies add, whatever it says.
fn is_of_proxies(name: &HeaderName) -> bool {
    let text = name.as_str();
    let begins = [
        "x-forwarded-",
        "x-original-",
        "x-envoy-",
        "x-amzn-",
        "x-azure-",
        "cf-",
        "fastly-",
        "x-amz-cf-",
    ];
    let names = ["via", "cdn-loop", "true-client-ip", "x-client-ip", "x-cluster-client-ip"];
    names.contains(&text)
        || begins.iter().any(|begin| text.starts_with(begin))
        || forward::is_client_address(name)
        || fronts::TABLES
            .iter()
            .flat_map(|table| table.headers)
            .any(|header| fronts::covers(header.name, text))
}

/// What a purge request names. `host` is the one that its entries are stored under.
///
/// # Errors
/// Why it is refused.
pub fn purge_target(
    headers: &HeaderMap,
    host: &str,
    path: &str,
) -> Result<PurgeTarget, PurgeRefusal> {
    let separator = |b: &u8| matches!(b, b' ' | b',' | b'\t');
    let tags = TAG_HEADERS.iter().flat_map(|name| headers.get_all(*name));
    let tags = tags.flat_map(|line| line.as_bytes().split(separator)).filter(|tag| !tag.is_empty());
    let mut named: Vec<Tag> = tags
        .take(MAX_REQUEST_TAGS + 1)
        .map(|tag| Tag::new(&String::from_utf8_lossy(tag)))
        .collect();
    if named.len() > MAX_REQUEST_TAGS {
        return Err(PurgeRefusal::TooManyTags);
    }
    let mut lines = headers.get_all(REGEX_HEADER).iter();
    if let Some(line) = lines.next() {
        let text = line.to_str().ok().filter(|_| lines.next().is_none());
        let text = text.and_then(|text| text.trim().strip_prefix('^'));
        let read = text.and_then(PathExpression::read).ok_or(PurgeRefusal::Regex)?;
        return Ok(read.target(host, named));
    }
    if !named.is_empty() {
        named.sort();
        named.dedup();
        return Ok(PurgeTarget::Tags(named));
    }
    let is_regex = |line: &http::HeaderValue| line.as_bytes().eq_ignore_ascii_case(b"regex");
    if headers.get_all(METHOD_HEADER).iter().any(is_regex) || path.ends_with(".*") {
        let read = PathExpression::read(path).ok_or(PurgeRefusal::Regex)?;
        return Ok(read.target(host, Vec::new()));
    }
    Ok(PurgeTarget::Path(path_tags(host, path)))
}

/// The tags of a path, by any reading of it.
fn path_tags(host: &str, path: &str) -> Vec<Tag> {
    let readings = request_target::readings(path);
    let mut tags: Vec<Tag> = readings.iter().map(|path| Tag::for_uri(host, path)).collect();
    tags.sort();
    tags.dedup();
    tags
}

/// A regular expression of paths, anchored at the start, that is plain text but for its end.
struct PathExpression {
    text: String,
    /// Whether it ends there, so that it matches one path.
    is_whole: bool,
}

impl PathExpression {
    /// Reads an expression without its `^`; `None` if it is more than that.
    fn read(text: &str) -> Option<Self> {
        let ended = text.strip_suffix('$').filter(|text| !text.ends_with('\\'));
        let (text, is_whole) = ended.map_or((text, false), |text| (text, true));
        let open = text.strip_suffix(".*").filter(|text| !text.ends_with('\\'));
        let (text, is_whole) = open.map_or((text, is_whole), |text| (text, false));
        let mut plain = String::with_capacity(text.len());
        let mut letters = text.chars();
        while let Some(letter) = letters.next() {
            match letter {
                '\\' => plain.push(letters.next().filter(char::is_ascii_punctuation)?),
                '.' | '*' | '+' | '?' | '(' | ')' | '[' | ']' | '{' | '}' | '|' | '^' | '$' => {
                    return None;
                }
                letter => plain.push(letter),
            }
        }
        plain.starts_with('/').then_some(Self { text: plain, is_whole })
    }

    /// What it names: never less than what it matches.
    fn target(&self, host: &str, mut tags: Vec<Tag>) -> PurgeTarget {
        if self.is_whole {
            tags.extend(path_tags(host, &self.text));
            return PurgeTarget::Tags(tags);
        }
        // A query is no part of a path; `/a/b` begins `/a/bc` as well: the folder that holds both.
        let path = self.text.split('?').next().unwrap_or_default();
        let within = path.rfind('/').and_then(|end| path.get(..=end)).unwrap_or_default();
        let mut ends = within.match_indices('/').map(|(at, _)| at + 1);
        let end = ends.clone().nth(MAX_FOLDER_SEGMENTS).or_else(|| ends.next_back());
        let folder = end.and_then(|end| within.get(..end));
        match folder.and_then(|folder| Folder::parse(folder).ok()) {
            Some(folder) => {
                tags.push(folder.tag(host));
                PurgeTarget::Tags(tags)
            }
            None => PurgeTarget::Everything,
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let line = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        lines.iter().map(line).collect()
    }

    fn target(lines: &[(&'static str, &'static str)], path: &str) -> Result<String, PurgeRefusal> {
        let shown =
            |tags: Vec<Tag>| tags.iter().map(Tag::to_string).collect::<Vec<_>>().join(" + ");
        purge_target(&headers(lines), "app", path).map(|target| match target {
            PurgeTarget::Path(tags) => format!("path {}", shown(tags)),
            PurgeTarget::Tags(tags) => shown(tags),
            PurgeTarget::Everything => "everything".to_owned(),
        })
    }

    #[test]
    fn a_request_names_its_path_or_tags() {
        assert_eq!(target(&[], "/a/b/").as_deref(), Ok("path uri:app/a/b"));
        for name in TAG_HEADERS {
            assert_eq!(
                target(&[(name, "node:7, node:8  x")], "/").as_deref(),
                Ok("node:7 + node:8 + x")
            );
        }
        assert_eq!(target(&[("xkey", "a"), ("xkey", "b")], "/").as_deref(), Ok("a + b"));
        assert_eq!(target(&[("xkey", " ,")], "/a").as_deref(), Ok("path uri:app/a"));
    }

    #[test]
    fn an_expression_of_plain_text_is_a_folder_a_path_or_everything() {
        for (regex, expected) in [
            ("^/blog/.*", "under app/blog/"),
            ("^/blog/.*$", "under app/blog/"),
            ("^/blog/", "under app/blog/"),
            ("^/blog/2024/05/x/y/.*", "under app/blog/2024/05/x/"),
            // `/blog/20` begins `/blog/2024/`, too.
            ("^/blog/20.*", "under app/blog/"),
            (r"^/v1\.2/.*", "under app/v1.2/"),
            ("^/a$", "uri:app/a"),
            ("^/.*", "everything"),
            ("^/blog", "everything"),
            ("^/a//b/.*", "everything"),
        ] {
            let regex = [("x-purge-regex", regex)];
            assert_eq!(target(&regex, "/").as_deref(), Ok(expected), "{regex:?}");
        }
        for regex in [
            "/blog/.*",
            "^/a.b/.*",
            "^/(a|b)/.*",
            "^/a/[0-9]+",
            ".*",
            "",
            "^",
            "^a",
            r"^/\d/.*",
            "^/a?",
            "^/a/.*/b",
            "^/a/.+",
            "^/a\\",
            "^/a|/b",
        ] {
            let regex = [("x-purge-regex", regex)];
            assert_eq!(target(&regex, "/"), Err(PurgeRefusal::Regex), "{regex:?}");
        }
        let twice = [("x-purge-regex", "^/a/.*"), ("x-purge-regex", "^/b/.*")];
        assert_eq!(target(&twice, "/"), Err(PurgeRefusal::Regex));
    }

    #[test]
    fn word_press_plugins_send_the_expression_as_the_path() {
        let regex = [("x-purge-method", "regex")];
        assert_eq!(target(&regex, "/.*").as_deref(), Ok("everything"));
        assert_eq!(target(&regex, "/blog/.*").as_deref(), Ok("under app/blog/"));
        assert_eq!(target(&[], "/blog/.*").as_deref(), Ok("under app/blog/"));
        assert_eq!(target(&[("x-purge-method", "default")], "/b").as_deref(), Ok("path uri:app/b"));
        assert_eq!(target(&regex, "/(a|b)/.*"), Err(PurgeRefusal::Regex));
    }

    #[test]
    fn tags_beside_an_expression_count_as_well_and_too_many_are_refused() {
        let both = [("xkey", "a"), ("x-purge-regex", "^/b/.*")];
        assert_eq!(target(&both, "/").as_deref(), Ok("a + under app/b/"));
        let many = "t ".repeat(MAX_REQUEST_TAGS + 1);
        let many = HeaderMap::from_iter([(
            HeaderName::from_static("xkey"),
            HeaderValue::from_str(&many).expect("a value"),
        )]);
        assert_eq!(purge_target(&many, "app", "/"), Err(PurgeRefusal::TooManyTags));
    }

    #[test]
    fn address_and_token_count_where_they_are_named() {
        let addresses = ClientAddressRule::default();
        let peer = |addr: &str, trusted| ClientPeer {
            addr: addr.parse::<std::net::IpAddr>().expect("an address").into(),
            trusted,
        };
        let token = Secret::new("0123456789abcdef");
        let header = HeaderName::from_static("x-purge-token");
        let network: Box<[Network]> = ["10.0.0.0/8".parse().expect("a network")].into();
        let rule = |from: &[Network], token: Option<&Secret>| {
            PurgeRequestRule::new(from.into(), token, header.clone())
        };
        let (near, far) = (peer("10.1.2.3", false), peer("192.0.2.1", false));
        let by_address = rule(&network, None);
        assert_eq!(by_address.allow(&headers(&[]), &near, &addresses), Ok(()));
        for (lines, peer) in [
            (&[][..], &far),
            (&[("x-forwarded-for", "10.1.2.3")], &far),
            // It came through a proxy that nobody trusts.
            (&[("x-forwarded-for", "10.1.2.3")], &near),
            (&[("via", "1.1 x")], &near),
            // A trusted proxy that names nobody.
            (&[], &peer("10.1.2.3", true)),
        ] {
            let allowed = by_address.allow(&headers(lines), peer, &addresses);
            assert_eq!(allowed, Err(PurgeRefusal::Address), "{lines:?}");
        }
        let right = headers(&[("x-purge-token", "0123456789abcdef")]);
        let by_token = rule(&[], Some(&token));
        assert_eq!(by_token.allow(&right, &far, &addresses), Ok(()));
        let both = rule(&network, Some(&token));
        assert_eq!(both.allow(&right, &near, &addresses), Ok(()));
        assert_eq!(both.allow(&right, &far, &addresses), Err(PurgeRefusal::Address));
        for lines in [
            &[][..],
            &[("x-purge-token", "0123456789abcdeF")],
            &[("x-purge-token", "0123456789abcdef"), ("x-purge-token", "x")],
        ] {
            let allowed = both.allow(&headers(lines), &near, &addresses);
            assert_eq!(allowed, Err(PurgeRefusal::Token), "{lines:?}");
        }
    }
}
