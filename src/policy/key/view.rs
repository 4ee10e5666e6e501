//! What of a key may be shown to an operator who did not send the request: no value that a client
//! chose, besides the host and the path.
//!
//! SECURITY: an access log has neither queries nor headers, and the same holds here. A parameter is
//! shown by its name alone, and only where the name looks like one.

use crate::policy::key::{KeyPart, VERSION, parts};
use crate::units::short_hex;

/// How many names of parameters are shown.
pub const MAX_PARAMETERS: usize = 16;

/// The longest name of a parameter that is shown, in bytes.
pub const MAX_PARAMETER_NAME: usize = 40;

/// Stands for the name of a parameter that may be a secret, and for those beyond the limit.
pub const REDACTED: &str = "…";

/// A key as it is shown. All but `host` and `path` was chosen by the operator, or is redacted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyView<'a> {
    /// The method of its fills.
    pub method: &'a str,
    /// The authority, as the client wrote it.
    pub host: &'a str,
    /// The path in normal form.
    pub path: &'a str,
    /// The names of the parameters of the query.
    pub parameters: Vec<&'a str>,
    /// The names of the route's fields.
    pub fields: Vec<&'a str>,
    /// The names of the request headers that are part of the key.
    pub headers: Vec<&'a str>,
    /// The names of the request headers by which variants differ.
    pub vary: Vec<&'a str>,
    /// Eight digits of the keyed hash of the caller's credential, in scope `private`.
    pub credential: Option<String>,
    /// Whether it is for one caller, or for those without a credential.
    pub is_private: bool,
}

impl<'a> KeyView<'a> {
    /// What of this key may be shown; `None` for a key of another version.
    #[must_use]
    pub fn of(canonical: &'a [u8]) -> Option<Self> {
        if canonical.first() != Some(&VERSION) {
            return None;
        }
        let mut view = Self { method: "GET", ..Self::default() };
        for (kind, bytes) in parts(canonical) {
            let text = str::from_utf8(bytes).unwrap_or(REDACTED);
            // A `match` over the kinds would need a number for each.
            let is = |part: KeyPart| kind == part as u8;
            if is(KeyPart::Method) {
                view.method = text;
            } else if is(KeyPart::Host) {
                view.host = text;
            } else if is(KeyPart::Path) {
                view.path = text;
            } else if is(KeyPart::Query) || is(KeyPart::Parameters) {
                view.parameters = parameter_names(text);
            } else if is(KeyPart::Field) {
                view.fields.push(text);
            } else if is(KeyPart::Header) {
                view.headers.push(text);
            } else if is(KeyPart::Vary) {
                view.vary.push(text);
            } else if is(KeyPart::Credential) {
                // SECURITY: as in `explain`, eight digits of a keyed hash tell two callers apart,
                // and reveal nothing else.
                view.credential = Some(short_hex(bytes));
                view.is_private = true;
            } else if is(KeyPart::Anonymous) {
                view.is_private = true;
            }
        }
        Some(view)
    }
}

/// The path of a key, in normal form; empty for a key of another version.
#[must_use]
pub fn path_of(canonical: &[u8]) -> &[u8] {
    let is_path = |(kind, bytes): (u8, _)| (kind == KeyPart::Path as u8).then_some(bytes);
    parts(canonical).find_map(is_path).unwrap_or_default()
}

fn parameter_names(query: &str) -> Vec<&str> {
    let mut pairs = query.split('&').filter(|pair| !pair.is_empty());
    let mut names: Vec<&str> = pairs.by_ref().take(MAX_PARAMETERS).map(parameter_name).collect();
    if pairs.next().is_some() {
        names.push(REDACTED);
    }
    names
}

/// SECURITY: what has no value, or one of `=` alone as Base64 ends with, may be a value itself.
fn parameter_name(pair: &str) -> &str {
    let Some((name, value)) = pair.split_once('=') else { return REDACTED };
    let is_padding = value.bytes().all(|byte| byte == b'=');
    let unescaped = name.replace("%5B", "[").replace("%5D", "]");
    let is_name = (1..=MAX_PARAMETER_NAME).contains(&name.len())
        && unescaped.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.[]$:".contains(&byte));
    if is_name && !is_padding { name } else { REDACTED }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;
    use crate::policy::key::KeyWriter;

    #[test]
    fn values_of_clients_are_not_in_the_view() {
        let mut writer = KeyWriter::default();
        for (part, bytes) in [
            (KeyPart::Route, &b"12345678"[..]),
            (KeyPart::Host, b"app.test"),
            (KeyPart::Path, b"/a/7"),
            (KeyPart::Method, b"POST"),
            (KeyPart::Body, b"SECRET"),
            (KeyPart::Query, b"page=SECRET&SECRET&filter%5Bid%5D=SECRET&SECRETx=="),
            (KeyPart::Field, b"tenant"),
            (KeyPart::Value, b"SECRET"),
            (KeyPart::Credential, b"\x01\x02\x03\x04SECRET"),
            (KeyPart::Header, b"accept"),
            (KeyPart::HeaderValue, b"SECRET"),
        ] {
            writer.part(part, bytes);
        }
        let name = HeaderName::from_static("x-mood");
        let key = writer
            .finish()
            .variant([(&name, Some(std::borrow::Cow::Borrowed(&b"SECRET"[..])))].into_iter());
        let view = KeyView::of(key.canonical()).expect("a key of this version");
        let expected = KeyView {
            method: "POST",
            host: "app.test",
            path: "/a/7",
            parameters: vec!["page", REDACTED, "filter%5Bid%5D", REDACTED],
            fields: vec!["tenant"],
            headers: vec!["accept"],
            vary: vec!["x-mood"],
            credential: Some("01020304".to_owned()),
            is_private: true,
        };
        assert_eq!(view, expected);
        assert_eq!(path_of(key.canonical()), b"/a/7");
    }

    #[test]
    fn a_parameter_whose_name_may_be_a_secret_is_redacted() {
        let long = "x".repeat(MAX_PARAMETER_NAME + 1);
        for pair in ["token", "c2VjcmV0=", "c2VjcmV0==", "=x", "a%3Db=1", "a b=1", "ü=1"] {
            assert_eq!(parameter_name(pair), REDACTED, "{pair}");
        }
        assert_eq!(parameter_name(&format!("{long}=1")), REDACTED);
        for (pair, name) in [("a=1", "a"), ("a[]=1", "a[]"), ("a.b-c_d=1=2", "a.b-c_d")] {
            assert_eq!(parameter_name(pair), name);
        }
    }

    #[test]
    fn the_names_of_many_parameters_are_cut_off() {
        let query: Vec<String> = (0..1000).map(|number| format!("p{number}=1")).collect();
        let query = query.join("&");
        let names = parameter_names(&query);
        assert_eq!((names.len(), names[0]), (MAX_PARAMETERS + 1, "p0"));
        assert_eq!(names[MAX_PARAMETERS], REDACTED);
        assert_eq!(parameter_names(""), [""; 0]);
    }

    #[test]
    fn bytes_that_are_no_key_show_nothing() {
        for bytes in [&b""[..], b"\x00", b"\xffabc"] {
            assert_eq!(KeyView::of(bytes), None);
            assert_eq!(path_of(bytes), b"");
        }
        let cut = [VERSION, KeyPart::Path as u8, 0, 0, 0, 9, b'/'];
        let empty = KeyView { method: "GET", ..KeyView::default() };
        assert_eq!(KeyView::of(&cut), Some(empty));
    }
}
