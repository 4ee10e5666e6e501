//! Text without regard to case, as purge rules and tags are compared.
//!
//! Origins differ in what they take for the same: some compare ASCII letters alone, some all of
//! Unicode. Here more is the same than for any of them: what is the same by lower case or by upper
//! case. A purge too many costs a miss, one too few a stale response.

use std::borrow::Cow;

/// The text in the form in which it is compared. The form of a form is itself.
#[must_use]
pub fn fold(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            Cow::Owned(text.to_ascii_lowercase())
        } else {
            Cow::Borrowed(text)
        };
    }
    // Letter by letter: `str::to_lowercase` writes a sigma in two ways, by its place in the word.
    let lower = text.chars().flat_map(char::to_lowercase);
    let upper = lower.flat_map(char::to_uppercase);
    Cow::Owned(upper.flat_map(char::to_lowercase).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_that_differ_by_case_alone_are_the_same() {
        for (one, other) in [
            ("Items:A", "items:a"),
            ("ÜBER", "über"),
            ("ΟΔΟΣ", "οδος"),
            ("ΟΔΟΣ", "οδοσ"),
            ("straße", "STRASSE"),
            ("straße", "STRAẞE"),
            ("\u{212a}", "k"),
            ("\u{17f}", "S"),
            ("ǅ", "ǆ"),
        ] {
            assert_eq!(fold(one), fold(other), "{one} {other}");
        }
        assert_ne!(fold("a"), fold("b"));
        assert!(matches!(fold("items:7"), Cow::Borrowed(_)), "nothing to do takes no memory");
    }

    #[test]
    fn the_form_of_a_form_is_itself() {
        for letter in char::MIN..=char::MAX {
            let text = letter.to_string();
            let once = fold(&text);
            assert_eq!(fold(&once), once, "{letter:?}");
        }
    }
}
