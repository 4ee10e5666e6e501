//! The bytes of a request target that no URI may have and that clients send nevertheless: which of
//! them the types of the HTTP library refuse, and how they are escaped.

use std::borrow::Cow;
use std::str;

/// Whether `http::Uri` refuses this ASCII byte of a target, although servers read it: a raw `"`,
/// `<`, `>` or backtick. The rules for paths and queries differ.
#[must_use]
pub const fn is_refused(byte: u8, in_query: bool) -> bool {
    match byte {
        b'<' | b'>' => true,
        b'"' => in_query,
        b'`' => !in_query,
        _ => false,
    }
}

/// Appends an escape, with its digits in upper case (RFC 3986 2.1).
pub fn push_escape(out: &mut Vec<u8>, byte: u8) {
    const DIGITS: [u8; 16] = *b"0123456789ABCDEF";
    out.extend([b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
}

/// Where the bytes are that must be escaped in a piece of a target, which ends with a character
/// (see [`unfinished`]): those that are refused, and those that are not UTF-8. `in_query` is where
/// the piece begins, and afterwards where it ends.
pub fn find_refused(piece: &[u8], in_query: &mut bool, mut found: impl FnMut(usize)) {
    let mut at = 0;
    for chunk in piece.utf8_chunks() {
        for byte in chunk.valid().bytes() {
            *in_query |= byte == b'?';
            if is_refused(byte, *in_query) {
                found(at);
            }
            at += 1;
        }
        for _ in chunk.invalid() {
            found(at);
            at += 1;
        }
    }
}

/// How many bytes at the end of a piece are the start of a character whose rest may follow.
#[must_use]
pub fn unfinished(piece: &[u8]) -> usize {
    // A character has four bytes at most, so three of them may be here.
    let start = piece.len().saturating_sub(3);
    (start..piece.len())
        .find(|&at| {
            // The first byte of a character, with all that follows it in the piece.
            piece[at] >= 0xc0
                && str::from_utf8(&piece[at..])
                    .is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
        })
        .map_or(0, |at| piece.len() - at)
}

/// A target as the flow carries it: with the bytes escaped that `http::Uri` refuses.
#[must_use]
pub fn carried_target(target: &str) -> Cow<'_, str> {
    let (mut places, mut in_query) = (Vec::new(), false);
    find_refused(target.as_bytes(), &mut in_query, |at| places.push(at));
    if places.is_empty() {
        return Cow::Borrowed(target);
    }
    let carried = escaped(target.as_bytes(), &places);
    Cow::Owned(String::from_utf8_lossy(&carried).into_owned())
}

/// These bytes with those at these places escaped. The places are in ascending order.
#[must_use]
pub fn escaped(bytes: &[u8], places: &[usize]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 2 * places.len());
    let mut start = 0;
    for &at in places {
        out.extend_from_slice(&bytes[start..at]);
        push_escape(&mut out, bytes[at]);
        start = at + 1;
    }
    out.extend_from_slice(&bytes[start..]);
    out
}

#[cfg(test)]
mod tests {
    use http::Uri;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_what_is_refused_is_escaped() {
        for (raw, carried) in [
            ("/a\"b?c=\"d\"", "/a\"b?c=%22d%22"),
            ("/<a>`b`?`<>`", "/%3Ca%3E%60b%60?`%3C%3E`"),
            ("/ü?ü={a|b}^\\", "/ü?ü={a|b}^\\"),
            ("/a?b?\"", "/a?b?%22"),
        ] {
            assert_eq!(carried_target(raw), carried);
            assert!(carried.parse::<Uri>().is_ok(), "{carried}");
        }
    }

    #[test]
    fn a_character_that_is_cut_is_unfinished_and_one_that_cannot_be_is_not() {
        for (piece, count) in [
            (&b"/a"[..], 0),
            ("ü".as_bytes(), 0),
            (b"/\xc3", 1),
            (b"/\xe2\x82", 2),
            (b"/\xf0\x9f\x98", 3),
            (b"\x9f\x98", 0),
            (b"/\xff", 0),
            (b"/\xe2\xff", 0),
            (b"/\xc0", 0),
            (b"\xc3\xc3", 1),
            (b"", 0),
        ] {
            assert_eq!(unfinished(piece), count, "{piece:?}");
        }
    }

    proptest! {
        /// Whatever a client sends behind the method, apart from what ends the target, is a target
        /// that the library takes.
        #[test]
        fn what_is_carried_is_a_uri(rest in proptest::collection::vec(
            prop_oneof![3 => 0x21..=0x7eu8, 1 => 0x80..=0xffu8, 1 => Just(b'?')], 0..40)
        ) {
            let raw: Vec<u8> = [&b"/"[..], &rest].concat();
            let (mut places, mut in_query) = (Vec::new(), false);
            find_refused(&raw, &mut in_query, |at| places.push(at));
            let carried = escaped(&raw, &places);
            prop_assert!(Uri::try_from(&carried[..]).is_ok(), "{:?}", raw);
            let decoded: Vec<u8> = percent_encoding::percent_decode(&carried).collect();
            let meant: Vec<u8> = percent_encoding::percent_decode(&raw).collect();
            prop_assert_eq!(decoded, meant, "it means the same");
        }
    }
}
