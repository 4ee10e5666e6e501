//! One normal form for header values that mean the same, so that clients share variants.
//!
//! Two values may have the same form only if each client accepts the response of the other. A value
//! that cannot be parsed is left as it is; it cannot collide with a normal form, because it
//! contains what made it invalid.

use std::cmp::Reverse;

use http::header::{ACCEPT_ENCODING, ACCEPT_LANGUAGE, GetAll, HeaderName, HeaderValue};

/// The codings that origins use; `*` in `Accept-Encoding` expands to them.
const CODINGS: [&str; 4] = ["br", "deflate", "gzip", "zstd"];

/// The value of a header that a response varies on, as the key of the variant uses it. `None` if
/// the request has no such header.
///
/// `Accept-Encoding` becomes the sorted list of accepted codings; `Accept-Language` becomes the
/// languages in lower case, the preferred one first; the lines of any other header are joined
/// unchanged.
#[must_use]
pub fn normalise(name: &HeaderName, values: GetAll<'_, HeaderValue>) -> Option<Vec<u8>> {
    let mut lines = values.into_iter();
    let mut raw = lines.next()?.as_bytes().trim_ascii().to_vec();
    for line in lines {
        raw.extend_from_slice(b", ");
        raw.extend_from_slice(line.as_bytes().trim_ascii());
    }
    let normal = match *name {
        ACCEPT_ENCODING => encodings(&raw),
        ACCEPT_LANGUAGE => languages(&raw),
        _ => None,
    };
    Some(normal.map_or(raw, String::into_bytes))
}

/// One member of an `Accept-…` list: its name in lower case, and its weight in thousandths.
type Weighted = (String, u16);

fn encodings(raw: &[u8]) -> Option<String> {
    let mut members = weighted(raw)?;
    for (name, _) in &mut members {
        // RFC 9110 8.4.1.3: an older name of the same coding.
        if name == "x-gzip" {
            name.replace_range(..2, "");
        }
    }
    members.sort_unstable();
    members.dedup();
    if members.windows(2).any(|pair| pair[0].0 == pair[1].0)
        && members.iter().any(|(_, weight)| *weight == 0)
    {
        // The value may accept and refuse the same coding. Only the origin knows what that means,
        // so the value gets a variant of its own.
        return None;
    }
    let weight_of =
        |wanted: &str| members.iter().find(|(name, _)| name == wanted).map(|(_, weight)| *weight);
    let star = weight_of("*");
    let mut accepted: Vec<String> = Vec::with_capacity(members.len());
    for (name, weight) in &members {
        match (name.as_str(), *weight) {
            // Refusing a coding matters only if it would be accepted by default.
            (coding, 0) if coding == "identity" || star.is_some_and(|star| star > 0) => {
                accepted.push(format!("{coding};q=0"));
            }
            // `identity` is acceptable by default (RFC 9110 12.5.3); every other coding is not.
            ("identity", _) | (_, 0) => {}
            (coding, _) => accepted.push(coding.to_owned()),
        }
    }
    match star {
        Some(0) if weight_of("identity").is_none() => accepted.push("identity;q=0".to_owned()),
        Some(1..) => accepted.extend(
            CODINGS
                .iter()
                .filter(|coding| weight_of(coding).is_none())
                .map(|coding| (*coding).to_owned()),
        ),
        _ => {}
    }
    accepted.sort_unstable();
    accepted.dedup();
    Some(accepted.join(","))
}

fn languages(raw: &[u8]) -> Option<String> {
    let mut members = weighted(raw)?;
    // The sort is stable: equal weights keep their order.
    members.sort_by_key(|(_, weight)| Reverse(*weight));
    // A refused language must differ from one with the lowest preference.
    let names: Vec<String> = members
        .into_iter()
        .map(|(name, weight)| if weight == 0 { name + ";q=0" } else { name })
        .collect();
    Some(names.join(","))
}

/// The members of a list of names with optional weights (RFC 9110 12.4.2), or `None` if a member is
/// invalid.
fn weighted(raw: &[u8]) -> Option<Vec<Weighted>> {
    let text = str::from_utf8(raw).ok()?;
    let members = text.split(',').map(str::trim_ascii).filter(|member| !member.is_empty());
    members
        .map(|member| {
            let (name, weight) = match member.split_once(';') {
                Some((name, parameter)) => {
                    (name.trim_ascii_end(), weight(parameter.trim_ascii_start())?)
                }
                None => (member, 1000),
            };
            let valid = !name.is_empty()
                && name.bytes().all(|byte| {
                    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'*')
                });
            valid.then(|| (name.to_ascii_lowercase(), weight))
        })
        .collect()
}

/// Parses `q=0.8` as thousandths.
fn weight(parameter: &str) -> Option<u16> {
    let value = parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q="))?;
    let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
    if fraction.len() > 3 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let thousandths = format!("{fraction:0<3}").parse::<u16>().ok()?;
    match (whole, thousandths) {
        ("0", _) => Some(thousandths),
        ("1", 0) => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use http::header::ACCEPT;
    use proptest::prelude::*;

    use super::*;

    fn normal(name: &HeaderName, lines: &[&str]) -> Option<String> {
        let headers: HeaderMap = lines
            .iter()
            .map(|line| (name.clone(), HeaderValue::from_bytes(line.as_bytes()).unwrap()))
            .collect();
        normalise(name, headers.get_all(name)).map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn accept_encoding_becomes_the_sorted_accepted_codings() {
        let cases = [
            ("gzip, deflate, br, zstd", "br,deflate,gzip,zstd"),
            ("gzip, deflate, br", "br,deflate,gzip"),
            ("br;q=1.0, GZIP;q=0.8,  deflate;q=0.001", "br,deflate,gzip"),
            ("gzip;q=0, br", "br"),
            ("gzip;q=0.000", ""),
            ("x-gzip, gzip", "gzip"),
            ("gzip;q=0.5, gzip", "gzip"),
            ("gzip ; q=0.5", "gzip"),
            ("gzip, gzip, br;q=0", "gzip"),
            ("identity", ""),
            ("gzip, identity;q=0.5", "gzip"),
            ("", ""),
            ("identity;q=0, gzip", "gzip,identity;q=0"),
            ("gzip, *;q=0", "gzip,identity;q=0"),
            ("identity, gzip, *;q=0", "gzip"),
            ("*", "*,br,deflate,gzip,zstd"),
            ("*, gzip;q=0", "*,br,deflate,gzip;q=0,zstd"),
            ("gzip, dcz", "dcz,gzip"),
        ];
        for (line, expected) in cases {
            assert_eq!(normal(&ACCEPT_ENCODING, &[line]).as_deref(), Some(expected), "{line}");
        }
        assert_eq!(normal(&ACCEPT_ENCODING, &["gzip", "br"]).as_deref(), Some("br,gzip"));
        assert_eq!(normal(&ACCEPT_ENCODING, &[]), None, "absent is not empty");
    }

    #[test]
    fn accept_language_is_ordered_by_weight_then_position() {
        let cases = [
            ("de-DE, de;q=0.9, en;q=0.8", "de-de,de,en"),
            ("en;q=0.8,de;q=0.9 , FR", "fr,de,en"),
            ("en;q=0.5, de;q=0.5", "en,de"),
            ("*", "*"),
            ("en, de;q=0", "en,de;q=0"),
            ("en,,de", "en,de"),
        ];
        for (line, expected) in cases {
            assert_eq!(normal(&ACCEPT_LANGUAGE, &[line]).as_deref(), Some(expected), "{line}");
        }
        assert_eq!(normal(&ACCEPT_LANGUAGE, &["en;q=0.1", "de"]).as_deref(), Some("de,en"));
    }

    #[test]
    fn what_cannot_be_read_keeps_its_own_bytes() {
        for line in [
            "gzip;q=2",
            "gzip;q=0.1234",
            "gzip;q=",
            "gzip;q=-1",
            "gzip;x=1",
            "gzip;q=1;x",
            "gz ip",
            "gzip;q=.5",
            "g\u{fc}",
            ";q=1",
        ] {
            for name in [ACCEPT_ENCODING, ACCEPT_LANGUAGE] {
                assert_eq!(normal(&name, &[line]).as_deref(), Some(line), "{line}");
            }
        }
        assert_eq!(
            normal(&ACCEPT_ENCODING, &["gzip, GZIP;q=0"]).as_deref(),
            Some("gzip, GZIP;q=0")
        );
    }

    #[test]
    fn other_headers_are_their_lines_joined() {
        assert_eq!(
            normal(&ACCEPT, &[" text/html,*/* ", "A;q=0.1"]).as_deref(),
            Some("text/html,*/*, A;q=0.1")
        );
        assert_eq!(normal(&ACCEPT, &[""]).as_deref(), Some(""));
        assert_eq!(normal(&ACCEPT, &[]), None);
    }

    fn list() -> impl Strategy<Value = String> {
        let name = prop::sample::select(vec![
            "gzip", "br", "zstd", "deflate", "identity", "*", "x-gzip", "foo", "de", "en-GB",
            "\u{fc}",
        ]);
        let q = prop::sample::select(vec!["", ";q=0", ";q=1", ";q=0.5", "; q=0.001", ";q=x"]);
        prop::collection::vec((name, q).prop_map(|(name, q)| format!("{name}{q}")), 0..6)
            .prop_map(|members| members.join(", "))
    }

    proptest! {
        #[test]
        fn any_value_is_normalised_without_a_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                for name in [ACCEPT_ENCODING, ACCEPT_LANGUAGE, ACCEPT] {
                    let headers = HeaderMap::from_iter([(name.clone(), value.clone())]);
                    prop_assert!(normalise(&name, headers.get_all(&name)).is_some());
                }
            }
        }

        #[test]
        fn normal_forms_are_fixed_points(line in list()) {
            for name in [ACCEPT_ENCODING, ACCEPT_LANGUAGE] {
                let once = normal(&name, &[&line]).unwrap();
                prop_assert_eq!(normal(&name, &[&once]), Some(once));
            }
        }

        #[test]
        fn the_order_of_codings_does_not_matter(
            members in Just(vec!["gzip", "br;q=0.5", "zstd", "identity;q=0", "foo"]).prop_shuffle(),
        ) {
            let text = members.join(",");
            prop_assert_eq!(
                normal(&ACCEPT_ENCODING, &[&text]).unwrap(),
                "br,foo,gzip,identity;q=0,zstd"
            );
        }
    }
}
