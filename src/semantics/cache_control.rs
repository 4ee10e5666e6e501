//! `Cache-Control` of requests and responses (RFC 9111 5.2).
//!
//! Owns the syntax: tolerant of what real applications write, and strict where a value is
//! ambiguous. A directive that restricts the cache counts even if its value is malformed; one that
//! permits something (`public`, `immutable`, a lifetime) counts only if it is well-formed. Knows
//! nothing of what the directives lead to: that is `freshness` and `storability`. Parsing does not
//! allocate.

use std::time::Duration;

use http::header::{CACHE_CONTROL, HeaderMap, HeaderValue};

/// The longest time that a directive can state: 2^31 seconds, which stands for every greater value
/// (RFC 9111 1.2.2).
pub const MAX_DELTA: Duration = Duration::from_secs(1 << 31);

/// The length of the longest known directive name.
const LONGEST_NAME: usize = b"stale-while-revalidate".len();

/// The directives of all `Cache-Control` lines of one message. The stricter value of a repeated
/// directive counts.
#[allow(
    clippy::struct_excessive_bools,
    reason = "the directives are independent flags in the RFC as well"
)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheControl {
    /// Must not be stored (5.2.1.5, 5.2.2.5).
    pub no_store: bool,
    /// Must not be used without validation (5.2.1.4, 5.2.2.4). The qualified form
    /// `no-cache="field"` counts as the whole.
    pub no_cache: bool,
    /// For one user only (5.2.2.7). The qualified form `private="field"` counts as the whole.
    pub private: bool,
    /// May be stored even if a shared cache may not store it by default (5.2.2.9).
    pub public: bool,
    /// Must not be used stale (5.2.2.2).
    pub must_revalidate: bool,
    /// A shared cache must not use it stale (5.2.2.8).
    pub proxy_revalidate: bool,
    /// May be stored only by a cache that understands the status (5.2.2.3).
    pub must_understand: bool,
    /// The body must not be transformed (5.2.1.6, 5.2.2.6).
    pub no_transform: bool,
    /// Does not change while it is fresh (RFC 8246).
    pub immutable: bool,
    /// The client accepts only a stored response (5.2.1.7).
    pub only_if_cached: bool,
    /// How long the response is fresh; in a request, the greatest acceptable age (5.2.1.1,
    /// 5.2.2.1).
    pub max_age: Option<Duration>,
    /// How long the response is fresh in a shared cache (5.2.2.10).
    pub s_maxage: Option<Duration>,
    /// How long it may be served stale during a revalidation (RFC 5861 3).
    pub stale_while_revalidate: Option<Duration>,
    /// How long it may be served stale after an error (RFC 5861 4).
    pub stale_if_error: Option<Duration>,
    /// How long the response must stay fresh for this request (5.2.1.3). A malformed value is
    /// [`MAX_DELTA`]: nothing is fresh enough.
    pub min_fresh: Option<Duration>,
    /// How long the response may have been stale for this request (5.2.1.2). Without a value it is
    /// [`MAX_DELTA`].
    pub max_stale: Option<Duration>,
}

impl CacheControl {
    /// Parses the `Cache-Control` lines of a message.
    #[must_use]
    pub fn from_headers(headers: &HeaderMap) -> Self {
        Self::parse(headers.get_all(CACHE_CONTROL).iter())
    }

    /// Parses lines in the syntax of `Cache-Control`. Accepts any bytes; unknown directives are
    /// ignored (RFC 9111 5.2.3).
    pub fn parse<'a>(lines: impl Iterator<Item = &'a HeaderValue>) -> Self {
        let mut parsed = Self::default();
        for line in lines {
            for directive in Directives::new(line.as_bytes()) {
                parsed.apply(&directive);
            }
        }
        parsed
    }

    fn apply(&mut self, directive: &Directive<'_>) {
        let mut buffer = [0; LONGEST_NAME];
        let Some(name) = buffer.get_mut(..directive.name.len()) else { return };
        name.copy_from_slice(directive.name);
        name.make_ascii_lowercase();
        match &*name {
            b"no-store" => self.no_store = true,
            b"no-cache" => self.no_cache = true,
            b"private" => self.private = true,
            b"must-revalidate" => self.must_revalidate = true,
            b"proxy-revalidate" => self.proxy_revalidate = true,
            b"no-transform" => self.no_transform = true,
            b"only-if-cached" => self.only_if_cached = true,
            b"public" => self.public |= directive.is_plain(),
            b"must-understand" => self.must_understand |= directive.is_plain(),
            b"immutable" => self.immutable |= directive.is_plain(),
            b"max-age" => shorten(&mut self.max_age, directive.delta().unwrap_or_default()),
            b"s-maxage" => shorten(&mut self.s_maxage, directive.delta().unwrap_or_default()),
            b"stale-while-revalidate" => {
                shorten(&mut self.stale_while_revalidate, directive.delta().unwrap_or_default());
            }
            b"stale-if-error" => {
                shorten(&mut self.stale_if_error, directive.delta().unwrap_or_default());
            }
            b"max-stale" if directive.is_plain() => shorten(&mut self.max_stale, MAX_DELTA),
            b"max-stale" => shorten(&mut self.max_stale, directive.delta().unwrap_or_default()),
            // The only directive whose greater value is the stricter one.
            b"min-fresh" => {
                self.min_fresh = self.min_fresh.max(Some(directive.delta().unwrap_or(MAX_DELTA)));
            }
            _ => {}
        }
    }
}

/// Parses delta-seconds (RFC 9111 1.2.2): digits only. Values above 2^31 become [`MAX_DELTA`].
#[must_use]
pub fn delta_seconds(digits: &[u8]) -> Option<Duration> {
    if digits.is_empty() {
        return None;
    }
    let mut seconds = 0_u64;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        seconds = seconds.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
    }
    Some(Duration::from_secs(seconds).min(MAX_DELTA))
}

fn shorten(slot: &mut Option<Duration>, to: Duration) {
    *slot = Some(slot.map_or(to, |now| now.min(to)));
}

/// One directive as it stands in a line.
struct Directive<'a> {
    name: &'a [u8],
    /// The text after `=`, without its quotes. Escapes within quotes are not resolved: no known
    /// argument needs them.
    argument: Option<&'a [u8]>,
    /// Whether it has a comma or an end of the line on both sides.
    clean: bool,
}

impl Directive<'_> {
    /// Whether it is well-formed and has no argument.
    fn is_plain(&self) -> bool {
        self.clean && self.argument.is_none()
    }

    fn delta(&self) -> Option<Duration> {
        self.argument.filter(|_| self.clean).and_then(delta_seconds)
    }
}

/// Iterates over the directives of one line.
struct Directives<'a> {
    rest: &'a [u8],
    /// Whether nothing but one directive was seen since the last comma.
    clean: bool,
    /// Whether an unmatched quote was seen. Since it is unclear what is quoted, the rest of the
    /// line can only restrict.
    broken: bool,
}

impl<'a> Directives<'a> {
    const fn new(line: &'a [u8]) -> Self {
        Self { rest: line, clean: true, broken: false }
    }

    /// Takes the bytes of a token (RFC 9110 5.6.2); the token may be empty.
    fn token(&mut self) -> &'a [u8] {
        let end = self.rest.iter().position(|byte| !is_token(*byte)).unwrap_or(self.rest.len());
        let (token, rest) = self.rest.split_at(end);
        self.rest = rest;
        token
    }

    /// Takes the argument after a `=`: a token or a quoted-string, whatever the directive defines
    /// (RFC 9111 5.2).
    fn argument(&mut self) -> &'a [u8] {
        let Some(quoted) = self.rest.strip_prefix(b"\"") else { return self.token() };
        let mut escaped = false;
        for (at, byte) in quoted.iter().enumerate() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => {
                    self.rest = &quoted[at + 1..];
                    return &quoted[..at];
                }
                _ => {}
            }
        }
        // SECURITY: an unterminated quote must not hide a `no-store` behind it, so the rest is
        // parsed as directives.
        self.broken = true;
        self.rest = quoted;
        b""
    }

    /// Moves to the first byte of the next name; `None` if there is none.
    fn skip_to_name(&mut self) -> Option<()> {
        loop {
            let (first, tail) = self.rest.split_first()?;
            match *first {
                b',' => self.clean = true,
                b' ' | b'\t' => {}
                byte if is_token(byte) => return Some(()),
                byte => {
                    // A `;` between directives is a common mistake; the text after it is parsed,
                    // but can only restrict.
                    self.clean = false;
                    self.broken |= byte == b'"';
                }
            }
            self.rest = tail;
        }
    }
}

impl<'a> Iterator for Directives<'a> {
    type Item = Directive<'a>;

    fn next(&mut self) -> Option<Directive<'a>> {
        self.skip_to_name()?;
        let name = self.token();
        let argument = match self.rest.strip_prefix(b"=") {
            Some(rest) => {
                self.rest = rest;
                Some(self.argument())
            }
            None => None,
        };
        while let [b' ' | b'\t', tail @ ..] = self.rest {
            self.rest = tail;
        }
        if !matches!(self.rest.first(), None | Some(b',')) {
            self.clean = false;
        }
        Some(Directive { name, argument, clean: self.clean && !self.broken })
    }
}

const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(lines: &[&str]) -> CacheControl {
        let values: Vec<HeaderValue> =
            lines.iter().map(|line| HeaderValue::from_bytes(line.as_bytes()).unwrap()).collect();
        CacheControl::parse(values.iter())
    }

    const fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn every_directive_is_read_in_any_case() {
        let none = CacheControl::default();
        let cases = [
            ("No-Store", CacheControl { no_store: true, ..none }),
            ("NO-CACHE", CacheControl { no_cache: true, ..none }),
            ("private", CacheControl { private: true, ..none }),
            ("Public", CacheControl { public: true, ..none }),
            ("must-revalidate", CacheControl { must_revalidate: true, ..none }),
            ("proxy-revalidate", CacheControl { proxy_revalidate: true, ..none }),
            ("must-understand", CacheControl { must_understand: true, ..none }),
            ("no-transform", CacheControl { no_transform: true, ..none }),
            ("immutable", CacheControl { immutable: true, ..none }),
            ("only-if-cached", CacheControl { only_if_cached: true, ..none }),
            ("MaX-aGe=1", CacheControl { max_age: Some(secs(1)), ..none }),
            ("s-maxage=2", CacheControl { s_maxage: Some(secs(2)), ..none }),
            (
                "stale-while-revalidate=3",
                CacheControl { stale_while_revalidate: Some(secs(3)), ..none },
            ),
            ("stale-if-error=4", CacheControl { stale_if_error: Some(secs(4)), ..none }),
            ("min-fresh=5", CacheControl { min_fresh: Some(secs(5)), ..none }),
            ("max-stale=6", CacheControl { max_stale: Some(secs(6)), ..none }),
            ("max-stale", CacheControl { max_stale: Some(MAX_DELTA), ..none }),
            ("", none),
            ("x-unknown, foo=bar, a-name-that-is-longer-than-any-other=1", none),
        ];
        for (line, expected) in cases {
            assert_eq!(parse(&[line]), expected, "{line}");
        }
    }

    #[test]
    fn deltas_are_read_as_the_rfc_says_and_malformed_ones_are_stale() {
        let cases = [
            ("max-age=60", 60),
            ("max-age=003600", 3600),
            ("max-age=\"60\"", 60),
            ("max-age=60 ,", 60),
            (", ,max-age=60", 60),
            ("max-age=2147483648", 1 << 31),
            ("max-age=99999999999999999999999999", 1 << 31),
            ("max-age=", 0),
            ("max-age", 0),
            ("max-age=\"\"", 0),
            ("max-age=-1", 0),
            ("max-age=+60", 0),
            ("max-age=60.5", 0),
            ("max-age=1e3", 0),
            ("max-age=60s", 0),
            ("max-age='60'", 0),
            ("max-age =60", 0),
            ("max-age= 60", 0),
            ("max-age=60 s-maxage", 0),
            ("max-age=60;", 0),
            ("max-age=\"60", 0),
        ];
        for (line, expected) in cases {
            assert_eq!(parse(&[line]).max_age, Some(secs(expected)), "{line}");
        }
    }

    #[test]
    fn the_stricter_of_duplicates_counts_on_one_line_or_several() {
        for lines in [
            &["max-age=1800, max-age=1"][..],
            &["max-age=1, max-age=1800"],
            &["max-age=1800", "max-age=1"],
        ] {
            assert_eq!(parse(lines).max_age, Some(secs(1)));
        }
        assert_eq!(parse(&["max-age=60, max-age=x"]).max_age, Some(secs(0)));
        assert_eq!(parse(&["max-stale, max-stale=5"]).max_stale, Some(secs(5)));
        assert_eq!(parse(&["min-fresh=1", "min-fresh=9, min-fresh=4"]).min_fresh, Some(secs(9)));
        assert_eq!(parse(&["min-fresh=1, min-fresh=soon"]).min_fresh, Some(MAX_DELTA));
    }

    #[test]
    fn commas_and_names_inside_quotes_are_not_directives() {
        for line in
            ["extension=\"max-age=3600, no-store\", max-age=1", "max-age=1, e=\"a\\\", no-store\""]
        {
            assert_eq!(
                parse(&[line]),
                CacheControl { max_age: Some(secs(1)), ..CacheControl::default() },
                "{line}"
            );
        }
    }

    #[test]
    fn qualified_forms_count_as_the_whole() {
        assert!(parse(&["private=\"set-cookie, x-user\""]).private);
        assert!(parse(&["no-cache=set-cookie"]).no_cache);
        assert!(parse(&["no-store=0"]).no_store);
    }

    #[test]
    fn malformed_lines_restrict_and_never_permit() {
        let semicolons = parse(&["public; private; max-age=60"]);
        assert_eq!(
            (semicolons.public, semicolons.private, semicolons.max_age),
            (false, true, Some(secs(0)))
        );
        let spaces = parse(&["no-cache no-store must-revalidate"]);
        assert!(spaces.no_cache && spaces.no_store && spaces.must_revalidate);
        let unended = parse(&["e=\"oops, no-store, public, max-age=60"]);
        assert_eq!(
            (unended.no_store, unended.public, unended.max_age),
            (true, false, Some(secs(0)))
        );
        let quoted = parse(&["\"public, private, max-age=60\""]);
        assert_eq!((quoted.public, quoted.private, quoted.max_age), (false, true, Some(secs(0))));
        assert!(
            !parse(&["public=yes"]).public
                && !parse(&["must-understand=1"]).must_understand
                && !parse(&["immutable;"]).immutable
        );
        assert!(parse(&["x;y, public"]).public, "a comma starts afresh");
    }

    #[test]
    fn bytes_that_are_not_utf8_are_passed_over() {
        let value = HeaderValue::from_bytes(b"\xff\xfe, max-age=5, \xc3\x28no-store").unwrap();
        let parsed = CacheControl::parse([&value].into_iter());
        assert_eq!((parsed.max_age, parsed.no_store), (Some(secs(5)), true));
    }

    #[test]
    fn headers_without_the_field_say_nothing() {
        assert_eq!(CacheControl::from_headers(&HeaderMap::new()), CacheControl::default());
    }

    fn header_value() -> impl Strategy<Value = HeaderValue> {
        let pieces = prop::sample::select(vec![
            "max-age", "no-store", "public", "=", "\"", "\\", ",", ";", " ", "60", "-", "\t",
        ]);
        let text =
            prop::collection::vec(pieces, 0..16).prop_map(|pieces| pieces.concat().into_bytes());
        prop_oneof![text, prop::collection::vec(any::<u8>(), 0..64)]
            .prop_filter_map("bytes that no header can hold", |bytes| {
                HeaderValue::from_bytes(&bytes).ok()
            })
    }

    proptest! {
        #[test]
        fn any_bytes_parse_without_a_panic(value in header_value(), more in header_value()) {
            let parsed = CacheControl::parse([&value, &more].into_iter());
            prop_assert!(parsed.max_age.unwrap_or_default() <= MAX_DELTA);
        }

        #[test]
        fn a_further_line_never_relaxes(value in header_value(), more in header_value()) {
            let (one, both) = (
                CacheControl::parse([&value].into_iter()),
                CacheControl::parse([&value, &more].into_iter()),
            );
            prop_assert!(both.no_store || !one.no_store);
            if let Some(before) = one.max_age {
                prop_assert!(both.max_age.is_some_and(|after| after <= before));
            }
        }

        #[test]
        fn no_store_is_seen_behind_anything_but_a_closed_quote(value in "[^\"]{0,20}") {
            if let Ok(value) = HeaderValue::from_str(&format!("{value},no-store")) {
                prop_assert!(CacheControl::parse([&value].into_iter()).no_store);
            }
        }

        #[test]
        fn deltas_round_trip(seconds in 0_u64..=1 << 31, zeros in 0_usize..5) {
            let digits = format!("{}{seconds}", "0".repeat(zeros));
            prop_assert_eq!(delta_seconds(digits.as_bytes()), Some(secs(seconds)));
        }
    }
}
