//! Folds paths to templates: `/api/v1/items/17` is one of `/api/v1/items/{n}`.
//!
//! SECURITY: a segment is shown only if it looks like a name that a programmer has given: short,
//! without digits to speak of, and not behind a word that secrets follow. Everything else becomes a
//! placeholder here; names of people that look like words are folded by their number, in `tree`.

use std::fmt::{self, Write as _};

use percent_encoding::percent_decode_str;

/// The most segments of a template. What is deeper is [`PathPart::Deeper`].
pub const MAX_SEGMENTS: usize = 8;
/// The longest segment that is kept as it is, in bytes.
pub const MAX_LITERAL: usize = 32;
/// The longest ending, without its dot, that stays beside a placeholder: `{n}.json`.
const MAX_ENDING: usize = 5;

/// What a placeholder stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A number.
    Number,
    /// A UUID.
    Uuid,
    /// Hexadecimal digits.
    Hex,
    /// A date, with or without a time.
    Date,
    /// Something opaque.
    Token,
    /// An address of electronic mail.
    Email,
    /// Characters that no name in a program has.
    Text,
    /// What follows a word such as `reset` or `token`.
    Secret,
    /// One of too many values at this place.
    Id,
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Number => "n",
            Self::Uuid => "uuid",
            Self::Hex => "hex",
            Self::Date => "date",
            Self::Token => "token",
            Self::Email => "email",
            Self::Text => "text",
            Self::Secret => "secret",
            Self::Id => "id",
        }
    }

    /// Some value of this kind.
    const fn example(self) -> &'static str {
        match self {
            Self::Number => "1",
            Self::Uuid => "00000000-0000-4000-8000-000000000000",
            Self::Hex => "0a0a0a0a0a0a",
            Self::Date => "2000-01-01",
            Self::Token | Self::Secret => "0aB1cD2eF3gH4iJ5",
            Self::Email => "a@example.com",
            Self::Text => "a:b",
            Self::Id => "a-value-of-many",
        }
    }
}

/// A segment of a template.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PathPart {
    /// The segment itself; empty at the end of a path that ends with a slash.
    Literal(Box<str>),
    /// A placeholder, with the ending that follows it: empty, or `.json`.
    Value(Kind, Box<str>),
    /// Everything below [`MAX_SEGMENTS`].
    Deeper,
}

impl fmt::Display for PathPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(text) => f.write_str(text),
            Self::Value(kind, ending) => write!(f, "{{{}}}{ending}", kind.as_str()),
            Self::Deeper => f.write_str("…"),
        }
    }
}

/// The template as it is shown: `/items/{n}`.
#[must_use]
pub fn shown(segments: &[PathPart]) -> String {
    let mut text = String::new();
    for segment in segments {
        let _ = write!(text, "/{segment}");
    }
    text
}

/// Some path of the template.
#[must_use]
pub fn example(segments: &[PathPart]) -> String {
    let one = |segment: &PathPart| match segment {
        PathPart::Literal(text) => format!("/{text}"),
        PathPart::Value(kind, ending) => format!("/{}{ending}", kind.example()),
        PathPart::Deeper => "/a/b".to_owned(),
    };
    segments.iter().map(one).collect()
}

/// The template as the path of a route. `None` where it is too deep.
#[must_use]
pub fn pattern(segments: &[PathPart]) -> Option<String> {
    let (mut text, mut captures) = (String::new(), 0);
    for segment in segments {
        text.push('/');
        match segment {
            PathPart::Literal(literal) => text.push_str(literal),
            PathPart::Value(_, ending) => {
                captures += 1;
                let number = if captures > 1 { captures.to_string() } else { String::new() };
                let _ = write!(text, "{{id{number}}}{ending}");
            }
            PathPart::Deeper => return None,
        }
    }
    Some(text)
}

/// Folds a path in normal form.
#[must_use]
pub fn fold(path: &str) -> Vec<PathPart> {
    let mut segments: Vec<PathPart> = Vec::with_capacity(MAX_SEGMENTS);
    let mut before = "";
    for segment in path.strip_prefix('/').unwrap_or(path).split('/') {
        if segments.len() == MAX_SEGMENTS {
            segments.pop();
            segments.push(PathPart::Deeper);
            break;
        }
        segments.push(fold_segment(segment, before));
        before = segment;
    }
    segments
}

/// The name of a query parameter as it may be shown, or a sign that it has one.
#[must_use]
pub fn parameter_name(name: &str) -> &str {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.[]$".contains(&byte);
    let plain = name.trim_end_matches("[]");
    if !name.is_empty() && name.bytes().all(is_word) && kind(plain).is_none() {
        name
    } else {
        "…"
    }
}

fn fold_segment(segment: &str, before: &str) -> PathPart {
    if segment.is_empty() {
        return PathPart::Literal("".into());
    }
    if holds_secrets(before) && !FOLLOWERS.contains(&segment) {
        return PathPart::Value(Kind::Secret, "".into());
    }
    if segment.contains('%') {
        let decoded = percent_decode_str(segment).decode_utf8_lossy();
        let kind = if decoded.contains('@') { Kind::Email } else { Kind::Text };
        return PathPart::Value(kind, "".into());
    }
    let (stem, ending) = split_ending(segment);
    match kind(stem) {
        None if segment.len() <= MAX_LITERAL => PathPart::Literal(segment.into()),
        None => PathPart::Value(Kind::Token, ending.into()),
        // A domain is no ending.
        Some(Kind::Email) => PathPart::Value(Kind::Email, "".into()),
        Some(kind) => PathPart::Value(kind, ending.into()),
    }
}

/// Words that secrets follow.
#[rustfmt::skip]
const BEFORE_SECRETS: &[&str] = &[
    "reset", "invite", "invites", "invitation", "invitations", "verify", "verification", "confirm",
    "confirmation", "activate", "activation", "unsubscribe", "magic", "recover", "recovery",
    "share", "shared", "token", "tokens", "session", "sessions", "sessionid", "secret", "secrets",
    "hook", "hooks", "webhook", "webhooks", "password", "passwords", "key", "keys", "apikey",
    "apikeys", "jwt", "auth", "authtoken", "accesstoken", "refreshtoken", "otp", "ticket", "nonce",
    "signature", "credential", "credentials", "bearer", "sso", "saml", "oauth", "oauth2", "cookie",
];

/// What may follow them and is none.
#[rustfmt::skip]
const FOLLOWERS: &[&str] = &[
    "new", "edit", "refresh", "login", "logout", "callback", "revoke", "me", "current", "status",
    "list", "check", "create", "info", "userinfo", "introspect", "authorize", "start", "complete",
    "email", "password", "count", "search",
];

fn holds_secrets(segment: &str) -> bool {
    let is_one = |word: &str| BEFORE_SECRETS.iter().any(|known| known.eq_ignore_ascii_case(word));
    segment.split(['-', '_', '.']).any(is_one)
}

/// The stem of a segment, and its ending with the dot.
fn split_ending(segment: &str) -> (&str, &str) {
    let is_ending = |text: &str| {
        (1..=MAX_ENDING).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
            && text.bytes().any(|byte| byte.is_ascii_alphabetic())
    };
    match segment.rsplit_once('.') {
        Some((stem, ending)) if !stem.is_empty() && is_ending(ending) => {
            segment.split_at(stem.len())
        }
        _ => (segment, ""),
    }
}

/// What a segment without its ending is, if it is no name.
fn kind(text: &str) -> Option<Kind> {
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    let length = text.len();
    if text.contains('@') {
        return Some(Kind::Email);
    }
    if digits == length {
        return Some(Kind::Number);
    }
    if is_uuid(text) {
        return Some(Kind::Uuid);
    }
    if is_date(text) {
        return Some(Kind::Date);
    }
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.~".contains(&byte);
    if !text.bytes().all(|byte| is_name(byte) || b"[]$".contains(&byte)) {
        return Some(Kind::Text);
    }
    if is_known_secret(text) {
        return Some(Kind::Secret);
    }
    if length >= 8 && digits > 0 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Some(Kind::Hex);
    }
    let leads = text.bytes().take_while(u8::is_ascii_digit).count();
    let is_slug = leads > 0 && text[leads..].starts_with(['-', '_']);
    let is_numbered = digits >= 3 && 2 * digits >= length;
    let is_long = length > MAX_LITERAL || (length >= 12 && digits >= 3);
    (is_slug || is_numbered || is_long || is_random(text, digits)).then_some(Kind::Token)
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// A year and a month, and whatever digits follow them.
fn is_date(text: &str) -> bool {
    let bytes = text.as_bytes();
    let is_digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    (7..=32).contains(&bytes.len())
        && (0..4).all(is_digit)
        && bytes[4] == b'-'
        && (is_digit(5) || bytes[5] == b'W')
        && is_digit(6)
        && bytes[5..].iter().all(|byte| byte.is_ascii_digit() || b"-:.+TWZ".contains(byte))
}

/// What the keys of well-known services begin with.
const SECRET_PREFIXES: [&str; 12] = [
    "sk_",
    "pk_",
    "rk_",
    "ghp_",
    "gho_",
    "github_pat_",
    "glpat-",
    "xoxb-",
    "xoxp-",
    "eyJ",
    "AKIA",
    "AIza",
];

fn is_known_secret(text: &str) -> bool {
    text.len() >= 12 && SECRET_PREFIXES.iter().any(|prefix| text.starts_with(prefix))
}

/// Whether letters and digits change places as often as in random text, or no vowel can be spoken.
fn is_random(text: &str, digits: usize) -> bool {
    const CLASSES: fn(u8) -> u8 = |byte| match byte {
        b'a'..=b'z' => 0,
        b'A'..=b'Z' => 1,
        b'0'..=b'9' => 2,
        _ => 3,
    };
    let length = text.len();
    let classes: Vec<u8> = text.bytes().map(CLASSES).collect();
    // A capital begins a word: what follows it is no change.
    let is_change = |pair: &&[u8]| pair[0] != pair[1] && (pair[0], pair[1]) != (1, 0);
    let changes = classes.windows(2).filter(is_change).count();
    let has = |class: u8| classes.contains(&class);
    let is_mixed = has(0) && has(1);
    if is_mixed && length >= 8 && 3 * changes > length && (digits > 0 || length >= 16) {
        return true;
    }
    let letters = classes.iter().filter(|class| **class < 2).count();
    let vowels = text.bytes().filter(|byte| b"aeiouyAEIOUY".contains(byte)).count();
    letters >= 12 && 6 * vowels < letters
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::route::Pattern;

    #[test]
    fn paths_are_folded_to_templates() {
        for (path, expected) in [
            ("/", "/"),
            ("/api/v1/items", "/api/v1/items"),
            ("/api/v1/items/", "/api/v1/items/"),
            ("/api/v1/items/17", "/api/v1/items/{n}"),
            ("/api/v1/items/17.json", "/api/v1/items/{n}.json"),
            ("/items/0b1f9a34-4c1f-4a86-9c6a-1f6f3c1d2e3f/lines", "/items/{uuid}/lines"),
            ("/items/5f2b8c1e9a7d4e6f", "/items/{hex}"),
            ("/blob/da39a3ee5e6b4b0d3255bfef95601890afd80709", "/blob/{hex}"),
            ("/reports/2024-01-31", "/reports/{date}"),
            ("/reports/2024-01", "/reports/{date}"),
            ("/reports/2024-W05/a", "/reports/{date}/a"),
            ("/at/2024-01-31T12:00:00Z", "/at/{date}"),
            ("/users/ann@example.com", "/users/{email}"),
            ("/users/ann%40example.com/posts", "/users/{email}/posts"),
            ("/people/John%20Smith", "/people/{text}"),
            ("/a/b:c", "/a/{text}"),
            ("/watch/dQw4w9WgXcQ", "/watch/{token}"),
            ("/orders/INV-2024-001", "/orders/{token}"),
            ("/posts/17-how-to-bake", "/posts/{token}"),
            ("/users/user_12345", "/users/{token}"),
            ("/x/eyJhbGciOiJIUzI1NiJ9", "/x/{secret}"),
            ("/x/ghp_abcdefghijkl", "/x/{secret}"),
            ("/password/reset/abcdef", "/password/{secret}/{secret}"),
            ("/reset/abcdef", "/reset/{secret}"),
            ("/invite/letmein", "/invite/{secret}"),
            ("/reset-password/letmein", "/reset-password/{secret}"),
            ("/API_KEYS/letmein", "/API_KEYS/{secret}"),
            ("/sessions/new", "/sessions/new"),
            ("/token/refresh", "/token/refresh"),
            ("/api/v1/oauth2", "/api/v1/oauth2"),
            ("/2fa/3d", "/2fa/3d"),
            ("/getAllUsersWithDetails", "/getAllUsersWithDetails"),
            ("/how-to-bake-bread", "/how-to-bake-bread"),
            ("/xkcdqwrtpsdfghjk", "/{token}"),
            ("/static/app.3f2a9c81d0.js", "/static/{token}.js"),
            ("/a/b/c/d/e/f/g/h", "/a/b/c/d/e/f/g/h"),
            ("/a/b/c/d/e/f/g/h/i", "/a/b/c/d/e/f/g/…"),
            ("/a-name-that-is-longer-than-most-names-are", "/{token}"),
        ] {
            assert_eq!(shown(&fold(path)), expected, "{path}");
        }
    }

    #[test]
    fn names_of_parameters_are_shown_and_values_in_their_place_are_not() {
        for (name, expected) in [
            ("page", "page"),
            ("filter[name]", "filter[name]"),
            ("ids[]", "ids[]"),
            ("X-Amz-Signature", "X-Amz-Signature"),
            ("", "…"),
            ("1733300000", "…"),
            ("ann@example.com", "…"),
            ("eyJhbGciOiJIUzI1NiJ9", "…"),
            ("a b", "…"),
        ] {
            assert_eq!(parameter_name(name), expected, "{name}");
        }
    }

    #[test]
    fn a_template_is_the_path_of_a_route_that_matches_its_example() {
        for path in
            ["/", "/a/", "/a/17/b/18.json", "/u/a@b.de", "/x/a%20b", "/r/2024-01-01", "/k/ab12cd34"]
        {
            let segments = fold(path);
            let text = pattern(&segments).expect("it is not too deep");
            let route = Pattern::parse(&text).expect("a pattern");
            assert!(route.captures_of(path).is_some(), "{text} matches {path}");
            assert!(route.captures_of(&example(&segments)).is_some(), "{text}");
        }
        assert_eq!(pattern(&fold("/17/18")), Some("/{id}/{id2}".to_owned()));
        assert_eq!(pattern(&fold("/a/b/c/d/e/f/g/h/i")), None);
    }
}
