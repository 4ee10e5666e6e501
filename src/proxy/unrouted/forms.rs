//! Looks for the token of a form in a page while it streams: a page without one may be stored,
//! whatever cookie its reader has.
//!
//! Bounded: a few bytes of the end of each piece are kept.

/// What the names of fields with such a token have in them, in lower case: those of Django, Rails,
/// Laravel, Symfony, `WordPress`, `ASP.NET` and others.
const SIGNS: [&[u8]; 7] =
    [b"csrf", b"xsrf", b"authenticity", b"verificationtoken", b"_token", b"nonce", b"antiforgery"];
/// The longest of them, in bytes.
const LONGEST: usize = 17;

/// The search.
#[derive(Debug, Default)]
pub(super) struct FormSearch {
    has_found: bool,
    /// The end of what came before, in lower case.
    end: Vec<u8>,
}

impl FormSearch {
    /// The next bytes.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        if self.has_found {
            return;
        }
        self.end.extend(bytes.iter().map(u8::to_ascii_lowercase));
        let text = &self.end;
        self.has_found = SIGNS.iter().any(|sign| text.windows(sign.len()).any(|at| at == *sign));
        let from = self.end.len().saturating_sub(LONGEST - 1);
        self.end.drain(..from);
    }

    /// Whether there is one so far.
    pub(super) const fn has_found(&self) -> bool {
        self.has_found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_wherever_the_pieces_of_a_page_end() {
        for (page, expected) in [
            ("<input name=csrfmiddlewaretoken>", true),
            ("<input name=__RequestVerificationToken>", true),
            ("<input name=_wpnonce value=1>", true),
            ("<meta name=\"CSRF-Token\">", true),
            ("<h1>Hello, ann</h1> a token of respect", false),
        ] {
            for length in 1..=page.len() {
                let mut search = FormSearch::default();
                page.as_bytes().chunks(length).for_each(|piece| search.update(piece));
                assert_eq!(search.has_found(), expected, "{page} by {length}");
                assert!(search.end.len() < LONGEST);
            }
        }
        assert!(SIGNS.iter().all(|sign| sign.len() <= LONGEST));
    }
}
