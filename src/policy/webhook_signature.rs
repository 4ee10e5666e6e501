//! How senders of webhooks sign them: an HMAC with SHA-256 over the body, and in most forms over
//! the time at which it was sent. The forms, where their senders describe them:
//!
//! - `github`: <https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries>
//! - `shopify`: <https://shopify.dev/docs/apps/build/webhooks/subscribe/https>
//! - `slack`: <https://docs.slack.dev/authentication/verifying-requests-from-slack>
//! - `standard`: <https://github.com/standard-webhooks/standard-webhooks>, `spec/`
//! - `stripe`: <https://docs.stripe.com/webhooks#verify-manually>
//!
//! Invariants:
//! 1. *A signature is compared in constant time*, by [`hmac::Mac::verify_slice`].
//! 2. *A header that comes twice is none.* Nobody can say which of the two the sender has signed.

use std::time::Duration;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hmac::{Hmac, Mac as _};
use http::HeaderName;
use http::header::{HeaderMap, HeaderValue};
use sha2::Sha256;

use crate::clock::Wall;
use crate::secret::Secret;

pub mod presets;

/// The most signatures that one header may hold: senders add one for each of their keys.
const MAX_SIGNATURES: usize = 16;

/// What the secrets of Standard Webhooks begin with.
const STANDARD_SECRET: &str = "whsec_";

/// Base64, with its padding or without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// How a sender signs what it sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignatureForm {
    /// The header with the signature.
    pub header: HeaderName,
    /// How that header holds it.
    pub layout: SignatureLayout,
    /// How the signature is written.
    pub encoding: SignatureEncoding,
    /// The header with the time of sending, in seconds since 1970, unless it stands beside the
    /// signature.
    pub timestamp: Option<HeaderName>,
    /// The header with the id of the delivery, where that is signed.
    pub id: Option<HeaderName>,
    /// What is signed.
    pub signed: Box<[SignedPart]>,
    /// Whether the secret is base64 after `whsec_`.
    pub has_encoded_secret: bool,
}

/// How a header holds a signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignatureLayout {
    /// As its value, after this text.
    Whole(Box<str>),
    /// As `t=TIME,v1=SIGNATURE`, with a `v1` for each key.
    Named,
    /// As `v1,SIGNATURE`, with white space between those of several keys.
    Versioned,
}

/// How a signature is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureEncoding {
    /// In hexadecimal digits.
    Hex,
    /// In base64.
    Base64,
}

/// A part of what is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignedPart {
    /// This text.
    Text(Box<str>),
    /// The id of the delivery.
    Id,
    /// The time of sending, as it came.
    Timestamp,
    /// The body.
    Body,
}

/// Why a delivery does not count as signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureFault {
    /// A header of the signature is missing, comes twice, or is not in its form.
    Unsigned,
    /// It was sent too long ago, or later than now.
    Time,
    /// The signature is that of something else, or of another secret.
    Wrong,
}

/// What a delivery says of itself, in the headers of its signature.
struct SignatureHeaders<'a> {
    signatures: Vec<Vec<u8>>,
    timestamp: Option<&'a str>,
    id: Option<&'a str>,
}

impl SignatureForm {
    /// Whether the time of sending is signed, so that a window bounds how old a delivery may be.
    #[must_use]
    pub fn has_time(&self) -> bool {
        self.signed.contains(&SignedPart::Timestamp)
    }

    /// What this secret of the file signs with; `None` if it is not in the form of such secrets.
    #[must_use]
    pub fn key_of(&self, secret: &str) -> Option<WebhookKey> {
        if !self.has_encoded_secret {
            return Some(WebhookKey(Secret::new(secret), secret.as_bytes().into()));
        }
        let encoded = secret.strip_prefix(STANDARD_SECRET).unwrap_or(secret);
        let key = BASE64.decode(encoded).ok().filter(|key| !key.is_empty())?;
        Some(WebhookKey(Secret::new(secret), key.into()))
    }

    /// The signature by which one of the keys proves this delivery, which was sent within `window`
    /// of now.
    ///
    /// # Errors
    /// Why it proves nothing.
    pub fn verify(
        &self,
        headers: &HeaderMap,
        body: &[u8],
        keys: &[WebhookKey],
        (now, window): (Wall, Duration),
    ) -> Result<Vec<u8>, SignatureFault> {
        let found = self.read(headers).ok_or(SignatureFault::Unsigned)?;
        if let Some(timestamp) = found.timestamp {
            let sent = seconds(timestamp).ok_or(SignatureFault::Unsigned)?;
            let apart = Duration::from_secs(sent).abs_diff(Duration::from_millis(now.0));
            if apart > window {
                return Err(SignatureFault::Time);
            }
        }
        for key in keys {
            let signed = self.mac(key, &found, body);
            for signature in &found.signatures {
                if signed.clone().verify_slice(signature).is_ok() {
                    return Ok(signature.clone());
                }
            }
        }
        Err(SignatureFault::Wrong)
    }

    fn mac(&self, key: &WebhookKey, found: &SignatureHeaders<'_>, body: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&key.1).expect("HMAC takes keys of any size");
        for part in &self.signed {
            mac.update(match part {
                SignedPart::Text(text) => text.as_bytes(),
                SignedPart::Id => found.id.unwrap_or_default().as_bytes(),
                SignedPart::Timestamp => found.timestamp.unwrap_or_default().as_bytes(),
                SignedPart::Body => body,
            });
        }
        mac
    }

    fn read<'a>(&self, headers: &'a HeaderMap) -> Option<SignatureHeaders<'a>> {
        let value = only(headers, &self.header)?;
        let mut timestamp = match &self.timestamp {
            Some(name) => Some(only(headers, name)?),
            None => None,
        };
        let id = match &self.id {
            Some(name) => Some(only(headers, name)?),
            None => None,
        };
        let texts: Vec<&str> = match &self.layout {
            SignatureLayout::Whole(prefix) => vec![value.strip_prefix(&**prefix)?],
            SignatureLayout::Named => {
                let items = || value.split(',').filter_map(|item| item.trim().split_once('='));
                let mut times = items().filter(|(name, _)| *name == "t");
                timestamp = Some(times.next()?.1);
                if times.next().is_some() {
                    return None;
                }
                items().filter(|(name, _)| *name == "v1").map(|(_, text)| text).collect()
            }
            SignatureLayout::Versioned => {
                value.split_ascii_whitespace().filter_map(|item| item.strip_prefix("v1,")).collect()
            }
        };
        if self.has_time() && timestamp.is_none() {
            return None;
        }
        let read = |text: &&str| self.encoding.decode(text.trim());
        let signatures: Vec<Vec<u8>> = texts.iter().take(MAX_SIGNATURES).filter_map(read).collect();
        (!signatures.is_empty()).then_some(SignatureHeaders { signatures, timestamp, id })
    }
}

impl SignatureEncoding {
    fn decode(self, text: &str) -> Option<Vec<u8>> {
        match self {
            Self::Base64 => BASE64.decode(text).ok(),
            Self::Hex if text.len().is_multiple_of(2) && text.is_ascii() => {
                let digits = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
                (0..text.len()).step_by(2).map(digits).collect()
            }
            Self::Hex => None,
        }
    }
}

/// A key that a sender signs with, and the secret of the file that it was read from.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookKey(Secret, Box<[u8]>);

impl WebhookKey {
    /// The signature of these texts, one after the other.
    #[must_use]
    pub fn sign(&self, texts: &[&str]) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.1).expect("HMAC takes keys of any size");
        for text in texts {
            mac.update(text.as_bytes());
        }
        mac.finalize().into_bytes().into()
    }
}

impl std::fmt::Debug for WebhookKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // SECURITY: the key itself is never shown.
        std::fmt::Debug::fmt(&self.0, f)
    }
}

/// The value of a header that comes once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut lines = headers.get_all(name).iter().map(HeaderValue::to_str);
    match (lines.next(), lines.next()) {
        (Some(Ok(value)), None) => Some(value),
        _ => None,
    }
}

/// Seconds since 1970, in digits alone.
fn seconds(text: &str) -> Option<u64> {
    let is_number = (1..=12).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    if is_number { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::presets::SignaturePreset;
    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let line = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value"))
        };
        lines.iter().map(line).collect()
    }

    /// A form, a secret, headers, a body and a time.
    type SignedExample =
        (SignaturePreset, &'static str, &'static [(&'static str, &'static str)], &'static str, u64);

    /// What each sender shows as an example.
    const EXAMPLES: [SignedExample; 3] = [
        (
            SignaturePreset::GitHub,
            "It's a Secret to Everybody",
            &[(
                "x-hub-signature-256",
                "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
            )],
            "Hello, World!",
            0,
        ),
        (
            SignaturePreset::Slack,
            "8f742231b10e8888abcd99yyyzzz85a5",
            &[
                ("x-slack-request-timestamp", "1531420618"),
                (
                    "x-slack-signature",
                    "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
                ),
            ],
            "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&\
             channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&\
             command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2F\
             commands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&\
             trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c",
            1_531_420_618,
        ),
        (
            SignaturePreset::Standard,
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            &[
                ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
                ("webhook-timestamp", "1614265330"),
                (
                    "webhook-signature",
                    "v1a,AAAA v1,AAAA v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
                ),
            ],
            "{\"test\": 2432232314}",
            1_614_265_330,
        ),
    ];

    const WINDOW: Duration = Duration::from_mins(5);

    fn verify(
        preset: SignaturePreset,
        secret: &str,
        lines: &HeaderMap,
        (body, at): (&str, u64),
    ) -> Result<(), SignatureFault> {
        let form = preset.form();
        let keys = [form.key_of("another secret").into_iter(), form.key_of(secret).into_iter()];
        let keys: Vec<WebhookKey> = keys.into_iter().flatten().collect();
        form.verify(lines, body.as_bytes(), &keys, (Wall(at * 1000), WINDOW)).map(|_| ())
    }

    #[test]
    fn the_examples_of_the_senders_are_signed() {
        for (preset, secret, lines, body, at) in EXAMPLES {
            let lines = headers(lines);
            assert_eq!(verify(preset, secret, &lines, (body, at)), Ok(()), "{preset:?}");
            for (secret, body) in [(secret, "other"), ("c2VjcmV0c2VjcmV0", body)] {
                let refused = verify(preset, secret, &lines, (body, at));
                assert_eq!(refused, Err(SignatureFault::Wrong), "{preset:?}");
            }
            if preset.form().has_time() {
                for (now, expected) in [
                    (at + 300, Ok(())),
                    (at - 300, Ok(())),
                    (at + 301, Err(SignatureFault::Time)),
                    (at - 301, Err(SignatureFault::Time)),
                ] {
                    assert_eq!(verify(preset, secret, &lines, (body, now)), expected);
                }
            }
            for name in lines.keys() {
                let mut twice = lines.clone();
                twice.append(name, lines[name].clone());
                let mut without = lines.clone();
                without.remove(name);
                for lines in [twice, without] {
                    let refused = verify(preset, secret, &lines, (body, at));
                    assert_eq!(refused, Err(SignatureFault::Unsigned), "{preset:?} {name}");
                }
            }
        }
    }

    fn signed(form: &SignatureForm, secret: &str, parts: &[&str]) -> Vec<u8> {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&form.key_of(secret).expect("a key").1).expect("a key");
        for part in parts {
            mac.update(part.as_bytes());
        }
        mac.finalize().into_bytes().to_vec()
    }

    #[test]
    fn stripe_may_sign_with_several_keys_and_shopify_writes_base64() {
        let (form, secret) = (SignaturePreset::Stripe.form(), "whsec_0123456789abcdef");
        let good = crate::units::hex(&signed(&form, secret, &["12", ".", "{}"]));
        let bad = "0".repeat(64);
        for (value, expected) in [
            (format!("t=12,v1={good},v0={bad}"), Ok(())),
            (format!("t=12, v1={bad}, v1={good}"), Ok(())),
            (format!("t=12,v0={good}"), Err(SignatureFault::Unsigned)),
            (format!("v1={good}"), Err(SignatureFault::Unsigned)),
            (format!("t=12,t=12,v1={good}"), Err(SignatureFault::Unsigned)),
            (format!("t=+12,v1={good}"), Err(SignatureFault::Unsigned)),
            (format!("t=12,v1={bad}"), Err(SignatureFault::Wrong)),
            (format!("t=13,v1={good}"), Err(SignatureFault::Wrong)),
            (format!("t=12,v1={}{good}", "v1=00,".repeat(16)), Err(SignatureFault::Wrong)),
            ("t=12,v1=zz".to_owned(), Err(SignatureFault::Unsigned)),
            (String::new(), Err(SignatureFault::Unsigned)),
        ] {
            let lines = headers(&[("stripe-signature", &value)]);
            let found = verify(SignaturePreset::Stripe, secret, &lines, ("{}", 12));
            assert_eq!(found, expected, "{value}");
        }
        let form = SignaturePreset::Shopify.form();
        let text = BASE64.encode(signed(&form, secret, &["{}"]));
        let lines = headers(&[("x-shopify-hmac-sha256", &text)]);
        assert_eq!(verify(SignaturePreset::Shopify, secret, &lines, ("{}", 0)), Ok(()));
    }

    #[test]
    fn no_key_is_shown() {
        let shown = format!("{:?}", SignaturePreset::GitHub.form().key_of("hunter2hunter2"));
        assert!(!shown.contains("hunter2") && !shown.contains("104"), "{shown}");
        assert_eq!(SignaturePreset::Standard.form().key_of("whsec_%%%"), None);
    }
}
