//! The forms of signatures that have a name, and those that a file describes.

use http::HeaderName;

use super::{SignatureEncoding, SignatureForm, SignatureLayout, SignedPart};

/// A form of signatures that has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignaturePreset {
    /// That of GitHub.
    GitHub,
    /// That of Shopify.
    Shopify,
    /// That of Slack.
    Slack,
    /// Standard Webhooks, which many senders share.
    Standard,
    /// That of Stripe.
    Stripe,
}

impl SignaturePreset {
    /// How it signs.
    #[must_use]
    pub fn form(self) -> SignatureForm {
        use SignedPart::{Body, Id, Timestamp};

        let text = |text: &str| SignedPart::Text(text.into());
        let plain = |header, prefix: &str, encoding| SignatureForm {
            header: HeaderName::from_static(header),
            layout: SignatureLayout::Whole(prefix.into()),
            encoding,
            timestamp: None,
            id: None,
            signed: [Body].into(),
            has_encoded_secret: false,
        };
        match self {
            Self::GitHub => plain("x-hub-signature-256", "sha256=", SignatureEncoding::Hex),
            Self::Shopify => plain("x-shopify-hmac-sha256", "", SignatureEncoding::Base64),
            Self::Slack => SignatureForm {
                timestamp: Some(HeaderName::from_static("x-slack-request-timestamp")),
                signed: [text("v0:"), Timestamp, text(":"), Body].into(),
                ..plain("x-slack-signature", "v0=", SignatureEncoding::Hex)
            },
            Self::Standard => SignatureForm {
                layout: SignatureLayout::Versioned,
                timestamp: Some(HeaderName::from_static("webhook-timestamp")),
                id: Some(HeaderName::from_static("webhook-id")),
                signed: [Id, text("."), Timestamp, text("."), Body].into(),
                has_encoded_secret: true,
                ..plain("webhook-signature", "", SignatureEncoding::Base64)
            },
            Self::Stripe => SignatureForm {
                layout: SignatureLayout::Named,
                signed: [Timestamp, text("."), Body].into(),
                ..plain("stripe-signature", "", SignatureEncoding::Hex)
            },
        }
    }
}

/// The parts of a text with `{timestamp}` and `{body}` in it; `None` if it is not one that signs
/// the whole body once.
#[must_use]
pub fn signed_parts(text: &str) -> Option<Box<[SignedPart]>> {
    let (mut parts, mut rest) = (Vec::new(), text);
    while let Some(at) = rest.find('{') {
        let (before, found) = rest.split_at(at);
        if !before.is_empty() {
            parts.push(SignedPart::Text(before.into()));
        }
        let (part, after) = [("{timestamp}", SignedPart::Timestamp), ("{body}", SignedPart::Body)]
            .into_iter()
            .find_map(|(name, part)| Some((part, found.strip_prefix(name)?)))?;
        parts.push(part);
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(SignedPart::Text(rest.into()));
    }
    let count = |part| parts.iter().filter(|one| **one == part).count();
    let fits = count(SignedPart::Body) == 1 && count(SignedPart::Timestamp) <= 1;
    fits.then(|| parts.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_signed_has_the_body_once() {
        let parts = signed_parts("v1:{timestamp}.{body}").expect("it has a body");
        assert_eq!(parts.len(), 4);
        assert_eq!(signed_parts("{body}").as_deref(), Some(&[SignedPart::Body][..]));
        for text in [
            "",
            "{timestamp}",
            "{body}{body}",
            "{timestamp}{timestamp}{body}",
            "{id}{body}",
            "{body",
        ] {
            assert_eq!(signed_parts(text), None, "{text}");
        }
    }
}
